"""Async handlers, stepped from synchronous code: a coroutine that never waits costs no task and no turn of the loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Generator
from typing import Any


class Suspended:
    """A handler's coroutine that waits for something. ``await`` it in the task that runs the bus, to its end.

    It must be awaited in the task that took the first step: what the coroutine waits for may belong to that task.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Any]:
        """The coroutine's result, or the exception that it raised, as a value: its failure is not the bus's.

        Cancelling the awaiting task cancels the coroutine, and raises CancelledError whatever it makes of that.
        """
        while True:
            try:
                yield self._waits_for
            except GeneratorExit:
                self._coroutine.close()
                raise
            except BaseException as thrown:
                with contextlib.suppress(BaseException):
                    self._coroutine.throw(thrown)
                self._coroutine.close()
                raise
            reached = step(self._coroutine)
            if not isinstance(reached, Suspended):
                return reached
            self._waits_for = reached._waits_for

    def close(self) -> None:
        """Give the coroutine up: its ``finally`` blocks run now."""
        self._coroutine.close()


def step(coroutine: Coroutine[Any, Any, Any]) -> Suspended | Any | BaseException:
    """Run a coroutine to its next wait: Suspended, or its result, or the exception that it raised."""
    try:
        waits_for = coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    except (Exception, asyncio.CancelledError) as error:
        # Nobody cancelled the bus while this ran: what the handler awaited was cancelled. That is its own failure.
        return error
    return Suspended(coroutine, waits_for)
