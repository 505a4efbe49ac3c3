"""Changed files for every reader: `python tests/fuzz.py FAMILY [SECONDS [SEED]]`; SECONDS 0: one case alone.

A reader may refuse a file by an error of its own, and by nothing else; it may not take long, nor much memory. What goes
wrong is printed with the seed that makes the same file again. A crash is seen by the process that started this one: the
last seed is in the file that the variable SEED_FILE names.
"""
import faulthandler
import io
import json
import os
import random
import re
import resource
import signal
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from waiting import slowness

MOST_SECONDS, MOST_MB = 5, 400  # of one case
NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
TOKENS = [
    b'"', b',', b';', b'\t', b'\0', b'\n', b'\r', b'\n\n\n', b',,,', b'nan', b'-1', b'1e309', b'0x1', b'9' * 5000,
    b'""', b"'", b'{', b'}', b'[' * 50, b']', b': ', b'- ', b'&a ', b'*a', b'<<: ', b'!!python/object:os.system ',
    b'!!binary ', b'? ', b'|\n', b'---\n', b'null', b'true', b'{}', b'[[[[]]]]', b'"\\ud800"', b'\xff\xfe',
    b'\xef\xbb\xbf', b'\xc3', b'a' * 70_000, b'../../x', b'%', b'${HOME}', b'happy',
    b'Usage', b'emotion', b'pixels',
]


def changed(data: bytes, rng: random.Random, others: list[bytes], text: bool = False) -> bytes:
    "A file with one to eight changes."
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        size = len(out)
        at = rng.randrange(min(size, 600) if rng.random() < .4 else size) if size else 0
        length = rng.choice([1, 2, 4, 16, 256, 4096])
        number = rng.choice([-1, 0, 1]) + rng.choice(NUMBERS) & 0xFFFFFFFF
        match rng.randrange(5, 12) if text and rng.random() < .5 else rng.randrange(9):
            case 0: out[at:at + 1] = bytes([out[at] ^ 1 << rng.randrange(8)]) if size else b''
            case 1: out[at:at + length] = rng.randbytes(len(out[at:at + length]))
            case 2: out[at:at + length] = bytes(len(out[at:at + length]))
            case 3: out[at:at + 4] = struct.pack(rng.choice('<>') + 'I', number)
            case 4: out[at:at + 2] = struct.pack(rng.choice('<>') + 'H', number & 0xFFFF)
            case 5: del out[at:at + length]
            case 6: out[at:at] = out[at:at + length] * rng.choice([1, 1, 1, 30])
            case 7: del out[at:]
            case 8:
                other = rng.choice(others)
                start = rng.randrange(max(1, len(other)))
                out[at:at + length] = other[start:start + rng.choice([length, 100_000])]
            case _: out[at:at + rng.choice([0, 1, 5])] = rng.choice(TOKENS)
    return bytes(out)


def with_checksums(data: bytes) -> bytes:
    "A PNG whose parts have the checksums that fit."
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at:at + 4])
        if end + 4 > len(out): break
        out[end:end + 4] = struct.pack('>I', zlib.crc32(out[at + 4:end]))
        at = end + 4
    return bytes(out)


@cache
def face(side: int = 64) -> Any:
    from PIL import Image

    values = np.random.default_rng(0).normal(128, 20, (side, side, 3)) + np.linspace(0, 99, side)[:, None, None]
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def encoded(image: Any, kind: str, **options) -> bytes:
    image.copy().save(out := io.BytesIO(), kind, **options)
    return out.getvalue()


@cache
def still_images() -> list[bytes]:
    "Every format, in several variants."
    from PIL import Image

    rgb = face()
    gray, clear, palette = rgb.convert('L'), rgb.convert('RGBA'), rgb.convert('P')
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    exif = rgb.getexif()
    exif[274] = 6
    files = [
        encoded(rgb, 'JPEG', exif=exif), encoded(gray, 'JPEG'), encoded(rgb, 'JPEG', progressive=True),
        encoded(rgb.convert('CMYK'), 'JPEG'), encoded(rgb, 'JPEG', restart_marker_rows=1),
        encoded(rgb, 'PNG', exif=exif), encoded(palette, 'PNG', transparency=3), encoded(gray.convert('1'), 'PNG'),
        encoded(deep, 'PNG'), encoded(clear, 'PNG'), encoded(clear.convert('LA'), 'PNG'), encoded(palette, 'GIF'),
        encoded(rgb, 'BMP'), encoded(palette, 'BMP'), encoded(rgb, 'WEBP', exif=exif),
        encoded(clear, 'WEBP', lossless=True), encoded(rgb, 'AVIF'), encoded(rgb, 'PPM'), encoded(gray, 'PPM'),
        *(encoded(rgb, 'TIFF', compression=c) for c in (None, 'tiff_lzw', 'tiff_deflate', 'packbits', 'jpeg', 'zstd')),
        encoded(gray.convert('F'), 'TIFF'), encoded(deep, 'TIFF'), encoded(clear, 'TIFF', exif=exif),
    ]
    if not find_spec('pillow_heif'): return files
    import pillow_heif

    pillow_heif.from_pillow(rgb).save(file := io.BytesIO(), quality=80)
    return [*files, file.getvalue()]


