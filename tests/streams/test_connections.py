"""Servers that are not there, refuse, hang or go away: retried until a deadline, then a clear error."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import time
from pathlib import Path

import pytest

from hftlab.errors import AuthenticationFailed, ServerRefused, ServerUnreachable, StreamError, ValidationError
from hftlab.streams import Address, EmbeddedServer, RedisStreamManager
from hftlab.streams.refusals import judge
from tests.streams.batches import log_sequences, trades
from tests.streams.fakes import fake_server
from tests.streams.servers import fresh_namespace, managed, until


def impatient(url: str | Address, **settings: object) -> RedisStreamManager:
    return RedisStreamManager(url, deadline_s=0.25, progress=False, seed=1, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "unix:///nowhere/at/all", "redis://nowhere.invalid:6379"])
async def test_a_server_that_is_not_there_is_an_error_that_says_how_to_start_one(url: str) -> None:
    manager = impatient(url)
    with pytest.raises(ServerUnreachable, match=r"no server answers at .*EmbeddedServer") as caught:
        await manager.open()
    assert isinstance(caught.value, ConnectionError)
    assert "within 0.25 s" in caught.value.__notes__[0]
    assert manager.statistics().retries > 0
    await manager.close()


async def test_a_wrong_or_missing_password_is_told_at_once(server: EmbeddedServer) -> None:
    path = server.address.connection["path"]
    for url in (f"unix://{path}", f"unix://{path}?password=wrong", f"unix://{path}?password=wrong&username=nobody"):
        manager = impatient(url)
        begin = time.monotonic()
        with pytest.raises(AuthenticationFailed, match="another user or password"):
            await manager.open()
        assert manager.statistics().retries == 0
        assert time.monotonic() - begin < 5
        await manager.close()


@pytest.mark.parametrize(
    ("reply", "meaning"),
    [
        (b"-LOADING Valkey is loading the dataset in memory\r\n", "still loading its data"),
        (b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", "its memory is full"),
        (b"-MISCONF Errors writing to the AOF file: No space left on device\r\n", "can't write to its disk"),
        (b"-READONLY You can't write against a read only replica.\r\n", "read-only replica"),
        (b"-BUSY Valkey is busy running a script.\r\n", "script has been running"),
    ],
)
async def test_a_server_that_refuses_for_now_is_tried_until_the_deadline(reply: bytes, meaning: str) -> None:
    async with fake_server(lambda command: b"+OK\r\n" if command[0] == b"CLIENT" else reply) as url:
        manager = impatient(url)
        with pytest.raises(ServerRefused, match=meaning):
            await manager.append(trades(3), session="day")
        assert manager.statistics().retries > 0
        await manager.close()


async def test_a_server_that_has_loaded_meanwhile_is_used(embedded: EmbeddedServer) -> None:
    replies = iter([b"-LOADING not yet\r\n"] * 3)
    async with fake_server(lambda command: next(replies, b"$-1\r\n") if command[0] == b"HGET" else b"+OK\r\n") as url:
        manager = RedisStreamManager(url, seed=1)
        assert await manager._connections.call("HGET", "a", "b") is None
        assert manager.statistics().retries == 3
        await manager.close()


async def test_a_refusal_that_time_does_not_heal_is_told_at_once() -> None:
    async with fake_server(lambda command: b"-ERR unknown command\r\n") as url:
        manager = RedisStreamManager(url)
        with pytest.raises(ServerRefused, match="unknown command"):
            await manager.sessions()
        assert manager.statistics().retries == 0
        await manager.close()


async def test_a_server_that_hangs_is_given_up_after_the_deadline() -> None:
    async with fake_server(lambda command: None) as url:
        manager = impatient(url)
        with pytest.raises(ServerUnreachable, match="did not answer in time"):
            await manager.sessions()
        await manager.close()


async def test_a_stopped_server_is_waited_for(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path / ".hftlab") as server, managed(server) as manager:
        await manager.append(trades(10), session="day")
        os.kill(server.pid or 0, signal.SIGSTOP)
        task = asyncio.create_task(manager.append(trades(5_000, seed=1), session="day"))
        await asyncio.sleep(0.05)
        assert not task.done()
        os.kill(server.pid or 0, signal.SIGCONT)
        await task
        assert log_sequences(await manager.range("day")) == list(range(5_010))


async def test_a_server_that_is_restarted_is_reconnected_to(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path / ".hftlab", appendfsync="always") as server, managed(server) as manager:
        await manager.append(trades(10), session="day")
        os.kill(server.pid or 0, signal.SIGKILL)
        await until(lambda: not server.running)
        reading = asyncio.create_task(manager.range("day"))
        writing = asyncio.create_task(manager.append(trades(10, seed=1), session="day"))
        await until(lambda: manager.statistics().retries >= 2)
        await server.restart()
        assert len(await reading) in (10, 20)
        await writing
        assert log_sequences(await manager.range("day")) == list(range(20))


async def test_opening_and_closing_again_does_no_harm(embedded: EmbeddedServer) -> None:
    manager = RedisStreamManager(embedded.address, namespace=fresh_namespace())
    await manager.close()
    for _ in range(2):
        assert await manager.open() is manager
        await manager.open()
        await manager.append(trades(3), session="day")
        await manager.publish(trades(1), session="day")
        await manager.close()
        await manager.close()
        with pytest.raises(StreamError, match="the streams are closed"):
            await manager.sessions()


async def test_closing_ends_what_is_under_way(embedded: EmbeddedServer) -> None:
    manager = RedisStreamManager(embedded.address, namespace=fresh_namespace(), frame_rows=10, progress=False)
    task = asyncio.create_task(manager.append(trades(50_000), session="day"))
    await until(lambda: manager.statistics().events_appended > 100)
    await manager.close()
    with pytest.raises((StreamError, asyncio.CancelledError)):
        await task


async def test_nothing_connects_before_it_is_needed() -> None:
    manager = RedisStreamManager("redis://127.0.0.1:1")
    assert (
        repr(manager) == "RedisStreamManager(redis://127.0.0.1:1/0, namespace 'hftlab'; durability not asked for yet)"
    )
    assert "not opened yet" in manager._repr_html_()
    await manager.close()


def test_another_event_loop_is_told_apart(embedded: EmbeddedServer) -> None:
    manager = RedisStreamManager(embedded.address, namespace=fresh_namespace())

    async def use() -> None:
        await manager.sessions()

    with asyncio.Runner() as one, asyncio.Runner() as other:
        one.run(use())
        with pytest.raises(StreamError, match="another event loop"):
            other.run(use())
        one.run(manager.close())


async def test_more_work_than_connections_waits_for_its_turn(embedded: EmbeddedServer) -> None:
    async with managed(embedded, connections=2) as manager:
        await asyncio.gather(*(manager.append(trades(200, seed=seed), session="day") for seed in range(12)))
        assert log_sequences(await manager.range("day")) == list(range(2_400))


async def test_a_pool_that_stays_exhausted_is_told_apart_from_a_server_that_is_gone(embedded: EmbeddedServer) -> None:
    manager = impatient(embedded.address, connections=1)
    async with manager._connections.link():
        with pytest.raises(StreamError, match="all 1 connections are in use"):
            await manager.sessions()
    await manager.sessions()
    await manager.close()


async def test_tcp_and_databases_work_as_unix_sockets_do(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path / ".hftlab") as server:
        async with managed(server) as manager:
            port = await _open_port(manager)
        password = server.address.credentials.get_credentials()[-1] if server.address.credentials else ""
        async with RedisStreamManager(f"redis://:{password}@127.0.0.1:{port}/3") as manager:
            await manager.append(trades(2_000), session="day")
            assert log_sequences(await manager.range("day")) == list(range(2_000))
        async with RedisStreamManager(f"redis://default:{password}@127.0.0.1:{port}/4") as manager:
            assert await manager.sessions() == []


async def _open_port(manager: RedisStreamManager) -> int:
    for port in range(21_000, 21_100):
        try:
            await manager._connections.call("CONFIG", "SET", "bind", "127.0.0.1", "port", port)
        except ServerRefused:
            continue
        return port
    pytest.fail("no port is free")


@pytest.mark.parametrize(
    "wrong",
    [
        {"in_flight": 0},
        {"frame_rows": 0},
        {"deadline_s": 0},
        {"on_damaged": "ignore"},
        {"namespace": "{}"},
        {"session": ""},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RedisStreamManager("redis://localhost", **wrong)  # type: ignore[arg-type]


def test_a_certificate_that_does_not_fit_is_not_tried_again() -> None:
    address = Address({}, None, "rediss://host:6379/0")
    verdict = judge(ssl.SSLCertVerificationError(1, "certificate verify failed"), address)
    assert isinstance(verdict.error, ServerUnreachable)
    assert not verdict.retry
    assert "TLS handshake" in str(verdict.error)
