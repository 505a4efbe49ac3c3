"""The wheel in environments of its own, one for each Python at hand: core dependencies only, used from elsewhere."""
import configparser
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

WINDOWS = sys.platform == 'win32'
UV = shutil.which('uv', path=os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])) or 'uv'
PYTHONS = ['3.11', '3.12', '3.13', '3.14']
ABSENT = 'tensorflow keras jax torch matplotlib pandas IPython ipykernel notebook jupyterlab nbdev'.split()
RECOGNIZE = """
import sys
import fer_nb
from fer_nb import Recognizer
assert 'site-packages' in fer_nb.__file__, fer_nb.__file__
found = Recognizer()(sys.argv[1])
print(found.status, len(found.faces))
"""
incomplete: list[str] = []  # what test_contents missed, so that the lack is reported once


def sh(*command, cwd=None) -> str:
    "What a command prints; fails with its last lines where it does not succeed."
    done = subprocess.run([str(o) for o in command], cwd=cwd, env=clean(), capture_output=True, text=True, timeout=300)
    if done.returncode:
        words = ' '.join(str(o) for o in command)
        pytest.fail(f'{words}\nexit code {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}', pytrace=False)
    return done.stdout


def clean() -> dict[str, str]:
    "The environment without what points to this checkout or its data."
    return {k: v for k, v in os.environ.items() if not k.startswith(('FER_NB', 'PYTHON', 'VIRTUAL_ENV'))}


def interpreter(version: str) -> Path | None:
    "A Python that works: this one, one from PATH, or one of pyenv's own; a shim of pyenv may lead nowhere."
    name = f'python{version}' + '.exe' * WINDOWS
    places = [Path(sys.executable)] if version == '{}.{}'.format(*sys.version_info) else []
    places += [Path(folder, name) for folder in os.environ['PATH'].split(os.pathsep)]
    places += sorted(Path.home().glob(f'.pyenv/versions/*/bin/{name}'))
    for place in filter(Path.is_file, places):
        if subprocess.run([place, '-c', 'pass'], env=clean(), capture_output=True).returncode == 0: return place
    return None


def tracked(root: Path) -> list[str]:
    "What git tracks or would add."
    listed = subprocess.run(['git', 'ls-files', '-coz', '--exclude-standard'], cwd=root, capture_output=True, text=True)
    return [name for name in listed.stdout.split('\0') if (root / name).is_file()]


@pytest.fixture(scope='module')
def wheel(root, tmp_path_factory) -> Path:
    "The wheel, built from a copy of the tree."
    copy, dist = tmp_path_factory.mktemp('tree'), tmp_path_factory.mktemp('dist')
    for name in tracked(root):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, copy / name)
    sh(UV, 'build', '--quiet', '--wheel', '--out-dir', dist, copy)
    return next(dist.glob('*.whl'))


@pytest.fixture(scope='module', params=PYTHONS)
def python(request, tmp_path_factory) -> Path:
    "The Python of a fresh environment with the wheel in it."
    if (base := interpreter(request.param)) is None: pytest.skip(f'no Python {request.param} here')
    wheel = request.getfixturevalue('wheel')
    if incomplete: pytest.skip('the wheel is not complete')
    home = tmp_path_factory.mktemp('env') / 'env'
    python = home / ('Scripts/python.exe' if WINDOWS else 'bin/python')
    sh(UV, 'venv', '--quiet', '--python', base, home)
    sh(UV, 'pip', 'install', '--quiet', '--python', python, wheel)
    return python


def check_answer(text: str):
    "The JSON for a photo that shows one face."
    found = json.loads(text)
    assert (found['status'], len(found['faces'])) == ('ok', 1), text
    face = found['faces'][0]
    probabilities = face['probabilities']
    assert face['label'] == max(probabilities, key=probabilities.get)
    assert len(probabilities) == 7
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-3)


