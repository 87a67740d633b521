"""What was accepted and is not acknowledged yet: rows in the order of their acceptance, in slabs that are used again.

::

    slabs   [■■■■■■■■][■■■■■■■■][■■■■····]        ■ a row, copied from the bus, until the server has it
             └ front(): contiguous, zero-copy      └ put() fills here

Pure: no loop, no server; the time is passed in.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from hftlab.events import EventBatch, EventType, SourceTable, SymbolTable
from hftlab.events.records import DTYPES, RECORD, ROW_BYTES, Rows
from hftlab.events.rowbytes import PLAIN

SLAB_ROWS = 16_384
"""2 MiB. New memory costs 10 ns a row to be touched first, so slabs are kept for the next rows."""
_SPARE_SLABS = 8
_MARK_NS = 1_000_000
"""How exactly the age of rows is known: those of one millisecond count as as old as the first of them."""


class _Slab:
    """``rows``: memory; ``begin`` to ``end`` is filled. ``event_type``: of all its rows; None: of several types."""

    __slots__ = ("begin", "end", "event_type", "rows")

    def __init__(self, rows: int) -> None:
        self.rows = np.empty(rows, PLAIN)
        self.begin = self.end = 0
        self.event_type: EventType | None = None

    def view(self, count: int) -> Rows:
        dtype = RECORD if self.event_type is None else DTYPES[self.event_type]
        return self.rows[self.begin : self.begin + count].view(dtype)


class Buffer:
    """Up to ``limit_rows`` rows; what is put in beyond is held all the same, for whoever looks at ``free`` first.

    ``put_rows`` and ``done_rows`` count what came and went. One thread puts and takes; rows that ``front`` showed may
    be read by another one until they are ``done``.
    """

    def __init__(self, limit_rows: int) -> None:
        self.limit_rows = limit_rows
        self.put_rows = self.done_rows = 0
        self._slab_rows = min(SLAB_ROWS, limit_rows)
        self._slabs: deque[_Slab] = deque()
        self._spare: list[_Slab] = []
        self._marks: deque[tuple[int, int]] = deque()  # from this row on, rows came at this time
        self._symbols, self._sources = SymbolTable(), SourceTable()
        self._snapshot: tuple[SymbolTable, SourceTable] = (SymbolTable(), SourceTable())

    @property
    def rows(self) -> int:
        """How many rows wait."""
        return self.put_rows - self.done_rows

    @property
    def nbytes(self) -> int:
        """The bytes of the rows that wait."""
        return self.rows * ROW_BYTES

    @property
    def free(self) -> int:
        """How many rows have room."""
        return max(0, self.limit_rows - self.rows)

    def put(self, batch: EventBatch, now_ns: int) -> None:
        """Copy rows in. All batches are under the same tables, which may grow. About 10 ns a row."""
        count = len(batch)
        if not count:
            return
        self._symbols, self._sources = batch.symbols, batch.sources
        if not self._marks or now_ns - self._marks[-1][1] >= _MARK_NS or not self.rows:
            self._marks.append((self.put_rows, now_ns))
        rows = batch.records.view(PLAIN)
        done = 0
        while done < count:
            slab = self._slabs[-1] if self._slabs else None
            if slab is None or slab.end == len(slab.rows):
                slab = self._spare.pop() if self._spare else _Slab(self._slab_rows)
                self._slabs.append(slab)
            if slab.begin == slab.end:
                slab.event_type = batch.type
            elif slab.event_type is not batch.type:
                slab.event_type = None
            step = min(count - done, len(slab.rows) - slab.end)
            slab.rows[slab.end : slab.end + step] = rows[done : done + step]
            slab.end += step
            done += step
        self.put_rows += count

    def front(self, most: int) -> EventBatch:
        """Up to ``most`` of the oldest rows, at least one where any waits: zero-copy, under tables of their own."""
        if not self.rows:
            return EventBatch.empty()
        slab = self._slabs[0]
        symbols, sources = self._snapshot
        # Encoded in a thread, while the bus goes on to name symbols in its own tables.
        if len(symbols) != len(self._symbols) or len(sources) != len(self._sources):
            symbols, sources = SymbolTable(self._symbols), SourceTable(self._sources.values[1:])
            self._snapshot = symbols, sources
        return EventBatch(slab.view(min(most, slab.end - slab.begin)), symbols, sources)

    def done(self, count: int) -> None:
        """Forget the oldest ``count`` rows: they are kept, or given up."""
        self.done_rows += count
        while self._slabs and count:
            slab = self._slabs[0]
            step = min(count, slab.end - slab.begin)
            slab.begin += step
            count -= step
            if slab.begin == slab.end:
                self._slabs.popleft()
                slab.begin = slab.end = 0
                if len(self._spare) < _SPARE_SLABS:
                    self._spare.append(slab)
        while len(self._marks) > 1 and self._marks[1][0] <= self.done_rows:
            self._marks.popleft()

    def age_ns(self, now_ns: int) -> int:
        """For how long the oldest row has waited; 0 where none does."""
        return max(0, now_ns - self._marks[0][1]) if self.rows else 0
