"""Images from a server on this machine, which does what servers do."""
import base64
import http.server
import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from fer_nb import Recognizer
from fer_nb.image_formats import ImageError
from fer_nb.images import read_image

RGB = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def png() -> bytes:
    Image.fromarray(RGB).save(out := io.BytesIO(), 'PNG')
    return out.getvalue()


class Server(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args): pass

    def do_GET(self):
        page = self.path[1:].partition('?')[0]
        if page == 'missing': return self.send_error(404)
        if page == 'moved':
            self.send_response(302)
            self.send_header('Location', '/face')
            return self.end_headers()
        self.send_response(200)
        if page == 'giant': self.send_header('Content-Length', str(10**11))
        self.end_headers()
        body = {'face': png(), 'page': b'<!DOCTYPE html><html>Please log in', 'empty': b''}.get(page, b'')
        self.wfile.write(body)
        while page == 'slow':
            self.wfile.write(b'a')
            time.sleep(.1)


@pytest.fixture(scope='module')
def server():
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Server) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f'http://me:secret@127.0.0.1:{found.server_port}'
        found.shutdown()


@pytest.mark.parametrize('page', ['face', 'face?size=large&key=secret', 'moved'])
def test_read(server, page): np.testing.assert_array_equal(read_image(f'{server}/{page}'), RGB)


@pytest.mark.parametrize(
    'page, reason',
    [
        ('missing', 'the server answers 404 Not Found'), ('page', 'but a web page'), ('empty', 'it is empty'),
        ('giant', '100,000,000,000 bytes, the limit'),
    ],
)
def test_refused(server, page, reason):
    "The reason is given; a password and a key are not."
    with pytest.raises(ImageError, match=reason) as found: read_image(f'{server}/{page}?key=secret')
    assert 'secret' not in str(found.value) and f'/{page}?...' in str(found.value)


def test_slow(server, monkeypatch):
    "A server that sends a little all the time holds the reader for a limited time."
    from fer_nb import addresses

    monkeypatch.setattr(addresses.fetch, '__defaults__', (.4,))
    with pytest.raises(ImageError, match='it took too long'): read_image(f'{server}/slow')  # which has no end


def test_recognizer(server):
    "An address that fails costs its own result alone, and no whole image is kept as a name."
    data = 'data:image/png;base64,' + base64.b64encode(png()).decode()
    results = Recognizer()([f'{server}/missing', f'{server}/face', data])
    assert [result.status for result in results] == ['unreadable', 'no_face', 'no_face']
    assert 'secret' not in repr(results) and len(repr(results)) < 1500
