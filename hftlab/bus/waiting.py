"""Waiting for the bus: tasks that want room, or work, or an end, and are told when to look again."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Signal:
    """Wakes all tasks that wait. Belongs to no loop, so an object made before the loop may hold one.

    A task looks at what it waits for, and waits, without a turn of the loop between the two: so it misses nothing.
    """

    def __init__(self) -> None:
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Wait for the next ``notify``. Safe to cancel."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def notify(self) -> None:
        """Wake all who wait now. 50 ns when nobody does."""
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)


class Turnstile:
    """Tasks in the order of their arrival: only the first one tries, until it has what it wants."""

    def __init__(self, progress: Signal) -> None:
        self._progress = progress
        self._line: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._line)

    async def wait_until(self, done: Callable[[], bool]) -> None:
        """Call ``done`` when it is this task's turn, and again at every progress, until it returns True.

        What ``done`` raises ends the wait. Safe to cancel: the next in line goes on.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            if self._line[0] is not turn:
                await turn
            while not done():
                await self._progress.wait()
        finally:
            was_first = self._line[0] is turn
            self._line.remove(turn)
            if was_first and self._line and not self._line[0].done():
                self._line[0].set_result(None)
