"""A session in memory, read as a replay reads one from a server: cut into batches of any size."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np

from hftlab.errors import UnknownSession
from hftlab.events import EventBatch, EventType, Kind, SourceTable, SymbolTable
from hftlab.events.ports import LogRange, SessionInfo
from hftlab.events.records import blank
from hftlab.events.rowbytes import copy_rows

START_NS = 1_723_161_270_000_000_000  # 2024-08-08T23:54:30Z
STEP_NS = 1_000_000


def trades(
    count: int, symbols: tuple[str, ...] = ("BTCUSDT",), *, step_ns: int = STEP_NS, first: int = 0
) -> EventBatch:
    """Trades whose price is their number, from ``first`` on, ``step_ns`` apart; symbols take turns."""
    rows = blank(count, EventType.MARKET_DATA)
    index = np.arange(first, first + count)
    rows["price"] = index
    rows["volume"] = 1
    rows["kind"] = Kind.TRADE
    rows["timestamp"] = rows["received"] = START_NS + index * step_ns
    rows["symbol"] = index % len(symbols)
    return EventBatch(rows, SymbolTable(symbols))


class MemoryLog:
    """Implements ``events.ports.SessionLog`` for one session, in batches of ``cut`` rows. ``reads`` counts ``read``."""

    def __init__(self, batch: EventBatch, *, name: str = "btc", number: int = 3, cut: int = 1_000) -> None:
        rows = copy_rows(batch.records)
        rows["log_sequence"] = np.arange(len(rows))
        self._batch = EventBatch(rows, batch.symbols, batch.sources, session_number=number)
        self._name, self._number, self._cut = name, number, cut
        self.reads = self.closed = 0

    def append(self, batch: EventBatch) -> None:
        """Record more at the end."""
        rows = EventBatch.concat(
            [self._batch[:], EventBatch(batch.records, batch.symbols, session_number=self._number)]
        )
        rows.records["log_sequence"] = np.arange(len(rows))
        self._batch = rows

    async def session(self, name: str) -> SessionInfo:
        if name != self._name:
            raise UnknownSession(f"no session {name!r}; there is {self._name!r}")
        received = self._batch.records["received"]
        return SessionInfo(
            name=name,
            number=self._number,
            events=len(received),
            start_ns=int(received.min()) if len(received) else 0,
            end_ns=int(received.max()) if len(received) else 0,
            counts={event_type.topic: count for event_type, count in self._batch.counts().items()},
            symbols=tuple(self._batch.symbols),
        )

    async def read(
        self, session: SessionInfo, wanted: LogRange, *, symbols: SymbolTable, sources: SourceTable, prefetch: int
    ) -> AsyncIterator[EventBatch]:
        self.reads += 1
        rows = self._batch.records
        kept = np.isin(rows["type"], [int(event_type) for event_type in wanted.types])
        for low, high, field in (
            (wanted.start_ns, wanted.end_ns, "received"),
            (wanted.start_log, wanted.end_log, "log_sequence"),
        ):
            if low is not None:
                kept &= rows[field] >= low
            if high is not None:
                kept &= rows[field] < high
        chosen = self._batch.where(kept).using(symbols, sources)
        try:
            for begin in range(0, len(chosen), self._cut):
                yield chosen[begin : begin + self._cut]
        finally:
            self.closed += 1
