"""``Histogram``: counts of values by size, with a stated precision, in memory that does not grow with them."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hftlab.errors import ValidationError, shown
from hftlab.metrics import kernels as at
from hftlab.metrics.statistics import HistogramStatistics
from hftlab.metrics.wording import percentile_text, value_text

if TYPE_CHECKING:
    import pandas as pd

    from hftlab.metrics.figures import Figure

Ints: TypeAlias = npt.NDArray[np.int64]

PERCENTILES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 1.0)
"""The rows of ``to_frame``, as quantiles."""
MOST_SUB_BUCKETS = 16_384
_MOST_TIMES = 1 << 53
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


class Histogram:
    """Values, mostly latencies in ns, counted in log-linear buckets (HdrHistogram's), whatever their range.

    Each power of two is cut into ``sub_buckets`` (a power of two, 2 to 16,384) equal buckets, and a bucket's middle
    stands for its values: quantiles are within ``precision``, ``1 / (2 * sub_buckets)`` of the exact ones: 0.39 % at
    128, 0.05 % at 1,024. Smaller values than twice ``sub_buckets`` are exact, and so are minimum, maximum and mean.

    Values are int64. From 0 to 2**62 they have a bucket and are in ``count``; quantiles and mean are of these. Below 0
    (clocks that disagree) and above 2**62 they are counted in ``negative`` and ``overflow``, nothing is clamped.

    2 to 3 ns a value in batches of 1,024, 1 µs for one alone; 57 KiB at 128 sub-buckets (6 MiB at 16,384), whatever is
    recorded. One thread writes; ``kernels`` record into ``address`` without coming back to Python. ``begin_ns`` and
    ``end_ns``, ns UTC, say when the values are from; they are for whoever fills it to set.
    """

    def __init__(self, sub_buckets: int = 128, unit: str = "ns", name: str = "") -> None:
        """Raises ValidationError for anything but a power of two from 2 to 16,384, and texts."""
        whole = isinstance(sub_buckets, int) and not isinstance(sub_buckets, bool)
        if not whole or not 2 <= sub_buckets <= MOST_SUB_BUCKETS or sub_buckets & (sub_buckets - 1):
            raise ValidationError(
                f"sub_buckets is a power of two from 2 to {MOST_SUB_BUCKETS:,}, such as 128; got {shown(sub_buckets)}"
            )
        for what, text in (("unit", unit), ("name", name)):
            if not isinstance(text, str):
                raise ValidationError(f"{what} is a text; got {shown(text)}")
        self.unit, self.name = unit, name
        self.begin_ns: int | None = None
        self.end_ns: int | None = None
        self._bits = sub_buckets.bit_length() - 1
        self._words: Ints = np.zeros(at.HEADER_WORDS + bucket_count(self._bits), np.int64)
        self._address = int(self._words.ctypes.data)
        at.prepare(self._address, self._bits)

    # -- recording ----------------------------------------------------------------------------------------------------

    def record(self, value: int, count: int = 1) -> None:
        """Record one value ``count`` times (0 to 2**53). About 1 µs. Raises ValidationError for what is no int64."""
        if type(value) is int and type(count) is int and _LEAST <= value <= _MOST and 0 <= count <= at.MOST_AT_ONCE:
            at.record_repeated(self._address, value, count)
            return
        if not _is_whole(value) or not -(1 << 63) <= value < 1 << 63:
            raise ValidationError(f"a value is an integer that int64 holds; got {shown(value)}")
        if not _is_whole(count) or not 0 <= count <= _MOST_TIMES:
            raise ValidationError(f"a value is recorded 0 to 2**53 times; got {shown(count)}")
        value, count = int(value), int(count)
        while count > at.MOST_AT_ONCE:
            at.record_repeated(self._address, value, at.MOST_AT_ONCE)
            count -= at.MOST_AT_ONCE
        at.record_repeated(self._address, value, count)

    def record_many(self, values: npt.ArrayLike) -> None:
        """Record an array's values: one dimension of integers, contiguous or not (a column of rows). Reads only.

        int64 is read where it stands, other integers are converted first. Raises ValidationError for everything else,
        with nothing recorded: floats would be in another unit, or rounded. 2 to 3 ns a value and 0.6 µs a call.
        """
        array = values if type(values) is np.ndarray and values.dtype == _INT64 else _whole_numbers(values)
        if array.ndim != 1:
            raise ValidationError(f"values are an array of one dimension; got {array.ndim}: ravel() it")
        if array.flags.c_contiguous and array.flags.aligned and len(array) <= at.MOST_AT_ONCE:
            at.record_array(self._address, array)
            return
        for begin in range(0, len(array), at.MOST_AT_ONCE):
            part = array[begin : begin + at.MOST_AT_ONCE]
            at.record_strided(self._address, part.ctypes.data, part.strides[0], len(part))

    def record_differences(self, later: npt.ArrayLike, earlier: npt.ArrayLike) -> None:
        """Record ``later - earlier``, element by element, without making the array of them; either may be one integer.

        ``histogram.record_differences(rows["received"], rows["timestamp"])`` for columns of structured rows, which are
        read where they stand: 3 ns a value and 8 µs a call. What int64 can't hold is negative or overflow. Raises
        ValidationError as ``record_many`` does, and for arrays of two lengths.
        """
        columns = [_whole_numbers(values) for values in (later, earlier)]
        lengths = {len(column) for column in columns if column.ndim == 1}
        if any(column.ndim > 1 for column in columns) or len(lengths) > 1:
            shapes = " and ".join(str(column.shape) for column in columns)
            raise ValidationError(
                f"differences are of two arrays of one length, or of one and an integer; got {shapes}"
            )
        strides = [column.strides[0] if column.ndim else 0 for column in columns]
        count = lengths.pop() if lengths else 1
        for begin in range(0, count, at.MOST_AT_ONCE):
            size = min(count - begin, at.MOST_AT_ONCE)
            one, other = [
                (part.ctypes.data + begin * stride, stride) for part, stride in zip(columns, strides, strict=True)
            ]
            at.record_differences(self._address, *one, *other, size)

    def merge(self, other: Histogram) -> None:
        """Add all that ``other`` has recorded, exactly as if it had been recorded here. Up to 5 µs at 128 sub-buckets.

        The time span grows to cover both. Raises ValidationError unless sub_buckets and unit are the same.
        """
        if not isinstance(other, Histogram):
            raise ValidationError(f"only a Histogram can be merged; got {shown(other)}")
        if (other._bits, other.unit) != (self._bits, self.unit):
            raise ValidationError(
                f"histograms that are merged have the same sub_buckets and unit; got {self.sub_buckets} of "
                f"{self.unit!r} and {other.sub_buckets} of {other.unit!r}"
            )
        if other is self:
            other = self.copy()
        at.merge(self._address, other._address)
        if other.begin_ns is not None:
            self.begin_ns = other.begin_ns if self.begin_ns is None else min(self.begin_ns, other.begin_ns)
        if other.end_ns is not None:
            self.end_ns = other.end_ns if self.end_ns is None else max(self.end_ns, other.end_ns)

    def copy(self) -> Histogram:
        """All of it in memory of its own. About 10 µs at 128 sub-buckets."""
        twin = Histogram(self.sub_buckets, self.unit, self.name)
        twin._words[:] = self._words
        twin.begin_ns, twin.end_ns = self.begin_ns, self.end_ns
        return twin

    def corrected(self, expected_interval_ns: int) -> Histogram:
        """A copy with what coordinated omission left out: HdrHistogram's ``copyCorrectedForCoordinatedOmission``.

        For values of a loop that times itself, one turn after the other, and is due each ``expected_interval_ns`` (in
        ``unit``): of a value above it, those that would have been measured meanwhile are added, an interval shorter
        each, down to the interval. A bucket's values count as its middle. Not for latencies that begin at a stamp which
        the event brought: their waits are in already. About 1 ms. Raises ValidationError for an interval below 1, and
        where it is so short that more than 2**53 values are missing.
        """
        from hftlab.metrics.omission import corrected

        return corrected(self, expected_interval_ns)

    def clear(self) -> None:
        """Forget all values and the time span; name, unit and ``address`` stay."""
        self._words[:] = 0
        at.prepare(self._address, self._bits)
        self.begin_ns = self.end_ns = None

    # -- asking -------------------------------------------------------------------------------------------------------

    @property
    def address(self) -> int:
        """Where it stands, for ``metrics.kernels``; it stays there, and must be kept alive by whoever uses this."""
        return self._address

    @property
    def words(self) -> Ints:
        """The block at ``address`` itself, laid out as ``metrics.kernels`` says."""
        return self._words

    @property
    def sub_buckets(self) -> int:
        """Buckets to a power of two."""
        return 1 << self._bits

    @property
    def precision(self) -> float:
        """How far a quantile may be from the exact one, as a part of it: 0.00390625 at 128 sub-buckets."""
        return 0.5 / self.sub_buckets

    @property
    def count(self) -> int:
        """Values from 0 to 2**62: those that quantiles and mean are of."""
        return int(self._words[at.COUNT])

    @property
    def negative(self) -> int:
        """Values below 0."""
        return int(self._words[at.NEGATIVE])

    @property
    def overflow(self) -> int:
        """Values above 2**62."""
        return int(self._words[at.OVERFLOW])

    @property
    def recorded(self) -> int:
        """All values: ``count + negative + overflow``."""
        return self.count + self.negative + self.overflow

    @property
    def minimum(self) -> int | None:
        """The least of all values recorded, negative ones included, exactly; None where there are none."""
        least = min(int(self._words[at.MINIMUM]), int(self._words[at.ASIDE_MINIMUM]))
        return least if self.recorded else None

    @property
    def maximum(self) -> int | None:
        """The greatest of all values recorded, those beyond 2**62 included, exactly; None where there are none."""
        greatest = max(int(self._words[at.MAXIMUM]), int(self._words[at.ASIDE_MAXIMUM]))
        return greatest if self.recorded else None

    @property
    def mean(self) -> float:
        """The exact sum of the ``count`` values by their number; NaN without any. (Read from a log: of the middles.)"""
        if not self.count:
            return math.nan
        return ((int(self._words[at.SUM_HIGH]) << 32) + int(self._words[at.SUM_LOW])) / self.count

    def quantile(self, q: float) -> float:
        """The least value that a part of at least ``q`` (0 to 1) of the ``count`` values does not exceed; NaN: none.

        numpy's ``method="inverted_cdf"``, within ``precision``; 0 and 1 are exact. ``q`` counts as it is written: 0.1
        is a tenth. Raises ValidationError for ``q`` outside. About 10 µs.
        """
        return self.quantiles([q])[0]

    def quantiles(self, qs: Iterable[float]) -> list[float]:
        """Several quantiles, in the order asked; little more than the cost of one."""
        wanted = list(qs)
        for q in wanted:
            if isinstance(q, bool) or not isinstance(q, (int, float, np.floating)) or not 0 <= q <= 1:
                raise ValidationError(f"a quantile is a number from 0 to 1 (p99 is 0.99); got {shown(q)}")
        total = self.count
        if not total or not wanted:
            return [math.nan] * len(wanted)
        parts = [_part(float(q)) for q in wanted]
        ranks = np.array([max(1, -(-numerator * total // denominator)) for numerator, denominator in parts], np.int64)
        order = np.argsort(ranks, kind="stable")
        rising, found = ranks[order], np.empty(len(ranks), np.int64)
        at.find_ranks(self._address, rising, found)
        values = np.empty(len(ranks), np.float64)
        values[order] = found
        return [float(value) for value in values]

    def buckets(self) -> tuple[Ints, Ints, Ints]:
        """The buckets that hold something, rising: their least and greatest values, and their counts."""
        counts = self._words[at.HEADER_WORDS :]
        filled = np.flatnonzero(counts)
        shifts = np.maximum((filled >> self._bits) - 1, 0)
        low = (filled - (shifts << self._bits)) << shifts
        high = np.minimum(
            low + (np.int64(1) << shifts) - 1, at.TOP
        )  # what else the last bucket could hold is beyond it
        return low, high, counts[filled]

    def statistics(self) -> HistogramStatistics:
        """Its figures now, frozen. About 25 µs."""
        p50, p90, p99, p999 = self.quantiles((0.5, 0.9, 0.99, 0.999))
        return HistogramStatistics(
            name=self.name, unit=self.unit, precision=self.precision, count=self.count, negative=self.negative,
            overflow=self.overflow, minimum=self.minimum, maximum=self.maximum, mean=self.mean,
            p50=p50, p90=p90, p99=p99, p999=p999, begin_ns=self.begin_ns, end_ns=self.end_ns,
        )  # fmt: skip

    # -- showing ------------------------------------------------------------------------------------------------------

    def to_frame(self, percentiles: Sequence[float] = PERCENTILES) -> pd.DataFrame:
        """A row a percentile (given as quantiles, 0 to 1): its value, and how many values lie above its bucket.

        Indexed by the percentile's name; the value's column ends in the unit: ``value_ns``.
        """
        import pandas as pd

        values = self.quantiles(percentiles)
        _, high, counts = self.buckets()
        reached = np.concatenate([[0], np.cumsum(counts)])
        above = [
            0 if value != value else self.count - int(reached[np.searchsorted(high, value) + 1]) for value in values
        ]
        names = pd.Index([percentile_text(q) for q in percentiles], name="percentile")
        return pd.DataFrame({f"value_{self.unit}" if self.unit else "value": values, "above": above}, index=names)

    def figure(self, *others: Histogram) -> Figure:
        """A static plotly figure: the distribution on a logarithmic axis, and its percentiles; ``others`` beside it."""
        from hftlab.metrics.figures import histogram_figure

        return histogram_figure((self, *others))

    def __repr__(self) -> str:
        name = f"{self.name!r}: " if self.name else ""
        return f"Histogram({name}{self.statistics()})"

    def _repr_html_(self) -> str:
        told = self.statistics()
        rows = [("minimum", math.nan if told.minimum is None else told.minimum), ("mean", told.mean)]
        rows += [(percentile_text(q), value) for q, value in zip(PERCENTILES, self.quantiles(PERCENTILES), strict=True)]
        cells = "".join(
            f"<tr><th style='text-align:left'>{what if what != 'p100' else 'maximum'}</th>"
            f"<td>{html.escape(value_text(value, self.unit))}</td></tr>"
            for what, value in rows
        )
        aside = "".join(
            f", {count:,} {what}"
            for count, what in ((told.negative, "negative"), (told.overflow, "beyond the top"))
            if count
        )
        title = f"<b>{html.escape(self.name) or 'Histogram'}</b>: {told.count:,} values{aside}"
        return f"<div>{title}<table>{cells}</table><small>within {self.precision:.2%}</small></div>"


_INT64 = np.dtype(np.int64)


def bucket_count(bits: int) -> int:
    """How many buckets there are at ``2 ** bits`` to a power of two, for values up to 2**62."""
    return ((62 - bits) << bits) + (1 << bits) + 1


@lru_cache(maxsize=256)
def _part(q: float) -> tuple[int, int]:
    """``q`` as a fraction, as it is written: in binary 0.07 is above 7 of 100, and would ask for the 8th value."""
    part = Fraction(repr(q))
    return part.numerator, part.denominator


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _whole_numbers(values: npt.ArrayLike) -> Ints:
    """``values`` as int64, aligned or not. Raises ValidationError for what is no integer, or does not fit."""
    array = np.asarray(values)
    if array.dtype == _INT64 and array.dtype.isnative:
        return array
    if not array.size:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise ValidationError(f"values are integers (of ns: (seconds * 1e9).astype('int64')); got {array.dtype}")
    if array.dtype.kind == "u" and array.dtype.itemsize == 8 and int(array.max()) >= 1 << 63:
        raise ValidationError(f"values are integers that int64 holds; got {int(array.max())}")
    return array.astype(np.int64)
