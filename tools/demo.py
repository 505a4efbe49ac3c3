"""`make run`: recognize the expressions in real photos, then execute the numbered notebooks."""
import shutil
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import skimage
from run_notebooks import execute_all, hear_ctrl_c, numbered

OUT = Path('_runs/demo')
FER_NB = Path(sys.executable).with_name('fer_nb')  # the installed command


def photos() -> list[Path]:
    "Two photographs in the public domain that installed packages bring along."
    return [
        Path(matplotlib.get_data_path(), 'sample_data/grace_hopper.jpg'),
        Path(skimage.__file__).with_name('data') / 'astronaut.png',
    ]


def fetch_detector():
    "Try once to get the better face detector; without it, OpenCV's own is used."
    done = subprocess.run([FER_NB, 'fetch', 'yunet'], capture_output=True, text=True, timeout=60)
    reason = (done.stderr.strip().splitlines() or ['no reason given'])[-1]
    print('Face detector: YuNet' if done.returncode == 0 else f'Face detector: Haar (YuNet was not fetched: {reason})')


def predict() -> int:
    "Recognize the faces in the photos with the installed command; its exit code."
    print('\nExpressions in two photographs (Grace Hopper, US Navy; Eileen Collins, NASA):', flush=True)
    table, annotated = OUT / 'faces.csv', OUT / 'annotated'
    code = subprocess.run([FER_NB, 'predict', *photos(), '--csv', table, '--annotate', annotated]).returncode
    for path in (table, *sorted(annotated.glob('*'))): print(f'  written: {path}')
    return code


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
    return failed


if __name__ == '__main__':
    hear_ctrl_c()
    shutil.rmtree(OUT, ignore_errors=True)
    fetch_detector()
    wrong = predict() + notebooks()
    sys.exit(f'{wrong} failed' if wrong else 0)
