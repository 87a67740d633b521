"""Lanes on a real bus: who goes first, how soon, and that a run keeps the recorded order whatever is set."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.bus import EventBus, Flow
from hftlab.bus.lanes import LEVELS
from hftlab.clock import VirtualClock
from hftlab.events import Event, EventBatch, EventType, MarketDataEvent, OrderEvent, Priority, Side, SignalEvent
from tests.bus.handlers import batch_of
from tests.bus.model import Item
from tests.bus.samples import START_NS, pumped, trades

CAPACITY = 1_024
LONG_NS = 10**10
STRIDE = 32


def make_bus(**flow: Any) -> EventBus:
    return EventBus(capacity=CAPACITY, clock=VirtualClock(START_NS), flow=Flow(**{"ageing_s": 0, **flow}))


def order(number: int = 0, **fields: Any) -> OrderEvent:
    return OrderEvent(symbol="BTC", order_id=str(number), direction=Side.BUY, quantity=1.0, **fields)


def names(bus: EventBus) -> list[str]:
    """What handlers are given, from now on, by lane and number."""
    seen: list[str] = []

    def note(event: Event) -> None:
        number = event.order_id if isinstance(event, OrderEvent) else f"{getattr(event, 'price', 0):g}"
        seen.append(f"{type(event).__name__[0]}{number}")

    bus.subscribe(note, name="names")
    return seen


# -- who goes first ---------------------------------------------------------------------------------------------------


def test_the_most_urgent_of_all_that_wait_goes_first_and_each_lane_keeps_its_order() -> None:
    bus = make_bus()
    seen: list[tuple[int, float]] = []
    bus.subscribe(lambda priority, price: seen.append((priority, price)), MarketDataEvent, mode="fields")
    batch = trades(400)
    batch.records["priority"] = np.resize(np.array([2, 1, 4, 3, 1], np.uint8), 400)
    expected = sorted(
        zip(batch.records["priority"].tolist(), range(400), strict=True), key=lambda one: (-one[0], one[1])
    )
    bus.offer(batch)
    for _ in range(500):
        bus.do_work(7, max_ns=LONG_NS)
    assert [(int(priority), int(price)) for priority, price in seen] == expected


def test_an_old_event_of_the_lowest_lane_gets_its_turn_among_urgent_ones() -> None:
    bus = EventBus(capacity=CAPACITY, clock=(clock := VirtualClock(START_NS)), flow=Flow(ageing_s=0.5))
    seen = names(bus)
    bus.publish_nowait(MarketDataEvent(symbol="B", price=1.0, priority=Priority.LOW))
    clock.advance(1_500_000_000)
    for number in range(10):
        bus.publish_nowait(order(number))
    # A turn is 0.1 ms, in which a slow machine may not get to a row: it has a few, and would be the last without.
    for _ in range(8):
        bus.do_work(1, max_ns=LONG_NS)
    assert "M1" in seen


# -- how soon ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 5, 30, 31, 32, 100, 699])
@pytest.mark.parametrize("rows", [700, 1_024])
def test_an_urgent_event_that_a_handler_publishes_waits_for_the_rest_of_32_calls(at: int, rows: int) -> None:
    bus = make_bus()
    seen = names(bus)

    def publish(price: float) -> None:
        if price == at:
            bus.publish_nowait(order())

    bus.subscribe(publish, MarketDataEvent, mode="fields", name="publisher")
    bus.cancel("names")
    seen = names(bus)  # behind the publisher
    bus.offer(trades(rows))
    bus.do_work(max_ns=LONG_NS)
    # Two calls a row: the publisher's, and the one that notes it. The call that published is one of the 32.
    assert 2 * (seen.index("O0") - at) <= STRIDE
    assert [name for name in seen if name != "O0"] == [f"M{price}" for price in range(rows)]


@pytest.mark.parametrize("at", [0, 5, 31, 400])
def test_an_order_that_a_handler_emits_goes_before_the_next_event_of_its_lane(at: int) -> None:
    bus = make_bus()

    def emit(price: float) -> OrderEvent | None:
        return order() if price == at else None

    bus.subscribe(emit, MarketDataEvent, mode="fields", name="emitter")
    seen = names(bus)
    bus.offer(trades(700))
    bus.do_work(max_ns=LONG_NS)
    assert seen[at : at + 3] == [f"M{at}", "O0", f"M{at + 1}"]
    assert next(one.preempted for one in bus.statistics().lanes if one.lane == "NORMAL") == 1


def test_being_left_once_counts_once_however_many_urgent_events_there_are() -> None:
    bus = make_bus()

    def publish(price: float) -> None:
        if price == 40:
            for number in range(9):
                bus.publish_nowait(order(number))

    bus.subscribe(publish, MarketDataEvent, mode="fields")
    bus.offer(trades(100))
    bus.do_work(max_ns=LONG_NS)
    lanes = {one.lane: one for one in bus.statistics().lanes}
    assert (lanes["NORMAL"].preempted, lanes["CRITICAL"].handled) == (1, 9)


async def test_a_critical_event_has_been_handled_when_publish_returns() -> None:
    bus = make_bus()
    async with pumped(bus):
        seen = names(bus)
        for number in range(3):
            await bus.publish(order(number))
            assert seen[-1] == f"O{number}"
            bus.publish_nowait(order(number + 100))
            assert seen[-1] == f"O{number + 100}"
        await bus.publish(MarketDataEvent(symbol="B", price=1.0))
        assert seen[-1] == "O102"
        await bus.drain()
    assert seen[-1] == "M1"


async def test_an_order_is_handled_at_once_though_quotes_wait_and_without_a_turn_of_the_loop() -> None:
    bus = make_bus()
    async with pumped(bus):
        seen = names(bus)
        bus.offer(trades(1_000))
        bus.publish_nowait(order())
        assert seen == ["O0"]
        await bus.drain()
    assert seen[1:] == [f"M{price}" for price in range(1_000)]


async def test_a_critical_event_out_of_a_handler_is_not_handled_within_it() -> None:
    bus = make_bus()
    depth = deepest = 0

    def handle(event: Event) -> None:
        nonlocal depth, deepest
        depth += 1
        deepest = max(deepest, depth)
        if isinstance(event, MarketDataEvent):
            bus.publish_nowait(order())
        depth -= 1

    bus.subscribe(handle)
    async with pumped(bus):
        bus.offer(trades(50))
        await bus.drain()
    assert (deepest, bus.statistics().handled) == (1, 100)


async def test_an_order_passes_a_lane_that_an_async_handler_holds_up() -> None:
    bus = make_bus()
    held = asyncio.Event()

    async def hold(event: MarketDataEvent) -> None:
        await held.wait()

    bus.subscribe(hold, MarketDataEvent)
    bus.offer(trades(1))
    bus.do_work(max_ns=LONG_NS)
    seen = names(bus)
    async with pumped(bus):
        await bus.publish(order())
        assert seen == ["O0"]
        held.set()
        await bus.drain()


def test_emissions_of_a_low_lane_get_their_turn_however_busy_the_others_are() -> None:
    """They are no published rows, and wait all the same."""
    bus = EventBus(capacity=CAPACITY, clock=(clock := VirtualClock(START_NS)), flow=Flow(ageing_s=0.5))
    seen: list[str] = []

    def emit(event: MarketDataEvent) -> SignalEvent | None:
        if event.priority is Priority.LOW:
            bus.publish_nowait(MarketDataEvent(symbol="B", price=0.0))
            return SignalEvent(symbol="B", signal_type="s", priority=Priority.LOW)
        clock.advance(1_000_000)
        if event.price < 5_000:
            bus.publish_nowait(MarketDataEvent(symbol="B", price=event.price + 1))
        return None

    bus.subscribe(emit, MarketDataEvent)
    bus.subscribe(lambda event: seen.append(f"after {clock.now_ns() - START_NS:,} ns"), SignalEvent, name="signals")
    bus.publish_nowait(MarketDataEvent(symbol="B", price=0.0, priority=Priority.LOW))
    while not seen and not bus.do_work(1, max_ns=LONG_NS).idle:
        pass
    assert seen
    assert clock.now_ns() - START_NS <= 1_600_000_000


# -- runs -------------------------------------------------------------------------------------------------------------

runs = st.lists(st.tuples(st.sampled_from(EventType), st.integers(0, 4), st.integers(1, 40)), min_size=1, max_size=12)


@settings(max_examples=40)
@given(runs, st.sampled_from(["drop newest", "drop oldest", "conflate", "raise"]), st.sampled_from([1, 3, 1 << 40]))
def test_a_run_keeps_the_recorded_order_and_every_event_whatever_is_set(
    drawn: list[tuple[EventType, int, int]], overflow: str, step: int
) -> None:
    bus = make_bus(overflow=overflow, limit_bytes=128 * 10, ageing_s=0.001)
    bus.priorities.raise_when(lambda rows: rows["log_sequence"] % 3 == 0, "CRITICAL", name="every third")
    kinds = [kind for kind, _, count in drawn for _ in range(count)]
    batch = batch_of([Item(at, kind, "S", 0, START_NS + at) for at, kind in enumerate(kinds)], bus.symbols)
    batch.records["priority"] = np.array([level for _, level, count in drawn for _ in range(count)], np.uint8)
    seen: list[int] = []
    bus.subscribe(lambda log_sequence: seen.append(log_sequence), mode="fields", name="all")
    run = bus.begin_run("a run", VirtualClock(START_NS))
    assert run.offer(batch) == len(kinds)
    while not run.work(step, 1 << 62).idle:
        pass
    run.end()
    assert seen == list(range(len(kinds)))
    now = bus.statistics()
    assert (now.handled, now.dropped, now.conflated, now.shed) == (len(kinds), 0, 0, 0)


def test_what_a_run_emits_stays_between_the_recorded_events_however_urgent() -> None:
    bus = make_bus()
    seen = names(bus)
    bus.subscribe(lambda event: order(int(event.price)), MarketDataEvent, name="emitter")
    run = bus.begin_run("a run", VirtualClock(START_NS))
    run.offer(trades(5))
    run.work(1 << 40, 1 << 62)
    run.end()
    assert seen == [name for price in range(5) for name in (f"M{price}", f"O{price}")]


def test_a_full_queue_makes_the_holder_of_a_run_wait() -> None:
    bus = make_bus(overflow="drop oldest")
    run = bus.begin_run("a run", VirtualClock(START_NS))
    assert run.offer(trades(2_000)) == CAPACITY
    assert run.offer(trades(1)) == 0
    run.end()
    assert bus.statistics().dropped_oldest == 0


def test_every_level_has_a_lane_and_a_default_event_goes_to_its_types() -> None:
    bus = make_bus()
    assert [one.lane for one in bus.statistics().lanes] == [level.name for level in LEVELS]
    bus.offer(EventBatch.from_events([order(), MarketDataEvent(symbol="B", price=1.0)]))
    waiting = {one.lane: one.waiting for one in bus.statistics().lanes}
    assert waiting == {"CRITICAL": 1, "HIGH": 0, "NORMAL": 1, "LOW": 0}
