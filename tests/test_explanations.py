"""Class activation maps: exact for the answer that is shown, in the right place, and free for those who do not ask."""
import json

import cv2
import numpy as np
import pytest
import skimage
from test_network_outputs import network

from fer_nb import Recognizer, export
from fer_nb.boxes import Box, Detection
from fer_nb.class_maps import AGAINST, FOR, FaceMaps, answer_layer, class_maps, crop_corners, shade, spread
from fer_nb.classification import Classifier
from fer_nb.core import FerError, softmax
from fer_nb.cropping import CROP_RULES, WHOLE_IMAGE, crop_face
from fer_nb.images import read_image
from fer_nb.labels import EXPRESSIONS
from fer_nb.litert_heads import with_linear_head
from fer_nb.model_files import ModelError, read_model, with_metadata
from fer_nb.network_outputs import head_text, layer_fields
from fer_nb.priors import choose_prior
from fer_nb.synthetic import synthetic_faces, synthetic_scene

ASTRONAUT = skimage.data_dir + '/astronaut.png'
FORMATS = {'fp16': 2e-3, 'int8': 0.06}  # how much a logit may differ: the last layer has fewer bits than the map
FRAME = 48 * np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)


@pytest.fixture(scope='module')
def drawn(): return synthetic_faces(14, seed=6).images


def log_odds(face, label: str, other: str) -> float:
    return float(np.log(face.probabilities[label] / face.probabilities[other]))


@pytest.mark.parametrize('prior', ['everyday', 'trained', 'fer2013', 'balanced', 'own'])
@pytest.mark.parametrize('model', ['m', 's'])
@pytest.mark.parametrize('format', FORMATS)
def test_mean_and_offset_are_the_logits_of_the_answer(root, drawn, model, format, prior):
    "Both heads, the temperature and the prior are in the map: nothing is left over but what quantization adds."
    assumed = dict.fromkeys(EXPRESSIONS, 1) | {'happy': 5} if prior == 'own' else prior
    recognizer = Recognizer(str(root / f'models/{model}.{format}.tflite'), prior=assumed, prior_strength=0.7)
    mixes = recognizer.assumed.votes_weight
    assert (mixes > 0) == (prior in ('everyday', 'balanced', 'own')), 'a prior that should ask the second head does not'
    for explanation in recognizer.explain(drawn, crops=True):
        [maps], [face] = explanation.faces, explanation.result.faces
        assert maps.maps.shape == (7, 6, 6) and maps.classes == recognizer.classes
        logits = maps.maps.mean(axis=(1, 2)) + maps.offsets
        expected = np.log([*face.probabilities.values()])
        np.testing.assert_allclose(logits - logits.mean(), expected - expected.mean(), atol=2 * FORMATS[format])


def test_without_the_second_head_the_mean_would_differ(root, drawn):
    "The tolerance above is small enough to see whether the second head is in the map."
    recognizer = Recognizer(str(root / 'models/m.int8.tflite'))
    about = recognizer.classifier.about
    mixed, first = (answer_layer(about, choose_prior(about, o))[0] for o in ('everyday', 'trained'))
    maps = recognizer.classifier.feature_maps(drawn)
    apart = [class_maps(maps, o).mean(axis=(2, 3)) for o in (mixed, first)]
    assert np.abs(apart[0] - apart[1]).max() > 10 * FORMATS['int8']


def test_the_evidence_is_the_log_odds(root):
    recognizer = Recognizer(str(root / 'models/m.fp16.tflite'), prior='balanced')
    [maps] = recognizer.explain(ASTRONAUT).faces
    for label, other in (('happy', 'neutral'), ('sad', 'happy'), ('angry', 'disgust')):
        constant = maps.offsets[maps.classes.index(label)] - maps.offsets[maps.classes.index(other)]
        expected = log_odds(maps.face, label, other)
        assert maps.evidence(label, other).mean() + constant == pytest.approx(expected, abs=0.01)
    others = [o for o in maps.classes if o != 'happy']
    each = np.mean([maps.evidence('happy', o) for o in others], axis=0)
    np.testing.assert_allclose(maps.evidence('happy', others), each)


def test_a_baseline_is_in_the_offsets(root, drawn):
    recognizer = Recognizer(str(root / 'models/m.fp16.tflite'))
    baseline = recognizer.baseline(drawn[:8], face='crop')
    plain, own = (recognizer.explain(drawn[:1], crops=True, baseline=o)[0] for o in (None, baseline))
    np.testing.assert_array_equal(plain.faces[0].maps, own.faces[0].maps)
    assert np.abs(plain.faces[0].offsets - own.faces[0].offsets).max() > 0.01
    logits = own.faces[0].maps.mean(axis=(1, 2)) + own.faces[0].offsets
    [face] = recognizer.recognize_crops(drawn[:1], baseline=baseline)[0].faces
    np.testing.assert_allclose(softmax(logits[None])[0], [*face.probabilities.values()], atol=1e-3)


