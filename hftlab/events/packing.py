"""One event object into one row in about 2 µs: for a publication or an emission, where columns are one value long."""

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
    Flags,
)
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.events.types import Event

_CODES = {"<i8": "q", "<u4": "I", "<u2": "H", "|u1": "B", "|i1": "b", "<f8": "d"}
_ARRIVAL_TIME = int(Flags.ARRIVAL_TIME)

_Packer = tuple[Callable[..., None], Callable[[Event], tuple[Any, ...]], tuple[tuple[int, int], ...]]


def _packer(event_type: EventType) -> _Packer:
    """``pack_into`` for a whole row of one type, the getter of its values in that order, and where texts stand."""
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
    texts = tuple((names.index(name), size) for name, size in TEXT_FIELDS[event_type].items())
    return packer.pack_into, attrgetter(*(attributes.get(name, name) for name in names)), texts


_PACKERS = {event_type: _packer(event_type) for event_type in EventType}
# The header's fields stand in the same order in every type.
_NAMES = sorted(HEADER_FIELDS, key=lambda name: DTYPES[EventType.ORDER].fields[name][1])  # type: ignore[index]
_TIMESTAMP, _RECEIVED, _FLAGS = (_NAMES.index(name) for name in ("timestamp", "received", "flags"))
_LOG, _SYMBOL, _SOURCE = (_NAMES.index(name) for name in ("log_sequence", "symbol", "source"))


def pack_event(
    event: Event, row: memoryview, symbols: SymbolTable, sources: SourceTable, *, now_ns: int | None = None
) -> None:
    """Write ``event`` over the 128 writable bytes of ``row``; its names are interned in the tables.

    With ``now_ns``, an event that brings no ``received`` gets that, and one that brings no ``timestamp`` its arrival's.
    Raises ValidationError for what is not an Event, or for a value that does not fit (an event that was made without
    validation); the row may be half written then.
    """
    if not isinstance(event, Event):
        raise ValidationError(
            f"an event is a MarketDataEvent, OrderEvent, FillEvent or SignalEvent; got {event!r:.100}"
        )
    pack_into, values_of, texts = _PACKERS[event.event_type]
    values = list(values_of(event))
    if now_ns is not None:
        if not values[_RECEIVED]:
            values[_RECEIVED] = now_ns
        if not values[_TIMESTAMP]:
            values[_TIMESTAMP] = values[_RECEIVED]
            values[_FLAGS] = int(values[_FLAGS]) | _ARRIVAL_TIME
    values[_LOG] &= MAX_LOG_SEQUENCE
    values[_SYMBOL] = symbols.intern(event.symbol)
    values[_SOURCE] = sources.intern(event.source)
    try:
        for index, size in texts:
            text = values[index].encode()
            if len(text) > size:  # struct would cut it off without a word
                raise ValidationError(f"{event!r:.200} does not fit a row: {text[:100]!r} is more than {size} bytes")
            values[index] = text
        pack_into(row, 0, *values)
    except (struct.error, AttributeError, UnicodeEncodeError) as error:
        raise ValidationError(f"{event!r:.200} does not fit a row: {error}") from None
