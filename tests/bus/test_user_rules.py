"""What a user of the bus relies on, in small: order, routing, emission, failures, room, and who is told of what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from hftlab.bus import EventBus
from hftlab.errors import BusBusy, BusClosed, BusFull, HandlerFailed, ValidationError
from hftlab.events import (
    Event,
    EventBatch,
    EventType,
    FillEvent,
    MarketDataEvent,
    OrderEvent,
    Side,
    SignalEvent,
)
from tests.bus.samples import one_lane

SIZES = (1, 3, 1_000)


def tick(price: float, symbol: str = "BTCUSDT") -> MarketDataEvent:
    return MarketDataEvent(symbol=symbol, price=price, received=1 + int(price))


def order(number: int, symbol: str = "BTCUSDT") -> OrderEvent:
    return OrderEvent(symbol=symbol, order_id=str(number), direction=Side.BUY, quantity=1, received=1)


def signal(kind: str) -> SignalEvent:
    return SignalEvent(symbol="BTCUSDT", signal_type=kind, received=1)


def work(bus: EventBus, slices: int = 1 << 62) -> None:
    while not bus.do_work(slices).idle:
        pass


@pytest.mark.parametrize("slices", SIZES)
def test_events_of_all_types_are_handled_in_the_order_of_their_publication(slices: int) -> None:
    bus, seen = EventBus(priorities=one_lane()), list[str]()
    bus.subscribe(lambda event: seen.append(f"{event.topic}"), name="all")
    events: list[Event] = []
    for index in range(60):
        kind = index * 7 % 4
        symbol = f"S{index}"
        events.append(
            tick(index, symbol)
            if kind == 0
            else order(index, symbol)
            if kind == 1
            else FillEvent(symbol=symbol, order_id="1", executed_qty=1, executed_price=1, commission=0, received=1)
            if kind == 2
            else SignalEvent(symbol=symbol, signal_type="X", received=1)
        )
    for event in events[:10]:
        bus.publish_nowait(event)
    assert bus.offer(EventBatch.from_events(events[10:])) == 50
    work(bus, slices)
    assert seen == [event.topic for event in events]


def test_handlers_are_routed_by_type_symbol_topic_and_condition() -> None:
    bus = EventBus()
    seen: dict[str, list[float]] = {}

    def into(name: str) -> Callable[[float], None]:
        return lambda price: seen.setdefault(name, []).append(price)

    bus.subscribe(into("type"), MarketDataEvent, name="type")
    bus.subscribe(into("symbol"), MarketDataEvent, symbol="BTCUSDT", name="symbol")
    bus.subscribe(into("topic"), "market.BTC*", name="topic")
    bus.subscribe(into("where"), MarketDataEvent, where=lambda rows: rows["price"] > 2, name="where")
    bus.offer(EventBatch.from_events([tick(1), tick(2, "BTCEUR"), tick(3, "ETHUSDT")]))
    work(bus)
    assert seen == {"type": [1, 2, 3], "symbol": [1], "topic": [1, 2], "where": [3]}


@pytest.mark.parametrize("slices", SIZES)
def test_what_a_handler_emits_goes_before_the_next_published_event(slices: int) -> None:
    bus, seen = EventBus(priorities=one_lane()), list[str]()

    @bus.on(MarketDataEvent)
    def quote(event: MarketDataEvent) -> list[Event]:
        seen.append(f"tick {event.price:g}")
        return [order(int(event.price)), signal("A")]

    @bus.on(OrderEvent)
    def fill(event: OrderEvent) -> SignalEvent:
        seen.append(f"order {event.order_id}")
        return signal("B")

    @bus.on(SignalEvent)
    def note(event: SignalEvent) -> None:
        seen.append(f"signal {event.signal_type}")

    bus.offer(EventBatch.from_events([tick(1), tick(2)]))
    work(bus, slices)
    after_each = ["order {}", "signal A", "signal B"]
    assert seen == [text.format(n) for n in (1, 2) for text in ("tick {}", *after_each)]
    assert bus.statistics().emitted == 6


def test_batches_are_cut_by_the_data_and_flushed_when_nothing_is_left() -> None:
    bus, sizes = EventBus(), list[int]()
    bus.subscribe(lambda batch: sizes.append(len(batch)), MarketDataEvent, mode="batch", batch_rows=100, name="batch")
    for begin in range(0, 250, 30):
        bus.offer(EventBatch.from_events([tick(begin + index) for index in range(min(30, 250 - begin))]))
    work(bus, 7)
    assert sizes == [100, 100, 50]


def test_a_full_batch_is_a_read_only_view_without_a_copy() -> None:
    bus, looks = EventBus(), list[tuple[bool, bool]]()

    @bus.on(MarketDataEvent, mode="batch")
    def look(batch: EventBatch) -> None:
        looks.append((batch.records.flags.owndata, batch.records.flags.writeable))

    bus.offer(EventBatch.from_events([tick(index) for index in range(1_024)]))
    work(bus)
    assert looks == [(False, False)]


def test_a_failing_handler_harms_nobody_and_is_raised_once_with_its_event() -> None:
    bus, seen = EventBus(), list[float]()

    @bus.on("market.*")
    def fragile(price: float) -> None:
        if price == 2:
            raise ZeroDivisionError("a bug")

    bus.subscribe(lambda price: seen.append(price), "market.*", name="other")
    bus.offer(EventBatch.from_events([tick(1), tick(2), tick(3)]))
    work(bus)
    assert seen == [1, 2, 3]
    with pytest.raises(HandlerFailed, match="ZeroDivisionError: a bug") as caught:
        bus.publish_nowait(tick(4))
    assert isinstance(caught.value.event, MarketDataEvent)
    assert caught.value.event.price == 2
    bus.publish_nowait(tick(4))
    assert bus.failures.count == 1
    assert "1" in repr(bus.failures)


def test_what_is_no_event_is_not_emitted_and_is_the_handlers_failure() -> None:
    bus = EventBus()
    bus.subscribe(lambda price: price, "market.*", name="returns a float")
    bus.offer(EventBatch.from_events([tick(1)]))
    work(bus)
    with pytest.raises(HandlerFailed, match="returns the events"):
        bus.raise_failures()


def test_a_cascade_without_end_is_cut_and_counted() -> None:
    bus = EventBus()

    @bus.on(SignalEvent)
    def again(event: SignalEvent) -> SignalEvent:
        return event

    bus.publish_nowait(signal("X"))
    work(bus)
    assert bus.statistics().emissions_refused > 0
    with pytest.raises(HandlerFailed, match="subscribe to what it emits"):
        bus.raise_failures()


async def test_publishing_waits_for_room_and_loses_nothing() -> None:
    bus, seen = EventBus(capacity=1_024), list[float]()
    bus.subscribe(lambda price: seen.append(price), "market.*", name="seen")
    pump = asyncio.ensure_future(bus.pump())
    await asyncio.sleep(0)
    await bus.publish_batch(EventBatch.from_events([tick(index) for index in range(5_000)]))
    await bus.publish(tick(5_000))
    await bus.drain()
    assert seen == list(range(5_001))
    assert bus.statistics().waits > 0
    pump.cancel()
    await asyncio.gather(pump, return_exceptions=True)


async def test_a_full_bus_that_nobody_empties_says_so() -> None:
    bus = EventBus(capacity=1_024)
    full = EventBatch.from_events([tick(index) for index in range(1_024)])
    assert bus.offer(full) == 1_024
    with pytest.raises(BusFull, match="no room"):
        bus.publish_nowait(tick(1))
    with pytest.raises(BusFull, match="start the lab"):
        async with asyncio.timeout(5):
            await bus.publish_batch(full)
    counts = bus.statistics()
    assert counts.published == counts.handled + counts.waiting + counts.dropped


def test_a_closed_bus_and_one_at_work_refuse() -> None:
    bus = EventBus()
    refused: list[str] = []

    @bus.on(MarketDataEvent)
    def meddle(event: MarketDataEvent) -> None:
        try:
            bus.do_work()
        except BusBusy as error:
            refused.append(str(error))

    bus.publish_nowait(tick(1))
    work(bus)
    assert len(refused) == 1
    bus.publish_nowait(tick(2))
    assert bus.close() == 1, "what was never handled is counted"
    with pytest.raises(BusClosed):
        bus.publish_nowait(tick(3))


def test_running_a_cell_again_replaces_its_handler_in_place() -> None:
    bus, seen = EventBus(), list[str]()
    for version in ("old", "new"):

        @bus.on(MarketDataEvent, name="first")
        def first(event: MarketDataEvent, version: str = version) -> None:
            seen.append(version)

        bus.subscribe(lambda price: seen.append("second"), "market.*", name="second")
    bus.publish_nowait(tick(1))
    work(bus)
    assert seen == ["new", "second"]
    assert [subscription.name for subscription in bus.subscriptions] == ["first", "second"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda bus: bus.subscribe(lambda a, b: None, MarketDataEvent), "names of fields"),
        (lambda bus: bus.subscribe(print, "stock.*"), "its type one of market, order, fill, signal"),
        (lambda bus: bus.subscribe(print, "market.A", symbol="B"), "drop symbol="),
        (lambda bus: bus.subscribe(lambda batch: None, mode="rows"), "mode is"),
        (lambda bus: bus.subscribe(lambda batch: None, mode="batch", batch_rows=0), "batch_rows"),
        (lambda bus: bus.on(MarketDataEvent)(3), "a handler is a function"),
    ],
)
def test_a_subscription_that_can_not_be_is_refused_with_what_would_do(
    wrong: Callable[[EventBus], object], told: str
) -> None:
    with pytest.raises(ValidationError, match=told):
        wrong(EventBus())


async def test_async_handlers_are_awaited_in_order() -> None:
    bus, seen = EventBus(), list[float]()

    @bus.on("market.*")
    async def slow(price: float) -> None:
        for _ in range(int(price) % 3):
            await asyncio.sleep(0)
        seen.append(price)

    bus.offer(EventBatch.from_events([tick(index) for index in range(20)]))
    await bus.drain()
    assert seen == list(range(20))


def test_events_without_times_are_stamped_by_the_clock() -> None:
    class Noon:
        def now_ns(self) -> int:
            return 12

    bus, seen = EventBus(clock=Noon()), list[Event]()
    bus.subscribe(seen.append, OrderEvent)
    bus.publish_nowait(OrderEvent(symbol="A", order_id="1", direction=Side.SELL, quantity=1))
    rows = EventBatch.from_events([OrderEvent(symbol="A", order_id="2", direction=Side.SELL, quantity=1)])
    before = rows.records.copy()
    bus.offer(rows)
    work(bus)
    assert [(event.received, event.timestamp) for event in seen] == [(12, 12), (12, 12)]
    assert np.array_equal(rows.records["received"], before["received"]), "the caller's rows are left alone"
    assert bus.statistics().handled == 2
    assert seen[0].event_type is EventType.ORDER
