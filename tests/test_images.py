"""Images that claim more than they hold, rare kinds of each format, and what reading them may cost."""
import io
import math
import multiprocessing
import resource
import struct
import sys
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from fer_nb.images import MAX_PIXELS, ImageError, image_size, load_image, read_gray, read_image

SIDE = 64
LIMIT_MB = 300  # of memory that a hostile file of a few MB may cost


@pytest.fixture(scope='module')
def portrait(photos) -> Image.Image:
    return Image.open(photos[1]).convert('RGB').resize((SIDE, SIDE))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    image.save(out := io.BytesIO(), kind, **options)
    return out.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))


def png(*chunks: bytes, width: int = SIDE, height: int = SIDE) -> bytes:
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0))
    return b''.join([b'\x89PNG\r\n\x1a\n', header, *chunks, chunk(b'IEND', b'')])


GRAY = chunk(b'IDAT', zlib.compress(bytes(SIDE * (SIDE + 1))))


def tiff(entries: dict[int, tuple[int, int, int]], rest: bytes = b'') -> bytes:
    "A TIFF of these tags: {tag: (type, count, value or place)}; `rest` follows at place 4096."
    directory = b''.join(struct.pack('<HHII', tag, *entry) for tag, entry in sorted(entries.items()))
    head = b'II*\0' + struct.pack('<IH', 8, len(entries)) + directory + bytes(4)
    return head.ljust(4096, b'\0') + rest


def tags(width: int = SIDE, height: int = SIDE, compression: int = 1, **more: tuple) -> dict:
    "The tags of a gray TIFF whose only strip begins at 4096."
    values = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 273: 4096, 277: 1, 278: height, 279: SIDE**2}
    return {tag: (4, 1, value) for tag, value in values.items()} | {int(tag[1:]): entry for tag, entry in more.items()}


def overlapping_exif(size: int) -> bytes:
    "EXIF whose tags all claim the whole of it."
    count = size // 12 - 2
    entries = b''.join(struct.pack('<HHII', 1000 + i, 7, size - 100, 0) for i in range(min(count, 60_000)))
    return (b'II*\0' + struct.pack('<IH', 8, min(count, 60_000)) + entries).ljust(size, b'\0')


def jpeg_with(portrait: Image.Image, *segments: bytes) -> bytes:
    "A JPEG with these bytes behind its first two."
    data = encoded(portrait, 'JPEG')
    return data[:2] + b''.join(segments) + data[2:]


def segment(mark: int, body: bytes) -> bytes: return struct.pack('>BBH', 0xFF, mark, len(body) + 2) + body


def with_size(data: bytes, width: int, height: int) -> bytes:
    "A JPEG that claims another size."
    at = data.index(b'\xff\xc0')
    return data[:at + 5] + struct.pack('>HH', height, width) + data[at + 9:]


