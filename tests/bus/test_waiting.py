"""Signals and the line of those who wait for room."""

from __future__ import annotations

import asyncio

import pytest

from hftlab.bus.waiting import Signal, Turnstile
from tests.bus.samples import until


async def test_a_signal_wakes_all_who_wait_and_nobody_who_comes_later() -> None:
    signal = Signal()
    early = [asyncio.create_task(signal.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    signal.notify()
    late = asyncio.create_task(signal.wait())
    await asyncio.gather(*early)
    assert not late.done()
    signal.notify()
    await late


async def test_a_cancelled_waiter_is_forgotten() -> None:
    signal = Signal()
    task = asyncio.create_task(signal.wait())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert signal._waiters == []
    signal.notify()


def test_a_signal_outlives_its_loop() -> None:
    signal = Signal()

    async def once() -> None:
        task = asyncio.create_task(signal.wait())
        await asyncio.sleep(0)
        signal.notify()
        await task

    asyncio.run(once())
    asyncio.run(once())


async def test_only_the_first_in_line_tries() -> None:
    progress = Signal()
    line = Turnstile(progress)
    tried: list[str] = []
    room = 0

    def attempt(name: str) -> bool:
        nonlocal room
        tried.append(name)
        if not room:
            return False
        room -= 1
        return True

    tasks = [asyncio.create_task(line.wait_until(lambda name=name: attempt(name))) for name in "abc"]  # type: ignore[misc]
    await until(lambda: len(line) == 3)
    assert tried == ["a"]
    room = 1
    progress.notify()
    await tasks[0]
    await until(lambda: tried[-1] == "b")
    assert tried == ["a", "a", "b"]
    room = 2
    progress.notify()
    await asyncio.gather(*tasks)
    assert tried == ["a", "a", "b", "b", "c"]
    assert len(line) == 0


@pytest.mark.parametrize("leaver", [0, 1, 2])
async def test_whoever_leaves_the_line_holds_up_nobody(leaver: int) -> None:
    progress = Signal()
    line = Turnstile(progress)
    done: list[int] = []
    room = False

    def attempt(number: int) -> bool:
        if room:
            done.append(number)
        return room

    tasks = [asyncio.create_task(line.wait_until(lambda n=n: attempt(n))) for n in range(3)]  # type: ignore[misc]
    await until(lambda: len(line) == 3)
    tasks[leaver].cancel()
    await asyncio.wait([tasks[leaver]])
    room = True
    progress.notify()
    await asyncio.wait(tasks)
    assert done == [n for n in range(3) if n != leaver]


async def test_what_an_attempt_raises_ends_the_wait_and_the_next_goes_on() -> None:
    progress = Signal()
    line = Turnstile(progress)
    broken = False

    def attempt() -> bool:
        if broken:
            raise ValueError("wanted")
        return False

    first = asyncio.create_task(line.wait_until(attempt))
    second = asyncio.create_task(line.wait_until(lambda: broken))
    await until(lambda: len(line) == 2)
    broken = True
    progress.notify()
    with pytest.raises(ValueError, match="wanted"):
        await first
    await second
