"""One event object into one row, in about 1 µs: for emissions, where a column would be one value long."""

from __future__ import annotations

import struct
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from hftlab.errors import ValidationError
from hftlab.events.records import (
    DTYPES,
    HEADER_FIELDS,
    MAX_LOG_SEQUENCE,
    PAYLOAD_FIELDS,
    ROW_BYTES,
    TEXT_FIELDS,
    EventType,
)
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.events.types import Event

_CODES = {"<i8": "q", "<u4": "I", "<u2": "H", "|u1": "B", "|i1": "b", "<f8": "d"}


def _packer(event_type: EventType) -> tuple[Callable[..., None], Callable[[Event], tuple[Any, ...]], tuple[int, ...]]:
    """``pack_into`` for a row of one type, the getter of its values in that order, and which of these are text."""
    dtype = DTYPES[event_type]
    names = sorted((*HEADER_FIELDS, *PAYLOAD_FIELDS[event_type]), key=lambda name: dtype.fields[name][1])  # type: ignore[index]
    form, end = "<", 0
    for name in names:
        field, offset = dtype.fields[name][:2]  # type: ignore[index]
        form += "x" * (offset - end)
        form += f"{field.itemsize}s" if field.kind == "S" else _CODES[field.str]
        end = offset + field.itemsize
    packer = struct.Struct(form + "x" * (ROW_BYTES - end))
    assert packer.size == ROW_BYTES
    attributes = {"log_sequence": "event_id", "type": "event_type"}
    texts = tuple(names.index(name) for name in TEXT_FIELDS[event_type])
    return packer.pack_into, attrgetter(*(attributes.get(name, name) for name in names)), texts


_PACKERS = {event_type: _packer(event_type) for event_type in EventType}
_NAMES = sorted(HEADER_FIELDS, key=lambda name: DTYPES[EventType.ORDER].fields[name][1])  # type: ignore[index]
_LOG = _NAMES.index("log_sequence")
_SYMBOL = _NAMES.index("symbol")
_SOURCE = _NAMES.index("source")


def pack_event(event: Event, row: memoryview, symbols: SymbolTable, sources: SourceTable) -> None:
    """Write ``event`` over the 128 writable bytes of ``row``; its names are interned in the tables.

    Raises ValidationError for what is not an Event, or for a value that does not fit (an event that was made without
    validation).
    """
    if not isinstance(event, Event):
        raise ValidationError(
            f"an event is a MarketDataEvent, OrderEvent, FillEvent or SignalEvent; got {event!r:.100}"
        )
    pack_into, values_of, texts = _PACKERS[event.event_type]
    values = list(values_of(event))
    values[_LOG] &= MAX_LOG_SEQUENCE
    values[_SYMBOL] = symbols.intern(event.symbol)
    values[_SOURCE] = sources.intern(event.source)
    try:
        for index in texts:
            values[index] = values[index].encode()
        pack_into(row, 0, *values)
    except (struct.error, AttributeError) as error:
        raise ValidationError(f"{event!r:.200} does not fit a row: {error}") from None
