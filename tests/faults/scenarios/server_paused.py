"""The server stands still (SIGSTOP) and comes back: the stall is shown, memory stays bounded, order is kept."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import psutil

from hftlab.events import SignalEvent
from hftlab.streams import RedisStreamManager
from tests.faults.history import check_history
from tests.faults.suite import Counts, fault
from tests.faults.victims import at_scale, manager_of, pid_of, victim
from tests.streams.batches import mixed
from tests.streams.servers import until

_SHOWN_AFTER_S = 2.0
_MOST_BYTES = 64 << 20


@fault(
    "F7",
    "SIGSTOP the server (10 s for every tenth seed, else 2.5 to 4 s)",
    promise="the stall is shown (within 2 s), memory is bounded, order is kept, all goes on",
)
async def server_paused(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    pause_s = 0.3 if scale < 1.0 else 10.0 if seed % 10 == 0 else chance.uniform(2.5, 4.0)
    # Every other time, calls give up on their connection while the server sleeps, and are repeated on another.
    deadline_s = 30.0 if seed % 2 else max(1.2 * pause_s, 0.5)
    count = at_scale(40, scale, 8)
    sent = [[mixed(60, seed=1_000 * seed + 100 * p + index) for index in range(count)] for p in range(2)]
    acknowledged = [0, 0]
    published: list[float] = []
    async with (
        victim(binary, folder) as server,
        manager_of(server, frame_rows=15, deadline_s=deadline_s, seed=seed) as manager,
    ):
        writers = [await manager.writer("day", f"w{p}") for p in range(2)]

        async def produce(p: int) -> None:
            for batch in sent[p]:
                await writers[p].append(batch)
                acknowledged[p] += 1

        async def publish() -> None:
            for index in range(count):
                await manager.publish(
                    SignalEvent(symbol="X", signal_type="A", strength=float(index)), session="signals"
                )
                published.append(float(index))

        work = [asyncio.create_task(one) for one in (produce(0), produce(1), publish())]
        goal = chance.randint(2, count)
        await until(lambda: sum(acknowledged) >= goal)
        before_bytes = psutil.Process().memory_info().rss
        pid = pid_of(server)
        os.kill(pid, signal.SIGSTOP)
        try:
            shown_s = await _asleep(manager, pause_s)
            stalled_at = sum(acknowledged)
            grown_bytes = psutil.Process().memory_info().rss - before_bytes
        finally:
            os.kill(pid, signal.SIGCONT)
        assert stalled_at < 2 * count, "all was done before the server slept"
        await asyncio.gather(*work)
        assert server.pid == pid, "a server that sleeps was taken for one that is gone"
        back = await manager.range("day")
        signals = (await manager.range("signals")).records["strength"].tolist()
        statistics = manager.statistics()
    assert signals == published == [float(index) for index in range(count)]
    assert grown_bytes < _MOST_BYTES, f"memory grew by {grown_bytes:,} bytes while the server slept"
    counts = check_history(back, [(sent[p], acknowledged[p]) for p in range(2)], whole=True)
    assert shown_s is not None or pause_s < _SHOWN_AFTER_S, "the stall was not shown"
    return counts | {
        "paused_s": pause_s,
        "shown_s": pause_s if shown_s is None else shown_s,
        "grown_MiB": grown_bytes / 2**20,
        "retries": statistics.retries,
        "answered_twice": statistics.answered_twice,
    }


async def _asleep(manager: RedisStreamManager, pause_s: float) -> float | None:
    """Let the pause pass; returns after how long the manager showed that the server is silent."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    shown_s = None
    while (elapsed_s := loop.time() - begun) < pause_s:
        if shown_s is None and manager.state != "ok":
            shown_s = elapsed_s
        await asyncio.sleep(0.02)
    return shown_s
