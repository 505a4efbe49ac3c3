"""`make cluster`: what many images and videos cost on a cluster of this machine. Writes models/cluster.json.

One run, in some minutes: costs in one process, Dask's own costs, two workers beside one, the client's memory with
100,000 images, and the same run again while a worker is killed every ten seconds. `python benchmarks/cluster.py
PART...` measures some parts only, and only prints them; IMAGES=5000 PAUSE=3 in front takes fewer."""
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cluster_costs
import numpy as np
import psutil
from cluster_costs import processor_time, write_photos, write_small, write_video
from run import machine

OUT = Path('models/cluster.json')
SMALL = int(os.environ.get('IMAGES', 100_000))  # images that are only there to be many
PAUSE = float(os.environ.get('PAUSE', 10))  # seconds between two killed workers


def processors(processes: list[psutil.Process]) -> float:
    "Seconds of processor time that they took so far."
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def rest(seconds: float, inputs: tuple) -> dict:
    "A task that does nothing, with arguments and result as those of a task of images."
    time.sleep(seconds)
    return dict(ok=len(inputs), faces=0, seconds=0.)


def in_flight(client, seconds: float, n: int) -> float:
    "Seconds for many tasks that do nothing, eight at a time."
    from distributed import as_completed

    inputs = tuple((f'/a/folder/with/images/{i:08}.jpg', f'{i}-12345', i) for i in range(215))
    submit = lambda: client.submit(rest, seconds, inputs, pure=False)
    start, done, begun = time.perf_counter(), as_completed([submit() for _ in range(8)]), 8
    for future in done:
        future.result()
        future.release()
        if begun < n: done.add(submit())
        begun += 1
    return time.perf_counter() - start


