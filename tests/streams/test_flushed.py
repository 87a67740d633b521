"""FLUSHALL, DEL, SCRIPT FLUSH and restarts in the middle: a clear error in bounded time, or what is right."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from hftlab.errors import AppendConflict, StreamError, UnknownSession, WriterFenced
from hftlab.events import SignalEvent, SourceTable, SymbolTable
from hftlab.events.ports import LogRange
from hftlab.streams import Address, EmbeddedServer, RedisStreamManager
from tests.streams.batches import content, log_sequences, mixed, trades
from tests.streams.fakes import Proxy, proxy_to
from tests.streams.servers import BINARIES, binary_of, managed, until


@pytest.fixture(params=BINARIES)
async def own(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """A server that the test may flush and kill."""
    server = EmbeddedServer(tmp_path / ".hftlab", binary=binary_of(request.param), appendfsync="always")
    async with server:
        yield server


async def flush(manager: RedisStreamManager) -> None:
    await manager._connections.call("FLUSHALL")


async def flush_and_make_again(manager: RedisStreamManager) -> None:
    """The same name, and the same number as the numbers begin anew."""
    await flush(manager)
    await manager.append(trades(7, seed=99), session="day")
    assert (await manager.session("day")).number == 1


async def delete_keys(manager: RedisStreamManager) -> None:
    await manager._connections.call("DEL", *manager._keys.session(1).all)


ENDS: list[Callable[[RedisStreamManager], Awaitable[None]]] = [flush, flush_and_make_again, delete_keys]


@pytest.mark.parametrize("end", ENDS)
async def test_a_tail_ends_with_an_error(
    own: EmbeddedServer, end: Callable[[RedisStreamManager], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hftlab.streams.tailing._BLOCK_MS", 100)
    async with managed(own) as manager:
        await manager.append(mixed(50), session="day")
        for after in (0, None):
            tail = manager.tail("day", after=after)
            rows = 50 if after == 0 else 0
            while rows:
                rows -= len(await anext(tail))
            waiting = asyncio.ensure_future(anext(tail))
            await until(lambda: len(manager._connections.silence.debtors) == 1)
            await end(manager)
            with pytest.raises(UnknownSession, match="flushed or deleted while it was followed"):
                async with asyncio.timeout(5):
                    await waiting
            await flush(manager)
            await manager.append(mixed(50), session="day")


@pytest.mark.parametrize("end", ENDS)
async def test_a_read_does_not_just_stop_in_the_middle(
    own: EmbeddedServer, end: Callable[[RedisStreamManager], Awaitable[None]]
) -> None:
    async with managed(own, frame_rows=16) as manager:
        await manager.append(trades(20_000), session="day")
        info = await manager.session("day")
        seen = 0

        async def read() -> None:
            nonlocal seen
            async for batch in manager.read(info, LogRange(), symbols=SymbolTable(), sources=SourceTable(), prefetch=1):
                if not seen:
                    await end(manager)
                seen += len(batch)

        with pytest.raises(UnknownSession, match="flushed or deleted while it was read"):
            await read()
        assert 0 < seen < 20_000
        with pytest.raises(UnknownSession):
            async for _ in manager.read(info, LogRange(), symbols=SymbolTable(), sources=SourceTable()):
                pass


async def test_a_writer_whose_session_was_made_again_does_not_go_on(own: EmbeddedServer) -> None:
    async with managed(own) as manager:
        writer = await manager.writer("day", "recorder")
        await writer.append(mixed(100))
        await flush_and_make_again(manager)
        for _ in range(2):
            with pytest.raises(AppendConflict, match=r"knows nothing of the writer 'recorder'.*100 rows"):
                await writer.append(mixed(100, seed=1))
        assert (await manager.session("day")).events == 7
        fresh = await manager.writer("day", "recorder")
        assert fresh.rows == 0
        await fresh.append(mixed(5, seed=2))
        with pytest.raises(WriterFenced):
            await writer.append(mixed(100, seed=1))
        assert (await manager.session("day")).events == 12


async def test_a_writer_whose_session_was_flushed_says_so(own: EmbeddedServer) -> None:
    async with managed(own) as manager:
        writer = await manager.writer("day", "recorder")
        await writer.append(mixed(100))
        await flush(manager)
        with pytest.raises(UnknownSession, match="flushed or deleted"):
            await writer.append(mixed(100, seed=1))
        assert await manager.sessions() == []


async def test_publishing_begins_a_flushed_session_again_and_counts_it(own: EmbeddedServer) -> None:
    async with managed(own) as manager:
        event = SignalEvent(symbol="X", signal_type="A", strength=1.0)
        await manager.publish(event, session="day")
        await flush(manager)
        await manager.publish(event, session="day")
        await flush_and_make_again(manager)
        result = await manager.publish([event, event], session="day")
        assert result.events == 2
        assert (await manager.session("day")).events == 9
        assert manager.statistics().remade == 2


async def hold_at(proxy: Proxy, number: int) -> tuple[asyncio.Event, asyncio.Event]:
    """Stop the proxy's n-th script call on its way to the server: (arrived, go on)."""
    arrived, going = asyncio.Event(), asyncio.Event()
    calls = 0

    async def hold(command: list[bytes]) -> None:
        nonlocal calls
        if command[0] == b"EVALSHA":
            calls += 1
            if calls == number:
                arrived.set()
                await going.wait()

    proxy.hold = hold
    return arrived, going


