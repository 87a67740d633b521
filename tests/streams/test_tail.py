"""Following a session live: everything, once, in total order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hftlab.errors import UnknownSession, ValidationError
from hftlab.events import EventBatch, OrderEvent
from hftlab.events.records import event_id
from hftlab.streams import EmbeddedServer, RedisStreamManager
from tests.streams.batches import content, log_sequences, mixed, trades
from tests.streams.servers import managed


class Follower:
    """A tail that is read by a task, with what it has seen."""

    def __init__(self, tail: AsyncIterator[EventBatch]) -> None:
        self.seen: list[EventBatch] = []
        self._changed = asyncio.Condition()
        self.task = asyncio.create_task(self._follow(tail))

    async def _follow(self, tail: AsyncIterator[EventBatch]) -> None:
        async for batch in tail:
            async with self._changed:
                self.seen.append(batch)
                self._changed.notify_all()

    @property
    def events(self) -> int:
        return sum(map(len, self.seen))

    async def have(self, count: int) -> EventBatch:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: self.events >= count)
        assert self.events == count
        return EventBatch.concat(self.seen)

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def blocked_clients(manager: RedisStreamManager) -> int:
    info = (await manager._connections.call("INFO", "clients")).decode()
    return int(dict(line.split(":") for line in info.splitlines() if ":" in line)["blocked_clients"])


async def until_waiting(manager: RedisStreamManager) -> None:
    """Return once a tail waits for news (tests have a server's blocked clients for themselves)."""
    async with asyncio.timeout(20):
        while True:
            if await blocked_clients(manager):
                return
            await asyncio.sleep(0.002)


async def test_a_tail_shows_what_is_appended_from_now_on(streams: RedisStreamManager) -> None:
    await streams.append(mixed(100), session="day")
    follower = Follower(streams.tail("day"))
    await until_waiting(streams)
    more = mixed(50, seed=1)
    await streams.append(more, session="day")
    seen = await follower.have(50)
    assert log_sequences(seen) == list(range(100, 150))
    assert content(seen) == content(more)
    await follower.stop()


async def test_a_tail_goes_on_after_an_event_or_from_the_start(streams: RedisStreamManager) -> None:
    batch = mixed(3_000)
    await streams.append(batch, session="day")
    number = (await streams.session("day")).number
    whole, rest = Follower(streams.tail("day", after=0)), Follower(streams.tail("day", after=event_id(number, 1_999)))
    assert log_sequences(await whole.have(3_000)) == list(range(3_000))
    assert log_sequences(await rest.have(1_000)) == list(range(2_000, 3_000))
    await streams.append(mixed(10, seed=1), session="day")
    assert log_sequences(await whole.have(3_010)) == list(range(3_010))
    assert log_sequences(await rest.have(1_010)) == list(range(2_000, 3_010))
    await whole.stop()
    await rest.stop()


@pytest.mark.parametrize("frame_rows", [1, 16, 1_024])
async def test_a_tail_misses_and_disorders_nothing_under_load(server: EmbeddedServer, frame_rows: int) -> None:
    async with managed(server, frame_rows=frame_rows) as manager:
        await manager.append(EventBatch.empty(), session="day")
        follower = Follower(manager.tail("day", after=0))
        batches = [mixed(700, seed=seed) for seed in range(3)]
        await asyncio.gather(*(manager.append(batch, session="day") for batch in batches))
        assert log_sequences(await follower.have(2_100)) == list(range(2_100))
        await follower.stop()


async def test_a_slow_reader_catches_up(streams: RedisStreamManager) -> None:
    await streams.append(trades(1), session="day")
    tail = streams.tail("day", after=0)
    seen = [await anext(tail)]
    # Far more entries than one XREAD takes.
    for seed in range(1, 5):
        await streams.append(mixed(40, seed=seed), session="day", format="entries")
    while sum(map(len, seen)) < 161:
        seen.append(await anext(tail))
    assert log_sequences(EventBatch.concat(seen)) == list(range(161))
    await tail.aclose()  # type: ignore[attr-defined]


async def test_a_tail_of_some_types_shows_these_only(streams: RedisStreamManager) -> None:
    batch = mixed(2_000)
    await streams.append(batch[:1_000], session="day")
    follower = Follower(streams.tail("day", types=OrderEvent, after=0))
    await streams.append(batch[1_000:], session="day")
    orders = batch.only(OrderEvent)
    assert content(await follower.have(len(orders))) == content(orders)
    await follower.stop()


async def test_a_session_that_is_deleted_ends_its_tail(streams: RedisStreamManager) -> None:
    await streams.append(trades(10), session="day")
    follower = Follower(streams.tail("day", after=0))
    await follower.have(10)
    await streams.delete("day")
    with pytest.raises(UnknownSession, match="was flushed or deleted while it was"):
        async with asyncio.timeout(20):
            await follower.task


async def test_a_tail_of_nothing_is_an_error(one: RedisStreamManager) -> None:
    with pytest.raises(UnknownSession):
        await anext(one.tail("nowhere"))
    await one.append(trades(1), session="day")
    for wrong in (event_id(9, 1), -1):
        with pytest.raises(ValidationError):
            await anext(one.tail("day", after=wrong))


async def test_a_tail_survives_the_loss_of_its_connection(streams: RedisStreamManager, server: EmbeddedServer) -> None:
    await streams.append(trades(10), session="day")
    follower = Follower(streams.tail("day", after=0))
    await follower.have(10)
    await until_waiting(streams)
    async with managed(server) as other:
        await other._connections.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await streams.append(trades(10, seed=1), session="day")
    assert log_sequences(await follower.have(20)) == list(range(20))
    await follower.stop()


def test_the_types_are_checked_at_once() -> None:
    manager: Any = RedisStreamManager("redis://127.0.0.1:1")
    with pytest.raises(ValidationError, match="MarketDataEvent"):
        manager.tail("day", types="quotes")
