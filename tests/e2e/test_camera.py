"""The cameras in JupyterLab with one, three and seven faces, and what they do when something ends."""
import csv
import io
import os
import re
from pathlib import Path

import psutil
import pytest
from panels import accessible, answered, appears, is_closed, is_steady, labels_are_free, settle, state_of, watch
from PIL import Image
from playwright.sync_api import expect
from servers import SHORT, write_notebook
from test_app import tab, visit
from test_lab import command, kernel_of, open_notebook, run_all, save_notebook, theme
from waiting import ask, family, until

SECONDS = float(os.environ.get('E2E_SECONDS', 10))  # how long the camera streams
PHONE = {'viewport': {'width': 390, 'height': 844}, 'has_touch': True, 'is_mobile': True, 'device_scale_factor': 2}
WIDE = "o => [...o.querySelectorAll('*')].filter(e => e.scrollWidth > o.clientWidth + 1).map(e => e.className)"
FETCH = """
import fer_nb.browser_camera
from fer_nb.core import FerError
from fer_nb.detection import HaarDetector
from fer_nb.recognition import Recognizer
class Better(HaarDetector): name = 'yunet'
answers = [FerError('https://models.example/yunet.onnx: there is no network'), Recognizer(detector=Better())]
def fetched(recognizer):
    if isinstance(answer := answers.pop(0), Exception): raise answer
    return answer
fer_nb.browser_camera.with_yunet = fetched
camera = fer_nb.browser_camera.BrowserCamera(Recognizer(detector='haar'))
"""
LIVE = """
from itertools import count
import numpy as np
import skimage
from fer_nb.recognition import Recognizer
from fer_nb.webcam import LiveView
photo = np.hstack([skimage.data.astronaut()[:360, 60:420]]*2)
view = LiveView(((i/30, photo) for i in count()), Recognizer(detector='haar'))
"""


def showing(faces):
    "A mark for tests whose camera shows so many faces."
    shown = [{'faces': faces}]
    return pytest.mark.parametrize('browser_type_launch_args', shown, indirect=True, ids=[f'{faces}-faces'])


def show(page, lab, *cells, panel='.fer-camera'):
    "Run a notebook of some cells in JupyterLab; the panel that the last one shows."
    name = f'{os.urandom(4).hex()}.ipynb'
    write_notebook(lab.notes / name, cells)
    open_notebook(page, lab, name)
    run_all(page)
    panel = page.locator(f'.jp-OutputArea-output {panel}').last
    appears(page, 'the panel', panel)
    panel.scroll_into_view_if_needed()
    return panel


@pytest.fixture
def camera(page, lab): return show(page, lab, *SHORT)


def opens(camera, faces=1):
    "Start it and wait until it sees so many faces."
    camera.locator('[data-do=start]').click()
    sees(camera, faces)


def sees(camera, faces):
    enough = lambda: state_of(camera).get('faces') == str(faces)
    until(enough, lambda: f'it does not see {faces} faces: {state_of(camera)}')


def rows_of(download) -> list[dict]:
    "A recording as it was saved."
    assert re.fullmatch(r'faces-[\d-]+T?[\d-]*\.csv', download.suggested_filename), download.suggested_filename
    return list(csv.DictReader(io.StringIO(Path(download.path()).read_text(encoding='utf-8'))))


@pytest.mark.alone
@showing(3)
def test_three_faces(page, camera, detector, look, figures):
    "Bars are in a list, one row for each number, and below the picture is the last half minute."
    opens(camera, 3)
    rows = camera.locator('.fer-list li.fer-face')
    expect(rows, 'there is no row for each face').to_have_count(3)
    for number, row in enumerate(rows.all(), 1):
        expect(row.locator('.fer-plate')).to_have_text(re.compile(rf'^{number} [a-z]+\??\s\d+%$'))
        values = row.locator('.fer-value').all_inner_texts()
        assert abs(sum(int(value.rstrip('%')) for value in values) - 100) <= 4, f'these are no probabilities: {values}'
    measured = figures['camera_3_faces'] = watch(page, camera, SECONDS, faces=3)
    measured |= {'detector': 'yunet' if detector == 'auto' else 'haar', 'load': os.getloadavg()[0]}
    is_steady(measured)
    strips = camera.locator('.fer-history canvas')
    expect(strips, 'there is no timeline for each face').to_have_count(3)
    expect(strips.first).to_have_attribute('aria-label', re.compile(r'face 1, the last 30 seconds: [a-z]+ \d+ s'))
    accessible(page, '.fer-camera')
    look('camera-3', camera)
    theme(page, 'Dark')
    accessible(page, '.fer-camera')
    look('camera-3-dark', camera)


