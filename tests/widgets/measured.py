"""Journeys that were recorded by hand: for the tests of what looks at latencies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hftlab.events import EventType
from hftlab.events.records import blank
from hftlab.metrics import Journey, Stage

MARKET, ORDER = int(EventType.MARKET_DATA), int(EventType.ORDER)
SYMBOLS = ("BTCUSDT", "ETHUSDT")
START_NS = 1_723_161_255_000_000_000


def journey(path: str = "bus", symbols: Sequence[str] = SYMBOLS) -> Journey:
    """An empty journey of market data and orders; symbol ids are places in ``symbols``."""
    names = {MARKET: "market", ORDER: "order"}
    return Journey(path, type_names=names, symbol_name=lambda i: symbols[i], source_name=str)


def note_rows(
    recorded: Journey, received_ns: Sequence[int], *, symbol: int = 0, event_type: int = MARKET, total_ns: int = 0
) -> None:
    """Record rows that took so long from the exchange, and (where not 0) that long from there to their handlers."""
    for took_ns in received_ns:
        rows = blank(1, EventType(event_type))
        rows["timestamp"], rows["received"], rows["symbol"] = START_NS, START_NS + took_ns, symbol
        recorded.note_rows(rows, event_type, START_NS + took_ns + total_ns if total_ns else None)


def filled(path: str = "bus", *, scale: float = 1.0, seed: int = 1, symbols: Sequence[str] = SYMBOLS) -> Journey:
    """A journey of which every stage, two types, all symbols and two handlers have something; about 10 ms."""
    recorded, draws = journey(path, symbols), np.random.default_rng(seed)
    rows = blank(4_000, EventType.MARKET_DATA)
    rows["timestamp"] = START_NS + np.arange(len(rows)) * 1_000_000
    rows["received"] = rows["timestamp"] + (draws.lognormal(15, 0.6, len(rows)) * scale).astype(np.int64)
    rows["symbol"] = draws.integers(0, len(symbols), len(rows))
    for begin in range(0, len(rows), 40):
        part = rows[begin : begin + 40].copy()
        recorded.note_rows(part, MARKET, int(part["received"].max()) + int(draws.lognormal(12, 0.5) * scale))
    for stage, middle in ((Stage.APPENDED, 12.5), (Stage.READ, 11.5), (Stage.SEQUENCED, 8), (Stage.DISPATCHED, 9.5),
                          (Stage.HANDLED, 10.2)):  # fmt: skip
        for took_ns in (draws.lognormal(middle, 0.6, 400) * scale).astype(np.int64).tolist():
            recorded.note(stage, MARKET, took_ns)
            recorded.note(stage, ORDER, took_ns // 3)
    for handler, middle in (("__main__.spread:market.*", 9.5), ("imbalance", 8.2)):
        for took_ns in (draws.lognormal(middle, 0.6, 200) * scale).astype(np.int64).tolist():
            recorded.note_handler(handler, MARKET, took_ns)
    return recorded
