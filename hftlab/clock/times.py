"""Times as users write them: with a zone, as integers with a unit, or as a bare time of day within a session.

Everything is computed in whole nanoseconds, and nothing is guessed: text is ISO 8601, so that no month is taken for a
day, and a wall-clock time that a zone skips or has twice is refused. A pandas Timestamp is a datetime; pandas itself is
not needed, nor imported (it would cost 0.4 s).
"""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo

import numpy as np

from hftlab.errors import TimeError, shown

DAY_NS = 86_400_000_000_000
UNITS_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}

Time = int | str | dt.datetime | np.datetime64 | tuple[int, str]
"""What ``parse_time`` takes. A datetime needs a zone; a datetime64 has none, and is refused with what to write."""

_CLOCK = r"(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?"
_TIME_OF_DAY = re.compile(_CLOCK + r"Z?", re.ASCII)
_MOMENT = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[T ]" + _CLOCK + r"(?:\s*(?P<zone>Z|[+-]\d{2}:?\d{2}|[A-Za-z][\w+-]*(?:/[\w+-]+)*))?",
    re.ASCII,
)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_HOW = (
    'write "2024-08-08T23:54:30Z" (or with another zone), a datetime or pandas Timestamp with a zone, integer ns since '
    '1970 UTC, (1723161255, "s"), or a bare time of day such as "23:54:30" within a session'
)


def parse_time(value: Time, *, within: tuple[int, int] | None = None) -> int:
    """``value`` as ns since 1970 UTC.

    Text is ISO 8601 with up to 9 digits of a second and a zone (``Z``, ``+02:00``, ``Europe/Berlin``), or a bare time
    of day, which means UTC; ``within`` is the (first, last) moment of the session, in ns, that it lies in. Raises
    TimeError for what can't be read, for dates without a zone, for a wall-clock time that its zone has twice or never,
    and for a time of day that lies in the session on two days or on none; the message says what to write.
    """
    if isinstance(value, bool):
        raise TimeError(f"a time is not a bool; {_HOW}")
    if isinstance(value, (int, np.integer)):
        return _bounded(int(value), value)
    if isinstance(value, tuple):
        return _with_unit(value)
    if isinstance(value, str):
        text = value.strip()
        match = _TIME_OF_DAY.fullmatch(text)
        return _time_of_day(text, match, within) if match else _written(text)
    if isinstance(value, dt.datetime):
        return _of_datetime(value)
    if isinstance(value, np.datetime64):
        raise TimeError(f"{shown(value)} has no zone; if it is UTC, write {_utc_of(value)}")
    raise TimeError(f"a time can't be a {type(value).__name__} ({shown(value)}); {_HOW}")


def format_time(moment_ns: int) -> str:
    """ISO 8601 in UTC with nanoseconds: ``2024-08-08T23:54:15.030314667Z``."""
    seconds, rest = divmod(moment_ns, 1_000_000_000)
    moment = _EPOCH + dt.timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _bounded(moment_ns: int, given: object) -> int:
    if not 0 <= moment_ns < 1 << 63:
        raise TimeError(f"a time is 0 to 2**63-1 ns since 1970 UTC; got {shown(given)}")
    return moment_ns


def _with_unit(value: tuple[int, str]) -> int:
    if len(value) != 2 or isinstance(value[0], bool) or not isinstance(value[0], (int, np.integer)):
        raise TimeError(f"an integer with its unit is a pair such as (1723161255, 's'); got {shown(value)}")
    if not isinstance(value[1], str) or value[1] not in UNITS_NS:
        raise TimeError(f"a unit of time is one of {', '.join(UNITS_NS)}; got {shown(value[1])}")
    return _bounded(int(value[0]) * UNITS_NS[value[1]], value)


