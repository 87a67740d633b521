"""Lanes: how long an order waits for its handler, where market data is at work, and where the bus is idle.

Out of a market handler that publishes an order itself: the order is dispatched when the lane at work is left, within 32
calls, so the wait grows with what a call costs. Beside a pump that works off market data without end: from the moment
at which the order was due in a task of its own, which first waits for its turn of the loop. On an idle bus: from
``await bus.publish(order)``, beside an ``asyncio.Queue`` that hands the same object to a task that waits for it.

A lane makes its memory with its first event, which takes milliseconds: that one is shown by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np

from hftlab.bus import EventBus
from hftlab.events import EventBatch, EventType, Kind, MarketDataEvent, OrderEvent, Side, SymbolTable
from hftlab.events.records import blank
from tests.bench.measurement import Measurement

BOARD = "lanes"
CALLS_US = (0, 1, 10, 50, 200)
ORDERS = 200
EVERY = 37
"""A market handler's call out of so many publishes an order."""

Waits = list[int]


def measure(runs: int, orders: int = ORDERS, calls_us: tuple[int, ...] = CALLS_US) -> list[Measurement]:
    """Medians, 99th percentiles and the longest of the waits of ``orders`` orders a run, in µs."""
    found = []
    for cost_us in calls_us:
        work = f"order out of a handler of {cost_us} µs"
        found += _measured(work, "hftlab", lambda cost_us=cost_us: _preempting(cost_us, orders), runs)  # type: ignore[misc]
    for cost_us in calls_us:
        work = f"order due, handlers of {cost_us} µs at work"
        found += _measured(work, "hftlab", lambda cost_us=cost_us: asyncio.run(_beside(cost_us, orders)), runs)  # type: ignore[misc]
    found += _measured("first order on a new bus", "hftlab", lambda: asyncio.run(_directly(1, warm_up=False)), runs)[:1]
    idle = "order on an idle bus"
    found += _measured(idle, "hftlab", lambda: asyncio.run(_directly(10 * orders)), runs)
    found += _measured(idle, "asyncio.Queue", lambda: asyncio.run(_through_a_queue(10 * orders)), runs)
    return found


def _measured(work: str, contender: str, run: Callable[[], Waits], runs: int) -> list[Measurement]:
    run()
    waits_us = [np.array(run()) / 1e3 for _ in range(runs)]
    figures = {
        "p50": tuple(float(np.percentile(one, 50)) for one in waits_us),
        "p99": tuple(float(np.percentile(one, 99)) for one in waits_us),
        "max": tuple(float(one.max()) for one in waits_us),
    }
    return [
        Measurement(BOARD, f"{work}, {name}", contender, "µs", values, lower_is_better=True)
        for name, values in figures.items()
    ]


def _order() -> OrderEvent:
    return OrderEvent(symbol="BTC", order_id="o", direction=Side.BUY, quantity=1.0)


def _market(rows: int) -> EventBatch:
    records = blank(rows, EventType.MARKET_DATA)
    records["price"], records["kind"] = 1.0, Kind.TRADE
    records["timestamp"] = records["received"] = 1_723_161_255_000_000_000
    return EventBatch(records, SymbolTable(["BTC"]))


def _hold(cost_us: int) -> None:
    end_ns = time.perf_counter_ns() + 1_000 * cost_us
    while cost_us and time.perf_counter_ns() < end_ns:
        pass


def _preempting(cost_us: int, orders: int) -> Waits:
    bus, waits, calls, sent_ns = EventBus(), Waits(), 0, 0

    def market(price: float) -> None:
        nonlocal calls, sent_ns
        calls += 1
        if calls % EVERY == 0:
            sent_ns = time.perf_counter_ns()
            bus.publish_nowait(order)
        _hold(cost_us)

    order = _order()
    bus.subscribe(market, MarketDataEvent, name="market")
    bus.subscribe(lambda order_id: waits.append(time.perf_counter_ns() - sent_ns), OrderEvent, name="orders")
    bus.publish_nowait(order)
    bus.do_work()
    waits.clear()
    bus.offer(_market(EVERY * orders))
    while not bus.do_work().idle:
        pass
    if len(waits) != orders:
        raise AssertionError(f"{len(waits)} of {orders} orders were handled")
    return waits


async def _beside(cost_us: int, orders: int) -> Waits:
    bus, waits, due_ns = EventBus(capacity=1 << 14), Waits(), 0
    bus.subscribe(lambda price: _hold(cost_us), MarketDataEvent, name="market")
    bus.subscribe(lambda order_id: waits.append(time.perf_counter_ns() - due_ns), OrderEvent, name="orders")
    batch, order = _market(1_024), _order()

    async def feed() -> None:
        while True:
            bus.offer(batch)
            await asyncio.sleep(0)

    bus.publish_nowait(order)
    bus.do_work()
    waits.clear()
    tasks = [asyncio.create_task(bus.pump()), asyncio.create_task(feed())]
    loop = asyncio.get_running_loop()
    for number in range(orders):
        # At any phase of the pump's slices: those begin with turns of the loop, and so would what has no clock.
        due_ns = time.perf_counter_ns() + 500_000 + 61_000 * (number % 10)
        turn = loop.create_future()
        loop.call_later((due_ns - time.perf_counter_ns()) / 1e9, turn.set_result, None)
        await turn
        await bus.publish(order)
        while len(waits) <= number:  # noqa: ASYNC110 - the handler tells nobody
            await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return waits


async def _directly(orders: int, *, warm_up: bool = True) -> Waits:
    bus, waits, sent_ns = EventBus(), Waits(), 0
    bus.subscribe(lambda order_id: waits.append(time.perf_counter_ns() - sent_ns), OrderEvent, name="orders")
    pump, order = asyncio.create_task(bus.pump()), _order()
    for number in range(orders + warm_up):
        await asyncio.sleep(0)
        sent_ns = time.perf_counter_ns()
        await bus.publish(order)
        while len(waits) <= number:  # noqa: ASYNC110
            await asyncio.sleep(0)
    pump.cancel()
    await asyncio.wait([pump])
    return waits[warm_up:]


async def _through_a_queue(orders: int) -> Waits:
    queue: asyncio.Queue[OrderEvent] = asyncio.Queue(1_024)
    waits, sent_ns, order = Waits(), 0, _order()

    async def consume() -> None:
        while True:
            await queue.get()
            waits.append(time.perf_counter_ns() - sent_ns)

    consumer = asyncio.create_task(consume())
    for number in range(orders):
        await asyncio.sleep(0)
        sent_ns = time.perf_counter_ns()
        await queue.put(order)
        while len(waits) <= number:  # noqa: ASYNC110
            await asyncio.sleep(0)
    consumer.cancel()
    await asyncio.wait([consumer])
    return waits
