"""What comes in: rows and events brought into the bus's own terms (ids, stamps), into order, and into their lanes."""

from __future__ import annotations

import numpy as np

from hftlab.bus.admission import Admission, LaneIds
from hftlab.bus.flowing import Overflow
from hftlab.bus.keepers import Keepers
from hftlab.bus.kernels import inspect_rows
from hftlab.bus.lanes import Lanes
from hftlab.clock import Clock
from hftlab.errors import ValidationError
from hftlab.events.batch import EventBatch
from hftlab.events.packing import pack_event
from hftlab.events.records import DTYPES, EventType, Flags, Priority, Rows, split_event_id
from hftlab.events.rowbytes import copy_rows
from hftlab.events.tables import UNKNOWN_SOURCE, SourceTable, SymbolTable
from hftlab.events.types import Event
from hftlab.sequence.gaps import gap_of, window_full
from hftlab.sequence.stage import Ordered, OrderStage

PIECE_ROWS = 4_096
"""Batches come in by pieces of this many rows: what is copied for the bus's own ids stays small."""


class Intake:
    """Takes rows in and counts what was ``published``. ``clock`` stamps what brings no times.

    What is published goes through ``stage`` by the clock's time, whatever the rows say, and then into the lanes that
    ``admission`` keeps; what a run offers goes into the recorded lane as it is. ``keepers`` see what the stage let go,
    before anything of it gives way, and are shown nothing of a run.
    """

    def __init__(
        self,
        lanes: Lanes,
        admission: Admission,
        symbols: SymbolTable,
        sources: SourceTable,
        clock: Clock,
        stage: OrderStage,
    ) -> None:
        self.published = 0
        self.keepers = Keepers()
        lanes.control.is_pressed = lambda: self.keepers.presses
        self._stage = stage
        self._clock = clock
        self._lanes, self._admission = lanes, admission
        self._symbols, self._sources = symbols, sources

    def level_of(self, event: Event) -> Priority:
        """The lane that an event goes to. Raises ValidationError for what is not an event."""
        if not isinstance(event, Event):
            raise ValidationError(
                f"publish takes a MarketDataEvent, OrderEvent, FillEvent or SignalEvent (publish_batch takes an "
                f"EventBatch); got {event!r:.100}"
            )
        return self._lanes.priorities.lane_of_event(
            event, self._symbols, self._sources, now_ns=self._clock.now_ns()
        )  # fmt: skip

    def level_of_first(self, batch: EventBatch) -> Priority:
        """The lane that a batch's first row goes to, for whoever has to wait in line."""
        if not len(batch):
            return Priority.NORMAL
        first = batch[:1].using(self._symbols, self._sources)
        levels = self._lanes.priorities.lanes(first.records, self._symbols)
        return levels if isinstance(levels, Priority) else Priority(int(levels[0]))

    def raises(self, event_type: EventType, level: Priority) -> bool:
        """Whether an event that finds no room is its publisher's error."""
        return self._admission.overflow_of(level, event_type) is Overflow.RAISE

    @property
    def gave_way(self) -> int:
        """How many rows have given way so far."""
        return self._admission.given_way.rows

    def limit(self, event_type: EventType, level: Priority) -> int:
        """How many rows of a type a lane may hold now."""
        return self._admission.limit(self._lanes[level], event_type)

    @property
    def free(self) -> int:
        """How many rows ``push`` could take, at most."""
        return self._admission.free

    def push_event(self, event: Event, level: Priority | None = None) -> bool:
        """Queue one event, stamped where it has no times; False without room. About 4 µs.

        ``level``: its lane, where that is known. Raises ValidationError for what is not an event.
        """
        if level is None:
            level = self.level_of(event)
        number = split_event_id(event.event_id)[0] if event.event_id and not event.flags & Flags.EMITTED else 0
        if event.sequence >= 0 or number or event.cause or event.source.venue != UNKNOWN_SOURCE.venue:
            return self._push_numbered(event, number)
        now_ns = self._clock.now_ns()
        self._admission.now_ns = now_ns
        lane = self._lanes[level]
        if not self._admission.is_plain(lane, event.event_type):
            return self._push_numbered(event, number)
        kept = self._row_of(event, number, now_ns) if self.keepers.listed else None
        if kept is not None and not self.keepers.room_for(kept):
            return False
        lane.backlog.now_ns = now_ns
        if not lane.backlog.push_event(event, now_ns, number, self._symbols, self._sources):
            return self._push_numbered(event, number)  # the ring still holds what chunks and batches show
        if kept is not None:
            self.keepers.accept(kept)
        self._lanes.preempt_for(lane)
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
        return self.push(self._row_of(event, number, self._clock.now_ns())) == 1

    def _row_of(self, event: Event, number: int, now_ns: int) -> EventBatch:
        row = np.zeros(1, DTYPES[event.event_type])
        pack_event(event, row.view(np.uint8).data, self._symbols, self._sources, now_ns=now_ns)
        return EventBatch(row, self._symbols, self._sources, session_number=number)

    def push(self, batch: EventBatch) -> int:
        """Take as many of a batch's first rows as have room, through the stage; returns how many. About 20 ns a row.

        Raises WindowFull where a strict source waits for numbers before a row; its ``taken`` were taken. What gives way
        to rows that find no room counts as taken.
        """
        now_ns = self._clock.now_ns()
        admission = self._admission
        admission.now_ns = now_ns
        admission.flush()
        if self._lanes.control.sheds:  # maybe for what has been worked off since
            self._lanes.control.look(now_ns, admission)
        done = 0
        while done < len(batch):
            piece = batch if len(batch) <= PIECE_ROWS and not done else batch[done : done + PIECE_ROWS]
            if piece.symbols is not self._symbols or piece.sources is not self._sources:
                piece = piece.using(self._symbols, self._sources)
            levels: LaneIds = self._lanes.priorities.lanes(piece.records, self._symbols)
            room = admission.room_for(piece.records, levels)
            if room and self.keepers.listed:
                room = min(room, self.keepers.room_for(piece))
            if not room:
                break
            if room < len(piece):
                piece = piece[:room]
                levels = levels if isinstance(levels, Priority) else levels[:room]
            ordered = self._stage.process(piece, now_ns=now_ns)
            self.published += ordered.taken
            done += ordered.taken
            if ordered.batch is piece and not len(ordered.notices):
                if self.keepers.listed:
                    self.keepers.accept(piece)
                admission.queue(piece, levels)
                continue
            self._release(ordered)
            if ordered.taken < len(piece):
                source = piece.sources[int(piece.records["source"][ordered.taken])]
                raise window_full(self._stage.gaps, self._stage.ordering, source, done)
        return done

    def tick(self) -> None:
        """Let time pass for the stage and the flow control, and queue what the stage lets go."""
        self._admission.now_ns = now_ns = self._clock.now_ns()
        if self._admission.left_rows:
            self._admission.flush()
        self._lanes.control.look(now_ns, self._admission)
        due_ns = self._stage.due_ns
        if self._stage.wants_work or (due_ns is not None and due_ns <= now_ns):
            self._release(self._stage.advance(now_ns))

    def finish(self) -> None:
        """What is missing is lost; what it held back is queued."""
        self._release(self._stage.finish())

    def give_up(self) -> int:
        """End the stage for good; returns how many rows it held, or let go without room: nobody will handle them."""
        held = len(self._stage.finish().batch)
        return held + self._admission.clear()

    def is_due(self) -> bool:
        """Whether ``tick`` would let something go now."""
        if self._admission.left_rows:
            return True
        due_ns = self._stage.due_ns
        return self._stage.wants_work or (due_ns is not None and due_ns <= self._clock.now_ns())

    @property
    def due_ns(self) -> int | None:
        """The next moment at which time alone lets something go; None without one."""
        return self._stage.due_ns

    @property
    def look_ns(self) -> int | None:
        """When ``tick`` has to look at the flow control although nothing is published; None: no need."""
        return self._lanes.control.due_ns

    @property
    def left_over(self) -> int:
        """Rows that the stage let go and that found no room yet."""
        return self._admission.left_rows

    def _release(self, ordered: Ordered) -> None:
        """Queue what the stage let go. Its notices go where the rows around them go."""
        batch = ordered.batch
        if self.keepers.listed and len(batch):
            self.keepers.accept(batch)
        levels = self._lanes.priorities.lanes(batch.records, self._symbols) if len(batch) else Priority.NORMAL
        begin = 0
        for notice in ordered.notices:
            position, *gap = notice.tolist()
            if position > begin:
                self._admission.queue(batch[begin:position])
                begin = position
            level = levels if isinstance(levels, Priority) else Priority(int(levels[max(begin - 1, 0)]))
            self._admission.tell(level, gap_of(gap, self._sources))
        if begin < len(batch):
            self._admission.queue(batch[begin:] if begin else batch)

    def push_ordered(self, batch: EventBatch) -> int:
        """Queue as many of a batch's first rows as have room in the recorded lane; returns how many. About 10 ns a row.

        The rows are in order, and were checked: by ``checked``, or when they were decoded.
        """
        done = 0
        backlog = self._lanes.recorded.backlog
        if self._lanes.recorder.journey is not None:
            backlog.now_ns = self._lanes.recorder.now_ns()
        while done < len(batch):
            piece = batch if len(batch) <= PIECE_ROWS and not done else batch[done : done + PIECE_ROWS]
            piece = piece.using(self._symbols, self._sources)
            records = piece.records if piece.records.flags.c_contiguous else copy_rows(piece.records)
            taken = backlog.push(records, piece.session_number)
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
