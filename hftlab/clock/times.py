"""Times as users write them: with a zone, as integers with a unit, or as a bare time of day within a session."""

from __future__ import annotations

import datetime as dt
import re

import numpy as np
import pandas as pd

from hftlab.errors import TimeError

DAY_NS = 86_400_000_000_000
UNITS_NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}

Time = int | str | dt.datetime | pd.Timestamp | np.datetime64 | tuple[int, str]

_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?")
_HOW = (
    'write "2024-08-08T23:54:30Z" (or with another zone), a datetime or pandas Timestamp with a zone, integer ns since '
    '1970 UTC, (1723161255, "s"), or a bare time of day such as "23:54:30" within a session'
)


def parse_time(value: Time, *, within: tuple[int, int] | None = None) -> int:
    """``value`` as ns since 1970 UTC.

    ``within`` is the (first, last) moment of the session in ns: a bare time of day means UTC there. Raises TimeError
    for what can't be read, for dates without a zone, and for a time of day that lies in the session on two days or on
    none; the message says what to write.
    """
    if isinstance(value, bool):
        raise TimeError(f"a time is not a bool; {_HOW}")
    if isinstance(value, (int, np.integer)):
        return _bounded(int(value), value)
    if isinstance(value, tuple):
        return _with_unit(value)
    if isinstance(value, str):
        match = _TIME_OF_DAY.fullmatch(value.strip())
        if match:
            return _time_of_day(value, match, within)
    if isinstance(value, (str, dt.datetime, np.datetime64)):
        return _zoned(value)
    raise TimeError(f"a time can't be a {type(value).__name__} ({value!r:.100}); {_HOW}")


def format_time(moment_ns: int) -> str:
    """ISO 8601 in UTC with nanoseconds: ``2024-08-08T23:54:15.030314667Z``."""
    seconds, rest = divmod(moment_ns, 1_000_000_000)
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _bounded(moment_ns: int, shown: object) -> int:
    if not 0 <= moment_ns < 1 << 63:
        raise TimeError(f"a time is 0 to 2**63-1 ns since 1970 UTC; got {shown!r}")
    return moment_ns


def _with_unit(value: tuple[int, str]) -> int:
    if len(value) != 2 or isinstance(value[0], bool) or not isinstance(value[0], (int, np.integer)):
        raise TimeError(f"an integer with its unit is a pair such as (1723161255, 's'); got {value!r:.100}")
    if value[1] not in UNITS_NS:
        raise TimeError(f"a unit of time is one of {', '.join(UNITS_NS)}; got {value[1]!r:.100}")
    return _bounded(int(value[0]) * UNITS_NS[value[1]], value)


def _zoned(value: str | dt.datetime | np.datetime64) -> int:
    try:
        moment = pd.Timestamp(value)
    except (ValueError, TypeError):
        raise TimeError(f"{value!r:.100} is no time that can be read; {_HOW}") from None
    if moment is pd.NaT:
        raise TimeError(f"{value!r:.100} is not a time; {_HOW}")
    if moment.tzinfo is None:
        raise TimeError(f"{value!s:.100} has no zone; if it is UTC, write {moment.isoformat()}Z")
    return _bounded(int(moment.as_unit("ns").value), value)


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
    shown = ", ".join(format_time(moment) for moment in candidates[:3])
    raise TimeError(f"{text!r} could mean {len(candidates)} moments ({shown} …): {span}; write one of them in full")
