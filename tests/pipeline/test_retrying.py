"""When something is tried again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.pipeline.retrying import RetryPolicy

AT = 1_700_000_000_000_000_000

policies = st.builds(
    lambda attempts, backoff, factor, more: RetryPolicy(
        attempts=attempts, backoff_s=backoff, factor=factor, longest_s=backoff + more
    ),
    st.integers(0, 50),
    st.floats(1e-6, 1e3),
    st.floats(1.0, 1e6),
    st.floats(0.0, 1e4),
)


def test_it_comes_back_ever_later_and_then_no_more() -> None:
    policy = RetryPolicy()
    dues = [(policy.due_ns(tried, AT) - AT) / 1e9 for tried in (1, 2, 3)]
    assert dues == [0.5, 1.0, 2.0]
    assert policy.due_ns(4, AT) == 0


def test_the_longest_wait_bounds_all() -> None:
    policy = RetryPolicy(attempts=10_000, backoff_s=1, factor=10, longest_s=60)
    assert [policy.delay_s(tried) for tried in (1, 2, 3, 9_999)] == [1.0, pytest.approx(10.0), 60.0, 60.0]


def test_what_was_not_tried_comes_back_after_the_longest_wait() -> None:
    assert RetryPolicy(attempts=1, longest_s=30).due_ns(0, AT) == AT + 30_000_000_000


def test_nothing_comes_back_without_attempts() -> None:
    assert [RetryPolicy(attempts=0).due_ns(tried, AT) for tried in range(3)] == [0, 0, 0]


@given(policies, st.integers(0, 60), st.integers(0, 1 << 62))
def test_a_due_time_is_behind_the_failure_by_no_more_than_the_longest(policy: RetryPolicy, tried: int, at: int) -> None:
    due_ns = policy.due_ns(tried, at)
    if policy.attempts == 0 or tried > policy.attempts:
        assert due_ns == 0
        return
    assert max(at, 1) <= due_ns <= at + round(policy.longest_s * 1e9) + 1
    if tried:
        assert due_ns >= at + round(policy.backoff_s * 1e9) - 1


@given(policies, st.integers(1, 1_000))
def test_each_wait_is_as_long_as_the_one_before_or_longer(policy: RetryPolicy, tried: int) -> None:
    before, after = policy.delay_s(tried), policy.delay_s(tried + 1)
    assert after >= before * (1 - 1e-12)
    assert after <= max(before * policy.factor * (1 + 1e-9), policy.backoff_s)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": -1},
        {"attempts": True},
        {"attempts": 1.5},
        {"attempts": 10**9},
        {"backoff_s": 0},
        {"backoff_s": 61.0},
        {"backoff_s": float("nan")},
        {"factor": 0.5},
        {"factor": "2"},
        {"longest_s": float("inf")},
        {"longest_s": 1e9},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="RetryPolicy"):
        RetryPolicy(**wrong)
