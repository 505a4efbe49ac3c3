"""Other versions of what fer_nb stands on: OpenCV that cannot be used, and files that another Keras wrote."""
import configparser
import json
import resource
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from fer_nb.checkpoints import _NEW_SETTINGS, _make_portable, _without_new, load_initial_weights, save_keras
from fer_nb.core import _OPENCV
from fer_nb.distillation import load_teachers
from fer_nb.keras_files import load_network
from fer_nb.model_files import ModelError

OPENCVS = {
    'no libGL': "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')",
    'not installed': "raise ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')",
    'not complete': '',
    '4.11.0': "__version__ = '4.11.0'",
    '5.0.0': "__version__ = '5.0.0'",
}


@pytest.fixture
def other_opencv(tmp_path):
    "Makes a folder that brings an OpenCV of this content."

    def make(content: str) -> dict[str, str]:
        (tmp_path / 'cv2').mkdir()
        (tmp_path / 'cv2/__init__.py').write_text(content)
        return dict(PYTHONPATH=str(tmp_path))

    return make


def test_range_of_opencv(root):
    "The versions that the command accepts are those that settings.ini declares."
    settings = configparser.ConfigParser(delimiters=['='])
    settings.read(root / 'settings.ini')
    declared = next(o for o in settings['DEFAULT']['requirements'].split() if o.startswith('opencv-python'))
    first, end = ('.'.join(map(str, o)) for o in _OPENCV)
    assert declared.startswith(f'opencv-python>={first}.') and declared.endswith(f',<{end}')


@pytest.mark.parametrize('kind', OPENCVS)
@pytest.mark.parametrize('command', ['predict photo.jpg', 'video clip.mp4'])
def test_other_opencv(run, other_opencv, kind, command):
    "One sentence with the remedy."
    done = run('python', '-m', 'fer_nb', *command.split(), env=other_opencv(OPENCVS[kind]))
    sentence, = done.stderr.splitlines()
    assert done.returncode == 2
    assert sentence.startswith(f'fer_nb {command.split()[0]}: OpenCV ')
    assert "pip install 'opencv-python-headless>=4.12,<5'" in sentence
    assert kind in sentence or kind in ('no libGL', 'not installed', 'not complete')
    if kind == 'no libGL': assert 'libGL.so.1' in sentence


def test_recognizer_with_other_opencv(run, other_opencv):
    "The same sentence in Python."
    done = run('python', '-c', 'from fer_nb import Recognizer', env=other_opencv(OPENCVS['5.0.0']))
    assert done.stderr.splitlines()[-1].startswith('ImportError: OpenCV 5.0.0 is installed')


def test_version_without_opencv(run, other_opencv):
    "What a bug report needs is told nevertheless."
    done = run('python', '-m', 'fer_nb', 'version', env=other_opencv(OPENCVS['no libGL']))
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.startswith('fer_nb ')


def chunk(name: bytes, body: bytes = b'') -> bytes:
    return struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))


def png(rows: np.ndarray, animated: bool, row_filter: int = 0) -> bytes:
    "A PNG of these pixels (H, W, 3); animated, with two more frames, the first of which has this row filter."
    height, width = rows.shape[:2]
    packed = [zlib.compress(b''.join(bytes([o]) + row.tobytes() for row in rows)) for o in (0, row_filter)]
    control = struct.pack('>IIIIHHBB', width, height, 0, 0, 1, 10, 0, 0)
    frames = [
        chunk(b'acTL', struct.pack('>II', 2, 0)),
        chunk(b'fcTL', struct.pack('>I', 0) + control), chunk(b'fdAT', struct.pack('>I', 1) + packed[1]),
        chunk(b'fcTL', struct.pack('>I', 2) + control), chunk(b'fdAT', struct.pack('>I', 3) + packed[0]),
    ] if animated else [b'', b'']
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
    parts = [b'\x89PNG\r\n\x1a\n', header, frames[0], chunk(b'IDAT', packed[0]), *frames[1:], chunk(b'IEND')]
    return b''.join(parts)


