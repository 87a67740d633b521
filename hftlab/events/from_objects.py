"""Rows out of many event objects at a time: a column each, one pass a column. One object alone is ``packing``'s."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from hftlab.errors import ValidationError, shown
from hftlab.events.records import (
    DTYPES,
    MAX_LOG_SEQUENCE,
    RECORD,
    TEXT_FIELDS,
    EventType,
    Flags,
    Rows,
    blank,
    split_event_id,
)
from hftlab.events.rowbytes import PLAIN
from hftlab.events.rules import check_text
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.events.types import EVENT_CLASSES, Event


def rows_of_events(events: Sequence[Event], symbols: SymbolTable, sources: SourceTable) -> tuple[Rows, int]:
    """The rows of events in their order, named in the given tables, and the number of the session that they are of.

    Rows have the dtype of their type, or ``RECORD`` where there are several. Raises ValidationError. 2 µs an event.
    """
    for item in events:
        if not isinstance(item, Event):
            raise ValidationError(f"from_events takes Event objects; got {shown(item)}")
    types = np.fromiter((int(event.event_type) for event in events), np.uint8, len(events))
    present = sorted(set(types.tolist()))
    if not present:
        return blank(0, EventType.MARKET_DATA), 0
    records = np.zeros(len(events), DTYPES[EventType(present[0])] if len(present) == 1 else RECORD)
    for value in present:
        where = np.flatnonzero(types == value)
        made = _rows_of_type(EventType(value), [events[index] for index in where.tolist()], symbols, sources)
        records.view(PLAIN)[where] = made.view(PLAIN)
    return records, _session_of(events)


def _session_of(events: Sequence[Event]) -> int:
    recorded = {event.event_id for event in events if not event.flags & Flags.EMITTED}
    numbers = {split_event_id(event_id)[0] if event_id else 0 for event_id in recorded}
    if len(numbers) > 1:
        raise ValidationError(
            f"a batch holds events of one session, or events that are in none (0); got event_ids of the sessions "
            f"number {sorted(numbers)}: make a batch of each"
        )
    return numbers.pop() if numbers else 0


def _rows_of_type(event_type: EventType, events: list[Event], symbols: SymbolTable, sources: SourceTable) -> Rows:
    rows = blank(len(events), event_type)
    naming: dict[str, Callable[[Any], int]] = {"symbol": symbols.intern, "source": sources.intern}
    names = EVENT_CLASSES[event_type].__struct_fields__
    columns = list(zip(*map(attrgetter(*names), events), strict=True))
    for name, values in zip(names, columns, strict=True):
        try:
            if name == "event_id":
                rows["log_sequence"] = np.array(values, np.int64) & MAX_LOG_SEQUENCE
            elif name in TEXT_FIELDS[event_type]:
                size_bytes = TEXT_FIELDS[event_type][name]
                # NumPy would cut off what is too long; replace() on an event that came out of a batch checks nothing.
                rows[name] = [check_text(name, value, size_bytes).encode() for value in values]
            elif name in naming:
                rows[name] = [naming[name](value) for value in values]
            else:
                rows[name] = values
        except (TypeError, ValueError, OverflowError) as error:
            raise ValidationError(f"{name} of these {event_type.name} events does not fit its field: {error}") from None
    return rows
