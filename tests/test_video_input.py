"""Video files of every kind, damaged ones, interrupted writing, and streams that keep silent or end too soon."""
import base64
import http.server
import io
import re
import signal
import struct
import subprocess
import sys
import threading
import time

import av
import cv2
import numpy as np
import pytest
from waiting import until

from fer_nb.images import read_image
from fer_nb.video_basics import _AV, VideoError, panning_video
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


AVI = {'mjpeg': ('mjpeg', 'yuvj420p'), 'B-frames': ('libx264', 'yuv420p'), 'packed': ('mpeg4', 'yuv420p')}


def avi(path, images, kind) -> bytes:
    "A video of some images as AVI, whose index is at the end."
    codec, pix = AVI[kind]
    more = {} if kind == 'mjpeg' else {'g': '25', 'bf': '2'}
    return written(path, images, codec, pix, **more).read_bytes()


@pytest.mark.parametrize('start', [0.0, 1.0, 2.5, 3.9])
@pytest.mark.parametrize('kind', AVI)
def test_avi_from_anywhere(kind, start, images, tmp_path):
    "A whole AVI is not called incomplete, from wherever it is read, with its index and without it."
    data = avi(tmp_path / 'k.avi', images, kind)
    for part in (data, data[: data.rindex(b'idx1')]):
        with read_video(part, start=start) as f: times = [t for t, _ in f]
        assert times[-1] > 3.8 and f.problems == []
        assert np.allclose(np.diff(times), 0.04, atol=0.002)
        assert (f.info.frames, f.info.duration) == (100, 4.0)


@pytest.mark.parametrize('start', [0.0, 1.0])
@pytest.mark.parametrize('kind', AVI)
def test_avi_cut_off(kind, start, images, tmp_path):
    "The header of an AVI says how long it was before it was cut off."
    data = avi(tmp_path / 'k.avi', images, kind)
    with read_video(data[: len(data) * 3 // 5], start=start) as f: n = sum(1 for _ in f)
    assert 10 < n < 80 and f.problems[-1].endswith('of 4.00 s: the rest is missing')


class Pipe:
    "A file that can only be written onward."
    def __init__(self): self.data = b''

    def write(self, data): self.data += bytes(data)


@pytest.mark.parametrize('start', [0.0, 2.5])
def test_avi_through_a_pipe(start, images):
    "What was written through a pipe has a placeholder for its length: nothing is said to be missing."
    with av.open(pipe := Pipe(), 'w', format='avi') as video:
        stream = video.add_stream('mjpeg', rate=25, width=SIZE[0], height=SIZE[1], pix_fmt='yuvj420p')
        for rgb in images: video.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, 'rgb24')))
        video.mux(stream.encode())
    with read_video(pipe.data, start=start) as f: times = [t for t, _ in f]
    assert times[-1] == 3.96 and f.problems == []
    assert (f.info.frames, f.info.duration) == (None, None)


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
    done = run('python', '-B', '-c', WRITER, path, how)
    assert re.search(said, done.stdout), done.stdout + done.stderr
    [written] = tmp_path.iterdir()
    assert ('.part' in written.name) if how == 'killed' else written == path
    with read_video(written) as f: n = sum(1 for _ in f)
    if how in ('finished', 'interrupted'): assert n == {'finished': 150, 'interrupted': 101}[how]
    assert 20 < n and (how == 'finished' or n < 150) and (not f.problems or how == 'killed')


