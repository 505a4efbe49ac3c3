"""What the face detectors find on annotated photographs, and how many pictures they search in a second.

`figures()` goes into models/bench.json. The photographs are those of FER_NB_DATA/photos (boxes.csv: file, left, top, width,
height), YuNet's file is the one that FER_NB_YUNET names or that `fer_nb fetch yunet` brought; what is not there is left out, with the reason."""
import csv
import json
import os
import statistics
import time
from pathlib import Path

import cv2

from fer_nb.detection import load_detector, matches, read_image
from notebooks import photos

LEAST, RUNS = .5, 40  # overlap (intersection over union) from which on a face counts as found; pictures for a median
SIZES = (640, 480), (1280, 720)


def annotated(folder: Path) -> dict:  # {path: boxes}
    "The photographs with their boxes; those without a face too."
    truth = {path: [] for path in sorted(folder.glob("*.jpg"))}
    with open(folder / "boxes.csv") as file:
        for row in csv.DictReader(file):
            truth[folder / row["file"]].append(tuple(int(row[k]) for k in ("left", "top", "width", "height")))
    return truth


def found(detector, truth: dict) -> dict:
    "Precision and recall over all photographs."
    answers = [matches([d.box for d in detector.detect(read_image(path))], boxes, LEAST) for path, boxes in truth.items()]
    right, boxes, faces = sum(o is not None for a in answers for o in a), sum(map(len, answers)), sum(map(len, truth.values()))
    return dict(photos=len(truth), faces=faces, found=boxes, right=right, precision=round(right / max(1, boxes), 4), recall=round(right / faces, 4))


def picture(width: int, height: int, faces: int = 1):  # uint8 RGB
    "A picture with one or two faces, filling its height."
    side, portrait = height if faces == 1 else width // 2, read_image(photos()[-1])
    image = cv2.hconcat([cv2.resize(portrait, (side, side), interpolation=cv2.INTER_AREA)] * faces)[:height]
    return cv2.copyMakeBorder(image, 0, 0, (width - image.shape[1]) // 2, width - image.shape[1] - (width - image.shape[1]) // 2, cv2.BORDER_REFLECT)


def rate(detector, image) -> float:
    "Pictures in a second: one over the median of several, after some that do not count."
    times = []
    for _ in range(RUNS + 5):
        start = time.perf_counter()
        detector.detect(image)
        times.append(time.perf_counter() - start)
    return round(1 / statistics.median(times[5:]), 1)


def figures() -> dict:
    "{detector: figures}, and under `missing` what could not be measured and why."
    report, missing, folder = {}, [], Path(os.environ.get("FER_NB_DATA", "")) / "photos"
    if not (folder / "boxes.csv").is_file(): missing.append("precision and recall: FER_NB_DATA names no folder with photos/boxes.csv")
    for name in "haar", "yunet":
        try: detector = load_detector(name)
        except ValueError as e:
            missing.append(f"{name}: {e}")
            continue
        about = f"{detector.size[0]}..{detector.size[1]} pixels" if detector.size[0] < detector.size[1] else f"{detector.size[0]} pixels"
        report[name] = dict(searched_at=about)
        if (folder / "boxes.csv").is_file(): report[name][f"annotated photos, IoU {LEAST}"] = found(detector, annotated(folder))
        for size, faces in zip(SIZES, (1, 2)):
            image = picture(*size, faces)
            report[name][f"{size[0]}x{size[1]}, {faces} face{'s' * (faces > 1)}"] = {"frames/s": rate(detector, image), "found": len(detector.detect(image))}
    return report | dict(threads=cv2.getNumThreads(), missing=missing)


if __name__ == "__main__": print(json.dumps(figures(), indent=1))
