"""The consumer groups of a lab: made, listed, moved, destroyed. ``manager.groups`` is one ``Groups``."""

from __future__ import annotations

import difflib
import itertools
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from hftlab.errors import GroupLost, GroupTaken, ServerRefused, UnknownGroup, UnknownSession, ValidationError, shown
from hftlab.events import EventType, SourceTable, SymbolTable
from hftlab.events.group_ports import Letter
from hftlab.events.ports import LogRange, SessionInfo
from hftlab.streams.catalogue import Catalogue
from hftlab.streams.consuming import GroupConsumer
from hftlab.streams.group_scripts import DESTROY, MEMBER, GroupStatus
from hftlab.streams.holding import mark_of, name_of
from hftlab.streams.keys import TYPE_ORDER, GroupKeys, check_group, check_name
from hftlab.streams.letter_entries import letter_of_entry
from hftlab.streams.liveness import is_dead
from hftlab.streams.ranges import Place, Types, read_place, wanted_types
from hftlab.streams.reading import Reading
from hftlab.streams.scripts import LOCATE

if TYPE_CHECKING:
    import pandas as pd

_NS_PER_MS = 1_000_000
_LETTERS = 256
_members = itertools.count(1)


class GroupInfo(msgspec.Struct, frozen=True):
    """Where a consumer group stands.

    ``log_sequence``: every event below it is handled. ``lag``: how many events of the session lie beyond it, of all
    types. ``holder`` names the active member (empty: none), and ``state`` says what is known of it: ``"free"``,
    ``"held"``, ``"expired"`` (its lease ran out and nobody took over) or ``"dead"`` (its process has ended).
    ``pending``: entries that were delivered and not acknowledged. ``letters``: dead letters. ``saved_ns``: when it
    last committed.
    """

    group: str
    session: str
    types: tuple[str, ...]
    log_sequence: int
    lag: int
    holder: str
    state: str
    pending: int
    letters: int
    saved_ns: int

    def __repr__(self) -> str:
        letters = f", {self.letters:,} letters" if self.letters else ""
        stands = f"{self.state}, at {self.log_sequence:,}, {self.lag:,} to go{letters}"
        return f"GroupInfo({self.group} of {self.session}: {stands})"


# Within the class, list is a method.
Infos = list[GroupInfo]
Letters = list[Letter]
Names = list[str]
Commands = list[tuple[Any, ...]]