def test_contents(root, wheel):
    "Modules, models, static files, the page of the app, types and license are in the wheel."
    wanted = {name for name in tracked(root) if name.startswith('fer_nb/')}
    for path in map(Path, tracked(root)):
        if path.parts[0] == 'models' and (len(path.parts) == 2 or path.suffix in ('.md', '.json')):
            wanted.add(f'fer_nb/{path.as_posix()}')
    with zipfile.ZipFile(wheel) as z: there = set(z.namelist())
    license = [name for name in there if name.endswith('.dist-info/licenses/LICENSE')]
    incomplete[:] = sorted(wanted - there) + ([] if license else ['LICENSE'])
    if incomplete: pytest.fail(f'not in the wheel: {", ".join(incomplete)}', pytrace=False)
    for name in 'py.typed', 'models/s.int8.tflite', 'voila/templates/faces/index.html.j2':
        assert f'fer_nb/{name}' in there


def test_dependencies(python):
    "The dependencies fit together, and nothing is there but what prediction needs."
    sh(UV, 'pip', 'check', '--quiet', '--python', python)
    assert sh(python, '-c', f'import importlib.util as u; print([m for m in {ABSENT} if u.find_spec(m)])') == '[]\n'


def test_version(python, root, tmp_path):
    "The command and the module tell the version."
    settings = configparser.ConfigParser(delimiters=['='])
    settings.read(root / 'settings.ini')
    expected = f'fer_nb {settings["DEFAULT"]["version"]}'
    for command in [python.with_name('fer_nb')], [python, '-m', 'fer_nb']:
        assert sh(*command, 'version', cwd=tmp_path).splitlines()[0] == expected


def test_recognizer(python, photos, tmp_path):
    "The first lines of the front page, in a program."
    assert sh(python, '-c', RECOGNIZE, photos[0], cwd=tmp_path) == 'ok 1\n'


def test_predict(python, photos, tmp_path):
    "The command answers, and writes a table and a picture."
    command = [python.with_name('fer_nb'), 'predict', photos[0], '--json', '--csv', 'faces.csv', '--annotate', 'out']
    check_answer(sh(*command, cwd=tmp_path))
    assert len((tmp_path / 'faces.csv').read_text().splitlines()) == 2
    assert [path.name for path in (tmp_path / 'out').iterdir()] == [f'{photos[0].stem}.png']


def test_missing_file(python, photos, tmp_path):
    "A file that is not there is named, and the photo beside it is answered."
    command = [python.with_name('fer_nb'), 'predict', 'missing.jpg', photos[0], '--json']
    done = subprocess.run(command, cwd=tmp_path, env=clean(), capture_output=True, text=True, timeout=300)
    missing, photo = done.stdout.splitlines()
    assert done.returncode == 1
    assert json.loads(missing)['status'] == 'unreadable' and 'no such file' in json.loads(missing)['error']
    check_answer(photo)


def test_quick_start(wheel, root, tmp_path):
    "The cells of the tutorial that opens elsewhere, in an environment with the wheel and no checkout."
    python = tmp_path / 'env' / ('Scripts/python.exe' if WINDOWS else 'bin/python')
    sh(UV, 'venv', '--quiet', '--python', sys.executable, tmp_path / 'env')
    sh(UV, 'pip', 'install', '--quiet', '--python', python, f'{wheel}[video]', 'ipython')
    cells = json.loads((root / 'nbs/tutorials/quick_start.ipynb').read_text(encoding='utf-8'))['cells']
    program = '\n\n'.join(''.join(cell['source']) for cell in cells if cell['cell_type'] == 'code')
    ending = 'import fer_nb\nprint(fer_nb.__file__, [o.status for o in results])\n'
    (tmp_path / 'quick_start.py').write_text(f'{program}\n\n{ending}')
    said = sh(python, 'quick_start.py', cwd=tmp_path).splitlines()[-1]
    assert 'site-packages' in said and said.endswith("['ok', 'ok', 'unreadable']")
