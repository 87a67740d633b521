"""``BreakerSettings``: when a circuit breaker opens, how long it waits, and how it tries again."""

from __future__ import annotations

from typing import Literal

import msgspec

from hftlab.errors import ValidationError, shown
from hftlab.flow.checking import check_count, check_seconds
from hftlab.flow.windows import CountWindow, OutcomeWindow, TimeWindow


class BreakerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The words and defaults are resilience4j's (but for times in s). Raises ValidationError for what breaks a rule.

    A breaker opens when of the calls in its window ``failure_rate_threshold`` percent or more failed, or
    ``slow_call_rate_threshold`` percent or more took longer than ``slow_call_duration_s`` (None: calls are not timed).
    The window is the last ``sliding_window_size`` calls ("count"), or those of as many seconds ("time"). No rate is
    looked at before ``minimum_number_of_calls`` are in it; as in resilience4j, a count window that is smaller than that
    is judged when it is full.

    It stays open for ``wait_duration_in_open_state_s``, then tries ``permitted_number_of_calls_in_half_open_state``
    calls and judges by all of them. ``max_wait_duration_in_half_open_state_s`` later, if not all their outcomes are
    known, it is open again; 0: it waits for them however long.
    """

    failure_rate_threshold: float = 50.0
    slow_call_rate_threshold: float = 100.0
    slow_call_duration_s: float | None = None
    sliding_window_type: Literal["count", "time"] = "count"
    sliding_window_size: int = 100
    minimum_number_of_calls: int = 20
    wait_duration_in_open_state_s: float = 10.0
    permitted_number_of_calls_in_half_open_state: int = 10
    max_wait_duration_in_half_open_state_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("failure_rate_threshold", "slow_call_rate_threshold"):
            rate = getattr(self, name)
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 100:
                raise ValidationError(f"{name} is a percentage above 0 and up to 100 (a half is 50); got {shown(rate)}")
            msgspec.structs.force_setattr(self, name, float(rate))
        if self.sliding_window_type not in ("count", "time"):
            raise ValidationError(
                "sliding_window_type is 'count' (the last sliding_window_size calls) or 'time' (the calls of as many "
                f"seconds); got {shown(self.sliding_window_type)}"
            )
        unit = " calls" if self.sliding_window_type == "count" else " seconds"
        check_count("sliding_window_size", self.sliding_window_size, 1, 1 << 20, unit)
        for name in ("minimum_number_of_calls", "permitted_number_of_calls_in_half_open_state"):
            check_count(name, getattr(self, name), 1, 1 << 20, " calls")
        if self.slow_call_duration_s is not None:
            check_seconds("slow_call_duration_s", self.slow_call_duration_s)
        check_seconds("wait_duration_in_open_state_s", self.wait_duration_in_open_state_s)
        name = "max_wait_duration_in_half_open_state_s"
        check_seconds(name, self.max_wait_duration_in_half_open_state_s, zero=True)

    @property
    def judged_from_calls(self) -> int:
        """With how many calls in the window its rates are looked at: no more than fit into a count window."""
        if self.sliding_window_type == "count":
            return min(self.minimum_number_of_calls, self.sliding_window_size)
        return self.minimum_number_of_calls

    @property
    def wait_ns(self) -> int:
        """``wait_duration_in_open_state_s`` in ns, 1 at least."""
        return max(1, round(self.wait_duration_in_open_state_s * 1e9))

    @property
    def half_open_wait_ns(self) -> int | None:
        """``max_wait_duration_in_half_open_state_s`` in ns, 1 at least; None for 0, which means without end."""
        if not self.max_wait_duration_in_half_open_state_s:
            return None
        return max(1, round(self.max_wait_duration_in_half_open_state_s * 1e9))

    def window(self) -> OutcomeWindow:
        """Return an empty window of the chosen type and size."""
        size = self.sliding_window_size
        return CountWindow(size) if self.sliding_window_type == "count" else TimeWindow(size)
