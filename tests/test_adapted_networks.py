"""Networks from elsewhere: every kind of file and ending, old versions, and what is refused."""
import json
from dataclasses import replace

import numpy as np
import pytest

from fer_nb.adapted_networks import adapt_network
from fer_nb.core import FerError, softmax
from fer_nb.export import ExportError, check_export, export_model
from fer_nb.keras_files import load_network
from fer_nb.labels import FER2013_CSV, remap_labels
from fer_nb.model_files import ModelError, read_metadata
from fer_nb.models import main_logits


@pytest.fixture(scope='module')
def some(faces):
    "The first of the synthetic faces, as if they were a person's own."
    return replace(faces[:60], edition='my faces', split=np.array(['train', 'val'] * 30))


def sequential(*last, shape=(48, 48, 1)):
    "A small network as tutorials build it."
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    first = [layers.Conv2D(4, 3, strides=4, activation='relu'), layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input(shape), *first, *last])


def endings() -> dict:
    from keras import layers

    return {
        'dense': [layers.Dense(7, activation='softmax')],
        'no bias': [layers.Dense(7, activation='softmax', use_bias=False)],
        'layer': [layers.Dense(7), layers.Softmax()],
        'activation': [layers.Dense(7), layers.Activation('softmax', name='predictions')],
        'dropout': [layers.Dense(7, activation='softmax'), layers.Dropout(0.1)],
        'nested': [sequential(layers.Dense(7, activation='softmax')).layers[-1]],
    }


@pytest.mark.parametrize(
    ('ending', 'suffix'),
    [('dense', '.h5'), ('no bias', '.hdf5'), ('layer', '.keras'), ('activation', '.model'), ('dropout', '.h5'),
     ('nested', '.keras')],
)
def test_the_probabilities_are_those_of_the_file(some, tmp_path, ending, suffix):
    network = sequential(*endings()[ending])
    network.compile('adam', 'categorical_crossentropy')
    network.save(whole := tmp_path / ('network.h5' if suffix != '.keras' else 'network.keras'))
    path = whole.rename(tmp_path / f'old{suffix}')
    adapted = adapt_network(path, some, classes=FER2013_CSV, scale='1/255')
    order = remap_labels(range(7), some.classes, FER2013_CSV)
    expected = np.asarray(network(some.images[..., None] / 255))[:, order]
    np.testing.assert_allclose(softmax(main_logits(adapted.network, some.images)), expected, atol=1e-4)
    assert adapted.classes == some.classes and 'old' in adapted.about['origin'] and '1/255' in adapted.about['origin']


@pytest.mark.parametrize('shape', [(64, 64, 1), (96, 96, 3), (48, 48, 3), (None, None, 1)])
def test_other_sizes_and_colors(some, shape):
    from keras import layers

    network = sequential(layers.Dense(7, activation='softmax'), shape=shape)
    adapted = adapt_network(network, some, classes=some.classes, scale=1)
    assert main_logits(adapted.network, some.images).shape == (60, 7)


