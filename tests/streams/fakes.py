"""A server that says what a test tells it to, and a proxy that loses what a test tells it to lose."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

Answer = Callable[[list[bytes]], bytes | None]
"""A command to its reply as RESP; None: no reply, ever."""


async def read_command(reader: asyncio.StreamReader) -> list[bytes] | None:
    """One command as a client sends it, None at the end."""
    head = await reader.readline()
    if not head.startswith(b"*"):
        return None
    words = []
    for _ in range(int(head[1:])):
        length = int((await reader.readline())[1:])
        words.append((await reader.readexactly(length + 2))[:-2])
    return words


@asynccontextmanager
async def fake_server(answer: Answer, *, tcp: bool = False) -> AsyncIterator[str]:
    """A Unix socket (or a port of loopback) where ``answer`` answers; yields its URL."""
    writers: list[asyncio.StreamWriter] = []
    tasks: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        tasks.append(asyncio.current_task())
        while (command := await read_command(reader)) is not None:
            reply = answer(command)
            if reply is not None:
                writer.write(reply)

    with TemporaryDirectory(prefix="hftlab-fake-") as folder:
        path = Path(folder) / "s"
        if tcp:
            server: asyncio.Server = await asyncio.start_server(serve, "127.0.0.1")
            url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        else:
            server = await asyncio.start_unix_server(serve, path)
            url = f"unix://{path}"
        try:
            yield url
        finally:
            server.close()
            for writer in writers:
                writer.close()
            await asyncio.gather(*filter(None, tasks), return_exceptions=True)
            await server.wait_closed()


class Proxy:
    """Between a client and a server's socket: whole commands and replies pass, until ``lose`` says otherwise.

    ``lose(command)`` is asked for each command once its reply is there, that is, once the server has done it. True:
    the reply is dropped and the connection cut, as by a network that fails at the worst moment. ``hold(command)`` is
    awaited before a command goes on to the server.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self.lose: Callable[[list[bytes]], bool] = lambda command: False
        self.hold: Callable[[list[bytes]], Awaitable[None]] = _at_once
        self.lost = 0
        self.done = 0
        """How many scripts the server has run."""
        self.connections = 0
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._serve(reader, writer)
        finally:
            self._serving.discard(task)

    async def end(self) -> None:
        """Give what it serves a second to notice that its clients have gone, and end the rest."""
        if self._serving:
            _, left = await asyncio.wait(set(self._serving), timeout=1.0)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        up_reader, up_writer = await asyncio.open_unix_connection(self._target)
        waiting: asyncio.Queue[list[bytes] | None] = asyncio.Queue()
        back = asyncio.create_task(self._back(waiting, up_reader, writer))
        try:
            while not back.done() and (command := await read_command(reader)) is not None:
                await self.hold(command)
                up_writer.write(encode(command))
                waiting.put_nowait(command)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            waiting.put_nowait(None)
            try:
                await asyncio.gather(back, return_exceptions=True)
            finally:
                up_writer.close()
                writer.close()

    async def _back(
        self,
        waiting: asyncio.Queue[list[bytes] | None],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        while (command := await waiting.get()) is not None:
            reply = await read_reply(reader)
            self.done += command[0] == b"EVALSHA"
            if self.lose(command):
                self.lost += 1
                writer.transport.abort()
                return
            writer.write(reply)


async def _at_once(command: list[bytes]) -> None:
    return None


@asynccontextmanager
async def proxy_to(socket: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy before a server's Unix socket, and the path of its own."""
    proxy = Proxy(socket)
    with TemporaryDirectory(prefix="hftlab-proxy-") as folder:
        path = str(Path(folder) / "s")
        server = await asyncio.start_unix_server(proxy.serve, path)
        try:
            yield proxy, path
        finally:
            server.close()
            await proxy.end()
            await server.wait_closed()


def encode(command: list[bytes]) -> bytes:
    """A command as a client sends it."""
    return b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in command)


async def read_reply(reader: asyncio.StreamReader) -> bytes:
    """One whole reply (RESP2), as its bytes."""
    head = await reader.readuntil(b"\r\n")
    kind, rest = head[:1], head[1:-2]
    if kind == b"$" and int(rest) >= 0:
        return head + await reader.readexactly(int(rest) + 2)
    if kind == b"*":
        return head + b"".join([await read_reply(reader) for _ in range(max(0, int(rest)))])
    return head
