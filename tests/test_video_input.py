"""Video files of every kind, damaged ones, interrupted writing, and streams that keep silent or end too soon."""
import http.server
import re
import signal
import struct
import threading
import time

import av
import cv2
import numpy as np
import pytest

from fer_nb.images import read_image
from fer_nb.video_basics import VideoError, panning_video
from fer_nb.video_input import read_video

FACE = {'view': 0.6, 'center': (0.44, 0.28)}  # where the face is in the portrait
SIZE = 160, 120
KINDS = {
    'k.mkv': ('libx264',), 'k.webm': ('libvpx-vp9',), 'k.avi': ('mpeg4',), 'k.ts': ('libx264',),
    'k.mov': ('mjpeg', 'yuvj420p'), 'k.mpg': ('mpeg2video',), '10bit.mkv': ('ffv1', 'yuv420p10le'),
    'gray.mkv': ('ffv1', 'gray'), 'gray16.mkv': ('ffv1', 'gray16le'), '444.mp4': ('libx264', 'yuv444p'),
    'rgba.mov': ('png', 'rgba'), 'argb.mov': ('qtrle', 'argb'),
}


@pytest.fixture(scope='module')
def portrait(photos): return read_image(photos[1])


@pytest.fixture(scope='module')
def images(portrait) -> list: return [rgb for _, rgb in panning_video(portrait, 100, size=SIZE, **FACE)]


def written(path, images, codec='libx264', pix='yuv420p', muxer=None, **options):
    "A video of some images, 25 a second, in any format that FFmpeg knows."
    with av.open(str(path), 'w', container_options=muxer or {}) as video:
        stream = video.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.codec_context.thread_count = pix, 1
        if codec != 'libx264': stream.bit_rate = 4_000_000
        for i, rgb in enumerate(images):
            frame = av.VideoFrame.from_ndarray(rgb, 'rgb24').reformat(format=pix)
            frame.pts = i
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    return path


@pytest.mark.parametrize('name', KINDS)
def test_kinds(name, images, tmp_path):
    "Containers, codecs and kinds of pixels: all frames, their times, their colors, and no complaint."
    codec, *pix = KINDS[name]
    with read_video(written(tmp_path / name, images[:20], codec, *pix)) as f: found = list(f)
    gray = [cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None] for rgb in images]
    errors = [
        np.abs(rgb.astype(int) - wanted).mean()
        for (_, rgb), wanted in zip(found, gray if 'gray' in name else images)
    ]
    assert not f.problems and max(errors) < 6
    assert [t for t, _ in found] == pytest.approx([i / 25 for i in range(20)], abs=0.0011)
    assert f.info.frames == 20 and f.info.duration == pytest.approx(0.8, abs=0.05)


def test_transparent_parts_are_white(images, tmp_path):
    alpha = np.full(images[0].shape[:2], 255, np.uint8)
    alpha[:, :80] = 0
    with av.open(str(tmp_path / 'veil.mov'), 'w') as video:
        stream = video.add_stream('qtrle', rate=25)
        stream.height, stream.width, stream.pix_fmt = *alpha.shape, 'argb'
        frame = av.VideoFrame.from_ndarray(np.dstack([images[0], alpha]), 'rgba').reformat(format='argb')
        video.mux(stream.encode(frame))
        video.mux(stream.encode())
    rgb = next(read_video(tmp_path / 'veil.mov'))[1]
    assert rgb[:, :80].min() == 255
    assert np.array_equal(rgb[:, 80:], images[0][:, 80:])


def test_video_with_sound(images, tmp_path):
    "Sound neither adds nor takes frames."
    silent = written(tmp_path / 'silent.mp4', images[:20])
    with av.open(str(silent)) as old, av.open(str(tmp_path / 'both.mp4'), 'w') as new:
        stream, voice = new.add_stream_from_template(old.streams.video[0]), new.add_stream('aac', rate=44_100)
        for packet in old.demux(video=0):
            if packet.dts is None: continue
            packet.stream = stream
            new.mux(packet)
        for i in range(40):
            noise = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), 'fltp', 'mono')
            noise.sample_rate, noise.pts = 44_100, i * 1024
            new.mux(voice.encode(noise))
        new.mux(voice.encode())
    with read_video(tmp_path / 'both.mp4') as f: assert (len(list(f)), f.problems) == (20, [])


def test_video_without_frames(tmp_path):
    with av.open(str(tmp_path / 'none.mp4'), 'w') as video:
        video.add_stream('libx264', rate=25)
        video.start_encoding()
    with pytest.raises(VideoError, match='none.mp4: it has no images'): read_video(tmp_path / 'none.mp4')


