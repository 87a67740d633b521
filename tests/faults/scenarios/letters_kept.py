"""What a processor's handlers fail on: tried again, kept, redriven; through a SIGKILL, and a server that is full."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import hftlab as hl
from hftlab.events.records import split_event_id
from hftlab.pipeline import RetryPolicy, State
from hftlab.streams.backoff import BackoffPolicy
from tests.faults.counting import check_counts, count_events, note
from tests.faults.nursery import nursery
from tests.faults.processors import FAST, at_work
from tests.faults.scenarios.full_server import fill, make_room
from tests.faults.suite import Counts, fault
from tests.faults.victims import at_scale
from tests.streams.batches import mixed
from tests.streams.servers import until

SOON = RetryPolicy(attempts=2, backoff_s=0.01, longest_s=0.05)


class Poisoned:
    """A handler that fails on some events, as long as ``poison`` says so, and counts the others' effects."""

    def __init__(self, lab: hl.Lab, processor: hl.EventProcessor, poison: set[int]) -> None:
        self.poison = poison
        self.tries: dict[int, int] = {}

        @lab.bus.on(name="event")
        def poisoned(event: hl.Event) -> None:
            number, log = split_event_id(event.event_id)
            self.tries[log] = self.tries.get(log, 0) + 1
            with processor.transaction() as transaction:
                note(transaction, "event", number, log, event.symbol)
                if log in self.poison:
                    raise ValueError(f"can't do {log}")


@fault(
    "F13",
    "a handler of a processor fails on some events",
    promise="each is tried again by the policy, then kept; redriven, its effects happen once; others are not held up",
)
async def poison_in_a_processor(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    count = chance.randint(30, 300)
    async with at_work(binary, folder) as (_, manager, lab):
        await manager.append(mixed(count, seed=seed), session="day")
        poison = set(chance.sample(range(count), 6))
        once = chance.choice(sorted(poison))
        processor = lab.processor("g", "day", retry=SOON, **FAST)
        handler = Poisoned(lab, processor, set(poison))
        await processor.start()
        await until(lambda: handler.tries.get(once, 0) >= 2)
        # The first retry came: from the next one on, this one goes well.
        handler.poison.discard(once)
        dead = sorted(handler.poison)
        await until(lambda: all(handler.tries.get(log) == 3 for log in dead))
        await processor.drain()
        letters = await processor.letters()
        while len(letters) > len(dead):
            await processor.checkpoint()
            letters = await processor.letters()
        assert sorted(letter.log_sequence for letter in letters) == dead
        assert {(letter.attempts, letter.due_ns) for letter in letters} == {(3, 0)}
        assert all(f"can't do {letter.log_sequence}" in letter.error for letter in letters)
        # Redriven before it is mended: tried once more, and kept.
        assert await processor.redrive(letters[0]) == 1
        await until(lambda: handler.tries[letters[0].log_sequence] == 4)
        await processor.drain()
        again = {letter.log_sequence: letter for letter in await processor.letters()}
        assert sorted(again) == dead
        assert again[letters[0].log_sequence].attempts == 4
        # Across a restart, mended: one by itself, then all.
        await processor.stop()
        await processor.start()
        handler.poison.clear()
        kept = await processor.letters()
        assert await processor.redrive(kept[0]) == 1
        await processor.drain()
        assert await processor.redrive() == len(dead) - 1
        await processor.drain()
        shown = processor.statistics()
        assert not await processor.letters()
        await processor.stop()
        assert shown.mended == len(poison)
        found = await check_counts(manager, await manager.range("day"), ways=("event",))
        assert all(tries == 1 for log, tries in handler.tries.items() if log not in poison)
    return found | {"poison": len(poison), "retried": shown.retried}


@fault(
    "F13",
    "SIGKILL a processor that has dead letters, and redrive them in the next one",
    promise="no letter is lost or doubled; redriven, the effects happen once",
)
async def letters_survive_a_kill(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    rows = at_scale(chance.randint(60, 200), scale, 30)
    async with at_work(binary, folder) as (server, manager, lab), nursery(server, folder) as members:
        await manager.append(mixed(rows, seed=seed), session="day")
        poison = sorted(chance.sample(range(rows), 8))
        kills = at_scale(4, scale, 1)
        moments = ("before commit", "commit sent", "commit done", "after commit")
        for _ in range(kills):
            member = await members.member(
                events=rows, poison=poison, kill_at=chance.choice(moments), kill_nth=chance.randint(1, 3), settings=FAST
            )
            assert await member.end() in (0, -9), member
        last = await members.member(events=rows, poison=poison, settings=FAST)
        assert await last.end() == 0, last
        processor = lab.processor("g", "day", **FAST)
        count_events(lab.bus, processor)
        await processor.start()
        letters = await processor.letters()
        assert sorted(letter.log_sequence for letter in letters) == poison
        assert {letter.handler for letter in letters} == {"event"}
        assert await processor.redrive() == len(poison)
        await processor.drain()
        assert not await processor.letters()
        await processor.stop()
        found = await check_counts(manager, await manager.range("day"))
    return found | {"letters": len(poison), "kills": kills}


@fault(
    "F10",
    "the server's memory is full, then has room again, under a processor with dead letters",
    promise="AWAY with the reason, letters on the disk meanwhile; nothing lost or doubled, the spill file drained",
)
async def memory_full_under_a_processor(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed)
    count = chance.randint(300, 600)
    async with at_work(binary, folder) as (_, manager, lab):
        await manager.append(mixed(count, seed=seed), session="day")
        # A refusal is told once it has lasted for a call's deadline, which is 10 s otherwise; a silence after 1 s.
        lab.streams._connections.policy = BackoffPolicy(deadline_s=1.3)
        poison = set(chance.sample(range(count), 12))
        processor = lab.processor("g", "day", retry=RetryPolicy(attempts=0), checkpoint_s=0.002)
        handler = Poisoned(lab, processor, set(poison))
        goal = chance.randint(1, count - 1)
        full = asyncio.Event()

        @lab.bus.on(name="brake")
        async def brake(event: hl.Event) -> None:
            # Half of the events come to a server that is full.
            if split_event_id(event.event_id)[1] == goal:
                await fill(manager)
                full.set()

        await processor.start()
        await full.wait()
        states: set[State] = set()

        def away() -> bool:
            states.add(processor.state)
            return State.AWAY in states

        await until(away)
        assert State.STALLED not in states, "a server that refuses is not one that does not answer"
        assert "memory" in processor.statistics().trouble, processor.statistics().trouble
        assert "memory" in repr(processor)
        await until(lambda: len(handler.tries) == count)
        spilled = processor.statistics().spilled
        await make_room(manager)
        await processor.drain()
        shown = processor.statistics()
        assert not shown.trouble
        letters = await processor.letters()
        assert sorted(letter.log_sequence for letter in letters) == sorted(poison)
        spill = list((folder / "lab" / "letters").glob("*.spill"))
        assert not any(path.stat().st_size for path in spill), spill
        handler.poison.clear()
        await processor.redrive()
        await processor.drain()
        assert not await processor.letters()
        await processor.stop()
        found = await check_counts(manager, await manager.range("day"), ways=("event",))
    return found | {"letters": len(poison), "spilled": spilled}
