"""What a recognizer is made of and given: files that are no models, images of every kind, and faces that are turned."""
import io
import json
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fer_nb import Recognizer, draw_faces, read_image
from fer_nb.classification import Classifier
from fer_nb.core import FerError, sha256
from fer_nb.detection import load_detector
from fer_nb.model_files import MEMBER, ModelError, find_model, read_metadata, read_model, with_metadata

YUNET = os.environ.get('FER_NB_YUNET')


@pytest.fixture(scope='module')
def shipped():
    "Metadata and network of the smaller shipped model."
    return read_model(find_model('s'))


@pytest.fixture(scope='module')
def recognizer():
    "The shipped model behind the detector that needs no file."
    return Recognizer('s', 'haar')


def archive(*members, kind=zipfile.ZIP_DEFLATED) -> bytes:
    "A zip archive of (name, content)."
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', kind) as z:
        for name, content in members: z.writestr(name, content)
    return buffer.getvalue()


def packed(meta, weights, **changes) -> bytes:
    "A model file whose checksum fits, with changed metadata that nothing has looked at."
    text = json.dumps(meta | {'sha256': sha256(weights)} | changes)
    return weights + archive((MEMBER, text))


FAR_TOO_LARGE = b'0' * (40 << 20)
BOMBS = {
    'a giant text': lambda: archive((MEMBER, FAR_TOO_LARGE)),
    'a giant text in a Keras file': lambda: archive(('config.json', FAR_TOO_LARGE), (MEMBER, '{}')),
    'packed by LZMA': lambda: archive((MEMBER, FAR_TOO_LARGE), kind=zipfile.ZIP_LZMA),
    'packed by BZIP2': lambda: archive((MEMBER, FAR_TOO_LARGE), kind=zipfile.ZIP_BZIP2),
    'nested': lambda: archive((MEMBER, '[' * 900_000)),
    'a deep field': lambda: archive((MEMBER, '{"a":' * 500 + '1' + '}' * 500)),
    'many members': lambda: archive(*((f'{i}', b'') for i in range(3000)), (MEMBER, '{}')),
    'a giant number': lambda: archive((MEMBER, '{"temperature": ' + '1' * 100_000 + '}')),
}


@pytest.mark.parametrize('bomb', BOMBS)
def test_small_file_that_unpacks_to_much(bomb, tmp_path):
    "It is refused, and the memory for it is never taken: 24 MB are all that the process gets."
    path = tmp_path / 'bomb.tflite'
    path.write_bytes(BOMBS[bomb]())
    assert path.stat().st_size < 2 << 20
    code = f"""import resource
from fer_nb.model_files import ModelError, read_metadata
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (24 << 20),) * 2)
try: read_metadata({str(path)!r})
except ModelError as e: print(e)"""
    done = subprocess.run([sys.executable, '-B', '-c', code], capture_output=True, text=True)
    assert done.stdout.startswith(f'{path}: ') and done.returncode == 0, done.stderr


def test_file_larger_than_any_model(tmp_path):
    "Its size is looked at before anything of it is read."
    path = tmp_path / 'large.tflite'
    with path.open('wb') as f: f.truncate(2 << 30)
    with pytest.raises(ModelError, match='the limit is 1,073,741,824'): read_metadata(path)


OTHERS = {
    'm.keras': (archive(('config.json', b'{}'), (MEMBER, b'{}')), 'a Keras file; `fer_nb export`'),
    'plain.keras': (archive(('config.json', b'{}')), 'a Keras file; `fer_nb export`'),
    'old.h5': (b'\x89HDF\r\n\x1a\n' + bytes(99), 'an HDF5 file'),
    'm.onnx': (b'\x08\x07', 'an ONNX file'),
    'm.pt': (archive(('archive/data.pkl', b'')), 'a pickle'),
    'm.pkl': (b'\x80\x04N.', 'a pickle'),
    'other.tflite': (b'\x1c\0\0\0TFL3' + bytes(99), 'does not say its classes'),
    'page.tflite': (b'<!DOCTYPE html>', 'a web page'),
    'pointer.tflite': (b'version https://git-lfs.github.com/spec/v1', 'git lfs pull'),
    'empty.tflite': (b'', 'the file is empty'),
    'text.tflite': (b'weights', 'not a model file of fer_nb'),
}


