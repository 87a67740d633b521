"""The process that appends is killed, and another one does the same again: the events are there, once each."""

from __future__ import annotations

import random
from pathlib import Path

from tests.faults.history import check_history
from tests.faults.producer import SESSION, Producer
from tests.faults.suite import Counts, fault
from tests.faults.victims import at_scale, manager_of, reached, victim
from tests.streams.batches import mixed


@fault("F1", "SIGKILL the process that appends, and repeat it in another", promise="completed, each event once")
async def producer_killed(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    rows, chance = at_scale(2_500, scale, 1_500), random.Random(seed)
    killed_at: list[int] = []
    async with victim(binary, folder) as server, manager_of(server) as watcher:
        await watcher.append(mixed(0), session=SESSION)

        async def progress() -> int:
            return (await watcher.session(SESSION)).events

        for frame_rows in (7, 11) if scale >= 1.0 else (7,):
            producer = await Producer.start(server, "append", frame_rows, rows, seed)
            goal = await progress() + chance.randint(50, 700)
            await reached(progress, goal, lambda producer=producer: producer.ended)  # type: ignore[misc]
            await producer.kill()
            killed_at.append(await progress())
        if scale >= 1.0:
            last = await Producer.start(server, "append", 1_024, rows, seed)
            await last.end()
            assert [line.partition(" in ")[0] for line in last.said] == [f"AppendResult('day': {rows:,} events"]
        else:
            await watcher.append(mixed(rows, seed=seed), session=SESSION)
        counts = check_history(await watcher.range(SESSION), [([mixed(rows, seed=seed)], 1)], whole=True)
    assert 0 < killed_at[0] < rows
    return counts | {"kills": len(killed_at), "killed_at": sum(killed_at)}
