"""FER2013 in every packing, sources that are broken or hostile, and a cache that a kill does not harm."""
import bz2
import gzip
import lzma
import os
import re
import signal
import struct
import tarfile
import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pytest

from fer_nb.core import FerError
from fer_nb.data import SPLIT_ROLES
from fer_nb.fer2013 import load_fer2013, write_fer2013
from fer_nb.image_files import MAX_FILE, file_tree
from fer_nb.jaffe import load_jaffe
from fer_nb.labels import EXPRESSIONS
from fer_nb.synthetic import synthetic_scene

PACKERS = {'.xz': lzma.compress, '.gz': gzip.compress, '.bz2': bz2.compress}
LENGTHS = {'liar': 10, 'huge': 1 << 31}

pytestmark = pytest.mark.usefixtures('cache')


def png(image) -> bytes: return cv2.imencode('.png', image)[1].tobytes()


def table(faces, folder, icml=False) -> bytes:
    "Faces as a FER2013 table, in either order of its columns."
    write_fer2013(faces, folder / 'table.csv', icml=icml)
    return (folder / 'table.csv').read_bytes()


def zipped(path, files):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as z:
        for name, content in files.items(): z.writestr(name, content)
    return path


@pytest.fixture(scope='module')
def few(faces): return faces[:35]


@pytest.fixture(scope='module')
def content(few, tmp_path_factory) -> bytes: return table(few, tmp_path_factory.mktemp('table'))


@pytest.fixture(scope='module')
def kaggle(few) -> dict:
    "The files of Kaggle's edition: file name to content."
    folders = ['train' if name == 'train' else 'test' for name in few.split]
    return {
        f'{folder}/{EXPRESSIONS[label]}/{SPLIT_ROLES[split]}_{i:08}.png': png(image)
        for i, (folder, label, split, image) in enumerate(zip(folders, few.labels, few.split, few.images))
    }


def as_set(faces) -> list:
    "What must be the same, whatever the order of the samples."
    return sorted((image.tobytes(), int(k), str(s)) for image, k, s in zip(faces.images, faces.labels, faces.split))


@pytest.mark.parametrize('edition', ['csv', 'icml', 'archive.zip', 'folders', *PACKERS, 'csv.zip', 'tar.gz'])
def test_editions(edition, few, content, kaggle, tmp_path):
    "Every edition of FER2013 leads to the same faces and says which one it is."
    path, name = tmp_path / f'some.{edition}', 'FER2013 fer2013.csv'
    if edition in PACKERS: path.write_bytes(PACKERS[edition](content))
    elif edition == 'csv': path.write_bytes(content)
    elif edition == 'icml':
        path.write_bytes(table(few, tmp_path, icml=True))
        name = 'FER2013 icml_face_data.csv'
    elif edition == 'csv.zip': zipped(path, {'data/fer2013.csv': content, 'data/readme.txt': b'hello'})
    elif edition == 'tar.gz':
        (tmp_path / 'plain.csv').write_bytes(content)
        with tarfile.open(path, 'w:gz') as t: t.add(tmp_path / 'plain.csv', 'fer2013/fer2013.csv')
    else:
        name = 'FER2013 folders'
        zipped(path, kaggle)
        if edition == 'folders':
            with zipfile.ZipFile(path) as z: z.extractall(path := tmp_path / 'kaggle')
    loaded = load_fer2013(path)
    assert loaded.edition == name
    assert as_set(loaded) == as_set(replace(few, split=np.array([SPLIT_ROLES[o] for o in few.split])))


def test_jaffe_has_several_images_of_an_expression(few, tmp_path):
    names = [f'KA.{code}{k}.{40 + k}.tiff' for code in ('AN', 'SU') for k in (1, 2, 3)]
    for name, image in zip(names, few.images): (tmp_path / name).write_bytes(cv2.imencode('.tiff', image)[1].tobytes())
    loaded = load_jaffe(tmp_path, 1, middle=0.5)
    assert list(loaded.names) == names and not loaded.skipped
    assert [EXPRESSIONS[k] for k in loaded.labels] == ['angry'] * 3 + ['surprise'] * 3
    np.testing.assert_array_equal(loaded.images, few.images[:6])


