"""How a visit to the web app ends: by the visitor, by a kernel or a server that is gone. Nothing is left then."""
import time
from pathlib import Path

import pytest
from panels import accessible
from playwright.sync_api import expect
from servers import log_name, start_app
from test_app import visit
from waiting import megabytes, until

PATIENT = 90  # seconds
LOST = 'Connection lost: reload the page.'
AGAIN = '.fer-upload .fer-gone:visible'


def add(page, photo: Path):
    page.locator('.fer-upload input[type=file]').set_input_files(photo)
    expect(page.locator('.fer-upload li.fer-face'), 'there are not two faces').to_have_count(2)


def is_left(app, gone: set[int], seconds: float = PATIENT - 30) -> float:
    "Wait until some kernels have ended; the seconds that took."
    start = time.time()
    here = lambda: {o.pid for o in app.kernel_processes()}
    until(lambda: not gone & here(), 'the kernel of a visitor who has left is still there', seconds)
    return round(time.time() - start, 1)


@pytest.fixture(scope='module')
def patient(tmp_path_factory, out, root):
    "A server that waits long for a page that says nothing: what ends its kernels earlier is what a page says."
    server = start_app(tmp_path_factory.mktemp('app'), out / log_name('app-patient'), root, PATIENT)
    yield server
    server.ends_by_ctrl_c()


@pytest.fixture
def guest(page, context):
    "A page that a test may close; what it says on its console counts as said by `page`."
    other = context.new_page()
    other.errors = page.errors
    yield other
    other.close()


def reload(guest): guest.reload(wait_until='commit')
def navigate(guest): guest.goto('about:blank')
def close(guest): guest.close(run_before_unload=True)


@pytest.mark.parametrize('leave', [close, reload, navigate])
def test_leaving(guest, patient, visitors, figures, leave):
    "A page that is left says so: its kernel ends at once, and the photos in it."
    until(lambda: not patient.kernels(), 'the kernels of earlier pages are still there')
    visit(guest, patient.address)
    add(guest, visitors)
    there = {o.pid for o in patient.kernel_processes()}
    assert len(there) == 1
    leave(guest)
    figures[f'kernel_gone_after_{leave.__name__}'] = is_left(patient, there)
    if leave is reload:
        expect(guest.locator('.fer-upload .fer-zone')).to_be_visible()
        navigate(guest)


@pytest.mark.parametrize('early', [False, True], ids=['crashed', 'left_early'])
def test_leaving_without_a_word(browser, app, page, early):
    "A browser that crashes, or leaves before the page is there, says nothing: the kernel ends by itself."
    until(lambda: not app.kernels(), 'the kernels of earlier pages are still there')
    context = browser.new_context()
    other = context.new_page()
    other.errors = page.errors
    if early:
        other.goto(app.address, wait_until='commit')
        until(lambda: app.kernels(), 'no kernel was started')
    else: visit(other, app.address)
    there = {o.pid for o in app.kernel_processes()}
    context.close()
    is_left(app, there, 120)  # one that was never reached waits for a minute


@pytest.mark.alone
def test_memory_of_a_visitor(page, app, visitors, figures):
    "A visitor needs at most 120 MB. Of what kernels of other servers hold as well, nothing would be counted."
    until(lambda: not app.kernels(), 'the kernels of earlier pages are still there')
    visit(page, app.address)
    add(page, visitors)
    (kernel,) = app.kernel_processes()
    figures['visitor'] = {'mb': (needed := round(megabytes(kernel), 1))}
    assert needed <= 120, f'a visitor needs {needed} MB'
    page.goto('about:blank')


def test_channels_of_a_kernel(page, app):
    "A kernel is reached by five sockets in a folder that other accounts of this computer cannot open."
    until(lambda: not app.kernels(), 'the kernels of earlier pages are still there')
    visit(page, app.address)
    (kernel,) = app.kernel_processes()
    sockets = {Path(o.laddr) for o in kernel.net_connections('unix') if '-ipc-' in o.laddr}
    assert len(sockets) == 5 and not any(o.parent.stat().st_mode & 0o077 for o in sockets)
    page.goto('about:blank')


def test_twenty_visitors(context, page, patient, visitors, figures):
    "Twenty visitors, one after the other, leave nothing but 1 MB in the server each; each needs at most 120 MB."
    until(lambda: not patient.kernels(), 'the kernels of earlier pages are still there')
    needed, server = [], []
    for i in range(20):
        guest = context.new_page()
        guest.errors = page.errors
        visit(guest, patient.address)
        if i % 5 == 0: add(guest, visitors)
        (kernel,) = patient.kernel_processes()
        needed.append(megabytes(kernel))
        guest.close(run_before_unload=True)
        until(lambda: not patient.kernels(), 'a visitor leaves a kernel', PATIENT - 30)
        server.append(patient.memory())
    left = server[-1] - server[4]  # by fifteen
    figures['visitors'] = {'mb_each': round(max(needed), 1), 'mb_left_by_15': round(left, 1)}
    assert max(needed) <= 120, f'a visitor needs {max(needed):.0f} MB'
    assert left < 15, f'visitors leave {left:.1f} MB in the server: {server}'