@pytest.fixture(scope='module')
def huge(portrait, tmp_path_factory) -> bytes:
    "A video with one frame of 7680 x 4320 pixels."
    image = cv2.resize(portrait, (7680, 4320), interpolation=cv2.INTER_NEAREST)
    return written(tmp_path_factory.mktemp('huge') / '8k.mov', [image], 'mjpeg', 'yuvj420p').read_bytes()


def test_huge_frames(huge): assert next(read_video(huge))[1].shape == (4320, 7680, 3)


def test_frames_over_the_limit(huge):
    "The size that the headers claim is believed before anything of that size is made."
    at = huge.index(b'jpeg', huge.index(b'stsd')) + 28
    assert struct.unpack('>HH', huge[at : at + 4]) == (7680, 4320)
    sof, claim = huge.index(b'\xff\xc0') + 5, struct.pack('>HH', 16_000, 16_000)
    claims = huge[:at] + claim + huge[at + 4 :]
    claims = claims[:sof] + claim + claims[sof + 4 :]
    with pytest.raises(VideoError, match='more than 50,000,000 pixels'): read_video(claims)


@pytest.fixture(scope='module')
def whole(images, tmp_path_factory) -> bytes:
    "100 frames with the index in front, a key frame each second."
    path = tmp_path_factory.mktemp('whole') / 'whole.mp4'
    return written(path, images, muxer={'movflags': 'faststart'}, g='25').read_bytes()


