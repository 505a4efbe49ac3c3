"""Many images at a time: what was done stays when a batch is stopped, and one item never costs another."""
import contextlib
import csv
import fcntl
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import pytest

pytestmark = pytest.mark.skipif(sys.platform == 'win32', reason='signals, pipes and links of POSIX')
FER_NB = str(Path(sys.executable).with_name('fer_nb'))


@pytest.fixture(scope='module')
def portrait(tmp_path_factory, photos) -> bytes:
    "A small JPEG with one face."
    return cv2.imencode('.jpg', cv2.resize(cv2.imread(str(photos[0])), None, fx=.4, fy=.4))[1].tobytes()


@pytest.fixture
def folder(tmp_path, portrait, monkeypatch) -> Path:
    "The current folder, with 40 images of one face in `in`."
    (tmp_path / 'in').mkdir()
    for i in range(40): (tmp_path / 'in' / f'{i:02}.jpg').write_bytes(portrait)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def few(tmp_path, portrait, monkeypatch) -> Path:
    "The current folder, with two images and a broken one."
    for name in ('a.jpg', 'b.jpg'): (tmp_path / name).write_bytes(portrait)
    (tmp_path / 'broken.jpg').write_bytes(portrait[:500])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predict(*words) -> tuple[int, str, str]:
    "`fer_nb predict` in this process: exit code, stdout, stderr."
    from fer_nb.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err): code = main(['predict', *words])
    return code, out.getvalue(), err.getvalue()


def started(*words, **options) -> subprocess.Popen:
    "`fer_nb predict` in a process of its own. It cannot be more than 4 KB ahead of who reads what it says."
    process = subprocess.Popen(
        [FER_NB, 'predict', *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )
    if hasattr(fcntl, 'F_SETPIPE_SZ'): fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
    return process


def sources(table: str = 'faces.csv') -> list[str]:
    "The first column of a table, of which every line is whole."
    text = Path(table).read_bytes()
    assert text.endswith(b'\r\n')
    head, *rows = csv.reader(io.StringIO(text.decode(), newline=''))
    assert {len(row) for row in rows} <= {len(head)} and head[0] == 'source'
    return [row[0] for row in rows]


EVERY = [f'in/{i:02}.jpg' for i in range(40)]


# --- a batch is stopped


@pytest.mark.parametrize('sent, code', [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143), (None, 141)],
                         ids=['kill -9', 'Ctrl-C', 'SIGTERM', 'reader gone'])
def test_stopped_and_resumed(folder, sent, code):
    "What was shown is in the table; the second run does the rest, and nothing twice."
    p = started('in', '--json', '--csv', 'faces.csv')
    lines = [p.stdout.readline() for _ in range(3)]
    assert len(EVERY) * len(lines[0]) > 20_000  # more than the pipe and its reader hold
    shown = [json.loads(line)['source'] for line in lines]
    if sent: p.send_signal(sent)
    else: p.stdout.close()
    said = p.stderr.read()
    assert p.wait(300) == code
    kept = sources()
    assert kept == EVERY[:len(kept)] and set(shown) <= {*kept, EVERY[len(kept)]} and len(kept) < 40
    if code in (130, 143): assert f'done: {len(kept)}, ' in said and said.endswith('fer_nb predict: stopped\n')
    again, out, err = predict('in', '--json', '--csv', 'faces.csv', '--resume')
    assert (again, sources(), len(out.splitlines())) == (0, EVERY, 40 - len(kept))
    assert f'done: {40 - len(kept)}, skipped: {len(kept)}, failed: 0' in err


def test_full_disk(folder):
    "A limit of 2 KB: the lines so far are whole, a sentence says why, and with more room it goes on."
    done = subprocess.run(
        ['bash', '-c', 'ulimit -f 2; exec "$@"', '-', FER_NB, 'predict', 'in', '--csv', 'faces.csv'],
        capture_output=True, text=True, env=os.environ | {'PYTHONDONTWRITEBYTECODE': '1'}, # or half of it stays
    )
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert done.stderr.splitlines()[-1].startswith('fer_nb predict: faces.csv: File too large; all lines')
    kept = sources()
    assert kept == EVERY[:len(kept)] and 2 < len(kept) < 10
    assert predict('in', '--csv', 'faces.csv', '--resume')[0] == 0 and sources() == EVERY


