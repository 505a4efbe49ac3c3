"""A real Chromium, whose camera shows a video made of one face, and real servers on this computer.

With `-n 2` two workers run side by side, each with servers of its own; a test that measures memory runs alone.
Environment: CHROME (path of a browser), E2E_SECONDS (how long the camera streams), FER_NB_YUNET (a better detector).
Screenshots, logs of the servers and figures.json are left in _runs/e2e, and a screenshot of every page that failed."""
import fcntl
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from panels import settle
from playwright.sync_api import expect
from servers import log_name, start_app, start_lab

NAMES = 'chromium', 'chromium-browser', 'google-chrome'
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
           --disable-component-update --disable-sync --autoplay-policy=no-user-gesture-required""".split()
GRANTED = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream']
LOCAL = re.compile(r'(https?|wss?)://(127\.0\.0\.1|(evil\.)?notebook\.test)[:/]|data:|blob:')
PATIENCE = 60_000  # milliseconds
expect.set_options(timeout=PATIENCE)


# What takes longest is started first, so that two workers end together.
LONGEST = [f'test_{o}' for o in ('camera', 'visits', 'video_panel', 'upload_panel', 'classes_panel', 'lab', 'app')]


class Room:
    "Where tests of several processes are: many at a time, or one alone, for which the next ones wait at the door."

    def __init__(self, path: Path):
        path.parent.mkdir(exist_ok=True)
        self.room, self.door = open(path, 'w'), open(f'{path}.door', 'w')

    def enter(self, alone: bool):
        self.leave()
        fcntl.flock(self.door, fcntl.LOCK_EX)
        fcntl.flock(self.room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(self.door, fcntl.LOCK_UN)

    def leave(self): fcntl.flock(self.room, fcntl.LOCK_UN)


def pytest_configure(config):
    "What pytest-playwright keeps goes to _runs/e2e, emptied once: a screenshot of every page that failed."
    config.addinivalue_line('markers', 'alone: it measures speed or memory, and no other test runs meanwhile')
    if config.option.output == 'test-results': config.option.output = str(config.rootpath / '_runs/e2e')
    if config.option.screenshot == 'off': config.option.screenshot = 'only-on-failure'
    if not hasattr(config, 'workerinput'): shutil.rmtree(config.option.output, ignore_errors=True)
    config.room = Room(config.rootpath / '_runs/e2e.lock')


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: (LONGEST + [item.path.stem]).index(item.path.stem))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    item.config.room.enter(alone=False)
    try: return (yield)
    finally: item.config.room.leave()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    alone = item.get_closest_marker('alone') is not None
    if alone: item.config.room.enter(alone=True)
    try: return (yield)
    finally:
        if alone: item.config.room.enter(alone=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    "A failed test is reported with what its page said on the console."
    report = yield
    said = getattr(item.funcargs.get('page'), 'errors', [])
    if report.failed and said: report.sections.append(('console of the browser', '\n'.join(said[:5])))
    return report


# Where everything is kept

@pytest.fixture(scope='session', autouse=True)
def delete_output_dir():
    "Not by each worker: that is done."


@pytest.fixture(scope='session')
def out(pytestconfig) -> Path:
    "The folder for screenshots, logs and figures.json."
    folder = Path(pytestconfig.getoption('--output'))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope='session')
def figures(out, pytestconfig):
    "What was measured, by name; added to figures.json in the end."
    measured, path = {}, out / 'figures.json'
    yield measured
    pytestconfig.room.enter(alone=True)
    if path.exists(): measured = json.loads(path.read_text()) | measured
    path.write_text(json.dumps(measured, indent=1) + '\n')
    pytestconfig.room.leave()


@pytest.fixture
def look(page, out):
    "`look(name)` takes a screenshot, to be looked at by a person; `at` is what should be in the middle of it."

    def take(name, at=None):
        if at: at.evaluate("o => o.scrollIntoView({block: 'center'})")
        settle(page)
        page.screenshot(path=out / f'{name}.png')

    return take


# The browser and its camera

def find_chromium() -> str | None:
    return os.environ.get('CHROME') or next(filter(None, map(shutil.which, NAMES)), None)


def install_chromium(config):
    with config.pluginmanager.get_plugin('capturemanager').global_and_fixture_disabled():
        print('\nInstalling the browser: apt-get install chromium (once; a minute)', flush=True)
    quiet = os.environ | {'DEBIAN_FRONTEND': 'noninteractive'}
    for command in ['update'], ['install', '-y', '--no-install-recommends', 'chromium']:
        subprocess.run(['apt-get', '-q', *command], stdout=subprocess.DEVNULL, env=quiet)


@pytest.fixture(scope='session')
def chromium(pytestconfig) -> str:
    "The browser: named by CHROME, on the PATH, or else installed by root on Debian."
    root = hasattr(os, 'geteuid') and os.geteuid() == 0
    if not find_chromium() and root and shutil.which('apt-get'):
        pytestconfig.room.enter(alone=True)
        if not find_chromium(): install_chromium(pytestconfig)
        pytestconfig.room.enter(alone=False)
    if found := find_chromium(): return found
    names = ', '.join(NAMES)
    pytest.exit(f'No browser: install Chromium or Chrome ({names} on the PATH), or name one by CHROME=/its/path.', 1)


@pytest.fixture(scope='session')
def video(tmp_path_factory) -> Path:
    "One face for the camera: three seconds of slow movement that join without a jump, 640 x 480, 30 frames a second."
    import skimage

    photo = skimage.data.astronaut()[..., ::-1]  # 512 x 512, of NASA
    path = tmp_path_factory.mktemp('camera') / 'face.mjpeg'
    with open(path, 'wb') as file:
        for turn in np.linspace(0, 2 * np.pi, 90, endpoint=False):
            zoom, left, top = 1.45 + 0.05 * np.cos(turn), 35 + 25 * np.sin(turn), 12 + 10 * np.cos(turn)
            matrix = np.float32([[zoom, 0, -left], [0, zoom, -top]])
            frame = cv2.warpAffine(photo, matrix, (640, 480), flags=cv2.INTER_AREA)
            file.write(cv2.imencode('.jpg', frame, (cv2.IMWRITE_JPEG_QUALITY, 85))[1])
    return path


def still_crowd(faces: int) -> np.ndarray:
    "Several faces side by side, in rows of four, 640 x 480: Eileen Collins and Grace Hopper, also mirrored."
    import matplotlib
    import skimage

    hopper = cv2.imread(str(Path(matplotlib.get_data_path()) / 'sample_data/grace_hopper.jpg'))[30:410, 70:450]
    one, two = skimage.data.astronaut()[:340, 60:400, ::-1], cv2.resize(hopper, (340, 340))
    rows, columns = -(-faces // 4), min(4, faces)
    side = min(640 // columns, 480 // rows) * (9 if rows == 1 else 10) // 10
    image = np.full((480, 640, 3), 90, np.uint8)
    for i in range(faces):
        y, x = (480 - rows * side) // 2 + i // 4 * side, (640 - columns * side) // 2 + i % 4 * side
        face = (one, two, one[:, ::-1], two[:, ::-1])[i % 4]
        image[y : y + side, x : x + side] = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    return image


@pytest.fixture(scope='session')
def crowds(tmp_path_factory):
    "`crowds(n)` is a video of n faces for the camera, which move a little."

    def make(faces: int) -> Path:
        path, image = tmp_path_factory.mktemp('camera') / f'{faces}-faces.mjpeg', still_crowd(faces)
        with open(path, 'wb') as file:
            for turn in np.linspace(0, 2 * np.pi, 60, endpoint=False):
                matrix = np.float32([[1, 0, 4 * np.sin(turn)], [0, 1, 3 * np.cos(turn)]])
                frame = cv2.warpAffine(image, matrix, (640, 480), borderMode=cv2.BORDER_REPLICATE)
                file.write(cv2.imencode('.jpg', frame, (cv2.IMWRITE_JPEG_QUALITY, 85))[1])
        return path

    return make


@pytest.fixture(scope='session')
def browser_type_launch_args(browser_type_launch_args, chromium, video, crowds) -> dict:
    """A browser whose camera shows the video. A test that needs another camera passes its `args` as a parameter, or
    how many `faces` its camera shows."""
    given = dict(browser_type_launch_args)
    shown = crowds(given.pop('faces')) if 'faces' in given else video
    camera = given.get('args', [*GRANTED, f'--use-file-for-fake-video-capture={shown}'])
    return {**given, 'executable_path': chromium, 'args': [*FLAGS, *camera]}


@pytest.fixture(scope='session')
def browser_context_args(browser_context_args) -> dict:
    return {**browser_context_args, 'viewport': {'width': 1280, 'height': 900}}


@pytest.fixture
def page(page, request):
    "A page with a probe. An error on its console fails the test in the end, and so does a request to another server."
    page.errors, strangers = [], []
    page.on('console', lambda o: page.errors.append(o.text) if o.type == 'error' else None)
    page.on('pageerror', lambda o: page.errors.append(str(o)))
    page.on('request', lambda o: None if LOCAL.match(o.url) else strangers.append(o.url))
    page.add_init_script(path=Path(__file__).with_name('probe.js'))
    page.set_default_timeout(PATIENCE)
    # `expect_file_chooser` alone asks for the choosers no earlier than the key or click that opens one, which may win
    page.on('filechooser', lambda _: None)
    yield page
    told = getattr(request.node, 'rep_call', None)  # None where a fixture failed
    if not told or told.failed: return
    assert not page.errors, 'errors on the console of the browser:\n' + '\n'.join(page.errors[:5])
    assert not strangers, 'requests to other servers:\n' + '\n'.join(strangers[:5])


# What is shown, and who serves it

@pytest.fixture(scope='session')
def visitors(tmp_path_factory, photos) -> Path:
    "A photograph of two faces, 800 x 400, unlike any in the notebooks."
    hopper, astronaut = (cv2.imread(str(photo)) for photo in photos)
    path = tmp_path_factory.mktemp('photos') / 'two-visitors.jpg'
    both = np.hstack([astronaut[:400, 40:440], hopper[40:440, 60:460]])
    cv2.imwrite(str(path), both, (cv2.IMWRITE_JPEG_QUALITY, 92))
    return path


@pytest.fixture(scope='session')
def detector() -> str:
    return 'auto' if os.environ.get('FER_NB_YUNET') else 'haar'


@pytest.fixture(scope='session')
def lab_server(tmp_path_factory, out, root, detector):
    server = start_lab(tmp_path_factory.mktemp('lab'), out / log_name('lab'), root, detector)
    yield server
    server.ends_by_ctrl_c()


@pytest.fixture
def lab(lab_server):
    "JupyterLab over copies of notebooks, without kernels of earlier tests; Ctrl-C ends it after all of them."
    lab_server.end_sessions()
    return lab_server


@pytest.fixture(scope='session')
def app(tmp_path_factory, out, root):
    "The web app; Ctrl-C ends it after all tests."
    server = start_app(tmp_path_factory.mktemp('app'), out / log_name('app'), root)
    yield server
    server.ends_by_ctrl_c()
