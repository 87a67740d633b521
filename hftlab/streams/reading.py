"""Sessions read back: XRANGE by time or log sequence, decoded in a thread, all types merged into the total order.

While the caller works on a batch, the next pages of each stream are fetched and decoded. Decoding happens in one
thread under tables of the read's own: the caller's tables belong to the caller's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor

from hftlab.errors import UnknownSession
from hftlab.events import EventBatch, EventType, SourceTable, SymbolTable
from hftlab.events.merge import LogMerge
from hftlab.events.ports import LogRange, SessionInfo
from hftlab.events.rules import MAX_TIME_NS
from hftlab.streams.bridge import TableBridge
from hftlab.streams.connections import Connections
from hftlab.streams.keys import LOG_FIELD, TYPE_ORDER, Keys, SessionKeys
from hftlab.streams.ranges import EntryId
from hftlab.streams.scripts import LOCATE
from hftlab.streams.stored import Bounds, Entry, OnDamaged, Page, StreamReader, declared_rows

_NS_PER_MS = 1_000_000
_LAST_SEQUENCE = (1 << 64) - 1
_MAX_MS = MAX_TIME_NS // _NS_PER_MS
# A page is about this many rows, or bytes, whatever the size of the frames: large enough that a round trip (0.1 ms)
# and a thread's (0.1 ms) don't count beside it (3 ms), small enough to stay in the processor's cache.
_PAGE_ROWS = 32_768
_PAGE_BYTES = 4 << 20
_FIRST_ENTRIES = 8
_MOST_ENTRIES = 4_096


class Reading:
    """What all reads of a manager share."""

    def __init__(self, connections: Connections, keys: Keys, decoder: Callable[[], Executor]) -> None:
        self.connections = connections
        self.keys = keys
        self.decoder = decoder

    async def read(
        self,
        session: SessionInfo,
        wanted: LogRange,
        *,
        symbols: SymbolTable,
        sources: SourceTable,
        prefetch: int,
        on_damaged: OnDamaged,
    ) -> AsyncIterator[EventBatch]:
        """The wanted rows of what ``session`` says that it holds; see ``RedisStreamManager.read``."""
        keys = self.keys.session(session.number)
        held = await self.connections.call("HMGET", keys.meta, "backward_ms", "events", "trimmed", "created_ns")
        if held[1] is None or (session.created_ns and int(held[3] or 0) != session.created_ns):
            raise UnknownSession(f"the session {session.name!r} (number {session.number}) does not exist any more")
        # What was appended since ``session`` was asked for is not part of it, even if it is there: appends are atomic
        # over all streams, so a read up to a log sequence has no holes.
        end_log = min(session.events, _either(wanted.end_log, session.events))
        first_log = max(0, _either(wanted.start_log, 0))
        bounds = Bounds(
            _either(wanted.start_ns, 0),
            _either(wanted.end_ns, MAX_TIME_NS + 1),
            # Entries that reach over the trimmed head are there as a whole.
            max(first_log, int(held[2] or 0)),
            end_log,
        )
        # What is trimmed counts as missing.
        density = _Density(first_log) if wanted.types == frozenset(EventType) and _unbounded(bounds) else None
        streams = [one for one in TYPE_ORDER if one in wanted.types and session.counts.get(one.topic, 0)]
        if bounds.start_log >= bounds.end_log and density is not None:
            self.connections.counters.events_missing += max(0, end_log - first_log)
        if not streams or bounds.start_ns >= bounds.end_ns or bounds.start_log >= bounds.end_log:
            return
        starts = await self._starts(keys, streams, bounds)
        stop = _stop(bounds, int(held[0] or 0))
        bridge = TableBridge(symbols, sources)
        readers = [
            StreamReader(keys.streams[one], one, session.number, bridge.symbols, bridge.sources, bounds, on_damaged)
            for one in streams
        ]
        feeds = [
            _Feed(self, keys.streams[one], reader, start, stop, max(1, prefetch))
            for one, reader, start in zip(streams, readers, starts, strict=True)
        ]
        counters = self.connections.counters
        merging = LogMerge(len(feeds))
        try:
            while True:
                for index in merging.hungry:
                    page = await feeds[index].next()
                    if page is None:
                        merging.close(index)
                        continue
                    counters.damaged += len(page.damaged)
                    counters.bytes_read += page.stored_bytes
                    for batch in page.batches:
                        merging.put(index, bridge.across(batch))
                due = merging.take()
                if due is not None:
                    counters.events_read += len(due)
                    if density is not None:
                        counters.events_missing += density.missing_before(due)
                    yield due
                elif not merging.hungry:
                    break
            await self._still_there(keys, session, held[3])
            if density is not None:
                counters.events_missing += max(0, bounds.end_log - density.expected)
        finally:
            for feed in feeds:
                feed.close()

    async def _still_there(self, keys: SessionKeys, session: SessionInfo, created_ns: bytes | None) -> None:
        """Raise UnknownSession if what was read is not the session that it was at first: after FLUSHALL, a stream
        just seems to end, and numbers are given out again."""
        if await self.connections.call("HGET", keys.meta, "created_ns") != created_ns:
            raise UnknownSession(
                f"the session {session.name!r} (number {session.number}) was flushed or deleted while it was read: "
                "what was read so far is only its first part"
            )

    async def log_of_entry(self, session: SessionInfo, entry: EntryId) -> int:
        """The log sequence at which the first entry at or after an entry's id begins, over all streams."""
        keys = self.keys.session(session.number)
        start = f"{entry.milliseconds}-{entry.sequence}"
        replies = await self.connections.call_many(
            [("XRANGE", stream, start, "+", "COUNT", 1) for stream in keys.streams.values()]
        )
        # Ours say so in their first field; somebody else's entry begins nowhere.
        logs = [int(reply[0][0].partition(b"-")[2]) for reply in replies if reply and reply[0][1][0] == LOG_FIELD]
        return min(logs, default=session.events)

    async def _starts(self, keys: SessionKeys, streams: list[EventType], bounds: Bounds) -> list[str]:
        by_time = f"{bounds.start_ns // _NS_PER_MS}-0"
        if not bounds.start_log:
            return [by_time] * len(streams)
        names = [keys.streams[one] for one in streams]
        located = [reply.decode() for reply in await self.connections.run(LOCATE, names, bounds.start_log)]
        return [max(by_time, start, key=_order) for start in located]