@pytest.mark.parametrize('where', ['stdout', '--csv'])
def test_device_without_room(few, where):
    "One line, not a traceback, also when Python ends."
    words = ['a.jpg'] if where == 'stdout' else ['a.jpg', '--csv', '/dev/full']
    with open('/dev/full' if where == 'stdout' else os.devnull, 'w') as out:
        done = subprocess.run([FER_NB, 'predict', *words], stdout=out, stderr=subprocess.PIPE, text=True)
    assert done.returncode in (1, 2) and 'No space left' in done.stderr.splitlines()[-1]
    assert sum(line.startswith('fer_nb') for line in done.stderr.splitlines()) == 1


@pytest.mark.parametrize('cut', [1, 5, 100, 400])
def test_half_a_line_is_cut_off(few, cut):
    "As a killed process may leave it."
    assert predict('a.jpg', 'b.jpg', '--csv', 'faces.csv')[0] == 0
    whole = Path('faces.csv').read_bytes()
    Path('faces.csv').write_bytes(whole[:-cut])
    assert predict('a.jpg', 'b.jpg', '--csv', 'faces.csv', '--resume')[0] == 0
    assert Path('faces.csv').read_bytes() == whole


# --- targets


@pytest.mark.parametrize('words, said', [
    (['--csv', '.'], 'it is a folder'),
    (['--csv', 'b.jpg/faces.csv'], 'it is a file, and a folder is needed'),
    (['--csv', 'a.jpg', '--overwrite'], 'a.jpg is one of the inputs'),
    (['--csv', 'hard.jpg', '--overwrite'], 'hard.jpg is one of the inputs'),
    (['--csv', 'old.csv'], 'old.csv: it exists already; --overwrite replaces it, --resume goes on'),
    (['--csv', 'link.csv'], 'link.csv: it exists already'),
    (['--csv', 'old.csv', '--resume'], 'its columns are not those of this model'),
    (['--csv', 'a.jpg', '--resume'], 'a.jpg is one of the inputs'),
    (['--resume'], '--resume goes on in a table'),
    (['--csv', 'new.csv', '--resume', '--overwrite'], 'only one is possible'),
    (['--csv', '/proc/faces.csv'], '/proc'),
    (['--csv', 'x' * 300], 'File name too long'),
    (['--csv', '-', '--json'], 'cannot both go to stdout'),
    (['--annotate', 'b.jpg'], 'b.jpg: it is a file'),
    (['--annotate', '/proc'], '/proc: '),
    (['--annotate', 'old'], 'old/a.png: it exists already; --overwrite'),
    (['--annotate', 'new', '--csv', 'new/a.png'], 'also the name of an annotated image'),
])
def test_refused_before_the_first_image(few, words, said):
    "Exit code 2, nothing on stdout, and nothing is changed."
    Path('old.csv').write_text('mine')
    Path('link.csv').symlink_to('old.csv')
    Path('old').mkdir()
    Path('old', 'a.png').symlink_to('nowhere')
    os.link('a.jpg', 'hard.jpg')
    before = {p.name: p.read_bytes() for p in few.iterdir() if p.is_file()}
    code, out, err = predict('a.jpg', *words)
    assert (code, out) == (2, '') and said in err and err.count('\n') == 1
    assert {p.name: p.read_bytes() for p in few.iterdir() if p.is_file()} == before


def test_overwrite(few):
    "Only then is replaced what another run wrote; a link stays a link."
    Path('old.csv').write_text('mine')
    Path('link.csv').symlink_to('old.csv')
    Path('out').mkdir()
    Path('out', 'a.png').write_text('mine')
    assert predict('a.jpg', '--csv', 'link.csv', '--annotate', 'out', '--overwrite')[0] == 0
    assert Path('link.csv').is_symlink() and sources('old.csv') == ['a.jpg']
    assert cv2.imread('out/a.png') is not None


def test_a_table_of_other_columns_is_not_continued(few):
    assert predict('a.jpg', '--csv', 'faces.csv')[0] == 0
    text = Path('faces.csv').read_text().replace('happy', 'joy')
    Path('faces.csv').write_text(text)
    code, _, err = predict('b.jpg', '--csv', 'faces.csv', '--resume')
    assert code == 2 and 'its columns are not those of this model' in err and Path('faces.csv').read_text() == text


