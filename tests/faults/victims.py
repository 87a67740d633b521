"""Servers that a scenario may kill, pause and starve, and managers that reach them by a way of the test's own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hftlab.streams import Address, EmbeddedServer, RedisStreamManager
from hftlab.streams.durability import Fsync
from tests.streams.servers import until

NAMESPACE = "n"


@asynccontextmanager
async def victim(binary: Path, folder: Path, appendfsync: Fsync = "always") -> AsyncIterator[EmbeddedServer]:
    """A server over a folder of its own, which syncs its log before it answers."""
    server = EmbeddedServer(folder / ".hftlab", binary=binary, appendfsync=appendfsync)
    async with server:
        yield server


def manager_of(server: EmbeddedServer, **settings: Any) -> RedisStreamManager:
    """A manager that starts the server again by itself where that is gone, as every user's does."""
    settings = {"namespace": NAMESPACE, "progress": False, **settings}
    return RedisStreamManager(server.address, **settings)


def manager_at(server: EmbeddedServer, path: str | None = None, **settings: Any) -> RedisStreamManager:
    """A manager that knows a socket only (the server's, or a proxy's), and never starts a server."""
    settings = {"namespace": NAMESPACE, "progress": False, **settings}
    return RedisStreamManager(Address.unix(path or socket_of(server), password_of(server)), **settings)


def socket_of(server: EmbeddedServer) -> str:
    """The path of a server's socket."""
    path: str = server.address.connection["path"]
    return path


def password_of(server: EmbeddedServer) -> str:
    """A server's password."""
    assert server.address.credentials is not None
    return server.address.credentials.get_credentials()[-1]


def pid_of(server: EmbeddedServer) -> int:
    """The process id of a server that runs."""
    assert server.pid is not None, "the server does not run"
    return server.pid


async def kill(server: EmbeddedServer) -> None:
    """SIGKILL the server; returns when that one is gone, though its clients may have started it again by then."""
    await until(lambda: server.running)
    pid = pid_of(server)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: server.pid != pid)


async def reached(progress: Callable[[], Awaitable[int]], goal: int, done: Callable[[], bool]) -> int:
    """Ask for the progress until it reaches the goal, or all is done; returns what it was."""
    async with asyncio.timeout(60.0):
        while True:
            found = await progress()
            if found >= goal or done():
                return found
            await asyncio.sleep(0.001)


def at_scale(count: int, scale: float, least: int = 1) -> int:
    """How many of ``count`` a trial of that scale does."""
    return max(least, round(count * scale))
