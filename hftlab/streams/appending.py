"""The way of an append: chunks in flight on one ordered connection, made in a thread beside it, exactly once each.

Every chunk says which of the writer's rows it holds, and the server knows how many it has (``scripts.APPEND``), so
whatever fails, the way on is the same: a new connection, ask the server how far the writer got, cut the rest anew. A
call that was still under way on the old connection is then a duplicate (its rows are there), out of date (its token
is), or the same rows once more; never a second copy.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

from redis.exceptions import NoScriptError, ResponseError

from hftlab.errors import AppendConflict, ServerRefused, SessionSealed, UnknownSession, WriterFenced
from hftlab.events import EventBatch
from hftlab.metrics.journeys import Journey, Stage
from hftlab.streams.ahead import INLINE_ROWS, Ahead
from hftlab.streams.connections import Connections
from hftlab.streams.cutting import Chunk, Format, RowSource, check_frame_rows, chunks, inspect
from hftlab.streams.keys import SessionKeys
from hftlab.streams.link import Link, Reply
from hftlab.streams.refusals import FAILURES, Verdict, judge
from hftlab.streams.scripts import APPEND, SYNCHRONISE, Status

KEYED = "-"
"""The token of a writer that is known by its content: nobody can take over from it, all write the same."""


class WriterForgotten(AppendConflict):
    """The session knows nothing of a writer that had been made for it."""


class Record(NamedTuple):
    """What the server knows of a writer: rows in all, and of its current batch the row at which that starts, the log
    sequences of its first and last row, its entries and their bytes."""

    rows: int
    start: int
    first: int
    last: int
    entries: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Who writes: the field in the writers hash, the fencing token, the digest of the content (or ``-``)."""

    field: str
    token: str = KEYED
    digest: str = "-"


class Pipeline:
    """What all appends of a manager share: connections, the thread that encodes, the settings."""

    def __init__(
        self,
        connections: Connections,
        encoder: Callable[[], Executor],
        inspector: Callable[[], Executor],
        now_ns: Callable[[], int],
        *,
        frame_rows: int,
        in_flight: int,
        journey: Journey | None = None,
    ) -> None:
        self.journey = journey
        self.connections = connections
        self.encoder = encoder
        self.inspector = inspector
        self.now_ns = now_ns
        self.frame_rows = frame_rows
        self.in_flight = in_flight

    def with_frames(self, frame_rows: int) -> Pipeline:
        """The same one, with frames of another size. Raises ValidationError."""
        return Pipeline(
            self.connections, self.encoder, self.inspector, self.now_ns,
            frame_rows=check_frame_rows(frame_rows), in_flight=self.in_flight, journey=self.journey,
        )  # fmt: skip

    async def inspect(self, batch: EventBatch) -> str:
        """The digest of a batch's content; raises ValidationError for rows that can't be stored. About 60 ns a row."""
        if len(batch) <= INLINE_ROWS:
            return inspect(batch)
        return await asyncio.get_running_loop().run_in_executor(self.inspector(), inspect, batch)

    def ahead(self, source: RowSource, position: int = 0, offset: int = 0, form: Format = "frames") -> Ahead:
        """Begin to encode a source from its row ``position`` on; ``offset``: what the writer had written before it."""
        made = chunks(source, position, offset, frame_rows=self.frame_rows, form=form, now_ns=self.now_ns)
        return Ahead(made, source.rows - position, self.frame_rows, self.encoder)


