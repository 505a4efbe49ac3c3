"""Your own classes in the web app, as a person makes them."""
import io
import time
import zipfile

import cv2
import numpy as np
import pytest
from panels import accessible, appears, is_closed
from playwright.sync_api import expect
from servers import write_notebook
from test_lab import open_notebook, run_all, save_notebook, theme
from waiting import until

from fer_nb.class_folders import load_class_folders
from fer_nb.recognition import Recognizer
from fer_nb.synthetic import synthetic_faces

EXPRESSIONS = 'happy', 'surprise'
DROP = """async (place, files) => {
    const data = new DataTransfer();
    for (const [name, bytes] of files) data.items.add(new File([new Uint8Array(bytes)], name));
    for (const kind of ['dragenter', 'dragover', 'drop'])
        place.dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
}"""
phone = pytest.mark.browser_context_args(viewport={'width': 390, 'height': 844}, has_touch=True)
dark = pytest.mark.browser_context_args(color_scheme='dark')


@pytest.fixture(scope='module')
def faces(tmp_path_factory) -> dict:
    "Files of synthetic faces, cropped already, by their expression."
    folder, drawn = tmp_path_factory.mktemp('faces'), synthetic_faces(70, seed=8)
    found = {}
    for name in EXPRESSIONS:
        images = drawn.images[drawn.labels == drawn.classes.index(name)]
        found[name] = [folder / f'{name}-{i}.png' for i in range(len(images))]
        for path, image in zip(found[name], images): cv2.imwrite(str(path), image)
    return found


@pytest.fixture(scope='module')
def wall(tmp_path_factory):
    "A photo without a face."
    path = tmp_path_factory.mktemp('wall') / 'wall.jpg'
    cv2.imwrite(str(path), np.full((300, 400, 3), 90, np.uint8))
    return path


@pytest.fixture(autouse=True)
def leave(page):
    yield
    page.goto('about:blank')


def visit(page, app):
    "Open the tab; its panel."
    until(lambda: app.kernels() < 2, 'the kernels of those who left are still there')
    page.goto(app.address)
    tab = page.get_by_role('tab', name='Your own classes')
    appears(page, 'the tab', tab)
    assert not page.locator('.fer-classes').count(), 'the panel is made before its tab is opened'
    tab.click()
    panel = page.locator('.fer-classes')
    appears(page, 'the panel', panel.locator('.fer-own').first)
    return panel


def own(panel, i): return panel.locator('.fer-own').nth(i)
def record(panel, i): return own(panel, i).locator('[data-part=record]')


def name(panel, i, text):
    own(panel, i).locator('input').fill(text)
    expect(own(panel, i).locator('[data-part=drop]')).to_have_attribute('aria-label', f'Remove class {text}')


def choose(page, button, files):
    with page.expect_file_chooser() as chooser: button.click()
    chooser.value.set_files(files)


def has(panel, i, n): expect(own(panel, i).locator('.fer-count')).to_have_text(f'{n} example{"s" * (n != 1)}')


def fill(page, panel, faces, n=6):
    "Two classes with some examples each. A name that was just written is not lost when images are chosen at once."
    for i, o in enumerate(EXPRESSIONS):
        own(panel, i).locator('input').fill(f'my {o}')
        choose(page, own(panel, i).locator('[data-part=choose]'), faces[o][:n])
        has(panel, i, n)
        expect(own(panel, i).locator('input')).to_have_value(f'my {o}')
        expect(own(panel, i).locator('[data-part=drop]')).to_have_attribute('aria-label', f'Remove class my {o}')


def train(panel) -> str:
    "Train, and what is said of it."
    panel.locator('[data-do=train]').click()
    expect(panel).to_have_attribute('data-training', 'done')
    return panel.locator('.fer-estimate').inner_text()


def download(page, button) -> bytes:
    with page.expect_download() as got: button.click()
    with open(got.value.path(), 'rb') as file: return file.read()


