"""Where everything in a ring lies in memory: offsets, lines, capacity checks. No logic, no threads.

A ring is one block of memory whose address is a multiple of 128. ``n`` is the number of readers; every cell on the
left is a line of 128 bytes, of which only the named 8-byte words are used::

    offset            line                    words (int64)                           written by     read by
    ┌───────────────┬───────────────────────┬───────────────────────────────────────┬──────────────┬───────────────┐
    │ 0             │ geometry              │ capacity · row_bytes · readers ·      │ the maker,   │ everybody     │
    │               │                       │ rows_offset                           │ once         │               │
    ├───────────────┼───────────────────────┼───────────────────────────────────────┼──────────────┼───────────────┤
    │ 128           │ producer cursor       │ rows ever published                   │ producer     │ every reader  │
    ├───────────────┼───────────────────────┼───────────────────────────────────────┼──────────────┼───────────────┤
    │ 256           │ producer's own        │ cached gating sequence ·              │ producer     │ producer      │
    │               │                       │ back_pressured                        │              │               │
    ├───────────────┼───────────────────────┼───────────────────────────────────────┼──────────────┼───────────────┤
    │ 384 + 256 · i │ cursor of reader i    │ rows ever released by reader i        │ reader i     │ producer      │
    │ 512 + 256 · i │ reader i's own        │ cached producer cursor                │ reader i     │ reader i      │
    ├───────────────┼───────────────────────┼───────────────────────────────────────┼──────────────┼───────────────┤
    │ 384 + 256 · n │ row 0                 │ row_bytes each; sequence s lies in    │ producer,    │ readers,      │
    │ …             │ … row capacity - 1    │ row s & (capacity - 1)                │ if free      │ if published  │
    └───────────────┴───────────────────────┴───────────────────────────────────────┴──────────────┴───────────────┘

A line is 128 bytes, twice x86's cache line, because its prefetcher fetches pairs of them, and because that is the
line of Apple's ARM cores. So no word that one thread writes shares a line with a word that another thread polls.
A sequence is an int64 that counts rows and never wraps: at 10⁹ rows a second it would last for 292 years.

The kernels read the geometry from the block, so one address is all that they, and a second process that maps the
block, need. Their cached machine code has these offsets in it: see ``kernels.COMPILED_IN``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hftlab.errors import ValidationError

LINE_BYTES = 128
WORD_BYTES = 8

# Offsets in bytes from the ring's address.
CAPACITY_OFFSET = 0
ROW_BYTES_OFFSET = 8
READERS_OFFSET = 16
ROWS_OFFSET_OFFSET = 24
PRODUCER_CURSOR_OFFSET = 1 * LINE_BYTES
CACHED_GATING_OFFSET = 2 * LINE_BYTES
BACK_PRESSURED_OFFSET = CACHED_GATING_OFFSET + WORD_BYTES
FIRST_READER_OFFSET = 3 * LINE_BYTES
READER_STRIDE_BYTES = 2 * LINE_BYTES
CACHED_PRODUCER_OFFSET = LINE_BYTES  # from the reader's own cursor

ROW_BYTES = 128
CAPACITY_MAX = 1 << 30
ROW_BYTES_MAX = 1 << 16
READERS_MAX = 64


@dataclass(frozen=True, slots=True)
class Layout:
    """The sizes and offsets of one ring, checked once when made; see the module's diagram.

    ``capacity``: rows, a power of two up to 2³⁰ (a sequence then finds its row with one ``and``). ``row_bytes``: a
    multiple of 8 up to 65,536; multiples of 128 keep every row on lines of its own. ``readers``: 1 to 64. Raises
    ValidationError with the rule and the value.
    """

    capacity: int
    row_bytes: int = ROW_BYTES
    readers: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.capacity <= CAPACITY_MAX or self.capacity & (self.capacity - 1):
            near = 1 << max(0, min(self.capacity, CAPACITY_MAX) - 1).bit_length()
            raise ValidationError(
                f"a ring's capacity must be a power of two from 1 to {CAPACITY_MAX:,} rows, got {self.capacity:,}; "
                f"the nearest that holds as many is {near:,}"
            )
        if not WORD_BYTES <= self.row_bytes <= ROW_BYTES_MAX or self.row_bytes % WORD_BYTES:
            raise ValidationError(
                f"a ring's rows must be a multiple of 8 bytes from 8 to {ROW_BYTES_MAX:,}, got {self.row_bytes:,}; "
                f"pad the dtype (np.dtype({{..., 'itemsize': ...}}))"
            )
        if not 1 <= self.readers <= READERS_MAX:
            raise ValidationError(f"a ring has 1 to {READERS_MAX} readers, got {self.readers}")

    @property
    def rows_offset(self) -> int:
        """Bytes from the ring's address to row 0; a multiple of 128."""
        return FIRST_READER_OFFSET + READER_STRIDE_BYTES * self.readers

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole block."""
        return self.rows_offset + self.capacity * self.row_bytes

    def reader_offset(self, reader: int) -> int:
        """Bytes from the ring's address to the cursor of reader ``reader`` (0 to readers - 1)."""
        if not 0 <= reader < self.readers:
            raise ValidationError(f"this ring's readers are numbered 0 to {self.readers - 1}, got {reader}")
        return FIRST_READER_OFFSET + READER_STRIDE_BYTES * reader

    def format(self, buffer: npt.NDArray[np.uint8]) -> None:
        """Make an empty ring out of ``buffer``: all cursors at 0, the geometry written last.

        ``buffer`` is a writeable uint8 array of at least ``size_bytes`` whose address is a multiple of 128 (see
        :func:`allocate`; a mapping's pages are). Its rows are left as they are. Raises ValidationError.
        """
        self.check(buffer)
        words = buffer[: self.rows_offset].view(np.int64)
        words[:] = 0
        words[:4] = self.capacity, self.row_bytes, self.readers, self.rows_offset

    def check(self, buffer: npt.NDArray[np.uint8]) -> None:
        """Raise ValidationError unless this layout fits ``buffer``: its size, its type and its alignment."""
        if buffer.dtype != np.uint8 or buffer.ndim != 1 or not buffer.flags.c_contiguous:
            raise ValidationError(
                f"a ring lives in a contiguous one-dimensional uint8 array, got {buffer.dtype} of shape {buffer.shape}"
            )
        if buffer.size < self.size_bytes:
            raise ValidationError(f"this ring needs {self.size_bytes:,} bytes, the buffer has {buffer.size:,}")
        misalignment_bytes = buffer.ctypes.data % LINE_BYTES
        if misalignment_bytes:
            raise ValidationError(
                f"a ring starts at a multiple of {LINE_BYTES} bytes, this buffer {misalignment_bytes} after one; "
                f"allocate it with hftlab.ring.allocate"
            )


def allocate(size_bytes: int) -> npt.NDArray[np.uint8]:
    """Return ``size_bytes`` zeroed bytes whose address is a multiple of 128, with every page already backed by memory.

    NumPy promises 16-byte alignment only, so up to 127 bytes are spent on the way to the next line. The zeros are
    written, not just promised: an untouched page would cost a page fault in the middle of the first lap (5 to 9 µs
    each, measured on a virtual machine). Costs 1 to 2.5 s a GB, 1 ms for a ring of 8,192 rows.
    """
    block = np.empty(size_bytes + LINE_BYTES, dtype=np.uint8)
    first = -block.ctypes.data % LINE_BYTES
    block.fill(0)
    return block[first : first + size_bytes]
