"""The ports of the pipeline: what a processor needs of the log that it reads as a member of a consumer group.

::

    streams.GroupConsumer ──pages──► EventProcessor ──rows──► bus
            ▲                             │
            └──Commit: position, effects, letters──┘      one atomic step on the server

All times are ns UTC; all positions are log sequences of one session.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from hftlab.events.batch import EventBatch
from hftlab.events.ports import SessionInfo
from hftlab.events.records import EventType
from hftlab.events.tables import SourceTable, SymbolTable


class Checkpoint(msgspec.Struct, frozen=True):
    """How far a group has come in a session: every row before ``log_sequence`` is handled, but for those in ``held``.

    ``held``: the log sequences of rows that were read and wait for rows before them (rising). ``entries``: by topic
    word, the last entry that was touched, as ``"<entry id>/<rows of it that are handled>"``. ``serial`` counts the
    commits, ``epoch`` the owners that the group had. ``state`` is what the processor wants to find again, opaque.
    """

    log_sequence: int = 0
    held: tuple[int, ...] = ()
    entries: dict[str, str] = {}
    serial: int = 0
    epoch: int = 0
    saved_ns: int = 0
    state: bytes = b""


class Letter(msgspec.Struct, frozen=True):
    """A dead letter, or one that will be tried again: what one handler did not get done.

    ``letter_id``: where it is kept (empty: nowhere yet). ``frame``: the events, one or more, as a frame of their own
    (``events.frames``), or, for an entry that could not be read (``handler`` is empty then), its bytes.
    ``attempts``: how often the handler was tried in all. ``first_ns`` and ``at_ns``: of the first and the last failure.
    ``due_ns``: when it is tried again; 0: not by itself.
    """

    handler: str
    error: str
    attempts: int
    first_ns: int
    at_ns: int
    due_ns: int = 0
    log_sequence: int = -1
    session_number: int = 0
    events: int = 1
    event_type: str = ""
    symbol: str = ""
    frame: bytes = b""
    letter_id: str = ""

    def __repr__(self) -> str:
        what = (
            f"{self.events:,} events" if self.events != 1 else f"{self.event_type or 'an entry'} {self.symbol}".strip()
        )
        tried = f"tried {self.attempts:,} x" if self.attempts else "not tried"
        return (
            f"Letter({self.letter_id or 'not kept yet'}: {self.handler or 'unreadable'}, {what}, {tried}: {self.error})"
        )


class Effect(NamedTuple):
    """One command on a key of the user's: ``("HINCRBYFLOAT", "pnl", (b"BTCUSDT", b"1.5"))``.

    ``key`` is the user's word; the server's key is made from it.
    """

    command: str
    key: str
    arguments: tuple[bytes, ...]


class Commit(msgspec.Struct, frozen=True):
    """What becomes durable in one step: the position and all that goes with it.

    ``serial`` is one more than the last commit's: a repeated call changes nothing, and gets the first one's result.
    ``transactions``: the users' effects, each transaction as a whole or not at all. ``letters``: to be kept from now
    on; their ids are ``"<serial>-<index from 1>"``. ``settled``: ids of letters that are done with, or replaced.
    """

    serial: int
    log_sequence: int
    held: tuple[int, ...] = ()
    state: bytes = b""
    transactions: tuple[tuple[Effect, ...], ...] = ()
    letters: tuple[Letter, ...] = ()
    settled: tuple[str, ...] = ()


class Committed(NamedTuple):
    """What a commit did: entries acknowledged, and why which transactions were refused (index, the server's words)."""

    acknowledged: int
    refused: tuple[tuple[int, str], ...] = ()


class GroupPage(NamedTuple):
    """What one read of one stream gave.

    ``batches`` hold the rows that the group has not handled, rising in log sequence, under the reader's tables.
    ``reached``: every row of this stream before that log sequence was given by now, or is gone. ``events``: how many
    rows the session had then, of all types. ``entries``: how many were read. ``damaged``: what could not be read, as
    letters. ``successor``: the session that goes on after this one, once this one is sealed. ``redelivered``: rows of
    ``batches`` that were delivered before, to this owner or another. ``trimmed``: retention took what there was before
    that log sequence. ``appended``: how many rows of ``batches`` were written when, in their order: (rows, ns UTC by
    the server's clock, 0 where nobody knows).
    """

    batches: tuple[EventBatch, ...]
    reached: int
    events: int
    entries: int = 0
    damaged: tuple[Letter, ...] = ()
    successor: str = ""
    redelivered: int = 0
    trimmed: int = 0
    appended: tuple[tuple[int, int], ...] = ()


class Holder(msgspec.Struct, frozen=True):
    """Who is the active member of a group: its name, since when, and until when without a word from it."""

    name: str
    epoch: int
    since_ns: int
    until_ns: int


class GroupConsumer(Protocol):
    """One member of a group of one session. All methods raise the StreamErrors; those that need the lease raise
    GroupTaken once another member has it, and GroupLost when group or session are gone (destroyed, FLUSHALL)."""

    session: SessionInfo
    group: str
    name: str
    types: frozenset[EventType]

    async def acquire(self) -> Checkpoint | None:
        """Become the active member, and take over what others left pending. None: another one is (see ``holder``)."""
        ...

    @property
    def holder(self) -> Holder | None:
        """Who had the group when it was last asked for."""
        ...

    async def read(self, event_type: EventType, rows: int) -> GroupPage:
        """The next rows of a stream, about ``rows`` of them: first what was pending, then what is new. Never waits."""
        ...

    async def wait(self, event_type: EventType, timeout_s: float) -> None:
        """Wait until the stream may have more than was read; harmless to cancel."""
        ...

    async def commit(self, commit: Commit) -> Committed:
        """Save a position with all that goes with it, and acknowledge what it covers. Safe to repeat."""
        ...

    async def renew(self) -> None:
        """Stay the active member: to be called more often than the lease lasts. Commits do it, too."""
        ...

    async def release(self) -> None:
        """Let the next one be active at once. Harmless when repeated, or when another one is."""
        ...

    async def letters(self, *, due_before_ns: int | None = None, count: int = 1_000) -> list[Letter]:
        """The letters that are kept, the oldest first; with ``due_before_ns`` only those to be tried by then."""
        ...

    async def backlog(self) -> int:
        """How many rows of the session lie beyond the last commit's position."""
        ...

    @property
    def silent_s(self) -> float:
        """For how long the server has owed an answer; 0.0 while it does not."""
        ...

    async def close(self) -> None:
        """Free what the member holds here; the lease is left to run out (``release`` first gives it back)."""
        ...


class GroupLog(Protocol):
    """Where members of groups come from. ``streams.RedisStreamManager`` is one."""

    async def session(self, name: str) -> SessionInfo:
        """What the session of that name holds. Raises UnknownSession."""
        ...

    async def member(
        self,
        session: str,
        group: str,
        *,
        types: Sequence[EventType] | frozenset[EventType],
        start: Any = None,
        restart: bool = False,
        name: str | None = None,
        lease_s: float = 10.0,
        symbols: SymbolTable,
        sources: SourceTable,
    ) -> GroupConsumer:
        """A member of a group, which is made if need be; it begins at ``start`` then: ``"start"`` (None), ``"now"``, a
        time, or an event id. ``restart``: it is moved there even if it exists."""
        ...