def test_images_to_model(page, app, faces, visitors, look, figures, tmp_path):
    panel = visit(page, app)
    look('classes-open')
    accessible(page, '.fer-classes')
    assert panel.locator('[data-do=train]').is_disabled(), 'it would train without examples'
    fill(page, panel, faces)
    start = time.time()
    said = train(panel)
    figures['classes_train'] = {'seconds': round(time.time() - start, 1)}
    assert '95% interval' in said and 'would be right on 50%' in said, said
    look('classes-trained')
    accessible(page, '.fer-classes')

    choose(page, panel.locator('[data-do=image]'), visitors)
    answers = panel.locator('.fer-answers li')
    expect(answers).to_have_count(2)
    shown = answers.locator('.fer-verdict').all_inner_texts()
    look('classes-tried', panel.locator('.fer-try'))
    accessible(page, '.fer-classes')

    (path := tmp_path / 'own.tflite').write_bytes(download(page, panel.locator('[data-do=model]')))
    recognizer = Recognizer(str(path), 'auto')
    assert recognizer.classes == ('my happy', 'my surprise')
    again = [f'{i} {o.label} {o.confidence:.0%}' for i, o in enumerate(recognizer(visitors).faces, 1)]
    assert again == shown, f'the file says {again}, the page said {shown}'
    assert not any(piece.read_bytes()[100:200] in path.read_bytes() for o in faces.values() for piece in o)

    packed = download(page, panel.locator('[data-do=zip]'))
    (path := tmp_path / 'own.zip').write_bytes(packed)
    read = load_class_folders(path)
    assert read.classes == ('my happy', 'my surprise') and len(read) == 12 and not read.skipped
    panel = visit(page, app)   # nothing is kept
    has(panel, 0, 0)
    choose(page, panel.locator('[data-do=load]'), path)
    expect(panel.locator('.fer-notes')).to_contain_text('12 examples added')
    has(panel, 0, 6)
    assert own(panel, 0).locator('input').input_value() == 'my happy'
    panel.locator('[data-do=clear]').click()
    has(panel, 0, 0)


def test_what_cannot_be_used(page, app, faces, visitors, wall, look):
    panel = visit(page, app)
    for text, reason in (('face', 'taken by a column'), ('', 'without a name'), ('CLASS 2', 'are one name')):
        own(panel, 0).locator('input').fill(text)
        expect(own(panel, 0).locator('.fer-error')).to_contain_text(reason)
        expect(own(panel, 0).locator('input')).to_have_attribute('aria-invalid', 'true')
    look('classes-bad-name')
    accessible(page, '.fer-classes')
    expect(panel.locator('.fer-train .fer-why')).to_contain_text('name has to be changed')
    name(panel, 0, '<b>smile</b>')
    assert not panel.locator('.fer-own b').count(), 'a name is taken as HTML'

    files = [[p.name, list(p.read_bytes())] for p in (wall, visitors)] + [['a.pdf', list(b'%PDF-1.7')]]
    own(panel, 0).evaluate(DROP, files)
    said = own(panel, 0).locator('.fer-what')
    expect(said).to_have_text(['no face', 'several faces', 'not readable'])
    has(panel, 0, 1)
    look('classes-no-face')
    panel.evaluate(DROP, files[:1])
    expect(panel.locator('.fer-notes')).to_contain_text('Drop images on the class')
    own(panel, 0).locator('.fer-thumbs button').first.click()
    expect(own(panel, 0).locator('.fer-thumbs li')).to_have_count(2)

    choose(page, own(panel, 0).locator('[data-part=choose]'), faces['happy'][:1])
    choose(page, own(panel, 1).locator('[data-part=choose]'), faces['surprise'][:2])
    has(panel, 1, 2)
    said = train(panel)
    assert 'Too few to tell' in said and '1 more of "<b>smile</b>", 1 more of "Class 2"' in said, said
    look('classes-too-few')


def test_camera(page, app, look, figures):
    panel = visit(page, app)
    record(panel, 0).click()
    expect(panel.locator('.fer-trouble')).to_contain_text('Start the camera first')
    panel.locator('[data-do=camera]').click()
    expect(panel).to_have_attribute('data-camera', 'on')
    for i in range(2):
        for _ in range(2):
            before = own(panel, i).locator('.fer-thumbs li').count()
            record(panel, i).hover()
            page.mouse.down()
            expect(panel).to_have_attribute('data-camera', 'recording')
            until(lambda: own(panel, i).locator('.fer-thumbs li').count() >= before + 4, 'no examples come')
            if not i and not before: look('classes-recording')
            page.mouse.up()
            expect(panel).to_have_attribute('data-camera', 'on')
    accessible(page, '.fer-classes')
    said = train(panel)
    assert 'Too few to tell' in said, f'two recordings of each class are too few: {said}'
    until(lambda: int(panel.get_attribute('data-results') or 0) > 5, 'nothing is answered live')
    start, before = time.time(), int(panel.get_attribute('data-results'))
    results = lambda: int(panel.get_attribute('data-results')) - before
    until(lambda: results() >= 20, 'the answers end')
    rate = results() / (time.time() - start)
    figures['classes_live'] = {'results_per_second': round(rate, 1)}
    expect(panel.locator('.fer-answers li')).to_have_count(1)
    look('classes-live')
    names = zipfile.ZipFile(io.BytesIO(download(page, panel.locator('[data-do=zip]')))).namelist()
    assert len({o.split('-')[1] for o in names}) == 4, f'the frames of a recording are not one take: {names}'
    page.get_by_role('tab', name='Upload').click()
    page.evaluate('probe.skip(31)')
    is_closed(page)


