"""The watchdog: who held the loop, for how long, and how often the clock is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.bus import EventBus, Flow
from hftlab.bus.signatures import make_subscription
from hftlab.bus.watchdog import FAST_NS, KEPT, MOST_CALLS, SLOW_NS, HoldUps
from hftlab.events import EventBatch, MarketDataEvent, SignalEvent
from tests.bus.samples import START_NS, trades, work_off
from tests.bus.virtual_time import VirtualTime, in_virtual_time

MS = 1_000_000
LIMIT_S = 0.05


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    return in_virtual_time(monkeypatch)


def held_ns(bus: EventBus) -> dict[str, int]:
    return {one.name: one.held_ns_max for one in bus.statistics().handlers}


# -- on a bus ---------------------------------------------------------------------------------------------------------


def test_a_handler_that_holds_the_loop_is_named_with_how_long(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock, flow=Flow(watchdog_s=LIMIT_S))

    @bus.on("market", name="slow now and then")
    def slow(price: float) -> None:
        clock.advance(300 * MS if price == 700 else MS)

    bus.offer(trades(1_000))
    work_off(bus)
    (found,) = bus.held_up
    # After slow calls the clock is looked at after each: so it is known whose call it was, and how long that one took.
    assert (found.handlers, found.held_ns, found.calls) == (("slow now and then",), 300 * MS, 1)
    assert held_ns(bus) == {"slow now and then": 300 * MS}
    assert str(found) == "slow now and then held the loop for 300.0 ms in 1 calls"


def test_where_calls_were_fast_before_all_that_might_have_held_the_loop_are_named(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock, flow=Flow(watchdog_s=LIMIT_S))

    @bus.on("market", name="suddenly slow")
    def slow(price: float) -> None:
        if price == 0:
            clock.advance(80 * MS)

    bus.subscribe(lambda price: None, "market", name="quick")
    bus.offer(trades(100))
    work_off(bus)
    (found,) = bus.held_up
    assert (found.handlers, found.held_ns) == (("quick", "suddenly slow"), 80 * MS)
    assert found.calls <= MOST_CALLS


@pytest.mark.parametrize("mode", ["event", "fields", "batch", "emitted"])
def test_handlers_of_every_kind_are_watched(clock: VirtualTime, mode: str) -> None:
    bus = EventBus(clock=clock, flow=Flow(watchdog_s=LIMIT_S))

    def hold(event: Any) -> None:
        clock.advance(60 * MS)

    def hold_by_field(price: float) -> None:
        clock.advance(60 * MS)

    def hold_batch(batch: EventBatch) -> None:
        clock.advance(60 * MS)

    if mode == "emitted":
        bus.subscribe(lambda event: SignalEvent(symbol="BTC", signal_type="s"), MarketDataEvent, name="emits")
        bus.subscribe(hold, SignalEvent, name="it")
    else:
        handlers: dict[str, Callable[..., Any]] = {"event": hold, "fields": hold_by_field, "batch": hold_batch}
        bus.subscribe(handlers[mode], "market", name="it", mode=None if mode != "batch" else "batch")
    bus.offer(trades(1))
    work_off(bus)
    assert held_ns(bus)["it"] == 60 * MS
    assert [one.handlers for one in bus.held_up] == [("it",)]


def test_the_limit_may_be_changed_and_0_watches_nobody(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock)

    @bus.on("market", name="it")
    def hold(price: float) -> None:
        clock.advance(10 * MS)

    def after(flow: Flow) -> int:
        bus.flow = flow
        bus.offer(trades(1))
        work_off(bus)
        return bus.held_up.count

    assert after(Flow()) == 0
    assert after(Flow(watchdog_s=0.01)) == 1
    assert after(Flow(watchdog_s=0)) == 1
    assert after(Flow(watchdog_s=0.002)) == 2


def test_a_table_has_a_row_a_hold_up(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock, flow=Flow(watchdog_s=0.001))

    @bus.on("market", name="it")
    def hold(price: float) -> None:
        clock.advance(2 * MS)

    bus.offer(trades(3))
    work_off(bus)
    frame = bus.held_up.to_frame()
    assert frame["handlers"].tolist() == ["it"] * len(bus.held_up)
    assert frame["held_ms"].sum() == 6
    assert frame["calls"].sum() == 3
    assert frame["at"].dt.tz is not None
    assert frame["at"].iloc[-1].value == START_NS + 6 * MS
    assert repr(bus.held_up).startswith(f"HoldUps({bus.held_up.count} longer than 1 ms, the latest: it held the loop")


# -- by itself --------------------------------------------------------------------------------------------------------


def test_an_empty_one_says_so_and_the_latest_hundred_are_kept() -> None:
    watchdog, it = HoldUps(), make_subscription(lambda event: None, name="it")
    assert repr(watchdog) == "HoldUps(0 longer than 50 ms)"
    assert watchdog.to_frame().empty
    for _ in range(KEPT + 5):
        watchdog.look(60 * MS, 1, lambda: (it,))
    assert (len(watchdog), watchdog.count) == (KEPT, KEPT + 5)


@given(st.lists(st.tuples(st.integers(0, 2 * SLOW_NS), st.integers(0, 300)), max_size=50))
def test_the_stride_stays_within_its_bounds_and_owners_are_asked_for_hold_ups_alone(
    looks: list[tuple[int, int]],
) -> None:
    watchdog = HoldUps()

    def owners() -> tuple[()]:
        raise AssertionError("nobody held the loop")

    for elapsed_ns, calls in looks:
        before = watchdog.stride
        watchdog.look(elapsed_ns, calls, owners)
        assert 1 <= watchdog.stride <= MOST_CALLS
        if elapsed_ns >= SLOW_NS:
            assert watchdog.stride < before or before == 1
        elif elapsed_ns < FAST_NS and calls >= before:
            assert watchdog.stride > before or before == MOST_CALLS
        else:
            assert watchdog.stride == before


def test_a_few_fast_calls_say_nothing_of_slow_ones() -> None:
    watchdog, it = HoldUps(), make_subscription(lambda event: None, name="it")
    for _ in range(5):
        watchdog.look(SLOW_NS, watchdog.stride, lambda: (it,))
    assert watchdog.stride == 1
    watchdog.stride = 8
    watchdog.look(1_000, 1, lambda: (it,))  # an order in between
    assert watchdog.stride == 8
    watchdog.look(1_000, 8, lambda: (it,))
    assert watchdog.stride == 16
