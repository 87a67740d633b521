"""Sliding windows over the outcomes of calls: the last ``size`` calls, or those of the last ``size`` seconds.

Outcomes come in runs of equal ones, so that a run of a million successes costs what one costs. Both windows have the
same face: ``calls``, ``failed`` and ``slow`` are sums over what is in them, ``move_to`` lets go of what has become
too old, ``add`` records a run, and ``run_length`` says how many of the next calls may be recorded in one run without
a difference.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import numpy as np
import numpy.typing as npt

_NS = 1_000_000_000


class OutcomeWindow(Protocol):
    """What a breaker asks of a window."""

    calls: int
    failed: int
    slow: int

    def move_to(self, now_ns: int) -> None:
        """Let go of what is too old at ``now_ns``; time that runs backwards changes nothing."""
        ...

    def add(self, calls: int, now_ns: int, *, failed: bool = False, slow: bool = False) -> None:
        """Record ``calls`` equal outcomes at ``now_ns``."""
        ...

    def run_length(self, times_ns: npt.NDArray[np.int64]) -> int:
        """How many calls from the first at these times (not empty, non-decreasing) are one run if they end alike."""
        ...


class CountWindow:
    """The last ``size`` calls. A call is a bit of one integer for failures and one for slowness, the latest lowest.

    So a run of n is a shift by n, whatever n: O(1) while nothing failed or was slow, else O(size / 64) words.
    """

    __slots__ = ("_failed_bits", "_mask", "_slow_bits", "calls", "failed", "size", "slow")

    def __init__(self, size: int) -> None:
        self.size = size
        self.calls = self.failed = self.slow = 0
        self._mask = (1 << size) - 1
        self._failed_bits = self._slow_bits = 0

    def move_to(self, now_ns: int) -> None:
        """Nothing: calls leave because others come, not because time goes by."""

    def add(self, calls: int, now_ns: int, *, failed: bool = False, slow: bool = False) -> None:
        """Record ``calls`` equal outcomes; as many of the oldest leave as are more than ``size``."""
        run = min(calls, self.size)
        self.calls = min(self.calls + run, self.size)
        if failed or self._failed_bits:
            self._failed_bits = self._shifted(self._failed_bits, run, failed)
            self.failed = self._failed_bits.bit_count()
        if slow or self._slow_bits:
            self._slow_bits = self._shifted(self._slow_bits, run, slow)
            self.slow = self._slow_bits.bit_count()

    def run_length(self, times_ns: npt.NDArray[np.int64]) -> int:
        """All of them: their times make no difference."""
        return len(times_ns)

    def _shifted(self, bits: int, run: int, ones: bool) -> int:
        return (bits << run | (((1 << run) - 1) if ones else 0)) & self._mask


class TimeWindow:
    """The calls of the last ``size_s`` seconds of the clock, the one that is running included.

    Seconds begin where UTC's do (not at the first call), so what leaves when depends on the calls' times alone. A
    second is one bucket: at most ``size_s`` of them, and only those in which something was called. Amortised O(1) a
    run.
    """

    __slots__ = ("_buckets", "_second", "calls", "failed", "size_s", "slow")

    def __init__(self, size_s: int) -> None:
        self.size_s = size_s
        self.calls = self.failed = self.slow = 0
        self._buckets: deque[list[int]] = deque()  # [second, calls, failed, slow], oldest first
        self._second: int | None = None

    def move_to(self, now_ns: int) -> None:
        """Go to the second of ``now_ns`` and let go of those ``size_s`` or more before it. Never goes back."""
        second = now_ns // _NS
        if self._second is not None and second <= self._second:
            return
        self._second = second
        while self._buckets and self._buckets[0][0] <= second - self.size_s:
            _, calls, failed, slow = self._buckets.popleft()
            self.calls -= calls
            self.failed -= failed
            self.slow -= slow

    def add(self, calls: int, now_ns: int, *, failed: bool = False, slow: bool = False) -> None:
        """Record ``calls`` equal outcomes in the second of ``now_ns`` (or the latest known, if that is later)."""
        self.move_to(now_ns)
        assert self._second is not None
        if not self._buckets or self._buckets[-1][0] != self._second:
            self._buckets.append([self._second, 0, 0, 0])
        bucket = self._buckets[-1]
        bucket[1] += calls
        self.calls += calls
        if failed:
            bucket[2] += calls
            self.failed += calls
        if slow:
            bucket[3] += calls
            self.slow += calls

    def run_length(self, times_ns: npt.NDArray[np.int64]) -> int:
        """Go to the first one's second; those before its end, the first one at least."""
        self.move_to(int(times_ns[0]))
        assert self._second is not None
        end_ns = (self._second + 1) * _NS
        return len(times_ns) if times_ns[-1] < end_ns else int(np.searchsorted(times_ns, end_ns))
