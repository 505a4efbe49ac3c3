"""How often each expression is expected: the answers follow the formula, and say so wherever they are kept."""
import contextlib
import csv
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from fer_nb import Recognizer
from fer_nb.core import FerError
from fer_nb.face_stream import FaceStream
from fer_nb.images import read_image
from fer_nb.model_files import find_model, read_model, with_metadata
from fer_nb.priors import PRIORS
from fer_nb.recognition import expecting_everyday

TRAINED = [.14, .015, .145, .25, .17, .17, .11]  # in the order of the seven expressions
NAMES = list(PRIORS['everyday'])
OWN = dict(zip(NAMES, (.1, .1, .1, .3, .2, .1, .1)))


def model_file(path: Path, **changes) -> str:
    "The smaller shipped model, first head only, with other metadata; None leaves a field out."
    meta, weights = read_model(find_model('s'))
    votes = meta['votes'] | dict(weight=0)
    fields = meta | dict(name=path.stem, default_prior=None, votes=votes, prior=TRAINED) | changes
    path.write_bytes(with_metadata(weights, {k: v for k, v in fields.items() if v is not None}, path))
    return str(path)


@pytest.fixture(scope='module')
def models(tmp_path_factory) -> dict[str, str]:
    "Files of models: one that knows its prior, one that does not, one with classes of its own."
    folder = tmp_path_factory.mktemp('models')
    return dict(
        known=model_file(folder / 'known.tflite'), unknown=model_file(folder / 'unknown.tflite', prior=None),
        own=model_file(folder / 'own.tflite', classes=[f'mood {i}' for i in range(7)]),
    )


@pytest.fixture(scope='module')
def recognizers(models) -> dict[str, Recognizer]:
    return {name: Recognizer(path, 'haar') for name, path in models.items()}


@pytest.fixture(scope='module')
def portrait(photos) -> np.ndarray:
    "A small image with one face."
    return cv2.resize(read_image(photos[0])[40:440, 60:460], (200, 200), interpolation=cv2.INTER_AREA)


@pytest.fixture
def folder(tmp_path, portrait, monkeypatch) -> Path:
    "The current folder, with two images of one face."
    for name in ('a.png', 'b.png'): cv2.imwrite(str(tmp_path / name), portrait[..., ::-1])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fer_nb(*words: str) -> tuple[int, str, str]:
    "A command in this process: exit code, stdout, stderr."
    from fer_nb.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try: code = main(list(words))
        except SystemExit as e: code = e.code
    return code, out.getvalue(), err.getvalue()


def table_of(faces, recognizer) -> np.ndarray:
    "The probabilities of some crops."
    return np.array([list(o.faces[0].probabilities.values()) for o in recognizer.recognize_crops(faces.images[:50])])


def moved(p, wanted, strength) -> np.ndarray:
    "What the formula makes of probabilities."
    factors = (np.array(wanted) / np.sum(wanted) / TRAINED) ** strength
    return p * factors / (p * factors).sum(axis=1, keepdims=True)


# --- the answers


