"""Write-ahead: an event is in the log before any handler sees it.

One frame after the other: its rows have consecutive log sequences then, whoever else writes into the session, so every
event has its id when it is published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import numpy as np

from hftlab.errors import BusBusy, HandlerFailed
from hftlab.events import Event, EventBatch, Flags
from hftlab.events.ports import KeptBus
from hftlab.events.records import split_event_id
from hftlab.events.rowbytes import copy_rows
from hftlab.streams.cutting import inspect, stamp
from hftlab.streams.sinks.behind import Claim, SinkWriter


class WriteAhead:
    """Appends, then publishes to ``bus``; callers go one after the other.

    ``accepted`` counts rows that went to the server, ``kept`` those that it has, ``unpublished`` those of them that the
    bus did not get. Rows of an append that raised and wrote nothing are their caller's again, and count nowhere.
    """

    def __init__(self, claim: Claim, bus: KeptBus, *, frame_rows: int, now_ns: Callable[[], int]) -> None:
        self.accepted = self.kept = self.unpublished = 0
        self._claim, self._bus, self._frame_rows, self._now_ns = claim, bus, frame_rows, now_ns
        self._lock = asyncio.Lock()
        self._writer: SinkWriter | None = None
        self._known_rows = 0  # how many of the writer's rows are accounted for
        self._unsure = 0  # rows of an append that raised, until the server says what it has of them

    @property
    def started(self) -> bool:
        """Whether the writer was claimed."""
        return self._writer is not None

    @property
    def waiting(self) -> int:
        """Rows that are being appended, or of which it is not known yet whether they are kept."""
        return self.accepted - self.kept

    async def publish(self, events: Event | Iterable[Event] | EventBatch) -> list[int]:
        """Keep events, then publish them; returns their ids."""
        batch = _as_batch(events)
        self._bus.refuse_handlers("sink.publish")
        ids: list[int] = []
        failed: HandlerFailed | None = None
        async with self._lock:
            for first in range(0, len(batch), self._frame_rows):
                kept = await self._kept(batch[first : first + self._frame_rows])
                ids += kept.event_ids.tolist()
                try:
                    await self._published(kept)
                except HandlerFailed as error:
                    # It is told of an earlier event: these are on the bus, and the rest of the batch is wanted there.
                    failed = failed or error
        if failed is not None:
            raise failed
        return ids

    async def settle(self) -> None:
        """Wait for who publishes, and learn what became of an append that raised. Raises StreamErrors."""
        async with self._lock:
            await self._settled()

    async def _kept(self, part: EventBatch) -> EventBatch:
        """One frame in the log: its rows with their log sequences. A copy."""
        run = self._bus.run
        if run is not None:
            raise BusBusy(f"{run!r} is on this bus; publish when it has ended: nothing was appended")
        batch = EventBatch(copy_rows(part.records), part.symbols, part.sources)
        rows = batch.records
        # What the log gets is what the bus gets: stamped here, no row is stamped again there.
        stamp(batch, self._now_ns)
        rows["flags"] &= ~np.uint16(Flags.EMITTED)
        inspect(batch)  # what can't be stored is refused before anything is claimed or counted
        writer = await self._settled()
        self.accepted += len(batch)
        self._unsure = len(batch)
        result = await writer.append(batch)
        self._unsure = 0
        self.kept += len(batch)
        self._known_rows += len(batch)
        number, first = split_event_id(result.first_event_id)
        rows["log_sequence"] = np.arange(first, first + len(batch))
        return EventBatch(rows, batch.symbols, batch.sources, session_number=number)

    async def _published(self, kept: EventBatch) -> None:
        try:
            await self._bus.publish_batch(kept)
        except HandlerFailed:
            raise
        except BaseException:
            self.unpublished += len(kept)  # at most: those that had room before it was cancelled are on the bus
            raise

    async def _settled(self) -> SinkWriter:
        """The writer, when all that was appended before is accounted for."""
        if self._writer is None:
            self._writer = await self._claim()
            self._known_rows = await self._writer.settle()
        if self._unsure:
            rows = await self._writer.settle()
            found = rows - self._known_rows
            self.kept += found
            self.unpublished += found
            self.accepted -= self._unsure - found
            self._known_rows, self._unsure = rows, 0
        return self._writer


def _as_batch(events: Event | Iterable[Event] | EventBatch) -> EventBatch:
    if isinstance(events, EventBatch):
        return events
    return EventBatch.from_events((events,) if isinstance(events, Event) else events)
