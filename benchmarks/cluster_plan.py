"""`make plan`: what clusters that nobody here has would do with ten million photos and 40,000 hours of video.

A simulated scheduler, event by event, with the costs that `make cluster` measured (models/cluster.json). Writes
models/cluster_plan.json and the tables of docs/scaling.md; with --check only says whether the page is up to date."""
import heapq
import json
import re
import sys
from collections import deque
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

MEASURED, PLAN, PAGE = Path('models/cluster.json'), Path('models/cluster_plan.json'), Path('docs/scaling.md')
PHOTOS, HOURS = 10_000_000, 40_000
CORES = 100, 1000


@dataclass(frozen=True)
class Cluster:
    "What is assumed about a cluster, where nothing could be measured here."
    cores: int = 100
    storage: float = 2e9  # bytes a second that all cores together read
    one_core: float = 2e8  # bytes a second that one core reads at most
    opens: float = 20_000  # files a second that the storage opens
    listing: float = 2e-4  # seconds in which the storage tells size and time of a file to the client
    lost: float = .02  # share of the workers that are lost on the way and do not come back
    noticed: float = 300  # seconds until the scheduler gives a lost worker up: Dask's `worker-ttl`
    speeds: float = .1  # standard deviation of the workers' speeds
    slow: float = .01  # share of the tasks that something holds up
    tail: float = 1.5  # by factors with a Pareto distribution of this exponent,
    longest: float = 50  # and at most this one
    schedulers: int = 1  # each with its own client and a share of cores and inputs


@dataclass(frozen=True)
class Tasks:
    "What is to be done: an entry for each task."
    inputs: np.ndarray  # files it opens
    bytes: np.ndarray  # it reads
    seconds: np.ndarray  # of one core, on average


def chunk_sizes(n: int, rng: np.random.Generator, larger: int = 1) -> np.ndarray:
    "How many images each task has: it ends at one of 200, but has 50 to 400 of them."
    most = n // (50 * larger) + 1
    sizes = np.minimum(50 + rng.geometric(1 / 200, most) - 1, 400) * larger
    count = int(np.searchsorted(sizes.cumsum(), n)) + 1
    return sizes[:count]


def photo_tasks(measured: dict, row: dict, larger: int = 1) -> Tasks:
    "Ten million photos of one size."
    rng, quantiles = np.random.default_rng(0), np.array(measured['costs']['spread']['quantiles'])
    sizes = chunk_sizes(PHOTOS, rng, larger)
    spread = rng.normal(1, quantiles.std() / np.sqrt(sizes))  # the mean of so many images
    return Tasks(sizes, sizes * row['bytes'], sizes * row['seconds'] * spread + measured['dask']['task_seconds'])


def video_tasks(measured: dict, row: dict, larger: int = 1) -> Tasks:
    "40,000 hours of video: files of half an hour on average, cut into segments of a minute, which are joined."
    rng, quantiles = np.random.default_rng(0), np.array(measured['costs']['spread']['quantiles'])
    minutes = rng.lognormal(np.log(30) - .5, 1, HOURS * 2).clip(.1)
    minutes *= HOURS * 60 / minutes.sum()
    segments, small = np.ceil(minutes / larger).astype(int), measured['video_tasks']
    spread = np.interp(rng.random(segments.sum()), np.linspace(0, 1, len(quantiles)), quantiles)
    length = np.repeat(minutes / segments, segments)
    warm = np.repeat(np.where(segments > 1, 2 / 60, 0), segments)
    parts = (
        Tasks(np.ones(len(minutes)), np.full(len(minutes), 1e6), np.full(len(minutes), small['probe_seconds'])),
        Tasks(np.ones(len(length)), length * row['bytes'], (length + warm) * row['seconds'] * spread),
        Tasks(segments, np.zeros(len(minutes)), small['join_seconds'] * minutes),
    )
    ends = np.cumsum(segments)
    order = np.argsort(np.concatenate([ends - segments, np.arange(len(length)), ends]), kind='stable')
    return Tasks(*(np.concatenate([getattr(o, key) for o in parts])[order] for key in ('inputs', 'bytes', 'seconds')))


class Server:
    "What serves one after the other: a scheduler, a client, a storage."

    def __init__(self): self.free = self.busy = 0.

    def serve(self, at: float, seconds: float) -> float:
        "When somebody who comes at a time has been served."
        self.free = max(self.free, at) + seconds
        self.busy += seconds
        return self.free


def simulate(tasks: Tasks, cluster: Cluster, dask: dict) -> dict:
    "The medians of nine simulations, or a single one where there are so many tasks that chance does little."
    runs = [simulate_once(tasks, cluster, dask, seed) for seed in range(9 if len(tasks.seconds) < 100_000 else 1)]
    return {key: float(np.median([run[key] for run in runs])) for key in runs[0]}


