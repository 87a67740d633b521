"""The server is killed while it is written to, and restarted: acknowledged ⊆ recovered ⊆ sent, each once, in order."""

from __future__ import annotations

import asyncio
import os
import random
import signal

import pytest

from hftlab.streams import EmbeddedServer
from tests.faults.history import check_history
from tests.streams.batches import mixed
from tests.streams.servers import managed, until

SEEDS = range(2)


async def kill(victim: EmbeddedServer) -> None:
    """SIGKILL the server; returns when that one is gone, though its clients may have started it again by then."""
    await until(lambda: victim.running)
    pid = victim.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: victim.pid != pid)


@pytest.mark.parametrize("seed", SEEDS)
async def test_what_was_acknowledged_survives_the_server(victim: EmbeddedServer, seed: int) -> None:
    chance = random.Random(seed)
    sent = [[mixed(60, seed=1_000 * seed + 100 * p + index) for index in range(40)] for p in range(2)]
    acknowledged = [0, 0]
    kills = 0
    async with managed(victim, frame_rows=25, namespace="n", deadline_s=30.0, seed=seed) as manager:
        writers = [await manager.writer("day", f"w{p}") for p in range(2)]

        async def produce(p: int) -> None:
            for batch in sent[p]:
                await writers[p].append(batch)
                acknowledged[p] += 1

        producing = [asyncio.create_task(produce(p)) for p in range(2)]
        while not all(task.done() for task in producing) and kills < 4:
            goal = min(80, sum(acknowledged) + chance.randint(3, 18))
            await until(lambda: sum(acknowledged) >= goal or all(task.done() for task in producing))  # noqa: B023
            await kill(victim)
            kills += 1
            # What is on the disk when the server comes back, before the writers go on.
            before = list(acknowledged)
            await victim.restart()
            back = await manager.range("day")
            least = [sum(map(len, sent[p][: before[p]])) for p in range(2)]
            assert len(back) >= sum(least)
        await asyncio.gather(*producing)
        back = await manager.range("day")
    counts = check_history(back, [(sent[p], acknowledged[p]) for p in range(2)], whole=True)
    assert kills > 0
    print(f"seed {seed}: {kills} kills, {counts}")


@pytest.mark.parametrize("seed", SEEDS)
async def test_an_append_goes_through_though_the_server_dies_under_it(victim: EmbeddedServer, seed: int) -> None:
    batch = mixed(4_000, seed=seed)
    async with managed(victim, frame_rows=10, namespace="n", deadline_s=30.0, seed=seed) as manager:
        task = asyncio.create_task(manager.append(batch, session="day"))
        for _ in range(3):
            goal = manager.statistics().events_appended + random.Random(seed).randint(200, 900)
            await until(lambda: manager.statistics().events_appended >= goal or task.done())  # noqa: B023
            await kill(victim)
            await victim.restart()
        result = await task
        back = await manager.range("day")
    check_history(back, [([batch], 1)], whole=True)
    assert (result.first_event_id, result.last_event_id) == (back.event_ids[0], back.event_ids[-1])
