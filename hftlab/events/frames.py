"""Frames: up to 65,536 rows of one type as bytes that decode anywhere. What one entry of a Redis Stream holds.

::

    0      4       6     7      8      12          16          20        24        32      40
    magic  schema  type  codec  count  names_bytes rows_bytes  reserved  earliest  latest  checksum   names   rows
    HFLF   u2      u1    u1     u4     u4          u4          u4        i8        i8      u8         msgpack zstd

All numbers are little-endian. ``earliest`` and ``latest`` are the bounds of ``received`` in ns, ``checksum`` is
XXH3-64 of everything else. ``names`` is a msgpack pair: the symbols that the rows use, and their sources as (venue,
channel, scope, rule); the rows' ids are positions in these two lists. The rows' ``log_sequence`` counts from the
frame's base, which the writer's server decides and stores beside the frame.

A reader refuses what a newer schema wrote (SchemaError) and anything that is not as it says (CodecError); it never
allocates more than the 8 MiB that ``MAX_ROWS`` take, whatever the bytes claim.
"""

from __future__ import annotations

import struct
import threading
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import xxhash
import zstandard

from hftlab.errors import CodecError, SchemaError, ValidationError
from hftlab.events.batch import EventBatch
from hftlab.events.records import DTYPES, MAX_LOG_SEQUENCE, ROW_BYTES, TEXT_FIELDS, EventType, Kind, OrderType, Rows
from hftlab.events.rowbytes import clear_padding, copy_rows
from hftlab.events.rules import check_record_texts
from hftlab.events.tables import Source, SourceTable, SymbolTable, Table

SCHEMA = 1
MAX_ROWS = 65_536
MAX_NAMES_BYTES = 1 << 24
DEFAULT_ROWS = 1_024

_MAGIC = b"HFLF"
_ZSTD = 1
# Level 1: on the Binance capture, level 3 saves 4% of the bytes and takes 40% longer.
_LEVEL = 1
_HEADER = struct.Struct("<4sHBBIIIIqqQ")
_CHECKED = _HEADER.size - 8


class _Zstd(threading.local):
    """One context a thread: zstandard's objects release the GIL and must not be used by two threads at once."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True)
        self.decompressor = zstandard.ZstdDecompressor()


_zstd = _Zstd()
_Names = tuple[list[str], list[tuple[str, str, str, str]]]
_names_decoder = msgspec.msgpack.Decoder(_Names)


class FrameInfo(NamedTuple):
    """A frame's header, read without touching its rows. Times are ns UTC of ``received``."""

    event_type: EventType
    rows: int
    earliest_ns: int
    latest_ns: int


def encode_frame(batch: EventBatch) -> bytes:
    """The frame of 1 to 65,536 rows of one type; ``log_sequence`` must count from the frame's base (0 … 65,535).

    Raises ValidationError. One copy of the rows; about 0.2 µs a row, most of it zstd.
    """
    rows = batch.records
    if batch.type is None or not 0 < len(rows) <= MAX_ROWS:
        raise ValidationError(
            f"a frame holds 1 to {MAX_ROWS:,} rows of one type; got {len(rows):,} of {list(batch.counts())}"
        )
    rows = copy_rows(rows)
    clear_padding(rows)
    log = rows["log_sequence"]
    if int(log.min()) < 0 or int(log.max()) >= MAX_ROWS:
        raise ValidationError(f"log_sequence counts from the frame's base: 0 to {MAX_ROWS - 1}; got {int(log.max())}")
    symbols = _compact(rows, "symbol", batch.symbols)
    sources = _compact(rows, "source", batch.sources)
    names = msgspec.msgpack.encode((symbols, [msgspec.structs.astuple(source) for source in sources]))
    body = _zstd.compressor.compress(rows.view(np.uint8).data)
    received = rows["received"]
    head = _HEADER.pack(
        _MAGIC, SCHEMA, batch.type, _ZSTD, len(rows), len(names), len(body), 0,
        int(received.min()), int(received.max()), 0,
    )  # fmt: skip
    return b"".join((head[:_CHECKED], _checksum(head[:_CHECKED], names, body).to_bytes(8, "little"), names, body))