class Groups:
    """What consumer groups there are. Every call is a few round trips."""

    def __init__(self, reading: Reading, catalogue: Catalogue, now_ns: Callable[[], int]) -> None:
        self._reading = reading
        self._connections = reading.connections
        self._catalogue = catalogue
        self._now_ns = now_ns

    def __repr__(self) -> str:
        return "Groups(await groups.to_frame(session) shows who stands where; create, list, letters, move, destroy)"

    async def create(
        self, session: str, group: str, *, types: Types | None = None, start: Place | None = None
    ) -> GroupInfo:
        """Make a group that begins at ``start``: ``"start"`` (None), ``"now"``, a time, or an event's or entry's id.

        A group of that name and those types that exists is left as it is. Raises UnknownSession, TimeError, and
        ValidationError where the group reads other types.
        """
        info = await self._catalogue.info(session)
        keys = self._reading.keys.session(info.number).group(group)
        await self._place(info, keys, wanted_types(types), start, move=False)
        return (await self._infos(info, [group]))[0]

    async def list(self, session: str) -> Infos:
        """All groups of a session, by name. Raises UnknownSession."""
        info = await self._catalogue.info(session)
        return await self._infos(info, await self._names(info))

    async def to_frame(self, session: str) -> pd.DataFrame:
        """The groups of a session as a pandas DataFrame, a row a group. Raises UnknownSession."""
        import pandas as pd

        rows = [msgspec.structs.asdict(info) for info in await self.list(session)]
        frame = pd.DataFrame(rows, columns=[*GroupInfo.__struct_fields__])
        frame["types"] = [" ".join(types) for types in frame["types"]]
        frame["saved"] = pd.to_datetime(frame.pop("saved_ns"), utc=True)
        return frame

    async def move(self, session: str, group: str, to: Place) -> GroupInfo:
        """Let a group go on elsewhere (see ``create``): what it handled may be handled again, or events be skipped.

        Its dead letters stay. Raises UnknownGroup, and GroupTaken while a live member has it: stop that one first.
        """
        info, held = await self._existing(session, group)
        keys = self._reading.keys.session(info.number).group(group)
        await self._place(info, keys, wanted_types(held.types), to, move=True)
        return (await self._infos(info, [group]))[0]

    async def destroy(self, session: str, group: str) -> None:
        """Remove a group, its position and its dead letters. Raises UnknownGroup.

        An active member makes it again from its last commit; what it had not committed goes through its handlers again.
        """
        info = await self._catalogue.info(session)
        keys = self._reading.keys.session(info.number).group(group)
        names = (keys.session.groups, keys.hash, keys.letters, *keys.session.streams.values())
        known = await self._names(info)
        if group not in known:
            raise _unknown(group, info.name, known)
        await self._connections.run(DESTROY, names, group)

    async def letters(self, session: str, group: str, *, count: int = 100_000) -> Letters:
        """The first ``count`` dead letters of a group, the oldest first, without joining it; a round trip for 256.

        Raises UnknownGroup, and CodecError for entries that are no letters.
        """
        info, _ = await self._existing(session, group)
        key = self._reading.keys.session(info.number).group(group).letters
        found: Letters = []
        start = "-"
        while len(found) < count:
            entries = await self._connections.call("XRANGE", key, start, "+", "COUNT", _LETTERS)
            found += [letter_of_entry(entry_id, fields) for entry_id, fields in entries]
            if len(entries) < _LETTERS:
                break
            start = f"({entries[-1][0].decode()}"
        return found[:count]

    async def member(
        self,
        session: str,
        group: str,
        *,
        types: Types | None,
        start: Any = None,
        restart: bool = False,
        name: str | None = None,
        lease_s: float = 10.0,
        symbols: SymbolTable,
        sources: SourceTable,
    ) -> GroupConsumer:
        """A member of a group; see ``RedisStreamManager.member``."""
        if isinstance(lease_s, bool) or not isinstance(lease_s, (int, float)) or not 0.01 <= lease_s <= 3_600:
            raise ValidationError(f"lease_s is 0.01 to 3,600 seconds; got {shown(lease_s)}")
        own = f"{socket.gethostname()}-{os.getpid()}-{next(_members)}"[:100] if name is None else name
        info = await self._catalogue.info(session)
        keys = self._reading.keys.session(info.number).group(group)
        wanted = wanted_types(types)
        if not wanted:
            raise ValidationError("a group reads one type of event at least; got none")
        await self._place(info, keys, wanted, start, move=restart)
        return GroupConsumer(
            self._reading, keys, info, wanted, name=check_name("a member's name", own), lease_s=lease_s,
            tables=(symbols, sources), now_ns=self._now_ns,
        )  # fmt: skip

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _place(
        self, info: SessionInfo, keys: GroupKeys, types: frozenset[EventType], start: Any, *, move: bool
    ) -> None:
        """Make a group where it is to begin, or move it there. One that is to be made and is there stays as it is, but
        for the streams that have lost it: there it goes on from its position."""
        wanted = [one for one in TYPE_ORDER if one in types]
        streams = [keys.session.streams[one] for one in wanted]
        log: int | str = "start" if start is None else start if start in ("start", "now") else -1
        ids = ["-"] * len(streams)
        if log == -1:
            log = await self._log_at(info, types, start)
            ids = await self._ids_before(streams, log)
        names = (keys.session.meta, keys.session.groups, keys.hash, *streams)
        words = " ".join(sorted(one.topic for one in wanted))
        forced: Any = ""
        mode = "move" if move else "make"
        while True:
            reply = await self._connections.run(MEMBER, names, keys.name, words, log, mode, forced, *ids)
            if reply[0] == GroupStatus.HALF:
                mode, ids = "mend", await self._ids_before(streams, await self._position(keys))
                continue
            if reply[0] != GroupStatus.TAKEN or not is_dead(mark_of(reply[1])) or forced == reply[2]:
                break
            forced = reply[2]
        _check(reply, info, keys.name, words)

    async def _ids_before(self, streams: Names, log: int) -> Names:
        """For each stream the id behind which all rows from a log sequence on are."""
        found = await self._connections.run(LOCATE, streams, log)
        return ["0" if one == b"-" else before(one.decode()) for one in found]

    async def _position(self, keys: GroupKeys) -> int:
        """The first log sequence that a group has not handled; one that moves on meanwhile has handled more."""
        log, held = await self._connections.call("HMGET", keys.hash, "log", "held")
        return min([int(log or 0), *map(int, (held or b"").split())])

    async def _log_at(self, info: SessionInfo, types: frozenset[EventType], start: Any) -> int:
        """The log sequence that a place means: for a time, of the first row that arrived then or later."""
        bound = read_place(start, info)
        if bound.log_sequence is not None:
            return bound.log_sequence
        if bound.entry_id is not None:
            return await self._reading.log_of_entry(info, bound.entry_id)
        wanted = LogRange(types=types, start_ns=bound.time_ns)
        batches = self._reading.read(
            info, wanted, symbols=SymbolTable(), sources=SourceTable(), prefetch=1, on_damaged="skip"
        )
        async for batch in batches:
            return int(batch.records["log_sequence"][0])
        return info.events

    async def _names(self, info: SessionInfo) -> Names:
        held = await self._connections.call("SMEMBERS", self._reading.keys.session(info.number).groups)
        return sorted(name.decode() for name in held)

    async def _existing(self, session: str, group: str) -> tuple[SessionInfo, GroupInfo]:
        info = await self._catalogue.info(session)
        found = await self._infos(info, [check_group(group)])
        if not found:
            raise _unknown(group, info.name, await self._names(info))
        return info, found[0]

    async def _infos(self, info: SessionInfo, names: Names) -> Infos:
        """What is known of some groups; those that are gone are left out."""
        session = self._reading.keys.session(info.number)
        commands: Commands = [("TIME",), ("HGET", session.meta, "events")]
        for name in names:
            keys = session.group(name)
            commands += [
                ("HMGET", keys.hash, "types", "log", "holder", "token", "until_ms", "saved_ms"),
                ("XLEN", keys.letters),
            ]
        time, events, *replies = await self._connections.call_many(commands)
        now_ms = int(time[0]) * 1_000 + int(time[1]) // 1_000
        found = []
        for name, held, letters in zip(names, replies[::2], replies[1::2], strict=True):
            if held[0] is None:
                continue
            types = tuple(held[0].decode().split())
            log = int(held[1])
            found.append(
                GroupInfo(
                    group=name,
                    session=info.name,
                    types=types,
                    log_sequence=log,
                    lag=max(0, int(events or 0) - log),
                    holder=name_of(held[2]) if held[3] else "",
                    state=_state(held, now_ms),
                    pending=await self._pending(session.streams, name, types),
                    letters=int(letters),
                    saved_ns=int(held[5]) * _NS_PER_MS,
                )
            )
        return found

    async def _pending(self, streams: dict[EventType, str], group: str, types: tuple[str, ...]) -> int:
        keys = [streams[one] for one in TYPE_ORDER if one.topic in types]
        replies = await self._connections.call_many([("XINFO", "GROUPS", key) for key in keys])
        pending = 0
        for listed in replies:
            for one in listed:
                fields = dict(zip(one[::2], one[1::2], strict=True))
                pending += int(fields[b"pending"]) if fields[b"name"].decode() == group else 0
        return pending


