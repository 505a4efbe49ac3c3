"""The upload panel as people see it: many faces, keys, narrow pages, dark ones, without a mouse."""
import csv
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from panels import accessible, appears
from playwright.sync_api import expect
from servers import write_notebook
from test_app import visit
from test_lab import command, kernel_of, open_notebook, run_all, theme
from waiting import until

CELL = 'from fer_nb.upload import UploadPanel\npanel = UploadPanel()', 'panel'


def wish(name: str, **context): return pytest.param(name, marks=pytest.mark.browser_context_args(**context), id=name)


SCHEMES = [wish('light'), wish('dark', color_scheme='dark'), wish('forced', forced_colors='active')]
SIZES = [
    wish('phone', viewport={'width': 390, 'height': 844}, has_touch=True, is_mobile=True),
    wish('320', viewport={'width': 320, 'height': 640}, color_scheme='dark'),
    wish('zoom-200', viewport={'width': 640, 'height': 450}),
]


@pytest.fixture(scope='session')
def seven(tmp_path_factory, photos) -> Path:
    "A photograph of seven faces in two rows, 1200 x 600."
    hopper, astronaut = (cv2.imread(str(photo)) for photo in photos)
    one, other = astronaut[:400, 40:440], hopper[40:440, 60:460]
    four = np.hstack([one, other, one[:, ::-1], other[:, ::-1]])
    three = np.hstack([four[:, :1200], np.full((400, 400, 3), 120, np.uint8)])
    path = tmp_path_factory.mktemp('photos') / 'seven people.jpg'
    cv2.imwrite(str(path), cv2.resize(np.vstack([four, three]), (1200, 600), interpolation=cv2.INTER_AREA))
    return path


def choose(page, photo: Path, faces: int):
    page.locator('.fer-upload input[type=file]').set_input_files(photo)
    card = page.locator(f'.fer-card[aria-label="{photo.name}"]')
    expect(card.locator('li.fer-face'), 'not all faces are there').to_have_count(faces)
    return card


@pytest.fixture(autouse=True)
def leave(page):
    yield
    page.goto('about:blank')


@pytest.mark.parametrize('scheme', SCHEMES)
def test_colors(page, app, visitors, seven, look, scheme):
    "Every state of the panel can be seen and read, in light, dark and forced colors."
    visit(page, app.address)
    expect(page.locator('.fer-sample'), 'there are no samples').to_have_count(3)
    look(f'app-{scheme}-open')
    accessible(page)
    card = choose(page, visitors, 2)
    look(f'app-{scheme}-two', card)
    page.locator('.fer-options summary').first.click()
    slider = page.get_by_label('Say “not sure” below')
    slider.focus()
    slider.press('End')
    expect(card.locator('.fer-verdict').first).to_contain_text(re.compile(r'^\w+\?\s*\d+%, not sure$'))
    look(f'app-{scheme}-unsure', card)
    accessible(page)
    card = choose(page, seven, 7)
    letter = {'name': 'letter.pdf', 'mimeType': 'application/pdf', 'buffer': b'%PDF-1.7\n' + bytes(200)}
    page.locator('.fer-upload input[type=file]').set_input_files(letter)
    expect(page.locator('.fer-card[aria-label="letter.pdf"]')).to_be_visible()
    page.locator('.fer-about summary').click()
    page.locator('.fer-more summary').click()
    page.locator('.fer-foot summary').click()
    look(f'app-{scheme}-seven', card)
    look(f'app-{scheme}-about', page.locator('.fer-about'))
    accessible(page)
    if scheme == 'dark':
        paper = page.locator('.fer-upload').evaluate('o => getComputedStyle(o).getPropertyValue("--fer-paper")')
        assert paper.strip() == '#161719', f'the panel is not dark: {paper}'


