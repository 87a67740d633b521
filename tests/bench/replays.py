"""S7: a recorded session from the server into a batch handler, beside entries read one by one with redis-py.

And the same session through a processor, by turns with the replays: read through a consumer group, with checkpoints
and acknowledgements, until all of it is committed.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from typing import Any

import redis.asyncio

import hftlab
from hftlab.events import EventBatch, MarketDataEvent
from tests.bench.measurement import Measurement
from tests.bench.streams import recording

ENTRIES = 20_000
REPLAY, PROCESSOR = "replay into a batch handler", "the same through a processor, with checkpoints"


def measure(runs: int) -> list[Measurement]:
    """Both contenders on one embedded server."""
    return asyncio.run(_measure(runs))


async def _measure(runs: int) -> list[Measurement]:
    batch, what = recording()
    with tempfile.TemporaryDirectory(prefix="hftlab-bench-") as folder:
        async with hftlab.Lab(directory=folder) as lab:
            await lab.streams.append(batch, session="bench")
            total = [0.0]

            @lab.bus.on(MarketDataEvent, mode="batch")
            def notional(batch: EventBatch) -> None:
                records = batch.records
                total[0] += float((records["price"] * records["volume"]).sum())

            figures, processed = [], []
            for run in range(runs + 1):
                replay = lab.replay("bench")
                begin = time.perf_counter()
                await replay.run(progress=False)
                figures.append(replay.delivered / (time.perf_counter() - begin))
                processor = lab.processor(f"bench-{run}", "bench")
                begin = time.perf_counter()
                await processor.start()
                await processor.drain()
                processed.append(processor.statistics().handled / (time.perf_counter() - begin))
                await processor.stop()
            ours = Measurement("S7", REPLAY, "hftlab", figures=tuple(figures[1:]), note=what)
            through = Measurement("S7", PROCESSOR, "hftlab", figures=tuple(processed[1:]))
            client = redis.asyncio.from_url(lab.streams.address.reveal())
            try:
                entries = await _entry_each(client, batch[:ENTRIES], runs)
            finally:
                await client.aclose()
    peer = Measurement("S7", REPLAY, "redis-py, an entry each", figures=entries)
    return [ours, through, peer]


async def _entry_each(client: redis.asyncio.Redis, batch: EventBatch, runs: int) -> tuple[float, ...]:
    """What people write: XADD of the fields, XRANGE in pages, a float() for each field."""
    rows = batch.records
    pipe = client.pipeline(transaction=False)
    for received, price, volume in zip(
        rows["received"].tolist(), rows["price"].tolist(), rows["volume"].tolist(), strict=True
    ):
        fields: dict[Any, Any] = {"received": received, "price": price, "volume": volume, "symbol": "BTCUSDT"}
        pipe.xadd("bench:entries", fields)
    await pipe.execute()
    figures = []
    reader: Any = client  # its stubs leave every type of reply open
    for _ in range(runs + 1):
        begin = time.perf_counter()
        read, last, total = 0, "-", 0.0
        while page := await reader.xrange("bench:entries", min=last, count=1_000):
            for entry_id, values in page:
                total += float(values[b"price"]) * float(values[b"volume"])
                last = f"({entry_id.decode()}"
            read += len(page)
        assert read == len(rows)
        figures.append(read / (time.perf_counter() - begin))
    return tuple(figures[1:])
