"""Single recorded events, looked up: those on either side of a gap, and when one arrived."""

from __future__ import annotations

import numpy as np

from hftlab.events.batch import EventBatch
from hftlab.events.ports import LogRange, SessionInfo, SessionLog
from hftlab.events.records import NO_SEQUENCE, split_event_id
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.sequence import Gap

_READ_ROWS = 4_096
_MOST_READ_ROWS = 1 << 18
"""A source may be rare: this many rows are looked through at most, on each side."""


async def around(
    log: SessionLog, session: SessionInfo, gap: Gap, messages: int, symbols: SymbolTable, sources: SourceTable
) -> tuple[EventBatch, EventBatch]:
    """The last ``messages`` of the gap's source before it, and the first ones after it, by the session's log."""
    before, after = (_log_sequence(event_id, session) for event_id in (gap.before, gap.after))

    async def rows(begin: int, end: int) -> EventBatch:
        wanted = LogRange(start_log=begin, end_log=end)
        reading = log.read(session, wanted, symbols=symbols, sources=sources, prefetch=1)
        parts = [batch async for batch in reading]
        batch = EventBatch.concat(parts) if parts else EventBatch.empty()
        source = sources.find(gap.source)
        return batch.where(np.flatnonzero(batch.records["source"] == (-1 if source is None else source)))

    earlier: list[EventBatch] = []
    end = None if before is None else before + 1
    while end and _messages(earlier) < messages and (before or 0) - end < _MOST_READ_ROWS:
        begin = max(0, end - _READ_ROWS)
        earlier.insert(0, await rows(begin, end))
        end = begin
    later: list[EventBatch] = []
    begin = session.events if after is None else after
    while begin < session.events and _messages(later) < messages and begin - (after or 0) < _MOST_READ_ROWS:
        later.append(await rows(begin, begin + _READ_ROWS))
        begin += _READ_ROWS
    return _cut(earlier, -messages), _cut(later, messages)


async def arrival(
    log: SessionLog, session: SessionInfo, log_sequence: int, symbols: SymbolTable, sources: SourceTable
) -> int | None:
    """When a recorded event arrived, in ns UTC; None where the session has no such event any more."""
    wanted = LogRange(start_log=log_sequence, end_log=log_sequence + 1)
    arrivals = [
        int(batch.records["received"][0])
        async for batch in log.read(session, wanted, symbols=symbols, sources=sources, prefetch=1)
    ]
    return arrivals[0] if arrivals else None


def _log_sequence(event_id: int, session: SessionInfo) -> int | None:
    if not event_id:
        return None
    number, log_sequence = split_event_id(event_id)
    return log_sequence if number == session.number else None


def _starts(batch: EventBatch) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Where messages begin: the first part, or another number."""
    records = batch.records
    fresh = records["part"] == 0
    numbers = records["sequence"]
    fresh[1:] |= (numbers[1:] != numbers[:-1]) & (numbers[1:] != NO_SEQUENCE)
    return np.flatnonzero(fresh)


def _messages(parts: list[EventBatch]) -> int:
    return sum(len(_starts(part)) for part in parts)


def _cut(parts: list[EventBatch], messages: int) -> EventBatch:
    """The first messages, or with a negative number the last ones."""
    filled = [part for part in parts if len(part)]
    if not filled:
        return EventBatch.empty()
    batch = EventBatch.concat(filled) if len(filled) > 1 else filled[0]
    starts = _starts(batch)
    if len(starts) <= abs(messages):
        return batch
    return batch[: starts[messages]] if messages > 0 else batch[starts[messages] :]
