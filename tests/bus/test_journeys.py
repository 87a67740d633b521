"""What the bus notes of its rows' journeys, by a clock that only handlers move."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from hftlab.bus import EventBus
from hftlab.bus.journeys import SAMPLED_STRIDES
from hftlab.clock import VirtualClock
from hftlab.errors import ValidationError
from hftlab.events import EventBatch, Kind, MarketDataEvent, OrderEvent, OrderType, Side, SignalEvent
from hftlab.metrics.journeys import Stage
from tests.bus.samples import START_NS, one_lane, pumped, trades, until, work_off
from tests.bus.virtual_time import VirtualTime, in_virtual_time

MS = 1_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    return in_virtual_time(monkeypatch)


def work_off_what_does_not_wait(bus: EventBus) -> None:
    while not (work := bus.do_work(max_ns=1 << 62)).idle and not work.awaiting:
        pass


def p50(bus: EventBus, stage: Stage, **by: Any) -> float:
    return bus.latency.histogram(stage, **by).quantile(0.5)


def count(bus: EventBus, stage: Stage, **by: Any) -> int:
    return bus.latency.histogram(stage, **by).recorded


def test_a_row_is_dispatched_when_those_before_it_are_through(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock)

    @bus.on(MarketDataEvent)
    def slow(price: float) -> None:
        clock.advance(MS)

    bus.offer(trades(10))
    work_off(bus)
    handled = bus.latency.histogram(Stage.HANDLED)
    dispatched = bus.latency.histogram(Stage.DISPATCHED)
    assert handled.count == dispatched.count == 10
    # The watchdog looks every 32 calls until it finds slow ones: these ten share what they took evenly.
    assert handled.minimum == handled.maximum == MS
    assert (dispatched.minimum, dispatched.maximum) == (0, 9 * MS)


def test_what_waits_before_anybody_works_is_time_in_the_lane(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock)
    bus.on(MarketDataEvent)(lambda price: None)
    bus.offer(trades(5))
    clock.advance(7 * MS)
    bus.offer(trades(5))
    clock.advance(3 * MS)
    work_off(bus)
    dispatched = bus.latency.histogram(Stage.DISPATCHED)
    assert (dispatched.count, dispatched.minimum, dispatched.maximum) == (10, 3 * MS, 10 * MS)


@pytest.mark.parametrize("mode", ["fields", "batch"])
def test_the_whole_way_begins_with_the_arrival(clock: VirtualTime, mode: str) -> None:
    bus = EventBus(clock=clock)
    if mode == "batch":
        bus.subscribe(lambda batch: clock.advance(MS), MarketDataEvent, mode="batch", name="it")
    else:
        bus.subscribe(lambda price: clock.advance(MS), MarketDataEvent, name="it")
    batch = trades(4)
    batch.records["received"] = clock.now_ns() - 20 * MS
    batch.records["timestamp"] = clock.now_ns() - 25 * MS
    bus.offer(batch)
    work_off(bus)
    whole, arrived = bus.latency.histogram(Stage.TOTAL), bus.latency.histogram(Stage.RECEIVED)
    expected = [21, 21, 21, 21] if mode == "batch" else [21, 22, 23, 24]
    assert (whole.count, whole.minimum, whole.maximum) == (4, expected[0] * MS, expected[-1] * MS)
    assert (arrived.count, arrived.minimum, arrived.maximum) == (4, 5 * MS, 5 * MS)
    sequenced = bus.latency.histogram(Stage.SEQUENCED)
    assert (sequenced.count, sequenced.minimum, sequenced.maximum) == (4, 20 * MS, 20 * MS)
    assert count(bus, Stage.HANDLED, handler="it") == 4


def test_rows_of_several_types_keep_their_own_histograms(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock)
    bus.on(MarketDataEvent)(lambda price: clock.advance(MS))
    bus.on(OrderEvent)(lambda quantity: clock.advance(2 * MS))
    order = OrderEvent(symbol="BTC", order_id="o1", direction=Side.BUY, quantity=1.0, order_type=OrderType.MARKET)
    trade = next(trades(1).events())
    batch = EventBatch.from_events([order if place % 3 else trade for place in range(60)])
    bus.priorities = one_lane()
    bus.offer(batch)
    work_off(bus)
    for event_type, rows in batch.counts().items():
        assert count(bus, Stage.HANDLED, type=event_type.topic) == rows
        assert count(bus, Stage.DISPATCHED, type=event_type.topic) == rows


def test_calls_of_several_handlers_are_timed_one_by_one_now_and_then(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock)
    bus.subscribe(lambda price: clock.advance(100), MarketDataEvent, name="one")
    bus.subscribe(lambda price, volume: clock.advance(300), MarketDataEvent, name="other")
    bus.offer(trades(4_000))
    work_off(bus)
    calls = sum(count(bus, Stage.HANDLED, handler=name) for name in ("one", "other"))
    assert 8_000 / 32 / SAMPLED_STRIDES * 0.5 <= calls <= 8_000 / 16
    for name, took in (("one", 100), ("other", 300)):
        assert count(bus, Stage.HANDLED, handler=name) > 5, "handlers take turns, and so do the calls that are timed"
        assert p50(bus, Stage.HANDLED, handler=name) == pytest.approx(took, rel=0.01)


def test_slow_calls_of_several_handlers_are_timed_more_often(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock)
    bus.subscribe(lambda price: clock.advance(5 * MS), MarketDataEvent, name="slow")
    bus.subscribe(lambda price: None, MarketDataEvent, name="fast")
    bus.offer(trades(400))
    work_off(bus)
    # The watchdog looks after each slow call, and after two once a fast one has come between.
    assert count(bus, Stage.HANDLED, handler="slow") > 150
    assert p50(bus, Stage.HANDLED, handler="slow") == pytest.approx(5 * MS, rel=0.01)


async def test_a_row_whose_async_handler_is_awaited_in_line_is_through_when_that_is(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock)

    @bus.on(MarketDataEvent, queue=0)
    async def waits(price: float) -> None:
        clock.advance(MS)

    bus.offer(trades(3))
    while not (work := bus.do_work(max_ns=1 << 62)).idle:
        if work.awaiting:
            await bus.settle()
    assert count(bus, Stage.HANDLED) == 3
    assert bus.latency.histogram(Stage.HANDLED).maximum == MS


async def test_an_async_handler_is_timed_from_its_call_to_its_end(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock)
    go_on = asyncio.Event()

    @bus.on(MarketDataEvent, name="waits")
    async def waits(price: float) -> None:
        await go_on.wait()

    bus.offer(trades(2))
    work_off_what_does_not_wait(bus)
    assert bus.latency.histogram(Stage.HANDLED).count == 2, "to their first wait"
    clock.advance(40 * MS)
    go_on.set()
    async with pumped(bus):
        await until(lambda: bus.statistics().handlers[0].queued == 0)
    timed = bus.latency.histogram(handler="waits")
    assert timed.maximum == 40 * MS


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_events_that_come_one_by_one_are_timed_as_those_that_come_together(clock: VirtualTime, count: int) -> None:
    bus = EventBus(clock=clock)
    bus.subscribe(lambda price: clock.advance(MS), MarketDataEvent, name="it")
    event = MarketDataEvent(symbol="BTC", kind=Kind.TRADE, price=1.0, volume=1.0)
    for _ in range(count):
        bus.publish_nowait(event)
        clock.advance(3 * MS)
        work_off(bus)
    shown = bus.latency
    for stage, took in ((Stage.DISPATCHED, 3), (Stage.HANDLED, 1), (Stage.SEQUENCED, 0), (Stage.TOTAL, 4)):
        histogram = shown.histogram(stage)
        assert (histogram.count, histogram.minimum, histogram.maximum) == (count, took * MS, took * MS), stage
    assert shown.histogram(handler="it").count == count
    assert Stage.RECEIVED not in shown.stages, "nobody but us stamped them"


def test_handlers_of_emitted_events_are_timed(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock)
    bus.subscribe(lambda event: SignalEvent(symbol="BTC", signal_type="s"), MarketDataEvent, name="emits")
    bus.subscribe(lambda event: clock.advance(2 * MS), SignalEvent, name="takes")
    bus.offer(trades(5))
    work_off(bus)
    timed = bus.latency.histogram(handler="takes")
    assert (timed.count, timed.minimum, timed.maximum) == (5, 2 * MS, 2 * MS)


def test_a_run_has_a_journey_of_its_own_and_notes_no_whole_way_where_it_is_virtual(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock)
    bus.on(MarketDataEvent)(lambda price: clock.advance(MS))
    journey = bus.new_journey("replay", virtual=True)
    run = bus.begin_run("it", VirtualClock(START_NS), journey=journey)
    run.offer(trades(6))
    run.finish()
    while not run.work(1 << 62, 1 << 62).idle:
        pass
    shown = bus.latency
    run.end()
    assert shown.name == "it"
    assert shown.histogram(Stage.HANDLED).count == 6
    assert shown.histogram(Stage.TOTAL).recorded == shown.histogram(Stage.SEQUENCED).recorded == 0
    assert bus.latency.histogram(Stage.HANDLED).count == 6, "until something is published"
    bus.offer(trades(1))
    work_off(bus)
    assert bus.latency.histogram(Stage.HANDLED).count == 1


def test_one_in_so_many_rows_is_sampled_where_that_was_asked_for(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock, journeys=10)
    bus.on(MarketDataEvent)(lambda price: clock.advance(MS))
    for first in range(0, 1_000, 100):
        bus.offer(trades(100, first))
        work_off(bus)
    assert 90 <= count(bus, Stage.RECEIVED) <= 110


@pytest.mark.parametrize("mode", ["fields", "batch"])
def test_where_very_many_rows_come_through_at_once_one_in_eight_is_timed_by_itself(
    clock: VirtualTime, mode: str
) -> None:
    bus = EventBus(clock=clock)
    if mode == "batch":
        bus.subscribe(lambda batch: None, MarketDataEvent, mode="batch", name="it")
    else:
        bus.subscribe(lambda price: None, MarketDataEvent, name="it")
    for first in range(0, 102_400, 1_024):
        bus.offer(trades(1_024, first))
        work_off(bus)
    for stage in (Stage.RECEIVED, Stage.SEQUENCED, Stage.TOTAL):
        assert count(bus, stage) == pytest.approx(102_400, rel=0.6 if mode == "batch" else 0.3), stage
    assert 102_400 / 2 < bus.latency.untimed < 102_400
    assert f"{bus.latency.untimed:,} further rows came too fast" in bus.latency.notes()[0]
    if mode == "batch":  # waits and calls are noted for all
        assert count(bus, Stage.DISPATCHED) == count(bus, Stage.HANDLED) == 102_400
        assert count(bus, Stage.HANDLED, handler="it") == 102_400


def test_without_journeys_nothing_is_noted_and_the_bus_says_so(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock, journeys=0)
    bus.on(MarketDataEvent)(lambda price: None)
    bus.offer(trades(10))
    work_off(bus)
    assert bus.latency.journeys == ()
    assert bus.new_journey("replay") is None


@pytest.mark.parametrize("journeys", [-1, True, 1.5, "1", 1 << 21])
def test_of_how_many_events_one_is_timed_is_a_small_count(journeys: Any) -> None:
    with pytest.raises(ValidationError, match="journeys is of how many events one is timed"):
        EventBus(journeys=journeys)


def test_interpolated_times_never_run_backwards(clock: VirtualTime) -> None:
    rng = np.random.default_rng(5)
    bus = EventBus(clock=clock)
    bus.on(MarketDataEvent)(lambda price: clock.advance(int(rng.integers(0, 100_000))))
    for first in range(0, 5_000, 200):
        bus.offer(trades(200, first))
        while not bus.do_work(max_events=int(rng.integers(1, 70)), max_ns=1 << 62).idle:
            clock.advance(1_000)
    assert bus.latency.histogram(Stage.HANDLED).negative == 0
    assert bus.latency.histogram(Stage.DISPATCHED).negative == 0
    assert count(bus, Stage.HANDLED) == 5_000


def test_a_burst_of_slow_rows_weighs_as_much_as_its_rows(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock)
    took = [0]
    bus.subscribe(lambda price: clock.advance(took[0]), MarketDataEvent, name="it")
    first = 0
    for took[0], times in ((100, 60), (50_000, 20)):  # 0.1 us, then 50 us a row
        for _ in range(times):
            bus.offer(trades(1_024, first))
            first += 1_024
            work_off(bus)
    handled = bus.latency.histogram(Stage.HANDLED)
    assert handled.count == pytest.approx(80 * 1_024, rel=0.3)
    assert handled.quantile(0.5) == pytest.approx(100, rel=0.01)
    assert handled.quantile(0.9) == pytest.approx(50_000, rel=0.01)


def test_a_handler_is_timed_for_the_rows_that_it_is_called_for(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock)
    bus.subscribe(lambda price: clock.advance(MS), MarketDataEvent, symbol="ETH", name="some")
    bus.offer(trades(600, symbols=("BTC", "ETH")))
    work_off(bus)
    timed = bus.latency.histogram(handler="some")
    assert 0 < timed.count <= 300
    assert timed.minimum == timed.maximum == MS


def test_batches_that_a_breaker_keeps_away_are_not_handled(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock)

    def fails(batch: EventBatch) -> None:
        clock.advance(MS)
        raise ValueError("no")

    bus.subscribe(fails, MarketDataEvent, mode="batch", batch_rows=100, name="it", breaker=True)
    calls = 0
    for first in range(0, 20_000, 100):
        bus.offer(trades(100, first))
        work_off(bus)
        calls = bus.statistics().handlers[0].calls
    assert calls < 200, "the breaker has opened"
    assert bus.latency.histogram(handler="it").count == 100 * calls
    assert bus.latency.histogram(handler="it").minimum == MS


def test_an_interrupt_between_gathered_rows_leaves_the_bus_at_work(clock: VirtualTime) -> None:
    bus = EventBus(clock=clock)
    bus.subscribe(lambda price: None, MarketDataEvent, name="it")
    recorder = bus._lanes.recorder
    note = recorder._note_gathered

    def interrupted(*given: Any) -> None:
        recorder._note_gathered = note  # type: ignore[method-assign]
        raise KeyboardInterrupt

    event = MarketDataEvent(symbol="BTC", kind=Kind.TRADE, price=1.0, volume=1.0)
    recorder._note_gathered = interrupted  # type: ignore[method-assign, assignment]
    interrupts = 0
    for _ in range(200):
        bus.publish_nowait(event)
        try:
            work_off(bus)
        except KeyboardInterrupt:
            interrupts += 1
    work_off(bus)
    assert interrupts == 1
    assert bus.statistics().handled == 200
    assert bus.latency.histogram(Stage.HANDLED).count >= 199 - 64
