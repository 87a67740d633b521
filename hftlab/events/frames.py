"""Frames: up to 65,536 rows of one type as bytes that decode anywhere. What one entry of a Redis Stream holds.

::

    0      4       6     7      8      12          16          20        24        32      40        48
    magic  schema  type  codec  count  names_bytes rows_bytes  (0)       earliest  latest  checksum  names    rows
    HFLF   u2      u1    u1     u4     u4          u4          u4        i8        i8      u8        msgpack  zstd

All numbers are little-endian. ``earliest`` and ``latest`` are the bounds of ``received`` in ns, ``checksum`` is
XXH3-64 of everything else. ``names`` is a msgpack pair: the symbols that the rows use, and their sources as (venue,
channel, scope, rule); the rows' ids are positions in these two lists.

``rows`` is one zstd frame of the 16 words of 8 bytes that a row has (see ``records``), column by column: the first word
of all rows, then the second of all, and so on. ``log_sequence``, which never falls, counts from the frame's base, which
the writer's server decides and stores beside the frame; its column holds how far each row is from ``base + position``,
which is 0 all the way unless rows of other types lie between.

A reader refuses what a newer schema wrote (SchemaError) and anything that is not as it says (CodecError); it never
allocates more than three times the 8 MiB that ``MAX_ROWS`` take, whatever the bytes claim.
"""

from __future__ import annotations

import struct
import threading
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash
import zstandard

from hftlab.errors import CodecError, SchemaError, ValidationError
from hftlab.events.batch import EventBatch
from hftlab.events.frame_names import decode_names, encode_names, most_names_bytes
from hftlab.events.records import DTYPES, MAX_LOG_SEQUENCE, ROW_BYTES, TEXT_FIELDS, EventType, Rows
from hftlab.events.rules import check_record_texts
from hftlab.events.storable import (
    WORDS,
    Words,
    bits_of,
    check_rows,
    checked_words,
    column_of,
    fault_of,
    from_words,
    padding_of,
)
from hftlab.events.tables import SourceTable, SymbolTable, Table

SCHEMA = 1
MAX_ROWS = 65_536
DEFAULT_ROWS = 1_024

_MAGIC = b"HFLF"
_ZSTD = 1
# Measured on the Binance capture in frames of 1,024 rows, bytes and ns to compress and to decompress a row: by columns
# at level -1 10.1, 86, 39; at level 1 10.0, 96, 42; at level 3 9.1, 101, 39; at level -5 13.5, 65, 30; row by row at
# level 1 14.1, 101, 46. Columns cost 12 ns to turn and 10 ns to turn back, which their checks earn again. Taking
# differences of the numbers first gained nothing.
_LEVEL = -1
_HEADER = struct.Struct("<4sHBBIIIIqqQ")
_CHECKED = _HEADER.size - 8
_POSITIONS = np.arange(MAX_ROWS)
_LOG_WORD = 3


class _Zstd(threading.local):
    """One context a thread: zstandard's objects release the GIL and must not be used by two threads at once."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)
        self.decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_ROWS * ROW_BYTES)


_zstd = _Zstd()


class FrameInfo(NamedTuple):
    """A frame's header, read without touching its rows. Times are ns UTC of ``received``."""

    event_type: EventType
    rows: int
    earliest_ns: int
    latest_ns: int


def encode_frame(batch: EventBatch, *, checked: bool = False) -> bytes:
    """The frame of 1 to 65,536 rows of one type.

    ``log_sequence`` counts from the frame's base (0 … 65,535) and never falls. ``checked``: ``check_rows`` has passed
    these rows, so they are not looked at again. Raises ValidationError for rows that could not be read again. About
    0.13 µs a row, two thirds of it zstd.
    """
    rows, event_type = batch.records, batch.type
    if event_type is None or not 0 < len(rows) <= MAX_ROWS:
        raise ValidationError(
            f"a frame holds 1 to {MAX_ROWS:,} rows of one type; got {len(rows):,} of {list(batch.counts())}"
        )
    words, bits = checked_words(event_type, rows, len(batch.symbols), len(batch.sources), checked=checked)
    log = column_of(words, event_type, "log_sequence")
    if int(log[0]) < 0 or int(log[-1]) >= MAX_ROWS or not _rises(log):
        raise ValidationError(
            f"log_sequence counts from the frame's base, 0 to {MAX_ROWS - 1}, and never falls; "
            f"got {int(log[0])} … {int(log[-1])}"
        )
    log -= _POSITIONS[: len(log)]
    symbols = _compact(words, bits, event_type, "symbol", batch.symbols)
    sources = _compact(words, bits, event_type, "source", batch.sources)
    names = encode_names(symbols, sources)
    body = _zstd.compressor.compress(words.data)
    received = column_of(words, event_type, "received")
    head = _HEADER.pack(
        _MAGIC, SCHEMA, event_type, _ZSTD, len(rows), len(names), len(body), 0,
        int(received.min()), int(received.max()), 0,
    )  # fmt: skip
    return b"".join((head[:_CHECKED], _checksum(head[:_CHECKED], names, body).to_bytes(8, "little"), names, body))