@cache
def animations() -> list[bytes]:
    def frames(size: tuple[int, int] = (64, 64)) -> dict:
        return dict(save_all=True, append_images=[face().rotate(90), face().rotate(180).resize(size)])

    return [
        encoded(face(), 'PNG', **frames()), encoded(face().convert('P'), 'GIF', **frames((40, 50))),
        *(encoded(face(), kind, **frames()) for kind in ('WEBP', 'MPO', 'TIFF', 'AVIF')),
    ]


def read_image_file(data: bytes) -> None:
    from fer_nb.images import image_size, load_image

    image_size(data)
    load_image(data, 1_000_000)


def image_case(files: Callable[[], list[bytes]]) -> Callable[[random.Random, Path], None]:
    def case(rng: random.Random, folder: Path) -> None:
        data = changed(rng.choice(files()), rng, files())
        read_image_file(with_checksums(data) if data[:4] == b'\x89PNG' and rng.random() < .7 else data)

    return case


@cache
def tables() -> list[bytes]:
    rng = np.random.default_rng(0)
    splits = ['Training', 'PublicTest', 'PrivateTest']
    rows = [(i, ' '.join(map(str, rng.integers(0, 256, 2304))), split) for i, split in enumerate(splits)]
    full = 'emotion,pixels,Usage\n' + ''.join(f'{e},"{p}",{u}\n' for e, p, u in rows)
    kaggle = 'emotion,pixels\r\n' + ''.join(f'{e},{p}\r\n' for e, p, _ in rows)
    named = 'Pixels;Emotion\n' + ''.join(f'"{p}";happy\n' for _, p, _ in rows)
    return [full.encode(), kaggle.encode(), named.encode(), full.encode('utf-16')]


def table_case(rng: random.Random, folder: Path) -> None:
    from fer_nb.datasets import load_dataset

    data = changed(rng.choice(tables()), rng, tables(), text=True)
    if packed := rng.random() < .2:
        import gzip
        data = gzip.compress(data, 1)
        if rng.random() < .5: data = changed(data, rng, [data])
    path = folder / ('fer2013.csv.gz' if packed else 'fer2013.csv')
    path.write_bytes(data)
    load_dataset(path)


def members(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    "Files of a class folder, some of them odd."
    odd = ['', '/', '..', '../x.jpg', '/x.jpg', 'a' * 300, 'x/' * 60, 'x/' * 5000, 'a\nb', 'a\0b', 'a.zip']
    for i in range(rng.randint(1, 8)):
        split = rng.choice(['', '', 'train/', 'test/', 'Training/Training/'])
        suffix = rng.choice(['.jpg', '.png', '', '.csv'])
        name = f"{split}{rng.choice(['happy', 'sad', 'Angry', 'face', 'train'])}/{i}{suffix}"
        if rng.random() < .15: name = rng.choice(odd) + (name if rng.random() < .5 else '')
        data = rng.choice(still_images())
        yield name, changed(data, rng, still_images()) if rng.random() < .3 else data


def zip_of(rng: random.Random) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), 'w', rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as z:
        for name, data in members(rng): z.writestr(zipfile.ZipInfo(name or 'a'), data)
    return file.getvalue()


def tar_of(rng: random.Random) -> bytes:
    with tarfile.open(fileobj=(file := io.BytesIO()), mode=rng.choice(['w', 'w:gz', 'w:xz', 'w:bz2'])) as t:
        for name, data in members(rng):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if rng.random() < .1: info.type, info.linkname = rng.choice(b'12356xgL').to_bytes(), 'gone'
            t.addfile(info, io.BytesIO(data))
    return file.getvalue()


def archive_case(rng: random.Random, folder: Path) -> None:
    from fer_nb.datasets import load_dataset

    is_zip = rng.random() < .5
    data = (zip_of if is_zip else tar_of)(rng)
    if rng.random() < .7: data = changed(data, rng, [data])
    path = folder / ('faces.zip' if is_zip else 'faces.tar')
    path.write_bytes(data)
    load_dataset(path)


@cache
def model() -> tuple[bytes, dict]:
    "The flat buffer and the metadata of the smaller shipped model."
    from fer_nb.model_files import find_model, read_model

    meta, weights = read_model(find_model('s'))
    return weights, meta


def odd_value(rng: random.Random, depth: int = 0) -> Any:
    deep = [[odd_value(rng, depth + 1)], {'a': odd_value(rng, depth + 1)}] if depth < 3 else []
    texts = ['', 'a' * 9999, '\ud800', '\n# x', '<b>', ['a'] * 999]
    return rng.choice([None, True, 0, -1, 1e308, float('nan'), 10**400, [], {}, *texts, *deep])


