"""`make run`: recognize the expressions in real photos, then execute the numbered notebooks."""
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import skimage
from run_notebooks import execute_all, hear_ctrl_c, numbered

OUT = Path('_runs/demo')
PATIENCE = 15  # seconds for the detector's download
FER_NB = Path(sys.executable).with_name('fer_nb')  # the installed command


def photos() -> list[Path]:
    "Two photographs in the public domain that installed packages bring along."
    return [
        Path(matplotlib.get_data_path(), 'sample_data/grace_hopper.jpg'),
        Path(skimage.__file__).with_name('data') / 'astronaut.png',
    ]


def fetch_detector() -> str:
    "Try once to get the better face detector; without it, OpenCV's own is used. What will be used, in one line."
    if named := os.environ.get('FER_NB_YUNET'): return f'YuNet, the file that FER_NB_YUNET names: {named}'
    try: done = subprocess.run([FER_NB, 'download-yunet'], capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired: return f'Haar cascade; YuNet was not downloaded: no answer within {PATIENCE} s'
    reason = (done.stderr.strip().splitlines() or ['no reason given'])[-1].rpartition('] ')[2]
    return 'YuNet' if done.returncode == 0 else f'Haar cascade; YuNet was not downloaded: {reason}'


def predict() -> int:
    "Recognize the faces in the photos with the installed command; its exit code."
    print('Expressions in two photographs (Grace Hopper, US Navy; Eileen Collins, NASA)')
    print(f'Face detector: {fetch_detector()}\n', flush=True)
    options = ['--csv', OUT / 'faces.csv', '--annotate', OUT / 'annotated']
    return subprocess.run([FER_NB, 'predict', *photos(), *options]).returncode


def clock(seconds: float) -> str:
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d}'


def notebooks() -> int:
    "Execute the notebooks with their default parameters; how many failed."
    todo, failed, start = numbered(), 0, time.time()
    weight = {nb: nb.read_text(encoding='utf-8').count('"cell_type": "code"') for nb in todo}
    left = sum(weight.values())
    print(f'\nExecuting {len(todo)} notebooks on synthetic faces:', flush=True)
    for i, (nb, seconds, reason) in enumerate(execute_all(todo, OUT / 'notebooks'), 1):
        left -= weight[nb]
        passed = time.time() - start
        remaining = passed * left / (sum(weight.values()) - left)
        print(f'  [{i:2}/{len(todo)}] {nb.stem:<16} {"FAILED" if reason else "ok":<6} {seconds:3.0f} s'
              f'   about {clock(remaining)} left', flush=True)
        if reason: print(reason)
        failed += bool(reason)
    print(f'  written: {OUT / "notebooks"}, in {clock(time.time() - start)} minutes')
    print('\nNext: `make lab` (notebooks), `make app` (web app); `source .venv/bin/activate` makes `fer_nb` a command.')
    return failed


if __name__ == '__main__':
    hear_ctrl_c()
    shutil.rmtree(OUT, ignore_errors=True)
    wrong = predict() + notebooks()
    sys.exit(f'{wrong} failed' if wrong else 0)
