"""The two ends of a ring: Producer and Consumer, over any block of memory that a Layout was formatted into.

A handle's state is in the block; it keeps nothing of its own but what was claimed. So a caller may go back and forth
between a handle and the kernels on the same thread. The handles read their own words straight from memory, which is
right because only their own thread writes them; every word of the other side goes through a kernel, which has the
ordering that the machine needs.
"""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt

from hftlab.errors import ClaimError, ValidationError
from hftlab.ring import kernels
from hftlab.ring.layout import CACHED_GATING_OFFSET, CACHED_PRODUCER_OFFSET, PRODUCER_CURSOR_OFFSET, WORD_BYTES, Layout

Rows = npt.NDArray[Any]

_BYTE = np.dtype(np.uint8)
_CURSOR = PRODUCER_CURSOR_OFFSET // WORD_BYTES
_CACHED_GATING = CACHED_GATING_OFFSET // WORD_BYTES


def _as_bytes(rows: object, dtype: np.dtype[Any], writeable: bool) -> npt.NDArray[np.uint8]:
    """View ``rows`` as the kernels want them; refuse what is not a contiguous array of rows of ``dtype``.

    Viewed as a plain ndarray, or each subclass (np.memmap, np.recarray) would have a kernel compiled for itself. The
    view is 0.3 of a push's 1 µs: NumPy itself refuses rows that are not contiguous, so that is not asked again.
    """
    if (
        isinstance(rows, np.ndarray)
        and (rows.dtype is dtype or rows.dtype == dtype)
        and rows.ndim == 1
        and (not writeable or rows.flags.writeable)
    ):
        try:
            return rows.view(_BYTE, np.ndarray)
        except ValueError:
            pass
    raise ValidationError(_why_refused(rows, dtype))


def _why_refused(rows: object, dtype: np.dtype[Any]) -> str:
    if not isinstance(rows, np.ndarray):
        return f"rows must be a NumPy array with the ring's dtype, got {type(rows).__name__}"
    if rows.dtype != dtype:
        return (
            f"rows must have the ring's dtype, {dtype.itemsize} bytes ({_shortened(dtype)}), "
            f"got {rows.dtype.itemsize} bytes ({_shortened(rows.dtype)})"
        )
    if rows.ndim != 1 or not rows.flags.c_contiguous:
        return (
            f"rows must be one-dimensional and contiguous, got shape {rows.shape} with strides {rows.strides}; "
            f"copy them first (np.ascontiguousarray)"
        )
    return "rows are popped into a writeable array, got a read-only one"


def _shortened(dtype: np.dtype[Any], limit: int = 120) -> str:
    text = str(dtype)
    return text if len(text) <= limit else text[: limit - 1] + "…"


class Producer:
    """The writing end of a ring, made by ``Ring.producer()``: one thread at a time may use it.

    Either copy rows in with :meth:`push`, or :meth:`claim` free rows, fill them in place and :meth:`publish` them.
    ``free`` asks the readers and is exact; ``cached_free`` is what it said last, less what was published since: never
    too much, and no word of another thread is touched for it.
    """

    __slots__ = ("_address", "_buffer", "_capacity", "_claimed", "_dtype", "_rows", "_words")

    def __init__(self, buffer: npt.NDArray[np.uint8], layout: Layout, dtype: np.dtype[Any]) -> None:
        self._buffer = buffer  # keeps the memory that the addresses point into
        self._address = int(buffer.ctypes.data)
        self._words = memoryview(buffer[: layout.rows_offset]).cast("q")  # type: ignore[arg-type]
        self._rows = buffer[layout.rows_offset : layout.size_bytes].view(dtype)
        self._capacity = layout.capacity
        self._dtype = dtype
        self._claimed = 0

    @property
    def sequence(self) -> int:
        """Rows ever published."""
        return self._words[_CURSOR]

    @property
    def free(self) -> int:
        """Rows that can be claimed or pushed now, exactly. 0.2 µs: loads every reader's cursor."""
        return int(kernels.free_rows(self._address))

    @property
    def cached_free(self) -> int:
        """At least so many rows are free; 0.1 µs."""
        words = self._words
        return self._capacity - (words[_CURSOR] - words[_CACHED_GATING])

    @property
    def claimed(self) -> int:
        """Rows of the last claim that were not published yet."""
        return self._claimed

    def claim(self, count: int) -> Rows:
        """Return up to ``count`` free rows as a writeable view of the ring, to be filled and then published.

        Fewer where the ring is nearly full or ends (the wrap point; the next claim goes on at its start), none when it
        is full. The rows hold what was in them a lap ago. Claiming again replaces a claim. About 0.4 µs; no
        allocation but the view's header. Raises ValidationError for a negative count.
        """
        count = index(count)
        words = self._words
        cursor = words[_CURSOR]
        if not 0 <= count <= self._capacity - (cursor - words[_CACHED_GATING]):
            if count < 0:
                raise ValidationError(f"a claim is of 0 rows or more, got {count}")
            count = int(kernels.reserve_rows(self._address, count))
        first = cursor & (self._capacity - 1)
        rows = self._rows[first : first + count]  # the slice ends where the ring does
        self._claimed = len(rows)
        return rows

    def publish(self, count: int) -> None:
        """Hand the first ``count`` rows of the claim to the readers; the rest of the claim is given back.

        ``publish(0)`` abandons a claim. The rows must not be written any more. About 0.3 µs. Raises ClaimError when
        fewer than ``count`` rows are claimed, and then changes nothing.
        """
        count = index(count)
        if not 0 <= count <= self._claimed:
            raise ClaimError(
                f"publish takes from 0 rows to what the last claim gave, {self._claimed}, got {count}; "
                f"claim as many first"
            )
        self._claimed = 0
        kernels.publish_rows(self._address, count)

    def push(self, rows: Rows) -> int:
        """Copy as many of ``rows`` as fit and publish them; return how many, the first ones.

        ``rows``: one-dimensional, contiguous, of the ring's dtype, read-only or not. A batch is published by one store,
        also across the wrap point: a reader sees all that was copied or nothing. About 1 µs and the copying (some
        10 ns a kilobyte), without the interpreter's lock. Raises ValidationError for other arrays, ClaimError while a
        claim is open (the rows would land in it).
        """
        data = _as_bytes(rows, self._dtype, writeable=False)
        if self._claimed:
            raise ClaimError(
                f"push would write into the {self._claimed} rows that are claimed; publish them, or publish(0) to "
                f"give them back"
            )
        return int(kernels.push_array(self._address, data, len(rows)))

    def __repr__(self) -> str:
        return f"Producer(sequence={self.sequence}, free={self.free}, claimed={self._claimed})"


