"""Several producers at once, and one that was taken over while it slept: one total order, and the zombie is refused."""

from __future__ import annotations

import asyncio
import random

import pytest

from hftlab.errors import WriterFenced
from hftlab.streams import Address, EmbeddedServer, RedisStreamManager
from tests.faults.history import check_history
from tests.streams.batches import content, log_sequences, mixed
from tests.streams.fakes import proxy_to
from tests.streams.servers import managed, until

SEEDS = range(3)


@pytest.mark.parametrize("seed", SEEDS)
async def test_producers_in_their_own_processes_share_one_total_order(victim: EmbeddedServer, seed: int) -> None:
    chance = random.Random(seed)
    sent = [[mixed(chance.randint(1, 90), seed=1_000 * seed + 50 * p + i) for i in range(12)] for p in range(4)]
    managers = [
        RedisStreamManager(
            victim.address,
            namespace="n",
            frame_rows=chance.randint(3, 40),
            in_flight=chance.randint(1, 8),
            progress=False,
        )
        for _ in range(4)
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
    counts = check_history(back, [(batches, len(batches)) for batches in sent], whole=True)
    for manager in managers:
        await manager.close()
    print(f"seed {seed}: {counts}")


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_writer_that_slept_while_it_was_taken_over_changes_nothing(victim: EmbeddedServer, seed: int) -> None:
    assert victim.address.credentials is not None
    password = victim.address.credentials.get_credentials()[-1]
    asleep, wake = asyncio.Event(), asyncio.Event()
    async with proxy_to(victim.address.connection["path"]) as (proxy, path):
        # Its calls stop on their way to the server, as those of a process that is paused.
        proxy.hold = lambda command: _hold(command, asleep, wake)
        zombie = RedisStreamManager(Address.unix(path, password), namespace="n", frame_rows=10, progress=False)
        async with zombie, managed(victim, namespace="n") as manager:
            old = await zombie.writer("day", "recorder")
            first = mixed(200, seed=seed)
            await old.append(first)
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
            assert log_sequences(back) == list(range(len(back)))
            assert result.first_event_id & ((1 << 40) - 1) == taken_over_at


async def test_a_call_that_was_given_up_can_not_stand_in_for_a_later_one(victim: EmbeddedServer) -> None:
    """A cancelled append's call is still on its way when the next append, of other rows, has begun."""
    assert victim.address.credentials is not None
    password = victim.address.credentials.get_credentials()[-1]
    arrived = [asyncio.Event(), asyncio.Event()]
    passed = [asyncio.Event(), asyncio.Event()]
    calls = iter(range(2))

    async def hold(command: list[bytes]) -> None:
        if command[0] == b"EVALSHA" and (index := next(calls, None)) is not None:
            arrived[index].set()
            await passed[index].wait()

    given_up, later = mixed(50, seed=1), mixed(50, seed=2)
    async with proxy_to(victim.address.connection["path"]) as (proxy, path):
        manager = RedisStreamManager(Address.unix(path, password), namespace="n", progress=False)
        async with manager:
            writer = await manager.writer("day", "recorder")
            proxy.hold = hold
            first = asyncio.create_task(writer.append(given_up))
            await arrived[0].wait()
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            second = asyncio.create_task(writer.append(later))
            await arrived[1].wait()
            # Now both calls say that they bring the writer's first 50 rows. The old one comes first.
            passed[0].set()
            await until(lambda: proxy.done >= 1)
            passed[1].set()
            result = await second
            assert content(await manager.range("day")) == content(later)
            assert result.first_event_id == 1 << 40


async def _hold(command: list[bytes], asleep: asyncio.Event, wake: asyncio.Event) -> None:
    if command[0] == b"EVALSHA" and asleep.is_set():
        await wake.wait()
