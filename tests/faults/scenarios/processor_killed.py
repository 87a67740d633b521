"""A processor is killed at each step between reading and acknowledging: another one goes on, and the sums are exact."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

from hftlab.streams import RedisStreamManager
from tests.faults.counting import check_counts
from tests.faults.nursery import Member, lab_manager, nursery
from tests.faults.processing import STEPS
from tests.faults.suite import Counts, fault
from tests.faults.victims import at_scale, victim
from tests.streams.batches import mixed
from tests.streams.servers import until

ROWS = 30
FAST = {"checkpoint_s": 0.002}
_RARE = ("acquire", "claim", "release")


@fault(
    "F5",
    "SIGKILL the processor at every step from read to ack, each by itself",
    promise="each event takes effect once, exact sums, nothing pending, no dead letters",
)
async def processor_killed_at_every_step(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    steps = list(STEPS)
    chance.shuffle(steps)
    kills = rows = 0
    async with (
        victim(binary, folder, "no") as server,
        lab_manager(server, frame_rows=7) as manager,
        nursery(server, folder) as members,
    ):
        for step in steps[: at_scale(len(steps), scale, 5)]:
            await manager.append(mixed(ROWS, seed=1_000 * seed + rows), session="day")
            rows += ROWS
            nth = 1 if step.endswith(_RARE) or "claim" in step else chance.randint(1, 2 if "batch" in step else 8)
            while True:
                member = await members.member(events=rows + ROWS, kill_at=step, kill_nth=nth, settings=FAST)
                # What comes while it runs is its as well.
                await manager.append(mixed(ROWS, seed=1_000 * seed + rows), session="day")
                rows += ROWS
                code = await member.end()
                if code == -signal.SIGKILL:
                    break
                assert code == 0, member
                assert nth > 1, f"{step!r} never came: {member}"
                nth = 1
            kills += 1
        last = await members.member(events=rows, settings=FAST)
        assert await last.end() == 0, last
        found = await check_counts(manager, await manager.range("day"))
    assert found["events"] == rows
    return {"kills": kills, "events": rows}


async def _progress(manager: RedisStreamManager) -> int:
    """How far the group has come."""
    return next((info.log_sequence for info in await manager.groups.list("day")), 0)


async def _beyond(manager: RedisStreamManager, goal: int, members: list[Member]) -> None:
    """Wait until the group's position is at least ``goal``."""
    deadline = asyncio.get_running_loop().time() + 20
    while (at := await _progress(manager)) < goal:
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"{at} of {goal}: {members}, {await manager.groups.list('day')}")
        await asyncio.sleep(0.001)


async def _active(manager: RedisStreamManager, members: list[Member]) -> Member:
    """The member that has the group, by what the server says."""
    deadline = asyncio.get_running_loop().time() + 20
    while True:
        holder = next((info.holder for info in await manager.groups.list("day")), "")
        for member in members:
            if member.key == holder and member.code is None:
                return member
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"none is active: {members}, {await manager.groups.list('day')}")
        await asyncio.sleep(0.001)


@fault(
    "F5",
    "SIGKILL the active of two processors again and again while a writer appends",
    promise="the other one takes over at once; each event takes effect once, exact sums",
)
async def processors_killed_at_random(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    kills = at_scale(8, scale)
    rows = 0
    done = False
    async with (
        victim(binary, folder, "no") as server,
        lab_manager(server, frame_rows=11) as manager,
        nursery(server, folder) as members,
    ):
        await manager.append(mixed(50, seed=seed), session="day")

        async def produce() -> int:
            """Append until the last kill."""
            count = 0
            writer = await manager.writer("day", "recorder")
            while not done:
                count += 1
                if count > 10:
                    # Handlers with a dozen effects an event are slower than this writer is.
                    await _beyond(manager, writer.rows - 500, running)
                await writer.append(mixed(chance.randint(1, 60), seed=1_000 * seed + count))
            return count

        running = [await members.member(settings=FAST) for _ in range(2)]
        producing = asyncio.create_task(produce())
        try:
            for _ in range(kills):
                active = await _active(manager, running)
                await _beyond(manager, await _progress(manager) + chance.randint(1, 200), running)
                victims = list(running) if chance.random() < 0.2 else [active]
                for one in victims:
                    await one.kill()
                running = [one for one in running if one not in victims]
                running += [await members.member(settings=FAST) for _ in victims]
        finally:
            done = True
        batches = await producing
        rows = (await manager.session("day")).events
        await _beyond(manager, rows, running)
        await _ended(running)
        await check_counts(manager, await manager.range("day"))
    return {"kills": kills, "batches": batches, "events": rows}


async def _ended(running: list[Member]) -> None:
    """Have them stop in good order."""
    for one in running:
        one.signal(signal.SIGTERM)
    for one in running:
        assert await one.end() == 0, one


@fault(
    "F5",
    "SIGSTOP the active processor until its lease has run out, then SIGCONT",
    promise="the other one goes on, the zombie is refused and stands by; exact sums",
)
async def processor_stopped_beyond_its_lease(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    pauses = at_scale(4, scale)
    settings = {**FAST, "lease_s": 0.4}
    async with (
        victim(binary, folder, "no") as server,
        lab_manager(server, frame_rows=11) as manager,
        nursery(server, folder) as members,
    ):
        await manager.append(mixed(50, seed=seed), session="day")
        running = [await members.member(settings=settings) for _ in range(2)]
        refused = 0
        for turn in range(pauses):
            stopped = await _active(manager, running)
            (other,) = [one for one in running if one is not stopped]
            appending = asyncio.create_task(_append_some(manager, chance, 1_000 * seed + 10 * turn))
            await _beyond(manager, await _progress(manager) + chance.randint(1, 30), running)
            stopped.signal(signal.SIGSTOP)
            # Its last call may be on its way: whoever has the lease by then has it for good.
            assert await _active(manager, [other]) is other
            await appending
            before = len(stopped.said)
            stopped.signal(signal.SIGCONT)
            await until(lambda: "state standing by" in stopped.said[before:])  # noqa: B023
            refused += 1
        rows = (await manager.session("day")).events
        await _beyond(manager, rows, running)
        await _ended(running)
        await check_counts(manager, await manager.range("day"))
    return {"pauses": pauses, "refused": refused, "events": rows}


async def _append_some(manager: RedisStreamManager, chance: random.Random, seed: int) -> None:
    for index in range(8):
        await manager.append(mixed(chance.randint(5, 40), seed=seed + index), session="day", key=f"{seed}-{index}")
