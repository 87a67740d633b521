"""The look at rows that come in, compiled: one pass over their headers instead of nine, 1.5 ns a row instead of 10."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit, types

from hftlab.events.records import ROW_BYTES, ClockSource, EventType, Kind, OrderType, Priority

_WORDS = ROW_BYTES // 8
_MARKET = int(EventType.MARKET_DATA)
_ORDER = int(EventType.ORDER)
_TYPES = len(EventType)
_PRIORITIES = len(Priority)
_CLOCKS = len(ClockSource)
_KINDS = len(Kind)
_ORDER_TYPES = len(OrderType)


@njit(cache=True, nogil=True)
def inspect_rows(words: npt.NDArray[np.int64], event_type: int, symbols: int, sources: int) -> tuple[int, bool]:
    """The first row that no handler could be given (the number of rows: there is none), and whether any has no time.

    ``words``: the rows as int64, 16 a row, contiguous. ``event_type``: what all rows must be (0: any of the types).
    A row is refused for its type, for a symbol or source that is not below ``symbols`` or ``sources``, and for an enum
    that does not exist. Texts are not looked at. Reads only; any thread.
    """
    rows = len(words) // _WORDS
    untimed = False
    for row in range(rows):
        first = row * _WORDS
        untimed |= (words[first] == 0) | (words[first + 1] == 0)
        tail = words[first + 7]  # source, flags, type, priority, clock
        kind = (tail >> 32) & 0xFF
        fits = (words[first + 5] & 0xFFFFFFFF) < symbols
        fits &= (tail & 0xFFFF) < sources
        fits &= ((tail >> 40) & 0xFF) < _PRIORITIES
        fits &= ((tail >> 48) & 0xFF) < _CLOCKS
        if event_type == 0:
            fits &= (kind >= 1) & (kind <= _TYPES)
        else:
            fits &= kind == event_type
        if kind == _MARKET:
            enums = words[first + 14]  # kind, side
            fits &= (enums & 0xFF) < _KINDS
            fits &= ((enums >> 8) + 1) & 0xFF <= 2
        elif kind == _ORDER:
            enums = words[first + 10]  # direction, order_type
            fits &= ((enums & 0xFF) == 1) | ((enums & 0xFF) == 0xFF)
            fits &= (((enums >> 8) & 0xFF) >= 1) & (((enums >> 8) & 0xFF) <= _ORDER_TYPES)
        if not fits:
            return row, untimed
    return rows, untimed


_SIGNATURES = tuple(
    (inspect_rows, (types.Array(types.int64, 1, "C", readonly=readonly), types.int64, types.int64, types.int64))
    for readonly in (False, True)
)


def warm() -> int:
    """Compile every kernel into numba's cache on disk, or load what is there already; return how many there are."""
    for kernel, signature in _SIGNATURES:
        kernel.compile(signature)
    return len(_SIGNATURES)
