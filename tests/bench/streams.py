"""S6 and S13: a recording appended to the embedded server, beside what one would write with redis-py by hand.

``python -m tests.bench S6``. The peers: an entry for each event with its fields, in pipelines of 1,000; and frames of
1,024 raw rows compressed with zstd level 1, in pipelines of 8, with no script: nothing says where a row stands in the
session, and a retry would write it twice. All of them append to one embedded server, run by run in turn.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import redis.asyncio
import zstandard

from hftlab.events import EventBatch
from hftlab.events.entries import encode_entry
from hftlab.streams import EmbeddedServer, RedisStreamManager
from tests.bench.measurement import Goal, Measurement

CAPTURE = "binance-usdm-btcusdt/btcusdt_20240808_first120s.gz"
FRAME_ROWS = 1_024
EVENTS_EACH = 20_000
ENTRIES_A_PIPELINE = 1_000
FRAMES_A_PIPELINE = 8

OURS = "hftlab"
BY_HAND = "frames by hand, zstd 1"
EACH = "redis-py, an entry each"
EVERYSEC = "append, log synced every second"
ALWAYS = "append, log synced always"
MEMORY = "server memory an event"

GOALS = [
    Goal("S6", EVERYSEC, at_least=0.7, peer=("S6", EVERYSEC, BY_HAND)),
    Goal("S6", EVERYSEC, at_least=60.0, peer=("S6", EVERYSEC, EACH)),
    Goal("S6", ALWAYS, at_least=0.7, peer=("S6", ALWAYS, BY_HAND)),
    Goal("S13", MEMORY, at_most=16.0),
]


def recording() -> tuple[EventBatch, str]:
    """The Binance capture where it is at hand, else made-up trades; and which of the two."""
    folder = Path(os.environ.get("HFTLAB_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if (folder / CAPTURE).exists():
        from hftlab import feeds

        return feeds.read(folder / CAPTURE, format="binance", progress=False), "the Binance capture"
    from tests.streams.batches import trades

    return trades(170_000), "made-up trades"


def measure(runs: int) -> list[Measurement]:
    """All contenders on one embedded server, ``runs`` times in turn after one warm-up."""
    with tempfile.TemporaryDirectory(prefix="hftlab-bench-") as folder:
        return asyncio.run(_measure(runs, Path(folder)))


async def _measure(runs: int, folder: Path) -> list[Measurement]:
    batch, what = recording()
    async with (
        EmbeddedServer(folder / ".hftlab") as server,
        RedisStreamManager(server.address, progress=False) as manager,
    ):
        client = redis.asyncio.from_url(server.address.reveal())
        try:
            found = []
            for work, fsync in ((EVERYSEC, "everysec"), (ALWAYS, "always")):
                await client.config_set("appendfsync", fsync)
                found += await _appends(work, manager, client, batch, runs, what)
            return found + await _memory(manager, client, batch, what)
        finally:
            await client.aclose()


async def _appends(
    work: str, manager: RedisStreamManager, client: redis.asyncio.Redis, batch: EventBatch, runs: int, what: str
) -> list[Measurement]:
    async def ours() -> int:
        await manager.append(batch, session="bench")
        return len(batch)

    async def by_hand() -> int:
        return await frames_by_hand(client, batch)

    async def each() -> int:
        return await entries_each(client, batch[:EVENTS_EACH])

    contenders: dict[str, Callable[[], Awaitable[int]]] = {OURS: ours, BY_HAND: by_hand, EACH: each}
    figures: dict[str, list[float]] = {name: [] for name in contenders}
    for run in range(runs + 1):
        for name, contender in contenders.items():
            begin = time.perf_counter()
            events = await contender()
            if run:
                figures[name].append(events / (time.perf_counter() - begin))
            await _clear(manager, client)
    return [Measurement("S6", work, name, figures=tuple(rates), note=what) for name, rates in figures.items()]


async def frames_by_hand(client: redis.asyncio.Redis, batch: EventBatch) -> int:
    """Raw rows, compressed and added in pipelines."""
    compressor = zstandard.ZstdCompressor(level=1)
    raw = batch.records.view("V128")
    step = FRAME_ROWS * FRAMES_A_PIPELINE
    for first in range(0, len(raw), step):
        pipe = client.pipeline(transaction=False)
        for begin in range(first, min(first + step, len(raw)), FRAME_ROWS):
            pipe.xadd("bench:frames", {b"frame": compressor.compress(raw[begin : begin + FRAME_ROWS].tobytes())})
        await pipe.execute()
    return len(raw)


async def entries_each(client: redis.asyncio.Redis, batch: EventBatch) -> int:
    """One entry an event, its fields by name, in pipelines."""
    for first in range(0, len(batch), ENTRIES_A_PIPELINE):
        pipe = client.pipeline(transaction=False)
        for event in batch[first : first + ENTRIES_A_PIPELINE]:
            fields: dict[Any, Any] = dict(encode_entry(event))
            pipe.xadd("bench:entries", fields)
        await pipe.execute()
    return len(batch)


async def _memory(
    manager: RedisStreamManager, client: redis.asyncio.Redis, batch: EventBatch, what: str
) -> list[Measurement]:
    async def ours() -> int:
        await manager.append(batch, session="bench")
        return len(batch)

    contenders: dict[str, Callable[[], Awaitable[int]]] = {
        OURS: ours,
        BY_HAND: lambda: frames_by_hand(client, batch),
        EACH: lambda: entries_each(client, batch[:EVENTS_EACH]),
    }
    found = []
    for name, contender in contenders.items():
        await _clear(manager, client)
        events = await contender()
        used = [await client.memory_usage(key, samples=0) async for key in client.scan_iter()]
        figures = (sum(filter(None, used)) / events,)
        found.append(Measurement("S13", MEMORY, name, "bytes", figures, lower_is_better=True, note=what))
    return found


async def _clear(manager: RedisStreamManager, client: redis.asyncio.Redis) -> None:
    if await manager.sessions():
        await manager.delete("bench")
    await client.unlink("bench:frames", "bench:entries")
