"""The control loop: shedding by rules and by the overload breaker, pauses, sizes; by a clock that the tests move."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hftlab.bus import EventBus, Flow, dispatch
from hftlab.bus.control import LOOK_NS, MEMORY_NS
from hftlab.clock import VirtualClock
from hftlab.errors import ValidationError
from hftlab.events import EventBatch, EventType, Kind, MarketDataEvent, OrderEvent, Priority, Side
from hftlab.flow.overload_settings import OverloadChange, OverloadSettings
from hftlab.flow.shed_rules import ShedChange, ShedRule
from hftlab.flow.sizing import SizeBounds
from hftlab.flow.watermarks import Watermarks
from hftlab.memory import MemoryPressure
from tests.bus.samples import START_NS, pumped, trades, until

CAPACITY = 1_024
MS = 1_000_000
LONG_NS = 10**10
ALL = ("LOW", "NORMAL", "HIGH")


class Told:
    """A source that notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause(self) -> None:
        self.calls.append("pause")

    def resume(self) -> None:
        self.calls.append("resume")


class Bench:
    """A bus with a clock to be moved, and what its handler saw."""

    def __init__(self, **flow: Any) -> None:
        self.clock = VirtualClock(START_NS)
        self.bus = EventBus(capacity=CAPACITY, clock=self.clock, flow=Flow(ageing_s=0, **flow))
        self.prices: list[float] = []
        self.notices: list[Any] = []

        def note(price: float) -> None:
            self.prices.append(price)

        self.bus.subscribe(note, MarketDataEvent)

    def pass_time(self, ns: int = LOOK_NS) -> None:
        """Time passes, and nothing but the look is done."""
        self.clock.advance(ns)
        self.bus._intake.tick()

    def work(self, rows: int = 1 << 30) -> None:
        self.bus.do_work(rows, max_ns=LONG_NS)
        self.check_books()

    def offer(self, batch: EventBatch, level: Priority = Priority.NORMAL) -> None:
        batch.records["priority"] = level
        assert self.bus.offer(batch) == len(batch)
        self.check_books()

    def check_books(self) -> None:
        now = self.bus.statistics()
        assert now.published == (
            now.handled + now.dead_lettered + now.waiting + now.held + now.shed + now.conflated + now.dropped
        )

    @property
    def shed(self) -> int:
        return self.bus.statistics().shed


def rule(measure: Any = "depth", above: float = 0.5, until: float = 0.1, **more: Any) -> ShedRule:
    return ShedRule(**{"lanes": ("NORMAL",), "measure": measure, "above": above, "until": until, **more})


# -- rules ------------------------------------------------------------------------------------------------------------


def test_a_rule_by_depth_sheds_from_its_upper_level_until_its_lower_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "CHUNK_ROWS", 50)  # what a chunk shows counts until its end
    bench = Bench(shed=(rule(),))
    bench.offer(trades(512))
    bench.offer(trades(10, first=1_000))  # nobody has looked yet
    bench.pass_time()
    bench.offer(trades(20, first=2_000))
    assert (bench.shed, bench.bus.statistics().waiting) == (20, 522)
    bench.work(400)
    bench.pass_time()
    bench.offer(trades(5, first=3_000))
    assert bench.shed == 25  # 122 wait: below the upper level, above the lower one
    bench.work(50)
    bench.pass_time()
    bench.offer(trades(7, first=4_000))
    bench.work()
    assert bench.shed == 25
    assert bench.prices == [*range(512), *range(1_000, 1_010), *range(4_000, 4_007)]


def test_rules_leave_other_lanes_alone_and_never_touch_the_critical_one() -> None:
    bench = Bench(shed=(rule(lanes=ALL),))
    bench.offer(trades(600))
    bench.pass_time()
    bench.bus.flow = Flow(shed=(rule(lanes=("NORMAL", "LOW")),), ageing_s=0)
    bench.pass_time()
    for level, shed in ((Priority.CRITICAL, 0), (Priority.HIGH, 0), (Priority.LOW, 10), (Priority.NORMAL, 20)):
        bench.offer(trades(10), level)
        assert bench.shed == shed
    assert [dict(one.gave_way) for one in bench.bus.statistics().lanes] == [
        {}, {}, {"shed: NORMAL+LOW by depth": 10}, {"shed: NORMAL+LOW by depth": 10}
    ]  # fmt: skip


