"""``format="csv"``: tables with a header line, a row an event, their columns mapped to the fields of one event type.

Lines are taken apart by Python's csv module rather than by pandas, for two reasons: it tells which line a bad row is,
and one bad cell does not turn the numbers of its column into text. A line is a row: a quoted cell does not span lines.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import numpy as np
import numpy.typing as npt

from hftlab.errors import FeedError, ValidationError
from hftlab.events import Event, EventBatch, EventType, as_event_type
from hftlab.events.columns import HANDLER_FIELDS
from hftlab.events.records import PAYLOAD_FIELDS, blank
from hftlab.events.rules import RULES
from hftlab.events.types import EVENT_CLASSES
from hftlab.feeds.capture import Capture
from hftlab.feeds.cells import UNITS_NS, Cells, parse_column, parse_constant
from hftlab.feeds.files import Piece
from hftlab.feeds.formats import register

_GIVEN_BY_HFTLAB = ("event_id", "topic", "log_sequence")
_TIMES = ("timestamp", "received")


@register("csv", "a table with a header line; columns= maps our fields to its columns")
def read_csv(
    capture: Capture,
    *,
    columns: Mapping[str, str] | None = None,
    event_type: type[Event] | EventType | str = EventType.MARKET_DATA,
    unit: str | None = None,
    zone: str | None = None,
    delimiter: str = ",",
    names: Sequence[str] | None = None,
    **constants: Any,
) -> Iterator[EventBatch]:
    """Batches of events of one type, one a piece of text.

    ``columns`` maps fields to the table's columns (a column named like a field needs no entry), ``constants`` are
    fields that are the same in all rows, as in ``symbol="BTC-USD", kind="TRADE"``. A symbol and one of ``timestamp``
    and ``received`` are needed. Times are ISO 8601 text with a zone (without one: in ``zone``), or numbers in
    ``unit`` ("s", "ms", "us", "ns"; without it integers are ns). ``names`` are the columns of files without a header.
    An empty cell is a value that was not sent. Kinds that nothing names are told from the fields present.

    A row with a cell that can't be read, or that breaks a rule, is counted as damaged. Raises FeedError for columns
    and fields that don't exist; lists those that do. About 4 µs a row.
    """
    kind = as_event_type(event_type)
    if unit is not None and unit not in UNITS_NS:
        raise FeedError(f"unit is one of {', '.join(UNITS_NS)}; got {unit!r:.100}")
    if not isinstance(delimiter, str) or len(delimiter) != 1 or (not delimiter.isprintable() and delimiter != "\t"):
        raise FeedError(f"delimiter is one character between the cells of a line; got {delimiter!r:.100}")
    if zone is not None:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, TypeError):
            raise FeedError(f'zone is a time zone such as "UTC" or "America/New_York"; got {zone!r:.100}') from None
    table = _Table(capture, kind, dict(columns or {}), constants)
    table.unit, table.zone, table.delimiter = unit, zone, delimiter
    file = ""
    for piece in capture.pieces():
        first_data = 0
        if piece.file != file or piece.first_line == 1:
            file = piece.file
            header = list(names) if names else table.header(piece)
            first_data = 0 if names else 1
            table.map_columns(header, file)
        yield table.read(piece, first_data)


class _Table:
    """What is known of the tables of one reading: the mapping, and where each field stands in the current file."""

    unit: str | None
    zone: str | None
    delimiter: str

    def __init__(
        self, capture: Capture, event_type: EventType, columns: dict[str, str], constants: dict[str, Any]
    ) -> None:
        self._capture = capture
        self._type = event_type
        self._columns = columns
        self._fields = tuple(f for f in HANDLER_FIELDS[event_type] if f not in _GIVEN_BY_HFTLAB)
        for field in (*columns, *constants):
            if field not in self._fields:
                listed = ", ".join(self._fields)
                raise FeedError(f"there is no field or option {field!r}; {event_type.name} events have: {listed}")
        self._constants = {field: parse_constant(event_type, field, value) for field, value in constants.items()}
        described = [f for f in msgspec.structs.fields(EVENT_CLASSES[event_type]) if f.name in self._fields]
        self._needed = [f.name for f in described if f.required]
        # What an event object has by default (a commission of 0), a row of a table without that column has too. Kinds
        # of market data are told from the fields instead.
        optional = [] if event_type is EventType.MARKET_DATA else [f for f in described if not f.required]
        self._defaults = {f.name: f.default for f in optional if f.name in PAYLOAD_FIELDS[event_type]}
        self._same: dict[str, Any] = {}  # fields that are the same in all rows of the current file
        self._width = 0
        self._at: dict[str, int] = {}

    def header(self, piece: Piece) -> list[str]:
        """The names on a file's first line."""
        self._capture.skip("header")
        text = piece.lines[0].decode("utf-8", "replace")
        try:
            return [name.strip() for name in next(csv.reader([text], delimiter=self.delimiter), [])]
        except csv.Error as error:
            raise FeedError(
                f"the first line of {piece.file} is no header of a table: {error}; got {text!r:.100}"
            ) from None

    def map_columns(self, header: list[str], file: str) -> None:
        """Find every field's column in a file's header. Raises FeedError."""
        has = f"{file} has the columns: {', '.join(header)}"
        for field, column in self._columns.items():
            if column not in header:
                raise FeedError(f"there is no column {column!r} for {field}; {has}")
        wanted = {field: field for field in self._fields if field in header} | self._columns
        wanted = {field: column for field, column in wanted.items() if field not in self._constants}
        for column in wanted.values():
            if header.count(column) > 1:
                raise FeedError(f"the column {column!r} is there {header.count(column)} times; {has}")
        given = {*wanted, *self._constants}
        missing = [field for field in self._needed if field not in given]
        missing += ["timestamp"] if given.isdisjoint(_TIMES) else []
        if missing:
            raise FeedError(
                f"{self._type.name} events need {', '.join(missing)}: say columns={{{missing[0]!r}: …}} for a column "
                f"of another name, {missing[0]}=… for one value in all rows; {has}"
            )
        self._same = {field: value for field, value in self._defaults.items() if field not in wanted} | self._constants
        self._at = {field: header.index(column) for field, column in wanted.items()}
        self._width = len(header)

    def read(self, piece: Piece, first: int) -> EventBatch:
        """The rows of a piece from line ``first`` on."""
        indexes, rows = self._split(piece, first)
        if not rows:
            return EventBatch.empty(self._type)
        across = list(zip(*rows, strict=True))
        cells = {
            field: parse_column(self._type, field, across[at], self.unit, self.zone) for field, at in self._at.items()
        }
        good = self._good(piece, indexes, cells, rows)
        count = int(np.count_nonzero(good))
        self._capture.messages("row", count)
        return self._batch({field: cell.values[good] for field, cell in cells.items()}, count)

    def _split(self, piece: Piece, first: int) -> tuple[list[int], list[list[str]]]:
        """The cells of every line that has as many as the header, and these lines' indexes in the piece."""
        indexes: list[int] = []
        lines: list[str] = []
        for index, line in enumerate(piece.lines[first:], first):
            try:
                text = line.decode().rstrip("\r")
            except UnicodeDecodeError as error:
                self._capture.damage(piece, index, f"not UTF-8: {error}")
                continue
            if not text.strip():
                self._capture.skip("blank")
            elif text.count('"') % 2:
                self._capture.damage(piece, index, "a quote is opened and not closed on the line")
            else:
                indexes.append(index)
                lines.append(text)
        try:
            rows = list(csv.reader(lines, delimiter=self.delimiter))
        except csv.Error:
            rows = []
        if len(rows) != len(lines):
            # A cell beyond csv's limit, or a quote inside a bare cell that made one row of two lines: line by line.
            rows = [self._alone(line) for line in lines]
        width = self._width
        if any(len(row) != width for row in rows):
            for index, row in zip(indexes, rows, strict=True):
                if len(row) != width:
                    self._capture.damage(piece, index, f"{len(row)} cells, and the header has {width}")
            indexes = [index for index, row in zip(indexes, rows, strict=True) if len(row) == width]
            rows = [row for row in rows if len(row) == width]
        return indexes, rows

    def _alone(self, line: str) -> list[str]:
        try:
            return next(csv.reader([line], delimiter=self.delimiter))
        except csv.Error:
            return []

    def _good(
        self, piece: Piece, indexes: list[int], cells: dict[str, Cells], rows: list[list[str]]
    ) -> npt.NDArray[np.bool_]:
        """Which rows can be read and keep the rules; counts the others as damaged, each with its first reason."""
        good = np.ones(len(rows), np.bool_)

        def judge(field: str, holds: npt.NDArray[np.bool_], rule: str) -> None:
            for row in np.flatnonzero(good & ~holds).tolist():
                shown = repr(rows[row][self._at[field]])[:60] if field in self._at else "no such column"
                self._capture.damage(piece, indexes[row], f"{field} {rule}; got {shown}")
            np.logical_and(good, holds, out=good)

        for field, cell in cells.items():
            judge(field, cell.good, cell.rule)
        blank_row = blank(1, self._type)

        def get(name: str) -> Any:
            if name in cells:
                return cells[name].values
            return self._same[name] if name in self._same else blank_row[name][0]

        with np.errstate(invalid="ignore"):
            for rule in RULES[self._type]:
                judge(rule.field, np.broadcast_to(np.asarray(rule.holds(get), np.bool_), len(rows)), rule.text)
        return good

    def _batch(self, values: dict[str, npt.NDArray[Any]], count: int) -> EventBatch:
        import pandas as pd

        frame = pd.DataFrame(values, index=range(count))
        try:
            return EventBatch.from_frame(frame, event_type=self._type, **self._same)
        except ValidationError as error:
            raise FeedError(f"these rows make no events: {error}") from error