def test_resume_with_annotated_images(few):
    "An image that is missing is made, one that is there is kept, and what is in neither is done."
    words = ['a.jpg', 'b.jpg', 'broken.jpg', '--csv', 'faces.csv', '--annotate', 'out']
    assert predict(*words[:1], *words[3:])[0] == 0
    Path('out', 'a.png').write_text('kept')
    code, _, err = predict(*words, '--resume')
    assert (code, Path('out', 'a.png').read_text(), sources()) == (1, 'kept', ['a.jpg', 'b.jpg', 'broken.jpg'])
    assert 'done: 1, skipped: 1, failed: 1' in err
    Path('out', 'a.png').unlink()
    assert predict('a.jpg', 'b.jpg', '--csv', 'faces.csv', '--annotate', 'out', '--resume')[0] == 0
    assert cv2.imread('out/a.png') is not None and len(sources()) == 3


@pytest.mark.parametrize('target', ['pipe', '-', '/dev/stdout', 'stdout to a file'])
def test_table_into_a_stream(few, target):
    "A pipe or a device gets the table, and stays what it is."
    words = [FER_NB, 'predict', 'a.jpg', '--csv']
    if target == 'pipe':
        os.mkfifo('pipe')
        got = []
        reader = threading.Thread(target=lambda: got.append(Path('pipe').read_text()), daemon=True)
        reader.start()
        assert predict('a.jpg', '--csv', 'pipe')[0] == 0
        reader.join(10)
        assert Path('pipe').is_fifo()
        table, = got
    elif target == 'stdout to a file':
        Path('out').write_text('before\n')
        with open('out', 'a') as out: subprocess.run([*words, '/dev/stdout'], stdout=out, check=True)
        before, table = Path('out').read_text().split('\n', 1)
        assert before == 'before'
    else: table = subprocess.run([*words, target], stdout=subprocess.PIPE, text=True).stdout
    assert [row['source'] for row in csv.DictReader(io.StringIO(table))] == ['a.jpg']


# --- names

NAMES = {
    b'caf\xe9.jpg': r'caf\xe9.jpg', b'line\nbreak.jpg': r'line\nbreak.jpg', b'\x1b[31mred.jpg': r'\x1b[31mred.jpg',
    b'=cmd().jpg': "'=cmd().jpg", b'+1.jpg': "'+1.jpg", b'@a.jpg': "'@a.jpg", b'\t=1.jpg': r"'\t=1.jpg",
    b'\r=1.jpg': r"'\r=1.jpg", b"'=1.jpg": "''=1.jpg", b'back\\nslash.jpg': r'back\\nslash.jpg',
    'küche \u202e😀.jpg'.encode(): 'küche \\u202e😀.jpg', b'a' * 251 + b'.jpg': 'a' * 251 + '.jpg',
}


PLAIN = {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}


@pytest.mark.parametrize('locale', [{}, PLAIN], ids=['UTF-8', 'C'])
def test_names(few, portrait, locale):
    "No name stops the batch, reaches the terminal as it is, or starts a formula; a second run knows them all."
    for name in NAMES: Path(os.fsdecode(name)).write_bytes(portrait)
    words = [FER_NB, 'predict', '--csv', 'faces.csv', '--annotate', 'out', '--', *NAMES]
    env = os.environ | locale
    first = subprocess.run(words, env=env, capture_output=True)
    assert first.returncode == 0, first.stderr
    assert sorted(sources()) == sorted(NAMES.values()) and len(os.listdir('out')) == len(NAMES)
    assert len(first.stdout.splitlines()) == 1 + len(NAMES)
    for raw in (b'\x1b', b'\r', '\u202e'.encode(), b'\xe9'): assert raw not in first.stdout + first.stderr
    again = subprocess.run([*words[:2], '--resume', *words[2:]], env=env, capture_output=True, text=True)
    assert again.returncode == 0 and f'done: 0, skipped: {len(NAMES)}, failed: 0' in again.stderr


def test_odd_names_in_messages(few):
    "What cannot start says so in one line."
    code, _, err = predict('a.jpg', '--csv', 'x\x1b[2J\nfer_nb: all is well/')
    assert code == 2 and '\x1b' not in err and not any(line.startswith('fer_nb:') for line in err.splitlines())


# --- inputs


def test_one_image_that_raises(few, monkeypatch):
    "Whatever happens costs that image, which is told."
    from fer_nb.recognition import Recognizer

    whole = Recognizer.__call__
    def fail(self, image, **options):
        if str(image) == 'a.jpg': raise RuntimeError('no\nluck')
        return whole(self, image, **options)
    monkeypatch.setattr(Recognizer, '__call__', fail)
    code, out, err = predict('a.jpg', 'b.jpg', '--csv', 'faces.csv')
    assert (code, sources()) == (1, ['a.jpg', 'b.jpg']) and r'RuntimeError: no\nluck' in out
    assert 'done: 1, skipped: 0, failed: 1' in err


