"""Servers that stop answering: seen while it lasts, and nothing piles up meanwhile."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import hftlab
from hftlab.errors import ServerRefused, StreamError
from hftlab.events import EventBatch
from hftlab.streams import EmbeddedServer, RedisStreamManager
from hftlab.streams.ahead import Ahead
from hftlab.streams.link import Link
from tests.streams.batches import log_sequences, trades
from tests.streams.servers import BINARIES, binary_of, managed, until


@pytest.fixture(params=BINARIES)
async def own(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A server that the test may stop."""
    async with EmbeddedServer(tmp_path / ".hftlab", binary=binary_of(request.param)) as server:
        yield server


@contextmanager
def stopped(server: EmbeddedServer) -> Iterator[None]:
    """SIGSTOP, and SIGCONT at the end."""
    assert server.pid
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


async def test_a_server_that_was_stopped_is_seen_to_be_silent_and_to_answer_again(own: EmbeddedServer) -> None:
    async with managed(own) as manager:
        await manager.append(trades(10), session="day")
        assert (manager.state, manager.statistics().silent_s) == ("ok", 0.0)
        before = repr(manager)
        with stopped(own):
            begin = time.monotonic()
            task = asyncio.create_task(manager.append(trades(10, seed=1), session="day"))
            await until(lambda: manager.state.startswith("silent for "), 2.0)
            assert 0.5 <= manager.statistics().silent_s <= time.monotonic() - begin
            assert "; silent for " in repr(manager)
            assert "silent for " in manager._repr_html_()
        await task
        assert (manager.state, manager.statistics().silent_s) == ("ok", 0.0)
        assert repr(manager) == before


async def test_a_tail_that_waits_for_news_notices_that_the_server_is_silent(own: EmbeddedServer) -> None:
    async with managed(own) as manager:
        await manager.append(trades(10), session="day")
        tail = manager.tail("day")
        following = asyncio.ensure_future(anext(tail))
        await until(lambda: manager.statistics().silent_s < 0.01 and len(manager._connections.silence.debtors) == 1)
        with stopped(own):
            await until(lambda: manager.state.startswith("silent for "), 2.0)
        await until(lambda: manager.state == "ok")
        await manager.append(trades(10, seed=1), session="day")
        assert log_sequences(await following) == list(range(10, 20))
        await tail.aclose()  # type: ignore[attr-defined]


async def test_waiting_for_news_is_no_silence(one: RedisStreamManager) -> None:
    await one.append(trades(1), session="day")
    tail = one.tail("day")
    following = asyncio.ensure_future(anext(tail))
    seen = []

    def three_blocks() -> bool:
        seen.append(one.statistics().silent_s)
        return one._connections.silence.heard_s - begin > 2.0

    begin = time.monotonic()
    await until(three_blocks)
    assert max(seen) < 0.5
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_a_server_that_is_gone_is_away_until_it_answers(own: EmbeddedServer) -> None:
    async with managed(own) as manager:
        await manager.append(trades(10), session="day")
        assert own.pid
        os.kill(own.pid, signal.SIGKILL)
        await until(lambda: not own.running)
        task = asyncio.create_task(manager.append(trades(10, seed=1), session="day"))
        await until(lambda: manager.state.startswith("away (trying again for "))
        assert "away (trying again for " in repr(manager)
        await own.restart()
        await task
        assert manager.state == "ok"


