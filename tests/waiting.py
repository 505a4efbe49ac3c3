"Waiting for what another thread or process does."
import time


def until(true, complaint='it did not happen in time', seconds=120.0):
    "Wait until something is true, and return it; a minute or two is long enough for a machine that has much to do."
    __tracebackhide__ = True
    end = time.monotonic() + seconds
    while not (value := true()):
        if time.monotonic() > end: raise AssertionError(complaint)
        time.sleep(0.01)
    return value
