"""The web app, used as a person would."""
import os
import shutil
import time

import pytest
from panels import (
    ABSENT,
    INSECURE,
    appears,
    download_table,
    falls_back,
    is_closed,
    is_steady,
    open_camera,
    sees_face,
    upload,
    upload_no_image,
    watch,
)
from playwright.sync_api import expect
from servers import start_app
from waiting import until

from fer_nb.yunet_file import yunet_path

NONE = ['--use-fake-device-for-media-stream=device-count=0', '--use-fake-ui-for-media-stream']
ELSEWHERE = [
    '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream',
    '--host-resolver-rules=MAP notebook.test 127.0.0.1',
]
narrow = pytest.mark.browser_context_args(viewport={'width': 900, 'height': 900})


def browser_with(args, name):
    "A mark for tests that need a browser with other arguments."
    return pytest.mark.parametrize('browser_type_launch_args', [{'args': args}], indirect=True, ids=[name])


def visit(page, address):
    page.goto(address)
    appears(page, 'the upload panel', page.locator('.fer-upload .fer-zone'))
    expect(page.locator('#rendered_cells'), 'the page stays hidden').to_be_visible()


@pytest.fixture(autouse=True)
def leave(page):
    yield
    page.goto('about:blank')


def tab(page, name): page.get_by_role('tab', name=name).click()


def test_upload(page, app, visitors, look, figures):
    start = time.time()
    visit(page, app.address)
    figures['app_opens'] = {'seconds': round(time.time() - start, 1)}
    assert '127.0.0.1' in app.log.read_text(), 'the command does not say its address'
    body = page.locator('body')
    text = body.inner_text()
    code = 'import' in text or 'UploadPanel' in text or page.locator('.jp-InputArea-editor').count()
    assert not code, f'there is code on the page: {text[:500]}'
    more = page.locator('.fer-more')
    more.locator('summary').click()
    assert 'Nothing is saved' in more.inner_text(), 'the page does not say what becomes of images'
    more.locator('summary').click()
    look('app-open')
    upload(body, visitors, look, 'app')
    remove = body.locator('.fer-foot [data-do=remove]')
    expect(remove, 'the camera changes the style of the panel').to_have_css('border-top-color', 'rgba(0, 0, 0, 0)')
    upload_no_image(body, look, 'app')
    download_table(page, body)


@pytest.mark.alone
def test_camera(page, app, look, out, figures):
    visit(page, app.address)
    tab(page, 'Camera')
    camera = page.locator('.fer-camera')
    measured = figures['app_streaming'] = open_camera(page, camera) | watch(page, camera, 5)
    look('app-camera', camera)
    is_steady(measured)

    with page.expect_download() as got: camera.locator('[data-do=snapshot]').click()
    assert got.value.suggested_filename.endswith('.png'), f'the snapshot is called {got.value.suggested_filename}'
    shutil.copy(got.value.path(), out / 'app-snapshot.png')

    tab(page, 'Upload')  # the camera is closed when it was out of sight for 30 seconds
    page.evaluate('probe.skip(25)')
    page.wait_for_timeout(1500)
    assert camera.get_attribute('data-state') == 'on', 'the camera was closed after 25 seconds already'
    page.evaluate('probe.skip(5)')
    is_closed(page)
    tab(page, 'Camera')
    expect(camera.locator('.fer-message'), 'it does not say why it was closed').to_contain_text('out of sight')

    camera.locator('[data-do=start]').click()
    sees_face(camera)
    camera.locator('[data-do=stop]').click()
    is_closed(page)


@narrow
@browser_with(NONE, 'no-camera')
def test_no_camera(page, app, visitors, look):
    visit(page, app.address)
    tab(page, 'Camera')
    falls_back(page.locator('.fer-camera'), ABSENT, visitors, look, 'app-absent')


@narrow
@browser_with(ELSEWHERE, 'other-host')
def test_insecure_page(page, app, visitors, look):
    visit(page, app.address.replace('127.0.0.1', 'notebook.test'))
    tab(page, 'Camera')
    falls_back(page.locator('.fer-camera'), INSECURE, visitors, look, 'app-insecure')


@narrow
@browser_with([*NONE, '--host-resolver-rules=MAP evil.notebook.test 127.0.0.1'], 'foreign-host')
def test_foreign_name(page, app, look):
    page.goto(app.address.replace('127.0.0.1', 'evil.notebook.test'))
    expect(page.get_by_role('heading')).to_have_text('Please open this page directly')
    look('app-foreign')
    said, page.errors = page.errors, []
    assert all('403' in o for o in said), said


@narrow
def test_pages_are_limited(page, context, app, look):
    "A page that is closed takes its kernel with it, and makes room for another."
    until(lambda: not app.kernels(), 'the kernels of closed pages are still there')
    pages = [context.new_page() for _ in range(2)]
    for o in pages:
        o.errors = page.errors
        visit(o, app.address)
    assert app.kernels() == 2
    page.goto(app.address)
    expect(page.get_by_role('heading')).to_have_text('All pages are taken')
    look('app-busy')
    said, page.errors = page.errors, []
    assert '503' in said[0]
    pages[0].close(run_before_unload=True)
    until(lambda: app.kernels() == 1, 'the kernel of a closed page is still there')
    visit(page, app.address)
    pages[1].close(run_before_unload=True)


def test_one_detector(page, tmp_path, out, root, monkeypatch, look):
    "The better detector that one tab has fetched is at once that of all tabs."
    if not (file := os.environ.get('FER_NB_YUNET')): pytest.skip('there is no file of the better detector')
    monkeypatch.delenv('FER_NB_YUNET')
    monkeypatch.setenv('FER_NB_CACHE', str(tmp_path / 'cache'))
    server = start_app(tmp_path, out / 'app-detector.log', root)
    try:
        visit(page, server.address)
        page.locator('.fer-about summary').click()
        expect(page.locator('.fer-about')).to_contain_text('faces are found with Haar')
        tab(page, 'Camera')
        offer = page.locator('.fer-camera .fer-better')
        expect(offer).to_contain_text('Small or turned faces may be missed.')
        yunet_path().parent.mkdir()
        shutil.copy(file, yunet_path())
        offer.get_by_role('button').click()
        expect(offer, 'it is still offered').to_be_hidden()
        expect(page.locator('.fer-about')).to_contain_text('faces are found with YuNet')
        tab(page, 'Video')
        expect(page.locator('.fer-video .fer-better'), 'another tab still offers it').to_be_hidden()
        tab(page, 'Upload')
        expect(page.locator('.fer-upload .fer-chosen'), 'another tab goes on without it').to_contain_text('YuNet')
        look('app-one-detector')
        page.goto('about:blank')
    finally: server.stop()
