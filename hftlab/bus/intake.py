"""What comes in: rows and events brought into the bus's own terms (its ids, its stamps) and into its queues."""

from __future__ import annotations

import numpy as np

from hftlab.bus.backlog import Backlog
from hftlab.bus.kernels import inspect_rows
from hftlab.clock import Clock
from hftlab.errors import ValidationError
from hftlab.events.batch import EventBatch
from hftlab.events.records import Flags, Rows, split_event_id
from hftlab.events.rowbytes import copy_rows
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.events.types import Event

PIECE_ROWS = 4_096
"""Batches come in by pieces of this many rows: what is copied for the bus's own ids stays small."""


class Intake:
    """Pushes into the backlog and counts what was ``published``. ``clock`` stamps what brings no times."""

    def __init__(self, backlog: Backlog, symbols: SymbolTable, sources: SourceTable, clock: Clock) -> None:
        self.published = 0
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

    def push(self, batch: EventBatch) -> int:
        """Queue as many of a batch's first rows as have room; returns how many. About 10 ns a row.

        The rows were checked: by ``checked``, or when they were decoded.
        """
        done = 0
        while done < len(batch):
            piece = batch if len(batch) <= PIECE_ROWS and not done else batch[done : done + PIECE_ROWS]
            piece = piece.using(self._symbols, self._sources)
            records = piece.records if piece.records.flags.c_contiguous else copy_rows(piece.records)
            taken = self._backlog.push(records, piece.session_number)
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
