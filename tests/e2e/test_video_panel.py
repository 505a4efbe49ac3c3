"""Videos in the page and in JupyterLab, used as a person would."""
import base64
import csv
import json
import os
import re
import signal
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from panels import REFUSED, accessible, appears, is_closed, labels_are_free
from playwright.sync_api import expect
from servers import write_notebook
from test_app import tab, visit
from test_lab import DENIED, kernel_of, open_notebook, run_all, save_notebook, theme
from waiting import has_ended, megabytes, until

from fer_nb.video_basics import panning_video
from fer_nb.video_input import read_video
from fer_nb.video_output import VideoWriter

SHORT = 'from fer_nb.video_panel import VideoPanel\npanel = VideoPanel()', 'panel'


@pytest.fixture(scope='session')
def clips(tmp_path_factory, visitors):
    "`clips(seconds)` is a video of two faces, 640 x 320, 12 frames a second."
    image = cv2.copyMakeBorder(cv2.imread(str(visitors))[..., ::-1], 40, 40, 80, 80, cv2.BORDER_REFLECT)

    @cache
    def make(seconds: int, name: str = 'two faces.mp4') -> Path:
        path = tmp_path_factory.mktemp('videos') / name
        with VideoWriter(path, (640, 320)) as writer:
            for t, rgb in panning_video(image, 12 * seconds, size=(640, 320), fps=12, view=0.9): writer.add(t, rgb)
        return path

    return make


@pytest.fixture
def panel(page, app):
    visit(page, app.address)
    tab(page, 'Video')
    panel = page.locator('.fer-video')
    appears(page, 'the panel for videos', panel.locator('.fer-zone'))
    yield panel
    page.goto('about:blank')


@pytest.fixture
def lab_panel(page, lab):
    write_notebook(lab.notes / 'video.ipynb', SHORT)
    open_notebook(page, lab, 'video.ipynb')
    run_all(page)
    panel = page.locator('.jp-OutputArea-output .fer-video').last
    appears(page, 'the panel for videos', panel.locator('.fer-zone'))
    return panel


def choose(panel, *files): panel.locator('input[type=file]').set_input_files(files)


def drop(panel, file):
    "Drop a file, as from a folder of the computer."
    panel.locator('.fer-zone').evaluate(
        """(zone, [name, data]) => {
            const bytes = Uint8Array.from(atob(data), o => o.charCodeAt()), dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], name, {type: "video/mp4"}));
            for (const kind of ["dragenter", "drop"])
                zone.dispatchEvent(new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer}));
        }""",
        [file.name, base64.b64encode(file.read_bytes()).decode()],
    )


def is_done(panel):
    "Wait until the result is there, with all that the browser draws."
    __tracebackhide__ = True
    state = lambda: panel.evaluate('o => ({...o.dataset, text: o.innerText.slice(0, 500)})')
    until(lambda: state()['state'] == 'done' and 'rows' in state(), lambda: f'it does not end: {state()}')


def says(panel, words):
    expect(panel.locator('.fer-message'), f'it does not say {words!r}').to_contain_text(words)


def leftovers(server) -> set: return set(server.temp.glob('fer_nb_*/*faces*'))


def worker(server) -> psutil.Process:
    "The process that analyzes a video."
    return until(lambda: server.find('fer_nb.uploaded_video'), 'no process analyzes it')[0]


def now(panel) -> float: return float(panel.get_attribute('data-now'))


def pixels_drawn(panel) -> int:
    "How many pixels of the video are drawn over."
    return panel.locator('.fer-frame canvas').evaluate(
        "o => o.getContext('2d').getImageData(0, 0, o.width, o.height).data.filter((v, i) => i % 4 === 3 && v).length"
    )


def downloaded(page, panel, what) -> tuple[str, Path]:
    with page.expect_download() as got: panel.locator(f'[data-do=save][data-what={what}]').click()
    return got.value.suggested_filename, Path(got.value.path())


