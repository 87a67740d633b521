"""What the receivers' tests share: trades as 16 bytes, and waiting for something with a deadline."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

import numpy as np

from hftlab.events import EventType, Kind, MarketDataEvent, Source
from hftlab.events.records import Rows, blank

VENUE = Source("venue", "trades")
TRADE = struct.Struct("<qd")
DEADLINE_S = 20.0


def packed(sequence: int, price: float = 1.5) -> bytes:
    """A trade as it goes over the wire: number and price."""
    return TRADE.pack(sequence, price)


def parse(payload: bytes) -> MarketDataEvent:
    """A trade without a time. Raises struct.error for anything but 16 bytes."""
    sequence, price = TRADE.unpack(payload)
    return MarketDataEvent(symbol="A", kind=Kind.TRADE, price=price, volume=1.0, sequence=sequence, source=VENUE)


def parse_rows(payloads: list[bytes]) -> Rows:
    """The same for many, under a table whose first symbol is "A"; a row each."""
    fields = np.frombuffer(b"".join(payloads), dtype=[("sequence", "<i8"), ("price", "<f8")])
    if len(fields) != len(payloads):
        raise ValueError(f"a trade has {TRADE.size} bytes")
    rows = blank(len(fields), EventType.MARKET_DATA)
    rows["kind"], rows["volume"] = Kind.TRADE, 1.0
    rows["sequence"], rows["price"] = fields["sequence"], fields["price"]
    return rows


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop turn until something holds. Raises TimeoutError after 20 s."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(0.001)
