"""Where the labels of faces stand in a picture and how they are colored: panels follow the rules of saved images."""
import numpy as np
import pytest
from panels import are_free

from fer_nb.drawing import _places, ink_on
from fer_nb.labels import COLORS
from fer_nb.widgets import STATIC

PHOTO = 500, 375  # pixels; seven people in two rows
PEOPLE = [(165, 113, 25, 33), (203, 92, 27, 37), (301, 81, 34, 45), (394, 85, 41, 53)]
PEOPLE += [(101, 191, 30, 39), (186, 211, 28, 40), (323, 231, 35, 47)]
ALL = """([boxes, size, zoom, spots]) => {
    const pen = document.createElement('canvas').getContext('2d'), labels = [];
    return boxes.map((box, i) => {
        const texts = [`${i + 1} surprise? 100%`, `${i + 1}`];
        const label = placeLabel(pen, texts, box, {boxes, labels, size, zoom, was: spots?.[i]});
        labels.push(label.spot);
        return label;
    });
}"""


@pytest.fixture
def call(page):
    "`call(function, value)` runs a function of JavaScript beside the script that all panels share."
    script = (STATIC / 'panel.js').read_text(encoding='utf-8')
    return lambda function, value: page.evaluate(f'value => {{ {script}\n return ({function})(value); }}', value)


def test_places(call):
    "The corners of a face at which a label can be are those of an image that is drawn in Python."
    boxes = [[10, 10, 50, 60], [600, 420, 40, 60], [300, 200, 90, 90], [0, 0, 640, 480]]
    function = 'boxes => boxes.map(box => labelSpots(box, [120, 22], [640, 480], 0))'
    for box, spots in zip(np.array(boxes), call(function, boxes), strict=True):
        wanted = _places(np.hstack([box[:2], box[:2] + box[2:]]), (120, 22), (640, 480))
        wanted[:, 2:] -= wanted[:, :2]
        assert spots == wanted.tolist()


@pytest.mark.parametrize('wide', [960, 640, 390, 300])
def test_nothing_is_hidden(call, wide):
    "Seven people: no label hides a face or another label; where there is no room it is the number alone."
    scale = wide / PHOTO[0]
    boxes, size = [[v * scale for v in box] for box in PEOPLE], [v * scale for v in PHOTO]
    labels = call(ALL, [boxes, size, 1, None])
    are_free(labels, boxes)
    for x, y, w, h in [label['spot'] for label in labels]:
        assert x >= 0 and y >= 0 and x + w <= size[0] and y + h <= size[1], 'a label leaves the picture'
    whole = sum('%' in label['text'] for label in labels)
    assert whole == 7 if wide > 500 else 1 <= whole < 7, [label['text'] for label in labels]
    again = call(ALL, [boxes, size, 1, [label['at'] for label in labels]])
    assert again == labels, 'labels move although nothing else does'


def test_label_stays(call):
    "A label stays at its corner while that is free, and leaves it when a face comes there."
    at = lambda boxes, was: call(ALL, [boxes, [640, 480], 1, [was, -1]])[0]['at']
    assert at([[100, 200, 60, 60]], -1) == 0 and at([[100, 200, 60, 60]], 3) == 3
    assert at([[100, 200, 60, 60], [90, 262, 60, 60]], 3) == 0


def test_wide_words(call):
    "A name that is longer than the picture is wide stays inside."
    function = """size => placeLabel(document.createElement('canvas').getContext('2d'), ['long '.repeat(40)],
        [10, 50, 30, 30], {boxes: [], labels: [], size, zoom: 1}).spot"""
    assert call(function, [200, 100])[:3] == [0, 28, 200]


def test_ink(call):
    "Black or white, as in saved images; each color of an expression gets a contrast of 4.5 to 1 at least."
    colors = [*COLORS.values(), '#b0b0b0', '#777777']
    for color, found in zip(colors, call('colors => colors.map(ink)', colors), strict=True):
        rgb = bytes.fromhex(color[1:])
        assert found == f'#{bytes(ink_on(rgb)).hex()[:3]}', color
        light = np.array([*rgb]) / 255
        light = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)
        contrast = (light + 0.05) / 0.05 if found == '#000' else 1.05 / (light + 0.05)
        assert contrast >= 4.5, f'{color}: {contrast:.1f}'
