"""``EventBatch``: rows, and the tables that give their ids names. What moves between all parts of hftlab."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from hftlab.errors import ValidationError, shown
from hftlab.events import columns
from hftlab.events.from_objects import rows_of_events
from hftlab.events.records import (
    DTYPES,
    HEADER_FIELDS,
    MAX_SESSION_NUMBER,
    PAYLOAD_FIELDS,
    RECORD,
    ROW_BYTES,
    EventType,
    Rows,
    event_ids,
    of_type,
)
from hftlab.events.rowbytes import clear_padding, concat_rows, copy_rows, take_rows
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.events.types import EVENT_CLASSES, Event

if TYPE_CHECKING:
    import pandas as pd

EventClass = type[Event]
"""One of the four event classes. An alias, because ``type`` names a property within ``EventBatch``."""

_TYPES = {int(event_type): event_type for event_type in EventType}
_TYPE_OF: dict[np.dtype[Any], EventType | None] = {**{dtype: t for t, dtype in DTYPES.items()}, RECORD: None}


class EventBatch:
    """``len(batch)`` events as 128-byte rows.

    ``records`` is a one-dimensional structured array: with the dtype of its type where all rows have one
    (``records["price"]`` works), else with ``RECORD`` (header by name, payload opaque; ``only(type)`` gives the rest).
    ``symbols`` and ``sources`` name the ids in the rows, ``session_number`` is the session that the rows' log
    sequences belong to (0: not recorded yet). Slicing is zero-copy; iterating makes event objects.
    """

    __slots__ = ("_type", "records", "session_number", "sources", "symbols")

    def __init__(
        self,
        records: Rows,
        symbols: SymbolTable | None = None,
        sources: SourceTable | None = None,
        *,
        session_number: int = 0,
    ) -> None:
        if not isinstance(records, np.ndarray) or records.ndim != 1 or records.dtype.itemsize != ROW_BYTES:
            shape = getattr(records, "shape", None), getattr(records, "dtype", type(records))
            raise ValidationError(f"records is a one-dimensional array of {ROW_BYTES}-byte rows; got {shape}")
        try:
            self._type = _TYPE_OF[records.dtype]
        except KeyError:
            raise ValidationError(
                f"records has one of hftlab's dtypes (RECORD, DTYPES); got {records.dtype!s:.200}"
            ) from None
        if not 0 <= session_number <= MAX_SESSION_NUMBER:
            raise ValidationError(f"a session's number is 0 to {MAX_SESSION_NUMBER}; got {shown(session_number)}")
        self.records = records
        self.symbols = SymbolTable() if symbols is None else symbols
        self.sources = SourceTable() if sources is None else sources
        self.session_number = session_number

    # -- made from ------------------------------------------------------------------------------------------------

    @classmethod
    def empty(cls, event_type: EventType = EventType.MARKET_DATA) -> EventBatch:
        """A batch of no rows."""
        return cls(np.zeros(0, DTYPES[event_type]))

    @classmethod
    def from_events(cls, events: Iterable[Event]) -> EventBatch:
        """A batch of event objects in their order. Raises ValidationError. About 2 µs an event."""
        symbols, sources = SymbolTable(), SourceTable()
        records, session_number = rows_of_events(list(events), symbols, sources)
        return cls(records, symbols, sources, session_number=session_number)

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        event_type: EventClass | EventType | None = None,
        columns: dict[str, str] | None = None,
        **constants: object,
    ) -> EventBatch:
        """A batch out of a pandas DataFrame, a row an event.

        ``columns`` maps our field to their column (a field whose name is a column needs no entry); ``constants`` gives
        one value for all rows, as in ``symbol="BTCUSDT"``. ``symbol`` and one of ``timestamp`` and ``received`` are
        needed, and what the event class has no default for. Times are integers in ns UTC, datetimes with a zone, or
        ISO 8601 text with one; sides, kinds and order types their names or numbers; sources ``Source.text``. Columns of
        other names are not read.

        ``event_type``: what all rows are; without it, what the table's own ``event_type`` column says for each row,
        and market data where there is none. ``batch.to_frame().pipe(EventBatch.from_frame)`` is the same batch again.
        Raises ValidationError (TimeError for times) with the first row that breaks a rule. Vectorised: 0.5 µs a row.
        """
        from hftlab.events.from_table import batch_from_frame

        chosen = None if event_type is None else as_event_type(event_type)
        return batch_from_frame(frame, chosen, columns or {}, constants)

    @classmethod
    def concat(cls, batches: Iterable[EventBatch]) -> EventBatch:
        """All rows of all batches, in that order, under common tables. One copy of the rows."""
        listed = list(batches)
        if not listed:
            return cls.empty()
        numbers = {batch.session_number for batch in listed if len(batch)}
        if len(numbers) > 1:
            raise ValidationError(f"a batch holds events of one session; got the sessions number {sorted(numbers)}")
        filled = [batch for batch in listed if len(batch)] or listed[:1]
        first = filled[0]
        symbols, sources = SymbolTable(first.symbols), SourceTable(first.sources.values[1:])
        dtype = first.records.dtype if len({batch.type for batch in filled}) == 1 else RECORD
        total = concat_rows([batch.using(symbols, sources).records for batch in filled], dtype)
        return cls(total, symbols, sources, session_number=first.session_number)

    # -- looked at ------------------------------------------------------------------------------------------------

    @property
    def type(self) -> EventType | None:
        """The type that all rows have, or None for rows of several types side by side."""
        return self._type

    @property
    def event_ids(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Every row's event id, int64 (0: not recorded)."""
        return event_ids(self.records, self.session_number)

    @property
    def nbytes(self) -> int:
        """Bytes that the rows take: 128 each."""
        return int(self.records.nbytes)

    def counts(self) -> dict[EventType, int]:
        """How many rows each type has; types without rows are left out."""
        if self._type is not None:
            return {self._type: len(self)} if len(self) else {}
        found = np.bincount(self.records["type"], minlength=len(EventType) + 1)
        return {event_type: int(found[event_type]) for event_type in EventType if found[event_type]}

    def only(self, event_type: EventClass | EventType) -> EventBatch:
        """The rows of one type under its own dtype: zero-copy where all rows have it."""
        rows = of_type(self.records, as_event_type(event_type))
        return EventBatch(rows, self.symbols, self.sources, session_number=self.session_number)

    def column(self, field: str) -> list[Any]:
        """One field of all rows as Python values: symbols, enums and sources by name. About 10 ns a value."""
        if self._type is None:
            if field not in (*HEADER_FIELDS, "event_id"):
                shared = ", ".join((*HEADER_FIELDS, "event_id"))
                raise ValidationError(f"rows of several types share only {shared}; got {shown(field)}")
        elif field != "type":
            columns.check_fields(self._type, (field,))
        return list(columns.column(self.records, field, self.symbols, self.sources, self.session_number))

    def where(self, mask: np.ndarray[Any, Any]) -> EventBatch:
        """The rows that a boolean mask, or an array of positions, picks. A copy of those rows."""
        return EventBatch(take_rows(self.records, mask), self.symbols, self.sources, session_number=self.session_number)

    def using(self, symbols: SymbolTable, sources: SourceTable) -> EventBatch:
        """The same events with the ids of other tables; new names are interned there. Zero-copy where no id changes."""
        to_symbol = self.symbols.translation(symbols)
        to_source = self.sources.translation(sources)
        records = self.records
        if len(records) and (to_symbol is not None or to_source is not None):
            records = copy_rows(records)
            if to_symbol is not None:
                records["symbol"] = to_symbol[records["symbol"]]
            if to_source is not None:
                records["source"] = to_source[records["source"]]
        return EventBatch(records, symbols, sources, session_number=self.session_number)

    def to_frame(self) -> pd.DataFrame:
        """A pandas DataFrame, a row an event: UTC timestamps, and names (as categories) for symbols, sources and enums.

        Numbers that no row has are left out. Rows of several types share one table, empty where a type has no such
        field. Fewer than 0.3 µs a row.
        """
        from hftlab.events.to_table import frame_of_batch

        return frame_of_batch(self)

    def events(self) -> Iterator[Event]:
        """Event objects in order, made as they are asked for: 0.3 to 0.7 µs each within runs of one type."""
        for run in self.runs():
            yield from columns.events(run.records, self.symbols, self.sources, self.session_number)

    def runs(self) -> Iterator[EventBatch]:
        """The batch cut where the type changes: zero-copy batches of one type each, in order."""
        if self._type is not None:
            if len(self):
                yield self
            return
        types = self.records["type"]
        cuts = [0, *(np.flatnonzero(types[1:] != types[:-1]) + 1).tolist(), len(types)]
        for begin, end in pairwise(cuts):
            if begin < end:
                if int(types[begin]) not in _TYPES:
                    raise ValidationError(f"row {begin}: type is one of {list(_TYPES)}; got {types[begin]}")
                rows = self.records[begin:end].view(DTYPES[_TYPES[int(types[begin])]])
                yield EventBatch(rows, self.symbols, self.sources, session_number=self.session_number)

    __iter__ = events

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> EventBatch: ...
    def __getitem__(self, index: int | slice) -> Event | EventBatch:
        if isinstance(index, slice):
            return EventBatch(self.records[index], self.symbols, self.sources, session_number=self.session_number)
        count = len(self)
        position = index + count if index < 0 else index
        if not 0 <= position < count:
            raise IndexError(f"the batch has {count} rows; got index {index}")
        return next(iter(self[position : position + 1]))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EventBatch):
            return NotImplemented
        if len(self) != len(other) or self.session_number != other.session_number:
            return False
        theirs = other.using(SymbolTable(self.symbols), SourceTable(self.sources.values[1:]))
        return _comparable(self.records) == _comparable(theirs.records)

    __hash__ = None  # type: ignore[assignment]  # mutable rows

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {event_type.topic}" for event_type, count in self.counts().items())
        # The table may be one that batches share: what counts is which of its symbols these rows have.
        used = [
            self.symbols[index]
            for index in np.flatnonzero(np.bincount(self.records["symbol"])).tolist()
            if index < len(self.symbols)
        ]
        return f"EventBatch({counts or 'empty'}; {_names(used)})"

    def _repr_html_(self) -> str:
        from hftlab.events.to_table import html_of_batch

        return html_of_batch(self)


def as_event_type(value: EventClass | EventType | str) -> EventType:
    """The EventType that an event class, an EventType, or a topic's first word names. Raises ValidationError."""
    if isinstance(value, EventType):
        return value
    if isinstance(value, type) and issubclass(value, Event) and hasattr(value, "event_type"):
        return value.event_type
    for event_type in EventType:
        if value == event_type.topic:
            return event_type
    names = ", ".join(cls.__name__ for cls in EVENT_CLASSES.values())
    raise ValidationError(f"an event type is one of {names}; got {shown(value)}")


def _comparable(records: Rows) -> bytes:
    rows = copy_rows(records)
    clear_padding(rows)
    return rows.tobytes()


def _names(values: Sequence[str]) -> str:
    return (
        ", ".join(values[:3]) + (f" and {len(values) - 3} more" if len(values) > 3 else "") if values else "no symbol"
    )


assert set(PAYLOAD_FIELDS) == set(EVENT_CLASSES)
