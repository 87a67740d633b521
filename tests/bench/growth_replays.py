"""S12 for replays: sessions of 10⁵, 10⁶ and 10⁷ events from one server into a batch handler; nanoseconds and memory.

The server's own memory grows with what it stores (S13); this process, which replays, has to stay as it is.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time

import psutil

import hftlab
from hftlab.events import EventBatch, MarketDataEvent
from tests.bench.bus import market
from tests.bench.measurement import Goal, Measurement

EVENTS = (100_000, 1_000_000, 10_000_000)
APPENDED_ROWS = 100_000
FLAT = 1.2
MEMORY_MB = 32.0
"""What a replay of the largest session may add a run: some frames that are under way, of its 1.28 GB of rows."""


def label(events: int) -> str:
    return f"replay into a batch handler, {events:,} events"


def left_behind(events: int) -> str:
    return f"replay, left behind by {events:,} events"


GOALS = [
    *(
        Goal("S12", label(EVENTS[-1]), at_most=FLAT, peer=("S12", label(size), "hftlab"), fastest=True)
        for size in EVENTS[:-1]
    ),
    Goal("S12", left_behind(EVENTS[-1]), at_most=MEMORY_MB),
]


def measure(runs: int, sizes: tuple[int, ...] = EVENTS) -> list[Measurement]:
    """Record a session of each size, then replay them in turn, after a warm-up each."""
    return asyncio.run(_measure(runs, sizes))


async def _measure(runs: int, sizes: tuple[int, ...]) -> list[Measurement]:
    ns: dict[int, list[float]] = {size: [] for size in sizes}
    grown_bytes = dict.fromkeys(sizes, 0)
    with tempfile.TemporaryDirectory(prefix="hftlab-bench-") as folder:
        async with hftlab.Lab(directory=folder) as lab:
            for size in sizes:
                await _record(lab, size)

            @lab.bus.on(MarketDataEvent, mode="batch")
            def notional(batch: EventBatch) -> None:
                batch.records["price"] * batch.records["volume"]

            for run in range(runs + 1):
                for size in sizes:
                    gc.collect()
                    before_bytes = psutil.Process().memory_info().rss
                    replay = lab.replay(f"growth-{size}")
                    begin_ns = time.perf_counter_ns()
                    await replay.run(progress=False)
                    spent_ns = time.perf_counter_ns() - begin_ns
                    assert replay.delivered == size, (replay.delivered, size)
                    if run:
                        ns[size].append(spent_ns / size)
                        grown_bytes[size] += psutil.Process().memory_info().rss - before_bytes
    fastest = min(ns[sizes[0]])
    found = [
        Measurement(
            "S12", label(size), "hftlab", "ns/event", tuple(ns[size]), lower_is_better=True,
            note=f"{min(ns[size]) / fastest:.2f}x the smallest, RSS {grown_bytes[size] / 1e6:+.1f} MB in {runs} runs",
        )
        for size in sizes
    ]  # fmt: skip
    left_mb = (max(0.0, grown_bytes[sizes[-1]] / 1e6 / runs),)
    return [*found, Measurement("S12", left_behind(sizes[-1]), "hftlab", "MB", left_mb, lower_is_better=True)]


async def _record(lab: hftlab.Lab, events: int) -> None:
    """Append piece by piece: the whole would be this process's memory, which is what is measured."""
    rows = min(events, APPENDED_ROWS)
    piece = market(rows)
    for _ in range(events // rows):
        await lab.streams.append(piece, session=f"growth-{events}")
        for column, step in (("sequence", rows), ("timestamp", rows * 1_000), ("received", rows * 1_000)):
            piece.records[column] += step
