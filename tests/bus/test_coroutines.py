"""Async handlers stepped from synchronous code: what they may do, and what cancelling them does."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Generator
from typing import Any

import pytest

from hftlab.bus.coroutines import Coroutines, Suspended

coroutines = Coroutines()
step = coroutines.step


async def finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine comes to when it is stepped here and awaited as the bus does."""
    reached = step(coroutine)
    return await reached if isinstance(reached, Suspended) else reached


async def test_a_coroutine_that_never_waits_is_done_in_one_step() -> None:
    async def handler() -> int:
        return 5

    assert step(handler()) == 5


def test_it_needs_no_loop_while_it_does_not_wait() -> None:
    async def handler() -> str:
        return "done"

    assert step(handler()) == "done"


async def test_its_exception_is_a_value() -> None:
    async def handler() -> None:
        raise ValueError("wanted")

    assert isinstance(step(handler()), ValueError)


async def test_a_stop_iteration_becomes_the_runtime_error_that_python_makes_of_it() -> None:
    async def handler() -> None:
        raise StopIteration

    assert isinstance(step(handler()), RuntimeError)


async def test_keyboard_interrupts_are_nobodys_failure() -> None:
    async def handler() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        step(handler())


@pytest.mark.parametrize("turns", [1, 2, 5])
async def test_waiting_for_turns_of_the_loop_ends_with_the_result(turns: int) -> None:
    async def handler() -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return turns

    assert await finished(handler()) == turns


def test_without_a_loop_there_is_nothing_to_wait_for() -> None:
    class Once:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def handler() -> None:
        await Once()

    error = step(handler())
    assert isinstance(error, RuntimeError)
    assert "can wait only where a loop runs" in str(error)


async def test_it_is_a_task_of_its_own_that_stays_the_same_while_it_waits() -> None:
    tasks: list[asyncio.Task[Any] | None] = []

    async def handler() -> None:
        tasks.append(asyncio.current_task())
        await asyncio.sleep(0)
        tasks.append(asyncio.current_task())

    outer = asyncio.current_task()
    await finished(handler())
    assert asyncio.current_task() is outer
    assert tasks[0] is tasks[1] is not outer


async def test_its_task_names_the_handler() -> None:
    async def quoting() -> str:
        task = asyncio.current_task()
        assert task is not None
        assert task.get_coro() is running
        return task.get_name()

    running = quoting()
    assert str(step(running)).endswith("quoting")


async def test_context_variables_are_those_of_the_task_that_drives_it() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("outside")

    async def handler() -> str:
        await asyncio.sleep(0)
        return variable.get()

    assert await finished(handler()) == "outside"


async def test_a_handler_may_cancel_itself() -> None:
    async def handler() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    assert isinstance(await finished(handler()), asyncio.CancelledError)
    assert await finished(asyncio.sleep(0, "the next is not cancelled")) == "the next is not cancelled"


async def test_whether_a_handler_is_asking_is_known_in_every_step_and_not_between_them() -> None:
    answers = []

    async def handler() -> None:
        answers.append(coroutines.is_asking())
        await asyncio.sleep(0)
        answers.append(coroutines.is_asking())
        answers.append(Coroutines().is_asking())

    waiting = await suspended(handler())
    answers.append(coroutines.is_asking())
    await waiting
    assert answers == [True, False, True, False]


async def test_what_an_awaited_future_raises_is_raised_in_the_handler() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handler() -> str:
        try:
            await future
        except ValueError as error:
            return f"caught {error}"
        return "nothing raised"

    asyncio.get_running_loop().call_soon(future.set_exception, ValueError("from afar"))
    assert await finished(handler()) == "caught from afar"


async def test_an_uncaught_exception_of_an_awaited_future_is_the_handlers_own() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def handler() -> None:
        await future

    asyncio.get_running_loop().call_soon(future.set_exception, ValueError("from afar"))
    assert repr(await finished(handler())) == "ValueError('from afar')"


async def test_a_timeout_in_the_handler_is_the_handlers_own() -> None:
    async def handler() -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            await asyncio.sleep(0)
            return "timed out"
        return "never"

    assert await finished(handler()) == "timed out"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_handler_may_wait_while_its_timeout_unwinds() -> None:
    seen = []

    async def handler() -> None:
        async with asyncio.timeout(0.001):
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                seen.append("cleaned up")

    assert isinstance(await finished(handler()), TimeoutError)
    assert seen == ["cleaned up"]