def test_folders(few, portrait):
    "Links are followed and loops are not; what is no image is counted, what cannot be read is told."
    for name in ('in/b', 'other', 'in/__MACOSX', 'in/empty'): Path(name).mkdir(parents=True)
    for name in ('in/b/1.jpg', 'other/2.JPEG', 'in/__MACOSX/._1.jpg', 'in/._0.jpg', 'in/Thumbs.db', 'in/notes.txt'):
        Path(name).write_bytes(portrait)
    Path('in/link').symlink_to('../other')
    Path('in/b/loop').symlink_to('..')
    Path('in/dead.jpg').symlink_to('nowhere.jpg')
    code, out, err = predict('in', '--json')
    found = {o['source']: o['status'] for o in map(json.loads, out.splitlines())}
    assert (code, found) == (1, {'in/b/1.jpg': 'ok', 'in/link/2.JPEG': 'ok', 'in/dead.jpg': 'unreadable'})
    assert 'in/notes.txt' in err and 'done: 2, skipped: 5, failed: 1' in err
    code, out, _ = predict('in/empty')
    assert code == 1 and 'a folder without images' in out
    assert predict('in/notes.txt')[0] == 0  # the content decides, where a file is named


def test_heic_without_its_package(few, monkeypatch):
    "It says what to install, and the rest is done."
    pillow_heif = pytest.importorskip('pillow_heif')
    from PIL import Image

    Path('phone').mkdir()
    shutil.copy('a.jpg', 'phone/a.jpg')
    pillow_heif.from_pillow(Image.new('RGB', (64, 64), 'white')).save('phone/b.heic')
    assert predict('phone')[0] == 0
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)
    code, out, err = predict('phone')
    assert code == 1 and "pip install 'fer_nb[heif]'" in out and 'done: 1, skipped: 0, failed: 1' in err


def test_addresses_and_stdin(few, portrait):
    "`-` is an image on stdin; a file address is the file; annotated images have names of their own."
    import base64

    data = 'data:image/jpeg;base64,' + base64.b64encode(portrait).decode()
    words = [FER_NB, 'predict', '-', Path('a.jpg').resolve().as_uri(), data, 'http://127.0.0.1:9/x.jpg', '--json']
    done = subprocess.run([*words, '--annotate', 'out'], input=portrait, capture_output=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [o['status'] for o in found] == ['ok', 'ok', 'ok', 'unreadable'] and done.returncode == 1
    assert [o['source'] for o in found[:2]] == ['<stdin>', str(few / 'a.jpg')] and len(found[2]['source']) < 60
    assert sorted(os.listdir('out')) == ['a.png', 'image.png', 'stdin.png']


# --- any machine

AS_ANOTHER = ['setpriv', '--reuid=12345', '--regid=12345', '--clear-groups'] # a user without a passwd entry
may_become = pytest.mark.skipif(not (hasattr(os, 'getuid') and os.getuid() == 0 and shutil.which('setpriv')),
                                reason='needs the rights of root')


def as_another(*words, **env) -> subprocess.CompletedProcess:
    "A command of another user, with nothing in the environment but what is given."
    return subprocess.run(
        [*AS_ANOTHER, sys.executable, '-B', '-m', 'fer_nb', *words], env=env, capture_output=True, text=True,
        cwd=env.pop('cwd', None),
    )


@pytest.fixture
def shared(few) -> Path:
    "A folder that another user sees, below folders that let him through; and a home that he may not see."
    few.chmod(0o755)
    for path in few.parents:
        if path.stat().st_uid == 0 and path != Path('/'): path.chmod(path.stat().st_mode | 0o011)
    (few / 'home').mkdir(mode=0o700)
    (few / 'free').mkdir()
    (few / 'free').chmod(0o777)
    return few


@may_become
@pytest.mark.parametrize('home', [None, 'home', '/dev/null', '/nonexistent', '/'])
def test_no_home(shared, home):
    "Nothing of the home is needed, and what is written has the mode of any file."
    env = {} if home is None else {'HOME': str(shared / home)}
    done = as_another('predict', str(shared / 'a.jpg'), '--csv', 'free/faces.csv', '--annotate', 'free/out', **env)
    assert done.returncode == 0, done.stderr
    assert 'Traceback' not in done.stderr and done.stderr.endswith('done: 1, skipped: 0, failed: 0, faces: 1\n')
    for name in ('faces.csv', 'out/a.png'): assert (shared / 'free' / name).stat().st_mode & 0o777 == 0o644


@may_become
def test_no_rights(shared):
    "A place where one may not write is an error before the first image."
    for words in (['--csv', 'faces.csv'], ['--annotate', 'out'], ['--csv', 'home/faces.csv']):
        done = as_another('predict', 'a.jpg', *words)
        assert (done.returncode, done.stdout) == (2, '') and 'Permission denied' in done.stderr, done.stderr


@may_become
def test_a_folder_without_rights(shared):
    "It is told, and the rest is done."
    (shared / 'home' / 'a.jpg').touch()
    done = as_another('predict', '.')
    assert done.returncode == 1 and 'a folder that cannot be read (Permission denied)' in done.stdout
    assert 'done: 2, ' in done.stderr and 'failed: 2' in done.stderr


@may_become
@pytest.mark.parametrize('env', [{}, {'HOME': 'home'}, {'FER_NB_CACHE': 'home/cache'}], ids=['none', 'home', 'cache'])
def test_cache_of_another_user(shared, faces, env):
    "A table is read, without a cache; a download says in one line why it is not kept."
    from fer_nb.fer2013 import write_fer2013

    write_fer2013(faces[:35], shared / 'few.csv')
    env = {name: str(shared / value) for name, value in env.items()}
    done = as_another('describe', str(shared / 'few.csv'), **env)
    assert done.returncode == 0 and 'Traceback' not in done.stderr, done.stderr
    done = as_another('download-yunet', '--url', 'http://127.0.0.1:9/x', **env)
    assert (done.returncode, done.stderr.count('\n')) == (2, 1), done.stderr


# --- what a shell may do


def test_closed_stdin(few):
    done = subprocess.run(['sh', '-c', 'exec "$0" predict - <&-', FER_NB], capture_output=True, text=True)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, 'done: 0, skipped: 0, failed: 1, faces: 0')
    assert 'it is empty' in done.stdout


