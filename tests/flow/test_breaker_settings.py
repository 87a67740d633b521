from __future__ import annotations

from typing import Any

import pytest

from hftlab.errors import ValidationError
from hftlab.flow.breaker_settings import BreakerSettings
from hftlab.flow.windows import CountWindow, TimeWindow


def test_the_defaults_are_resilience4js_with_a_smaller_least_number_of_calls_and_a_shorter_wait() -> None:
    settings = BreakerSettings()
    assert (settings.failure_rate_threshold, settings.slow_call_rate_threshold) == (50, 100)
    assert (settings.sliding_window_type, settings.sliding_window_size) == ("count", 100)
    assert settings.permitted_number_of_calls_in_half_open_state == 10
    assert settings.half_open_wait_ns is None
    assert (settings.minimum_number_of_calls, settings.wait_ns) == (20, 10_000_000_000)


def test_a_count_window_is_judged_when_it_is_full_at_the_latest_and_a_time_window_has_no_size_in_calls() -> None:
    assert BreakerSettings(sliding_window_size=10).judged_from_calls == 10
    assert BreakerSettings(sliding_window_size=30).judged_from_calls == 20
    assert BreakerSettings(sliding_window_size=10, sliding_window_type="time").judged_from_calls == 20


def test_the_window_is_of_the_chosen_type() -> None:
    assert isinstance(BreakerSettings().window(), CountWindow)
    assert isinstance(BreakerSettings(sliding_window_type="time").window(), TimeWindow)


def test_waits_of_less_than_a_ns_are_one_and_no_wait_in_half_open_is_none_at_all() -> None:
    settings = BreakerSettings(wait_duration_in_open_state_s=1e-12, max_wait_duration_in_half_open_state_s=1e-12)
    assert (settings.wait_ns, settings.half_open_wait_ns) == (1, 1)
    assert BreakerSettings(max_wait_duration_in_half_open_state_s=0).half_open_wait_ns is None


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({"failure_rate_threshold": 0}, r"a percentage above 0 and up to 100 \(a half is 50\); got 0"),
        ({"failure_rate_threshold": 100.5}, "failure_rate_threshold is .* got 100.5"),
        ({"failure_rate_threshold": True}, "got True"),
        ({"slow_call_rate_threshold": float("nan")}, "slow_call_rate_threshold is .* got nan"),
        ({"slow_call_rate_threshold": "50"}, "got '50'"),
        ({"slow_call_duration_s": 0}, "slow_call_duration_s is a number of seconds above 0; got 0"),
        ({"sliding_window_type": "COUNT_BASED"}, "sliding_window_type is 'count' .* got 'COUNT_BASED'"),
        ({"sliding_window_size": 0}, "sliding_window_size is an integer of 1 to 1,048,576 calls; got 0"),
        ({"sliding_window_size": 1.5, "sliding_window_type": "time"}, "seconds; got 1.5"),
        ({"minimum_number_of_calls": 0}, "minimum_number_of_calls is an integer of 1"),
        ({"wait_duration_in_open_state_s": 0}, "wait_duration_in_open_state_s is a number of seconds above 0"),
        ({"wait_duration_in_open_state_s": float("inf")}, "got inf"),
        ({"permitted_number_of_calls_in_half_open_state": 0}, "permitted_number_of_calls_in_half_open_state is"),
        ({"max_wait_duration_in_half_open_state_s": -1}, "of at least 0; got -1"),
    ],
)
def test_settings_that_break_a_rule_are_refused_with_their_value(named: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        BreakerSettings(**named)
