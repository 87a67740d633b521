"""S11: what a new process pays: for ``import hftlab``, and until its first event is handled."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.bench.measurement import Measurement

_IMPORT = "import time; b = time.perf_counter(); import {}; print(time.perf_counter() - b)"
_FIRST_EVENT = """
import hftlab as hl
bus = hl.EventBus()
seen = []
bus.subscribe(seen.append, hl.MarketDataEvent)
bus.publish_nowait(hl.MarketDataEvent(symbol="BTCUSDT", price=1.0, volume=1.0))
while not bus.do_work().idle:
    pass
assert len(seen) == 1
"""


def measure(runs: int) -> list[Measurement]:
    """Milliseconds; every figure is a fresh interpreter's. Kernels are cached by the warm-up."""
    return [
        Measurement("S11", "import", "hftlab", "ms", _imports("hftlab", runs), lower_is_better=True),
        Measurement("S11", "import", "numba", "ms", _imports("numba", runs), lower_is_better=True),
        Measurement("S11", "first event handled", "hftlab", "ms", _first_event(runs), lower_is_better=True,
                    note="from the process's start to its end"),
    ]  # fmt: skip


def _imports(module: str, runs: int) -> tuple[float, ...]:
    command = [sys.executable, "-c", _IMPORT.format(module)]
    figures = [
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(runs + 1)
    ]
    return tuple(1e3 * figure for figure in figures[1:])


def _first_event(runs: int) -> tuple[float, ...]:
    figures = []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", _FIRST_EVENT], check=True)
        figures.append(1e3 * (time.perf_counter() - begin))
    return tuple(figures[1:])
