"""A server that is full refuses appends: a clear error, nothing half done, and it goes on once there is room."""

from __future__ import annotations

import asyncio

import pytest

from hftlab.errors import ServerRefused
from hftlab.streams import EmbeddedServer, RedisStreamManager
from tests.streams.batches import content, log_sequences, mixed, trades
from tests.streams.servers import managed, until


async def fill(manager: RedisStreamManager) -> None:
    """Leave the server no memory to write with."""
    await manager._connections.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await manager._connections.call("CONFIG", "SET", "maxmemory", 1)


async def make_room(manager: RedisStreamManager) -> None:
    await manager._connections.call("CONFIG", "SET", "maxmemory", 0)


@pytest.mark.parametrize("format", ["frames", "entries"])
async def test_a_full_server_takes_nothing_of_an_append_and_says_why(victim: EmbeddedServer, format: str) -> None:
    async with managed(victim, deadline_s=0.3) as manager:
        await manager.append(trades(100), session="day")
        before = await manager.session("day")
        await fill(manager)
        with pytest.raises(ServerRefused, match="its memory is full"):
            await manager.append(mixed(3_000), session="day", format=format)  # type: ignore[arg-type]
        with pytest.raises(ServerRefused, match="its memory is full"):
            await manager.publish(trades(1), session="day")
        assert await manager.session("day") == before
        assert log_sequences(await manager.range("day")) == list(range(100)), "reading goes on"
        await make_room(manager)
        await manager.append(mixed(3_000), session="day", format=format)  # type: ignore[arg-type]
        assert content(await manager.range("day")) == content(trades(100)) + content(mixed(3_000))


async def test_an_append_waits_for_room_and_then_goes_on_where_it_was(victim: EmbeddedServer) -> None:
    batch = mixed(3_000)
    async with managed(victim, frame_rows=20, deadline_s=30.0) as manager, managed(victim) as keeper:
        task = asyncio.create_task(manager.append(batch, session="day"))
        await until(lambda: manager.statistics().events_appended >= 500)
        await fill(keeper)
        await until(lambda: manager.statistics().retries >= 2)
        assert not task.done()
        await make_room(keeper)
        await task
        back = await manager.range("day")
        assert (content(back), log_sequences(back)) == (content(batch), list(range(3_000)))


async def test_a_named_writer_goes_on_after_a_refusal(victim: EmbeddedServer) -> None:
    async with managed(victim, deadline_s=0.2) as manager:
        writer = await manager.writer("day", "recorder")
        await writer.append(trades(100))
        await fill(manager)
        for _ in range(2):
            with pytest.raises(ServerRefused):
                await writer.append(trades(100, seed=1))
        await make_room(manager)
        await writer.append(trades(100, seed=2))
        assert content(await manager.range("day")) == content(trades(100)) + content(trades(100, seed=2))
