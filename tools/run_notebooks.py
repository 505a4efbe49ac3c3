"""Execute notebooks headless with papermill, each in a kernel of its own, a few at a time."""
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

NBS = Path('nbs')
LIMIT = 600  # seconds for one cell
ANSI = re.compile(r'\x1b\[[0-9;]*m')


def numbered() -> list[Path]:
    "The notebooks that become modules, in the order of their numbers."
    return sorted(NBS.glob('[0-9]*_*.ipynb'))


def execute(notebook: Path, out: Path, parameters: dict | None = None) -> tuple[float, str]:
    """Run one notebook in its own folder; returns the seconds and "", or the reason why it failed.

    The executed copy is kept in `out`, also when a cell fails."""
    import papermill

    out.mkdir(parents=True, exist_ok=True)
    start, reason = time.time(), ''
    try:
        papermill.execute_notebook(
            notebook, out / notebook.name, parameters or {}, kernel_name='python3', cwd=notebook.parent,
            progress_bar=False, log_output=False, execution_timeout=LIMIT,
        )
    except papermill.PapermillExecutionError as e:
        reason = f'{notebook.name}, code cell {e.exec_count}:\n{ANSI.sub("", str(e)).strip()[-3000:]}'
    except Exception as e:  # a kernel that died, a file that is no notebook
        reason = f'{notebook.name}: {type(e).__name__}: {e}'
    return time.time() - start, reason


def execute_all(notebooks: list[Path], out: Path, jobs: int = 2) -> Iterator[tuple[Path, float, str]]:
    "Run notebooks, `jobs` at a time; yields (path, seconds, reason), each as soon as it is done."
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(jobs, context, initializer=prepare, initargs=(out / 'kernels.log',)) as pool:
        running = {pool.submit(execute, nb, out): nb for nb in notebooks}
        try:
            for job in as_completed(running): yield running[job], *job.result()
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise


def prepare(log: Path):
    "For a process that runs notebooks: what kernels and compiled code print beside the cells goes to a file."
    hear_ctrl_c()
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, 'a') as file: os.dup2(file.fileno(), 2)


def hear_ctrl_c():
    "A job that a shell starts in the background ignores Ctrl-C, and so does all that it starts."
    signal.signal(signal.SIGINT, signal.default_int_handler)