async def test_a_server_that_refuses_writes_says_why_until_it_takes_one(own: EmbeddedServer) -> None:
    async with managed(own, deadline_s=0.3) as manager:
        await manager.append(trades(10), session="day")
        await manager._connections.call("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(ServerRefused):
            await manager.append(trades(10, seed=1), session="day")
        assert manager.state.startswith("refusing writes: ")
        assert len(await manager.range("day")) == 10
        assert manager.state.startswith("refusing writes: "), "reading goes on, which says nothing of writes"
        await manager._connections.call("CONFIG", "SET", "maxmemory", "0")
        await manager.append(trades(10, seed=1), session="day")
        assert manager.state == "ok"


async def test_a_lab_shows_that_its_server_is_silent(tmp_path: Path) -> None:
    async with hftlab.Lab(directory=tmp_path / ".hftlab") as lab:
        await lab.streams.append(trades(10), session="day")
        assert repr(lab).endswith(": started)")
        assert lab._server is not None
        with stopped(lab._server):
            task = asyncio.create_task(lab.sessions())
            await until(lambda: "started; its server is silent for " in repr(lab), 2.0)
        await task
        assert repr(lab).endswith(": started)")


# -- what piles up ----------------------------------------------------------------------------------------------------


@contextmanager
def memory_within(most_bytes: int) -> Iterator[None]:
    """Fails where Python holds more than that in addition at the end of the block."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown <= most_bytes, f"{grown:,} bytes"


def under_way(kind: type) -> list[object]:
    return [one for one in gc.get_objects() if type(one) is kind]


async def test_an_append_encodes_only_so_far_ahead_of_a_server_that_is_silent(own: EmbeddedServer) -> None:
    async with managed(own, frame_rows=1_024, in_flight=8) as manager:
        await manager.append(trades(10), session="day")
        batch = trades(400_000)
        with memory_within(64 << 20), stopped(own):
            task = asyncio.create_task(manager.append(batch, session="day"))
            await until(lambda: manager.state.startswith("silent for "))
            (ahead,) = under_way(Ahead)
            assert isinstance(ahead, Ahead)
            # 64 chunks ahead, and those of the two visits that were under way when it was full.
            await until(lambda: len(ahead._ready) >= 64 and not ahead._visits)
            assert len(ahead._ready) <= 64 + 2 * 8
            assert all(link.pending <= 8 for link in under_way(Link) if isinstance(link, Link))
        await task
        assert (await manager.session("day")).events == 400_010


async def test_more_publishes_than_may_wait_are_refused_and_the_others_are_done(
    own: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hftlab.streams.writers.MOST_WAITING", 200)
    async with managed(own) as manager:
        await manager.publish(trades(1), session="day")
        with memory_within(64 << 20), stopped(own):
            tasks = [asyncio.create_task(manager.publish(trades(1), session="day")) for _ in range(250)]
            await until(lambda: sum(task.done() for task in tasks) >= 49)
            refused = [task for task in tasks if task.done()]
            assert len(refused) == 49, "one is under way, and so many wait"
            for task in refused:
                with pytest.raises(StreamError, match=r"wait for their turn already.*make a batch"):
                    task.result()
            for task in tasks[40 : len(tasks)]:
                task.cancel()
            await asyncio.gather(*tasks[40:], return_exceptions=True)
        await asyncio.gather(*tasks[:40])
        assert 41 <= (await manager.session("day")).events <= 42


async def test_a_reader_that_is_not_asked_for_more_fetches_only_so_far_ahead(own: EmbeddedServer) -> None:
    async with managed(own) as manager:
        await manager.append(trades(600_000), session="day")
        tail = manager.tail("day", after=0)
        before = manager.statistics().entries_read
        with memory_within(80 << 20):
            first = await anext(tail)
            await until(lambda: manager.statistics().silent_s == 0.0 and not manager._connections.silence.debtors)
            read = manager.statistics().entries_read - before
            # Two pages ahead, one that waits for room, one in the caller's hands, one in the merge: 32 frames each.
            assert read <= 6 * 32 + 8 + 64
        with stopped(own):
            waiting = asyncio.ensure_future(_rest(tail, 600_000 - len(first)))
            await until(lambda: manager.state.startswith("silent for "))
        assert await waiting == 600_000 - len(first)


async def _rest(tail: AsyncIterator[EventBatch], rows: int) -> int:
    seen = 0
    async for batch in tail:
        seen += len(batch)
        if seen >= rows:
            await tail.aclose()  # type: ignore[attr-defined]
            return seen
    return seen
