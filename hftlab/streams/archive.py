"""A session as one file, to keep or to hand on: exported, checked, imported with the same log sequences.

::

    "HFTX" schema(u2) 0(u2) length(u4) header     msgpack: name, number, times, counts, symbols
    base(u8) length(u4) frame                     as many as there are; the frames of one base belong together
    events(u8) 0(u4) digest(16) checksum(u8)      XXH3-128 of the rows with names, XXH3-64 of all bytes before it

All numbers are little-endian. A file appears under its name when it is complete (written beside it, synced, renamed).
Both ways work through a session frame by frame: memory does not grow with its size.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import IO, NamedTuple

import msgspec
import numpy as np
import xxhash

from hftlab.errors import CodecError, SchemaError, StreamError
from hftlab.events import EventBatch, SourceTable, SymbolTable
from hftlab.events.digest import RowDigest
from hftlab.events.frames import DEFAULT_ROWS, decode_frame, encode_frame
from hftlab.events.merge import LogMerge
from hftlab.events.ports import SessionInfo
from hftlab.events.records import MAX_LOG_SEQUENCE, RUN_BIT
from hftlab.events.rowbytes import copy_rows

SCHEMA = 1
_MAGIC = b"HFTX"
_OPENING = struct.Struct("<4sHHI")
_ENTRY = struct.Struct("<QI")
_MAX_HEADER_BYTES = 1 << 26
_MAX_FRAME_BYTES = 1 << 25
_LOG_BITS = 40


class Header(msgspec.Struct, frozen=True):
    """What an exported session was."""

    session: SessionInfo


class Archive(NamedTuple):
    """A file whose bytes were found to be sound."""

    path: Path
    info: SessionInfo
    digest: str


class _Sink:
    """Writes an archive. Used in a thread."""

    def __init__(self, path: Path, info: SessionInfo) -> None:
        self._info = info
        self._path = path
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._checksum = xxhash.xxh3_64()
        self._digest = RowDigest()
        self._file: IO[bytes] | None = None

    def open(self) -> None:
        self._file = self._partial.open("wb")
        header = msgspec.msgpack.encode(Header(self._info))
        self._write(_OPENING.pack(_MAGIC, SCHEMA, 0, len(header)) + header)

    def add(self, batch: EventBatch) -> None:
        log = batch.records["log_sequence"]
        expected = self._digest.rows
        if not np.array_equal(log, np.arange(expected, expected + len(log))):
            raise StreamError(
                f"the session {self._info.name!r} has lost events: there is a hole between the log sequences "
                f"{expected} and {int(log[-1])} (entries were deleted or trimmed), and an export holds a whole session"
            )
        self._digest.update(batch)
        for first in range(0, len(batch), DEFAULT_ROWS):
            part = batch[first : first + DEFAULT_ROWS]
            rows = copy_rows(part.records)
            base = int(rows["log_sequence"][0])
            rows["log_sequence"] -= base
            relative = EventBatch(rows, part.symbols, part.sources)
            for event_type in relative.counts():
                frame = encode_frame(relative.only(event_type))
                self._write(_ENTRY.pack(base, len(frame)) + frame)

    def finish(self) -> None:
        assert self._file is not None
        if self._digest.rows != self._info.events:
            raise StreamError(
                f"the session {self._info.name!r} should hold {self._info.events:,} events, and {self._digest.rows:,} "
                "were found: its last entries were deleted"
            )
        self._write(_ENTRY.pack(self._digest.rows, 0) + bytes.fromhex(self._digest.hexdigest()))
        self._file.write(self._checksum.intdigest().to_bytes(8, "little"))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._path)

    def abandon(self) -> None:
        if self._file is not None:
            self._file.close()
        with contextlib.suppress(OSError):
            self._partial.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        self._checksum.update(data)
        self._file.write(data)


async def write_archive(
    batches: AsyncIterator[EventBatch], info: SessionInfo, path: Path, executor: Callable[[], Executor]
) -> Path:
    """Write all rows of a session, in log-sequence order, into a file. Raises OSError, and StreamError for holes."""
    loop = asyncio.get_running_loop()
    sink = _Sink(path, info)
    try:
        await loop.run_in_executor(executor(), sink.open)
        async for batch in batches:
            await loop.run_in_executor(executor(), sink.add, batch)
        await loop.run_in_executor(executor(), sink.finish)
    except BaseException:
        # Cancelled while the thread was writing: it is done before this is, as there is one thread.
        await asyncio.shield(loop.run_in_executor(executor(), sink.abandon))
        raise
    return path


def check_archive(path: Path) -> Archive:
    """Read a file once and check all of it, but its rows. Raises CodecError, SchemaError, FileNotFoundError."""
    with path.open("rb") as file:
        scan = _Scan(file, path)
        info = scan.header()
        for _ in scan.entries():
            pass
        if scan.events != info.events:
            raise CodecError(f"{path}: its header tells of {info.events:,} events, its end of {scan.events:,}")
        digest, checksum = scan.closing()
        if checksum != scan.expected:
            raise CodecError(f"{path}: its checksum does not match its bytes: the file was damaged; get it again")
        if file.read(1):
            raise CodecError(
                f"{path}: there are bytes after its end: this is not an exported session as it was written"
            )
    return Archive(path, info, digest)


class ArchiveRows:
    """An archive as a source of rows for an append; ``number`` is the session that its rows' causes shall name."""

    def __init__(self, archive: Archive, number: int) -> None:
        self._archive = archive
        self._number = number

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self._archive.info.events

    def slices(self, start: int, frame_rows: int) -> Iterator[tuple[int, EventBatch]]:
        """(first row, up to ``frame_rows`` rows) from row ``start`` to the end, read as they are asked for."""
        try:
            yield from self._slices(start, frame_rows)
        except OSError as error:
            # Not as it is: who appends takes an OSError for the server's, and tries again.
            raise CodecError(f"{self._archive.path} can't be read any more: {error.strerror or error}") from None

    def _slices(self, start: int, frame_rows: int) -> Iterator[tuple[int, EventBatch]]:
        symbols, sources = SymbolTable(), SourceTable()
        expected = 0
        with self._archive.path.open("rb") as file:
            scan = _Scan(file, self._archive.path)
            scan.header()
            for base, frames in _grouped(scan.entries()):
                batch = _merged([decode_frame(frame, base=base, symbols=symbols, sources=sources) for frame in frames])
                log = batch.records["log_sequence"]
                if not np.array_equal(log, np.arange(expected, expected + len(log))):
                    raise CodecError(f"{self._archive.path}: its rows are not dense from log sequence {expected} on")
                expected += len(log)
                self._rename_causes(batch)
                first = max(start, base)
                while first < expected:
                    part = batch[first - base : first - base + frame_rows]
                    yield first, part
                    first += len(part)

    def _rename_causes(self, batch: EventBatch) -> None:
        causes = batch.records["cause"]
        own = ((causes >> _LOG_BITS) == self._archive.info.number) & (causes & RUN_BIT == 0) & (causes != 0)
        if own.any():
            causes[own] = (causes[own] & MAX_LOG_SEQUENCE) | (self._number << _LOG_BITS)


