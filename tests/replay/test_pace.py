"""When rows are due: a pure machine, with the wall's time passed in."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.replay.pace import Pace, check_gap, check_speed

SECOND = 1_000_000_000


def arrivals(*seconds: float) -> np.ndarray:
    return np.array([round(second * SECOND) for second in seconds], np.int64)


def test_in_real_time_a_row_is_due_when_its_arrival_comes() -> None:
    pace = Pace(1.0)
    paced = pace.paced(arrivals(100, 101, 102.5))
    assert pace.ready(paced, 7 * SECOND) == 1, "the first one is due at once"
    assert pace.ready(paced[1:], round(7.99 * SECOND)) == 0
    assert pace.due_ns(int(paced[1]), 0) == 8 * SECOND
    assert pace.ready(paced[1:], 8 * SECOND) == 1
    assert pace.ready(paced[2:], round(9.5 * SECOND)) == 1


def test_flat_out_everything_is_due_and_standing_still_nothing_is() -> None:
    paced = arrivals(1, 2, 3)
    assert Pace(math.inf).ready(paced, 0) == 3
    assert Pace(0).ready(paced, 10 * SECOND) == 0
    assert Pace(0).due_ns(0, 0) == math.inf


@given(
    gaps=st.lists(st.integers(0, 10**9), min_size=1, max_size=50),
    cuts=st.lists(st.integers(1, 7), min_size=1),
    speed=st.sampled_from([0.5, 1.0, 3.0, 10.0]),
)
def test_due_times_do_not_depend_on_how_rows_come_in_and_never_drift(
    gaps: list[int], cuts: list[int], speed: float
) -> None:
    times = np.cumsum(np.array(gaps, np.int64)) + 10**18
    pace, due, at, turn = Pace(speed), [], 0, 0
    wall = 5 * SECOND
    while at < len(times):
        piece = pace.paced(times[at : at + cuts[turn % len(cuts)]])
        due += [pace.due_ns(int(paced), wall) for paced in piece]
        at, turn = at + len(piece), turn + 1
    exact = [wall + (int(time) - int(times[0])) / speed for time in times]
    assert due == pytest.approx(exact, abs=512)  # a float's step at 10**18 ns is 128


@given(
    moments=st.lists(st.tuples(st.integers(1, 10**9), st.sampled_from([0.5, 1.0, 4.0, 0.0])), min_size=1, max_size=20)
)
def test_the_time_reached_is_the_sum_of_what_each_speed_covered(moments: list[tuple[int, float]]) -> None:
    pace, wall, covered = Pace(1.0), 0, 0.0
    first = 10**6
    pace.ready(arrivals(0) + first, wall)
    speed = 1.0
    for duration, following in moments:
        wall += duration
        covered += duration * speed
        pace.change(following, wall)
        speed = following
        # Somebody always asks after a change: that is what sets time going again.
        pace.ready(arrivals(0) + first, wall)
    far = np.array([first + 10**15], np.int64)
    if speed:
        assert pace.due_ns(int(far[0]), wall) == pytest.approx(wall + (10**15 - covered) / speed, rel=1e-6)


def test_the_wall_does_not_count_while_the_replay_is_held() -> None:
    pace = Pace(1.0)
    paced = pace.paced(arrivals(0, 10))
    assert pace.ready(paced, 0) == 1
    pace.hold(4 * SECOND)
    assert pace.ready(paced[1:], 100 * SECOND) == 0
    assert pace.due_ns(int(paced[1]), 100 * SECOND) == 106 * SECOND


def test_rows_that_were_stepped_over_are_not_waited_for() -> None:
    pace = Pace(1.0)
    paced = pace.paced(arrivals(0, 60, 61))
    pace.ready(paced, 0)
    pace.skip_to(int(paced[1]))
    assert pace.due_ns(int(paced[2]), 5 * SECOND) == 6 * SECOND


def test_after_flat_out_the_next_row_is_due_at_once() -> None:
    pace = Pace(math.inf)
    pace.ready(pace.paced(arrivals(0, 1)), 0)
    pace.change(1.0, 3 * SECOND)
    assert pace.ready(arrivals(100, 101), 4 * SECOND) == 1


@given(
    gaps=st.lists(st.integers(0, 10**10), min_size=1, max_size=30),
    longest=st.integers(0, 10**10),
    cut=st.integers(1, 9),
)
def test_long_silences_are_shortened_and_short_ones_kept(gaps: list[int], longest: int, cut: int) -> None:
    times = np.cumsum(np.array(gaps, np.int64)) + 10**15
    pace = Pace(1.0, longest)
    paced = np.concatenate([pace.paced(times[begin : begin + cut]) for begin in range(0, len(times), cut)])
    assert np.diff(paced).tolist() == [min(gap, longest) for gap in gaps[1:]]


def test_arrivals_that_run_backwards_are_due_with_the_latest_so_far() -> None:
    pace = Pace(1.0)
    assert pace.paced(arrivals(5, 3, 6)).tolist() == arrivals(5, 5, 6).tolist()
    assert pace.paced(arrivals(4, 7)).tolist() == arrivals(6, 7).tolist()


@pytest.mark.parametrize("speed", [-1, math.nan, "fast", True, None])
def test_a_speed_that_is_none_is_refused(speed: object) -> None:
    with pytest.raises(ValidationError, match="speed is a number of at least 0"):
        check_speed(speed)


@pytest.mark.parametrize("gap", [-1, math.nan, "short", True, math.inf])
def test_a_gap_that_is_none_is_refused(gap: object) -> None:
    with pytest.raises(ValidationError, match="max_gap_s is a number of seconds"):
        check_gap(gap)
