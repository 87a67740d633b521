"""The order of things, case by case; ``test_model`` has it as a whole."""

from __future__ import annotations

from typing import Any

import pytest

from hftlab.bus import EventBus
from hftlab.clock import VirtualClock
from hftlab.events import Event, EventBatch, EventType, MarketDataEvent, SignalEvent
from hftlab.events.records import Rows
from tests.bus.samples import START_NS, trades, work_off


def signal(text: str = "s") -> SignalEvent:
    return SignalEvent(symbol="BTC", signal_type=text)


@pytest.fixture
def bus() -> EventBus:
    return EventBus(capacity=1_024)


def test_what_a_handler_emits_goes_before_the_next_published_event_and_after_its_own_ones_handlers(
    bus: EventBus,
) -> None:
    order: list[str] = []

    def emits(event: MarketDataEvent) -> SignalEvent:
        order.append(f"emits {event.price:.0f}")
        return signal(f"of {event.price:.0f}")

    bus.subscribe(emits, "market", name="emits")
    bus.subscribe(lambda event: order.append(f"beside {event.price:.0f}"), "market", name="beside")
    bus.subscribe(lambda event: order.append(event.signal_type), "signal", name="signals")
    bus.offer(trades(2))
    work_off(bus)
    assert order == ["emits 0", "beside 0", "of 0", "emits 1", "beside 1", "of 1"]


def test_emissions_of_emissions_wait_their_turn(bus: EventBus) -> None:
    order: list[str] = []

    def grows(event: SignalEvent) -> list[SignalEvent]:
        order.append(event.signal_type)
        return [signal(event.signal_type + digit) for digit in "ab"] if len(event.signal_type) < 3 else []

    bus.subscribe(grows, "signal")
    bus.publish_nowait(signal("x"))
    work_off(bus)
    assert order == ["x", "xa", "xb", "xaa", "xab", "xba", "xbb"]


def test_a_batch_goes_after_the_handlers_and_the_emissions_of_its_rows(bus: EventBus) -> None:
    order: list[str] = []
    bus.subscribe(lambda batch: order.append(f"batch of {len(batch)}"), "market", mode="batch", batch_rows=2, name="b")
    bus.subscribe(lambda event: signal(f"of {event.price:.0f}"), "market", name="emits")
    bus.subscribe(lambda event: order.append(event.signal_type), "signal", name="signals")
    bus.offer(trades(3))
    work_off(bus)
    assert order == ["of 0", "of 1", "batch of 2", "of 2", "batch of 1"]


def test_a_full_batch_of_one_type_goes_before_the_next_event_of_another(bus: EventBus) -> None:
    order: list[str] = []
    bus.subscribe(lambda batch: order.append("batch"), "market", mode="batch", batch_rows=2, name="batches")
    bus.subscribe(lambda event: order.append(event.signal_type), "signal", name="signals")
    tick = MarketDataEvent(symbol="BTC", price=1.0)
    bus.offer(EventBatch.from_events([tick, signal("one"), tick, signal("two"), tick]))
    work_off(bus)
    assert order == ["one", "batch", "two", "batch"]


def test_what_a_batch_emits_goes_before_the_next_batch_that_is_due(bus: EventBus) -> None:
    order: list[str] = []

    def batches(name: str) -> Any:
        def handler(batch: EventBatch) -> SignalEvent:
            order.append(name)
            return signal(f"of {name}")

        return handler

    for name in ("a", "b"):
        bus.subscribe(batches(name), "market", mode="batch", batch_rows=2, name=name)
    bus.subscribe(lambda event: order.append(event.signal_type), "signal", name="signals")
    bus.offer(trades(2))
    work_off(bus)
    assert order == ["a", "of a", "b", "of b"]


def test_changed_subscriptions_take_hold_with_the_next_event(bus: EventBus) -> None:
    order: list[str] = []

    def first(event: Event) -> None:
        order.append(f"first {event.event_id & 0xFF}")
        if event.event_id & 0xFF == 1:
            bus.cancel("second")
            bus.subscribe(lambda event: order.append(f"third {event.event_id & 0xFF}"), name="third")

    bus.subscribe(first, name="first")
    bus.subscribe(lambda event: order.append(f"second {event.event_id & 0xFF}"), name="second")
    bus.offer(trades(3, session_number=1))
    work_off(bus)
    assert order == ["first 0", "second 0", "first 1", "second 1", "first 2", "third 2"]


def test_a_handler_may_cancel_itself(bus: EventBus) -> None:
    seen: list[float] = []

    @bus.on("market", name="once")
    def once(price: float) -> None:
        seen.append(price)
        bus.cancel("once")

    bus.offer(trades(100))
    work_off(bus)
    assert seen == [0]


def test_a_batch_handler_that_comes_later_begins_with_the_next_event(bus: EventBus) -> None:
    sizes: list[list[float]] = []

    def note(batch: EventBatch) -> None:
        sizes.append(batch.records["price"].tolist())

    @bus.on("market", name="begins")
    def begins(price: float) -> None:
        if price == 5:
            bus.subscribe(note, "market", mode="batch", batch_rows=4)

    bus.offer(trades(12))
    work_off(bus)
    assert sizes == [[6, 7, 8, 9], [10, 11]]


def test_the_observer_sees_every_row_in_the_order_of_dispatch(bus: EventBus) -> None:
    pieces: list[list[tuple[int, int]]] = []

    def observe(rows: Rows) -> None:
        pieces.append(list(zip(rows["type"].tolist(), rows["log_sequence"].tolist(), strict=True)))

    bus.subscribe(lambda event: signal() if event.price == 1 else None, "market")
    run = bus.begin_run("a run", VirtualClock(), observe)
    run.offer(trades(4))
    while not run.work(100, 0).idle:
        pass
    market, signals = EventType.MARKET_DATA.value, EventType.SIGNAL.value
    assert [row for piece in pieces for row in piece] == [
        (market, 0),
        (market, 1),
        (signals, 0),
        (market, 2),
        (market, 3),
    ]


def test_what_is_done_is_shown_when_work_pauses(bus: EventBus) -> None:
    seen = 0

    def observe(rows: Rows) -> None:
        nonlocal seen
        seen += len(rows)

    run = bus.begin_run("a run", VirtualClock(), observe)
    run.offer(trades(10))
    for count in range(1, 11):
        while run.handled < count:
            run.work(1, 1 << 62)
        assert seen == count
        assert bus.clock.now_ns() == START_NS + count - 1


def test_interrupts_lose_nothing_wherever_they_come(bus: EventBus) -> None:
    """A generator is interrupted while the bus takes what another handler of the same event emitted."""
    seen: list[str] = []
    interrupted = False

    def generates(event: Event) -> Any:
        nonlocal interrupted
        yield signal("before")
        if not interrupted:
            interrupted = True
            raise KeyboardInterrupt

    bus.subscribe(generates, "market", name="generates")
    bus.subscribe(lambda event: signal("other"), "market", name="other")
    bus.subscribe(lambda event: seen.append(event.signal_type), "signal", name="notes")
    bus.offer(trades(2))
    with pytest.raises(KeyboardInterrupt):
        work_off(bus)
    work_off(bus)
    assert sorted(seen) == ["before", "before", "other", "other"]
    assert bus.statistics().handled == 2
