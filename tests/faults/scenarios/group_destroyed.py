"""What a processor reads is destroyed under it: its group is made again where it stands, or the loss is named."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

import hftlab as hl
from hftlab.errors import BackgroundFailed, UnknownSession
from hftlab.events import EventType
from hftlab.pipeline import State
from hftlab.streams import RedisStreamManager
from tests.faults.counting import check_counts, count_events
from tests.faults.processors import FAST, at_work
from tests.faults.suite import Counts, fault
from tests.faults.victims import at_scale
from tests.streams.batches import mixed
from tests.streams.servers import until


@fault(
    "F8",
    "XGROUP DESTROY, and groups.destroy, under a running processor",
    promise="made again at its position, counted in groups_lost; nothing lost or doubled",
)
async def group_destroyed(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    times = at_scale(6, scale, 2)
    async with at_work(binary, folder) as (_, manager, lab):
        await manager.append(mixed(200, seed=seed), session="day")
        processor = lab.processor("g", "day", **FAST)
        count_events(lab.bus, processor)
        await processor.start()
        for turn in range(times):
            appending = asyncio.create_task(_append_some(manager, chance, 1_000 * seed + 20 * turn))
            await _handled(processor, processor.statistics().handled + chance.randint(0, 120))
            lost = processor.statistics().groups_lost
            if turn % 2:
                await manager.groups.destroy("day", "g")
            else:
                stream = manager._keys.session(1).streams[chance.choice(list(EventType))]
                assert await manager._connections.call("XGROUP", "DESTROY", stream, "g") == 1
            await until(lambda: processor.statistics().groups_lost > lost)  # noqa: B023
            await appending
        await processor.drain()
        # What was delivered again and had been handled before is acknowledged with the next commit.
        await manager.append(mixed(10, seed=1_000 * seed + 999), session="day")
        await processor.drain()
        shown = processor.statistics()
        await processor.stop()
        found = await check_counts(manager, await manager.range("day"))
    assert shown.lost == 0
    return found | {"destroyed": times, "made_again": shown.groups_lost}


async def _append_some(manager: RedisStreamManager, chance: random.Random, seed: int) -> None:
    for index in range(8):
        await manager.append(mixed(chance.randint(5, 40), seed=seed + index), session="day", key=f"{seed}-{index}")


async def _handled(processor: hl.EventProcessor, goal: int) -> None:
    await until(lambda: processor.statistics().handled >= goal or processor.statistics().lag == 0)


@fault(
    "F8",
    "FLUSHALL, or the session deleted, under a running processor",
    promise="it fails at once and says that group and session are gone; the next call raises; no task is left",
)
async def session_gone(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    async with at_work(binary, folder) as (_, manager, lab):
        await manager.append(mixed(200, seed=seed), session="day")
        processor = lab.processor("g", "day", **FAST)
        count_events(lab.bus, processor)
        await processor.start()
        await _handled(processor, chance.randint(0, 200))
        if seed % 2:
            await manager.delete("day")
        else:
            await manager._connections.call("FLUSHALL")
        await until(lambda: processor.state is State.FAILED)
        assert "failed" in repr(processor)
        assert "is lost: its session does not exist any more" in repr(processor), repr(processor)
        with pytest.raises(BackgroundFailed, match="GroupLost"):
            await processor.drain()
        with pytest.raises(UnknownSession):
            await processor.start()
        # The same name, anew: whoever begins there begins at its start.
        await manager.append(mixed(30, seed=seed + 1), session="day", key="again")
        again = lab.processor("g", "day", **FAST)
        await again.start()
        await again.drain()
        assert again.statistics().handled == again.statistics().position == 30
        await again.stop()
    return {"gone": 1}