def test_one_face(page, camera, look):
    "Bars are beside the face, in the picture; in a narrow picture they are below it."
    accessible(page, '.fer-camera')
    opens(camera)
    expect(camera.locator('.fer-list')).to_be_hidden()
    expect(camera.locator('.fer-said li')).to_have_text(re.compile(r'^face 1: [a-z]+\?? \d+%'))
    look('camera-1', camera)
    for name, width, height in (('zoom-200', 640, 450), ('narrow', 390, 844), ('320', 320, 640)):
        page.set_viewport_size({'width': width, 'height': height})
        answered(page)
        settle(page)
        wide = camera.evaluate(WIDE)
        assert not wide, f'wider than its place at {width} pixels: {wide}'
        look(f'camera-1-{name}', camera)
    expect(camera.locator('.fer-list li.fer-face')).to_have_count(1)
    accessible(page, '.fer-camera')
    page.set_viewport_size({'width': 1280, 'height': 900})
    page.emulate_media(forced_colors='active')
    look('camera-1-forced-colors', camera)


@showing(7)
def test_seven_faces(page, camera, look):
    opens(camera, 7)
    expect(camera.locator('.fer-list li.fer-face'), 'there is no row for each face').to_have_count(7)
    until(lambda: camera.locator('.fer-history canvas').count() >= 7, 'there is no timeline for each face')
    labels_are_free(camera.locator('.fer-overlay'), 7)
    look('camera-7', camera)
    page.set_viewport_size({'width': 390, 'height': 844})
    labels_are_free(camera.locator('.fer-overlay'), 7)
    look('camera-7-narrow', camera)
    accessible(page, '.fer-camera')
    expect(camera.locator('.fer-numbers')).to_contain_text('results/s')
    camera.locator('[data-do=pause]').click()
    expect(camera.locator('.fer-numbers'), 'it counts although it has paused').to_have_text('')
    expect(camera.locator('.fer-list li.fer-face')).to_have_count(7)


def test_busy_kernel(page, lab, camera, look):
    "Old boxes are not left over a picture that moves, and come back with the next answer."
    ink = "o => o.getContext('2d').getImageData(0, 0, o.width, o.height).data.some(v => v)"
    overlay = camera.locator('.fer-overlay')
    opens(camera)
    until(lambda: overlay.evaluate(ink), 'nothing is drawn')
    processes = family(kernel_of(page, lab).pid)
    for process in processes: ask(process, psutil.Process.suspend)
    try:
        until(lambda: not overlay.evaluate(ink), 'old boxes are still there')
        expect(camera.locator('.fer-said li')).to_have_count(0)
        expect(camera.locator('.fer-numbers')).to_contain_text('no answer for')
        expect(camera.locator('.fer-message')).to_contain_text('busy')
        assert not overlay.evaluate(ink), 'old boxes are back'
        look('camera-busy', camera)
    finally:
        for process in processes: ask(process, psutil.Process.resume)
    sees(camera, 1)
    until(lambda: overlay.evaluate(ink), 'nothing is drawn any more')
    expect(camera.locator('.fer-message')).to_be_hidden()


def test_killed_kernel(page, lab, camera, look):
    "It says so, closes the camera, and offers what was recorded."
    opens(camera)
    camera.locator('[data-do=record]').click()
    expect(camera.locator('.fer-length')).to_contain_text(re.compile('[1-9] rows'))
    kernel_of(page, lab).kill()
    expect(camera.locator('.fer-gone')).to_contain_text('The kernel has stopped: run the cell again.')
    is_closed(page)
    expect(camera, 'the camera is on').to_have_attribute('data-state', 'off')
    expect(camera.locator('[data-do=start]')).to_be_disabled()
    if page.locator('.jp-Dialog').is_visible(): page.locator('.jp-Dialog .jp-mod-accept').click()
    look('camera-killed', camera)
    with page.expect_download() as got: camera.locator('[data-do=keep]').click()
    assert rows_of(got.value)
    page.errors.clear()  # the front end tells of the lost kernel


