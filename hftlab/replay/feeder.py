"""``Feeder``: a replay's rows on their way to the bus: filtered, held until they are due, and never past a bound."""

from __future__ import annotations

import enum
import math
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hftlab.events.batch import EventBatch
from hftlab.events.ports import BusRun
from hftlab.events.records import Rows
from hftlab.replay.pace import Pace
from hftlab.replay.selection import Selection, rows_where

PIECE_ROWS = 4_096
"""How many rows are queued at once: half a millisecond flat out, so a pause or another speed takes hold as fast."""


class Fed(enum.Enum):
    """What became of an attempt to queue rows."""

    QUEUED = "rows were queued"
    EARLY = "the next row is not due yet"
    BOUND = "the bound was reached"
    END = "there are no more rows"


class Feeding(NamedTuple):
    """An attempt's outcome; ``due_ns`` is the moment of the wall at which the first of these rows is due."""

    outcome: Fed
    due_ns: float = math.inf


@dataclass(frozen=True)
class Until:
    """Where to stop: before the first row that arrived at ``arrival_ns`` or later, before the event with
    ``log_sequence`` or a later one, or after the first row for which ``predicate`` holds."""

    arrival_ns: int | None = None
    log_sequence: int | None = None
    predicate: Callable[[Rows], npt.NDArray[np.bool_]] | None = None

    def allowed(self, batch: EventBatch) -> int | None:
        """How many of a batch's rows come before the stop; None if it lies beyond them all."""
        rows = batch.records
        if self.arrival_ns is not None:
            beyond = rows["received"] >= self.arrival_ns
        elif self.log_sequence is not None:
            beyond = rows["log_sequence"] >= self.log_sequence
        else:
            assert self.predicate is not None
            beyond = rows_where(self.predicate, batch, "run_until's predicate")
        if not beyond.any():
            return None
        return int(np.argmax(beyond)) + (self.predicate is not None)


Opening = Callable[[int | None], AsyncIterator[EventBatch]]
"""Begins to read at a log sequence (None: where the range begins)."""


class Feeder:
    """Reads what ``opening`` opens, applies ``selection``, and queues what is due by ``pace`` on a run.

    A reading that was cancelled, or that failed, is dead: the next one begins behind what was read.
    """

    def __init__(self, opening: Opening, selection: Selection, pace: Pace) -> None:
        self.filtered = 0
        self.next_log_sequence: int | None = None
        self._opening = opening
        self._source: AsyncIterator[EventBatch] | None = None
        self._read_up_to: int | None = None
        self._through = False
        self._selection = selection
        self._pace = pace
        self._pending: EventBatch | None = None
        self._paced: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        # What was queued last. Rows are queued only when none is left from before, so what is withdrawn is its end.
        self._queued = EventBatch.empty()
        self._queued_paced: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._reached_bound = False

    async def feed(self, run: BusRun, wall_ns: int, *, most: int, waits: bool, until: Until | None) -> Feeding:
        """Queue the next rows: up to ``most``, not past ``until``, and (``waits``) only those that are due."""
        if self._reached_bound:
            self._reached_bound = False
            return Feeding(Fed.BOUND)
        if not await self._fill():
            return Feeding(Fed.END)
        assert self._pending is not None
        piece = self._pending[: min(most, PIECE_ROWS)]
        stop = None if until is None else until.allowed(piece)
        count = len(piece) if stop is None else stop
        if not count:
            return Feeding(Fed.BOUND)
        due_ns = float(wall_ns)
        if waits:
            due_ns = self._pace.due_ns(int(self._paced[0]), wall_ns)
            ready = self._pace.ready(self._paced[:count], wall_ns)
            if not ready:
                return Feeding(Fed.EARLY, due_ns)
            count = min(count, ready)
        taken = run.offer(piece[:count])
        self._reached_bound = taken == stop
        self._consume(taken)
        return Feeding(Fed.QUEUED, due_ns)

    def take_back(self, run: BusRun) -> None:
        """Withdraw the queued rows that no handler was given yet: they will be queued again when they are due."""
        self._reached_bound = False
        count = run.withdraw()
        if not count:
            return
        back, paced = self._queued[-count:], self._queued_paced[-count:]
        self._pending = back if self._pending is None else EventBatch.concat([back, self._pending])
        self._paced = np.concatenate([paced, self._paced])
        self.next_log_sequence = int(back.records["log_sequence"][0])

    def hurried(self) -> None:
        """Say that rows were queued without waiting: the pace goes on from the latest of them."""
        if len(self._queued_paced):
            self._pace.skip_to(int(self._queued_paced[-1]))

    async def first_log_sequence(self) -> int | None:
        """The log sequence of the next row; None at the end."""
        if not await self._fill():
            return None
        assert self._pending is not None
        return int(self._pending.records["log_sequence"][0])

    async def close(self) -> None:
        """Stop reading."""
        self._pending = None
        await self._stop_reading()

    async def _stop_reading(self) -> None:
        source, self._source = self._source, None
        aclose = getattr(source, "aclose", None)
        if aclose is not None:
            await aclose()

    async def _fill(self) -> bool:
        """Make sure that rows are pending; False at the end."""
        while self._pending is None and not self._through:
            try:
                await self._read()
            except BaseException:
                await self._stop_reading()
                raise
        return self._pending is not None

    async def _read(self) -> None:
        if self._source is None:
            self._source = self._opening(self._read_up_to)
        batch = await anext(self._source, None)
        if batch is None:
            self._through = True
            await self._stop_reading()
        elif len(batch):
            chosen = self._selection.apply(batch)
            self._read_up_to = int(batch.records["log_sequence"][-1]) + 1
            self.filtered += len(batch) - len(chosen)
            if len(chosen):
                self._pending = chosen
                self._paced = self._pace.paced(chosen.records["received"])

    def _consume(self, count: int) -> None:
        assert self._pending is not None
        if count:
            self.next_log_sequence = int(self._pending.records["log_sequence"][count - 1]) + 1
        self._queued, self._queued_paced = self._pending[:count], self._paced[:count]
        rest = self._pending[count:]
        self._pending = rest if len(rest) else None
        self._paced = self._paced[count:]