def kill(page, app): app.kernel_processes()[0].kill()


def shut_down(page, app):
    kernel = page.evaluate("JSON.parse(document.getElementById('jupyter-config-data').textContent).kernelId")
    page.evaluate(f"fetch('/voila/api/shutdown/{kernel}', {{method: 'POST'}})")


@pytest.mark.parametrize('end', [kill, shut_down])
def test_kernel_is_gone(page, app, visitors, look, end):
    "The page says so, waits for nothing, and takes nothing more; a reload begins again."
    until(lambda: not app.kernels(), 'the kernels of earlier pages are still there')
    visit(page, app.address)
    add(page, visitors)
    end(page, app)
    expect(page.locator(AGAIN), 'the page does not say that it is dead').to_contain_text(LOST)
    look(f'app-lost-{end.__name__}')
    accessible(page)
    assert page.locator('.fer-upload .fer-zone').evaluate('o => o.inert'), 'a dead page takes images'
    page.locator('.fer-upload input[type=file]').set_input_files(visitors)
    page.wait_for_timeout(500)
    expect(page.locator('.fer-upload .fer-progress'), 'a dead page waits').to_be_hidden()
    said, page.errors = page.errors, []
    assert all('404' in o or 'WebSocket' in o for o in said), said
    page.locator(AGAIN).get_by_role('button', name='Reload').click()
    expect(page.locator('.fer-upload .fer-zone'), 'a reload does not begin again').to_be_visible()
    expect(page.locator(AGAIN)).to_have_count(0)
    page.errors = []


def test_upload_to_a_dead_kernel(page, app, visitors):
    "An upload that is under way when the kernel dies ends."
    until(lambda: not app.kernels(), 'the kernels of earlier pages are still there')
    visit(page, app.address)
    app.kernel_processes()[0].suspend()
    page.locator('.fer-upload input[type=file]').set_input_files(visitors)
    doing = page.locator('.fer-upload .fer-doing')
    expect(doing, 'the page does not say what it waits for').to_contain_text(visitors.name)
    expect(doing, 'a wait is not mentioned').to_contain_text('waiting')
    app.kernel_processes()[0].kill()
    expect(page.locator(AGAIN)).to_contain_text(LOST)
    expect(page.locator('.fer-upload .fer-progress'), 'the upload waits for ever').to_be_hidden()
    page.errors = []


def test_server_is_gone(page, tmp_path, out, root):
    "The server ends while the page is open."
    server = start_app(tmp_path, out / 'app-gone.log', root)
    try: visit(page, server.address)
    finally: server.stop()
    expect(page.locator(AGAIN), 'the page does not say that it is dead').to_contain_text(LOST)
    page.errors = []


def test_wrong_detector_file(page, tmp_path, out, root, visitors, look, monkeypatch):
    "FER_NB_YUNET names a file that is no detector: the page says so, and the detector that is built in is used."
    monkeypatch.setenv('FER_NB_YUNET', str(root / 'README.md'))
    server = start_app(tmp_path, out / 'app-wrong.log', root)
    try:
        visit(page, server.address)
        expect(page.locator('.fer-upload .fer-notes')).to_contain_text('faces are searched with Haar')
        add(page, visitors)
        look('app-wrong-detector')
    finally: server.stop()
    assert 'Traceback' not in server.log.read_text()
    page.errors = []


def test_detector_cannot_be_fetched(page, tmp_path, out, root, visitors, look, monkeypatch):
    "Without a better detector the page offers one, and says why it cannot be fetched where there is no network."
    monkeypatch.delenv('FER_NB_YUNET', raising=False)
    monkeypatch.setenv('FER_NB_CACHE', str(tmp_path / 'cache'))
    for name in 'https_proxy', 'HTTPS_PROXY': monkeypatch.setenv(name, 'http://127.0.0.1:9')
    server = start_app(tmp_path, out / 'app-fetch.log', root)
    try:
        visit(page, server.address)
        offer = page.locator('.fer-upload .fer-better')
        expect(offer, 'a detector is offered before anything was searched').to_be_hidden()
        add(page, visitors)
        expect(offer).to_contain_text('Small or turned faces may be missed.')
        look('app-better', offer)
        offer.get_by_role('button', name='Fetch it').click()
        expect(offer).to_contain_text('It could not be fetched')
        expect(offer).to_contain_text('https://')
        expect(offer.get_by_role('button', name='Try again')).to_be_enabled()
        look('app-better-failed', offer)
        accessible(page)
    finally: server.stop()
    page.errors = []