@showing(3)
def test_recording(page, camera, look):
    "What is recorded is said before; a click begins, another saves; the file has the columns of a table of a video."
    opens(camera, 3)
    expect(camera.locator('.fer-what')).to_contain_text('Only numbers are recorded, no image')
    expect(camera.locator('.fer-what')).to_contain_text('10 minutes')
    camera.locator('[data-do=record]').click()
    expect(camera.locator('.fer-mark')).to_have_text('recording')
    expect(camera.locator('.fer-length')).to_contain_text(re.compile(r'0:(0[2-9]|[1-5]\d)'))
    look('camera-recording', camera)
    with page.expect_download() as got: camera.locator('[data-do=snapshot]').click()
    with Image.open(got.value.path()) as snapshot:
        assert snapshot.size[0] > 640, 'the list is not in the snapshot'
        assert 'detector' in snapshot.text['Description'], snapshot.text
    with page.expect_download() as got: camera.locator('[data-do=record]').click()
    rows = rows_of(got.value)
    assert {row['face'] for row in rows} == {'1', '2', '3'} and 'detector' in rows[0]['settings'], rows[0]
    assert list(rows[0])[:7] == ['frame', 'time', 'face', 'x', 'y', 'width', 'height'], list(rows[0])
    times = [float(row['time']) for row in rows]
    assert times == sorted(times) and 0 <= times[0] and 1 < times[-1] < 60, times
    assert all(0 <= int(row['x']) and int(row['x']) + int(row['width']) <= 640 for row in rows)
    assert len({row['frame'] for row in rows}) * 3 == len(rows), 'a frame has not a row for each face'
    expect(camera.locator('.fer-mark')).to_have_text('')
    expect(camera, 'something is kept').to_have_attribute('data-recording', '')


def test_recording_ends(page, lab, look):
    "It is bounded; what is not saved is offered when time is over, and saved when the cell is cleared."
    camera = show(page, lab, *SHORT[:1], "camera.widget.settings = {**camera.widget.settings, 'longest': 3}", SHORT[1])
    opens(camera)
    camera.locator('[data-do=record]').click()
    expect(camera.locator('.fer-mark')).to_contain_text('The recording has ended.')
    expect(camera.locator('.fer-length')).to_contain_text('only in this page')
    look('camera-recorded', camera)
    with page.expect_download() as got: camera.locator('[data-do=keep]').click()
    assert 0 < float(rows_of(got.value)[-1]['time']) < 10
    camera.locator('[data-do=record]').click()
    expect(camera.locator('.fer-length')).to_contain_text(re.compile('[1-9] rows'))
    camera.locator('[data-do=stop]').click()
    camera.locator('[data-do=discard]').click()
    expect(camera, 'something is kept').to_have_attribute('data-recording', '')
    opens(camera)
    camera.locator('[data-do=record]').click()
    expect(camera.locator('.fer-length')).to_contain_text(re.compile('[1-9] rows'))
    with page.expect_download() as got: command(page, 'notebook:clear-all-cell-outputs')
    assert rows_of(got.value)
    is_closed(page)


def test_better_detector(page, lab, look):
    "One click fetches it; a reason with the address is shown where that fails."
    camera = show(page, lab, FETCH, 'camera')
    better = camera.locator('.fer-better')
    expect(better).to_contain_text('YuNet, 230 kB, from opencv_zoo, MIT')
    accessible(page, '.fer-camera')
    better.locator('button').click()
    expect(better).to_contain_text('https://models.example/yunet.onnx: there is no network')
    look('camera-no-network', camera)
    better.locator('button').click()
    expect(better).to_be_hidden()
    opens(camera)
    camera.locator('[data-do=record]').click()
    expect(camera.locator('.fer-length')).to_contain_text(re.compile('[1-9] rows'))
    with page.expect_download() as got: camera.locator('[data-do=record]').click()
    assert 'detector yunet' in rows_of(got.value)[0]['settings']


def test_wrong_yunet(page, lab, look):
    "A clear message, and the built-in detector goes on."
    camera = show(page, lab, "import os; os.environ['FER_NB_YUNET'] = '/nowhere/yunet.onnx'", *SHORT)
    expect(camera.locator('.fer-message')).to_contain_text('/nowhere/yunet.onnx')
    expect(camera.locator('.fer-message')).to_contain_text('Haar')
    look('camera-wrong-yunet', camera)
    opens(camera)


