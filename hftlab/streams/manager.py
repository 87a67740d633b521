"""``RedisStreamManager``: sessions in Redis Streams, appended exactly once, read back in their total order."""

from __future__ import annotations

import html
import os
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from hftlab.clock import Clock, SystemClock
from hftlab.errors import UnknownEvent, ValidationError
from hftlab.events import Event, EventBatch, SourceTable, SymbolTable
from hftlab.events.ports import LogRange, SessionInfo
from hftlab.events.records import EventType, split_event_id
from hftlab.metrics.journeys import Journey, Latency
from hftlab.streams.address import Address
from hftlab.streams.appending import Pipeline
from hftlab.streams.archive import write_archive
from hftlab.streams.backoff import BackoffPolicy
from hftlab.streams.catalogue import Catalogue
from hftlab.streams.cluster import ClusterAddress
from hftlab.streams.connections import Connections
from hftlab.streams.consuming import GroupConsumer
from hftlab.streams.counters import Counters, StreamStatistics
from hftlab.streams.cutting import Format, check_frame_rows
from hftlab.streams.durability import Durability, Fsync, read_durability, set_durability
from hftlab.streams.groups import Groups
from hftlab.streams.keys import Keys
from hftlab.streams.ranges import Bound, Place, Types, log_range, read_place, wanted_types
from hftlab.streams.reading import Reading
from hftlab.streams.recording import Recording
from hftlab.streams.retention import Retention, TrimResult
from hftlab.streams.stored import OnDamaged
from hftlab.streams.tailing import Tail
from hftlab.streams.urls import read_address
from hftlab.streams.values import Value, read_value
from hftlab.streams.writers import AppendResult, Writer