@pytest.mark.parametrize('name', OTHERS)
def test_file_of_another_program(name, tmp_path):
    "The message says what it is, in one line."
    content, reason = OTHERS[name]
    (path := tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError) as told: Recognizer(path, 'haar')
    said = str(told.value)
    assert said.startswith(f'{path}: ') and reason in said and '\n' not in said


WRONG_FIELDS = {
    'name': [7, '', None, 'a\nb'], 'classes': [{}, 'abcdefg', ['a'] * 7, [*'abcdef', 'error'], [*'abcdef', 7]],
    'temperature': [0, -1, '1', None, True, [1]], 'input_size': [48, '48', [48], [48, '48'], [0, 0]],
    'channels': ['1', 3, None], 'version': [None, 1.5, {}],
    'crop': ['yunet', 7, {'haar': 7}, {'haar': {'margin': 'x'}}],
    'uncertain': [[], 'x', {'threshold': 'x'}, {'threshold': 7}], 'scaling': [7, {'factors': 'x', 'offsets': 'y'}],
    'sha256': ['0' * 64, 7, None],
}


@pytest.mark.parametrize('field', WRONG_FIELDS)
def test_metadata_of_the_wrong_type(field, shipped, tmp_path):
    "The file and the field are named."
    path = tmp_path / 'wrong.tflite'
    for value in WRONG_FIELDS[field]:
        path.write_bytes(packed(*shipped, **{field: value}))
        with pytest.raises(FerError) as told: Recognizer(path, 'haar', min_confidence='auto')
        said = str(told.value)
        assert said.startswith(f'{path}: '), (value, said)
        assert ('checksum' if value == '0' * 64 else field) in said


@pytest.mark.parametrize('part', [0, 1])
def test_changed_byte(part, shipped, tmp_path):
    "A byte that is changed is found by the checksum, in every kind of file."
    meta, weights = shipped
    keras = archive(('config.json', '{}'), ('model.weights.h5', weights[:5000]))
    whole = [with_metadata(weights, meta, tmp_path), with_metadata(keras, meta, tmp_path)][part]
    path = tmp_path / ('m.tflite', 'm.keras')[part]
    path.write_bytes(whole)
    assert read_metadata(path)['name'] == meta['name']
    at = whole.index(weights[2000:2050]) if part == 0 else 0
    if part == 0: path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
    else: path.write_bytes(archive(
        ('config.json', '{}'), ('model.weights.h5', bytes(5000)), (MEMBER, zipfile.ZipFile(path).read(MEMBER))))
    with pytest.raises(ModelError, match='damaged, the checksum'): read_metadata(path)


def test_changed_network_with_a_checksum_that_fits(shipped, tmp_path):
    "LiteRT may crash over it; that happens in a process of its own, and is an error here."
    meta, weights = shipped
    rng, path, seen = random.Random(1), tmp_path / 'changed.tflite', []
    for _ in range(6):
        changed = bytearray(weights)
        for _ in range(12): changed[-1 - rng.randrange(60_000)] = rng.randrange(256)
        path.write_bytes(packed(meta, bytes(changed)))
        try: Classifier(path)
        except ModelError as e: seen.append(str(e))
    assert seen and all(o.startswith(f'{path}: ') for o in seen)


def test_network_that_ends_the_process(shipped, tmp_path):
    "One changed byte at which LiteRT 2.1 aborts; another one may refuse it. A copy that is unchanged is taken."
    meta, weights = shipped
    path, changed = tmp_path / 'abort.tflite', bytearray(weights)
    path.write_bytes(packed(meta, weights))
    assert Recognizer(path, 'haar').classes == tuple(meta['classes'])
    changed[-3053] = 68
    path.write_bytes(packed(meta, bytes(changed)))
    with pytest.raises(ModelError, match='LiteRT cannot use it'): Recognizer(path, 'haar')


@pytest.mark.parametrize('kind, reason', {
    'mtcnn': 'neither auto, haar or yunet', 'retinaface': 'neither auto', 'https://a.org/yunet.onnx': 'download-yunet',
    'none.onnx': 'cannot be read', '/': 'not a folder', '/dev/zero': 'a device', '': 'neither auto',
    'a\0b.onnx': 'cannot be read',
    'a\nb': r'a\nb: neither', 7: 'not 7', None: 'not None',
}.items())
def test_detector_that_is_none(kind, reason):
    "The message says what would work, in one line."
    with pytest.raises(FerError) as told: load_detector(kind)
    assert reason in str(told.value) and '\n' not in str(told.value)


