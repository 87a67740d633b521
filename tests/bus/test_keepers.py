"""Keepers of a bus: shown what was accepted, in that order, and before anything gives way; asked for room first."""

from __future__ import annotations

import asyncio

import pytest

from hftlab.bus import EventBus, Flow
from hftlab.clock import VirtualClock
from hftlab.errors import BusFull, ValidationError
from hftlab.events import EventBatch, MarketDataEvent, OrderEvent, Side, Source, SourceTable
from tests.bus.samples import START_NS, pumped, trades, until, work_off


class ListKeeper:
    """Keeps prices in a list of ``limit``."""

    def __init__(self, limit: int = 1 << 30, *, refuses: bool = False) -> None:
        self.limit = limit
        self.refuses = refuses
        self.prices: list[float] = []

    @property
    def full(self) -> bool:
        return len(self.prices) >= self.limit

    @property
    def presses(self) -> bool:
        return self.full

    def room_for(self, batch: EventBatch) -> int:
        return min(len(batch), max(0, self.limit - len(self.prices)))

    def accept(self, batch: EventBatch) -> None:
        self.prices += batch.column("price") if batch.type is not None else [event.price for event in batch]  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return "ListKeeper"


class PausedSource:
    def __init__(self) -> None:
        self.told: list[str] = []

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")


def numbered(*numbers: int) -> EventBatch:
    batch = trades(len(numbers))
    rows = batch.records
    rows["sequence"], rows["price"], rows["source"] = numbers, numbers, 1
    return EventBatch(rows, batch.symbols, SourceTable([Source("sim", "trade", "X", "plus-one")]))


def order(price: float) -> OrderEvent:
    return OrderEvent(symbol="X", order_id="o", direction=Side.BUY, quantity=1, price=price)


async def test_events_and_batches_are_shown_in_the_order_of_their_publication_whatever_their_lanes() -> None:
    bus, keeper = EventBus(), ListKeeper()
    bus.keep(keeper)
    bus.keep(keeper)
    await bus.publish_batch(trades(3))
    await bus.publish(order(100.0))
    await bus.publish(MarketDataEvent(symbol="X", price=101.0))
    bus.publish_nowait(order(102.0))
    assert bus.offer(trades(2, first=200)) == 2
    assert keeper.prices == [0, 1, 2, 100, 101, 102, 200, 201]
    bus.forget(keeper)
    bus.forget(keeper)
    await bus.publish_batch(trades(3))
    assert len(keeper.prices) == 8


async def test_what_was_stamped_and_shown_is_what_handlers_get() -> None:
    bus = EventBus(clock=VirtualClock(START_NS))
    shown: list[EventBatch] = []
    keeper = ListKeeper()
    keeper.accept = lambda batch: shown.append(EventBatch.concat([batch]))  # type: ignore[method-assign]
    bus.keep(keeper)
    seen = []
    bus.subscribe(lambda event: seen.append(event), MarketDataEvent, name="see")
    await bus.publish(MarketDataEvent(symbol="X", price=1.0))
    await bus.publish(MarketDataEvent(symbol="Y", price=2.0, sequence=5))
    work_off(bus)
    assert [event for batch in shown for event in batch] == seen
    assert seen[0].received == START_NS


async def test_numbers_are_put_in_order_and_copies_left_out_before_a_keeper_sees_them() -> None:
    bus, keeper = EventBus(), ListKeeper()
    bus.keep(keeper)
    await bus.publish_batch(numbered(1, 2, 4, 5))
    assert keeper.prices == [1, 2]
    await bus.publish_batch(numbered(2, 3))
    assert keeper.prices == [1, 2, 3, 4, 5]
    await bus.publish_batch(numbered(8))
    bus.end_session()
    assert keeper.prices == [1, 2, 3, 4, 5, 8]


async def test_what_gives_way_in_the_lanes_was_shown_before() -> None:
    bus, keeper = EventBus(capacity=1_024, flow=Flow(overflow="drop newest")), ListKeeper()
    bus.keep(keeper)
    await bus.publish_batch(trades(1_100))
    assert bus.statistics().dropped == 76
    assert len(keeper.prices) == 1_100


async def test_a_full_keeper_makes_publishers_wait_and_sources_pause() -> None:
    bus, keeper, source = EventBus(), ListKeeper(limit=5), PausedSource()
    bus.keep(keeper)
    bus.attach(source)
    async with pumped(bus):
        task = asyncio.create_task(bus.publish_batch(trades(12)))
        await until(lambda: bus.statistics().waits == 1)
        assert bus.offer(trades(1)) == 0
        with pytest.raises(BusFull, match="ListKeeper has no room for one more row"):
            bus.publish_nowait(order(1.0))
        single = asyncio.create_task(bus.publish(order(99.0)))
        await until(lambda: source.told == ["pause"])
        assert not task.done()
        assert not single.done()
        keeper.limit = 1_000
        bus.room_made()
        assert await task == 12
        await single
        await until(lambda: source.told == ["pause", "resume"])
    assert sorted(keeper.prices) == [*range(12), 99]


async def test_a_keeper_that_refuses_has_its_publishers_told_at_once() -> None:
    bus, keeper = EventBus(), ListKeeper(limit=5, refuses=True)
    bus.keep(keeper)
    with pytest.raises(BusFull, match=r"overflow='raise'; the first 5 of 9 rows were queued"):
        await bus.publish_batch(trades(9))
    with pytest.raises(BusFull, match="ListKeeper has no room"):
        await bus.publish(order(1.0))
    assert keeper.prices == [0, 1, 2, 3, 4]


async def test_nothing_of_a_run_is_shown() -> None:
    bus, keeper = EventBus(), ListKeeper()
    bus.keep(keeper)
    run = bus.begin_run("a replay", VirtualClock(START_NS))
    run.offer(trades(10))
    run.finish()
    run.work(1 << 30, 1 << 62)
    run.end()
    assert keeper.prices == []
    await bus.publish_batch(trades(2))
    assert keeper.prices == [0, 1]


def test_what_is_no_keeper_is_refused() -> None:
    with pytest.raises(ValidationError, match="a keeper has methods room_for"):
        EventBus().keep(object())  # type: ignore[arg-type]
