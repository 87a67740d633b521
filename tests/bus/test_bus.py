"""The bus as its users meet it: handlers and their failures, the pump, runs, the end, and how it looks."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hftlab.bus import EventBus, Subscription
from hftlab.clock import VirtualClock
from hftlab.errors import BusBusy, BusClosed, BusError, HandlerFailed, ValidationError
from hftlab.events import Event, EventBatch, EventType, MarketDataEvent, SignalEvent
from tests.bus.samples import START_NS, pumped, trades, until, work_off

CAPACITY = 1_024


@pytest.fixture
def bus() -> EventBus:
    return EventBus(capacity=CAPACITY, clock=VirtualClock(START_NS))


def signal(number: int = 0) -> SignalEvent:
    return SignalEvent(symbol="BTC", signal_type="s", strength=number)


# -- subscriptions ----------------------------------------------------------------------------------------------------


async def test_handlers_are_called_in_the_order_of_their_registration(bus: EventBus) -> None:
    order: list[str] = []
    for name in ("a", "b", "c"):
        bus.subscribe(functools.partial(lambda name, event: order.append(name), name), name=name)
    bus.publish_nowait(signal())
    work_off(bus)
    assert order == ["a", "b", "c"]


async def test_running_a_cell_again_replaces_its_handler_in_its_place(bus: EventBus) -> None:
    order: list[str] = []

    def cell(text: str) -> Subscription:
        def handler(event: Event) -> None:
            order.append(text)

        return bus.subscribe(handler, "signal")

    cell("first")
    bus.subscribe(lambda event: order.append("other"), "signal", name="other")
    cell("second")
    bus.publish_nowait(signal())
    work_off(bus)
    assert order == ["second", "other"]
    assert len(bus.subscriptions) == 2


async def test_the_decorator_gives_the_handler_back(bus: EventBus) -> None:
    def handler(event: Event) -> None: ...

    assert bus.on("signal")(handler) is handler


async def test_mistakes_are_raised_where_the_handler_is_decorated(bus: EventBus) -> None:
    with pytest.raises(ValidationError, match=r"write @bus.on\(\) with the parentheses"):
        bus.on(lambda event: None)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match=r"a topic is TYPE\.SYMBOL"):
        bus.on("trades.BTC")
    with pytest.raises(ValidationError, match="symbol= is one symbol"):
        bus.on("market", symbol=["BTC"])  # type: ignore[arg-type]


async def test_a_batch_larger_than_its_queue_could_hold_is_refused(bus: EventBus) -> None:
    with pytest.raises(ValidationError, match=r"at most half of the queue's capacity \(512 of 1,024 rows\).*got 513"):
        bus.subscribe(lambda batch: None, "market", mode="batch", batch_rows=513)
    assert bus.subscriptions == ()


async def test_cancelled_handlers_get_nothing_more(bus: EventBus) -> None:
    seen: list[str] = []
    kept = bus.subscribe(lambda event: seen.append("kept"), name="kept")
    gone = bus.subscribe(lambda event: seen.append("gone"), name="gone")
    bus.subscribe(lambda event: seen.append("by name"), name="by name")
    bus.cancel(gone)
    bus.cancel("by name")
    bus.cancel("by name")
    bus.publish_nowait(signal())
    work_off(bus)
    assert seen == ["kept"]
    assert bus.subscriptions == (kept,)


async def test_cancelling_what_was_replaced_leaves_its_heir_alone(bus: EventBus) -> None:
    first = bus.subscribe(lambda event: None, name="it")
    second = bus.subscribe(lambda event: None, name="it")
    bus.cancel(first)
    assert bus.subscriptions == (second,)


async def test_a_cancelled_batch_handler_says_what_it_missed() -> None:
    bus = EventBus(capacity=CAPACITY)
    batches = bus.subscribe(lambda batch: None, "market", mode="batch", batch_rows=10)
    run = bus.begin_run("a run", VirtualClock())
    run.offer(trades(14))
    while not run.work(100, 0).idle:
        pass
    bus.cancel(batches)
    run.offer(trades(1))
    while not run.work(100, 0).idle:
        pass
    assert (batches.delivered, batches.missed) == (10, 4)


async def test_a_replaced_batch_handler_hands_its_rows_on_to_the_next(bus: EventBus) -> None:
    sizes: list[int] = []
    bus.subscribe(lambda batch: None, "market", mode="batch", batch_rows=10, name="it")
    run = bus.begin_run("a run", VirtualClock())
    run.offer(trades(6))
    while not run.work(100, 0).idle:
        pass
    bus.subscribe(lambda batch: sizes.append(len(batch)), "market", mode="batch", batch_rows=10, name="it")
    run.offer(trades(6))
    while not run.work(100, 0).idle:
        pass
    assert sizes == [10]


async def test_counts_are_up_to_date_whenever_work_pauses(bus: EventBus) -> None:
    fields = bus.subscribe(lambda price: None, "market", name="fields")
    both = [bus.subscribe(lambda event: None, name=name) for name in ("a", "b")]
    bus.offer(trades(100))
    bus.do_work(7, max_ns=1_000_000_000)
    assert [one.calls for one in (fields, *both)] == [7, 7, 7]


async def test_one_event_object_goes_to_all_who_want_it(bus: EventBus) -> None:
    seen: list[Event] = []
    bus.subscribe(seen.append, name="a")
    bus.subscribe(seen.append, name="b")
    bus.offer(trades(2))
    work_off(bus)
    assert seen[0] is seen[1]
    assert seen[0] is not seen[2]


# -- batches ----------------------------------------------------------------------------------------------------------


async def test_a_full_batch_is_a_read_only_view_of_the_ring(bus: EventBus) -> None:
    bases: list[Any] = []

    @bus.on("market", mode="batch", batch_rows=256)
    def look(batch: EventBatch) -> None:
        assert not batch.records.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            batch.records["price"] = 1.0
        bases.append(batch.records)

    bus.subscribe(lambda event: None, "market", name="beside")
    run = bus.begin_run("a run", VirtualClock())
    for first in range(0, 4 * CAPACITY, 64):
        run.offer(trades(64, first=first))
        while not run.work(37, 0).idle:
            pass
    ring = bus._lanes.recorded.backlog.queues[EventType.MARKET_DATA]._rows
    assert [len(records) for records in bases] == [256] * 16
    assert all(np.shares_memory(records, ring) for records in bases)
    bus.raise_failures()


async def test_a_batch_that_lies_across_the_end_of_the_ring_is_whole(bus: EventBus) -> None:
    seen: list[list[float]] = []
    bus.subscribe(lambda batch: seen.append(batch.records["price"].tolist()), "market", mode="batch", batch_rows=300)
    run = bus.begin_run("a run", VirtualClock())
    for first in range(0, 3_000, 150):
        run.offer(trades(150, first=first))
        while not run.work(1 << 30, 0).idle:
            pass
    assert [price for prices in seen for price in prices] == list(range(3_000))
    assert {len(prices) for prices in seen} == {300}


async def test_nobody_writes_over_a_batch_while_its_async_handler_waits(bus: EventBus) -> None:
    gate = asyncio.Event()
    checked: list[bool] = []

    @bus.on("market", mode="batch", batch_rows=256, queue=0)
    async def look(batch: EventBatch) -> None:
        before = batch.records.tobytes()
        await gate.wait()
        checked.append(batch.records.tobytes() == before)

    async with pumped(bus):
        bus.offer(trades(CAPACITY))
        await until(lambda: bus.subscriptions[0].calls == 1)
        publisher = asyncio.create_task(bus.publish_batch(trades(4 * CAPACITY, first=50_000)))
        for _ in range(20):
            await asyncio.sleep(0)
        gate.set()
        await publisher
        await bus.drain()
    assert len(checked) == 5 * CAPACITY // 256
    assert all(checked)


async def test_cancelling_a_handler_that_waits_with_its_batch_leaves_it_the_batch(bus: EventBus) -> None:
    gate = asyncio.Event()
    checked: list[bool] = []

    @bus.on("market", mode="batch", batch_rows=512, name="it", queue=0)
    async def look(batch: EventBatch) -> None:
        before = batch.records.tobytes()
        await gate.wait()
        checked.append(batch.records.tobytes() == before)

    subscription = bus.subscriptions[0]
    async with pumped(bus):
        bus.offer(trades(512))
        await until(lambda: subscription.calls == 1)
        bus.cancel("it")
        publisher = asyncio.create_task(bus.publish_batch(trades(2 * CAPACITY, first=50_000)))
        for _ in range(20):
            await asyncio.sleep(0)
        gate.set()
        await publisher
        await bus.drain()
    assert checked == [True]
    assert subscription.missed == 0


async def test_live_batches_are_delivered_when_nothing_is_left(bus: EventBus) -> None:
    sizes: list[int] = []
    bus.subscribe(lambda batch: sizes.append(len(batch)), "market", mode="batch", batch_rows=100)
    bus.offer(trades(250))
    work_off(bus)
    assert sizes == [100, 100, 50]


async def test_a_batch_holds_events_of_one_session(bus: EventBus) -> None:
    ids: list[list[int]] = []
    bus.subscribe(lambda batch: ids.append(batch.event_ids.tolist()), "market", mode="batch", batch_rows=100)
    bus.offer(trades(3, session_number=1))
    bus.offer(trades(2, session_number=2))
    bus.offer(trades(1))
    work_off(bus)
    assert ids == [[1 << 40, 1 << 40 | 1, 1 << 40 | 2], [2 << 40, 2 << 40 | 1], [0]]


# -- failures ---------------------------------------------------------------------------------------------------------


async def test_a_failing_handler_stops_nobody_and_is_raised_once(bus: EventBus) -> None:
    seen: list[float] = []

    @bus.on("market")
    def fails(price: float) -> None:
        raise ValueError(f"at {price}")

    bus.subscribe(lambda event: seen.append(event.price), "market", name="fine")
    bus.offer(trades(3))
    work_off(bus)
    assert seen == [0, 1, 2]
    assert bus.failures.count == 3
    with pytest.raises(HandlerFailed, match=r"fails:market.* raised ValueError: at 0.0\n.*\(2 more failures") as caught:
        await bus.drain()
    assert isinstance(caught.value.__cause__, ValueError)
    assert isinstance(caught.value.event, MarketDataEvent)
    assert caught.value.event.price == 0
    await bus.drain()
    assert bus.failures.count == 3


@pytest.mark.parametrize("call", ["publish", "publish_nowait", "publish_batch", "drain", "raise_failures"])
async def test_every_call_into_the_bus_raises_what_failed_before(bus: EventBus, call: str) -> None:
    def fails(event: Event) -> None:
        raise ValueError("wanted")

    bus.subscribe(fails)
    bus.publish_nowait(signal())
    work_off(bus)
    arguments = {"publish": (signal(),), "publish_nowait": (signal(),), "publish_batch": (trades(1),)}.get(call, ())

    async def ask() -> None:
        result = getattr(bus, call)(*arguments)
        if asyncio.iscoroutine(result):
            await result

    with pytest.raises(HandlerFailed, match="wanted"):
        await ask()
    # What is published meanwhile is queued all the same: another one's failure costs nobody an event.
    assert bus.statistics().published == (2 if arguments else 1)


async def test_a_failed_event_stays_what_it_was_when_the_ring_goes_on(bus: EventBus) -> None:
    def fails(event: Event) -> None:
        raise ValueError("wanted")

    bus.subscribe(fails, where=lambda records: records["price"] == 5, name="event")
    bus.subscribe(fails, "market", mode="batch", batch_rows=10, name="batch")
    bus.offer(trades(10))
    work_off(bus)
    for _ in range(3):
        bus.cancel("event")
        bus.cancel("batch")
        bus.offer(trades(CAPACITY, first=90_000))
        work_off(bus)
    by_event, by_batch = (failure.event for failure in bus.failures)
    assert isinstance(by_event, MarketDataEvent)
    assert by_event.price == 5
    assert isinstance(by_batch, EventBatch)
    assert by_batch.records["price"].tolist() == list(range(10))


async def test_a_failure_keeps_no_chunk_of_rows_alive(bus: EventBus) -> None:
    class Marker:
        pass

    held = Marker()
    reference = weakref.ref(held)

    def fails(price: float, marker: Marker = held) -> None:
        raise ValueError("wanted")

    bus.subscribe(fails, "market")
    bus.offer(trades(1))
    work_off(bus)
    failure = next(iter(bus.failures))
    assert failure.traceback.count('File "') == 1
    assert "in fails" in failure.traceback
    bus.cancel(bus.subscriptions[0])
    bus.offer(trades(1))
    work_off(bus)
    failure.error.__traceback__ = None
    del fails, held
    gc.collect()
    assert reference() is None


async def test_a_handler_that_returns_no_event_is_told_so(bus: EventBus) -> None:
    bus.subscribe(lambda event: 42, "signal")
    bus.publish_nowait(signal())
    with pytest.raises(HandlerFailed, match=r"a handler returns the events that it emits .* got 42\. If the value"):
        await bus.drain()


async def test_a_stop_iteration_is_a_failure_even_of_a_call_that_changed_the_subscriptions(bus: EventBus) -> None:
    seen: list[float] = []

    @bus.on("market", where=lambda records: records["price"] == 2)
    def fails(price: float) -> None:
        bus.subscribe(lambda price: seen.append(price), "market", name="later")
        raise StopIteration

    bus.offer(trades(5))
    work_off(bus)
    assert bus.failures.count == 1
    assert seen == [3, 4]
    with pytest.raises(HandlerFailed, match="let a StopIteration escape"):
        bus.raise_failures()


# -- async handlers ---------------------------------------------------------------------------------------------------


async def test_async_handlers_are_awaited_in_order(bus: EventBus) -> None:
    order: list[str] = []

    @bus.on("market", queue=0)
    async def slow(price: float) -> None:
        order.append(f"begin {price:.0f}")
        await asyncio.sleep(0)
        order.append(f"end {price:.0f}")

    bus.subscribe(lambda event: order.append(f"beside {event.price:.0f}"), "market", name="beside")
    bus.offer(trades(2))
    async with pumped(bus):
        await bus.drain()
    assert order == ["begin 0", "end 0", "beside 0", "begin 1", "end 1", "beside 1"]


async def test_work_says_that_a_handler_waits_until_it_is_settled(bus: EventBus) -> None:
    gate = asyncio.Event()

    @bus.on("market", queue=0)
    async def waits(event: Event) -> None:
        await gate.wait()

    bus.offer(trades(2))
    first = bus.do_work(max_ns=1_000_000_000)
    assert (first.awaiting, first.handled, first.idle) == (True, 0, False)
    again = bus.do_work(max_ns=1_000_000_000)
    assert (again.awaiting, again.handled) == (True, 0)
    gate.set()
    await bus.settle()
    assert bus.do_work(max_ns=1_000_000_000).handled == 2


async def test_two_tasks_may_settle_the_same_handler(bus: EventBus) -> None:
    gate = asyncio.Event()

    @bus.on("market", queue=0)
    async def waits(event: Event) -> None:
        await gate.wait()

    bus.offer(trades(1))
    bus.do_work(max_ns=1_000_000_000)
    tasks = [asyncio.create_task(bus.settle()) for _ in range(3)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*tasks)
    assert bus.do_work(max_ns=1_000_000_000).handled == 1
    assert bus.failures.count == 0


async def test_cancelling_the_settling_task_fails_the_handler_and_goes_on_behind_it(bus: EventBus) -> None:
    seen: list[float] = []

    @bus.on("market", where=lambda records: records["price"] == 0, queue=0)
    async def waits(event: Event) -> None:
        await asyncio.Event().wait()

    bus.subscribe(lambda price: seen.append(price), "market", name="beside")
    bus.offer(trades(2))
    bus.do_work(max_ns=1_000_000_000)
    task = asyncio.create_task(bus.settle())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    work_off(bus)
    assert seen == [0, 1]
    assert [type(failure.error) for failure in bus.failures] == [asyncio.CancelledError]


async def test_a_handlers_own_timeout_does_not_end_the_pump(bus: EventBus) -> None:
    @bus.on("market", queue=0)
    async def waits(event: Event) -> None:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()

    async with pumped(bus) as pump:
        bus.offer(trades(3))
        with pytest.raises(HandlerFailed, match="TimeoutError"):
            await bus.drain()
        assert not pump.done()
    assert bus.failures.count == 3


# -- what handlers may not --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", [None, 0])
@pytest.mark.parametrize("turns", [None, 0, 1])
@pytest.mark.parametrize("call", ["do_work", "settle", "drain", "close", "begin_run", "give_up_calls"])
async def test_a_handler_can_not_ask_for_what_waits_for_it(
    bus: EventBus, call: str, turns: int | None, queue: int | None
) -> None:
    def ask() -> Any:
        return bus.begin_run("mine", VirtualClock()) if call == "begin_run" else getattr(bus, call)()

    if turns is None:

        def sync_handler(event: Event) -> None:
            result = ask()
            if asyncio.iscoroutine(result):
                with contextlib.suppress(StopIteration):
                    result.send(None)

        bus.subscribe(sync_handler)
    else:

        async def handler(event: Event) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            result = ask()
            if asyncio.iscoroutine(result):
                await result

        bus.subscribe(handler, queue=queue)
    bus.offer(trades(2))
    async with asyncio.timeout(10):
        with pytest.raises(HandlerFailed, match=f"BusBusy: {call} was called from a handler"):
            await bus.drain()
    assert bus.statistics().dead_lettered == 2


async def test_do_work_handles_at_least_one_event(bus: EventBus) -> None:
    with pytest.raises(ValidationError, match="1 event or more; got max_events=0"):
        bus.do_work(0)


# -- the pump ---------------------------------------------------------------------------------------------------------


async def test_the_pump_handles_what_is_published_while_others_do_something_else(bus: EventBus) -> None:
    seen: list[float] = []
    bus.subscribe(lambda price: seen.append(price), "market")
    async with pumped(bus):
        bus.offer(trades(10))
        await until(lambda: len(seen) == 10)


async def test_a_failing_handler_does_not_end_the_pump(bus: EventBus) -> None:
    def fails(event: Event) -> None:
        raise ValueError("wanted")

    bus.subscribe(fails)
    async with pumped(bus) as pump:
        bus.offer(trades(10))
        await until(lambda: bus.statistics().dead_lettered == 10)
        assert not pump.done()


async def test_draining_survives_the_end_of_the_pump(bus: EventBus) -> None:
    gate = asyncio.Event()

    @bus.on("market", queue=0)
    async def waits(event: Event) -> None:
        await gate.wait()

    async with pumped(bus):
        bus.offer(trades(3))
        drain = asyncio.create_task(bus.drain())
        for _ in range(5):
            await asyncio.sleep(0)
    gate.set()
    with pytest.raises(HandlerFailed, match="CancelledError"):
        await drain
    assert (bus.statistics().handled, bus.statistics().dead_lettered) == (2, 1)


async def test_draining_waits_for_whoever_waits_for_room(bus: EventBus) -> None:
    bus.offer(trades(CAPACITY))
    async with pumped(bus):
        publisher = asyncio.create_task(bus.publish_batch(trades(3 * CAPACITY)))
        await asyncio.sleep(0)
        await bus.drain()
        assert bus.statistics().handled == 4 * CAPACITY
        await publisher


# -- runs -------------------------------------------------------------------------------------------------------------


async def test_a_run_puts_its_clock_on_the_bus_and_takes_it_away_again(bus: EventBus) -> None:
    live, virtual = bus.clock, VirtualClock(5)
    seen: list[int] = []
    bus.subscribe(lambda event: seen.append(bus.clock.now_ns()), "market")
    run = bus.begin_run("a run", virtual)
    assert bus.clock is virtual
    run.offer(trades(3))
    assert run.work(100, 1 << 62).handled == 3
    assert seen == [START_NS, START_NS + 1, START_NS + 2]
    run.end()
    assert bus.clock is live


async def test_only_the_run_drives_the_bus(bus: EventBus) -> None:
    run = bus.begin_run("the replay", VirtualClock())
    run.offer(trades(3))
    with pytest.raises(BusBusy, match="the replay is on this bus, and drives it"):
        bus.do_work(max_ns=1_000_000_000)
    async with pumped(bus):
        await bus.drain()  # of nothing published: what is queued is the run's
        assert run.handled == 0
        run.work(100, 1 << 62)
    assert run.handled == 3


async def test_a_handler_of_a_run_can_not_drive_it(bus: EventBus) -> None:
    bus.subscribe(lambda event: bus.do_work(), "market")
    run = bus.begin_run("the replay", VirtualClock())
    run.offer(trades(1))
    run.work(100, 1 << 62)
    with pytest.raises(HandlerFailed, match="do_work was called from a handler"):
        bus.raise_failures()


async def test_a_run_begins_when_what_was_published_has_been_handled(bus: EventBus) -> None:
    bus.offer(trades(1))
    with pytest.raises(BusBusy, match=r"published events wait to be handled; await bus.drain\(\)"):
        bus.begin_run("a run", VirtualClock())
    await bus.drain()
    bus.begin_run("a run", VirtualClock())


async def test_a_second_run_begins_where_the_first_gives_way(bus: EventBus) -> None:
    first = bus.begin_run("the first", VirtualClock(), give_way=lambda: False)
    with pytest.raises(BusBusy, match="the first is on this bus; wait for its end"):
        bus.begin_run("the second", VirtualClock())
    first.end()
    ended: list[int] = []

    def give_way() -> bool:
        ended.append(second.end())
        return True

    second = bus.begin_run("the second", VirtualClock(), give_way=give_way)
    second.offer(trades(5))
    third = bus.begin_run("the third", VirtualClock())
    assert ended == [5]
    assert bus.run is third


async def test_what_a_run_leaves_is_dropped_and_counted(bus: EventBus) -> None:
    run = bus.begin_run("a run", VirtualClock())
    run.offer(trades(10))
    run.work(4, 1 << 62)
    assert run.end() == 6
    counts = bus.statistics()
    assert (counts.published, counts.handled, counts.waiting, counts.dropped) == (10, 4, 0, 6)
    assert (run.handled, run.emitted, run.ended) == (4, 0, True)
    assert run.end() == 0


async def test_an_ended_run_does_nothing_more(bus: EventBus) -> None:
    run = bus.begin_run("a run", VirtualClock())
    run.end()
    for attempt in (lambda: run.offer(trades(1)), lambda: run.work(1, 0), run.withdraw, run.finish):
        with pytest.raises(BusError, match="a run has left the bus"):
            attempt()
    with pytest.raises(BusError, match="a run has left the bus"):
        await run.settle()


async def test_a_run_numbers_its_emissions_from_zero_and_the_live_bus_goes_on_with_its_own(bus: EventBus) -> None:
    ids: list[int] = []
    bus.subscribe(lambda event: signal(), "market", name="emits")
    bus.subscribe(lambda event: ids.append(event.event_id - (1 << 62)), "signal", name="notes")
    bus.offer(trades(2))
    work_off(bus)
    for _ in range(2):
        run = bus.begin_run("a run", VirtualClock())
        run.offer(trades(2))
        run.work(100, 1 << 62)
        run.end()
    bus.offer(trades(1))
    work_off(bus)
    assert ids == [0, 1, 0, 1, 0, 1, 2]


async def test_rows_taken_back_are_as_if_never_offered(bus: EventBus) -> None:
    seen: list[float] = []
    bus.subscribe(lambda price: seen.append(price), "market")
    run = bus.begin_run("a run", VirtualClock())
    run.offer(trades(10))
    run.work(4, 1 << 62)
    assert run.withdraw() == 6
    assert run.withdraw() == 0
    counts = bus.statistics()
    assert (counts.published, counts.handled, counts.waiting) == (4, 4, 0)
    run.offer(trades(2, first=100))
    assert run.work(100, 1 << 62).idle
    assert seen == [0, 1, 2, 3, 100, 101]


async def test_the_event_that_an_async_handler_waits_on_is_not_taken_back(bus: EventBus) -> None:
    gate = asyncio.Event()
    seen: list[float] = []

    @bus.on("market")
    async def waits(price: float) -> None:
        await gate.wait()
        seen.append(price)

    run = bus.begin_run("a run", VirtualClock())
    run.offer(trades(5))
    assert run.work(100, 1 << 62).awaiting
    assert run.withdraw() == 4
    gate.set()
    await run.settle()
    assert run.work(100, 1 << 62).idle
    assert seen == [0]


async def test_a_step_reports_what_it_led_to_before_it_is_over(bus: EventBus) -> None:
    bus.subscribe(lambda event: [signal(), signal()], "market", name="emits")
    run = bus.begin_run("a run", VirtualClock())
    run.offer(trades(3))
    work = run.work(1, 0)
    while work.pending or run.handled < 1:
        work = run.work(1 - run.handled, 0)
    assert (run.handled, run.emitted) == (1, 2)


async def test_closing_the_bus_ends_the_run_and_gives_up_the_handler_that_waits(bus: EventBus) -> None:
    cleaned: list[str] = []

    @bus.on("market")
    async def waits(event: Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("up")

    run = bus.begin_run("a run", VirtualClock())
    run.offer(trades(3))
    run.work(100, 1 << 62)
    settling = asyncio.create_task(run.settle())
    await asyncio.sleep(0)
    assert bus.close() == 3
    await settling
    assert cleaned == ["up"]
    assert run.ended
    assert bus.failures.count == 0


async def test_what_a_handler_raises_when_it_is_given_up_is_its_failure(bus: EventBus) -> None:
    @bus.on("market")
    async def waits(event: Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("on the way out")

    bus.offer(trades(1))
    bus.do_work(max_ns=1_000_000_000)
    bus.close()
    with pytest.raises(HandlerFailed, match="on the way out"):
        bus.raise_failures()


async def test_close_is_idempotent_and_final(bus: EventBus) -> None:
    bus.offer(trades(3))
    assert bus.close() == 3
    assert bus.close() == 0
    with pytest.raises(BusClosed):
        bus.begin_run("a run", VirtualClock())
    counts = bus.statistics()
    assert (counts.published, counts.dropped, counts.waiting) == (3, 3, 0)


# -- shown ------------------------------------------------------------------------------------------------------------


async def test_reprs_are_short_and_say_what_is_on(bus: EventBus) -> None:
    assert repr(bus) == "EventBus(bus: live, 0 handlers)"
    bus.subscribe(lambda event: 1, "signal", name="<b>bold</b>")
    bus.publish_nowait(signal())
    work_off(bus)
    assert repr(bus) == "EventBus(bus: live, 1 handlers, 1 failures)"
    run = bus.begin_run("a run", VirtualClock())
    assert repr(bus).startswith("EventBus(bus: run a run, 1 handlers")
    assert repr(run) == "Run(a run)"
    run.end()
    assert repr(run) == "Run(a run, ended)"
    bus.close()
    assert repr(bus).startswith("EventBus(bus: closed")


async def test_what_is_shown_in_a_notebook_is_escaped(bus: EventBus) -> None:
    def fails(event: Event) -> None:
        raise ValueError("<script>")

    bus.subscribe(fails, name="<b>bold</b>")
    bus.publish_nowait(signal())
    work_off(bus)
    shown = bus._repr_html_()
    assert "<b>bold" not in shown
    assert "&lt;b&gt;bold" in shown
    assert "<script>" not in shown
    assert "ValueError: &lt;script&gt;" in shown


async def test_a_bus_may_have_queues_of_different_sizes() -> None:
    bus = EventBus(capacity={EventType.MARKET_DATA: 2_048})
    assert bus.statistics().capacity == 2_048 + 3 * 65_536
    with pytest.raises(ValidationError, match="power of two of 1,024 to 16,777,216 rows; got 1000"):
        EventBus(capacity=1_000)


def counting() -> Iterator[int]:
    yield from range(3)


async def test_a_sync_bus_needs_no_loop_at_all() -> None:
    def outside() -> list[float]:
        bus = EventBus(capacity=CAPACITY)
        seen: list[float] = []
        bus.subscribe(lambda price: seen.append(price), "market")
        bus.offer(trades(3))
        work_off(bus)
        return seen

    assert await asyncio.to_thread(outside) == [0, 1, 2]
