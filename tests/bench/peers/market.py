"""The trades that every peer is fed: the prices and volumes of ``tests.bench.bus.market``, in the peers' own shapes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FIRST_NS = 1_723_161_255_000_000_000
"""The first event's time. Not 0: nautilus_trader's engine ends on that."""
STEP_NS = 1_000
ROWS = 1_024
"""Rows that stay in the cache: events repeat them, as in our own runs."""


def prices(count: int) -> NDArray[np.float64]:
    return 60_000 + np.arange(count, dtype=np.float64) % 1_000 * 0.1


def volumes(count: int) -> NDArray[np.float64]:
    return 1 + np.arange(count, dtype=np.float64) % 7


def times_ns(count: int) -> NDArray[np.int64]:
    return FIRST_NS + np.arange(count) * STEP_NS


class Trade:
    """A ready object, as small as Python has them."""

    __slots__ = ("price", "volume")

    def __init__(self, price: float, volume: float) -> None:
        self.price = price
        self.volume = volume


def trades(count: int = ROWS) -> list[Trade]:
    return [Trade(price, volume) for price, volume in zip(prices(count).tolist(), volumes(count).tolist(), strict=True)]