def peek_frame(data: bytes) -> FrameInfo:
    """What the header says; nothing is decompressed and no checksum taken. Raises CodecError, SchemaError."""
    head = _head(data)
    return FrameInfo(head.event_type, head.rows, head.earliest_ns, head.latest_ns)


def verify_frame(data: bytes) -> None:
    """Check that a frame is whole and undamaged, so that its header may be believed; nothing is decompressed.

    Raises CodecError, SchemaError. About 1 µs for 10 kB.
    """
    _whole(data, _head(data))


def decode_frame(
    data: bytes,
    *,
    base: int = 0,
    session_number: int = 0,
    symbols: SymbolTable | None = None,
    sources: SourceTable | None = None,
) -> EventBatch:
    """The rows of a frame with ``base`` added to their log sequences, under the given tables (else fresh ones).

    Raises CodecError for bytes that are not a whole, undamaged frame, SchemaError for one of a newer hftlab; the tables
    then gain nothing. Allocates 384 bytes a row for a moment, 128 to stay. About 0.07 µs a row, half of it zstd.
    """
    head = _head(data)
    names, body = _whole(data, head)
    if not 0 <= base <= MAX_LOG_SEQUENCE - MAX_ROWS:
        raise CodecError(f"a frame's base is a log sequence of 0 to {MAX_LOG_SEQUENCE - MAX_ROWS}; got {base}")
    symbol_names, source_names = decode_names(names, head.rows)
    words = _words(head.rows, body)
    log = _checked_log(head, words, len(symbol_names), len(source_names))
    rows = from_words(words, head.event_type)
    rows["log_sequence"] = log + base
    if TEXT_FIELDS[head.event_type]:
        try:
            check_record_texts(head.event_type, rows)
        except ValidationError as error:
            raise CodecError(f"a frame holds a text that breaks a rule: {error}") from None
    symbols = SymbolTable() if symbols is None else symbols
    sources = SourceTable() if sources is None else sources
    try:
        _translate(rows, "symbol", [symbols.intern(name) for name in symbol_names])
        _translate(rows, "source", [sources.intern(source) for source in source_names])
    except ValidationError as error:
        raise CodecError(f"a frame's names have no room any more: {error}") from None
    return EventBatch(rows, symbols, sources, session_number=session_number)


class _Head(NamedTuple):
    event_type: EventType
    rows: int
    names_bytes: int
    rows_bytes: int
    earliest_ns: int
    latest_ns: int
    checksum: int


def _head(data: bytes) -> _Head:
    if len(data) < _HEADER.size:
        raise CodecError(f"a frame has at least {_HEADER.size} bytes; got {len(data)}")
    magic, schema, type_byte, codec, count, names_bytes, rows_bytes, reserved, earliest, latest, checksum = (
        _HEADER.unpack_from(data)
    )
    if magic != _MAGIC:
        raise CodecError(f"a frame begins with {_MAGIC!r}; got {magic!r}: this is not a frame")
    if schema > SCHEMA:
        raise SchemaError(
            f"this frame has schema {schema}, and this hftlab reads up to {SCHEMA}: a newer hftlab wrote it; "
            "upgrade with: pip install -U hftlab"
        )
    if type_byte not in _TYPES:
        raise CodecError(f"a frame's type is one of {[int(t) for t in EventType]}; got {type_byte}")
    if codec != _ZSTD or schema < 1 or reserved:
        raise CodecError(
            f"a frame has schema {SCHEMA}, codec {_ZSTD} (zstd) and 0 in its reserved bytes; "
            f"got {schema}, {codec} and {reserved}"
        )
    if not 0 < count <= MAX_ROWS or names_bytes > most_names_bytes(count):
        raise CodecError(
            f"a frame holds 1 to {MAX_ROWS:,} rows and the names that these can use; "
            f"got {count:,} rows and {names_bytes:,} bytes of names"
        )
    return _Head(_TYPES[type_byte], count, names_bytes, rows_bytes, earliest, latest, checksum)