def damaged(case, content, kaggle, folder) -> bytes:
    "A FER2013 file with one fault."
    lines = content.decode().splitlines()
    head, first, second, third = lines[:4]
    texts = {
        'column': ['emotion,image,Usage', *lines[1:]],
        'short': [head, first, second, third.replace(' ', '', 1)],
        'letters': [head, first, second.replace(' ', ' x', 1)],
        'bright': [head, first, re.sub(r' \d+ ', ' 256 ', second, count=1)],
        'label': [head, '9' + first[1:]],
        'line': [head, '0 ' * 10**5],
        'headless': [head],
        'text': ['hello'],
    }
    if case in texts: return '\n'.join(texts[case]).encode()
    if case == 'xz': return lzma.compress(content)[:5000]
    if case == 'gz': return gzip.compress(content)[:5000]
    if case == 'zip': return zipped(folder / 'whole.zip', kaggle).read_bytes()[:5000]
    return {'empty': b'', 'binary': cv2.imencode('.jpg', synthetic_scene()[0])[1].tobytes()}[case]


@pytest.mark.parametrize('case, said', {
    'column': 'no column pixels', 'short': 'row 2 (line 4): 2303 pixels', 'letters': 'row 1 (line 3): a pixel is not',
    'bright': 'to 256', 'label': "row 0 (line 2): emotion '9'", 'line': 'line 2: over 65,536', 'headless': 'no rows',
    'empty': 'empty', 'text': 'no column', 'xz': 'cut off', 'gz': 'cut off', 'zip': 'damaged or cut off',
    'binary': 'not a text table',
}.items())
def test_damaged(case, said, content, kaggle, tmp_path):
    "What is wrong with a file is said in words that name the file, and the row where there is one."
    path = tmp_path / f'{case}.csv'
    path.write_bytes(damaged(case, content, kaggle, tmp_path))
    with pytest.raises(FerError, match=re.escape(said)) as error: load_fer2013(path)
    assert path.name in str(error.value)


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match='no such file'): load_fer2013(tmp_path / 'none.csv')


def hostile(case, folder):
    "An archive that would do harm where it is unpacked."
    path = folder / f'{case}.zip'
    if case == 'outside': return zipped(path, {'../../etc/passwd': b''})
    if case == 'bomb': return zipped(path, {'b/1.png': b'', 'a/1.png': bytes(MAX_FILE + 1)})
    if case == 'liar': zipped(path, {'b/1.png': b'', 'a/1.png': bytes(10**6)})
    if case == 'huge': zipped(path, {'0': b'x', '1': b'x'})
    content = bytearray(path.read_bytes())  # its list of files now names another length, whatever is inside
    at = content.rindex(b'PK\1\2')
    content[at + 24 : at + 28] = struct.pack('<I', LENGTHS[case])
    path.write_bytes(content)
    return path


@pytest.mark.parametrize('case, said, loading', [
    ('outside', 'points outside', 'points outside'), ('bomb', 'larger than 64 MB', 'larger than 64 MB'),
    ('liar', 'damaged', 'Bad CRC-32'), ('huge', 'at most 2048 MB', 'at most 2048 MB'),
])
def test_hostile_archives(case, said, loading, tmp_path):
    "An archive that points outside, or unpacks to more than it may, is refused: by its list of files, and by loading."
    path = hostile(case, tmp_path)
    with pytest.raises(FerError, match=said):
        with file_tree(path) as tree: tree.read(tree.files[0])
    with pytest.raises(FerError, match=loading): load_fer2013(path)


KILLED = """
import os, signal, sys, numpy as np
from fer_nb.fer2013 import load_fer2013

whole = np.savez

def half(path, **arrays):
    whole(path, **arrays)
    os.truncate(path, os.path.getsize(path) // 2)
    os.kill(os.getpid(), signal.SIGKILL)

np.savez = half
load_fer2013(sys.argv[1])
"""


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='this system cannot kill a process at once')
def test_killed_while_caching(content, few, run, cache, tmp_path):
    "A kill leaves no cache file; the next write is not disturbed, and one an hour later clears away what was left."
    path = tmp_path / 'fer2013.csv'
    path.write_bytes(content)
    assert run('python', '-c', KILLED, path).returncode == -signal.SIGKILL
    left = list(cache.iterdir())
    assert [file.name.startswith('.') and '.part' in file.name for file in left] == [True]
    assert len(load_fer2013(path)) == len(few)
    (kept,) = set(cache.iterdir()) - set(left)
    os.utime(left[0], (0, 0))
    kept.unlink()
    assert len(load_fer2013(path)) == len(few)
    assert list(cache.iterdir()) == [kept]
