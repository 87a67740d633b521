"""Batches from and to pandas DataFrames, and as the small HTML table that a notebook shows."""

from __future__ import annotations

import enum
import html
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from hftlab.errors import TimeError, ValidationError
from hftlab.events.batch import EventBatch
from hftlab.events.columns import HANDLER_FIELDS
from hftlab.events.records import PAYLOAD_FIELDS, TEXT_FIELDS, EventType, Flags, Kind, OrderType, Rows, Side, blank
from hftlab.events.rules import check_records, check_text
from hftlab.events.tables import Source, SourceTable, SymbolTable

_TIMES = ("timestamp", "received")
_ENUMS: dict[str, type[enum.IntEnum]] = {"kind": Kind, "side": Side, "direction": Side, "order_type": OrderType}
_SETTABLE = {event_type: tuple(f for f in HANDLER_FIELDS[event_type] if f != "topic") for event_type in EventType}
_SHOWN_ROWS = 10


def batch_from_frame(
    frame: pd.DataFrame, event_type: EventType, columns: dict[str, str], constants: dict[str, Any]
) -> EventBatch:
    """Rows of one type out of a DataFrame.

    ``columns`` maps our field to their column (a field whose name is a column needs no entry); ``constants`` gives one
    value for all rows, as in ``symbol="BTCUSDT"``. ``symbol`` and one of ``timestamp`` and ``received`` are needed.
    Times are integers in ns UTC, or datetimes with a zone; sides, kinds and order types their names or numbers.
    Raises ValidationError (TimeError for times) with the first row that breaks a rule. Vectorised.
    """
    settable = _SETTABLE[event_type]
    for name in (*columns, *constants):
        if name not in settable:
            raise ValidationError(f"{event_type.name} events have no field {name!r}; they have: {', '.join(settable)}")
    for theirs in columns.values():
        if theirs not in frame.columns:
            raise ValidationError(f"the table has no column {theirs!r}; it has: {', '.join(map(str, frame.columns))}")
    given: dict[str, Any] = {name: frame[name] for name in settable if name in frame.columns}
    given |= {name: frame[theirs] for name, theirs in columns.items()}
    given |= {name: pd.Series([value] * len(frame), dtype=object) for name, value in constants.items()}
    given.pop("event_id", None)
    if "symbol" not in given or not any(name in given for name in _TIMES):
        raise ValidationError(
            "a table of events needs a symbol and a timestamp or received: name their columns with "
            f'columns={{"symbol": …}}, or pass symbol="…"; the table has: {", ".join(map(str, frame.columns))}'
        )
    symbols, sources = SymbolTable(), SourceTable()
    rows = blank(len(frame), event_type)
    for name, values in given.items():
        rows[name] = _values(event_type, name, values, symbols, sources)
    _complete_times(rows, given)
    if "kind" not in given and event_type is EventType.MARKET_DATA:
        _guess_kinds(rows)
    check_records(event_type, rows)
    return EventBatch(rows, symbols, sources)


def _values(
    event_type: EventType, name: str, values: pd.Series[Any], symbols: SymbolTable, sources: SourceTable
) -> np.ndarray[Any, Any]:
    if name in _TIMES:
        return _times(name, values)
    if name == "symbol":
        return _interned(values.astype(object), symbols)
    if name == "source":
        return _interned(values.map(_source), sources)
    if name in TEXT_FIELDS[event_type]:
        size_bytes = TEXT_FIELDS[event_type][name]
        return np.array([check_text(name, value, size_bytes).encode() for value in values], f"S{size_bytes}")
    if name in _ENUMS:
        return _members(name, values)
    target = blank(0, event_type).dtype[name]
    numbers = pd.to_numeric(values, errors="coerce").to_numpy()
    unread = np.isnan(numbers.astype(float)) & values.notna().to_numpy()
    if unread.any():
        row = int(np.argmax(unread))
        raise ValidationError(f"row {row}: {name} is a number; got {values.iloc[row]!r:.100}")
    if target.kind != "f" and numbers.dtype.kind == "f" and not np.array_equal(numbers, np.floor(numbers)):
        row = int(np.argmax(numbers != np.floor(numbers)))
        raise ValidationError(f"row {row}: {name} is an integer; got {values.iloc[row]!r:.100}")
    return numbers.astype(target)


def _interned(values: pd.Series[Any], table: SymbolTable | SourceTable) -> np.ndarray[Any, Any]:
    codes, found = pd.factorize(values, use_na_sentinel=False)
    return np.array([table.intern(value) for value in found], np.uint32)[codes]


def _source(value: Any) -> Source:
    if isinstance(value, Source):
        return value
    parts = str(value).split("/", 2)
    return Source(*parts)


def _members(name: str, values: pd.Series[Any]) -> np.ndarray[Any, Any]:
    cls = _ENUMS[name]
    known: dict[Any, int] = {m.name: int(m) for m in cls} | {m.name.lower(): int(m) for m in cls}
    known |= {alias: int(member) for alias, member in cls.__members__.items()}
    known |= {alias.lower(): int(member) for alias, member in cls.__members__.items()}
    known |= {int(m): int(m) for m in cls}
    codes, found = pd.factorize(values.astype(object), use_na_sentinel=False)
    for value in found:
        if value not in known:
            raise ValidationError(f"{name} is one of {', '.join(cls.__members__)}; got {value!r:.100}")
    return np.array([known[value] for value in found], np.int8)[codes]