def disguised(what: str, clip) -> bytes:
    "What calls itself a video: lists of other files, descriptions of streams, images, music with a cover."
    lists = {
        'concat': f'ffconcat version 1.0\nfile {clip}\n', 'hls': f'#EXTM3U\n#EXTINF:2,\n{clip}\n#EXT-X-ENDLIST\n',
        'hls with scheme': f'#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:2,\nfile:{clip}\n#EXT-X-ENDLIST\n',
        'sdp': 'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 26\n',
        'dash': '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" profiles="x" '
                'mediaPresentationDuration="PT2S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
                f'bandwidth="9"><BaseURL>{clip}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    }
    if what in lists: return lists[what].encode()
    jpeg = cv2.imencode('.jpg', np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
    if what != 'music': return jpeg if what == 'jpeg' else cv2.imencode('.png', np.zeros((9, 9, 3)))[1].tobytes()
    sound = io.BytesIO()
    with av.open(sound, 'w', format='mp3') as music:
        voice = music.add_stream('libmp3lame', rate=44_100)
        for i in range(20):
            noise = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.float32), 'fltp', 'mono')
            noise.sample_rate, noise.pts = 44_100, i * 1152
            music.mux(voice.encode(noise))
        music.mux(voice.encode())
    cover = b'\0image/jpeg\0\3\0' + jpeg
    frame = b'APIC' + struct.pack('>I', len(cover)) + b'\0\0' + cover
    return b'ID3\3\0\0' + bytes([len(frame) >> shift & 127 for shift in (21, 14, 7, 0)]) + frame + sound.getvalue()


@pytest.mark.parametrize('what, said', {
    'concat': 'it cannot be opened|not a video', 'hls': 'not a video', 'hls with scheme': 'not a video',
    'sdp': 'not a video', 'dash': 'not a video', 'jpeg': 'an image and no video', 'png': 'an image and no video',
    'music': 'it has sound, but no images',
}.items())
def test_what_is_no_video(what, said, images, tmp_path):
    "The lists name a video that exists; it is not opened."
    (tmp_path / 'x.mp4').write_bytes(disguised(what, written(tmp_path / 'clip.mp4', images[:5])))
    with pytest.raises(VideoError, match=said): read_video(tmp_path / 'x.mp4')


LYING = """
import resource, sys
from fer_nb.video_basics import VideoError
from fer_nb.video_input import read_video
whole = open(sys.argv[1], 'rb').read()
read_video(whole).close()
pages = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize() + (512 << 20)
resource.setrlimit(resource.RLIMIT_AS, (pages, pages))
places = dict(mvhd=16, mdhd=16, stts=8, stsz=8, stco=4, stsc=4, avc1=24) | {'mdhd ': 12, 'stts ': 12, 'stsz ': 4}
for box, at in places.items():
    at += whole.index(box.strip().encode()) + 4
    for claim in (b'\\x7f' + b'\\xff'*3, b'\\xff'*4, b'\\0\\0\\0\\1'):
        try:
            with read_video(whole[:at] + claim + whole[at + 4:]) as video: print(sum(1 for _ in video), end=' ')
            assert video.info.fps is None or .01 <= video.info.fps <= 1000, video.info
        except VideoError as e: print('error', end=' ')
"""


def test_lengths_that_a_header_claims_are_not_believed(images, run, tmp_path):
    "Each length, count and size of an MP4 in turn is huge, within half a gigabyte."
    done = run('python', '-c', LYING, written(tmp_path / 'x.mp4', images[:20]))
    assert done.returncode == 0, done.stderr
    counts = done.stdout.split()
    assert len(counts) == 30 and all(o == 'error' or int(o) <= 20 for o in counts)


def test_damaged_motion_jpeg_is_reported(images, tmp_path):
    "A decoder that hides what it cannot read is told not to."
    data = bytearray(written(tmp_path / 'x.mov', images[:20], 'mjpeg', 'yuvj420p').read_bytes())
    at = len(data) // 2
    data[at : at + 600] = np.random.default_rng(0).bytes(600)
    with read_video(bytes(data)) as f: n = sum(1 for _ in f)
    assert 15 < n < 20 and f.problems and 'cannot be decoded' in f.problems[0]


FROM_STDIN = """
from fer_nb.video_basics import VideoError
from fer_nb.video_input import read_video
try:
    with read_video('-') as f: print(f.info.name, sum(1 for _ in f), f.problems)
except VideoError as e: print(e)
"""


