"""Changed files for every reader, in a process of its own; `make fuzz SECONDS=600` tries others, and for longer."""
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SHARES = dict(images=.25, animations=.2, tables=.15, archives=.15, models=.15, configs=.07, reports=.03)
SECONDS = float(os.environ.get('FUZZ_SECONDS', 20))  # in all
SEED = int(time.time()) if 'FUZZ_SECONDS' in os.environ else 0


def fuzz(family: str, seconds: float, folder: Path) -> tuple[int, str, str]:  # exit status; what it printed; the seed
    env = {**os.environ, 'SEED_FILE': str(folder / 'seed'), 'XDG_CACHE_HOME': str(folder), 'MALLOC_ARENA_MAX': '2'}
    command = [sys.executable, Path(__file__).with_name('fuzz.py'), family, str(seconds), str(SEED)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, errors='replace', timeout=seconds + 300)
    return done.returncode, done.stdout + done.stderr[-3000:]*bool(done.returncode), (folder / 'seed').read_text()


@pytest.mark.parametrize('family', SHARES)
@pytest.mark.timeout(SECONDS + 400)
def test_readers(family, tmp_path):
    "A reader refuses a changed file by an error of its own, in a short time and with little memory, or reads it."
    status, said, seed = fuzz(family, SECONDS * SHARES[family], tmp_path)
    if status: pytest.fail(f'status {status}; python tests/fuzz.py {family} 0 {seed}\n{said}', pytrace=False)
    assert int(re.search(r'(\d+) cases, 0 went wrong', said)[1]) > 5, said


@pytest.mark.parametrize(
    'family, status, said', [('fail', 1, 'KeyError'), ('crash', -signal.SIGSEGV, ''), ('fill', 1, ' MB')],
)
def test_what_is_wrong_is_seen(family, status, said, tmp_path):
    "Another error, a crash of the process and much memory are found, with the seed."
    found, printed, seed = fuzz(family, 0, tmp_path)
    assert found == status and said in printed and int(seed) == SEED
