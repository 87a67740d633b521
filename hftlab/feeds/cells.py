"""Columns of text cells into arrays, with a mask of the cells that could be read: one bad cell costs its row alone.

Numbers are parsed by Python's own ``float``, which is correctly rounded: a price prints as it stood in the file.
An empty cell is a value that was not sent: the field's default (NaN for prices), where the field may do without.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import compress
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from hftlab.errors import FeedError
from hftlab.events import Source
from hftlab.events.records import DTYPES, TEXT_FIELDS, EventType, Kind, OrderType, Side, blank
from hftlab.events.rules import check_text
from hftlab.events.tables import check_symbol

EARLIEST_NS = 10**17
"""March 1973. An integer time below it that came without a unit is hardly ns; read as such it would mean 1970."""

UNITS_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
"""Units of integer and decimal times."""

_ENUMS: dict[str, type[enum.IntEnum]] = {"kind": Kind, "side": Side, "direction": Side, "order_type": OrderType}
_BAD = np.iinfo(np.int64).min

T = TypeVar("T")
B = TypeVar("B")

Times = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]
"""Moments in ns, and which of them are good."""


class Cells(NamedTuple):
    """A column's values, which of them are good, and what a cell of it must be (for the report of a bad one)."""

    values: npt.NDArray[Any]
    good: npt.NDArray[np.bool_]
    rule: str


def parse_column(event_type: EventType, field: str, texts: Sequence[str], unit: str | None, zone: str | None) -> Cells:
    """One field's cells, each judged by itself, whatever stands beside it. 0.1 µs a number, 0.3 µs a counted time."""
    if field in ("timestamp", "received"):
        return _times(texts, unit, zone)
    if field == "symbol":
        return _by_value(texts, check_symbol, None, "is printable text of 1 to 64 bytes")
    if field == "source":
        return _by_value(texts, Source.of_text, None, "is text such as venue/channel/scope/rule")
    if field in _ENUMS:
        members = _ENUMS[field]
        rule = f"is one of {', '.join(members.__members__)}"
        cells = _by_value(texts, lambda text: parse_member(field, text), _BAD, rule)
        return cells._replace(values=cells.values.astype(np.int64))
    if field in TEXT_FIELDS[event_type]:
        size_bytes = TEXT_FIELDS[event_type][field]
        rule = f"is text of up to {size_bytes} bytes of UTF-8"
        return _by_value(texts, lambda text: check_text(field, text, size_bytes), None, rule)
    default = blank(1, event_type)[field][0].item()
    if DTYPES[event_type][field].kind == "f":
        return _floats(texts, default)
    return _integers(texts, default, DTYPES[event_type][field])


def parse_constant(event_type: EventType, field: str, value: Any) -> Any:
    """A value that is the same in all rows, checked, and as the rules take it. Raises FeedError."""
    if field in ("timestamp", "received"):
        raise FeedError(f"{field} differs from row to row and comes from a column; got {value!r:.100} for all rows")
    if field == "source" and isinstance(value, Source):
        return value
    number = DTYPES[event_type][field].kind in "fiu" and field not in (*_ENUMS, "symbol", "source")
    if number and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise FeedError(f"{field} is a number; got {value!r:.100}")
    cells = parse_column(event_type, field, [str(value)], None, None)
    if not cells.good[0]:
        raise FeedError(f"{field} {cells.rule}; got {value!r:.100}")
    return cells.values[0] if cells.values.dtype == object else cells.values[0].item()


def parse_member(field: str, text: str) -> int:
    """A side, kind or order type by name in any case, or by number; an empty side is NONE. Raises ValueError."""
    members = _ENUMS[field]
    name = text.strip().upper()
    if not name and field == "side":
        return int(Side.NONE)
    found = members.__members__.get(name)
    return int(members(int(name)) if found is None else found)


