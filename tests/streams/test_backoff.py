"""Backoff: bounded, jittered delays up to a deadline, and pure."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.streams.backoff import Backoff, BackoffPolicy

POLICY = BackoffPolicy(first_s=0.1, cap_s=1.0, deadline_s=10.0)


@given(seed=st.integers(0, 1 << 32), work_s=st.lists(st.floats(0, 3), max_size=60))
def test_a_delay_never_exceeds_its_exponential_bound_the_cap_or_the_deadline(seed: int, work_s: list[float]) -> None:
    backoff = Backoff(POLICY, random.Random(seed), 0.0)
    now = 0.0
    for attempt, spent in enumerate(work_s):
        now += spent
        delay = backoff.failed(now)
        assert (delay is None) == (now >= POLICY.deadline_s)
        if delay is None:
            break
        assert 0 <= delay <= min(1.0, 0.1 * 2**attempt)
        assert now + delay <= POLICY.deadline_s + 1e-9
        now += delay


@given(seed=st.integers(0, 1 << 32))
def test_the_same_seed_gives_the_same_delays(seed: int) -> None:
    one, other = (Backoff(POLICY, random.Random(seed), 0.0) for _ in range(2))
    assert [one.failed(0.0) for _ in range(20)] == [other.failed(0.0) for _ in range(20)]


def test_delays_use_the_whole_range_below_their_bound() -> None:
    policy = BackoffPolicy(first_s=1.0, cap_s=1.0, deadline_s=100.0)
    delays = [Backoff(policy, random.Random(seed), 0.0).failed(0.0) or 0.0 for seed in range(400)]
    assert min(delays) < 0.05
    assert max(delays) > 0.95
    assert 0.4 < sum(delays) / len(delays) < 0.6


def test_progress_begins_the_deadline_and_the_delays_anew() -> None:
    backoff = Backoff(POLICY, random.Random(1), 0.0)
    for _ in range(10):
        backoff.failed(5.0)
    backoff.progressed(9.0)
    assert backoff.attempts == 0
    assert backoff.remaining_s(9.0) == 10.0
    delay = backoff.failed(18.0)
    assert delay is not None
    assert delay <= 0.1
    assert backoff.failed(19.0) is None


def test_the_number_of_tries_may_grow_without_bound() -> None:
    backoff = Backoff(POLICY, random.Random(1), 0.0)
    assert all(0 <= (backoff.failed(1.0) or 0.0) <= 1.0 for _ in range(5_000))


@pytest.mark.parametrize(
    "wrong", [{"first_s": 0}, {"first_s": 2, "cap_s": 1}, {"deadline_s": 0}, {"deadline_s": float("inf")}]
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="deadline_s"):
        BackoffPolicy(**wrong)


def test_time_that_was_excused_does_not_count_towards_the_deadline() -> None:
    backoff = Backoff(BackoffPolicy(deadline_s=10.0), random.Random(0), 0.0)
    assert backoff.failed(1.0) is not None
    backoff.excuse(30.0)
    assert backoff.remaining_s(31.0) == 9.0
    assert backoff.failed(39.0) is not None
    assert backoff.failed(40.0) is None
