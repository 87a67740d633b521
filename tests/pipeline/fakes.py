"""A log in memory whose groups keep the promises of ``events.group_ports``, and fail where a test wants it.

Nothing here sleeps: each call takes one turn of the loop before its effect and one behind it, and leases run out when
``expire`` is called. ``FakeLog.on_call`` is asked around every effect, and may raise, wait, or cut the caller off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pytest

from hftlab.bus import EventBus
from hftlab.errors import GroupLost, GroupTaken, ServerUnreachable, UnknownSession
from hftlab.events import Event, EventBatch, EventType, SourceTable, SymbolTable
from hftlab.events.group_ports import Checkpoint, Commit, Committed, Effect, GroupPage, Holder, Letter
from hftlab.events.ports import SessionInfo
from hftlab.events.records import MAX_LOG_SEQUENCE, event_id
from hftlab.events.rowbytes import copy_rows
from hftlab.pipeline import EventProcessor, committing, reading, serving
from hftlab.pipeline.settings import ProcessorSettings

NOW_NS = 1_700_000_000_000_000_000
NOTHING = Committed(0)


@dataclass
class FakeSession:
    """A session's entries by stream; ``None`` is an entry that was deleted."""

    name: str
    number: int
    entries: dict[EventType, list[EventBatch | None]] = field(default_factory=lambda: {one: [] for one in EventType})
    events: int = 0
    successor: str = ""
    groups: dict[str, FakeGroup] = field(default_factory=dict)
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    def info(self) -> SessionInfo:
        return SessionInfo(self.name, self.number, self.events, 0, 0, {}, ())


@dataclass
class FakeGroup:
    """What a server keeps for a group."""

    log: int
    holder: FakeConsumer | None = None
    epoch: int = 0
    serial: int = 0
    result: Committed = NOTHING
    held: tuple[int, ...] = ()
    state: bytes = b""
    letters: dict[str, Letter] = field(default_factory=dict)
    delivered: dict[EventType, int] = field(default_factory=lambda: dict.fromkeys(EventType, 0))
    pending: dict[EventType, set[int]] = field(default_factory=lambda: {one: set() for one in EventType})
    commits: list[Commit] = field(default_factory=list)


@dataclass
class Call:
    """One call that a member makes: ``done`` once its effect has happened. ``number`` counts all calls of the log."""

    member: FakeConsumer
    method: str
    number: int
    done: bool


class FakeLog:
    """Implements ``events.group_ports.GroupLog``. ``values`` are the users' keys."""

    def __init__(self) -> None:
        self.sessions: dict[str, FakeSession] = {}
        self.values: dict[str, Any] = {}
        self.calls = 0
        self.on_call: Callable[[Call], Awaitable[None] | None] = lambda call: None
        self.members: list[FakeConsumer] = []

    # -- what tests do ------------------------------------------------------------------------------------------------

    def append(self, batch: EventBatch, session: str = "day", *, entry_rows: int = 1 << 16) -> FakeSession:
        """Record rows at a session's end, in entries of one type each; makes the session if need be."""
        kept = self.sessions.setdefault(session, FakeSession(session, len(self.sessions) + 1))
        rows = copy_rows(batch.records)
        rows["log_sequence"] = kept.events + np.arange(len(rows))
        kept.events += len(rows)
        numbered = EventBatch(rows, batch.symbols, batch.sources, session_number=kept.number)
        for first in range(0, len(rows), entry_rows):
            piece = numbered[first : first + entry_rows]
            for event_type in piece.counts():
                kept.entries[event_type].append(piece.where(piece.records["type"] == event_type))
        self.grow(kept)
        return kept

    def grow(self, session: FakeSession) -> None:
        """Wake whoever waits for the session."""
        grown, session.grown = session.grown, asyncio.Event()
        grown.set()

    def seal(self, session: str, successor: str) -> None:
        """Say where a session goes on."""
        self.sessions[session].successor = successor
        self.grow(self.sessions[session])

    def group(self, group: str = "g", session: str = "day") -> FakeGroup:
        """What is kept of a group."""
        return self.sessions[session].groups[group]

    def expire(self, group: str = "g", session: str = "day") -> None:
        """Have the lease run out."""
        if group in self.sessions[session].groups:
            self.group(group, session).holder = None

    # -- GroupLog -----------------------------------------------------------------------------------------------------

    async def session(self, name: str) -> SessionInfo:
        await asyncio.sleep(0)
        return self._kept(name).info()

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
    ) -> FakeConsumer:
        kept = self._kept(session)
        member = FakeConsumer(self, kept, group, name or f"m{len(self.members)}", frozenset(types), (symbols, sources))
        async with member.calling("member"):
            known = kept.groups.get(group)
            if known is None or restart:
                log = (
                    0
                    if start in (None, "start")
                    else kept.events
                    if start == "now"
                    else start - event_id(kept.number, 0)
                )
                kept.groups[group] = fresh = FakeGroup(log)
                if known is not None:
                    fresh.serial, fresh.epoch, fresh.letters = known.serial, known.epoch, known.letters
        self.members.append(member)
        return member

    def _kept(self, name: str) -> FakeSession:
        if name not in self.sessions:
            raise UnknownSession(f"no session {name!r}")
        return self.sessions[name]


