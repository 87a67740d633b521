"""How fast UTC gains on the counter: found among jitter and outliers, within a bound that holds."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.clock.ntp.drift import (
    LEAST_SAMPLES,
    MOST_SAMPLES,
    MOST_SPAN_NS,
    DriftHistory,
    feasible_slopes,
    weighted_slope,
)
from tests.clock.ntp.synthetic import SECOND_NS, Delays, exchange, internet, lan, truth_ns


def history(
    drift_ppb: float, seed: int, *, answers: int = 64, every_s: float = 64, delays: Delays = internet,
    slow_part: float = 0.0,
) -> DriftHistory:  # fmt: skip
    """Honest answers; ``slow_part`` of them took up to 0.2 s more, in one direction."""
    chance, found = random.Random(seed), DriftHistory()
    for number in range(answers):
        at_ns = round(number * every_s * SECOND_NS)
        delay_ns, asymmetry = delays(chance), chance.uniform(-0.3, 0.3)
        if chance.random() < slow_part:
            delay_ns, asymmetry = delay_ns + round(chance.uniform(0.05, 0.2) * 1e9), chance.choice((-1.0, 1.0))
        found.add(exchange(at_ns, truth=truth_ns(at_ns, drift_ppb), delay_ns=delay_ns, asymmetry=asymmetry))
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("drift_ppb", [-200_000.0, -12_345.0, 0.0, 37_000.0, 200_000.0])
def test_the_drift_is_found_within_its_bound_among_jitter_and_one_slow_answer_in_five(
    drift_ppb: float, seed: int
) -> None:
    drift = history(drift_ppb, seed, slow_part=0.2).drift
    assert drift is not None
    assert drift.low_ppb <= drift_ppb <= drift.high_ppb
    assert abs(drift.ppb - drift_ppb) <= drift.bound_ppb < 12_000  # 40 ms of intervals over an hour and more
    assert abs(drift.ppb - drift_ppb) < 3_000


def test_on_a_lan_the_drift_is_known_to_less_than_a_tenth_of_a_ppm() -> None:
    drift = history(-8_000.0, 1, delays=lan).drift
    assert drift is not None
    assert abs(drift.ppb + 8_000) <= drift.bound_ppb < 100


def test_the_estimate_lies_in_the_middle_of_the_jitter_and_far_closer_than_its_bound() -> None:
    errors = []
    for seed in range(20):
        drift = history(0.0, seed).drift
        assert drift is not None
        errors.append(drift.ppb)
    assert abs(float(np.mean(errors))) < 100  # of a single one: 370, typically


def test_the_drift_is_not_known_before_eight_answers_nor_over_a_span_that_says_nothing() -> None:
    assert history(0.0, 1, answers=LEAST_SAMPLES - 1).drift is None
    assert history(0.0, 1, answers=LEAST_SAMPLES).drift is not None
    assert history(0.0, 1, answers=64, every_s=0.1).drift is None


def test_of_more_than_128_answers_the_better_of_two_neighbours_stays_and_with_it_the_old_ones_drift() -> None:
    kept = history(25_000.0, 1, answers=10 * MOST_SAMPLES, every_s=2)
    assert MOST_SAMPLES // 2 <= len(kept) <= MOST_SAMPLES
    drift = kept.drift
    assert drift is not None
    assert abs(drift.ppb - 25_000) <= drift.bound_ppb < 15_000  # the last 128 alone would say 80 ppm
    kept.clear()
    assert (len(kept), kept.drift) == (0, None)


def test_answers_are_forgotten_after_six_hours() -> None:
    kept = history(0.0, 1, answers=100, every_s=1_024)
    assert len(kept) == MOST_SPAN_NS // (1_024 * SECOND_NS) + 1


def test_when_the_frequency_changes_the_oldest_answers_are_forgotten_until_one_line_goes_through() -> None:
    chance, changing = random.Random(3), DriftHistory()
    truth, before_ppb, after_ppb = truth_ns(0), 10_000.0, 60_000.0
    for number in range(100):
        truth += round(64 * (before_ppb if number < 50 else after_ppb))
        changing.add(exchange(number * 64 * SECOND_NS, truth=truth, delay_ns=lan(chance)))
        assert changing.drift is not None or number < 60
    drift = changing.drift
    assert drift is not None
    assert changing.shortened > 0
    assert drift.low_ppb <= after_ppb <= drift.high_ppb


def test_wander_is_how_much_the_drift_changes() -> None:
    chance = random.Random(5)

    def wander(step_ppb: float) -> float:
        wandering, truth, drift_ppb = DriftHistory(), truth_ns(0), 20_000.0
        for number in range(64):
            if number % 16 == 0:
                drift_ppb += step_ppb * (-1) ** (number // 16)
            truth += round(64 * drift_ppb)
            # An interval wide enough that a line goes through all; it is the offsets that tell.
            wandering.add(exchange(number * 64 * SECOND_NS, truth=truth, delay_ns=lan(chance), root_ns=10**9))
        return wandering.wander_ppb

    assert wander(0.0) < 50
    assert 200 < wander(500.0) < 500
    assert history(0.0, 1, answers=15).wander_ppb == 0.0


points = st.lists(
    st.tuples(st.integers(1, 10**12), st.integers(0, 10**9), st.floats(-1, 1)), min_size=LEAST_SAMPLES, max_size=40
)


@given(drift_ppb=st.floats(-200_000, 200_000), answers=points)
@settings(max_examples=60)
def test_the_bound_holds_whatever_the_delays_and_their_asymmetry(
    drift_ppb: float, answers: list[tuple[int, int, float]]
) -> None:
    honest, at_ns = DriftHistory(), 0
    for gap_ns, delay_ns, asymmetry in answers:
        at_ns += gap_ns
        honest.add(exchange(at_ns, truth=truth_ns(at_ns, drift_ppb), delay_ns=delay_ns, asymmetry=asymmetry))
    drift = honest.drift
    assert honest.shortened == 0
    if drift is not None:
        assert abs(drift.ppb - drift_ppb) <= drift.bound_ppb + 1e-6


def test_the_slope_shrugs_off_a_fifth_of_points_that_are_far_away() -> None:
    chance = np.random.default_rng(11)
    at_s = np.arange(100.0)
    offsets = 42.0 * at_s + chance.normal(0, 1, 100)
    offsets[chance.choice(100, 20, replace=False)] += 1e6
    assert abs(weighted_slope(at_s, offsets, np.ones(100)) - 42.0) < 0.5


def test_no_slope_is_feasible_where_no_line_goes_through_all_intervals() -> None:
    low, high = feasible_slopes(np.arange(3.0), np.array([0.0, 100.0, 0.0]), np.ones(3))
    assert low > high