def test_stdin_and_addresses_of_this_computer(whole, tmp_path):
    "A video from a pipe, also one whose index is at the end; file and data addresses."
    late = whole[: whole.index(b'moov') - 4]  # only its beginning
    for data, said in ((whole, 'stdin 100 []'), (b'', 'stdin: it is empty'), (late, 'stdin: it is not a video')):
        done = subprocess.run([sys.executable, '-c', FROM_STDIN], input=data, capture_output=True)
        assert done.stdout.decode().startswith(said)
    (tmp_path / 'a b#1.mp4').write_bytes(whole)
    for address in ((tmp_path / 'a b#1.mp4').as_uri(), f'data:video/mp4;base64,{base64.b64encode(whole).decode()}'):
        with read_video(address) as f: assert sum(1 for _ in f) == 100
        assert len(f.info.name) < 300
    with pytest.raises(VideoError, match='must be of this machine'): read_video('file://elsewhere/a.mp4')


AV = {
    '16.1.0': ("__version__ = '16.1.0'", 'PyAV 16.1.0 is installed, 17.1 or a later one is needed: pip install'),
    'broken': ("raise ImportError('libavcodec.so.62: cannot open')", 'PyAV cannot be loaded (libavcodec.so.62'),
    'without a part': ('import no_such_part', 'PyAV cannot be loaded (No module named'),
    'missing': ("raise ModuleNotFoundError('No module', name='av')", "pip install 'fer_nb[video]'"),
}


def test_the_oldest_pyav_is_the_one_that_is_declared(root):
    assert f'av>={".".join(map(str, _AV))}' in (root / 'settings.ini').read_text()


@pytest.mark.parametrize('version', AV)
def test_an_unusable_pyav_is_said_in_one_line(version, run, tmp_path):
    source, said = AV[version]
    (tmp_path / 'av.py').write_text(source)
    (tmp_path / 'clip.mp4').write_bytes(b'video')
    done = run('fer_nb', 'video', 'clip.mp4', '--quiet', cwd=tmp_path, env={'PYTHONPATH': str(tmp_path)})
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert said in done.stderr.splitlines()[-1] and 'pip install' in done.stderr


class Site(http.server.BaseHTTPRequestHandler):
    "Answers properly, stops in the middle, keeps silent, or sends images like a network camera."
    over = threading.Event()
    whole = cut = b''
    files: dict = {}
    sent = 0  # images of a camera

    def log_message(self, *_): pass

    def answer(self, kind, data, length=0):
        self.send_response(200)
        self.send_header('Content-Type', kind)
        if length: self.send_header('Content-Length', str(length))
        self.end_headers()
        self.wfile.write(data)

    def part(self, data):
        "The part of a file that is asked for."
        at = int(self.headers['Range'].removeprefix('bytes=').removesuffix('-'))
        self.send_response(206)
        self.send_header('Content-Range', f'bytes {at}-{len(data) - 1}/{len(data)}')
        self.send_header('Content-Length', str(len(data) - at))
        self.end_headers()
        self.wfile.write(data[at:])

    def camera(self, n):
        "Images that tell their number by their brightness, one each 10 ms."
        self.answer('multipart/x-mixed-replace; boundary=frame', b'')
        for i in range(n):
            jpeg = cv2.imencode('.jpg', np.full((48, 64, 3), 2 * (i % 100), np.uint8))[1].tobytes()
            head = b'--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n' % len(jpeg)
            self.wfile.write(head + jpeg + b'\r\n')
            Site.sent = i + 1
            if self.over.wait(0.01): return

    def do_GET(self):
        path = self.path.split('?')[0]
        if path == '/silent': self.over.wait(30)
        elif path == '/video.mp4': self.answer('video/mp4', self.whole, len(self.whole))
        elif path == '/stalls.mp4':
            self.answer('video/mp4', self.cut, len(self.whole))
            self.over.wait(30)
        elif path in self.files: self.part(self.files[path])
        elif path == '/far':
            self.send_response(302)
            self.send_header('Location', 'file:///etc/hosts')
            self.end_headers()
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
    with read_video(f'{site}/video.mp4?token=secret', timeout=20.0) as f: n = sum(1 for _ in f)
    assert (n, f.info.live, f.problems) == (100, False, [])
    assert 'secret' not in f.info.name