@pytest.mark.parametrize("again", [False, True])
async def test_an_append_in_the_middle_of_which_the_session_goes_raises(own: EmbeddedServer, again: bool) -> None:
    assert own.address.credentials is not None
    password = own.address.credentials.get_credentials()[-1]
    async with managed(own, namespace="n") as manager, proxy_to(own.address.connection["path"]) as (proxy, path):
        await manager.append(trades(1), session="day")
        slow = RedisStreamManager(
            Address.unix(path, password), namespace="n", frame_rows=10, in_flight=2, progress=False
        )
        async with slow:
            arrived, going = await hold_at(proxy, 20)
            task = asyncio.create_task(slow.append(mixed(1_000), session="day"))
            await arrived.wait()
            await (flush_and_make_again if again else flush)(manager)
            going.set()
            with pytest.raises(UnknownSession, match="flushed or deleted"):
                async with asyncio.timeout(10):
                    await task
            if again:
                assert len(await manager.range("day")) == 7, "nothing of it stands in the new one"
            await slow.append(mixed(1_000), session="day")
            assert content(await manager.range("day"))[-1_000:] == content(mixed(1_000))


async def test_scripts_that_were_flushed_are_loaded_again(own: EmbeddedServer) -> None:
    async with managed(own, frame_rows=10) as manager:
        writer = await manager.writer("day", "recorder")

        async def write() -> None:
            for seed in range(20):
                await writer.append(mixed(50, seed=seed))

        task = asyncio.create_task(write())
        for rows in range(0, 1_000, 70):
            await until(lambda rows=rows: manager.statistics().events_appended > rows)  # type: ignore[misc]
            await manager._connections.call("SCRIPT", "FLUSH")
        await task
        assert log_sequences(await manager.range("day")) == list(range(1_000))
        await manager.trim("day", keep_events=100)
        await manager._connections.call("SCRIPT", "FLUSH")
        await manager.trim("day", keep_events=10)
        assert len(await manager.range("day")) == 10


async def test_restarts_are_gone_through_by_writer_tail_and_read(own: EmbeddedServer) -> None:
    async with managed(own, frame_rows=10) as manager:
        writer = await manager.writer("day", "recorder")
        await writer.append(mixed(50))
        tail = manager.tail("day", after=0)
        seen = [await anext(tail)]
        for seed in range(1, 3):
            pid = own.pid
            assert pid
            os.kill(pid, signal.SIGKILL)
            await until(lambda: own.pid != pid)  # noqa: B023  # a client may have started it again by then
            writing = asyncio.create_task(writer.append(mixed(50, seed=seed)))
            await own.restart()
            await writing
            while sum(map(len, seen)) < 50 * (seed + 1):
                seen.append(await anext(tail))
        assert [log for batch in seen for log in log_sequences(batch)] == list(range(150))
        await tail.aclose()  # type: ignore[attr-defined]


async def test_random_flushes_leave_every_append_done_or_refused(own: EmbeddedServer) -> None:
    """Whoever was told that it is done finds it, unless it was flushed later."""
    async with managed(own, frame_rows=10) as manager, managed(own, namespace=manager._keys.namespace) as other:

        async def append(seed: int) -> bool:
            try:
                await manager.append(mixed(100, seed=seed), session="day")
            except StreamError:
                return False
            return True

        for round_ in range(5):
            tasks = [asyncio.create_task(append(10 * round_ + index)) for index in range(6)]
            await flush(other)
            async with asyncio.timeout(20):
                await asyncio.gather(*tasks)
            assert await append(1_000 + round_)
            back = await manager.range("day")
            assert log_sequences(back) == list(range(len(back)))
            assert len(back) % 100 == 0, "no batch stands there in part"
            assert content(back)[-100:] == content(mixed(100, seed=1_000 + round_))
