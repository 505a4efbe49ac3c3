"""Exports keep temperature, factors and offsets, agree with the original, and one that is off leaves nothing behind."""
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fer_nb.core import softmax
from fer_nb.data import train_val_split
from fer_nb.export import ExportError, export_model, to_litert, total_scaling, with_scaling
from fer_nb.keras_files import load_network
from fer_nb.metrics import compute_metrics
from fer_nb.model_files import ModelError, read_metadata, read_model
from fer_nb.model_runners import litert_runner
from fer_nb.models import main_logits


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


def test_ranges_measured_on_black_images_are_refused(source, exported, faces, tmp_path):
    assert exported[1]['int8']['agreement'] > 0.9
    train, _ = train_val_split(faces)
    in_training = np.isin(faces.sample_ids, train.sample_ids)[:, None, None]
    black_training = replace(faces, images=np.where(in_training, np.uint8(0), faces.images))
    with pytest.raises(ExportError, match='int8: '):
        export_model(source, tmp_path / 'off', faces=black_training, formats=['int8'])
    assert not list((tmp_path / 'off').iterdir())


@pytest.mark.parametrize(
    ('format', 'reason'), [('int4', "'int4' is not fp32, fp16 or int8"), ('int8', 'needs faces to calibrate')]
)
def test_formats_that_cannot_be_converted(format, reason):
    with pytest.raises(ValueError, match=reason): to_litert(None, format)


def test_a_file_that_is_no_network_is_refused(tmp_path):
    (tmp_path / 'text.keras').write_text('not a network')
    with pytest.raises(ModelError, match=r'text\.keras: not a Keras model'): load_network(tmp_path / 'text.keras')
    with pytest.raises(FileNotFoundError, match='none.keras'): load_network(tmp_path / 'none.keras')
