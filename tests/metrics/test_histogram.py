from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hftlab as hl
from hftlab.errors import ValidationError
from hftlab.metrics import Histogram
from tests.metrics.test_kernels import HIGHEST, LOWEST, lists, values

TOP = 1 << 62
resolutions = st.sampled_from([2, 16, 128, 1_024])


def filled(given: list[int], sub_buckets: int = 128) -> Histogram:
    histogram = Histogram(sub_buckets)
    histogram.record_many(np.array(given, np.int64))
    return histogram


def content(histogram: Histogram) -> list[int]:
    return [int(word) for word in histogram.words]


def within(found: float, exact: int, histogram: Histogram) -> bool:
    # The last bits of a float may round a difference of exactly the precision up.
    return abs(found - exact) <= exact * histogram.precision * (1 + 1e-12)


@given(resolutions, lists, st.lists(st.integers(0, 64), min_size=1, max_size=5))
def test_quantiles_are_numpys_within_the_stated_precision(sub_buckets: int, given: list[int], parts: list[int]) -> None:
    histogram = filled(given, sub_buckets)
    inside = np.array([value for value in given if 0 <= value <= TOP], np.int64)
    qs = [part / 64 for part in parts]  # floats that are exact, for numpy's sake
    found = histogram.quantiles(qs)
    if not len(inside):
        assert all(math.isnan(value) for value in found)
        return
    for value, exact in zip(found, np.quantile(inside, qs, method="inverted_cdf").tolist(), strict=True):
        assert within(value, exact, histogram)
    assert histogram.quantiles([0, 1]) == [inside.min(), inside.max()]


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=300), st.floats(0, 1))
def test_any_quantile_is_the_value_of_the_rank_that_is_written(given: list[int], q: float) -> None:
    histogram = filled(given)
    rank = max(1, math.ceil(Fraction(repr(q)) * len(given)))
    assert within(histogram.quantile(q), sorted(given)[rank - 1], histogram)


def test_a_quantile_counts_as_it_is_written_and_not_as_binary_rounds_it() -> None:
    histogram = filled(list(range(1, 101)))
    assert 0.07 * 100 > 7
    assert [histogram.quantile(part / 100) for part in range(1, 101)] == list(range(1, 101))


def test_quantiles_come_in_the_order_that_was_asked() -> None:
    histogram = filled([1, 2, 3, 4])
    assert histogram.quantiles([1, 0.25, 0.5, 0.25]) == [4, 1, 2, 1]
    assert histogram.quantiles([]) == []


@given(lists, lists)
def test_merging_is_recording_all_in_one(one: list[int], other: list[int]) -> None:
    merged, second = filled(one), filled(other)
    before = content(second)
    merged.merge(second)
    assert content(merged) == content(filled(one + other))
    assert content(second) == before


@given(lists)
def test_nothing_is_lost_and_extremes_and_mean_are_exact(given: list[int]) -> None:
    histogram = filled(given)
    inside = [value for value in given if 0 <= value <= TOP]
    assert histogram.count == len(inside) == histogram.buckets()[2].sum()
    assert histogram.negative == sum(value < 0 for value in given)
    assert histogram.overflow == sum(value > TOP for value in given)
    assert histogram.recorded == len(given) == histogram.statistics().recorded
    assert histogram.minimum == min(given, default=None)
    assert histogram.maximum == max(given, default=None)
    assert histogram.mean == sum(inside) / len(inside) if inside else math.isnan(histogram.mean)


@given(st.lists(st.tuples(values, st.integers(0, 5)), max_size=10))
def test_a_value_recorded_n_times_is_n_values(runs: list[tuple[int, int]]) -> None:
    histogram = Histogram()
    for value, times in runs:
        histogram.record(value, times)
    assert content(histogram) == content(filled([value for value, times in runs for _ in range(times)]))


def test_a_value_can_be_recorded_more_often_than_any_array_could_hold_it() -> None:
    histogram = Histogram()
    histogram.record(1_000_003, 5 << 31)
    assert (histogram.count, histogram.mean) == (5 << 31, 1_000_003)