def check_rows(batch: EventBatch) -> None:
    """Raise ValidationError where ``decode_frame`` would refuse what ``encode_frame`` makes of these rows.

    For writers that must know before the first frame of many is stored. Rows of any types; about 20 ns a row, and a
    Python call a row for those that hold text.
    """
    counts = batch.counts()
    if sum(counts.values()) != len(batch):
        raise ValidationError(f"a row's type is one of {[int(t) for t in EventType]}; got others")
    for event_type in counts:
        try:
            _check_rows(event_type, batch.only(event_type).records, len(batch.symbols), len(batch.sources))
        except CodecError as error:
            raise ValidationError(f"these rows can't be stored: {error}") from None


def peek_frame(data: bytes) -> FrameInfo:
    """What the header says; nothing is decompressed and no checksum taken. Raises CodecError, SchemaError."""
    event_type, count, _, _, earliest, latest, _ = _head(data)
    return FrameInfo(event_type, count, earliest, latest)


def decode_frame(
    data: bytes,
    *,
    base: int = 0,
    session_number: int = 0,
    symbols: SymbolTable | None = None,
    sources: SourceTable | None = None,
) -> EventBatch:
    """The rows of a frame with ``base`` added to their log sequences, under the given tables (else fresh ones).

    Raises CodecError for bytes that are not a whole, undamaged frame, SchemaError for one of a newer hftlab. Allocates
    128 bytes a row, 8 MiB at most. About 0.1 µs a row.
    """
    event_type, count, names_bytes, rows_bytes, _, _, checksum = _head(data)
    view = memoryview(data)
    names_end = _HEADER.size + names_bytes
    if len(data) != names_end + rows_bytes:
        raise CodecError(
            f"a frame says that it has {names_end + rows_bytes} bytes; got {len(data)}: it was cut or damaged"
        )
    names, body = view[_HEADER.size : names_end], view[names_end:]
    if _checksum(view[:_CHECKED], names, body) != checksum:
        raise CodecError("a frame's checksum does not match its bytes: it was damaged on the way or at rest")
    if not 0 <= base <= MAX_LOG_SEQUENCE - MAX_ROWS:
        raise CodecError(f"a frame's base is a log sequence of 0 to {MAX_LOG_SEQUENCE - MAX_ROWS}; got {base}")
    rows = _rows(event_type, count, body)
    symbols = SymbolTable() if symbols is None else symbols
    sources = SourceTable() if sources is None else sources
    symbol_ids, source_ids = _intern(names, symbols, sources)
    _check_rows(event_type, rows, len(symbol_ids), len(source_ids))
    log = rows["log_sequence"]
    if int(log.min()) < 0 or int(log.max()) >= MAX_ROWS:
        raise CodecError(f"a frame's log sequences are 0 to {MAX_ROWS - 1} above its base; got others")
    _translate(rows, "symbol", symbol_ids)
    _translate(rows, "source", source_ids)
    rows["log_sequence"] += base
    return EventBatch(rows, symbols, sources, session_number=session_number)


def _head(data: bytes) -> tuple[EventType, int, int, int, int, int, int]:
    if len(data) < _HEADER.size:
        raise CodecError(f"a frame has at least {_HEADER.size} bytes; got {len(data)}")
    magic, schema, type_byte, codec, count, names_bytes, rows_bytes, _, earliest, latest, checksum = (
        _HEADER.unpack_from(data)
    )
    if magic != _MAGIC:
        raise CodecError(f"a frame begins with {_MAGIC!r}; got {magic!r}: this is not a frame")
    if schema > SCHEMA:
        raise SchemaError(
            f"this frame has schema {schema}, and this hftlab reads up to {SCHEMA}: a newer hftlab wrote it; "
            "upgrade with: pip install -U hftlab"
        )
    try:
        event_type = EventType(type_byte)
    except ValueError:
        raise CodecError(f"a frame's type is one of {[int(t) for t in EventType]}; got {type_byte}") from None
    if codec != _ZSTD or schema < 1:
        raise CodecError(f"a frame has schema 1 or above and codec {_ZSTD} (zstd); got {schema} and {codec}")
    if not 0 < count <= MAX_ROWS or names_bytes > MAX_NAMES_BYTES:
        raise CodecError(
            f"a frame holds 1 to {MAX_ROWS:,} rows and up to {MAX_NAMES_BYTES:,} bytes of names; "
            f"got {count:,} and {names_bytes:,}"
        )
    return event_type, count, names_bytes, rows_bytes, earliest, latest, checksum


