"""Writers: what an append gives back, and the named, fenced writer for recorders."""

from __future__ import annotations

import asyncio
import html
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from hftlab.errors import StreamError, UnknownSession
from hftlab.events import EventBatch
from hftlab.events.records import event_id
from hftlab.streams.appending import Appending, Identity, Pipeline, Record, read_record
from hftlab.streams.cutting import BatchRows, Format
from hftlab.streams.keys import SessionKeys
from hftlab.streams.scripts import SYNCHRONISE

MOST_WAITING = 4_096
"""How many calls of one writer may wait for their turn: each holds a task and its batch, some 4 kB for an event."""


@dataclass(frozen=True, repr=False)
class AppendResult:
    """What an append did, or had done before.

    ``first_event_id`` and ``last_event_id`` are those of the batch's first and last event (0 for an empty batch; other
    writers' events may lie between them), ``entries`` and ``stored_bytes`` what they became in the streams.
    ``duplicate``: everything was there already, and this call wrote nothing.
    """

    session: str
    number: int
    first_event_id: int
    last_event_id: int
    events: int
    entries: int
    stored_bytes: int
    duplicate: bool = False

    def __repr__(self) -> str:
        there = ", there already" if self.duplicate else ""
        return f"AppendResult({self.session!r}: {self.events:,} events in {self.entries:,} entries{there})"

    def _repr_html_(self) -> str:
        said = {
            "session": self.session,
            "events": f"{self.events:,}" + (" (there already: nothing was written)" if self.duplicate else ""),
            "entries": f"{self.entries:,}",
            "stored": f"{self.stored_bytes:,} bytes",
        }
        rows = "".join(
            f"<tr><th style='text-align:left'>{k}</th><td>{html.escape(v)}</td></tr>" for k, v in said.items()
        )
        return f"<table>{rows}</table>"


def result(session: str, number: int, events: int, record: Record | None, *, duplicate: bool = False) -> AppendResult:
    """The result of appending ``events`` rows, from what the server knows of their writer."""
    if not events or record is None:
        return AppendResult(session, number, 0, 0, 0, 0, 0)
    return AppendResult(
        session=session,
        number=number,
        first_event_id=event_id(number, record.first),
        last_event_id=event_id(number, record.last),
        events=events,
        entries=record.entries,
        stored_bytes=record.stored_bytes,
        duplicate=duplicate,
    )


class Writer:
    """A writer with a name, of which there is one at a time: whoever claims the name next fences this one off.

    Made by ``RedisStreamManager.writer``. ``append`` calls are done in the order in which they were made. The server
    counts the rows that were written under the name, over all writers that ever had it: ``rows`` at the time of the
    claim tells a recorder that starts again how far the one before it got.
    """

    def __init__(self, pipeline: Pipeline, keys: SessionKeys, session: str, name: str) -> None:
        self._pipeline = pipeline
        self._keys = keys
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._nonce = secrets.token_hex(8)
        self._claims = 0
        # None: the server must be asked, because calls of an earlier append may still be under way.
        self._record: Record | None = None
        self.session = session
        self.name = name
        self.rows = 0

    async def claim(self) -> None:
        """Take the name over. One round trip; a new token each time, so a repeated call does no harm."""
        identity = self._renewed()
        reply = await self._pipeline.connections.run(
            SYNCHRONISE, (self._keys.meta, self._keys.writers), identity.field, "take", identity.token, identity.digest
        )
        _, record = read_record(reply)
        if reply[0] != 1:
            raise UnknownSession(f"the session {self.session!r} was deleted while a writer was made for it")
        self._record, self.rows = record, record.rows

    async def append(self, batch: EventBatch, *, format: Format = "frames") -> AppendResult:
        """Append all rows of a batch; returns once all are acknowledged.

        Unlike the manager's ``append``, calling again with the same batch writes it again. Raises WriterFenced when
        another writer took the name, AppendConflict when the server lost acknowledged rows (also by FLUSHALL, when the
        session was made again), UnknownSession when the session was deleted, ServerUnreachable and ServerRefused after
        the deadline. Where it raises or is cancelled, none, some first part or all of the batch was written; ``rows``
        counts it once the next call has asked. Up to 4,096 calls wait for their turn; one more is refused with a
        StreamError.
        """
        async with self._turn():
            await self._pipeline.inspect(batch)
            if not len(batch):
                return result(self.session, self._keys.number, 0, None)
            if self._record is None:
                await self._resume()
            appending = Appending(
                self._pipeline, self._keys, self.session, BatchRows(batch), Identity(self._field, self._token),
                offset=self.rows, form=format, renew=self._renewed,
            )  # fmt: skip
            record, self._record = self._record, None
            self._record = await appending.run(record)
            self.rows = self._record.rows
            return result(self.session, self._keys.number, len(batch), self._record)

    async def settle(self) -> int:
        """How many rows were written under the name in all, once none is under way any more.

        After an append that raised or was cancelled: ``settle() - rows`` before it is how many of its rows are there.
        Costs nothing after one that returned, else a round trip. Raises like ``append``.
        """
        async with self._lock:
            if self._record is None:
                await self._resume()
            return self.rows

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait until the calls that were made before are done."""
        if self._waiting > MOST_WAITING:
            raise StreamError(
                f"{MOST_WAITING:,} calls wait for their turn already, and this one was not done: more is written as "
                f"the writer {self.name!r} of {self.session!r} than the server takes, or it does not answer. Await "
                "each call before the next one, or make a batch of many events"
            )
        self._waiting += 1
        try:
            async with self._lock:
                yield
        finally:
            self._waiting -= 1

    async def _resume(self) -> None:
        """Fence this writer's own older calls and learn which of them were applied."""
        nothing = Appending(
            self._pipeline, self._keys, self.session, BatchRows(EventBatch.empty()), Identity(self._field, self._token),
            offset=self.rows, renew=self._renewed,
        )  # fmt: skip
        self._record = await nothing.run()
        self.rows = self._record.rows

    def _renewed(self) -> Identity:
        self._claims += 1
        return Identity(self._field, self._token)

    @property
    def _field(self) -> str:
        return f"writer:{self.name}"

    @property
    def _token(self) -> str:
        return f"{self._nonce}.{self._claims}"

    def __repr__(self) -> str:
        return f"Writer({self.name!r} in {self.session!r}: {self.rows:,} rows)"
