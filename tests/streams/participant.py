"""A process that takes part in sharing a folder's server: run by tests, told what to do by lines on standard input.

``python -m tests.streams.participant FOLDER APPENDFSYNC`` says ``server PID`` once it has one. It ends with its
standard input, so that none outlives the tests.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Literal, Self, cast

from hftlab.events import EventBatch
from hftlab.streams import EmbeddedServer, RedisStreamManager
from tests.streams.batches import mixed

PROJECT = Path(__file__).resolve().parents[2]
ROWS = 24


def batches_of(producer: int, count: int) -> list[EventBatch]:
    """What a producer sends, the same in every process."""
    return [mixed(ROWS, seed=1_000 * producer + index) for index in range(count)]


def manager_of(server: EmbeddedServer) -> RedisStreamManager:
    """A manager as all participants have it: small frames, so that a batch is several calls."""
    return RedisStreamManager(server.address, namespace="n", frame_rows=10, deadline_s=20.0, progress=False)


class Participant:
    """The test's end of such a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._answers: asyncio.Queue[list[str]] = asyncio.Queue()
        self.acknowledged = 0
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, folder: Path, appendfsync: str = "always", *, program: str = __name__) -> Self:
        """Start one; it is not known to be there before ``answer``."""
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", program, str(folder), appendfsync,
                cwd=PROJECT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            )
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    async def answer(self, word: str) -> str:
        """The rest of the next line that begins with ``word``."""
        async with asyncio.timeout(30.0):
            said = await self._answers.get()
        assert said[:1] == [word], said
        return " ".join(said[1:])

    async def server(self) -> int:
        """The process id of the server that it uses, after an operation there."""
        self.tell("server")
        return int(await self.answer("server"))

    def tell(self, *words: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write((" ".join(map(str, words)) + "\n").encode())

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone and all that it said was heard."""
        if self._process.returncode is None:
            self._process.kill()
        await self.ended()

    def close_input(self) -> None:
        """The end of its standard input: it ends as a script does that never stopped its server."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def ended(self) -> None:
        await self._process.wait()
        await self._listening

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        # A line without an end was cut by a kill.
        while (line := await self._process.stdout.readline()).endswith(b"\n"):
            words = line.decode().split()
            if words[0] == "acknowledged":
                self.acknowledged = int(words[1])
            else:
                self._answers.put_nowait(words)
        # Whoever waits for an answer is not to wait for the deadline.
        self._answers.put_nowait(["nothing any more"])


async def lines() -> asyncio.StreamReader:
    """Standard input, read without blocking the loop."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def say(*words: object) -> None:
    """One line to the test."""
    print(*words, flush=True)


async def _produce(manager: RedisStreamManager, producer: int, count: int) -> None:
    writer = await manager.writer("day", f"w{producer}")
    for index, batch in enumerate(batches_of(producer, count)):
        await writer.append(batch)
        say("acknowledged", index + 1)


async def main(folder: str, appendfsync: str) -> None:
    server = await EmbeddedServer(folder, appendfsync=cast(Literal["always", "everysec", "no"], appendfsync)).start()
    manager = manager_of(server)
    say("server", server.pid)
    background: list[asyncio.Task[None]] = []
    async for line in await lines():
        command, *arguments = line.decode().split()
        if command == "server":
            await manager.sessions()
            say("server", server.pid)
        elif command == "produce":
            producer, count = map(int, arguments)
            background.append(asyncio.create_task(_produce(manager, producer, count)))
        elif command == "stop":
            await manager.close()
            await server.stop()
            say("stopped")
            return


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