def test_seven_people(page, app, seven, look):
    "One number for a face in the picture, the list and the table; no label hides a face."
    visit(page, app.address)
    card = choose(page, seven, 7)
    expect(card.locator('.fer-box .fer-tag')).to_have_count(7)
    look('app-seven', card)
    tags = card.locator('.fer-box .fer-tag').all_inner_texts()
    assert [tag.split()[0] for tag in tags] == list('1234567'), f'the faces are not numbered in the picture: {tags}'
    full = [tag for tag in tags if re.fullmatch(r'\d \w+\?? \d+%', tag)]
    assert len(full) >= 5, f'the expressions are not in the picture: {tags}'
    wide = card.locator('.fer-value').evaluate_all(
        """values => values.map(o => {
            o.textContent = '100%';
            o.classList.add('fer-best');
            return o.scrollWidth - o.clientWidth;
        })"""
    )
    assert max(wide) <= 0, f'100% needs {max(wide)} pixels more'
    hidden = card.evaluate("""card => {
        const number = o => (o.closest("[data-face]")).dataset.face, rect = o => o.getBoundingClientRect();
        const both = (a, b, low, high) => Math.min(a[high], b[high]) - Math.max(a[low], b[low]) > 1;
        const meet = (a, b) => both(a, b, "left", "right") && both(a, b, "top", "bottom");
        const tags = [...card.querySelectorAll(".fer-tag")], boxes = [...card.querySelectorAll(".fer-box")];
        const hides = (tag, box) => number(tag) !== number(box) && meet(rect(tag), rect(box));
        const over = tag => boxes.filter(box => hides(tag, box)).map(box => `${number(tag)} over ${number(box)}`);
        return tags.flatMap(over);
    }""")
    assert not hidden, f'labels hide faces: {hidden}'
    assert card.locator('.fer-number').all_inner_texts() == [f'face {i}' for i in range(1, 8)]
    plates = card.locator('.fer-plate').all_inner_texts()
    with page.expect_download() as got: page.locator('[data-do=save][data-what=csv]').click()
    rows = list(csv.DictReader(Path(got.value.path()).read_text(encoding='utf-8-sig').splitlines()))
    assert [row['face'] for row in rows] == list('1234567')
    assert [row['label'] for row in rows] == [o if not o.endswith('?') else 'uncertain' for o in plates]
    assert all(re.search('model m.*detector .*prior .*min 0', row['settings']) for row in rows), rows[0]['settings']


@pytest.mark.parametrize('size', SIZES)
def test_narrow(page, app, visitors, seven, look, size):
    "On a phone, at 320 pixels and at 200 % zoom: the tool is in sight at once, and nothing is cut off."
    visit(page, app.address)
    look(f'app-{size}-open')
    seen = page.evaluate('[innerWidth, innerHeight]')
    box = page.get_by_role('button', name='Choose images').first.bounding_box()
    inside = box['y'] + box['height'] <= seen[1] and box['x'] + box['width'] <= seen[0]
    assert inside, f'the tool is out of sight: {box}'
    choose(page, visitors, 2)
    card = choose(page, seven, 7)
    look(f'app-{size}-seven', card)
    page.locator('.fer-options summary').first.click()
    page.locator('.fer-about summary').click()
    page.locator('.fer-foot summary').click()
    wide = page.evaluate("""Math.max(...[...document.querySelectorAll('.fer-upload *, .fer-about, .fer-more')]
        .filter(o => !o.closest('.fer-scroll, .fer-said, .fer-table') && o.type !== 'file' && o.getClientRects().length)
        .map(o => o.getBoundingClientRect().right))""")
    assert wide <= seen[0] + 1, f'the page is {wide} pixels wide, of {seen[0]}'
    look(f'app-{size}-options', page.locator('.fer-options').first)
    accessible(page)
    least, tabs = 44 if size == 'phone' else 30, page.get_by_role('tab')
    parts = '.fer-upload .fer-button:visible, .fer-upload select:visible, summary:visible'
    if size == 'phone': parts += ', .fer-about a:visible'
    for part in page.locator(parts).or_(tabs).all():
        assert part.bounding_box()['height'] >= least - 0.5, f'{part.inner_text()} is too small to be touched'
    cut = tabs.evaluate_all("""tabs => tabs.flatMap(tab => [...tab.children])
        .filter(o => o.scrollWidth > o.clientWidth || o.getBoundingClientRect().right > innerWidth)
        .map(o => o.innerText)""")
    assert tabs.count() == 4 and not cut, f'names of tabs are cut off: {cut}'


def press_tab_to(page, name: str):
    "Press Tab until an element has the focus, which is shown by a ring."
    for _ in range(40):
        page.keyboard.press('Tab')
        text = page.evaluate("""(o => o.matches('button, summary, a, select, input')
            ? `${o.innerText} ${o.ariaLabel ?? ''}` : '')(document.activeElement)""")
        if name in text: break
    else: raise AssertionError(f'{name} cannot be reached with the Tab key')
    assert page.evaluate('getComputedStyle(document.activeElement).outlineStyle') != 'none', f'{name}: no ring'