@pytest.mark.parametrize('angle', [0, 20, -35, 90, 180])
@pytest.mark.parametrize('rule', [WHOLE_IMAGE, CROP_RULES['haar'], CROP_RULES['yunet']], ids=['whole', 'haar', 'yunet'])
@pytest.mark.parametrize('scale', [1.0, 2.0])
def test_a_place_of_the_map_lies_where_it_was_cropped(angle, rule, scale):
    "A white spot in the image is at one place of the crop; the map that is hot there leads back to the spot."
    turn = np.radians(angle)
    right = np.array([np.cos(turn), np.sin(turn)])
    eyes = tuple(map(tuple, (np.array([150, 120]) - 18 * right, np.array([150, 120]) + 18 * right)))
    found = Detection(Box(100, 80, 100, 120), 0.9, (*eyes, (150, 140), (140, 160), (160, 160)))
    corners = crop_corners(found, rule)
    u, v = 36 / 48, 20 / 48  # the middle of the place in row 2, column 4
    spot = corners[0] + u * (corners[1] - corners[0]) + v * (corners[3] - corners[0])
    image = np.zeros((300, 320, 3), np.uint8)
    cv2.circle(image, (np.rint((spot - 0.5) * 16)).astype(int).tolist(), 5 * 16, (255,) * 3, -1, shift=4)
    crop = crop_face(image, found.box, rule=rule, landmarks=found.landmarks).astype(float)
    rows, columns = np.indices(crop.shape) + 0.5
    seen = (crop * columns).sum() / crop.sum(), (crop * rows).sum() / crop.sum()
    np.testing.assert_allclose(seen, (48 * u, 48 * v), atol=0.7)
    hot = np.zeros((6, 6))
    hot[2, 4] = 1
    values, part = spread(hot, corners * scale, (round(320 * scale), round(300 * scale)))
    y, x = np.unravel_index(values.argmax(), values.shape)
    np.testing.assert_allclose((x + part[1].start, y + part[0].start), spot * scale, atol=3 * scale)


def test_only_the_crop_is_shaded():
    rgb = np.full((100, 120, 3), 200, np.uint8)
    corners = np.array([[30, 20], [80, 20], [80, 70], [30, 70]], float)
    evidence = np.ones((6, 6))
    shade(rgb, evidence, corners)
    outside = np.ones((100, 120), bool)
    outside[20:70, 30:80] = False
    assert (rgb[outside] == 200).all()
    np.testing.assert_allclose(rgb[45, 55], 200 + 0.7 * (np.array(FOR) - 200), atol=2)
    for where in (corners - 200, corners + [0, 70], corners * 0):
        shade(rgb, evidence, where)  # beyond the image, on its edge, without any area


def test_images_crops_and_faceless_ones(root, drawn):
    recognizer = Recognizer(str(root / 'models/s.int8.tflite'), detector='haar', min_confidence=1.0)
    scene, *_ = synthetic_scene(3, seed=3)
    blank, gone = np.full((90, 90), 128, np.uint8), 'no such file.jpg'
    sources = [ASTRONAUT, blank, gone, scene]
    found = recognizer.explain(sources)
    assert [o.result for o in found] == recognizer(sources)
    assert [len(o.faces) for o in found] == [len(o.result.faces) for o in found]
    assert found[1].faces == found[2].faces == [] and found[2].result.status == 'unreadable'
    assert found[0].faces[0].legend()[0].startswith('for happy (strongest '), 'an uncertain face has a best guess, too'
    assert all(a.face is b for o in found for a, b in zip(o.faces, o.result.faces))
    several = [recognizer.explain(o, crops=True) for o in (drawn, list(drawn), drawn[..., None])]
    for one, two, three in zip(*several): assert one.result.faces == two.result.faces == three.result.faces
    with pytest.raises(FerError, match='for the one crop'): recognizer.explain(drawn[0], crops=True)
    bgr, rgb = (recognizer.explain(read_image(ASTRONAUT)[..., ::o], bgr=o < 0) for o in (-1, 1))
    np.testing.assert_array_equal(bgr.faces[0].maps, rgb.faces[0].maps)


def test_the_image_is_read_again_or_given(root):
    recognizer = Recognizer(str(root / 'models/s.int8.tflite'), detector='haar')
    explanation, rgb = recognizer.explain(ASTRONAUT), read_image(ASTRONAUT)
    kept = rgb.copy()
    drawn = explanation.plot(rgb)
    np.testing.assert_array_equal(rgb, kept)
    np.testing.assert_array_equal(drawn, explanation.plot())
    assert (explanation.shaded(rgb) != rgb).any(axis=2).mean() == pytest.approx(
        np.ptp(explanation.faces[0].corners, axis=0).prod() / rgb[..., 0].size, rel=0.05)
    half = explanation.shaded(np.ascontiguousarray(rgb[::2, ::2])).astype(int)
    assert np.abs(half - explanation.shaded(rgb)[::2, ::2]).mean() < 1
    warm = explanation.shaded(rgb, 'happy', 'neutral').astype(int) - explanation.shaded(rgb, 'neutral', 'happy')
    assert warm[100:130, 215:235, 0].mean() > 40 and warm[100:130, 215:235, 2].mean() < -40


