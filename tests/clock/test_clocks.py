"""Clocks never run backwards, and a virtual one stands where it was put."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.clock import Clock, SystemClock, VirtualClock
from hftlab.errors import ValidationError


def test_the_system_clock_tells_utc_and_never_falls() -> None:
    clock: Clock = SystemClock()
    before = time.time_ns()
    times = [clock.now_ns() for _ in range(1_000)]
    assert times == sorted(times)
    # Not a timing: a wrong anchor would be off by the time since boot. An hour allows for a step of the system's clock.
    assert abs(times[0] - before) < 3_600_000_000_000
    assert repr(clock) == "SystemClock()"


def test_two_system_clocks_agree_however_late_one_is_made() -> None:
    assert abs(SystemClock().now_ns() - SystemClock().now_ns()) < 3_600_000_000_000


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("advance_to"), st.integers(-100, 100)),
        st.tuples(st.just("advance"), st.integers(0, 50)),
        st.tuples(st.just("follow"), st.one_of(st.none(), st.integers(-100, 100))),
        st.tuples(st.just("source"), st.integers(-100, 100)),
    ),
    max_size=30,
)


@given(st.integers(-100, 100), STEPS)
def test_a_virtual_clock_is_the_latest_moment_that_it_was_given(
    start_ns: int, steps: list[tuple[str, int | None]]
) -> None:
    clock = VirtualClock(start_ns)
    now, source, following = start_ns, [0], False
    for what, value in steps:
        if what == "follow":
            clock.follow(None if value is None else lambda: source[0])
            following = value is not None
        elif what == "source":
            assert value is not None
            source[0] = value
        elif what == "advance_to":
            assert value is not None
            clock.advance_to(value)
            now = max(now, value)
        else:
            assert value is not None
            if following:
                now = max(now, source[0])
            clock.advance(value)
            now += value
        if following:
            now = max(now, source[0])
        assert clock.now_ns() == now
    assert repr(clock) == f"VirtualClock({now})"


def test_a_virtual_clock_keeps_what_it_followed_when_that_is_taken_away() -> None:
    clock = VirtualClock(5)
    moment = [10]
    clock.follow(lambda: moment[0])
    moment[0] = 20
    clock.follow(None)
    moment[0] = 30
    assert clock.now_ns() == 20


def test_a_virtual_clock_is_not_wound_back() -> None:
    clock = VirtualClock(5)
    with pytest.raises(ValidationError, match="forwards only; got -1 ns"):
        clock.advance(-1)
    assert clock.now_ns() == 5
