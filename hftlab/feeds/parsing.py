"""What a receiver's ``parse`` returns, made into rows: events, batches or arrays, of a message or of many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from hftlab.errors import ValidationError, shown
from hftlab.events import Event, EventBatch, SourceTable, SymbolTable
from hftlab.events.records import DTYPES, RECORD, Rows
from hftlab.events.rowbytes import concat_rows, copy_rows

Parsed: TypeAlias = Event | Iterable[Event] | EventBatch | Rows | None
"""What one message became: an event, several, a batch, rows under the receiver's tables; None: nothing."""

Parse: TypeAlias = Callable[[bytes], Parsed]
ParseMany: TypeAlias = Callable[[list[bytes]], EventBatch | Rows | tuple[EventBatch | Rows, Sequence[int]]]
"""All messages of a wake-up at once: a row a message, or (rows, how many rows each message has)."""

Refuse: TypeAlias = Callable[[Exception], None]
_ROW_DTYPES = (RECORD, *DTYPES.values())


class Content(NamedTuple):
    """Rows and the places (among the messages parsed) of the messages that each of them came from."""

    rows: Rows
    places: npt.NDArray[np.intp]


class Parser:
    """Calls ``parse``. What it raises costs the message alone: ``refuse`` is told, and the others go on."""

    def __init__(
        self, parse: Parse | ParseMany, many: bool, symbols: SymbolTable, sources: SourceTable, refuse: Refuse
    ) -> None:
        if not callable(parse):
            raise ValidationError(f"parse is a function of a message's bytes; got {shown(parse)}")
        self._parse: Callable[[Any], Any] = parse
        self._many = many
        self._symbols, self._sources = symbols, sources
        self._refuse = refuse

    def contents(self, payloads: list[bytes]) -> list[Content]:
        """The rows of all messages in their order, in pieces; a copy, so that they may be changed."""
        if self._many:
            return self._contents_of_many(payloads)
        contents: list[Content] = []
        events: list[Event] = []
        places: list[int] = []
        for place, payload in enumerate(payloads):
            try:
                parsed = self._parse(payload)
                if isinstance(parsed, Event):
                    events.append(parsed)
                    places.append(place)
                    continue
                if parsed is None:
                    continue
                if not isinstance(parsed, (EventBatch, np.ndarray)):
                    several = _events(parsed)
                    events += several
                    places += [place] * len(several)
                    continue
                rows = self._rows(parsed)
            except Exception as error:
                self._refuse(error)
                continue
            contents += self._contents_of_events(events, places)
            events, places = [], []
            contents.append(Content(rows, np.full(len(rows), place)))
        return contents + self._contents_of_events(events, places)

    def _contents_of_events(self, events: list[Event], places: list[int]) -> list[Content]:
        if not events:
            return []
        try:
            return [Content(self._rows(EventBatch.from_events(events)), np.array(places))]
        except ValidationError as error:
            if len(events) == 1:
                self._refuse(error)
                return []
        # One of them breaks a rule that is checked here only; it must not take the others along.
        pairs = zip(events, places, strict=True)
        return [content for event, place in pairs for content in self._contents_of_events([event], [place])]

    def _contents_of_many(self, payloads: list[bytes]) -> list[Content]:
        try:
            return [self._mapped(self._parse(payloads), len(payloads))]
        except Exception as error:
            if len(payloads) == 1:
                self._refuse(error)
                return []
        contents = []
        for place, payload in enumerate(payloads):
            contents += [Content(rows, places + place) for rows, places in self._contents_of_many([payload])]
        return contents

    def _mapped(self, parsed: Any, messages: int) -> Content:
        parsed, counts = parsed if isinstance(parsed, tuple) else (parsed, None)
        if not isinstance(parsed, (EventBatch, np.ndarray)):
            raise ValidationError(f"a parse of many returns an EventBatch, or rows; got {shown(parsed)}")
        rows = self._rows(parsed)
        if counts is None:
            if len(rows) != messages:
                raise ValidationError(
                    f"a parse of many returns a row a message, or (rows, how many rows each message has); "
                    f"got {len(rows)} rows of {messages} messages"
                )
            return Content(rows, np.arange(messages))
        each = np.asarray(counts)
        if each.shape != (messages,) or each.dtype.kind not in "iu" or int(each.min()) < 0 or each.sum() != len(rows):
            raise ValidationError(
                f"the rows of each of {messages} messages are that many integers, which sum to the {len(rows)} rows; "
                f"got {shown(counts)}"
            )
        return Content(rows, np.repeat(np.arange(messages), each))

    def _rows(self, parsed: EventBatch | Rows) -> Rows:
        if isinstance(parsed, np.ndarray):
            if parsed.ndim != 1 or parsed.dtype not in _ROW_DTYPES:
                raise ValidationError(
                    f"rows are one-dimensional, of one of hftlab's dtypes (DTYPES, RECORD); "
                    f"got {parsed.dtype!s:.100} of shape {parsed.shape}"
                )
            if len(parsed) and not (
                int(parsed["symbol"].max()) < len(self._symbols) and int(parsed["source"].max()) < len(self._sources)
            ):
                raise ValidationError(
                    "rows have the ids of the receiver's tables: receiver.symbols.intern(name), sources.intern(source)"
                )
            return copy_rows(parsed)
        rows = parsed.using(self._symbols, self._sources).records
        return copy_rows(rows) if np.may_share_memory(rows, parsed.records) else rows


def joined(parts: list[Rows]) -> Rows:
    """Rows one after the other, under the dtype that they share."""
    if len(parts) == 1:
        return parts[0]
    dtypes = {part.dtype for part in parts}
    return concat_rows(parts, parts[0].dtype if len(dtypes) == 1 else RECORD)


def _events(parsed: Any) -> list[Event]:
    try:
        several = list(parsed)
    except TypeError:
        several = [parsed]
    for event in several:
        if not isinstance(event, Event):
            raise ValidationError(f"parse returns an event, several, an EventBatch, rows, or None; got {shown(event)}")
    return several
