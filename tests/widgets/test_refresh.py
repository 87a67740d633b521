from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import NotStarted, ValidationError
from hftlab.widgets.refresh import RefreshLoop, shared_loop


class FakeView:
    """Costs ``cost_s`` of a time that only it moves, and wants to be refreshed again after ``again_s``."""

    def __init__(self, time: list[float], cost_s: float = 0.0, again_s: float | None = 0.0) -> None:
        self.time, self.cost_s, self.again_s = time, cost_s, again_s
        self.at: list[float] = []
        self.errors: list[Exception] = []
        self.does: Callable[[], None] = lambda: None

    def refresh(self) -> float | None:
        self.at.append(self.time[0])
        self.time[0] += self.cost_s
        self.does()
        return self.again_s

    def refresh_failed(self, error: Exception) -> None:
        self.errors.append(error)


class FakeTimer:
    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self._when, self.action, self.dead = when, action, False

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        self.dead = True


class Bench:
    """A refresh loop on a timer wheel of our own: time passes only when ``run_until`` is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: float) -> None:
        self.time = [100.0]
        self.timers: list[FakeTimer] = []
        self.loop = RefreshLoop(now=lambda: self.time[0], **options)
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: self)

    def call_at(self, when: float, action: Callable[[], None]) -> FakeTimer:
        self.timers.append(FakeTimer(when, action))
        return self.timers[-1]

    @property
    def live(self) -> list[FakeTimer]:
        return [timer for timer in self.timers if not timer.dead]

    def run_until(self, end: float) -> None:
        while self.live and min(timer.when() for timer in self.live) <= end:
            timer = min(self.live, key=FakeTimer.when)
            timer.dead = True
            self.time[0] = max(self.time[0], timer.when())
            timer.action()
        self.time[0] = max(self.time[0], end)

    def view(self, cost_s: float = 0.0, again_s: float | None = 0.0) -> FakeView:
        return FakeView(self.time, cost_s, again_s)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_a_cheap_view_is_refreshed_ten_times_a_second(bench: Bench) -> None:
    view = bench.view(cost_s=0.0001)
    bench.loop.wake(view)
    bench.run_until(102.0)
    assert len(view.at) == 21  # at 0, 0.1 … 2.0 s


def test_a_wake_after_a_pause_is_answered_at_once_and_one_soon_after_it_is_not(bench: Bench) -> None:
    view = bench.view(again_s=None)
    bench.loop.wake(view)
    bench.run_until(100.03)
    bench.loop.wake(view)
    bench.run_until(105.0)
    assert view.at == [100.0, 100.1]
    bench.loop.wake(view)
    bench.run_until(105.0)
    assert view.at[-1] == 105.0


def test_a_wake_for_later_waits_and_never_puts_off_an_earlier_one(bench: Bench) -> None:
    view = bench.view(again_s=None)
    bench.loop.wake(view, after_s=0.03)
    bench.run_until(100.02)
    assert view.at == []
    bench.run_until(100.2)
    assert view.at == [100.03]
    bench.loop.wake(view)
    bench.loop.wake(view, after_s=5.0)
    bench.run_until(100.2)
    assert view.at == [100.03, 100.2]


def test_however_often_a_view_is_woken_it_is_refreshed_once(bench: Bench) -> None:
    view = bench.view(again_s=None)
    for _ in range(100):
        bench.loop.wake(view)
    assert len(bench.live) == 1
    bench.run_until(100.0)
    assert view.at == [100.0]


@given(costs=st.lists(st.floats(0.0, 0.5), min_size=1, max_size=30), views=st.integers(1, 3))
def test_refreshing_never_takes_more_than_its_share_whatever_it_costs(costs: list[float], views: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        bench = Bench(patch)
        made = [bench.view() for _ in range(views)]
        left = iter(costs)
        for view in made:
            view.does = lambda: bench.time.__setitem__(0, bench.time[0] + next(left, 0.0))
            bench.loop.wake(view)
        while next(iter(bench.live), None) is not None and len(made[0].at) * views < len(costs):
            bench.run_until(min(timer.when() for timer in bench.live))
        # What was spent before a turn begins is at most 5% of the time since the first turn began.
        begin = min(timer.when() for timer in bench.live)
        shown = bench.loop.statistics()
        assert shown.spent_s <= 0.05 * (begin - 100.0) + 1e-9
        assert shown.refreshes == sum(len(view.at) for view in made)
        assert shown.period_s >= 0.1


def test_after_an_expensive_turn_the_next_one_waits_twenty_times_as_long(bench: Bench) -> None:
    view = bench.view(cost_s=0.05)
    bench.loop.wake(view)
    bench.run_until(103.0)
    assert view.at == pytest.approx([100.0, 101.0, 102.0, 103.0])
    assert bench.loop.statistics().period_s == pytest.approx(1.0)


def test_a_view_that_asks_for_a_slower_pace_gets_it_and_holds_up_nobody(bench: Bench) -> None:
    slow, fast = bench.view(again_s=1.0), bench.view()
    bench.loop.wake(slow)
    bench.loop.wake(fast)
    bench.run_until(102.05)
    assert slow.at == pytest.approx([100.0, 101.0, 102.0])
    assert len(fast.at) == 21


def test_a_view_that_has_nothing_more_to_show_leaves_and_the_loop_holds_no_timer(bench: Bench) -> None:
    view = bench.view(again_s=None)
    bench.loop.wake(view)
    bench.run_until(100.0)
    assert bench.loop.idle
    assert bench.live == []
    assert bench.loop.statistics().views == 0


def test_a_forgotten_view_is_not_called_again_and_leaves_no_timer(bench: Bench) -> None:
    view, other = bench.view(), bench.view()
    bench.loop.wake(view)
    bench.loop.wake(other)
    bench.loop.forget(view)
    bench.loop.forget(view)
    bench.run_until(100.0)
    assert (view.at, other.at) == ([], [100.0])
    bench.loop.forget(other)
    assert bench.loop.idle
    assert bench.live == []


def test_a_view_closed_by_another_in_the_same_turn_is_not_called(bench: Bench) -> None:
    first, second = bench.view(again_s=None), bench.view(again_s=None)
    first.does = lambda: bench.loop.forget(second)
    bench.loop.wake(first)
    bench.loop.wake(second)
    bench.run_until(101.0)
    assert (len(first.at), len(second.at)) == (1, 0)


def test_a_view_woken_while_it_is_refreshed_comes_again_even_if_it_saw_no_reason(bench: Bench) -> None:
    view = bench.view(again_s=None)
    view.does = lambda: bench.loop.wake(view) if len(view.at) == 1 else None
    bench.loop.wake(view)
    bench.run_until(101.0)
    assert view.at == pytest.approx([100.0, 100.1])


def test_a_view_that_raises_is_told_so_and_stops_nobody_else(bench: Bench) -> None:
    broken, sound = bench.view(), bench.view()

    def fail() -> None:
        raise ZeroDivisionError("a bug")

    broken.does = fail
    bench.loop.wake(broken)
    bench.loop.wake(sound)
    bench.run_until(100.5)
    assert [str(error) for error in broken.errors] == ["a bug"]
    assert len(broken.at) == 1
    assert len(sound.at) == 6


@pytest.mark.parametrize("options", [{"most_hz": 0}, {"most_share": 0}, {"most_share": 1.5}, {"most_hz": float("nan")}])
def test_limits_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="got"):
        RefreshLoop(**options)


async def test_all_widgets_of_a_running_loop_share_one_refresh_loop() -> None:
    assert shared_loop() is shared_loop()


async def test_on_a_real_loop_a_woken_view_is_refreshed_without_a_task() -> None:
    done = asyncio.Event()
    view = FakeView([0.0], again_s=None)
    view.does = done.set
    before = asyncio.all_tasks()
    shared_loop().wake(view)
    assert asyncio.all_tasks() == before
    async with asyncio.timeout(10):
        await done.wait()
    assert shared_loop().idle


def test_without_a_running_loop_a_live_widget_is_refused_with_what_to_do() -> None:
    with pytest.raises(NotStarted, match=r"\.figure\(\)"):
        shared_loop()


def test_the_refresh_loop_of_a_closed_loop_is_collected() -> None:
    async def make() -> weakref.ref[RefreshLoop]:
        return weakref.ref(shared_loop())

    reference = asyncio.new_event_loop()
    try:
        made = reference.run_until_complete(make())
    finally:
        reference.close()
    del reference
    gc.collect()
    assert made() is None
