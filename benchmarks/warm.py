"""Working: from a photo, a video or crops to the answers, beside the package `fer`."""
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from images import FRAMES, one_face, two_faces
from timing import CALLS, call_time, in_turns

PEER = Path('.venv-fer')
PHOTO, VIDEO, CROPS = 'photo 640x480 with one face', 'video 1280x720 with two faces', '64 crops in one call'


class Peer:
    "`fer` in a process and an environment of its own: asked for a part by name it answers in milliseconds."

    def __init__(self, folder: Path):  # with photo.npy, video.npy and crops.npy
        if not (PEER / '.installed').exists(): raise OSError(f'its environment {PEER} could not be made')
        with open(folder / 'peer.log', 'w+') as log:
            command = [PEER / 'bin/python', Path(__file__).with_name('peer.py'), folder]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
            if not self.process.stdout.readline(): raise OSError((folder / 'peer.log').read_text().strip()[-200:])

    def __call__(self, part: str) -> float:
        print(part, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


class Stage:
    "What is measured end to end: images, recognizers, and the peer if there is one."

    def __init__(self, folder: Path):
        import numpy as np

        from fer_nb import Recognizer
        from fer_nb.synthetic import synthetic_faces

        self.photo = one_face()
        self.video = folder / 'video.mp4'
        self.crops = synthetic_faces(64).images
        self.recognizers = {}
        self.missing = []
        for name, array in dict(photo=self.photo, video=self.write_video(), crops=self.crops).items():
            np.save(folder / name, array)
        for name in 'YuNet', 'Haar':
            try: self.recognizers[name] = Recognizer(detector=name.lower())
            except (ValueError, OSError) as e: self.missing.append(f'{name}: {e}')
        self.peer = None
        try: self.peer = Peer(folder)
        except OSError as e: self.missing.append(f'fer: {e}')

    def write_video(self) -> list:
        "Write the video; returns ten of its frames."
        from fer_nb.video_output import VideoWriter

        with VideoWriter(self.video, (1280, 720)) as video:
            frames = []
            for i, (seconds, frame) in enumerate(two_faces()):
                video.add(seconds, frame)
                if i % (FRAMES // 10) == 0: frames.append(frame)
        return frames

    def beside(self, name: str, part: str) -> dict[str, Callable[[], float]]:
        "The peer's way of a part, for `in_turns`."
        return {f'{name}, fer': partial(self.peer, part)} if self.peer else {}

    def close(self):
        "End the peer's process."
        if self.peer: self.peer.process.communicate()


def rates(taken: dict[str, float]) -> dict[str, float]:
    "Milliseconds as rates."
    return {f'{name}, frames/s': 1000 / ms for name, ms in taken.items()}


def photo(stage: Stage) -> dict[str, float]:
    "From an array to the answer."
    ours = {
        f'{PHOTO}, {name}': partial(call_time, partial(recognizer, stage.photo))
        for name, recognizer in stage.recognizers.items()
    }
    return rates(in_turns(ours | stage.beside(PHOTO, 'photo')))


def video(stage: Stage) -> dict[str, float]:
    "From a file to the answers for every frame, tracked. The peer gets ten frames as arrays: no decoding, no tracking."
    from fer_nb.face_stream import StreamOptions, track_video
    faces = {}

    def watch(name, **options):
        start = time.perf_counter()
        found = sum(1 for _ in track_video(stage.recognizers[name], stage.video, options=StreamOptions(**options)))
        faces[f'{VIDEO}, {name}, faces a frame'] = found / FRAMES
        return 1000 * (time.perf_counter() - start) / FRAMES

    often = {'': {}, ' in every frame': dict(detect_every=0, classify_every=0)}
    ways = {
        f'{VIDEO}, {name}{text}': partial(watch, name, **options)
        for name in stage.recognizers
        for text, options in often.items()
    }
    return rates(in_turns(ways | stage.beside(VIDEO, 'video'))) | faces


def crops(stage: Stage) -> dict[str, float]:
    "Faces already cropped, on two threads and on one."
    from fer_nb import Recognizer

    def way(threads):
        return partial(call_time, partial(Recognizer(detector='haar', threads=threads).recognize_crops, stage.crops))

    ours = {f'{CROPS}, two threads': way(2), f'{CROPS}, one thread': way(1)}
    return {f'{name}, ms': ms for name, ms in in_turns(ours | stage.beside(CROPS, 'crops')).items()}


OWN = {}  # what a worker of a pool uses


def equip(own: dict):
    "Give a worker its recognizer and its photo."
    OWN.update(own)


def repeat(times: int):
    "What a worker does."
    for _ in range(times): OWN['recognizer'](OWN['photo'])


def run_pool(pool, workers: int) -> float:
    "Milliseconds for each photo of a row that several workers share."
    start = time.perf_counter()
    list(pool.map(repeat, [2 * CALLS // workers] * workers))
    return 1000 * (time.perf_counter() - start) / (2 * CALLS)


def together(stage: Stage) -> dict[str, float]:
    "One and two threads that share a `Recognizer`, one and two processes that were sent one each: the same photos."
    taken = {}
    for name, recognizer in stage.recognizers.items():
        own = dict(recognizer=recognizer, photo=stage.photo)
        equip(own)
        with ExitStack() as stack:
            ways = {}
            for n, threads, processes in (1, 'one thread', 'one process'), (2, 'two threads', 'two processes'):
                pool = stack.enter_context(ThreadPoolExecutor(n))
                ways[f'photos in a row, {name}, {threads}'] = partial(run_pool, pool, n)
                pool = stack.enter_context(ProcessPoolExecutor(n, get_context('spawn'), equip, (own,)))
                ways[f'photos in a row, {name}, {processes}'] = partial(run_pool, pool, n)
            taken |= in_turns(ways)
    return rates(taken)


PARTS = dict(photo=photo, video=video, crops=crops, together=together)