_TYPES = {int(event_type): event_type for event_type in EventType}


def _whole(data: bytes, head: _Head) -> tuple[memoryview, memoryview]:
    """The names and the rows of a frame, as its bytes; raises CodecError where these are not all, or damaged."""
    view = memoryview(data)
    names_end = _HEADER.size + head.names_bytes
    if len(data) != names_end + head.rows_bytes:
        raise CodecError(
            f"a frame says that it has {names_end + head.rows_bytes} bytes; got {len(data)}: it was cut or damaged"
        )
    names, body = view[_HEADER.size : names_end], view[names_end:]
    if _checksum(view[:_CHECKED], names, body) != head.checksum:
        raise CodecError("a frame's checksum does not match its bytes: it was damaged on the way or at rest")
    return names, body


def _checksum(head: Any, names: Any, body: Any) -> int:
    digest = xxhash.xxh3_64(head)
    digest.update(names)
    digest.update(body)
    return digest.intdigest()


def _words(count: int, body: memoryview) -> Words:
    size_bytes = count * ROW_BYTES
    try:
        # The size comes before anything is allocated: a small body may claim to hold gigabytes, or not say how much.
        claimed = zstandard.frame_content_size(body)
        if claimed != size_bytes:
            raise CodecError(f"{count:,} rows take {size_bytes:,} bytes; got a body that claims to hold {claimed:,}")
        raw = _zstd.decompressor.decompress(body, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CodecError(f"a frame's rows do not decompress: {error}") from None
    if len(raw) != size_bytes:
        raise CodecError(f"{count:,} rows take {size_bytes:,} bytes; got {len(raw):,}")
    return np.frombuffer(raw, np.int64).reshape(WORDS, count)


def _checked_log(head: _Head, words: Words, symbols: int, sources: int) -> npt.NDArray[np.int64]:
    """The log sequences, counted from the base, of words that are all right; else CodecError."""
    bits = bits_of(words)
    fault = fault_of(head.event_type, words, bits, symbols, sources)
    if fault is None and padding_of(head.event_type, bits):
        fault = "bytes that no field covers are not 0"
    if fault is not None:
        raise CodecError(f"a frame's rows are not sound: {fault}")
    received = column_of(words, head.event_type, "received")
    if int(received.min()) != head.earliest_ns or int(received.max()) != head.latest_ns:
        raise CodecError("a frame's rows were received at other times than its header says")
    positions = _POSITIONS[: head.rows]
    offsets = column_of(words, head.event_type, "log_sequence")
    if not bits[_LOG_WORD]:
        return positions
    # Bounded before the sum, which could overflow.
    if int(offsets.min()) > -MAX_ROWS and int(offsets.max()) < MAX_ROWS:
        log = offsets + positions
        if int(log[0]) >= 0 and int(log[-1]) < MAX_ROWS and _rises(log):
            return log
    raise CodecError(f"a frame's log sequences are 0 to {MAX_ROWS - 1} above its base and never fall; got others")


def _rises(log: npt.NDArray[np.int64]) -> bool:
    return bool((log[1:] >= log[:-1]).all())


def _compact(
    words: Words, bits: npt.NDArray[np.int64], event_type: EventType, field: str, table: Table[Any]
) -> list[Any]:
    """Renumber a column of ids to 0, 1, … in table order; returns the names that are used."""
    bound = int(bits.view(DTYPES[event_type])[field][0])
    if bound == 0:
        return [table[0]]
    ids = np.ascontiguousarray(column_of(words, event_type, field))
    used = np.unique(ids) if bound > 1_024 else np.flatnonzero(np.bincount(ids))
    top = int(used[-1])
    if top != len(used) - 1:
        renumber = np.zeros(top + 1, ids.dtype)
        renumber[used] = np.arange(len(used))
        column_of(words, event_type, field)[:] = renumber[ids]
    return [table[index] for index in used.tolist()]


def _translate(rows: Rows, field: str, ids: list[int]) -> None:
    if ids != list(range(len(ids))):
        rows[field] = np.array(ids, rows.dtype[field])[rows[field]]


__all__ = [
    "DEFAULT_ROWS",
    "MAX_ROWS",
    "SCHEMA",
    "FrameInfo",
    "check_rows",
    "decode_frame",
    "encode_frame",
    "peek_frame",
    "verify_frame",
]
