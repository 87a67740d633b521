"""The percentile curve: what each part of the values does not exceed, as HdrHistogram's plots have it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hftlab.metrics.histogram import Histogram

Floats = npt.NDArray[np.float64]

_A_DECADE = 48
"""Points between 90 and 99 %, and between 99 and 99.9 %: more than a notebook's width shows."""


def percentile_curve(histogram: Histogram) -> tuple[Floats, Floats]:
    """Rising quantiles ``q`` and the values there, each float64[n], n up to 770; empty without values.

    Evenly spaced on HdrHistogram's axis, ``1 / (1 - q)`` logarithmic, on which 0, 90, 99 and 99.9 % are as far apart.
    ``q`` runs from 0, the least value, to the middle of the greatest one's part, ``1 - 1 / (2 * count)``, which the
    axis can still show. Values are ``Histogram.quantile``'s. About 100 µs.
    """
    total = histogram.count
    if not total:
        return np.zeros(0), np.zeros(0)
    # A float64 tells nothing from 1 that is nearer than 2**-53.
    decades = np.log10(min(2.0 * total, 2.0**53))
    beyond = 10.0 ** -np.linspace(0.0, decades, max(int(np.ceil(decades * _A_DECADE)), 2))
    ranks = np.clip(np.ceil((1.0 - beyond) * total), 1, total)
    ranks[-1] = total
    low, high, counts = histogram.buckets()
    found = np.searchsorted(np.cumsum(counts), ranks)
    middles = low + (high - low + 1) // 2
    values = np.clip(middles[found], low[0], None).astype(np.float64)
    least, *_, most = histogram.quantiles((0.0, 1.0))
    values = np.clip(values, least, most)
    values[ranks <= 1], values[ranks >= total] = least, most
    return 1.0 - beyond, values
