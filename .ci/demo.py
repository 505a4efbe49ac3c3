"""`make run`: execute the numbered notebooks on drawn faces, then recognise the expressions in real photos."""
import shutil
import subprocess
import sys
from pathlib import Path

from notebooks import FER_NB, execute_all, numbered, photos

OUT = Path("_runs/demo")


def notebooks() -> int:
    "Execute the notebooks with their default parameters; how many failed."
    todo, failed = numbered(), 0
    print(f"Executing {len(todo)} notebooks on drawn faces", flush=True)
    for i, (nb, seconds, reason) in enumerate(execute_all(todo, OUT / "notebooks"), 1):
        print(f"  [{i}/{len(todo)}] {nb.stem:<16} {'FAILED' if reason else 'ok':<6} {seconds:4.0f} s", flush=True)
        if reason: print(reason)
        failed += bool(reason)
    return failed


def predict() -> int:
    "Recognise the faces in the photos with the installed command; its exit code."
    print("\nRecognising the expression of every face in real photos", flush=True)
    command = [FER_NB, "predict", *photos(),
               "--csv", OUT / "faces.csv", "--annotate", OUT / "annotated"]
    return subprocess.run(command).returncode


if __name__ == "__main__":
    shutil.rmtree(OUT, ignore_errors=True)
    failed = notebooks() + predict()
    print("\nWritten:")
    for pattern in ("notebooks/*.ipynb", "annotated/*", "*.csv"):
        for path in sorted(OUT.glob(pattern)): print(f"  {path}")
    sys.exit(f"{failed} failed" if failed else 0)
