"""A feed with a clock that the test moves on: nothing here waits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from hftlab.clock import VirtualClock
from hftlab.errors import ValidationError
from hftlab.events import EventBatch, EventType
from hftlab.events.ports import PausableSource
from hftlab.sim import Burst, LiveFeed, market

MS = 1_000_000
START_NS = 1_704_205_800_000_000_000
BATCH = market(["A", "B"], seconds=5, seed=1)


class FakeBus:
    """Takes what it has ``room`` for, and keeps it."""

    def __init__(self, room: int = 1 << 62) -> None:
        self.clock = VirtualClock(START_NS)
        self.room = room
        self.looked_at = 0
        self.offered: list[EventBatch] = []
        self.sources: list[PausableSource] = []

    def offer(self, batch: EventBatch) -> int:
        taken = min(self.room, len(batch))
        self.looked_at += len(batch)
        self.room -= taken
        if taken:
            self.offered.append(batch[:taken])
        return taken

    def attach(self, source: PausableSource) -> None:
        self.sources.append(source)

    def detach(self, source: PausableSource) -> None:
        if source in self.sources:
            self.sources.remove(source)

    async def sleep(self, seconds: float) -> None:
        self.clock.advance(round(seconds * 1e9))
        await asyncio.sleep(0)

    @property
    def got(self) -> EventBatch:
        return EventBatch.concat(self.offered)


@pytest.fixture
def bus() -> FakeBus:
    return FakeBus()


def sends(feed: LiveFeed, bus: FakeBus, ticks: int, tick_ns: int = MS) -> Iterator[int]:
    """What the feed sends at each of so many ticks."""
    for _ in range(ticks):
        yield feed.send_due()
        bus.clock.advance(tick_ns)


def test_what_is_due_is_sent_and_no_more(bus: FakeBus) -> None:
    feed = LiveFeed(BATCH, bus, rate_hz=10_000)
    assert list(sends(feed, bus, 5)) == [1, 10, 10, 10, 10]
    assert feed.send_due() == 10
    assert feed.send_due() == 0


def test_a_burst_is_sent_on_top_of_the_base_rate(bus: FakeBus) -> None:
    feed = LiveFeed(BATCH, bus, rate_hz=10_000, bursts=[Burst(0.002, 0.002, times=20)])
    assert list(sends(feed, bus, 7)) == [1, 10, 10, 200, 200, 10, 10]


def test_events_get_the_times_of_now_and_numbers_from_1(bus: FakeBus) -> None:
    feed = LiveFeed(BATCH, bus, rate_hz=1_000)
    list(sends(feed, bus, 3, tick_ns=10 * MS))
    records = bus.got.records
    assert records["timestamp"].tolist() == [START_NS + place * MS for place in range(21)]
    assert records["received"].tolist() == [START_NS] + [START_NS + 10 * MS] * 10 + [START_NS + 20 * MS] * 10
    for source in np.unique(records["source"]):
        numbers = records["sequence"][records["source"] == source]
        assert numbers.tolist() == list(range(1, len(numbers) + 1))
    assert np.array_equal(records["bid"], BATCH.records["bid"][:21], equal_nan=True)


def test_the_same_arguments_send_the_same_events() -> None:
    sent = []
    for seed in (7, 7, 8):
        bus = FakeBus()
        feed = LiveFeed(BATCH, bus, rate_hz=5_000, seconds=0.5, orders=0.1, fills=0.05, signals=0.1, seed=seed)
        list(sends(feed, bus, 501))
        assert feed.done
        sent.append(bus.got.records.tobytes())
    assert sent[0] == sent[1] != sent[2]


async def test_it_runs_to_its_end_and_leaves_the_bus(bus: FakeBus) -> None:
    feed = LiveFeed(BATCH, bus, rate_hz=100_000, sleep=bus.sleep)
    statistics = await feed.run()
    assert statistics.sent == statistics.total == len(BATCH) == len(bus.got)
    assert bus.clock.now_ns() - START_NS == pytest.approx(len(BATCH) / 100_000 * 1e9, abs=4 * MS)
    assert bus.sources == []
    assert feed.done


async def test_a_slow_feed_sleeps_until_something_is_due(bus: FakeBus) -> None:
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await bus.sleep(seconds)

    await LiveFeed(BATCH[:3], bus, rate_hz=20, sleep=sleep).run()
    assert slept == [0.05, 0.05]


async def test_a_batch_is_sent_again_until_the_seconds_are_over(bus: FakeBus) -> None:
    feed = LiveFeed(BATCH[:100], bus, rate_hz=1_000, seconds=0.25, orders=0.1, fills=0.1, sleep=bus.sleep)
    statistics = await feed.run()
    assert statistics.sent == 250 == sum(statistics.by_type.values())
    orders = bus.got.only(EventType.ORDER)
    ids = [event.order_id for event in orders]  # type: ignore[attr-defined]
    assert ids == [f"sim-1-{number}" for number in range(1, len(ids) + 1)]


async def test_the_rate_is_the_batchs_own_without_another(bus: FakeBus) -> None:
    feed = LiveFeed(BATCH, bus, sleep=bus.sleep)
    await feed.run()
    assert bus.clock.now_ns() - START_NS == pytest.approx(5e9, rel=0.01)


async def test_a_second_run_begins_anew_in_another_epoch(bus: FakeBus) -> None:
    feed = LiveFeed(BATCH[:10], bus, rate_hz=1_000, sleep=bus.sleep)
    await feed.run()
    await feed.run()
    records = bus.got.records
    assert records["epoch"].tolist() == [1] * 10 + [2] * 10
    assert records["sequence"][:10].tolist() == records["sequence"][10:].tolist()
    await LiveFeed(BATCH[:10], bus, rate_hz=1_000, sleep=bus.sleep).run()
    assert bus.got.records["epoch"][-1] == 3


def test_starting_twice_is_harmless(bus: FakeBus) -> None:
    feed = LiveFeed(BATCH, bus, rate_hz=1_000)
    feed.start()
    bus.clock.advance(10 * MS)
    feed.start()
    assert feed.send_due() == 11
    assert bus.sources == [feed]


def test_a_paused_feed_holds_back_what_is_due_and_sends_it_later_in_order(bus: FakeBus) -> None:
    feed = LiveFeed(BATCH, bus, rate_hz=1_000)
    feed.send_due()
    feed.pause()
    feed.pause()
    assert list(sends(feed, bus, 5)) == [0] * 5
    statistics = feed.statistics()
    assert (statistics.paused, statistics.waiting, statistics.held_back, statistics.paused_ns) == (True, 4, 4, 5 * MS)
    feed.resume()
    assert feed.send_due() == 5
    statistics = feed.statistics()
    assert (statistics.paused, statistics.waiting, statistics.pauses, statistics.sent) == (False, 0, 1, 6)
    assert statistics.held_back == 4
    assert (np.diff(bus.got.records["timestamp"]) == MS).all()


def test_what_was_held_back_goes_with_what_is_newly_due_a_thousand_at_a_time(bus: FakeBus) -> None:
    feed = LiveFeed(BATCH, bus, rate_hz=100_000)
    feed.start()
    feed.pause()
    bus.clock.advance(40 * MS)
    feed.send_due()
    feed.resume()
    bus.clock.advance(MS)
    assert list(sends(feed, bus, 5)) == [1_124, 1_124, 1_124, 1_029, 100]


def test_a_feed_that_cant_be_paused_is_not_attached(bus: FakeBus) -> None:
    feed = LiveFeed(BATCH, bus, rate_hz=1_000, pausable=False)
    feed.send_due()
    assert bus.sources == []


def test_orders_go_on_while_market_data_are_held_back(bus: FakeBus) -> None:
    feed = LiveFeed(BATCH, bus, rate_hz=10_000, orders=0.1)
    feed.start()
    feed.pause()
    list(sends(feed, bus, 20))
    assert set(bus.got.records["type"].tolist()) == {EventType.ORDER}
    orders = len(bus.got)
    feed.resume()
    feed.send_due()
    assert feed.statistics().by_type == {"order": orders, "market": len(bus.got) - orders}


def test_what_the_bus_has_no_room_for_waits_for_it_and_is_counted_once() -> None:
    bus = FakeBus(room=15)
    feed = LiveFeed(BATCH, bus, rate_hz=10_000)
    assert list(sends(feed, bus, 4)) == [1, 10, 4, 0]
    statistics = feed.statistics()
    assert (statistics.sent, statistics.waiting, statistics.held_back, statistics.refusals) == (15, 16, 16, 2)
    bus.room = 1 << 62
    assert feed.send_due() == 26
    statistics = feed.statistics()
    assert (statistics.sent, statistics.waiting, statistics.held_back) == (41, 0, 16)
    sequences = bus.got.records
    for source in np.unique(sequences["source"]):
        numbers = sequences["sequence"][sequences["source"] == source].tolist()
        assert all(later == earlier + 1 for earlier, later in pairwise(numbers))


def test_a_bus_without_room_is_offered_little_until_it_takes_it() -> None:
    bus = FakeBus(room=0)
    feed = LiveFeed(BATCH, bus, rate_hz=1_000_000)
    feed.start()
    bus.clock.advance(MS)
    feed.send_due()
    offered = bus.looked_at
    assert feed.send_due() == 0
    assert bus.looked_at - offered == 64
    bus.room = 1 << 62
    assert feed.send_due() == 1_001


async def test_a_feed_that_is_stopped_returns_and_leaves_the_bus(bus: FakeBus) -> None:
    async def sleep(seconds: float) -> None:
        await bus.sleep(seconds)
        if bus.clock.now_ns() > START_NS + 100 * MS:
            feed.stop()

    feed = LiveFeed(BATCH, bus, rate_hz=1_000, sleep=sleep)
    statistics = await feed.run()
    assert 90 < statistics.sent < 110
    assert bus.sources == []
    assert "stopped" in repr(feed)


async def test_a_feed_that_is_cancelled_leaves_the_bus(bus: FakeBus) -> None:
    task = asyncio.create_task(LiveFeed(BATCH, bus, rate_hz=1_000, sleep=bus.sleep).run())
    for _ in range(10):
        await asyncio.sleep(0)
    assert bus.sources
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bus.sources == []


def test_it_tells_what_it_is_and_did(bus: FakeBus) -> None:
    feed = LiveFeed(BATCH, bus, rate_hz=1_000, bursts=[Burst(1, 0.5)], name="a<b")
    assert repr(feed) == (
        f"LiveFeed(a<b: not started, 0 of {len(BATCH):,} sent, Pace(1,000 a second, 20 times at 1 s for 0.5 s))"
    )
    feed.send_due()
    assert "running, 1 of" in repr(feed)
    feed.pause()
    assert "paused" in repr(feed)
    assert "a&lt;b" in feed._repr_html_()
    assert "1 market" in feed._repr_html_()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"rate_hz": 0}, "rate_hz"),
        ({"seconds": -1}, "seconds"),
        ({"seed": 0.5}, "seed"),
        ({"name": "x" * 13}, "name"),
        ({"orders": 2}, "orders"),
    ],
)
def test_arguments_out_of_bounds_are_refused(bus: FakeBus, arguments: dict[str, object], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        LiveFeed(BATCH, bus, **{"rate_hz": 10, **arguments})  # type: ignore[arg-type]


def test_a_lab_will_do_for_its_bus_and_nothing_else(bus: FakeBus) -> None:
    class Lab:
        def __init__(self) -> None:
            self.bus = bus

    assert LiveFeed(BATCH, Lab(), rate_hz=10).send_due() == 1
    with pytest.raises(ValidationError, match=r"lab\.bus"):
        LiveFeed(BATCH, 5, rate_hz=10)  # type: ignore[arg-type]


def test_a_batch_of_one_moment_has_no_rate_of_its_own(bus: FakeBus) -> None:
    with pytest.raises(ValidationError, match="rate_hz="):
        LiveFeed(BATCH[:1], bus)
