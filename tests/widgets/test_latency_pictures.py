from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.metrics import Histogram
from hftlab.widgets.latency_pictures import BARS, PER_DECADE, axis, picture, read_picture


def histogram(*values: int) -> Histogram:
    made = Histogram()
    made.record_many(np.array(values, np.int64))
    return made


VALUES = st.lists(st.integers(0, 1 << 62), min_size=1, max_size=200)


@given(VALUES)
def test_the_bars_hold_all_values_whatever_their_range(values: list[int]) -> None:
    percent, _ = read_picture(picture([histogram(*values)], ["a"]))
    assert percent.shape == (1, BARS)
    assert percent.sum() == pytest.approx(100, abs=1e-3)
    assert (percent >= 0).all()


@given(VALUES)
def test_the_axis_holds_all_buckets_is_a_decade_at_least_and_ends_at_1_2_or_5(values: list[int]) -> None:
    made = histogram(*values)
    low, high = axis([made])
    least, greatest, _ = made.buckets()
    assert low <= max(float(least[0]), 0.5)
    assert high >= float(greatest[-1])
    assert high >= 10 * low * (1 - 1e-9)
    for end in (low, high):
        assert round(end / 10.0 ** math.floor(math.log10(end) + 1e-9), 6) in (1, 2, 5)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=300))
def test_the_percentile_curve_is_what_the_histogram_says_and_ends_where_nobody_knows(values: list[int]) -> None:
    made = histogram(*values)
    shown = picture([made], ["a"])
    _, curves = read_picture(shown)
    curve = curves[0]
    assert len(curve) == shown["decades"] * PER_DECADE + 1
    known = ~np.isnan(curve)
    assert known[0]
    assert not np.any(np.diff(known.astype(int)) > 0)
    assert (np.diff(curve[known]) >= 0).all()
    for decades, quantile in ((1, 0.9), (2, 0.99), (3, 0.999)):
        told = curve[decades * PER_DECADE]
        if len(values) < 10**decades:
            assert math.isnan(told)
        else:
            assert told == pytest.approx(made.quantile(quantile), rel=2 * made.precision, abs=1)


def test_two_runs_are_drawn_on_the_same_axes() -> None:
    shown = picture([histogram(1_000, 1_000), histogram(900_000)], ["now", "before"])
    percent, _ = read_picture(shown)
    first, second = np.flatnonzero(percent[0]), np.flatnonzero(percent[1])
    assert first.max() < second.min()
    assert shown["counts"] == [2, 1]
    assert shown["most"] == [1_000.0, 900_000.0]


def test_the_percentiles_axis_grows_with_what_is_known() -> None:
    made = Histogram()
    made.record(5, 1_000)
    assert picture([made], ["a"])["decades"] == 4
    made.record(5, 3_000_000)
    assert picture([made], ["a"])["decades"] == 7


def test_what_is_beyond_the_top_is_no_end_of_the_curve() -> None:
    made = histogram(1_000)
    made.record((1 << 62) + 5)
    assert picture([made], ["a"])["most"][0] == pytest.approx(1_000, rel=0.01)


def test_without_values_there_are_axes_and_no_curve() -> None:
    shown = picture([Histogram(), histogram(-5)], ["a", "b"])
    percent, values = read_picture(shown)
    assert not percent.any()
    assert np.isnan(values).all()
    assert (shown["low"], shown["high"]) == (1e3, 1e6)
    assert shown["nothing"] == "nothing has been recorded yet"
    assert picture([histogram(-5)], ["a"])["nothing"] == "all values are negative, or beyond the top"


def test_the_axis_stands_still_while_values_come_that_lie_within_it() -> None:
    made = histogram(2_100, 40_000)
    before = axis([made])
    made.record_many(np.arange(2_100, 40_000, 7))
    assert axis([made]) == before
