"""The reply of an append is lost after the server has applied it: nothing is written twice, nothing is missing."""

from __future__ import annotations

import random
from itertools import count

import pytest

from hftlab.events import EventBatch, SignalEvent
from hftlab.streams import Address, EmbeddedServer, RedisStreamManager
from tests.faults.history import check_history
from tests.streams.batches import content, log_sequences, mixed
from tests.streams.fakes import Proxy, proxy_to
from tests.streams.servers import managed

SEEDS = range(3)


def losing(proxy: Proxy, seed: int, share: float) -> None:
    """Lose a share of the replies to scripts, whatever they are; the third in any case."""
    chance, seen = random.Random(seed), count(1)
    proxy.lose = lambda command: command[0] in (b"EVALSHA", b"EVAL") and (next(seen) == 3 or chance.random() < share)


def behind(server: EmbeddedServer, path: str, **settings: object) -> RedisStreamManager:
    assert server.address.credentials is not None
    password = server.address.credentials.get_credentials()[-1]
    return RedisStreamManager(
        Address.unix(path, password),
        namespace="n",
        deadline_s=20.0,
        progress=False,
        **settings,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("format", ["frames", "entries"])
async def test_lost_replies_leave_exactly_one_entry_a_frame(victim: EmbeddedServer, seed: int, format: str) -> None:
    batch = mixed(1_500, seed=seed)
    async with proxy_to(victim.address.connection["path"]) as (proxy, path):
        losing(proxy, seed, 0.1)
        async with behind(victim, path, frame_rows=50, seed=seed) as manager:
            result = await manager.append(batch, session="day", format=format)  # type: ignore[arg-type]
            again = await manager.append(batch, session="day", format=format)  # type: ignore[arg-type]
    assert proxy.lost > 0
    async with managed(victim, namespace="n") as manager:
        back = await manager.range("day")
        assert content(back) == content(batch)
        assert log_sequences(back) == list(range(1_500))
        info = await manager.session("day")
        streams = manager._keys.session(info.number).streams.values()
        lengths = await manager._connections.call_many([("XLEN", stream) for stream in streams])
        assert sum(lengths) == result.entries
        assert again.duplicate
        assert (result.first_event_id, result.last_event_id) == (back.event_ids[0], back.event_ids[-1])
        assert info.stored_bytes == result.stored_bytes
    print(f"seed {seed}: {proxy.lost} replies lost, {proxy.connections} connections, {result}")


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_named_writer_survives_lost_replies_batch_after_batch(victim: EmbeddedServer, seed: int) -> None:
    batches = [mixed(120 + seed, seed=100 * seed + index) for index in range(8)]
    async with (
        proxy_to(victim.address.connection["path"]) as (proxy, path),
        behind(victim, path, frame_rows=20, seed=seed) as manager,
    ):
        writer = await manager.writer("day", "recorder")
        losing(proxy, seed, 0.1)
        results = [await writer.append(batch) for batch in batches]
        proxy.lose = lambda command: False
        back = await manager.range("day")
    assert proxy.lost > 0
    counts = check_history(back, [(batches, len(batches))])
    first = 0
    for batch, result in zip(batches, results, strict=True):
        assert [result.first_event_id, result.last_event_id] == [
            back.event_ids[first],
            back.event_ids[first + len(batch) - 1],
        ]
        first += len(batch)
    print(f"seed {seed}: {proxy.lost} replies lost, {counts}")


@pytest.mark.parametrize("seed", SEEDS)
async def test_published_events_are_written_once_each(victim: EmbeddedServer, seed: int) -> None:
    async with proxy_to(victim.address.connection["path"]) as (proxy, path):
        losing(proxy, seed, 0.15)
        async with behind(victim, path, seed=seed) as manager:
            for index in range(40):
                event = SignalEvent(symbol="X", signal_type="A", strength=float(index))
                await manager.publish(event, session="day")
            proxy.lose = lambda command: False
            back = await manager.range("day")
    assert proxy.lost > 0
    assert back.records["strength"].tolist() == [float(index) for index in range(40)]
    print(f"seed {seed}: {proxy.lost} replies lost")


@pytest.mark.parametrize("seed", SEEDS)
async def test_sessions_are_made_renamed_and_deleted_once_though_replies_are_lost(
    victim: EmbeddedServer, seed: int
) -> None:
    async with proxy_to(victim.address.connection["path"]) as (proxy, path):
        chance = random.Random(seed)
        seen = count(1)
        proxy.lose = lambda command: (
            command[0] not in (b"CLIENT", b"AUTH") and (next(seen) == 5 or chance.random() < 0.08)
        )
        async with behind(victim, path, seed=seed) as manager:
            for index in range(6):
                await manager.append(EventBatch.empty(), session=f"s{index}")
                await manager.rename(f"s{index}", f"t{index}")
            for index in range(3):
                await manager.delete(f"t{index}")
            assert [info.name for info in await manager.sessions()] == ["t3", "t4", "t5"]
    assert proxy.lost > 0
