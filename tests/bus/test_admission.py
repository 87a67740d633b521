"""What finds no room: each overflow policy, the limits, rows left over, and the lines of those who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hftlab.bus import BusStatistics, EventBus, Flow, Overflow
from hftlab.bus.admission import GivenWay
from hftlab.clock import VirtualClock
from hftlab.errors import BusFull
from hftlab.events import (
    EventBatch,
    EventType,
    FillEvent,
    Kind,
    MarketDataEvent,
    OrderEvent,
    Priority,
    Side,
)
from hftlab.events.records import ROW_BYTES
from hftlab.flow.shed_rules import ShedRule
from hftlab.flow.sizing import SizeBounds
from tests.bus.handlers import make_event
from tests.bus.samples import START_NS, pumped, trades, until, work_off

CAPACITY = 1_024
DROPS = ["drop newest", "drop oldest"]


def make_bus(overflow: Any = "wait", **flow: Any) -> EventBus:
    return EventBus(capacity=CAPACITY, clock=VirtualClock(START_NS), flow=Flow(overflow=overflow, ageing_s=0, **flow))


def quotes(count: int, symbols: int = 3, first: int = 0) -> EventBatch:
    batch = trades(count, first=first, symbols=tuple(f"S{index}" for index in range(symbols)))
    batch.records["kind"] = Kind.QUOTE
    return batch


def in_lanes(batch: EventBatch, *levels: Priority) -> EventBatch:
    """The same rows; they name these lanes by turns."""
    batch.records["priority"] = np.resize(np.array(levels, np.uint8), len(batch))
    return batch


def seen_prices(bus: EventBus) -> list[float]:
    found: list[float] = []

    def note(price: float) -> None:
        found.append(price)

    bus.subscribe(note, MarketDataEvent, name="prices")
    work_off(bus)
    return found


def check_books(bus: EventBus) -> BusStatistics:
    now = bus.statistics()
    lost = now.shed + now.conflated + now.dropped
    sequenced = now.held + now.redelivered + now.duplicate + now.set_aside
    assert now.published == now.handled + now.dead_lettered + now.waiting + sequenced + lost
    return now


# -- policies ---------------------------------------------------------------------------------------------------------


def test_given_way_is_counted_by_lane_type_and_reason() -> None:
    given_way = GivenWay()
    for lane, event_type, reason, rows in (
        (Priority.LOW, EventType.MARKET_DATA, "drop oldest", 3),
        (Priority.LOW, EventType.FILL, "drop oldest", 2),
        (Priority.NORMAL, EventType.MARKET_DATA, "shed: old", 5),
        (Priority.NORMAL, EventType.MARKET_DATA, "shed: overload", 7),
        (Priority.NORMAL, EventType.MARKET_DATA, "conflate", 0),
    ):
        given_way.add(lane, event_type, reason, rows)
    assert (given_way.total(), given_way.total("drop oldest"), given_way.shed) == (17, 5, 12)
    assert given_way.total("drop oldest", "shed: old", lane=Priority.LOW) == 5
    assert given_way.of_lane(Priority.LOW) == {"drop oldest": 5}
    assert given_way.of_lane(Priority.NORMAL) == {"shed: old": 5, "shed: overload": 7}


@pytest.mark.parametrize(("overflow", "kept"), [("drop newest", range(CAPACITY)), ("drop oldest", range(976, 2_000))])
@pytest.mark.parametrize("pieces", [[2_000], [1_000, 1_000], [1, 1_999], [500] * 4])
def test_what_is_too_much_is_dropped_however_it_comes(overflow: str, kept: range, pieces: list[int]) -> None:
    bus = make_bus(overflow)
    first = 0
    for count in pieces:
        assert bus.offer(trades(count, first=first)) == count
        first += count
    now = check_books(bus)
    assert (now.waiting, now.held, now.dropped) == (CAPACITY, 0, 2_000 - CAPACITY)
    assert now.dropped_newest + now.dropped_oldest == now.dropped
    assert seen_prices(bus) == list(kept)


@pytest.mark.parametrize("pieces", [[2_000], [1_000, 1_000], [100] * 20])
def test_of_states_the_latest_of_each_kind_stays_once_there_is_no_room(pieces: list[int]) -> None:
    bus = make_bus("conflate")
    first = 0
    for count in pieces:
        assert bus.offer(quotes(count, first=first)) == count
        first += count
    now = check_books(bus)
    assert now.waiting <= CAPACITY
    assert now.conflated == 2_000 - now.waiting
    prices = seen_prices(bus)
    assert prices == sorted(prices)
    assert prices[-3:] == [1997, 1998, 1999]


def test_with_room_nothing_is_conflated() -> None:
    bus = make_bus("conflate")
    bus.offer(quotes(CAPACITY, symbols=1))
    assert bus.statistics().conflated == 0
    bus.offer(quotes(1, symbols=1, first=CAPACITY))
    assert (bus.statistics().conflated, bus.statistics().waiting) == (CAPACITY, 1)


def test_what_can_not_be_conflated_waits_for_room_as_if_nothing_had_been_said() -> None:
    bus = make_bus("conflate")
    assert bus.offer(trades(2_000)) == CAPACITY
    assert bus.offer(quotes(5)) == 0
    assert check_books(bus).conflated == 0


def test_trades_among_quotes_keep_their_places_and_all_of_them() -> None:
    bus = make_bus("conflate")
    batch = quotes(CAPACITY, symbols=2)
    batch.records["kind"][::8] = Kind.TRADE
    bus.offer(batch)
    bus.offer(quotes(2, symbols=2, first=5_000))
    assert seen_prices(bus) == [*range(0, CAPACITY, 8), 5_000, 5_001]


def test_of_a_batch_that_fits_only_partly_as_much_is_taken_as_conflation_makes_room_for() -> None:
    bus = make_bus("conflate")
    bus.offer(trades(1_020))
    batch = quotes(100, symbols=3)
    batch.records["kind"][50:] = Kind.TRADE
    assert bus.offer(batch) == 51  # three quotes and one trade
    assert (bus.statistics().waiting, bus.statistics().conflated) == (CAPACITY, 47)


def test_policies_are_by_type() -> None:
    bus = make_bus({OrderEvent: "drop oldest", "signal": Overflow.DROP_NEWEST})
    bus.priorities.map(lane="NORMAL")
    for event_type in (EventType.ORDER, EventType.SIGNAL):
        for _ in range(CAPACITY + 1):
            bus.publish_nowait(make_event(event_type, "BTC"))
    now = bus.statistics()
    assert (now.dropped_oldest, now.dropped_newest) == (1, 1)
    assert bus.offer(trades(2_000)) == CAPACITY


@pytest.mark.parametrize("overflow", [*DROPS, "conflate"])
def test_critical_events_lose_nothing(overflow: str) -> None:
    bus = make_bus(overflow)
    batch = in_lanes(quotes(2_000, symbols=1), Priority.CRITICAL)
    assert bus.offer(batch) == CAPACITY
    with pytest.raises(BusFull, match=r"the market queue of [A-Z]+ has no room for one more row \(1,024\)"):
        bus.publish_nowait(MarketDataEvent(symbol="S0", price=1.0, priority=Priority.CRITICAL))
    assert (check_books(bus).dropped, check_books(bus).conflated) == (0, 0)


async def test_whoever_wants_an_error_gets_it_at_once() -> None:
    bus = make_bus("raise")
    async with pumped(bus):
        release = hold_up(bus)
        bus.offer(trades(1))
        await until(lambda: bus._lanes.suspended is not None)
        bus.offer(trades(CAPACITY))
        async with asyncio.timeout(5):
            with pytest.raises(BusFull, match=r"the market queue of NORMAL has no room, and bus\.flow says"):
                await bus.publish(MarketDataEvent(symbol="BTC", price=1.0))
            with pytest.raises(BusFull, match="overflow='raise'"):
                await bus.publish_batch(trades(10))
        assert bus.statistics().waits == 0
        release()
        await bus.drain()
        await bus.publish(MarketDataEvent(symbol="BTC", price=1.0))
    assert check_books(bus).dropped == 0


def test_the_policy_of_now_counts_and_what_was_counted_stays() -> None:
    bus = make_bus("drop newest")
    bus.offer(trades(1_100))
    bus.flow = Flow(overflow="drop oldest")
    bus.offer(trades(50, first=5_000))
    bus.flow = Flow()
    assert bus.offer(trades(50)) == 0
    now = check_books(bus)
    assert (now.dropped_newest, now.dropped_oldest) == (76, 50)
    assert seen_prices(bus) == [*range(50, CAPACITY), *range(5_000, 5_050)]


# -- while a handler is at work ---------------------------------------------------------------------------------------


def hold_up(bus: EventBus, **options: Any) -> Callable[[], None]:
    """An async handler that its lane awaits with the first event it gets, until it is released."""
    held = asyncio.Event()

    async def hold(event: Any) -> None:
        await held.wait()

    bus.subscribe(hold, MarketDataEvent, name="hold", queue=0, **options)
    return held.set


@pytest.mark.parametrize("overflow", DROPS)
@pytest.mark.parametrize("mode", [None, "batch"])
async def test_nothing_grows_beyond_the_capacity_however_long_a_handler_waits(overflow: str, mode: Any) -> None:
    """Rows that a chunk or a batch shows hold places in the ring, which removed rows don't give back meanwhile."""
    bus = make_bus(overflow)
    options = {"mode": "batch", "batch_rows": 512} if mode else {}
    release = hold_up(bus, **options)
    bus.offer(trades(700))
    assert bus.do_work(max_ns=10**10).awaiting
    for turn in range(30):
        assert bus.offer(trades(300, first=1_000 + turn * 300)) == 300
        now = check_books(bus)
        assert now.waiting + now.held <= CAPACITY
    release()
    async with pumped(bus):
        await bus.drain()
    now = check_books(bus)
    assert now.handled + now.dropped == now.published == 700 + 9_000


