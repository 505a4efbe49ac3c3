"Waiting for what another thread or process does, and asking processes that may end meanwhile."
import time
from functools import cache

import psutil


def until(true, complaint='it did not happen in time', seconds=120.0):
    """Wait until something is true, and return it; a minute or two is long enough for a machine that has much to do.

    The complaint may be a function that says more of what there is at the end."""
    __tracebackhide__ = True
    end = time.monotonic() + seconds
    while not (value := true()):
        if time.monotonic() > end: raise AssertionError(complaint() if callable(complaint) else complaint)
        time.sleep(0.05)
    return value


@cache
def slowness() -> float:
    "How many times longer this machine takes for a piece of work than 0.12 s; 1 or more. Limits of time grow with it."
    start = time.process_time()
    sum(i * i for i in range(2_000_000))
    return max(1.0, (time.process_time() - start) / 0.12)


def ask(process: psutil.Process, question):
    "What a process answers, `ask(process, psutil.Process.cmdline)`; None where it has ended, and where it is a zombie."
    try: answer = question(process)
    except psutil.NoSuchProcess: return None
    return None if has_ended(process) else answer


def has_ended(process: psutil.Process) -> bool:
    try: return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess: return True


def family(pid: int) -> list[psutil.Process]:
    "A process and all that come from it; none where it has ended."
    try: return [process := psutil.Process(pid), *process.children(recursive=True)]
    except psutil.NoSuchProcess: return []


def megabytes(process: psutil.Process) -> float:
    "The memory that a process has for itself alone."
    return process.memory_full_info().uss / 1e6
