"""A secret in the URL shows nowhere: in no repr, error, traceback with local variables, log or process list."""

from __future__ import annotations

import asyncio
import logging
import os
import traceback
from pathlib import Path

import psutil
import pytest

from hftlab.errors import HftlabError
from hftlab.streams import EmbeddedServer, RedisStreamManager
from hftlab.streams import address as address_module
from tests.faults.showing import everything_about
from tests.streams.batches import trades
from tests.streams.fakes import fake_server
from tests.streams.servers import managed

SECRET = "tops3cr3t"


class Vault:
    """Keeps this module's own frames from showing what must not be seen in hftlab's."""

    def __repr__(self) -> str:
        return "Vault()"

    def url(self, form: str) -> str:
        return form.replace("SECRET", SECRET)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    return caplog


URLS = [
    "redis://:SECRET@127.0.0.1:1",
    "redis://SECRET@127.0.0.1:1",
    "redis://alice:SECRET@127.0.0.1:1/2",
    "redis://127.0.0.1:1?password=SECRET",
    "rediss://alice:SECRET@127.0.0.1:1",
    "unix:///nowhere?password=SECRET",
    "redis://alice:SECRET@127.0.0.1:port",
    "redis://alice:SECRET@127.0.0.1/db",
    "redis://alice:SECRET#@127.0.0.1",
    "redis://alice:SECRET/@127.0.0.1:1",
    "redis://alice:SECRET@[::1",
    "redis+cluster://alice:SECRET@127.0.0.1:1,127.0.0.1:2",
    "rediss+cluster://:SECRET@127.0.0.1:1/",
    "redis+cluster://127.0.0.1:1?username=alice&password=SECRET",
    "redis+cluster://alice:SECRET@127.0.0.1:1/3",
    "redis+cluster://alice:SECRET@127.0.0.1:1,[::1",
    "redis+cluster://alice:SECRET@127.0.0.1:1,",
    "unix+cluster://alice:SECRET@127.0.0.1:1",
    "rediss://alice:SECRET@127.0.0.1:1?ssl_ca_certs=/nowhere",
    "rediss://alice:SECRET@127.0.0.1:1?ssl_cert_reqs=maybe",
    "http://alice:SECRET@127.0.0.1",
    "redis://127.0.0.1?wrong=SECRET&other=SECRET",
]


@pytest.mark.parametrize("form", URLS)
async def test_no_error_on_the_way_to_a_server_shows_it(form: str, logged: pytest.LogCaptureFixture) -> None:
    vault = Vault()
    with pytest.raises(HftlabError) as caught:
        await RedisStreamManager(vault.url(form), deadline_s=0.1).open()
    text = "\n".join(everything_about(caught.value))
    assert "hftlab" in text
    assert SECRET not in text + logged.text


@pytest.fixture
async def guarded(victim: EmbeddedServer) -> tuple[EmbeddedServer, str]:
    """A server with a user whose password is the secret, and the path of its socket."""
    async with managed(victim) as manager:
        await manager._connections.call("ACL", "SETUSER", "alice", "on", f">{SECRET}", "~*", "&*", "+@all", "-config")
    return victim, victim.address.connection["path"]


async def test_the_right_one_works_and_stays_unseen(
    guarded: tuple[EmbeddedServer, str], logged: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    _, path = guarded
    manager = RedisStreamManager(f"unix://{path}?username=alice&password={SECRET}")
    async with manager:
        await manager.append(trades(100), session="day")
        seen = [repr(manager), manager._repr_html_(), repr(manager.statistics()), repr(await manager.durability())]
        seen += [repr(manager.address), str(manager.address), repr(manager._connections._pool)]
        seen += [repr(value) for part in (manager, manager._connections) for value in vars(part).values()]
        assert "unknown" in manager._repr_html_(), "this user may not ask for the configuration"
        with pytest.raises(HftlabError) as caught:
            await manager.set_durability(appendfsync="no")
    seen += everything_about(caught.value)
    assert SECRET not in "\n".join(seen) + logged.text + "".join(capfd.readouterr())


async def test_a_wrong_one_is_not_shown_either(
    guarded: tuple[EmbeddedServer, str], logged: pytest.LogCaptureFixture
) -> None:
    _, path = guarded
    for query in ("password=SECRETx", "username=alice&password=SECRETx", "username=SECRETx&password=SECRET"):
        with pytest.raises(HftlabError) as caught:
            await RedisStreamManager(Vault().url(f"unix://{path}?{query}")).open()
        assert SECRET not in "\n".join(everything_about(caught.value)) + logged.text


@pytest.mark.parametrize("call", ["append", "publish", "range", "tail", "sessions", "export"])
async def test_no_error_of_a_call_shows_it(call: str, tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    def answer(command: list[bytes]) -> bytes:
        if command[0] in (b"AUTH", b"CLIENT"):
            return b"+OK\r\n"
        return b"-ERR refused: " + b" ".join(command[:1]) + f" for the user with {SECRET}".encode() + b"\r\n"

    async with fake_server(answer) as url:
        manager = RedisStreamManager(Vault().url(f"{url}?password=SECRET"), deadline_s=0.1)
        calls = {
            "append": lambda: manager.append(trades(10), session="day"),
            "publish": lambda: manager.publish(trades(1), session="day"),
            "range": lambda: manager.range("day"),
            "tail": lambda: anext(manager.tail("day")),
            "sessions": lambda: manager.sessions(),
            "export": lambda: manager.export_session("day", tmp_path / "x"),
        }
        with pytest.raises(HftlabError, match=r"refused: .*\*\*\*") as caught:
            await calls[call]()  # type: ignore[no-untyped-call]
        assert SECRET not in "\n".join(everything_about(caught.value)) + logged.text
        await manager.close()


async def test_a_call_that_is_cancelled_while_it_signs_in_shows_nothing() -> None:
    signing_in = asyncio.Event()

    def answer(command: list[bytes]) -> None:
        signing_in.set()

    async with fake_server(answer) as url:
        manager = RedisStreamManager(Vault().url(f"{url}?password=SECRET"))
        task = asyncio.create_task(manager.sessions())
        await signing_in.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert SECRET not in "\n".join(everything_about(caught.value))
        await manager.close()


async def test_the_embedded_servers_own_password_is_in_no_process_list_log_or_environment(
    victim: EmbeddedServer,
) -> None:
    assert victim.address.credentials is not None
    password = victim.address.credentials.get_credentials()[-1]
    process = psutil.Process(victim.pid)
    places = [*process.cmdline(), *process.environ().values(), *os.environ.values()]
    places += [(victim.directory / name).read_text() for name in ("server.log", "server.lock")]
    places += [repr(victim), repr(vars(victim)), victim._repr_html_()]
    assert not [place for place in places if password in place]


async def test_a_server_that_fails_to_start_does_not_show_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_urlsafe", lambda count: SECRET)
    binary = tmp_path / "server"
    binary.write_text("#!/bin/sh\ncat > /dev/null\nexit 1\n")
    binary.chmod(0o700)
    with pytest.raises(HftlabError) as caught:
        await EmbeddedServer(tmp_path / ".hftlab", binary=binary).start()
    text = "\n".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert SECRET not in text


def test_the_credentials_show_nothing_by_themselves() -> None:
    credentials = address_module.Credentials("alice", SECRET)
    assert SECRET not in repr(credentials) + str(credentials) + repr(getattr(credentials, "__dict__", ""))
