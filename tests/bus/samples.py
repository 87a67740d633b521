"""Small batches, and ways to wait without sleeping."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np

from hftlab.bus import EventBus
from hftlab.bus.priorities import Priorities
from hftlab.events import EventBatch, EventType, Kind, SymbolTable
from hftlab.events.records import blank

START_NS = 1_700_000_000_000_000_000


def trades(count: int, first: int = 0, symbols: tuple[str, ...] = ("BTC",), session_number: int = 0) -> EventBatch:
    """Trades at the prices ``first``, ``first + 1`` …; symbols take turns."""
    rows = blank(count, EventType.MARKET_DATA)
    index = np.arange(first, first + count)
    rows["price"], rows["volume"], rows["kind"] = index, 1.0, Kind.TRADE
    rows["timestamp"] = rows["received"] = START_NS + index
    rows["log_sequence"] = index
    rows["symbol"] = index % len(symbols)
    return EventBatch(rows, SymbolTable(symbols), session_number=session_number)


def work_off(bus: EventBus) -> None:
    """Do all the work that is there; for handlers that never wait."""
    while not bus.do_work(max_ns=1_000_000_000).idle:
        pass


async def until(condition: Callable[[], bool], deadline_s: float = 20.0) -> None:
    """Let the loop turn until a condition holds; fails after the deadline."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - whatever is waited for tells nobody
            await asyncio.sleep(0)


@asynccontextmanager
async def pumped(bus: EventBus) -> AsyncIterator[asyncio.Task[None]]:
    """Keep the bus's pump going meanwhile."""
    task = asyncio.create_task(bus.pump())
    await asyncio.sleep(0)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


def one_lane() -> Priorities:
    """Everything NORMAL: what is published is handled in the order of its publication, whatever its type."""
    priorities = Priorities()
    priorities.map(lane="NORMAL")
    return priorities
