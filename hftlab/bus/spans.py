"""Spans: what a queue's rows have in common by runs, such as their session or when they were queued."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt


class Spans:
    """A value for each row of a queue, kept as runs of equal ones: [rows, value], the front of the queue first."""

    def __init__(self) -> None:
        self._runs: deque[list[int]] = deque()

    @property
    def first(self) -> tuple[int, int]:
        """How many rows at the front share a value, and that value; there must be a row."""
        rows, value = self._runs[0]
        return rows, value

    def __bool__(self) -> bool:
        return bool(self._runs)

    def append(self, rows: int, value: int) -> None:
        """Rows at the back."""
        last = self._runs[-1] if self._runs else None
        if last is not None and last[1] == value:
            last[0] += rows
        else:
            self._runs.append([rows, value])

    def take(self, rows: int) -> list[tuple[int, int]]:
        """Rows off the front: their runs."""
        taken = []
        while rows:
            run = self._runs[0]
            count = min(run[0], rows)
            taken.append((count, run[1]))
            rows -= count
            run[0] -= count
            if not run[0]:
                self._runs.popleft()
        return taken

    def keep(self, rows: int) -> None:
        """Forget all but the first ``rows``."""
        kept = self.take(rows)
        self._runs = deque([count, value] for count, value in kept)

    def remove(self, places: npt.NDArray[np.intp]) -> None:
        """Forget the rows at these places, which rise. About 0.2 µs a run before the last of them."""
        begin, done = 0, 0
        kept = []
        while done < len(places):
            run = self._runs.popleft()
            end = begin + run[0]
            before, done = done, int(np.searchsorted(places, end))
            run[0] -= done - before
            begin = end
            if run[0]:
                kept.append(run)
        self._runs.extendleft(reversed(kept))

    def until(self, value: int) -> int:
        """How many rows at the front have at most this value, where values rise."""
        rows = 0
        for run in self._runs:
            if run[1] > value:
                break
            rows += run[0]
        return rows

    def at(self, places: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
        """The values of the rows at these places."""
        ends = np.cumsum([run[0] for run in self._runs])
        values = np.array([run[1] for run in self._runs], np.int64)
        return values[np.searchsorted(ends, places, side="right")]

    def clear(self) -> None:
        """Forget all."""
        self._runs.clear()
