"""One folder, several processes, one server: whoever of them ends, and however, the others go on with the data."""

# ruff: noqa: ASYNC240 (a test may look into a small folder)

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import hftlab as hl
from hftlab.errors import StreamError
from hftlab.streams import EmbeddedServer
from hftlab.streams.address import Credentials
from hftlab.streams.folder import DataFolder, read_key, write_key
from tests.faults.history import check_history
from tests.streams.batches import log_sequences, trades
from tests.streams.participant import Participant, batches_of, manager_of
from tests.streams.servers import until

SEEDS = (1, 2)
Starter = Callable[..., Coroutine[Any, Any, Participant]]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where all the processes of a test put their sockets; short, as sockets' paths must be."""
    folder = tempfile.mkdtemp(prefix="s-", dir="/tmp")
    monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
    yield Path(folder)
    shutil.rmtree(folder)


@pytest.fixture
def folder(tmp_path: Path, runtime: Path) -> Path:
    return tmp_path / ".hftlab"


@pytest.fixture
async def participant(folder: Path) -> AsyncIterator[Starter]:
    """Starts participants; all are gone when the test is, and no server is left on the folder."""
    started: list[Participant] = []

    async def start(*arguments: str, **settings: str) -> Participant:
        started.append(await Participant.start(folder, *arguments, **settings))
        return started[-1]

    yield start
    for one in started:
        await one.kill()
    await until(lambda: _is_free(folder))


def _is_free(folder: Path) -> bool:
    """Whether no server lives on the folder: the lock lives as long as one does."""
    lock = DataFolder(folder).try_lock()
    if lock is not None:
        os.close(lock)
    return lock is not None


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_second_process_uses_the_server_of_the_first_and_leaves_it_running(
    folder: Path, runtime: Path, participant: Starter
) -> None:
    first = await participant()
    pid = int(await first.answer("server"))
    async with EmbeddedServer(folder) as server, manager_of(server) as manager:
        assert (server.pid, server.running) == (pid, True)
        await manager.append(trades(30), session="day")
        with pytest.raises(StreamError, match=f"started by the process {first.pid}"):
            await server.restart()
        password = server.address.credentials.get_credentials()[-1] if server.address.credentials else ""
        assert password
        assert password not in repr(vars(server)) + (folder / "server.lock").read_text()
    assert not server.running or server.pid != pid
    assert await first.server() == pid
    assert len(list(runtime.iterdir())) == 1


async def test_processes_that_start_at_once_start_one_server(participant: Starter) -> None:
    several = [await participant() for _ in range(3)]
    assert len({await one.answer("server") for one in several}) == 1


@pytest.mark.parametrize("end", ["killed", "stopped", "standard input"])
async def test_appends_go_on_when_the_owner_ends_and_nothing_is_lost_or_doubled(
    folder: Path, runtime: Path, participant: Starter, end: str
) -> None:
    owner = await participant()
    pid = int(await owner.answer("server"))
    sent = batches_of(0, 40)
    ending: asyncio.Task[None] | None = None
    async with EmbeddedServer(folder, appendfsync="always") as server, manager_of(server) as manager:
        writer = await manager.writer("day", "w0")
        for index, batch in enumerate(sent):
            if index == 10:
                ending = asyncio.create_task(_end(owner, end))
            await writer.append(batch)
        assert ending is not None
        await ending
        await until(lambda: not alive(pid))
        # An append more, since the server may have lived until now.
        await manager.append(batches_of(1, 1)[0], session="day")
        assert server.pid not in (None, pid)
        check_history(await manager.range("day"), [(sent, 40), (batches_of(1, 1), 1)], whole=True)
        assert manager.statistics().retries < 100
        assert len(list(runtime.iterdir())) == 1, "the folder of the old socket is gone"
    assert not list(runtime.iterdir())


async def _end(one: Participant, how: str) -> None:
    if how == "killed":
        await one.kill()
    elif how == "stopped":
        one.tell("stop")
        await one.answer("stopped")
        await one.ended()
    else:
        one.close_input()
        await one.ended()