def _times(name: str, values: pd.Series[Any]) -> np.ndarray[Any, Any]:
    if pd.api.types.is_integer_dtype(values.dtype):
        return values.to_numpy(np.int64)
    if pd.api.types.is_datetime64_dtype(values.dtype):
        raise TimeError(f"{name} has no zone; if it is UTC, write frame[{values.name!r}].dt.tz_localize('UTC')")
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        if values.isna().any():
            raise TimeError(f"row {int(values.isna().to_numpy().argmax())}: {name} is missing")
        moments: np.ndarray[Any, Any] = values.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[ns]")
        return moments.astype(np.int64)
    if pd.api.types.is_float_dtype(values.dtype):
        raise TimeError(
            f"{name} is float64, which can't hold ns; turn it into integer ns, or into datetimes with a zone"
        )
    try:
        parsed = pd.Series(pd.to_datetime(values, format="ISO8601"), name=values.name)
    except (TypeError, ValueError) as error:
        raise TimeError(f"{name} is integer ns UTC, datetimes with a zone, or ISO 8601 text: {error}") from None
    return _times(name, parsed)


def _complete_times(rows: Rows, given: dict[str, Any]) -> None:
    if "received" not in given:
        rows["received"] = rows["timestamp"]
        rows["flags"] |= Flags.SOURCE_TIME.value
    elif "timestamp" not in given:
        rows["timestamp"] = rows["received"]
        rows["flags"] |= Flags.ARRIVAL_TIME.value
    else:
        rows["flags"] |= np.where(rows["timestamp"] > rows["received"], Flags.AHEAD, 0).astype(np.uint16)


def _guess_kinds(rows: Rows) -> None:
    """Where a table says nothing of kinds: price and volume alone make a trade, a bid or an ask alone a quote."""
    traded = ~np.isnan(rows["price"]) & ~np.isnan(rows["volume"])
    quoted = ~np.isnan(rows["bid"]) | ~np.isnan(rows["ask"])
    rows["kind"][traded & ~quoted] = Kind.TRADE
    rows["kind"][quoted & np.isnan(rows["price"])] = Kind.QUOTE


def frame_of_batch(batch: EventBatch) -> pd.DataFrame:
    """The batch as a DataFrame: a row an event, UTC times, names for ids; float columns that nobody filled left out."""
    if batch.type is None:
        parts = []
        for event_type in batch.counts():
            chosen = np.flatnonzero(batch.records["type"] == event_type)
            part = frame_of_batch(batch.only(event_type))
            part.index = pd.Index(chosen)
            parts.append(part)
        return pd.concat(parts).sort_index() if parts else pd.DataFrame()
    rows = batch.records
    data: dict[str, Any] = {}
    for name in ("timestamp", "received"):
        data[name] = pd.to_datetime(rows[name], unit="ns", utc=True)
    data["event_type"] = pd.Categorical.from_codes(
        np.zeros(len(rows), np.int8), categories=pd.Index([batch.type.topic])
    )
    data["symbol"] = pd.Categorical.from_codes(
        rows["symbol"].astype(np.int32), categories=pd.Index(list(batch.symbols), dtype=object)
    )
    data["source"] = pd.Categorical.from_codes(
        rows["source"].astype(np.int32), categories=pd.Index([_source_text(source) for source in batch.sources])
    )
    for name in PAYLOAD_FIELDS[batch.type]:
        if name in _ENUMS:
            data[name] = _labels(_ENUMS[name], rows[name])
        elif name in TEXT_FIELDS[batch.type]:
            data[name] = batch.column(name)
        elif not (len(rows) and np.isnan(rows[name]).all()):
            data[name] = rows[name].copy()
    for name in ("sequence", "span", "part", "epoch", "cause", "flags"):
        data[name] = rows[name].copy()
    data["event_id"] = batch.event_ids
    return pd.DataFrame(data)


def _source_text(source: Source) -> str:
    return "/".join(msgspec.structs.astuple(source))


def _labels(cls: type[enum.IntEnum], values: np.ndarray[Any, Any]) -> pd.Categorical[Any]:
    members = sorted(cls, key=int)
    codes = np.searchsorted(np.array([int(m) for m in members]), values)
    return pd.Categorical.from_codes(codes.astype(np.int8), categories=pd.Index([m.name for m in members]))


def html_of_batch(batch: EventBatch) -> str:
    """The first rows as an HTML table under a line that says how many there are. Text from streams is escaped."""
    shown = frame_of_batch(batch[:_SHOWN_ROWS])
    head = f"<b>EventBatch</b> {html.escape(repr(batch)[10:])}"
    table = shown.to_html(index=False, escape=True, border=0, na_rep="", max_cols=16)
    more = f"<i>{len(batch) - len(shown):,} rows more</i>" if len(batch) > len(shown) else ""
    return f"<div>{head}{table}{more}</div>"