async def test_drop_oldest_keeps_the_newest_while_a_handler_waits() -> None:
    bus = make_bus("drop oldest")
    seen: list[float] = []
    held = asyncio.Event()

    async def hold(event: MarketDataEvent) -> None:
        seen.append(event.price)
        await held.wait()

    bus.subscribe(hold, MarketDataEvent, queue=0)
    bus.offer(trades(700))
    assert bus.do_work(max_ns=10**10).awaiting
    for turn in range(10):
        bus.offer(trades(300, first=1_000 + turn * 300))
    held.set()
    async with pumped(bus):
        await bus.drain()
    assert seen == [*range(700), *range(4_000 - 324, 4_000)]


@pytest.mark.parametrize("overflow", DROPS)
async def test_single_events_never_wait_where_something_gives_way(overflow: str) -> None:
    bus = make_bus(overflow)
    release = hold_up(bus, mode="batch", batch_rows=512)
    bus.offer(trades(CAPACITY))
    assert bus.do_work(max_ns=10**10).awaiting
    for _ in range(2_000):
        bus.publish_nowait(MarketDataEvent(symbol="BTC", price=9_999.0))
    now = check_books(bus)
    assert now.waiting + now.held <= CAPACITY
    assert now.dropped >= 2_000 - CAPACITY
    release()
    async with pumped(bus):
        await bus.drain()
    assert check_books(bus).waiting == 0


