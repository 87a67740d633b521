"""The line under a cloud of points that lies closest to it, whatever a few impossible points say.

The differences ``received - timestamp`` are a clock's error plus a latency, and a latency is never negative: the error
is a line somewhere under all of them, and where the fastest messages take equally long throughout, the line under all
points that is closest to them runs along it. It is the segment of the points' lower convex hull over the mean time
(Moon, Skelly and Towsley, "Estimation and removal of clock skew from network delay measurements", INFOCOM 1999).

One impossible stamp would carry that line off. So another line is drawn first, the highest that has no more than a few
points under it; points that lie much farther under this one than ordinary low points lie above it are impossible, and
the hull is that of the others.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

IMPOSSIBLE_DEPTH = 6.0
"""How many times deeper than the typical window's minimum is high a point must lie to be impossible.

The least of a million latencies lay 0.05 times as deep under the line as the minima of 64 lay above it where they were
exponential, 0.3 times where lognormal (sigma 1.5), 0.6 times where gamma (shape 4): none of those is taken for it.
"""
MOST_BELOW = 1 / 20
"""No more than this part of the points may be given up, however many events each stands for."""
_GOLDEN = (5**0.5 - 1) / 2
_STEPS = 70
_MOST_BRIDGES = 10_000


class Line(NamedTuple):
    """``level + slope * x``. ``scatter``: how high a point typically lies above it.

    Points under ``floor + floor_slope * x`` are impossible: the line is not theirs.
    """

    level: float
    slope: float
    scatter: float
    floor: float = -np.inf
    floor_slope: float = 0.0

    def possible(self, x: Floats, y: Floats) -> npt.NDArray[np.bool_]:
        """Which of these points are not impossible: bool[n]."""
        return y - self.floor_slope * x >= self.floor


def fit_line(x: Floats, y: Floats, below: int, least_depth: float, slope: float | None = None) -> Line:
    """The line under the points that is closest to them at x = 0, with at most ``below`` impossible points under it.

    ``x`` has values on both sides of 0. A point that is less than ``least_depth`` too low is not impossible.
    ``slope``: given, only the level is sought. O(points), some 70 times over where ``below`` is not 0.
    """
    floor, tilt = -np.inf, 0.0
    below = min(below, int(MOST_BELOW * len(x)))
    if below:
        tilt = _tolerant_slope(x, y, below) if slope is None else slope
        heights = y - tilt * x
        level = float(np.partition(heights, below)[below])
        typical = float(np.median(heights)) - level
        floor = level - max(IMPOSSIBLE_DEPTH * typical, least_depth)
        kept = heights >= floor
        x, y = x[kept], y[kept]
    found = _bridge(x, y) if slope is None else slope
    heights = y - found * x
    level = float(heights.min())
    return Line(level, found, float(np.median(heights)) - level, floor, tilt)


def slopes_within(x: Floats, y: Floats, line: Line, slack: float) -> tuple[float, float]:
    """The least and the greatest slope of a line under all possible points that is at most ``slack`` lower at x = 0."""
    kept = line.possible(x, y)
    places, heights = x[kept], y[kept] - (line.level - slack)
    left, right = places < 0, places > 0
    low = float(np.max(heights[left] / places[left], initial=-np.inf))
    high = float(np.min(heights[right] / places[right], initial=np.inf))
    return low, high


def _tolerant_slope(x: Floats, y: Floats, below: int) -> float:
    """The slope of the line with ``below`` points under it that is highest at 0, however deep those lie.

    (A regression of a low quantile would weigh how deep: a few stamps of another year at one end of the session would
    tilt it.) The height falls to both sides of the best slope but for the scatter of the lowest points, so a golden
    section search comes as near as that allows; it only has to tell the impossible from the ordinary.
    """

    def height(slope: float) -> float:
        return float(np.partition(y - slope * x, below)[below])

    steepest = 2 * float(np.ptp(y)) / float(np.ptp(x))
    low, high = -steepest, steepest
    one, other = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_one, at_other = height(one), height(other)
    for _ in range(_STEPS):
        if at_one < at_other:
            low, one, at_one = one, other, at_other
            other = low + _GOLDEN * (high - low)
            at_other = height(other)
        else:
            high, other, at_other = other, one, at_one
            one = high - _GOLDEN * (high - low)
            at_one = height(one)
    return (low + high) / 2


def _bridge(x: Floats, y: Floats) -> float:
    """The slope of the lower convex hull's segment over x = 0, without building the hull. O(points) a step.

    From one point on each side: the point that lies farthest under the line through the two takes the place of the one
    on its side. The line at 0 falls with every step, so it ends; 5 to 15 steps are usual.
    """
    left, right = np.flatnonzero(x < 0), np.flatnonzero(x >= 0)
    if not len(left) or not len(right):
        return 0.0
    one, other = int(left[np.argmin(y[left])]), int(right[np.argmin(y[right])])
    slope = 0.0
    for _ in range(_MOST_BRIDGES):
        slope = float((y[other] - y[one]) / (x[other] - x[one]))
        lowest = int(np.argmin(y - slope * x))
        if lowest in (one, other) or y[lowest] - slope * x[lowest] >= y[one] - slope * x[one]:
            break
        if x[lowest] < 0:
            one = lowest
        else:
            other = lowest
    return slope
