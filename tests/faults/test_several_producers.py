"""A writer's own calls that were given up, and reach the server late. Several producers: ``scenarios``."""

from __future__ import annotations

import asyncio

from hftlab.streams import Address, EmbeddedServer, RedisStreamManager
from tests.streams.batches import content, mixed
from tests.streams.fakes import proxy_to
from tests.streams.servers import until


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
