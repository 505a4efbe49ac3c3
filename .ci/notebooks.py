"""Execute notebooks headless with papermill, each in a process of its own, a few at a time."""
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import yaml

NBS, JOBS, LIMIT = Path("nbs"), int(os.environ.get("JOBS", 2)), 900  # LIMIT: seconds for one notebook
FER_NB = Path(sys.executable).with_name("fer_nb")  # the installed command
# A shell that starts a job in the background makes it deaf to Ctrl-C, and so all that it starts; but some tests press Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def numbered() -> list:
    "The notebooks that become modules, in the order of their numbers."
    return sorted(NBS.glob("[0-9]*_*.ipynb"))


def photos() -> list:
    "Two photographs in the public domain that installed packages bring along."
    import matplotlib
    import skimage
    found = [Path(matplotlib.get_data_path(), "sample_data/grace_hopper.jpg"),
             Path(skimage.__file__).with_name("data") / "astronaut.png"]
    return [p for p in found if p.exists()]


def execute(
    notebook: Path,  # what to run; its folder is the working directory
    out: Path,  # folder for the executed copy and its log
    parameters: dict,  # values for its `parameters` cell
) -> tuple:  # (seconds, "" or the reason why it failed)
    "Run one notebook; the executed copy is kept in `out` also when it fails."
    given, start = out / f"{notebook.stem}.yaml", time.time()
    given.write_text(yaml.safe_dump(parameters))
    command = [sys.executable, "-m", "papermill", notebook, out / notebook.name, "--cwd", notebook.parent,
               "-k", "python3", "-f", given, "--no-progress-bar"]
    with open(out / f"{notebook.stem}.log", "w+") as log:
        try: failed = subprocess.run(command, stdout=log, stderr=log, timeout=LIMIT).returncode
        except subprocess.TimeoutExpired: failed = print(f"no end after {LIMIT} s", file=log) or True
        log.seek(0)
        reason = ANSI.sub("", log.read())[-3000:] if failed else ""
    return time.time() - start, reason


def execute_all(
    notebooks: list,  # paths, started in this order
    out: Path,  # folder for the executed copies; made if need be
    parameters: dict = {},  # {notebook's name without suffix: {parameter: value}}
):  # yields (path, seconds, "" or the reason), each as soon as it is through
    "Run several notebooks, `JOBS` at a time."
    out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(JOBS) as pool:
        running = {pool.submit(execute, nb, out, parameters.get(nb.stem, {})): nb for nb in notebooks}
        for job in as_completed(running): yield running[job], *job.result()