@pytest.mark.parametrize("overflow", DROPS)
async def test_publishing_one_by_one_lets_handlers_have_their_turn_where_something_gives_way(overflow: str) -> None:
    """Whoever never waits for room would have the loop to himself, and all but a queue's length would be dropped."""
    bus = make_bus(overflow)
    seen: list[float] = []
    bus.subscribe(lambda price: seen.append(price), MarketDataEvent, mode="fields")
    async with pumped(bus):
        for price in range(5 * CAPACITY):
            await bus.publish(MarketDataEvent(symbol="BTC", price=price))
        await bus.drain()
    assert len(seen) > 2 * CAPACITY
    assert check_books(bus).dropped == 5 * CAPACITY - len(seen)


# -- limits -----------------------------------------------------------------------------------------------------------


def test_bytes_are_limited_by_type() -> None:
    bus = make_bus(limit_bytes={MarketDataEvent: 100 * ROW_BYTES + 1})
    assert bus.offer(trades(500)) == 100
    for _ in range(500):
        bus.publish_nowait(make_event(EventType.SIGNAL, "BTC"))
    with pytest.raises(BusFull):
        bus.publish_nowait(MarketDataEvent(symbol="BTC", price=1.0))
    bus.do_work(30, max_ns=10**10)
    assert check_books(bus).waiting == 570


