"""A feed and a real bus, by a clock that the handler moves on."""

from __future__ import annotations

from hftlab.bus import EventBus, Flow
from hftlab.clock import VirtualClock
from hftlab.events import MarketDataEvent
from hftlab.events.ports import LiveBus
from hftlab.flow import Watermarks
from hftlab.sim import Burst, LiveFeed, market

START_NS = 1_704_205_800_000_000_000
BATCH = market(["A", "B"], seconds=5, seed=1)


def test_the_real_bus_is_one_that_a_feed_can_send_to() -> None:
    bus: LiveBus = EventBus()
    assert bus.clock.now_ns() > 0


def test_a_real_bus_pauses_the_feed_and_lets_it_go_on_and_sees_no_gap() -> None:
    clock = VirtualClock(START_NS)
    bus = EventBus(capacity=4_096, clock=clock, flow=Flow(watermarks=Watermarks(high=0.5, low=0.1)))

    def slow(event: MarketDataEvent) -> None:
        clock.advance(100_000)

    bus.subscribe(slow)
    feed = LiveFeed(BATCH, bus, rate_hz=5_000, bursts=[Burst(0.05, 0.1, times=20)], seconds=0.3)
    deepest = 0
    while not feed.done or bus.statistics().waiting:
        feed.send_due()
        deepest = max(deepest, bus.statistics().waiting)
        if bus.do_work(10, max_ns=1_000_000_000).idle:
            clock.advance(100_000)
    statistics = feed.statistics()
    assert statistics.pauses > 1
    assert statistics.held_back > 1_000
    assert statistics.paused_ns > 0
    assert 2_048 <= deepest < 4_096
    shown = bus.statistics()
    assert shown.handled == shown.published == statistics.sent == statistics.total
    assert len(bus.gaps) == 0