def _checksum(head: Any, names: Any, body: Any) -> int:
    digest = xxhash.xxh3_64()
    for part in (head, names, body):
        digest.update(part)
    return digest.intdigest()


def _rows(event_type: EventType, count: int, body: memoryview) -> Rows:
    rows = np.empty(count, DTYPES[event_type])
    target = memoryview(rows.view(np.uint8).data)
    try:
        with _zstd.decompressor.stream_reader(body) as reader:
            read = reader.readinto(target)
            surplus = reader.read(1)
    except zstandard.ZstdError as error:
        raise CodecError(f"a frame's rows do not decompress: {error}") from None
    if read != count * ROW_BYTES or surplus:
        raise CodecError(f"a frame of {count:,} rows decompresses to {count * ROW_BYTES:,} bytes; got others")
    return rows


def _check_rows(event_type: EventType, rows: Rows, symbols: int, sources: int) -> None:
    """What the rest of hftlab relies on to never crash; values are the writer's business."""
    if not (rows["type"] == event_type).all():
        raise CodecError(f"a frame of {event_type.name} rows holds rows of another type")
    if int(rows["symbol"].max()) >= symbols or int(rows["source"].max()) >= sources:
        raise CodecError(f"a frame of {symbols} symbols and {sources} sources holds rows that point past them")
    if int(rows["priority"].max()) > 4 or int(rows["clock"].max()) > 3:
        raise CodecError("a frame holds rows whose priority or clock does not exist")
    if event_type is EventType.MARKET_DATA:
        if int(rows["kind"].max()) >= len(Kind) or not -1 <= int(rows["side"].min()) <= int(rows["side"].max()) <= 1:
            raise CodecError("a frame holds market data rows whose kind or side does not exist")
    elif event_type is EventType.ORDER:
        kinds, sides = rows["order_type"], rows["direction"]
        if not (1 <= int(kinds.min()) and int(kinds.max()) <= len(OrderType) and (np.abs(sides) == 1).all()):
            raise CodecError("a frame holds order rows whose order_type or direction does not exist")
    if TEXT_FIELDS[event_type]:
        try:
            check_record_texts(event_type, rows)
        except ValidationError as error:
            raise CodecError(f"a frame holds a text that breaks a rule: {error}") from None


def _compact(rows: Rows, field: str, table: Table[Any]) -> list[Any]:
    """Renumber a column of ids to 0, 1, … in table order; returns the names that are used."""
    ids = rows[field]
    top = int(ids.max())
    if top >= len(table):
        raise ValidationError(f"{field} ids are below {len(table)}, the length of the batch's table; got {top}")
    used = np.unique(ids) if top > 1_024 else np.flatnonzero(np.bincount(ids, minlength=1))
    if int(used[-1]) != len(used) - 1:
        renumber = np.zeros(top + 1, ids.dtype)
        renumber[used] = np.arange(len(used))
        rows[field] = renumber[ids]
    return [table[int(index)] for index in used]


def _intern(
    names: memoryview, symbols: SymbolTable, sources: SourceTable
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    try:
        symbol_names, source_names = _names_decoder.decode(names)
        symbol_ids = [symbols.intern(name) for name in symbol_names]
        source_ids = [sources.intern(Source(*parts)) for parts in source_names]
    except (msgspec.DecodeError, ValidationError) as error:
        raise CodecError(f"a frame's names can't be read: {error}") from None
    return np.array(symbol_ids, np.uint32), np.array(source_ids, np.uint32)


def _translate(rows: Rows, field: str, ids: npt.NDArray[np.uint32]) -> None:
    if not np.array_equal(ids, np.arange(len(ids))):
        rows[field] = ids[rows[field]]
