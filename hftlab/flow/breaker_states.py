"""What a circuit breaker says of itself: its state, each change of it, and its counts."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from hftlab.clock import format_time


class BreakerState(enum.Enum):
    """What a breaker does with calls."""

    CLOSED = "closed"
    """They are made, and their outcomes watched."""
    OPEN = "open"
    """They are rejected until the wait is over."""
    HALF_OPEN = "half-open"
    """A few are tried; the others are rejected until the outcomes of those are known."""
    DISABLED = "disabled"
    """They are made, and nothing is recorded."""
    FORCED_OPEN = "forced open"
    """They are rejected until somebody says otherwise."""


@dataclass(frozen=True, slots=True)
class BreakerChange:
    """A breaker's change of state: ``at_ns`` is the time of the call or outcome, or of the deadline, that made it."""

    name: str
    before: BreakerState
    after: BreakerState
    at_ns: int
    reason: str

    def __str__(self) -> str:
        change = f"{self.before.value} → {self.after.value}"
        return f"breaker {self.name!r}: {change} at {format_time(self.at_ns)}: {self.reason}"


@dataclass(frozen=True, slots=True)
class BreakerStatistics:
    """A breaker as it is. Rates are percent, None below the least number of calls (resilience4j's -1).

    ``calls``, ``failed`` and ``slow`` are in the window: of CLOSED, or the one that opened it, or of the calls tried in
    HALF_OPEN. The others count from the beginning: ``not_permitted`` calls, how often it ``opened``, and ``late``
    outcomes, which came when the state in which their calls were permitted had ended, and so count for nothing.
    ``retry_at_ns``: when calls are tried again, None unless OPEN.
    """

    state: BreakerState
    failure_rate: float | None
    slow_call_rate: float | None
    calls: int
    failed: int
    slow: int
    not_permitted: int
    opened: int
    late: int
    since_ns: int
    retry_at_ns: int | None
