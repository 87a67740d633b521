"""A session followed live with XREAD, in total order over its streams.

The position is carried in entry ids (never ``$``, which loses what arrives between two calls). An append is atomic
over all streams, so one XREAD that does not block, and that reached the end of every stream, shows a prefix of the
total order; it is asked for in one transaction with the session's meta, so what retention or FLUSHALL took from a slow
reader shows as what it is. A blocking XREAD is only used to wait: when it wakes up, servers before Redis 7.2 tell of
one stream and keep quiet about the others. Where a stream had more than was asked for, the reader catches up by ranges
instead.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import msgspec
from redis.exceptions import ResponseError

from hftlab.errors import ServerRefused, UnknownSession, ValidationError
from hftlab.events import EventBatch, EventType, SourceTable, SymbolTable
from hftlab.events.merge import LogMerge
from hftlab.events.ports import LogRange, SessionInfo
from hftlab.events.records import split_event_id
from hftlab.events.rules import MAX_TIME_NS
from hftlab.streams.catalogue import Catalogue
from hftlab.streams.counters import Counters
from hftlab.streams.keys import TYPE_ORDER, SessionKeys
from hftlab.streams.reading import Reading
from hftlab.streams.stored import Bounds, Entry, OnDamaged, StreamReader

# How long one XREAD waits at most: short enough that a deleted session is noticed, and that a connection which died
# without a word is not waited for much longer.
_BLOCK_MS = 1_000
_ENTRIES = 64
# More than this is decoded in the thread: 64 kB are some 4,000 rows, 0.5 ms.
_INLINE_BYTES = 1 << 16
_NO_END = 1 << 62


class _Snapshot(NamedTuple):
    """What the session was at one moment: its next log sequence, where it begins, and what XREAD found."""

    events: int
    trimmed: int
    replies: dict[str, list[Entry]]


class Tail:
    """Follows one session. ``batches`` yields what is appended, forever."""

    def __init__(
        self,
        reading: Reading,
        catalogue: Catalogue,
        session: str,
        types: frozenset[EventType],
        after: int | None,
        on_damaged: OnDamaged,
    ) -> None:
        self._reading = reading
        self._catalogue = catalogue
        self._session = session
        self._types = types
        self._after = after
        self._on_damaged = on_damaged
        self._symbols = SymbolTable()
        self._sources = SourceTable()
        # Every row before it was seen, or counted as missing.
        self._reached = 0
        self._created_ns = 0
        self._warned = False

    async def batches(self) -> AsyncIterator[EventBatch]:
        """Batches in total order, each under the same growing tables. Raises UnknownSession when it is deleted."""
        info, position = await self._end(await self._catalogue.number(self._session))
        self._reached = self._first_log(info)
        if self._after == 0:
            # From the start means from what there is.
            self._counters.events_missing += info.trimmed
            self._reached = info.trimmed
        while True:
            if self._reached < info.events:
                async for batch in self._caught_up(info):
                    yield batch
            async for batch in self._live(info, position):
                yield batch
            # Too much came at once: see where the session stands.
            info, position = await self._end(info.number)

    def _first_log(self, info: SessionInfo) -> int:
        if not self._after:
            return info.events if self._after is None else 0
        number, log = split_event_id(self._after)
        if number != info.number:
            raise ValidationError(
                f"after is an event id of the session {info.name!r} (its number is {info.number}), or 0 for its start; "
                f"{self._after} is one of the session number {number}"
            )
        return log + 1

    async def _end(self, number: int) -> tuple[SessionInfo, str]:
        """What the session holds, and the entry id that all of it lies at or before."""
        keys = self._reading.keys.session(number)
        last_ms, events = await self._reading.connections.call("HMGET", keys.meta, "last_ms", "events")
        if events is None:
            raise self._gone(number)
        try:
            info = await self._catalogue.by_number(number)
        except UnknownSession:  # in between
            raise self._gone(number) from None
        self._created_ns = self._created_ns or info.created_ns
        if info.created_ns != self._created_ns:
            raise self._gone(number)
        # The two calls may see different moments: the earlier one's end is what both know.
        info = msgspec.structs.replace(info, events=int(events))
        return info, f"{int(last_ms)}-{int(events) - 1}" if int(events) else "0-0"

    async def _caught_up(self, info: SessionInfo) -> AsyncIterator[EventBatch]:
        """What lies between what was reached and the end that ``info`` says."""
        rows = last = 0
        batches = self._range(info, self._reached)
        while True:
            try:
                batch = await anext(batches, None)
            except UnknownSession:
                raise self._gone(info.number) from None
            if batch is None:
                break
            rows, last = rows + len(batch), int(batch.records["log_sequence"][-1]) + 1
            yield batch
        trimmed = int(await self._reading.connections.call("HGET", self._keys(info).meta, "trimmed") or 0)
        if self._types == frozenset(EventType):
            # The read has counted them.
            hole = info.events - self._reached - rows if trimmed > self._reached else 0
        else:
            hole = max(0, min(trimmed, info.events) - max(last, self._reached))
            self._counters.events_missing += hole
        self._reached = info.events
        self._tell(hole, trimmed)

    def _range(self, info: SessionInfo, log: int) -> AsyncIterator[EventBatch]:
        return self._reading.read(
            info,
            LogRange(types=self._types, start_log=log),
            symbols=self._symbols,
            sources=self._sources,
            prefetch=2,
            on_damaged=self._on_damaged,
        )

    async def _live(self, info: SessionInfo, position: str) -> AsyncIterator[EventBatch]:
        """What comes after ``position``, until too much comes at once."""
        connections, keys = self._reading.connections, self._keys(info)
        types = {keys.streams[one]: one for one in TYPE_ORDER if one in self._types}
        bounds = Bounds(0, MAX_TIME_NS + 1, info.events, _NO_END)
        readers = {
            stream: StreamReader(stream, one, info.number, self._symbols, self._sources, bounds, self._on_damaged)
            for stream, one in types.items()
        }
        last = dict.fromkeys(types, position)
        while True:
            found = await self._snapshot(info, last)
            if any(len(entries) >= _ENTRIES for entries in found.replies.values()):
                return
            merged = await self._merged(readers, found.replies) if found.replies else []
            self._pass(found, merged)
            for batch in merged:
                yield batch
            if found.replies:
                last |= {name: entries[-1][0].decode() for name, entries in found.replies.items()}
                continue
            await connections.call(
                "XREAD", "COUNT", 1, "BLOCK", _BLOCK_MS, "STREAMS", *last, *last.values(),
                timeout_s=_BLOCK_MS / 1_000 + connections.policy.deadline_s / 2,
            )  # fmt: skip

    async def _snapshot(self, info: SessionInfo, last: dict[str, str]) -> _Snapshot:
        """What came after the last entries, and what the session is, at one moment. Raises UnknownSession."""
        *_, replies = await self._reading.connections.call_many(
            [
                ("MULTI",),
                ("HMGET", self._keys(info).meta, "created_ns", "events", "trimmed"),
                ("XREAD", "COUNT", _ENTRIES, "STREAMS", *last, *last.values()),
                ("EXEC",),
            ]
        )
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise ServerRefused(f"the session {self._session!r} can't be followed any more: {reply}")
        (created_ns, events, trimmed), found = replies
        if int(created_ns or 0) != self._created_ns or events is None:
            raise self._gone(info.number)
        return _Snapshot(int(events), int(trimmed or 0), {name.decode(): entries for name, entries in found or ()})

    def _pass(self, found: _Snapshot, merged: Sequence[EventBatch]) -> None:
        """Note that all before ``found.events`` is seen, and count what should have been there."""
        if self._types == frozenset(EventType):
            missing = max(0, found.events - self._reached - sum(map(len, merged)))
            hole = missing if found.trimmed > self._reached else 0
        else:
            hole = missing = max(0, min(found.trimmed, found.events) - self._reached)
        self._counters.events_missing += missing
        self._reached = max(self._reached, found.events)
        self._tell(hole, found.trimmed)

    def _tell(self, hole: int, trimmed: int) -> None:
        """Warn, once for each tail, of events that were trimmed before this reader came to them."""
        if hole and not self._warned:
            self._warned = True
            up_to = "" if self._types == frozenset(EventType) else "up to "
            warnings.warn(
                f"the tail of {self._session!r} was overtaken by retention: {up_to}{hole:,} events before log sequence "
                f"{trimmed:,} were trimmed before it read them (statistics().events_missing counts these, and those of "
                "later times). Read faster, or keep more",
                RuntimeWarning,
                stacklevel=2,
            )

    def _gone(self, number: int) -> UnknownSession:
        return UnknownSession(
            f"the session {self._session!r} (number {number}) was flushed or deleted while it was followed"
        )

    def _keys(self, info: SessionInfo) -> SessionKeys:
        return self._reading.keys.session(info.number)

    @property
    def _counters(self) -> Counters:
        return self._reading.connections.counters

    async def _merged(self, readers: dict[str, StreamReader], replies: dict[str, list[Entry]]) -> list[EventBatch]:
        counters = self._counters
        merging = LogMerge(len(replies))
        for index, (name, entries) in enumerate(replies.items()):
            read = readers[name].read
            if sum(len(fields[-1]) for _, fields in entries if fields) <= _INLINE_BYTES:
                page = read(entries)
            else:
                page = await asyncio.get_running_loop().run_in_executor(self._reading.decoder(), read, entries)
            counters.entries_read += len(entries)
            counters.bytes_read += page.stored_bytes
            counters.damaged += len(page.damaged)
            for batch in page.batches:
                merging.put(index, batch)
            merging.close(index)
        merged = []
        while (due := merging.take()) is not None:
            counters.events_read += len(due)
            merged.append(due)
        return merged
