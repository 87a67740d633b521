"""The process that appends is killed, and another one does the same again: the events are there, once each."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from hftlab.streams import EmbeddedServer
from tests.faults.history import check_history
from tests.streams.batches import mixed
from tests.streams.servers import managed, until

PROJECT = Path(__file__).resolve().parents[2]

APPEND = """
import asyncio, sys
from hftlab.streams import Address, RedisStreamManager
from tests.streams.batches import mixed

async def main(path, frame_rows, rows, seed):
    address = Address.unix(path, sys.stdin.readline().strip())
    async with RedisStreamManager(address, namespace="n", frame_rows=int(frame_rows), in_flight=4) as manager:
        print("ready", flush=True)
        print(await manager.append(mixed(int(rows), seed=int(seed)), session="day"), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def start(server: EmbeddedServer, frame_rows: int, rows: int, seed: int) -> subprocess.Popen[str]:
    assert server.address.credentials is not None
    path = server.address.connection["path"]
    process = subprocess.Popen(
        [sys.executable, "-c", APPEND, path, str(frame_rows), str(rows), str(seed)],
        cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(server.address.credentials.get_credentials()[-1] + "\n")
    process.stdin.close()
    process.stdin = None
    return process


@pytest.mark.parametrize("seed", range(2))
async def test_an_append_that_was_killed_is_completed_by_whoever_repeats_it(victim: EmbeddedServer, seed: int) -> None:
    rows, chance = 4_000, random.Random(seed)
    killed_at = []
    async with managed(victim, namespace="n") as watcher:
        await watcher.append(mixed(0), session="day")
        for frame_rows in (7, 11):
            process = start(victim, frame_rows, rows, seed)
            before = (await watcher.session("day")).events
            goal = before + chance.randint(50, 1_200)
            seen = [before]

            async def progress(seen: list[int] = seen) -> int:
                seen[0] = (await watcher.session("day")).events
                return seen[0]

            while await progress() < goal and process.poll() is None:
                pass
            process.kill()
            process.communicate()
            killed_at.append(await progress())
        last = start(victim, 1_024, rows, seed)
        await until(lambda: last.poll() is not None, 60)
        output, _ = last.communicate()
        assert f"AppendResult('day': {rows:,} events in" in output
        counts = check_history(await watcher.range("day"), [([mixed(rows, seed=seed)], 1)], whole=True)
    assert 0 < killed_at[0] < killed_at[1] < rows
    print(f"seed {seed}: killed at {killed_at}, {counts}")
