"""What a latency panel draws: histograms in, the bytes of curves on logarithmic axes out.

The axes move in steps, so that a picture of a growing histogram stands still between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hftlab.metrics import Histogram

Floats: TypeAlias = npt.NDArray[np.float64]

BARS = 160
"""Of the distribution: one for four pixels of a picture as wide as half a notebook."""
PER_DECADE = 40
"""Points of the percentile curve for each factor of ten in ``1 / (1 - q)``."""
LEAST_DECADES = 4
MOST_DECADES = 7
"""The percentiles' axis: to 99.99 % at least, and as far as there are values to tell it, to 99.99999 % at most."""


def picture(histograms: Sequence[Histogram], names: Sequence[str]) -> dict[str, Any]:
    """The distribution and the percentile curve of one histogram, or of two to compare.

    ``percent``: float32 (n, 160), the part of a histogram's values in each bar of an axis that runs evenly, in the
    logarithm, from ``low`` to ``high`` ns. ``values``: float32 (n, 40 * decades + 1), ns by percentile, on an axis that
    runs evenly in the logarithm of ``1 / (1 - q)``; NaN beyond what so many values can tell. ``counts`` and ``most``
    (the greatest value, 0 without any): one each. ``nothing``: what to say where there is nothing to draw. About 0.1 ms
    for each histogram.
    """
    filled = [histogram for histogram in histograms if histogram.count]
    low, high = axis(filled)
    edges = np.geomspace(low, high, BARS + 1)
    decades = _decades(max((histogram.count for histogram in filled), default=0))
    percent = np.zeros((len(histograms), BARS), np.float32)
    values = np.full((len(histograms), decades * PER_DECADE + 1), np.nan, np.float32)
    most = [0.0] * len(histograms)
    for at, histogram in enumerate(histograms):
        if histogram.count:
            least, greatest, counts = histogram.buckets()
            percent[at] = 100 * distribution(least, greatest, counts, edges)
            values[at] = percentile_values(least, greatest, counts, decades)
            most[at] = float(min(histogram.maximum or 0, int(greatest[-1])))  # the maximum may be beyond the top
    return {
        "names": list(names),
        "counts": [histogram.count for histogram in histograms],
        "low": low,
        "high": high,
        "decades": decades,
        "most": most,
        "nothing": _nothing(histograms[0]),
        "percent": percent.tobytes(),
        "values": values.tobytes(),
    }


def read_picture(shown: dict[str, Any]) -> tuple[Floats, Floats]:
    """What a view reads from ``picture``'s bytes: (n, 160) percents, and (n, points) ns."""
    count = len(shown["names"])
    percent, values = (np.frombuffer(shown[name], np.float32) for name in ("percent", "values"))
    return percent.reshape(count, -1).astype(np.float64), values.reshape(count, -1).astype(np.float64)


def axis(histograms: Sequence[Histogram]) -> tuple[float, float]:
    """From the least to the greatest value that has a bucket, out to the next 1, 2 or 5 times a power of ten.

    A decade at least; 1 µs to 1 ms where there is nothing.
    """
    ends = [histogram.buckets()[:2] for histogram in histograms]
    if not ends:
        return 1e3, 1e6
    low = _step_below(max(min(float(low[0]) for low, _ in ends), 0.5))
    high = _step_above(max(float(high[-1]) + 1 for _, high in ends))
    while high < 10 * low:
        low, high = _step_below(low * 0.99), _step_above(high * 1.01)
    return low, high


def distribution(low: npt.NDArray[np.int64], high: npt.NDArray[np.int64], counts: npt.NDArray[np.int64],
                 edges: Floats) -> Floats:  # fmt: skip
    """What part of the values lies between each two edges; a bucket's values count as spread over it evenly.

    ``low``, ``high``, ``counts``: of ``Histogram.buckets()``, not empty. The parts add up to 1 where the edges reach
    over all buckets.
    """
    # A logarithmic axis has no 0: that bucket is drawn from 0.5 to 1.
    begins, ends = np.maximum(low, 0.5).astype(np.float64), (high + 1.0).astype(np.float64)
    reached = np.cumsum(counts) / counts.sum()
    heights = np.stack([reached - counts / counts.sum(), reached], axis=1).ravel()
    points = np.stack([begins, ends], axis=1).ravel()
    parts: Floats = np.diff(np.interp(np.log(edges), np.log(points), heights, left=0.0, right=1.0))
    return np.maximum(parts, 0.0)  # a hair below, by rounding


def percentile_values(low: npt.NDArray[np.int64], high: npt.NDArray[np.int64], counts: npt.NDArray[np.int64],
                      decades: int) -> Floats:  # fmt: skip
    """The value at each percentile of the axis: the middle of the bucket that holds it, as ``quantile`` has it.

    NaN where fewer than one value lies beyond: of 1,000 values nobody knows the 99.99th percentile.
    """
    total = int(counts.sum())
    beyond = np.power(10.0, -np.arange(decades * PER_DECADE + 1) / PER_DECADE)  # 1 - q
    # A hair more: 10 ** -3 * 1000 may come out below 1.
    ranks = np.maximum(np.ceil(total - total * beyond - 1e-6), 1)
    places = np.searchsorted(np.cumsum(counts), ranks)
    middles = low + (high - low + 1) // 2
    values: Floats = np.where(total * beyond >= 1 - 1e-6, middles[np.minimum(places, len(middles) - 1)], np.nan)
    return values


def _nothing(histogram: Histogram) -> str:
    recorded = histogram.recorded
    return "all values are negative, or beyond the top" if recorded else "nothing has been recorded yet"


def _decades(count: int) -> int:
    return min(max(math.ceil(math.log10(max(count, 1))), LEAST_DECADES), MOST_DECADES)


def _step_below(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    return max(step * power for step in (0.5, 1, 2, 5) if step * power <= value * (1 + 1e-9))


def _step_above(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    return min(step * power for step in (1, 2, 5, 10, 20) if step * power >= value * (1 - 1e-9))
