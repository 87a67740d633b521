"""A row at an address as a record: numba's own where a compiled function asks, a readable stand-in where Python does.

A handler sees rows of the ring, which other handlers see too: it may read its record and not write to it. The record
that ``emit`` hands back is the handler's own, and may be written.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import lower_builtin, lower_setattr_generic, models, register_model
from numba.np.numpy_support import from_dtype

from hftlab.errors import ValidationError
from hftlab.events.records import DTYPES, ROW_BYTES, EventType
from hftlab.ring.atomics import instruction

_lower_setattr: Any = lower_setattr_generic
_lower: Any = lower_builtin

_READ_ONLY = "a handler's record can be read and not written: other handlers see the same row; keep values in state"


class ReadOnlyRecord(types.Record):
    """numba's type of the record that a handler is given."""


register_model(ReadOnlyRecord)(models.RecordModel)


@_lower_setattr(ReadOnlyRecord)
def _refuse_setattr(context: Any, builder: Any, signature: Any, arguments: Any, attribute: str) -> Any:
    raise ValidationError(_READ_ONLY)


@_lower("static_setitem", ReadOnlyRecord, types.StringLiteral, types.Any)
def _refuse_setitem(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    raise ValidationError(_READ_ONLY)


class PlainRecord:
    """What a handler that runs as plain Python is given: fields as attributes or items, as Python's own values.

    Python's, and not NumPy's, because they divide and overflow as compiled ones do: 1.0 / 0.0 raises.
    """

    __slots__ = ("_row", "_writable")

    def __init__(self, row: np.void, writable: bool) -> None:
        object.__setattr__(self, "_row", row)
        object.__setattr__(self, "_writable", writable)

    def __getitem__(self, field: str) -> Any:
        return self._row[field].item()

    def __setitem__(self, field: str, value: Any) -> None:
        if not self._writable:
            raise ValidationError(_READ_ONLY)
        self._row[field] = value

    def __getattr__(self, field: str) -> Any:
        if field not in self._row.dtype.names:
            raise AttributeError(f"a record has the fields {', '.join(self._row.dtype.names)}; got {field!r:.100}")
        return self[field]

    def __setattr__(self, field: str, value: Any) -> None:
        self[field] = value

    def __repr__(self) -> str:
        return f"PlainRecord({self._row})"


def _view(event_type: EventType, writable: bool) -> Callable[[int], Any]:
    dtype = DTYPES[event_type]
    plain = from_dtype(dtype)
    fields: Any = [(name, {"type": field.type, "offset": field.offset}) for name, field in plain.fields.items()]
    numba_type = plain if writable else ReadOnlyRecord(fields, plain.size, plain.aligned)
    pointer = ir.ArrayType(ir.IntType(8), ROW_BYTES).as_pointer()

    # A record is a bare pointer to numba: nothing is counted, and nothing is copied.
    @instruction(lambda builder, address: builder.inttoptr(address, pointer), returns=numba_type)
    def record_at(address: int) -> Any:
        memory: Any = (ctypes.c_char * ROW_BYTES).from_address(address)
        return PlainRecord(np.frombuffer(memory, dtype)[0], writable)

    return record_at


RECORD_AT: dict[EventType, Callable[[int], Any]] = {t: _view(t, writable=False) for t in EventType}
"""By type: from the address of a row to the record that a handler is given."""

ROW_AT: dict[EventType, Callable[[int], Any]] = {t: _view(t, writable=True) for t in EventType}
"""By type: from the address of a row to a record that may be written."""