def test_keyboard(page, camera):
    "All is reached and used by keys alone, and no key is a command of JupyterLab."
    count = lambda: page.evaluate('jupyterapp.shell.currentWidget.content.widgets.length')
    cells = count()
    camera.locator('[data-do=start]').focus()
    for key in 'ddbax': page.keyboard.press(key)
    assert count() == cells, 'a key that was pressed in the panel changed the notebook'
    page.keyboard.press('Enter')
    sees(camera, 1)
    camera.locator('[data-do=pause]').focus()
    reached = []
    for _ in range(9):
        reached.append(page.evaluate('(o => o.dataset.do ?? o.dataset.option ?? o.tagName)(document.activeElement)'))
        page.keyboard.press('Tab')
    assert reached[:3] == ['pause', 'snapshot', 'stop'] and {'record', 'mirror', 'bars'} <= {*reached}, reached
    camera.locator('[data-option=bars]').focus()
    for key in 'dd': page.keyboard.press(key)
    page.keyboard.press(' ')
    expect(camera.locator('[data-option=bars]')).not_to_be_checked()
    assert count() == cells
    camera.locator('[data-do=stop]').focus()
    page.keyboard.press('Enter')
    is_closed(page)


def test_baselines(page, camera):
    "The switch says what it does, and each face says how long it was seen."
    box = camera.locator('[data-option=baseline]')
    if not box.is_visible(): pytest.skip('the model allows no baselines')
    page.set_viewport_size({'width': 390, 'height': 844})
    opens(camera)
    box.check()
    expect(camera.locator('.fer-baseline-help')).to_contain_text('what it looks like at rest')
    expect(camera.locator('.fer-list .fer-number')).to_contain_text(re.compile(r'baseline: \d+ s'))
    box.uncheck()
    expect(camera.locator('.fer-list .fer-number')).not_to_contain_text('baseline')


@pytest.mark.browser_context_args(**PHONE)
def test_phone(page, camera, visitors, look):
    "An image can be taken or chosen; what a finger shall hit is large enough."
    expect(camera.locator('[data-do=take]')).to_be_visible()
    expect(camera.locator('[data-do=choose]')).to_be_visible()
    assert camera.locator('.fer-chosen').get_attribute('capture') is None
    for button in camera.locator('button:visible').all():
        assert button.bounding_box()['height'] >= 44, f'{button.inner_text()} is too small for a finger'
    look('camera-phone', camera)
    with page.expect_file_chooser() as chooser: camera.locator('[data-do=choose]').tap()
    chooser.value.set_files(visitors)
    expect(camera.locator('.fer-said li'), 'there are not two faces').to_have_count(2)
    look('camera-phone-image', camera)


def test_live_view(page, lab, look):
    "The view of the kernel's camera shows frames, and leaves none in a saved notebook."
    screen = show(page, lab, LIVE, 'view', panel='.fer-screen')
    start = page.locator('button.widget-button', has_text='Start')
    start.focus()
    for key in 'ddx': page.keyboard.press(key)
    start.click()
    expect(screen.locator('img')).to_have_js_property('naturalWidth', 640)
    expect(screen.locator('li.fer-face')).to_have_count(2)
    look('live-view', screen)
    name = page.evaluate('jupyterapp.shell.currentWidget.context.path')
    text, widgets = save_notebook(page, lab.notes / name)
    assert not re.search(r'[A-Za-z0-9+/]{2000}', text + widgets), 'a frame is in the saved notebook'
    assert 'data-face' not in text, 'expressions are in the saved notebook'
    theme(page, 'Dark')
    look('live-view-dark', screen)
    page.locator('button.widget-button', has_text='Stop').click()


@showing(3)
@pytest.mark.browser_context_args(viewport={'width': 390, 'height': 844}, color_scheme='dark')
def test_page(page, app, look):
    "On the page: dark, on a narrow screen; a lost connection closes the camera; rows that are not saved are asked for."
    visit(page, app.address)
    tab(page, 'Camera')
    camera = page.locator('.fer-camera')
    box = camera.locator('[data-do=start]').bounding_box()
    assert box['y'] + box['height'] < 844, f'the tool is below the fold: {box}'
    accessible(page, '.fer-camera')
    look('page-camera-off')
    opens(camera, 3)
    answered(page, 30)
    look('page-camera-3')
    camera.locator('[data-do=record]').click()
    expect(camera.locator('.fer-length')).to_contain_text(re.compile('[1-9] rows'))
    for process in app.kernel_processes(): ask(process, psutil.Process.kill)
    expect(camera.locator('.fer-gone')).to_contain_text('Connection lost: reload the page.')
    is_closed(page)
    look('page-camera-lost')
    accessible(page, '.fer-camera')
    asked = []
    page.on('dialog', lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.close(run_before_unload=True)
    until(lambda: asked or page.wait_for_timeout(200), 'it may be left without a question')
    assert asked == ['beforeunload'] and state_of(camera)['recording'] == 'kept'
    with page.expect_download() as got: camera.locator('[data-do=keep]').click()
    assert rows_of(got.value)
    page.errors.clear()  # the front end tells of the lost kernel
    page.goto('about:blank')
