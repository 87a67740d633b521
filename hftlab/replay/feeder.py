"""``Feeder``: a replay's rows on their way to the bus: filtered, held until they are due, and never past a bound."""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from hftlab.events.batch import EventBatch
from hftlab.events.ports import BusRun, DrivenClock
from hftlab.events.records import Rows
from hftlab.replay.incoming import Incoming, Mark
from hftlab.replay.pace import Pace
from hftlab.replay.selection import rows_where
from hftlab.sequence import Gap, GapReason, GapState

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


class Feeder:
    """Queues what comes in, and is due by ``pace``, on a run; moves ``clock`` on where time passed without a row."""

    def __init__(self, incoming: Incoming, pace: Pace, clock: DrivenClock) -> None:
        self.next_log_sequence: int | None = None
        self._incoming, self._pace, self._clock = incoming, pace, clock
        self._pending: EventBatch | None = None
        self._paced: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._told_open: list[Gap] = []
        self._marks: deque[Mark] = deque()  # offsets count from the first pending row
        # What was queued last. Rows are queued only when none is left from before, so what is withdrawn is its end.
        self._queued = EventBatch.empty()
        self._queued_paced: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._reached_before: int | None = None
        self._reached_bound = False

    @property
    def filtered(self) -> int:
        """How many rows the filters kept back."""
        return self._incoming.filtered

    async def feed(self, run: BusRun, wall_ns: int, *, most: int, waits: bool, until: Until | None) -> Feeding:
        """Queue the next rows: up to ``most``, not past ``until``, and (``waits``) only those that are due."""
        if self._reached_bound:
            self._reached_bound = False
            return Feeding(Fed.BOUND)
        if not await self._fill(run):
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
        # Nothing is queued now, so what is marked before the first row has its turn.
        if not self._pass_marks(run):
            return Feeding(Fed.QUEUED, due_ns)
        if self._marks:
            count = min(count, self._marks[0].offset)
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
        left = len(self._queued) - count
        back, paced = self._queued[left:], self._queued_paced[left:]
        self._pending = back if self._pending is None else EventBatch.concat([back, self._pending])
        self._paced = np.concatenate([paced, self._paced])
        self._marks = deque(mark._replace(offset=mark.offset + count) for mark in self._marks)
        self.next_log_sequence = self._reached_before
        self._note_reached(self._queued[:left])
        self._queued, self._queued_paced = self._queued[:left], self._queued_paced[:left]

    def hurried(self) -> None:
        """Say that rows were queued without waiting: the pace goes on from the latest of them."""
        if len(self._queued_paced):
            self._pace.skip_to(int(self._queued_paced[-1]))

    async def first_log_sequence(self, run: BusRun) -> int | None:
        """The log sequence of the next row; None at the end."""
        if not await self._fill(run):
            return None
        assert self._pending is not None
        return int(self._pending.records["log_sequence"][0])

    async def close(self) -> None:
        """Stop reading."""
        self._pending = None
        self._marks.clear()
        await self._incoming.close()

    async def _fill(self, run: BusRun) -> bool:
        """Make sure that rows are pending; False at the end."""
        while self._pending is None:
            came = await self._incoming.next()
            if came is None:
                while not self._pass_marks(run):
                    pass
                return False
            batch, marks = came
            self._marks.extend(marks)
            if len(batch):
                self._pending = batch
                arrivals = batch.records["received"]
                for mark in marks:  # what was released later than it arrived is due then
                    if mark.offset < len(arrivals) and mark.moment_ns > arrivals[mark.offset]:
                        arrivals = arrivals.copy()
                        arrivals[mark.offset] = mark.moment_ns
                self._paced = self._pace.paced(arrivals)
        return True

    def _pass_marks(self, run: BusRun) -> bool:
        """Have the clock and the handlers told what is marked before the first row.

        False where handlers have to be called first, because what is marked next happened later than what they hear of.
        """
        told_ns: int | None = None
        while self._marks and not self._marks[0].offset:
            if told_ns is not None and self._marks[0].moment_ns > told_ns:
                return False
            mark = self._marks.popleft()
            self._clock.advance_to(mark.moment_ns)
            for gap in mark.gaps:
                self._tell(run, gap)
                told_ns = mark.moment_ns
        return True

    def _tell(self, run: BusRun, gap: Gap) -> None:
        run.tell(gap)
        if gap.state is GapState.OPEN:
            self._told_open.append(gap)
            return
        left: list[Gap] = []
        for told in self._told_open:
            if (told.source, told.epoch) != (gap.source, gap.epoch) or told.last < gap.first or told.first > gap.last:
                left.append(told)
                continue
            if told.first < gap.first:
                left.append(msgspec.structs.replace(told, last=gap.first - 1))
            if told.last > gap.last:
                left.append(msgspec.structs.replace(told, first=gap.last + 1))
        self._told_open = left

    def skip(self, run: BusRun) -> None:
        """Tell handlers that what is open, as far as they know, is skipped.

        The stage knows more: it has read ahead. How far is a matter of how rows were stored, which handlers don't see.
        """
        told, self._told_open = self._told_open, []
        for gap in told:
            skipped = {"state": GapState.LOST, "reason": GapReason.SKIPPED, "closed_ns": self._clock.now_ns()}
            run.tell(msgspec.structs.replace(gap, **skipped))

    def _consume(self, count: int) -> None:
        assert self._pending is not None
        self._reached_before = self.next_log_sequence
        self._queued, self._queued_paced = self._pending[:count], self._paced[:count]
        self._note_reached(self._queued)
        rest = self._pending[count:]
        self._pending = rest if len(rest) else None
        self._paced = self._paced[count:]
        self._marks = deque(mark._replace(offset=mark.offset - count) for mark in self._marks)

    def _note_reached(self, batch: EventBatch) -> None:
        """Rows may be released out of the order of the log: what was reached is the highest number so far."""
        if len(batch):
            reached = int(batch.records["log_sequence"].max()) + 1
            self.next_log_sequence = max(self.next_log_sequence or 0, reached)
