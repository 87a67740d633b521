"""The supervisor: background tasks that outlive the cell that started them, and whose failures are not lost."""

from __future__ import annotations

import asyncio

import pytest

from hftlab.errors import BackgroundFailed
from hftlab.supervise import Supervisor


async def forever() -> None:
    await asyncio.Event().wait()


async def test_work_goes_on_until_it_is_closed_whoever_started_it() -> None:
    supervisor = Supervisor("lab")
    turns: list[str] = []

    async def work() -> None:
        try:
            while True:
                turns.append("turn")
                await asyncio.sleep(0)
        finally:
            turns.append("ended")

    async def cell() -> None:
        supervisor.start(work=work)

    await asyncio.create_task(cell())
    for _ in range(5):
        await asyncio.sleep(0)
    assert supervisor.running
    assert len(turns) > 2
    await supervisor.close()
    assert turns[-1] == "ended"
    supervisor.raise_failure()


async def test_starting_and_closing_again_is_harmless() -> None:
    supervisor = Supervisor("lab")
    begun = []

    async def work() -> None:
        begun.append(1)
        await forever()

    for _ in range(3):
        supervisor.start(work=work)
        await asyncio.sleep(0)
    assert begun == [1]
    for _ in range(2):
        await supervisor.close()
    supervisor.start(work=work)
    await asyncio.sleep(0)
    assert begun == [1, 1]
    await supervisor.close()
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_a_failure_is_kept_and_raised_once_with_its_cause() -> None:
    supervisor = Supervisor("lab")

    async def broken() -> None:
        raise OSError("out of luck")

    supervisor.start(broken=broken, fine=forever)
    for _ in range(3):
        await asyncio.sleep(0)
    assert isinstance(supervisor.failure, OSError)
    with pytest.raises(BackgroundFailed, match="out of luck") as caught:
        supervisor.raise_failure()
    assert isinstance(caught.value.__cause__, OSError)
    supervisor.raise_failure()
    await supervisor.close()
    supervisor.start(fine=forever)
    supervisor.raise_failure()  # a new start begins with a clean slate
    await supervisor.close()


async def test_work_that_somebody_else_cancels_has_died() -> None:
    supervisor = Supervisor("lab")
    supervisor.start(pump=forever)
    await asyncio.sleep(0)
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "lab: pump"]
    task.cancel()
    await asyncio.wait([task])
    with pytest.raises(BackgroundFailed, match="lab: pump was cancelled"):
        supervisor.raise_failure()
    assert supervisor.running  # its heartbeat
    await supervisor.close()


async def test_closing_is_no_failure() -> None:
    supervisor = Supervisor("lab")
    supervisor.start(pump=forever)
    await asyncio.sleep(0)
    await supervisor.close()
    assert supervisor.failure is None
    assert not supervisor.running


async def test_closing_that_was_cancelled_can_be_done_again() -> None:
    supervisor = Supervisor("lab")
    let_go = asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await forever()
        finally:
            await let_go.wait()

    supervisor.start(work=slow_to_end)
    await asyncio.sleep(0)
    closing = asyncio.create_task(supervisor.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert supervisor.running
    let_go.set()
    await supervisor.close()
    assert not supervisor.running


async def test_its_own_work_can_not_close_it() -> None:
    supervisor = Supervisor("lab")
    asked = asyncio.Event()

    async def closes() -> None:
        try:
            await supervisor.close()
        finally:
            asked.set()

    supervisor.start(work=closes)
    await asked.wait()
    await asyncio.sleep(0)
    with pytest.raises(BackgroundFailed, match="can't be closed by its own background work"):
        supervisor.raise_failure()
    await supervisor.close()


def test_the_end_of_a_loop_ends_its_work_and_another_loop_may_start_it_again() -> None:
    supervisor = Supervisor("lab")
    begun: list[int] = []

    async def work() -> None:
        begun.append(1)
        await forever()

    async def script() -> None:
        supervisor.start(work=work)
        await asyncio.sleep(0)

    for _ in range(2):
        asyncio.run(script())
        assert not supervisor.running
    assert begun == [1, 1]
    asyncio.run(supervisor.close())


async def test_work_that_is_added_runs_beside_the_rest_and_ends_with_it_or_by_itself() -> None:
    supervisor = Supervisor("lab")
    with pytest.raises(BackgroundFailed, match="lab can't begin the work 'more': it is not running"):
        supervisor.add("more", forever)
    supervisor.start(work=forever)
    supervisor.add("more", forever)
    with pytest.raises(BackgroundFailed, match="it has work of that name"):
        supervisor.add("more", forever)
    ended = asyncio.Event()

    async def short() -> None:
        ended.set()

    for _ in range(2):
        ended.clear()
        supervisor.add("short", short)
        await ended.wait()
        await asyncio.sleep(0)
    supervisor.raise_failure()
    await supervisor.close()
    assert not supervisor.running
