"""Retention: the oldest entries of a session taken away, over all its streams at one log sequence.

Redis trims each stream by itself, and without a word to groups that have not read what goes. Here, one script trims
all of them and notes the log sequence from which on the session is whole (``trimmed`` in its meta hash), after it has
looked at where its consumer groups are. Entries go as a whole, so one that reaches over ``trimmed`` stays; readers show
its rows from ``trimmed`` on. Which entries these are, and how large, is found out before, in small slices: the server
is not held up by a large session.
"""

from __future__ import annotations

import heapq
import html
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import NamedTuple

from hftlab.errors import AppendConflict, UnknownSession, UnreadWouldBeLost, ValidationError
from hftlab.events import SourceTable, SymbolTable
from hftlab.events.ports import LogRange, SessionInfo
from hftlab.streams.catalogue import Catalogue
from hftlab.streams.connections import Connections
from hftlab.streams.keys import SessionKeys
from hftlab.streams.ranges import Place, read_place
from hftlab.streams.reading import Reading
from hftlab.streams.retention_scripts import TRIM, WEIGH, Trimmed
from hftlab.streams.scripts import LOCATE

# Entries that the server weighs at once: 256 frames of 1,024 rows are 3.5 MB, some 5 ms.
_SLICE = 256


@dataclass(frozen=True, repr=False)
class TrimResult:
    """What a trim took away.

    ``trimmed``: the first log sequence that is still there, and ``events`` how many from there on. ``events_removed``,
    ``entries_removed`` and ``bytes_removed``: by this call (an entry that reaches over ``trimmed`` stays, so there may
    be fewer bytes than events suggest). ``lost``: by group, how many events were taken that it had not handled; empty
    unless forced.
    """

    session: str
    number: int
    trimmed: int
    events: int
    events_removed: int
    entries_removed: int
    bytes_removed: int
    lost: dict[str, int]

    def __repr__(self) -> str:
        lost = f"; NOT HANDLED by {_named(self.lost)}" if self.lost else ""
        return (
            f"TrimResult({self.session!r}: {self.events_removed:,} events removed, {self.events:,} left, from log "
            f"sequence {self.trimmed:,} on{lost})"
        )

    def _repr_html_(self) -> str:
        said = {
            "session": self.session,
            "removed": (
                f"{self.events_removed:,} events, {self.entries_removed:,} entries, {self.bytes_removed:,} bytes"
            ),
            "left": f"{self.events:,} events, from log sequence {self.trimmed:,} on",
            "lost to groups": _named(self.lost) or "nothing",
        }
        rows = "".join(
            f"<tr><th style='text-align:left'>{k}</th><td>{html.escape(v)}</td></tr>" for k, v in said.items()
        )
        return f"<table>{rows}</table>"


class _Weighed(NamedTuple):
    """What lies wholly below a cut: entries, their bytes, and for each stream the first id that stays."""

    entries: int
    stored_bytes: int
    keep_from: tuple[str, ...]


