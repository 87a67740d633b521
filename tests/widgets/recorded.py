"""A recorded session without a server: a replay's log in memory, for the tests of what looks at replays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import numpy as np

from hftlab.bus import EventBus
from hftlab.errors import UnknownSession
from hftlab.events import EventBatch, Kind, MarketDataEvent, SourceTable, SymbolTable
from hftlab.events.ports import LogRange, SessionInfo
from hftlab.events.rowbytes import copy_rows
from hftlab.replay import Replay

START_NS = 1_723_161_255_000_000_000  # 2024-08-08T23:54:15Z
STEP_NS = 10_000_000


def trades(count: int, symbols: tuple[str, ...] = ("BTCUSDT",)) -> EventBatch:
    """Trades of 1, 2, 3 …, one each 10 ms, symbols in turn."""
    return EventBatch.from_events(
        MarketDataEvent(
            symbol=symbols[i % len(symbols)],
            received=START_NS + i * STEP_NS,
            timestamp=START_NS + i * STEP_NS,
            kind=Kind.TRADE,
            price=1.0 + i,
            volume=0.5,
        )
        for i in range(count)
    )


class MemoryLog:
    """One session, ``s``, in memory; reads come in frames of ``frame_rows``."""

    def __init__(self, batch: EventBatch, frame_rows: int = 16) -> None:
        rows = copy_rows(batch.records)
        rows["log_sequence"] = np.arange(len(rows))
        self.batch = EventBatch(rows, batch.symbols, batch.sources, session_number=1)
        self.frame_rows = frame_rows

    async def session(self, name: str) -> SessionInfo:
        if name != "s":
            raise UnknownSession(f"no session {name!r}; there is: s")
        received = self.batch.records["received"]
        counts = {event_type.topic: count for event_type, count in self.batch.counts().items()}
        first, last = int(received[0]), int(received[-1])
        return SessionInfo("s", 1, len(self.batch), first, last, counts, tuple(self.batch.symbols))

    async def read(
        self, session: SessionInfo, wanted: LogRange, *, symbols: SymbolTable, sources: SourceTable, prefetch: int
    ) -> AsyncIterator[EventBatch]:
        rows = self.batch.records
        kept = np.isin(rows["type"], [int(event_type) for event_type in wanted.types])
        kept &= rows["received"] >= (wanted.start_ns or 0)
        kept &= rows["log_sequence"] >= (wanted.start_log or 0)
        if wanted.end_ns is not None:
            kept &= rows["received"] < wanted.end_ns
        if wanted.end_log is not None:
            kept &= rows["log_sequence"] < wanted.end_log
        found = self.batch.where(kept).using(symbols, sources)
        for begin in range(0, len(found), self.frame_rows):
            await asyncio.sleep(0)
            yield found[begin : begin + self.frame_rows]


def replay_of(batch: EventBatch, speed: float = float("inf")) -> tuple[Replay, EventBus]:
    """A replay of a batch on a bus of its own."""
    bus = EventBus()
    return Replay(MemoryLog(batch), bus, "s", speed=speed), bus


async def until(condition: Callable[[], object], timeout_s: float = 20) -> None:
    """Give way to the loop until the condition holds. Raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - conditions of all kinds
            await asyncio.sleep(0.001)