async def test_a_server_that_crashes_is_started_again_by_whoever_needs_it_first(
    folder: Path, participant: Starter
) -> None:
    idle = await participant()
    pid = int(await idle.answer("server"))
    async with EmbeddedServer(folder) as server, manager_of(server) as manager:
        await manager.append(trades(30), session="day")
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not server.running)
        assert log_sequences(await manager.range("day")) == list(range(30))
        assert server.pid not in (None, pid)
        assert psutil.Process(server.pid).ppid() == os.getpid()
        assert await idle.server() == server.pid, "the first one follows"


async def test_of_two_that_would_take_over_one_does(participant: Starter) -> None:
    owner = await participant()
    pid = int(await owner.answer("server"))
    others = [await participant() for _ in range(2)]
    for one in others:
        assert int(await one.answer("server")) == pid
    await owner.kill()
    await until(lambda: not alive(pid))
    for one in others:
        one.tell("server")
    found = {int(await one.answer("server")) for one in others}
    assert len(found) == 1
    assert pid not in found


async def test_a_paused_owner_holds_nobody_up_and_follows_when_it_wakes(folder: Path, participant: Starter) -> None:
    owner = await participant()
    pid = int(await owner.answer("server"))
    async with EmbeddedServer(folder) as server, manager_of(server) as manager:
        owner.signal(signal.SIGSTOP)
        await manager.append(trades(30), session="day")
        assert server.pid == pid
        os.kill(pid, signal.SIGKILL)
        await manager.append(trades(30, seed=1), session="day")
        assert server.pid != pid
        owner.signal(signal.SIGCONT)
        owner.tell("produce", 1, 3)
        await until(lambda: owner.acknowledged == 3)
        assert await owner.server() == server.pid
        assert len(await manager.range("day")) == 60 + sum(map(len, batches_of(1, 3)))


async def test_when_all_are_killed_nothing_runs_and_the_next_start_clears_up(
    folder: Path, runtime: Path, participant: Starter
) -> None:
    both = [await participant() for _ in range(2)]
    pid = int(await both[0].answer("server"))
    await both[1].answer("server")
    for producer, one in enumerate(both):
        one.tell("produce", producer, 200)
    await until(lambda: all(one.acknowledged > 3 for one in both))
    for one in both:
        one.signal(signal.SIGKILL)
    for one in both:
        await one.kill()
    await until(lambda: not alive(pid))
    stale = set(runtime.iterdir())
    async with EmbeddedServer(folder) as server, manager_of(server) as manager:
        assert not stale & set(runtime.iterdir())
        back = await manager.range("day")
        check_history(back, [(batches_of(p, 200), one.acknowledged) for p, one in enumerate(both)])
    assert not list(runtime.iterdir())


# The first kills a guest and then the owner, the second the owner and then another.
@pytest.mark.parametrize("seed", SEEDS)
async def test_three_that_are_killed_one_after_the_other_lose_nothing(
    folder: Path, participant: Starter, seed: int
) -> None:
    chance = random.Random(seed)
    three = [await participant() for _ in range(3)]
    pids = {int(await one.answer("server")) for one in three}
    owner = psutil.Process(next(iter(pids))).ppid()
    three.sort(key=lambda one: one.pid != owner)
    for producer, one in enumerate(three):
        one.tell("produce", producer, 60)
    running = list(three)
    while len(running) > 1:
        goal = sum(one.acknowledged for one in running) + chance.randint(1, 30)
        await until(lambda: sum(one.acknowledged for one in running) >= goal or _done(running))  # noqa: B023
        victim = running.pop(chance.randrange(len(running)))
        await victim.kill()
        print(f"seed {seed}: killed {three.index(victim)} after {[one.acknowledged for one in three]}")
    await until(lambda: running[0].acknowledged == 60)
    pids.add(await running[0].server())
    await running[0].kill()
    await until(lambda: not any(map(alive, pids)))
    async with EmbeddedServer(folder) as server, manager_of(server) as manager:
        sent = [(batches_of(p, 60), one.acknowledged) for p, one in enumerate(three)]
        print(f"seed {seed}: {check_history(await manager.range('day'), sent)}")


