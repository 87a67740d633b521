"""A queue's size follows memory and drain rate, and settles."""

from __future__ import annotations

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.flow.sizing import INTERVAL_NS, AdaptiveSize, SizeBounds

BOUNDS = SizeBounds(64, 65_536)
CALM, FULL = 0.3, 0.95


class Queue:
    """A queue that drains at a rate, for the size to look at every interval."""

    def __init__(self, size: AdaptiveSize, waiting: int = 1_000) -> None:
        self.size, self.now_ns, self.drained, self.waiting = size, 0, 0.0, waiting
        size.update(0, CALM, 0, waiting)

    def passes(self, rate_hz: float, level: float = CALM, intervals: int = 1) -> list[int]:
        sizes = []
        for _ in range(intervals):
            self.now_ns += INTERVAL_NS
            self.drained += rate_hz * INTERVAL_NS / 1e9
            sizes.append(self.size.update(self.now_ns, level, int(self.drained), self.waiting))
        return sizes


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 10**7, 10**8, INTERVAL_NS, 10**9]),
        st.floats(0, 1),
        st.sampled_from([0, 1, 7, 100, 5_000, 10**6]),
        st.sampled_from([0, 0, 1, 50]),
    ),
    max_size=60,
)


@given(st.integers(1, 200), st.integers(0, 2_000), st.sampled_from([0.1, 1.0, 5.0]), STEPS)
def test_the_size_follows_the_model(least: int, span: int, horizon_s: float, steps: list[tuple[int, ...]]) -> None:
    most = least + span
    size = AdaptiveSize(SizeBounds(least, most), horizon_s)
    rows, rate, step = most, None, max(1, span // 32)
    now = drained = 0
    seen: list[tuple[int, int, int]] = []  # since the last decision: time, drained, waiting
    for passed, level, left, waiting in steps:
        now, drained = now + passed, drained + left
        seen.append((now, drained, waiting))
        if now - seen[0][0] >= INTERVAL_NS:
            measured = (drained - seen[0][1]) * 1e9 / (now - seen[0][0])
            busy = all(one[2] for one in seen)
            if rate is None:
                rate = measured if busy else None
            elif busy or measured > rate:
                rate += 0.3 * (measured - rate)
            seen = seen[-1:]
            allowed = most if rate is None else max(least, min(most, math.floor(rate * horizon_s)))
            grows_to = most if rate is None else max(least, min(most, math.floor(rate * horizon_s * 0.75)))
            if level >= 0.9 and rows > least:
                rows = max(least, min(rows // 2, allowed))
            elif rows > allowed:
                rows = allowed
            elif level < 0.8 and rows < grows_to:
                rows = min(rows + step, grows_to)
        assert size.update(now, level, drained, waiting) == size.rows == rows
        assert least <= rows <= most
        assert size.drained_hz == rate


def test_it_begins_with_the_most_and_says_so() -> None:
    size = AdaptiveSize(BOUNDS)
    assert size.update(0, CALM, 0, 0) == 65_536
    assert size.why == "as it began: the most that its bounds allow"


def test_under_memory_pressure_it_halves_down_to_the_least() -> None:
    sizes = Queue(AdaptiveSize(BOUNDS)).passes(10**9, FULL, 12)
    assert sizes[:4] == [32_768, 16_384, 8_192, 4_096]
    assert sizes[-3:] == [64, 64, 64]


def test_when_the_pressure_is_gone_it_comes_back_within_eight_seconds_and_step_by_step() -> None:
    queue = Queue(AdaptiveSize(BOUNDS))
    queue.passes(10**9, FULL, 12)
    sizes = queue.passes(10**9, CALM, 33)
    assert sizes[-1] == 65_536
    assert max(after - before for before, after in itertools.pairwise(sizes)) == 65_472 // 32


def test_between_the_two_pressure_levels_it_stays() -> None:
    queue = Queue(AdaptiveSize(BOUNDS))
    assert queue.passes(10**9, 0.9, 1) == [32_768]
    assert set(queue.passes(10**9, 0.85, 50)) == {32_768}


def test_it_holds_no_more_than_is_drained_within_the_horizon() -> None:
    assert Queue(AdaptiveSize(BOUNDS)).passes(10_000)[-1] == 10_000
    assert Queue(AdaptiveSize(BOUNDS, horizon_s=0.1)).passes(10_000)[-1] == 1_000


def test_handlers_that_stand_still_leave_it_the_least() -> None:
    assert Queue(AdaptiveSize(BOUNDS)).passes(0)[-1] == 64


def test_a_queue_that_is_empty_tells_nothing_of_what_its_handlers_could_do() -> None:
    queue = Queue(AdaptiveSize(BOUNDS), waiting=0)
    assert queue.passes(10, intervals=20)[-1] == 65_536
    queue.waiting = 1_000
    queue.passes(10_000, intervals=40)
    queue.waiting = 0
    assert queue.passes(10, intervals=20)[-1] == queue.size.rows > 5_000
    assert queue.size.drained_hz == pytest.approx(10_000)


@given(st.lists(st.floats(0.93, 1.07), min_size=60, max_size=120), st.integers(1_000, 200_000))
def test_a_rate_that_wavers_by_a_few_per_cent_never_makes_it_grow_again(wavers: list[float], rate_hz: int) -> None:
    queue = Queue(AdaptiveSize(BOUNDS))
    sizes = [queue.passes(rate_hz * factor)[-1] for factor in wavers]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] >= 0.92 * min(rate_hz, 65_536)


def test_calls_between_the_intervals_change_nothing() -> None:
    size = AdaptiveSize(BOUNDS)
    assert {size.update(now_ns, FULL, 0, 5) for now_ns in range(0, INTERVAL_NS, 1_000_000)} == {65_536}


@pytest.mark.parametrize(("now_ns", "drained"), [(0, 5_000), (2 * INTERVAL_NS, 0)], ids=["clock", "count"])
def test_another_run_s_clock_or_count_begins_the_measurement_anew(now_ns: int, drained: int) -> None:
    queue = Queue(AdaptiveSize(BOUNDS))
    assert queue.passes(20_000) == [20_000]
    assert queue.size.update(now_ns, CALM, drained, 9) == 20_000
    assert queue.size.update(now_ns + INTERVAL_NS, CALM, drained + 5_000, 9) == 20_000
    assert queue.size.drained_hz == 20_000


def test_it_says_why_it_last_changed() -> None:
    queue = Queue(AdaptiveSize(BOUNDS))
    queue.passes(10_000)
    assert queue.size.why == (
        "shrunk from 65,536 to 10,000 rows: 10,000 rows a second are drained, 1 s of them may wait"
    )
    queue.passes(10_000, FULL)
    assert queue.size.why == "shrunk from 10,000 to 5,000 rows: memory pressure at 95% (shrinks from 90%)"
    queue.passes(10_000)
    assert queue.size.why.startswith("grown from 5,000 to 7,046 rows: memory pressure down at 30%, and 10,000 rows")
    told = queue.size.statistics()
    assert (told.rows, told.drained_hz, told.shrunk, told.grown, told.why) == (7_046, 10_000, 2, 1, queue.size.why)
    assert repr(queue.size).startswith("AdaptiveSize(7,046 rows, of 64 to 65,536; grown from 5,000")


@pytest.mark.parametrize(
    ("least", "most", "rule"),
    [
        (0, 10, "min_rows is an integer of 1 to"),
        (10, 5, "min_rows is at most max_rows; got 10 and 5"),
        (1, 2.5, "max_rows is an integer"),
        (True, 5, "min_rows is an integer"),
        (1, 1 << 60, "max_rows is an integer"),
    ],
)
def test_bounds_that_make_no_sense_are_refused_with_the_rule(least: int, most: int, rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        SizeBounds(least, most)


@pytest.mark.parametrize("horizon_s", [0, -1, math.nan, math.inf, "1", True])
def test_a_horizon_that_makes_no_sense_is_refused(horizon_s: float) -> None:
    with pytest.raises(ValidationError, match="horizon_s is a number of seconds above 0"):
        AdaptiveSize(BOUNDS, horizon_s)


@pytest.mark.parametrize("level", [math.nan, -0.1, 1.5])
def test_a_pressure_that_is_no_fraction_is_refused(level: float) -> None:
    with pytest.raises(ValidationError, match=re.escape(f"pressure_level is a number of 0 to 1; got {level!r}")):
        AdaptiveSize(BOUNDS).update(0, level, 0, 0)


def test_bounds_are_needed() -> None:
    with pytest.raises(ValidationError, match="SizeBounds"):
        AdaptiveSize((1, 2))  # type: ignore[arg-type]
