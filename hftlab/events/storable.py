"""What rows must be to be stored in a frame: checks that writers make before, and readers after, and the column words.

The checks cover what the rest of hftlab relies on never to crash (ids that have names, enums that exist, text that
decodes). Whether a price makes sense is the writer's business, and ``rules``'.
"""

from __future__ import annotations

import operator
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from hftlab.errors import ValidationError
from hftlab.events.batch import EventBatch
from hftlab.events.records import (
    DTYPES,
    ROW_BYTES,
    TEXT_FIELDS,
    ClockSource,
    EventType,
    Kind,
    OrderType,
    Priority,
    Rows,
    Side,
)
from hftlab.events.rowbytes import USED_BITS
from hftlab.events.rules import check_record_texts

WORDS = ROW_BYTES // 8
# Rows that are checked at a time: what is copied for it fits the cache.
_CHUNK = 4_096

Words = npt.NDArray[np.int64]
"""Rows column by column: int64 of shape (16, rows), C-contiguous; word ``w`` has the bytes ``8 * w …`` of all rows."""


_UNUSED = {event_type: (~USED_BITS[event_type]).tolist() for event_type in EventType}
_TYPE_WORD, _TYPE_SHIFT = 7, 32
assert DTYPES[EventType.ORDER].fields["type"][1] * 8 == _TYPE_WORD * 64 + _TYPE_SHIFT  # type: ignore[index]


def to_words(rows: Rows) -> Words:
    """A column-wise copy of rows. About 12 ns a row."""
    contiguous = np.ascontiguousarray(rows.view(f"V{ROW_BYTES}"))
    # copy, not ascontiguousarray, which returns a single row as it is: it is contiguous either way.
    return contiguous.view(np.int64).reshape(-1, WORDS).T.copy()


def from_words(words: Words, event_type: EventType) -> Rows:
    """The rows that column-wise words hold: a copy. About 10 ns a row."""
    # Never ascontiguousarray: a single row is contiguous either way, and stays a view of read-only bytes.
    return words.T.copy().reshape(-1).view(DTYPES[event_type])


_PLACES = {
    (event_type, name): (dtype.fields[name][0], *divmod(dtype.fields[name][1], 8))  # type: ignore[index]
    for event_type, dtype in DTYPES.items()
    for name in dtype.names or ()
}


