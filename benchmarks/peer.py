"""The other side of `make bench`: runs in the environment of `fer` 25.10.3 and knows nothing of fer_nb.

Given a folder with the same images it answers every name on a line of its input with milliseconds on a line of its
output."""
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path


def tasks(folder: Path) -> dict[str, list[Callable]]:
    "The calls of each part."
    import cv2
    import numpy as np
    from fer.fer import FER

    logging.disable(logging.WARNING)
    fer = FER()  # its defaults: Haar cascade, LiteRT network
    photo, video, crops = (np.load(folder / f'{name}.npy') for name in ('photo', 'video', 'crops'))
    photo, video = photo[..., ::-1].copy(), video[..., ::-1].copy()  # it wants blue first

    def classify():  # alone: crops enlarged to 64 x 64 and scaled the way its `detect_emotions` does it
        faces = np.array([cv2.resize(crop, (64, 64)) for crop in crops]).astype('float32')
        fer._classify_emotions((faces / 255 - .5) * 2)

    def each(frames):
        return [lambda frame=frame: fer.detect_emotions(frame) for frame in frames]

    return {'photo': each([photo] * 20), 'video': each(video), 'crops': [classify] * 10}


def measure(calls: list[Callable]) -> float:
    "The median of several calls in milliseconds, after one that warms up."
    calls[0]()
    taken = []
    for call in calls:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return 1000 * statistics.median(taken)


if __name__ == '__main__':
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what libraries print is not an answer
    parts = tasks(Path(sys.argv[1]))
    for name in 'photo', 'video': parts[name][0]()
    print('ready', file=answers, flush=True)
    for line in sys.stdin: print(measure(parts[line.strip()]), file=answers, flush=True)
