"""A word with a server before it is used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from hftlab.streams import greeting as greeting_module
from hftlab.streams.address import Address
from hftlab.streams.durability import FSYNCS, Fsync
from hftlab.streams.greeting import Greeting, greet


class Server:
    """Answers a line with what it is told to; None: nothing, ever."""

    def __init__(self, answer: Callable[[bytes], bytes | None]) -> None:
        self.heard: list[bytes] = []
        self.serving: set[asyncio.Task[None] | None] = set()
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.current_task())
        try:
            while line := await reader.readline():
                self.heard.append(line.strip())
                reply = self._answer(line.strip())
                if reply is not None:
                    writer.write(reply)
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()


@asynccontextmanager
async def answering(answer: Callable[[bytes], bytes | None]) -> AsyncIterator[tuple[Server, Address]]:
    with TemporaryDirectory(prefix="hftlab-fake-") as folder:
        path = str(Path(folder) / "s")
        fake = Server(answer)
        server = await asyncio.start_unix_server(fake.serve, path)
        try:
            yield fake, Address.unix(path, "secret")
        finally:
            server.close()
            await asyncio.gather(*filter(None, fake.serving))
            await server.wait_closed()
            # A transport lets go of its socket one turn of the loop after it was closed.
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("auth", "ping", "expected"),
    [
        (b"+OK\r\n", b"+PONG\r\n", Greeting.READY),
        (b"+OK\r\n", b"-LOADING the dataset\r\n", Greeting.LOADING),
        (b"+OK\r\n", b"-MASTERDOWN\r\n", Greeting.SILENT),
        (b"-WRONGPASS\r\n", b"+PONG\r\n", Greeting.REFUSED),
        (b"+OK\r\n", b"x" * 100_000, Greeting.SILENT),
    ],
)
async def test_a_greeting_tells_what_state_a_server_is_in(auth: bytes, ping: bytes, expected: Greeting) -> None:
    async with answering(lambda line: auth if line.startswith(b"AUTH") else ping) as (fake, address):
        assert await greet(address) is expected
        assert fake.heard[0] == b"AUTH secret"


async def test_a_server_that_is_not_there_or_says_nothing_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(greeting_module, "_DEADLINE_S", 0.05)
    assert await greet(Address.unix("/nowhere/at/all", "secret")) is Greeting.SILENT
    async with answering(lambda line: None) as (_, address):
        assert await greet(address) is Greeting.SILENT


@pytest.mark.parametrize("held", FSYNCS)
@pytest.mark.parametrize("wanted", FSYNCS)
async def test_a_log_is_synced_as_often_as_wanted_or_more_often(held: Fsync, wanted: Fsync) -> None:
    def answer(line: bytes) -> bytes:
        if line.startswith(b"CONFIG GET"):
            return b"*2\r\n$11\r\nappendfsync\r\n$%d\r\n%s\r\n" % (len(held), held.encode())
        return b"+PONG\r\n" if line == b"PING" else b"+OK\r\n"

    async with answering(answer) as (fake, address):
        assert await greet(address, wanted) is Greeting.READY
        told = [line for line in fake.heard if line.startswith(b"CONFIG SET")]
        stricter = FSYNCS.index(wanted) < FSYNCS.index(held)
        assert told == ([f"CONFIG SET appendfsync {wanted}".encode()] if stricter else [])


async def test_a_server_that_will_not_sync_as_often_is_not_ready() -> None:
    def answer(line: bytes) -> bytes:
        if line.startswith(b"CONFIG GET"):
            return b"*2\r\n$11\r\nappendfsync\r\n$2\r\nno\r\n"
        return b"-ERR no\r\n" if line.startswith(b"CONFIG") else b"+PONG\r\n" if line == b"PING" else b"+OK\r\n"

    async with answering(answer) as (_, address):
        assert await greet(address, "always") is Greeting.SILENT
