"""Async handlers, stepped from synchronous code: a coroutine that never waits costs no task and no turn of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Suspended:
    """A handler's coroutine that waits for something. ``await`` it in the task that runs the bus, to its end.

    It should be awaited in the task that took the first step: what the coroutine waits for may belong to that task
    (``asyncio.timeout`` cancels the task that it was entered in).
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for
        self._closed: BaseException | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        """The coroutine's result, or the exception that it raised, as a value: its failure is not the bus's.

        Cancelling the awaiting task cancels the coroutine, and raises CancelledError whatever it makes of that. What
        the coroutine's own doing cancels (a timeout inside it, a task that it waits for) is left to it.
        """
        task = asyncio.current_task()
        # A timeout takes back the cancellation that it used; what is left over was meant for whoever awaits.
        cancelled_before = task.cancelling() if task is not None else 0
        while True:
            reached: Any
            try:
                yield self._waits_for
            except GeneratorExit:
                self.close()
                raise
            except BaseException as thrown:
                reached = self._closed if self._closed is not None else self._throw(thrown)
                cancelled = task.cancelling() if task is not None else 0
                if isinstance(thrown, asyncio.CancelledError) and cancelled > cancelled_before:
                    if isinstance(reached, Suspended):
                        self.close()
                    raise
            else:
                reached = self._closed if self._closed is not None else step(self._coroutine)
            if not isinstance(reached, Suspended):
                return reached
            self._waits_for = reached._waits_for

    def _throw(self, thrown: BaseException) -> Any:
        return _advance(self._coroutine, lambda: self._coroutine.throw(thrown))

    def close(self) -> BaseException | None:
        """Give the coroutine up: its ``finally`` blocks run now. Returns what they raised, if anything.

        Whoever awaits it is woken, and gets a CancelledError as its result.
        """
        if self._closed is None:
            self._closed = asyncio.CancelledError("the handler was given up while it waited")
            try:
                self._coroutine.close()
            except Exception as error:
                self._closed = error
                return error
            finally:
                cancel = getattr(self._waits_for, "cancel", None)
                if cancel is not None:
                    cancel()
        return None


def step(coroutine: Coroutine[Any, Any, Any]) -> Suspended | Any | BaseException:
    """Run a coroutine to its next wait: Suspended, or its result, or the exception that it raised."""
    return _advance(coroutine, lambda: coroutine.send(None))


def _advance(coroutine: Coroutine[Any, Any, Any], go_on: Callable[[], Any]) -> Suspended | Any | BaseException:
    try:
        waits_for = go_on()
    except StopIteration as stop:
        return stop.value
    except (Exception, asyncio.CancelledError) as error:
        # Nobody cancelled the bus while this ran: what the handler awaited was cancelled. That is its own failure.
        return error
    return Suspended(coroutine, waits_for)