def test_full_stdout(few):
    with open('/dev/full', 'w') as out:
        done = subprocess.run([FER_NB, 'predict', 'a.jpg', '--json'], stdout=out, stderr=subprocess.PIPE, text=True)
    said = 'fer_nb predict: the output cannot be written (No space left on device)'
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, said)


@pytest.mark.parametrize('words', [[''], ['a.jpg', ''], ['a.jpg', '--csv', ''], ['a.jpg', '--model', '']])
def test_empty_words_of_unset_variables(words, few):
    "They mean neither the current folder nor the default."
    code, out, err = predict(*words)
    assert (code, out) == (2, '') and 'empty' in err and err.count('\n') == 1


def test_links_in_a_circle(few):
    for a, b in (('x.jpg', 'y.jpg'), ('y.jpg', 'x.jpg')): os.symlink(a, b)
    code, out, err = predict('x.jpg', 'a.jpg', '.', '--annotate', 'drawn', '--csv', 'faces.csv')
    assert code == 1 and err.endswith('done: 3, skipped: 0, failed: 4, faces: 3\n'), err
    assert predict('a.jpg', '--annotate', 'x.jpg')[0] == 2


@pytest.mark.parametrize('option', ['--overwrite', '--resume'])
def test_two_runs_into_one_table(option, few):
    assert predict('a.jpg', '--csv', 'faces.csv')[0] == 0
    before = Path('faces.csv').read_bytes()
    with open('faces.csv', 'ab') as file:
        import fcntl
        fcntl.flock(file, fcntl.LOCK_EX)
        code, _, err = predict('a.jpg', 'b.jpg', '--csv', 'faces.csv', option)
    assert (code, Path('faces.csv').read_bytes()) == (2, before) and 'another run writes into it' in err
    assert predict('a.jpg', 'b.jpg', '--csv', 'faces.csv', option)[0] == 0
    assert sources() == ['a.jpg', 'b.jpg']


@pytest.mark.parametrize('other', ['--model s', '--no-detect', '--min-confidence .5', '--tiles 4'])
def test_resume_does_not_mix(few, other):
    "A table goes on with the model, detector and options with which it was begun."
    assert predict('a.jpg', '--csv', 'faces.csv')[0] == 0
    before = Path('faces.csv').read_bytes()
    code, _, err = predict('a.jpg', 'b.jpg', '--csv', 'faces.csv', '--resume', *other.split())
    assert code == 2 and 'faces.csv, line 2: made with fer_nb' in err and Path('faces.csv').read_bytes() == before
