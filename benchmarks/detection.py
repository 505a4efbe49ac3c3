"""What the face detectors find on annotated photos, and how many images they search in a second.

The photos are those of FER_NB_DATA/photos (boxes.csv: file, left, top, width, height); YuNet's file is the one that
FER_NB_YUNET names or that `fer_nb download-yunet` brought. What is not there is left out, with the reason."""
import csv
import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
from images import framed

from fer_nb.boxes import match_boxes
from fer_nb.detection import load_detector
from fer_nb.images import read_image

IOU = .5  # intersection over union from which on a face counts as found
SEARCHES = 40  # images for a median
SCENES = (640, 480, 1), (1280, 720, 2)  # width, height, faces


def annotated(folder: Path) -> dict[Path, list]:  # {photo: boxes}
    "The photos with their boxes; those without a face too."
    truth = {path: [] for path in sorted(folder.glob('*.jpg'))}
    with open(folder / 'boxes.csv') as file:
        for row in csv.DictReader(file):
            truth[folder / row['file']].append(tuple(int(row[key]) for key in ('left', 'top', 'width', 'height')))
    return truth


def compare(detector, truth: dict[Path, list]) -> dict[str, float]:
    "Precision and recall over all photos."
    found, right = 0, 0
    for path, boxes in truth.items():
        matched = match_boxes([face.box for face in detector.detect(read_image(path))], boxes, min_iou=IOU)
        found += len(matched)
        right += sum(box is not None for box in matched)
    faces = sum(map(len, truth.values()))
    report = dict(photos=len(truth), faces=faces, found=found, right=right)
    return report | dict(precision=round(right / max(1, found), 4), recall=round(right / faces, 4))


def rate(detector, image: np.ndarray) -> float:
    "Images in a second: one over the median of several, after some that do not count."
    times = []
    for _ in range(SEARCHES + 5):
        start = time.perf_counter()
        detector.detect(image)
        times.append(time.perf_counter() - start)
    return round(1 / float(np.median(times[5:])), 1)


def report_detector(detector, truth: dict[Path, list]) -> dict:
    "What one detector finds, and how quickly."
    least, most = detector.size
    report = dict(searched_at=f'{least}..{most} pixels' if least < most else f'{least} pixels')
    if truth: report[f'annotated photos, IoU {IOU}'] = compare(detector, truth)
    for width, height, faces in SCENES:
        image = framed(width, height, faces)
        figures = {'frames/s': rate(detector, image), 'found': len(detector.detect(image))}
        report[f'{width}x{height}, {faces} face{"s" * (faces > 1)}'] = figures
    return report


def report_detectors() -> dict:
    "{detector: figures}, and under `missing` what could not be measured and why."
    report, missing, truth = {}, [], {}
    folder = Path(os.environ.get('FER_NB_DATA', '')) / 'photos'
    if (folder / 'boxes.csv').is_file(): truth = annotated(folder)
    else: missing.append('precision and recall: FER_NB_DATA names no folder with photos/boxes.csv')
    for name in 'haar', 'yunet':
        try: report[name] = report_detector(load_detector(name), truth)
        except ValueError as e: missing.append(f'{name}: {e}')
    return report | dict(threads=cv2.getNumThreads(), missing=missing)


if __name__ == '__main__': print(json.dumps(report_detectors(), indent=1))