def test_video(page, panel, app, clips, look, figures):
    "Choose a video: progress, the faces over it, a timeline that leads to a moment, a table, and three downloads."
    expect(panel.locator('.fer-limits')).to_contain_text('at most 10 minutes and 200 MB')
    look('video-open')
    accessible(page, '.fer-video')
    before = leftovers(app)
    drop(panel, clips(4))
    is_done(panel)
    expect(panel.locator('.fer-sub')).to_contain_text('48 frames')
    assert panel.get_attribute('data-plays') == 'video', 'the annotated copy plays instead of the video'
    cards = panel.locator('.fer-now li.fer-face')
    expect(cards).to_have_count(2)
    expect(cards.first.locator('.fer-plate')).to_have_text(re.compile(r'^1 [a-z]+\??$'))
    assert pixels_drawn(panel) > 500, 'no faces are drawn over the video'
    look('video-done')
    accessible(page, '.fer-video')

    line = panel.locator('.fer-timeline')
    box = line.bounding_box()
    line.click(position={'x': box['width'] / 2, 'y': 20})
    until(lambda: abs(now(panel) - 2) < 0.15, lambda: f'the click leads to {now(panel)}')
    time = lambda: panel.locator('.fer-frame video').evaluate('o => o.currentTime')
    until(lambda: abs(time() - 2) < 0.15, lambda: f'the video is at {time()}')
    line.press('ArrowRight')
    until(lambda: 2 < now(panel) < 2.3, lambda: f'the arrow leads to {now(panel)}')
    expect(line).to_have_attribute('aria-valuetext', re.compile(r'^0:02\.\d: 1 [a-z]+'))
    line.press('Home')
    panel.locator('[data-do=play]').click()
    until(lambda: now(panel) > 0.5, 'it does not play')

    name, table = downloaded(page, panel, 'table')
    rows = list(csv.DictReader(table.open(encoding='utf-8')))
    assert name == 'two_faces.csv' and {row['face'] for row in rows} >= {'1', '2'}, rows[:2]
    name, summary = downloaded(page, panel, 'summary')
    told = json.loads(summary.read_text())
    assert (name, told['source'], told['frames']) == ('two_faces.json', 'two faces.mp4', 48), told
    name, copy = downloaded(page, panel, 'video')
    assert name == 'two_faces-faces.mp4'
    with read_video(copy) as frames: assert len(list(frames)) == 48
    assert leftovers(app) == before, 'something was left on the disk'

    page.set_viewport_size({'width': 390, 'height': 844})
    look('video-narrow', panel.locator('.fer-frame'))
    look('video-narrow-timeline', panel.locator('.fer-legend'))
    accessible(page, '.fer-video')
    wide = page.evaluate('document.documentElement.scrollWidth')
    assert wide <= 390, f'the page is {wide} pixels wide'
    page.set_viewport_size({'width': 320, 'height': 640})
    look('video-320', panel.locator('.fer-frame'))
    wide = page.evaluate('document.documentElement.scrollWidth')
    assert wide <= 320, f'the page is {wide} pixels wide'
    panel.locator('[data-do=remove]').click()
    expect(panel).to_have_attribute('data-state', 'idle')
    expect(panel.locator('.fer-result')).to_be_hidden()


def test_no_face(page, panel, tmp_path, look):
    with VideoWriter(tmp_path / 'empty room.mp4', (320, 240)) as writer:
        for i in range(24): writer.add(i / 12, np.full((240, 320, 3), 90 + i, np.uint8))
    choose(panel, tmp_path / 'empty room.mp4')
    is_done(panel)
    expect(panel.locator('.fer-sub')).to_contain_text('24 frames, 0 with faces · no faces')
    panel.locator('.fer-timeline').press('End')
    until(lambda: now(panel) > 1.8, 'End does not lead to the end')
    look('video-no-face')
    accessible(page, '.fer-video')