def model_case(rng: random.Random, folder: Path) -> None:
    from fer_nb.core import FerError
    from fer_nb.model_files import MEMBER, read_metadata, read_model

    weights, meta = model()
    path, way = folder / 'model.tflite', rng.randrange(3)
    if way == 0:  # other weights: the checksum must not fit
        whole = changed(weights, rng, [weights])
        meta, fits = dict(meta), whole == weights
    else: whole, meta, fits = weights, dict(meta), True
    text = json.dumps(meta)
    if way == 1:
        for _ in range(rng.randint(1, 3)): meta[rng.choice([*meta, 'scaling', 'more'])] = odd_value(rng)
        text = json.dumps(meta)
        if rng.random() < .3: text = changed(text.encode(), rng, [text.encode()], text=True)
    (buffer := io.BytesIO(whole)).seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, 'a') as z: z.writestr(zipfile.ZipInfo(MEMBER), text)
    data = buffer.getvalue()
    if way == 2:  # the archive behind the weights
        data = data[:len(weights)] + changed(data[len(weights):], rng, [data[len(weights):]])
    path.write_bytes(data)
    try: _, got = read_model(path)
    except FerError: return
    if not fits or way != 1 and got != weights: raise AssertionError('changed weights are taken for the right ones')
    read_metadata(path)
    from fer_nb import Recognizer

    Recognizer(path).recognize_crops(np.zeros((1, 48, 48), np.uint8))


@cache
def configs(root: Path = Path(__file__).parents[1]) -> list[bytes]:
    files = [*root.glob('models/*.yaml'), *root.glob('models/*/*.yaml')]
    return [f.read_bytes() for f in sorted(files)] + [json.dumps(dict(epochs=3, learning_rate=1e-3)).encode()]


def config_case(rng: random.Random, folder: Path) -> None:
    from fer_nb.core import FerError
    from fer_nb.experiments import read_experiment
    from fer_nb.train_config import read_config

    data = changed(rng.choice(configs()), rng, configs(), text=True)
    (path := folder / rng.choice(['recipe.yaml', 'recipe.json'])).write_bytes(data)
    try: read_config(path)
    except FerError: pass
    read_experiment(path)


def report_case(rng: random.Random, folder: Path) -> None:
    from fer_nb.reports import read_test_log

    text = json.dumps([dict(model='m', reason='final', accuracy=.7)]).encode()
    (path := folder / 'test_log.json').write_bytes(changed(text, rng, configs(), text=True))
    read_test_log(path)


def fail(rng: random.Random, folder: Path) -> None: raise KeyError('an error that no reader may raise')
def crash(rng: random.Random, folder: Path) -> None: os.kill(os.getpid(), signal.SIGSEGV)
def fill(rng: random.Random, folder: Path) -> None: sys.modules[f'_{rng.random()}'] = np.ones(2**29, np.uint8)


FAMILIES: dict[str, Callable[[random.Random, Path], None]] = {
    'images': image_case(still_images), 'animations': image_case(animations),
    'tables': table_case, 'archives': archive_case,
    'models': model_case, 'configs': config_case, 'reports': report_case,
    'fail': fail, 'crash': crash, 'fill': fill,  # the last three show that what goes wrong is found
}


def peak() -> float:  # MB
    "The most memory that this process has had; where the system counts that of its parent, too, this is told apart."
    status = Path('/proc/self/status')
    if status.exists(): return int(re.search(r'VmHWM:\s+(\d+) kB', status.read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == 'darwin' else 1024)


def run_case(family: str, seed: int, folder: Path) -> str:  # what went wrong
    from fer_nb.core import FerError

    start, before = time.thread_time(), peak()
    try: FAMILIES[family](random.Random(f'{family} {seed}'), folder)
    except (FerError, FileNotFoundError) as e:
        if len(str(e)) > 2000: return f'a message of {len(str(e))} characters: {e!s:.200}'
    except BaseException: return traceback.format_exc(limit=-6)
    if (seconds := time.thread_time() - start) > MOST_SECONDS * slowness(): return f'{seconds:.1f} seconds'
    return f'{peak() - before:.0f} MB' if peak() - before > MOST_MB else ''


def run(family: str, seconds: float, first: int) -> int:  # cases that went wrong
    "Run cases until the time is over, or one where `seconds` is 0."
    warnings.simplefilter('ignore')
    with tempfile.TemporaryDirectory() as folder:
        if family not in ('fail', 'crash', 'fill'):  # what is imported on the way takes time and memory
            for seed in range(3): run_case(family, seed, Path(folder))
        end, wrong, seen, seed = time.monotonic() + seconds, 0, set(), first
        while wrong < 5:
            if note := os.environ.get('SEED_FILE'): Path(note).write_text(str(seed))
            faulthandler.dump_traceback_later(60, exit=True)
            if (what := run_case(family, seed, Path(folder))) and what[-300:] not in seen:
                seen.add(what[-300:])
                wrong += 1
                print(f'{family} {seed}: {what}', flush=True)
            seed += 1
            if not seconds or time.monotonic() > end and seed - first > 5: break
        faulthandler.cancel_dump_traceback_later()
    print(f'{family}: {seed - first} cases, {wrong} went wrong')
    return wrong


if __name__ == '__main__':
    family, seconds, seed = [*sys.argv[1:], '10', '0'][:3] if len(sys.argv) == 2 else [*sys.argv[1:], '0'][:3]
    sys.exit(bool(run(family, float(seconds), int(seed))))