def test_keyboard(page, app, visitors):
    "Everything works without a mouse, in the order of the page."
    visit(page, app.address)
    expect(page.locator('.fer-sample')).to_have_count(3)
    press_tab_to(page, 'Choose images')
    with page.expect_file_chooser() as chooser: page.keyboard.press('Enter')
    chooser.value.set_files(visitors)
    expect(page.locator('.fer-upload li.fer-face')).to_have_count(2)
    press_tab_to(page, 'Eileen Collins')
    page.keyboard.press('Space')
    expect(page.locator('.fer-upload li.fer-face')).to_have_count(3)
    press_tab_to(page, 'Options')
    page.keyboard.press('Enter')
    page.keyboard.press('Tab')
    page.keyboard.press('Tab')
    page.keyboard.press('Tab')
    page.keyboard.press('End')
    expect(page.locator('.fer-verdict').first).to_contain_text('not sure')
    press_tab_to(page, 'Save image')
    with page.expect_download(): page.keyboard.press('Enter')
    press_tab_to(page, 'Remove')
    page.keyboard.press('Enter')
    expect(page.locator('.fer-upload .fer-card')).to_have_count(1)
    page.get_by_role('tab', name='Upload').focus()
    for key in 'ArrowRight', 'Enter', 'Tab': page.keyboard.press(key)
    expect(page.locator('.fer-camera [data-do=start]'), 'the next tab cannot be opened with keys').to_be_focused()


def test_samples(page, app):
    "A click on a small image shows it, as if it were dropped."
    visit(page, app.address)
    samples = page.locator('.fer-sample')
    expect(samples).to_have_count(3)
    for i, sample in enumerate(samples.all(), 1):
        sample.click()
        expect(page.locator('.fer-upload .fer-card')).to_have_count(i)
    expect(page.locator('.fer-upload li.fer-face').nth(3), 'there are less than four faces').to_be_visible()


@pytest.fixture
def panel(page, lab):
    "A panel in JupyterLab, in a notebook of two cells."
    write_notebook(lab.notes / 'upload.ipynb', CELL)
    open_notebook(page, lab, 'upload.ipynb')
    run_all(page)
    panel = page.locator('.jp-OutputArea-output .fer-upload').last
    appears(page, 'the upload panel', panel.locator('.fer-zone'))
    return panel


def test_keys_stay_in_the_panel(page, panel):
    "Keys pressed in the panel are no commands of JupyterLab: d d does not delete the cell."
    expect(panel.locator('.fer-sample')).to_have_count(3)
    panel.locator('.fer-options summary').click()
    cells = page.locator('.jp-Notebook .jp-Cell')
    expect(cells).to_have_count(2)
    places = 'button:visible', 'select:visible', 'input[type=range]', 'summary'
    for place in [o for what in places for o in panel.locator(what).all()]:
        place.focus()
        for key in 'd', 'd', 'a', 'x', 'm': page.keyboard.press(key)
        page.wait_for_timeout(50)
        expect(cells, f'a key pressed in {place} is a command').to_have_count(2)
    expect(panel.locator('.fer-zone')).to_be_visible()


def test_themes_of_jupyterlab(page, panel, seven, visitors, look):
    choose(page, visitors, 2)
    card = choose(page, seven, 7)
    for name in 'Light', 'Dark':
        theme(page, name)
        look(f'lab-upload-{name.lower()}', card)
        accessible(page, '.jp-OutputArea-output .fer-upload')
    theme(page, 'Light')


@pytest.mark.parametrize('end', ['restarted', 'killed'])
def test_kernel_has_stopped(page, lab, panel, visitors, look, end):
    "A kernel that is restarted or killed: the panel says so, and the cell run again shows a new one."
    choose(page, visitors, 2)
    kernel = 'jupyterapp.shell.currentWidget.sessionContext.session.kernel'
    if end == 'restarted': page.evaluate(f'{kernel}.restart()')
    else: kernel_of(page, lab).kill()
    gone = panel.locator('.fer-gone')
    expect(gone, 'the panel does not say that it is dead').to_contain_text('run the cell again')
    look(f'lab-{end}', gone)
    until(lambda: page.evaluate(f'{kernel}.status') == 'idle', 'no kernel')
    command(page, 'notebook:clear-all-cell-outputs')
    run_all(page)
    appears(page, 'a new panel', panel.locator('.fer-zone'))
    expect(panel.locator('.fer-gone:visible')).to_have_count(0)
    page.errors = []