@pytest.fixture(scope='module')
def cut(whole) -> bytes: return whole[: len(whole) * 2 // 3]


def test_hole(whole):
    "Frames that cannot be decoded are reported, and the others are given."
    at, size = len(whole) // 2, len(whole) // 50
    noise = np.random.default_rng(0).bytes(size)
    with read_video(whole[:at] + noise + whole[at + size :]) as f: n = sum(1 for _ in f)
    assert 20 < n < 101 and f.problems


def test_cut_off(cut, images, tmp_path):
    "A video without its end gives what is there, and says that the rest is missing."
    mkv = written(tmp_path / 'c.mkv', images).read_bytes()
    for data in (cut, mkv[: len(mkv) * 3 // 4]):
        with read_video(data) as f: n = sum(1 for _ in f)
        assert 20 < n < 100 and 'the rest is missing' in f.problems[-1]


def test_index_missing(images, tmp_path):
    data = written(tmp_path / 'late.mp4', images[:20]).read_bytes()
    with pytest.raises(VideoError, match='its index is missing, so it was probably cut off'): read_video(data[:-500])


WRITER = """
import os, signal, sys
from fer_nb.video_basics import VideoError
from fer_nb.video_output import VideoWriter
import numpy as np

path, how = sys.argv[1:]
if how == 'full':
    import resource
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
noise = np.random.default_rng(0).integers(0, 64, (60, 120, 160, 3), np.uint8)
try:
    with VideoWriter(path, (160, 120)) as video:
        for i in range(150):
            video.add(i/25, noise[i % 60])
            if i == 100 and how == 'killed': os.kill(os.getpid(), signal.SIGKILL)
            if i == 100 and how == 'interrupted': os.kill(os.getpid(), signal.SIGINT)
except VideoError as e: print(e)
except KeyboardInterrupt: print('stopped by hand')
"""


@pytest.mark.parametrize('how, said', {
    'finished': '', 'interrupted': 'stopped by hand', 'killed': '',
    'full': 'it cannot be written any further .*; what was written before is kept',
}.items())
def test_interrupted_writing(how, said, run, tmp_path):
    """What was written can be played after Ctrl-C, after a kill (from the unfinished file), and where the disk is full
    (here: over a limit on the size of files)."""
    if how != 'finished' and not hasattr(signal, 'SIGXFSZ'): pytest.skip('needs the signals of POSIX')
    path = tmp_path / 'video.mp4'
    done = run('python', '-c', WRITER, path, how)
    assert re.search(said, done.stdout), done.stdout + done.stderr
    [written] = tmp_path.iterdir()
    assert ('.part' in written.name) if how == 'killed' else written == path
    with read_video(written) as f: n = sum(1 for _ in f)
    if how in ('finished', 'interrupted'): assert n == {'finished': 150, 'interrupted': 101}[how]
    assert 20 < n and (how == 'finished' or n < 150) and (not f.problems or how == 'killed')


class Site(http.server.BaseHTTPRequestHandler):
    "Answers properly, stops in the middle, keeps silent, or sends images like a network camera."
    over = threading.Event()
    whole = cut = b''

    def log_message(self, *_): pass

    def answer(self, kind, data, length=0):
        self.send_response(200)
        self.send_header('Content-Type', kind)
        if length: self.send_header('Content-Length', str(length))
        self.end_headers()
        self.wfile.write(data)

    def camera(self, n):
        "Images that tell their number by their brightness, one each 10 ms."
        self.answer('multipart/x-mixed-replace; boundary=frame', b'')
        for i in range(n):
            jpeg = cv2.imencode('.jpg', np.full((48, 64, 3), 2 * (i % 100), np.uint8))[1].tobytes()
            head = b'--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n' % len(jpeg)
            self.wfile.write(head + jpeg + b'\r\n')
            if self.over.wait(0.01): return

    def do_GET(self):
        path = self.path.split('?')[0]
        if path == '/silent': self.over.wait(30)
        elif path == '/video.mp4': self.answer('video/mp4', self.whole, len(self.whole))
        elif path == '/stalls.mp4':
            self.answer('video/mp4', self.cut, len(self.whole))
            self.over.wait(30)
        elif path == '/breaks.mp4': self.answer('video/mp4', self.cut, len(self.whole))
        elif path == '/camera': self.camera(100)
        elif path == '/camera-without-end': self.camera(10_000)
        elif path == '/camera-stalls':
            self.camera(20)
            self.over.wait(30)
        else: self.send_error(404)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    def handle_error(self, *_): pass  # a reader that closes its connection is no error here


@pytest.fixture(scope='module')
def site(whole, cut):
    "The address of a server on this computer, with a password in it."
    Site.whole, Site.cut = whole, cut
    server = Server(('127.0.0.1', 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://user:secret@127.0.0.1:{server.server_address[1]}'
    Site.over.set()
    server.shutdown()
    server.server_close()


def test_http_video(site):
    with read_video(f'{site}/video.mp4?token=secret', timeout=5.0) as f: n = sum(1 for _ in f)
    assert (n, f.info.live, f.problems) == (100, False, [])
    assert 'secret' not in f.info.name


@pytest.mark.parametrize('path, said', {
    'stalls.mp4': 'the stream stalled', 'breaks.mp4': 'the rest is missing',
}.items())
def test_http_video_that_ends_too_soon(path, said, site):
    with read_video(f'{site}/{path}', timeout=1.0) as f: n = sum(1 for _ in f)
    assert 50 < n < 100 and said in f.problems[-1]


@pytest.mark.parametrize('path, said', {
    'missing.mp4': 'it cannot be opened', 'silent': 'no answer within 0.5 s',
}.items())
def test_http_without_video(path, said, site):
    "The message names the address, without the password."
    with pytest.raises(VideoError, match=said) as error: read_video(f'{site}/{path}', timeout=0.5)
    assert path in str(error.value) and 'secret' not in str(error.value)


@pytest.mark.parametrize('kind', ['http', 'rtsp', 'rtmp'])
def test_no_answer(kind):
    import socket

    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))  # bound, but not listening
        address = f'{kind}://127.0.0.1:{free.getsockname()[1]}/x'
        with pytest.raises(VideoError, match=re.escape(address)): read_video(address, timeout=1.0)


def test_live_source_does_not_wait(site):
    "A slow reader gets the newest images only, at their times of arrival."
    with read_video(f'{site}/camera', timeout=5.0) as f:
        arrived = []
        for t, rgb in f:
            arrived.append((t, int(rgb[0, 0, 0]) // 2))
            time.sleep(0.1)
    times, numbers = zip(*arrived)
    assert f.info.live and f.dropped > 30
    assert numbers == tuple(sorted(set(numbers))) and numbers[-1] >= 98  # the last one was the newest
    assert all(b > a for a, b in zip(times, times[1:]))


def test_live_source_that_stalls(site):
    with read_video(f'{site}/camera-stalls', timeout=0.5) as f: n = sum(1 for _ in f)
    assert n and 'stalled' in f.problems[-1]


@pytest.mark.parametrize('path', ['camera-without-end', 'camera-stalls'])
def test_closed_by_another_thread(path, site):
    "At any time, and without waiting for a frame."
    live = read_video(f'{site}/{path}', timeout=5.0)
    threading.Timer(0.5, live.close).start()
    started = time.monotonic()
    n = sum(1 for _ in live)
    assert n > 3 and time.monotonic() - started < 3
    assert list(live) == []
