"""From what is recorded to what comes, from a place on, and into successors: each event once, in order."""

from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path

from hftlab.events.records import split_event_id
from hftlab.streams import RedisStreamManager
from tests.faults.counting import check_counts, count_events
from tests.faults.processors import FAST, at_work, eventually, logs_of
from tests.faults.suite import Counts, fault
from tests.faults.victims import at_scale
from tests.streams.batches import START_NS, STEP_NS, mixed, trades

ROW = "F5"


@fault(
    ROW,
    "a processor goes from history to following while a writer appends at full speed",
    promise="each event once, in order",
)
async def handed_over_to_live(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    batches = at_scale(300, scale, 60)
    made = [mixed(chance.randint(1, 40), seed=1_000 * seed + index) for index in range(batches)]
    async with at_work(binary, folder) as (_, manager, lab):
        await manager.append(trades(chance.randint(1, 5_000), seed=seed), session="day")
        seen = logs_of(lab)
        processor = lab.processor("g", "day", **FAST)
        writer = await manager.writer("day", "recorder")
        began = chance.randint(0, batches // 2)
        restarts = 0
        for index, batch in enumerate(made):
            if index == began:
                await processor.start()
            elif index > began and chance.random() < 4 / batches:
                await processor.stop()
                await processor.start()
                restarts += 1
            await writer.append(batch)
        await processor.drain()
        total = (await manager.session("day")).events
        assert seen == [(1, log) for log in range(total)]
        assert processor.statistics().lag == 0
        await processor.stop()
    return {"events": total, "restarts": restarts}


@fault(
    ROW,
    "start= at a time, at an event, and now, while a writer appends",
    promise="exactly the events from there on",
)
async def begun_at_a_place(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    count = chance.randint(50, 400)
    async with at_work(binary, folder) as (_, manager, lab):
        await manager.append(mixed(count, seed=seed), session="day")
        whole = await manager.range("day")
        at = chance.randint(0, count - 1)
        places: list[tuple[str, int | str, int]] = [
            ("event", int(whole.event_ids[at]), at),
            ("time", START_NS + at * STEP_NS, at),
            ("now", "now", count),
            ("start", "start", 0),
        ]
        total = count
        seen = logs_of(lab)
        for group, start, first in places:
            if group == "now":
                first = total
            processor = lab.processor(group, "day", start=start, **FAST)
            seen.clear()
            await processor.start()
            await manager.append(mixed(20, seed=seed + total, start_ns=START_NS + total * STEP_NS), session="day")
            total += 20
            await processor.drain()
            await processor.stop()
            assert seen == [(1, log) for log in range(first, total)], (group, first, total, seen[:3])
            # A group that exists goes on where it is, whatever start= says.
            again = lab.processor(group, "day", start="start", **FAST)
            seen.clear()
            await again.start()
            await again.drain()
            await again.stop()
            assert seen == []
    return {"places": len(places), "events": total}


@fault(
    ROW,
    "sessions are sealed and succeeded under a processor, and while it is stopped",
    promise="it goes on in the successor; each event of all sessions once, in order",
)
async def handed_over_to_successors(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    names = ["day", "night", "day 2", "night 2"]
    async with at_work(binary, folder) as (_, manager, lab):
        await manager.append(mixed(chance.randint(1, 100), seed=seed), session="day")
        processor = lab.processor("g", "day", **FAST)
        count_events(lab.bus, processor)
        seen = logs_of(lab)
        await processor.start()
        stops = 0
        for index, (name, following) in enumerate(itertools.pairwise(names)):
            await manager.append(mixed(chance.randint(1, 100), seed=100 * seed + index), session=name, key="a")
            if chance.random() < 0.5:
                await processor.stop()
                stops += 1
            await manager.succeed(name, following)
            await manager.append(mixed(chance.randint(1, 100), seed=100 * seed + 50 + index), session=following)
            if not processor.running:
                await processor.start()
        await eventually(lambda: _at_end(manager, names[-1]))
        await processor.drain()
        assert processor.statistics().session == names[-1]
        await processor.stop()
        wholes = [await manager.range(name) for name in names]
        assert seen == [split_event_id(number) for whole in wholes for number in whole.event_ids.tolist()]
        found = await check_counts(manager, *wholes, session=names[-1])
        for name in names[:-1]:
            await check_counts(manager, *wholes, session=name)
    return found | {"sessions": len(names), "stops": stops}


async def _at_end(manager: RedisStreamManager, session: str) -> bool:
    await asyncio.sleep(0)
    return any(info.group == "g" and info.lag == 0 for info in await manager.groups.list(session))