class Retention:
    """The trimming half of a manager; see ``RedisStreamManager.trim``."""

    def __init__(self, connections: Connections, catalogue: Catalogue, reading: Reading) -> None:
        self._connections = connections
        self._catalogue = catalogue
        self._reading = reading

    async def trim(
        self, session: str, before: Place | None, keep_bytes: int | None, keep_events: int | None, force: bool
    ) -> TrimResult:
        """Remove what lies before one log sequence."""
        _check(before, keep_bytes, keep_events)
        number = await self._catalogue.number(session)
        cut = None
        for _ in range(_TRIES):
            info = await self._catalogue.by_number(number)
            if cut is None:
                cut = await self._cut(info, before, keep_bytes, keep_events)
            if cut <= info.trimmed:
                return _result(info, info.trimmed, _Weighed(0, 0, ()), {})
            done = await self._remove(info, cut, force)
            if done is not None:
                return done
        raise AppendConflict(
            f"the session {session!r} was trimmed, or its groups changed, again and again while this call looked at "
            "it; trim it from one place"
        )

    async def _cut(
        self, info: SessionInfo, before: Place | None, keep_bytes: int | None, keep_events: int | None
    ) -> int:
        """The log sequence before which all is to go."""
        if keep_events is not None:
            return max(0, info.events - keep_events)
        if keep_bytes is not None:
            return await self._cut_by_bytes(info, keep_bytes)
        bound = read_place(before, info)
        if bound.log_sequence is not None:
            return min(bound.log_sequence, info.events)
        if bound.entry_id is not None:
            return await self._reading.log_of_entry(info, bound.entry_id)
        wanted = LogRange(start_ns=bound.time_ns, start_log=info.trimmed)
        batches = self._reading.read(
            info, wanted, symbols=SymbolTable(), sources=SourceTable(), prefetch=1, on_damaged="skip"
        )
        async for batch in batches:
            return int(batch.records["log_sequence"][0])
        return info.events

    async def _cut_by_bytes(self, info: SessionInfo, keep_bytes: int) -> int:
        """The least log sequence such that what lies wholly below it is all that there is too much of."""
        excess = info.stored_bytes - keep_bytes
        if excess <= 0:
            return info.trimmed
        keys = self._reading.keys.session(info.number)
        walks = [self._ends(stream, info.events) for stream in keys.streams.values()]
        heads: list[tuple[int, int, int]] = []
        for index, walk in enumerate(walks):
            async for end, size in walk:
                heads.append((end, index, size))
                break
        heapq.heapify(heads)
        while heads:
            end, index, size = heapq.heappop(heads)
            excess -= size
            if excess <= 0:
                return min(end, info.events)
            async for following in walks[index]:
                heapq.heappush(heads, (following[0], index, following[1]))
                break
        return info.events

    async def _ends(self, stream: str, events: int) -> AsyncIterator[tuple[int, int]]:
        """For each entry of a stream: a log sequence that all its rows lie below (where the next one begins), and its
        bytes."""
        waiting: int | None = None
        async for entry_id, size in self._weighed(stream, "-", "+"):
            if waiting is not None:
                yield int(entry_id.partition("-")[2]), waiting
            waiting = size
        if waiting is not None:
            yield events, waiting

    async def _weighed(self, stream: str, start: str, stop: str) -> AsyncIterator[tuple[str, int]]:
        """The ids and bytes of the entries between two ids, asked for in slices."""
        while True:
            found = await self._connections.run(WEIGH, (stream,), start, stop, _SLICE)
            for index in range(0, len(found), 2):
                yield found[index].decode(), int(found[index + 1])
            if len(found) < 2 * _SLICE:
                return
            start = f"({found[-2].decode()}"

    async def _below(self, keys: SessionKeys, cut: int, everything: bool) -> _Weighed:
        """What lies wholly below a cut. An entry's end is known by the next one's beginning, so the last one that
        begins at or before the cut stays, unless the cut is the session's end."""
        streams = list(keys.streams.values())
        entries = stored_bytes = 0
        keep_from = []
        # Of a session's end, what lies before it: an append may have come there since.
        place = cut - 1 if everything else cut
        located = [reply.decode() for reply in await self._connections.run(LOCATE, streams, place)]
        for stream, last in zip(streams, located, strict=True):
            if last == "-":
                keep_from.append("0-0")
                continue
            async for _, size in self._weighed(stream, "-", last if everything else f"({last}"):
                entries, stored_bytes = entries + 1, stored_bytes + size
            milliseconds, _, log = last.partition("-")
            keep_from.append(f"{milliseconds}-{int(log) + 1}" if everything else last)
        return _Weighed(entries, stored_bytes, tuple(keep_from))

    async def _remove(self, info: SessionInfo, cut: int, force: bool) -> TrimResult | None:
        """Remove it, or None where something changed since ``info`` was asked for."""
        keys = self._reading.keys.session(info.number)
        weighed = await self._below(keys, cut, cut >= info.events)
        names = sorted(name.decode() for name in await self._connections.call("SMEMBERS", keys.groups))
        hashes = [keys.group_prefix + name for name in names]
        status, *unhandled = await self._connections.run(
            TRIM, (keys.meta, keys.groups, *keys.streams.values(), *hashes),
            cut, info.trimmed, int(force), weighed.stored_bytes, weighed.entries, *weighed.keep_from, *names,
        )  # fmt: skip
        if status == Trimmed.GONE:
            raise UnknownSession(f"the session {info.name!r} was deleted while it was trimmed")
        if status == Trimmed.CHANGED:
            return None
        lost = {name: count for name, count in zip(names, unhandled, strict=True) if count}
        if status == Trimmed.UNREAD:
            raise UnreadWouldBeLost(
                f"trimming the session {info.name!r} before log sequence {cut:,} would take events that were not "
                f"handled yet: {_named(lost)}. Let the groups catch up, keep more, destroy groups that nobody uses, or "
                "take them away all the same: trim(…, force=True)"
            )
        return _result(info, cut, weighed, lost)


# How often a trim looks again when another one, or a new group, came between.
_TRIES = 10


def _check(before: Place | None, keep_bytes: int | None, keep_events: int | None) -> None:
    given = {"before": before, "keep_bytes": keep_bytes, "keep_events": keep_events}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise ValidationError(
            f"trim takes one of before, keep_bytes and keep_events; got {' and '.join(named) or 'none'}"
        )
    for name, value in (("keep_bytes", keep_bytes), ("keep_events", keep_events)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise ValidationError(f"{name} is an integer of 0 or more; got {value!r:.100}")


def _result(info: SessionInfo, trimmed: int, weighed: _Weighed, lost: dict[str, int]) -> TrimResult:
    return TrimResult(
        session=info.name,
        number=info.number,
        trimmed=trimmed,
        events=info.events - trimmed,
        events_removed=trimmed - info.trimmed,
        entries_removed=weighed.entries,
        bytes_removed=weighed.stored_bytes,
        lost=lost,
    )


def _named(groups: dict[str, int]) -> str:
    return ", ".join(f"{count:,} by the group {name!r}" for name, count in groups.items())
