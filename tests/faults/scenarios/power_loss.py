"""The machine loses power: of every file of the server's log there is what was there when it was last synced.

SIGKILL alone does not tell the ways of syncing apart, for the page cache survives it. A library that is loaded into
the server notes each file's length at each fsync; after the kill, the files are cut back to that.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hftlab.errors import AppendConflict, ServerUnreachable, UnknownSession
from hftlab.events import EventBatch
from hftlab.streams import RedisStreamManager
from hftlab.streams.durability import Fsync
from hftlab.streams.writers import Writer
from tests.faults.history import check_history, rows_of
from tests.faults.suite import Counts, NotHere, fault
from tests.faults.victims import manager_at, pid_of, victim
from tests.streams.batches import mixed
from tests.streams.servers import until

SOURCE = Path(__file__).resolve().parents[1] / "fsync_notes.c"
ROWS = 20


@fault("F2", "power loss: the log is cut to its last fsync (always)", promise="0 acknowledged lost, no holes")
async def power_loss_always(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    counts = await _lose_power(seed, binary, folder, "always", 0.2 + 0.8 * scale * random.Random(seed).random())
    assert counts["lost"] == 0
    return counts


@fault(
    "F2",
    "power loss: the log is cut to its last fsync (everysec)",
    promise="a first part is there, without holes; what is lost is stated, and its writer is told (AppendConflict)",
)
async def power_loss_everysec(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    return await _lose_power(seed, binary, folder, "everysec", 0.2 + scale * (1.0 + 1.5 * random.Random(seed).random()))


async def _lose_power(seed: int, binary: Path, folder: Path, appendfsync: Fsync, for_s: float) -> Counts:
    notes = folder / "notes"
    notes.touch()
    sent: list[list[EventBatch]] = [[], []]
    acknowledged_ns: list[list[int]] = [[], []]
    async with (
        victim(noting(binary, folder, notes), folder, appendfsync) as server,
        # They never start the server again: the power is off.
        manager_at(server, frame_rows=7, deadline_s=0.5, seed=seed) as manager,
    ):
        writers = [await manager.writer("day", f"w{p}") for p in range(2)]

        async def produce(p: int) -> None:
            while True:
                sent[p].append(mixed(ROWS, seed=1_000_000 * seed + 100_000 * p + len(sent[p])))
                await writers[p].append(sent[p][-1])
                acknowledged_ns[p].append(time.monotonic_ns())
                await asyncio.sleep(0.004)

        producing = [asyncio.create_task(produce(p)) for p in range(2)]
        await asyncio.sleep(for_s / 2)
        if seed % 2:
            # The log goes on in new files while the server writes the old ones anew.
            await manager._connections.call("BGREWRITEAOF")
        await asyncio.sleep(for_s / 2)
        await until(lambda: all(map(len, acknowledged_ns)))
        off_ns = time.monotonic_ns()
        os.kill(pid_of(server), signal.SIGKILL)
        ends = await asyncio.gather(*producing, return_exceptions=True)
        assert all(isinstance(end, ServerUnreachable) for end in ends), ends
        await until(lambda: not server.running)
        cut_bytes = cut_to_last_sync(server.directory / "data", notes)
        await server.start()
        back = await _recovered(manager)
        counts = check_history(
            back, [(sent[p], len(acknowledged_ns[p])) for p in range(2)], may_lose=appendfsync != "always"
        )
        loss_ns = 0
        for p in range(2):
            lost = acknowledged_ns[p][rows_of(back, sent[p]) // ROWS :]
            loss_ns = max(loss_ns, off_ns - lost[0] if lost else 0)
            await _writer_is_told(writers[p], bool(lost))
    return counts | {"rewrites": seed % 2, "cut_bytes": cut_bytes, "loss_ms": max(0.0, loss_ns / 1e6)}


async def _recovered(manager: RedisStreamManager) -> EventBatch:
    """What is there; nothing, where the session itself was lost."""
    try:
        return await manager.range("day")
    except UnknownSession:
        return EventBatch.empty()


async def _writer_is_told(writer: Writer, lost: bool) -> None:
    """A writer whose acknowledged rows are gone must learn of it, and may not leave a hole behind it."""
    try:
        await writer.append(mixed(ROWS, seed=77))
    except (AppendConflict, UnknownSession):
        assert lost, "the writer was told of a loss that there was not"
    else:
        assert not lost, "acknowledged rows are gone, and their writer went on as if they were there"


def noting(binary: Path, folder: Path, notes: Path) -> Path:
    """A program that becomes the server, with the library that notes what it syncs."""
    wrapped = folder / "noting-server"
    environment = f"LD_PRELOAD={shlex.quote(str(_library()))} FSYNC_NOTES={shlex.quote(str(notes))}"
    wrapped.write_text(f'#!/bin/sh\nexec env {environment} {shlex.quote(str(binary))} "$@"\n')
    wrapped.chmod(0o700)
    return wrapped


def cut_to_last_sync(data: Path, notes: Path) -> int:
    """Take from every file what was written after it was last synced; returns how many bytes that were.

    The log is several files (``appendonlydir``: a base, what came since, a manifest), each known by its inode, for
    they are renamed. What was done to the folder itself (names) is taken as it is.
    """
    synced: dict[int, int] = {}
    for line in notes.read_text().splitlines():
        inode, length, _ = map(int, line.split())
        synced[inode] = length
    files = [path for path in data.rglob("*") if path.is_file()]
    assert any(path.stat().st_ino in synced for path in files), "no sync was noted: was the library loaded?"
    cut = 0
    for path in files:
        there = path.stat()
        keep = min(there.st_size, synced.get(there.st_ino, 0))
        os.truncate(path, keep)
        cut += there.st_size - keep
    return cut


@functools.cache
def _library() -> Path:
    """The library, compiled once a process."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        raise NotHere("noting what a server syncs takes Linux (LD_PRELOAD) and a C compiler (cc)")
    folder = Path(tempfile.mkdtemp(prefix="hftlab-fsync-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = folder / "fsync_notes.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl"], check=True)
    return library
