"""Batches out of pandas DataFrames: columns of anything that can mean a field, checked, a pass a column."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from hftlab.errors import TimeError, ValidationError, shown
from hftlab.events.batch import EventBatch, as_event_type
from hftlab.events.columns import HANDLER_FIELDS
from hftlab.events.records import (
    MAX_LOG_SEQUENCE,
    RECORD,
    RUN_BIT,
    TEXT_FIELDS,
    ClockSource,
    EventType,
    Flags,
    Kind,
    OrderType,
    Priority,
    Rows,
    Side,
    blank,
    split_event_id,
)
from hftlab.events.rowbytes import concat_rows, take_rows
from hftlab.events.rules import check_records, check_text
from hftlab.events.tables import Source, SourceTable, SymbolTable
from hftlab.events.types import EVENT_CLASSES

Series = Any
"""A pandas Series of anything."""

_TIMES = ("timestamp", "received")
_ENUMS: dict[str, type[enum.IntEnum]] = {
    "kind": Kind, "side": Side, "direction": Side, "order_type": OrderType, "priority": Priority, "clock": ClockSource,
}  # fmt: skip
_SETTABLE = {event_type: tuple(f for f in HANDLER_FIELDS[event_type] if f != "topic") for event_type in EventType}
_WITH_ZONE = r"(?:Z|[+-]\d{2}(?::?\d{2})?)$"
_MAX_EXACT_FLOAT = 1 << 53


def batch_from_frame(
    frame: pd.DataFrame, event_type: EventType | None, columns: dict[str, str], constants: dict[str, Any]
) -> EventBatch:
    """The rows of a DataFrame as a batch; see ``EventBatch.from_frame``."""
    if not isinstance(frame, pd.DataFrame):
        raise ValidationError(f"from_frame takes a pandas DataFrame; got {type(frame).__name__}")
    types = _types_of(frame) if event_type is None else {event_type: np.ones(len(frame), bool)}
    symbols, sources = SymbolTable(), SourceTable()
    parts, positions, numbers = [], [], set()
    for part_type, where in types.items():
        part = frame if where.all() else frame[where]
        given = _given(part, part_type, columns, constants)
        rows = _rows(part, part_type, given, symbols, sources)
        numbers |= _number_rows(rows, given)
        parts.append(rows)
        positions.append(np.flatnonzero(where))
    if len(numbers) > 1:
        raise ValidationError(f"a batch holds events of one session; got event_ids of the sessions {sorted(numbers)}")
    rows = parts[0]
    if len(parts) > 1:
        rows = take_rows(concat_rows(parts, RECORD), np.argsort(np.concatenate(positions)))
    return EventBatch(rows, symbols, sources, session_number=numbers.pop() if numbers else 0)


def _types_of(frame: pd.DataFrame) -> dict[EventType, npt.NDArray[np.bool_]]:
    """Which rows have which type, by the table's own ``event_type`` column; market data where it has none."""
    if "event_type" not in frame.columns or not len(frame):
        return {EventType.MARKET_DATA: np.ones(len(frame), bool)}
    codes, found = pd.factorize(_column(frame, "event_type").astype(object), use_na_sentinel=False)
    try:
        types = [as_event_type(value) for value in found]
    except ValidationError as error:
        raise ValidationError(
            f"the table's column event_type: {error}; pass event_type=… if it means another thing"
        ) from None
    return {event_type: codes == code for code, event_type in enumerate(types)}


def _column(frame: pd.DataFrame, name: str) -> Series:
    column: Any = frame[name]
    if isinstance(column, pd.DataFrame):
        raise ValidationError(f"the table has {column.shape[1]} columns {name!r}; rename or drop all but one")
    return column


def _given(
    frame: pd.DataFrame, event_type: EventType, columns: dict[str, str], constants: dict[str, Any]
) -> dict[str, Series]:
    """The fields that the table and the constants give, each as a Series; raises where one is unknown or missing."""
    settable = _SETTABLE[event_type]
    for name in (*columns, *constants):
        if name not in settable:
            raise ValidationError(f"{event_type.name} events have no field {name!r}; they have: {', '.join(settable)}")
    has = ", ".join(map(str, frame.columns))
    for theirs in columns.values():
        if theirs not in frame.columns:
            raise ValidationError(f"the table has no column {theirs!r}; it has: {has}")
    given = {name: _column(frame, name) for name in settable if name in frame.columns}
    given |= {name: _column(frame, theirs) for name, theirs in columns.items()}
    given |= {name: pd.Series([value] * len(frame), dtype=object) for name, value in constants.items()}
    fields = msgspec.structs.fields(EVENT_CLASSES[event_type])
    missing = [field.name for field in fields if field.required and field.name not in given]
    missing += [] if any(name in given for name in _TIMES) else ["timestamp (or received)"]
    if missing:
        raise ValidationError(
            f"a table of {event_type.name} events needs {', '.join(missing)}: name the column with "
            f'columns={{"{missing[0].split()[0]}": …}}, or pass one value for all rows; the table has: {has}'
        )
    return given