@pytest.mark.parametrize(("overflow", "taken", "dropped"), [("wait", 100, 0), ("drop newest", 400, 300)])
@pytest.mark.parametrize("pieces", [[400], [100] * 4])
def test_all_lanes_share_the_bytes_of_a_type(overflow: str, taken: int, dropped: int, pieces: list[int]) -> None:
    bus = make_bus(overflow, limit_bytes=100 * ROW_BYTES)
    levels = (Priority.LOW, Priority.NORMAL, Priority.HIGH)
    assert sum(bus.offer(in_lanes(trades(count), *levels)) for count in pieces) == taken
    now = check_books(bus)
    assert (now.waiting, now.dropped) == (100, dropped)


def test_a_capacity_that_shrank_counts_at_once_and_what_is_queued_stays() -> None:
    bus = make_bus("drop newest", adapt=SizeBounds(100, CAPACITY))
    bus.offer(trades(500))
    bus._admission.limits[EventType.MARKET_DATA] = 200
    bus.offer(trades(500))
    assert bus.statistics().waiting == 500
    bus.flow = Flow()
    assert bus.offer(trades(1_000)) == CAPACITY - 500


def test_room_is_for_the_first_rows_of_a_batch_whatever_lanes_they_go_to() -> None:
    bus = make_bus()
    bus.offer(in_lanes(trades(1_000), Priority.LOW))
    batch = in_lanes(trades(200), Priority.HIGH, Priority.LOW)
    assert bus.offer(batch) == 49  # 24 of LOW have room; the 25th is the row 49
    assert {one.lane: one.waiting for one in bus.statistics().lanes} == {
        "CRITICAL": 0, "HIGH": 25, "NORMAL": 0, "LOW": 1_024
    }  # fmt: skip


def test_depth_is_of_the_fullest_type_against_its_own_limit() -> None:
    bus = EventBus(capacity={**dict.fromkeys(EventType, 4_096), EventType.FILL: 1_024})
    bus.offer(trades(2_000))
    lane = bus._lanes[Priority.NORMAL]
    assert bus._admission.depth(lane) == (2_000, 4_096)
    fills = [FillEvent(symbol="B", order_id="o", executed_qty=1, executed_price=1, priority=Priority.NORMAL)] * 600
    bus.offer(EventBatch.from_events(fills))
    assert bus._admission.depth(lane) == (600, 1_024)


# -- lines ------------------------------------------------------------------------------------------------------------


