"""S1, S2 and S3, ours: published events through the bus into a handler; and the floors: a queue, and bare loops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np

from hftlab.bus import EventBus
from hftlab.events import (
    EventBatch,
    EventType,
    Kind,
    MarketDataEvent,
    NumberRule,
    Source,
    SourceTable,
    SymbolTable,
)
from hftlab.events.records import blank
from tests.bench.contenders import Contender

EVENTS = 1_000_000
BATCH_ROWS = 1_024
LARGE_ROWS = 8_192
"""Published and handled at once where throughput counts more than latency: a megabyte, still in the cache."""

OURS = "hftlab"
UNORDERED = "hftlab, order and idempotency off"
UNTIMED = "hftlab, journeys off"
LARGE = "hftlab, batches of 8,192"
WORKS = {
    "S1a": "an event object, price * volume",
    "S1b": "named fields, price * volume",
    "S2": "batches of 1,024, price * volume",
    "S3": "compiled, price * volume summed",
}


def market(count: int, symbols: tuple[str, ...] = ("BTCUSDT",)) -> EventBatch:
    """Trades of a recorded session with stamps, prices, and numbers of one source; symbols take turns."""
    rows = blank(count, EventType.MARKET_DATA)
    index = np.arange(count)
    rows["price"] = 60_000 + index % 1_000 * 0.1
    rows["volume"] = 1 + index % 7
    rows["kind"] = Kind.TRADE
    rows["timestamp"] = rows["received"] = 1_723_161_255_000_000_000 + index * 1_000
    rows["sequence"] = rows["log_sequence"] = index
    rows["source"] = 1
    rows["symbol"] = index % len(symbols)
    sources = SourceTable([Source("bench", "trades", "", NumberRule.PLUS_ONE.value)])
    return EventBatch(rows, SymbolTable(symbols), sources, session_number=1)


def through_bus(
    subscribe: Callable[[EventBus], object],
    events: int,
    *,
    ordered: bool = True,
    symbols: tuple[str, ...] = ("BTCUSDT",),
    rows: int = BATCH_ROWS,
    journeys: int = 1,
) -> Callable[[], int]:
    """Publish ``events`` in batches of ``rows``, rows in cache, and work until all are handled.

    The rows are the same ones each time, with the numbers and ids that come next: two passes of a few µs that count
    for both, with and without order.
    """
    batch = market(rows, symbols)
    records = batch.records
    # As if they came in now: of rows from the past no journey notes how long ago that was.
    records["timestamp"] = records["received"] = time.time_ns()
    bus = EventBus(journeys=journeys)
    if not ordered:
        bus._intake.push = bus._intake.push_ordered  # type: ignore[method-assign]
    subscribe(bus)

    def work() -> int:
        for _ in range(events // rows):
            bus.offer(batch)
            while not bus.do_work(max_ns=20_000_000).idle:
                pass
            records["sequence"] += rows
            records["log_sequence"] += rows
        bus.raise_failures()
        assert bus.statistics().handled % rows == 0, bus.statistics()
        return events // rows * rows

    return work


def contenders(events: int = EVENTS) -> list[Contender]:
    """S1 (a) event objects, (b) named fields; S2 batches; S3 compiled; and what of it there is without a bus."""
    ready, bare, slices, loop = (
        make(count) for make, count in ((_asyncio_queue, events // 4), (_bare_calls, events), (_numpy, 4 * events),
                                        (_compiled_loop, 16 * events))
    )  # fmt: skip
    handlers: dict[str, Callable[[EventBus], object]] = {
        "S1a": _object_handler,
        "S1b": _field_handler,
        "S2": _batch_handler,
        "S3": _jit_handler,
    }
    return [
        *(
            _ours(board, subscribe, events if board.startswith("S1") else 4 * events, name)
            for board, subscribe in handlers.items()
            for name in VARIANTS
        ),
        *(_large(board, subscribe, 8 * events) for board, subscribe in (("S2", _batch_handler), ("S3", _jit_handler))),
        Contender("S1", "ready objects, price * volume", "asyncio.Queue", lambda: ready),
        Contender("S1", "price * volume", "a bare call", lambda: bare),
        Contender("S2", "batches of 1,024, price * volume", "numpy on slices", lambda: slices),
        Contender("S3", "price * volume, summed", "a bare compiled loop", lambda: loop),
    ]


VARIANTS = {OURS: (True, 1), UNORDERED: (False, 1), UNTIMED: (True, 0)}
"""What is on: order, and of how many events the journey of one is timed."""


def _ours(board: str, subscribe: Callable[[EventBus], object], events: int, name: str) -> Contender:
    made: list[Callable[[], int]] = []

    def prepare() -> Callable[[], int]:
        if not made:  # one bus for all runs: it has its memory and its tables by then, as a user's has
            ordered, journeys = VARIANTS[name]
            made.append(through_bus(subscribe, events, ordered=ordered, journeys=journeys))
        return made[0]

    return Contender(board, WORKS[board], name, prepare)


def _large(board: str, subscribe: Callable[..., object], events: int) -> Contender:
    made: list[Callable[[], int]] = []

    def prepare() -> Callable[[], int]:
        if not made:
            made.append(through_bus(lambda bus: subscribe(bus, LARGE_ROWS), events, rows=LARGE_ROWS))
        return made[0]

    return Contender(board, WORKS[board], LARGE, prepare)


def _object_handler(bus: EventBus) -> None:
    @bus.on(MarketDataEvent)
    def notional(event: MarketDataEvent) -> None:
        event.price * event.volume  # the work, its result dropped as in every contender


def _field_handler(bus: EventBus) -> None:
    @bus.on("market.*")
    def notional(price: float, volume: float) -> None:
        price * volume


def _batch_handler(bus: EventBus, rows: int = BATCH_ROWS) -> None:
    @bus.on(MarketDataEvent, mode="batch", batch_rows=rows)
    def notional(batch: EventBatch) -> None:
        batch.records["price"] * batch.records["volume"]


def _jit_handler(bus: EventBus, rows: int = BATCH_ROWS) -> np.ndarray:
    total = np.zeros(2)

    @bus.on(MarketDataEvent, mode="jit", state=total, batch_rows=rows)
    def notional(record, state):  # type: ignore[no-untyped-def]
        state[0] += record.price * record.volume

    return total


def _asyncio_queue(events: int) -> Callable[[], int]:
    ready = list(market(BATCH_ROWS)) * (events // BATCH_ROWS)

    def handler(event: MarketDataEvent) -> None:
        event.price * event.volume

    async def main() -> None:
        queue: asyncio.Queue[MarketDataEvent] = asyncio.Queue(BATCH_ROWS)

        async def produce() -> None:
            for event in ready:
                await queue.put(event)  # type: ignore[arg-type]

        async def consume() -> None:
            for _ in range(len(ready)):
                handler(await queue.get())

        await asyncio.gather(produce(), consume())

    def work() -> int:
        asyncio.run(main())
        return len(ready)

    return work


def _bare_calls(events: int) -> Callable[[], int]:
    batch = market(BATCH_ROWS)
    prices, volumes = batch.column("price"), batch.column("volume")

    def handler(price: float, volume: float) -> None:
        price * volume

    def work() -> int:
        for _ in range(events // BATCH_ROWS):
            for price, volume in zip(prices, volumes, strict=True):
                handler(price, volume)
        return events // BATCH_ROWS * BATCH_ROWS

    return work


def _numpy(events: int) -> Callable[[], int]:
    records = market(BATCH_ROWS).records

    def work() -> int:
        for _ in range(events // BATCH_ROWS):
            records["price"] * records["volume"]
        return events // BATCH_ROWS * BATCH_ROWS

    return work


def _compiled_loop(events: int) -> Callable[[], int]:
    from numba import njit

    records = market(BATCH_ROWS).records
    total = float((records["price"] * records["volume"]).sum())
    rounds = events // BATCH_ROWS

    @njit(nogil=True)
    def notional(records, rounds, state):  # type: ignore[no-untyped-def]
        for _ in range(rounds):
            for row in range(len(records)):
                state[0] += records[row].price * records[row].volume

    def work() -> int:
        state = np.zeros(2)
        notional(records, rounds, state)
        assert abs(state[0] - total * rounds) < 1e-6 * state[0], (state[0], total * rounds)
        return rounds * BATCH_ROWS

    return work