class FakeConsumer:
    """Implements ``events.group_ports.GroupConsumer``. ``dead``: its process is gone, nothing it does has an effect."""

    def __init__(
        self,
        log: FakeLog,
        kept: FakeSession,
        group: str,
        name: str,
        types: frozenset[EventType],
        tables: tuple[SymbolTable, SourceTable],
    ) -> None:
        self.session, self.group, self.name, self.types = kept.info(), group, name, types
        self.holder: Holder | None = None
        self.dead = self.closed = False
        self.silent_s = 0.0
        self._log, self._kept, self._tables = log, kept, tables
        self._cursor: dict[EventType, int] = {}
        self._given: dict[EventType, set[int]] = {}
        self._from, self._held = 0, np.zeros(0, np.int64)
        self._told = ""

    @asynccontextmanager
    async def calling(self, method: str) -> AsyncIterator[None]:
        """Around what a call does on the server: a turn of the loop each way, and whatever the test wants there."""
        self._log.calls += 1
        number = self._log.calls
        for done in (False, True):
            await asyncio.sleep(0)
            waited = self._log.on_call(Call(self, method, number, done))
            if waited is not None:
                await waited
            if self.dead:
                raise ServerUnreachable(f"{self.name} is dead: whatever it asks for does not arrive")
            if not done:
                yield

    def of(self, bus: EventBus) -> bool:
        """Whether it was made for this bus."""
        return self._tables[0] is bus.symbols

    def _standing(self, *, active: bool = True) -> FakeGroup:
        kept = self._log.sessions.get(self._kept.name)
        group = None if kept is not self._kept else kept.groups.get(self.group)
        if group is None:
            raise GroupLost(f"the group {self.group!r} is gone")
        if active and group.holder is not self:
            raise GroupTaken(f"{self.name!r} does not have the group {self.group!r}")
        return group

    async def acquire(self) -> Checkpoint | None:
        async with self.calling("acquire"):
            group = self._standing(active=False)
            if group.holder not in (None, self):
                assert group.holder is not None
                self.holder = Holder(group.holder.name, group.epoch, NOW_NS, NOW_NS)
                return None
            group.holder = self
            group.epoch += 1
            self.holder = Holder(self.name, group.epoch, NOW_NS, NOW_NS)
            self._cursor = dict.fromkeys(self.types, 0)
            self._given = {one: set() for one in self.types}
            self._from, self._held = group.log, np.array(group.held, np.int64)
            return Checkpoint(group.log, group.held, {}, group.serial, group.epoch, NOW_NS, group.state)

    async def read(self, event_type: EventType, rows: int) -> GroupPage:
        async with self.calling("read"):
            group, entries = self._standing(), self._kept.entries[event_type]
            found: list[EventBatch] = []
            redelivered = count = total = reached = 0
            at = self._cursor[event_type]
            while at < len(entries) and (not count or total < rows):
                known = at < group.delivered[event_type]
                entry, at = entries[at], at + 1
                if known and at - 1 not in group.pending[event_type]:
                    continue
                count += 1
                if not known:
                    group.delivered[event_type] = at
                    group.pending[event_type].add(at - 1)
                self._given[event_type].add(at - 1)
                if entry is None:
                    continue
                logs = entry.records["log_sequence"]
                total += len(logs)
                reached = int(logs[-1]) + 1
                fresh = entry.where((logs >= self._from) | np.isin(logs, self._held))
                redelivered += len(fresh) if known else 0
                if len(fresh):
                    found.append(fresh.using(*self._tables))
            if at == len(entries):
                reached = self._kept.events
            page = GroupPage(tuple(found), reached, self._kept.events, count, (), self._kept.successor, redelivered)
        # Only what has arrived here was received; the rest is given again out of what is pending.
        self._cursor[event_type], self._told = at, page.successor
        return page

    async def wait(self, event_type: EventType, timeout_s: float) -> None:
        seen = self._cursor[event_type], bool(self._told)
        async with self.calling("wait"):
            grown = self._kept.grown
            if seen == (len(self._kept.entries[event_type]), bool(self._kept.successor)):
                await grown.wait()

    async def commit(self, commit: Commit) -> Committed:
        async with self.calling("commit"):
            group = self._standing()
            if commit.serial != group.serial:
                assert commit.serial == group.serial + 1, "a commit's serial is one more than the last one's"
                assert commit.log_sequence >= group.log, "a group's position never goes back"
                group.result = Committed(self._acknowledge(group, commit), self._effects(commit))
                group.serial, group.log, group.held, group.state = (
                    commit.serial, commit.log_sequence, commit.held, commit.state,
                )  # fmt: skip
                for settled in commit.settled:
                    group.letters.pop(settled, None)
                for place, letter in enumerate(commit.letters, 1):
                    name = f"{commit.serial}-{place}"
                    group.letters[name] = msgspec.structs.replace(letter, letter_id=name)
                group.commits.append(commit)
            return group.result

    def _acknowledge(self, group: FakeGroup, commit: Commit) -> int:
        count = 0
        for event_type in self.types:
            for at in sorted(self._given[event_type] & group.pending[event_type]):
                entry = self._kept.entries[event_type][at]
                logs = np.zeros(0, np.int64) if entry is None else entry.records["log_sequence"]
                if (logs < commit.log_sequence).all() and not np.isin(logs, commit.held).any():
                    group.pending[event_type].discard(at)
                    count += 1
        return count

    def _effects(self, commit: Commit) -> tuple[tuple[int, str], ...]:
        refused: list[tuple[int, str]] = []
        for place, effects in enumerate(commit.transactions):
            before = dict(self._log.values)
            try:
                for effect in effects:
                    _apply(self._log.values, effect)
            except (TypeError, AttributeError, ValueError) as error:
                self._log.values = before
                refused.append((place, f"{type(error).__name__}: {error}"))
        return tuple(refused)

    async def renew(self) -> None:
        async with self.calling("renew"):
            self._standing()

    async def release(self) -> None:
        async with self.calling("release"):
            group = self._kept.groups.get(self.group)
            if group is not None and group.holder is self:
                group.holder = None

    async def letters(self, *, due_before_ns: int | None = None, count: int = 1_000) -> list[Letter]:
        async with self.calling("letters"):
            group = self._kept.groups.get(self.group)
            kept = [] if group is None else list(group.letters.values())
            return [one for one in kept if due_before_ns is None or 0 < one.due_ns <= due_before_ns][:count]

    async def backlog(self) -> int:
        async with self.calling("backlog"):
            return self._kept.events - self._standing(active=False).log

    async def close(self) -> None:
        self.closed = True


