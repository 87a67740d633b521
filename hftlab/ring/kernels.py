"""The ring's operations as compiled functions on raw addresses: what the handles call, and what users' kernels call.

``ring`` is the address of a block that ``Layout.format`` made (``Ring.address``), ``row``, ``rows`` and ``out`` are
addresses of the caller's rows; all are int64. An array of structured rows as an argument would cost four times as
much a row, in reference counting that LLVM doesn't remove. **Nothing is checked**: a wrong address, a reader that the
ring doesn't have, or a negative count ends the process or corrupts the ring. The handles check; a kernel's author
answers for it, and keeps the owner of the block alive.

Contract: **one thread at a time is the producer, and one at a time is reader i.** Two threads in one role would need
a lock. Each kernel's first word says whose it is. The orderings, and why they are enough:

- The producer writes rows, then its cursor with a release; a reader loads that cursor with an acquire, then reads
  rows: whoever sees the cursor sees the rows.
- A reader reads (or copies) rows, then writes its cursor with a release; the producer loads it with an acquire, then
  writes rows: no row is overwritten before its reader is done with it.
- A cursor's own thread loads it plainly: nobody else writes it.
- Each side keeps the other's cursor as it last saw it, on a line of its own, and looks again only when that copy says
  too little. The other only ever moves forward, so an old copy errs on the safe side.

The producer's *gating sequence* is the minimum over all readers' cursors: the slowest reader holds it back. Every
kernel is wait-free: it does a bounded number of steps and returns a count, and the caller chooses how to wait.

``nogil`` is set where rows are copied. The others take a few nanoseconds, and giving up the interpreter's lock costs
more than that, but in a caller's own ``nogil`` kernel they are inlined and run without it too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit, types

from hftlab.ring.atomics import copy, copy_line, load, load_acquire, store, store_release
from hftlab.ring.layout import (
    BACK_PRESSURED_OFFSET,
    CACHED_GATING_OFFSET,
    CACHED_PRODUCER_OFFSET,
    CAPACITY_OFFSET,
    FIRST_READER_OFFSET,
    LINE_BYTES,
    PRODUCER_CURSOR_OFFSET,
    READER_STRIDE_BYTES,
    READERS_OFFSET,
    ROW_BYTES_OFFSET,
    ROWS_OFFSET_OFFSET,
)

# numba's cache on disk knows machine code by the content of this file alone (older numbas by its time), but what is
# inlined from elsewhere is in that code too. So this file names what it was compiled with, and changes when that does:
# the first 16 digits of the SHA-256 over the source of atomics.py, then of layout.py. A test holds it to the truth.
COMPILED_IN = "ae4d378f9dd78f67"


@njit(cache=True)
def free_rows(ring: int) -> int:
    """Producer: how many rows are free now. Loads each reader's cursor (acquire) and keeps the minimum."""
    gating = load_acquire(ring + FIRST_READER_OFFSET)
    for reader in range(1, load(ring + READERS_OFFSET)):
        gating = min(gating, load_acquire(ring + FIRST_READER_OFFSET + reader * READER_STRIDE_BYTES))
    store(ring + CACHED_GATING_OFFSET, gating)
    return load(ring + CAPACITY_OFFSET) - (load(ring + PRODUCER_CURSOR_OFFSET) - gating)


@njit(cache=True)
def reserve_rows(ring: int, count: int) -> int:
    """Producer: how many of ``count`` rows may be written now, by the cached gating sequence if it says enough.

    Counts a back-pressured call where they are fewer. Nothing is reserved for anybody else: there is one producer.
    """
    cursor = load(ring + PRODUCER_CURSOR_OFFSET)
    free = load(ring + CAPACITY_OFFSET) - (cursor - load(ring + CACHED_GATING_OFFSET))
    if free < count:
        free = free_rows(ring)
        if free < count:
            store(ring + BACK_PRESSURED_OFFSET, load(ring + BACK_PRESSURED_OFFSET) + 1)
            return free
    return count


@njit(cache=True)
def row_address(ring: int, sequence: int) -> int:
    """Anybody: the address of the row in which ``sequence`` lies."""
    row = sequence & (load(ring + CAPACITY_OFFSET) - 1)
    return ring + load(ring + ROWS_OFFSET_OFFSET) + row * load(ring + ROW_BYTES_OFFSET)


