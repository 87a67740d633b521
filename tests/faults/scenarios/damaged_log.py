"""The server's log is cut at its end, or damaged in its middle: what is whole comes back, or the way out is said."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

from hftlab.errors import FolderDamaged, HftlabError, UnknownSession
from hftlab.events import EventBatch, SourceTable, SymbolTable
from hftlab.events.ports import LogRange
from hftlab.streams import EmbeddedServer, RedisStreamManager
from tests.faults.history import check_history, rows_of
from tests.faults.suite import Counts, fault
from tests.faults.victims import at_scale, manager_of, victim
from tests.streams.batches import content, log_sequences, mixed

ROWS = 40


async def _filled(server: EmbeddedServer, seed: int, count: int) -> list[list[EventBatch]]:
    """Two writers' batches, all acknowledged, in the session "day"; the server is stopped afterwards."""
    sent = [[mixed(ROWS, seed=1_000 * seed + 500 * p + index) for index in range(count)] for p in range(2)]
    async with manager_of(server, frame_rows=15) as manager:
        writers = [await manager.writer("day", f"w{p}") for p in range(2)]
        for index in range(count):
            await asyncio.gather(*(writers[p].append(sent[p][index]) for p in range(2)))
    await server.stop()
    return sent


def log_of(server: EmbeddedServer) -> Path:
    """The file that the server appends to: the last part of its log, or all of it on servers before Redis 7."""
    data = server.directory / "data"
    return (sorted(data.rglob("*.incr.aof")) or sorted(data.rglob("*.aof")))[-1]


@fault(
    "F11",
    "the end of the server's log is cut off at a random byte",
    promise="a first part comes back, without holes, and appending goes on behind it",
)
async def log_cut(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    async with victim(binary, folder) as server:
        sent = await _filled(server, seed, at_scale(30, scale, 5))
        log = log_of(server)
        size = log.stat().st_size
        # Every third time within the last call, else anywhere.
        cut = chance.randint(1, min(size, 600)) if seed % 3 == 0 else chance.randint(1, size)
        with log.open("r+b") as file:
            file.truncate(size - cut)
        await server.start()
        async with manager_of(server) as manager:
            try:
                back = await manager.range("day")
            except UnknownSession:
                back = EventBatch.empty()
            counts = check_history(back, [(some, len(some)) for some in sent], may_lose=True)
            more = mixed(ROWS, seed=1_000 * seed + 999)
            await manager.append(more, session="day")
            whole = await manager.range("day")
            assert content(whole) == content(back) + content(more)
            assert log_sequences(whole) == list(range(len(whole)))
    assert counts["lost"] > 0 or cut < 600
    return counts | {"cut_bytes": cut}


@fault(
    "F11",
    "bytes in the middle of the server's log are damaged",
    promise="refused with what to do, or an error, or what is missing is counted; never an event that nobody sent",
)
async def log_damaged(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    found = {"refused": 0, "errors": 0, "counted": 0, "silent": 0, "untouched": 0, "repaired": 0}
    async with victim(binary, folder) as server:
        sent = await _filled(server, seed, at_scale(30, scale, 5))
        log = log_of(server)
        data = bytearray(log.read_bytes())
        length = chance.randint(1, 64)
        start = chance.randint(len(data) // 4, 3 * len(data) // 4)
        data[start : start + length] = chance.randbytes(length)
        log.write_bytes(data)
        refusal = await _refusal(server)
        if refusal is not None:
            assert "--fix" in refusal
            assert "set the folder aside" in refusal
            found["refused"] = 1
            if not await _repaired(binary, log):
                return found
            found["repaired"] = 1
            await server.start()
        async with manager_of(server) as manager:
            told = await _judged(manager, sent)
            if not found["repaired"]:
                found[told] += 1
    return found


async def _refusal(server: EmbeddedServer) -> str | None:
    """What is said where the server refuses to start; None where it starts."""
    try:
        await server.start()
    except FolderDamaged as error:
        return str(error)
    return None


async def _judged(manager: RedisStreamManager, sent: list[list[EventBatch]]) -> str:
    """What a user is told of the damage; fails where an event is there that nobody sent, or twice."""
    total = sum(len(batch) for some in sent for batch in some)
    told = "silent"
    try:
        await manager.range("day")
    except HftlabError:
        told = "errors"
    try:
        info = await manager.session("day")
        rows = manager.read(info, LogRange(), symbols=SymbolTable(), sources=SourceTable(), on_damaged="skip")
        whole = EventBatch.concat([EventBatch.empty(), *[batch async for batch in rows]])
    except HftlabError:
        return "errors"
    if told == "silent" and manager.statistics().events_missing:
        told = "counted"
    assert sum(rows_of(whole, some) for some in sent) == len(whole), "events that nobody sent"
    assert len(set(map(hash, content(whole)))) == len(whole), "an event is there twice"
    logs = log_sequences(whole)
    assert logs == sorted(set(logs))
    return "untouched" if len(whole) == total else told


async def _repaired(binary: Path, log: Path) -> bool:
    """Do what the error says, with the tool that came with the server; False where there is none beside it."""
    tool = shutil.which(binary.name.replace("-server", "-check-aof"), path=str(binary.parent))
    if tool is None:
        return False
    process = await asyncio.create_subprocess_exec(
        tool, "--fix", str(log), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    await process.communicate(b"y\n")
    return process.returncode == 0
