"""`make baselines`: what a person's own baseline changes in the answers. On everyday photographs and on FER2013.

Reads FER_NB_DATA, writes models/baselines.json. The images of a person make the baseline and are then asked about with
it; their labels are only used to count. People of FER2013 are made up: samples of PublicTest by chance. The files are
those of 16 bits: with 8, two classes often have exactly the same logit, and any offset decides between them."""
import json
import os
import sys
from pathlib import Path

import numpy as np

from fer_nb.data import FaceSet
from fer_nb.datasets import load_dataset
from fer_nb.everyday import HALVES, load_everyday
from fer_nb.labels import EXPRESSIONS
from fer_nb.recognition import Recognizer

OUT, FILE = Path('models/baselines.json'), 'models/{}.fp16.tflite'
LEAST = 5  # images of a person
MADE_UP = 200  # people
SETS = {  # classes, and images of each
    'seven expressions, 21 images': (EXPRESSIONS, 3), 'neutral and happy, 12 images': (('neutral', 'happy'), 6),
    'only neutral, 12 images': (('neutral',), 12), 'only sad, 12 images': (('sad',), 12),
    'only fear, 12 images': (('fear',), 12), 'only neutral, 3 images': (('neutral',), 3),
}


def by_person(faces: FaceSet, only: str = '') -> list[tuple[np.ndarray, np.ndarray]]:
    "Images and labels of each person who has enough of them; of one class only."
    rows = [np.flatnonzero(faces.subjects == o) for o in np.unique(faces.subjects)]
    if only: rows = [o[faces.labels[o] == faces.classes.index(only)] for o in rows]
    return [(faces.images[o], faces.labels[o]) for o in rows if len(o) >= LEAST]


def made_up(faces: FaceSet, classes, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    "Images and labels of made-up people, each with `n` samples of each class."
    rng = np.random.default_rng(0)
    pools = [np.flatnonzero(faces.labels == faces.classes.index(o)) for o in classes]
    rows = [np.concatenate([rng.choice(o, n, replace=False) for o in pools]) for _ in range(MADE_UP)]
    return [(faces.images[o], faces.labels[o]) for o in rows]


def correct(recognizer: Recognizer, images: np.ndarray, labels: np.ndarray) -> tuple[int, int]:
    "How many answers are right without a baseline, and with the person's own."
    baseline = recognizer.baseline(images, face='crop')
    wanted = [recognizer.classes[i] for i in labels]
    count = lambda results: sum(o.faces[0].label == name for o, name in zip(results, wanted, strict=True))
    return count(recognizer.recognize_crops(images)), count(recognizer.recognize_crops(images, baseline=baseline))


def measure(recognizer: Recognizer, people: list[tuple[np.ndarray, np.ndarray]]) -> dict:
    "Accuracy without and with baselines, and the difference with its 95 % interval (bootstrap over people)."
    right = np.array([(*correct(recognizer, *o), len(o[1])) for o in people])
    before, after, n = right.sum(axis=0)
    again = right[np.random.default_rng(0).integers(0, len(right), (2000, len(right)))].sum(axis=1)
    low, high = np.quantile((again[:, 1] - again[:, 0]) / again[:, 2], (.025, .975))
    values = dict(without=before / n, with_baseline=after / n, change=(after - before) / n, low=low, high=high)
    return dict(people=len(right), images=int(n)) | {k: round(float(v), 4) for k, v in values.items()}


def main() -> None:
    root = Path(os.environ['FER_NB_DATA'])
    everyday, public = load_everyday(root / 'everyday'), load_dataset(root / 'fer2013').subset('val')
    report = {}
    for model in 'ms':
        photos = Recognizer(FILE.format(model), prior='everyday')
        cases = report[model] = {}
        for half in HALVES:
            some = everyday.subset(half)
            for name, only in (('all images', ''), ('only neutral', 'neutral'), ('only happy', 'happy')):
                cases[f'everyday photographs, {half}: {name}'] = measure(photos, by_person(some, only))
        plain = Recognizer(FILE.format(model), prior='trained')
        for name, (classes, n) in SETS.items():
            cases[f'FER2013: {name}'] = measure(plain, made_up(public, classes, n))
        for name, case in cases.items(): print(model, name, case, flush=True)
    OUT.write_text(json.dumps(report, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__': sys.exit(main())
