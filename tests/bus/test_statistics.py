"""What a bus tells about itself."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from hftlab.bus import EventBus, Flow
from hftlab.bus.failures import FailureLog
from hftlab.bus.statistics import LaneStatistics, html_of_bus
from hftlab.clock import VirtualClock
from hftlab.errors import ValidationError
from hftlab.events import OrderEvent, Side
from hftlab.flow import ShedRule
from tests.bus.samples import START_NS, trades, work_off


def test_counts_conserve_and_are_frozen() -> None:
    bus = EventBus(capacity=1_024)
    bus.subscribe(lambda event: None)
    bus.offer(trades(10))
    bus.do_work(4, max_ns=1_000_000_000)
    counts = bus.statistics()
    assert (counts.published, counts.handled, counts.waiting, counts.dropped) == (10, 4, 6, 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        counts.published = 5  # type: ignore[misc]
    work_off(bus)
    assert counts.handled == 4
    assert bus.statistics().handled == 10


def test_the_run_on_the_bus_is_named() -> None:
    bus = EventBus(capacity=1_024)
    assert bus.statistics().run == ""
    bus.begin_run("the replay", VirtualClock())
    assert bus.statistics().run == "the replay"


def test_handlers_are_rows_of_a_table() -> None:
    bus = EventBus(capacity=1_024)
    bus.subscribe(lambda event: None, name="a & b")
    bus.offer(trades(1_000))
    work_off(bus)
    shown = html_of_bus("<title>", bus.subscriptions, FailureLog())
    assert "<b>&lt;title&gt;</b>" in shown
    assert "<td>a &amp; b</td><td>event</td><td>1,000</td><td>1,000</td><td>0</td><td>0</td>" in shown
    assert "<pre>" not in shown


def test_the_books_are_told_in_a_line_and_the_lanes_in_a_table() -> None:
    bus = EventBus(capacity=1_024, flow=Flow(overflow="drop newest"))
    assert repr(bus.statistics()) == "BusStatistics(0 published = 0)"
    bus.subscribe(lambda event: None)
    bus.offer(trades(2_000))
    bus.do_work(24, max_ns=1_000_000_000)
    told = bus.statistics()
    assert repr(told) == "BusStatistics(2,000 published = 24 handled + 1,000 waiting + 976 dropped)"
    assert repr(told) in told._repr_html_()
    assert "<td>976</td>" in told._repr_html_()


def test_the_lanes_table_has_a_row_a_lane_the_most_urgent_first_and_what_the_lane_tells() -> None:
    clock = VirtualClock(START_NS)
    bus = EventBus(capacity=1_024, clock=clock, flow=Flow(overflow="drop oldest"))
    bus.subscribe(lambda event: None)
    bus.offer(trades(1_500))
    clock.advance(5_000_000)
    bus.do_work(24, max_ns=1_000_000_000)
    told = bus.statistics()
    table = told.to_frame()
    assert table.index.name == "lane"
    assert list(table.index) == ["CRITICAL", "HIGH", "NORMAL", "LOW"]
    names = [field.name for field in dataclasses.fields(LaneStatistics)]
    assert sorted([*table.columns, "lane"]) == sorted(names)
    for lane in told.lanes:
        for name in table.columns.drop("gave_way"):
            assert table.loc[lane.lane, name] == getattr(lane, name)
    normal = table.loc["NORMAL"]
    assert (normal["waiting"], normal["handled"], normal["gave_way"], normal["oldest_ns"]) == (
        1_000,
        24,
        476,
        5_000_000,
    )
    assert (table.drop(index="NORMAL")[["waiting", "handled", "gave_way"]] == 0).all(axis=None)


def test_what_gave_way_is_one_sum_in_the_table_and_by_reason_in_the_lane() -> None:
    bus = EventBus(capacity=1_024, flow=Flow(overflow="drop oldest"))
    bus.offer(trades(1_100))
    bus.flow = Flow(overflow="drop newest")
    bus.offer(trades(10))
    told = bus.statistics()
    (normal,) = (lane for lane in told.lanes if lane.lane == "NORMAL")
    assert normal.gave_way == {"drop oldest": 76, "drop newest": 10}
    assert told.to_frame().loc["NORMAL", "gave_way"] == told.dropped == 86


def test_waits_are_of_handled_events_alone() -> None:
    clock = VirtualClock(START_NS)
    bus = EventBus(capacity=1_024, clock=clock)
    bus.subscribe(lambda event: None)
    bus.offer(trades(10))
    clock.advance(3_000_000)
    assert list(bus.statistics().to_frame().loc["NORMAL", ["oldest_ns", "wait_max_ns"]]) == [3_000_000, 0]
    work_off(bus)
    table = bus.statistics().to_frame()
    assert list(table.loc["NORMAL", ["oldest_ns", "wait_max_ns"]]) == [0, 3_000_000]
    assert table.loc["NORMAL", "wait_p50_ns"] == pytest.approx(3_000_000, rel=0.004)
    assert table.loc["NORMAL", "wait_p99_ns"] == pytest.approx(3_000_000, rel=0.004)


def test_a_table_of_counts_without_lanes_is_empty_and_has_the_columns() -> None:
    told = EventBus(capacity=1_024).statistics()
    table = dataclasses.replace(told, lanes=()).to_frame()
    assert table.empty
    assert list(table.columns) == list(told.to_frame().columns)


def test_one_rule_needs_no_list() -> None:
    rule = ShedRule(lanes=("NORMAL",), measure="depth", above=0.5, until=0.1)
    assert Flow(shed=rule).shed == (rule,)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="ShedRule"):
        Flow(shed=0.5)  # type: ignore[arg-type]


def test_an_event_that_several_kinds_of_handlers_fail_on_is_dead_lettered_once() -> None:
    bus = EventBus()

    def fails(given: object) -> None:
        raise ValueError("wanted")

    bus.subscribe(fails, "market", name="events")
    bus.subscribe(fails, "market", mode="batch", batch_rows=30, name="batches of 30")
    bus.subscribe(fails, "market", mode="batch", batch_rows=7, name="batches of 7")
    bus.offer(trades(100))
    while not bus.do_work().idle:
        pass
    told = bus.statistics()
    assert (told.handled, told.dead_lettered) == (0, 100)
    assert sum(one.dead_lettered for one in told.handlers) == 300


async def test_orders_in_a_loop_leave_the_loop_its_turns() -> None:
    bus = EventBus()
    bus.subscribe(lambda event: None, "order", name="orders")
    order = OrderEvent(symbol="A", order_id="1", direction=Side.BUY, quantity=1.0)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(bus.pump()), asyncio.create_task(count())]
    try:
        for _ in range(2_000):
            await bus.publish(order)
        await bus.drain()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert turns > 3
    assert bus.statistics().handled == 2_000
