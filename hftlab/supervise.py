"""The supervisor: it owns the background tasks of a lab, across the cells that start and stop it.

A notebook's cells are tasks of their own, and a task group that is entered in one and left in another loses what its
children raise. So the tasks belong to a Supervisor; what fails is kept, shown by its owner's repr, and raised by the
next call into the API.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from hftlab.errors import BackgroundFailed

HEARTBEAT_S = 0.02
"""A sleeping loop looks for the Interrupt button only when something wakes it."""


_end_at_s: float | None = None


def end_within(seconds: float | None) -> None:
    """Say that this process was told to end, and for how long it may go on; None: it was not, or goes on after all."""
    global _end_at_s
    _end_at_s = None if seconds is None else time.monotonic() + seconds


def within(seconds: float | None, usual_s: float) -> float:
    """How long whoever closes something may wait for work in flight: ``seconds``, else as long as is usual.

    Where the process was told to end, no longer than it may go on; and just as long where nothing else was said.
    """
    if _end_at_s is None:
        return usual_s if seconds is None else seconds
    left_s = max(_end_at_s - time.monotonic(), 0.0)
    return left_s if seconds is None else min(seconds, left_s)


class Supervisor:
    """Runs named background tasks on the loop that ``start`` was called on. ``start`` and ``close`` are idempotent."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failure: BaseException | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._raised = False
        self._closing = False

    @property
    def running(self) -> bool:
        """Whether ``start`` was called, and neither ``close`` nor the end of its loop has ended everything since."""
        return any(not task.done() for task in self._tasks.values())

    def start(self, **work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin each piece of work as a task of its name, beside a heartbeat. Does nothing while running."""
        if self.running:
            return
        self.failure, self._raised, self._closing = None, False, False
        self._tasks.clear()
        for name, begin in {"heartbeat": _heartbeat, **work}.items():
            task = asyncio.get_running_loop().create_task(begin(), name=f"{self.name}: {name}")
            task.add_done_callback(self._done)
            self._tasks[name] = task

    def add(self, name: str, begin: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin one more piece of work beside the others, until its own end or ``close``. Its name is free again then.

        Raises BackgroundFailed where nothing runs that it could run beside, or the name is in use.
        """
        if not self.running or (name in self._tasks and not self._tasks[name].done()):
            why = "has work of that name" if self.running else "is not running"
            raise BackgroundFailed(f"{self.name} can't begin the work {name!r}: it {why}")
        task = asyncio.get_running_loop().create_task(begin(), name=f"{self.name}: {name}")
        task.add_done_callback(self._done)
        self._tasks[name] = task

    def _done(self, task: asyncio.Task[None]) -> None:
        failure: BaseException | None
        if not task.cancelled():
            failure = task.exception()
        else:
            # Work that somebody else cancelled is as dead as if it had raised, and nobody would notice.
            failure = None if self._closing else asyncio.CancelledError(f"{task.get_name()} was cancelled")
        if failure is not None and self.failure is None:
            self.failure = failure

    def raise_failure(self) -> None:
        """Raise BackgroundFailed, once, if a task has died."""
        if self.failure is not None and not self._raised:
            self._raised = True
            raise BackgroundFailed(
                f"a background task of {self.name} died: {type(self.failure).__name__}: {self.failure}. Close it and "
                "start it again"
            ) from self.failure

    async def close(self) -> None:
        """Cancel all tasks and wait for their ends. Safe to cancel; call it again then.

        Raises BackgroundFailed from within one of them, which it would wait for in vain.
        """
        tasks = [task for task in self._tasks.values() if not task.done()]
        if asyncio.current_task() in tasks:
            raise BackgroundFailed(f"{self.name} can't be closed by its own background work: close it from elsewhere")
        self._closing = True
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._tasks.clear()


async def _heartbeat() -> None:
    while True:  # noqa: ASYNC110  # there is no event to wait for: waking up is the point
        await asyncio.sleep(HEARTBEAT_S)