def before(entry_id: str) -> str:
    """The id just before an entry's."""
    milliseconds, _, sequence = entry_id.partition("-")
    if int(sequence):
        return f"{milliseconds}-{int(sequence) - 1}"
    return f"{int(milliseconds) - 1}-{(1 << 64) - 1}" if int(milliseconds) else "0-0"


def _state(held: list[bytes], now_ms: int) -> str:
    if not held[3]:
        return "free"
    if is_dead(mark_of(held[2])):
        return "dead"
    return "held" if int(held[4]) > now_ms else "expired"


def _check(reply: list[Any], info: SessionInfo, group: str, words: str) -> None:
    status = reply[0]
    if status == GroupStatus.NO_SESSION:
        raise UnknownSession(f"the session {info.name!r} (number {info.number}) does not exist any more")
    if status == GroupStatus.OTHER_TYPES:
        raise ValidationError(
            f"the group {group!r} of the session {info.name!r} reads {reply[3].decode()}, and was asked to read "
            f"{words}: take another group name, or the group's types"
        )
    if status == GroupStatus.TAKEN:
        raise GroupTaken(
            f"the group {group!r} of the session {info.name!r} can't be moved while {name_of(reply[1])!r} has it: stop "
            "that one first, or wait until its lease has run out"
        )
    if status == GroupStatus.FOREIGN:
        raise ServerRefused(
            f"the stream {reply[1].decode()} has a group {group!r} that hftlab has not made: take another group name, "
            "or destroy that one (XGROUP DESTROY)"
        )
    if status != GroupStatus.DONE:
        raise GroupLost(f"the group {group!r} of the session {info.name!r} could not be made: {reply!r:.200}")


def _unknown(group: str, session: str, known: list[str]) -> UnknownGroup:
    close = difflib.get_close_matches(group, known, 3)
    hint = f"did you mean {', '.join(map(repr, close))}?" if close else f"there are: {known!r:.300}"
    return UnknownGroup(f"no consumer group {group!r} in the session {session!r}; {hint if known else 'it has none'}")
