"""A session followed live with XREAD, in total order over its streams.

The position is carried in entry ids (never ``$``, which loses what arrives between two calls). An append is atomic
over all streams, so one XREAD that does not block, and that reached the end of every stream, shows a prefix of the
total order. A blocking XREAD is only used to wait: when it wakes up, servers before Redis 7.2 tell of one stream and
keep quiet about the others. Where a stream had more than was asked for, the reader catches up by ranges instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

from hftlab.errors import UnknownSession, ValidationError
from hftlab.events import EventBatch, EventType, SourceTable, SymbolTable
from hftlab.events.merge import LogMerge
from hftlab.events.ports import LogRange, SessionInfo
from hftlab.events.records import split_event_id
from hftlab.events.rules import MAX_TIME_NS
from hftlab.streams.catalogue import Catalogue
from hftlab.streams.keys import TYPE_ORDER
from hftlab.streams.reading import Reading
from hftlab.streams.stored import Bounds, Entry, OnDamaged, StreamReader

# How long one XREAD waits at most: short enough that a deleted session is noticed, and that a connection which died
# without a word is not waited for much longer.
_BLOCK_MS = 1_000
_ENTRIES = 64
# More than this is decoded in the thread: 64 kB are some 4,000 rows, 0.5 ms.
_INLINE_BYTES = 1 << 16
_NO_END = 1 << 62


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

    async def batches(self) -> AsyncIterator[EventBatch]:
        """Batches in total order, each under the same growing tables. Raises UnknownSession when it is deleted."""
        info, position = await self._end(await self._catalogue.number(self._session))
        log = self._first_log(info)
        while True:
            if log < info.events:
                async for batch in self._range(info, log):
                    yield batch
            log = info.events
            async for batch in self._live(info, position):
                log = int(batch.records["log_sequence"][-1]) + 1
                yield batch
            # Too much came at once, or nothing for a while: see where the session stands.
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
            raise UnknownSession(f"the session {self._session!r} (number {number}) was deleted while it was followed")
        info = await self._catalogue.by_number(number)
        # The two calls may see different moments: the earlier one's end is what both know.
        info = msgspec.structs.replace(info, events=int(events))
        return info, f"{int(last_ms)}-{int(events) - 1}" if int(events) else "0-0"

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
        connections = self._reading.connections
        keys = self._reading.keys.session(info.number)
        streams = [keys.streams[one] for one in TYPE_ORDER if one in self._types]
        bounds = Bounds(0, MAX_TIME_NS + 1, info.events, _NO_END)
        readers = {
            keys.streams[one]: StreamReader(
                keys.streams[one], one, info.number, self._symbols, self._sources, bounds, self._on_damaged
            )
            for one in TYPE_ORDER
            if one in self._types
        }
        last = dict.fromkeys(streams, position)
        while True:
            found = await connections.call("XREAD", "COUNT", _ENTRIES, "STREAMS", *streams, *last.values())
            if found is None:
                waited = await connections.call(
                    "XREAD", "COUNT", 1, "BLOCK", _BLOCK_MS, "STREAMS", *streams, *last.values(),
                    timeout_s=_BLOCK_MS / 1_000 + connections.policy.deadline_s / 2,
                )  # fmt: skip
                if waited is None and not await connections.call("EXISTS", keys.meta):
                    raise UnknownSession(f"the session {self._session!r} was deleted while it was followed")
                continue
            replies: dict[str, list[Entry]] = {name.decode(): entries for name, entries in found}
            if any(len(entries) >= _ENTRIES for entries in replies.values()):
                return
            for batch in await self._merged(readers, replies):
                yield batch
            last |= {name: entries[-1][0].decode() for name, entries in replies.items()}

    async def _merged(self, readers: dict[str, StreamReader], replies: dict[str, list[Entry]]) -> list[EventBatch]:
        counters = self._reading.connections.counters
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
