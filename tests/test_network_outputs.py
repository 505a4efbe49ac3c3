"""Exported networks give their last feature map beside the logits; files without it go on working."""
import numpy as np
import pytest

from fer_nb import export
from fer_nb.classification import Classifier
from fer_nb.labels import EXPRESSIONS
from fer_nb.model_files import ModelError, head_weights, with_metadata
from fer_nb.model_runners import litert_runner, onnx_runner
from fer_nb.network_outputs import last_map, layer_fields, main_head
from fer_nb.synthetic import synthetic_faces


def network(pooled: bool = True):
    "A network of one convolution, with a feature map of 6 x 6 x 5 that is averaged, or flattened."
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    face = keras.Input((48, 48, 1), name='face')
    x = layers.Conv2D(5, 9, strides=8, padding='same', activation='relu')(layers.Rescaling(1 / 64, offset=-2)(face))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x)) if pooled else layers.Flatten()(x)
    return keras.Model(face, layers.Dense(7, name='expression', bias_initializer='glorot_uniform')(x), name='tiny')


@pytest.fixture(scope='module')
def tiny(): return network()


@pytest.fixture(scope='module')
def some(): return synthetic_faces(21, seed=3)


def convert(tiny, format: str, images) -> bytes:
    return export._to_onnx(tiny) if format == 'onnx' else export.to_litert(tiny, format, calibration=images)


@pytest.mark.parametrize('format', ['fp32', 'fp16', 'int8', 'onnx'])
def test_the_logits_are_the_same_with_and_without_the_map(tiny, some, format, monkeypatch):
    runner = onnx_runner if format == 'onnx' else litert_runner
    two = convert(tiny, format, some.images)
    monkeypatch.setattr(export, 'with_map', main_head)
    one = convert(tiny, format, some.images)
    logits, maps = runner(two)(some.images), runner(two, maps=True)(some.images)
    np.testing.assert_array_equal(runner(one)(some.images), logits)
    with pytest.raises(ValueError, match='no feature map'): runner(one, maps=True)(some.images[:1])
    if maps.shape[1] == 5: maps = np.moveaxis(maps, 1, 3)
    assert maps.shape == (21, 6, 6, 5)
    kernel, bias = head_weights(layer_fields(tiny, some, 1.0) | {'classes': list(EXPRESSIONS)})
    np.testing.assert_allclose(maps.mean(axis=(1, 2)) @ kernel + bias, logits, atol=0.1 if format == 'int8' else 0.01)


def test_a_network_without_a_pooled_map_gives_its_logits_alone(some):
    flat = network(pooled=False)
    assert last_map(flat) is None and set(layer_fields(flat, some, 1.0)) == {'class_logits'}
    with pytest.raises(ValueError, match='no feature map'):
        litert_runner(export.to_litert(flat, 'fp32'), maps=True)(some.images[:1])


@pytest.mark.parametrize('pooled', [True, False], ids=['two outputs', 'one output'])
def test_a_classifier_gives_maps_where_its_file_has_them(some, tmp_path, pooled):
    built, path = network(pooled), tmp_path / 'tiny.tflite'
    about = dict(name='tiny', version='1', classes=list(EXPRESSIONS), input_size=[48, 48], channels=1, temperature=1.0)
    path.write_bytes(with_metadata(export.to_litert(built, 'fp32'), about | layer_fields(built, some, 1.0), path))
    classifier = Classifier(path)
    expected = built.predict(some.images[..., None], verbose=0)
    np.testing.assert_allclose(classifier.logits(some.images), expected, atol=1e-3)
    if pooled: assert classifier.feature_maps(some.images[:3]).shape == (3, 6, 6, 5)
    else:
        with pytest.raises(ModelError, match=r'tiny\.tflite: .* no feature map; export it again'):
            classifier.feature_maps(some.images[:3])


def test_a_map_that_does_not_give_the_logits_is_refused(tiny, some):
    maps = litert_runner(export.to_litert(tiny, 'fp32'), maps=True)(some.images)
    expected = tiny.predict(some.images[..., None], verbose=0)
    export._check_maps(tiny, 'fp32', maps, expected, classes=7)
    with pytest.raises(export.ExportError, match='does not give the logits'):
        export._check_maps(tiny, 'fp32', maps[..., ::-1] * 3, expected, classes=7)