def test_cut(page, panel, tmp_path, photos, look):
    "Where another scene begins, the timeline says so, and the face has another number."
    hopper, astronaut = (cv2.imread(str(photo))[..., ::-1] for photo in photos)
    scenes = [cv2.resize(o, (320, 240)) for o in (astronaut[:270, 90:360], hopper[40:440, 60:460])]
    with VideoWriter(tmp_path / 'two scenes.mp4', (320, 240)) as writer:
        for i in range(24): writer.add(i / 12, scenes[i // 12])
    choose(panel, tmp_path / 'two scenes.mp4')
    is_done(panel)
    expect(panel.locator('.fer-legend')).to_contain_text('another scene begins (1)')
    plate = panel.locator('.fer-now .fer-plate')
    expect(plate).to_contain_text('1 ')
    panel.locator('.fer-timeline').press('End')
    expect(plate).to_contain_text('2 ')
    look('video-cut')


def test_seven_people(page, panel, crowds, tmp_path, look):
    "No label hides a face, on a phone either; as many people are in the list, with their percentages."
    frames = cv2.VideoCapture(str(crowds(7)))
    with VideoWriter(tmp_path / 'seven.mp4', (640, 480)) as writer:
        for i in range(12): writer.add(i / 12, frames.read()[1][..., ::-1])
    choose(panel, tmp_path / 'seven.mp4')
    is_done(panel)
    canvas, line = panel.locator('.fer-frame canvas'), panel.locator('.fer-timeline')
    expect(panel.locator('.fer-now li.fer-face')).to_have_count(7)
    labels_are_free(canvas, 7, lambda: [line.press(key) for key in ('Home', 'ArrowRight', 'ArrowRight')])
    look('video-7', panel.locator('.fer-frame'))
    page.set_viewport_size({'width': 390, 'height': 844})
    labels_are_free(canvas, 7, lambda: [line.press(key) for key in ('Home', 'ArrowRight', 'ArrowRight')])
    look('video-7-narrow', panel.locator('.fer-frame'))


@pytest.mark.parametrize('browser_type_launch_args', [DENIED], indirect=True, ids=['denied'])
def test_refused_camera(page, panel, clips, look):
    panel.locator('[data-do=record]').click()
    says(panel, REFUSED)
    expect(panel).to_have_attribute('data-state', 'idle')
    choose(panel, clips(1))
    is_done(panel)


def test_dark(page, panel, clips, look):
    page.emulate_media(color_scheme='dark')
    choose(panel, clips(2))
    is_done(panel)
    look('video-dark')
    accessible(page, '.fer-video')
    page.emulate_media(forced_colors='active')
    look('video-forced')


def test_cancel(page, panel, app, clips, look):
    "Cancel ends the work soon, and leaves nothing; only one video is taken at a time."
    before = leftovers(app)
    choose(panel, clips(60, 'long.mp4'))
    until(lambda: 'frame' in panel.locator('.fer-left').inner_text(), 'there is no progress')
    look('video-work')
    accessible(page, '.fer-video')
    expect(panel.locator('.fer-left'), 'the time left is not said').to_contain_text('left')
    until(lambda: leftovers(app) > before, 'this shows nothing: its files are elsewhere')
    work = worker(app)
    panel.locator('[data-do=cancel]').click()
    until(lambda: has_ended(work), 'the work goes on')
    expect(panel).to_have_attribute('data-state', 'idle')
    until(lambda: leftovers(app) == before, 'something was left on the disk')
    choose(panel, clips(1))
    is_done(panel)


def test_killed(page, panel, app, clips, look):
    "The work is ended from outside, as when memory runs out: the message names the video, and the next one goes well."
    before = leftovers(app)
    choose(panel, clips(60, 'long.mp4'))
    until(lambda: 'frame' in panel.locator('.fer-left').inner_text(), 'there is no progress')
    worker(app).kill()
    says(panel, 'long.mp4: its analysis was ended from outside (Killed). Perhaps there is too little memory for it.')
    expect(panel).to_have_attribute('data-state', 'idle')
    until(lambda: leftovers(app) == before, 'something was left on the disk')
    look('video-work-killed')
    choose(panel, clips(1))
    is_done(panel)


@pytest.mark.alone
def test_memory(page, panel, app, clips, figures):
    "A video costs the kernel hardly any memory, and no process is left of the work."
    until(lambda: app.kernels() == 1, 'the kernels of earlier pages are still there')
    (kernel,) = app.kernel_processes()
    choose(panel, clips(1)) # loads what any video needs
    is_done(panel)
    before = megabytes(kernel)
    choose(panel, clips(20))
    is_done(panel)
    figures['video'] = {'kernel_mb': [round(before, 1), round(after := megabytes(kernel), 1)]}
    assert after - before < 25 and after <= 120, f'the kernel needs {before:.0f} MB before, {after:.0f} MB after'
    until(lambda: not kernel.children(), 'a process is left')


def test_broken_files(page, panel, clips, tmp_path, look):
    "What cannot be read is refused in words that name the file and the reason."
    bad = {
        'letter.mp4': (b'%PDF-1.7\n' + bytes(3000), 'letter.mp4: it is not a video'),
        'empty.mp4': (b'', 'empty.mp4: it is empty'),
        'cut.mp4': (clips(2).read_bytes()[:9000], 'cut.mp4: it'),
        'photo.jpg': (b'\xff\xd8\xff', 'photo.jpg: it is no video'),
    }
    for name, (data, words) in bad.items():
        (tmp_path / name).write_bytes(data)
        choose(panel, tmp_path / name)
        says(panel, words)
        expect(panel).to_have_attribute('data-state', 'idle')
    look('video-broken')
    accessible(page, '.fer-video')
    panel.locator('input[type=file]').evaluate('o => o.multiple = true')
    choose(panel, clips(1, 'a.mp4'), clips(1, 'b.mp4'))
    says(panel, 'b.mp4: one video at a time. Only a.mp4 is taken.')
    is_done(panel)


def test_record(page, panel, look):
    "Record from the camera: it is on from a click to a click, its length is shown, and the recording is analyzed."
    assert not page.evaluate('probe.tracks.length'), 'the camera opened without a click'
    panel.locator('[data-do=record]').click()
    expect(panel.locator('.fer-recorder .fer-clock')).to_contain_text(re.compile(r'0:(0[3-9]|[1-5]\d) of at most 2:00'))
    look('video-record')
    accessible(page, '.fer-video')
    panel.locator('[data-do=stop]').click()
    is_closed(page)
    is_done(panel)
    expect(panel.locator('.fer-name')).to_contain_text('recording-')
    expect(panel.locator('.fer-now li.fer-face')).to_have_count(1)
    panel.locator('.fer-timeline').press('End')
    until(lambda: now(panel) > 2, 'the recording has no end')
    look('video-recorded')
    panel.locator('[data-do=record]').click()
    expect(panel.locator('.fer-recorder')).to_be_visible()
    panel.locator('[data-do=discard]').click()
    is_closed(page)
    expect(panel).to_have_attribute('data-state', 'done')


def test_keyboard(page, panel, clips):
    "All of it without a mouse."
    choose(panel, clips(2))
    is_done(panel)
    page.locator('.fer-video [data-do=choose]').focus()
    name, reached = '(o => o.dataset.what || o.dataset.do || o.className || o.type)(document.activeElement)', []
    for _ in range(14):
        page.keyboard.press('Tab')
        reached.append(page.evaluate(name))
    wanted = ['record', 'select-one', 'remove', 'play', 'checkbox', 'fer-timeline']
    wanted += ['video', 'table', 'summary', 'fer-scroll']
    assert [o for o in reached if o in wanted] == wanted, reached
    line = panel.locator('.fer-timeline')
    line.focus()
    page.keyboard.press('End')
    until(lambda: now(panel) > 1.8, 'End does not lead to the end')
    page.keyboard.press('Home')
    page.keyboard.press(' ')
    until(lambda: now(panel) > 0.3, 'the space bar does not play')


def test_page_left(page, panel, app, clips):
    "A page that is left while it works leaves no kernel and no file."
    before = leftovers(app)
    choose(panel, clips(60, 'long.mp4'))
    until(lambda: 'frame' in panel.locator('.fer-left').inner_text(), 'there is no progress')
    work = worker(app)
    page.goto('about:blank')
    until(lambda: not app.kernels(), 'the kernel is still there')
    until(lambda: has_ended(work), 'the work goes on')
    until(lambda: leftovers(app) == before, 'something was left on the disk')


def test_lab(page, lab, lab_panel, clips, look):
    "In JupyterLab: after a reload the annotated copy plays; nothing is in the saved notebook; the kernel is killed."
    panel, video = lab_panel, clips(20)
    choose(panel, video)
    until(lambda: 'frame' in panel.locator('.fer-left').inner_text(), 'there is no progress')
    save_notebook(page, lab.notes / 'video.ipynb')
    page.reload()
    panel = page.locator('.jp-OutputArea-output .fer-video').last
    appears(page, 'the panel after a reload', panel)
    is_done(panel)
    assert panel.get_attribute('data-plays') == 'copy'
    until(lambda: panel.locator('.fer-frame video').evaluate('o => o.readyState') > 1, 'the copy does not play')
    look('video-lab-copy', panel.locator('.fer-frame'))
    text, state = save_notebook(page, lab.notes / 'video.ipynb')
    assert video.stem not in text + state, 'the name of the video is in the saved notebook'
    theme(page, 'Dark')
    look('video-lab-dark', panel.locator('.fer-timeline'))

    before = leftovers(lab)
    choose(panel, clips(60, 'long.mp4'))
    until(lambda: 'frame' in panel.locator('.fer-left').inner_text(), 'there is no progress')
    work = worker(lab)
    os.kill(kernel_of(page, lab).pid, signal.SIGKILL)
    expect(panel.locator('.fer-gone')).to_contain_text('The kernel has stopped')
    expect(panel.locator('.fer-work')).to_be_hidden()
    until(lambda: leftovers(lab) == before, 'something was left on the disk')
    until(lambda: has_ended(work), 'the work goes on')
    look('video-lab-killed', panel)