def _rows(
    frame: pd.DataFrame, event_type: EventType, given: dict[str, Series], symbols: SymbolTable, sources: SourceTable
) -> Rows:
    rows = blank(len(frame), event_type)
    for field in msgspec.structs.fields(EVENT_CLASSES[event_type]):
        # What an event object has by default, a row has too; a blank row knows the header's defaults and NaN only.
        if field.name in EVENT_CLASSES[event_type].__annotations__ and not field.required:
            rows[field.name] = field.default.encode() if isinstance(field.default, str) else field.default
    for name, values in given.items():
        if name != "event_id":
            rows[name] = _values(event_type, name, values, symbols, sources)
    _complete_times(rows, given)
    if "kind" not in given and event_type is EventType.MARKET_DATA:
        _guess_kinds(rows)
    check_records(event_type, rows)
    return rows


def _values(
    event_type: EventType, name: str, values: Series, symbols: SymbolTable, sources: SourceTable
) -> npt.NDArray[Any]:
    if name in _TIMES:
        return _times(name, values)
    if name == "symbol":
        return _interned(values, symbols.intern)
    if name == "source":
        return _interned(values, lambda value: sources.intern(_source(value)))
    if name in TEXT_FIELDS[event_type]:
        size_bytes = TEXT_FIELDS[event_type][name]
        return np.array([check_text(name, value, size_bytes).encode() for value in values], f"S{size_bytes}")
    target = blank(0, event_type).dtype[name]
    return _members(name, values).astype(target) if name in _ENUMS else _numbers(name, values, target)


def _numbers(name: str, values: Series, target: np.dtype[Any]) -> npt.NDArray[Any]:
    read: Series = pd.to_numeric(values, errors="coerce")
    numbers: npt.NDArray[Any] = read.to_numpy(float, na_value=np.nan) if read.isna().any() else read.to_numpy()
    if numbers.dtype.kind not in "iuf":
        numbers = numbers.astype(float)
    bad = np.isnan(numbers) & values.notna().to_numpy() if numbers.dtype.kind == "f" else np.zeros(len(numbers), bool)
    what = "a number"
    if target.kind != "f" and not bad.any():
        info = np.iinfo(target)
        bad = ~((numbers >= info.min) & (numbers <= info.max))
        what = f"an integer of {info.min} to {info.max}"
        if numbers.dtype.kind == "f" and not bad.any():
            bad = (numbers != np.floor(numbers)) | (abs(numbers) > _MAX_EXACT_FLOAT)
            what = "an integer; as float64 it is exact up to 2**53 only"
    if bad.any():
        row = int(np.argmax(bad))
        raise ValidationError(f"row {row}: {name} is {what}; got {shown(values.iloc[row])}")
    fitted: npt.NDArray[Any] = numbers.astype(target)
    return fitted


def _interned(values: Series, intern: Callable[[Any], int]) -> npt.NDArray[np.uint32]:
    try:
        codes, found = pd.factorize(values.astype(object), use_na_sentinel=False)
    except TypeError as error:
        raise ValidationError(f"{values.name} holds values that can't be names: {error}") from None
    return np.array([intern(value) for value in found], np.uint32)[codes]


def _source(value: Any) -> Source:
    if isinstance(value, str):
        return Source.of_text(value)
    if isinstance(value, Source):
        return value
    raise ValidationError(f"a source is a Source, or text as venue/channel/scope/rule; got {shown(value)}")


