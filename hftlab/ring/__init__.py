"""Pre-allocated queues of rows between one producer and its readers, in one thread or between ``nogil`` threads.

layout      where everything lies in memory; the diagram
atomics     loads, stores and atomic operations at raw addresses
kernels     push, pop, claim, publish, peek, release as compiled functions; for users' kernels too
handles     Producer and Consumer, the two ends
ring        Ring: the memory and its handles

Importing :class:`Ring` imports numba (about 0.4 s), so it happens at first use; the layout is free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hftlab.ring.layout import Layout, allocate

if TYPE_CHECKING:
    from hftlab.ring.handles import Consumer, Producer
    from hftlab.ring.ring import Ring, RingStatistics

__all__ = ["Ring", "Producer", "Consumer", "RingStatistics", "Layout", "allocate"]

_HOMES = {"Ring": "ring", "RingStatistics": "ring", "Producer": "handles", "Consumer": "handles"}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
