"""In a run, what circuit breakers let through depends on the data alone: not on slices, pieces, priorities or flow."""

from __future__ import annotations

import random
from typing import Any

import pytest

from hftlab.bus import EventBus, Flow
from hftlab.clock import VirtualClock
from hftlab.events import Event, EventBatch, MarketDataEvent, OrderEvent, Side, SignalEvent
from hftlab.flow import BreakerSettings
from tests.bus.samples import START_NS

Log = list[tuple[Any, ...]]
FOREVER_NS = 1 << 62


def recorded(count: int, seed: int, falls: float) -> EventBatch:
    """Mixed events at random times; some arrive, by their stamp, before what came before them."""
    draw, now_ns = random.Random(seed), START_NS
    events: list[Event] = []
    for number in range(count):
        now_ns += draw.randrange(0, 3_000_000)
        received = now_ns - (draw.randrange(0, 5_000_000) if draw.random() < falls else 0)
        kind = draw.random()
        times: dict[str, Any] = {"timestamp": now_ns, "received": received}
        if kind < 0.8:
            events.append(MarketDataEvent(symbol=draw.choice("ABCD"), price=1.0 + number, volume=1.0, **times))
        elif kind < 0.9:
            events.append(OrderEvent(symbol="A", order_id=str(number), direction=Side.BUY, quantity=1.0, **times))
        else:
            events.append(SignalEvent(symbol="B", signal_type="RISK", **times))
    return EventBatch.from_events(events)


def play(data: EventBatch, piece: int, rows: int, settings: BreakerSettings, *, loaded: bool) -> Log:
    """What the handlers were called with, in order."""
    bus, log = EventBus(), Log()
    if loaded:
        bus.flow = Flow(overflow="conflate", limit_bytes=12_800, ageing_s=0.001)
        bus.priorities.map(OrderEvent, lane="LOW")

    @bus.on(MarketDataEvent, name="market", breaker=settings)
    def market(event: MarketDataEvent) -> Any:
        log.append(("market", event.price))
        if int(event.price) % 7 < 3:
            raise ValueError("wanted")
        if int(event.price) % 11 == 0:
            return [OrderEvent(symbol="A", order_id="e", direction=Side.BUY, quantity=1.0)]
        return None

    @bus.on(OrderEvent, MarketDataEvent, name="both", breaker=settings)
    async def both(event: MarketDataEvent | OrderEvent) -> Any:
        log.append(("both", event.timestamp))
        if event.timestamp % 5 == 0:
            raise ValueError("wanted")
        return SignalEvent(symbol="A", signal_type="s") if event.timestamp % 3 == 0 else None

    @bus.on(MarketDataEvent, name="batches", mode="batch", batch_rows=16, breaker=settings)
    def batches(batch: EventBatch) -> None:
        log.append(("batch", batch.records["price"].tolist()))
        if int(batch.records["price"][0]) % 3 == 0:
            raise ValueError("wanted")

    run = bus.begin_run("a run", VirtualClock(0))
    offered = 0
    while offered < len(data):
        offered += run.offer(data[offered : offered + piece])
        while not run.work(rows, FOREVER_NS).idle:
            pass
    run.finish()
    while not run.work(1 << 60, FOREVER_NS).idle:
        pass
    told = bus.statistics()
    assert told.published == len(data) == told.handled + told.dead_lettered
    assert told.shed == told.dropped == told.conflated == 0
    run.end()
    return log


@pytest.mark.parametrize("falls", [0.0, 0.3])
@pytest.mark.parametrize("window", ["count", "time"])
def test_what_a_breaker_lets_through_does_not_depend_on_slices(window: Any, falls: float) -> None:
    settings = BreakerSettings(
        minimum_number_of_calls=3,
        sliding_window_size=4,
        sliding_window_type=window,
        wait_duration_in_open_state_s=0.05,
        permitted_number_of_calls_in_half_open_state=2,
    )
    for seed in range(2):
        data = recorded(700, seed, falls)
        whole = play(data, len(data), 1 << 60, settings, loaded=False)
        assert 0 < len(whole) < len(data) * 2
        for piece, rows in ((1, 1), (13, 5), (400, 1 << 60)):
            for loaded in (False, True):
                assert play(data, piece, rows, settings, loaded=loaded) == whole, (seed, piece, rows, loaded)
