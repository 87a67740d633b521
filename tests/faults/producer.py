"""A process that appends, to be killed or paused: ``python -m tests.faults.producer SOCKET WAY FRAME_ROWS ROWS SEED``.

The server's password comes on standard input. ``WAY`` is ``append`` (one keyed append of ``ROWS`` rows) or a writer's
name (batches of ``ROWS`` rows without end; says ``acknowledged N`` after each). It says ``fenced`` when another writer
took over.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Self

from hftlab.errors import WriterFenced
from hftlab.events import EventBatch
from hftlab.streams import Address, EmbeddedServer, RedisStreamManager
from tests.streams.batches import mixed

PROJECT = Path(__file__).resolve().parents[2]
SESSION = "day"
NAMESPACE = "n"


def batch_of(seed: int, index: int, rows: int) -> EventBatch:
    """The batch that a named writer sends as its ``index``-th."""
    return mixed(rows, seed=10_000 * seed + index)


class Producer:
    """The test's end of such a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.acknowledged = 0
        self.said: list[str] = []
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, server: EmbeddedServer, way: str, frame_rows: int, rows: int, seed: int) -> Self:
        """Start one. End it with ``kill``, or wait for its end."""
        path: str = server.address.connection["path"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, path, way, str(frame_rows), str(rows), str(seed),
            cwd=PROJECT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert server.address.credentials is not None
        assert process.stdin is not None
        process.stdin.write(server.address.credentials.get_credentials()[-1].encode() + b"\n")
        process.stdin.close()
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it is gone, and all that it said was heard."""
        return self._listening.done()

    def signal(self, number: int) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone and all that it said was heard."""
        if self._process.returncode is None:
            self._process.kill()
        await self.end()

    async def end(self) -> None:
        await self._process.wait()
        await self._listening

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        # A line without an end was cut by a kill.
        while (line := await self._process.stdout.readline()).endswith(b"\n"):
            text = line.decode().rstrip()
            word, _, rest = text.partition(" ")
            if word == "acknowledged":
                self.acknowledged = int(rest)
            else:
                self.said.append(text)


async def main(path: str, way: str, frame_rows: str, rows: str, seed: str) -> None:
    address = Address.unix(path, sys.stdin.readline().strip())
    manager = RedisStreamManager(
        address, namespace=NAMESPACE, frame_rows=int(frame_rows), in_flight=4, progress=False, deadline_s=60.0
    )
    async with manager:
        if way == "append":
            print(await manager.append(mixed(int(rows), seed=int(seed)), session=SESSION), flush=True)
            return
        try:
            writer = await manager.writer(SESSION, way)
            index = 0
            while True:
                await writer.append(batch_of(int(seed), index, int(rows)))
                index += 1
                print("acknowledged", index, flush=True)
        except WriterFenced as error:
            print("fenced", error, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