def test_a_rule_takes_the_symbols_and_types_that_it_names() -> None:
    bench = Bench(shed=(rule(symbols="B*", types=(int(EventType.MARKET_DATA),)),))
    bench.bus.priorities.map(lane="NORMAL")
    bench.offer(trades(600, symbols=("X",)))
    bench.pass_time()
    bench.offer(trades(9, symbols=("BTC", "ETH", "BNB")))
    order = OrderEvent(symbol="BTC", order_id="o", direction=Side.BUY, quantity=1.0)
    bench.bus.publish_nowait(order)
    assert (bench.shed, bench.bus.statistics().waiting) == (6, 604)


def test_a_rule_by_wait_goes_by_the_oldest_event() -> None:
    bench = Bench(shed=(rule("wait", 0.1, 0.01),))
    bench.offer(trades(3))
    bench.pass_time(99 * MS)
    bench.offer(trades(3))
    assert bench.shed == 0
    bench.pass_time(2 * MS)
    bench.offer(trades(3))
    assert bench.shed == 3
    bench.work()
    bench.pass_time()
    bench.offer(trades(3))
    assert bench.shed == 3


def test_what_has_grown_too_old_in_its_queue_is_shed_there_and_nothing_else() -> None:
    bench = Bench(shed=(rule("wait", 0.1, 0.01, older_than_s=0.05),))
    bench.offer(trades(10))
    bench.pass_time(60 * MS)
    bench.offer(trades(10, first=100))
    bench.pass_time(39 * MS)
    assert bench.shed == 0
    bench.pass_time(2 * MS)  # the oldest has waited for 101 ms, the others for 41
    bench.check_books()
    assert (bench.shed, bench.bus.statistics().waiting) == (10, 10)
    bench.pass_time(10 * MS)  # now these are 51 ms old
    assert bench.shed == 20
    bench.work()
    assert bench.prices == []


def test_what_a_handler_has_begun_is_not_shed_however_old_it_grows() -> None:
    bench = Bench(shed=(rule("wait", 0.1, 0.01, older_than_s=0.05),))
    bench.offer(trades(10))
    bench.work(4)  # a chunk shows all ten
    bench.offer(trades(10, first=100))
    bench.pass_time(200 * MS)
    assert bench.shed == 10
    bench.work()
    assert bench.prices == list(range(10))


def pressure_of(level: float) -> MemoryPressure:
    return MemoryPressure(level, None, round(level * 1_000), 1_000, "psutil")


def test_memory_is_asked_now_and_then_and_only_where_a_rule_wants_it() -> None:
    levels = [0.4, 0.95, 0.95, 0.5]
    bench = Bench(shed=(rule("memory", 0.9, 0.6),))
    bench.bus._lanes.control._read_pressure = lambda: pressure_of(levels.pop())
    for turn in range(4):
        bench.pass_time(MEMORY_NS if turn else LOOK_NS)
        bench.pass_time()
        before = bench.shed
        bench.offer(trades(10))
        assert bench.shed - before == (10 if turn in (1, 2) else 0)
    assert levels == []
    assert bench.bus.statistics().memory == 0.4
    plain = Bench(shed=(rule(),))
    plain.bus._lanes.control._read_pressure = lambda: pressure_of(levels.pop())
    plain.pass_time()
    assert plain.bus.statistics().memory is None


def look_now(bus: EventBus) -> None:
    """And so not again for 2 ms, in which everything is worked off."""
    bus._lanes.control._looked_at_ns = 0
    bus._lanes.control.look(bus.clock.now_ns(), bus._admission)


async def test_shedding_ends_when_the_queues_have_been_drained_though_nothing_comes_in_any_more() -> None:
    """A pump that finds nothing to do must look again all the same."""
    bus = EventBus(capacity=CAPACITY, flow=Flow(shed=(rule(),)))
    control = bus._lanes.control
    async with pumped(bus):
        for _ in range(10):
            bus.offer(trades(1_000))
            look_now(bus)
            assert control.sheds
            await bus.drain()
            await until(lambda: not control.sheds)
            await bus.publish_batch(trades(10))
            await bus.drain()
    assert (bus.statistics().handled, bus.statistics().shed) == (10_100, 0)