@pytest.mark.parametrize(
    ('last', 'classes', 'options', 'reason'),
    [
        (8, FER2013_CSV, {}, 'has 8 outputs, but there are 7 classes'),
        (7, None, {}, 'does not say which output is which class'),
        (7, ['happy'] * 7, {}, 'one name'),
        (7, [*FER2013_CSV[:6], 'error'], {}, 'error'),
        (7, FER2013_CSV, {'scale': '1/0'}, 'a factor is needed'),
        (7, FER2013_CSV, {'shape': (48, 48, 2)}, '48 x 48 gray is needed'),
        (7, FER2013_CSV, {'activation': 'tanh'}, 'ends in tanh'),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(some, tmp_path, last, classes, options, reason):
    from keras import layers

    dense = layers.Dense(last, activation=options.get('activation', 'softmax'))
    network = sequential(dense, shape=options.get('shape', (48, 48, 1)))
    given = {'classes': classes, 'scale': options.get('scale', 1)}
    with pytest.raises(FerError, match=reason): export_model(network, tmp_path, faces=some, **given)
    assert list(tmp_path.iterdir()) == []


def test_networks_without_known_layers_are_refused(some):
    import keras

    class Mine(keras.Model):
        def call(self, x): return x[:, 0, :7, 0]

    (mine := Mine())(some.images[:1, ..., None])
    for network in (keras.Sequential([keras.layers.Dense(7)]), mine):
        with pytest.raises(FerError, match='whose layers are not known'):
            adapt_network(network, some, classes=some.classes, scale=1)


def old_file(path, layers: list, weights: dict, *, as_list: bool) -> None:
    "A file as Keras 2.0 to 2.15 wrote it."
    import h5py

    config = layers if as_list else {'name': 'sequential', 'layers': layers}
    with h5py.File(path, 'w') as f:
        f.attrs['keras_version'], f.attrs['backend'] = '2.2.4', 'tensorflow'
        f.attrs['model_config'] = json.dumps({'class_name': 'Sequential', 'config': config})
        f.create_group('optimizer_weights')
        group = f.create_group('model_weights')
        names = [o['config']['name'] for o in layers]
        group.attrs['layer_names'] = [o.encode() for o in names]
        for name in names:
            inner = group.create_group(name)
            inner.attrs['weight_names'] = [f'{name}/{k}'.encode() for k in weights.get(name, {})]
            for k, v in weights.get(name, {}).items(): inner.create_dataset(f'{name}/{k}', data=v.astype('float32'))


@pytest.mark.parametrize('as_list', [True, False], ids=['list', 'dict'])
def test_files_of_keras_2(some, tmp_path, as_list):
    rng = np.random.default_rng(0)
    kernel, depth, dense = rng.normal(size=(8, 8, 1, 2)), rng.normal(size=(3, 3, 2, 1)), rng.normal(size=(2, 7))
    layers = [
        {'class_name': 'Conv2D', 'config': {'name': 'conv', 'batch_input_shape': [None, 48, 48, 1], 'filters': 2,
         'kernel_size': [8, 8], 'strides': [8, 8], 'use_bias': False, 'dtype': 'float32', 'groups': 1}},
        {'class_name': 'DepthwiseConv2D', 'config': {'name': 'depth', 'kernel_size': [3, 3], 'use_bias': False,
         'groups': 1, 'dtype': 'float32'}},
        {'class_name': 'GlobalAveragePooling2D', 'config': {'name': 'pool', 'dtype': 'float32'}},
        {'class_name': 'Dense', 'config': {'name': 'dense', 'units': 7, 'activation': 'softmax', 'use_bias': False}},
    ]
    weights = {'conv': {'kernel:0': kernel}, 'depth': {'depthwise_kernel:0': depth}, 'dense': {'kernel:0': dense}}
    old_file(tmp_path / 'old.h5', layers, weights, as_list=as_list)
    network = load_network(tmp_path / 'old.h5')
    image = some.images[:1, ..., None] / 255
    patches = image[0, ..., 0].reshape(6, 8, 6, 8)
    maps = np.einsum('iajb,abc->ijc', patches, kernel[:, :, 0])
    rows = [[(maps[i:i + 3, j:j + 3] * depth[..., 0]).sum((0, 1)) for j in range(4)] for i in range(4)]
    expected = softmax(np.mean(rows, axis=(0, 1)) @ dense)
    np.testing.assert_allclose(np.asarray(network(image))[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ('name', 'content', 'reason'),
    [
        ('a.pt', b'PK\x03\x04', 'not a Keras model'),
        ('a.pkl', b'\x80\x04N.', 'a pickle, which can run any program and is never opened'),
        ('a.h5', b'', 'empty'),
        ('a.h5', b'\x89HDF\r\n\x1a\n' + b'\0' * 99, 'damaged'),
        ('a.keras', b'PK\x05\x06' + b'\0' * 18, 'it has no config.json'),
        ('a.json', b'{"class_name": "Sequential"}', 'without the weights'),
        ('a.tflite', b'\x1c\0\0\0TFL3' + b'\0' * 9, 'LiteRT'),
        ('a.h5', b'<!DOCTYPE html>', 'web page'),
        ('a.keras', b'version https://git-lfs.github.com/spec/v1', 'git lfs pull'),
    ],
)
def test_files_of_other_kinds_are_named_and_not_opened(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=reason) as caught: load_network(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('suffix', ['.h5', '.keras'])
def test_programs_in_files_are_refused(tmp_path, suffix):
    import keras

    class Mine(keras.layers.Layer):
        def call(self, x): return x

    sequential(keras.layers.Lambda(lambda x: x * 2)).save(tmp_path / f'lambda{suffix}')
    sequential(Mine()).save(tmp_path / f'mine{suffix}')
    sequential().save_weights(tmp_path / 'only.weights.h5')
    for name, reason in (
        (f'lambda{suffix}', 'Lambda layer, which is a program'), (f'mine{suffix}', 'it uses Mine, whose program'),
        ('only.weights.h5', 'weights without layers'),
    ):
        with pytest.raises(ModelError, match=reason) as caught: load_network(tmp_path / name)
        assert 'safe_mode' not in str(caught.value)


@pytest.mark.parametrize(
    ('out', 'name', 'formats', 'reason'),
    [
        ('file', 'm', ['fp32'], 'file'),
        ('new', 'a/b', ['fp32'], 'has / in it'),
        ('new', 'm', ['fp32', 'fp8'], "'fp8' is not one of"),
        ('.', 'source', [], 'would replace the network itself'),
    ],
)
def test_targets_are_checked_before_the_work(tmp_path, out, name, formats, reason):
    (tmp_path / 'file').write_text('in the way')
    (tmp_path / 'source.keras').write_text('a network')
    with pytest.raises(FerError, match=reason):
        check_export(tmp_path / 'source.keras', tmp_path / out, name=name, formats=formats)
    assert check_export(tmp_path / 'source.keras', tmp_path / 'new', name='m', formats=['int8'] * 2) == ['int8']


def test_one_format_that_fails_costs_only_itself(some, tmp_path, monkeypatch):
    import tf2onnx
    from keras import layers

    def fail(*_, **__): raise RuntimeError('no such operation')

    monkeypatch.setattr(tf2onnx.convert, 'from_function', fail)
    network = sequential(layers.Dense(7, activation='softmax'))
    with pytest.raises(ExportError, match=r'onnx: cannot be converted \(no such operation\)') as caught:
        export_model(network, tmp_path, faces=some, formats=['onnx', 'fp32'], classes=some.classes, scale=1)
    assert [o['file'] for o in caught.value.done] == ['model.fp32.tflite']
    assert sorted(o.name for o in tmp_path.iterdir()) == ['model.fp32.tflite', 'model.keras']
    about = read_metadata(tmp_path / 'model.keras')
    assert about['classes'] == list(some.classes) and 'my faces' in about['data'] and about['macs'] > 0


def test_a_recognizer_says_what_the_network_says(some, tmp_path):
    from keras import layers

    from fer_nb import Recognizer

    network = sequential(layers.Dense(7, activation='softmax'))
    network.set_weights([w * 20 for w in network.get_weights()])
    network.save(tmp_path / 'old.h5')
    export_model(
        tmp_path / 'old.h5', tmp_path, faces=some, formats=['fp32'], classes=FER2013_CSV, scale='1/255', temperature=1,
        name='mine',
    )
    results = Recognizer(tmp_path / 'mine.fp32.tflite').recognize_crops(some.images[:20])
    expected = np.asarray(network(some.images[:20, ..., None] / 255)).argmax(1)
    assert [o.faces[0].label for o in results] == [FER2013_CSV[k] for k in expected]
