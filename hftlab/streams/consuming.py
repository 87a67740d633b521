"""``GroupConsumer``: one member of a consumer group, which reads, commits and keeps its lease by scripts alone.

Every call carries the member's token, and every read the id of the last entry that arrived here, so that nothing
depends on a reply: where the server has delivered more than arrived, the next read gets it out of what is pending.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from hftlab.errors import GroupLost, GroupTaken, ValidationError
from hftlab.events import EventType, SourceTable, SymbolTable
from hftlab.events.group_ports import Checkpoint, Commit, Committed, GroupPage, Holder, Letter
from hftlab.events.ports import SessionInfo
from hftlab.streams.commit_script import COMMIT
from hftlab.streams.effects import checked
from hftlab.streams.group_pages import GroupStream, Logs, Received
from hftlab.streams.group_scripts import ACQUIRE, CLAIM, READ, RELEASE, RENEW, GroupStatus
from hftlab.streams.holding import checkpoint_of, holder_text, mark_of, name_of
from hftlab.streams.keys import TYPE_ORDER, GroupKeys
from hftlab.streams.letter_entries import letter_fields, letter_of_entry
from hftlab.streams.liveness import is_dead
from hftlab.streams.reading import Reading
from hftlab.streams.stored import Page

_NS_PER_MS = 1_000_000
# Each slice of a claim, and of the letters, holds the server up for a millisecond or so.
_CLAIM_ENTRIES = 1_000
_LETTERS = 256
# How long one wait on the server is at most: short enough that a connection which died without a word is noticed.
_BLOCK_MS = 1_000
# More than this is decoded in the thread: 64 kB are some 4,000 rows, 0.5 ms.
_INLINE_BYTES = 1 << 16
_MOST_ACKS = 100_000


class GroupConsumer:
    """One member of a group of one session; see ``events.group_ports.GroupConsumer``. Made by ``manager.member``.

    ``read`` may be called for several types at once, ``commit`` once at a time. Cancelling any call is safe: what a
    cancelled read had fetched is given by the next one, and a cancelled commit may be repeated.
    """

    def __init__(
        self,
        reading: Reading,
        keys: GroupKeys,
        session: SessionInfo,
        types: frozenset[EventType],
        *,
        name: str,
        lease_s: float,
        tables: tuple[SymbolTable, SourceTable],
        now_ns: Callable[[], int],
    ) -> None:
        self._reading = reading
        self._connections = reading.connections
        self._keys = keys
        self._lease_ms = max(1, round(lease_s * 1_000))
        self._tables = tables
        self._now_ns = now_ns
        self._nonce = secrets.token_hex(8)
        self._turns = 0
        self._token = ""
        self._consumer = ""
        self._streams: dict[EventType, GroupStream] = {}
        self._holder: Holder | None = None
        self._calls: dict[object, float] = {}
        self._log = 0
        self._covering: tuple[int, dict[EventType, list[bytes]]] | None = None
        self.session = session
        self.group = keys.name
        self.name = name
        self.types = types

    # -- the lease ----------------------------------------------------------------------------------------------------

    @property
    def holder(self) -> Holder | None:
        """Who had the group when it was last asked for."""
        return self._holder

    async def acquire(self) -> Checkpoint | None:
        """Become the active member and take over what others left pending; None while another one is (``holder``).

        Some round trips, and one more for each thousand entries that are pending. Raises GroupLost, StreamErrors.
        """
        self._turns += 1
        token = f"{self._nonce}.{self._turns}"
        said = holder_text(self.name)
        reply = await self._ask_for_lease(token, said, "")
        if reply[0] == GroupStatus.TAKEN and is_dead(mark_of(reply[1])):
            # Only this very holder: another one may have come since.
            reply = await self._ask_for_lease(token, said, reply[2])
        if reply[0] == GroupStatus.TAKEN:
            return None
        self._check(reply)
        epoch = int(reply[3])
        fields = dict(zip(reply[6][::2], reply[6][1::2], strict=True))
        checkpoint = checkpoint_of(fields)
        self._token, self._consumer, self._covering, self._streams = token, f"{self.name}#{epoch}", None, {}
        self._log = checkpoint.log_sequence
        for event_type in self._wanted():
            await self._claim(event_type)
        self._streams = {
            one: GroupStream(
                self._keys.session.streams[one], one, self.session.number, checkpoint, last, self._tables,
                self._now_ns,
            )
            for one, last in zip(self._wanted(), reply[7], strict=True)
        }  # fmt: skip
        return checkpoint

    async def _ask_for_lease(self, token: str, said: str, forced: Any) -> Any:
        keys = self._keys
        names = (keys.session.meta, keys.hash, *(keys.session.streams[one] for one in self._wanted()))
        reply = await self._run(ACQUIRE, names, keys.name, token, said, self._lease_ms, forced)
        if len(reply) >= 6:
            self._holder = Holder(
                name_of(reply[1]), int(reply[3]), int(reply[4]) * _NS_PER_MS, int(reply[5]) * _NS_PER_MS
            )
        return reply

    async def _claim(self, event_type: EventType) -> None:
        now = asyncio.get_running_loop().time
        renewed_s, cursor = now(), b"0-0"
        while True:
            names = (self._keys.session.meta, self._keys.hash, self._keys.session.streams[event_type])
            reply = await self._run(
                CLAIM, names, self.group, self._token, self._consumer, cursor, _CLAIM_ENTRIES
            )  # fmt: skip
            cursor = self._check(reply)[1]
            if cursor == b"0-0":
                return
            if now() - renewed_s > self._lease_ms / 4_000:
                renewed_s = now()
                await self.renew()

    async def renew(self) -> None:
        """Stay the active member for another ``lease_s``. Raises GroupTaken, GroupLost."""
        self._check(await self._run(RENEW, self._names, self._mine(), self._lease_ms))

    async def release(self) -> None:
        """Let the next one be active at once. Harmless when repeated, or when another one is."""
        token, self._token = self._token, ""
        self._streams = {}
        if token:
            await self._run(RELEASE, (self._keys.hash,), token)

    async def close(self) -> None:
        """Forget what was received here; the lease is left to run out."""
        self._token = ""
        self._streams = {}

    # -- reading ------------------------------------------------------------------------------------------------------

    async def read(self, event_type: EventType, rows: int) -> GroupPage:
        """The next rows of a stream, at most ``rows`` of them or one entry's; never waits for new ones.

        First come the entries that were pending when the group was taken over, then what is new; the first read of a
        stream asks for one entry. A round trip, or none where the last one brought more than was wanted. Raises
        GroupTaken, GroupLost, StreamErrors. About 0.15 µs a row.
        """
        stream = self._stream(event_type)
        async with stream.lock:
            if not stream.waiting:
                count = stream.count(rows)
                stream.receive(await self._fetch(stream, count), count)
            if stream.decoding is None:
                part = stream.take(rows)
                if sum(len(fields[-1]) for _, fields in part if fields) <= _INLINE_BYTES:
                    return self._given(stream, part, stream.decode(part))
                future = asyncio.get_running_loop().run_in_executor(self._reading.decoder(), stream.decode, part)
                stream.decoding = part, future
            part, future = stream.decoding
            # Cancelled here, the next call goes on waiting for the same part.
            pages = await asyncio.shield(future)
            stream.decoding = None
            return self._given(stream, part, pages)

    def _given(self, stream: GroupStream, part: Sequence[Any], pages: Sequence[Page]) -> GroupPage:
        given = stream.page(part, pages)
        counters = self._connections.counters
        counters.entries_read += given.entries
        counters.events_read += sum(map(len, given.batches))
        counters.bytes_read += sum(page.stored_bytes for page in pages)
        counters.damaged += len(given.damaged)
        return given

    async def _fetch(self, stream: GroupStream, count: int) -> Received:
        names = (*self._names, stream.key)
        reply = self._check(
            await self._run(READ, names, self.group, self._mine(), self._consumer, stream.after, count)
        )  # fmt: skip
        _, events, successor, pending, delivered, entries = reply
        return Received(entries, bool(pending), delivered, int(events), successor.decode())

    async def wait(self, event_type: EventType, timeout_s: float) -> None:
        """Return when the stream may have more than was read, after ``timeout_s``, or after a second at the latest.

        Needs a connection for as long as it waits; cancelling it closes that one. Raises StreamErrors.
        """
        stream = self._stream(event_type)
        if stream.waiting or timeout_s <= 0:
            return
        block_ms = max(1, min(_BLOCK_MS, int(timeout_s * 1_000)))
        allowed_s = block_ms / 1_000 + self._connections.policy.deadline_s / 2
        with self._owing(block_ms / 1_000):
            await self._connections.call(
                "XREAD", "COUNT", 1, "BLOCK", block_ms, "STREAMS", stream.key, stream.after, timeout_s=allowed_s
            )

    # -- committing ---------------------------------------------------------------------------------------------------

    async def commit(self, commit: Commit) -> Committed:
        """Save a position with all that goes with it, and acknowledge the entries that it covers. One round trip.

        A repeated commit (the same serial) changes nothing and gets the first one's result. Transactions that can't be
        done (a key of another type, a text where a number is needed, a command that is not allowed) are left out as a
        whole and told in ``refused``; the rest is done. Raises ValidationError for a serial that is not the last one's
        successor and for a position that goes back, GroupTaken, GroupLost, ServerRefused (nothing was written then).
        """
        token = self._mine()
        if commit.log_sequence < self._log:
            raise ValidationError(f"a group's position never goes back from {self._log}; got {commit.log_sequence}")
        acks = self._acks(commit)
        effects = checked(commit.transactions, self._reading.keys)
        topics = [(one.topic, stream.touched) for one, stream in self._streams.items() if stream.touched]
        arguments: list[Any] = [
            self.group, token, commit.serial, self._lease_ms, commit.log_sequence, " ".join(map(str, commit.held)),
            commit.state, len(topics),
        ]  # fmt: skip
        for topic, touched in topics:
            arguments += (f"entry:{topic}", touched)
        for one in TYPE_ORDER:
            ids = acks.get(one, [])
            arguments += (len(ids), *ids)
        arguments += (len(commit.settled), *commit.settled, len(commit.letters))
        for letter in commit.letters:
            fields = letter_fields(letter)
            arguments += (len(fields), *fields)
        session = self._keys.session
        names = (session.meta, self._keys.hash, self._keys.letters, *session.streams.values(), *effects.keys)
        reply = await self._run(COMMIT, names, *arguments, *effects.arguments)
        if reply[0] == GroupStatus.OUT_OF_TURN:
            raise ValidationError(
                f"a commit's serial is one more than the last one's, which is {int(reply[1])}; got {commit.serial}"
            )
        acknowledged, *refused = json.loads(self._check(reply)[1].decode(errors="replace"))
        for one, ids in acks.items():
            if one in self._streams:
                self._streams[one].acknowledged(ids)
        self._log, self._covering = commit.log_sequence, None
        told = [*effects.refused, *((index, self._shown(words)) for index, words in refused)]
        return Committed(acknowledged, tuple(sorted(told)))

    def _acks(self, commit: Commit) -> dict[EventType, list[bytes]]:
        """What a commit acknowledges. The same for a repeated one: what was given since may not be handled."""
        if self._covering is None or self._covering[0] != commit.serial:
            held: Logs = np.array(commit.held, np.int64)
            found = {one: s.covered(commit.log_sequence, held)[:_MOST_ACKS] for one, s in self._streams.items()}
            self._covering = commit.serial, found
        return self._covering[1]

    def _shown(self, words: str) -> str:
        """The users' word for a key, where the server's is named."""
        return words.replace(self._reading.keys.user(""), "")

    # -- looking ------------------------------------------------------------------------------------------------------

    async def letters(self, *, due_before_ns: int | None = None, count: int = 1_000) -> list[Letter]:
        """The letters that are kept, the oldest first; with ``due_before_ns`` only those to be tried by then.

        Goes through all letters until it has ``count``: a round trip for 256 of them. Raises CodecError for entries
        that are no letters.
        """
        found: list[Letter] = []
        start = "-"
        while len(found) < count:
            entries = await self._call("XRANGE", self._keys.letters, start, "+", "COUNT", _LETTERS)
            for entry_id, fields in entries:
                letter = letter_of_entry(entry_id, fields)
                if due_before_ns is None or 0 < letter.due_ns <= due_before_ns:
                    found.append(letter)
            if len(entries) < _LETTERS:
                break
            start = f"({entries[-1][0].decode()}"
        return found[:count]

    async def backlog(self) -> int:
        """How many rows of the session, of all types, lie beyond the last commit's position. Raises GroupLost."""
        with self._owing():
            events, log = await self._connections.call_many(
                [("HGET", self._keys.session.meta, "events"), ("HGET", self._keys.hash, "log")]
            )
        if events is None or log is None:
            raise self._lost(GroupStatus.NO_SESSION if events is None else GroupStatus.NO_GROUP)
        return max(0, int(events) - int(log))

    @property
    def silent_s(self) -> float:
        """For how long the server has owed an answer; 0.0 while it does not. A wait owes none until its time is up."""
        if not self._calls:
            return 0.0
        return max(0.0, asyncio.get_running_loop().time() - min(self._calls.values()))

    def __repr__(self) -> str:
        state = "active" if self._token else "standing by"
        return f"GroupConsumer({self.name!r} of {self.group!r} in {self.session.name!r}: {state}, at {self._log:,})"

    # -- inside -------------------------------------------------------------------------------------------------------

    def _wanted(self) -> list[EventType]:
        return [one for one in TYPE_ORDER if one in self.types]

    @property
    def _names(self) -> tuple[str, str]:
        return self._keys.session.meta, self._keys.hash

    def _mine(self) -> str:
        if not self._token:
            raise GroupTaken(
                f"{self.name!r} is not the active member of the group {self.group!r}: become it with acquire()"
            )
        return self._token

    def _stream(self, event_type: EventType) -> GroupStream:
        self._mine()
        stream = self._streams.get(event_type)
        if stream is None:
            words = ", ".join(one.topic for one in self._wanted())
            raise ValidationError(f"the group {self.group!r} reads {words}; got {event_type!r:.100}")
        return stream

    def _check(self, reply: Any) -> Any:
        """The reply, where it is none that refuses. Raises GroupTaken, GroupLost."""
        if reply[0] in (GroupStatus.DONE, GroupStatus.REPEATED):
            return reply
        if reply[0] == GroupStatus.TAKEN:
            other = name_of(reply[1]) or "nobody: it was released, or moved"
            raise GroupTaken(
                f"{self.name!r} does not have the group {self.group!r} of the session {self.session.name!r} any more "
                f"(who has it: {other}), and may neither read nor commit; stand by with acquire()"
            )
        raise self._lost(reply[0])

    def _lost(self, status: int) -> GroupLost:
        gone = "its session" if status == GroupStatus.NO_SESSION else "it, or its place in one of the streams"
        return GroupLost(
            f"the group {self.group!r} of the session {self.session.name!r} (number {self.session.number}) is lost: "
            f"{gone} does not exist any more (deleted, destroyed, FLUSHALL, or a server without its data). Begin anew: "
            "await manager.groups.destroy(session, group) if it is half there, then make the member again with "
            "start=… where it is to go on"
        )

    async def _run(self, script: Any, names: Sequence[str], *arguments: Any) -> Any:
        with self._owing():
            return await self._connections.run(script, names, *arguments)

    async def _call(self, *command: Any) -> Any:
        with self._owing():
            return await self._connections.call(*command)

    @contextmanager
    def _owing(self, from_now_s: float = 0.0) -> Iterator[None]:
        call = object()
        self._calls[call] = asyncio.get_running_loop().time() + from_now_s
        try:
            yield
        finally:
            del self._calls[call]
