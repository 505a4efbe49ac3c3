"""`make peer`: the accuracy of the classifier of the package `fer` on the PrivateTest rows of FER2013 (FER_NB_DATA). Writes models/peer.json.

Its faces are those of this project: 48 x 48 crops, enlarged and scaled the way its `detect_emotions` does it; its own detector has no part in it."""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

OUT, PEER = Path("models/peer.json"), Path(".venv-fer")
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


def measured(faces) -> dict:
    "What it answers to faces with labels, as shares of right answers."
    import numpy as np

    from fer_nb.evaluation import evaluate
    with tempfile.TemporaryDirectory() as here:
        np.save(Path(here) / "faces.npy", faces.images)
        subprocess.run([PEER / "bin/python", "-c", ASK, here], check=True, stdout=subprocess.DEVNULL)
        with np.load(Path(here) / "answers.npz") as found: shares, names, version = found["shares"], [str(o) for o in found["names"]], str(found["version"])
    if sorted(names) != sorted(faces.classes): sys.exit(f"its classes {names} are not {list(faces.classes)}")
    shares = shares[:, [names.index(o) for o in faces.classes]].astype(float)
    report = evaluate(faces.labels, shares/shares.sum(1, keepdims=True), faces.classes)
    return dict(package=f"fer {version}") | {k: report[k] for k in ("n", "accuracy", "macro_f1", "balanced_accuracy", "ece")}


if __name__ == "__main__":
    if not (data := os.environ.get("FER_NB_DATA")): sys.exit("FER_NB_DATA has to name the folder with FER2013")
    from fer_nb.data import load
    faces = load(data)
    report = dict(edition=faces.edition, rows="PrivateTest, official") | measured(faces[faces.split == "PrivateTest"])
    OUT.write_text(json.dumps(report, indent=1) + "\n")
    print(OUT.read_text() + f"wrote {OUT}")
