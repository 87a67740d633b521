"""S12: what an event costs, and what memory is left behind, as events, symbols and subscriptions grow.

``python -m tests.bench S12``. One of the three grows at a time. Where subscriptions grow, each has a symbol of its own
and symbols take turns, so that an event is handled once whatever their number: what is shown is the cost of routing.
All cells run in turn on buses that live throughout; the memory is the process's (RSS), summed over a cell's own runs.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from hftlab.bus import EventBus
from hftlab.events import EventBatch, MarketDataEvent
from tests.bench.bus import BATCH_ROWS, through_bus
from tests.bench.measurement import Goal, Measurement

EVENTS = (100_000, 1_000_000, 10_000_000)
SYMBOLS = (1, 10, 1_000)
SUBSCRIPTIONS = (1, 10, 100)
FIXED_EVENTS = 1_000_000
FLAT = 1.2
MEMORY_MB = 8.0
"""What the largest number of events may leave behind: far less than the 1.28 GB of their rows, and above what an
allocator does by itself."""

Subscribe = Callable[[EventBus, tuple[str, ...]], None]


def fields(bus: EventBus, symbols: tuple[str, ...]) -> None:
    """A handler of named fields for each symbol; of all events where none is named."""
    for symbol in symbols or (None,):

        def notional(price: float, volume: float) -> None:
            price * volume

        bus.subscribe(notional, MarketDataEvent, symbol=symbol, name=f"notional {symbol}")


def batches(bus: EventBus, symbols: tuple[str, ...]) -> None:
    """A batch handler for each symbol; of all events where none is named."""
    for symbol in symbols or (None,):

        def notional(batch: EventBatch) -> None:
            batch.records["price"] * batch.records["volume"]

        bus.subscribe(notional, MarketDataEvent, symbol=symbol, name=f"notional {symbol}", mode="batch")


WORKS: dict[str, Subscribe] = {"named fields": fields, "batches": batches}


@dataclass
class Cell:
    """One size of one axis, with its figures so far."""

    work: str
    run: Callable[[], int]
    ns: list[float] = field(default_factory=list)
    grown_bytes: int = 0

    def measure(self) -> None:
        gc.collect()
        before_bytes = psutil.Process().memory_info().rss
        begin_ns = time.perf_counter_ns()
        events = self.run()
        self.ns.append((time.perf_counter_ns() - begin_ns) / events)
        self.grown_bytes += psutil.Process().memory_info().rss - before_bytes


def label(work: str, axis: str, size: int) -> str:
    return f"{work}, {size:,} {axis if size > 1 else axis[:-1]}"


def left_behind(work: str, events: int) -> str:
    return f"{work}, left behind by {events:,} events"


def cells(work: str, events: tuple[int, ...] = EVENTS, fixed: int = FIXED_EVENTS) -> list[Cell]:
    """All cells of a work, their buses made."""
    subscribe = WORKS[work]

    def cell(axis: str, size: int, count: int, symbols: int = 1, each: bool = False) -> Cell:
        names = tuple(f"S{number:04}" for number in range(symbols))
        named = names if each else ()
        run = through_bus(lambda bus: subscribe(bus, named), max(count, BATCH_ROWS), symbols=names)
        return Cell(label(work, axis, size), run)

    return [
        *(cell("events", size, size) for size in events),
        *(cell("symbols", size, fixed, size) for size in SYMBOLS),
        *(cell("subscriptions", size, fixed, size, each=True) for size in SUBSCRIPTIONS),
    ]


GOALS = [
    goal
    for work in WORKS
    for goal in (
        *(
            Goal(
                "S12",
                label(work, axis, sizes[-1]),
                at_most=FLAT,
                fastest=True,
                peer=("S12", label(work, axis, size), "hftlab"),
            )
            for axis, sizes in (("events", EVENTS), ("symbols", SYMBOLS))
            for size in sizes[:-1]
        ),
        Goal("S12", left_behind(work, EVENTS[-1]), at_most=MEMORY_MB),
    )
]


def measure(runs: int, events: tuple[int, ...] = EVENTS, fixed: int = FIXED_EVENTS) -> list[Measurement]:
    """Nanoseconds an event for every cell, all in turn after a warm-up, and the megabytes that stay."""
    found = []
    for work in WORKS:
        row = cells(work, events, fixed)
        for cell in row:
            cell.run()  # its tables, pages and kernels are there by then
        for _ in range(runs):
            for cell in row:
                cell.measure()
        found += _measurements(work, row, events[-1])
    return found


def _measurements(work: str, row: list[Cell], most: int) -> list[Measurement]:
    found = []
    axes = row[:3], row[3:6], row[6:]
    for cells_of_axis in axes:
        smallest = min(cells_of_axis[0].ns)  # noise only adds: the fastest runs are compared
        for cell in cells_of_axis:
            times = min(cell.ns) / smallest
            flat = "" if cell is cells_of_axis[0] else "flat, " if max(times, 1 / times) <= FLAT else "NOT flat, "
            note = f"{flat}{times:.2f}x the smallest, RSS {cell.grown_bytes / 1e6:+.1f} MB in {len(cell.ns)} runs"
            found.append(
                Measurement("S12", cell.work, "hftlab", "ns/event", tuple(cell.ns), lower_is_better=True, note=note)
            )
    largest = axes[0][-1]
    left_mb = (max(0.0, largest.grown_bytes / 1e6 / len(largest.ns)),)
    left = Measurement("S12", left_behind(work, most), "hftlab", "MB", left_mb, lower_is_better=True)
    return [*found, left]