async def test_what_comes_into_a_drained_lane_is_not_shed_for_what_was_there_before() -> None:
    """Without anybody who looked in between: whoever publishes finds it out."""
    bench = Bench(shed=(rule(),))
    bench.offer(trades(1_000))
    bench.pass_time()
    bench.work()
    bench.clock.advance(LOOK_NS)
    bench.offer(trades(10))
    assert (bench.shed, bench.bus.statistics().waiting) == (0, 10)


def test_who_subscribed_to_shedding_is_told_when_it_begins_and_ends() -> None:
    bench = Bench(shed=(rule(name="full"),))
    bench.bus.subscribe(bench.notices.append, ShedChange, name="changes")
    bench.offer(trades(600))
    bench.pass_time()
    bench.work()
    bench.pass_time()
    bench.work()
    assert [(one.rule, one.active) for one in bench.notices] == [("full", True), ("full", False)]


# -- the overload breaker ---------------------------------------------------------------------------------------------


def test_a_queue_that_stands_opens_the_breaker_which_lets_in_again_by_steps() -> None:
    settings = OverloadSettings(target_s=0.01, interval_s=0.05, open_s=0.1, steps=4, step_s=0.02)
    bench = Bench(breaker=settings)
    bench.bus.subscribe(bench.notices.append, OverloadChange, name="changes")
    bench.offer(trades(500))
    for _ in range(40):
        bench.pass_time()  # 80 ms, in which nobody takes a row
    assert bench.bus.statistics().overload == "open"
    bench.offer(trades(100))
    bench.offer(trades(100), Priority.CRITICAL)
    bench.offer(trades(100), Priority.HIGH)
    assert bench.shed == 100
    bench.work()
    for _ in range(60):
        bench.pass_time()
    share = bench.bus.statistics().overload_share
    assert bench.bus.statistics().overload == "half-open"
    assert 0 < share < 1
    before = bench.shed
    bench.offer(trades(100))
    assert bench.shed - before == round(100 * (1 - share))
    bench.work()
    for _ in range(60):
        bench.pass_time()
    assert bench.bus.statistics().overload == "closed"
    before = bench.shed
    bench.offer(trades(100))
    assert bench.shed == before
    bench.work()
    assert [one.after.value for one in bench.notices] == ["open", "half-open", "closed"]
    reasons = set().union(*(one.gave_way for one in bench.bus.statistics().lanes))
    assert reasons == {"shed: overload"}


def test_a_burst_that_is_worked_off_is_no_overload() -> None:
    bench = Bench(breaker=OverloadSettings(target_s=0.01, interval_s=0.05))
    for _ in range(20):
        bench.offer(trades(500))
        bench.pass_time(8 * MS)
        bench.work()
    assert (bench.bus.statistics().overload, bench.shed) == ("closed", 0)


# -- pauses -----------------------------------------------------------------------------------------------------------


def test_sources_pause_at_the_high_mark_and_resume_at_the_low_one() -> None:
    bench = Bench(watermarks=Watermarks(0.75, 0.25))
    source = Told()
    bench.bus.attach(source)
    bench.offer(trades(767))
    bench.pass_time()
    assert source.calls == []
    bench.offer(trades(1))
    bench.pass_time()
    bench.pass_time()
    assert (source.calls, bench.bus.statistics().paused) == (["pause"], True)
    bench.work(400)
    bench.pass_time()
    assert source.calls == ["pause"]
    bench.work()
    bench.pass_time()
    assert (source.calls, bench.bus.statistics().paused) == (["pause", "resume"], False)
    lane = next(one for one in bench.bus.statistics().lanes if one.lane == "NORMAL")
    assert (lane.pauses, lane.paused, lane.paused_ns) == (1, False, 3 * LOOK_NS)


