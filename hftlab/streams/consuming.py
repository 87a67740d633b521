"""``GroupConsumer``: one member of a consumer group, which reads, commits and keeps its lease by scripts alone.

Every call carries the member's token, and every read the id of the last entry that arrived here, so that nothing
depends on a reply: where the server has delivered more than arrived, the next read gets it out of what is pending.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hftlab.errors import ValidationError
from hftlab.events import EventType, SourceTable, SymbolTable
from hftlab.events.group_ports import Checkpoint, Commit, Committed, GroupPage, Holder, Letter
from hftlab.events.ports import SessionInfo
from hftlab.streams.commit_script import COMMIT
from hftlab.streams.effects import checked
from hftlab.streams.group_pages import GroupStream, Logs, Received
from hftlab.streams.group_scripts import READ, GroupStatus
from hftlab.streams.keys import TYPE_ORDER, GroupKeys
from hftlab.streams.letter_entries import letter_fields, letter_of_entry
from hftlab.streams.membership import Membership
from hftlab.streams.reading import Reading
from hftlab.streams.stored import Page

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
        self._keys = keys
        self._wanted = tuple(one for one in TYPE_ORDER if one in types)
        self._membership = Membership(reading.connections, keys, session, self._wanted, name=name, lease_s=lease_s)
        self._tables = tables
        self._now_ns = now_ns
        self._streams: dict[EventType, GroupStream] = {}
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
        return self._membership.holder

    async def acquire(self) -> Checkpoint | None:
        """Become the active member and take over what others left pending; None while another one is (``holder``).

        The group is free when nobody has it, when the lease has run out (by the server's clock), or when the process
        that has it ran on this machine and is dead. Some round trips, and one more for each thousand entries that are
        pending. Again, by the active member: all that is not committed is given anew. Raises GroupLost, StreamErrors.
        """
        self._streams, self._covering = {}, None
        taken = await self._membership.acquire()
        if taken is None:
            return None
        checkpoint = taken.checkpoint
        self._log = checkpoint.log_sequence
        streams, number = self._keys.session.streams, self.session.number
        self._streams = {
            one: GroupStream(streams[one], one, number, checkpoint, last, self._tables, self._now_ns)
            for one, last in zip(self._wanted, taken.delivered, strict=True)
        }
        return checkpoint

    async def renew(self) -> None:
        """Stay the active member for another ``lease_s``. Raises GroupTaken, GroupLost."""
        await self._membership.renew()

    async def release(self) -> None:
        """Let the next one be active at once. Harmless when repeated, or when another one is."""
        self._streams = {}
        await self._membership.release()

    async def close(self) -> None:
        """Forget what was received here; the lease is left to run out."""
        self._membership.token = ""
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
        counters = self._reading.connections.counters
        counters.entries_read += given.entries
        counters.events_read += sum(map(len, given.batches))
        counters.bytes_read += sum(page.stored_bytes for page in pages)
        counters.damaged += len(given.damaged)
        return given

    async def _fetch(self, stream: GroupStream, count: int) -> Received:
        member = self._membership
        names = (*member.names, stream.key)
        reply = member.check(
            await member.run(READ, names, self.group, member.mine(), member.consumer, stream.after, count)
        )
        _, events, successor, pending, delivered, entries, trimmed = reply
        return Received(entries, bool(pending), delivered, int(events), successor.decode(), int(trimmed or 0))

    async def wait(self, event_type: EventType, timeout_s: float) -> None:
        """Return when the stream may have more than was read, after ``timeout_s``, or after a second at the latest.

        Needs a connection for as long as it waits; cancelling it closes that one. Raises StreamErrors.
        """
        stream = self._stream(event_type)
        if stream.waiting or timeout_s <= 0:
            return
        block_ms = max(1, min(_BLOCK_MS, int(timeout_s * 1_000)))
        connections = self._reading.connections
        allowed_s = block_ms / 1_000 + connections.policy.deadline_s / 2
        with self._membership.owing(block_ms / 1_000):
            await connections.call(
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
        member = self._membership
        token = member.mine()
        if commit.log_sequence < self._log:
            raise ValidationError(f"a group's position never goes back from {self._log}; got {commit.log_sequence}")
        acks = self._acks(commit)
        effects = checked(commit.transactions, self._reading.keys)
        arguments = [self.group, token, commit.serial, member.lease_ms, *self._position(commit, acks)]
        session = self._keys.session
        names = (*member.names, self._keys.letters, *session.streams.values(), *effects.keys)
        reply = await member.run(COMMIT, names, *arguments, *effects.arguments)
        if reply[0] == GroupStatus.OUT_OF_TURN:
            raise ValidationError(
                f"a commit's serial is one more than the last one's, which is {int(reply[1])}; got {commit.serial}"
            )
        member.check(reply)
        acknowledged, *refused = json.loads(reply[1].decode(errors="replace"))
        for one, ids in acks.items():
            if one in self._streams:
                self._streams[one].acknowledged(ids)
        self._log, self._covering = commit.log_sequence, None
        told = [*effects.refused, *((index, self._shown(words)) for index, words in refused)]
        return Committed(acknowledged, tuple(sorted(told)))

    def _position(self, commit: Commit, acks: dict[EventType, list[bytes]]) -> list[Any]:
        """A commit as the script's arguments from the log sequence to the letters."""
        topics = [(one.topic, stream.touched) for one, stream in self._streams.items() if stream.touched]
        arguments: list[Any] = [commit.log_sequence, " ".join(map(str, commit.held)), commit.state, len(topics)]
        for topic, touched in topics:
            arguments += (f"entry:{topic}", touched)
        for one in TYPE_ORDER:
            ids = acks.get(one, [])
            arguments += (len(ids), *ids)
        arguments += (len(commit.settled), *commit.settled, len(commit.letters))
        for letter in commit.letters:
            fields = letter_fields(letter)
            arguments += (len(fields), *fields)
        return arguments

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
            with self._membership.owing():
                entries = await self._reading.connections.call(
                    "XRANGE", self._keys.letters, start, "+", "COUNT", _LETTERS
                )
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
        member = self._membership
        with member.owing():
            events, log = await member.connections.call_many(
                [("HGET", self._keys.session.meta, "events"), ("HGET", self._keys.hash, "log")]
            )
        if events is None or log is None:
            raise member.lost(GroupStatus.NO_SESSION if events is None else GroupStatus.NO_GROUP)
        return max(0, int(events) - int(log))

    @property
    def silent_s(self) -> float:
        """For how long the server has owed an answer; 0.0 while it does not. A wait owes none until its time is up."""
        return self._membership.silent_s

    def __repr__(self) -> str:
        state = "active" if self._membership.token else "standing by"
        return f"GroupConsumer({self.name!r} of {self.group!r} in {self.session.name!r}: {state}, at {self._log:,})"

    # -- inside -------------------------------------------------------------------------------------------------------

    def _stream(self, event_type: EventType) -> GroupStream:
        self._membership.mine()
        stream = self._streams.get(event_type)
        if stream is None:
            words = ", ".join(one.topic for one in self._wanted)
            raise ValidationError(f"the group {self.group!r} reads {words}; got {event_type!r:.100}")
        return stream
