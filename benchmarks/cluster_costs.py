"""What images and videos cost on one core, in one process: in seconds of processor time, so that other work on the
machine changes little. All of it is made: portraits in the public domain with a camera's noise, and drawn scenes."""
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from images import framed, two_faces

from fer_nb import Recognizer
from fer_nb.face_stream import FaceStream
from fer_nb.recognition import expecting_everyday
from fer_nb.synthetic import synthetic_faces, synthetic_scene
from fer_nb.video_basics import panning_video
from fer_nb.video_input import read_video
from fer_nb.video_output import VideoWriter

SIZES = (320, 240), (640, 480), (1280, 960), (4000, 3000)  # of photos
SECONDS, FPS = 4, 30  # of videos


def encoded(rgb: np.ndarray, quality: int = 90) -> bytes:
    "An image as a JPEG."
    return cv2.imencode('.jpg', rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def noisy_photo(size: tuple[int, int]) -> bytes:
    "A JPEG of a portrait with the noise of a camera."
    noise = np.random.default_rng(0).integers(-12, 13, (*size[::-1], 3))
    return encoded(np.clip(framed(*size) + noise, 0, 255).astype(np.uint8))


def write_photos(folder: Path, n: int, size: tuple[int, int] = (640, 480)) -> Path:
    "Scenes with none to six drawn faces, each another one."
    folder.mkdir(parents=True)
    for i in range(n):
        noise = np.random.default_rng(i).integers(-6, 7, (*size[::-1], 3))
        scene = np.clip(synthetic_scene(i % 7, seed=i, size=size)[0] + noise, 0, 255).astype(np.uint8)
        (folder / f'{i:05}.jpg').write_bytes(encoded(scene))
    return folder


def write_small(folder: Path, n: int, distinct: int = 200) -> Path:
    "Many files with one drawn face each; they are hard links to a few hundred contents, so that they need little room."
    contents = [encoded(face[..., None].repeat(3, -1)) for face in synthetic_faces(distinct, size=48).images]
    for i in range(n):
        path = folder / f'{i // 1000:03}' / f'{i % 1000:03}.jpg'
        if i % 1000 == 0: path.parent.mkdir(parents=True)
        first = folder / f'{i % distinct // 1000:03}' / f'{i % distinct:03}.jpg'
        if i < distinct: path.write_bytes(contents[i])
        else: path.hardlink_to(first)
    return folder


def frames(size: tuple[int, int], faces: int, seconds: int) -> Iterator[tuple[float, np.ndarray]]:
    "A pan over one or two portraits, and back."
    if faces == 2: one_turn = list(two_faces())[::5]
    else: one_turn = list(panning_video(framed(1600, 900), 60, size=(1280, 720), view=.95, travel=.02, zoom=.03))
    for i in range(seconds * FPS): yield i / FPS, cv2.resize(one_turn[i % 60][1], size, interpolation=cv2.INTER_AREA)


def write_video(path: Path, size: tuple[int, int], faces: int, seconds: int = SECONDS) -> Path:
    "An MP4 file with one or two faces in each frame."
    with VideoWriter(path, size) as video:
        for t, rgb in frames(size, faces, seconds): video.add(t, rgb)
    return path


def processor_time(work: Callable) -> float:
    "Seconds of processor time of one call, all threads together."
    start = time.process_time()
    work()
    return time.process_time() - start


def image_costs(recognizer: Recognizer) -> list[dict]:
    "Seconds for a photo, by size, from the bytes of its file to the answer."
    rows = []
    for size in SIZES:
        photo = noisy_photo(size)
        recognizer(photo)
        took = [processor_time(lambda: recognizer(photo)) for _ in range(5 if size[0] > 2000 else 15)]
        rows.append(dict(
            width=size[0], height=size[1], bytes=len(photo), faces=len(recognizer(photo).faces),
            seconds=round(statistics.median(took), 5),
        ))
        print(f'  {rows[-1]}', flush=True)
    return rows


def image_spread(recognizer: Recognizer, folder: Path) -> dict:
    "How unlike the times of unlike images of one size are: each divided by their mean."
    paths = sorted(folder.iterdir())
    recognizer(paths[0])
    took = np.array([processor_time(lambda: recognizer(path)) for path in paths])
    shares = np.quantile(took / took.mean(), np.linspace(0, 1, 21))
    return dict(images=len(paths), mean_seconds=round(took.mean(), 5), quantiles=shares.round(4).tolist())


def watch(recognizer: Recognizer, path: Path, every: float):
    "What a worker does with a video."
    stream = FaceStream(recognizer)
    with read_video(path, every=every) as video:
        for t, rgb in video: stream(t, rgb)


def video_costs(recognizer: Recognizer, folder: Path) -> list[dict]:
    "Seconds for a minute of video, by resolution, faces, and how often a frame is looked at."
    rows, recognizer = [], expecting_everyday(recognizer)
    for (width, height), faces in ((640, 360), 2), ((1280, 720), 1), ((1280, 720), 2), ((1920, 1080), 2):
        path = write_video(folder / f'{height}_{faces}.mp4', (width, height), faces)
        for every in 0., .5:
            runs = [processor_time(lambda: watch(recognizer, path, every)) for _ in range(2)]
            rows.append(dict(
                width=width, height=height, fps=FPS, faces=faces, every=every,
                bytes=path.stat().st_size * 60 // SECONDS, seconds=round(60 / SECONDS * min(runs), 3),
            ))
            print(f'  {rows[-1]}', flush=True)
    return rows


def costs(folder: Path) -> dict:
    "All of it."
    cv2.setNumThreads(1)
    recognizer = Recognizer(detector='haar')
    return dict(
        detector='Haar',
        images=image_costs(recognizer),
        spread=image_spread(recognizer, write_photos(folder / 'spread', 200)),
        videos=video_costs(recognizer, folder),
    )
