"""Two marks, one queue: against a model that keeps the whole history."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.flow.watermarks import Water, WaterLevel, Watermarks

PERCENT = st.integers(0, 100)
STEPS = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30), st.integers(0, 1_000)), max_size=40)


def marks_of(high: int, low: int) -> Watermarks:
    return Watermarks(high=high / 100, low=low / 100)


@given(PERCENT, PERCENT, STEPS)
def test_pauses_resumptions_and_times_are_those_of_the_model(high: int, low: int, steps: list[tuple[int, ...]]) -> None:
    low, high = sorted((low, high))
    if low == high:
        low, high = 0, high + 1 if high < 100 else 100
    level = WaterLevel(marks_of(high, low))
    now, paused_since = 1_000, None
    episodes: list[list[int]] = []  # when each began, and until when it is known to have lasted
    for depth, capacity, passed in steps:
        now += passed
        if paused_since is not None:
            episodes[-1][1] = now
        high_rows = math.ceil(Fraction(high, 100) * capacity)
        low_rows = min(math.floor(Fraction(low, 100) * capacity), high_rows - 1)
        expected = None
        if paused_since is None and depth >= high_rows:
            paused_since, expected = now, Water.PAUSE
            episodes.append([now, now])
        elif paused_since is not None and depth <= low_rows:
            paused_since, expected = None, Water.RESUME
        assert level.update(depth, capacity, now) is expected
        assert level.paused is (paused_since is not None)
        assert level.credits(depth, capacity) == (0 if level.paused else max(0, high_rows - depth))
        lengths = [end - begin for begin, end in episodes]
        told = level.statistics()
        assert (told.episodes, told.paused_ns, told.paused_ns_max) == (
            len(lengths),
            sum(lengths),
            max(lengths, default=0),
        )
        assert told.paused_ns == level.paused_ns
    assert level.statistics().depth_rows_max == max((depth for depth, _, _ in steps), default=0)


@given(st.integers(1, 100), PERCENT, st.integers(1, 1 << 24))
def test_the_marks_are_apart_and_within_any_capacity(high: int, low: int, capacity: int) -> None:
    high_rows, low_rows = marks_of(high, min(low, high - 1)).rows(capacity)
    assert 0 <= low_rows < high_rows <= capacity
    assert high_rows == max(1, -(-high * capacity // 100))


@given(st.integers(1, 1_000), st.integers(0, 1_000))
def test_a_source_that_keeps_to_its_credits_is_paused_at_the_high_mark_and_not_before(
    capacity: int, depth: int
) -> None:
    level = WaterLevel()
    credits = level.credits(depth, capacity)
    if credits:
        assert level.update(depth + credits - 1, capacity, 1) is None
    assert level.update(depth + credits, capacity, 2) is Water.PAUSE
    assert level.credits(0, capacity) == 0


def test_a_capacity_that_shrinks_pauses_and_one_that_grows_resumes() -> None:
    level = WaterLevel()
    assert level.update(100, 1_000, 0) is None
    assert level.update(100, 120, 10) is Water.PAUSE
    assert level.update(100, 150, 20) is None
    assert level.update(100, 200, 30) is Water.RESUME
    assert level.credits(100, 200) == 60


def test_time_that_runs_backwards_takes_nothing_back() -> None:
    level = WaterLevel()
    for now_ns in (100, 200, 150, 220):
        level.update(10, 10, now_ns)
    assert level.paused_ns == 120


@pytest.mark.parametrize(
    ("high", "low", "rule"),
    [
        (0.5, 0.5, "low is below high"),
        (0.5, 0.8, "low is below high"),
        (0, 0, "high is a fraction above 0"),
        (1.1, 0.5, "high is a fraction"),
        (0.8, -0.1, "low is a fraction of 0 to 1"),
        (math.nan, 0.1, "high is a fraction"),
        (0.8, math.nan, "low is a fraction"),
        (True, 0.5, "high is a fraction"),
        ("0.8", 0.5, "got '0.8'"),
    ],
)
def test_marks_that_make_no_sense_are_refused_with_the_rule(high: float, low: float, rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        Watermarks(high, low)


@pytest.mark.parametrize(("depth", "capacity"), [(0, 0), (-1, 10), (5, -3)])
def test_an_impossible_queue_is_refused_and_changes_nothing(depth: int, capacity: int) -> None:
    level = WaterLevel()
    level.update(9, 10, 5)
    before = level.statistics()
    with pytest.raises(ValidationError, match=f"got {depth} of {capacity}"):
        level.update(depth, capacity, 50)
    assert level.statistics() == before


def test_it_tells_its_state_in_one_line() -> None:
    level = WaterLevel(Watermarks(0.8, 0.5))
    assert repr(level) == "WaterLevel(flowing, pause at 80%, resume at 50%)"
    level.update(8, 10, 0)
    level.update(8, 10, 1_500_000_000)
    assert repr(level) == "WaterLevel(paused, pause at 80%, resume at 50%; 1 pauses, 1.500 s)"
