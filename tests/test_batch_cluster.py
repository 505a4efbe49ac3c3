"""Many inputs on several processes: the same data set whatever happens to workers, scheduler, disk and terminal."""
import contextlib
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import pytest
from waiting import until

from fer_nb.detection import HaarDetector

pytestmark = pytest.mark.skipif(sys.platform == 'win32', reason='signals and limits of POSIX')
KNOWN = dict(progress=False, segment=3.)


class Watched(HaarDetector):
    "The detector as always, but first it looks at the size of the image, which may be one that means trouble."

    def __init__(self, width: int, trouble):
        super().__init__()
        self.width, self.trouble = width, trouble

    def detect(self, rgb):
        if rgb.shape[1] == self.width: self.trouble()
        return super().detect(rgb)


class Once:
    "Ends its process, a number of times; or always."

    def __init__(self, folder: Path, times: int|None): self.folder, self.times = folder, times

    def __call__(self) -> None:
        count = len(list(self.folder.glob('death-*')))
        if self.times is not None and count >= self.times: return
        (self.folder / f'death-{count}').touch()
        os.kill(os.getpid(), signal.SIGKILL)


class Elsewhere:
    "A part that only the process has that made it."

    def __init__(self): self.owner = os.getpid()
    def __setstate__(self, state):
        if state['owner'] != os.getpid(): raise FileNotFoundError(2, 'No such file or directory', '/models/own.onnx')


@pytest.fixture(scope='module')
def recognizer():
    from fer_nb.recognition import Recognizer

    return Recognizer('s', detector=HaarDetector())


def watching(recognizer, width: int, trouble):
    "The same recognizer, with a detector that is watched. Its settings are the same, and so are its answers."
    import copy

    other = copy.copy(recognizer)
    other.detector = Watched(width, trouble)
    return other


