"""Capture files as pieces of whole lines, gzip or plain, in bounded memory.

A file is gzip when its first two bytes say so, whatever its name. Python's own gzip reader raises at a cut and keeps
what it had inflated until then to itself; this one hands out every complete line before the cut, and the line that
the cut went through is reported instead of parsed: "25741.0" may be what is left of "25741.02".
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

from hftlab.errors import FeedError
from hftlab.feeds.report import Tally

PIECE_BYTES = 1 << 20
"""Text comes in pieces of about this size: 1 MiB is some 30,000 book levels, and parses in a few ms."""

MAX_LINE_BYTES = 16 << 20
"""A longer line is damaged: a file without line ends must not gather in memory. A snapshot's line has 40 to 400 KB."""

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW_BITS = 31  # zlib's code for a gzip header and trailer, and the largest window
_UTF8_MARK = b"\xef\xbb\xbf"


class Piece(NamedTuple):
    """Consecutive lines of one file, without their line ends; the first one's number (from 1) is ``first_line``."""

    file: str
    first_line: int
    lines: list[bytes]


def read_pieces(path: str, tally: Tally, on_read: Callable[[int], None]) -> Iterator[Piece]:
    """The lines of one file. ``on_read`` is told the size of every chunk in the file's own (compressed) bytes.

    Lines that are too long, or that the end of damaged gzip data cuts, are counted as damaged in ``tally``. Raises
    FeedError for a file that can't be opened, is empty, or holds not one complete line.
    """
    cutter = _LineCutter(path, tally)
    text = _text(path, on_read)
    while True:
        try:
            chunk = next(text)
        except StopIteration as end:
            cut: str | None = end.value
            break
        except OSError as error:
            raise FeedError(f"{path} can't be read: {error.strerror or error}") from error
        yield from cutter.feed(chunk)
    if cut is None:
        yield from cutter.finish()
        if cutter.number == 1:
            raise FeedError(f"{path}: there is not one line in it: it is empty, or no text at all")
    elif cutter.number == 1:
        raise FeedError(f"{path}: not one line could be read: {cut}")
    else:
        tally.lines += 1
        tally.damage(path, cutter.number, f"the file is cut in or before this line: {cut}")


class _LineCutter:
    """Cuts text into lines and numbers them; ``number`` is that of the line that is being gathered."""

    def __init__(self, path: str, tally: Tally) -> None:
        self.number = 1
        self._path = path
        self._tally = tally
        self._carry = b""
        self._discarding = False

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        if self._discarding:
            _, line_end, chunk = chunk.partition(b"\n")
            if not line_end:
                return
            self._discarding = False
            self.number += 1
        lines = (self._carry + chunk).split(b"\n")
        if self.number == 1:
            lines[0] = lines[0].removeprefix(_UTF8_MARK)
        self._carry = lines.pop()
        yield from self._piece(lines)
        if len(self._carry) > MAX_LINE_BYTES:
            self._tally.lines += 1
            self._tally.damage(
                self._path, self.number, f"longer than {MAX_LINE_BYTES >> 20} MiB: is this a text capture?"
            )
            self._carry, self._discarding = b"", True

    def finish(self) -> Iterator[Piece]:
        """The last line, where the file does not end with a line end."""
        if self._carry:
            yield from self._piece([self._carry])

    def _piece(self, lines: list[bytes]) -> Iterator[Piece]:
        if lines:
            first = self.number
            self.number += len(lines)
            self._tally.lines += len(lines)
            yield Piece(self._path, first, lines)


def _text(path: str, on_read: Callable[[int], None]) -> Generator[bytes, None, str | None]:
    """Yields the file's text in chunks; returns why it ended early, None where it did not."""
    with open(path, "rb") as file:

        def read() -> bytes:
            chunk = file.read(PIECE_BYTES)
            on_read(len(chunk))
            return chunk

        chunk = read()
        if chunk.startswith(_GZIP_MAGIC):
            return (yield from _inflated(chunk, read))
        while chunk:
            yield chunk
            chunk = read()
    return None


def _inflated(data: bytes, read: Callable[[], bytes]) -> Generator[bytes, None, str | None]:
    """Inflates one gzip member after the other (``cat a.gz b.gz`` is a gzip file), zeros between and after them."""
    while True:
        inflater = zlib.decompressobj(_GZIP_WINDOW_BITS)
        ended = False
        while not ended:
            if not data:
                data = read()
                if not data:
                    # All input may be consumed while output still waits for room in the inflater.
                    yield inflater.flush()
                    ended = inflater.eof
                    if ended:
                        break
                    return "the gzip data ends before its end mark"
            before = inflater.copy()
            try:
                # Bounded, so that a chunk that inflates to a thousand times its size does not fill the memory.
                text = inflater.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                yield _until_damage(before, data)
                return f"the gzip data is damaged: {error}"
            data, ended = inflater.unconsumed_tail, inflater.eof
            if text:
                yield text
        rest = inflater.unused_data.lstrip(b"\0")
        while len(rest) < len(_GZIP_MAGIC):
            more = read()
            if not more:
                break
            rest = (rest + more).lstrip(b"\0")
        if not rest:
            return None
        if not rest.startswith(_GZIP_MAGIC):
            return "bytes that are not gzip follow the gzip data"
        data = rest


def _until_damage(inflater: zlib._Decompress, data: bytes) -> bytes:
    """What the bytes before the damage inflate to. Byte by byte: 50 ms for a chunk, once a file."""
    text = []
    for index in range(len(data)):
        try:
            text.append(inflater.decompress(data[index : index + 1]))
        except zlib.error:
            break
    return b"".join(text)
