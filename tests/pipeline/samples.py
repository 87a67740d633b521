"""Letters, and failures as a bus hands them over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hftlab.events import Event, EventBatch, EventType, Kind, SymbolTable
from hftlab.events.group_ports import Letter
from hftlab.events.records import blank

START_NS = 1_700_000_000_000_000_000


@dataclass
class Failed:
    """What a bus hands over when a handler failed."""

    handler: str
    event: Event | EventBatch
    error: BaseException
    attempts: int = 1


def trades(log: list[int], *, session_number: int = 3, flags: list[int] | None = None) -> EventBatch:
    """A trade of BTC for each of these log sequences, at a price like it."""
    rows = blank(len(log), EventType.MARKET_DATA)
    rows["log_sequence"] = rows["price"] = log
    rows["volume"], rows["kind"], rows["symbol"] = 1.0, Kind.TRADE, 1
    rows["timestamp"] = rows["received"] = START_NS + np.arange(len(log))
    if flags is not None:
        rows["flags"] = flags
    return EventBatch(rows, SymbolTable(("ETH", "BTC")), session_number=session_number)


def letter(number: int = 0, *, frame: bytes = b"frame", handler: str = "totals") -> Letter:
    """A letter that is like no other one."""
    return Letter(
        handler=handler,
        error=f"KeyError: {number}",
        attempts=1,
        first_ns=START_NS,
        at_ns=START_NS + number,
        frame=frame,
    )
