"""The published figures of the shipped models, measured again on the real test samples of FER2013.

Single crop and flip; `make figures` measures ten-crop as well."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

DATA = os.environ.get('FER_NB_DATA')


@pytest.mark.skipif(not DATA, reason='FER_NB_DATA names no folder with FER2013')
@pytest.mark.parametrize('report', sorted(Path('models').glob('*/evaluation.json')), ids=lambda path: path.parent.name)
def test_figures(report, run):
    done = run('fer_nb', 'evaluate', '--data', DATA, '--check', report, '--tta', 'none', 'flip', timeout=900)
    if done.returncode: pytest.fail((done.stdout + done.stderr)[-3000:], pytrace=False)


def test_scaling_page():
    "The figures of the page on clusters are those of the files."
    done = subprocess.run([sys.executable, 'benchmarks/cluster_plan.py', '--check'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
