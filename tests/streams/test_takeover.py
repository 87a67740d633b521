"""A writer that SIGSTOP caught with frames in flight, and that wakes up after another one took its name."""

from __future__ import annotations

import asyncio
import signal
import sys

from hftlab.errors import StreamError, WriterFenced
from hftlab.streams import EmbeddedServer, RedisStreamManager
from tests.streams.batches import content, log_sequences, mixed, trades
from tests.streams.participant import PROJECT, lines, say
from tests.streams.servers import managed

ROWS = 40_000


async def test_a_writer_stopped_with_frames_in_flight_is_refused_when_it_wakes_up(server: EmbeddedServer) -> None:
    async with managed(server) as manager:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, manager._keys.namespace,
            cwd=PROJECT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(server.address.reveal().encode() + b"\n")
            assert await process.stdout.readline() == b"claimed\n"
            await _until_events(manager, 500)
            process.send_signal(signal.SIGSTOP)
            # What lies in the server's socket by now is done before the claim, or after it and then refused.
            new = await manager.writer("day", "recorder")
            taken_over_at = (await manager.session("day")).events
            assert new.rows == taken_over_at < ROWS
            await new.append(mixed(300, seed=2))
            process.send_signal(signal.SIGCONT)
            assert await process.stdout.readline() == b"fenced\n"
            await new.append(mixed(200, seed=3))
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()
            await process.wait()
        back = await manager.range("day")
        assert log_sequences(back) == list(range(taken_over_at + 500))
        assert content(back)[taken_over_at:] == content(mixed(300, seed=2)) + content(mixed(200, seed=3))
        assert content(back)[:taken_over_at] == content(trades(ROWS, seed=1))[:taken_over_at]


async def _until_events(manager: RedisStreamManager, events: int) -> None:
    async with asyncio.timeout(20):
        while (await manager.session("day")).events < events:
            pass


async def zombie(namespace: str) -> None:
    """The other process: writes one long batch in small calls, many of them in flight."""
    url = (await (await lines()).readline()).decode().strip()
    manager = RedisStreamManager(url, namespace=namespace, frame_rows=10, in_flight=64, progress=False)
    batch = trades(ROWS, seed=1)
    async with manager:
        writer = await manager.writer("day", "recorder")
        say("claimed")
        try:
            await writer.append(batch)
        except WriterFenced:
            say("fenced")
        except StreamError as error:
            say("something else", error)


if __name__ == "__main__":
    asyncio.run(zombie(sys.argv[1]))
