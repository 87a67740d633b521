"""The reply of a call is lost after the server has done it: nothing is written twice, nothing is missing."""

from __future__ import annotations

import random
from itertools import count
from pathlib import Path

from hftlab.events import EventBatch, SignalEvent
from hftlab.streams.cutting import Format
from tests.faults.history import check_history
from tests.faults.suite import Counts, fault
from tests.faults.victims import at_scale, manager_at, socket_of, victim
from tests.streams.batches import content, log_sequences, mixed
from tests.streams.fakes import Proxy, proxy_to

PROMISE = "exactly one entry for each frame"


def losing(proxy: Proxy, seed: int, share: float) -> None:
    """Lose a share of the replies to scripts, whatever they are; the third in any case."""
    chance, seen = random.Random(seed), count(1)
    proxy.lose = lambda command: command[0] in (b"EVALSHA", b"EVAL") and (next(seen) == 3 or chance.random() < share)


async def _append(seed: int, binary: Path, folder: Path, rows: int, form: Format) -> Counts:
    batch = mixed(rows, seed=seed)
    async with victim(binary, folder) as server, proxy_to(socket_of(server)) as (proxy, path):
        losing(proxy, seed, 0.1)
        async with manager_at(server, path, frame_rows=50, deadline_s=20.0, seed=seed) as manager:
            result = await manager.append(batch, session="day", format=form)
            again = await manager.append(batch, session="day", format=form)
        assert proxy.lost > 0
        async with manager_at(server) as manager:
            back = await manager.range("day")
            assert content(back) == content(batch)
            assert log_sequences(back) == list(range(rows))
            info = await manager.session("day")
            streams = manager._keys.session(info.number).streams.values()
            entries = sum(await manager._connections.call_many([("XLEN", stream) for stream in streams]))
    assert entries == result.entries
    assert again.duplicate
    assert (result.first_event_id, result.last_event_id) == (back.event_ids[0], back.event_ids[-1])
    assert info.stored_bytes == result.stored_bytes
    return {"sent": rows, "recovered": len(back), "entries": entries, "lost_replies": proxy.lost}


@fault("F3", "replies to an append of frames are dropped by a proxy", promise=PROMISE)
async def dropped_replies_frames(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    return await _append(seed, binary, folder, at_scale(1_500, scale, 500), "frames")


@fault("F3", "replies to an append of entries are dropped by a proxy", promise="exactly one entry for each event")
async def dropped_replies_entries(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    return await _append(seed, binary, folder, at_scale(1_500, scale, 500), "entries")


@fault("F3", "replies to a named writer are dropped, batch after batch", promise=PROMISE)
async def dropped_replies_writer(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    batches = [mixed(120 + seed % 50, seed=100 * seed + index) for index in range(8)]
    async with (
        victim(binary, folder) as server,
        proxy_to(socket_of(server)) as (proxy, path),
        manager_at(server, path, frame_rows=20, deadline_s=20.0, seed=seed) as manager,
    ):
        writer = await manager.writer("day", "recorder")
        losing(proxy, seed, 0.1)
        results = [await writer.append(batch) for batch in batches]
        proxy.lose = lambda command: False
        back = await manager.range("day")
    assert proxy.lost > 0
    counts = check_history(back, [(batches, len(batches))])
    first = 0
    for batch, result in zip(batches, results, strict=True):
        ids = back.event_ids[[first, first + len(batch) - 1]].tolist()
        assert [result.first_event_id, result.last_event_id] == ids
        first += len(batch)
    return counts | {"lost_replies": proxy.lost}


@fault("F3", "replies to published events are dropped", promise="each event is there once, in order")
async def dropped_replies_published(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    async with (
        victim(binary, folder) as server,
        proxy_to(socket_of(server)) as (proxy, path),
        manager_at(server, path, deadline_s=20.0, seed=seed) as manager,
    ):
        losing(proxy, seed, 0.15)
        for index in range(40):
            event = SignalEvent(symbol="X", signal_type="A", strength=float(index))
            await manager.publish(event, session="day")
        proxy.lose = lambda command: False
        back = await manager.range("day")
    assert proxy.lost > 0
    assert back.records["strength"].tolist() == [float(index) for index in range(40)]
    return {"sent": 40, "recovered": len(back), "lost_replies": proxy.lost}


@fault("F3", "replies to making, renaming and deleting sessions are dropped", promise="each is done once")
async def dropped_replies_sessions(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    async with victim(binary, folder) as server, proxy_to(socket_of(server)) as (proxy, path):
        chance, seen = random.Random(seed), count(1)
        proxy.lose = lambda command: (
            command[0] not in (b"CLIENT", b"AUTH") and (next(seen) == 5 or chance.random() < 0.08)
        )
        async with manager_at(server, path, deadline_s=20.0, seed=seed) as manager:
            for index in range(6):
                await manager.append(EventBatch.empty(), session=f"s{index}")
                await manager.rename(f"s{index}", f"t{index}")
            for index in range(3):
                await manager.delete(f"t{index}")
            assert [info.name for info in await manager.sessions()] == ["t3", "t4", "t5"]
    assert proxy.lost > 0
    return {"calls": 15, "lost_replies": proxy.lost}
