"""How a clock gets to UTC: slewed, bounded, never back; and how far it is to be trusted meanwhile."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.clock import ClockState, Estimate
from hftlab.clock.discipline import PHI_PPB, Discipline
from hftlab.clock.line import Line
from hftlab.errors import ValidationError

SECOND = 1_000_000_000
UTC = 1_700_000_000 * SECOND


def make(**settings: Any) -> Discipline:
    return Discipline(Line.plain(0, UTC), **settings)


def estimate(at_ns: int, ahead_ns: int = 0, bound_ns: int = 1_000, **told: Any) -> Estimate:
    """UTC is ahead of the clock that was never disciplined by so much."""
    return Estimate(at_ns=at_ns, offset_ns=UTC + ahead_ns, bound_ns=bound_ns, servers=("a",), **told)


def test_an_offset_is_slewed_away_at_the_greatest_rate_and_no_faster() -> None:
    known = make()
    known.update(10 * SECOND, estimate(10 * SECOND, ahead_ns=5_000_000))
    assert known.line.at(10 * SECOND) == UTC + 10 * SECOND, "no step"
    assert known.reading(10 * SECOND).offset_ns == 5_000_000
    assert known.line.at(15 * SECOND) - UTC - 15 * SECOND == pytest.approx(2_500_000, abs=1)
    for later_s in (20, 21, 1_000):
        assert known.reading(later_s * SECOND).offset_ns == pytest.approx(0, abs=1)
    assert known.line.gain_at(30 * SECOND) == 0.0


def test_a_clock_that_is_ahead_runs_slower_and_never_back() -> None:
    known = make(max_slew_ppm=100_000)
    known.update(SECOND, estimate(SECOND, ahead_ns=-SECOND))
    shown = [known.line.at(SECOND + step) for step in range(0, 20 * SECOND, 1_000_003)]
    assert shown == sorted(shown)
    assert known.reading(11 * SECOND).offset_ns == pytest.approx(0, abs=1)


@given(
    st.lists(
        st.tuples(st.integers(1, 100 * SECOND), st.integers(-SECOND, SECOND), st.none() | st.floats(-500_000, 500_000)),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from([1.0, 500.0, 100_000.0]),
)
def test_whatever_the_estimates_say_time_neither_falls_nor_runs_too_fast(
    told: list[tuple[int, int, float | None]], max_slew_ppm: float
) -> None:
    known = make(max_slew_ppm=max_slew_ppm)
    now_ns, before, drift = 0, known.line.at(0), 0.0
    for step_ns, ahead_ns, drift_ppb in told:
        for part in (step_ns // 3, step_ns - step_ns // 3):
            now_ns += part
            after = known.line.at(now_ns)
            assert after >= before
            # At most the slew on top of the drift that the latest estimate stated.
            assert abs(after - before - part - part * drift) <= part * max_slew_ppm * 1e-6 + 2
            before = after
        known.update(now_ns, estimate(now_ns, ahead_ns, drift_ppb=drift_ppb))
        assert known.line.at(now_ns) == before
        drift = drift if drift_ppb is None else drift_ppb * 1e-9
    latest = known.reading(now_ns + 10**17)
    # Left alone it gets there, and stays with what the drift says.
    assert abs(latest.offset_ns) <= 10**17 * 1e-15 + 3


@given(st.integers(-400_000, 400_000), st.floats(0, 50_000), st.integers(1, 3_000))
def test_the_bound_holds_in_holdover_while_the_drift_is_as_stated(true_ppb: int, off_ppb: float, later_s: int) -> None:
    known = make()
    at_ns = 5 * SECOND
    known.update(at_ns, estimate(at_ns, bound_ns=100, drift_ppb=true_ppb + off_ppb, drift_bound_ppb=max(off_ppb, 1.0)))
    now_ns = at_ns + later_s * SECOND
    truth = UTC + now_ns + math.floor(later_s * true_ppb)
    reading = known.reading(now_ns)
    assert reading.bound_ns is not None
    assert abs(reading.utc_ns - truth) <= reading.bound_ns


def test_a_clock_is_synced_then_in_holdover_then_nobody_knows() -> None:
    known = make(holdover_after_s=100, unsynced_bound_ns=10_000_000)
    assert known.state(0) is ClockState.UNSYNCED
    assert known.bound_ns(0) is None
    known.update(SECOND, estimate(SECOND))
    assert known.state(SECOND) is known.state(101 * SECOND) is ClockState.SYNCED
    assert known.state(102 * SECOND) is ClockState.HOLDOVER
    assert known.bound_ns(102 * SECOND) == 1_000 + math.ceil(101 * PHI_PPB) + 1
    # 10 ms at 15 ppm are 667 s.
    assert known.state(660 * SECOND) is ClockState.HOLDOVER
    assert known.state(680 * SECOND) is ClockState.UNSYNCED
    known.update(700 * SECOND, estimate(700 * SECOND))
    assert known.state(700 * SECOND) is ClockState.SYNCED


@pytest.mark.parametrize(("spacing_s", "after_s"), [(64, 300), (300, 1_200), (1_024, 4_096), (50_000, 4_096)])
def test_unless_told_a_clock_is_in_holdover_after_four_polls_and_five_minutes_at_least(
    spacing_s: int, after_s: int
) -> None:
    known, at_ns = make(), (1 + spacing_s) * SECOND
    known.update(SECOND, estimate(SECOND))
    known.update(at_ns, estimate(at_ns))
    assert known.state(at_ns + after_s * SECOND) is ClockState.SYNCED
    assert known.state(at_ns + after_s * SECOND + 1) is ClockState.HOLDOVER


SERVED = st.tuples(
    st.integers(1, 2_000 * SECOND),  # since the last estimate
    st.integers(0, 3 * SECOND),  # the estimate's age when it is heard of
    st.integers(0, 50_000_000),  # its bound
    st.floats(-1, 1),  # where the truth lies within that
    st.booleans(),  # whether it knows the drift
    st.floats(0.0, 50_000),  # how far that may be off
    st.floats(-1, 1),  # and is
)


@given(st.floats(-15_000, 15_000), st.lists(SERVED, min_size=1, max_size=8), st.integers(0, 10_000 * SECOND))
def test_utc_is_within_the_bound_as_long_as_the_estimates_bounds_hold(
    true_ppb: float, served: list[tuple[int, int, int, float, bool, float, float]], later_ns: int
) -> None:
    known = make(unsynced_bound_ns=1 << 60)
    true = Fraction(true_ppb) / SECOND

    def check(now_ns: int) -> None:
        reading = known.reading(now_ns)
        if reading.bound_ns is None:
            return
        assert reading.now_ns == known.line.at(now_ns)
        assert abs(reading.utc_ns - (UTC + now_ns + now_ns * true)) <= reading.bound_ns

    at_ns = now_ns = 0
    for spacing_ns, age_ns, bound_ns, within, knows, off_ppb, off in served:
        at_ns = max(at_ns + spacing_ns, now_ns - age_ns)
        check(max(now_ns, at_ns))
        now_ns = max(now_ns, at_ns + age_ns)
        ahead_ns = math.floor(at_ns * true) + round(bound_ns * within * 0.999)
        # A drift that nobody knows is the last that somebody did: that may be off by 15 ppm from the truth only.
        told = {"drift_ppb": true_ppb + off_ppb * off, "drift_bound_ppb": off_ppb} if knows else {"drift_ppb": 0.0}
        known.update(now_ns, estimate(at_ns, ahead_ns, bound_ns + 1, **told))
        check(now_ns)
        check(now_ns + later_ns)
    assert known.refused == 0


def test_after_a_sleep_nothing_is_known_until_the_next_estimate() -> None:
    known = make()
    known.update(SECOND, estimate(SECOND, drift_ppb=7_000.0))
    known.suspended(for_ns=3_600 * SECOND)
    assert (known.state(2 * SECOND), known.bound_ns(2 * SECOND)) == (ClockState.UNSYNCED, None)
    assert (known.suspensions, known.suspended_ns) == (1, 3_600 * SECOND)
    shown = known.line.at(2 * SECOND)
    known.update(2 * SECOND, estimate(2 * SECOND, ahead_ns=3_600 * SECOND))
    assert known.line.at(2 * SECOND) == shown
    assert known.reading(2 * SECOND).offset_ns == pytest.approx(3_600 * SECOND, rel=0.01)
    assert known.step_forward(2 * SECOND).at(2 * SECOND) == pytest.approx(shown + 3_600 * SECOND, rel=1e-6)


def test_no_clock_steps_back() -> None:
    known = make()
    known.update(SECOND, estimate(SECOND, ahead_ns=-SECOND))
    line = known.line
    assert known.step_forward(2 * SECOND) == line


@pytest.mark.parametrize(
    "bad",
    [
        {"drift_ppb": math.nan},
        {"drift_ppb": 600_000.0},
        {"drift_ppb": 1.0, "drift_bound_ppb": math.inf},
        {"wander_ppb": math.nan},
        {"bound_ns": -1},
        {"ahead_ns": 1 << 62},
        {"ahead_ns": -(1 << 62)},
        {"at_ns": SECOND},
        {"at_ns": 3 * SECOND},
    ],
)
def test_estimates_that_no_clock_can_be_told_by_are_refused_and_counted(bad: dict[str, Any]) -> None:
    known = make()
    line = known.update(SECOND, estimate(SECOND))
    told = {"at_ns": 2 * SECOND, "ahead_ns": 99, **bad}
    assert known.update(2 * SECOND, estimate(**told)) == line
    assert known.refused == 1


@pytest.mark.parametrize("what", ["max_slew_ppm", "holdover_after_s", "unsynced_bound_ns"])
@pytest.mark.parametrize("value", [0, -1, math.nan, "1", True, 1e30])
def test_settings_out_of_bounds_are_refused(what: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=f"{what} is a number from"):
        make(**{what: value})