@given(lists)
def test_a_column_of_rows_is_recorded_where_it_stands(given: list[int]) -> None:
    rows = np.zeros(len(given), [("a", "u1"), ("value", "i8"), ("b", "u2")])  # unaligned, too
    rows["value"] = given
    rows.flags.writeable = False
    histogram = Histogram()
    histogram.record_many(rows["value"])
    assert content(histogram) == content(filled(given))
    backwards = Histogram()
    backwards.record_many(rows["value"][::-1])
    assert content(backwards) == content(histogram)


@given(st.lists(st.tuples(st.integers(0, 1 << 61), st.integers(0, 1 << 61)), max_size=20))
def test_differences_are_recorded_as_if_they_had_been_made(pairs: list[tuple[int, int]]) -> None:
    rows = np.array(pairs, [("later", "i8"), ("earlier", "i8")])
    histogram = Histogram()
    histogram.record_differences(rows["later"], rows["earlier"])
    assert content(histogram) == content(filled([later - earlier for later, earlier in pairs]))
    ages = Histogram()
    ages.record_differences(1 << 61, rows["earlier"])
    assert content(ages) == content(filled([(1 << 61) - earlier for _, earlier in pairs]))


@pytest.mark.parametrize("array", [[3, 1, 2], (3, 1, 2), np.array([3, 1, 2], np.uint8), np.array([3, 1, 2], ">i8"), []])
def test_integers_of_any_width_are_taken(array: Any) -> None:
    histogram = Histogram()
    histogram.record_many(array)
    assert content(histogram) == content(filled([3, 1, 2] if len(array) else []))


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.array([1.5]), "values are integers .* got float64"),
        (np.array([True]), "got bool"),
        (np.array(["x"]), "values are integers"),
        (np.array([1], "m8[ns]"), "got timedelta64"),
        (np.array([1 << 63], np.uint64), "int64 holds; got 9223372036854775808"),
        (np.zeros((2, 2), np.int64), "one dimension; got 2"),
        (np.int64(3), "one dimension; got 0"),
    ],
)
def test_what_is_no_array_of_integers_is_refused_and_nothing_recorded(array: Any, told: str) -> None:
    histogram = Histogram()
    with pytest.raises(ValidationError, match=told):
        histogram.record_many(array)
    assert histogram.recorded == 0


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Histogram(100), "a power of two from 2 to 16,384, such as 128; got 100"),
        (lambda: Histogram(1), "power of two"),
        (lambda: Histogram(1 << 15), "power of two"),
        (lambda: Histogram(True), "power of two"),
        (lambda: Histogram(128.0), "power of two"),  # type: ignore[arg-type]
        (lambda: Histogram(unit=3), "unit is a text; got 3"),  # type: ignore[arg-type]
        (lambda: Histogram().record(1 << 63), "int64 holds; got 9223372036854775808"),
        (lambda: Histogram().record(1.0), "int64 holds; got 1.0"),  # type: ignore[arg-type]
        (lambda: Histogram().record(1, -1), "0 to 2\\*\\*53 times; got -1"),
        (lambda: Histogram().quantile(99), "p99 is 0.99\\); got 99"),
        (lambda: Histogram().quantile(math.nan), "from 0 to 1"),
        (lambda: Histogram().merge(Histogram(64)), "got 128 of 'ns' and 64 of 'ns'"),
        (lambda: Histogram().merge(Histogram(unit="events")), "the same sub_buckets and unit"),
        (lambda: Histogram().merge(3), "only a Histogram"),  # type: ignore[arg-type]
        (lambda: Histogram().record_differences([1, 2], [1]), "got \\(2,\\) and \\(1,\\)"),
        (lambda: Histogram().record_differences([[1]], 1), "of one length"),
    ],
)
def test_a_mistake_is_refused_with_the_rule_and_the_value(make: Any, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        make()


def test_a_copy_is_another_histogram_with_the_same_content() -> None:
    histogram = filled([1, 2, LOWEST, HIGHEST])
    histogram.begin_ns, histogram.end_ns, histogram.name = 3, 4, "x"
    twin = histogram.copy()
    assert content(twin) == content(histogram)
    assert (twin.begin_ns, twin.end_ns, twin.name) == (3, 4, "x")
    twin.record(5)
    assert histogram.count == 2


def test_a_cleared_histogram_is_as_new_at_the_same_address() -> None:
    histogram = filled([1, -1, HIGHEST])
    address, histogram.begin_ns = histogram.address, 1
    histogram.clear()
    assert content(histogram) == content(Histogram())
    assert histogram.address == address
    assert histogram.begin_ns is None


def test_merging_one_with_itself_doubles_it() -> None:
    histogram = filled([1, 2, -3])
    histogram.merge(histogram)
    assert content(histogram) == content(filled([1, 2, -3] * 2))


def test_merging_makes_the_time_span_cover_both() -> None:
    one, other = Histogram(), Histogram()
    other.begin_ns, other.end_ns = 5, 9
    one.merge(other)
    assert (one.begin_ns, one.end_ns) == (5, 9)
    other.begin_ns, other.end_ns = 2, 7
    one.merge(other)
    assert (one.begin_ns, one.end_ns) == (2, 9)


@settings(max_examples=30)
@given(lists)
def test_the_table_has_a_row_a_percentile_and_tells_what_lies_above_it(given: list[int]) -> None:
    histogram = filled(given)
    frame = histogram.to_frame([0.5, 0.999, 1.0])
    assert list(frame.index) == ["p50", "p99.9", "p100"]
    assert frame.index.name == "percentile"
    inside = [value for value in given if 0 <= value <= TOP]
    if inside:
        assert frame["value_ns"].tolist() == histogram.quantiles([0.5, 0.999, 1.0])
        assert frame["above"].iloc[-1] == 0
        low, high, counts = histogram.buckets()
        bucket = int(np.flatnonzero((low <= frame["value_ns"].iloc[0]) & (frame["value_ns"].iloc[0] <= high))[0])
        assert frame["above"].iloc[0] == counts[bucket + 1 :].sum()
    else:
        assert frame["value_ns"].isna().all()
        assert frame["above"].tolist() == [0, 0, 0]


def test_buckets_say_what_range_each_count_is_of() -> None:
    low, high, counts = filled([0, 255, 256, 257, 258, 258]).buckets()
    assert list(zip(low, high, counts, strict=True)) == [(0, 0, 1), (255, 255, 1), (256, 257, 2), (258, 259, 2)]


def test_the_precision_is_that_of_the_sub_buckets() -> None:
    assert Histogram().precision <= 0.004
    assert Histogram(1_024).precision <= 0.0005


def test_a_histogram_tells_itself_in_one_line() -> None:
    histogram = Histogram(name="sojourn")
    assert repr(Histogram()) == "Histogram(0 values)"
    histogram.record_many([1_000] * 99 + [2_000_000, -1, TOP + 1])
    assert repr(histogram) == (
        "Histogram('sojourn': 100 values, p50 1 µs, p99 1 µs, p99.9 2 ms, max 53,375 days, "
        "1 negative, 1 beyond the top)"
    )


def test_a_notebook_shows_it_as_a_table_with_the_name_escaped() -> None:
    histogram = filled([1_000, -5])
    histogram.name = "<b>"
    shown = histogram._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "<b>: " not in shown
    assert "1 values, 1 negative" in shown
    assert "<td>-5 ns</td>" in shown
    assert "none" in Histogram()._repr_html_()


def test_statistics_are_frozen_figures() -> None:
    histogram = filled([10, 20, 30, -1])
    told = histogram.statistics()
    histogram.record(99)
    assert (told.count, told.negative, told.minimum, told.maximum, told.mean, told.p50) == (3, 1, -1, 30, 20, 20)
    with pytest.raises(AttributeError):
        told.count = 4  # type: ignore[misc]


def test_it_is_had_from_the_front_door() -> None:
    assert hl.Histogram is Histogram
    assert hl.metrics.Histogram is Histogram
