"""Connections are killed and calls are cancelled at random, while calls of all kinds run over one small pool."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from hftlab.events import SignalEvent
from hftlab.streams import RedisStreamManager
from tests.faults.history import check_history
from tests.faults.suite import Counts, fault
from tests.faults.victims import at_scale, manager_at, manager_of, victim
from tests.streams.batches import content, mixed
from tests.streams.servers import until

CONNECTIONS = 6
_GIVEN_UP = object()


class Storm:
    """What happens to one manager: some calls of it are cancelled, and a second one kills its connections."""

    def __init__(self, manager: RedisStreamManager, killer: RedisStreamManager, chance: random.Random) -> None:
        self.manager = manager
        self.killer = killer
        self.chance = chance
        self.kills = 0
        self.cancelled = 0
        self.over = False

    async def kill(self, most: int) -> None:
        """Kill every connection but the killer's own, again and again."""
        while not self.over and self.kills < most:
            self.kills += await self.killer._connections.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(self.chance.uniform(0.0, 0.012))

    async def maybe(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """The result of a call, which is cancelled in the middle every third time; ``_GIVEN_UP`` then."""
        task = asyncio.ensure_future(call())
        if self.chance.random() < 0.33:
            await asyncio.sleep(self.chance.uniform(0.0, 0.004))
            if task.cancel():
                self.cancelled += 1
        try:
            return await task
        except asyncio.CancelledError:
            return _GIVEN_UP


@fault(
    "F6",
    "CLIENT KILL storm and cancellations under calls of all kinds",
    promise="every caller gets its own reply, nothing is stranded, all that was acknowledged is there once",
)
async def storm(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance, count = random.Random(seed), at_scale(40, scale, 6)
    sent = [[mixed(50, seed=10_000 * seed + 1_000 * p + index) for index in range(count)] for p in range(2)]
    keyed = mixed(50 * count, seed=10_000 * seed + 5_000)
    fixed = mixed(300, seed=10_000 * seed + 6_000)
    published: list[float] = []
    acknowledged: list[float] = []
    async with (
        victim(binary, folder) as server,
        manager_of(server, frame_rows=10, connections=CONNECTIONS, deadline_s=30.0, seed=seed) as manager,
        manager_at(server) as killer,
    ):
        raging = Storm(manager, killer, chance)
        await manager.append(fixed, session="fixed")
        await manager._connections.call_many([("SET", f"key-{index}", f"value-{index}") for index in range(100)])
        killing = asyncio.create_task(raging.kill(at_scale(150, scale, 20)))

        async def produce(p: int) -> None:
            writer = await manager.writer("written", f"w{p}")
            for batch in sent[p]:
                await writer.append(batch)

        async def append_again_and_again() -> None:
            while await raging.maybe(lambda: manager.append(keyed, session="keyed")) is _GIVEN_UP:
                pass

        async def publish() -> None:
            for index in range(count):
                event = SignalEvent(symbol="X", signal_type="A", strength=float(index))
                published.append(float(index))
                if await raging.maybe(lambda event=event: manager.publish(event, session="published")) is not _GIVEN_UP:  # type: ignore[misc]
                    acknowledged.append(float(index))

        async def read(turns: int) -> int:
            own = 0
            for _ in range(turns):
                index = chance.randrange(100)
                found = await raging.maybe(lambda index=index: manager._connections.call("GET", f"key-{index}"))  # type: ignore[misc]
                assert found in (_GIVEN_UP, f"value-{index}".encode()), f"a reply that was another's: {found!r}"
                own += found is not _GIVEN_UP
                back = await raging.maybe(lambda: manager.range("fixed"))
                assert back is _GIVEN_UP or content(back) == content(fixed)
            return own

        own, *_ = await asyncio.gather(read(count), produce(0), produce(1), append_again_and_again(), publish())
        raging.over = True
        await killing
        counts = check_history(await manager.range("written"), [(some, count) for some in sent], whole=True)
        assert content(await manager.range("keyed")) == content(keyed)
        await _nothing_is_stranded(manager, killer)
        there = (await manager.range("published")).records["strength"].tolist() if acknowledged else []
    assert len(set(there)) == len(there), "an event was published twice"
    assert set(acknowledged) <= set(there) <= set(published)
    assert [value for value in there if value in set(acknowledged)] == acknowledged, "published out of order"
    return counts | {"kills": raging.kills, "cancelled": raging.cancelled, "replies_read": own}


async def _nothing_is_stranded(manager: RedisStreamManager, killer: RedisStreamManager) -> None:
    """All turns at the pool are free again, work at once, and the server has no connections that nobody knows."""
    connections = manager._connections
    await until(lambda: connections._turns._value == CONNECTIONS)
    async with asyncio.TaskGroup() as group:
        echoes = [group.create_task(connections.call("ECHO", index)) for index in range(2 * CONNECTIONS)]
    assert [echo.result() for echo in echoes] == [str(index).encode() for index in range(2 * CONNECTIONS)]
    clients = await killer._connections.call("CLIENT", "LIST")
    # The killer has its own.
    assert len(clients.splitlines()) <= CONNECTIONS + 1, clients
