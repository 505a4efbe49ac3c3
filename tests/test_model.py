"""Networks: every name builds, their cost is counted right, and backbones take weights only where they fit."""
import keras
import numpy as np
import pytest

from fer_nb.backbones import BACKBONES, WeightsError, build_pretrained, load_backbone
from fer_nb.labels import EXPRESSIONS
from fer_nb.models import MODELS, build_model, count_macs, replace_head


@pytest.fixture(scope='module')
def crops():
    "Two gray images of noise, 48 x 48."
    return np.random.default_rng(0).integers(0, 256, (2, 48, 48, 1)).astype('uint8')


def by_clone(model, size=48) -> int:
    "Multiply-accumulates from a copy of the network that is built for one size."
    fixed = keras.models.clone_model(model, input_tensors=keras.Input((size, size, 1)))
    kinds = keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense
    return sum(
        int(np.prod(layer.kernel.shape)) * int(np.prod(layer.output.shape[1:-1]))
        for layer in fixed.layers if isinstance(layer, kinds)
    )


@pytest.mark.parametrize('name', MODELS)
def test_network_of_each_name(name):
    network = build_model(name)
    assert network.name == name
    assert network.output_shape == (None, len(EXPRESSIONS))
    assert network.layers[-1].name == 'expression'
    assert count_macs(network) > 0


@pytest.mark.parametrize('name', ['baseline', 'xs', 'vgg8'])
def test_macs_as_in_a_copy_for_one_size(name):
    network = build_model(name)
    assert count_macs(network) == by_clone(network)
    if network.input_shape[1] is None: assert count_macs(network, 24) == by_clone(network, 24) < count_macs(network)


def test_shipped_networks_are_small():
    assert build_model('s').count_params() < 0.7e6
    assert build_model('m').count_params() < 2e6


def kernels(network) -> list: return [w.numpy() for w in network.weights if w.path.endswith('kernel')]


@pytest.mark.parametrize('name', ['mobilenet_0.75', 'mobilenetv2', 'efficientnetb0', 'vgg16'])
def test_backbone_of_each_family(name, tmp_path):
    "It is built, and takes over all weights of its own architecture."
    bare = load_backbone(name, None, size=32)
    bare.save_weights(path := tmp_path / 'own.weights.h5')
    network = build_pretrained(name, EXPRESSIONS, weights=path, size=32)
    for a, b in zip(kernels(network)[:-1], kernels(bare), strict=True): np.testing.assert_array_equal(a, b)
    assert network.input_shape == (None, 48, 48, 1) and network.output_shape == (None, len(EXPRESSIONS))
    assert network.name == name.replace('.', '_')
    assert count_macs(network) > 0


def test_sequential_gets_a_head_with_no_class_in_common():
    assert replace_head(build_model('baseline'), [''] * 7, ['a', 'b']).output_shape == (None, 2)


def test_replace_head_refuses_another_number_of_classes():
    with pytest.raises(ValueError, match='no dense layer `expression` with 3 outputs'):
        replace_head(build_model('xs'), ['a', 'b', 'c'], ['a', 'b'])


def normalization(network): return next(o for o in network.layers if type(o).__name__ == 'Normalization')


def test_efficientnet_sees_colors_as_after_the_download(crops, tmp_path):
    "With ImageNet's mean and variance in a file of weights, its Normalization hands on (x - mean) / deviation."
    mean, deviation = np.array([.485, .456, .406]), np.array([.229, .224, .225])
    bare = load_backbone('efficientnetb0', None, size=32)
    normalization(bare).set_weights([mean, deviation, np.array(0)])
    bare.save_weights(path := tmp_path / 'own.weights.h5')
    network = build_pretrained('efficientnetb0', ['a', 'b'], weights=path, size=32)
    scaling = normalization(network)
    seen = np.array(keras.Model(network.input, scaling.output)(crops))
    plain = np.repeat(np.array(keras.layers.Resizing(32, 32)(crops.astype('float32'))), 3, -1) / 255
    np.testing.assert_allclose(seen, (plain - mean) / deviation, atol=1e-3)


@pytest.fixture(scope='module')
def weights_file(tmp_path_factory):
    "A network of the family `mobilenet_0.25` and the file of its weights."
    path = tmp_path_factory.mktemp('weights') / 'quarter.weights.h5'
    network = load_backbone('mobilenet_0.25', None, size=64)
    network.save_weights(path)
    return network, path


def test_weights_come_from_a_file(weights_file):
    network, path = weights_file
    for a, b in zip(load_backbone('mobilenet_0.25', path, size=64).get_weights(), network.get_weights()):
        np.testing.assert_array_equal(a, b)


def test_pretrained_puts_weights_behind_the_scaling(weights_file):
    network, path = weights_file
    whole = kernels(build_pretrained('mobilenet_0.25', ['a', 'b'], weights=path, size=64))
    assert len(whole) == len(kernels(network)) + 1  # the new head
    for a, b in zip(whole, kernels(network)): np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('other', ['mobilenet_0.5', 'vgg16'])
def test_weights_of_another_network_are_refused(weights_file, other):
    assert other in BACKBONES
    with pytest.raises(WeightsError, match='not weights of'): load_backbone(other, weights_file[1], size=64)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file'): load_backbone('vgg16', tmp_path / 'none.h5')
