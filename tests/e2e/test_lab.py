"""The notebooks in JupyterLab, used as a person would."""
import json
import os
from pathlib import Path

import psutil
import pytest
from panels import (
    REFUSED,
    appears,
    download_table,
    falls_back,
    is_closed,
    is_steady,
    open_camera,
    settle,
    shows_no_image,
    upload,
    upload_no_image,
    watch,
)
from servers import Server
from waiting import until

SECONDS = float(os.environ.get('E2E_SECONDS', 10))  # how long the camera streams
MAY_GROW = {'kernel': 3, 'page': 2}  # MB while it streams, and 5 kB for each result; a frame has 25 kB
DENIED = {'args': ['--use-fake-device-for-media-stream', '--deny-permission-prompts']}


def command(page, name, args=None):
    "Execute a command of JupyterLab to its end."
    page.evaluate('([name, args]) => jupyterapp.commands.execute(name, args).then(() => {})', [name, args or {}])


def theme(page, name):
    light = str(name == 'Light').lower()
    command(page, 'apputils:change-theme', {'theme': f'JupyterLab {name}'})
    page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state='attached')
    settle(page)


def open_notebook(page, lab: Server, name: str):
    "Open a notebook in a workspace of its own."
    page.goto(f'{lab.address}lab/workspaces/{os.urandom(4).hex()}/tree/{name}?token={lab.token}')
    page.wait_for_selector('.jp-Notebook .jp-Cell')
    status = 'jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.connectionStatus'
    until(lambda: page.evaluate(status) == 'connected', f'{name} has no kernel')
    command(page, 'application:toggle-left-area')
    theme(page, 'Light')


def run_all(page):
    "Run all cells to the end; an error in one of them is an error here."
    page.evaluate("""() => {
        window.ended = 0;
        const done = () => { window.ended = 1; }, failed = e => { window.ended = String(e); };
        jupyterapp.commands.execute('notebook:run-all-cells').then(done, failed);
    }""")
    until(lambda: page.evaluate('window.ended'), 'the cells did not end')
    contents = page.evaluate('jupyterapp.shell.currentWidget.context.model.toJSON()')
    cells = [cell for cell in contents['cells'] if cell['cell_type'] == 'code' and ''.join(cell['source']).strip()]
    for i, cell in enumerate(cells):
        wrong = [f'{o["ename"]}: {o["evalue"]}' for o in cell['outputs'] if o['output_type'] == 'error']
        assert not wrong, f'code cell {i}: {wrong[0]}'
    assert all(cell['execution_count'] for cell in cells), 'some cells did not run'


def save_notebook(page, path: Path) -> tuple[str, str]:
    "Save the notebook; its text, and the state of the widgets that is in it."
    before = path.stat().st_mtime_ns
    command(page, 'docmanager:save')
    assert path.stat().st_mtime_ns != before, 'the notebook was not saved'
    text = path.read_text()
    widgets = json.loads(text)['metadata'].get('widgets', {}).get('application/vnd.jupyter.widget-state+json', {})
    assert widgets.get('state'), 'the state of the widgets was not saved, so this shows nothing'
    return text, json.dumps(widgets)


def kernel_of(page, server: Server) -> psutil.Process:
    "The process of the kernel behind the page."
    kernel = page.evaluate('jupyterapp.shell.currentWidget.sessionContext.session.kernel.id')
    [process] = server.find(kernel)
    return process


def memory(kernel: psutil.Process, tools) -> tuple[float, float]:
    "MB of the kernel and of the JavaScript on the page."
    tools.send('Performance.enable')
    tools.send('HeapProfiler.collectGarbage')
    heap = {o['name']: o['value'] for o in tools.send('Performance.getMetrics')['metrics']}['JSHeapUsedSize']
    return round(kernel.memory_info().rss / 1e6, 1), round(heap / 1e6, 1)


def test_upload(page, lab, visitors, look):
    open_notebook(page, lab, '61_upload.ipynb')
    run_all(page)
    scope = page.locator('.jp-OutputArea-output', has=page.locator('.fer-upload .fer-zone')).last
    appears(page, 'the upload panel', scope)
    scope.scroll_into_view_if_needed()
    upload(scope, visitors, look, 'lab')
    upload_no_image(scope, look, 'lab')
    download_table(page, scope)
    theme(page, 'Dark')
    look('lab-dark', scope.locator('.fer-card').last)
    shows_no_image(*save_notebook(page, lab.notes / '61_upload.ipynb'), visitors)


@pytest.mark.alone
def test_camera(page, lab, detector, look, figures):
    open_notebook(page, lab, '62a_browser_camera.ipynb')
    run_all(page)
    camera = page.locator('.jp-OutputArea-output .fer-camera').last
    appears(page, 'the camera', camera)
    opened = open_camera(page, camera)

    kernel, tools = kernel_of(page, lab), page.context.new_cdp_session(page)
    figures['warming_up'] = watch(page, camera, 5)
    before = memory(kernel, tools)
    measured = figures['streaming'] = watch(page, camera, SECONDS)
    after = memory(kernel, tools)
    look('lab-camera', camera)
    measured |= opened | {
        'detector': 'yunet' if detector == 'auto' else 'haar',
        'cores': os.cpu_count(),
        'load': os.getloadavg()[0],
        'kernel_mb': [before[0], after[0]],
        'page_mb': [before[1], after[1]],
    }
    is_steady(measured)

    theme(page, 'Dark')
    look('lab-camera-dark', camera)
    command(page, 'notebook:clear-all-cell-outputs')
    is_closed(page)
    for (name, most), small, large in zip(MAY_GROW.items(), before, after):
        grown, results = large - small, measured['results']
        assert grown < most + 0.005 * results, f'the memory of the {name} grew by {grown:.1f} MB in {results} results'


@pytest.mark.parametrize('browser_type_launch_args', [DENIED], indirect=True, ids=['denied'])
def test_refused_camera(page, lab, visitors, look):
    open_notebook(page, lab, 'camera.ipynb')
    run_all(page)
    camera = page.locator('.fer-camera')
    appears(page, 'the camera', camera)
    falls_back(camera, REFUSED, visitors, look, 'lab-refused')
    text, _ = save_notebook(page, lab.notes / 'camera.ipynb')
    shows_no_image(text, text, visitors)  # nothing else is shown there, so no long base64 may be anywhere
