from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.clock import ClockState
from hftlab.widgets.clock_series import MOST_POINTS, STATE_CODES, WINDOWS, read_series, series
from tests.widgets.clocked import START_NS, reading, unknown

STATES = st.lists(st.sampled_from(list(ClockState)), max_size=2_000)


def test_readings_are_drawn_as_they_are() -> None:
    shown = series([unknown(0), reading(10, offset_ns=-5_000), reading(20, state=ClockState.HOLDOVER)], "all")
    seconds, offset, bound, drift, slew, state = read_series(shown)
    assert shown["base_ms"] == START_NS / 1e6
    assert seconds.tolist() == [0, 10, 20]
    assert offset.tolist() == [0, -5_000, 1_200]
    assert np.isnan(bound[0])
    assert bound[1:].tolist() == [340_000, 340_000]
    assert drift[1:].tolist() == [-12_300, -12_300]
    assert slew.tolist() == [0, 500, 500]
    assert state.tolist() == [0, 2, 1]


def test_a_window_ends_with_the_latest_reading() -> None:
    hours = [reading(60 * minute) for minute in range(180)]
    for window, points in (("10 minutes", 11), ("1 hour", 61), ("1 day", 180), ("all", 180)):
        assert len(read_series(series(hours, window))[0]) == points
    assert set(WINDOWS) == {name for name, _ in series([], "all")["windows"]}


@given(STATES)
def test_of_many_readings_few_are_drawn_the_ends_and_every_change_of_state_among_them(states: list[ClockState]) -> None:
    readings = [reading(place, state=state) for place, state in enumerate(states)]
    shown = read_series(series(readings, "all"))
    assert shown.shape[1] <= min(MOST_POINTS, len(readings))
    if not readings:
        return
    codes = [STATE_CODES[state] for state in states]
    drawn = shown[0].astype(int).tolist()
    assert (drawn[0], drawn[-1]) == (0, len(readings) - 1)
    assert [codes[place] for place in drawn] == shown[5].astype(int).tolist()
    changes = [place for place in range(1, len(codes)) if codes[place] != codes[place - 1]]
    if len(changes) <= MOST_POINTS // 2:
        assert set(changes) <= set(drawn)


@pytest.mark.parametrize("window", list(WINDOWS))
def test_without_readings_there_is_nothing_to_draw(window: str) -> None:
    assert read_series(series([], window)).shape == (6, 0)