@njit(cache=True)
def claim_address(ring: int) -> int:
    """Producer: the address of the next row to write, if :func:`claim_rows` gave any."""
    return row_address(ring, load(ring + PRODUCER_CURSOR_OFFSET))


@njit(cache=True)
def claim_rows(ring: int, count: int) -> int:
    """Producer: how many of ``count`` rows can be written in one piece from :func:`claim_address` on.

    Fewer when the ring is nearly full or ends there (the wrap point), 0 when it is full.
    """
    capacity = load(ring + CAPACITY_OFFSET)
    until_wrap = capacity - (load(ring + PRODUCER_CURSOR_OFFSET) & (capacity - 1))
    return min(reserve_rows(ring, count), until_wrap)


@njit(cache=True)
def publish_rows(ring: int, count: int) -> int:
    """Producer: hand the next ``count`` claimed rows to the readers (store release). Returns the new sequence."""
    sequence = load(ring + PRODUCER_CURSOR_OFFSET) + count
    store_release(ring + PRODUCER_CURSOR_OFFSET, sequence)
    return sequence


@njit(cache=True, nogil=True)
def push_row(ring: int, row: int) -> int:
    """Producer: copy the row at ``row`` into the ring and publish it. Returns 1, or 0 when the ring is full."""
    if reserve_rows(ring, 1) < 1:
        return 0
    sequence = load(ring + PRODUCER_CURSOR_OFFSET)
    target = row_address(ring, sequence)
    if load(ring + ROW_BYTES_OFFSET) == LINE_BYTES:
        copy_line(target, row)
    else:
        copy(target, row, load(ring + ROW_BYTES_OFFSET))
    store_release(ring + PRODUCER_CURSOR_OFFSET, sequence + 1)
    return 1


@njit(cache=True, nogil=True)
def push_rows(ring: int, rows: int, count: int) -> int:
    """Producer: copy as many of the ``count`` rows at ``rows`` as fit, across the wrap point, and publish them at once.

    Returns how many, the first ones.
    """
    count = reserve_rows(ring, count)
    if count < 1:
        return 0  # writing the cursor as it is would take its line from the readers at every poll
    sequence = load(ring + PRODUCER_CURSOR_OFFSET)
    capacity = load(ring + CAPACITY_OFFSET)
    row_bytes = load(ring + ROW_BYTES_OFFSET)
    head = min(count, capacity - (sequence & (capacity - 1)))
    copy(row_address(ring, sequence), rows, head * row_bytes)
    if head < count:
        copy(ring + load(ring + ROWS_OFFSET_OFFSET), rows + head * row_bytes, (count - head) * row_bytes)
    store_release(ring + PRODUCER_CURSOR_OFFSET, sequence + count)
    return count


@njit(cache=True)
def available_rows(ring: int, reader: int) -> int:
    """Reader: how many rows it has not released yet. Loads the producer's cursor (acquire) and keeps it."""
    cursor = ring + FIRST_READER_OFFSET + reader * READER_STRIDE_BYTES
    published = load_acquire(ring + PRODUCER_CURSOR_OFFSET)
    store(cursor + CACHED_PRODUCER_OFFSET, published)
    return published - load(cursor)


@njit(cache=True)
def ready_rows(ring: int, reader: int, count: int) -> int:
    """Reader: how many of ``count`` rows can be read now, by the cached producer cursor if it says enough."""
    cursor = ring + FIRST_READER_OFFSET + reader * READER_STRIDE_BYTES
    if load(cursor + CACHED_PRODUCER_OFFSET) - load(cursor) >= count:
        return count
    return min(count, available_rows(ring, reader))


@njit(cache=True)
def peek_address(ring: int, reader: int) -> int:
    """Reader: the address of the next row to read, if :func:`peek_rows` gave any."""
    return row_address(ring, load(ring + FIRST_READER_OFFSET + reader * READER_STRIDE_BYTES))