@pytest.mark.skipif(not YUNET, reason='FER_NB_YUNET names no file')
def test_another_yunet(tmp_path, monkeypatch):
    "By its name YuNet is the known file only; another one is taken by its path."
    other = tmp_path / 'other.onnx'
    other.write_bytes(Path(YUNET).read_bytes() + b'\x1a\x00')   # one more field of a length of 0
    monkeypatch.setenv('FER_NB_YUNET', str(other))
    for name in ('auto', 'yunet'):
        with pytest.raises(FerError, match='give its path as the detector'): load_detector(name)
    assert load_detector(other).name == 'yunet'


class Awkward:
    "A tensor on a device without a driver."
    shape, dtype = (9, 9), 'float32'

    def __array__(self, *args, **kwargs): raise TypeError("can't convert cuda:0 device type tensor to numpy")


class OnDevice:
    "A tensor as PyTorch has them: with a gradient, on a device."
    shape = (9, 9, 3)

    def __init__(self, pixels, on_cpu=False): self.pixels, self.on_cpu = pixels, on_cpu

    def detach(self): return self

    def cpu(self): return OnDevice(self.pixels, True)

    def __array__(self, *args, **kwargs):
        if not self.on_cpu: raise TypeError("can't convert cuda:0 device type tensor to numpy")
        return self.pixels


def kinds(photo) -> dict:
    "One photograph as everything that it may come as."
    import pandas as pd
    from PIL import Image

    rgb = read_image(photo)
    return {
        'str': str(photo), 'path': photo, 'bytes': photo.read_bytes(), 'view': memoryview(photo.read_bytes()),
        'file': io.BytesIO(photo.read_bytes()), 'pillow': Image.fromarray(rgb), 'array': rgb,
        'address': photo.as_uri(), 'batch': rgb[None], 'device': OnDevice(rgb),
        'generator': (o for o in [photo]), 'glob': photo.parent.glob(photo.name), 'series': pd.Series([photo]),
        'objects': np.array([str(photo), None], object), 'texts': np.array([str(photo)]), 'set': {photo},
        'values': {'a': photo}.values(), 'map': map(str, [photo]),
    }


@pytest.mark.parametrize('kind', [
    'str', 'path', 'bytes', 'view', 'file', 'pillow', 'array', 'address', 'batch', 'device', 'generator', 'glob',
    'series', 'objects', 'texts', 'set', 'values', 'map',
])
def test_image_of_any_kind(kind, recognizer, photos):
    "One image gives one result, several give a list; the faces are the same."
    wanted = recognizer(photos[1]).faces
    found = recognizer(kinds(photos[1])[kind])
    single = kind in ('str', 'path', 'bytes', 'view', 'file', 'pillow', 'array', 'address', 'device')
    assert single != isinstance(found, list)
    assert (found if single else found[0]).faces == wanted and wanted
    if kind == 'objects': assert found[1].status == 'unreadable'


@pytest.mark.parametrize('threads', [1, 3])
def test_bad_items_cost_themselves(threads, photos):
    "Each of them is one unreadable result with a reason; what is around them stays."
    bad = [None, float('nan'), 7, [], {}, Awkward(), np.array(7), np.zeros(2304), np.zeros((3, 2304), np.uint8),
           np.zeros((3, 48, 48)), np.array(['x']), object, 'data:image/png;base64,' + 'A' * 9999, '', 'a\0b']
    results = Recognizer('s', 'haar', threads=threads)([photos[1], *bad, photos[1]])
    assert [o.status for o in results] == ['ok', *['unreadable'] * len(bad), 'ok']
    assert all(o.error and len(o.error) < 400 and len(o.source) < 100 for o in results[1:-1])
    assert 'cuda:0' in results[6].error and 'reshape(-1, 48, 48)' in results[9].error
    assert 'transpose(1, 2, 0)' in results[10].error