def _done(several: list[Participant]) -> bool:
    return all(one.acknowledged == 60 for one in several)


async def test_of_several_wishes_how_often_the_log_is_synced_the_strictest_rules(
    folder: Path, participant: Starter
) -> None:
    lax = await participant("everysec")
    pid = int(await lax.answer("server"))
    async with EmbeddedServer(folder, appendfsync="always") as server, manager_of(server) as manager:
        assert (await manager.durability()).appendfsync == "always"
        async with EmbeddedServer(folder, appendfsync="no"):
            assert (await manager.durability()).appendfsync == "always"
        await lax.kill()
        await until(lambda: not alive(pid))
        assert (await manager.durability()).appendfsync == "always", "also when it has been taken over"
        assert psutil.Process(server.pid).ppid() == os.getpid()


async def _follow(lab: hl.Lab, seen: list[int]) -> None:
    async for batch in lab.streams.tail("live", after=0):
        seen.extend(log_sequences(batch))


@pytest.mark.parametrize("killed", ["owner", "guest"])
async def test_a_lab_goes_on_whoever_of_two_is_killed(folder: Path, participant: Starter, killed: str) -> None:
    other: Participant | None = None
    if killed == "owner":
        other = await participant(program="tests.streams.lab_participant")
        await other.answer("server")
    async with hl.Lab(directory=folder) as lab:
        if other is None:
            other = await participant(program="tests.streams.lab_participant")
            await other.answer("server")
        assert lab._server is not None
        pid = lab._server.pid or 0
        await lab.streams.append(trades(250_000), session="day")
        await lab.streams.append(trades(10), session="live")
        tailed: list[int] = []
        tailing = asyncio.create_task(_follow(lab, tailed))
        await until(lambda: len(tailed) == 10)
        victim, counted = other, 0

        @lab.bus.on(hl.MarketDataEvent, mode="batch")
        async def count(batch: hl.EventBatch) -> None:
            nonlocal counted
            counted += len(batch)
            if counted == len(batch):
                # In the middle of a running replay, of which most is not read yet.
                os.kill(victim.pid, signal.SIGKILL)
                await until(lambda: killed == "guest" or not alive(pid))

        replay = await lab.replay("day", prefetch=1).run()
        assert (replay.delivered, counted) == (250_000, 250_000)
        assert (lab.streams.statistics().retries > 0) == (killed == "owner")
        digest = replay.digest
        await victim.kill()
        await until(lambda: killed == "guest" or not alive(pid))
        await lab.streams.append(trades(10, seed=1), session="live")
        await until(lambda: len(tailed) >= 20)
        tailing.cancel()
        assert tailed == list(range(20))
        assert log_sequences(await lab.streams.range("live")) == list(range(20))
        assert (await lab.replay("day").run()).digest == digest
        assert (lab._server.pid == pid) == (killed == "guest")


async def test_a_key_that_somebody_else_could_have_left_is_not_used(tmp_path: Path) -> None:
    mine = tmp_path / "hftlab-mine"
    mine.mkdir(mode=0o700)
    write_key(mine, Credentials(None, "open sesame"))
    found = read_key(mine)
    assert found is not None
    assert found.get_credentials() == ("open sesame",)
    (tmp_path / "link").symlink_to(mine)
    assert read_key(tmp_path / "link") is None
    mine.chmod(0o755)
    assert read_key(mine) is None, "others may look into it"
    mine.chmod(0o700)
    (mine / "server.key").rename(tmp_path / "moved")
    assert read_key(mine) is None
    (mine / "server.key").symlink_to(tmp_path / "moved")
    assert read_key(mine) is None
