"""What a replay reads, on its way to the feeder: put into order, filtered, with marks for the clock and handlers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import numpy as np

from hftlab.events.batch import EventBatch
from hftlab.metrics.journeys import Journey, Stage
from hftlab.replay.selection import Selection
from hftlab.sequence import Gap, GapState
from hftlab.sequence.gaps import gap_of, window_full
from hftlab.sequence.stage import Ordered, OrderStage

Opening = Callable[[int | None], AsyncIterator[EventBatch]]
"""Begins to read at a log sequence (None: where the range begins)."""


class Mark(NamedTuple):
    """Before the row at ``offset``, time has come to ``moment_ns``, and handlers are told of ``gaps``."""

    offset: int
    moment_ns: int
    gaps: tuple[Gap, ...]


class Incoming:
    """Reads what ``opening`` opens, puts it through ``stage``, and leaves what ``selection`` wants.

    Order comes before filters: behind them, every row that was filtered away would be missing. A reading that was
    cancelled, or that failed, is dead: the next one begins behind what was read.
    """

    def __init__(
        self, opening: Opening, selection: Selection, stage: OrderStage, journey: Journey | None = None
    ) -> None:
        self.filtered = 0
        self._journey = journey
        self._opening, self._selection, self._stage = opening, selection, stage
        self._source: AsyncIterator[EventBatch] | None = None
        self._read_up_to: int | None = None
        self._pressed: EventBatch | None = None
        self._unfiltered: Ordered | None = None  # what a filter failed on: it is asked again
        self._reached_ns = 0
        self._started_ns = 0  # what the stage's clock said before it took the latest batch
        self._through = False

    async def next(self) -> tuple[EventBatch, list[Mark]] | None:
        """The next rows, possibly none, and the marks among them; None at the end.

        Raises WindowFull where a strict window is full: nothing is lost, and the next call tries again.
        """
        if self._unfiltered is not None:
            return self._chosen(self._unfiltered)
        if self._pressed is not None:
            return self._ordered(self._pressed)
        if self._through:
            return None
        try:
            if self._source is None:
                self._source = self._opening(self._read_up_to)
            batch = await anext(self._source, None)
        except BaseException:
            await self.close()
            raise
        if batch is None:
            self._through = True
            await self.close()
            self._started_ns = self._stage.clock_ns
            return self._chosen(self._stage.finish())
        if not len(batch):
            return batch, []
        self._read_up_to = int(batch.records["log_sequence"][-1]) + 1
        return self._ordered(batch)

    def _ordered(self, batch: EventBatch) -> tuple[EventBatch, list[Mark]]:
        self._pressed = batch  # what is refused is tried again
        self._started_ns = self._stage.clock_ns
        read_ns = time.perf_counter_ns()
        ordered = self._stage.process(batch)
        if self._journey is not None:
            self._note(batch[: ordered.taken], time.perf_counter_ns() - read_ns)
        self._pressed = batch[ordered.taken :] if ordered.taken < len(batch) else None
        if self._pressed is not None and not ordered.taken and not len(ordered.batch):
            source = batch.sources[int(batch.records["source"][0])]
            raise window_full(self._stage.gaps, self._stage.ordering, source, 0)
        return self._chosen(ordered)

    def _note(self, taken: EventBatch, elapsed_ns: int) -> None:
        assert self._journey is not None
        for event_type, rows in taken.counts().items():
            self._journey.note(Stage.SEQUENCED, event_type, elapsed_ns, rows)

    def _chosen(self, ordered: Ordered) -> tuple[EventBatch, list[Mark]]:
        batch = ordered.batch
        self._unfiltered = ordered
        mask = self._selection.mask(batch) if len(batch) else None
        self._unfiltered = None
        marks = self._marks(ordered)
        if mask is None:
            return batch, marks
        kept = np.concatenate([[0], np.cumsum(mask)])
        self.filtered += len(batch) - int(kept[-1])
        return batch.where(mask), [mark._replace(offset=int(kept[mark.offset])) for mark in marks]

    def _marks(self, ordered: Ordered) -> list[Mark]:
        """Where rows were released later than any row up to them arrived, and where something happened to a gap."""
        arrivals = ordered.batch.records["received"]
        if not len(ordered.notices) and not ordered.changed:
            if not len(arrivals):
                return []
            # Time may have come further by rows that were not delivered; then that is when the first one is released.
            began_ns, started_ns = max(self._reached_ns, int(arrivals[0])), self._started_ns
            self._reached_ns = max(began_ns, started_ns, int(arrivals.max()))
            return [Mark(0, started_ns, ())] if started_ns > began_ns else []
        released = ordered.released_ns
        reached = np.maximum(np.maximum.accumulate(arrivals), self._reached_ns) if len(arrivals) else arrivals
        before = np.concatenate([[self._reached_ns], released[:-1]])[: len(released)]
        jumps = np.flatnonzero((released > reached) & (released > before))
        marks = [Mark(offset, int(released[offset]), ()) for offset in jumps.tolist()]
        for notice in ordered.notices:
            gap = gap_of(notice.tolist()[1:], self._stage.gaps.sources)
            moment_ns = gap.opened_ns if gap.state is GapState.OPEN else gap.closed_ns
            marks.append(Mark(int(notice["position"]), moment_ns, (gap,)))
        if len(released):
            self._reached_ns = max(int(reached[-1]), int(released[-1]))
        return sorted(marks, key=lambda mark: (mark.offset, mark.moment_ns))

    async def close(self) -> None:
        """Stop reading; ``next`` begins again."""
        source, self._source = self._source, None
        aclose = getattr(source, "aclose", None)
        if aclose is not None:
            await aclose()