def test_sources_wait_for_the_last_lane_that_is_full() -> None:
    bench = Bench()
    source = Told()
    bench.bus.attach(source)
    bench.offer(trades(1_000), Priority.HIGH)
    bench.offer(trades(1_000), Priority.LOW)
    bench.pass_time()
    bench.work(1_000)
    bench.pass_time()
    assert source.calls == ["pause"]
    bench.work(1_000)
    bench.pass_time()
    assert source.calls == ["pause", "resume"]


async def test_paused_sources_resume_though_nothing_but_they_would_wake_the_pump() -> None:
    bus = EventBus(capacity=CAPACITY)
    source = Told()
    bus.attach(source)
    async with pumped(bus):
        for turn in range(1, 11):
            bus.offer(trades(1_000))
            look_now(bus)
            assert source.calls == ["pause", "resume"] * (turn - 1) + ["pause"]
            await until(lambda turn=turn: source.calls == ["pause", "resume"] * turn)  # type: ignore[misc]
    assert bus.statistics().handled == 10_000


def test_other_settings_end_a_pause_that_they_do_not_want() -> None:
    bench = Bench()
    source = Told()
    bench.bus.attach(source)
    bench.offer(trades(1_000))
    bench.pass_time()
    bench.bus.flow = Flow(watermarks=Watermarks(0.99, 0.5))
    bench.pass_time()
    assert source.calls == ["pause", "resume"]


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_memory_pressure_shrinks_queues_and_what_is_queued_stays() -> None:
    bench = Bench(adapt=SizeBounds(100, CAPACITY), overflow="drop newest")
    bench.bus._lanes.control._read_pressure = lambda: pressure_of(0.95)
    bench.offer(trades(900))
    for _ in range(3):
        bench.pass_time(MEMORY_NS)
    limit = bench.bus._admission.limits[EventType.MARKET_DATA]
    assert 100 <= limit < 900
    bench.offer(trades(10))
    assert (bench.bus.statistics().waiting, bench.bus.statistics().dropped_newest) == (900, 10)


def test_bounds_stay_within_the_queues_capacity() -> None:
    with pytest.raises(ValidationError, match=r"1,024 rows of market events; got max_rows=2,000"):
        Bench(adapt=SizeBounds(100, 2_000))
    bench = Bench()
    before = bench.bus.flow
    with pytest.raises(ValidationError, match="a larger capacity="):
        bench.bus.flow = Flow(overflow="drop newest", adapt=SizeBounds(100, 2_000))
    assert bench.bus.flow is before


# -- the loop itself --------------------------------------------------------------------------------------------------


def test_it_looks_every_two_milliseconds_and_goes_on_where_a_clock_is_set_back() -> None:
    bench = Bench(shed=(rule(),))
    control = bench.bus._lanes.control
    bench.pass_time()
    bench.offer(trades(1_000))
    bench.pass_time(LOOK_NS - 1)
    assert not control.sheds
    control.look(bench.clock.now_ns() - 10**12, bench.bus._admission)
    assert control.sheds


@pytest.mark.parametrize("measure", ["depth", "wait"])
def test_a_run_is_never_shed_paused_or_looked_at(measure: str) -> None:
    flow: dict[str, Any] = {"shed": (rule(measure, 0.01, 0.001, lanes=ALL),), "overflow": "drop newest"}
    bench = Bench(**flow)
    source = Told()
    bench.bus.attach(source)
    bench.offer(trades(600))
    bench.pass_time(20 * MS)
    bench.work()
    assert bench.bus._lanes.control.sheds
    run = bench.bus.begin_run("a run", VirtualClock(START_NS))
    batch = trades(1_500, first=10_000)
    batch.records["kind"] = Kind.QUOTE
    batch.records["priority"] = np.resize(np.array([1, 2, 3, 4], np.uint8), len(batch))
    assert run.offer(batch) == CAPACITY
    run.work(1 << 30, 1 << 62)
    assert run.offer(batch[CAPACITY:]) == 1_500 - CAPACITY
    run.work(1 << 30, 1 << 62)
    run.end()
    assert bench.prices == [*range(600), *range(10_000, 11_500)]
    assert (bench.shed, source.calls) == (0, [])
    bench.check_books()