class _Scan:
    """Goes through an archive's bytes once, with the checksum of what it has read in ``expected``."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path
        self._hash = xxhash.xxh3_64()
        self.events = -1

    @property
    def expected(self) -> int:
        return self._hash.intdigest()

    def header(self) -> SessionInfo:
        magic, schema, _, length = _OPENING.unpack(self._take(_OPENING.size))
        if magic != _MAGIC:
            raise CodecError(f"{self._path}: an exported session begins with {_MAGIC!r}; got {magic!r}")
        if schema > SCHEMA:
            raise SchemaError(
                f"{self._path}: this file has schema {schema}, and this hftlab reads up to {SCHEMA}: a newer hftlab "
                "wrote it; upgrade with: pip install -U hftlab"
            )
        if length > _MAX_HEADER_BYTES:
            raise CodecError(f"{self._path}: a header has up to {_MAX_HEADER_BYTES:,} bytes; got {length:,}")
        try:
            return msgspec.msgpack.decode(self._take(length), type=Header).session
        # msgspec lets Python's own error about a text that is not UTF-8 through.
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CodecError(f"{self._path}: its header can't be read: {error}") from None

    def entries(self) -> Iterator[tuple[int, bytes]]:
        while True:
            base, length = _ENTRY.unpack(self._take(_ENTRY.size))
            if not length:
                self.events = base
                return
            if length > _MAX_FRAME_BYTES:
                raise CodecError(f"{self._path}: a frame has up to {_MAX_FRAME_BYTES:,} bytes; got {length:,}")
            yield base, self._take(length)

    def closing(self) -> tuple[str, int]:
        digest = self._take(16)
        after = self._file.read(8)
        if len(after) != 8:
            raise self._cut()
        return digest.hex(), int.from_bytes(after, "little")

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) != count:
            raise self._cut()
        self._hash.update(data)
        return data

    def _cut(self) -> CodecError:
        return CodecError(f"{self._path}: the file ends too early: it was cut, or is not an exported session")


def _grouped(entries: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, list[bytes]]]:
    group: list[bytes] = []
    current = -1
    for base, frame in entries:
        if base != current and group:
            yield current, group
            group = []
        current = base
        group.append(frame)
    if group:
        yield current, group


def _merged(batches: list[EventBatch]) -> EventBatch:
    if len(batches) == 1:
        return batches[0]
    merging = LogMerge(len(batches))
    for index, batch in enumerate(batches):
        merging.put(index, batch)
        merging.close(index)
    merged = merging.take()
    if merged is None or merging.take() is not None:
        raise CodecError("the frames of one base in an exported session have no rows")
    return merged
