from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hftlab.flow.breaker import CircuitBreaker
from hftlab.flow.breaker_settings import BreakerSettings
from hftlab.flow.breaker_states import BreakerChange, BreakerState
from tests.flow.breaker_model import SECOND, BreakerModel

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN

SMALL = st.builds(
    BreakerSettings,
    failure_rate_threshold=st.sampled_from([1.0, 100 / 3, 50.0, 60.0, 100.0]),
    slow_call_rate_threshold=st.sampled_from([25.0, 50.0, 100.0]),
    sliding_window_type=st.sampled_from(["count", "time"]),
    sliding_window_size=st.integers(1, 8),
    minimum_number_of_calls=st.integers(1, 10),
    wait_duration_in_open_state_s=st.sampled_from([0.5, 2.0, 10.0]),
    permitted_number_of_calls_in_half_open_state=st.integers(1, 4),
    max_wait_duration_in_half_open_state_s=st.sampled_from([0.0, 0.3, 4.0]),
)
GAPS_NS = st.sampled_from([0, 0, 0, 1, 1_000_000, SECOND // 3, SECOND, 3 * SECOND, 11 * SECOND])
OUTCOMES = st.sampled_from(["fast", "fast", "fast", "slow", "failed", "failed", "failed and slow"])


def at(*seconds: float) -> npt.NDArray[np.int64]:
    return np.array([round(second * SECOND) for second in seconds], np.int64)


def opened(**changes: Any) -> CircuitBreaker:
    """Return a breaker that three failures of three have opened at 1 s; it waits 2 s and tries 3 calls."""
    chosen: dict[str, Any] = {
        "sliding_window_size": 6,
        "minimum_number_of_calls": 3,
        "wait_duration_in_open_state_s": 2,
        "permitted_number_of_calls_in_half_open_state": 3,
    }
    breaker = CircuitBreaker(BreakerSettings(**(chosen | changes)), "bar")
    assert breaker.permit(at(1)) == (0, 1)
    for _ in range(3):
        breaker.record_failure(SECOND)
    assert breaker.state is OPEN
    return breaker


def test_it_opens_when_the_share_of_failures_reaches_the_threshold() -> None:
    breaker = CircuitBreaker(BreakerSettings(minimum_number_of_calls=4, sliding_window_size=10))
    breaker.record(3, SECOND)
    for _ in range(2):
        breaker.record_failure(SECOND)
    assert breaker.is_closed
    assert breaker.statistics().failure_rate == 40
    breaker.record_failure(5 * SECOND)
    told = breaker.statistics()
    assert (told.state, told.failure_rate, told.calls, told.failed, told.opened) == (OPEN, 50, 6, 3, 1)
    assert (told.since_ns, told.retry_at_ns) == (5 * SECOND, 15 * SECOND)


def test_below_the_least_number_of_calls_there_is_no_rate_and_it_stays_closed() -> None:
    breaker = CircuitBreaker(BreakerSettings(minimum_number_of_calls=5))
    for _ in range(4):
        breaker.record_failure(0)
    assert breaker.is_closed
    assert breaker.statistics().failure_rate is None
    assert breaker.statistics().slow_call_rate is None


def test_the_success_that_makes_the_calls_enough_may_open_it_and_no_call_behind_is_answered_before() -> None:
    breaker = CircuitBreaker(BreakerSettings(minimum_number_of_calls=5))
    for _ in range(3):
        breaker.record_failure(0)
    assert breaker.permit(at(*[1] * 100)) == (0, 2)
    assert not breaker.permits_all
    assert not breaker.record(2, SECOND)
    assert breaker.permit(at(*[1] * 98)) == (98, 0)


def test_what_was_permitted_stands_while_calls_succeed_and_falls_with_the_failure_that_counts() -> None:
    breaker = CircuitBreaker(BreakerSettings(minimum_number_of_calls=4, failure_rate_threshold=50))
    assert breaker.permit(at(*[1] * 100)) == (0, 100)
    assert breaker.record(1, SECOND)
    assert breaker.record_failure(SECOND)  # 1 of 4 would not open it
    assert not breaker.record_failure(SECOND)  # 2 of 4 would
    assert breaker.permit(at(*[1] * 97)) == (0, 1)


def test_slow_calls_open_it_though_none_failed() -> None:
    breaker = CircuitBreaker(BreakerSettings(minimum_number_of_calls=4, slow_call_rate_threshold=50))
    breaker.record(3, 0, slow=1)
    assert breaker.is_closed
    breaker.record(1, SECOND, slow=1)
    told = breaker.statistics()
    assert (told.state, told.slow_call_rate, told.failure_rate) == (OPEN, 50, 0)


def test_a_slow_failure_counts_as_both() -> None:
    breaker = CircuitBreaker(BreakerSettings(minimum_number_of_calls=2))
    breaker.record(1, 0)
    breaker.record_failure(0, slow=True)
    told = breaker.statistics()
    assert (told.failed, told.slow, told.state) == (1, 1, OPEN)


def test_old_failures_leave_a_count_window_with_new_calls_and_a_time_window_with_the_seconds() -> None:
    by_count = CircuitBreaker(BreakerSettings(sliding_window_size=10, minimum_number_of_calls=10))
    by_count.record_failure(0)
    by_count.record(10, 0)
    assert by_count.statistics().failed == 0
    by_time = CircuitBreaker(BreakerSettings(sliding_window_type="time", sliding_window_size=3))
    by_time.record_failure(SECOND // 2)
    by_time.record(10, 2 * SECOND)
    assert by_time.statistics().failed == 1
    by_time.record(1, 3 * SECOND)
    assert (by_time.statistics().failed, by_time.statistics().calls) == (0, 11)


def test_a_second_that_begins_may_open_a_window_of_seconds_for_old_successes_leave() -> None:
    breaker = CircuitBreaker(
        BreakerSettings(sliding_window_type="time", sliding_window_size=2, minimum_number_of_calls=3)
    )
    breaker.record(10, 0)
    for _ in range(4):
        breaker.record_failure(SECOND)
    assert breaker.is_closed
    # Until the end of second 1 everything is permitted; the first call of second 2 opens it if it succeeds.
    times = at(1, 1.5, 1.9, 2, 2.1, 2.2)
    assert breaker.permit(times) == (0, 3)
    assert breaker.record(3, int(times[2]))
    assert breaker.permit(times[3:]) == (0, 1)
    assert not breaker.record(1, int(times[3]))
    told = breaker.statistics()
    assert (told.state, told.failed, told.calls, told.since_ns) == (OPEN, 4, 8, 2 * SECOND)


def test_open_rejects_until_the_wait_is_over_and_then_tries_as_many_as_are_permitted() -> None:
    breaker = opened()
    assert breaker.permit(at(1, 2, 2.9, 3, 3, 4, 5, 6)) == (3, 3)
    assert breaker.state is HALF_OPEN
    assert breaker.statistics().since_ns == 3 * SECOND
    assert breaker.permit(at(5, 6)) == (2, 0)
    assert breaker.statistics().not_permitted == 5


def test_half_open_closes_with_an_empty_window_when_enough_of_its_calls_succeed() -> None:
    breaker = opened()
    breaker.permit(at(4, 4, 4))
    breaker.record_failure(4 * SECOND)
    assert breaker.record(1, 4 * SECOND)
    assert breaker.state is HALF_OPEN
    breaker.record(1, 5 * SECOND)
    told = breaker.statistics()
    assert (told.state, told.calls, told.failed, told.since_ns) == (CLOSED, 0, 0, 5 * SECOND)


def test_half_open_opens_again_when_too_many_fail_and_waits_from_then_on() -> None:
    breaker = opened()
    breaker.permit(at(4, 4, 4))
    breaker.record(1, 4 * SECOND)
    breaker.record_failure(4 * SECOND)
    assert breaker.state is HALF_OPEN  # all of them decide
    breaker.record_failure(6 * SECOND)
    told = breaker.statistics()
    assert (told.state, told.opened, told.failed, told.retry_at_ns) == (OPEN, 2, 2, 8 * SECOND)


def test_permits_that_are_given_back_are_handed_out_again() -> None:
    breaker = opened()
    assert breaker.permit(at(4, 4, 4, 4)) == (0, 3)
    breaker.release(2)
    assert breaker.permit(at(4, 4, 4, 4)) == (0, 2)
    breaker.record(1, 4 * SECOND)
    breaker.release(9)  # only two are out
    assert breaker.permit(at(4, 4, 4, 4)) == (0, 2)
    breaker.record(2, 4 * SECOND)
    assert breaker.is_closed
    breaker.release(5)  # of no state that counts them
    assert breaker.permit(at(4)) == (0, 1)


def test_a_trial_that_lasts_too_long_is_open_again_as_of_its_deadline() -> None:
    breaker = opened(max_wait_duration_in_half_open_state_s=1)
    assert breaker.permit(at(3, 3.5, 4, 5)) == (0, 2)
    breaker.record(2, int(3.5 * SECOND))
    assert breaker.permit(at(4.5, 5.9)) == (2, 0)
    told = breaker.statistics()
    assert (told.state, told.since_ns, told.retry_at_ns) == (OPEN, 4 * SECOND, 6 * SECOND)
    # The trial from 6 s, whose calls never come back, ends at 7 s; the next one begins with the call at 20 s.
    assert breaker.permit(at(6, 6, 6)) == (0, 3)
    assert breaker.permit(at(6.5, 7, 8, 20)) == (3, 1)
    assert breaker.statistics().opened == 3


def test_outcomes_of_calls_that_were_permitted_in_another_state_count_as_late_and_for_nothing_else() -> None:
    breaker = opened()
    breaker.record(2, SECOND)
    assert breaker.statistics().late == 2
    breaker.permit(at(4, 4, 4))
    trial = breaker.generation
    breaker.record(5, 4 * SECOND, generation=trial - 1)
    breaker.record_failure(4 * SECOND, generation=trial - 1)
    breaker.release(1, generation=trial - 1)
    assert (breaker.state, breaker.statistics().calls, breaker.statistics().late) == (HALF_OPEN, 0, 8)
    assert breaker.permit(at(4)) == (1, 0)
    # Three are the trial's; of the others nobody knows in which state they were permitted.
    breaker.record(5, 4 * SECOND, generation=trial)
    assert (breaker.state, breaker.statistics().calls, breaker.statistics().late) == (CLOSED, 0, 10)


def test_by_hand_it_can_be_held_open_switched_off_closed_and_reset() -> None:
    changes: list[BreakerChange] = []
    breaker = CircuitBreaker(name="bar", on_change=changes.append)
    breaker.force_open(SECOND)
    assert breaker.permit(at(1, 100, 1e6)) == (3, 0)
    breaker.disable(2 * SECOND)
    assert breaker.permit(at(2, 3)) == (0, 2)
    for _ in range(50):
        breaker.record_failure(3 * SECOND)
    assert breaker.permits_all
    assert breaker.statistics().calls == 0
    breaker.close()
    breaker.close()
    breaker.record_failure(4 * SECOND)
    breaker.reset()
    assert breaker.statistics().calls == 0
    breaker.force_open()
    breaker.reset(9 * SECOND)
    assert [(change.after.name, change.at_ns // SECOND) for change in changes] == [
        ("FORCED_OPEN", 1),
        ("DISABLED", 2),
        ("CLOSED", 3),
        ("FORCED_OPEN", 4),
        ("CLOSED", 9),
    ]
    assert breaker.statistics().not_permitted == 3


def test_it_tells_how_many_calls_come_before_time_changes_its_state_and_changes_nothing() -> None:
    breaker = opened(max_wait_duration_in_half_open_state_s=1)
    assert breaker.lasts_for(at(1, 2.9, 3, 4)) == 2
    assert breaker.lasts_for(at(5)) == 0
    assert breaker.state is OPEN
    assert breaker.permit(at(3)) == (0, 1)
    assert breaker.state is HALF_OPEN
    assert breaker.lasts_for(at(3, 3.9, 4)) == 2
    assert CircuitBreaker().lasts_for(at(1, 2, 3)) == 3


def test_restarted_it_is_closed_and_empty_for_times_that_lie_before_and_nobody_is_told() -> None:
    changes: list[BreakerChange] = []
    breaker = opened()
    breaker.on_change = changes.append
    breaker.restart()
    assert (breaker.state, breaker.statistics().calls, breaker.statistics().opened) == (BreakerState.CLOSED, 0, 1)
    assert breaker.permit(at(-5, 1)) == (0, 2)
    assert changes == []


@pytest.mark.parametrize("by_hand", [CircuitBreaker.force_open, CircuitBreaker.disable])
def test_restarted_it_stays_what_it_was_made_by_hand(by_hand: Callable[[CircuitBreaker], None]) -> None:
    breaker = CircuitBreaker()
    by_hand(breaker)
    state = breaker.state
    breaker.restart()
    assert breaker.state is state


def test_what_was_permitted_falls_when_the_state_changes_under_it() -> None:
    breaker = CircuitBreaker()
    assert breaker.permit(at(1, 1, 1)) == (0, 3)
    breaker.force_open(SECOND)
    assert not breaker.permits_all
    assert not breaker.record(1, SECOND)
    assert breaker.statistics().late == 1


def test_changes_are_told_in_order_with_the_reason() -> None:
    changes: list[BreakerChange] = []
    breaker = CircuitBreaker(
        BreakerSettings(
            minimum_number_of_calls=4,
            permitted_number_of_calls_in_half_open_state=1,
            max_wait_duration_in_half_open_state_s=1,
            slow_call_rate_threshold=75,
        ),
        "strategies.bar",
        changes.append,
    )
    breaker.record(3, SECOND, slow=1)
    breaker.record_failure(SECOND)
    breaker.record_failure(SECOND)
    breaker.record_failure(SECOND, slow=True)
    breaker.permit(at(20))
    breaker.permit(at(31))
    breaker.record(1, 31 * SECOND)
    assert [str(change) for change in changes] == [
        "breaker 'strategies.bar': closed → open at 1970-01-01T00:00:01.000000000Z: "
        "3 of 6 calls failed (50%, threshold 50%), 2 were slow (33.3%, threshold 75%)",
        "breaker 'strategies.bar': open → half-open at 1970-01-01T00:00:20.000000000Z: the wait of 10 s is over",
        "breaker 'strategies.bar': half-open → open at 1970-01-01T00:00:21.000000000Z: "
        "1 s passed with 0 of 1 outcomes known",
        "breaker 'strategies.bar': open → half-open at 1970-01-01T00:00:31.000000000Z: the wait of 10 s is over",
        "breaker 'strategies.bar': half-open → closed at 1970-01-01T00:00:31.000000000Z: "
        "0 of 1 calls failed (0%, threshold 50%)",
    ]


@pytest.mark.parametrize("window", ["count", "time"])
def test_a_run_of_any_length_is_recorded_at_once(window: Any) -> None:
    breaker = CircuitBreaker(BreakerSettings(sliding_window_type=window))
    breaker.record_failure(0)
    breaker.record(10**15, 0)  # one by one, this would take years
    told = breaker.statistics()
    assert (told.calls, told.failed) == ((100, 0) if window == "count" else (10**15 + 1, 1))


def test_no_times_get_no_answer_and_change_nothing() -> None:
    breaker = opened()
    assert breaker.permit(at()) == (0, 0)
    assert breaker.state is OPEN


def test_its_representations_are_short_and_stable() -> None:
    breaker = opened()
    breaker.permit(at(1, 2))
    assert repr(breaker) == "CircuitBreaker('bar': open, 3 of 3 calls failed, 2 not permitted)"
    assert repr(CircuitBreaker()) == "CircuitBreaker(closed, 0 of 0 calls failed)"
    html = breaker._repr_html_()
    assert "<td>failure_rate</td><td>100.0</td>" in html
    assert "<td>state</td><td>open</td>" in html
    assert "_ns" not in html
    assert "&lt;b&gt;" in CircuitBreaker(name="<b>")._repr_html_()


# -- however the calls are cut ----------------------------------------------------------------------------------------


@given(data=st.data(), chosen=SMALL, calls=st.lists(st.tuples(GAPS_NS, OUTCOMES), min_size=1, max_size=80))
@settings(max_examples=300)
def test_what_is_permitted_does_not_depend_on_how_calls_are_cut_into_batches_and_runs(
    data: st.DataObject, chosen: BreakerSettings, calls: list[tuple[int, str]]
) -> None:
    times = np.cumsum([gap for gap, _ in calls], dtype=np.int64)
    model = BreakerModel(chosen)
    expected: list[bool] = []
    for call_ns, (_, outcome) in zip(times.tolist(), calls, strict=True):
        expected.append(model.ask(call_ns))
        if expected[-1]:
            model.outcome(call_ns, "failed" in outcome, "slow" in outcome)

    changes: list[BreakerChange] = []
    breaker = CircuitBreaker(chosen, on_change=changes.append)
    cuts = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=8), label="batches")
    permitted: list[bool] = []
    while len(permitted) < len(calls):
        length = cuts[len(permitted) % len(cuts)]
        start = len(permitted)
        batch = times[start : start + length]
        permitted += called(breaker, batch, [outcome for _, outcome in calls[start : start + length]], data)
    assert permitted == expected
    assert [(change.before, change.after, change.at_ns) for change in changes] == model.changes
    told = breaker.statistics()
    assert (told.not_permitted, told.late) == (model.not_permitted, 0)
    assert (told.calls, told.failed) == (len(model.window()), sum(failed for _, failed, _ in model.window()))


def called(
    breaker: CircuitBreaker, times: npt.NDArray[np.int64], outcomes: list[str], data: st.DataObject
) -> list[bool]:
    """Call what is permitted as a caller would: successes in runs, asking again where an answer falls."""
    done: list[bool] = []
    while len(done) < len(times):
        if breaker.permits_all and data.draw(st.booleans(), label="without asking"):
            rejected, permitted = 0, len(times) - len(done)
        else:
            rejected, permitted = breaker.permit(times[len(done) :])
            assert rejected + permitted > 0
        done += [False] * rejected
        run = 0
        for at_call in range(len(done), len(done) + permitted):
            outcome, now_ns = outcomes[at_call], int(times[at_call])
            done.append(True)
            run += "failed" not in outcome
            stands = True
            if outcome != "fast" or data.draw(st.booleans(), label="cut the run"):
                stands = breaker.record(run, now_ns, slow=int(outcome == "slow"))
                run = 0
                if "failed" in outcome:
                    stands = breaker.record_failure(now_ns, slow="slow" in outcome)
            if not stands:
                break
        if run:
            breaker.record(run, int(times[len(done) - 1]))
    return done


# -- against a model, with calls in flight ----------------------------------------------------------------------------


class BreakerAgainstModel(RuleBasedStateMachine):
    @initialize(chosen=SMALL)
    def start(self, chosen: BreakerSettings) -> None:
        self.changes: list[BreakerChange] = []
        self.breaker = CircuitBreaker(chosen, on_change=self.changes.append)
        self.model = BreakerModel(chosen)
        self.now_ns = 0
        self.in_flight = 0

    @rule(gaps=st.lists(GAPS_NS, max_size=8))
    def ask(self, gaps: list[int]) -> None:
        times = self.now_ns + np.cumsum(gaps, dtype=np.int64)
        rejected, permitted = self.breaker.permit(times)
        assert rejected + permitted > 0 or not gaps
        answered = times[: rejected + permitted].tolist()
        assert [self.model.ask(call_ns) for call_ns in answered] == [False] * rejected + [True] * permitted
        self.now_ns = answered[-1] if answered else self.now_ns
        self.in_flight += permitted

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), later_ns=GAPS_NS)
    def succeed(self, data: st.DataObject, later_ns: int) -> None:
        calls = data.draw(st.integers(1, self.in_flight), label="calls")
        slow = data.draw(st.integers(0, calls), label="slow")
        self.now_ns += later_ns
        self.in_flight -= calls
        self.breaker.record(calls, self.now_ns, slow)
        for at_call in range(calls):
            self.model.outcome(self.now_ns, False, at_call >= calls - slow)

    @precondition(lambda self: self.in_flight)
    @rule(slow=st.booleans(), later_ns=GAPS_NS)
    def fail(self, slow: bool, later_ns: int) -> None:
        self.now_ns += later_ns
        self.in_flight -= 1
        self.breaker.record_failure(self.now_ns, slow)
        self.model.outcome(self.now_ns, True, slow)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        calls = data.draw(st.integers(1, self.in_flight), label="calls")
        self.in_flight -= calls
        self.breaker.release(calls)
        self.model.release(calls)

    @rule(how=st.sampled_from(["close", "reset", "force_open", "disable"]), told=st.booleans())
    def by_hand(self, how: str, told: bool) -> None:
        getattr(self.breaker, how)(*[self.now_ns] * told)
        after = {"force_open": BreakerState.FORCED_OPEN, "disable": BreakerState.DISABLED}.get(how, CLOSED)
        if how == "reset" and self.model.state is CLOSED:
            self.model.outcomes = []
        if self.model.state is not after:
            self.model.change(after, self.now_ns if told else self.model.latest_ns)

    @invariant()
    def agrees(self) -> None:
        told, model = self.breaker.statistics(), self.model
        assert told.state is model.state
        assert self.breaker.is_closed == (model.state is CLOSED)
        assert [(change.before, change.after, change.at_ns) for change in self.changes] == model.changes
        assert (told.not_permitted, told.late, told.since_ns) == (model.not_permitted, model.late, model.since_ns)
        assert told.opened == sum(after is OPEN for _, after, _ in model.changes)
        assert (told.retry_at_ns is not None) == (model.state is OPEN)
        # A window of seconds is as of the latest second that was asked for, the model's as of the latest outcome.
        if self.breaker.settings.sliding_window_type == "count" or model.trial:
            window = model.window()
            assert (told.calls, told.failed, told.slow) == (
                len(window),
                sum(failed for _, failed, _ in window),
                sum(slow for _, _, slow in window),
            )
            rates = model.rates()
            assert (told.failure_rate, told.slow_call_rate) == (rates or (None, None))


TestBreakerAgainstModel = BreakerAgainstModel.TestCase
TestBreakerAgainstModel.settings = settings(max_examples=200, stateful_step_count=40)
