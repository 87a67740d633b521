"""A run that flushes what batch handlers wait for, and goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from hftlab.bus import EventBus
from hftlab.bus.run import Run
from hftlab.clock import VirtualClock
from hftlab.events import EventBatch, MarketDataEvent, SignalEvent
from tests.bus.samples import START_NS, trades


@pytest.fixture
def bus() -> EventBus:
    return EventBus(capacity=1_024)


def begin(bus: EventBus) -> Run:
    return bus.begin_run("a run", VirtualClock(START_NS))


def work_off(run: Run, rows: int = 1 << 62) -> int:
    """Work until the run is idle; how many slices that took."""
    for slices in range(1, 10_000):
        if run.work(rows, 1 << 62).idle:
            return slices
    raise AssertionError("the run never came to rest")


def test_a_flush_delivers_what_a_batch_handler_waits_for_and_the_run_goes_on(bus: EventBus) -> None:
    sizes: list[int] = []
    bus.subscribe(lambda batch: sizes.append(len(batch)), "market", mode="batch", batch_rows=4, name="batches")
    run = begin(bus)
    run.offer(trades(6))
    work_off(run)
    assert sizes == [4]
    run.flush()
    work_off(run)
    assert sizes == [4, 2]
    run.offer(trades(7, first=6))
    work_off(run)
    assert sizes == [4, 2, 4], "the flush is over: what is not full waits again"
    run.finish()
    work_off(run)
    assert sizes == [4, 2, 4, 3]


def test_a_flush_delivers_what_a_jit_handler_waits_for(bus: EventBus) -> None:
    seen = np.zeros(2)

    def adds(record: Any, state: Any) -> None:
        state[0] += 1.0
        state[1] += record.price

    bus.subscribe(adds, "market", mode="jit", state=seen, batch_rows=500, name="adds")
    run = begin(bus)
    run.offer(trades(10))
    work_off(run)
    assert seen.tolist() == [0.0, 0.0]
    run.flush()
    work_off(run)
    assert seen.tolist() == [10.0, 45.0]
    run.offer(trades(5, first=10))
    work_off(run)
    assert seen[0] == 10.0


def test_a_work_is_not_idle_before_the_flush_is_done(bus: EventBus) -> None:
    sizes: list[int] = []
    bus.subscribe(lambda batch: sizes.append(len(batch)), "market", mode="batch", batch_rows=100, name="batches")
    bus.subscribe(lambda batch: sizes.append(len(batch)), "market", mode="batch", batch_rows=200, name="others")
    run = begin(bus)
    run.offer(trades(7))
    run.flush()
    assert work_off(run, rows=1) > 1
    assert sizes == [7, 7]


def test_what_a_flushed_batch_emits_is_flushed_too(bus: EventBus) -> None:
    sizes: list[int] = []

    def emits(batch: EventBatch) -> list[SignalEvent]:
        return [SignalEvent(symbol="BTC", signal_type="s") for _ in batch]

    bus.subscribe(emits, "market", mode="batch", batch_rows=100, name="emits")
    bus.subscribe(lambda batch: sizes.append(len(batch)), "signal", mode="batch", batch_rows=100, name="signals")
    run = begin(bus)
    run.offer(trades(3))
    run.flush()
    work_off(run)
    assert sizes == [3]
    assert (run.handled, run.emitted) == (3, 3)


def test_a_handler_that_feeds_its_own_batches_comes_to_an_end(bus: EventBus) -> None:
    def again(batch: EventBatch) -> list[MarketDataEvent]:
        return [MarketDataEvent(symbol="BTC", price=1.0)]

    bus.subscribe(again, "market", mode="batch", batch_rows=100, name="again")
    run = begin(bus)
    run.offer(trades(1))
    run.flush()
    work_off(run)
    assert bus.statistics().emissions_refused == 1


async def test_an_async_batch_handler_that_waits_is_awaited_before_the_flush_is_done(bus: EventBus) -> None:
    ends: list[int] = []

    async def waits(batch: EventBatch) -> None:
        await asyncio.sleep(0)
        ends.append(len(batch))

    bus.subscribe(waits, "market", mode="batch", batch_rows=100, name="waits")
    run = begin(bus)
    run.offer(trades(3))
    run.flush()
    work = run.work(1 << 62, 1 << 62)
    assert work.awaiting
    assert not work.idle
    await run.settle()
    work_off(run)
    assert ends == [3]


def test_a_flush_with_nothing_to_deliver_is_over_at_once(bus: EventBus) -> None:
    sizes: list[int] = []
    bus.subscribe(lambda batch: sizes.append(len(batch)), "market", mode="batch", batch_rows=100, name="batches")
    run = begin(bus)
    run.flush()
    work_off(run)
    run.offer(trades(3))
    work_off(run)
    assert sizes == []


def test_a_flush_that_was_asked_for_ends_with_its_run(bus: EventBus) -> None:
    sizes: list[int] = []
    bus.subscribe(lambda batch: sizes.append(len(batch)), "market", mode="batch", batch_rows=100, name="batches")
    run = begin(bus)
    run.flush()
    run.end()
    run = begin(bus)
    run.offer(trades(3))
    work_off(run)
    assert sizes == []
