"""Three times as much market data as its handler takes, orders and fills in between: nothing critical is lost or waits
for long, whatever gives way is counted, and monitoring is not starved."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections import deque
from contextlib import suppress
from itertools import count

import numpy as np
import pytest

from hftlab.bus import EventBus, Flow
from hftlab.bus.duty import SLICE_NS
from hftlab.bus.lanes import TURN_NS
from hftlab.errors import HandlerFailed
from hftlab.events import (
    EventBatch,
    EventType,
    FillEvent,
    Kind,
    MarketDataEvent,
    OrderEvent,
    Side,
    SignalEvent,
    SymbolTable,
)
from hftlab.events.records import Priority, blank
from hftlab.events.types import Event
from hftlab.flow import OverloadSettings, ShedRule, SizeBounds
from tests.bus.samples import pumped
from tests.bus.virtual_time import VirtualTime, fates, in_virtual_time
from tests.faults.full_run import seconds, seeds

SYMBOLS = tuple(f"S{number}" for number in range(8))
CAPACITY = 4_096
CALL_NS = 20_000
PREEMPTION_CALLS = 32
TICK_NS = 1_000_000
OVERLOAD = 3
AGEING_S = 0.05

FLOWS = {
    "wait": Flow(ageing_s=AGEING_S),
    "raise": Flow(overflow="raise", ageing_s=AGEING_S),
    "drop newest": Flow(overflow="drop newest", ageing_s=AGEING_S),
    "drop oldest": Flow(overflow="drop oldest", ageing_s=AGEING_S),
    "conflate": Flow(overflow="conflate", ageing_s=AGEING_S),
    "bytes": Flow(overflow="drop oldest", limit_bytes={MarketDataEvent: 128 * 1_000}, ageing_s=AGEING_S),
    "adaptive": Flow(overflow="drop oldest", adapt={MarketDataEvent: SizeBounds(128, CAPACITY)}, ageing_s=AGEING_S),
    "shed by depth": Flow(
        shed=(ShedRule(lanes=("NORMAL",), measure="depth", above=0.5, until=0.25),), ageing_s=AGEING_S
    ),
    "shed by age": Flow(
        shed=(ShedRule(lanes=("NORMAL",), measure="wait", above=0.03, until=0.01, older_than_s=0.02),),
        overflow="drop oldest",
        ageing_s=AGEING_S,
    ),
    "breaker": Flow(
        breaker=OverloadSettings(target_s=0.01, interval_s=0.05, open_s=0.05, step_s=0.02), ageing_s=AGEING_S
    ),
}


def quotes(number: int, first: int, now_ns: int) -> EventBatch:
    """Quotes of all symbols by turns, numbered from ``first`` on in their bids."""
    rows = blank(number, EventType.MARKET_DATA)
    index = np.arange(first, first + number)
    rows["bid"], rows["ask"], rows["kind"] = index, index + 1, Kind.QUOTE
    rows["timestamp"] = rows["received"] = now_ns
    rows["symbol"] = index % len(SYMBOLS)
    return EventBatch(rows, SymbolTable(SYMBOLS))


class Burst:
    """A bus in virtual time, what comes in, and what its handlers saw.

    Market data come by the tick; orders, fills and monitoring at any time, also while a slice is at work, and are
    published when it has ended. The strategy publishes orders from within its handler, too.
    """

    def __init__(self, clock: VirtualTime, flow: Flow, seed: int) -> None:
        self.clock = clock
        self.bus = EventBus(capacity=CAPACITY, clock=clock, flow=flow)
        self.chance = np.random.default_rng(seed)
        self.offered = self.refused = 0
        self.quoted: list[float] = []
        self.calls: list[int] = []  # when each call that is not critical began
        self.critical: list[str] = []
        self.published: list[str] = []
        self.arrived: dict[str, int] = {}
        self.waits_ns: list[int] = []
        self.others: list[int] = []
        self.low_depth: dict[str, int] = {}
        self.low_waits_ns: list[tuple[int, int]] = []
        self._numbers = count()
        self.bus.subscribe(self._quote, MarketDataEvent, name="strategy")
        self.bus.subscribe(self._critical, OrderEvent, FillEvent, name="execution")
        self.bus.subscribe(self._low, SignalEvent, name="monitoring")

    # -- handlers ---------------------------------------------------------------------------------------------------

    def _quote(self, bid: float) -> None:
        self.calls.append(self.clock.now_ns())
        self.clock.advance(CALL_NS)
        self.quoted.append(bid)
        if bid % 97 == 0:
            self.publish_order(self.clock.now_ns())
        if bid % 501 == 0:
            raise ValueError("wanted")

    def _critical(self, event: Event) -> None:
        assert isinstance(event, OrderEvent | FillEvent)
        self.critical.append(event.order_id)
        arrived_ns = self.arrived.pop(event.order_id)
        self.waits_ns.append(self.clock.now_ns() - arrived_ns)
        self.others.append(len(self.calls) - bisect_right(self.calls, arrived_ns - 1))
        self.clock.advance(CALL_NS // 4)

    def _low(self, event: SignalEvent) -> None:
        self.calls.append(self.clock.now_ns())
        self.low_waits_ns.append((self.clock.now_ns() - event.received, self.low_depth.pop(event.strategy_id)))
        self.clock.advance(CALL_NS)

    # -- what comes in ----------------------------------------------------------------------------------------------

    def publish_order(self, arrived_ns: int) -> None:
        number = next(self._numbers)
        order_id = f"o{number}"
        event: Event
        if number % 3:
            event = OrderEvent(symbol="S0", order_id=order_id, direction=Side.BUY, quantity=1.0)
        else:
            event = FillEvent(symbol="S0", order_id=order_id, executed_qty=1.0, executed_price=1.0)
        self.arrived[order_id] = arrived_ns
        self.published.append(order_id)
        self.bus.publish_nowait(event)

    def _publish_monitoring(self) -> None:
        name = f"m{next(self._numbers)}"
        self.low_depth[name] = self.bus.statistics().lanes[-1].waiting
        self._hear_of_failures()
        self.bus.publish_nowait(
            SignalEvent(symbol="S0", signal_type="MONITOR", strategy_id=name, priority=Priority.LOW)
        )

    def _hear_of_failures(self) -> None:
        """They are raised at the next call from outside: here they are wanted."""
        with suppress(HandlerFailed):
            self.bus.raise_failures()

    def _tick(self) -> None:
        number = OVERLOAD * TICK_NS // CALL_NS
        taken = self.bus.offer(quotes(number, self.offered, self.clock.now_ns()))
        self.offered += number
        self.refused += number - taken

    def run(self, duration_s: float) -> None:
        """Overload the bus for that long, then let it work off what is left; the books balance after each tick."""
        begin_ns = self.clock.now_ns()
        ticks = round(duration_s * 1e9) // TICK_NS
        market = deque(begin_ns + TICK_NS * np.arange(ticks))
        orders = deque(np.sort(begin_ns + self.chance.integers(0, ticks * TICK_NS, ticks)))
        monitoring = deque(np.sort(begin_ns + self.chance.integers(0, ticks * TICK_NS, ticks)))
        while market or orders or monitoring:
            now_ns = self.clock.now_ns()
            while market and market[0] <= now_ns:
                market.popleft()
                self._tick()
                fates(self.bus)
            while orders and orders[0] <= now_ns:
                self._hear_of_failures()
                self.publish_order(int(orders.popleft()))
            while monitoring and monitoring[0] <= now_ns:
                monitoring.popleft()
                self._publish_monitoring()
            coming = [times[0] for times in (market, orders, monitoring) if times]
            if self.bus.do_work().idle and coming:
                self.clock.advance_to(int(min(coming)))
        while not self.bus.do_work().idle:
            fates(self.bus)

    # -- judged -----------------------------------------------------------------------------------------------------

    def check(self) -> dict[str, int]:
        found = fates(self.bus)
        # Nothing critical is lost, and it stays in order.
        assert self.critical == self.published
        assert not self.arrived
        # What is left of the market data is in order, and nothing of it is handled twice.
        assert self.quoted == sorted(set(self.quoted))
        assert found["waiting"] == found["elsewhere"] == 0
        assert found["published"] == self.offered - self.refused + len(self.published) + self.monitored
        # An order waits for what was at work when it came: the rest of a slice, or 32 calls.
        assert max(self.others) <= PREEMPTION_CALLS + SLICE_NS // CALL_NS
        return found

    @property
    def monitored(self) -> int:
        """How many monitoring events were published."""
        return len(self.low_waits_ns) + len(self.low_depth)

    @property
    def low_is_starved(self) -> bool:
        """Whether a monitoring event waited for longer than age allows: see ``hftlab.bus.schedule``."""
        turn_ns = TURN_NS + PREEMPTION_CALLS * CALL_NS
        return any(wait_ns > 3 * AGEING_S * 1e9 + (before + 1) * 3 * turn_ns for wait_ns, before in self.low_waits_ns)


COLUMNS = ("published", "handled", "shed", "dropped", "conflated", "dead-lettered", "waiting")


def told(name: str, seed: int, burst: Burst, found: dict[str, int], took_s: float) -> str:
    counts = ", ".join(f"{column} {found[column]:,}" for column in COLUMNS)
    p99_us, low_ms = np.percentile(burst.waits_ns, 99) / 1e3, max(wait for wait, _ in burst.low_waits_ns) / 1e6
    return (
        f"{name}, seed {seed}: offered {burst.offered:,}, not taken {burst.refused:,}; {counts}; "
        f"{len(burst.critical):,} critical, p99 {p99_us:,.0f} µs, at most {max(burst.others)} calls before one; "
        f"{len(burst.low_waits_ns):,} LOW, the longest wait {low_ms:,.1f} ms; {took_s:.1f} s"
    )


@pytest.mark.parametrize("seed", seeds(1))
@pytest.mark.parametrize("name", FLOWS)
def test_in_an_overload_orders_go_first_and_all_that_gives_way_is_counted(
    name: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = time.perf_counter()
    burst = Burst(in_virtual_time(monkeypatch), FLOWS[name], seed)
    burst.run(seconds(0.5))
    found = burst.check()
    print(told(name, seed, burst, found, time.perf_counter() - begun))
    assert not burst.low_is_starved
    assert found["dead-lettered"] > 0
    # It was an overload, and the policy that was chosen took it.
    gone = {"wait": burst.refused, "raise": burst.refused, "conflate": found["conflated"]}
    default = found["shed"] if "shed" in name or name == "breaker" else found["dropped"]
    assert gone.get(name, default) > 0


def test_without_ageing_monitoring_would_starve(monkeypatch: pytest.MonkeyPatch) -> None:
    burst = Burst(in_virtual_time(monkeypatch), Flow(ageing_s=0), 0)
    burst.run(0.5)
    burst.check()
    assert burst.low_is_starved


# -- in real time -----------------------------------------------------------------------------------------------------


async def test_a_pump_takes_orders_through_an_overload() -> None:
    """The same with a pump, a feed and a trader as tasks of one loop, by the machine's clock."""
    bus = EventBus(capacity=CAPACITY, flow=Flow(overflow="drop oldest"))
    waits_ns: list[int] = []
    handled: list[str] = []
    sent: list[str] = []
    offered = 0

    @bus.on(MarketDataEvent, name="strategy")
    def busy(bid: float) -> None:
        end_ns = time.perf_counter_ns() + CALL_NS
        while time.perf_counter_ns() < end_ns:
            pass

    @bus.on(OrderEvent, name="execution")
    def execute(event: OrderEvent) -> None:
        waits_ns.append(bus.clock.now_ns() - event.received)
        handled.append(event.order_id)

    async def feed() -> None:
        nonlocal offered
        begin_ns = time.perf_counter_ns()
        while True:
            due = (time.perf_counter_ns() - begin_ns) * OVERLOAD // CALL_NS - offered
            if due:
                offered += bus.offer(quotes(due, offered, bus.clock.now_ns()))
            await asyncio.sleep(0)

    async def trade(duration_s: float) -> None:
        end = time.perf_counter() + duration_s
        while time.perf_counter() < end:
            order_id = f"o{len(sent)}"
            sent.append(order_id)
            await bus.publish(OrderEvent(symbol="S0", order_id=order_id, direction=Side.SELL, quantity=1.0))
            await asyncio.sleep(0.001)

    async with pumped(bus):
        feeding = asyncio.create_task(feed())
        await trade(seconds(0.5))
        feeding.cancel()
        await asyncio.wait([feeding])
        assert feeding.cancelled()
        await bus.drain()
    assert handled == sent
    found = fates(bus)
    assert found["dropped"] > 0
    p99_us = np.percentile(waits_ns, 99) / 1e3
    print(f"{found}; {len(sent):,} orders, p99 from publish to handler {p99_us:,.0f} µs")
