"""Ring: a pre-allocated queue of rows in memory for one producer and one or more readers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hftlab.errors import ClaimError, ValidationError
from hftlab.ring.handles import Consumer, Producer
from hftlab.ring.layout import (
    BACK_PRESSURED_OFFSET,
    PRODUCER_CURSOR_OFFSET,
    ROW_BYTES,
    WORD_BYTES,
    Layout,
    allocate,
)


@dataclass(frozen=True, slots=True)
class RingStatistics:
    """What a ring had done at one moment; all counts are rows, but ``back_pressured``, which counts calls.

    ``consumed`` and ``available`` have one entry a reader. ``back_pressured``: claims and pushes that found fewer rows
    free than they asked for (a spinning producer counts once a poll). Taken while other threads work, the figures are
    of slightly different moments.
    """

    capacity: int
    row_bytes: int
    readers: int
    published: int
    consumed: tuple[int, ...]
    available: tuple[int, ...]
    free: int
    back_pressured: int


class Ring:
    """A bounded queue of fixed-size rows, all allocated at once: one producer, ``readers`` readers, no locks.

    ``capacity``: rows, a power of two. ``dtype``: of one row, a multiple of 8 bytes without Python objects; rows of
    128 bytes (the default: opaque ones) each have lines of their own. Every reader gets every row, in order; a row is
    written over only when all readers have released it. Nothing is ever dropped: a full ring takes nothing, and says
    so by what ``push`` and ``claim`` return. Raises ValidationError. Making one writes all its memory (1 to 2.5 s
    a GB), using it allocates nothing.

    The producer and each reader may live on threads of their own, or all on one::

        ring = Ring(4096, dtype=quotes.dtype)
        producer, consumer = ring.producer(), ring.consumer()
        producer.push(quotes)  # copies in what fits, and says how much that was
        block = consumer.peek(1024)  # a view, no copy
        consumer.release(len(block))

    A Python call an event is too dear, so loops belong into kernels, which take ``ring.address`` (keep ``ring`` itself
    alive meanwhile) and may run without the interpreter's lock, one thread a role::

        from hftlab.ring.atomics import pause, store
        from hftlab.ring.kernels import push_row


        @njit(nogil=True)
        def count_up(ring, row, rows):
            for number in range(rows):
                store(row, number)  # the row's first eight bytes
                while not push_row(ring, row):
                    pause()


        count_up(ring.address, scratch.ctypes.data, 1_000_000)
    """

    __slots__ = ("__weakref__", "_address", "_buffer", "_dtype", "_layout", "_taken", "_words")

    def __init__(self, capacity: int, dtype: npt.DTypeLike = f"V{ROW_BYTES}", readers: int = 1) -> None:
        self._dtype = np.dtype(dtype)
        if self._dtype.hasobject:
            raise ValidationError(f"a ring's rows can't hold Python objects, got the dtype {self._dtype}")
        if self._dtype.subdtype is not None:
            raise ValidationError(
                f"a ring's row can't be a bare array, got the dtype {self._dtype}; "
                f"make it a field: np.dtype([('values', ...)])"
            )
        self._layout = Layout(capacity, self._dtype.itemsize, readers)
        self._buffer = allocate(self._layout.size_bytes)
        self._layout.format(self._buffer)
        self._address = int(self._buffer.ctypes.data)
        self._words = memoryview(self._buffer[: self._layout.rows_offset]).cast("q")  # type: ignore[arg-type]
        self._taken: set[int | None] = set()  # readers whose handle was given out; None is the producer

    @property
    def address(self) -> int:
        """Where the ring lies: what the kernels take. Valid as long as the ring or one of its handles lives."""
        return self._address

    @property
    def layout(self) -> Layout:
        """Sizes and offsets of the ring's memory."""
        return self._layout

    @property
    def capacity(self) -> int:
        """How many rows fit."""
        return self._layout.capacity

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of one row."""
        return self._dtype

    @property
    def readers(self) -> int:
        """How many readers hold the producer back, whether their handle was taken or not."""
        return self._layout.readers

    def producer(self) -> Producer:
        """Return the only writing end. Raises ClaimError the second time: two producers would overwrite each other."""
        self._take(None, "the producer")
        return Producer(self._buffer, self._layout, self._dtype)

    def consumer(self, index: int = 0) -> Consumer:
        """Return the reading end of reader ``index``.

        Raises ClaimError the second time (make the ring with more ``readers``), ValidationError when there is no such
        reader.
        """
        consumer = Consumer(self._buffer, self._layout, self._dtype, index)
        self._take(index, f"consumer {index}")
        return consumer

    def _take(self, role: int | None, name: str) -> None:
        if role in self._taken:
            raise ClaimError(f"a ring gives out one handle a role, and {name} was taken before; pass that handle on")
        self._taken.add(role)

    def statistics(self) -> RingStatistics:
        """Return what the ring has done so far; from any thread. About 2 µs."""
        words = self._words
        # The readers first: so nobody seems to have consumed what was not published. Plain reads of whole words: no
        # row is looked at on the strength of them.
        consumed = tuple(
            words[self._layout.reader_offset(reader) // WORD_BYTES] for reader in range(self._layout.readers)
        )
        published = words[PRODUCER_CURSOR_OFFSET // WORD_BYTES]
        capacity = self._layout.capacity
        available = tuple(min(capacity, published - sequence) for sequence in consumed)
        return RingStatistics(
            capacity=capacity,
            row_bytes=self._layout.row_bytes,
            readers=self._layout.readers,
            published=published,
            consumed=consumed,
            available=available,
            free=capacity - max(available),
            back_pressured=words[BACK_PRESSURED_OFFSET // WORD_BYTES],
        )

    def __repr__(self) -> str:
        statistics = self.statistics()
        return (
            f"Ring(capacity={statistics.capacity}, row_bytes={statistics.row_bytes}, readers={statistics.readers}, "
            f"published={statistics.published}, free={statistics.free})"
        )

    def _repr_html_(self) -> str:
        statistics = self.statistics()
        readers = "".join(
            f"<tr><td>reader {reader}</td><td>{consumed:,} consumed</td><td>{available:,} available</td></tr>"
            for reader, (consumed, available) in enumerate(zip(statistics.consumed, statistics.available, strict=True))
        )
        return (
            f"<table><caption>Ring of {statistics.capacity:,} rows of {statistics.row_bytes:,} bytes</caption>"
            f"<tr><td>producer</td><td>{statistics.published:,} published</td><td>{statistics.free:,} free</td></tr>"
            f"{readers}</table>"
        )
