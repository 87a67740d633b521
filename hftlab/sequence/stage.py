"""``OrderStage``: what every event goes through before it is delivered: each once, in order, gaps told.

::

    rows as they arrived ──► Deduplicator ──► SlidingWindow ──► Sequencer ──► SlidingWindow ──► rows to deliver
                             by event id      by sequence       by number     by timestamp
                                              (reorder_s)                     (merge_s)

The two windows are there only when asked for. A stage belongs to one run, or to a live bus, and stands where unfiltered
rows come in: behind a filter, what was filtered away would be a gap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from hftlab.events.batch import EventBatch
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.sequence.dedup import Deduplicated, Deduplicator, DedupStatistics
from hftlab.sequence.gaps import GapTable
from hftlab.sequence.memory import StageMemory
from hftlab.sequence.ordering import Ordering
from hftlab.sequence.sequencer import NO_NOTICES, PIECE_ROWS, Sequenced, Sequencer, together
from hftlab.sequence.statistics import OrderStatistics

if TYPE_CHECKING:
    from hftlab.sequence.sliding import SlidingStatistics, SlidingWindow


class Ordered(NamedTuple):
    """What came out: ``batch`` to deliver, in order (the input itself where nothing had to change), and ``notices``.

    ``taken``: how many input rows were taken; fewer only where a strict window is full. ``notices`` is as in
    ``Sequenced``. ``sequenced`` and ``moments`` know when rows were released: ask ``released_ns``.
    """

    batch: EventBatch
    taken: int
    notices: npt.NDArray[np.void]
    sequenced: Sequenced | None = None
    moments: npt.NDArray[np.int64] | None = None

    @property
    def changed(self) -> bool:
        """Whether rows may have been released out of the order, or later than the time, of their arrival."""
        return self.moments is not None or (self.sequenced is not None and self.sequenced.changed)

    @property
    def released_ns(self) -> npt.NDArray[np.int64]:
        """When each row of ``batch`` was released: int64, never falling. Of an unchanged batch: its arrivals."""
        if self.moments is not None:
            return self.moments
        if self.sequenced is not None:
            return self.sequenced.released_ns
        risen: npt.NDArray[np.int64] = np.maximum.accumulate(self.batch.records["received"])
        return risen


@dataclass(frozen=True)
class StageStatistics:
    """The parts of a stage: what each did. ``reorder`` and ``merge`` are None where they were not asked for."""

    order: OrderStatistics
    dedup: DedupStatistics
    reorder: SlidingStatistics | None
    merge: SlidingStatistics | None

    @property
    def held_rows(self) -> int:
        """Rows that were taken and are still to be delivered."""
        sliding = [window.held for window in (self.reorder, self.merge) if window is not None]
        return self.order.held_rows + sum(sliding)

    @property
    def set_aside_rows(self) -> int:
        """Rows that will never be delivered, and are no duplicates: late, conflicting, orphaned."""
        merged = self.merge.late if self.merge is not None else 0
        return self.order.late_rows + self.order.conflicting_rows + self.order.orphaned_rows + merged


class OrderStage:
    """One stage, for rows under ``symbols`` and ``sources``. Synchronous, without I/O; time is passed in."""

    def __init__(self, ordering: Ordering, symbols: SymbolTable, sources: SourceTable) -> None:
        self.ordering = ordering
        self._symbols, self._sources = symbols, sources
        self._dedup = Deduplicator.of(ordering)
        self._sequencer = Sequencer(ordering, symbols, sources)
        self._reorder: SlidingWindow | None = None
        self._merge: SlidingWindow | None = None
        if ordering.reorder_s or ordering.merge_s:
            from hftlab.sequence.sliding import SlidingWindow  # compiled for those who ask for it
        if ordering.reorder_s:
            hold_ns = round(ordering.reorder_s * 1e9)
            self._reorder = SlidingWindow(hold_ns, key="sequence", symbols=symbols, sources=sources)
        if ordering.merge_s:
            hold_ns = round(ordering.merge_s * 1e9)
            self._merge = SlidingWindow(
                hold_ns, key="timestamp", symbols=symbols, sources=sources, set_aside=self.gaps.set_aside
            )

    @property
    def gaps(self) -> GapTable:
        """The gaps that were found, and the rows that were set aside."""
        return self._sequencer.gaps

    @property
    def clock_ns(self) -> int:
        """The time that the sequencer has reached, in ns UTC."""
        return self._sequencer.clock_ns

    @property
    def due_ns(self) -> int | None:
        """The next moment at which time alone changes something; None without one."""
        dues = [part.due_ns for part in (self._reorder, self._sequencer, self._merge) if part is not None]
        known = [due for due in dues if due is not None]
        return min(known) if known else None

    @property
    def wants_work(self) -> bool:
        """Whether something was decided from outside that ``advance`` would carry out."""
        return self._sequencer.wants_work

    def process(self, batch: EventBatch, *, now_ns: int | None = None) -> Ordered:
        """Take rows in the order of arrival. Time is ``now_ns``, or without it each row's ``received``.

        Raises ValidationError for a source whose rule nobody registered.
        """
        if batch.symbols is not self._symbols or batch.sources is not self._sources:
            batch = batch.using(self._symbols, self._sources)
        self._sequencer.check_rules(batch)
        room = self._sequencer.strict_room(batch)
        if room is None or room >= len(batch):
            return self._process(batch, now_ns)
        parts: list[Ordered] = []
        taken = 0
        while taken < len(batch):
            # Pieces that are sure to find room; then row by row, so that what is not taken leaves no trace: of rows
            # that went on together, nobody knows any more which of the input's were dropped in between.
            piece = batch[taken : taken + (room or 1)]
            fresh = self._dedup.process(piece, now_ns=now_ns)
            part = self._go_on(fresh, now_ns)
            parts.append(part)
            taken += part.taken
            if part.taken < fresh.taken:
                self._dedup.take_back(piece[part.taken : fresh.taken])
            if part.taken < len(piece):
                break
            room = self._sequencer.strict_room(batch) or 0
        return joined(batch, parts, taken)

    def advance(self, now_ns: int) -> Ordered:
        """Let time pass, and carry out what was decided."""
        parts = []
        if self._reorder is not None:
            slid = self._reorder.advance(now_ns)
            parts.append(self._sequence(slid.batch, None, slid.moments))
        sequenced = self._sequencer.advance(now_ns)
        if self._merge is None:
            parts.append(Ordered(sequenced.batch, 0, sequenced.notices, sequenced))
        else:
            parts.append(self._merged(sequenced, 0, now_ns))
            merged = self._merge.advance(now_ns)
            parts.append(Ordered(merged.batch, 0, NO_NOTICES, None, merged.moments))
        return parts[0] if len(parts) == 1 else joined(sequenced.batch[:0], parts, 0)

    def finish(self) -> Ordered:
        """End the session: what is open is lost, what is held comes out."""
        return self._end(skip=False)

    def skip(self) -> Ordered:
        """Begin anew elsewhere in the session: what is open is lost, what is held comes out, any number may be next."""
        return self._end(skip=True)

    def _end(self, skip: bool) -> Ordered:
        parts = []
        if self._reorder is not None:
            slid = self._reorder.finish()
            parts.append(self._sequence(slid.batch, None, slid.moments))
        sequenced = self._sequencer.skip() if skip else self._sequencer.finish()
        if skip:
            # What was read ahead comes again, and is new then.
            self._dedup.clear()
        if self._merge is None:
            parts.append(Ordered(sequenced.batch, 0, sequenced.notices, sequenced))
        else:
            parts.append(self._merged(sequenced, 0, None))
            merged = self._merge.finish()
            parts.append(Ordered(merged.batch, 0, NO_NOTICES, None, merged.moments))
        return parts[0] if len(parts) == 1 else joined(sequenced.batch[:0], parts, 0)

    def _process(self, batch: EventBatch, now_ns: int | None) -> Ordered:
        return self._go_on(self._dedup.process(batch, now_ns=now_ns), now_ns)

    def _go_on(self, fresh: Deduplicated, now_ns: int | None) -> Ordered:
        if self._reorder is None:
            return self._sequence(fresh.batch, now_ns, None, fresh.taken)
        slid = self._reorder.process(fresh.batch, now_ns=now_ns)
        return self._sequence(slid.batch, None, slid.moments, fresh.taken)

    def _sequence(
        self, batch: EventBatch, now_ns: int | None, moments: npt.NDArray[np.int64] | None, taken: int = 0
    ) -> Ordered:
        if self._merge is None and moments is None and len(batch) <= PIECE_ROWS:
            taken_in = self._sequencer.take(batch, now_ns)
            if taken_in is None:
                return Ordered(batch, taken, NO_NOTICES)
            sequenced = taken_in
        else:
            sequenced = self._sequencer.process(batch, now_ns=now_ns, moments=moments)
        # What the sequencer did not take is at the end of what it was given, and so of what came in.
        taken -= len(batch) - sequenced.taken
        if self._merge is None:
            return Ordered(sequenced.batch, taken, sequenced.notices, sequenced)
        return self._merged(sequenced, taken, now_ns)

    def _merged(self, sequenced: Sequenced, taken: int, now_ns: int | None) -> Ordered:
        assert self._merge is not None
        merged = self._merge.process(sequenced.batch, moments=sequenced.released_ns)
        notices = sequenced.notices.copy()
        notices["position"] = 0  # told when they are known: before whatever the window lets go
        return Ordered(merged.batch, taken, notices, None, merged.moments)

    def memory(self) -> StageMemory:
        """Where each source stands, for ``recall``. What is held is not in it: it has to be put in again."""
        return self._sequencer.memory()

    def recall(self, memory: StageMemory) -> None:
        """Go on where another stage stood; for one that has taken nothing yet."""
        self._sequencer.recall(memory)

    @property
    def held_log_sequences(self) -> npt.NDArray[np.int64]:
        """Of the rows that were taken and are still to be delivered: int64, rising."""
        parts = [part.held_log_sequences for part in (self._reorder, self._sequencer, self._merge) if part is not None]
        held: npt.NDArray[np.int64] = np.sort(np.concatenate(parts)) if len(parts) > 1 else np.sort(parts[0])
        return held

    def statistics(self) -> StageStatistics:
        """What each part did so far; about 50 µs."""
        return StageStatistics(
            order=self._sequencer.statistics(),
            dedup=self._dedup.statistics(),
            reorder=None if self._reorder is None else self._reorder.statistics(),
            merge=None if self._merge is None else self._merge.statistics(),
        )

    def __repr__(self) -> str:
        return f"OrderStage({self._sequencer!r})"


def joined(batch: EventBatch, parts: list[Ordered], taken: int) -> Ordered:
    """One result out of several, in order. ``batch`` is what came in, for when nothing came out."""
    if not parts:
        return Ordered(batch[:0], taken, NO_NOTICES, None, np.zeros(0, np.int64))
    before = 0
    notices = []
    for part in parts:
        shifted = part.notices.copy()
        shifted["position"] += before
        notices.append(shifted)
        before += len(part.batch)
    filled = [part.batch for part in parts if len(part.batch)]
    merged = together(filled) if len(filled) > 1 else filled[0] if filled else batch[:0]
    # An unchanged part has its own arrivals, which may lie before what was released already.
    moments: npt.NDArray[np.int64] = np.maximum.accumulate(np.concatenate([part.released_ns for part in parts]))
    return Ordered(merged, taken, np.concatenate(notices), None, moments)
