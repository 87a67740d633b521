from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.metrics import Histogram, kernels
from tests.metrics.test_histogram import content, filled
from tests.metrics.test_kernels import uncompiled

values = st.integers(0, 17).flatmap(lambda bits: st.integers(0, 1 << bits))


def one_by_one(histogram: Histogram, interval: int) -> Histogram:
    """As HdrHistogram does it: each value's missing ones, one after the other."""
    whole = histogram.copy()
    least, most = int(histogram.words[kernels.MINIMUM]), int(histogram.words[kernels.MAXIMUM])
    for low, high, count in zip(*(part.tolist() for part in histogram.buckets()), strict=True):
        missing = min(max(low + (high - low + 1) // 2, least), most) - interval
        while missing >= interval:
            whole.record(missing, count)
            missing -= interval
    return whole


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(values, st.integers(1, 9)), max_size=30), st.integers(50, 5_000),
    st.sampled_from([2, 16, 128, 1_024]),
)  # fmt: skip
def test_what_is_added_is_what_adding_them_one_by_one_adds(
    given: list[tuple[int, int]], interval: int, sub_buckets: int
) -> None:
    histogram = Histogram(sub_buckets)
    for value, count in given:
        histogram.record(value, count)
    assert content(histogram.corrected(interval)) == content(one_by_one(histogram, interval))


@settings(max_examples=25, deadline=None)
@given(st.lists(values, max_size=20), st.integers(50, 5_000))
def test_it_does_the_same_compiled_and_as_plain_python(given: list[int], interval: int) -> None:
    histogram = filled(given)
    compiled = content(histogram.corrected(interval))
    with uncompiled():
        assert content(histogram.corrected(interval)) == compiled


def test_a_stall_is_seen_by_all_who_would_have_come_meanwhile() -> None:
    histogram = filled([1_000] * 9_999 + [100_000_000])
    assert histogram.quantile(0.99) == pytest.approx(1_000, rel=0.01)
    whole = histogram.corrected(1_000_000)
    assert whole.count == 10_000 + 98  # the stall counts as its bucket's middle, 99.9 ms
    assert whole.quantile(0.995) > 40_000_000
    assert whole.maximum == 100_000_000
    assert histogram.count == 10_000


def test_a_stall_of_years_costs_what_its_buckets_cost() -> None:
    histogram = filled([1 << 55, 500, -7, (1 << 62) + 1])
    whole = histogram.corrected(1_000_000)
    assert whole.count == 2 + (1 << 55) // 1_000_000 - 1
    assert (whole.negative, whole.overflow) == (1, 1)
    assert sum(whole.buckets()[2].tolist()) == whole.count


def test_name_unit_and_times_stay() -> None:
    histogram = Histogram(name="turns", unit="µs")
    histogram.begin_ns, histogram.end_ns = 5, 9
    histogram.record(10_000)
    whole = histogram.corrected(100)
    assert (whole.name, whole.unit, whole.begin_ns, whole.end_ns) == ("turns", "µs", 5, 9)


@pytest.mark.parametrize("interval", [0, -5, 1.5, True, None, (1 << 62) + 1])
def test_an_interval_is_a_positive_integer(interval: int) -> None:
    with pytest.raises(ValidationError, match="expected_interval_ns is an integer of at least 1; got"):
        Histogram().corrected(interval)


def test_an_interval_that_nobody_can_have_meant_is_refused() -> None:
    with pytest.raises(ValidationError, match="a longer interval is meant"):
        filled([1 << 60]).corrected(2)
    with pytest.raises(ValidationError, match="a longer interval is meant"):
        filled([1 << 61]).corrected(1_000)
