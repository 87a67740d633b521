"""A bus under load, and statistics made by hand: for the tests of what looks at a bus."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hftlab as hl
from hftlab.bus import BusStatistics, HandlerStatistics, LaneStatistics

SECOND = 1_000_000_000
LANES = ("CRITICAL", "HIGH", "NORMAL", "LOW")


def quotes(count: int, symbol: str = "BTCUSDT") -> hl.EventBatch:
    """Quotes, all NORMAL, without numbers of their own."""
    return hl.EventBatch.from_events(
        hl.MarketDataEvent(symbol=symbol, kind=hl.Kind.QUOTE, bid=100.0 + i, ask=101.0 + i) for i in range(count)
    )


def order(number: int) -> hl.OrderEvent:
    """An order, which is CRITICAL."""
    return hl.OrderEvent(
        symbol="BTCUSDT",
        order_id=f"o{number}",
        direction=hl.Side.BUY,
        quantity=1.0,
        order_type=hl.OrderType.MARKET,
    )


def small_bus(**options: Any) -> hl.EventBus:
    """A bus whose queues hold 1,024 rows, that drops the oldest quotes."""
    flow = hl.Flow(overflow={hl.MarketDataEvent: "drop oldest"})
    return hl.EventBus(capacity=1_024, flow=flow, **options)


def lane(name: str = "NORMAL", **values: Any) -> LaneStatistics:
    """One lane's statistics; all that is not given is nothing."""
    quiet = LaneStatistics(
        lane=name, waiting=0, capacity=1_000, oldest_ns=0, handled=0, wait_p50_ns=0.0, wait_p99_ns=0.0, wait_max_ns=0,
        gave_way={}, preempted=0, inversion_ns=0, paused=False, pauses=0, paused_ns=0, waits_for="",
    )  # fmt: skip
    return replace(quiet, **values)


def handler(name: str = "h", **values: Any) -> HandlerStatistics:
    """One handler's statistics; all that is not given is nothing."""
    quiet = HandlerStatistics(
        name=name, mode="event", priority=0, calls=0, delivered=0, failed=0, emitted=0, rejected=0, timed_out=0,
        dead_lettered=0, queued=0, held_ns_max=0, breaker="",
    )  # fmt: skip
    return replace(quiet, **values)


def told(*parts: LaneStatistics | HandlerStatistics, **values: Any) -> BusStatistics:
    """A bus's statistics with these lanes (the others are quiet) and handlers."""
    given = {part.lane: part for part in parts if isinstance(part, LaneStatistics)}
    quiet = BusStatistics(
        published=0, handled=0, waiting=0, dropped=0, emitted=0, emissions_refused=0, failures=0, waits=0,
        capacity=4_000, subscriptions=0, run="",
        lanes=tuple(given.get(name, lane(name)) for name in LANES),
        handlers=tuple(part for part in parts if isinstance(part, HandlerStatistics)),
    )  # fmt: skip
    return replace(quiet, **values)
