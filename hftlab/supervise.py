"""The supervisor: it owns the background tasks of a lab, across the cells that start and stop it.

A notebook's cells are tasks of their own, and a task group that is entered in one and left in another loses what its
children raise. So the tasks belong to a Supervisor; what fails is kept, shown by its owner's repr, and raised by the
next call into the API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from hftlab.errors import BackgroundFailed

HEARTBEAT_S = 0.02
"""A sleeping loop looks for the Interrupt button only when something wakes it."""


class Supervisor:
    """Runs named background tasks on the loop that ``start`` was called on. ``start`` and ``close`` are idempotent."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failure: BaseException | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._raised = False

    @property
    def running(self) -> bool:
        """Whether ``start`` was called, and ``close`` was not since."""
        return bool(self._tasks)

    def start(self, **work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin each piece of work as a task of its name, beside a heartbeat. Does nothing while running."""
        if self.running:
            return
        self.failure, self._raised = None, False
        for name, begin in {"heartbeat": _heartbeat, **work}.items():
            task = asyncio.get_running_loop().create_task(begin(), name=f"{self.name}: {name}")
            task.add_done_callback(self._done)
            self._tasks[name] = task

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None and self.failure is None:
            self.failure = task.exception()

    def raise_failure(self) -> None:
        """Raise BackgroundFailed, once, if a task has died."""
        if self.failure is not None and not self._raised:
            self._raised = True
            raise BackgroundFailed(
                f"a background task of {self.name} died: {type(self.failure).__name__}: {self.failure}. Close it and "
                "start it again"
            ) from self.failure

    async def close(self) -> None:
        """Cancel all tasks and wait for their ends. Safe to cancel; call it again then."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()


async def _heartbeat() -> None:
    while True:  # noqa: ASYNC110  # there is no event to wait for: waking up is the point
        await asyncio.sleep(HEARTBEAT_S)
