"""`make peer`: the accuracy of the classifier of the package `fer` on PrivateTest of FER2013 (FER_NB_DATA).

Writes models/peer.json. The faces are those of this project: 48 x 48 crops, enlarged and scaled the way its
`detect_emotions` does it; its own detector has no part in it."""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from fer_nb.datasets import load_dataset
from fer_nb.metrics import compute_metrics

OUT, PEER = Path('models/peer.json'), Path('.venv-fer')
ASK = """
import sys, logging, cv2, numpy as np
from importlib.metadata import version
from fer.fer import FER
logging.disable(logging.WARNING)
here, fer = sys.argv[1], FER()
names = list(FER._get_labels().values())
faces = np.array([cv2.resize(f, (64, 64)) for f in np.load(here + '/faces.npy')]).astype('float32')
shares = np.concatenate([fer._classify_emotions((part/255 - .5)*2) for part in np.array_split(faces, 60)])
np.savez(here + '/answers.npz', shares=shares, names=names, version=version('fer'))
"""


def ask(images: np.ndarray) -> tuple[np.ndarray, list[str], str]:
    "What the package answers to crops: shares (N, 7), the names of its classes, its version."
    with tempfile.TemporaryDirectory() as here:
        np.save(Path(here) / 'faces.npy', images)
        subprocess.run([PEER / 'bin/python', '-c', ASK, here], check=True, stdout=subprocess.DEVNULL)
        with np.load(Path(here) / 'answers.npz') as answers:
            return answers['shares'], [str(name) for name in answers['names']], str(answers['version'])


def measure(faces) -> dict:
    "How its answers agree with the labels."
    shares, names, version = ask(faces.images)
    if sorted(names) != sorted(faces.classes): sys.exit(f'its classes {names} are not {list(faces.classes)}')
    shares = shares[:, [names.index(name) for name in faces.classes]].astype(float)
    report = compute_metrics(faces.labels, shares / shares.sum(1, keepdims=True), faces.classes)
    kept = 'n', 'accuracy', 'macro_f1', 'balanced_accuracy', 'ece'
    return dict(package=f'fer {version}') | {key: report[key] for key in kept}


if __name__ == '__main__':
    if not (data := os.environ.get('FER_NB_DATA')): sys.exit('FER_NB_DATA has to name the folder with FER2013')
    faces = load_dataset(data)
    report = dict(edition=faces.edition, samples='PrivateTest, full') | measure(faces[faces.split == 'PrivateTest'])
    OUT.write_text(json.dumps(report, indent=1) + '\n')
    print(OUT.read_text() + f'wrote {OUT}')