def column_of(words: Words, event_type: EventType, field: str) -> npt.NDArray[Any]:
    """A view of one field of at most 8 bytes."""
    form, word, byte = _PLACES[event_type, field]
    column: npt.NDArray[Any] = words[word].view(form)
    return column[byte // form.itemsize :: 8 // form.itemsize]


def bits_of(words: Words) -> npt.NDArray[np.int64]:
    """The bits that any row has set, as one row of 16 words: an upper bound of every column for one pass over all."""
    bits: npt.NDArray[np.int64] = np.bitwise_or.reduce(words, axis=1)
    return bits


def padding_of(event_type: EventType, bits: npt.NDArray[np.int64]) -> bool:
    """Whether any row has anything but 0 in the bytes that no field covers."""
    return any(map(operator.and_, bits.tolist(), _UNUSED[event_type]))


# Plain numbers: asking an enum for its greatest member costs a microsecond.
_PRIORITY, _CLOCK, _KIND = int(max(Priority)), int(max(ClockSource)), int(max(Kind))
_ASK, _BID = int(Side.ASK), int(Side.BID)
_MARKET, _STOP_LIMIT = int(OrderType.MARKET), int(OrderType.STOP_LIMIT)
# symbol, source, type, priority, clock of a row; the bytes between are skipped.
_HEADER_ENUMS = struct.Struct("<I12xH2xBBB")
_HEADER_ENUMS_AT = 40


# The words in which the header's ids and enums lie, and those of each type.
_TOLD = {
    event_type: sorted(
        {_PLACES[event_type, name][1] for name in ("symbol", "source", "type", "priority", "clock", *own)}
    )
    for event_type, own in {
        EventType.MARKET_DATA: ("kind", "side"),
        EventType.ORDER: ("order_type", "direction"),
        EventType.FILL: (),
        EventType.SIGNAL: (),
    }.items()
}


def fault_of(
    event_type: EventType, words: Words, bits: npt.NDArray[np.int64], symbols: int, sources: int
) -> str | None:
    """What is wrong with rows that name ``symbols`` symbols and ``sources`` sources, or None. About 7 ns a row.

    ``bits`` are ``bits_of(words)``. Texts are not looked at: see ``rules.check_record_texts``.
    """
    symbol, source, type_bits, priority, clock = _HEADER_ENUMS.unpack_from(bits.data, _HEADER_ENUMS_AT)

    def above(field: str, bound: int, most: int) -> bool:
        # Where the bound holds, as it nearly always does, no pass over the column is needed.
        return bound > most and int(column_of(words, event_type, field).max()) > most

    # All rows have a bit, and no row has another: they all have the same type.
    common = int(np.bitwise_and.reduce(words[_TYPE_WORD])) >> _TYPE_SHIFT & 0xFF
    if not type_bits == common == event_type:
        return f"they are declared as {event_type.name} rows, and some are of another type"
    if above("symbol", symbol, symbols - 1) or above("source", source, sources - 1):
        return f"some point past the {symbols} symbols and {sources} sources that have names"
    if above("priority", priority, _PRIORITY) or above("clock", clock, _CLOCK):
        return "the priority or clock of some does not exist"
    if event_type is EventType.MARKET_DATA:
        kinds, sides = (column_of(words, event_type, name) for name in ("kind", "side"))
        if int(kinds.max()) > _KIND or not _ASK <= int(sides.min()) <= int(sides.max()) <= _BID:
            return "the kind or side of some does not exist"
    elif event_type is EventType.ORDER:
        types, directions = (column_of(words, event_type, name) for name in ("order_type", "direction"))
        if not (_MARKET <= int(types.min()) <= int(types.max()) <= _STOP_LIMIT and (abs(directions) == 1).all()):
            return "the order_type or direction of some does not exist"
    return None


def check_rows(batch: EventBatch) -> None:
    """Raise ValidationError where ``encode_frame`` would refuse these rows for what they hold (not for how many).

    For writers that must know before the first frame of many is stored. Rows of any types; about 12 ns a row.
    """
    counts = batch.counts()
    if sum(counts.values()) != len(batch):
        raise ValidationError(f"a row's type is one of {[int(t) for t in EventType]}; got others")
    for event_type in counts:
        rows = batch.only(event_type).records
        for begin in range(0, len(rows), _CHUNK):
            part = rows[begin : begin + _CHUNK]
            words, bits = _told_words(event_type, part)
            _raise_for(event_type, part, words, bits, len(batch.symbols), len(batch.sources), begin)


def _told_words(event_type: EventType, rows: Rows) -> tuple[Words, npt.NDArray[np.int64]]:
    """Words of which only those are filled that ``fault_of`` looks at, and the bits of these: half the cost of all."""
    contiguous = np.ascontiguousarray(rows.view(f"V{ROW_BYTES}")).view(np.int64).reshape(-1, WORDS)
    words = np.empty((WORDS, len(rows)), np.int64)
    bits = np.zeros(WORDS, np.int64)
    for word in _TOLD[event_type]:
        words[word] = contiguous[:, word]
        bits[word] = np.bitwise_or.reduce(words[word])
    return words, bits


def _raise_for(
    event_type: EventType,
    rows: Rows,
    words: Words,
    bits: npt.NDArray[np.int64],
    symbols: int,
    sources: int,
    first: int,
) -> None:
    fault = fault_of(event_type, words, bits, symbols, sources)
    if fault is not None:
        raise ValidationError(f"these rows can't be stored: {fault}")
    if TEXT_FIELDS[event_type]:
        check_record_texts(event_type, rows, first=first)


def checked_words(
    event_type: EventType, rows: Rows, symbols: int, sources: int, *, checked: bool = False
) -> tuple[Words, npt.NDArray[np.int64]]:
    """Words of rows that can be stored, 0 in the bytes that no field covers, and their bits. Raises ValidationError.

    ``checked``: ``check_rows`` has passed them.
    """
    words = to_words(rows)
    bits = bits_of(words)
    if not checked:
        _raise_for(event_type, rows, words, bits, symbols, sources, 0)
    if padding_of(event_type, bits):
        words &= USED_BITS[event_type][:, np.newaxis]
    return words, bits