@pytest.mark.parametrize('prior', [*PRIORS, OWN], ids=[*PRIORS, 'own'])
@pytest.mark.parametrize('strength', [0, .5, 1])
def test_probabilities_equal_the_formula(recognizers, faces, prior, strength):
    "They sum to 1, and strength 0 is as trained."
    known = recognizers['known']
    p, shares = table_of(faces, known), list((prior if isinstance(prior, dict) else PRIORS[prior]).values())
    found = table_of(faces, known.with_prior(prior, strength=strength))
    np.testing.assert_allclose(found, moved(p, shares, strength), atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    if not strength: np.testing.assert_array_equal(found, p)


@pytest.mark.parametrize('name', ['everyday', 'balanced'])
def test_calibrated_answers_stay_calibrated(name):
    "Where faces occur as assumed, the mean probability of each class is its share."
    from fer_nb.priors import choose_prior

    rng, wanted = np.random.default_rng(0), np.array(list(PRIORS[name].values()), float)
    labels = rng.choice(7, 40_000, p=wanted / wanted.sum())
    evidence = rng.normal(0, 1, (len(labels), 7)) + 1.5 * np.eye(7)[labels]  # log likelihoods are 1.5 of it
    logits = 1.5 * evidence + np.log(TRAINED)
    p = choose_prior(dict(classes=NAMES, prior=TRAINED), name).probabilities(logits)
    np.testing.assert_allclose(p.mean(axis=0), wanted / wanted.sum(), atol=.005)
    assert abs(p.max(axis=1).mean() - (p.argmax(axis=1) == labels).mean()) < .01


def test_a_class_that_does_not_occur_is_never_answered(recognizers, faces):
    p = table_of(faces, recognizers['known'].with_prior(OWN | dict(happy=0)))
    assert not p[:, NAMES.index('happy')].any() and np.isfinite(p).all()


def test_a_stream_expects_everyday_faces_unless_told(recognizers, portrait):
    known = recognizers['known']
    for told in (known.with_prior('trained'), known.with_prior('balanced', strength=.5)):
        assert FaceStream(told).recognizer is told
    stream = FaceStream(known)
    assert (stream.recognizer.prior, known.prior) == ('everyday', 'trained')
    [before], everyday = stream(0, portrait), known.with_prior('everyday')
    assert before.probabilities == everyday(portrait).faces[0].probabilities
    stream.use(known.with_prior('trained'))
    [after] = stream(.01, portrait)
    assert (after.id, after.probabilities) == (before.id, known(portrait).faces[0].probabilities)
    for name in ('unknown', 'own'): assert expecting_everyday(recognizers[name]).prior == 'trained'


def test_the_file_may_say_the_usual_prior(tmp_path):
    usual = Recognizer(model_file(tmp_path / 'usual.tflite', default_prior='everyday'), 'haar')
    assert (usual.prior, usual.with_prior('trained').prior, usual.told_prior) == ('everyday', 'trained', False)
    assert "prior='everyday'" in repr(usual)


# --- what cannot be


@pytest.mark.parametrize('name, prior, why', [
    ('unknown', 'everyday', "unknown: the model's file does not say how often"),
    ('unknown', OWN, 'does not say how often'),
    ('own', 'everyday', 'the prior everyday knows the seven expressions, not mood 0'),
    ('own', 'fer2013', 'take balanced, or give a share for each class'),
    ('own', OWN, "a prior has no class 'angry'; the classes are mood 0"),
    ('known', dict(OWN, sad=-1), 'the share of sad must be a number from 0 on, not -1'),
    ('known', 'weekday', 'a prior is one of fer2013, balanced, everyday, trained'),
])
def test_refused(recognizers, name, prior, why):
    with pytest.raises(FerError) as e: recognizers[name].with_prior(prior)
    assert why in str(e.value)


def test_shares_for_classes_of_ones_own(recognizers, faces):
    own = recognizers['own']
    shares = {f'mood {i}': o for i, o in enumerate(PRIORS['everyday'].values())}
    p = table_of(faces, own)
    np.testing.assert_allclose(table_of(faces, own.with_prior(shares)), moved(p, list(shares.values()), 1), atol=1e-12)
    assert own.with_prior('balanced').prior == 'balanced'


@pytest.mark.parametrize('words, said', [
    (['--prior', 'weekday'], 'weekday is none of fer2013, balanced, everyday, trained'),
    (['--prior', 'happy=1,sad'], 'sad is no share such as happy=.5'),
    (['--prior', 'happy=1'], 'a prior needs a share for angry'),
    (['--prior', ','.join(f'{k}=0' for k in NAMES)], 'at least one share must be above 0'),
    (['--prior', ','.join(f'{k}=nan' for k in NAMES)], 'must be a number from 0 on, not nan'),
    (['--prior', 'everyday', '--prior-strength', '2'], '2 is not a number from 0 to 1'),
    (['--prior-strength', 'auto'], 'auto is not a number from 0 to 1'),
])
@pytest.mark.parametrize('command', ['predict', 'video'])
def test_refused_by_the_command(folder, models, command, words, said):
    code, out, err = fer_nb(command, 'a.png', '--model', models['known'], '--detector', 'haar', *words)
    assert (code, out) == (2, '') and said in err and 'Traceback' not in err


# --- what is kept says the prior


def test_predict(folder, models, recognizers):
    "JSON, table and settings; a batch goes on with the same prior only."
    first, words = ('predict', 'a.png'), ('--model', models['known'], '--detector', 'haar')
    code, out, _ = fer_nb(*first, *words, '--json', '--prior', 'everyday', '--prior-strength', '.5')
    told, half = json.loads(out), recognizers['known'].with_prior('everyday', strength=.5)
    assert (code, told['prior']) == (0, 'everyday at strength 0.5')
    assert told['faces'][0]['probabilities'] == half('a.png').faces[0].probabilities
    own = ','.join(f'{k}={v}' for k, v in OWN.items())
    assert fer_nb(*first, *words, '--csv', 'faces.csv', '--prior', own)[0] == 0
    [row] = csv.DictReader(Path('faces.csv').open(newline=''))
    assert row['prior'] == own and f'prior {own}' in row['settings']
    for other in ([], ['--prior', 'everyday'], ['--prior', own, '--prior-strength', '.9']):
        code, _, err = fer_nb(*first, 'b.png', *words, '--csv', 'faces.csv', '--resume', *other)
        assert code == 2 and '--resume would mix both' in err
    assert fer_nb(*first, 'b.png', *words, '--csv', 'faces.csv', '--resume', '--prior', own)[0] == 0
    assert len(list(csv.DictReader(Path('faces.csv').open(newline='')))) == 2


def test_video(folder, models, portrait):
    "It begins with everyday faces; what is complete is left out only if it has the same prior."
    from fer_nb.video_output import VideoWriter

    with VideoWriter('clip.mp4', (200, 200)) as writer:
        for i in range(5): writer.add(i / 5, portrait)
    words = 'video', 'clip.mp4', '--detector', 'haar', '--quiet', '--out', 'out'
    code, out, _ = fer_nb(*words, '--model', models['known'])
    told = json.loads(Path('out/clip.json').read_text())
    assert (code, told['prior'], told['complete']) == (0, 'everyday', True) and 'prior everyday' in out
    code, _, err = fer_nb(*words, '--model', models['known'], '--resume')
    assert code == 0 and 'skipped: 1' in err
    code, _, err = fer_nb(*words, '--model', models['known'], '--resume', '--prior', 'trained')
    assert code == 2 and 'made with the prior everyday, not with trained; --resume would mix both' in err
    assert json.loads(Path('out/clip.json').read_text()) == told
    code, out, _ = fer_nb('video', 'clip.mp4', '--detector', 'haar', '--quiet', '--json', '--model', models['unknown'])
    assert (code, json.loads(out)['prior']) == (0, 'trained')


def test_panel(recognizers, portrait, monkeypatch):
    "The choice changes the answers without running the network again, and is in all that is saved."
    from fer_nb import album
    from fer_nb.album_page import file_to_save
    from fer_nb.upload import UploadPanel
    from fer_nb.widgets import encode_image

    known = recognizers['known']
    panel = UploadPanel(known)
    panel.add('a.png', encode_image(portrait, '.png'))
    monkeypatch.delattr(album, 'scaled_logits')
    assert panel.prior.options == ('everyday', 'posed', 'as trained') and panel.prior.layout.display is None
    for label, prior in {'everyday': 'everyday', 'posed': 'balanced', 'as trained': 'trained'}.items():
        panel.prior.value = label
        saved = {what: file_to_save(panel.album, what)[2].decode() for what in ('csv', 'json', 'report')}
        [told] = json.loads(saved['json'])
        assert told['faces'][0]['probabilities'] == known.with_prior(prior)(portrait).faces[0].probabilities
        assert told['prior'] == prior and f',{prior},' in saved['csv']
        assert f'Expected faces: {label}.' in saved['report']
    assert UploadPanel(known.with_prior('fer2013')).prior.value == 'fer2013'
    for name in ('unknown', 'own'): assert UploadPanel(recognizers[name]).prior.layout.display == 'none'


def test_cameras(recognizers, portrait):
    "Each frame is answered with the choice of its page; a view beside the kernel goes on with another."
    from fer_nb.browser_camera import BrowserCamera, _answer, _FrameMessage
    from fer_nb.webcam import LiveView
    from fer_nb.widgets import encode_image

    known, data = recognizers['known'], encode_image(portrait)
    camera, rgb = BrowserCamera(known), read_image(data)
    assert (camera.widget.settings['priors'], camera.widget.settings['prior']) == ([*camera.priors], 'everyday')
    for number, (label, prior) in enumerate([('posed', 'balanced'), ('as trained', 'trained'), ('?', 'everyday')], 1):
        for kind, view in (('still', 'a'), ('frame', 'a'), ('frame', f'b{number}')):
            fields = dict(kind=kind, view=view, number=number, time=float(number), prior=label)
            [face] = _answer(camera, _FrameMessage(fields, [data]))['faces']
            expected = known.with_prior(prior)(rgb).faces[0].probabilities
            np.testing.assert_allclose(face['p'], list(expected.values()), atol=1e-4)
    assert BrowserCamera(recognizers['own']).widget.settings['priors'] == []
    view = LiveView([(i / 5, rgb) for i in range(3)], known, realtime=False)
    for label, prior in (('everyday', 'everyday'), ('posed', 'balanced')):
        view.prior_box.value = label
        view.start().wait(20)
        assert view.faces[0].probabilities == known.with_prior(prior)(rgb).faces[0].probabilities
    view.prior_box.value = 'as trained'
    assert (view.running, view.faces[0].probabilities) == (False, known(rgb).faces[0].probabilities)
    assert f'{view.faces[0].confidence:.0%}' in view.screen.cards
