"""``TimeLevels``: what is usual for each source, and the rows that are not: ahead of their level, or running back.

The rule, a row of a source after the other (``step``), with A = ``ahead_s``, B = ``backwards_s``, N = ``settle_rows``
and d the row's timestamp less its arrival:

- *level*: the greatest d believed so far. ``d > level + A``: the row is AHEAD; the N-th in succession that agree (each
  within A of the one before) is believed instead, and they are the level. ``d < level - A``: a late message, which is
  no fault; after N in succession their greatest d is the level, because a clock was set.
- *high*: the greatest timestamp believed so far. ``timestamp < high - B``: the row runs BACKWARDS; the N-th in
  succession is believed, and high falls to their greatest. A row that leaps above ``high + B`` (or is the first of all)
  waits for the next of its source: that is either not more than B below it, and high rises, or the leap was that
  row's alone: it is AHEAD, as far as it can still be told, and high stays.

``judge`` does it for whole batches: one pass over all sources where nothing leaps, one for each source where something
may, and the rule itself only for the stretches that hold a suspect.
"""

from __future__ import annotations

import enum
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Reasons: TypeAlias = npt.NDArray[np.uint8]

FEW_ROWS = 4
"""Up to so many rows the rule itself is faster than arrays."""
STRETCH_ROWS = 512
"""What a suspect costs: so many rows are judged one by one around it."""


class TimeReason(enum.IntEnum):
    """Why a row's times are impossible; the value is what ``check_times`` gives the row."""

    NEGATIVE = 1
    """Not after 1970."""
    UNIT = 2
    """Plausible as s, ms or us, and not as ns."""
    EARLY = 3
    """Before the policy's ``earliest``."""
    BEYOND = 4
    """In the year 2200 or later."""
    FUTURE = 5
    """Later than now."""
    AHEAD = 6
    """Further after its arrival than its source's rows are, or far ahead of the row after it."""
    BACKWARDS = 7
    """Far below its source's greatest time."""
    RECORDER = 8
    """``received`` is before ``earliest``, or later than now: the recorder's clock is wrong, and the event is kept."""


class _Suspects:
    """What a source's latest rows were, as long as they are not as usual."""

    __slots__ = ("above", "above_last", "above_peak", "back", "back_peak", "below", "below_peak", "leap", "leap_row")

    def __init__(self) -> None:
        self.above = self.above_last = self.above_peak = 0
        self.below = self.below_peak = 0
        self.back = self.back_peak = 0
        self.leap: int | None = None
        self.leap_row = -1

    @property
    def none(self) -> bool:
        return not self.above and not self.below and not self.back and self.leap is None


