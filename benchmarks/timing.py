"""Every figure is the median of several runs; what is compared takes turns."""
import os
import statistics
import time
from collections.abc import Callable

RUNS = int(os.environ.get('RUNS', 9))
CALLS = 20  # of which one run is the median


def median(measure: Callable[[], float], runs: int = RUNS) -> float:
    "The median of several measurements, after one that warms the file cache."
    measure()
    return statistics.median(measure() for _ in range(runs))


def call_time(work: Callable) -> float:
    "One run: the median of several calls, in milliseconds."

    def once():
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return 1000 * statistics.median(once() for _ in range(CALLS))


def in_turns(ways: dict[str, Callable[[], float]]) -> dict[str, float]:
    "Their medians. In turns, so that what else the machine does falls on all of them; the first round only warms up."

    def rested(way):
        time.sleep(.5)  # the threads of whoever was measured before go to sleep
        return way()

    rounds = [{name: rested(way) for name, way in ways.items()} for _ in range(RUNS + 1)][1:]
    return {name: statistics.median(values[name] for values in rounds) for name in ways}
