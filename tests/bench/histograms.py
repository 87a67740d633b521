"""S9: a value recorded in a histogram, in batches of 1,024, beside the hdrhistogram package and numpy.histogram.

Values are a log-normal sample about 20 µs, whole nanoseconds, the same for all; the batch stays in the cache.
``hdrhistogram`` has no call for many values, so it gets them one by one; ``numpy.histogram`` has 128 equal bins over a
range that is known beforehand (its fast path), and each batch's counts are added up.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable

import numpy as np

from hftlab.events import EventType
from hftlab.events.records import blank
from hftlab.metrics import Histogram
from tests.bench.measurement import Goal, Measurement

BOARD = "S9"
BATCH = 1_024
WORK = "a value recorded, batches of 1,024"
COLUMNS = "received - timestamp of rows, batches of 1,024"
UNIT = "ns/value"

GOALS = [Goal(BOARD, WORK, at_most=5.0)]


def measure(runs: int, batches: int = 4_000) -> list[Measurement]:
    """Ours from an array and out of rows, and the peers: those that take longer record fewer batches."""
    values = np.random.default_rng(9).lognormal(np.log(20_000), 1.0, BATCH).astype(np.int64)
    rows = blank(BATCH, EventType.MARKET_DATA)
    rows["timestamp"] = 1_723_161_255_000_000_000
    rows["received"] = rows["timestamp"] + values
    received, timestamp = rows["received"], rows["timestamp"]
    ours, differences, counts = Histogram(), Histogram(), np.zeros(128, np.int64)

    def by_numpy() -> None:
        np.add(counts, np.histogram(values, bins=128, range=(0, 1e6))[0], out=counts)

    found = [
        _measured(WORK, "hftlab", lambda: ours.record_many(values), runs, batches),
        _measured(COLUMNS, "hftlab", lambda: differences.record_differences(received, timestamp), runs, batches),
        _measured(WORK, "numpy.histogram", by_numpy, runs, max(batches // 10, 1)),
    ]
    if ours.count != ours.recorded or ours.recorded != differences.recorded or ours.mean != differences.mean:
        raise AssertionError(f"the same values were recorded differently: {ours} and {differences}")
    try:
        hdrh = importlib.import_module("hdrh.histogram")
    except ImportError:
        missing = "hdrhistogram is not installed: pip install -e '.[test]'"
        return [*found, Measurement(BOARD, WORK, "hdrhistogram", UNIT, lower_is_better=True, skipped=missing)]
    theirs = hdrh.HdrHistogram(1, 1 << 62, 2)
    listed = values.tolist()

    def one_by_one() -> None:
        for value in listed:
            theirs.record_value(value)

    return [*found, _measured(WORK, "hdrhistogram", one_by_one, runs, max(batches // 200, 1))]


def _measured(work: str, contender: str, record: Callable[[], None], runs: int, batches: int) -> Measurement:
    record()
    figures = []
    for _ in range(runs):
        begin = time.perf_counter_ns()
        for _ in range(batches):
            record()
        figures.append((time.perf_counter_ns() - begin) / (batches * BATCH))
    return Measurement(BOARD, work, contender, UNIT, tuple(figures), lower_is_better=True)