@njit(cache=True)
def peek_rows(ring: int, reader: int, count: int) -> int:
    """Reader: how many of ``count`` rows can be read in one piece from :func:`peek_address` on, 0 when empty."""
    capacity = load(ring + CAPACITY_OFFSET)
    sequence = load(ring + FIRST_READER_OFFSET + reader * READER_STRIDE_BYTES)
    return min(ready_rows(ring, reader, count), capacity - (sequence & (capacity - 1)))


@njit(cache=True)
def release_rows(ring: int, reader: int, count: int) -> int:
    """Reader: give the next ``count`` rows back to the producer (store release). Returns the new sequence."""
    cursor = ring + FIRST_READER_OFFSET + reader * READER_STRIDE_BYTES
    sequence = load(cursor) + count
    store_release(cursor, sequence)
    return sequence


@njit(cache=True, nogil=True)
def pop_row(ring: int, reader: int, out: int) -> int:
    """Reader: copy its next row to ``out`` and release it. Returns 1, or 0 when there is none."""
    if ready_rows(ring, reader, 1) < 1:
        return 0
    cursor = ring + FIRST_READER_OFFSET + reader * READER_STRIDE_BYTES
    sequence = load(cursor)
    source = row_address(ring, sequence)
    if load(ring + ROW_BYTES_OFFSET) == LINE_BYTES:
        copy_line(out, source)
    else:
        copy(out, source, load(ring + ROW_BYTES_OFFSET))
    store_release(cursor, sequence + 1)
    return 1


@njit(cache=True, nogil=True)
def pop_rows(ring: int, reader: int, out: int, count: int) -> int:
    """Reader: copy up to ``count`` rows to ``out``, across the wrap point, and release them at once.

    Returns how many.
    """
    count = ready_rows(ring, reader, count)
    if count < 1:
        return 0  # as in push_rows
    cursor = ring + FIRST_READER_OFFSET + reader * READER_STRIDE_BYTES
    sequence = load(cursor)
    capacity = load(ring + CAPACITY_OFFSET)
    row_bytes = load(ring + ROW_BYTES_OFFSET)
    head = min(count, capacity - (sequence & (capacity - 1)))
    copy(out, row_address(ring, sequence), head * row_bytes)
    if head < count:
        copy(out + head * row_bytes, ring + load(ring + ROWS_OFFSET_OFFSET), (count - head) * row_bytes)
    store_release(cursor, sequence + count)
    return count


@njit(cache=True, nogil=True)
def push_array(ring: int, rows: npt.NDArray[np.uint8], count: int) -> int:
    """Producer: :func:`push_rows` for Python callers, with the rows as a one-dimensional, contiguous array of bytes.

    The array's address costs 0.9 µs to get in Python, the array itself 0.1 µs to pass.
    """
    return push_rows(ring, int(rows.ctypes.data), count)


@njit(cache=True, nogil=True)
def pop_array(ring: int, reader: int, out: npt.NDArray[np.uint8], count: int) -> int:
    """Reader: :func:`pop_rows` for Python callers, into a one-dimensional, contiguous array of bytes."""
    return pop_rows(ring, reader, int(out.ctypes.data), count)


_BYTES = types.Array(types.uint8, 1, "C")
_READ_ONLY_BYTES = types.Array(types.uint8, 1, "C", readonly=True)

# Every kernel with each signature that Python callers use; all addresses and counts are int64.
_SIGNATURES = (
    *((kernel, (types.int64,)) for kernel in (free_rows, claim_address)),
    *(
        (kernel, (types.int64,) * 2)
        for kernel in (
            reserve_rows,
            row_address,
            claim_rows,
            publish_rows,
            push_row,
            available_rows,
            peek_address,
        )
    ),
    *((kernel, (types.int64,) * 3) for kernel in (push_rows, ready_rows, peek_rows, release_rows, pop_row)),
    (pop_rows, (types.int64,) * 4),
    (push_array, (types.int64, _BYTES, types.int64)),
    (push_array, (types.int64, _READ_ONLY_BYTES, types.int64)),
    (pop_array, (types.int64, types.int64, _BYTES, types.int64)),
)


def warm() -> int:
    """Compile every kernel into numba's cache on disk, or load what is there already; return how many there are.

    Seconds when nothing is cached, about 0.1 s of loading when all is.
    """
    for kernel, signature in _SIGNATURES:
        kernel.compile(signature)
    return len(_SIGNATURES)