def test_plain_data(root, drawn):
    prior = dict.fromkeys(EXPRESSIONS, 1) | {'disgust': 0}
    recognizer = Recognizer(str(root / 'models/s.int8.tflite'), prior=prior)
    [explanation] = recognizer.explain(drawn[:1], crops=True)
    plain = json.loads(json.dumps(explanation.to_dict(), allow_nan=False))
    [face] = plain['faces']
    found = face.pop('explanation')
    assert plain == json.loads(json.dumps(explanation.result.to_dict()))
    assert found['offsets']['disgust'] is None and found['corners'] == FRAME.tolist()
    np.testing.assert_allclose([*found['maps'].values()], explanation.faces[0].maps, atol=1e-4)
    assert np.isfinite(explanation.faces[0].evidence('disgust')).all()


def write(folder, built, some, **more):
    path = folder / 'own.tflite'
    about = dict(name='own', version='1', classes=list(EXPRESSIONS), input_size=[48, 48], channels=1, temperature=2.0)
    path.write_bytes(with_metadata(export.to_litert(built, 'fp32'), about | more, path))
    return path


def test_a_network_of_your_own_is_exact(tmp_path):
    some = synthetic_faces(21, seed=3)
    built = network()
    path = write(tmp_path, built, some, **layer_fields(built, some, 2.0))
    for explanation in Recognizer(str(path)).explain(some.images, crops=True):
        [maps] = explanation.faces
        logits = maps.maps.mean(axis=(1, 2)) + maps.offsets
        expected = built.predict(maps.crop[None, ..., None], verbose=0)[0] / 2
        np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize('kind', ['no map', 'no head', 'other head'])
def test_files_without_maps_are_refused(kind, tmp_path):
    "At once, also where there is no face; everything else works."
    some, built = synthetic_faces(21, seed=3), network(pooled=kind != 'no map')
    fields = layer_fields(network(), some, 1.0)
    if kind == 'no head': fields.pop('head')
    if kind == 'other head': fields['head'] = layer_fields(network(), some, 1.0)['head'][:112]
    recognizer = Recognizer(str(write(tmp_path, built, some, **fields)), detector='haar')
    assert recognizer(ASTRONAUT).status == 'ok'
    for image in (ASTRONAUT, np.zeros((80, 80), np.uint8)):
        with pytest.raises(ModelError, match=r'own\.tflite: its answers cannot be explained .*fer_nb export'):
            recognizer.explain(image)


def test_predicting_reads_no_maps(root, drawn, monkeypatch):
    recognizer, asked = Recognizer(str(root / 'models/s.int8.tflite')), []
    maps = Classifier.feature_maps
    monkeypatch.setattr(Classifier, 'feature_maps', lambda self, crops: asked.append(len(crops)) or maps(self, crops))
    recognizer(ASTRONAUT)
    recognizer.recognize_crops(drawn)
    assert not asked
    recognizer.explain(ASTRONAUT)
    assert asked == [1]


def test_classes_that_are_compared():
    answer = type('Answer', (), dict(probabilities=dict(a=0.5, b=0.2, c=0.3)))
    maps = FaceMaps(answer, np.arange(12.0).reshape(3, 2, 2), np.zeros(3), FRAME, np.zeros((48, 48), np.uint8))
    np.testing.assert_array_equal(maps.evidence(), maps.evidence('a', 'c'))
    np.testing.assert_array_equal(maps.evidence('c'), maps.evidence('c', 'a'))
    assert maps.legend('b', 'a') == ('for b (strongest 4.0)', 'for a (strongest 0.0)')
    for wrong in (('d',), ('a', 'd'), ('a', 'a'), ('a', [])):
        with pytest.raises(FerError): maps.evidence(*wrong)


def test_a_head_of_your_own_on_a_shipped_network(root, drawn, tmp_path):
    "Classes of your own, with a last layer of 32 bits: exact up to rounding."
    about, content = read_model(root / 'models/s.int8.tflite')
    rng, classes, path = np.random.default_rng(0), ['cat', 'dog', 'bird'], tmp_path / 'own.tflite'
    kernel, bias = rng.normal(0, 0.3, (152, 3)).astype('f4'), rng.normal(size=3).astype('f4')
    kept = {k: about[k] for k in ('version', 'input_size', 'channels')}
    meta = kept | dict(name='own', classes=classes, temperature=0.8, head=head_text(kernel, bias))
    path.write_bytes(with_metadata(with_linear_head(content, kernel, bias), meta, path))
    for explanation in Recognizer(str(path)).explain(drawn, crops=True):
        [maps] = explanation.faces
        logits = maps.maps.mean(axis=(1, 2)) + maps.offsets
        np.testing.assert_allclose(softmax(logits[None])[0], [*maps.face.probabilities.values()], atol=1e-5)
        assert maps.plot('bird', 'cat').shape == (240, 240, 3)


def test_a_legend_below_the_image(root):
    explanation = Recognizer(str(root / 'models/s.int8.tflite'), detector='haar').explain(ASTRONAUT)
    drawn = explanation.plot()
    assert drawn.shape[0] > 512 and drawn.shape[1] == 512
    for color in (FOR, AGAINST): assert (drawn[512:] == color).all(axis=2).sum() > 40
