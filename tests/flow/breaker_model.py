"""A circuit breaker to compare with: a list of all outcomes, one call at a time, everything counted anew."""

from __future__ import annotations

from dataclasses import dataclass, field

from hftlab.flow.breaker_settings import BreakerSettings
from hftlab.flow.breaker_states import BreakerState

SECOND = 1_000_000_000
Change = tuple[BreakerState, BreakerState, int]


@dataclass
class BreakerModel:
    """``ask`` for one call, then tell its ``outcome``."""

    settings: BreakerSettings
    state: BreakerState = BreakerState.CLOSED
    outcomes: list[tuple[int, bool, bool]] = field(default_factory=list)
    since_ns: int = 0
    handed_out: int = 0
    trial: bool = False
    not_permitted: int = 0
    late: int = 0
    latest_ns: int = 0
    changes: list[Change] = field(default_factory=list)

    def change(self, after: BreakerState, at_ns: int) -> None:
        self.changes.append((self.state, after, at_ns))
        self.state, self.since_ns = after, at_ns
        self.latest_ns = max(self.latest_ns, at_ns)
        if after is not BreakerState.OPEN:
            self.outcomes, self.handed_out = [], 0
            self.trial = after is BreakerState.HALF_OPEN

    def time_passed(self, now_ns: int) -> None:
        longest = round(self.settings.max_wait_duration_in_half_open_state_s * SECOND)
        if self.state is BreakerState.HALF_OPEN and longest and now_ns >= self.since_ns + longest:
            self.change(BreakerState.OPEN, self.since_ns + longest)

    def ask(self, at_ns: int) -> bool:
        self.time_passed(at_ns)
        wait_ns = round(self.settings.wait_duration_in_open_state_s * SECOND)
        if self.state is BreakerState.OPEN and at_ns >= self.since_ns + wait_ns:
            self.change(BreakerState.HALF_OPEN, at_ns)
        if self.state is BreakerState.HALF_OPEN:
            permitted = self.handed_out < self.settings.permitted_number_of_calls_in_half_open_state
            self.handed_out += permitted
        else:
            permitted = self.state in (BreakerState.CLOSED, BreakerState.DISABLED)
        self.not_permitted += not permitted
        return permitted

    def outcome(self, now_ns: int, failed: bool, slow: bool) -> None:
        self.time_passed(now_ns)
        self.latest_ns = max(self.latest_ns, now_ns)
        if self.state is BreakerState.DISABLED:
            return
        half_open = self.state is BreakerState.HALF_OPEN and len(self.outcomes) < self.handed_out
        if self.state is not BreakerState.CLOSED and not half_open:
            self.late += 1
            return
        self.outcomes.append((now_ns, failed, slow))
        rates = self.rates()
        exceeded = rates is not None and (
            rates[0] >= self.settings.failure_rate_threshold or rates[1] >= self.settings.slow_call_rate_threshold
        )
        if exceeded:
            self.change(BreakerState.OPEN, now_ns)
        elif half_open and rates is not None:
            self.change(BreakerState.CLOSED, now_ns)

    def release(self, permits: int) -> None:
        if self.state is BreakerState.HALF_OPEN:
            self.handed_out = max(len(self.outcomes), self.handed_out - permits)

    def window(self) -> list[tuple[int, bool, bool]]:
        """The outcomes that count, as of the latest one."""
        size = self.settings.sliding_window_size
        if self.trial:
            return self.outcomes
        if self.settings.sliding_window_type == "count":
            return self.outcomes[-size:]
        second = self.outcomes[-1][0] // SECOND if self.outcomes else 0
        return [outcome for outcome in self.outcomes if outcome[0] // SECOND > second - size]

    def rates(self) -> tuple[float, float] | None:
        settings, window = self.settings, self.window()
        least = settings.minimum_number_of_calls
        if settings.sliding_window_type == "count":
            least = min(least, settings.sliding_window_size)
        if self.trial:
            least = settings.permitted_number_of_calls_in_half_open_state
        if len(window) < least:
            return None
        failed, slow = (sum(outcome[column] for outcome in window) for column in (1, 2))
        return 100 * failed / len(window), 100 * slow / len(window)
