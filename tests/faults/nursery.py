"""The test's end of processes with a processor: see ``processing``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from hftlab.streams import EmbeddedServer, RedisStreamManager
from tests.faults.processing import Order
from tests.faults.victims import manager_at
from tests.streams.servers import until

PROJECT = Path(__file__).resolve().parents[2]
LAB_NAMESPACE = "hftlab"


def lab_manager(server: EmbeddedServer, **settings: Any) -> RedisStreamManager:
    """A manager in the namespace that labs use."""
    return manager_at(server, namespace=LAB_NAMESPACE, **settings)


class Member:
    """A process with one processor."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.pid = 0
        self.said: list[str] = []
        self.code: int | None = None

    def signal(self, number: int) -> None:
        """Send it a signal; nothing where it has ended."""
        if self.code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def end(self) -> int:
        """Wait for its end; returns its exit code, -9 after SIGKILL."""
        await until(lambda: self.code is not None, 60.0)
        assert self.code is not None
        return self.code

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.signal(signal.SIGKILL)
        await self.end()

    @property
    def state(self) -> str:
        """What its processor's state was last."""
        states = [line.removeprefix("state ") for line in self.said if line.startswith("state ")]
        return states[-1] if states else ""

    def __repr__(self) -> str:
        return f"Member({self.key}, {self.code}, {self.said})"


class Nursery:
    """Where members come from."""

    def __init__(self, process: asyncio.subprocess.Process, server: EmbeddedServer, folder: Path) -> None:
        self._process, self._server, self._folder = process, server, folder
        self._members: dict[str, Member] = {}
        self._keys = count(1)
        self.heard: asyncio.Task[None] = asyncio.create_task(self._hear())

    async def member(self, **order: Any) -> Member:
        """Start one; see ``processing.Order``. Returns when it has a process."""
        key = f"m{next(self._keys)}"
        member = self._members[key] = Member(key)
        directory = order.pop("directory", str(self._folder / "lab"))
        asked = Order(key=key, url=self._server.address.reveal(), directory=directory, **order)
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(asked) + b"\n")
        await until(lambda: member.pid)
        return member

    async def _hear(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            key, _, rest = line.decode().strip().partition(" ")
            if key not in self._members:
                continue
            member = self._members[key]
            word, _, value = rest.partition(" ")
            if word == "is":
                member.pid = int(value)
            elif word == "ended":
                member.code = int(value)
            else:
                member.said.append(rest)


@asynccontextmanager
async def nursery(server: EmbeddedServer, folder: Path) -> AsyncIterator[Nursery]:
    """A nursery; all its members are killed at its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.processing",
        cwd=PROJECT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    made = Nursery(process, server, folder)
    try:
        yield made
    finally:
        for member in made._members.values():
            member.signal(signal.SIGCONT)
        process.stdin.close()
        await process.wait()
        await made.heard