def _members(name: str, values: Series) -> npt.NDArray[np.int64]:
    cls = _ENUMS[name]
    known: dict[Any, int] = {}
    for alias, member in cls.__members__.items():
        known |= {alias: int(member), alias.lower(): int(member), int(member): int(member)}

    def value_of(value: Any) -> int:
        if isinstance(value, bool) or value not in known:
            raise ValidationError(f"{name} is one of {', '.join(cls.__members__)}; got {shown(value)}")
        return known[value]

    codes, found = pd.factorize(values.astype(object), use_na_sentinel=False)
    return np.array([value_of(value) for value in found], np.int64)[codes]


def _times(name: str, values: Series) -> npt.NDArray[np.int64]:
    if values.dtype == object and pd.api.types.infer_dtype(values, skipna=False) == "integer":
        values = pd.Series([int(value) for value in values], dtype="UInt64" if min(values, default=0) >= 0 else "Int64")
    if pd.api.types.is_integer_dtype(values.dtype):
        _none_missing(name, values)
        return _numbers(name, values, np.dtype(np.int64))
    if pd.api.types.is_float_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype):
        raise TimeError(
            f"{name} is {values.dtype}, which can't hold ns; turn it into integer ns, or into datetimes with a zone"
        )
    try:
        if not pd.api.types.is_datetime64_any_dtype(values.dtype):
            _none_missing(name, values)
            # Offsets that differ from row to row (a zone's summer and winter) have to be told to become UTC, and text
            # without a zone would become UTC with them.
            zoned = all(isinstance(value, str) for value in values) and values.str.contains(_WITH_ZONE).all()
            values = pd.Series(pd.to_datetime(values, format="ISO8601", utc=bool(zoned)), name=values.name)
        if not isinstance(values.dtype, pd.DatetimeTZDtype):
            raise TimeError(f"{name} has no zone; if it is UTC, write frame[{values.name!r}].dt.tz_localize('UTC')")
        _none_missing(name, values)
        moments: npt.NDArray[Any] = values.dt.tz_convert("UTC").dt.as_unit("ns").dt.tz_localize(None).to_numpy()
    except TimeError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise TimeError(f"{name} is integer ns UTC, datetimes with a zone, or ISO 8601 text: {error}") from None
    return moments.astype("datetime64[ns]").astype(np.int64)


def _none_missing(name: str, values: Series) -> None:
    if values.isna().any():
        raise TimeError(f"row {int(values.isna().to_numpy().argmax())}: {name} is missing")


def _complete_times(rows: Rows, given: dict[str, Series]) -> None:
    if "received" not in given:
        rows["received"] = rows["timestamp"]
        rows["flags"] |= Flags.SOURCE_TIME.value
    elif "timestamp" not in given:
        rows["timestamp"] = rows["received"]
        rows["flags"] |= Flags.ARRIVAL_TIME.value
    elif "flags" not in given:
        rows["flags"][rows["timestamp"] > rows["received"]] |= Flags.AHEAD.value


def _guess_kinds(rows: Rows) -> None:
    """Where a table says nothing of kinds: price and volume alone make a trade, a bid or an ask alone a quote."""
    traded = ~np.isnan(rows["price"]) & ~np.isnan(rows["volume"])
    quoted = ~np.isnan(rows["bid"]) | ~np.isnan(rows["ask"])
    rows["kind"][traded & ~quoted] = Kind.TRADE
    rows["kind"][quoted & np.isnan(rows["price"])] = Kind.QUOTE


def _number_rows(rows: Rows, given: dict[str, Series]) -> set[int]:
    """Give rows the log sequences of their event ids, as ``to_frame`` wrote them; returns the sessions' numbers."""
    if "event_id" not in given or not len(rows):
        return set()
    ids = _numbers("event_id", given["event_id"], np.dtype(np.int64))
    emitted = (rows["flags"] & Flags.EMITTED.value) != 0
    of_run = (ids >= RUN_BIT) & (ids <= RUN_BIT | MAX_LOG_SEQUENCE)
    of_session = (ids == 0) | ((ids > MAX_LOG_SEQUENCE) & (ids < RUN_BIT))
    good = np.where(emitted, of_run, of_session)
    if not good.all():
        row = int(np.argmin(good))
        raise ValidationError(
            f"row {row}: event_id is given by hftlab and belongs to a session or, with Flags.EMITTED, to a run; "
            f"got {ids[row]}. Drop or rename the column if it means another thing"
        )
    rows["log_sequence"] = ids & MAX_LOG_SEQUENCE
    return {split_event_id(int(value))[0] if value else 0 for value in np.unique(ids[~emitted])}
