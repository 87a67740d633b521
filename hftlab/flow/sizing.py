"""``AdaptiveSize``: how many rows a queue may hold, by the memory that is left and by how fast it is drained.

A queue that is larger than what its handlers empty in a second holds nothing but old events; one that grows while the
machine runs short of memory takes the kernel down with it. As in TCP's congestion control (additive increase,
multiplicative decrease: Chiu & Jain, 1989), it gives way fast and comes back slowly, so that several queues that share
a machine settle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from hftlab.errors import ValidationError
from hftlab.flow.checking import check_count, check_seconds

SHRINK_AT = 0.9
"""The pressure level from which a queue shrinks …"""
GROW_BELOW = 0.8
"""… and below which it grows again; between the two it stays."""
INTERVAL_NS = 250_000_000
"""How often at most it changes, and over what the drain rate is measured."""
GROWTH_STEPS = 32
"""Intervals from the smallest size to the largest: 8 s."""
ROOM_TO_GROW = 0.75
"""It grows only up to this part of what the rate allows, so that a rate that wavers moves nothing."""
_SMOOTHING = 0.3
_MOST_ROWS = 1 << 40


class SizeBounds(msgspec.Struct, frozen=True):
    """The least and the most rows that a queue may be allowed: 1 ≤ ``min_rows`` ≤ ``max_rows``."""

    min_rows: int
    max_rows: int

    def __post_init__(self) -> None:
        check_count("min_rows", self.min_rows, 1, _MOST_ROWS, " rows")
        check_count("max_rows", self.max_rows, 1, _MOST_ROWS, " rows")
        if self.min_rows > self.max_rows:
            raise ValidationError(f"min_rows is at most max_rows; got {self.min_rows:,} and {self.max_rows:,}")


@dataclass(frozen=True, slots=True)
class SizeStatistics:
    """``rows`` allowed now; ``drained_hz`` rows a second (None: not known yet); how often it changed, and why last."""

    rows: int
    drained_hz: float | None
    shrunk: int
    grown: int
    why: str


class AdaptiveSize:
    """The rows that one queue may hold, between ``bounds``; it begins with the most.

    Every 250 ms at most: halved while the pressure level is 0.9 or more; cut to what is drained in ``horizon_s`` at the
    measured rate where that is less; else, with pressure below 0.8, grown by a 32nd of the way between its bounds, to
    three quarters of that at most. So nothing changes while the rate wavers by a few per cent.
    """

    def __init__(self, bounds: SizeBounds, horizon_s: float = 1.0) -> None:
        if not isinstance(bounds, SizeBounds):
            raise ValidationError(f"bounds are SizeBounds(min_rows, max_rows); got {bounds!r:.100}")
        self.bounds = bounds
        self.horizon_s = check_seconds("horizon_s", horizon_s)
        self.rows = bounds.max_rows
        self.why = "as it began: the most that its bounds allow"
        self._step_rows = max(1, (bounds.max_rows - bounds.min_rows) // GROWTH_STEPS)
        self._drained_hz: float | None = None
        self._then_ns: int | None = None
        self._drained_then, self._backlogged = 0, False
        self._shrunk = self._grown = 0

    @property
    def drained_hz(self) -> float | None:
        """Rows a second that the handlers take when there is work; None until that was seen for an interval."""
        return self._drained_hz

    def update(self, now_ns: int, pressure_level: float, drained_rows_total: int, waiting_rows: int) -> int:
        """The rows allowed from now on; call it as often as you like. About 0.2 µs, 2 µs when an interval is over.

        ``pressure_level``: 0 to 1, see ``MemoryPressure.level``. ``drained_rows_total``: rows that ever left the queue;
        one that is less than before (another run's) begins the measurement anew. ``waiting_rows``: what is in it.
        Raises ValidationError for a level that is not a number of 0 to 1.
        """
        if not 0 <= pressure_level <= 1:
            raise ValidationError(f"pressure_level is a number of 0 to 1; got {pressure_level!r:.50}")
        self._backlogged &= waiting_rows > 0
        if self._then_ns is None:
            self._begin_interval(now_ns, drained_rows_total, waiting_rows)
        elif now_ns < self._then_ns or drained_rows_total < self._drained_then:
            self._begin_interval(now_ns, drained_rows_total, waiting_rows)  # another run's clock, or its count
        elif now_ns - self._then_ns >= INTERVAL_NS:
            self._measure(now_ns - self._then_ns, drained_rows_total - self._drained_then)
            self._begin_interval(now_ns, drained_rows_total, waiting_rows)
            self._decide(pressure_level)
        return self.rows

    def _begin_interval(self, now_ns: int, drained_rows_total: int, waiting_rows: int) -> None:
        self._then_ns, self._drained_then, self._backlogged = now_ns, drained_rows_total, waiting_rows > 0

    def _measure(self, elapsed_ns: int, drained_rows: int) -> None:
        """What left in an interval is the handlers' rate only if something was always waiting.

        Else the producers set the pace: the handlers can do at least that, and what they can at most stays as known.
        """
        rate_hz = drained_rows * 1e9 / elapsed_ns
        if self._drained_hz is None:
            self._drained_hz = rate_hz if self._backlogged else None
        elif self._backlogged or rate_hz > self._drained_hz:
            self._drained_hz += _SMOOTHING * (rate_hz - self._drained_hz)

    def _decide(self, pressure_level: float) -> None:
        ceiling = self._ceiling()
        if pressure_level >= SHRINK_AT and self.rows > self.bounds.min_rows:
            halved = max(self.bounds.min_rows, min(self.rows // 2, ceiling))
            self._change(halved, f"memory pressure at {pressure_level:.0%} (shrinks from {SHRINK_AT:.0%})")
        elif self.rows > ceiling:
            self._change(ceiling, self._drains())
        elif pressure_level < GROW_BELOW:
            grown = min(self.rows + self._step_rows, self._ceiling(ROOM_TO_GROW))
            if grown > self.rows:
                limit = "" if self._drained_hz is None else f", and {self._drains()}"
                self._change(grown, f"memory pressure down at {pressure_level:.0%}{limit}")

    def _ceiling(self, part: float = 1.0) -> int:
        """The most rows that the bounds, and this part of what is drained within the horizon, allow."""
        if self._drained_hz is None:
            return self.bounds.max_rows
        drained_rows = min(self._drained_hz * self.horizon_s * part, self.bounds.max_rows)
        return max(self.bounds.min_rows, math.floor(drained_rows))

    def _drains(self) -> str:
        return f"{self._drained_hz:,.0f} rows a second are drained, {self.horizon_s:g} s of them may wait"

    def _change(self, rows: int, because: str) -> None:
        if rows < self.rows:
            self._shrunk += 1
        else:
            self._grown += 1
        verb = "shrunk" if rows < self.rows else "grown"
        self.why = f"{verb} from {self.rows:,} to {rows:,} rows: {because}"
        self.rows = rows

    def statistics(self) -> SizeStatistics:
        """How large it is, and how it came to that."""
        return SizeStatistics(self.rows, self._drained_hz, self._shrunk, self._grown, self.why)

    def __repr__(self) -> str:
        within = f"{self.bounds.min_rows:,} to {self.bounds.max_rows:,}"
        return f"AdaptiveSize({self.rows:,} rows, of {within}; {self.why})"