class RedisStreamManager:
    """Sessions of events in one Redis (6.2 or newer, Valkey included). All methods belong to one event loop.

    ``url`` is ``redis://user:password@host:port/db``, ``rediss://…`` for TLS (with ``?ssl_ca_certs=…`` where the system
    does not know the authority), ``unix:///path``, ``redis+cluster://user:password@host:port,host2:port2/`` or
    ``rediss+cluster://…`` for a Redis Cluster (one or more of its nodes), or an ``Address`` (an embedded server's).
    ``namespace`` is the hash tag of all keys. ``clock`` stamps rows that have no arrival. ``frame_rows`` (1 to 65,536)
    is how many rows one script call appends, ``in_flight`` how many calls are under way at once. ``deadline_s`` is how
    long a silent or refusing server is tried again, with exponential backoff and jitter (``seed`` makes these
    repeatable), before a StreamError. ``connections`` bounds the pool. ``session`` names the session of appends that
    name none (else one is made up). ``on_damaged`` is what reads do with entries that can't be read: ``"raise"``, or
    ``"skip"`` and count them in ``statistics()``. ``progress`` shows a bar for appends of more than a second. Nothing
    connects before it is needed; ``open`` connects and asks for the server's durability.

    What piles up while the server is away, or slower than its users, is bounded. Each ``append`` that is under way has
    its batch, up to 82,000 rows encoded ahead (some 1 MB) and ``in_flight`` calls, and waits for ``deadline_s`` without
    progress at most. Each writer, and ``publish`` in each session, has up to 4,096 calls that wait for their turn; one
    more is refused at once. A read has ``prefetch`` pages of each type, a tail one reply of up to 64 entries of each.
    Who calls without awaiting (a task an event) decides how many appends there are.
    """

    # What the repr needs, also in the traceback of a constructor that failed.
    address: Address = Address({}, None, "no address")
    _keys: Keys = Keys()
    _durability: Durability | None = None

    def __init__(
        self,
        url: str | Address,
        *,
        namespace: str = "hftlab",
        clock: Clock | None = None,
        frame_rows: int = 1_024,
        in_flight: int = 8,
        deadline_s: float = 10.0,
        connections: int = 32,
        session: str | None = None,
        on_damaged: OnDamaged = "raise",
        progress: bool = True,
        seed: int | None = None,
        journeys: int = 1,
    ) -> None:
        address = url if isinstance(url, Address) else read_address(url)
        # No frame of ours keeps the URL: a traceback with local variables would show its password.
        url = ""
        if isinstance(address, ValidationError):
            raise address
        if not isinstance(in_flight, int) or not 0 < in_flight <= 1_024:
            raise ValidationError(f"in_flight is an integer of 1 to 1,024; got {in_flight!r:.100}")
        if on_damaged not in ("raise", "skip"):
            raise ValidationError(f"on_damaged is 'raise' or 'skip'; got {on_damaged!r:.100}")
        # A cluster keeps each lab in one of its nodes, which the namespace decides.
        self.address = address.at(namespace) if isinstance(address, ClusterAddress) else address
        self.clock: Clock = SystemClock() if clock is None else clock
        self._keys = Keys(namespace)
        self._counters = Counters()
        self._connections = Connections(
            self.address, BackoffPolicy(deadline_s=deadline_s), self._counters, size=connections, seed=seed
        )
        self._pipeline = Pipeline(
            self._connections,
            self._encoder,
            self._inspector,
            self.clock.now_ns,
            frame_rows=check_frame_rows(frame_rows),
            in_flight=in_flight,
            journey=_journey() if journeys else None,
        )
        self._catalogue = Catalogue(self._connections, self._keys, self.clock.now_ns)
        self._recording = Recording(
            self._pipeline, self._catalogue, self._keys, self.clock.now_ns, session=session, progress=progress
        )
        self._reading = Reading(self._connections, self._keys, self._decoder)
        self.groups = Groups(self._reading, self._catalogue, self.clock.now_ns)
        self._retention = Retention(self._connections, self._catalogue, self._reading)
        self._on_damaged = on_damaged
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._is_open = False

    # -- life ---------------------------------------------------------------------------------------------------------

    async def open(self) -> Self:
        """Connect and ask what the server's durability is. Again: does no harm. Raises StreamErrors."""
        if not self._is_open:
            self._connections.open()
            await self._connections.call("PING")
            self._durability = await read_durability(self._connections)
            self._is_open = True
        return self

    async def close(self) -> None:
        """Close all connections and end the threads. What is under way raises a StreamError. Again: does no harm."""
        self._is_open = False
        self._recording.close()
        await self._connections.close()
        threads, self._threads = self._threads, {}
        for thread in threads.values():
            thread.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def latency(self) -> Latency:
        """How long rows took from their arrival to the server's word that they are appended: of rows that arrived in
        the minute before, for those of captures it says nothing. Empty with ``journeys=0``."""
        journey = self._pipeline.journey
        return Latency(*(() if journey is None else (journey,)), name="appends")

    # -- writing ------------------------------------------------------------------------------------------------------

    @property
    def session_name(self) -> str:
        """The session that appends go into which name none: named when the manager was made, or made up now."""
        return self._recording.session_name

    async def append(
        self, batch: EventBatch, session: str | None = None, *, key: str | None = None, format: Format = "frames"
    ) -> AppendResult:
        """Append a batch to a session, once: the session is made if need be.

        The batch is known by ``key``, or else by a digest of its content, names included. Appending it again (a cell
        that is run again, a retry, another process) writes nothing and returns the first result with
        ``duplicate=True``; after an interruption, it goes on where it stopped, also with another ``frame_rows``. To
        write equal content twice, give each its key; single events are better published. Each batch leaves some 200
        bytes by which it is known in the session: who appends for days should do so as a ``writer``.

        Rows whose ``received`` is 0 are stamped now (``timestamp`` too, with ``Flags.ARRIVAL_TIME``). Rows read from
        another session may be appended: they get new log sequences, while their ``cause`` goes on naming the event of
        the session that they came from; rows that a handler emitted become recorded ones. A batch without rows makes
        sure that the session exists.

        ``format="entries"`` stores one entry an event, for redis-cli and other languages: some 10 times slower and
        larger. Raises ValidationError (and writes nothing) for rows that no reader could take, AppendConflict for a
        key that was used for other content, and the other StreamErrors. Cancelling leaves a first part written.
        About 0.3 µs a row.
        """
        return await self._recording.append(batch, session, key, format)

    async def publish(
        self, events: Event | Iterable[Event] | EventBatch, session: str | None = None, *, format: Format = "frames"
    ) -> AppendResult:
        """Append one event, or a few, each time anew (unlike ``append``), and still never twice by a retry.

        About 0.5 ms and a round trip; calls are done in order, and up to 4,096 wait for their turn (one more is
        refused with a StreamError). For many events, make a batch and ``append`` it.
        """
        return await self._recording.publish(events, session, format)

    async def writer(self, session: str, name: str, *, frame_rows: int | None = None) -> Writer:
        """Claim a named writer in a session (made if need be): whoever had the name may not write any more.

        ``frame_rows``: how many rows one call appends (None: as the manager was told).
        """
        return await self._recording.writer(session, name, frame_rows)

    # -- sessions -----------------------------------------------------------------------------------------------------

    async def session(self, name: str) -> SessionInfo:
        """What a session holds. Raises UnknownSession, which names those that there are."""
        return await self._catalogue.info(name)

    async def sessions(self) -> list[SessionInfo]:
        """All sessions of the namespace, oldest first."""
        return await self._catalogue.all()

    async def rename(self, old: str, new: str) -> SessionInfo:
        """Give a session another name; no data moves. Raises UnknownSession, SessionExists."""
        info = await self._catalogue.rename(old, new)
        self._recording.forget(old, new)
        return info

    async def delete(self, name: str) -> None:
        """Delete a session with all its events. Raises UnknownSession."""
        await self._catalogue.delete(name)
        self._recording.forget(name)

    async def trim(
        self,
        session: str,
        *,
        before: Place | None = None,
        keep_bytes: int | None = None,
        keep_events: int | None = None,
        force: bool = False,
    ) -> TrimResult:
        """Remove a session's oldest events: those ``before`` a place (see ``range``; a time: before the first event
        that arrived then or later), or all but the last ``keep_events``, or so many that about ``keep_bytes`` are
        left. Exactly one of the three.

        All types go at one log sequence, in one atomic step (``SessionInfo.trimmed`` says where). Raises
        UnreadWouldBeLost, and removes nothing, where a consumer group has not handled all of it; with ``force``, it is
        removed, and the result says which group loses how many events. A group counts every event of the session,
        whatever types it reads. Reading the session then begins at what there is, and counts what is missing
        (``statistics().events_missing``). Trimming to a size does not depend on the clock; a session that is trimmed
        can not be exported. Raises UnknownSession, ValidationError. Some 1 ms for each MB that is removed.
        """
        return await self._retention.trim(session, before, keep_bytes, keep_events, force)

    async def export_session(self, name: str, path: str | os.PathLike[str]) -> Path:
        """Write a session into one file, which appears complete or not at all (an older one is replaced).

        Raises UnknownSession, CodecError for damaged entries, StreamError where events are missing, OSError. About
        0.5 µs an event; memory does not grow with the session.
        """
        info = await self._catalogue.info(name)
        batches = self._reading.read(
            info, LogRange(), symbols=SymbolTable(), sources=SourceTable(), prefetch=4, on_damaged="raise"
        )
        return await write_archive(batches, info, Path(path), self._encoder)

    async def import_session(self, path: str | os.PathLike[str], name: str | None = None) -> SessionInfo:
        """Make a session out of an exported file, with the same log sequences; ``name`` is another name for it.

        Importing the same content under the same name again does nothing, or goes on where it stopped. The file is
        checked as a whole before anything is written. Raises CodecError, SchemaError, SessionExists where the name
        has other events.
        """
        return await self._recording.import_session(Path(path), name)

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(
        self,
        session: SessionInfo,
        wanted: LogRange,
        *,
        symbols: SymbolTable,
        sources: SourceTable,
        prefetch: int = 4,
        on_damaged: OnDamaged | None = None,
    ) -> AsyncIterator[EventBatch]:
        """The wanted rows of a session in log-sequence order, all types merged, under the given tables.

        Rows that were appended after ``session`` was asked for are not part of it. Up to ``prefetch`` pages (some
        32,768 rows) of each type are fetched and decoded ahead. Raises UnknownSession when it was deleted, CodecError
        and SchemaError with the stream and the entry's id (see ``on_damaged``), ServerUnreachable, ServerRefused.
        """
        return self._reading.read(
            session,
            wanted,
            symbols=symbols,
            sources=sources,
            prefetch=prefetch,
            on_damaged=self._on_damaged if on_damaged is None else on_damaged,
        )

    async def range(
        self, session: str, start: Place | None = None, end: Place | None = None, types: Types | None = None
    ) -> EventBatch:
        """The events from ``start`` to before ``end`` as one batch: it must fit into memory, 128 bytes each.

        Each end is a time (a bare time of day means UTC within the session), an event id, or an entry's id as text.
        An empty range is an empty batch. Raises UnknownSession, TimeError.
        """
        info = await self._catalogue.info(session)
        bounds = [await self._resolved(info, read_place(place, info)) for place in (start, end)]
        wanted = log_range(bounds[0], bounds[1], wanted_types(types))
        symbols, sources = SymbolTable(), SourceTable()
        batches = [batch async for batch in self.read(info, wanted, symbols=symbols, sources=sources)]
        if not batches:
            return EventBatch(EventBatch.empty().records, symbols, sources, session_number=info.number)
        return EventBatch.concat(batches)

    async def get(self, event_id: int) -> Event:
        """The recorded event with that id. Raises UnknownEvent, UnknownSession, ValidationError. A few round trips."""
        number, log = split_event_id(event_id)
        info = await self._catalogue.by_number(number)
        wanted = LogRange(start_log=log, end_log=log + 1)
        symbols, sources = SymbolTable(), SourceTable()
        # Damage beside it does not matter; damage to itself leaves nothing to be found.
        async for batch in self.read(info, wanted, symbols=symbols, sources=sources, prefetch=1, on_damaged="skip"):
            return batch[0]
        raise UnknownEvent(
            f"the session {info.name!r} has no event with the log sequence {log} (event id {event_id}): "
            + (
                f"it ends at {info.events - 1}"
                if log >= info.events
                else f"it was trimmed; the first one that is still there is {info.trimmed}"
                if log < info.trimmed
                else "its entry was deleted, or can't be read (range says why)"
            )
        )

    def tail(
        self,
        session: str,
        *,
        types: Types | None = None,
        after: int | None = None,
        on_damaged: OnDamaged | None = None,
    ) -> AsyncIterator[EventBatch]:
        """Follow a session live: every batch that is appended, in total order, until the caller stops.

        ``after`` is the event id to go on after (0: from the session's start); None means from now, which is when
        the first batch is asked for. Raises UnknownSession when there is none, or when it is deleted.
        """
        damaged = self._on_damaged if on_damaged is None else on_damaged
        return Tail(self._reading, self._catalogue, session, wanted_types(types), after, damaged).batches()

    # -- consumer groups ----------------------------------------------------------------------------------------------

    async def member(
        self,
        session: str,
        group: str,
        *,
        types: Types | None = None,
        start: Place | None = None,
        restart: bool = False,
        name: str | None = None,
        lease_s: float = 10.0,
        symbols: SymbolTable,
        sources: SourceTable,
    ) -> GroupConsumer:
        """A member of a consumer group, which is made if need be, over the streams of ``types`` (None: all).

        A new group begins at ``start``: ``"start"`` (None), ``"now"``, a time (the first event that arrived then or
        later), an event id or an entry's id. With ``restart``, one that exists is moved there. ``name`` says who it is
        (made up otherwise), ``lease_s`` how long it keeps the group without a word. What it reads is under the given
        tables. Raises UnknownSession, TimeError, ValidationError where the group reads other types, and with
        ``restart`` GroupTaken while a live member has it.
        """
        return await self.groups.member(
            session, group, types=types, start=start, restart=restart, name=name, lease_s=lease_s,
            symbols=symbols, sources=sources,
        )  # fmt: skip

    async def succeed(self, session: str, successor: str) -> SessionInfo:
        """Seal a session: nothing may be appended to it any more, and ``successor`` (made if need be) goes on after it.

        Consumers of the session are told once they have read it to its end. Again: does no harm. Raises
        UnknownSession, ValidationError, and SessionSealed where another session goes on after it already.
        """
        return await self._catalogue.succeed(session, successor)

    def key(self, key: str) -> str:
        """The server's name for a key that a processor's transactions call ``key``."""
        return self._keys.user(key)

    async def value(self, key: str) -> Value | None:
        """What processors' transactions made of the key that they call ``key``; None where there is nothing.

        Text for a string or a number, a dict for a hash, a list, a set, and member to score for a sorted set; what is
        no UTF-8 is bytes. All of it at once, in two round trips. Raises StreamErrors.
        """
        return await read_value(self._connections, self.key(key))

    # -- what it is like ----------------------------------------------------------------------------------------------

    async def durability(self) -> Durability:
        """What the server says of its persistence; unknown where it does not let us ask."""
        self._durability = await read_durability(self._connections)
        return self._durability

    async def set_durability(
        self, *, appendonly: bool | None = None, appendfsync: Fsync | None = None, save: str | None = None
    ) -> Durability:
        """Set the server's persistence until it is restarted, and read it back; see ``durability`` for the words.

        Waits until a log that was switched on is complete. Raises ValidationError, ServerRefused.
        """
        self._durability = await set_durability(self._connections, appendonly, appendfsync, save)
        return self._durability

    def statistics(self) -> StreamStatistics:
        """What this manager has done so far."""
        return self._counters.freeze(self._connections.silent_s)

    @property
    def state(self) -> str:
        """Whether the server answers: ``ok``, ``silent for 3.1 s``, ``away (trying again for 4 s: …)``, or ``refusing
        writes: …`` until it takes one again. It is known from what is under way: ask nothing, and nothing is owed."""
        # The traceback of a constructor that failed shows a manager without connections.
        return self._connections.state if hasattr(self, "_connections") else "ok"

    def __repr__(self) -> str:
        durability = self._durability.in_words if self._durability is not None else "durability not asked for yet"
        state = "" if self.state == "ok" else f"; {self.state}"
        return f"RedisStreamManager({self.address.label}, namespace {self._keys.namespace!r}; {durability}{state})"

    def _repr_html_(self) -> str:
        place = f"{self.address.label}, namespace {self._keys.namespace}"
        state = "" if self.state == "ok" else f"<div><b>{html.escape(self.state)}</b></div>"
        head = f"<b>RedisStreamManager</b> {html.escape(place)}{state}"
        body = self._durability._repr_html_() if self._durability is not None else "<i>not opened yet</i>"
        return f"<div>{head}{body}</div>"

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _resolved(self, info: SessionInfo, bound: Bound) -> Bound:
        if bound.entry_id is None:
            return bound
        return Bound(log_sequence=await self._reading.log_of_entry(info, bound.entry_id))

    def _encoder(self) -> ThreadPoolExecutor:
        return self._thread("encode")

    def _inspector(self) -> ThreadPoolExecutor:
        return self._thread("inspect")

    def _decoder(self) -> ThreadPoolExecutor:
        return self._thread("decode")

    def _thread(self, name: str) -> ThreadPoolExecutor:
        # One thread each: what a thread works on is thereby never shared.
        if name not in self._threads:
            self._threads[name] = ThreadPoolExecutor(1, thread_name_prefix=f"hftlab-{name}")
        return self._threads[name]


def _journey() -> Journey:
    """Appends know rows by their types alone."""
    return Journey("append", type_names={one: one.topic for one in EventType}, symbol_name=str, source_name=str)
