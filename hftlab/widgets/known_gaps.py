"""``KnownGaps``: the gaps of the run that is on, and those that an earlier run of the same replay had found.

A seek backwards begins a fresh run, whose table begins empty. Whoever has just selected a gap and jumped before it
would see it vanish: so it stays, marked as of an earlier run, until the new one finds a gap among the same numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hftlab.events import Source, SourceTable
from hftlab.sequence import GAP, Gap, GapState, GapTable, gap_of

Ints = npt.NDArray[np.int64]


class GapKey(NamedTuple):
    """What tells a gap from all others, in this run or another. ``source`` is an id of ``KnownGaps.sources``."""

    source: int
    epoch: int
    first: int
    last: int


class KnownGaps:
    """All gaps that an inspector knows: the current run's in the order of their opening, then earlier runs'.

    ``records`` (dtype ``GAP``, with ids of ``sources``) and ``earlier`` (bool) have a row each; ``generation`` changes
    whenever they do. ``keeps`` is whether gaps of earlier runs stay: only where the runs are of one and the same
    session.
    """

    def __init__(self, *, keeps: bool) -> None:
        self.sources = SourceTable()
        self.records: npt.NDArray[np.void] = np.zeros(0, GAP)
        self.earlier: npt.NDArray[np.bool_] = np.zeros(0, bool)
        self.generation = 0
        self._keeps = keeps
        self._table: GapTable | None = None
        self._version = -1

    def __len__(self) -> int:
        return len(self.records)

    def take(self, table: GapTable) -> bool:
        """Read the table if it changed since the last time. Returns whether its version did.

        About 0.1 µs a gap then, and 0.3 µs where its gaps changed."""
        version = table.version
        if table is self._table and version == self._version:
            return False
        self._table, self._version = table, version
        now = table.records
        ids = table.sources.translation(self.sources)
        if ids is not None:
            now["source"] = ids[now["source"]]
        count = len(self.records) - int(self.earlier.sum())
        before, old = self.records[:count], self.records[count:]
        # Most versions are messages that came, and change no gap.
        if len(now) == count and np.array_equal(now.view(np.uint8), before.view(np.uint8)):
            return True
        if self._keeps and not goes_on(before, now):
            old = np.concatenate([old, before])
        old = old[~found_again(old, now)] if len(old) else old
        self.records = np.concatenate([now, old]) if len(old) else now
        self.earlier = np.arange(len(self.records)) >= len(now)
        self.generation += 1
        return True

    def gap(self, index: int) -> Gap:
        """One of them as a Gap."""
        return gap_of(self.records[index].tolist(), self.sources)

    def key(self, index: int) -> GapKey:
        """What tells it from all others."""
        return GapKey(*self.records[index][["source", "epoch", "first", "last"]].tolist())

    def find(self, key: GapKey) -> int | None:
        """Where a gap is now; where it has split meanwhile, its piece with the first number. None: nowhere."""
        source, epoch, first, last = key
        records = self.records
        alike = (records["source"] == source) & (records["epoch"] == epoch)
        found = np.flatnonzero(alike & (records["first"] == first) & (records["last"] == last))
        if not len(found):
            found = np.flatnonzero(alike & (records["first"] <= last) & (records["last"] >= first))
        return int(found[0]) if len(found) else None

    def by_state(self) -> dict[GapState, int]:
        """How many there are in each state."""
        counts = np.bincount(self.records["state"], minlength=len(GapState) + 1)
        return {state: int(counts[state]) for state in GapState}

    def by_source(self) -> list[tuple[int, Source, int]]:
        """Id, source and number of gaps of every source that has some, by the source's name."""
        numbers, counts = np.unique(self.records["source"], return_counts=True)
        listed = [(n, self.sources[n], count) for n, count in zip(numbers.tolist(), counts.tolist(), strict=True)]
        return sorted(listed, key=lambda entry: entry[1])


def goes_on(before: npt.NDArray[np.void], now: npt.NDArray[np.void]) -> bool:
    """Whether ``now`` may be a later state of the run that ``before`` is of: no gap is gone, but for forgotten ones."""
    if not len(before) or not len(now):
        return not len(before)
    # A full table forgets its oldest: what is before the first serial number may be missing.
    alive = before[before["serial"] >= now["serial"].min()]
    by_serial = np.argsort(now["serial"], kind="stable")
    serials = now["serial"][by_serial]
    places = np.minimum(np.searchsorted(serials, alive["serial"]), len(serials) - 1)
    found = now[by_serial[places]]
    return all(np.array_equal(found[name], alive[name]) for name in ("serial", "source", "epoch", "opened_ns"))


def found_again(old: npt.NDArray[np.void], now: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """Which of ``old`` share a number with one of ``now``, of the same source and epoch; ``now`` never overlaps."""
    again = np.zeros(len(old), bool)
    for source, epoch in {(source, epoch) for source, epoch in old[["source", "epoch"]].tolist()}:
        alike = now[(now["source"] == source) & (now["epoch"] == epoch)]
        if not len(alike):
            continue
        mine = np.flatnonzero((old["source"] == source) & (old["epoch"] == epoch))
        firsts = np.sort(alike["first"])
        lasts = np.sort(alike["last"])  # apart from each other: sorted alike
        # The last of them that begins at or before my end reaches my beginning, or none does.
        at = np.searchsorted(firsts, old["last"][mine], side="right") - 1
        again[mine] = (at >= 0) & (lasts[np.maximum(at, 0)] >= old["first"][mine])
    return again
