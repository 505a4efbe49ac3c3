"""Which inputs a batch means, and what its folder says: what goes wrong with lists, links, storage and processes."""
import asyncio
import io
import json
import os
import signal
import sys
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.asyn import AsyncFileSystem

from fer_nb.batch_inputs import BatchInput, list_inputs, open_input
from fer_nb.batch_tables import BatchFolder, attempt, face_schema, image_tasks, input_schema, make_task, write_part
from fer_nb.core import FerError
from fer_nb.images import read_image
from fer_nb.storage import StoredStream, kinds_of, open_stored

DATA = os.environ.get('FER_NB_DATA')


def names(*words, **options) -> list[str]:
    "The names of the inputs that are meant."
    return list_inputs(words, **options).table['input'].to_pylist()


def reason(*words) -> str:
    "Why nothing can be made of the words."
    with pytest.raises(FerError) as failed: list_inputs(words)
    return str(failed.value)


def make_list(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


MEASURE = """
import sys
import pyarrow.compute, pyarrow.parquet
from fer_nb.batch_inputs import list_inputs
from fer_nb.batch_tables import image_tasks
found = list_inputs(sys.argv[1])
tasks = sum(1 for _ in image_tasks(found.images(), 'key'))
peak = next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')) # of this program alone
print(len(found), tasks, found.table.nbytes, peak)
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='memory is told elsewhere there')
def test_the_list_costs_little_memory(tmp_path, run):
    "100,000 names: no more than 250 bytes each are kept, the process needs less than 300 MB, and most of it for code."
    told = {}
    for count in (1_000, 100_000):
        lines = ''.join(f'https://example.org/photos/2024/image_{i:08}.jpg\n' for i in range(count))
        done = run('python', '-c', MEASURE, make_list(tmp_path / f'{count}.txt', lines.encode()))
        assert done.returncode == 0, done.stderr
        told[count] = [int(o) for o in done.stdout.split()]
    (_, _, _, few), (found, tasks, kept, many) = told.values()
    assert found == 100_000 and 250 <= tasks <= 2_000
    assert kept < 250*found
    assert many < 300_000 and many - few < 150_000, told # kilobytes


def test_the_order_of_words_does_not_matter(tmp_path):
    for i in range(300): (tmp_path / f'{i}.jpg').touch()
    forward = list_inputs([tmp_path / f'{i}.jpg' for i in range(300)])
    found = list_inputs([*(tmp_path / f'{i}.jpg' for i in reversed(range(300))), tmp_path, tmp_path / '*.jpg'])
    assert found.table.equals(forward.table) and found.duplicates == 600
    assert [o.id for o in image_tasks(found.images(), '')] == [o.id for o in image_tasks(forward.images(), '')]


def test_a_changed_file_has_another_version(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(b'1')
    os.utime(tmp_path / 'a.jpg', ns=(0, 1))
    before = next(list_inputs(tmp_path).images())
    os.utime(tmp_path / 'a.jpg', ns=(0, 2))
    touched = next(list_inputs(tmp_path).images())
    (tmp_path / 'a.jpg').write_bytes(b'12')
    os.utime(tmp_path / 'a.jpg', ns=(0, 1))
    grown = next(list_inputs(tmp_path).images())
    assert len({before.version, touched.version, grown.version}) == 3 and grown.size == 2


def test_links_and_rings(tmp_path):
    "A file that two links lead to is one input; a ring of links ends; a link that leads nowhere is reported later."
    (tmp_path / 'pool/deep').mkdir(parents=True)
    (tmp_path / 'pool/deep/a.jpg').touch()
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/pool').symlink_to('../pool')
    (tmp_path / 'mine/b.jpg').symlink_to('../pool/deep/a.jpg')
    (tmp_path / 'mine/lost.mp4').symlink_to('nowhere')
    (tmp_path / 'pool/back').symlink_to('../mine')
    for word in (tmp_path / 'mine', f'{tmp_path}/mine/**'):
        found = list_inputs([word, tmp_path / 'pool'])
        assert [len(list(found.images())), len(list(found.videos()))] == [1, 1]
        assert [o.version for o in found.videos()] == [''] and found.duplicates
        assert 'a link to a folder that holds it' in found.skipped


def test_names_with_odd_letters(tmp_path):
    "Brackets, spaces, line feeds, and bytes that are no text."
    odd = [b'a[1].jpg', b' b .jpg', b'c\nd.jpg', b'e%41#?.jpg', b'caf\xe9.jpg', 'größe.jpg'.encode()]
    for name in odd: Path(os.fsdecode(os.fsencode(tmp_path) + b'/' + name)).write_bytes(name)
    found = list_inputs(tmp_path)
    assert sorted(open_input(o, 'image').read_bytes() for o in found.images()) == sorted(odd)
    assert names(tmp_path / 'a[1].jpg') == [f'{tmp_path}/a[1].jpg']
    listed = make_list(tmp_path / 'l.txt', b'caf\xe9.jpg\na[1].jpg\n b .jpg\n')
    read = sorted(open_input(o, 'image').read_bytes() for o in list_inputs(listed).images())
    assert read == sorted([odd[0], odd[1], odd[4]])
    table = pa.Table.from_batches(found.table.to_batches())
    pq.write_table(table, tmp_path / 'all.parquet')
    assert names(tmp_path / 'all.parquet') == found.table['input'].to_pylist()


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
@pytest.mark.parametrize('end', ['\n', '\r\n'])
def test_encodings_of_lists(tmp_path, encoding, end):
    lines = ['ä.jpg', '', 'sub/b.mp4', '  ']
    expected = [f'{tmp_path}/sub/b.mp4', f'{tmp_path}/ä.jpg']
    assert names(make_list(tmp_path / 'l.txt', end.join(lines).encode(encoding))) == expected
    rows = ['id;input', *(f'{i};{o}' for i, o in enumerate(lines))]
    assert names(make_list(tmp_path / 'l.csv', end.join(rows).encode(encoding))) == expected


def test_names_in_a_list_are_relative_to_it(tmp_path, monkeypatch):
    (tmp_path / 'lists').mkdir()
    monkeypatch.chdir(tmp_path)
    Path('lists/l.txt').write_text('a.jpg\n../b.jpg\n')
    assert names('lists/l.txt') == [f'{tmp_path}/b.jpg', f'{tmp_path}/lists/a.jpg']


def test_odd_lists(tmp_path):
    "Each error names the list, and the line where there is one."
    for name, content, why in (
        ('l.txt', b'', 'l.txt: there is no input in it'),
        ('l.txt', b'\n \r\n', 'l.txt: there is no input in it'),
        ('l.txt', b'a.jpg\ncaf\xe9.jpg\n', 'line 2'),
        ('l.txt', b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR', 'line 1: \\x89PNG: it is not UTF-8'),
        ('l.txt', 'a.jpg\n'.encode('utf-16-le'), 'line 1: it is not text'),
        ('l.txt', b'a.jpg\n\nsftp://me:secret@host/b.jpg\n', 'line 3: sftp://host/b.jpg: a password'),
        ('l.txt', b'nothing://a/b.jpg\n', 'nothing://a/b.jpg: nothing:// is no kind of address'),
        ('l.csv', b'name,age\na,b\n', 'l.csv: no column is called input, path, file or url; its columns: name, age'),
        ('l.csv', b'input\n\n', 'l.csv: there is no input in it'),
        ('l.parquet', b'PAR1' + 100*b'x' + b'PAR1', 'l.parquet: it cannot be read'),
        ('l.parquet', b'', 'l.parquet: it cannot be read'),
    ): assert why in reason(make_list(tmp_path / name, content)), why
    (tmp_path / 'folder.csv').mkdir()
    assert 'it is a folder' in reason(tmp_path / 'folder.csv')
    assert 'gone.txt: it cannot be read (No such file' in reason(tmp_path / 'gone.txt')


def test_a_line_without_an_end(tmp_path):
    "A gigabyte in one line is refused after its beginning."
    with open(tmp_path / 'l.txt', 'wb') as file: file.truncate(1 << 30)
    assert 'line 1: ' in reason(tmp_path / 'l.txt')
    with open(tmp_path / 'm.txt', 'wb') as file: file.write(b'a.jpg\n' + (1 << 22)*b'x')
    assert 'line 2: it has more than 65,536 characters' in reason(tmp_path / 'm.txt')


def test_a_damaged_parquet_list(tmp_path):
    "What can be read of its beginning does not hide what is lost."
    path = tmp_path / 'l.parquet'
    pq.write_table(pa.table(dict(input=[f'{i}.jpg' for i in range(50_000)])), path, row_group_size=10_000)
    content = bytearray(path.read_bytes())
    middle = len(content)//2
    content[middle:middle + 20_000] = 20_000*b'\xff'
    assert 'l.parquet: it cannot be read' in reason(make_list(path, bytes(content)))


def test_addresses_of_the_web(tmp_path):
    words = ['HTTPS://example.org/a.MP4?x=.jpg', 'https://example.org/a.MP4?x=.jpg', 'http://example.org/photo']
    found = list_inputs(words)
    assert found.table['input'].to_pylist() == ['http://example.org/photo', 'https://example.org/a.MP4?x=.jpg']
    assert found.table['kind'].to_pylist() == ['image', 'video']
    assert found.duplicates == 1 and [open_input(o, 'video') for o in found.videos()] == words[1:2]
    assert 'such an address cannot be an input' in reason('data:image/png;base64,AAAA')
    (tmp_path / 'a b.jpg').touch()
    assert names(f'file://{tmp_path}/a%20b.jpg', tmp_path) == [f'{tmp_path}/a b.jpg']


@pytest.mark.parametrize('address', [
    'https://me:secret@example.org/a.jpg', 'ftp://me:secret@example.org/', 'zip://a.jpg::sftp://me:secret@example.org/a.zip',
    'simplecache::smb://me:secret@example.org/*.jpg',
])
def test_passwords_are_refused_and_not_shown(address, tmp_path):
    assert 'a password' in (told := reason(address)) and 'secret' not in told
    assert 'secret' not in reason(make_list(tmp_path / 'l.txt', address.encode()))
    if '::' in address or not address.startswith('http'):
        with pytest.raises(FerError) as failed: open_input(BatchInput(address, '', None), 'image')
        assert 'secret' not in str(failed.value)


def test_what_a_storage_says_is_shown_without_secrets():
    class Broken(io.BytesIO):
        def read(self, size=-1): raise RuntimeError('403 of https://me:secret@host/a?token=secret (try again)')

    with pytest.raises(OSError) as failed: StoredStream(Broken(), None).read(10)
    assert 'secret' not in str(failed.value) and '403 of https://host/a?... (try again)' in str(failed.value)


def test_an_unreadable_storage_is_one_kind_of_error(monkeypatch):
    "Whatever its package raises."
    memory = fsspec.filesystem('memory')
    memory.pipe('/broken/a.jpg', b'1')

    def raises(*args, **options): raise RuntimeError('no access')

    monkeypatch.setattr(type(memory), '_open', raises)
    with pytest.raises(FerError, match=r'memory://broken/a.jpg: RuntimeError: no access'):
        open_input(BatchInput('memory://broken/a.jpg', '', None), 'image')
    monkeypatch.setattr(type(memory), 'ls', raises)
    assert 'memory://broken/: RuntimeError: no access' in reason('memory://broken/')


def test_archives_and_memory(tmp_path):
    image = np.zeros((4, 5, 3), np.uint8)
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as packed:
        for name in ('train/1.ppm', 'train/2.ppm', '__MACOSX/train/._1.ppm', 'train/notes.doc'):
            packed.writestr(name, b'P6 5 4 255\n' + image.tobytes())
    found = list_inputs(f'zip://::{tmp_path}/a.zip')
    assert [o.name for o in found.images()] == [f'zip://train/{i}.ppm::file://{tmp_path}/a.zip' for i in (1, 2)]
    assert sum(count for count, _ in found.skipped.values()) == 2
    for one in found.images(): assert np.asarray(read_image(open_input(one, 'image'))).shape == image.shape
    video = f'zip://train/1.ppm::{tmp_path}/a.zip'
    with open_stored(video) as file:
        file.seek(11)
        assert file.read() == image.tobytes()
    fsspec.filesystem('memory').pipe('/m/b.mp4', b'video')
    assert [o.name for o in list_inputs('memory://m/').videos()] == ['memory://m/b.mp4']


class Bucket(AsyncFileSystem):
    "A storage that counts how many questions it has to answer at a time."
    protocol, cachable = 'bucket', True
    under_way = most = asked = 0

    async def _info(self, path, **kwargs):
        Bucket.asked, Bucket.under_way = Bucket.asked + 1, Bucket.under_way + 1
        Bucket.most = max(Bucket.most, Bucket.under_way)
        await asyncio.sleep(.001)
        Bucket.under_way -= 1
        if 'gone' in path: raise FileNotFoundError(path)
        return dict(name=path, size=len(path), type='file', ETag=f'"{path}"')


def test_a_list_of_a_bucket_is_asked_about_many_at_a_time(tmp_path, monkeypatch):
    "10,000 listed files: a question each, some hundred at a time and never more; the answers are those of each file."
    fsspec.register_implementation('bucket', Bucket, clobber=True)
    for name in ('asked', 'most', 'under_way'): monkeypatch.setattr(Bucket, name, 0)
    listed = [f'bucket://faces/{"gone" if i % 100 == 7 else "at"}/{i:05}.jpg' for i in range(10_000)]
    table = list_inputs(make_list(tmp_path / 'list.txt', '\n'.join(listed[::-1]).encode())).table
    assert table['input'].to_pylist() == sorted(listed)
    known = {o['input']: (o['size'], o['version']) for o in table.to_pylist()}
    paths = {o: o.removeprefix('bucket://') for o in listed}
    expected = {o: (None, '') if 'gone' in o else (len(path), f'{path}-{len(path)}') for o, path in paths.items()}
    assert known == expected
    assert Bucket.asked == 10_000 and 64 <= Bucket.most <= 128


def test_kinds_of_addresses(tmp_path):
    "What has to be installed on a worker: each kind once, those of a chain too, and none for files and the web."
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as packed: packed.writestr('b.jpg', b'x')
    fsspec.filesystem('memory').pipe('/kinds/c:d.jpg', b'x')
    (tmp_path / 'e:').mkdir()
    (tmp_path / 'e:' / 'f.jpg').touch()
    web, folder = 'https://x.org/a.jpg?b=s3://c', tmp_path / 'e:'
    found = list_inputs([f'zip://b.jpg::{tmp_path}/a.zip', 'memory://kinds/c:d.jpg', web, folder])
    assert kinds_of(found.table['input']) == ['memory', 'zip']
    assert kinds_of(list_inputs(folder).table['input']) == []


@pytest.mark.skipif(not DATA, reason='FER_NB_DATA names no folder with FER2013')
def test_an_archive_of_35887_images():
    archive = next(Path(DATA).glob('**/archive.zip'))
    found = list_inputs(f'zip://::file://{archive}')
    assert len(found) == 35_887
    tasks = list(image_tasks(found.images(), ''))
    assert sum(len(o.inputs) for o in tasks) == 35_887
    for one in tasks[0].inputs: assert np.asarray(read_image(open_input(one, 'image'))).shape[:2] == (48, 48)


SETTINGS = dict(version='1', model='m')


def test_the_folder_of_a_run(tmp_path):
    "It is new, empty or of such a run; nothing of yours is read as a result or removed."
    yours = tmp_path / 'yours'
    yours.mkdir()
    (yours / 'thesis.txt').write_text('all')
    for options in ({}, dict(resume=True), dict(overwrite=True)):
        with pytest.raises(FerError, match=r'thesis.txt is not of such'): BatchFolder(yours).check(SETTINGS, **options)
    folder = BatchFolder(tmp_path / 'run')
    folder.begin(SETTINGS, resume=True) # there is nothing to go on with
    (folder.path / 'faces/mine.parquet').touch()
    with pytest.raises(FerError, match=r'faces/mine.parquet is not'): folder.check(SETTINGS, overwrite=True)
    (folder.path / 'faces/mine.parquet').unlink()
    folder.record.write_text('{"settings": ')
    with pytest.raises(FerError, match=r'run.json: cannot be read'): folder.check(SETTINGS, resume=True)
    folder.record.write_text('[]')
    with pytest.raises(FerError, match=r'run.json: it is not the record of a run'): folder.check(SETTINGS, resume=True)
    folder.begin(SETTINGS, overwrite=True)
    assert json.loads(folder.record.read_text())['settings'] == SETTINGS
    others = {'every is 1.0 now and was None': dict(SETTINGS, every=1.), 'model is None now': dict(version='1')}
    for told, now in others.items():
        with pytest.raises(FerError, match=told): folder.check(now, resume=True)


def test_a_part_without_a_record_is_lost(tmp_path):
    "The run lost its worker between faces and inputs: the task is done again, and until then its faces are not read."
    folder = BatchFolder(tmp_path)
    folder.begin(SETTINGS)
    task = make_task('', 'image', [BatchInput('/a.jpg', '', None)])
    write_part(folder.faces(task.id), face_schema(['a'], SETTINGS), [], work=folder.work)
    assert folder.done_ids() == set() and folder.remove_stale([task.id]) == 0
    assert not folder.faces(task.id).exists()
    write_part(folder.faces(task.id), face_schema(['a'], SETTINGS), [], work=folder.work)
    write_part(folder.inputs(task.id), input_schema(SETTINGS), [], work=folder.work)
    folder.begin(SETTINGS, resume=True)
    assert folder.done_ids() == {task.id} and folder.remove_stale([task.id]) == 0
    assert folder.faces(task.id).exists() and list(folder.work.iterdir()) == []


DIES = """
import os, signal, sys
from fer_nb.batch_tables import BatchFolder, attempt
with attempt(BatchFolder(sys.argv[1]), sys.argv[2]) as one:
    for number in range(5):
        if number in one.given_up: continue
        one.at(number)
        if number in (1, 3): os.kill(os.getpid(), signal.SIGKILL)
    print(sorted(one.given_up))
"""


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='no such signal')
def test_inputs_that_end_their_process(tmp_path, run):
    "Each is tried twice; the fifth attempt gets through, and nothing of the others is left."
    folder = BatchFolder(tmp_path)
    folder.begin(SETTINGS)
    for _ in range(4): assert run('python', '-c', DIES, tmp_path, 'a').returncode == -signal.SIGKILL
    done = run('python', '-c', DIES, tmp_path, 'a')
    assert (done.stdout.strip(), list(folder.work.iterdir())) == ('[1, 3]', []), done.stderr


def test_places_of_other_tasks_do_not_matter(tmp_path):
    folder = BatchFolder(tmp_path)
    folder.begin(SETTINGS)
    for name in ('b-11111111.at', 'b-22222222.at'): (folder.work / name).write_bytes(16*b'\0')
    (folder.work / 'a-33333333.at').touch() # its process ended before the first input
    with attempt(folder, 'a') as one: assert one.given_up == frozenset()
    assert sorted(o.name for o in folder.work.iterdir()) == ['b-11111111.at', 'b-22222222.at']
    with attempt(folder, 'b') as one: assert one.given_up == {0}
