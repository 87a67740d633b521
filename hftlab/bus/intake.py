"""What comes in: rows and events brought into the bus's own terms (ids, stamps), into order, and into its queues."""

from __future__ import annotations

from collections import deque

import numpy as np

from hftlab.bus.backlog import Backlog
from hftlab.bus.kernels import inspect_rows
from hftlab.clock import Clock
from hftlab.errors import ValidationError
from hftlab.events.batch import EventBatch
from hftlab.events.packing import pack_event
from hftlab.events.records import DTYPES, Flags, Rows, split_event_id
from hftlab.events.rowbytes import copy_rows
from hftlab.events.tables import UNKNOWN_SOURCE, SourceTable, SymbolTable
from hftlab.events.types import Event
from hftlab.sequence import Gap
from hftlab.sequence.gaps import gap_of, window_full
from hftlab.sequence.stage import Ordered, OrderStage

PIECE_ROWS = 4_096
"""Batches come in by pieces of this many rows: what is copied for the bus's own ids stays small."""


class Intake:
    """Pushes into the backlog and counts what was ``published``. ``clock`` stamps what brings no times.

    What is published goes through ``stage`` by the clock's time, whatever the rows say; what a run offers does not.
    Rows that the stage lets go later than they came, and that find no room then, are left over: they go first.
    """

    def __init__(
        self, backlog: Backlog, symbols: SymbolTable, sources: SourceTable, clock: Clock, stage: OrderStage
    ) -> None:
        self.published = 0
        self._stage = stage
        self._left: deque[EventBatch | Gap] = deque()
        self._clock = clock
        self._backlog, self._symbols, self._sources = backlog, symbols, sources

    def push_event(self, event: Event) -> bool:
        """Queue one event, stamped where it has no times; False without room. About 3 µs.

        Raises ValidationError for what is not an event.
        """
        if not isinstance(event, Event):
            raise ValidationError(
                f"publish takes a MarketDataEvent, OrderEvent, FillEvent or SignalEvent (publish_batch takes an "
                f"EventBatch); got {event!r:.100}"
            )
        number = split_event_id(event.event_id)[0] if event.event_id and not event.flags & Flags.EMITTED else 0
        if event.sequence >= 0 or number or event.cause or event.source.venue != UNKNOWN_SOURCE.venue or self._left:
            return self._push_numbered(event, number)
        if not self._backlog.push_event(event, self._clock.now_ns(), number, self._symbols, self._sources):
            return False
        self.published += 1
        return True

    def checked(self, batch: EventBatch) -> EventBatch:
        """The batch, contiguous, with stamps where it brings none. About 2 ns a row where it has all.

        Raises ValidationError for what is no batch, and for a row that no handler could be given.
        """
        if not isinstance(batch, EventBatch):
            raise ValidationError(
                f"publish_batch takes an EventBatch (EventBatch.from_events, from_frame); got {batch!r:.100}"
            )
        records = batch.records if batch.records.flags.c_contiguous else copy_rows(batch.records)
        event_type = 0 if batch.type is None else batch.type.value
        words = records.view(np.int64, np.ndarray)
        row, untimed = inspect_rows(words, event_type, len(batch.symbols), len(batch.sources))
        if row < len(records):
            raise ValidationError(_why_refused(batch, row))
        if untimed:
            records = _stamped(records, self._clock.now_ns())
        if records is batch.records:
            return batch
        return EventBatch(records, batch.symbols, batch.sources, session_number=batch.session_number)

    def _push_numbered(self, event: Event, number: int) -> bool:
        row = np.zeros(1, DTYPES[event.event_type])
        pack_event(event, row.view(np.uint8).data, self._symbols, self._sources, now_ns=self._clock.now_ns())
        batch = EventBatch(row, self._symbols, self._sources, session_number=number)
        return self.push(batch) == 1

    def push(self, batch: EventBatch) -> int:
        """Take as many of a batch's first rows as have room, through the stage; returns how many. About 20 ns a row.

        Raises WindowFull where a strict source waits for numbers before a row; its ``taken`` were taken.
        """
        now_ns = self._clock.now_ns()
        done = 0
        while done < len(batch) and self._flush():
            piece = batch if len(batch) <= PIECE_ROWS and not done else batch[done : done + PIECE_ROWS]
            if piece.symbols is not self._symbols or piece.sources is not self._sources:
                piece = piece.using(self._symbols, self._sources)
            room = self._backlog.room_for(piece.records)
            if not room:
                break
            if room < len(piece):
                piece = piece[:room]
            ordered = self._stage.process(piece, now_ns=now_ns)
            self.published += ordered.taken
            done += ordered.taken
            if ordered.batch is piece and not len(ordered.notices):
                self._queue(piece)  # there is room: nothing was added
                continue
            self._leave(ordered)
            if ordered.taken < len(piece):
                self._flush()
                source = piece.sources[int(piece.records["source"][ordered.taken])]
                raise window_full(self._stage.gaps, self._stage.ordering, source, done)
        self._flush()
        return done

    def tick(self) -> None:
        """Let time pass for the stage, and queue what it lets go; cheap when nothing is due."""
        if self._flush() and self.is_due():
            self._leave(self._stage.advance(self._clock.now_ns()))
            self._flush()

    def finish(self) -> None:
        """What is missing is lost; what it held back is queued."""
        self._leave(self._stage.finish())
        self._flush()

    def give_up(self) -> int:
        """End the stage for good; returns how many rows it held, or let go without room: nobody will handle them."""
        self._leave(self._stage.finish())
        count = self.left_over
        self._left.clear()
        return count

    def is_due(self) -> bool:
        """Whether ``tick`` would do something now."""
        if self._left:
            return True
        due_ns = self._stage.due_ns
        return self._stage.wants_work or (due_ns is not None and due_ns <= self._clock.now_ns())

    @property
    def due_ns(self) -> int | None:
        """The next moment at which time alone lets something go; None without one."""
        return self._stage.due_ns

    @property
    def left_over(self) -> int:
        """Rows that the stage let go and that found no room yet."""
        return sum(len(left) for left in self._left if isinstance(left, EventBatch))

    def _leave(self, ordered: Ordered) -> None:
        begin = 0
        for notice in ordered.notices:
            position, *gap = notice.tolist()
            if position > begin:
                self._left.append(ordered.batch[begin:position])
                begin = position
            self._left.append(gap_of(gap, self._sources))
        if begin < len(ordered.batch):
            self._left.append(ordered.batch[begin:] if begin else ordered.batch)

    def _flush(self) -> bool:
        """Queue what is left over; False where it does not all have room."""
        while self._left:
            first = self._left.popleft()
            if isinstance(first, Gap):
                self._backlog.tell(first)
                continue
            taken = self._queue(first)
            if taken < len(first):
                self._left.appendleft(first[taken:])
                return False
        return True

    def _queue(self, batch: EventBatch) -> int:
        records = batch.records if batch.records.flags.c_contiguous else copy_rows(batch.records)
        return self._backlog.push(records, batch.session_number)

    def push_ordered(self, batch: EventBatch) -> int:
        """Queue as many of a batch's first rows as have room; returns how many. About 10 ns a row.

        The rows are in order, and were checked: by ``checked``, or when they were decoded.
        """
        done = 0
        while done < len(batch):
            piece = batch if len(batch) <= PIECE_ROWS and not done else batch[done : done + PIECE_ROWS]
            piece = piece.using(self._symbols, self._sources)
            taken = self._queue(piece)
            self.published += taken
            done += taken
            if taken < len(piece):
                break
        return done


def _why_refused(batch: EventBatch, row: int) -> str:
    found = {name: int(batch.records[name][row]) for name in ("type", "symbol", "source", "priority", "clock")}
    return (
        f"row {row} of the batch can't be published: an id without a name in its {len(batch.symbols)} symbols and "
        f"{len(batch.sources)} sources, another type than its batch's, or an enum that does not exist; it has "
        f"{', '.join(f'{name} {value}' for name, value in found.items())}"
    )


def _stamped(records: Rows, now_ns: int) -> Rows:
    records = copy_rows(records)
    records["received"][records["received"] == 0] = now_ns
    untimed = records["timestamp"] == 0
    records["timestamp"][untimed] = records["received"][untimed]
    records["flags"][untimed] |= np.uint16(Flags.ARRIVAL_TIME)
    return records
