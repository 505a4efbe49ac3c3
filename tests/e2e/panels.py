"""What a person does with the two panels, wherever they are, and what has to come of it."""
import base64
import re
import statistics
import time
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from servers import until

REFUSED, ABSENT, INSECURE = 'was not allowed', 'No camera was found', 'only to pages that come by https'


def appears(page, what, locator):
    "Wait until something is visible; an error on the console of the browser ends the waiting."
    __tracebackhide__ = True
    until(lambda: page.errors or locator.is_visible(), f'{what} did not appear')
    assert locator.is_visible(), f'{what} did not appear; the browser says: {page.errors[0]}'


def accessible(page, within='body'):
    "Automated checks by axe of all that is shown inside some elements: nothing serious or critical is found."
    __tracebackhide__ = True
    found = Axe().run(page, within).response['violations']
    serious = [o for o in found if o['impact'] in ('serious', 'critical')]
    told = [f"{o['id']}: {n['html'][:200]} {n['failureSummary'][:300]}" for o in serious for n in o['nodes'][:3]]
    assert not told, f'{len(told)} findings of axe:\n' + '\n'.join(told)


# Upload

def upload(scope, photo: Path, look, name: str):
    "Choose an image of two faces: it is shown with two boxes, and each face with its probabilities."
    scope.locator('.fer-upload input[type=file]').set_input_files(photo)
    card = scope.locator(f'.fer-card[aria-label="{photo.name}"]')
    faces = card.locator('li.fer-face')
    expect(faces, 'there are not two faces').to_have_count(2)
    expect(card.locator('.fer-sub'), 'the card does not count the faces').to_contain_text('2 faces')
    expect(card.locator('.fer-photo img'), 'the image is not shown').to_have_js_property('naturalWidth', 800)
    expect(card.locator('.fer-photo .fer-box'), 'there are not two boxes').to_have_count(2)
    for face in faces.all():
        expect(face.locator('.fer-verdict'), 'a face has no label').to_contain_text(re.compile(r'[a-z]+\s*\d+%'))
        values = face.locator('.fer-bars .fer-value').all_inner_texts()
        total = sum(int(value.rstrip('%')) for value in values)
        assert len(values) == 7 and abs(total - 100) <= 4, f'these are no probabilities: {values}'
    look(f'{name}-upload', card)


def upload_no_image(scope, look, name: str):
    "Choose a file that is no image: it is refused in words."
    letter = {'name': 'letter.pdf', 'mimeType': 'application/pdf', 'buffer': b'%PDF-1.7\n' + bytes(2000)}
    scope.locator('.fer-upload input[type=file]').set_input_files(letter)
    card = scope.locator('.fer-card[aria-label="letter.pdf"]')
    expect(card.locator('.fer-trouble'), 'a PDF is not refused in words').to_contain_text('PDF')
    look(f'{name}-no-image', card)


def download_table(page, scope):
    "Save the table of an image with two faces and a file that is none: a header and three rows."
    with page.expect_download() as got: scope.locator('[data-do=save][data-what=csv]').click()
    assert got.value.suggested_filename == 'faces.csv', f'the table is called {got.value.suggested_filename}'
    table = Path(got.value.path()).read_text(encoding='utf-8-sig').splitlines()
    assert len(table) == 4, f'this is not the table of two faces and a refusal: {table}'


# The camera

def state_of(camera) -> dict: return camera.evaluate('o => ({...o.dataset, text: o.innerText})')


def sees_face(camera):
    "Wait until the camera shows a face."
    __tracebackhide__ = True
    until(lambda: state_of(camera).get('faces', '0') != '0', lambda: f'no face was seen: {state_of(camera)}', 60)


