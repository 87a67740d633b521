from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.metrics import Rate, RateMeter

SECOND = 1_000_000_000
steps = st.lists(
    st.tuples(st.integers(0, 3 * SECOND) | st.sampled_from([0, 1, SECOND // 20]), st.integers(0, 9), st.integers(0, 9)),
    max_size=40,
)


@given(steps, st.integers(0, 10 * SECOND))
def test_a_window_holds_exactly_the_events_of_the_time_that_it_says(
    steps: list[tuple[int, int, int]], begin_ns: int
) -> None:
    meter = RateMeter(begin_ns, windows_s=(1.0, 5.0, 0.33))
    now_ns, added = begin_ns, []
    for passed, events, errors in steps:
        now_ns += passed
        meter.add(now_ns, events + errors, errors)
        added.append((now_ns, events + errors, errors))
        for rate in meter.rates(now_ns):
            # A slot's first moment is in it: what came exactly when the span began counts.
            inside = [one for one in added if one[0] >= now_ns - rate.span_ns]
            assert rate.events == sum(events for _, events, _ in inside)
            assert rate.errors == sum(errors for _, _, errors in inside)
            assert rate.span_ns <= rate.window_ns
            assert rate.span_ns >= min(rate.window_ns - 330_000_000 // 10, now_ns - begin_ns)
    assert (meter.events, meter.errors) == (sum(one[1] for one in added), sum(one[2] for one in added))


def test_a_steady_stream_has_its_rate_in_every_window() -> None:
    meter = RateMeter(0)
    for number in range(1, 3_001):
        meter.add(number * 10_000_000, 5, 1)
    for rate in meter.rates(30 * SECOND):
        assert rate.per_second == pytest.approx(500, rel=0.02)
        assert rate.error_rate == 0.2
    assert str(meter.rates(30 * SECOND)[0]).endswith("/s over 1 s, 20.00% errors")


def test_silence_empties_the_windows_one_after_the_other_and_totals_stay() -> None:
    meter = RateMeter(0, windows_s=(1, 10))
    meter.add(SECOND, 100)
    assert [rate.events for rate in meter.rates(5 * SECOND)] == [0, 100]
    assert [rate.events for rate in meter.rates(10**9 * SECOND)] == [0, 0]
    assert [rate.per_second for rate in meter.rates(10**9 * SECOND)] == [0, 0]
    assert meter.events == 100
    assert repr(meter) == "RateMeter(100 events, 0 errors; 0/s over 1 s; 0/s over 10 s)"


def test_a_young_meter_divides_by_its_age_and_a_new_one_says_nothing() -> None:
    meter = RateMeter(7 * SECOND, windows_s=[10])
    assert meter.rates(7 * SECOND) == (Rate(10 * SECOND, 0, 0, 0),)
    assert meter.rates(7 * SECOND)[0].per_second == 0
    meter.add(7 * SECOND + SECOND // 2, 50)
    assert meter.rates(8 * SECOND)[0].per_second == 50


def test_a_clock_that_went_back_loses_nothing() -> None:
    meter = RateMeter(100 * SECOND)
    meter.add(101 * SECOND, 1)
    meter.add(3 * SECOND, 1)
    assert meter.rates(50 * SECOND)[0].events == 2


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: RateMeter(0, windows_s=()), "wants a window"),
        (lambda: RateMeter(0, windows_s=(0,)), "0.000001 to 1,000,000 seconds; got 0"),
        (lambda: RateMeter(0, windows_s=(float("nan"),)), "got nan"),
        (lambda: RateMeter(0, windows_s=(0.001, 60)), "at most 5,000 times the shortest"),
        (lambda: RateMeter(-1), "begin_ns is an integer of at least 0"),
        (lambda: RateMeter(0).add(1, 2, 3), "got 2 events and 3 errors"),
        (lambda: RateMeter(0).add(1, 2, -1), "got 2 events and -1 errors"),
    ],
)
def test_a_mistake_is_refused_with_the_rule_and_the_value(make: Any, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        make()
