"""Several producers at once, and one that was taken over while it slept: one total order, and the zombie is refused."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import pytest

from hftlab.errors import WriterFenced
from tests.faults.history import check_history
from tests.faults.producer import SESSION, Producer, batch_of
from tests.faults.suite import Counts, fault
from tests.faults.victims import at_scale, manager_at, manager_of, socket_of, victim
from tests.streams.batches import content, log_sequences, mixed
from tests.streams.fakes import proxy_to
from tests.streams.servers import until


@fault("F4", "four producers append at once", promise="one total order, nothing overwritten or twice")
async def several_producers(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    count = at_scale(12, scale, 4)
    sent = [[mixed(chance.randint(1, 90), seed=1_000 * seed + 50 * p + i) for i in range(count)] for p in range(4)]
    async with victim(binary, folder) as server:
        managers = [
            manager_of(server, frame_rows=chance.randint(3, 40), in_flight=chance.randint(1, 8)) for _ in range(4)
        ]

        async def produce(p: int) -> list[int]:
            writer = await managers[p].writer("day", f"p{p}")
            ids = []
            for batch in sent[p]:
                result = await writer.append(batch)
                ids += [result.first_event_id, result.last_event_id]
            return ids

        ids = await asyncio.gather(*(produce(p) for p in range(4)))
        assert all(one == sorted(one) for one in ids)
        back = await managers[0].range("day")
        for manager in managers:
            await manager.close()
    return check_history(back, [(batches, len(batches)) for batches in sent], whole=True)


@fault("F4", "a producer is paused (SIGSTOP) and taken over, then goes on", promise="refused with WriterFenced")
async def producer_paused(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    rows = chance.randint(5, 60)
    async with victim(binary, folder) as server, manager_of(server) as manager:
        producer = await Producer.start(server, "recorder", chance.randint(3, 30), rows, seed)
        try:
            goal = chance.randint(2, at_scale(40, scale, 6))
            await until(lambda: producer.acknowledged >= goal or producer.ended)
            producer.signal(signal.SIGSTOP)
            new = await manager.writer(SESSION, "recorder")
            taken_over_at = new.rows
            second = [mixed(50, seed=10_000 * seed + 5_000 + index) for index in range(3)]
            await new.append(second[0])
            producer.signal(signal.SIGCONT)
            for batch in second[1:]:
                await new.append(batch)
            await producer.end()
        finally:
            await producer.kill()
        assert [line.partition(" ")[0] for line in producer.said] == ["fenced"], producer.said
        assert "took over" in producer.said[0]
        back = await manager.range(SESSION)
        assert new.rows == taken_over_at + 150
    first = [batch_of(seed, index, rows) for index in range(producer.acknowledged + 2)]
    counts = check_history(back, [(first, producer.acknowledged), (second, 3)])
    # What the zombie still had in flight was counted by whoever took over, or not written.
    assert len(back) == taken_over_at + 150
    return counts


@fault("F4", "a writer's calls are held on their way until it was taken over", promise="they change nothing")
async def writer_held(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    asleep, wake = asyncio.Event(), asyncio.Event()

    async def hold(command: list[bytes]) -> None:
        if command[0] == b"EVALSHA" and asleep.is_set():
            await wake.wait()

    async with victim(binary, folder) as server, proxy_to(socket_of(server)) as (proxy, path):
        # Its calls stop on their way to the server, as those of a process that is paused.
        proxy.hold = hold
        async with manager_at(server, path, frame_rows=10) as zombie, manager_of(server) as manager:
            old = await zombie.writer("day", "recorder")
            await old.append(mixed(200, seed=seed))
            asleep.set()
            late = asyncio.create_task(old.append(mixed(300, seed=seed + 1)))
            await asyncio.sleep(0)
            new = await manager.writer("day", "recorder")
            assert new.rows >= 200
            taken_over_at = (await manager.session("day")).events
            second = mixed(150, seed=seed + 2)
            result = await new.append(second)
            wake.set()
            with pytest.raises(WriterFenced):
                await late
            back = await manager.range("day")
    assert len(back) == taken_over_at + 150
    assert content(back)[-150:] == content(second)
    assert log_sequences(back) == list(range(len(back)))
    assert result.first_event_id & ((1 << 40) - 1) == taken_over_at
    return {"sent": 650, "acknowledged": 350, "recovered": len(back)}