class TimeLevels:
    """The levels of all sources of one reading, by source id. One thread."""

    def __init__(self, ahead_ns: int, backwards_ns: int, settle_rows: int) -> None:
        self._ahead_ns = ahead_ns
        self._backwards_ns = backwards_ns
        self._settle_rows = settle_rows
        self._level: Ints = np.zeros(8, np.int64)
        self._high: Ints = np.zeros(8, np.int64)
        self._has_level = np.zeros(8, bool)
        self._has_high = np.zeros(8, bool)
        self._sure = np.zeros(8, bool)  # the level has been met by a second row
        self._suspects: dict[int, _Suspects] = {}

    def judge(
        self, sources: npt.NDArray[np.uint16], times: Ints, ahead: Ints, untimed: npt.NDArray[np.bool_] | None
    ) -> Reasons | None:
        """The reasons of some rows in order of arrival, None where no row has one.

        ``ahead`` is timestamp less arrival; ``untimed`` (None: no row) says where that means nothing. All of a length.
        """
        count = len(sources)
        if not count:
            return None
        self._forget_rows()
        reasons = np.zeros(count, np.uint8)
        if count <= FEW_ROWS:
            rows = range(count)
            self._grow(max(sources.tolist()) + 1)
            given = [False] * count if untimed is None else untimed.tolist()
            for row, source, time, lead, no_arrival in zip(
                rows, sources.tolist(), times.tolist(), ahead.tolist(), given, strict=True
            ):
                self.step(source, time, None if no_arrival else lead, row, reasons)
            return reasons if reasons.any() else None
        self._grow(int(sources.max()) + 1)
        if untimed is None and self._nothing_leaps(sources, times, ahead):
            return None
        self._judge_each(sources, times, ahead, untimed, reasons)
        return reasons if reasons.any() else None

    def step(self, source: int, time: int, ahead: int | None, row: int, reasons: Reasons) -> None:
        """The rule for the next row of a source: writes its reason, or that of the row before it. About 0.5 µs."""
        suspects = self._suspects.get(source)
        if suspects is None:
            suspects = self._suspects[source] = _Suspects()
        if ahead is not None and not self._fits(source, ahead, suspects):
            reasons[row] = TimeReason.AHEAD
            return
        if suspects.leap is not None:
            if time >= suspects.leap - self._backwards_ns:
                self._raise_high(source, suspects.leap)
            elif suspects.leap_row >= 0:
                reasons[suspects.leap_row] = TimeReason.AHEAD
            suspects.leap = None
        if not self._has_high[source]:
            suspects.leap, suspects.leap_row = time, row
        elif time < int(self._high[source]) - self._backwards_ns:
            suspects.back_peak = max(suspects.back_peak, time) if suspects.back else time
            suspects.back += 1
            if suspects.back < self._settle_rows:
                reasons[row] = TimeReason.BACKWARDS
                return
            self._high[source], suspects.back = suspects.back_peak, 0
        else:
            suspects.back = 0
            if time > int(self._high[source]) + self._backwards_ns:
                suspects.leap, suspects.leap_row = time, row
            else:
                self._raise_high(source, time)
        if suspects.none:
            del self._suspects[source]

    def _fits(self, source: int, ahead: int, suspects: _Suspects) -> bool:
        """Whether a row is not too far ahead of its arrival; moves the level."""
        if not self._has_level[source]:
            self._level[source], self._has_level[source] = ahead, True
            return True
        level, limit = int(self._level[source]), self._ahead_ns
        if ahead > level + limit and not self._sure[source]:
            self._level[source], suspects.below = ahead, 0
            return True
        if ahead > level + limit:
            if suspects.above and abs(ahead - suspects.above_last) <= limit:
                suspects.above += 1
                suspects.above_peak = max(suspects.above_peak, ahead)
            else:
                suspects.above, suspects.above_peak = 1, ahead
            suspects.above_last = ahead
            suspects.below = 0
            if suspects.above < self._settle_rows:
                return False
            self._level[source], suspects.above = suspects.above_peak, 0
            return True
        suspects.above = 0
        if ahead >= level - limit:
            suspects.below = 0
            self._level[source], self._sure[source] = max(level, ahead), True
            return True
        suspects.below_peak = max(suspects.below_peak, ahead) if suspects.below else ahead
        suspects.below += 1
        if suspects.below >= self._settle_rows:
            self._level[source], self._sure[source], suspects.below = suspects.below_peak, True, 0
        return True

    def _raise_high(self, source: int, time: int) -> None:
        if not self._has_high[source] or time > self._high[source]:
            self._high[source], self._has_high[source] = time, True

    def _nothing_leaps(self, sources: npt.NDArray[np.uint16], times: Ints, ahead: Ints) -> bool:
        """Whether no row of any source can be a suspect, whatever their order; if so, the levels have been moved on.

        Stricter than the rule: all rows and all levels lie within its limits of each other.
        """
        present = np.flatnonzero(np.bincount(sources))
        if not (self._sure[present].all() and self._has_high[present].all()):
            return False
        if self._suspects and not self._suspects.keys().isdisjoint(present.tolist()):
            return False
        level, high = self._level[present], self._high[present]
        most, latest = int(ahead.max()), int(times.max())
        if most > int(level.min()) + self._ahead_ns or latest > int(high.min()) + self._backwards_ns:
            return False
        if int(ahead.min()) < max(most, int(level.max())) - self._ahead_ns:
            return False
        if int(times.min()) < max(latest, int(high.max())) - self._backwards_ns:
            return False
        if len(present) == 1:
            self._level[present] = max(most, int(level[0]))
            self._high[present] = max(latest, int(high[0]))
        else:
            np.maximum.at(self._level, sources, ahead)
            np.maximum.at(self._high, sources, times)
        return True

    def _judge_each(
        self,
        sources: npt.NDArray[np.uint16],
        times: Ints,
        ahead: Ints,
        untimed: npt.NDArray[np.bool_] | None,
        reasons: Reasons,
    ) -> None:
        order = np.argsort(sources, kind="stable")  # a radix sort for 16 bits
        grouped = sources[order]
        cuts = [0, *(np.flatnonzero(grouped[1:] != grouped[:-1]) + 1).tolist(), len(order)]
        for begin, end in pairwise(cuts):
            self._judge_source(int(grouped[begin]), order[begin:end], times, ahead, untimed, reasons)

    def _judge_source(
        self,
        source: int,
        rows: npt.NDArray[np.intp],
        times: Ints,
        ahead: Ints,
        untimed: npt.NDArray[np.bool_] | None,
        reasons: Reasons,
    ) -> None:
        """All rows of one source: in long stretches while they are as usual, in short ones round those that are not."""
        size = len(rows)
        while len(rows):
            known = source not in self._suspects and bool(self._has_high[source])
            stretch = rows[: size if known else FEW_ROWS]
            no_arrival = None if untimed is None else untimed[stretch]
            if known and self._as_usual(source, times[stretch], ahead[stretch], no_arrival):
                size = len(rows)
            elif known and len(stretch) > STRETCH_ROWS:
                size = STRETCH_ROWS
                continue
            else:
                given = [False] * len(stretch) if no_arrival is None else no_arrival.tolist()
                for row, time, lead, alone in zip(
                    stretch.tolist(), times[stretch].tolist(), ahead[stretch].tolist(), given, strict=True
                ):
                    self.step(source, time, None if alone else lead, row, reasons)
            rows = rows[len(stretch) :]

    def _as_usual(self, source: int, times: Ints, ahead: Ints, untimed: npt.NDArray[np.bool_] | None) -> bool:
        """Whether no row of this source's next ones is a suspect by the rule; if so, its levels have been moved on."""
        if untimed is not None:
            ahead = ahead[~untimed]
        high = _greatest_if_near(int(self._high[source]), times, self._backwards_ns)
        if high is None:
            return False
        if len(ahead):
            if not self._has_level[source]:
                return False
            level = _greatest_if_near(int(self._level[source]), ahead, self._ahead_ns)
            if level is None:
                return False
            self._level[source], self._sure[source] = level, True
        self._high[source] = high
        return True

    def _forget_rows(self) -> None:
        """A new batch begins: what leapt in the one before has been handed on."""
        for suspects in self._suspects.values():
            suspects.leap_row = -1

    def _grow(self, count: int) -> None:
        if count > len(self._level):
            more = max(count, 2 * len(self._level)) - len(self._level)
            self._level, self._high = (
                np.concatenate([array, np.zeros(more, np.int64)]) for array in (self._level, self._high)
            )
            self._has_level, self._has_high, self._sure = (
                np.concatenate([array, np.zeros(more, bool)]) for array in (self._has_level, self._has_high, self._sure)
            )


def _greatest_if_near(before: int, values: Ints, limit: int) -> int | None:
    """The greatest of ``before`` and ``values``; None if a value is further than ``limit`` from the greatest so far."""
    greatest = max(before, int(values.max()))
    if greatest - before <= limit and int(values.min()) >= greatest - limit:
        return greatest
    so_far = np.empty(len(values) + 1, np.int64)
    so_far[0], so_far[1:] = before, values
    np.maximum.accumulate(so_far, out=so_far)
    distance = values - so_far[:-1]
    return greatest if int(distance.max()) <= limit and int(distance.min()) >= -limit else None
