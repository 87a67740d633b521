"""The overload breaker opens on a standing queue only, and closes by itself: against a model of its own."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.flow.lanes import LANES
from hftlab.flow.overload import OverloadBreaker
from hftlab.flow.overload_settings import OverloadChange, OverloadSettings, OverloadState

CLOSED, OPEN, HALF_OPEN = OverloadState.CLOSED, OverloadState.OPEN, OverloadState.HALF_OPEN
MS = 1_000_000
SMALL = OverloadSettings(
    target_s=0.01,
    interval_s=0.05,
    open_s=0.1,
    steps=4,
    step_s=0.02,
    open_s_max=0.3,
    healthy_s=0.5,
    lanes=("LOW", "HIGH"),
)


class Model:
    """SMALL, in ms: the shortest wait is looked up among all that were ever seen."""

    def __init__(self) -> None:
        self.state, self.now, self.since, self.step, self.lasts = CLOSED, 0, 0, 0, 100
        self.waits: list[tuple[int, int]] = []  # (when, how long) since this state began
        self.healthy_since: int | None = None
        self.let_in = {"LOW": Fraction(0), "HIGH": Fraction(0)}
        self.episodes = self.openings = self.overloaded = 0

    def pass_time(self, now: int) -> None:
        if self.state is not CLOSED:
            self.overloaded += now - self.now
        self.now = now
        if self.state is OPEN and now - self.since >= self.lasts:
            self.state, self.since, self.step, self.waits = HALF_OPEN, now, 1, []
            self.let_in = dict.fromkeys(self.let_in, Fraction(0))

    def standing(self) -> list[tuple[int, int]]:
        """The waits seen since the last one that was not above the target."""
        last = max((at for at, (_, wait) in enumerate(self.waits) if wait <= 10), default=-1)
        return self.waits[last + 1 :]

    def observe(self, wait: int, now: int) -> None:
        self.pass_time(now)
        self.waits.append((now, wait))
        standing = self.standing()
        if self.state is not OPEN and standing and now - standing[0][0] >= 50:
            relapse = self.state is HALF_OPEN or (self.healthy_since is not None and now - self.healthy_since < 500)
            self.lasts = min(2 * self.lasts, 300) if relapse else 100
            self.episodes += self.state is CLOSED
            self.openings += 1
            self.state, self.since, self.waits = OPEN, now, []
        self.step_up()

    def step_up(self) -> None:
        if self.state is HALF_OPEN and not self.standing() and self.now - self.since >= 20:
            self.step, self.since = self.step + 1, self.now
            if self.step > 4:
                self.state, self.waits, self.healthy_since = CLOSED, [], self.now

    def admit(self, lane: str, count: int, now: int) -> list[bool]:
        self.pass_time(now)
        self.step_up()
        if lane not in self.let_in or self.state is CLOSED:
            return [True] * count
        if self.state is OPEN:
            return [False] * count
        admitted = []
        for _ in range(count):
            before = self.let_in[lane]
            self.let_in[lane] += Fraction(self.step, 4)
            admitted.append(math.floor(self.let_in[lane]) > math.floor(before))
        return admitted


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 5, 10, 20, 20, 50, 110, 600]),
        st.one_of(
            st.sampled_from([0, 10, 11, 11, 40, 40]),
            st.tuples(st.sampled_from(LANES), st.integers(0, 9)),
        ),
    ),
    max_size=80,
)


@given(STEPS)
def test_states_shares_and_counts_are_those_of_the_model(steps: list[tuple[int, Any]]) -> None:
    changes: list[OverloadChange] = []
    breaker, model = OverloadBreaker(SMALL, on_change=changes.append), Model()
    now, states, shed = 0, [CLOSED], 0
    for passed, what in steps:
        now += passed
        if isinstance(what, int):
            breaker.observe(what * MS, now * MS)
            model.observe(what, now)
        else:
            lane, count = what
            admitted, expected = breaker.admit(lane, count, now * MS), model.admit(lane, count, now)
            if isinstance(admitted, int):
                assert admitted == sum(expected)
                assert admitted in (0, count)
            else:
                assert admitted.tolist() == expected
            assert lane in ("LOW", "HIGH") or admitted is count
            shed += count - sum(expected)
        assert breaker.state is model.state
        assert breaker.is_closed is (model.state is CLOSED)
        assert breaker.share == {CLOSED: 1, OPEN: 0, HALF_OPEN: model.step / 4}[model.state]
        if model.state is not states[-1]:
            states.append(model.state)
    told = breaker.statistics()
    assert (told.episodes, told.openings, told.overloaded_ns) == (model.episodes, model.openings, model.overloaded * MS)
    assert told.shed_rows == sum(told.by_lane.values()) == shed
    # A call may bring it from OPEN through HALF_OPEN at most, so no state is skipped between two calls.
    assert [one.after for one in changes] == states[1:]
    assert [one.before for one in changes] == states[: len(changes)]
    assert breaker.changes == tuple(changes)
    assert told.changes == len(changes)


def overload(breaker: OverloadBreaker, now_ms: int = 0, wait_ms: int = 40) -> int:
    """Let a queue stand until the breaker opens; return when it did, in ms."""
    while breaker.state is not OPEN:
        breaker.observe(wait_ms * MS, now_ms * MS)
        now_ms += 10
    return now_ms - 10


def recover(breaker: OverloadBreaker, now_ms: int) -> int:
    """Let nothing wait until the breaker closes; return when it did, in ms."""
    while not breaker.is_closed:
        now_ms += 10
        breaker.observe(0, now_ms * MS)
    return now_ms


def test_a_burst_that_is_worked_off_never_opens_it() -> None:
    breaker = OverloadBreaker(SMALL)
    for now_ms in range(0, 10_000, 5):
        breaker.observe((0 if now_ms % 50 == 45 else 5_000) * MS, now_ms * MS)
        assert breaker.is_closed


def test_a_wait_just_above_the_target_for_a_whole_interval_opens_it() -> None:
    breaker = OverloadBreaker(SMALL)
    assert overload(breaker, wait_ms=11) == 50
    breaker = OverloadBreaker(SMALL)
    for now_ms in range(0, 1_000, 10):
        breaker.observe(10 * MS, now_ms * MS)
    assert breaker.is_closed


def test_it_sheds_its_own_lanes_only_and_critical_never() -> None:
    breaker = OverloadBreaker(SMALL)
    now = overload(breaker) * MS
    assert [breaker.admit(lane, 7, now) for lane in ("CRITICAL", "HIGH", "NORMAL", "LOW")] == [7, 0, 7, 0]
    assert breaker.statistics().by_lane == {"LOW": 7, "HIGH": 7}


def test_it_lets_in_a_growing_share_and_closes_by_itself() -> None:
    breaker = OverloadBreaker(SMALL)
    now_ms = overload(breaker)
    shares = [breaker.share]
    while not breaker.is_closed:
        now_ms += 1
        breaker.observe(0, now_ms * MS)
        if breaker.share != shares[-1]:
            shares.append(breaker.share)
    assert shares == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert now_ms == 50 + 100 + 4 * 20


@pytest.mark.parametrize(("step", "expected"), [(1, "...+...+"), (2, ".+.+.+.+"), (3, ".+++.+++"), (4, "++++++++")])
def test_the_rows_let_in_are_spread_evenly(step: int, expected: str) -> None:
    breaker = OverloadBreaker(SMALL)
    now_ms = overload(breaker) + 100
    for _ in range(step):
        breaker.observe(0, now_ms * MS)
        now_ms += 20
    now_ms -= 20
    singly = "".join(".+"[int(breaker.admit("LOW", 1, now_ms * MS))] for _ in range(8))
    together = breaker.admit("HIGH", 8, now_ms * MS)
    assert breaker.share == step / 4
    assert singly == expected
    mask = np.ones(8, np.bool_) if isinstance(together, int) else together
    assert "".join(".+"[one] for one in mask.tolist()) == expected


@given(st.integers(2, 50), st.lists(st.integers(1, 300), min_size=1, max_size=20), st.data())
def test_of_any_rows_in_one_step_its_share_is_let_in_give_or_take_one(steps: int, counts: list[int], data: Any) -> None:
    breaker = OverloadBreaker(OverloadSettings(steps=steps, target_s=0.01, interval_s=0.05, open_s=0.1, step_s=0.02))
    now_ms = overload(breaker) + 100
    step = data.draw(st.integers(1, steps))
    for _ in range(step):
        breaker.observe(0, now_ms * MS)
        now_ms += 20
    now_ms -= 20
    admitted = 0
    for count in counts:
        answer = breaker.admit("LOW", count, now_ms * MS)
        admitted += answer if isinstance(answer, int) else int(answer.sum())
    assert abs(admitted - sum(counts) * Fraction(step, steps)) < 1
    assert breaker.statistics().shed_rows == sum(counts) - admitted


def test_overloaded_again_it_stays_open_twice_as_long_each_time_up_to_the_most() -> None:
    breaker = OverloadBreaker(SMALL)
    now_ms, lengths = overload(breaker), []
    for _ in range(4):
        opened_ms = now_ms
        while breaker.state is OPEN:
            now_ms += 10
            breaker.observe(0, now_ms * MS)
        lengths.append(now_ms - opened_ms)
        now_ms = overload(breaker, now_ms)
    assert lengths == [100, 200, 300, 300]
    assert (breaker.statistics().episodes, breaker.statistics().openings) == (1, 5)


@pytest.mark.parametrize(("healthy_ms", "lasts_ms"), [(300, 200), (600, 100)])
def test_the_doubling_ends_with_a_healthy_spell(healthy_ms: int, lasts_ms: int) -> None:
    breaker = OverloadBreaker(SMALL)
    now_ms = recover(breaker, overload(breaker))
    opened_ms = now_ms = overload(breaker, now_ms + healthy_ms)
    while breaker.state is OPEN:
        now_ms += 10
        breaker.observe(0, now_ms * MS)
    assert now_ms - opened_ms == lasts_ms
    assert breaker.statistics().episodes == 2


def test_while_something_waits_too_long_the_share_does_not_grow() -> None:
    breaker = OverloadBreaker(SMALL)
    now_ms = overload(breaker) + 100
    breaker.observe(0, now_ms * MS)
    breaker.observe(11 * MS, (now_ms + 1) * MS)
    breaker.observe(11 * MS, (now_ms + 45) * MS)
    assert breaker.share == 0.25
    breaker.observe(10 * MS, (now_ms + 46) * MS)
    assert breaker.share == 0.5


def test_it_recovers_without_any_event_when_admit_alone_sees_time_pass() -> None:
    breaker = OverloadBreaker(SMALL)
    now_ms = overload(breaker)
    while not breaker.is_closed and now_ms < 10_000:
        now_ms += 10
        breaker.admit("CRITICAL", 1, now_ms * MS)
    assert breaker.is_closed


def test_time_that_runs_backwards_changes_nothing() -> None:
    breaker = OverloadBreaker(SMALL)
    now_ms = overload(breaker)
    breaker.observe(0, 0)
    assert breaker.admit("LOW", 5, 3) == 0
    assert (breaker.state, breaker.statistics().overloaded_ns) == (OPEN, 0)
    breaker.observe(0, (now_ms + 100) * MS)
    assert breaker.state is HALF_OPEN


def test_a_change_says_what_was_seen_and_what_follows() -> None:
    told: list[OverloadChange] = []
    breaker = OverloadBreaker(SMALL, on_change=told.append)
    breaker.observe(90 * MS, 0)
    breaker.observe(35 * MS, 20 * MS)
    breaker.observe(50 * MS, 60 * MS)
    breaker.observe(0, 160 * MS)
    assert [one.reason for one in told] == [
        "the shortest wait in 0.060 s was 35.0 ms, above 10 ms; LOW, HIGH shed for 0.1 s",
        "shed for 0.1 s; 25% is let in to try",
    ]
    assert (told[0].wait_ns, told[0].at_ns) == (35 * MS, 60 * MS)
    assert str(told[1]) == "open → half-open at 1970-01-01T00:00:00.160000000Z: shed for 0.1 s; 25% is let in to try"
    assert repr(breaker) == "OverloadBreaker(half-open at 25%; 1 overloads, 0 rows shed)"
    frame = breaker.to_frame()
    assert frame[["before", "after", "wait_ms"]].to_numpy().tolist() == [
        ["closed", "open", 35.0],
        ["open", "half-open", 0.0],
    ]
    assert str(frame["at"].dt.tz) == "UTC"
    assert len(OverloadBreaker().to_frame()) == 0
    assert repr(OverloadBreaker()) == "OverloadBreaker(closed)"


def test_an_unknown_lane_and_a_negative_count_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"a lane of CRITICAL, HIGH, NORMAL, LOW .* got 'low', 1"):
        OverloadBreaker().admit("low", 1, 0)
    with pytest.raises(ValidationError, match="a count of at least 0; got 'LOW', -1"):
        OverloadBreaker().admit("LOW", -1, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lanes": ("CRITICAL", "LOW")}, "critical events .* never shed"),
        ({"lanes": ()}, "lanes is one or more out of"),
        ({"target_s": 0}, "target_s is a number of seconds above 0"),
        ({"interval_s": math.nan}, "interval_s is a number of seconds"),
        ({"open_s": -1}, "open_s is a number of seconds"),
        ({"step_s": "1"}, "step_s is a number of seconds above 0; got '1'"),
        ({"healthy_s": 1e12}, "healthy_s is a number of seconds"),
        ({"steps": 0}, "steps is an integer of 1 to 1,000"),
        ({"steps": 2.0}, "steps is an integer"),
        ({"open_s": 60.0}, "open_s_max is at least open_s; got 30 and 60"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_the_rule(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OverloadSettings(**settings)
