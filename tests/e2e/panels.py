"""What a person does with the two panels, wherever they are, and what has to come of it."""
import base64
import re
import statistics
import time
from pathlib import Path

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect
from waiting import until

REFUSED, ABSENT, INSECURE = 'was not allowed', 'No camera was found', 'only to pages that come by https'


def appears(page, what, locator):
    "Wait until something is visible; an error on the console of the browser ends the waiting."
    __tracebackhide__ = True
    until(lambda: page.errors or locator.is_visible(), f'{what} did not appear')
    assert locator.is_visible(), f'{what} did not appear; the browser says: {page.errors[0]}'


def settle(page):
    "Wait until nothing moves that comes to an end, fonts and images are there, and all is painted; 0.5 s at most."
    page.evaluate("""() => {
        const frame = () => new Promise(requestAnimationFrame);
        const ends = document.getAnimations().filter(o => o.effect.getComputedTiming().endTime < Infinity);
        const seen = [...document.images].map(o => o.decode());
        const done = Promise.allSettled([document.fonts.ready, ...seen, ...ends.map(o => o.finished)]);
        return Promise.race([done.then(frame).then(frame), new Promise(o => setTimeout(o, 500))]).then(() => {});
    }""")


def accessible(page, within='body'):
    "Automated checks by axe of all that is shown inside some elements: nothing serious or critical is found."
    __tracebackhide__ = True
    settle(page)
    found = Axe().run(page, within).response['violations']
    serious = [o for o in found if o['impact'] in ('serious', 'critical')]
    told = [f"{o['id']}: {n['html'][:200]} {n['failureSummary'][:300]}" for o in serious for n in o['nodes'][:3]]
    assert not told, f'{len(told)} findings of axe:\n' + '\n'.join(told)


# Faces drawn over a picture

DRAWN = """o => {   // from now on, o.drawn has the boxes and labels of the last whole frame
    const pen = o.getContext('2d'), own = CanvasRenderingContext2D.prototype, empty = () => ({boxes: [], labels: []});
    let frame = empty(), shape = null;
    o.drawn = null;
    pen.clearRect = (...a) => {
        if (frame.labels.length) o.drawn = frame;
        frame = empty();
        own.clearRect.apply(pen, a);
    };
    for (const name of ['rect', 'roundRect']) pen[name] = (...a) => { shape = a.slice(0, 4); own[name].apply(pen, a); };
    pen.fill = () => { frame.labels.push({spot: shape}); own.fill.call(pen); };
    pen.fillText = (text, ...a) => { frame.labels.at(-1).text = text; own.fillText.call(pen, text, ...a); };
    pen.stroke = () => { frame.boxes.push(shape); own.stroke.call(pen); };
    pen.strokeRect = (...a) => { frame.boxes.push(a); own.strokeRect.apply(pen, a); };
}"""


def hidden(label, others) -> float:
    "How much of other boxes (x, y, width, height) a label hides, in pixels."
    x, y, w, h = label
    both = lambda u, v, a, b: max(0, min(x + w, u + a) - max(x, u)) * max(0, min(y + h, v + b) - max(y, v))
    return sum(both(*o) for o in others)


def are_free(labels, boxes):
    "Labels {text, spot} have the numbers of faces from 1 on, and hide neither faces nor one another."
    __tracebackhide__ = True
    assert sorted(int(o['text'].split()[0]) for o in labels) == list(range(1, len(boxes) + 1)), labels
    spots = [o['spot'] for o in labels]
    for i, spot in enumerate(spots):
        over = hidden(spot, boxes + spots[:i]) / (spot[2] * spot[3])
        assert over <= 0.06, f'{labels[i]["text"]} is in the way: {over:.0%} of it'


def labels_are_free(canvas, faces: int, draw=lambda: None):
    "What is drawn over a picture of so many faces: whole labels or numbers, none of them in the way."
    __tracebackhide__ = True
    canvas.evaluate(DRAWN)
    draw()
    of = lambda: canvas.evaluate('o => o.drawn ?? {labels: []}')
    until(lambda: len(of()['labels']) == faces, lambda: f'there are not {faces} labels: {of()}')
    found = of()
    are_free(found['labels'], found['boxes'][::2])  # each box is stroked twice


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
    until(lambda: state_of(camera).get('faces', '0') != '0', lambda: f'no face was seen: {state_of(camera)}')


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


def is_closed(page):
    "Wait until every track of the camera has ended."
    __tracebackhide__ = True
    ended = "probe.tracks.length && probe.tracks.every(o => o.readyState === 'ended')"
    until(lambda: page.evaluate(ended), 'the camera is still open')


def answered(page, n=5):
    "Wait until the camera has got some more answers."
    __tracebackhide__ = True
    before = page.evaluate('probe.back.length')
    until(lambda: page.evaluate('probe.back.length') >= before + n, 'no more answers come')


def watch(page, camera, seconds: float, faces=1) -> dict:
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
        'with_face': round(sum(o.get('faces') == str(faces) for o in shown) / len(shown), 3),
    }


def is_steady(figures: dict):
    "However slow the machine is: results keep coming, and each is of one of the last frames, so that no queue grows."
    assert figures['results'] >= 5, f'results do not keep coming: {figures}'
    behind = figures['lag_ms']['median'] / 1000 * figures['results_per_second']
    assert behind <= 3, f'the results are {behind:.1f} frames behind: {figures}'
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
