"""What a user means by a start and an end: a time, an event id, or an entry's id. Pure, but for where entries stand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from hftlab.clock import parse_time
from hftlab.clock.times import Time
from hftlab.errors import TimeError
from hftlab.events import Event, EventType, as_event_type
from hftlab.events.ports import LogRange, SessionInfo
from hftlab.events.records import split_event_id

Place = Time
"""A time (see ``clock.parse_time``), an event id, or an entry's id as text (``"1723161255030-0"``)."""
Types = Iterable[type[Event] | EventType | str] | type[Event] | EventType | str

# Four digits and a dash begin a date.
ENTRY_ID = re.compile(r"(\d{1,3}|\d{5,20})-(\d{1,20})")
# Event ids of the first 32,767 sessions lie below this; as times, these would be in the weeks after 1 January 1970.
_LOOKS_LIKE_AN_ID = 1 << 55


class EntryId(NamedTuple):
    """The two halves of an entry's id."""

    milliseconds: int
    sequence: int


class Bound(NamedTuple):
    """One end of a range: at most one of the three is not None."""

    time_ns: int | None = None
    log_sequence: int | None = None
    entry_id: EntryId | None = None


def read_place(value: Place | None, session: SessionInfo) -> Bound:
    """What one end of a range means within a session. Raises TimeError, ValidationError."""
    if value is None:
        return Bound()
    if isinstance(value, str):
        match = ENTRY_ID.fullmatch(value.strip())
        if match:
            place = EntryId(int(match[1]), int(match[2]))
            if max(place) >= 1 << 64:
                raise TimeError(f"the halves of an entry's id are below 2**64; got {value!r:.100}")
            return Bound(entry_id=place)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 < value < 1 << 62:
        number, log = split_event_id(int(value))
        if number == session.number:
            return Bound(log_sequence=log)
        if number and value < _LOOKS_LIKE_AN_ID:
            raise TimeError(
                f"{int(value)} is an event id of the session number {number}, or a time in the first days of 1970; the "
                f"session {session.name!r} has the number {session.number}: give one of its own ids, or ns since 1970"
            )
    within = (session.start_ns, session.end_ns) if session.events else None
    return Bound(time_ns=parse_time(value, within=within))


def wanted_types(types: Types | None) -> frozenset[EventType]:
    """The types that are named, all for None. Raises ValidationError."""
    if types is None:
        return frozenset(EventType)
    if isinstance(types, (str, EventType, type)):
        return frozenset({as_event_type(types)})
    return frozenset(as_event_type(one) for one in types)


def log_range(start: Bound, end: Bound, types: frozenset[EventType]) -> LogRange:
    """The range between two bounds whose entry ids were turned into log sequences."""
    return LogRange(
        types=types,
        start_ns=start.time_ns,
        end_ns=end.time_ns,
        start_log=start.log_sequence,
        end_log=end.log_sequence,
    )
