"""JupyterLab and the web app as processes of their own, and how they end."""
import json
import os
import random
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path

import nbformat
import psutil
from waiting import ask, family, until

WORKER = os.environ.get('PYTEST_XDIST_WORKER', 'gw0')
SHORT = 'from fer_nb.browser_camera import BrowserCamera\ncamera = BrowserCamera()', 'camera'
SETTINGS = {  # the state of widgets is saved, which is the harder case for privacy
    '@jupyter-widgets/jupyterlab-manager/plugin': {'saveState': True},
    '@jupyterlab/apputils-extension/notification': {'fetchNews': 'false'},
}


def log_name(server: str) -> str:
    "Each worker has servers of its own."
    return f'{server}-{WORKER}.log'


def free_port() -> int:
    "A port that no other worker takes, nor the system for a connection of its own."
    worker = int(WORKER.removeprefix('gw'))
    for port in random.sample(range(20_000 + worker % 16, 30_000, 16), 50):
        with socket.socket() as s, suppress(OSError):
            s.bind(('127.0.0.1', port))
            return port
    raise AssertionError('no port is free')


def answers(port: int) -> bool:
    try:
        socket.create_connection(('127.0.0.1', port), timeout=5).close()
        return True
    except OSError:
        return False


class Server:
    "A server with a folder of its own for everything that it writes; `stop` ends it as Ctrl-C does."

    def __init__(self, folder: Path, log: Path, port: int, command: list, cwd: Path):
        own = {f'JUPYTER_{o}_DIR': str(folder / o.lower()) for o in ('CONFIG', 'RUNTIME', 'DATA')}
        own |= {f'JUPYTERLAB_{o}_DIR': str(folder / o.lower()) for o in ('SETTINGS', 'WORKSPACES')}
        (temp := folder / 'temp').mkdir()
        own['TMPDIR'] = str(temp)
        self.port, self.address, self.log, self.temp = port, f'http://127.0.0.1:{port}/', log, temp
        with open(log, 'w') as file:
            self.process = subprocess.Popen(
                command, stdout=file, stderr=file, cwd=cwd, env=os.environ | own, start_new_session=True
            )
        try:
            until(lambda: self.process.poll() is not None or answers(port), f'{log.stem} does not answer')
        except AssertionError:
            self.stop()
            raise
        assert self.process.poll() is None, f'{log.stem} ended:\n{log.read_text()[-2000:]}'

    def family(self) -> list:
        "The processes: the server, and its kernels."
        return family(self.process.pid)

    def find(self, text: str) -> list:
        "Its processes with some text in their command line, but not what one of them has just started as its copy."
        here = lambda process: any(text in part for part in ask(process, psutil.Process.cmdline) or ())
        found = {o.pid: o for o in self.family() if here(o)}
        return [o for o in found.values() if ask(o, psutil.Process.ppid) not in found]

    def kernel_processes(self) -> list:
        "The kernels that it runs."
        return self.find('ipykernel_launcher')

    def kernels(self) -> int:
        "How many kernels it runs."
        return len(self.kernel_processes())

    def memory(self) -> float:
        "MB of all its processes, shared memory included."
        told = [ask(o, psutil.Process.memory_info) for o in self.family()]
        return sum(o.rss / 1e6 for o in told if o)

    def end_sessions(self):
        "JupyterLab shall end the kernels of its notebooks."
        for session in json.loads(self.api('sessions')): self.api(f'sessions/{session["id"]}', 'DELETE')

    def api(self, path: str, method='GET') -> bytes:
        "What JupyterLab answers."
        connection = HTTPConnection('127.0.0.1', self.port, timeout=120)
        connection.request(method, f'/api/{path}', headers={'Authorization': f'token {self.token}'})
        return connection.getresponse().read()

    def stop(self) -> list:
        "Press Ctrl-C. Processes that are still there a minute later are ended by force, and returned."
        family = self.family()
        with suppress(ProcessLookupError): os.killpg(self.process.pid, signal.SIGINT)
        _, left = psutil.wait_procs(family, timeout=60)
        for process in left: ask(process, psutil.Process.kill)
        self.process.wait()
        return left

    def ends_by_ctrl_c(self):
        "After all tests: it is still there, and ends with its kernels when Ctrl-C is pressed."
        assert self.process.poll() is None, f'{self.log.stem} ended by itself:\n{self.log.read_text()[-2000:]}'
        left = self.stop()
        assert not left, f'Ctrl-C did not end {self.log.stem} and its kernels; left: {left}'


def with_values(notebook: Path, folder: Path, **values):
    "A copy of a notebook, without outputs, with some values in place of its default parameters."
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    nb = parameterize_notebook(load_notebook_node(str(notebook)), values)
    for cell in nb.cells:
        if cell.cell_type == 'code': cell.outputs, cell.execution_count = [], None
        cell.metadata.pop('papermill', None)
    nb.metadata.pop('papermill', None)
    nbformat.write(nb, folder / notebook.name)


def write_notebook(path: Path, cells):
    "A notebook of some code cells for the kernel of this environment."
    kernel = {'kernelspec': {'name': 'python3', 'display_name': 'Python 3'}}
    cells = [nbformat.v4.new_code_cell(cell.strip()) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


def start_lab(folder: Path, log: Path, root: Path, detector: str) -> Server:
    "JupyterLab over copies of two notebooks, and a short one with a camera."
    notes, port, token = folder / 'notebooks', free_port(), os.urandom(12).hex()
    notes.mkdir()
    with_values(root / 'nbs/61_upload.ipynb', notes, detector=detector)
    with_values(root / 'nbs/62a_browser_camera.ipynb', notes, panels='yes', detector=detector)
    write_notebook(notes / 'camera.ipynb', SHORT)
    for name, values in SETTINGS.items():
        kept = folder / f'settings/{name}.jupyterlab-settings'
        kept.parent.mkdir(parents=True)
        kept.write_text(json.dumps(values))
    options = [
        '--no-browser', '--allow-root', '--ServerApp.ip=127.0.0.1', f'--ServerApp.port={port}',
        '--ServerApp.port_retries=0', f'--IdentityProvider.token={token}', f'--ServerApp.root_dir={notes}',
        '--LabApp.expose_app_in_browser=True', '--LabApp.news_url=None',
        '--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate',
    ]
    server = Server(folder, log, port, [sys.executable, '-m', 'jupyterlab', *options], root)
    server.notes, server.token = notes, token
    return server


def start_app(folder: Path, log: Path, root: Path, patience: int = 5) -> Server:
    "The page, by the command that a person would give."
    port = free_port()
    options = [f'PORT={port}', 'HOST=notebook.test', 'PAGES=2', f'PATIENCE={patience}']
    return Server(folder, log, port, ['make', '--no-print-directory', 'app', *options], root)
