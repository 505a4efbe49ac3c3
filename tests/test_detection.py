"""How YuNet's file is downloaded: only the right one is kept, whatever the server does."""
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from fer_nb import yunet_file
from fer_nb.core import sha256
from fer_nb.detection import load_detector, working_detector
from fer_nb.yunet_file import DownloadError, download_yunet

RIGHT = b'the file that is wanted'
FAILURES = {
    'wrong': 'not a YuNet detector that OpenCV can use (sha256 ',
    'cut': 'cut off after 5 of 232,589 bytes',
    'stalled': 'timed out',
    'endless': 'it has more than 1,048,576 bytes',
    'elsewhere': 'Not Found',
}


@pytest.fixture
def server(monkeypatch):
    "The address of a server: GET /right, /wrong, /cut, /stalled, /endless, and nothing else."
    monkeypatch.setattr(yunet_file, 'YUNET_SHA256', sha256(RIGHT))
    bodies = {'/right': RIGHT, '/wrong': b'<html>', '/cut': b'begun', '/stalled': b'', '/endless': b'0' * (2 << 20)}
    over = Event()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            body = bodies.get(self.path)
            self.send_response(200 if body is not None else 404)
            if self.path != '/endless':
                size = 232589 if self.path in ('/cut', '/stalled') else len(body or b'')
                self.send_header('Content-Length', str(size))
            self.end_headers()
            try: self.wfile.write(body or b'')
            except OSError: pass  # the client has had enough
            if self.path == '/stalled': over.wait(20)

        def log_message(self, *args): pass

    made = ThreadingHTTPServer(('127.0.0.1', 0), Answers)
    Thread(target=made.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{made.server_port}/'
    over.set()
    made.shutdown()
    made.server_close()


@pytest.mark.parametrize('page, reason', FAILURES.items())
def test_failed_download(page, reason, server, tmp_path):
    "The message names the address and the reason, and nothing is left."
    seconds = 0.5 if page == 'stalled' else 60.0
    with pytest.raises(DownloadError) as told: download_yunet(tmp_path / 'kept', server + page, timeout=seconds)
    assert str(told.value).startswith(server + page + ': ') and reason in str(told.value)
    assert not list(tmp_path.rglob('*.onnx*')) and not list(tmp_path.rglob('*.part*'))


def test_download(server, tmp_path):
    "The right file comes through, is kept, and is not fetched again."
    path = download_yunet(tmp_path / 'kept', server + 'right')
    assert path.read_bytes() == RIGHT and list(path.parent.iterdir()) == [path]
    assert download_yunet(tmp_path / 'kept', server + 'elsewhere') == path
    path.write_bytes(b'damaged')
    assert download_yunet(tmp_path / 'kept', server + 'right').read_bytes() == RIGHT


def test_cache_folder(server, tmp_path, monkeypatch):
    "Without a folder it is kept where `load_detector` looks for it."
    monkeypatch.delenv('FER_NB_YUNET', raising=False)
    monkeypatch.setenv('FER_NB_CACHE', str(tmp_path))
    assert load_detector().name == 'haar'
    path = download_yunet(url=server + 'right')
    assert path.parent == tmp_path == yunet_file.yunet_path().parent
    with pytest.raises(ValueError, match='not a YuNet detector'): load_detector()  # it is looked at


def test_no_cache_folder(server, monkeypatch):
    "A user without a cache folder is told what to do."
    monkeypatch.setattr(yunet_file, 'cache_folder', lambda: None)
    with pytest.raises(DownloadError, match='FER_NB_CACHE'): download_yunet(url=server + 'right')
    assert load_detector('haar').name == 'haar'


@pytest.mark.parametrize('url, reason', {
    'file:///etc/hosts': 'not an http(s) address', 'http://127.0.0.1:1/yunet.onnx': 'refused',
}.items())
def test_bad_address(url, reason, tmp_path):
    with pytest.raises(DownloadError) as told: download_yunet(tmp_path, url)
    assert str(told.value).startswith(f'{url}: ') and reason in str(told.value) and not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == 'nt' or os.geteuid() == 0, reason='every folder can be written to')
def test_folder_without_rights(server, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DownloadError, match='cannot be written'): download_yunet(tmp_path / 'kept', server + 'right')


@pytest.mark.skipif(not os.environ.get('FER_NB_YUNET'), reason='FER_NB_YUNET names no file')
def test_yunet_of_the_cache(tmp_path, monkeypatch):
    "The real file is found in the cache folder."
    file = Path(os.environ['FER_NB_YUNET'])
    monkeypatch.delenv('FER_NB_YUNET')
    monkeypatch.setenv('FER_NB_CACHE', str(tmp_path))
    (tmp_path / yunet_file.yunet_path().name).write_bytes(file.read_bytes())
    assert load_detector().name == load_detector('yunet').name == 'yunet'


def test_a_wrong_yunet_file_is_named_by_its_variable(tmp_path, monkeypatch):
    "Commands say what is wrong; a page goes on with Haar and has the reason."
    (tmp_path / 'empty.onnx').touch()
    for wrong, why in {'empty.onnx': 'the file is empty', 'none.onnx': 'No such file', '.': 'not a folder'}.items():
        monkeypatch.setenv('FER_NB_YUNET', str(tmp_path / wrong))
        with pytest.raises(ValueError, match=f'^FER_NB_YUNET: .*{why}'): load_detector()
        detector, reason = working_detector()
        assert detector.name == 'haar' and reason.startswith('FER_NB_YUNET: ') and why in reason
    monkeypatch.delenv('FER_NB_YUNET')
    monkeypatch.setenv('FER_NB_CACHE', str(tmp_path))
    assert working_detector()[1] == ''