async def test_an_order_never_waits_behind_quotes_that_wait_for_room() -> None:
    bus = make_bus()
    release = hold_up(bus)
    async with pumped(bus):
        bus.offer(trades(1))
        await until(lambda: bus._lanes.suspended is not None)
        waiting = asyncio.create_task(bus.publish_batch(trades(3_000)))
        await until(lambda: bus.statistics().waits == 1)
        async with asyncio.timeout(5):
            for _ in range(50):
                await bus.publish(OrderEvent(symbol="BTC", order_id="o", direction=Side.BUY, quantity=1.0))
        assert not waiting.done()
        assert next(one.handled for one in bus.statistics().lanes if one.lane == "CRITICAL") == 50
        release()
        await waiting
        await bus.drain()
    assert check_books(bus).dropped == 0


async def test_quotes_behind_an_order_in_one_batch_do_not_wait_in_the_orders_line() -> None:
    bus = make_bus()
    release = hold_up(bus)
    async with pumped(bus):
        bus.offer(trades(1))
        await until(lambda: bus._lanes.suspended is not None)
        order = OrderEvent(symbol="BTC", order_id="o", direction=Side.BUY, quantity=1.0)
        quotes = [MarketDataEvent(symbol="BTC", price=1.0)] * 3_000
        waiting = asyncio.create_task(bus.publish_batch(EventBatch.from_events([order, *quotes])))
        await until(lambda: bus.statistics().waits == 1)
        orders = EventBatch.from_events([order] * 3_000)  # more than their queue holds: they stand in line
        async with asyncio.timeout(5):
            assert await bus.publish_batch(orders) == 3_000
        assert not waiting.done()
        release()
        await waiting
        await bus.drain()


# -- left over --------------------------------------------------------------------------------------------------------


def test_what_the_stage_lets_go_without_room_is_held_in_order_and_counted() -> None:
    bus = make_bus()
    bus.offer(trades(1_000))
    bus._admission.queue(trades(100, first=1_000).using(bus.symbols, bus.sources))
    bus._intake.published += 100  # as the stage had counted them
    now = check_books(bus)
    assert (now.waiting, now.held) == (CAPACITY, 76)
    assert bus.offer(trades(1)) == 0
    assert seen_prices(bus) == list(range(1_100))
    assert check_books(bus).held == 0


def test_closing_gives_up_what_is_left_over_and_says_so() -> None:
    bus = make_bus()
    bus._admission.queue(trades(1_500).using(bus.symbols, bus.sources))
    bus._intake.published += 1_500
    assert bus.close() == 1_500
    now = check_books(bus)
    assert (now.dropped, now.held, now.waiting) == (1_500, 0, 0)


def test_a_notice_stays_behind_the_rows_that_were_left_over() -> None:
    bus = make_bus()
    bus._admission.queue(trades(1_500).using(bus.symbols, bus.sources))
    bus._admission.tell(Priority.NORMAL, "a notice")
    bus._intake.published += 1_500
    backlog = bus._lanes[Priority.NORMAL].backlog
    assert not backlog.has_notices
    bus.do_work(1_024, max_ns=10**10)
    bus._intake.tick()
    assert (backlog.waiting, backlog.has_notices, backlog.notice_is_due) == (476, True, False)
    assert seen_prices(bus) == list(range(1_024, 1_500))
    assert not backlog.has_notices


def test_a_rule_sheds_what_comes_in_and_leaves_the_critical_lane_alone() -> None:
    rule = ShedRule(lanes=("NORMAL", "LOW"), measure="depth", above=0.5, until=0.1, symbols="S1")
    bus = make_bus(shed=(rule,))
    bus.offer(quotes(600))
    bus.clock.advance(10_000_000)  # type: ignore[attr-defined]
    bus.do_work(1, max_ns=10**10)
    bus.offer(quotes(90))
    bus.offer(in_lanes(quotes(90), Priority.CRITICAL))
    now = check_books(bus)
    assert (now.shed, now.waiting) == (30, 599 + 60 + 90)
    assert bus._admission.given_way.counts == {(Priority.NORMAL, EventType.MARKET_DATA, f"shed: {rule.name}"): 30}