class _Feed:
    """One stream's pages, up to ``prefetch`` of them fetched and decoded ahead."""

    def __init__(
        self, reading: Reading, stream: str, reader: StreamReader, start: str, stop: str, prefetch: int
    ) -> None:
        self._reading = reading
        self._stream = stream
        self._reader = reader
        self._range = start, stop
        self._pages: asyncio.Queue[asyncio.Future[Page] | None] = asyncio.Queue(prefetch)
        self._finished = False
        self._task = asyncio.get_running_loop().create_task(self._fill(), name=f"read {stream}")

    async def next(self) -> Page | None:
        """The next page, None at the end. Raises what fetching or decoding it raised."""
        if self._finished:
            return None
        future = await self._pages.get()
        page = None if future is None else await future
        self._finished = page is None or page.finished
        return page

    def close(self) -> None:
        """Stop fetching; what is under way is forgotten."""
        self._finished = True
        self._task.cancel()
        while not self._pages.empty():
            future = self._pages.get_nowait()
            if future is not None and not future.cancel():
                future.exception()

    async def _fill(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async for entries in self._fetch():
                for part in pages_of(entries):
                    await self._pages.put(loop.run_in_executor(self._reading.decoder(), self._reader.read, part))
            await self._pages.put(None)
        except Exception as error:
            # Whoever waits for the next page is told.
            failed: asyncio.Future[Page] = loop.create_future()
            failed.set_exception(error)
            await self._pages.put(failed)

    async def _fetch(self) -> AsyncIterator[list[Entry]]:
        connections = self._reading.connections
        start, stop = self._range
        count = _FIRST_ENTRIES
        while True:
            entries: list[Entry] = await connections.call("XRANGE", self._stream, start, stop, "COUNT", count)
            if not entries:
                return
            connections.counters.entries_read += len(entries)
            yield entries
            start = f"({entries[-1][0].decode()}"
            rows = sum(declared_rows(fields) for _, fields in entries)
            size = sum(len(fields[-1]) for _, fields in entries if fields)
            fitting = min(_PAGE_ROWS * len(entries) // max(rows, 1), _PAGE_BYTES * len(entries) // max(size, 1))
            count = max(1, min(fitting, _MOST_ENTRIES, count * 8))


def pages_of(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Entries in parts that declare up to 32,768 rows each (or are one entry): what is decoded at once is bounded,
    whatever a writer put side by side."""
    begin, rows = 0, 0
    for index, (_, fields) in enumerate(entries):
        more = declared_rows(fields)
        if index > begin and rows + more > _PAGE_ROWS:
            yield entries[begin:index]
            begin, rows = index, 0
        rows += more
    yield entries[begin:]


class _Density:
    """Counts the log sequences that a read of everything did not bring: entries that somebody deleted or trimmed."""

    def __init__(self, start_log: int) -> None:
        self.expected = start_log

    def missing_before(self, batch: EventBatch) -> int:
        log = batch.records["log_sequence"]
        expected, self.expected = self.expected, int(log[-1]) + 1
        return self.expected - expected - len(log)


def _either(value: int | None, default: int) -> int:
    return default if value is None else value


def _unbounded(bounds: Bounds) -> bool:
    return bounds.start_ns == 0 and bounds.end_ns > MAX_TIME_NS


def _stop(bounds: Bounds, backward_ms: int) -> str:
    """The last entry id that may hold a wanted row: ids lie at most ``backward_ms`` after their first arrival."""
    last_ms = (bounds.end_ns - 1) // _NS_PER_MS + backward_ms
    return "+" if last_ms >= _MAX_MS else f"{last_ms}-{_LAST_SEQUENCE}"


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds or 0), int(sequence or 0)
