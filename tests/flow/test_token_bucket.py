from __future__ import annotations

import copy
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.flow.token_bucket import TokenBucket

SECOND = 1_000_000_000
RATES = st.sampled_from([0.1, 1 / 3, 1.0, 7, 1_000.0, 333_333.333, 1e6, 1e9, 3.7e9])
STEPS = st.lists(st.tuples(st.sampled_from([0, 1, 100, 999_999, SECOND, 40 * SECOND]), st.integers(0, 30)), max_size=40)


@given(rate_hz=RATES, burst=st.integers(1, 20), steps=STEPS)
def test_between_any_two_moments_at_most_the_burst_and_the_rate_times_the_time_are_granted(
    rate_hz: float, burst: int, steps: list[tuple[int, int]]
) -> None:
    bucket = TokenBucket(rate_hz, burst)
    per_ns = Fraction(repr(float(rate_hz))) / SECOND
    granted: list[tuple[int, int]] = []
    now_ns = 0
    for gap_ns, wanted in steps:
        now_ns += gap_ns
        granted.append((now_ns, bucket.take(wanted, now_ns)))
    for first, (start_ns, _) in enumerate(granted):
        total = 0
        for end_ns, rows in granted[first:]:
            total += rows
            assert total <= burst + per_ns * (end_ns - start_ns)


@given(rate_hz=RATES, burst=st.integers(1, 20), steps=STEPS, back=st.integers(0, 30))
def test_it_agrees_with_a_level_in_exact_fractions(
    rate_hz: float, burst: int, steps: list[tuple[int, int]], back: int
) -> None:
    bucket = TokenBucket(rate_hz, burst)
    per_ns = Fraction(repr(float(rate_hz))) / SECOND
    level, now_ns = Fraction(burst), 0
    for gap_ns, wanted in steps:
        now_ns += gap_ns
        level = min(Fraction(burst), level + gap_ns * per_ns)
        granted = min(wanted, math.floor(level))
        level -= granted
        assert bucket.take(wanted, now_ns) == granted
        returned = min(back, granted)
        bucket.give_back(returned)
        level = min(Fraction(burst), level + returned)


@given(rate_hz=RATES, burst=st.integers(1, 20), steps=STEPS, data=st.data())
def test_the_moment_it_names_is_the_first_at_which_the_tokens_are_there(
    rate_hz: float, burst: int, steps: list[tuple[int, int]], data: st.DataObject
) -> None:
    bucket = TokenBucket(rate_hz, burst)
    now_ns = 0
    for gap_ns, wanted in steps:
        now_ns += gap_ns
        bucket.take(wanted, now_ns)
    wanted = data.draw(st.integers(1, burst), label="wanted")
    due_ns = bucket.due_ns(wanted, now_ns)
    assert due_ns >= now_ns
    if due_ns > now_ns:
        assert copy.copy(bucket).take(wanted, due_ns - 1) < wanted
    assert bucket.take(wanted, due_ns) == wanted


@given(rate_hz=RATES, burst=st.integers(1, 20), wanted=st.integers(1, 200))
def test_more_than_the_burst_is_there_when_it_says_if_taken_as_it_comes(
    rate_hz: float, burst: int, wanted: int
) -> None:
    bucket = TokenBucket(rate_hz, burst)
    earliest_ns = bucket.due_ns(wanted, 0)
    left, now_ns, pieces = wanted - bucket.take(wanted, 0), 0, 0
    while left:
        now_ns = bucket.due_ns(min(left, burst), now_ns)
        left -= bucket.take(left, now_ns)
        pieces += 1
    # Each time that the bucket is full it may lose what comes in the rest of that ns, and never more.
    assert earliest_ns <= now_ns <= earliest_ns + pieces


def test_nothing_drifts_however_often_the_clock_is_looked_at() -> None:
    bucket = TokenBucket(333_333.3, 5)
    granted = sum(bucket.take(9, at * 7) for at in range(100_001))
    assert granted == 5 + math.floor(Fraction("333333.3") * 700_000 / SECOND)


def test_a_rate_is_the_decimal_that_was_written_and_not_its_binary_neighbour() -> None:
    bucket = TokenBucket(0.1, 1)
    assert bucket.take(1, 0) == 1
    assert bucket.due_ns(10_000_000, 0) == 100_000_000 * SECOND


def test_it_begins_full_and_never_holds_more() -> None:
    bucket = TokenBucket(10, 4)
    assert bucket.take(9, 5 * SECOND) == 4
    assert bucket.take(9, 5 * SECOND) == 0
    assert bucket.take(9, 500 * SECOND) == 4
    bucket.give_back(3)
    bucket.give_back(3)
    assert bucket.take(9, 500 * SECOND) == 4


def test_time_that_runs_backwards_stands_still() -> None:
    bucket = TokenBucket(1, 2)
    assert bucket.take(2, 10 * SECOND) == 2
    assert bucket.take(1, 0) == 0
    assert bucket.due_ns(1, 5 * SECOND) == 11 * SECOND
    assert bucket.take(1, 11 * SECOND) == 1


def test_asking_for_nothing_or_less_gets_nothing() -> None:
    bucket = TokenBucket(1, 2)
    assert (bucket.take(0, 0), bucket.take(-5, 0)) == (0, 0)
    assert bucket.due_ns(0, 7) == 7
    assert bucket.take(5, 7) == 2


@pytest.mark.parametrize("rate_hz", [0, -1, math.nan, math.inf, 1e13, 10**400, True, "5", None])
def test_a_rate_that_is_none_is_refused_with_its_value(rate_hz: Any) -> None:
    with pytest.raises(
        ValidationError, match=r"rate_hz is how many a second, 1e-09 to 1e\+12 \(None: no limit\); got "
    ):
        TokenBucket(rate_hz, 1)


@pytest.mark.parametrize("burst", [0, -1, 1.5, True, None])
def test_a_burst_that_is_none_is_refused_with_its_value(burst: Any) -> None:
    with pytest.raises(ValidationError, match=f"burst is an integer of 1 to .*; got {burst}"):
        TokenBucket(1, burst)


def test_its_representation_says_rate_and_burst() -> None:
    assert repr(TokenBucket(np.float64(2_500.0), 100)) == "TokenBucket(2,500 a second, burst 100)"
