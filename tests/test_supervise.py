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
