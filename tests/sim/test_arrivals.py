"""Bursts: the mean rate that was asked for, and the variance that self-excitement gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.sim.arrivals import burst_arrivals
from hftlab.sim.draws import Ints, WordStream

SECOND_NS = 1_000_000_000


def counts_of(branching: float, *, seconds: int = 2_000, rate_hz: float = 100.0, seed: int = 1) -> Ints:
    """Events in each second."""
    times = burst_arrivals(WordStream(seed, (1,)), rate_hz, branching, 20_000_000, seconds * SECOND_NS)
    return np.bincount(times // SECOND_NS, minlength=seconds).astype(np.int64)


@pytest.mark.parametrize("branching", [0.0, 0.3, 0.6, 0.8])
def test_the_mean_rate_is_what_was_asked_for_and_bursts_have_the_hawkes_variance(branching: float) -> None:
    counts = counts_of(branching)
    # The variance of counts over a second, 50 times the delay, is 1 / (1 - n)**2 times the mean, nearly.
    ratio = 1 / (1 - branching) ** 2
    assert counts.mean() == pytest.approx(100, abs=5 * np.sqrt(100 * ratio / len(counts)))
    assert counts.var() / counts.mean() == pytest.approx(ratio, rel=0.2)


def test_the_process_is_as_busy_at_its_start_as_later() -> None:
    starts = [counts_of(0.9, seconds=1, seed=seed)[0] for seed in range(300)]
    assert np.mean(starts) == pytest.approx(100, abs=5 * np.sqrt(100 * 100 / 300))


def test_events_follow_each_other_within_the_delay() -> None:
    times = burst_arrivals(WordStream(1, (1,)), 1.0, 0.5, 1_000_000, 5_000 * SECOND_NS)
    gaps = np.diff(times)
    # With one event a second, what follows within 10 ms was triggered: 0.5 children, the first of them nearer still.
    assert np.mean(gaps < 10_000_000) == pytest.approx(0.5, abs=0.05)


@given(
    rate_hz=st.floats(0.1, 1e5),
    branching=st.floats(0, 0.95),
    burst_ns=st.integers(1, SECOND_NS),
    horizon_ns=st.integers(1, SECOND_NS // 100),
)
def test_times_rise_and_lie_within_the_horizon(
    rate_hz: float, branching: float, burst_ns: int, horizon_ns: int
) -> None:
    times = burst_arrivals(WordStream(1, (1,)), rate_hz, branching, burst_ns, horizon_ns)
    assert times.dtype == np.int64
    assert np.all(np.diff(times) >= 0)
    assert not len(times) or (times[0] >= 0 and times[-1] < horizon_ns)
