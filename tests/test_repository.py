"""The repository as a whole: generated files, notebooks, style, types."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import check_notebooks
import pytest

BIN = Path(sys.executable).parent
NBS, LIB = Path('nbs'), Path('fer_nb')
BY_HAND = {'__init__.py', '__main__.py'}  # modules that no notebook writes


def command(*words, cwd=None) -> str:
    'Run a tool of the environment; "" or what it said.'
    done = subprocess.run([BIN / words[0], *words[1:]], cwd=cwd, capture_output=True, text=True)
    return '' if done.returncode == 0 else (done.stdout + done.stderr)[-3000:].strip() or f'exit {done.returncode}'


def require(problems):
    if problems: pytest.fail('\n'.join(problems), pytrace=False)


@pytest.mark.parametrize('notebook', sorted(NBS.glob('*.ipynb')), ids=lambda nb: nb.stem)
def test_hygiene(notebook):
    "What nbdev_clean does not look at."
    require([f'{notebook}: {problem}' for problem in check_notebooks.problems(notebook)])


def test_import_order():
    "A module imports only modules whose notebook has a lower number."
    require(list(check_notebooks.import_order(LIB)))


def tracked(*options) -> list[str]:
    return subprocess.run(['git', 'ls-files', '-z', *options], capture_output=True, text=True).stdout.split('\0')[:-1]


@pytest.fixture
def tree(tmp_path) -> Path:
    "A copy of the working tree (what git tracks or would add)."
    for name in filter(os.path.isfile, tracked('-co', '--exclude-standard')):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(name, tmp_path / name)
    return tmp_path


def stale(path: Path, copy: Path, known: set) -> str:
    "How a generated file differs from the one produced in the copy."
    if not (copy / path).exists(): return f'{path}: no notebook produces it'
    if not path.exists(): return f'{path}: missing, run `make export`'
    if path.read_bytes() != (copy / path).read_bytes():
        return f'{path}: differs from what the notebooks give, run `make export`'
    return '' if path.as_posix() in known else f'{path}: not in git, `git add` it'


def test_in_sync(tree):
    "Modules, README.md and cleaned notebooks are exactly what the notebooks produce, and are in git."
    for module in (tree / LIB).glob('*.py'):
        if module.name not in BY_HAND: module.unlink()
    for words in ('nbdev_export',), ('nbdev_clean',), ('python', 'tools/build_readme.py'):
        if problem := command(*words, cwd=tree): pytest.fail(f'{" ".join(words)}: {problem}', pytrace=False)
    bases = (tree, Path())
    made = {p.relative_to(b) for b in bases for p in [*(b / LIB).glob('*.py'), *(b / NBS).glob('*.ipynb')]}
    known = set(tracked())
    require([problem for path in sorted({*made, Path('README.md')}) if (problem := stale(path, tree, known))])


def test_style():
    "ruff over notebooks, modules and tools: line length, quotes, unused names."
    require([problem] if (problem := command('ruff', 'check', '--quiet', '--output-format=concise', '.')) else [])


def test_types():
    "mypy over the exported package."
    require([problem] if (problem := command('mypy', '--cache-dir', '_runs/mypy', '--no-error-summary')) else [])
