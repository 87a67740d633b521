"""The server is killed while it is written to, and restarted: acknowledged ⊆ recovered ⊆ sent, each once, in order."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tests.faults.history import check_history
from tests.faults.suite import Counts, fault
from tests.faults.victims import at_scale, kill, manager_of, victim
from tests.streams.batches import mixed
from tests.streams.servers import until


@fault(
    "F1", "SIGKILL the server while two writers append (always)", promise="0 acknowledged lost, no holes, all goes on"
)
async def server_killed(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    count, most_kills = at_scale(40, scale, 8), at_scale(4, scale)
    sent = [[mixed(60, seed=1_000 * seed + 100 * p + index) for index in range(count)] for p in range(2)]
    acknowledged = [0, 0]
    kills = 0
    async with (
        victim(binary, folder) as server,
        manager_of(server, frame_rows=25, deadline_s=30.0, seed=seed) as manager,
    ):
        writers = [await manager.writer("day", f"w{p}") for p in range(2)]

        async def produce(p: int) -> None:
            for batch in sent[p]:
                await writers[p].append(batch)
                acknowledged[p] += 1

        producing = [asyncio.create_task(produce(p)) for p in range(2)]
        while not all(task.done() for task in producing) and kills < most_kills:
            goal = min(2 * count, sum(acknowledged) + chance.randint(3, 18))
            await until(lambda: sum(acknowledged) >= goal or all(task.done() for task in producing))  # noqa: B023
            await kill(server)
            kills += 1
            # What is on the disk when the server comes back, before the writers go on.
            before = list(acknowledged)
            await server.restart()
            back = await manager.range("day")
            assert len(back) >= sum(sum(map(len, sent[p][: before[p]])) for p in range(2))
        await asyncio.gather(*producing)
        back = await manager.range("day")
    assert kills > 0
    return check_history(back, [(sent[p], acknowledged[p]) for p in range(2)], whole=True) | {"kills": kills}


@fault("F1", "SIGKILL the server under one long append (always)", promise="the append goes through, exactly once")
async def server_killed_under_an_append(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    batch = mixed(at_scale(4_000, scale, 1_000), seed=seed)
    kills = at_scale(3, scale)
    async with (
        victim(binary, folder) as server,
        manager_of(server, frame_rows=10, deadline_s=30.0, seed=seed) as manager,
    ):
        task = asyncio.create_task(manager.append(batch, session="day"))
        for _ in range(kills):
            goal = manager.statistics().events_appended + chance.randint(200, 900)
            await until(lambda: manager.statistics().events_appended >= goal or task.done())  # noqa: B023
            await kill(server)
            await server.restart()
        result = await task
        back = await manager.range("day")
        retries = manager.statistics().retries
    assert (result.first_event_id, result.last_event_id) == (back.event_ids[0], back.event_ids[-1])
    return check_history(back, [([batch], 1)], whole=True) | {"kills": kills, "retries": retries}
