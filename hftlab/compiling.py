"""Compiling all kernels: once on a machine; from then on they are loaded from numba's cache on disk."""

from __future__ import annotations

from collections.abc import Iterator

from tqdm.auto import tqdm

from hftlab.bus.kernels import warm as warm_bus
from hftlab.clock.kernels import warm as warm_clocks
from hftlab.metrics.journeys.kernels import warm as warm_journeys
from hftlab.metrics.kernels import warm as warm_histograms
from hftlab.ring.kernels import warm as warm_rings
from hftlab.sequence.kernels.warming import compiling as compiling_order

_KERNELS = 50
"""About how many there are, for the bar."""


def compile_kernels() -> int:
    """Compile every kernel, or load what is cached; return how many. Up to 15 s, or 0.2 s of loading.

    A bar shows after a second. From any thread; the notebook's loop goes on meanwhile, with hiccups.
    """
    count = 0
    with tqdm(
        total=_KERNELS, desc="compiling kernels, once on this machine", delay=1.0, leave=False, unit="kernel"
    ) as bar:
        for done in _compiled():
            count += done
            bar.update(done)
    return count


def _compiled() -> Iterator[int]:
    yield warm_rings()
    yield warm_bus()
    yield warm_clocks()
    yield warm_histograms()
    yield warm_journeys()
    for _ in compiling_order():
        yield 1