def simulate_once(tasks: Tasks, cluster: Cluster, dask: dict, seed: int) -> dict:
    "Let a cluster work through tasks; the shares of time are those from the first task to the last."
    rng, n, cores = np.random.default_rng([1, seed]), len(tasks.seconds), cluster.cores
    slow = np.where(rng.random(n) < cluster.slow, np.minimum(1 + rng.pareto(cluster.tail, n), cluster.longest), 1)
    seconds = (tasks.seconds * slow).tolist()
    reading = np.maximum(tasks.bytes / cluster.storage, tasks.inputs / cluster.opens).tolist()
    alone = (tasks.bytes / cluster.one_core).tolist()
    speed = rng.normal(1, cluster.speeds, cores).clip(.5).tolist()
    dies = np.full(cores, np.inf)
    lost = rng.choice(cores, round(cores * cluster.lost), replace=False)
    dies[lost] = rng.random(len(lost)) * max(sum(seconds) / cores, sum(reading)) + dask['start_seconds']
    scheduler, client, storage = Server(), Server(), Server()
    free = [(dask['start_seconds'], i) for i in range(cores)]  # (when, who)
    begun, again, idle, ends = deque(), [], [], []
    worked, ahead, again_done, last_new = 0., 0, 0, 0.
    while free:
        now, who = heapq.heappop(free)
        if now >= dies[who]: continue
        if again and again[0][0] <= now: _, k = heapq.heappop(again)
        elif ahead < n:
            k, ahead, last_new = ahead, ahead + 1, now
            if len(begun) >= 3 * cores: begun.popleft()
            begun.append(now)
            ready = client.serve(begun[0] if len(begun) == 3 * cores else 0., dask['client_seconds'])
            now = max(now, ready)
        elif again:  # it waits until a lost task is given out once more
            heapq.heappush(free, (again[0][0], who))
            continue
        else:
            idle.append((now, who))
            continue
        start = scheduler.serve(now, dask['scheduler_seconds']) + dask['gap_seconds']
        read = max(start + alone[k], storage.serve(start, reading[k]))
        end = read + seconds[k] * speed[who]
        if end < dies[who]:
            worked += seconds[k]
            ends.append(end)
            heapq.heappush(free, (end, who))
        else:
            again_done += 1
            noticed = dies[who] + cluster.noticed
            heapq.heappush(again, (noticed, k))
            if idle: heapq.heappush(free, (noticed, idle.pop()[1]))
    whole = max(ends)
    assert len(ends) == n, f'{n - len(ends)} tasks were never done'
    return dict(
        tasks=n, hours=round(whole / 3600, 3), work_hours=round(worked / 3600, 1),
        cores_busy=round(worked / cores / whole, 4), scheduler_busy=round(scheduler.busy / whole, 4),
        client_busy=round(client.busy / whole, 4), storage_busy=round(storage.busy / whole, 4), done_again=again_done,
        tail_minutes=round((whole - last_new) / 60, 2),
    )