def test_keyboard(page, app, faces, look):
    panel = visit(page, app)
    fill(page, panel, faces, 3)
    press = page.keyboard.press
    own(panel, 0).locator('input').focus()
    page.keyboard.type(' dd')
    for _ in range(4): press('Tab')
    focus = page.locator(':focus')
    expect(focus).to_have_attribute('aria-label', 'Remove example 1 of my happy dd')
    press('ArrowRight')
    press('Delete')
    expect(own(panel, 0).locator('.fer-thumbs li')).to_have_count(2)
    expect(focus).to_have_attribute('aria-label', 'Remove example 2 of my happy dd')
    look('classes-focus')
    panel.locator('[data-do=camera]').focus()
    press('Enter')
    expect(panel).to_have_attribute('data-camera', 'on')
    record(panel, 1).focus()
    page.keyboard.down(' ')
    until(lambda: own(panel, 1).locator('.fer-thumbs li').count() >= 5, 'a held key records nothing')
    page.keyboard.up(' ')
    expect(panel).to_have_attribute('data-camera', 'on')
    panel.locator('[data-do=train]').focus()
    press('Enter')
    expect(panel).to_have_attribute('data-training', 'done')


def test_kernel_is_gone(page, app, faces, look):
    "The page says so, closes the camera, and takes nothing more."
    panel = visit(page, app)
    panel.locator('[data-do=camera]').click()
    expect(panel).to_have_attribute('data-camera', 'on')
    [kernel] = app.kernel_processes()
    kernel.kill()
    expect(page.locator('.fer-classes .fer-gone')).to_contain_text('Connection lost')
    is_closed(page)
    look('classes-lost')
    for o in panel.locator('[data-do], [data-part], .fer-own input').all():
        expect(o, 'a dead page offers it').to_be_disabled()
    page.errors = []


def test_in_a_notebook(page, lab, faces, visitors, look):
    "The panel of a cell: keys are no commands of JupyterLab, and no image gets into the notebook."
    write_notebook(lab.notes / 'own.ipynb', (
        'from fer_nb.classes_panel import ClassesPanel', 'panel = ClassesPanel()\npanel',
        'panel.model.estimate.text if panel.model else "nothing yet"',
    ))
    open_notebook(page, lab, 'own.ipynb')
    run_all(page)
    panel = page.locator('.fer-classes')
    appears(page, 'the panel', panel.locator('.fer-own').first)
    fill(page, panel, faces, 3)
    own(panel, 0).locator('.fer-thumbs button').first.focus()
    page.keyboard.press('d')
    page.keyboard.press('d')
    panel.locator('[data-do=train]').focus()
    page.keyboard.press('d')
    page.keyboard.press('d')
    train(panel)
    choose(page, panel.locator('[data-do=image]'), visitors)
    expect(panel.locator('.fer-answers li')).to_have_count(2)
    look('classes-lab', panel)
    theme(page, 'Dark')
    look('classes-lab-dark', panel)
    theme(page, 'Light')
    page.evaluate("""() => {
        jupyterapp.shell.currentWidget.content.activeCellIndex = 2;
        jupyterapp.commands.execute('notebook:run-cell');
    }""")
    expect(page.locator('.jp-OutputArea-output').last).to_contain_text('95% interval')
    text, state = save_notebook(page, lab.notes / 'own.ipynb')
    assert text.count('execution_count') >= 3 and 'ClassesPanel()' in text, 'a key has removed a cell'
    assert 'my happy' not in state and 'iVBOR' not in text, 'names or images are in the saved notebook'


@phone
def test_phone(page, app, faces, look):
    panel = visit(page, app)
    look('classes-phone')
    panel.locator('[data-do=camera]').click()
    record(panel, 1).scroll_into_view_if_needed()
    look('classes-phone-camera')
    panel.locator('[data-do=camera]').click()
    fill(page, panel, faces, 4)
    train(panel)
    look('classes-phone-trained')
    look('classes-phone-end', panel.locator('.fer-try'))
    wide = page.evaluate('document.documentElement.scrollWidth')
    assert wide <= 390, f'the page is {wide} pixels wide'
    for button in panel.locator('button:visible').all():
        box = button.bounding_box()
        assert box['height'] >= 44, f'a button is {box["height"]} pixels high'
        assert box['x'] >= 0 and box['x'] + box['width'] <= 390, f'a button is outside of the page: {box}'


@dark
def test_dark(page, app, faces, visitors, look):
    panel = visit(page, app)
    look('classes-dark')
    accessible(page, '.fer-classes')
    fill(page, panel, faces, 4)
    train(panel)
    choose(page, panel.locator('[data-do=image]'), visitors)
    expect(panel.locator('.fer-answers li')).to_have_count(2)
    look('classes-dark-tried')
    accessible(page, '.fer-classes')
