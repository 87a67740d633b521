"""``Throttle``: producers wait here for their turn: a rate limit by rows, and a bound on how many publish at once."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from hftlab.clock import Clock, SystemClock
from hftlab.errors import ValidationError
from hftlab.flow.checking import check_count
from hftlab.flow.token_bucket import TokenBucket

SHORTEST_BURST_S = 0.01
"""How much of a second's tokens a burst holds unless told: a loop's timers come about 1 ms late, and what a bucket that
is full meanwhile would have gained is lost. A burst of 1 ms got 75 to 90% of its rate, one of 10 ms all of it."""


@dataclass(frozen=True, slots=True)
class ThrottleStatistics:
    """So far: rows ``granted``; calls that had to wait (``waits``), or are waiting, and how long those that ended did.

    ``cancelled`` of the waits ended without their rows. The same of slots: how many are ``slots_in_use``, and how often
    and how long somebody waited for one.
    """

    granted: int
    waits: int
    waiting: int
    waited_ns: int
    cancelled: int
    slots_in_use: int
    slot_waits: int
    slot_waiting: int
    slot_waited_ns: int


class Throttle:
    """At most ``rate_hz`` rows a second with bursts of ``burst``, and ``concurrent`` producers at once; None: no bound.

    ``burst``: 10 ms of the rate unless told, 1 at least; with much less the rate isn't reached. ``clock`` tells the
    time (None: a SystemClock). ``sleep`` is awaited with seconds and may return early or late; with a clock
    that something else drives, hand in one that follows it, for the default is real time. Raises ValidationError for
    what breaks a rule. Belongs to the loop in which somebody first waits.
    """

    def __init__(
        self,
        rate_hz: float | None = None,
        burst: int | None = None,
        concurrent: int | None = None,
        clock: Clock | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._bucket: TokenBucket | None = None
        if rate_hz is not None:
            TokenBucket(rate_hz, 1)  # the rate is checked before a burst is computed from it
            self._bucket = TokenBucket(
                rate_hz, max(1, math.ceil(rate_hz * SHORTEST_BURST_S)) if burst is None else burst
            )
        elif burst is not None:
            raise ValidationError(f"a burst is part of a rate limit: give rate_hz too; got burst={burst!r:.100} alone")
        self._slots: asyncio.Semaphore | None = None
        if concurrent is not None:
            self._slots = asyncio.Semaphore(check_count("concurrent", concurrent, 1, 1 << 20))
        self._concurrent = concurrent
        self._clock: Clock = SystemClock() if clock is None else clock
        self._sleep = sleep
        self._line: deque[asyncio.Future[None]] = deque()
        self._granted = self._waits = self._waited_ns = self._cancelled = 0
        self._slots_in_use = self._slot_waits = self._slot_waiting = self._slot_waited_ns = 0

    @property
    def burst(self) -> int | None:
        """The most rows that are let through at once; None: no bound."""
        return None if self._bucket is None else self._bucket.burst

    # -- the rate -------------------------------------------------------------------------------------------------

    async def acquire(self, rows: int = 1) -> None:
        """Wait until ``rows`` tokens were there, in the order of the calls; returns at once, without a turn of the
        loop, where they are and nobody waits. More than the burst are gathered as they come. 1 µs when it needn't wait.

        Safe to cancel: what had been gathered goes back, and the next in line goes on.
        """
        check_count("rows", rows, 0, 1 << 40)
        bucket = self._bucket
        if bucket is None or not rows:
            self._granted += rows
            return
        now_ns = self._clock.now_ns()
        if not self._line and bucket.due_ns(rows, now_ns) <= now_ns:
            bucket.take(rows, now_ns)
        else:
            await self._wait_in_line(bucket, rows, now_ns)
        self._granted += rows

    async def _wait_in_line(self, bucket: TokenBucket, rows: int, since_ns: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        self._waits += 1
        gathered = 0
        try:
            if self._line[0] is not turn:
                await turn
            while True:
                now_ns = self._clock.now_ns()
                gathered += bucket.take(rows - gathered, now_ns)
                if gathered == rows:
                    return
                # Half a burst at a time: one that waits for a full bucket loses what comes until it is awake.
                due_ns = bucket.due_ns(min(rows - gathered, (bucket.burst + 1) // 2), now_ns)
                await self._sleep((due_ns - now_ns) / 1e9)
        finally:
            if gathered < rows:
                bucket.give_back(gathered)
                self._cancelled += 1
            self._waited_ns += max(0, self._clock.now_ns() - since_ns)
            self._leave(turn)

    def _leave(self, turn: asyncio.Future[None]) -> None:
        self._line.remove(turn)
        # Whoever is first now may go on: also where the one that leaves was cancelled in the very moment of its turn.
        if self._line and not self._line[0].done():
            self._line[0].set_result(None)

    # -- how many at once -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """``async with throttle.slot():`` one of the ``concurrent`` producers that publish at once, first come first.

        Safe to cancel while waiting.
        """
        if self._slots is not None:
            await self._take_slot(self._slots)
        self._slots_in_use += 1
        try:
            yield
        finally:
            self._slots_in_use -= 1
            if self._slots is not None:
                self._slots.release()

    async def _take_slot(self, slots: asyncio.Semaphore) -> None:
        if not slots.locked():
            await slots.acquire()
            return
        self._slot_waits += 1
        self._slot_waiting += 1
        since_ns = self._clock.now_ns()
        try:
            await slots.acquire()
        finally:
            self._slot_waiting -= 1
            self._slot_waited_ns += max(0, self._clock.now_ns() - since_ns)

    # -- seen -----------------------------------------------------------------------------------------------------

    def statistics(self) -> ThrottleStatistics:
        """What was granted, and who waited."""
        return ThrottleStatistics(
            granted=self._granted,
            waits=self._waits,
            waiting=len(self._line),
            waited_ns=self._waited_ns,
            cancelled=self._cancelled,
            slots_in_use=self._slots_in_use,
            slot_waits=self._slot_waits,
            slot_waiting=self._slot_waiting,
            slot_waited_ns=self._slot_waited_ns,
        )

    def __repr__(self) -> str:
        bounds = []
        if self._bucket is not None:
            bounds.append(f"{self._bucket.rate_hz:,g} rows a second, burst {self._bucket.burst:,}")
        if self._concurrent is not None:
            bounds.append(f"{self._concurrent:,} at once")
        return f"Throttle({'; '.join(bounds) or 'no bound'})"
