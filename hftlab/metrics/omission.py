"""Coordinated omission: what a measurement that waits for its answers would have measured, had it not waited.

Gil Tene's correction, as in HdrHistogram's ``copyCorrectedForCoordinatedOmission``: where a turn is due each i ns and
one took v > i, those that were due meanwhile were never made; they would have taken v - i, v - 2 i, … down to i. A
stall of an hour at an interval of a µs is 3.6 thousand million of them, so they are not recorded one by one.

**How many fall into each bucket.** Of a value v = a i + r, and for a bound x = b i + t of at least i, as many of the
missing are x or more as ``(v - x) // i``, which is a - b, less 1 where r < t. Summed over all v >= x that takes three
numbers: the values' count, their sum of a, and how many of them have a remainder below t. With the bounds taken from
the top down, the last is a Fenwick tree over the remainders: O(n log n) for n buckets, whatever they hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hftlab.errors import ValidationError, shown
from hftlab.metrics import kernels as at

if TYPE_CHECKING:
    from hftlab.metrics.histogram import Histogram

MOST_MISSING, MOST_SUM = 1 << 53, 1 << 95


def corrected(histogram: Histogram, expected_interval_ns: int) -> Histogram:
    """As ``Histogram.corrected`` says."""
    interval = expected_interval_ns
    if isinstance(interval, bool) or not isinstance(interval, (int, np.integer)) or not 1 <= interval <= at.TOP:
        raise ValidationError(f"expected_interval_ns is an integer of at least 1; got {shown(interval)}")
    interval = int(interval)
    whole = histogram.copy()
    low, high, counts = histogram.buckets()
    if not len(counts) or int(whole.words[at.MAXIMUM]) < 2 * interval:
        return whole
    # A bucket's values are taken for its middle, as in quantiles; a few at its ends for the extremes, which are known.
    values = np.clip(low + (high - low + 1) // 2, whole.words[at.MINIMUM], whole.words[at.MAXIMUM])
    many = values >= 2 * interval
    values, counts = values[many], counts[many]
    if not len(values):
        return whole
    missing, total = 0, (int(whole.words[at.SUM_HIGH]) << 32) + int(whole.words[at.SUM_LOW])
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        turns = value // interval - 1
        missing += count * turns
        total += count * (turns * value - interval * turns * (turns + 1) // 2)
    if missing > MOST_MISSING or total >= MOST_SUM:
        raise ValidationError(
            f"at an interval of {interval} {missing:.3g} values are missing, more than can be counted (2**53) or added "
            "up (to 2**95): a longer interval is meant"
        )
    bits = int(whole.words[at.BITS])
    first, last = at.bucket_of(interval, bits), at.bucket_of(int(values[-1]), bits)
    buckets = np.arange(first, last + 2)
    shifts = np.maximum((buckets >> bits) - 1, 0)
    bounds = np.maximum((buckets - (shifts << bits)) << shifts, interval)
    at_least = _missing_from(values, counts, bounds, interval)
    whole.words[at.HEADER_WORDS + first : at.HEADER_WORDS + last + 1] += at_least[:-1] - at_least[1:]
    whole.words[at.COUNT] += missing
    least = int((values % interval).min()) + interval
    whole.words[at.MINIMUM] = min(int(whole.words[at.MINIMUM]), least)
    whole.words[at.SUM_HIGH], whole.words[at.SUM_LOW] = total >> 32, total & 0xFFFFFFFF
    return whole


def _missing_from(values: at.Ints, counts: at.Ints, bounds: at.Ints, interval: int) -> at.Ints:
    """For each of the rising bounds, how many missing values it or more; of rising values of two intervals and more."""
    remainders = values % interval
    rising = np.sort(remainders)
    # Of equal remainders the ranks are one: the tree is only ever asked for what lies below a remainder.
    ranks = np.searchsorted(rising, remainders, side="left")
    below = np.searchsorted(rising, bounds % interval, side="left")
    found, tree = np.zeros(len(bounds), np.int64), np.zeros(len(values) + 1, np.int64)
    at.count_missing(values, counts, ranks, bounds, below, interval, tree, found)
    return found
