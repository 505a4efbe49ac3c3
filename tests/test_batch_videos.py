"A video in segments gives what the whole gives, whatever the container; what is damaged is said."

import random
from fractions import Fraction
from pathlib import Path
from zipfile import ZipFile

import av
import cv2
import numpy as np
import pandas
import pytest
from pyarrow.parquet import read_table

from fer_nb.batch_images import make_job
from fer_nb.batch_inputs import BatchInput
from fer_nb.batch_segments import run_segment
from fer_nb.batch_tables import BatchFolder, make_task
from fer_nb.batch_videos import join_segments, probe_video
from fer_nb.face_stream import StreamOptions
from fer_nb.images import read_image
from fer_nb.recognition import Recognizer
from fer_nb.video_analysis import analyze_video

SIDE, SIZE, RATE, SECONDS = 90, (320, 160), 5, 9
# from, to, x: one is there all the time, one leaves before a seam, one comes right before it, one leaves in the overlap
THERE = [(0, 9, 5), (0.5, 2.7, 115), (2.8, 8, 215), (5.1, 5.9, 115)]


@pytest.fixture(scope='module')
def recognizer() -> Recognizer: return Recognizer('s', detector='haar')


@pytest.fixture(scope='module')
def portraits(photos) -> list:
    hopper, collins = read_image(photos[0])[40:440, 60:460], read_image(photos[1])[:270, 90:360]
    faces = [collins, hopper, collins[:, ::-1], hopper[:, ::-1]]
    return [cv2.resize(o, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for o in faces]


def frame(portraits, t: float, *, cuts=()) -> np.ndarray:
    "Portraits that move to and fro; behind each cut everything is elsewhere and has other colors."
    after = sum(t >= o for o in cuts) % 2
    rgb = np.full((*SIZE[::-1], 3), (120, 120, 120), np.uint8)
    if cuts: rgb = cv2.resize(np.random.default_rng(after).integers(0, 255, (4, 8, 3), np.uint8), SIZE)
    for i, (begin, end, x) in enumerate(THERE):
        left = round(x + 8 * np.sin(t)) if not after else round(225 - x + 8 * np.sin(t))
        left = min(max(left, 0), SIZE[0] - SIDE)
        if begin <= t < end: rgb[35 : 35 + SIDE, left : left + SIDE] = portraits[i - after]
    return rgb


def written(
    path: Path, portraits, codec='libx264', *, times=None, cuts=(), pix='yuv420p', muxer=None, **options,
) -> Path:
    "A video with a key frame each second, if nothing else is said."
    with av.open(str(path), 'w', container_options=muxer or {}) as video:
        stream = video.add_stream(codec, rate=RATE, options={'g': str(RATE), 'sc_threshold': '0'} | options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, pix
        stream.codec_context.time_base = unit = Fraction(1, 1000 if times else RATE)
        if codec != 'libx264': stream.codec_context.bit_rate = 1_000_000
        for t in times or [i / RATE for i in range(RATE * SECONDS)]:
            one = av.VideoFrame.from_ndarray(frame(portraits, t, cuts=cuts), 'rgb24')
            one.pts, one.time_base = round(t / unit), unit
            video.mux(stream.encode(one))
        video.mux(stream.encode())
    return path


@pytest.fixture
def in_segments(recognizer, tmp_path):
    "Analyze a video in segments of three seconds, done in any order: (faces, its line, number of segments)."

    def call(name, *, seed: int = 0, **settings) -> tuple[pandas.DataFrame, dict, int]:
        job = make_job(tmp_path / f'run{seed}', recognizer, segment=3, **settings)
        folder, task = BatchFolder(job.out), make_task(job.key, 'video', [BatchInput(str(name), '1-1', 1)])
        folder.begin(job.settings, overwrite=True)
        plan = probe_video(job, task)
        for segment in random.Random(seed).sample(plan.segments, len(plan.segments)): run_segment(job, task, segment)
        if not plan.counts: join_segments(job, task, plan.segments)
        assert list(folder.work.iterdir()) == []
        call.bytes = [o.read_bytes() for o in (folder.faces(task.id), folder.inputs(task.id))]
        [line] = read_table(folder.inputs(task.id)).to_pylist()
        return pandas.read_parquet(folder.faces(task.id)), line, max(1, len(plan.segments))

    return call


def as_whole(path, recognizer, options=None) -> tuple[pandas.DataFrame, object]:
    "The same video in one piece: (faces, summary)."
    table = Path(path).with_suffix('.parquet')
    summary = analyze_video(path, recognizer, table=table, progress=False, options=options)
    return pandas.read_parquet(table), summary


def assert_alike(faces, line, whole, summary, *, exact: bool = False) -> None:
    "The same faces at the same times, under the same numbers; after a seam numbers differ a little for a moment."
    both = whole.assign(time=whole.time.round(5)).merge(
        faces.assign(time=faces.time.round(5)), on=['time', 'face'], suffixes=(' whole', ''),
    )
    assert faces.face.nunique() == whole.face.nunique() == summary.tally.ids
    assert (line['frames'], line['faces']) == (summary.frames, len(faces))
    assert line['seconds'] == pytest.approx(summary.duration)
    assert len(both) >= max(len(faces), len(whole)) - (0 if exact else 0.03 * len(whole))
    classes = list(summary.tally.classes)
    apart = np.abs(both[classes].to_numpy() - both[[f'{o} whole' for o in classes]].to_numpy())
    assert apart.max() < (1e-5 if exact else 0.3) and apart.mean() < 0.01
    assert not faces.duplicated(['time', 'face']).any() and faces.time.is_monotonic_increasing


CONTAINERS = {
    'plain.mp4': {}, 'open.mkv': {'bf': '2', 'x264-params': 'open-gop=1'}, 'broadcast.ts': {'bf': '2'},
    'old.avi': {'codec': 'mpeg4'}, 'still.mov': {'codec': 'mjpeg', 'pix': 'yuvj420p'},
    'page.webm': {'codec': 'libvpx', 'deadline': 'realtime'},
}


@pytest.mark.parametrize('name', CONTAINERS)
def test_containers(name, portraits, recognizer, in_segments, tmp_path):
    path = written(tmp_path / name, portraits, **CONTAINERS[name])
    faces, line, n = in_segments(path)
    assert n > 1 and line['status'] == 'ok' and not line['warning']
    assert_alike(faces, line, *as_whole(path, recognizer))


def test_order_does_not_matter(portraits, in_segments, tmp_path):
    path = written(tmp_path / 'a.mp4', portraits)
    first = [in_segments(path, seed=1), in_segments.bytes][1]
    in_segments(path, seed=2)
    assert in_segments.bytes == first


def test_resumed(portraits, recognizer, in_segments, tmp_path):
    "A run that was stopped keeps the segments that are done, and ends with the same bytes."
    path = written(tmp_path / 'a.mp4', portraits)
    in_segments(path)
    job = make_job(tmp_path / 'stopped', recognizer, segment=3)
    folder, task = BatchFolder(job.out), make_task(job.key, 'video', [BatchInput(str(path), '1-1', 1)])
    folder.begin(job.settings)
    plan = probe_video(job, task)
    run_segment(job, task, plan.segments[1])
    done = {o: o.stat().st_mtime_ns for o in folder.work.iterdir()}
    folder.begin(job.settings, resume=True)
    assert probe_video(job, task) == plan and done
    for segment in plan.segments: run_segment(job, task, segment)
    assert done == {o: o.stat().st_mtime_ns for o in done}
    join_segments(job, task, plan.segments)
    assert [o.read_bytes() for o in (folder.faces(task.id), folder.inputs(task.id))] == in_segments.bytes


@pytest.mark.parametrize('cuts', [(3.0, 6.0), (1.0, 4.0), (2.8, 6.2)])
def test_cuts_near_seams(cuts, portraits, recognizer, in_segments, tmp_path):
    path = written(tmp_path / 'a.mp4', portraits, cuts=cuts)
    faces, line, n = in_segments(path)
    assert n == 3
    assert_alike(faces, line, *as_whole(path, recognizer))


def test_variable_rate(portraits, recognizer, in_segments, tmp_path):
    steps = np.random.default_rng(0).choice([0.04, 0.1, 0.3], 90)
    path = written(tmp_path / 'a.mkv', portraits, times=[t for t in np.cumsum(steps).round(3).tolist() if t < SECONDS])
    faces, line, n = in_segments(path)
    assert n > 1
    assert_alike(faces, line, *as_whole(path, recognizer))


def test_rotated(portraits, in_segments, tmp_path):
    "A display matrix holds for each segment."
    data = bytearray(written(tmp_path / 'a.mp4', portraits).read_bytes())
    at = data.find(b'tkhd') + 44
    data[at : at + 36] = np.array([-65536, 0, 0, 0, -65536, 0, *(65536 * o for o in SIZE), 1 << 30], '>i4').tobytes()
    turned = tmp_path / 'turned.mp4'
    turned.write_bytes(data)
    upside_down, line, n = in_segments(turned)
    faces, *_ = in_segments(tmp_path / 'a.mp4')
    assert n > 1 and len(upside_down) < len(faces) / 4 and (line['width'], line['height']) == SIZE


WHOLE = {
    'one key frame': {'name': 'a.mp4', 'g': '1000'},
    'no times': {'name': 'a.h264'},
    'baseline': {'name': 'a.mp4', 'settings': {'options': StreamOptions(baseline=True)}},
}


@pytest.mark.parametrize('case', WHOLE)
def test_not_cut(case, portraits, recognizer, in_segments, tmp_path):
    "One segment, which gives exactly what the whole gives."
    settings = {k: v for k, v in WHOLE[case].items() if k == 'g'}
    more = WHOLE[case].get('settings', {})
    path = written(tmp_path / WHOLE[case]['name'], portraits, **settings)
    faces, line, n = in_segments(path, **more)
    assert n == 1
    assert_alike(faces, line, *as_whole(path, recognizer, **more), exact=True)


def test_clock_that_starts_again(portraits, recognizer, in_segments, tmp_path):
    once = written(tmp_path / 'a.ts', portraits).read_bytes()
    path = tmp_path / 'twice.ts'
    path.write_bytes(2 * once)
    faces, line, n = in_segments(path)
    assert n == 1 and 'comes after' in line['warning']
    assert_alike(faces, line, *as_whole(path, recognizer), exact=True)


@pytest.mark.parametrize('kind', ['hole', 'cut off', 'cut off mkv'])
def test_damaged(kind, portraits, recognizer, in_segments, tmp_path):
    "What can be read is there, and the rest is said, as by `analyze_video`."
    path = tmp_path / ('a.mkv' if 'mkv' in kind else 'a.mp4')
    data = written(path, portraits, muxer={} if 'mkv' in kind else {'movflags': 'faststart'}).read_bytes()
    at, size = len(data) // 2, len(data) // 40
    hole = data[:at] + np.random.default_rng(0).bytes(size) + data[at + size :]
    path.write_bytes(hole if kind == 'hole' else data[: len(data) * 2 // 3])
    faces, line, _ = in_segments(path)
    whole, summary = as_whole(path, recognizer)
    assert_alike(faces, line, whole, summary)
    told = set(line['warning'].split('; '))
    same = {o for o in summary.problems if 'the rest is missing' not in o}
    assert summary.problems and same <= told
    if 'cut off' in kind: assert line['warning'].endswith(': the rest is missing')


def test_every(portraits, in_segments, tmp_path):
    "Some frames of each second; where they are far apart no face is followed, and each frame is on its own."
    path = written(tmp_path / 'a.mp4', portraits)
    times = {}
    for every in (0.6, 1.8):
        faces, line, n = in_segments(path, every=every)
        assert n > 1 and line['frames'] == round(SECONDS / every)
        times[every] = sorted(set(faces.time.round(6)))
    assert times[1.8] == [0, 1.8, 3.6, 5.4, 7.2] and times[0.6] == [round(0.6 * i, 6) for i in range(15)]


def test_unreadable(portraits, in_segments, tmp_path):
    sound = tmp_path / 'sound.mp4'
    with av.open(str(sound), 'w') as video:
        stream = video.add_stream('aac', rate=44100)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 44100), 'float32'), format='fltp', layout='mono')
        silence.rate = 44100
        video.mux(stream.encode(silence))
        video.mux(stream.encode())
    (tmp_path / 'empty.mp4').touch()
    (tmp_path / 'text.mp4').write_text('no video')
    reasons = {
        'sound.mp4': 'it has sound, but no images', 'empty.mp4': 'it is empty', 'missing.mp4': 'there is no such file',
        'text.mp4': 'it is not a video that can be read',
    }
    for name, reason in reasons.items():
        faces, line, _ = in_segments(tmp_path / name)
        assert (len(faces), line['status'], line['error']) == (0, 'unreadable', reason)


def test_archive(portraits, in_segments, tmp_path):
    "A video in an archive is read where it is, and a seam is looked up in it."
    path = written(tmp_path / 'a.mp4', portraits)
    with ZipFile(tmp_path / 'videos.zip', 'w') as archive: archive.write(path, 'a.mp4')
    name = f'zip://a.mp4::file://{tmp_path}/videos.zip'
    faces, line, n = in_segments(name)
    plain, *_ = in_segments(path)
    assert n > 1 and line['status'] == 'ok' and set(faces.input) == {name}
    assert faces.drop(columns='input').equals(plain.drop(columns='input'))
    _, line, _ = in_segments(name.replace('a.mp4', 'b.mp4'))
    assert (line['status'], line['error']) == ('unreadable', 'there is no such file')


def test_faces_that_pass_at_a_seam(portraits, recognizer, in_segments, tmp_path, monkeypatch):
    "Two people who walk past one another, one above the other, keep their numbers."
    def passing(portraits, t, **_):
        rgb = np.full((240, 320, 3), 120, np.uint8)
        for i, x in enumerate((20 + 22 * t, 210 - 22 * t)):
            top = 10 + 120 * i
            rgb[top : top + SIDE, round(x) : round(x) + SIDE] = portraits[i]
        return rgb

    monkeypatch.setitem(globals(), 'frame', passing)
    monkeypatch.setitem(globals(), 'SIZE', (320, 240))
    path = written(tmp_path / 'a.mp4', portraits)
    faces, line, n = in_segments(path)
    assert n == 3 and faces.face.nunique() == 2
    assert (faces.groupby('face').y.agg(np.ptp) < 30).all()
    assert_alike(faces, line, *as_whole(path, recognizer))
