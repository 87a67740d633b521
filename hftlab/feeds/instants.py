"""Times as recorders and venues write them, to integer ns since 1970, digit by digit: no float is ever in between.

A float64 of seconds since 1970 steps by 238 ns: text that is read through one may come out in the wrong microsecond.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

from hftlab.errors import ValidationError

EARLIEST_RECEIVED_NS = 10**17
"""March 1973. A receive time below it is in another unit than was said, and would silently mean the year 1970."""

MAX_TIME_NS = (1 << 63) - 1

_SECONDS = re.compile(rb"(\d{1,10})(?:\.(\d{1,9}))?")
_ISO = re.compile(r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def seconds_ns(text: bytes) -> int:
    """A receive time in decimal seconds since 1970 (``b"1618677816.8434298"``) in ns, exact. Raises ValidationError.

    Under 1 µs. More than 9 decimals, signs and exponents are refused, and times before 1973.
    """
    match = _SECONDS.fullmatch(text)
    if match is not None:
        whole, fraction = match.groups(b"")
        received = int(whole) * 1_000_000_000 + int(fraction.ljust(9, b"0"))
        if EARLIEST_RECEIVED_NS <= received <= MAX_TIME_NS:
            return received
    raise ValidationError(
        f"a line begins with its receive time, decimal seconds since 1970 with up to 9 decimals; got {text!r:.60}"
    )


def iso_ns(text: str) -> int:
    """A time in ISO 8601 with a zone (``2021-04-17T16:43:37.075687Z``) in ns, exact. Raises ValidationError.

    About 1 µs: the whole seconds of the latest 4,096 texts are remembered.
    """
    match = _ISO.fullmatch(text)
    if match is not None:
        second, fraction, zone = match.groups("")
        moment = _whole_second_ns(second + zone) + int(fraction.ljust(9, "0"))
        if 0 <= moment <= MAX_TIME_NS:
            return moment
    raise ValidationError(
        f"a time is ISO 8601 text with a zone, such as 2021-04-17T16:43:37.075687Z, since 1970; got {text!r:.60}"
    )


@lru_cache(maxsize=4_096)
def _whole_second_ns(text: str) -> int:
    try:
        since = datetime.fromisoformat(text) - _EPOCH
    except ValueError:
        raise ValidationError(f"there is no such time as {text!r:.60}") from None
    return (since.days * 86_400 + since.seconds) * 1_000_000_000
