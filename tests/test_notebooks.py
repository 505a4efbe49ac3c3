"""nbdev executes every notebook as it is, papermill those with parameters with other values than their defaults."""
import ast
import contextlib
import gc
import io
import multiprocessing
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from run_notebooks import ANSI, NBS, execute, numbered, prepare

OUT = Path('_runs/test')
PARAMETERS = yaml.safe_load(Path(__file__).with_name('parameters.yaml').read_text(encoding='utf-8'))
MOST_SECONDS = 500  # of one notebook
INLINE = sorted(NBS.glob('*.ipynb'))


def defaults(notebook: Path) -> dict:
    "The notebook's parameters with their default values."
    return {k: ast.literal_eval(v['default']) for k, v in papermill.inspect_notebook(str(notebook)).items()}


TUTORIALS = sorted((NBS / 'tutorials').glob('*.ipynb'))
EXECUTED = [nb for nb in numbered() if '"parameters"' in nb.read_text(encoding='utf-8')]
EXECUTED += [NBS / 'index.ipynb', *TUTORIALS]


class Runner:
    "A process that runs notebooks, one after the other; a new one where it crashed."

    def __init__(self): self.pool = None

    def __call__(self, function, *args):
        if self.pool is None:
            context = multiprocessing.get_context('spawn')
            self.pool = ProcessPoolExecutor(1, context, initializer=prepare, initargs=(OUT / 'kernels.log',))
        try: return self.pool.submit(function, *args).result(MOST_SECONDS)
        except (BrokenProcessPool, TimeoutError) as e:
            for process in list(self.pool._processes.values()): process.kill()
            self.close()
            what = 'did not end' if isinstance(e, TimeoutError) else 'crashed'
            pytest.fail(f'{args[0].name}: the process that ran it {what}', pytrace=False)

    def close(self):
        if self.pool is not None: self.pool.shutdown()
        self.pool = None


@pytest.fixture(scope='session')
def runner():
    runner = Runner()
    yield runner
    runner.close()


def tidy():
    """The next notebook of this process finds no variables, figures and threads of the last one, and as much memory.

    It imports the package again: a notebook may have put functions of its own into it, such as those of commands."""
    from IPython.core.history import HistoryManager
    from IPython.core.interactiveshell import InteractiveShell

    HistoryManager._stop_thread()
    if shell := InteractiveShell._instance: shell.user_ns.clear()  # the shell itself stays until the process ends
    if pyplot := sys.modules.get('matplotlib.pyplot'): pyplot.close('all')
    if keras := sys.modules.get('keras'): keras.backend.clear_session()
    for name in [o for o in sys.modules if o.split('.')[0] == 'fer_nb']: del sys.modules[name]
    gc.collect()
    gc.freeze()  # modules are not looked at again by each later collection


def run_inline(notebook: Path) -> str:
    'Run all cells as `nbdev_test` does; "" or the end of the traceback.'
    from nbdev.config import get_config
    from nbdev.test import test_nb

    config = get_config()
    with contextlib.redirect_stderr(io.StringIO()) as said:
        passed, seconds = test_nb(notebook.absolute(), config.tst_flags.split(), basepath=config.config_path)
    tidy()
    if passed and not seconds: return 'it was skipped'
    return '' if passed else ANSI.sub('', said.getvalue()).strip()[-3000:] or 'failed without a traceback'


@pytest.mark.parametrize('notebook', INLINE, ids=lambda nb: nb.stem)
def test_inline(notebook, runner):
    "nbdev runs every cell with its assertions."
    if reason := runner(run_inline, notebook): pytest.fail(f'{notebook.name}: {reason}', pytrace=False)


@pytest.fixture(scope='session')
def materials(photos, tmp_path_factory) -> dict:
    "What parameters can point to: a small FER2013 file with synthetic faces, and a folder with an annotated photo."
    from fer_nb.fer2013 import write_fer2013
    from fer_nb.synthetic import synthetic_faces

    folder = tmp_path_factory.mktemp('materials')
    write_fer2013(synthetic_faces(n=840, seed=5), folder / 'fer2013.csv')
    (folder / 'photos').mkdir()
    shutil.copy(photos[0], folder / 'photos/portrait.jpg')
    (folder / 'photos/boxes.csv').write_text('file,left,top,width,height\nportrait.jpg,151,105,225,225\n')
    return {'$fer2013': str(folder / 'fer2013.csv'), '$photos': str(folder / 'photos'), '$photo': str(photos[1])}


def injected(notebook: Path) -> dict:
    "The values in the cell that papermill injected into an executed notebook."
    cells = nbformat.read(notebook, as_version=4).cells
    cells = [c for c in cells if 'injected-parameters' in c.metadata.get('tags', [])]
    nodes = [n for c in cells for n in ast.parse(c.source).body if isinstance(n, ast.Assign)]
    return {n.targets[0].id: ast.literal_eval(n.value) for n in nodes}


@pytest.mark.parametrize('notebook', EXECUTED, ids=lambda nb: nb.stem)
def test_parameters(notebook, materials, runner):
    "papermill runs it with other values; each is known to the notebook, differs from its default, and arrived."
    given = {k: materials.get(v, v) if isinstance(v, str) else v for k, v in PARAMETERS.get(notebook.stem, {}).items()}
    known = defaults(notebook)
    needed = f'{notebook.name}: tests/parameters.yaml gives no value for any of {list(known)}'
    assert given or notebook.stem == 'index', needed
    for key, value in given.items():
        assert key in known, f'{notebook.name}: {key!r} is not a parameter; there are {list(known)}'
        assert value != known[key], f'{notebook.name}: {key} = {value!r} is the default'
    _, reason = runner(execute, notebook, OUT / 'notebooks', given)
    if reason: pytest.fail(reason, pytrace=False)
    assert injected(OUT / 'notebooks' / notebook.name) == given


def test_parameter_file():
    "Every section of tests/parameters.yaml belongs to a notebook."
    assert set(PARAMETERS) <= {nb.stem for nb in EXECUTED}