class Appending:
    """One source of rows on its way into one session.

    ``renew`` gives the identity to go on with on a new connection (None: the one that it has). ``offset`` is what the
    writer had written before; ``on_progress`` is told how many of the source's rows are there. ``ahead``: where the
    source has been begun to be encoded, from its first row.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        keys: SessionKeys,
        session: str,
        source: RowSource,
        identity: Identity,
        *,
        offset: int = 0,
        form: Format = "frames",
        renew: Callable[[], Identity] | None = None,
        on_progress: Callable[[int], None] | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        self._ahead = ahead
        self._pipeline = pipeline
        self._keys = keys
        self._session = session
        self._source = source
        self._offset = offset
        self._form = form
        self._renew = renew
        self._on_progress = on_progress
        self.identity = identity
        self.record: Record | None = None
        self.found: int | None = None
        """How many rows the server had when it was first asked; None: it was not asked."""
        self._progress = 0
        self._named: set[str] = set()
        # Tells a session from another one that was made later under the same number.
        self._created_ns: bytes | None = None

    async def run(self, record: Record | None = None) -> Record:
        """Append what is missing. ``record``: what the server is known to know, else it is asked.

        Raises StreamErrors. Cancelling leaves some first part of the rows written; running again goes on there.
        """
        connections = self._pipeline.connections
        backoff = connections.backoff()
        self.record = record
        while True:
            before = self._progress
            try:
                async with connections.link() as link:
                    if self.record is None:
                        await self._synchronise(link)
                    if await self._stream(link):
                        assert self.record is not None
                        return self.record
                verdict = Verdict(AppendConflict(self._restless), True, "its progress changed")
            except FAILURES as error:
                verdict = judge(error, connections.address)
            if self._progress > before:
                backoff.progressed(asyncio.get_running_loop().time())
            self.record = None
            connections.counters.reconnects += 1
            await connections.pause(backoff, verdict)

    async def _synchronise(self, link: Link) -> None:
        """Learn how far the server got; a named writer fences its own calls that an older connection still carries."""
        mode = "read"
        if self._renew is not None:
            mode, self.identity = "renew", self._renew()
        identity = self.identity
        await link.send("SCRIPT", "LOAD", APPEND.text)
        await link.send(
            "EVAL", SYNCHRONISE.text, 2, self._keys.meta, self._keys.writers, identity.field, mode, identity.token,
            identity.digest,
        )  # fmt: skip
        await link.send("HGET", self._keys.meta, "created_ns")
        await link.receive()
        reply, created_ns = await link.receive(), await link.receive()
        status, record = read_record(reply)
        self._raise_for(status, record)
        if self._created_ns not in (None, created_ns):
            raise UnknownSession(
                f"the session {self._session!r} (number {self._keys.number}) was flushed or deleted, and made again, "
                f"while rows were appended to it: {self._progress:,} that had been acknowledged are gone with it. "
                "Append the batch again"
            )
        self._created_ns = created_ns
        if record.rows < self._offset:
            raise AppendConflict(
                f"the server has {record.rows:,} rows of the writer {self._shown}, and had acknowledged "
                f"{self._offset:,}: it lost rows of earlier batches (a crash with appendfsync everysec, a restored "
                "backup). Append these again, and go on with a new writer"
            )
        self.found = record.rows if self.found is None else self.found
        self._named.clear()
        self._progress, self.record = record.rows, record

    async def _stream(self, link: Link) -> bool:
        """Send and settle all chunks from the record on; False where the server must be asked again how far it got."""
        assert self.record is not None
        position = max(self.record.rows, self._offset)
        waiting: deque[Chunk] = deque()
        with self._encoded_from(position - self._offset) as ahead:
            while True:
                room = self._pipeline.in_flight - len(waiting)
                # In bursts of half the window: one write to the socket, one turn of the server, one of the loop.
                if room > self._pipeline.in_flight // 2 and (chunk := await ahead.next()) is not None:
                    burst = [chunk, *ahead.take_ready(room - 1)]
                    await self._send(link, burst)
                    waiting.extend(burst)
                if not waiting:
                    return True
                due = min(len(waiting), max(1, self._pipeline.in_flight // 2))
                for reply in await link.receive_many(due):
                    if not self._settle(reply, waiting.popleft()):
                        return False

    def _encoded_from(self, position: int) -> Ahead:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and position == 0:
            return ahead
        return self._pipeline.ahead(self._source, position, self._offset, self._form)

    async def _send(self, link: Link, burst: Sequence[Chunk]) -> None:
        keys, identity = self._keys, self.identity
        head = (
            "EVALSHA", APPEND.sha, 7, *keys.all, identity.field, identity.token, identity.digest, self._offset
        )  # fmt: skip
        commands = []
        for chunk in burst:
            named = chunk.symbols - self._named
            self._named |= named
            commands.append((*head, chunk.start, *chunk.arguments(named)))
        await link.send_all(commands)

    def _settle(self, reply: Reply | ResponseError, chunk: Chunk) -> bool:
        if isinstance(reply, ResponseError):
            if isinstance(reply, NoScriptError):
                # The server was restarted, or somebody flushed its scripts.
                return False
            raise reply
        status, record = read_record(reply)
        if status in (Status.GAP, Status.OVERLAP):
            return False
        self._raise_for(status, record)
        counters = self._pipeline.connections.counters
        if status is Status.APPLIED:
            known = self.record
            fresh = known is None or known.start != record.start or not known.entries
            self._pipeline.connections.silence.refusal = ""
            counters.events_appended += chunk.rows
            counters.entries_appended += chunk.part_count
            counters.bytes_appended += record.stored_bytes - (0 if fresh or known is None else known.stored_bytes)
            if self._pipeline.journey is not None and chunk.arrivals:
                now_ns = self._pipeline.now_ns()
                for event_type, received in chunk.arrivals:
                    self._pipeline.journey.note_since(Stage.APPENDED, event_type, received, now_ns)
        else:
            counters.answered_twice += 1
        self._progress, self.record = record.rows, record
        if self._on_progress is not None:
            self._on_progress(record.rows - self._offset)
        return True

    def _raise_for(self, status: Status, record: Record) -> None:
        if status is Status.GONE:
            raise UnknownSession(
                f"the session {self._session!r} (number {self._keys.number}) does not exist any more: it was "
                "flushed or deleted; append again to make a new one"
            )
        if status is Status.FORGOTTEN:
            raise WriterForgotten(
                f"the session {self._session!r} (number {self._keys.number}) knows nothing of the writer "
                f"{self._shown}, which had written {self._offset:,} rows there: it was flushed or deleted, and made "
                "again since, or a crash lost it. What was acknowledged is gone: append it again, with a new writer"
            )
        if status is Status.FENCED:
            raise WriterFenced(
                f"another writer took over as {self._shown} in the session {self._session!r}; this one may not write "
                "any more. Make a writer under another name, or take over in turn: await manager.writer(session, name)"
            )
        if status is Status.CONFLICT:
            raise AppendConflict(
                f"the key {self._shown} in the session {self._session!r} was used for a batch of other content "
                f"({record.rows:,} rows of it are there); give this batch another key, or none"
            )
        if status is Status.SEALED:
            raise SessionSealed(
                f"the session {self._session!r} is sealed: another one goes on after it, and nothing may be appended "
                "to this one any more; append to its successor"
            )
        if status is Status.FULL:
            raise ServerRefused(f"the session {self._session!r} has given out all its log sequences; begin another one")

    @property
    def _restless(self) -> str:
        return (
            f"the progress of the writer {self._shown} in the session {self._session!r} changed under it again and "
            "again: another process appends under the same name or key; append from one of them, or use other names"
        )

    @property
    def _shown(self) -> str:
        return repr(self.identity.field.partition(":")[2])


def read_record(reply: Reply) -> tuple[Status, Record]:
    """A reply of ``APPEND`` or ``SYNCHRONISE``."""
    return Status(reply[0]), Record(*reply[1:])
