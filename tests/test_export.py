"""Exports keep temperature, factors and offsets, agree with the original, and one that is off leaves nothing behind."""
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fer_nb.calibration import fit_temperature
from fer_nb.classification import Classifier, scaled_logits
from fer_nb.core import FerError, softmax
from fer_nb.data import train_val_split
from fer_nb.export import ExportError, export_model, to_litert
from fer_nb.ferplus import ferplus_labels
from fer_nb.keras_files import load_network
from fer_nb.labels import FERPLUS, remap_labels
from fer_nb.metrics import compute_metrics
from fer_nb.model_files import ModelError, read_metadata, read_model
from fer_nb.model_runners import litert_runner, onnx_runner
from fer_nb.models import join_heads, main_logits
from fer_nb.network_outputs import total_scaling, with_scaling


@pytest.fixture(scope='module')
def voted(faces):
    "The faces with votes: seven for the label, two for neutral, one for nothing."
    votes = np.zeros((len(faces), 10), np.uint8)
    votes[np.arange(len(faces)), remap_labels(faces.labels, faces.classes, FERPLUS)] = 7
    votes[:, [0, 8]] += np.array([2, 1], np.uint8)
    return replace(faces, votes=votes)


@pytest.fixture(scope='module')
def source(root, tmp_path_factory):
    "The weights of s as a training would leave them: without metadata, factors and offsets, with kernels in 32 bits."
    scaling = total_scaling(root / 'models' / 's.keras')
    factors, offsets = (np.array(scaling[k]) for k in ('factors', 'offsets'))
    network = with_scaling(load_network(root / 'models' / 's.keras'), 1 / factors, -offsets / factors)
    rng = np.random.default_rng(0)
    network.set_weights([w * rng.uniform(0.999, 1.001, w.shape) if w.ndim > 1 else w for w in network.get_weights()])
    network.save(path := tmp_path_factory.mktemp('training') / 'model.keras')
    return path


@pytest.fixture(scope='module')
def exported(source, faces, tmp_path_factory):
    "The network with fitted factors and offsets, in 16 and in 8 bits: (folder, {format: report})."
    folder = tmp_path_factory.mktemp('vector')
    reports = export_model(source, folder, faces=faces, name='demo', formats=['fp16', 'int8'], vector_scaling=True)
    return folder, {r['format']: r for r in reports}


def keras_logits(path, images) -> np.ndarray:
    return main_logits(load_network(path), images)


def as_trained(path, images) -> np.ndarray:
    "The logits of a Keras file without its factors and offsets."
    held = total_scaling(path) or {'factors': 1, 'offsets': 0}
    return (keras_logits(path, images) - held['offsets']) / held['factors']


def test_every_file_holds_the_same_metadata(source, exported):
    folder, reports = exported
    files = [folder / r['file'] for r in reports.values()] + [folder / 'demo.keras']
    about = [{k: v for k, v in read_metadata(f).items() if k != 'sha256'} for f in files]
    assert about[0] == about[1] == about[2] and set(about[0]['scaling']) == {'factors', 'offsets'}
    with pytest.raises(ModelError, match='a Keras file'): read_metadata(source)


def test_the_keras_file_is_smaller_and_says_the_same(source, exported, faces, tmp_path):
    export_model(source, tmp_path, faces=faces, name='demo', formats=[])
    five = faces.images[:5]
    np.testing.assert_allclose(keras_logits(tmp_path / 'demo.keras', five), keras_logits(source, five), atol=0.02)
    assert total_scaling(tmp_path / 'demo.keras') is None
    assert (tmp_path / 'demo.keras').stat().st_size < 0.8 * Path(source).stat().st_size


def test_factors_and_offsets_are_in_every_export(exported, faces):
    folder, reports = exported
    _, val = train_val_split(faces)
    expected = keras_logits(folder / 'demo.keras', val.images)
    got = {format: litert_runner(read_model(folder / r['file'])[1]) for format, r in reports.items()}
    off = {format: np.abs(softmax(run(val.images)) - softmax(expected)).max() for format, run in got.items()}
    assert off['fp16'] < 0.02 and off['int8'] < 0.2


def test_factors_and_offsets_calibrate_better_than_a_temperature(source, exported, faces, tmp_path):
    export_model(source, tmp_path, faces=faces, name='demo', formats=[])
    _, val = train_val_split(faces)
    nll = {}
    for path in (tmp_path / 'demo.keras', exported[0] / 'demo.keras'):
        shares = softmax(keras_logits(path, val.images), read_metadata(path)['temperature'])
        nll[path.parent] = compute_metrics(val.labels, shares, val.classes)['nll']
    assert nll[exported[0]] < nll[tmp_path]


@pytest.mark.parametrize('vector', [False, True], ids=['kept', 'joined'])
def test_factors_and_offsets_survive_another_export(source, exported, faces, tmp_path, vector):
    first = exported[0] / 'demo.keras'
    export_model(first, tmp_path, faces=faces, name='demo', formats=[], vector_scaling=vector)
    again, five = tmp_path / 'demo.keras', faces.images[:5]
    assert (total_scaling(again) == total_scaling(first)) is not vector
    for path in (first, again):
        near = 0.03 / min(1, *total_scaling(path)['factors'])  # kernels are kept in 16 bits
        np.testing.assert_allclose(as_trained(path, five), keras_logits(source, five), atol=near)