def _apply(values: dict[str, Any], effect: Effect) -> None:
    """INCRBY, RPUSH and SET; others are none that tests need."""
    command, key, arguments = effect
    if command == "INCRBY":
        values[key] = values.get(key, 0) + int(arguments[0])
    elif command == "RPUSH":
        values[key] = values.get(key, []) + [int(one) for one in arguments]
    elif command == "SET":
        values[key] = arguments[0].decode()
    else:
        raise ValueError(f"no command {command}")


class Process:
    """One process with a processor of its own: ``crash`` ends it as SIGKILL does, and its lease runs out."""

    def __init__(self, log: FakeLog, bus: EventBus | None = None, **settings: Any) -> None:
        self.log = log
        self.bus = bus or EventBus()
        settings = {"group": "g", "session": "day", "checkpoint_s": 0.001, "lease_s": 30.0, **settings}
        self.processor = EventProcessor(log, self.bus, ProcessorSettings(**settings))

    @property
    def members(self) -> list[FakeConsumer]:
        """What its processor was in the log's groups."""
        return [member for member in self.log.members if member.of(self.bus)]

    def cut_off(self) -> None:
        """From now on nothing that it does has an effect."""
        for member in self.members:
            member.dead = True
            self.log.expire(member.group, member.session.name)

    async def crash(self) -> None:
        """Cut it off, and clear away what is left of it here."""
        self.cut_off()
        await self.processor._supervisor.close()

    def count_in_transactions(self) -> None:
        """Three kinds of handlers, which note what they handled in lists of the log's ``values``."""
        bus, processor = self.bus, self.processor

        @bus.on(name="one by one")
        def note(event: Event) -> None:
            with processor.transaction() as tx:
                tx.rpush("events", event.event_id & MAX_LOG_SEQUENCE).incr("count")

        @bus.on(mode="batch", batch_rows=7, name="batches")
        def note_batch(batch: EventBatch) -> None:
            with processor.transaction() as tx:
                tx.rpush("batches", *batch.records["log_sequence"].tolist())

        @bus.on(name="awaited")
        async def note_later(event: Event) -> None:
            await asyncio.sleep(0)
            async with processor.transaction() as tx:
                tx.rpush("awaited", event.event_id & MAX_LOG_SEQUENCE)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried again at once."""
    for module in (committing, reading, serving):
        monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.0005)
        monkeypatch.setattr(module, "_LONGEST_PAUSE_S", 0.002)
    monkeypatch.setattr(serving, "_LOOK_S", 0.002)


async def until(condition: Callable[[], object], what: str = "it") -> None:
    """Wait for a condition; fails after 20 s."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # anything may change it
            await asyncio.sleep(0.0005)
