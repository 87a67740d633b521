"""Conflation, compiled: which rows say only what another row of the same kind says anew."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit, types

from hftlab.events.records import ROW_BYTES, EventType, Kind, Rows

_WORDS = ROW_BYTES // 8
_MARKET = int(EventType.MARKET_DATA)
_TRADE = int(Kind.TRADE)
_LEVEL = int(Kind.LEVEL)
_MIX = -7046029254386353131  # 2**64 / golden ratio, as an int64: Fibonacci hashing


@njit(cache=True, nogil=True)
def find_superseded(words: npt.NDArray[np.int64], first: bool, found: npt.NDArray[np.bool_]) -> None:
    """Set ``found[i]`` for each row whose kind is seen again later (``first``: was seen before).

    ``words``: the rows as int64, 16 a row, contiguous; ``found`` has an entry a row. Rows are of a kind with the same
    symbol and source if both are quotes, or ticks, or levels of the same side and price. Trades and whatever is no
    market data are of no kind: nothing supersedes them. A hash table of row numbers, half full at most: some 10 ns a
    row. Writes ``found`` only; any thread.
    """
    rows = len(words) // _WORDS
    bits = 4
    while (1 << bits) < 2 * rows:
        bits += 1
    table = np.full(1 << bits, -1, np.int64)
    mask = (1 << bits) - 1
    for step in range(rows):
        row = step if first else rows - 1 - step
        at = row * _WORDS
        found[row] = False
        header = words[at + 7]
        kind = words[at + 14] & 0xFF
        if ((header >> 32) & 0xFF) != _MARKET or kind == _TRADE:
            continue
        key = (words[at + 5] & 0xFFFFFFFF) | ((header & 0xFFFF) << 32) | (kind << 48)
        more = np.int64(0)
        if kind == _LEVEL:
            key |= ((words[at + 14] >> 8) & 0xFF) << 56
            more = words[at + 8]
        slot = (((key ^ (more >> 17) ^ (more << 5)) * _MIX) >> 20) & mask
        while table[slot] >= 0:
            other = table[slot] * _WORDS
            tail = words[other + 7]
            same = (words[other + 5] & 0xFFFFFFFF) | ((tail & 0xFFFF) << 32) | ((words[other + 14] & 0xFF) << 48)
            if kind == _LEVEL:
                same |= ((words[other + 14] >> 8) & 0xFF) << 56
            if same == key and (kind != _LEVEL or words[other + 8] == more):
                found[row] = True
                break
            slot = (slot + 1) & mask
        if not found[row]:
            table[slot] = row


def superseded_rows(rows: Rows, *, first: bool = False) -> npt.NDArray[np.bool_]:
    """Which rows a later one says anew (``first``: which say anew what an earlier one said). About 10 ns a row.

    ``rows`` are contiguous, of 128 bytes, with ids of the same tables.
    """
    found = np.empty(len(rows), bool)
    find_superseded(rows.view(np.int64, np.ndarray), first, found)
    return found


_SIGNATURES = tuple(
    (find_superseded, (types.Array(types.int64, 1, "C", readonly=readonly), types.boolean, types.boolean[::1]))
    for readonly in (False, True)
)


def warm() -> int:
    """Compile every kernel into numba's cache on disk, or load what is there already; return how many there are."""
    for kernel, signature in _SIGNATURES:
        kernel.compile(signature)
    return len(_SIGNATURES)