@pytest.mark.parametrize('threads', [1, 2])
def test_images_of_a_generator_are_let_go(threads):
    "Of a thousand images only those are alive that threads need."
    alive, most = set(), 0

    class Counted(np.ndarray):
        def __del__(self): alive.discard(id(self))

    def images():
        nonlocal most
        for _ in range(200):
            image = np.full((30, 30), 99, np.uint8).view(Counted)
            alive.add(id(image))
            most = max(most, len(alive))
            yield image
            del image

    results = Recognizer('s', 'haar', threads=threads)(images())
    assert [o.status for o in results] == ['no_face'] * 200 and most <= 20 * threads


def test_stream_goes_on_after_the_source_has_failed(recognizer, photos):
    "What came before an error of the source is there."
    def broken():
        yield photos[1]
        raise OSError('the drive is gone')

    stream = recognizer.stream(broken())
    assert next(stream).status == 'ok'
    with pytest.raises(OSError, match='the drive is gone'): next(stream)


@pytest.mark.parametrize('shape, hint', {
    (5, 2304): 'x.reshape(-1, 48, 48)', (2304,): 'x.reshape(-1, 48, 48)', (2, 3, 48, 48): 'x.transpose(0, 2, 3, 1)',
    **dict.fromkeys([(48, 48), (48, 48, 3), (48, 48, 4), (2, 2, 48, 48, 3)], '[x] for the one crop x'),
}.items())
def test_crops_of_another_shape(shape, hint, recognizer):
    with pytest.raises(FerError) as told: recognizer.recognize_crops(np.zeros(shape, np.uint8))
    assert str(told.value).endswith(f'not of shape {shape}: give {hint}')


def test_crops_of_a_stated_shape(recognizer):
    "Three gray crops are three, with the warning that they may have been meant as one."
    crops = np.random.default_rng(0).integers(0, 256, (4, 48, 48), np.uint8)
    for given in (crops, crops[..., None], np.repeat(crops[..., None], 3, 3), list(crops), (o for o in crops)):
        assert len(recognizer.recognize_crops(given)) == 4
    assert not any(o.warnings for o in recognizer.recognize_crops(crops))
    assert all('one colored crop' in o.warnings[0] for o in recognizer.recognize_crops(crops[:3]))


@pytest.mark.skipif(not YUNET, reason='FER_NB_YUNET names no file')
@pytest.mark.parametrize('turns', [1, 2, 3])
def test_turned_face(turns, photos):
    "A face on its side or on its head has the label of the upright one, its box around it, and a warning."
    rgb = read_image(photos[1])
    recognizer = Recognizer('s', YUNET)
    upright, turned = recognizer(rgb), recognizer(np.rot90(rgb, turns).copy())
    assert not upright.warnings and len(turned.warnings) == 1 and 'was set upright' in turned.warnings[0]
    (a,), (b,) = upright.faces, turned.faces
    assert a.label == b.label and abs(a.confidence - b.confidence) < .15
    drawn = np.zeros(rgb.shape[:2], np.uint8)
    x, y, w, h = a.box
    drawn[y:y + h, x:x + w] = 1
    wanted, (x, y, w, h) = np.rot90(drawn, turns), b.box
    both = wanted[y:y + h, x:x + w].sum()
    assert both / (wanted.sum() + w*h - both) > .7


@pytest.mark.parametrize('faces', ['happy', 7, [{'box': (0, 0, 9, 9)}], None])
def test_drawing_what_is_no_face(faces):
    with pytest.raises(FerError, match='Face objects or a Result'): draw_faces(np.zeros((9, 9, 3), np.uint8), faces)


@pytest.mark.parametrize('options', [
    dict(threads=0), dict(threads='2'), dict(threads=True), dict(max_pixels=0), dict(max_pixels='x'), dict(model=7),
    dict(min_confidence='often'), dict(min_confidence=[1]), dict(detector=3.5), dict(model='/'), dict(model=b'm\xff'),
    dict(detector=np.zeros(3)), dict(min_confidence=np.zeros(3)),
])
def test_wrong_options(options):
    with pytest.raises(FerError): Recognizer(**{'detector': 'haar'} | options)


def test_table_with_a_name_that_is_not_utf8(recognizer):
    for name in ('\udcff.jpg', '\ud800.jpg'):
        table, said = recognizer(name).to_df(faceless=True), ascii(name)[1:-1]
        assert table['source'].item() == said and table['error'].item().startswith(f'{said}: ')