async def test_a_timeout_that_is_over_before_the_first_wait_still_counts() -> None:
    async def handler() -> None:
        async with asyncio.timeout(0):
            await asyncio.sleep(1_000)

    assert isinstance(await finished(handler()), TimeoutError)


async def test_an_uncaught_timeout_is_a_failure_and_cancels_nobody() -> None:
    async def handler() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()

    assert isinstance(await finished(handler()), TimeoutError)


async def test_waiting_for_something_that_others_cancel_does_not_cancel_the_bus() -> None:
    other = asyncio.create_task(asyncio.Event().wait())

    async def handler() -> None:
        await other

    asyncio.get_running_loop().call_soon(other.cancel)
    assert isinstance(await finished(handler()), asyncio.CancelledError)


async def test_a_task_group_in_the_handler_works() -> None:
    async def child(found: list[int], number: int) -> None:
        await asyncio.sleep(0)
        found.append(number)

    async def handler() -> list[int]:
        found: list[int] = []
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(child(found, number))
        return found

    assert await finished(handler()) == [0, 1, 2]


async def test_a_failing_task_group_in_the_handler_is_the_handlers_failure() -> None:
    async def child() -> None:
        await asyncio.sleep(0)
        raise ValueError("child")

    async def handler() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            group.create_task(asyncio.Event().wait())

    assert isinstance(await finished(handler()), BaseExceptionGroup)


async def cancelled_while_waiting(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    task = asyncio.create_task(finished(coroutine))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return task


async def test_cancelling_the_awaiting_task_cleans_the_handler_up() -> None:
    seen = []

    async def handler() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        finally:
            seen.append("cleaned up")

    assert (await cancelled_while_waiting(handler())).cancelled()
    assert seen == ["cancelled", "cleaned up"]


async def test_a_handler_can_not_swallow_the_cancellation_by_returning() -> None:
    async def handler() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "swallowed"
        return "never"

    assert (await cancelled_while_waiting(handler())).cancelled()


async def test_a_handler_can_not_swallow_the_cancellation_by_waiting_on() -> None:
    seen = []

    async def handler() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            try:
                await asyncio.sleep(1_000)
            finally:
                seen.append("cleaned up")

    assert (await cancelled_while_waiting(handler())).cancelled()
    assert seen == ["cleaned up"]


async def test_a_cancellation_that_meets_a_timeout_in_the_handler_still_cancels() -> None:
    async def handler() -> None:
        async with asyncio.timeout(1_000):
            await asyncio.Event().wait()

    assert (await cancelled_while_waiting(handler())).cancelled()


async def test_an_earlier_cancellation_that_was_caught_does_not_count() -> None:
    """A task that was cancelled once, caught it and goes on may still run handlers with timeouts."""

    async def handler() -> str:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            return "timed out"
        return "never"

    async def stubborn() -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return await finished(handler())

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "timed out"


async def suspended(coroutine: Coroutine[Any, Any, Any]) -> Suspended:
    reached = step(coroutine)
    assert isinstance(reached, Suspended)
    return reached


async def test_giving_it_up_runs_its_finally_blocks() -> None:
    seen = []

    async def handler() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cleaned up")

    waiting = await suspended(handler())
    assert waiting.close() is None
    assert waiting.close() is None
    assert seen == ["cleaned up"]


async def test_giving_it_up_returns_what_its_finally_blocks_raise() -> None:
    async def handler() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("on the way out")

    error = (await suspended(handler())).close()
    assert repr(error) == "ValueError('on the way out')"


async def test_giving_up_a_handler_that_will_not_go_is_an_error_not_a_hang() -> None:
    async def handler() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except GeneratorExit:
                await asyncio.sleep(0)
                return

    error = (await suspended(handler())).close()
    assert isinstance(error, RuntimeError)


async def test_giving_it_up_wakes_whoever_awaits_it() -> None:
    async def handler() -> None:
        await asyncio.Event().wait()

    waiting = await suspended(handler())

    async def awaits() -> Any:
        return await waiting

    task = asyncio.create_task(awaits())
    await asyncio.sleep(0)
    waiting.close()
    assert isinstance(await task, asyncio.CancelledError)
    assert not task.cancelled()
