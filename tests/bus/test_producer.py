"""Producers with a limit of their own."""

from __future__ import annotations

import asyncio

import pytest

from hftlab.bus import EventBus
from hftlab.bus.producer import Producer
from hftlab.clock import VirtualClock
from hftlab.errors import ValidationError
from hftlab.events import EventBatch
from hftlab.flow import Throttle
from tests.bus.samples import START_NS, trades


def limited(bus: EventBus, clock: VirtualClock, **limits: float) -> Producer:
    """A producer whose sleeps move the clock."""

    async def sleep(seconds: float) -> None:
        clock.advance_to(clock.now_ns() + round(seconds * 1e9) + 1)
        await asyncio.sleep(0)

    return Producer("feed", bus, Throttle(clock=clock, sleep=sleep, **limits))  # type: ignore[arg-type]


async def test_a_batch_comes_burst_by_burst_at_its_rate() -> None:
    clock = VirtualClock(START_NS)
    bus, sizes = EventBus(clock=clock), list[int]()
    producer = limited(bus, clock, rate_hz=1_000, burst=100)
    bus.subscribe(lambda batch: sizes.append(len(batch)), "market", mode="batch", name="sizes")
    publishing = asyncio.create_task(producer.publish_batch(trades(450)))
    while not publishing.done():
        await asyncio.sleep(0)
        bus.do_work()
    while not bus.do_work().idle:
        pass
    assert await publishing == 450
    assert sum(sizes) == 450
    assert max(sizes) <= 100
    # 100 were there at once, 350 came at 1,000 a second.
    assert 0.35 <= (clock.now_ns() - START_NS) / 1e9 <= 0.36
    assert producer.statistics().granted == producer.published == 450


async def test_no_more_calls_than_told_are_under_way() -> None:
    clock = VirtualClock(START_NS)
    bus = EventBus(capacity=1_024, clock=clock)
    producer = limited(bus, clock, concurrent=2)
    most = 0

    async def publish() -> None:
        nonlocal most
        await producer.publish_batch(trades(700))
        most = max(most, producer.statistics().slots_in_use)

    async def work() -> None:
        for _ in range(200):
            bus.do_work(500)
            await asyncio.sleep(0)

    pump = asyncio.create_task(bus.pump())
    try:
        async with asyncio.timeout(20):
            await asyncio.gather(*(publish() for _ in range(5)))
            await bus.drain()
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)
    assert most <= 2
    assert bus.statistics().published == bus.statistics().handled + bus.statistics().redelivered == 3_500


async def test_without_a_limit_everything_goes_at_once() -> None:
    bus = EventBus()
    producer = bus.producer("mine")
    assert await producer.publish_batch(trades(10)) == 10
    assert await producer.publish_batch(EventBatch.from_events([])) == 0
    await producer.publish(trades(1)[0])
    assert producer.published == 11
    assert repr(producer) == "Producer(mine: 11 published; Throttle(no bound))"


def test_a_limit_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="rate"):
        EventBus().producer("feed", rate_hz=0)
