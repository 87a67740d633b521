"""``SlidingWindow``: messages held for a fixed time and let go in the order of a key, so that what is late fits in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hftlab.errors import ValidationError, shown
from hftlab.events.batch import EventBatch
from hftlab.events.records import DTYPES, RECORD, EventType, Rows
from hftlab.events.rowbytes import copy_rows
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.sequence.aside import AsideReason, SetAside
from hftlab.sequence.kernels import slots as at
from hftlab.sequence.kernels.sliding import gather_slid, let_go, slide
from hftlab.sequence.memory import held_log_sequences
from hftlab.sequence.sliding_tables import PIECE_ROWS, Ints, SlidingTables

_ROW_WORDS = 16
_TYPES = {1 << event_type: event_type for event_type in EventType}


@dataclass(frozen=True, slots=True)
class Slid:
    """What left: ``batch``, in the order of leaving, and ``moments``, when each row did: int64, never falling."""

    batch: EventBatch
    moments: Ints


@dataclass(frozen=True, slots=True)
class SlidingStatistics:
    """Rows so far: received = released + held + late by timestamp; late by number is part of ``released``.

    ``late``: a greater key had left before. A hold of more than ``late_by_ns_max`` would have let none be late. (That
    is exact where the greatest key has risen less than 256 times meanwhile; else it may be told too large, by about a
    quarter, never too small.) ``hurried``: left before their time because ``capacity`` rows were held.
    """

    received: int
    released: int
    held: int
    late: int
    late_by_ns_max: int
    hurried: int


class SlidingWindow:
    """Holds messages for ``hold_ns`` and lets them go in a key's order. For rows under ``symbols`` and ``sources``.

    ``key="timestamp"``, for views that merge sources: all together, by the timestamp of a message's first row. A
    source's own order is kept, whatever it says: a message counts as at least as new as the one before it from its
    source. (So a timestamp from the future makes others late: reject such before.) A message that comes when a greater
    key has left is *late*: set aside, counted.

    ``key="sequence"``, for sources whose numbers only rise (rule "shared", or yours with ``dense=False``): nobody can
    tell what is missing there, only wait a while. Each by itself, by epoch and number. What is late, and what has no
    number, leaves at once, for the sequencer to judge; and so do rows of all other sources.

    A message arrives with its last part, or when its source goes on without one, and is due ``hold_ns`` later. When it
    is due it leaves, and before it what has a lesser key (of equal ones, the first to arrive). At most ``capacity``
    rows are held, parts of messages included: beyond, what is due first leaves before its time; a message of more rows
    leaves in pieces. Sorted is therefore whatever is never more than ``hold_ns`` behind.

    Batches may be cut anywhere: the output is the same. Memory for the rows held, 248 bytes each, grows between calls;
    a source that is reordered by number has 16 KiB. O(log k) a message of one among k merged sources, O(1) for one that
    is ordered by number; O(log n), with n held, for what came out of its source's order. One thread.
    """

    def __init__(
        self,
        hold_ns: int,
        key: Literal["timestamp", "sequence"] = "timestamp",
        symbols: SymbolTable | None = None,
        sources: SourceTable | None = None,
        *,
        capacity: int = 1 << 16,
        set_aside: SetAside | None = None,
    ) -> None:
        if isinstance(hold_ns, bool) or not isinstance(hold_ns, int) or not 0 < hold_ns <= 1 << 60:
            raise ValidationError(
                f"hold_ns is an integer of 1 to 2**60 ns (to hold nothing, make none); got {hold_ns!r}"
            )
        if key not in ("timestamp", "sequence"):
            raise ValidationError(f"key is 'timestamp' or 'sequence'; got {shown(key)}")
        if isinstance(capacity, bool) or not isinstance(capacity, int) or not 0 < capacity <= 1 << 24:
            raise ValidationError(f"capacity is an integer of 1 to 2**24 rows; got {shown(capacity)}")
        self.hold_ns, self.key, self.capacity = hold_ns, key, capacity
        self.symbols = SymbolTable() if symbols is None else symbols
        self.sources = SourceTable() if sources is None else sources
        self.set_aside = SetAside(self.symbols, self.sources) if set_aside is None else set_aside
        self._tables = SlidingTables(hold_ns, capacity, key == "timestamp", self.sources)
        self._session_number = 0
        self._mixed = False

    # -- working ------------------------------------------------------------------------------------------------------

    def process(self, batch: EventBatch, *, now_ns: int | None = None, moments: Ints | None = None) -> Slid:
        """Take a batch's rows in the order of arrival; return all that leaves meanwhile.

        Time is ``now_ns`` for all of them; or ``moments``, int64 that never fall, for each; or else each row's
        ``received`` (made never to fall). The very batch that came in is returned where nothing was held or moved.
        Raises ValidationError for moments of another length, and (by number) for a source whose rule nobody registered.
        About 10 µs a call.
        """
        if moments is not None and len(moments) != len(batch):
            raise ValidationError(f"a row has a moment each; got {len(batch)} rows and {len(moments)} moments")
        if batch.symbols is not self.symbols or batch.sources is not self.sources:
            batch = batch.using(self.symbols, self.sources)
        self._note_session(batch)
        self._tables.learn_sources()
        out = _Output(self._tables, batch)
        for begin in range(0, len(batch), PIECE_ROWS):
            words = _words(batch.records[begin : begin + PIECE_ROWS])
            self._tables.make_room(len(words))
            if now_ns is not None or moments is None:
                times = None
            else:
                times = np.ascontiguousarray(moments[begin : begin + PIECE_ROWS], np.int64)
            numbers = self._tables.own_numbers(words) if self._tables.own_rules else None
            slide(
                self._tables.address,
                words.ctypes.data,
                len(words),
                0 if times is None else times.ctypes.data,
                0 if numbers is None else numbers.ctypes.data,
                -1 if now_ns is None else now_ns,
            )
            self._keep_aside()
            out.take(words)
        return self._slid(out)

    def advance(self, now_ns: int) -> Slid:
        """Let time pass: what is due by now leaves. About 10 µs."""
        return self._let_go(now_ns, everything=False)

    def finish(self) -> Slid:
        """End: all that is held leaves now, each group in the order of its keys, and any key may come after that."""
        return self._let_go(0, everything=True)

    @property
    def due_ns(self) -> int | None:
        """The next moment at which time alone lets something go; None without one."""
        due = int(self._tables.control[at.NEXT_DUE])
        return None if due == at.FOREVER else due

    @property
    def held_log_sequences(self) -> Ints:
        """Of the rows that are held, in any order: int64."""
        control, tables = self._tables.control, self._tables
        if not control[at.HELD_ROWS]:
            return np.zeros(0, np.int64)
        following = tables.slots[:, at.FOLLOWING]
        return held_log_sequences(
            tables.store, int(control[at.USED]), following, (int(control[at.FREE]), int(control[at.RETIRED]))
        )

    def statistics(self) -> SlidingStatistics:
        """What became of all rows so far. About 2 µs."""
        control = self._tables.control.tolist()
        return SlidingStatistics(
            received=control[at.RECEIVED_ROWS],
            released=control[at.RELEASED_ROWS],
            held=control[at.HELD_ROWS],
            late=control[at.LATE_ROWS],
            late_by_ns_max=control[at.LATE_BY_NS_MAX],
            hurried=control[at.HURRIED_ROWS],
        )

    def __repr__(self) -> str:
        told = self.statistics()
        late = f", {told.late:,} late by up to {told.late_by_ns_max / 1e6:,.3f} ms" if told.late else ""
        hurried = f", {told.hurried:,} hurried" if told.hurried else ""
        rows = f"{told.received:,} rows, {told.held:,} held{late}{hurried}"
        return f"SlidingWindow({self.hold_ns / 1e6:g} ms by {self.key}: {rows})"

    # -- within -------------------------------------------------------------------------------------------------------

    def _let_go(self, now_ns: int, everything: bool) -> Slid:
        self._tables.make_room(0)
        empty = EventBatch(_NO_ROWS, self.symbols, self.sources, session_number=self._session_number)
        let_go(self._tables.address, now_ns, everything)
        self._keep_aside()
        out = _Output(self._tables, empty)
        out.take(_words(_NO_ROWS))
        return self._slid(out)

    def _slid(self, out: _Output) -> Slid:
        session_number = 0 if self._mixed else self._session_number
        self._mixed &= bool(self._tables.control[at.HELD_ROWS])
        return out.slid(self.symbols, self.sources, session_number)

    def _keep_aside(self) -> None:
        count = int(self._tables.control[at.ASIDE])
        if count:
            rows = self._tables.store[self._tables.aside[:count]].view(RECORD).reshape(-1)
            reasons = np.full(count, AsideReason.LATE, np.int64)
            self.set_aside.add(rows, reasons, 0 if self._mixed else self._session_number)

    def _note_session(self, batch: EventBatch) -> None:
        if len(batch) and batch.session_number != self._session_number:
            # What is held was recorded elsewhere: better no event id than a wrong one.
            self._mixed |= bool(self._tables.control[at.HELD_ROWS])
            self._session_number = batch.session_number


class _Output:
    """Collects what leaves piece by piece, and copies nothing as long as that is the input as it is."""

    def __init__(self, tables: SlidingTables, batch: EventBatch) -> None:
        self._tables, self._batch = tables, batch
        # Of one piece the size is known when it is done; of several, what may leave is what is held and what comes.
        # Joining them instead would touch fresh memory twice, which is most of a large batch's time.
        most = int(tables.control[at.HELD_ROWS]) + len(batch) if len(batch) > PIECE_ROWS else 0
        self._rows: Ints = np.empty((most, _ROW_WORDS), np.int64)
        self._moments: Ints = np.empty(most, np.int64)
        self._untouched = True
        self._count = self._types = 0

    def take(self, words: Ints) -> None:
        """Take what a kernel let go, and the rows that it was given."""
        control = self._tables.control
        count = int(control[at.OUT])
        if not len(self._moments):
            self._rows, self._moments = np.empty((count, _ROW_WORDS), np.int64), np.empty(count, np.int64)
        begin, end = self._count, self._count + count
        self._count = end
        if self._untouched:
            if count == control[at.PREFIX] == len(words):
                self._moments[begin:end] = self._tables.order[:count, at.O_MOMENT]
                return
            self._untouched = False
            self._add_input(begin)
        if count:
            rows, moments = self._rows[begin:end], self._moments[begin:end]
            self._types |= gather_slid(self._tables.address, words.ctypes.data, rows.ctypes.data, moments.ctypes.data)

    def _add_input(self, count: int) -> None:
        """The first rows of the input left as they are."""
        if count:
            records = self._batch.records[:count]
            self._rows[:count] = _words(records)
            self._types |= int(np.bitwise_or.reduce(1 << records["type"].astype(np.int64)))

    def slid(self, symbols: SymbolTable, sources: SourceTable, session_number: int) -> Slid:
        """All of it."""
        if self._untouched:
            return Slid(self._batch, self._moments)
        rows, moments = self._rows[: self._count], self._moments[: self._count]
        if 2 * self._count < len(self._rows):
            rows, moments = rows.copy(), moments.copy()  # don't keep alive what nobody looks at
        event_type = _TYPES.get(self._types)
        if event_type is None and not self._count:
            return Slid(self._batch[:0], moments)
        records = rows.view(RECORD if event_type is None else DTYPES[event_type]).reshape(-1)
        return Slid(EventBatch(records, symbols, sources, session_number=session_number), moments)


def _words(records: Rows) -> Ints:
    """Rows as int64, 16 a row, contiguous."""
    if not records.flags.c_contiguous:
        records = copy_rows(records)
    return records.view(np.int64, np.ndarray).reshape(len(records), _ROW_WORDS)


_NO_ROWS: Rows = np.zeros(0, RECORD)
