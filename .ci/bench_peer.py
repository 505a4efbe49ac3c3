"""The other side of `make bench`: runs in the environment of `fer` 25.10.3 and knows nothing of fer_nb.

Given a folder with the same pictures it answers every name on a line of its input with milliseconds on a line of its output."""
import logging
import os
import sys
import time
from pathlib import Path

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print is not an answer

import numpy as np
from fer.fer import FER

logging.disable(logging.WARNING)
HERE = Path(sys.argv[1])
fer = FER()  # its defaults: Haar cascade, LiteRT network
photo, film, crops = (np.load(HERE / f"{name}.npy") for name in ("photo", "film", "crops"))
photo, film = photo[..., ::-1].copy(), film[..., ::-1].copy()  # it wants blue first


def classify():
    "Its classifier alone: crops enlarged to 64 x 64 and scaled the way its `detect_emotions` does it."
    import cv2
    faces = np.array([cv2.resize(crop, (64, 64)) for crop in crops]).astype("float32")
    fer._classify_emotions((faces / 255 - .5) * 2)


def each(frames): return [lambda frame=frame: fer.detect_emotions(frame) for frame in frames]


TASKS = {"photo": each([photo] * 20), "film": each(film), "crops": [classify] * 10}


def measure(calls) -> float:
    "The median of several calls in milliseconds, after one that warms up."
    calls[0]()
    taken = []
    for call in calls:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return 1000 * float(np.median(taken))


print("ready", len(fer.detect_emotions(photo)), len(fer.detect_emotions(film[0])), file=answers, flush=True)
for line in sys.stdin: print(measure(TASKS[line.strip()]), file=answers, flush=True)