def _written(text: str) -> int:
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise TimeError(f"{shown(text)} is no time that can be read; {_HOW}")
    zone = match["zone"]
    if zone is None:
        raise TimeError(f"{text!r} has no zone; if it is UTC, write {text}Z")
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    try:
        moment = dt.datetime(year, month, day, hour, minute, second, tzinfo=_zone(zone, text))
    except ValueError as error:
        raise TimeError(f"{text!r} is no time: {error}") from None
    return _bounded(_checked_ns(moment, text) + int((match[7] or "").ljust(9, "0")), text)


def _zone(name: str, text: str) -> dt.tzinfo:
    if name == "Z":
        return dt.UTC
    if name[0] in "+-":
        hours, minutes = int(name[1:3]), int(name[-2:])
        if hours > 23 or minutes > 59:
            raise TimeError(f"a zone's offset is +00:00 to ±23:59; got {name!r} in {text!r}")
        offset = dt.timedelta(hours=hours, minutes=minutes)
        return dt.timezone(-offset if name[0] == "-" else offset)
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise TimeError(f"{name!r} in {text!r} is no zone; write Z, +02:00, or a name such as Europe/Berlin") from None


def _of_datetime(value: dt.datetime) -> int:
    if value != value:  # pandas' NaT, which is a datetime
        raise TimeError(f"{shown(value)} is not a time; {_HOW}")
    if value.utcoffset() is None:
        raise TimeError(f"{value!s:.100} has no zone; if it is UTC, write {value.isoformat()}Z")
    # A Timestamp knows three digits more than a datetime.
    rest_ns = value.microsecond * 1_000 + int(getattr(value, "nanosecond", 0))
    return _bounded(_whole_seconds_ns(value) + rest_ns, value)


def _whole_seconds_ns(moment: dt.datetime) -> int:
    fields = moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second
    offset = moment.utcoffset()
    assert offset is not None
    since = dt.datetime(*fields, tzinfo=dt.UTC) - _EPOCH - offset
    # timedeltas count whole microseconds; historical offsets have fractions of a minute, none of a microsecond.
    return (since // dt.timedelta(microseconds=1)) * 1_000


def _checked_ns(moment: dt.datetime, text: str) -> int:
    """A wall-clock time of a zone as ns; text can't say which of two it means, so one that is doubtful is refused."""
    if moment.utcoffset() != moment.replace(fold=1).utcoffset():
        skipped = moment.astimezone(dt.UTC).astimezone(moment.tzinfo).replace(tzinfo=None) != moment.replace(
            tzinfo=None
        )
        what = "is skipped by its zone's clocks" if skipped else "comes twice by its zone's clocks"
        raise TimeError(f"{text!r} {what}; write it with an offset such as +02:00, or in UTC")
    return _whole_seconds_ns(moment)


def _utc_of(value: np.datetime64) -> str:
    return "a time" if np.isnat(value) else f'"{value.astype("datetime64[ns]")}Z"'


def _time_of_day(text: str, match: re.Match[str], within: tuple[int, int] | None) -> int:
    hours, minutes, seconds = int(match[1]), int(match[2]), int(match[3] or 0)
    if hours > 23 or minutes > 59 or seconds > 59:
        raise TimeError(f"a time of day is 00:00:00 to 23:59:59.999999999; got {text!r}")
    if within is None:
        raise TimeError(f"the bare time of day {text!r} needs a session to lie in; {_HOW}")
    of_day = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000_000 + int((match[4] or "").ljust(9, "0"))
    first, last = within
    days = range(first // DAY_NS, last // DAY_NS + 1)
    moments = [day * DAY_NS + of_day for day in days]
    # A time just before the session's start, or after its end, is still plain while the session lies within one day.
    candidates = moments if len(moments) == 1 else [m for m in moments if first <= m <= last]
    if len(candidates) == 1:
        return candidates[0]
    span = f"the session runs from {format_time(first)} to {format_time(last)}"
    if not candidates:
        raise TimeError(f"{text!r} lies on no day of the session: {span}; write the date and the zone as well")
    listed = ", ".join(format_time(moment) for moment in candidates[:3])
    raise TimeError(f"{text!r} could mean {len(candidates)} moments ({listed} …): {span}; write one of them in full")
