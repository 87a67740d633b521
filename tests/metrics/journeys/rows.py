"""Rows for journeys, made of a few numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hftlab.events.records import EventType, Flags, Rows, blank
from hftlab.metrics import Journey

MARKET, ORDER = int(EventType.MARKET_DATA), int(EventType.ORDER)
BEGIN_NS = 1_700_000_000_000_000_000


class Row(NamedTuple):
    """What of a row a journey reads."""

    timestamp: int
    received: int
    symbol: int = 0
    source: int = 0
    flags: int = int(Flags.LAST_PART)


def rows_of(given: Sequence[Row]) -> Rows:
    rows = blank(len(given), EventType.MARKET_DATA)
    for name in Row._fields:
        rows[name] = [getattr(row, name) for row in given]
    return rows


def steady(count: int, apart_ns: int = 5_000, symbols: int = 3, seed: int = 1, step_ns: int = 1_000_000) -> Rows:
    """Rows ``step_ns`` apart, of symbols by turns, at least ``apart_ns`` (plus up to 1 ms) after their timestamps."""
    rows = blank(count, EventType.MARKET_DATA)
    rows["timestamp"] = BEGIN_NS + np.arange(count) * step_ns
    rows["received"] = rows["timestamp"] + apart_ns + np.random.default_rng(seed).integers(0, 1_000_000, count)
    rows["symbol"] = np.arange(count) % symbols
    return rows


def journey(path: str = "replay", **options: Any) -> Journey:
    return Journey(
        path,
        type_names={MARKET: "market", ORDER: "order"},
        symbol_name=lambda symbol: f"S{symbol}",
        source_name=lambda source: f"venue {source}",
        **options,
    )
