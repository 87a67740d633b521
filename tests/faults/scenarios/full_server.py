"""A server that is full, of memory or of disk: a clear error, nothing half done, and it goes on once there is room."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from hftlab.errors import ServerRefused, ServerUnreachable, StreamError
from hftlab.events import EventBatch
from hftlab.streams import EmbeddedServer, RedisStreamManager
from hftlab.streams.cutting import Format
from hftlab.streams.writers import Writer
from tests.faults.history import check_history
from tests.faults.suite import Counts, NotHere, fault
from tests.faults.victims import at_scale, kill, manager_at, manager_of, pid_of, reached, victim
from tests.streams.batches import content, mixed, trades
from tests.streams.servers import until


async def fill(manager: RedisStreamManager) -> None:
    """Leave the server no memory to write with."""
    await manager._connections.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await manager._connections.call("CONFIG", "SET", "maxmemory", 1)


async def make_room(manager: RedisStreamManager) -> None:
    await manager._connections.call("CONFIG", "SET", "maxmemory", 0)


@fault(
    "F10",
    "the server's memory is full, then has room again",
    promise="ServerRefused says so, an append is taken as a whole or not at all, reads go on, 0 acknowledged lost",
)
async def memory_full(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    forms: tuple[Format, ...] = ("frames", "entries")
    first, batch = trades(chance.randint(1, 300), seed=seed), mixed(at_scale(1_500, scale, 300), seed=seed)
    async with victim(binary, folder) as server, manager_of(server, deadline_s=0.1, seed=seed) as manager:
        await manager.append(first, session="day")
        writer = await manager.writer("written", "recorder")
        await writer.append(first)
        before = await manager.session("day")
        await fill(manager)
        refused = 0
        for call in (
            lambda: manager.append(batch, session="day", format=forms[0]),
            lambda: manager.append(batch, session="day", format=forms[1]),
            lambda: manager.publish(trades(1), session="day"),
            lambda: writer.append(batch),
        ):
            with pytest.raises(ServerRefused, match="its memory is full"):
                await call()  # type: ignore[no-untyped-call]
            refused += 1
        assert await manager.session("day") == before
        assert content(await manager.range("day")) == content(first), "reading goes on"
        await make_room(manager)
        await manager.append(batch, session="day", format=forms[seed % 2])
        await writer.append(batch)
        for session in ("day", "written"):
            assert content(await manager.range(session)) == content(first) + content(batch)
        recovered = len(await manager.range("day"))
    return {"sent": len(first) + len(batch), "recovered": recovered, "refused": refused}


@fault("F10", "the server's memory is full for a while in the middle of an append", promise="the append waits, goes on")
async def memory_full_for_a_while(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    batch = mixed(at_scale(3_000, scale, 1_000), seed=seed)
    async with (
        victim(binary, folder) as server,
        manager_of(server, frame_rows=20, deadline_s=30.0, seed=seed) as manager,
        manager_of(server) as keeper,
    ):
        task = asyncio.create_task(manager.append(batch, session="day"))
        goal = chance.randint(1, len(batch) // 3)
        await until(lambda: manager.statistics().events_appended >= goal)
        await fill(keeper)
        await until(lambda: manager.statistics().retries >= 2)
        assert not task.done()
        await make_room(keeper)
        await task
        counts = check_history(await manager.range("day"), [([batch], 1)], whole=True)
        return counts | {"retries": manager.statistics().retries}


@asynccontextmanager
async def no_disk(server: EmbeddedServer, more_bytes: int) -> AsyncIterator[None]:
    """No file of the server's may grow by more than so many bytes beyond its log: as on a disk that is full.

    A write beyond a process's own limit fails in the same place as one to a full disk (SIGXFSZ is ignored in the
    server, as in the Python that started it).
    """
    if sys.platform != "linux":
        raise NotHere("limiting another process's files takes Linux (prlimit)")
    process = psutil.Process(pid_of(server))
    before = process.rlimit(psutil.RLIMIT_FSIZE)
    largest = max(path.stat().st_size for path in (server.directory / "data").rglob("*.aof"))
    process.rlimit(psutil.RLIMIT_FSIZE, (largest + more_bytes, before[1]))
    try:
        yield
    finally:
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            process.rlimit(psutil.RLIMIT_FSIZE, before)


@fault(
    "F10",
    "the disk is full, then has room again (everysec)",
    promise="ServerRefused says so, reads go on, 0 acknowledged lost also after a SIGKILL once there was room",
)
async def disk_full_everysec(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    count = 400
    sent = [mixed(40, seed=10_000 * seed + index) for index in range(count)]
    async with (
        victim(binary, folder, "everysec") as server,
        manager_of(server, frame_rows=20, deadline_s=0.4, seed=seed) as manager,
    ):
        writer = await manager.writer("day", "recorder")
        async with no_disk(server, chance.randint(2_000, 40_000)):
            acknowledged, error = await _until_refused(writer, sent)
            assert isinstance(error, ServerRefused)
            assert "can't write to its disk" in str(error)
            assert (await manager.durability()).write_ok is False
            back = await manager.range("day")
            full_at = len(back)
            check_history(back, [(sent, acknowledged)])
        # The server tries its log again once a second.
        await reached(lambda: _writes(manager), 1, lambda: False)
        written = writer.rows
        rest = mixed(40, seed=10_000 * seed + 9_000)
        await writer.append(rest)
        whole = await manager.range("day")
        await kill(server)
        await server.start()
        assert content(await manager.range("day")) == content(whole)
        counts = check_history(whole, [(sent[: acknowledged + 1], acknowledged), ([rest], 1)])
    return counts | {"full_at": full_at, "rows_known": written}


async def _writes(manager: RedisStreamManager) -> int:
    return int((await manager.durability()).write_ok is True)


async def _until_refused(writer: Writer, batches: list[EventBatch]) -> tuple[int, StreamError | None]:
    """Append batch after batch; returns how many were acknowledged, and the error of the one that was not."""
    for index, batch in enumerate(batches):
        try:
            await writer.append(batch)
        except StreamError as error:
            return index, error
    return len(batches), None


@fault(
    "F10",
    "SIGKILL while the disk is full (everysec)",
    promise="a first part comes back; what the server acknowledged and could not write any more is stated",
)
async def disk_full_and_killed(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    sent = [mixed(40, seed=10_000 * seed + index) for index in range(400)]
    async with (
        victim(binary, folder, "everysec") as server,
        manager_at(server, frame_rows=20, deadline_s=0.4, seed=seed) as manager,
    ):
        writer = await manager.writer("day", "recorder")
        async with no_disk(server, chance.randint(2_000, 40_000)):
            acknowledged, error = await _until_refused(writer, sent)
            assert isinstance(error, ServerRefused)
            assert "can't write to its disk" in str(error)
            await kill(server)
        await server.start()
        return check_history(await manager.range("day"), [(sent, acknowledged)], may_lose=True)


@fault(
    "F10",
    "the disk is full (always)",
    promise="the server ends, the error says that none answers, 0 acknowledged lost once there is room",
)
async def disk_full_always(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    sent = [mixed(40, seed=10_000 * seed + index) for index in range(400)]
    async with (
        victim(binary, folder) as server,
        # It does not start the server again: that would have another limit.
        manager_at(server, frame_rows=20, deadline_s=0.4, seed=seed) as manager,
    ):
        writer = await manager.writer("day", "recorder")
        async with no_disk(server, chance.randint(2_000, 40_000)):
            acknowledged, error = await _until_refused(writer, sent)
            assert isinstance(error, (ServerUnreachable, ServerRefused))
            await until(lambda: not server.running)
        await server.start()
        counts = check_history(await manager.range("day"), [(sent, acknowledged)])
        await writer.append(mixed(40, seed=10_000 * seed + 9_000))
    return counts | {"said": type(error).__name__}