DECODE = """
import sys
import numpy as np
from pathlib import Path
from fer_nb.class_folders import load_class_folders
from fer_nb.images import read_image
np.save('whole.npy', [read_image(path) for path in sys.argv[1:]])
np.save('faces.npy', load_class_folders('classes').images)
"""


@pytest.mark.parametrize('row_filter', [0, 9], ids=['sound', 'damaged'])
def test_animated_png(tmp_path, row_filter):
    "Only the still image is decoded, also where a later frame would end the process, in photos and in class folders."
    rows = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for name, animated in dict(still=False, animated=True).items():
        (tmp_path / f'{name}.png').write_bytes(content := png(rows, animated, row_filter))
        for label in 'happy', 'sad':
            (tmp_path / 'classes' / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / 'classes' / label / f'{name}.png').write_bytes(content)
    done = subprocess.run(
        [sys.executable, '-c', DECODE, 'still.png', 'animated.png'], cwd=tmp_path, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)),
    )
    assert done.returncode == 0, done.stderr
    still, moving = np.load(tmp_path / 'whole.npy')
    np.testing.assert_array_equal(still, rows)
    np.testing.assert_array_equal(moving, rows)
    faces = np.load(tmp_path / 'faces.npy')
    assert len(faces) == 4 and len(np.unique(faces, axis=0)) == 1


@pytest.fixture(scope='module')
def network():
    "All layers whose configuration Keras has extended."
    import keras

    layers = keras.layers
    return keras.Sequential([
        keras.Input((8, 8, 1)), layers.Conv2D(2, 3, kernel_initializer='he_normal'), layers.BatchNormalization(),
        layers.Flatten(), layers.Dense(7, kernel_initializer='glorot_uniform'),
    ])


def config(path) -> str:
    with zipfile.ZipFile(path) as z: return z.read('config.json').decode()


def test_save_keras(network, tmp_path):
    "Without settings that are not used, and otherwise the network that was saved."
    import keras

    save_keras(network, path := tmp_path / 'small.keras')
    network.save(plain := tmp_path / 'plain.keras')
    assert [name for name in _NEW_SETTINGS if name in config(plain)]
    assert not [name for name in _NEW_SETTINGS if name in config(path)]
    again, as_saved = (keras.saving.load_model(file, compile=False) for file in (path, plain))
    assert again.get_config() == as_saved.get_config()
    x = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)
    np.testing.assert_array_equal(again(x), network(x))
    before = path.read_bytes()
    _make_portable(path)
    assert path.read_bytes() == before


def test_used_settings_stay():
    "A setting that is used is kept: without it the network would be another one."
    used = dict(renorm=True, quantization_config={'mode': 'int8'}, input_axes=[0], units=3)
    assert _without_new([used, dict(renorm=False, units=3)]) == [used, dict(units=3)]


@pytest.mark.parametrize('name', ['s', 'm'])
def test_shipped_networks(root, name):
    "The shipped files are such ones, too."
    written = json.loads(config(root / f'models/{name}.keras'))
    assert written['config']['layers'] and _without_new(written) == written


@pytest.fixture(scope='module')
def from_the_future(network, tmp_path_factory) -> Path:
    "A network with a setting that no Keras knows yet, written by a later one."
    network.save(plain := tmp_path_factory.mktemp('future') / 'plain.keras')
    path = plain.with_name('future.keras')
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, 'w') as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename == 'config.json': content = content.replace(b'"seed": null', b'"seed": null, "novel": 1')
            if info.filename == 'metadata.json': content = b'{"keras_version": "99.1"}'
            new.writestr(info, content)
    return path


def test_reason(from_the_future, network):
    "A file that cannot be loaded: the innermost reason, on one line, and which Keras wrote it."
    import keras

    ending = f"got an unexpected keyword argument 'novel'; written by Keras 99.1, this is {keras.__version__})"
    for use in load_network, lambda path: load_teachers([path], 7), lambda path: load_initial_weights(network, path):
        with pytest.raises(ValueError) as caught: use(from_the_future)
        message = str(caught.value)
        assert message.startswith(f'{from_the_future}: ') and message.endswith(ending) and '\n' not in message
    with pytest.raises(ModelError, match='not a Keras model'): load_network(from_the_future)
