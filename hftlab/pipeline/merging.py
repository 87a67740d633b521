"""``StreamMerge``: the streams of a session, read one by one, back into their total order, and the holes in it.

Each stream brings its rows in order, and says how far it is known: up to its mark, whatever is there was brought. What
lies before all marks is in order, and what is not there is gone. Before that, a row that carries the very next log
sequence can't have another one before it, so nobody has to wait for streams in which nothing happens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hftlab.events.batch import EventBatch
from hftlab.events.records import RECORD, EventType
from hftlab.events.rowbytes import concat_rows, take_rows

PIECE_ROWS = 32_768
"""How many rows are taken at once, at most."""


class Hole(NamedTuple):
    """Rows that are not in the log any more: the first and the last log sequence."""

    first: int
    last: int

    @property
    def rows(self) -> int:
        """How many."""
        return self.last - self.first + 1


class Taken(NamedTuple):
    """Rows that are due, in order, and the holes before, between and behind them."""

    batch: EventBatch | None
    holes: tuple[Hole, ...] = ()


class StreamMerge:
    """Merges the streams of ``types`` from the log sequence ``begin`` on. Without I/O.

    ``held``: log sequences before ``begin`` that are expected, too. Holes are known only where all types are read;
    where some are, only what retention took is, and no more than between which rows it was.
    """

    def __init__(self, types: Iterable[EventType], begin: int, held: Sequence[int] = ()) -> None:
        self._waiting: dict[EventType, deque[EventBatch]] = {one: deque() for one in sorted(types)}
        self._marks = dict.fromkeys(self._waiting, 0)
        self._rows = dict.fromkeys(self._waiting, 0)
        self._trimmed = 0
        self._noted: list[Hole] = []
        self._dense = len(self._waiting) == len(EventType)
        self._held = np.array(sorted(held), np.int64)
        self._begin = begin
        self.position = begin
        """Every row before it was taken, or is gone (but for the ``held`` ones)."""

    def put(self, event_type: EventType, batches: Sequence[EventBatch], reached: int, trimmed: int = 0) -> None:
        """Add what one read of a stream gave; ``reached``: all of it before that log sequence has been given;
        ``trimmed``: retention took what there was before that one."""
        known = max(self.position, self.mark, self._trimmed)
        if trimmed > known and not self._dense:
            # Which of these were of these types, nobody can tell any more: it is all that may have been.
            self._noted.append(Hole(known, trimmed - 1))
        self._trimmed = max(self._trimmed, trimmed)
        for one in batches:
            batch = self._left(one)
            if len(batch):
                self._waiting[event_type].append(batch)
                self._rows[event_type] += len(batch)
        self._marks[event_type] = max(self._marks[event_type], reached)

    def _left(self, batch: EventBatch) -> EventBatch:
        """The rows that retention left: of an entry that reaches over where it went, the first ones are gone."""
        logs = batch.records["log_sequence"]
        gone = (logs >= self._begin) & (logs < self._trimmed) if self._trimmed > self._begin else None
        return batch if gone is None or not gone.any() else batch.where(~gone)

    def waiting(self, event_type: EventType) -> int:
        """How many rows of a stream were put and not taken."""
        return self._rows[event_type]

    @property
    def empty(self) -> bool:
        """Whether no row waits."""
        return not any(self._rows.values())

    @property
    def behind(self) -> list[EventType]:
        """The streams that hold up the merge: read them again to know how far they are."""
        first = min((int(queue[0].records["log_sequence"][0]) for queue in self._waiting.values() if queue), default=-1)
        return [one for one, mark in self._marks.items() if not self._waiting[one] and mark <= first]

    @property
    def expected(self) -> npt.NDArray[np.int64]:
        """The ``held`` log sequences that were not taken so far, and are not known to be gone; rising."""
        return self._held

    @property
    def mark(self) -> int:
        """All streams are known up to here."""
        return min(self._marks.values())

    def take(self, most: int = PIECE_ROWS) -> Taken:
        """What is due, in order, about ``most`` rows: zero-copy where just one stream has any."""
        bound = self.mark
        filled = [queue for queue in self._waiting.values() if queue]
        if not filled:
            return Taken(None, self._pass(bound, np.zeros(0, np.int64)))
        heads = [queue[0].records["log_sequence"] for queue in filled]
        # Held rows are in order too, and whoever commits a position without them has lost them.
        if self._dense and not len(self._held) and int(max(head[-1] for head in heads)) >= bound:
            bound = max(bound, self._run_from(heads))
        bound = min(bound, int(min(head[0] for head in heads)) + max(most, 1))
        due: list[EventBatch] = []
        for event_type in self._waiting:
            due += self._split(event_type, bound)
        if not due:
            return Taken(None)
        batch = due[0] if len(due) == 1 else _merged(due)
        return Taken(batch, self._pass(bound, batch.records["log_sequence"]))

    def _run_from(self, heads: Sequence[npt.NDArray[np.int64]]) -> int:
        """The log sequence behind the rows that follow each other from the position on."""
        logs = heads[0] if len(heads) == 1 else np.sort(np.concatenate(heads))
        logs = logs[np.searchsorted(logs, self.position) :]
        expected = self.position + np.arange(len(logs))
        apart = np.flatnonzero(logs != expected)
        return self.position + (int(apart[0]) if len(apart) else len(logs))

    def _split(self, event_type: EventType, bound: int) -> list[EventBatch]:
        queue, due = self._waiting[event_type], []
        while queue:
            batch = queue[0]
            logs = batch.records["log_sequence"]
            if int(logs[-1]) < bound:
                due.append(queue.popleft())
                continue
            cut = int(np.searchsorted(logs, bound))
            if cut:
                due.append(batch[:cut])
                queue[0] = batch[cut:]
            break
        self._rows[event_type] -= sum(map(len, due))
        return due

    def _pass(self, bound: int, logs: npt.NDArray[np.int64]) -> tuple[Hole, ...]:
        """Move the position on past these rows, up to ``bound``; what of it was not there."""
        holes, self._noted = self._noted, []
        if len(self._held):
            early = logs[: np.searchsorted(logs, self._begin)]
            self._held = np.setdiff1d(self._held, early, assume_unique=True)
            if bound >= self._begin:
                holes += _runs(self._held) if self._dense else []
                self._held = self._held[:0]
        before, self.position = self.position, max(self.position, bound)
        if self._dense and self.position > before:
            logs = logs[np.searchsorted(logs, before) :]
            if len(logs) != self.position - before:
                edges = np.concatenate(([before - 1], logs, [self.position]))
                wide = np.flatnonzero(np.diff(edges) > 1)
                holes += [Hole(int(edges[at]) + 1, int(edges[at + 1]) - 1) for at in wide.tolist()]
        return tuple(holes)


def _merged(due: list[EventBatch]) -> EventBatch:
    first = due[0]
    dtypes = {batch.records.dtype for batch in due}
    rows = concat_rows([batch.records for batch in due], dtypes.pop() if len(dtypes) == 1 else RECORD)
    logs = rows["log_sequence"]
    if not bool((logs[1:] > logs[:-1]).all()):
        rows = take_rows(rows, np.argsort(logs, kind="stable"))
    return EventBatch(rows, first.symbols, first.sources, session_number=first.session_number)


def _runs(logs: npt.NDArray[np.int64]) -> list[Hole]:
    if not len(logs):
        return []
    parts = np.split(logs, np.flatnonzero(np.diff(logs) > 1) + 1)
    return [Hole(int(part[0]), int(part[-1])) for part in parts]