def test_http_video_with_its_index_at_the_end(site, images, tmp_path):
    "The server answers for parts of a file."
    Site.files['/late.mp4'] = written(tmp_path / 'late.mp4', images).read_bytes()
    with read_video(f'{site}/late.mp4', timeout=20.0, start=2) as f: times = [t for t, _ in f]
    assert (len(times), times[0], f.problems) == (50, 2, [])


def test_http_playlist(site, images, tmp_path):
    "Its parts are read from the web, and neither from a file nor by another protocol."
    with av.open(str(tmp_path / 'x.m3u8'), 'w', format='hls', options={'hls_time': '1', 'hls_list_size': '0'}) as video:
        stream = video.add_stream('libx264', rate=25, options={'g': '25'})
        stream.width, stream.height, stream.pix_fmt = *SIZE, 'yuv420p'
        for i, rgb in enumerate(images[:60]):
            frame = av.VideoFrame.from_ndarray(rgb, 'rgb24').reformat(format='yuv420p')
            frame.pts = i
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    for path in tmp_path.iterdir(): Site.files[f'/{path.name}'] = path.read_bytes()
    with read_video(f'{site}/x.m3u8', timeout=20.0) as f: assert (sum(1 for _ in f), f.problems) == (60, [])
    for part in (tmp_path / 'x0.ts').as_uri(), f'concat:{tmp_path}/x0.ts', 'ftp://127.0.0.1/x0.ts':
        listed = f'#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:1,\n{part}\n#EXT-X-ENDLIST\n'
        Site.files['/evil.m3u8'] = listed.encode()
        with pytest.raises(VideoError, match='evil.m3u8: it '): list(read_video(f'{site}/evil.m3u8', timeout=20.0))
    with pytest.raises(VideoError, match='it leads to an address of file'): read_video(f'{site}/far', timeout=20.0)


@pytest.mark.parametrize('path, seconds, said', [
    ('stalls.mp4', 3.0, 'the stream stalled'), ('breaks.mp4', 60.0, 'the rest is missing'),
])
def test_http_video_that_ends_too_soon(path, seconds, said, site):
    with read_video(f'{site}/{path}', timeout=seconds) as f: n = sum(1 for _ in f)
    assert 50 < n < 100 and said in f.problems[-1]


@pytest.mark.parametrize('path, seconds, said', [
    ('missing.mp4', 20.0, 'it cannot be opened'), ('silent', 0.5, 'no answer within 0.5 s'),
])
def test_http_without_video(path, seconds, said, site):
    "The message names the address, without the password."
    with pytest.raises(VideoError, match=said) as error: read_video(f'{site}/{path}', timeout=seconds)
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
    Site.sent, arrived = 0, []
    with read_video(f'{site}/camera', timeout=20.0) as f:
        for t, rgb in f:
            arrived.append((t, int(rgb[0, 0, 0]) // 2))
            until(lambda: Site.sent >= min(arrived[-1][1] + 10, 100))
            time.sleep(0.1)
    times, numbers = zip(*arrived)
    assert f.info.live and f.dropped > 30
    assert numbers == tuple(sorted(set(numbers))) and numbers[-1] >= 98  # the last one was the newest
    assert all(b > a for a, b in zip(times, times[1:]))


def test_live_source_that_stalls(site):
    with read_video(f'{site}/camera-stalls', timeout=2.0) as f: n = sum(1 for _ in f)
    assert n and 'stalled' in f.problems[-1]


@pytest.mark.parametrize('path', ['camera-without-end', 'camera-stalls'])
def test_closed_by_another_thread(path, site):
    "At any time, and without waiting for a frame."
    live, closed = read_video(f'{site}/{path}', timeout=60.0), []
    closing = threading.Timer(0.3, lambda: (closed.append(time.monotonic()), live.close()))
    for i, _ in enumerate(live):
        if i == 2: closing.start()
    assert closed and time.monotonic() - closed[0] < 30  # a frame would be awaited for 60
    assert list(live) == []