@contextmanager
def own_processes(folder: Path) -> Iterator[tuple]:
    "A scheduler and two workers, each in a process of its own: client, process of the scheduler."
    from distributed import Client

    place = ['--scheduler-file', str(folder / 'scheduler.json'), '--no-dashboard']
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    scheduler = [sys.executable, '-m', 'dask', 'scheduler', '--host', '127.0.0.1', '--port', '0', *place]
    options = ['--nthreads', '1', '--no-nanny', '--local-directory', str(folder)]
    worker = [sys.executable, '-m', 'dask', 'worker', *options, *place]
    processes = [subprocess.Popen(command, **quiet) for command in (scheduler, worker, worker)]
    try:
        with Client(scheduler_file=folder / 'scheduler.json', timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            yield client, psutil.Process(processes[0].pid)
    finally:
        for process in processes[::-1]:
            process.terminate()
            process.wait()


def dask(folder: Path) -> dict:
    "What a task costs the scheduler and the client, and how long a worker rests between two tasks."
    n, pause, me = 1500, .05, psutil.Process()
    with own_processes(folder) as (client, scheduler):
        in_flight(client, 0., 100)
        before = processors([scheduler]), processors([me])
        in_flight(client, 0., n)
        took = processors([scheduler]) - before[0], processors([me]) - before[1]
        gap = in_flight(client, pause, 200) * 2 / 200 - pause
    return dict(
        tasks=n, scheduler_seconds=round(took[0] / n, 6), client_seconds=round(took[1] / n, 6),
        gap_seconds=round(gap, 5), start_seconds=round(start_of_worker(folder), 2),
    )


def start_of_worker(folder: Path) -> float:
    "Seconds until a new worker has done its first image."
    from fer_nb.batch_analysis import analyze_many
    from fer_nb.batch_cluster import open_cluster

    photos, start = write_photos(folder / 'first', 1), time.perf_counter()
    with open_cluster(1) as client: analyze_many([photos], folder / 'first_out', client, progress=False)
    return time.perf_counter() - start


def recognizer():
    from fer_nb import Recognizer

    return Recognizer(detector='haar')


def run(client, folder: Path, out: Path, **options) -> dict:
    "One run: seconds, processor time of the workers, and what they did when."
    from distributed import get_task_stream

    from fer_nb.batch_analysis import analyze_many

    workers = [psutil.Process(pid) for pid in client.run(os.getpid).values()]
    before, start = processors(workers), time.perf_counter()
    with get_task_stream(client) as stream:
        summary = analyze_many([folder], out, client, recognizer=recognizer(), progress=False, **options)
    took = time.perf_counter() - start
    return dict(seconds=took, processor=processors(workers) - before, stream=stream.data, summary=summary)


def outside(stream: list[dict]) -> float:
    "Share of the workers' time, from the start of the first task to the end of the last one, without a task."
    spans = {}
    for task in stream:
        for o in task['startstops']:
            if o['action'] == 'compute': spans.setdefault(task['worker'], []).append((o['start'], o['stop']))
    available = sum(max(stop for _, stop in some) - min(start for start, _ in some) for some in spans.values())
    return 1 - sum(stop - start for some in spans.values() for start, stop in some) / available


def scaling(folder: Path) -> dict:
    "Two workers beside one, the same images, in turns: two, one, two."
    from fer_nb.batch_cluster import open_cluster

    photos = many_photos(folder / 'many', SMALL // 40)
    few = write_photos(folder / 'few', 20)
    n = sum(1 for _ in photos.iterdir())
    with ExitStack() as stack:
        clients = {k: stack.enter_context(open_cluster(k)) for k in (1, 2)}
        for k, client in clients.items(): run(client, few, folder / f'few_{k}')
        done = [(k, run(clients[k], photos, folder / f'scaled_{i}')) for i, k in enumerate((2, 1, 2))]
    two = [o for k, o in done if k == 2]
    [one] = [o for k, o in done if k == 1]
    r, paths = recognizer(), sorted(photos.iterdir())[:400]
    r(paths[0])
    alone = processor_time(lambda: [r(path) for path in paths]) / len(paths)
    return dict(
        scaling=dict(
            images=n, one_seconds=round(one['seconds'], 2), two_seconds=[round(o['seconds'], 2) for o in two],
            ratio=round(one['seconds'] / statistics.mean(o['seconds'] for o in two), 3),
            one_busy=round(one['processor'] / one['seconds'], 3),
            two_busy=round(statistics.mean(o['processor'] / o['seconds'] / 2 for o in two), 3),
        ),
        overhead=dict(
            outside=round(max(outside(o['stream']) for _, o in done), 5), alone_seconds=round(alone, 5),
            beside=round(one['processor'] / n / alone - 1, 4),
        ),
    )


def many_photos(folder: Path, n: int) -> Path:
    "Hard links to a few hundred scenes, small ones, so that there are many tasks."
    scenes = sorted(write_photos(folder.with_suffix('.distinct'), 350, (200, 150)).iterdir())
    folder.mkdir()
    for i in range(n): (folder / f'{i:05}.jpg').hardlink_to(scenes[i % len(scenes)])
    return folder


def read_table(folder: Path) -> dict[str, list]:
    "A table of a data set, by columns."
    from pyarrow import concat_tables, parquet

    parts = [parquet.read_table(path, partitioning=None) for path in sorted(folder.iterdir())]
    return concat_tables([part.cast(parts[0].schema) for part in parts]).to_pydict()


def size_of(folder: Path) -> int: return sum(path.stat().st_size for path in folder.iterdir())


def equal(folder: Path) -> dict:
    "Every figure of a data set beside what `Recognizer` gives in this process, and how much room it takes."
    from fer_nb.batch_cluster import open_cluster

    photos, out, r = write_photos(folder / 'photos', 300), folder / 'photos_out', recognizer()
    with open_cluster(2) as client: run(client, photos, out)
    told = read_table(out / 'faces')
    columns = ['input', 'face', 'x', 'y', 'width', 'height', 'score', *r.classes, 'confidence', 'label']
    found = sorted(zip(*(told[name] for name in columns)))
    wanted = sorted(
        (str(path), i, *face.box, *single(face.score, *face.probabilities.values(), face.confidence), face.label)
        for path in photos.iterdir() for i, face in enumerate(r(path).faces, 1)
    )
    differing = len(set(found).symmetric_difference(wanted)) + abs(len(found) - len(wanted))
    return dict(
        equal=dict(images=300, faces=len(wanted), differing=differing),
        output=dict(
            bytes_per_input=round(size_of(out / 'inputs') / 300, 1),
            bytes_per_face_of_images=round(size_of(out / 'faces') / len(wanted), 1),
        ),
    )


def single(*values: float) -> list[float]: return np.float32(values).tolist()


def video(folder: Path) -> dict:
    "The tasks of a video of two segments, and how much room its faces take."
    from fer_nb.batch_cluster import open_cluster

    (folder / 'clips').mkdir()
    write_video(folder / 'clips/clip.mp4', (480, 270), 2, 90)
    with open_cluster(2) as client: done = run(client, folder / 'clips', folder / 'clips_out', segment=30.)
    rows = len(read_table(folder / 'clips_out/faces')['face'])
    took = {}
    for task in done['stream']:
        seconds = sum(o['stop'] - o['start'] for o in task['startstops'] if o['action'] == 'compute')
        took.setdefault(str(task['key']), []).append(seconds)
    find = lambda word: [o for name, some in took.items() if word in name for o in some]
    return dict(
        video_tasks=dict(
            segments=len(find('segment')), rows=rows, probe_seconds=round(max(find('probe')), 4),
            join_seconds=round(sum(find('join')) / 1.5, 4),
        ),
        output=dict(bytes_per_face_of_videos=round(size_of(folder / 'clips_out/faces') / rows, 1)),
    )


def work(folder: str, out: str, killing: str):
    "What a client does that is watched from another process: all images of a folder, with two workers."
    from fer_nb.batch_analysis import analyze_many
    from fer_nb.batch_cluster import open_cluster

    killed, done = [], threading.Event()

    def kill():
        while not done.wait(PAUSE):
            pids = sorted(client.run(os.getpid, on_error='ignore').values())
            if not pids or done.is_set(): continue
            os.kill(pids[len(killed) % len(pids)], signal.SIGKILL)
            killed.append(pids)

    with open_cluster(2) as client:
        if killing: threading.Thread(target=kill, daemon=True).start()
        start = time.perf_counter()
        analyze_many([folder], out, client, recognizer=recognizer(), progress=False)
        done.set()
        print(json.dumps(dict(seconds=time.perf_counter() - start, kills=len(killed))), flush=True)


def watched(folder: Path, out: Path, killing: bool) -> tuple[dict, np.ndarray]:
    "A client in a process of its own: what it says, and (seconds, MB) of its memory while it works."
    command = [sys.executable, __file__, '--work', str(folder), str(out), 'kill' if killing else '']
    client, memory = subprocess.Popen(command, stdout=subprocess.PIPE, text=True), []
    process, start = psutil.Process(client.pid), time.perf_counter()
    while client.poll() is None:
        begun = any((out / 'inputs').glob('*'))
        try: memory.append((time.perf_counter() - start, process.memory_info().rss / 1e6, begun))
        except psutil.NoSuchProcess: break
        time.sleep(.2)
    said = client.communicate()[0]
    if client.returncode: raise SystemExit(f'the client ended with {client.returncode}')
    return json.loads(said.splitlines()[-1]), np.array([(t, mb) for t, mb, begun in memory if begun])


def digests(out: Path) -> dict[str, str]:
    "The SHA-256 of every file of the two tables."
    paths = [path for table in ('faces', 'inputs') for path in (out / table).iterdir()]
    return {f'{path.parent.name}/{path.name}': hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def memory(folder: Path) -> dict:
    "100,000 images: the list, the client's memory, and the same data set although workers are killed."
    from fer_nb.batch_inputs import list_inputs
    from fer_nb.batch_tables import image_tasks

    images, start = write_small(folder / 'small', SMALL), time.process_time()
    listed = list_inputs([images])
    tasks = sum(1 for _ in image_tasks(listed.images(), ''))
    known = dict(
        inputs=len(listed), tasks=tasks, seconds_per_input=round((time.process_time() - start) / SMALL, 8),
        bytes_per_input=round(listed.table.nbytes / SMALL, 1),
    )
    told, seen = watched(images, folder / 'small_out', killing=False)
    print(f'  {told}', flush=True)
    t, mb = seen[len(seen) // 2:].T
    growth, peak = float(np.polyfit(t, mb, 1)[0] * (t[-1] - t[0])), float(seen[:, 1].max())
    report = dict(inputs=SMALL, seconds=round(told['seconds'], 1), peak_mb=round(peak, 1), growth_mb=round(growth, 2))
    again, _ = watched(images, folder / 'killed_out', killing=True)
    print(f'  {again}', flush=True)
    first, second = digests(folder / 'small_out'), digests(folder / 'killed_out')
    differing = sum(first.get(name) != second.get(name) for name in first | second)
    return dict(list=known, memory=report, killed=dict(**again, every=PAUSE, files=len(first), differing=differing))


def fixed_costs(folder: Path) -> dict:
    "Seconds of a task of images beside its images: places, and two files."
    from fer_nb.batch_images import make_job, run_image_task
    from fer_nb.batch_inputs import list_inputs
    from fer_nb.batch_tables import image_tasks

    out, r = folder / 'one_out', recognizer()
    [path] = write_photos(folder / 'one', 1).iterdir()
    job = make_job(out, r)
    job.folder.begin(job.settings)
    [task] = image_tasks(list_inputs([path]).images(), job.key)

    def once():
        for part in (job.folder.faces(task.id), job.folder.inputs(task.id)): part.unlink(missing_ok=True)
        return processor_time(lambda: run_image_task(job, task))

    took, alone = [once() for _ in range(11)], [processor_time(lambda: r(path)) for _ in range(11)]
    return dict(task_seconds=round(max(statistics.median(took) - statistics.median(alone), 0), 5))


def merged(a: dict, b: dict) -> dict:
    "Two reports as one."
    return a | {key: a[key] | value if key in a else value for key, value in b.items()}


PARTS = dict(
    costs=lambda folder: dict(costs=cluster_costs.costs(folder)), dask=lambda folder: dict(dask=dask(folder)),
    fixed=lambda folder: dict(dask=fixed_costs(folder)), scaling=scaling, equal=equal, video=video, memory=memory,
)


def measure(wanted: list[str]) -> dict:
    "The report on some parts."
    report = dict(machine=machine())
    for name in wanted:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder: found = PARTS[name](Path(folder))
        print(f'{name}, {time.perf_counter() - start:.0f} s: {json.dumps(found)[:1500]}', flush=True)
        report = merged(report, found)
    return report


if __name__ == '__main__':
    os.environ.pop('FER_NB_YUNET', None)
    if sys.argv[1:2] == ['--work']: sys.exit(work(*sys.argv[2:]))
    unknown = ', '.join(set(sys.argv[1:]) - set(PARTS))
    if unknown: sys.exit(f'no part {unknown}; there are {", ".join(PARTS)}')
    report = measure(sys.argv[1:] or list(PARTS))
    if not sys.argv[1:]: OUT.write_text(json.dumps(report, indent=1) + '\n')