@pytest.fixture(scope='module')
def inputs(tmp_path_factory, photos) -> Path:
    "70 images, of which the 11th and the 41st have a width of their own, a broken one, and a video of 12 seconds."
    import av

    from fer_nb.images import read_image
    from fer_nb.video_basics import panning_video

    folder = tmp_path_factory.mktemp('inputs')
    face = cv2.resize(cv2.imread(str(photos[0])), (120, 140))
    plain = cv2.imencode('.jpg', face)[1].tobytes()
    for i in range(70): (folder / f'{i:02}.jpg').write_bytes(plain)
    for i, width in (10, 121), (40, 122): cv2.imwrite(str(folder / f'{i:02}.jpg'), cv2.resize(face, (width, 140)))
    (folder / 'broken.jpg').write_bytes(plain[:500])
    with av.open(str(folder / 'clip.mp4'), 'w') as file:
        stream = file.add_stream('mpeg4', rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 160, 120, 'yuv420p', 5
        for _, frame in panning_video(read_image(photos[0]), 120, size=(160, 120), fps=10, view=.9):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
        file.mux(stream.encode(None))
    return folder


@pytest.fixture(scope='module')
def processes():
    "Two workers, each in a process of its own."
    from fer_nb.batch_cluster import open_cluster

    with open_cluster(2) as client: yield client


@pytest.fixture(scope='module')
def threads():
    "A worker in this process."
    from distributed import Client, LocalCluster

    options = dict(processes=False, dashboard_address=None, silence_logs=50)
    with LocalCluster(n_workers=1, threads_per_worker=1, **options) as cluster:
        with Client(cluster, set_as_default=False) as client: yield client


@pytest.fixture(scope='module')
def undisturbed(inputs, recognizer, threads, tmp_path_factory) -> dict[str, bytes]:
    "The data set as one worker makes it."
    from fer_nb.batch_analysis import analyze_many

    out = tmp_path_factory.mktemp('undisturbed')
    found = analyze_many(inputs, out, threads, recognizer=recognizer, **KNOWN)
    assert dict(found.counts.statuses) == dict(ok=71, unreadable=1) and found.complete
    return parts(out)


def parts(out: Path) -> dict[str, bytes]:
    "All parts of a data set."
    return {str(o.relative_to(out)): o.read_bytes() for o in sorted(out.glob('*/*.parquet'))}


def on(client, function, *args) -> str: # its address
    "Run something on one worker, and say on which."
    address = sorted(client.nthreads())[0]
    client.run(function, *args, workers=[address])
    return address


def test_same_as_in_one_process(inputs, recognizer, processes, undisturbed, tmp_path, monkeypatch):
    "The bytes do not depend on the number of workers, and the numbers are those of `Recognizer`."
    import numpy as np

    from fer_nb import batch_analysis

    steps, follow = [], batch_analysis._follow
    monkeypatch.setattr(batch_analysis, '_follow', lambda known, one: steps.append(one.step.name) or follow(known, one))
    found = batch_analysis.analyze_many(inputs, tmp_path / 'out', processes, recognizer=recognizer, **KNOWN)
    assert parts(tmp_path / 'out') == undisturbed
    assert steps.count('segment') >= 3 and steps.count('join') == 1
    table = found.faces()
    images = table[table.time.isna()]
    results = recognizer(sorted(inputs.glob('[0-9]*.jpg')))
    rows = [(o.source, *face.box, *face.probabilities.values()) for o in results for face in o.faces]
    columns = ['input', 'x', 'y', 'width', 'height', *recognizer.classes]
    assert len(rows) == 70 and images.input.tolist() == [row[0] for row in rows]
    assert np.array_equal(images[columns[1:]].to_numpy(np.float32), np.array([row[1:] for row in rows], np.float32))
    assert table[table.time.notna()].time.max() > 9
    assert not (tmp_path / 'out' / '.work').exists()


def test_workers_that_are_killed(inputs, recognizer, processes, undisturbed, tmp_path):
    "A worker ends at an image, then one at a frame of the video: nothing is lost, nothing is twice."
    from fer_nb.batch_analysis import analyze_many

    for name, width in dict(image=121, video=160).items():
        (tmp_path / name).mkdir()
        disturbed = watching(recognizer, width, Once(tmp_path / name, 1))
        found = analyze_many(inputs, tmp_path / f'out-{name}', processes, recognizer=disturbed, **KNOWN)
        assert found.complete, found.problems
        assert parts(tmp_path / f'out-{name}') == undisturbed
        assert len(list((tmp_path / name).iterdir())) == 1


def test_an_input_that_ends_its_worker(inputs, recognizer, processes, undisturbed, tmp_path):
    "It is skipped after two attempts, and all others are done."
    from fer_nb.batch_analysis import analyze_many

    deadly = watching(recognizer, 122, Once(tmp_path, None))
    found = analyze_many(inputs, tmp_path / 'out', processes, recognizer=deadly, **KNOWN)
    assert dict(found.counts.statuses) == dict(ok=70, unreadable=1, skipped=1)
    assert len(list(tmp_path.glob('death-*'))) == 2
    assert f'{inputs}/40.jpg: skipped (it ended its worker twice)' in found.problems
    assert found.faces().input.nunique() == 70 and found.complete and found.failed == 2


def full_disk(on: bool) -> None:
    "From now on, Parquet files of this process cannot be written, or can be again."
    import pyarrow.parquet as pq
    from pyarrow.parquet import core

    def fails(*_, **__): raise OSError(28, 'No space left on device')

    pq.ParquetWriter = fails if on else core.ParquetWriter


def test_a_worker_without_space(inputs, recognizer, processes, undisturbed, tmp_path, monkeypatch):
    "The others do its work. Where none has space, the run stops, and goes on later."
    from fer_nb.batch_analysis import analyze_many
    from fer_nb.core import FerError

    on(processes, full_disk, True)
    try:
        found = analyze_many(inputs, tmp_path / 'one', processes, recognizer=recognizer, **KNOWN)
        assert found.complete, found.problems
        assert parts(tmp_path / 'one') == undisturbed
        processes.run(full_disk, True)
        monkeypatch.setattr('fer_nb.batch_schedule._GRACE', .5)
        try: told = analyze_many(inputs, tmp_path / 'all', processes, recognizer=recognizer, **KNOWN).problems
        except FerError as e: told = [str(e)]
        assert 'No space left on device' in told[0]
    finally: processes.run(full_disk, False)
    assert not parts(tmp_path / 'all')
    found = analyze_many(inputs, tmp_path / 'all', processes, recognizer=recognizer, resume=True, **KNOWN)
    assert parts(tmp_path / 'all') == undisturbed and found.complete


def test_workers_that_differ(inputs, recognizer, processes, tmp_path):
    "Another version, another disk, a missing file: the run does not begin, and names the worker."
    import fer_nb
    from fer_nb.batch_analysis import analyze_many
    from fer_nb.batch_schedule import Step, run_steps
    from fer_nb.core import FerError

    def version(text): __import__('fer_nb').__version__ = text
    def disk(place):
        module = __import__('fer_nb.batch_schedule').batch_schedule
        module.Path = (lambda path: Path(place + path)) if place else Path

    def wrong(one=recognizer) -> str:
        with pytest.raises(FerError) as e: analyze_many(inputs, tmp_path / 'out', processes, recognizer=one, **KNOWN)
        assert not parts(tmp_path / 'out') and not (tmp_path / 'out' / 'run.json').exists()
        return str(e.value)

    here = fer_nb.__version__
    address = on(processes, version, '0.0.9')
    try:
        assert f'worker {address}: ImportError: fer_nb 0.0.9 is installed there, and {here} here' in wrong()
        steps = (Step('pid', lambda job: os.getpid()) for _ in range(40)) # as if it had joined later
        assert {o.error for o in run_steps(processes, None, steps)} == {''}
    finally: processes.run(version, here)
    on(processes, disk, '/nowhere')
    try: assert f'worker {address}: {tmp_path}/out/.' in (told := wrong()) and 'all need the same folder' in told
    finally: processes.run(disk, '')
    told = wrong(watching(recognizer, 0, Elsewhere()))
    assert 'the recognizer cannot be loaded' in told and '/models/own.onnx' in told


def test_two_runs_into_one_folder(inputs, recognizer, threads, undisturbed, tmp_path):
    "The second one does nothing."
    from fer_nb.batch_analysis import analyze_many
    from fer_nb.core import FerError
    from fer_nb.run_folders import open_run

    entered, leave = threading.Event(), threading.Event()

    def hold():
        with open_run(tmp_path / 'out'):
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(60)
    try:
        with pytest.raises(FerError, match='writes into it; wait for it'):
            analyze_many(inputs, tmp_path / 'out', threads, recognizer=recognizer, **KNOWN)
    finally:
        leave.set()
        thread.join()
    assert not parts(tmp_path / 'out')


def test_inputs_that_change(tmp_path, recognizer, threads):
    "Only the tasks around a change are done again, and the data set is that of a new run."
    from fer_nb.batch_analysis import analyze_many

    folder, known = tmp_path / 'in', dict(recognizer=recognizer, **KNOWN)
    folder.mkdir()
    (tmp_path / 'blank.png').write_bytes(cv2.imencode('.png', cv2.UMat(24, 24, cv2.CV_8U).get()*0)[1].tobytes())
    blank = (tmp_path / 'blank.png').read_bytes()
    for i in range(1200): (folder / f'{i:04}.png').write_bytes(blank)
    first = analyze_many(folder, tmp_path / 'out', threads, **known)
    assert dict(first.counts.statuses) == dict(no_face=1200)
    before = {o: o.stat().st_mtime_ns for o in (tmp_path / 'out').glob('*/*.parquet')}
    assert len(before) >= 6
    (folder / '0000.png').unlink()
    (folder / '0001.png').write_bytes(blank[:20])
    (folder / '0002b.png').write_bytes(blank)
    found = analyze_many(folder, tmp_path / 'out', threads, resume=True, **known)
    assert dict(found.counts.statuses) == dict(no_face=1199, unreadable=1) and 0 < found.earlier < 1200
    after = {o: o.stat().st_mtime_ns for o in (tmp_path / 'out').glob('*/*.parquet')}
    assert len(before.items() & after.items()) >= 2
    analyze_many(folder, tmp_path / 'new', threads, **known)
    assert parts(tmp_path / 'out') == parts(tmp_path / 'new')


SCRIPT = """
import os, sys, time
from pathlib import Path
import fer_nb.batch_command as command
from fer_nb.cli import main
from fer_nb.detection import HaarDetector

class Waiting(HaarDetector):
    'Waits at one image until it is ended.'
    def detect(self, rgb):
        if rgb.shape[1] == 122:
            Path({mark!r}).touch()
            time.sleep(600)
        return super().detect(rgb)

def made(args):
    recognizer = make(args)
    recognizer.detector = Waiting()
    return recognizer

if __name__ == '__main__':
    make, command.make_recognizer = command.make_recognizer, made
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize('number, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped(inputs, recognizer, threads, undisturbed, tmp_path, number, code):
    "Within seconds nothing of it is left but its data set, which a further run completes."
    from fer_nb.batch_analysis import analyze_many

    mark, scratch, script = tmp_path / 'mark', tmp_path / 'scratch', tmp_path / 'script.py'
    scratch.mkdir()
    script.write_text(SCRIPT.format(mark=str(mark)))
    words = ['batch', inputs, '--out', tmp_path / 'out', '--model', 's', '--detector', 'haar', '--segment', '3']
    words += ['--workers', '2']
    env = {**os.environ, 'TMPDIR': str(scratch)}
    process = subprocess.Popen(
        [sys.executable, script, *map(str, words)], stderr=subprocess.PIPE, text=True, env=env, start_new_session=True,
    )
    begun = lambda: mark.exists() and list((tmp_path / 'out' / 'inputs').glob('*'))
    until(lambda: process.poll() is not None or begun(), 'it does not begin')
    assert process.poll() is None, process.stderr.read()
    os.killpg(process.pid, number) # as a terminal does it
    _, told = process.communicate(timeout=300)
    assert process.returncode == code
    [done] = re.findall('fer_nb batch: stopped; ([0-9]+) of 72 inputs are done; a run that resumes goes on', told)
    assert 'Traceback' not in told
    until(lambda: not living(process.pid), 'processes are left') # some end when their parent has
    assert list(scratch.iterdir()) == []
    found = analyze_many(inputs, tmp_path / 'out', threads, recognizer=recognizer, resume=True, **KNOWN)
    assert parts(tmp_path / 'out') == undisturbed
    assert max(1, int(done)) <= found.earlier < 72 # a task may be done that was not heard of any more


def living(session: int) -> list[int]:
    "The processes of a session that have not ended."
    found = []
    for place in Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):
            state, _, _, owner = place.read_text().rpartition(')')[2].split()[:4]
            if int(owner) == session and state != 'Z': found.append(int(place.parent.name))
    return found


def test_an_address_without_a_scheduler():
    "The client that came to nothing has ended: within the start of another one it would wait for itself."
    from distributed import Client

    from fer_nb.batch_cluster import connect
    from fer_nb.core import FerError

    clients = lambda: {id(o) for o in gc.get_objects() if type(o) is Client}
    before = clients()
    gc.disable() # so that nothing but the function ends it
    try:
        with pytest.raises(FerError, match='no scheduler answers there'), connect('tcp://127.0.0.1:9', timeout=.5): pass
        assert clients() == before
    finally: gc.enable()


def test_a_scheduler_that_ends(inputs, recognizer, threads, undisturbed, tmp_path):
    "The run ends with the reason, and goes on with another scheduler."
    from fer_nb.batch_analysis import analyze_many
    from fer_nb.batch_cluster import connect
    from fer_nb.core import FerError

    place, env = tmp_path / 'scheduler.json', {**os.environ, 'PYTHONPATH': str(Path(__file__).parent)}
    common = [sys.executable, '-m', 'distributed.cli.dask_'], ['--scheduler-file', str(place), '--no-dashboard']
    start = lambda what, *more: subprocess.Popen(
        [*common[0][:-1], common[0][-1] + what, *common[1], *more], env=env, stderr=subprocess.DEVNULL)
    scheduler = start('scheduler', '--host', '127.0.0.1', '--port', '0')
    worker = start('worker', '--nthreads', '1', '--no-nanny', '--local-directory', str(tmp_path))
    out = tmp_path / 'out'

    begun = lambda: list((out / 'inputs').glob('*'))

    def end():
        until(begun)
        scheduler.kill()

    try:
        until(place.exists, 'no scheduler')
        with connect(str(place), timeout=120) as client:
            client.wait_for_workers(1, timeout=120)
            # a frame of the video waits for ever when the first part is there
            waiting = watching(recognizer, 160, lambda: time.sleep(600*bool(begun())))
            threading.Thread(target=end, daemon=True).start()
            with pytest.raises(FerError, match='the connection to the scheduler was lost'):
                analyze_many(inputs, out, client, recognizer=waiting, **KNOWN)
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()
    analyze_many(inputs, out, threads, recognizer=recognizer, resume=True, **KNOWN)
    assert parts(out) == undisturbed


@contextlib.contextmanager
def without_a_package(client, address: str):
    "On one worker, what opens archives is a package that is not there."
    def change(new):
        from importlib import import_module

        registry = import_module('fsspec.registry')
        registry._registry.pop('zip', None)
        old, registry.known_implementations['zip'] = registry.known_implementations['zip'], new
        return old

    missing = dict([('class', 'no_such_package.Files'), ('err', 'Install no_such_package')])
    old = client.run(change, missing, workers=[address])[address]
    try: yield
    finally: client.run(change, old, workers=[address])


@pytest.fixture
def packed(inputs, tmp_path) -> str:
    "The address of the first 40 images in an archive."
    import zipfile

    with zipfile.ZipFile(tmp_path / 'faces.zip', 'w') as file:
        for path in sorted(inputs.glob('[0-3]*.jpg')): file.write(path, path.name)
    return f'zip://::file://{tmp_path}/faces.zip'


def test_a_worker_without_a_package_is_named(packed, recognizer, processes, tmp_path):
    "It ends the run before it begins, and names the worker and the package."
    from fer_nb.batch_analysis import analyze_many
    from fer_nb.core import FerError

    worker = sorted(processes.nthreads())[0]
    told = f'worker {re.escape(worker)}: zip://: the package no_such_package is missing: pip install no_such_package'
    with without_a_package(processes, worker), pytest.raises(FerError, match=told):
        analyze_many(packed, tmp_path / 'out', processes, recognizer=recognizer, **KNOWN)
    assert not list((tmp_path / 'out').glob('*/*.parquet'))


def test_a_worker_without_a_package_leaves_the_inputs_to_others(packed, recognizer, processes, tmp_path, monkeypatch):
    "One that joined later is found out by its first task: no image is called unreadable because of it."
    from fer_nb import batch_analysis, batch_tables

    monkeypatch.setattr(batch_analysis, 'check_workers', lambda *args, **options: None)
    monkeypatch.setattr(batch_tables, '_MOST', 2) # 20 tasks
    with without_a_package(processes, sorted(processes.nthreads())[0]):
        found = batch_analysis.analyze_many(packed, tmp_path / 'out', processes, recognizer=recognizer, **KNOWN)
    assert dict(found.counts.statuses) == dict(ok=40) and found.complete


def test_a_video_without_a_package_is_not_unreadable(recognizer, tmp_path):
    import fsspec

    from fer_nb.batch_images import make_job
    from fer_nb.batch_inputs import BatchInput
    from fer_nb.batch_segments import _make_segments, run_segment
    from fer_nb.batch_tables import make_task
    from fer_nb.batch_videos import probe_video
    from fer_nb.storage import MissingPackage

    fsspec.register_implementation('elsewhere', 'no_such_package.Files', errtxt='Install it', clobber=True)
    job = make_job(tmp_path / 'out', recognizer)
    job.folder.begin(job.settings)
    task = make_task(job.key, 'video', [BatchInput('elsewhere://a/clip.mp4', '1', 1)])
    with pytest.raises(MissingPackage, match='no_such_package'): probe_video(job, task)
    [segment] = _make_segments(task, [0.], 0., 0.)
    with pytest.raises(MissingPackage, match='no_such_package'): run_segment(job, task, segment)
    assert not list((tmp_path / 'out').glob('*/*.parquet'))


def test_texts_in_the_singular():
    from collections import Counter

    from fer_nb.batch_analysis import BatchSummary
    from fer_nb.batch_images import Counts

    one = BatchSummary(Path('out'), Counts(Counter(ok=1), 1, 1, 1.), 1, 1.)
    assert str(one).startswith('1 input: 1 with faces\n1 row of faces in images and 1 frame of video (')
    assert ' for 1 input\n' in str(one)


def test_other_users_of_the_computer_are_kept_out():
    "With `cryptography`, the cluster takes connections of its own processes alone."
    pytest.importorskip('cryptography')
    from fer_nb.batch_cluster import connect, open_cluster
    from fer_nb.core import FerError

    with open_cluster(1) as client:
        address = client.scheduler.address
        assert address.startswith('tls://') and client.submit(sum, [1, 2]).result() == 3
        for other in (address, address.replace('tls', 'tcp')):
            with pytest.raises(FerError, match='no scheduler answers'), connect(other, timeout=2): pass