def one_of(tasks: Tasks, cluster: Cluster) -> tuple[Tasks, Cluster]:
    "What one of several alike schedulers has: its share of tasks, cores and storage."
    n = cluster.schedulers
    share = Tasks(*(getattr(tasks, key)[::n] for key in ('inputs', 'bytes', 'seconds')))
    return share, replace(cluster, cores=cluster.cores // n, storage=cluster.storage / n, opens=cluster.opens / n)


def full_at(tasks: Tasks, listing: float, dask: dict) -> dict[str, int]:
    "With how many cores the list takes as long as the work, and each of the others has no rest."
    n, cluster = len(tasks.seconds), Cluster()
    reading = np.maximum(tasks.bytes / cluster.storage, tasks.inputs / cluster.opens).sum()
    each = dict(scheduler=n * dask['scheduler_seconds'], client=n * dask['client_seconds'])
    each = dict(list=listing, storage=reading) | each
    return {name: int(tasks.seconds.sum() / seconds) for name, seconds in each.items()}


def listing(measured: dict, row: dict) -> float:
    "Seconds in which the client learns what there is to do."
    files = HOURS * 2 if 'fps' in row else PHOTOS
    return files * (measured['list']['seconds_per_input'] + Cluster.listing)


def workloads(measured: dict) -> dict[str, tuple]:
    "Name: how its tasks are made, and the line of measured costs."
    photos = {o['width']: o for o in measured['costs']['images']}
    videos = {(o['height'], o['faces'], o['every']): o for o in measured['costs']['videos']}
    return {
        f'{PHOTOS // 10**6} million photos of 640 x 480': (photo_tasks, photos[640]),
        f'{PHOTOS // 10**6} million photos of 4000 x 3000': (photo_tasks, photos[4000]),
        f'{HOURS:,} hours of 1280 x 720, every frame': (video_tasks, videos[720, 2, 0]),
        f'{HOURS:,} hours of 1280 x 720, two frames a second': (video_tasks, videos[720, 2, .5]),
    }


def output_bytes(measured: dict, row: dict) -> float:
    "How much room the results of a workload need."
    size = measured['output']
    if 'fps' not in row: return PHOTOS * (size['bytes_per_input'] + row['faces'] * size['bytes_per_face_of_images'])
    looked = 1 / row['every'] if row['every'] else row['fps']
    return HOURS * 3600 * looked * row['faces'] * size['bytes_per_face_of_videos']


def plan(measured: dict) -> dict:
    "All simulations."
    dask, made, report = measured['dask'], workloads(measured), dict(assumed=asdict(Cluster()), plans=[], remedies=[])
    for name, (make, row) in made.items():
        tasks = make(measured, row)
        full, minutes = full_at(tasks, listing(measured, row), dask), round(listing(measured, row) / 60, 1)
        for cores in CORES:
            done = simulate(tasks, Cluster(cores), dask)
            output = output_bytes(measured, row)
            more = dict(output_gb=round(output / 1e9, 1), list_minutes=minutes, full_at=full)
            report['plans'].append(dict(work=name, cores=cores, **done, **more))
            print(f'  {report["plans"][-1]}', flush=True)
    small, large, _, seldom = made
    for name, change, larger, what in (
        (small, dict(noticed=30), 1, 'lost machines noticed after 30 s'),
        (small, dict(opens=80_000, storage=8e9), 1, 'storage of four times the speed'),
        (small, {}, 4, 'tasks of four times the size'),
        (small, dict(schedulers=4), 1, 'four runs, each with a quarter of folders and cores'),
        (large, dict(storage=8e9), 1, 'storage of four times the speed'),
        (seldom, dict(storage=8e9), 1, 'storage of four times the speed'),
        (seldom, {}, 4, 'segments of four minutes'),
    ):
        make, row = made[name]
        tasks, cluster = one_of(make(measured, row, larger), Cluster(CORES[-1], **change))
        done = simulate(tasks, cluster, dask)
        if not any(o['work'] == name for o in report['remedies']):
            [before] = [o for o in report['plans'] if o['work'] == name and o['cores'] == CORES[-1]]
            report['remedies'].append(dict(change='as above', **before))
        minutes = round(listing(measured, row) / 60 / cluster.schedulers, 1)
        report['remedies'].append(dict(work=name, change=what, cores=CORES[-1], **done, list_minutes=minutes))
        print(f'  {report["remedies"][-1]}', flush=True)
    known = measured['list']
    report['list'] = dict(
        inputs=PHOTOS, megabytes=round(PHOTOS * known['bytes_per_input'] / 1e6),
        minutes=round(listing(measured, made[small][1]) / 60, 1),
        minutes_of_storage=round(PHOTOS * Cluster.listing / 60, 1),
    )
    return report


def table(rows: list[dict]) -> str:
    "Rows as Markdown."
    lines = [rows[0].keys(), ['---'] * len(rows[0]), *(row.values() for row in rows)]
    return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


def image_table(measured: dict, report: dict) -> str:
    return table([
        {'photo': f'{o["width"]} x {o["height"]}', 'file, MB': f'{o["bytes"] / 1e6:.2f}',
         'ms': f'{1000 * o["seconds"]:.1f}', 'photos an hour and core': f'{3600 / o["seconds"]:,.0f}'}
        for o in measured['costs']['images']
    ])


def video_table(measured: dict, report: dict) -> str:
    return table([
        {'video': f'{o["width"]} x {o["height"]}, {o["fps"]} frames a second', 'faces': o['faces'],
         'looked at': f'each {o["every"]:g} s' if o['every'] else 'every frame',
         'file, MB a minute': f'{o["bytes"] / 1e6:.0f}', 'seconds of a core a minute': f'{o["seconds"]:.1f}'}
        for o in measured['costs']['videos']
    ])


def cluster_table(measured: dict, report: dict) -> str:
    m, dask, size = measured, measured['dask'], measured['output']
    memory, killed, overhead = m['memory'], m['killed'], m['overhead']
    return table([{'measured with two workers': what, '': value} for what, value in (
        ('speed against one worker', f'{m["scaling"]["ratio"]:.2f} times'),
        ("share of the workers' time outside of tasks", f'{overhead["outside"]:.1%}'),
        ('processor time in a task beside `Recognizer` itself', f'{overhead["beside"]:.1%}'),
        ('a task, its costs to the scheduler', f'{1000 * dask["scheduler_seconds"]:.1f} ms'),
        ('a task, its costs to the client', f'{1000 * dask["client_seconds"]:.1f} ms'),
        ('pause of a worker between two tasks', f'{1000 * dask["gap_seconds"]:.0f} ms'),
        ('start of a worker', f'{dask["start_seconds"]:.1f} s'),
        (f'memory of client and scheduler with {memory["inputs"]:,} images', f'{memory["peak_mb"]:.0f} MB'),
        ('its growth in the second half', f'{memory["growth_mb"]:+.1f} MB'),
        (f'the same run with {killed["kills"]} workers killed',
         f'{killed["differing"]} of {killed["files"]:,} files differ'),
        (f'{m["equal"]["images"]} images beside `Recognizer` in one process',
         f'{m["equal"]["differing"]} of {m["equal"]["faces"]} faces differ'),
        ('output of an image',
         f'{size["bytes_per_input"]:.0f} bytes, and {size["bytes_per_face_of_images"]:.0f} a face'),
        ('output of a video', f'{size["bytes_per_face_of_videos"]:.0f} bytes a face and frame'),
    )])


def assumed_list(measured: dict, report: dict) -> str:
    c = Cluster()
    return '\n'.join([
        f'- The storage gives {c.storage / 1e9:g} GB/s to all, {c.one_core / 1e6:g} MB/s to a core at most, '
        f'opens {c.opens:,} files a second, and tells size and time of a file in {1000 * c.listing:g} ms.',
        f'- {c.lost:.0%} of the workers are lost on the way and do not come back. Where a process ends, Dask notices '
        f"at once; here whole machines fall silent, and their tasks are given out again after {c.noticed:g} s, Dask's "
        '`worker-ttl`.',
        f'- Something holds up {c.slow:.0%} of the tasks, by a factor with a Pareto tail of exponent {c.tail:g}, up to '
        f'{c.longest:g}. The speeds of workers differ by {c.speeds:.0%}.',
        '- Videos have half an hour on average, log-normal. The other differences between tasks are those measured.',
    ])


def plan_table(measured: dict, report: dict) -> str:
    return table([
        {'work': o['work'], 'cores': f'{o["cores"]:,}', 'tasks': f'{o["tasks"]:,.0f}',
         'list, minutes': f'{o["list_minutes"]:.0f}', 'then hours': f'{o["hours"]:.1f}',
         'cores at work': f'{o["cores_busy"]:.0%}', 'scheduler': f'{o["scheduler_busy"]:.0%}',
         'storage': f'{o["storage_busy"]:.0%}',
         'end, minutes': f'{o["tail_minutes"]:.0f}',
         'output, GB': f'{o["output_gb"]:,.0f}'}
        for o in report['plans']
    ])


def full_table(measured: dict, report: dict) -> str:
    return table([
        {'work': o['work']} | {name: f'{n:,} cores' for name, n in o['full_at'].items()}
        | {'first': min(o['full_at'], key=o['full_at'].get)}
        for o in report['plans'][::len(CORES)]
    ])


def remedy_table(measured: dict, report: dict) -> str:
    return table([
        {'work': o['work'], f'{CORES[-1]:,} cores': o['change'], 'list, minutes': f'{o["list_minutes"]:.0f}',
         'then hours': f'{o["hours"]:.2f}',
         'cores at work': f'{o["cores_busy"]:.0%}', 'scheduler': f'{o["scheduler_busy"]:.0%}',
         'end, minutes': f'{o["tail_minutes"]:.1f}'}
        for o in report['remedies']
    ])


def list_text(measured: dict, report: dict) -> str:
    o = report['list']
    return (
        f'The client\'s list of {o["inputs"] // 10**6} million files takes {o["megabytes"]:,} MB. Making it takes '
        f'{o["minutes"]:.0f} minutes; {o["minutes_of_storage"]:.0f} of them the client waits for '
        'the storage, which it asks about each file.'
    )


PARTS = dict(
    images=image_table, videos=video_table, cluster=cluster_table, assumed=assumed_list, plan=plan_table,
    full=full_table, remedies=remedy_table, list=list_text,
)
BLOCK = re.compile(r'(?<=<!-- figures: )(\w+) -->\n.*?(?=<!-- end -->)', re.DOTALL)


def render(page: str) -> str:
    "The page with its figures."
    measured, report = (json.loads(path.read_text(encoding='utf-8')) for path in (MEASURED, PLAN))
    return BLOCK.sub(lambda found: f'{found[1]} -->\n\n{PARTS[found[1]](measured, report)}\n\n', page)


if __name__ == '__main__':
    check = '--check' in sys.argv
    if not check:
        report = plan(json.loads(MEASURED.read_text(encoding='utf-8')))
        PLAN.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')
    text = PAGE.read_text(encoding='utf-8')
    if check and render(text) != text: sys.exit(f'{PAGE} is not what {MEASURED} and {PLAN} give: run `make plan`')
    if not check: PAGE.write_text(render(text), encoding='utf-8')