def test_ranges_measured_on_black_images_are_refused(source, exported, faces, tmp_path, capfd):
    assert exported[1]['int8']['agreement'] > 0.9
    train, _ = train_val_split(faces)
    in_training = np.isin(faces.sample_ids, train.sample_ids)[:, None, None]
    black_training = replace(faces, images=np.where(in_training, np.uint8(0), faces.images))
    with pytest.raises(ExportError, match='int8: '):
        export_model(source, tmp_path / 'off', faces=black_training, formats=['int8'])
    assert not list((tmp_path / 'off').iterdir())
    assert 'fully_quantize' not in capfd.readouterr().err  # the converter's log of its steps


@pytest.mark.parametrize(
    ('format', 'reason'), [('int4', "'int4' is not fp32, fp16 or int8"), ('int8', 'needs faces to calibrate')]
)
def test_formats_that_cannot_be_converted(format, reason):
    with pytest.raises(ValueError, match=reason): to_litert(None, format)


def test_a_file_that_is_no_network_is_refused(tmp_path):
    (tmp_path / 'text.keras').write_text('not a network')
    with pytest.raises(ModelError, match=r'text\.keras: not a Keras model'): load_network(tmp_path / 'text.keras')
    with pytest.raises(FileNotFoundError, match='none.keras'): load_network(tmp_path / 'none.keras')


@pytest.fixture(scope='module')
def two_headed(source, voted, tmp_path_factory):
    "The network with its votes head, in 8 bits and as ONNX: (folder, {format: report})."
    folder = tmp_path_factory.mktemp('votes')
    reports = export_model(source, folder, faces=voted, name='demo', formats=['int8', 'onnx'])
    return folder, {r['format']: r for r in reports}


def both_heads(path, faces) -> np.ndarray:
    "The logits of both heads of a Keras file."
    return join_heads(load_network(path).predict(faces.images[..., None], verbose=0), faces.classes)


def test_both_heads_are_in_every_format(two_headed, voted):
    folder, reports = two_headed
    few = voted[:40]
    expected, classes = both_heads(folder / 'demo.keras', few), len(few.classes)
    runs = {'int8': litert_runner(read_model(folder / 'demo.int8.tflite')[1])}
    runs['onnx'] = onnx_runner((folder / 'demo.onnx').read_bytes())
    for format, run in runs.items():
        off = softmax(run(few.images).reshape(-1, 2, classes)) - softmax(expected.reshape(-1, 2, classes))
        assert np.abs(off).max() < {'int8': 0.2, 'onnx': 0.03}[format]  # kernels of the Keras file have 16 bits
        assert reports[format]['agreement'] > 0.9


def test_the_second_head_is_calibrated_by_the_same_temperature(two_headed, source, voted):
    about, (_, val) = read_metadata(two_headed[0] / 'demo.keras'), train_val_split(voted)
    wins = remap_labels(ferplus_labels(val.votes, 'argmax'), FERPLUS, val.classes)
    z = both_heads(two_headed[0] / 'demo.keras', val)
    assert fit_temperature(wins, z[:, 7:]) == pytest.approx(about['temperature'], rel=0.03)
    before = both_heads(source, val)
    np.testing.assert_allclose(z[:, :7], before[:, :7], atol=0.03)
    np.testing.assert_allclose(z[:, 7:] / before[:, 7:], np.median(z[:, 7:] / before[:, 7:]), rtol=0.5)
    assert about['votes']['weight'] == 0.5 and sum(about['votes']['prior']) == pytest.approx(1)


@pytest.mark.parametrize('votes', [True, False], ids=['with votes', 'without'])
def test_another_export_does_not_scale_the_second_head_twice(two_headed, voted, tmp_path, votes):
    first = two_headed[0] / 'demo.keras'
    export_model(first, tmp_path, faces=voted if votes else replace(voted, votes=None), name='demo', formats=[])
    about, again = read_metadata(first), read_metadata(tmp_path / 'demo.keras')
    assert again['votes'] == about['votes']
    z, old = both_heads(tmp_path / 'demo.keras', voted[:20]), both_heads(first, voted[:20])
    np.testing.assert_allclose(z / again['temperature'], old / about['temperature'], atol=0.05)


def test_priors_mix_the_two_heads_end_to_end(two_headed, voted):
    from fer_nb.recognition import Recognizer

    path, images = two_headed[0] / 'demo.int8.tflite', voted.images[:20]
    about, z = read_metadata(path), scaled_logits(Classifier(path), images)
    trained, votes = np.log(about['prior']), np.log(about['votes']['prior'])
    mixed = 0.5 * z[:, :7] + 0.5 * (z[:, 7:] + trained - votes)
    half = 0.75 * z[:, :7] + 0.25 * (z[:, 7:] + trained - votes)
    expected = {
        ('balanced', 1.0): softmax(mixed - trained), ('balanced', 0.5): softmax(half - 0.5 * trained),
        ('balanced', 0.0): softmax(z[:, :7]), ('trained', 1.0): softmax(z[:, :7]), (None, 1.0): softmax(z[:, :7]),
    }
    for (prior, strength), p in expected.items():
        found = Recognizer(str(path), 'haar', prior=prior, prior_strength=strength).recognize_crops(images)
        np.testing.assert_allclose([list(o.faces[0].probabilities.values()) for o in found], p, atol=1e-9)


def test_a_file_without_votes_has_one_head(exported, faces):
    folder, reports = exported
    about, content = read_model(folder / reports['int8']['file'])
    assert 'votes' not in about and litert_runner(content)(faces.images[:2]).shape == (2, 7)


def test_a_default_prior_is_checked_before_anything_is_written(source, faces, tmp_path):
    with pytest.raises(FerError, match='one of fer2013, balanced, everyday'):
        export_model(source, tmp_path / 'new', faces=faces, formats=[], about={'default_prior': 'weekday'})
    assert not list(tmp_path.rglob('*.*'))