def _by_value(texts: Sequence[str], parse: Callable[[str], Any], bad: Any, rule: str) -> Cells:
    """Parses every distinct text once."""
    parsed = {text: _try(parse, text, bad) for text in set(texts)}
    values = np.empty(len(texts), object)
    values[:] = [parsed[text] for text in texts]
    good = np.fromiter((parsed[text] is not bad for text in texts), np.bool_, len(texts))
    return Cells(values, good, rule)


def _try(parse: Callable[[str], T], text: str, bad: B) -> T | B:
    try:
        return parse(text)
    except ValueError:  # a ValidationError is one
        return bad


def _floats(texts: Sequence[str], default: float) -> Cells:
    rule = "is a number"
    try:
        return Cells(np.array(list(map(float, texts))), np.ones(len(texts), np.bool_), rule)
    except ValueError:
        found = [default if not text.strip() else _try(float, text, None) for text in texts]
    good = np.array([value is not None for value in found], np.bool_)
    return Cells(np.array([default if value is None else value for value in found], np.float64), good, rule)


def _integers(texts: Sequence[str], default: int, dtype: np.dtype[Any]) -> Cells:
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    rule = f"is an integer of {low} to {high}"
    found = [default if not text.strip() else _try(_integer, text, None) for text in texts]
    good = np.array([value is not None and low <= value <= high for value in found], np.bool_)
    kept = [value if fits else default for value, fits in zip(found, good.tolist(), strict=True)]
    return Cells(np.array(kept, np.int64 if high < 1 << 63 else np.uint64), good, rule)


def _integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        # A table that once had an empty cell in an integer column was written with "5.0" in all others.
        value = float(text)
        return int(value) if value.is_integer() and abs(value) < 1 << 53 else None


def _times(texts: Sequence[str], unit: str | None, zone: str | None) -> Cells:
    rule = 'is ISO 8601 text with a zone (or pass zone="UTC"), or a number of ns since 1970 (or pass unit="ms" …)'
    numeric = np.fromiter(map(_is_numeric, texts), np.bool_, len(texts))
    moments = np.zeros(len(texts), np.int64)
    good = np.zeros(len(texts), np.bool_)
    if numeric.any():
        moments[numeric], good[numeric] = _counted_times(list(compress(texts, numeric)), unit)
    if not numeric.all():
        moments[~numeric], good[~numeric] = _calendar_times(list(compress(texts, ~numeric)), zone)
    return Cells(moments, good, rule)


def _is_numeric(text: str) -> bool:
    return text.strip().replace(".", "", 1).isdecimal()


def _counted_times(texts: list[str], unit: str | None) -> Times:
    unit_ns = UNITS_NS[unit or "ns"]
    earliest = 0 if unit else EARLIEST_NS
    found = [_moment(text, unit_ns) for text in texts]
    good = np.array([earliest <= moment < 1 << 63 for moment in found], np.bool_)
    return np.array([moment if fits else 0 for moment, fits in zip(found, good, strict=True)], np.int64), good


def _moment(text: str, unit_ns: int) -> int:
    """Exactly: float64 seconds would be off by 0.1 µs."""
    return int(Decimal(text) * unit_ns) if "." in text else int(text) * unit_ns


def _calendar_times(texts: list[str], zone: str | None) -> Times:
    import pandas as pd

    series = pd.Series(texts, dtype=object)
    try:
        parsed = pd.to_datetime(series, format="ISO8601", errors="coerce")
    except ValueError:
        # Several zones (summer time's two, or with and without one) in a column: one by one.
        parsed = pd.to_datetime(series.map(lambda text: _zoned(text, zone)), utc=True)
    if parsed.dt.tz is None:
        if zone is None:
            return np.zeros(len(texts), np.int64), np.zeros(len(texts), np.bool_)
        parsed = parsed.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    moments = parsed.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[ns]").astype(np.int64)
    return moments, parsed.notna().to_numpy(np.bool_) & (moments >= 0)


def _zoned(text: str, zone: str | None) -> Any:
    import pandas as pd

    try:
        moment = pd.Timestamp(text)
    except ValueError:
        return pd.NaT
    if pd.isna(moment) or moment.tzinfo is not None:
        return moment
    return pd.NaT if zone is None else moment.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