def open_camera(page, camera) -> dict:
    "It opens on a click, not before, and sees a face; the seconds that took, and the size of its frames."
    camera.scroll_into_view_if_needed()
    opened = page.evaluate('probe.tracks.length')
    assert camera.get_attribute('data-state') == 'off' and not opened, 'the camera opened without a click'
    start = time.time()
    camera.locator('[data-do=start]').click()
    sees_face(camera)
    took = round(time.time() - start, 1)
    size = page.evaluate('(s => [s.width, s.height])(probe.tracks[0].getSettings())')
    return {'seconds_to_first_face': took, 'size': size}


def is_closed(page, seconds=15):
    "Wait until every track of the camera has ended."
    __tracebackhide__ = True
    ended = "probe.tracks.length && probe.tracks.every(o => o.readyState === 'ended')"
    until(lambda: page.evaluate(ended), 'the camera is still open', seconds)


def watch(page, camera, seconds: float) -> dict:
    "Let it run for a while and measure at the socket, beside the figures that the panel shows."
    page.evaluate('Object.assign(probe, {out: [], back: [], most: 0})')
    shown, end = [], time.time() + seconds
    while time.time() < end:
        page.wait_for_timeout(min(1000, 1000 * max(0.1, end - time.time())))
        shown.append(state_of(camera))
    out, back, most = page.evaluate('[probe.out, probe.back, probe.most]')
    sent = dict(out)
    lags = sorted(at - sent[number] for number, at in back if number in sent)
    assert lags, 'no results come back'
    gaps = [later[1] - earlier[1] for earlier, later in zip(back, back[1:])]
    span = (back[-1][1] - back[0][1]) / 1000 or 1
    return {
        'seconds': round(span, 1),
        'results': len(back),
        'results_per_second': round((len(back) - 1) / span, 1),
        'frames_sent': len(out),
        'most_in_flight': most,
        'lag_ms': {
            'median': round(statistics.median(lags)),
            'p95': round(lags[int(0.95 * (len(lags) - 1))]),
            'max': round(lags[-1]),
        },
        'longest_gap_ms': round(max(gaps, default=0)),
        'shown': {'rate': float(shown[-1].get('rate', 0)), 'lag': float(shown[-1].get('lag', 0))},
        'with_face': round(sum(o.get('faces') == '1' for o in shown) / len(shown), 3),
    }


def is_steady(figures: dict, lag=500):
    "Bounds that a loaded machine keeps, too; `lag` in milliseconds."
    keep_coming = figures['results_per_second'] >= 2 and figures['longest_gap_ms'] < 10_000
    assert keep_coming, f'results do not keep coming: {figures}'
    assert figures['lag_ms']['median'] <= lag, f'the results lag behind: {figures}'
    assert 1 <= figures['most_in_flight'] <= 2, f'more than two frames are in flight, or none: {figures}'
    assert figures['with_face'] > 0.8, f'the face is not seen all the time: {figures}'


def falls_back(camera, words: str, photo: Path, look, name: str):
    "Where the camera cannot be had: the reason in words, and a single image instead."
    if words != INSECURE: camera.locator('[data-do=start]').click()
    expect(camera.locator('.fer-message'), 'the reason is not given').to_contain_text(words)
    expect(camera, 'the camera is on').to_have_attribute('data-state', 'off')
    look(name, camera)
    camera.locator('.fer-chosen').set_input_files(photo)
    expect(camera.locator('.fer-said li'), 'there are not two faces in the single image').to_have_count(2)
    look(f'{name}-image', camera)


def shows_no_image(text: str, state: str, photo: Path):
    "Neither the image nor its name is in a saved notebook, nor a long piece of base64 in the state of its widgets."
    data = photo.read_bytes()
    middle = len(data) // 2
    pieces = [base64.b64encode(data[i : i + 90])[4:-4].decode() for i in range(middle, middle + 3)]
    assert not any(piece in text for piece in pieces), 'the image is in the saved notebook'
    assert photo.stem not in text, 'the name of the image is in the saved notebook'
    assert not re.search(r'[A-Za-z0-9+/]{2000}', state), 'a long piece of base64 is in the state of the widgets'
