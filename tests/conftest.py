"""What several tests share: pictures in the public domain, synthetic faces, a shell for the installed command."""
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# A job that a shell starts in the background ignores Ctrl-C, with `nohup` a closed terminal, too; so does all that it
# starts, and some tests send both.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope='session')
def root() -> Path:
    "The folder of the checkout."
    return ROOT


@pytest.fixture(scope='session')
def photos() -> list[Path]:
    "Two photographs in the public domain that installed packages bring along: Grace Hopper and Eileen Collins."
    import matplotlib
    import skimage

    return [
        Path(matplotlib.get_data_path(), 'sample_data/grace_hopper.jpg'),
        Path(skimage.__file__).with_name('data') / 'astronaut.png',
    ]


@pytest.fixture(scope='session')
def faces():
    "350 synthetic faces with splits, 48 x 48, the same in every run."
    from fer_nb.synthetic import synthetic_faces

    return synthetic_faces(n=350, seed=5)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    "Nothing is read from the user's own cache, nor written there."
    monkeypatch.setenv('FER_NB_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture(scope='session')
def run():
    "Run a command and keep what it prints: `run('fer_nb', 'version', cwd=folder)`; `fer_nb` is the installed one."

    def call(*command, cwd=None, env=None, timeout=300) -> subprocess.CompletedProcess:
        words = [str(word) for word in command]
        if words[0] == 'fer_nb': words[:1] = [str(Path(sys.executable).with_name('fer_nb'))]
        if words[0] == 'python': words[0] = sys.executable
        env = {**os.environ, **(env or {})}
        return subprocess.run(words, cwd=cwd, env=env, timeout=timeout, capture_output=True, text=True)

    return call


# What is started first: the quick answers, then what takes longest. Notebooks are many small jobs, which end together.
FIRST = ['test_repository', 'test_figures', 'test_wheel', 'test_training', 'test_devices', 'test_cli', 'test_export']
FIRST += ['test_batch_cluster', 'test_batch_videos', 'test_fine_tuning', 'test_experiments', 'test_backends']
ALONE = ['test_repository', 'test_figures', 'test_notebooks', 'test_floors', 'test_fuzz']


def pytest_collection_modifyitems(items):
    "What takes longest is started first."
    place = {name: i for i, name in enumerate(FIRST)} | {'test_notebooks': 99}
    items.sort(key=lambda item: place.get(item.path.stem, len(FIRST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "A notebook, a model, a page or a check of the repository is one job; so is any other file, for its fixtures."
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = Path(nodeid.split('::')[0])
            return nodeid if path.stem in ALONE or 'e2e' in path.parts else str(path)

    return ByFile(config, log)