class Consumer:
    """One reading end of a ring, made by ``Ring.consumer(index)``: one thread at a time may use it.

    Every reader sees every row, at its own pace, and the slowest holds the producer back. Either copy rows out with
    :meth:`pop`, or :meth:`peek` at them in place and :meth:`release` them.
    """

    __slots__ = ("_address", "_buffer", "_cached", "_capacity", "_cursor", "_dtype", "_index", "_rows", "_words")

    def __init__(self, buffer: npt.NDArray[np.uint8], layout: Layout, dtype: np.dtype[Any], index: int) -> None:
        self._buffer = buffer
        self._address = int(buffer.ctypes.data)
        self._words = memoryview(buffer[: layout.rows_offset]).cast("q")  # type: ignore[arg-type]
        self._rows = buffer[layout.rows_offset : layout.size_bytes].view(dtype)
        self._rows.flags.writeable = False
        self._capacity = layout.capacity
        self._dtype = dtype
        self._index = index
        self._cursor = layout.reader_offset(index) // WORD_BYTES
        self._cached = self._cursor + CACHED_PRODUCER_OFFSET // WORD_BYTES

    @property
    def index(self) -> int:
        """Which of the ring's readers this is."""
        return self._index

    @property
    def sequence(self) -> int:
        """Rows ever released by this reader."""
        return self._words[self._cursor]

    @property
    def available(self) -> int:
        """Rows published and not released by this reader, exactly. 0.2 µs: loads the producer's cursor."""
        return int(kernels.available_rows(self._address, self._index))

    @property
    def cached_available(self) -> int:
        """At least so many rows are available; 0.1 µs."""
        words = self._words
        return words[self._cached] - words[self._cursor]

    def peek(self, count: int) -> Rows:
        """Return up to ``count`` of the rows that are next, as a read-only view of the ring, without taking them.

        Fewer where fewer are published or where the ring ends (the wrap point), so a block of ``count`` rows that
        starts at a multiple of ``count`` is never cut there if ``count`` is a power of two up to the capacity. The
        view is valid until the rows are released: then the producer may write over them. About 0.3 µs; no allocation
        but the view's header. Raises ValidationError for a negative count.
        """
        count = index(count)
        words = self._words
        cursor = words[self._cursor]
        if not 0 <= count <= words[self._cached] - cursor:
            if count < 0:
                raise ValidationError(f"a peek is at 0 rows or more, got {count}")
            count = int(kernels.ready_rows(self._address, self._index, count))
        first = cursor & (self._capacity - 1)
        return self._rows[first : first + count]

    def release(self, count: int) -> None:
        """Give the next ``count`` rows back to the producer, whether they were looked at or not.

        Views of them must not be used any more. About 0.3 µs. Raises ClaimError when fewer than ``count`` rows are
        available, and then changes nothing.
        """
        count = index(count)
        words = self._words
        if not 0 <= count <= words[self._cached] - words[self._cursor]:
            available = self.available
            if not 0 <= count <= available:
                raise ClaimError(
                    f"release takes from 0 rows to what is available, {available}, got {count}; "
                    f"rows that were not published can't be given back"
                )
        kernels.release_rows(self._address, self._index, count)

    def pop(self, out: Rows) -> int:
        """Copy rows into ``out`` until it is full or none is left, release them, and return how many.

        ``out``: one-dimensional, contiguous, writeable, of the ring's dtype; beyond the count it stays as it is. Goes
        across the wrap point. About 1 µs and the copying, without the interpreter's lock. Raises ValidationError
        for other arrays.
        """
        data = _as_bytes(out, self._dtype, writeable=True)
        return int(kernels.pop_array(self._address, self._index, data, len(out)))

    def __repr__(self) -> str:
        return f"Consumer(index={self._index}, sequence={self.sequence}, available={self.available})"
