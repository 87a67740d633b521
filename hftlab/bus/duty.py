"""The duty cycle of a bus: slices of work, handlers that wait, and the pump that does one slice after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from hftlab.bus.dispatch import Dispatcher
from hftlab.bus.failures import FailureLog
from hftlab.bus.gate import Gate
from hftlab.bus.intake import Intake
from hftlab.bus.lanes import Lanes
from hftlab.bus.waiting import Signal
from hftlab.clock import Clock
from hftlab.events.ports import Work
from hftlab.metrics import RateMeter

SLICE_NS = 400_000
"""How long a slice of the pump lasts: long enough to cost nothing, short enough that the kernel never feels it."""

METER_NS = 10_000_000
"""How often throughput is measured."""


class Duty:
    """Works, by slices; ``clock`` is the live one. ``wake`` is notified when there is work, ``progress`` when some was
    done."""

    def __init__(
        self,
        lanes: Lanes,
        intake: Intake,
        gate: Gate,
        failures: FailureLog,
        clock: Clock,
        wake: Signal,
        progress: Signal,
    ) -> None:
        self._lanes, self._intake, self._gate, self._failures = lanes, intake, gate, failures
        self._clock, self._wake, self._progress = clock, wake, progress
        self._handled, self._failed = (RateMeter(time.perf_counter_ns()) for _ in range(2))
        self._metered = (0, 0, 0)  # handled rows and failures that the meters know, and since when
        lanes.mailboxes.on_change = self._call_ended

    # -- a slice --------------------------------------------------------------------------------------------------

    def work(self, max_rows: int, deadline_ns: int) -> Work:
        """One slice: up to ``max_rows`` published rows, until ``perf_counter_ns`` passes the deadline."""
        self._gate.refuse_handlers("do_work", "return the events that it should emit instead")
        if self._gate.run is None:
            self._intake.tick()
        self._gate.working = True
        try:
            work = self._lanes.work(max_rows, deadline_ns)
            if self._gate.run is None:
                if self._lanes.mailboxes.busy:
                    work = work._replace(idle=False, awaiting=not self._lanes.ready)
                if self._intake.is_due():
                    work = work._replace(idle=False)
            return work
        finally:
            self._gate.working = False
            now_ns = time.perf_counter_ns()
            if now_ns - self._metered[2] >= METER_NS:
                self._measure(now_ns)
            self._progress.notify()

    def work_now(self) -> None:
        """Dispatch what just came into CRITICAL, if a pump drives the bus: no turn of the loop is waited for."""
        if self._gate.pumps and self._gate.run is None and not self._gate.is_handler():
            self._gate.working = True
            try:
                self._lanes.work_critical(time.perf_counter_ns() + SLICE_NS)
            finally:
                self._gate.working = False
                self._progress.notify()

    @property
    def is_idle(self) -> bool:
        """Whether nothing that was published could be handled now."""
        return self._lanes.idle and not self._intake.is_due()

    # -- throughput -----------------------------------------------------------------------------------------------

    def rates(self) -> tuple[float, float]:
        """Rows handled and failed calls a second, over the last second; by real time, also in a run."""
        now_ns = time.perf_counter_ns()
        self._measure(now_ns)
        return self._handled.rates(now_ns)[0].per_second, self._failed.rates(now_ns)[0].per_second

    def _measure(self, now_ns: int) -> None:
        """Tell the meters what came since the last time."""
        handled, failures = self._lanes.handled, self._failures.count
        self._handled.add(now_ns, handled - self._metered[0])
        self._failed.add(now_ns, failures - self._metered[1])
        self._metered = (handled, failures, now_ns)

    # -- handlers that wait ---------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Await the async handler that holds the bus up, if one does; see ``EventBus.settle``."""
        dispatcher = self._lanes.suspended
        if dispatcher is None:
            if self._lanes.mailboxes.busy and not self._lanes.ready:
                await self._progress.wait()
            return
        if dispatcher in self._gate.settling:
            await self._progress.wait()
            return
        await self._settle(dispatcher)

    async def _settle(self, dispatcher: Dispatcher) -> None:
        suspended = dispatcher.suspended
        if suspended is None:
            return
        self._gate.settling.add(dispatcher)
        reached: Any = None
        try:
            reached = await suspended
        except (asyncio.CancelledError, GeneratorExit) as error:
            reached = suspended.left(error)
            raise
        finally:
            self._gate.settling.discard(dispatcher)
            dispatcher.settle(suspended, reached)
            self._progress.notify()
            self._wake.notify()

    def _call_ended(self) -> None:
        self._progress.notify()
        self._wake.notify()

    # -- the pump -------------------------------------------------------------------------------------------------

    async def pump(self) -> None:
        """One slice after the other, with a turn of the loop between; ends when cancelled."""
        self._gate.pumps += 1
        settlers: dict[Dispatcher, asyncio.Task[None]] = {}
        try:
            while True:
                if self._gate.run is not None or (self.is_idle and not self._must_look()):
                    await self._wake_or_due()
                    continue
                work = self.work(1 << 62, time.perf_counter_ns() + SLICE_NS)
                # A lane that an async handler holds up is awaited beside the others' work.
                for dispatcher in self._lanes.all_suspended:
                    if dispatcher not in self._gate.settling:
                        settlers = {one: task for one, task in settlers.items() if not task.done()}
                        settlers[dispatcher] = asyncio.get_running_loop().create_task(self._settle(dispatcher))
                        self._gate.settling.add(dispatcher)
                if work.awaiting:
                    await self._wake_or_due()
                else:
                    await asyncio.sleep(0)
        finally:
            self._gate.pumps -= 1
            await _end(list(settlers.values()))
            # One that was cancelled before it began never said so.
            self._gate.settling.difference_update(settlers)
            self._progress.notify()

    def _must_look(self) -> bool:
        """Whether sources wait, or events are shed, and it is time to see if that can end."""
        look_ns = self._intake.look_ns
        return look_ns is not None and look_ns <= self._clock.now_ns()

    async def _wake_or_due(self) -> None:
        """Wait for an event, or for the next deadline of a gap."""
        dues = (self._intake.due_ns, self._intake.look_ns)
        due_ns = None if self._gate.run is not None else min((due for due in dues if due is not None), default=None)
        if due_ns is None:
            await self._wake.wait()
            return
        delay_s = max((due_ns - self._clock.now_ns()) / 1e9, 0.0)
        timer = asyncio.get_running_loop().call_later(delay_s, self._wake.notify)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait for their ends, however often that is cancelled itself."""
    for task in tasks:
        task.cancel()
    while any(not task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            continue