def hostile(portrait: Image.Image) -> dict[str, tuple[bytes, str]]:
    "{name: (file, a part of the message; empty where the image may be read)}"
    jpeg, gif, webp = (encoded(portrait, kind) for kind in ('JPEG', 'GIF', 'WEBP'))
    frame = gif.index(b'\x2c\0\0\0\0')
    comments = b'!\xfe' + b'\xff' + bytes(range(1, 256)) + (b'\xff' + bytes(255)) * 30_000 + b'\0'
    lzma = zlib.compress(bytes(1 << 28))
    vp8x = b'VP8X' + struct.pack('<I', 10) + bytes(4) + (16382).to_bytes(3, 'little') * 2
    offsets = struct.pack('<I', 4096) * 3_000_000
    exif = overlapping_exif(1 << 20)
    return {
        'png of 900 megapixels': (png(GRAY, width=30_000, height=30_000), '30000 x 30000 pixels'),
        'png part of 4 GB': (png(struct.pack('>I', 0xFFFFFFF0) + b'IDAT' + bytes(8)), 'truncated'),
        'png text that unpacks to 256 MB': (png(chunk(b'zTXt', b'a\0\0' + lzma), GRAY), ''),
        'png profile that unpacks to 256 MB': (png(chunk(b'iCCP', b'a\0\0' + lzma), GRAY), ''),
        'png of empty parts': (png(*[chunk(b'IDAT', b'')] * 200_000), 'too many parts'),
        'png with endless EXIF': (png(chunk(b'eXIf', exif), GRAY), ''),
        'png that unpacks to more than its size': (png(chunk(b'IDAT', lzma)), ''),
        'jpeg of 4 gigapixels': (with_size(jpeg, 65500, 65500), '65500 x 65500 pixels'),
        'jpeg of no pixels': (with_size(jpeg, 0, 0), 'JPEG'),
        'jpeg of zeros': (jpeg[:2] + b'\xff' + bytes(20_000_000) + jpeg[2:], 'too many parts'),
        'jpeg with endless EXIF': (
            jpeg_with(portrait, *(segment(0xE1, b'Exif\0\0' + exif[i:i + 65000]) for i in range(0, 1 << 20, 65000))), '',
        ),
        'gif with a frame beyond its border': (gif[:frame + 5] + b'\xff\xff\xff\xff' + gif[frame + 9:], 'too many pixels'),
        'gif with endless comments': (gif[:frame] + comments + gif[frame:], 'too many parts'),
        'webp of 268 megapixels': (b'RIFF' + struct.pack('<I', len(webp) + 10) + b'WEBP' + vp8x + webp[12:], 'too many pixels'),
        'bmp of 900 megapixels': (
            encoded(portrait, 'BMP')[:18] + struct.pack('<ii', 30_000, 30_000) + encoded(portrait, 'BMP')[26:],
            '30000 x 30000 pixels',
        ),
        'ppm of 900 megapixels': (b'P6 30000 30000 255 ' + bytes(100), '30000 x 30000 pixels'),
        'tiff of 900 megapixels': (tiff(tags(30_000, 30_000), bytes(SIDE**2)), '30000 x 30000 pixels'),
        'tiff with a giant tile': (
            tiff(tags(compression=8, t322=(4, 1, 60_000), t323=(4, 1, 60_000), t324=(4, 1, 4096), t325=(4, 1, 99)),
                 zlib.compress(bytes(1 << 20))), 'tiles have 60000 x 60000 pixels',
        ),
        'tiff with giant strips': (tiff(tags(compression=8, t278=(4, 1, 2**31)), zlib.compress(bytes(1 << 28))), ''),
        'tiff of 3 million strips': (tiff(tags(t273=(4, 3_000_000, 4096)), offsets), 'too many parts'),
        'tiff whose tags overlap': (
            tiff(tags() | {1000 + i: (7, 1 << 20, 4096) for i in range(300)}, bytes(1 << 20)), '',
        ),
        'tiff whose directory is its end': (tiff(tags())[:20], 'TIFF'),
    }


def cost(data: bytes) -> tuple[str, float, float]:  # message, seconds, MB
    "What reading costs, in a process of its own."
    megabytes = 1 << (20 if sys.platform == 'darwin' else 10)
    warnings.simplefilter('ignore')
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    try:
        image_size(data)
        read_image(data)
        message = ''
    except ImageError as e: message = str(e)
    return message, time.perf_counter() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / megabytes


NAMES = list(hostile(Image.new('RGB', (SIDE, SIDE))))


@pytest.fixture(scope='module')
def cases(portrait) -> dict: return hostile(portrait)


@pytest.mark.parametrize('name', NAMES)
def test_hostile(name, cases):
    "Neither memory nor time follows what a file claims."
    data, reason = cases[name]
    with multiprocessing.get_context('spawn').Pool(1) as pool: message, seconds, megabytes = pool.apply(cost, (data,))
    assert reason in message if reason else True, message
    assert '\n' not in message and len(message) < 300
    assert megabytes < LIMIT_MB and seconds < 2, (message, megabytes, seconds)
