"""Mailboxes: each async handler of a live bus has a bounded queue of its own, so that one that waits holds nobody up.

The problem: a coroutine that is awaited in line holds up its whole lane, and with it every other handler. So a call
that waits goes on in a task of its handler's mailbox, and the calls that come meanwhile queue there, in order: those of
one lane as they came, a more urgent lane's before the others. A coroutine that never waits is still run at once, in
line, where nothing is queued before it: no task, no turn of the loop.

A mailbox is bounded by events a lane. Where it is full, the lane that posts is held up until there is room, as it was
by every wait before; the other lanes go on. What a call returns is emitted, and what it raises recorded, when it ends.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from hftlab.bus.coroutines import POSTED, Coroutines, Suspended, Unit
from hftlab.bus.failures import Given
from hftlab.bus.subscriptions import Subscription
from hftlab.bus.waiting import Signal
from hftlab.events.records import Priority

if TYPE_CHECKING:
    from hftlab.bus.lane_calls import LaneCalls

SLICE_NS = 400_000
"""How long calls that never wait are made one after the other, before the loop has its turn."""


@dataclass(eq=False, slots=True)
class Call:
    """One call on its way. ``given`` makes what the handler was given, ``cause`` is its event id, ``events`` how many
    they are; ``begun_ns`` when it was made (``perf_counter_ns``); ``attempt`` counts from 1."""

    subscription: Subscription
    coroutine: Coroutine[Any, Any, Any]
    given: Given
    cause: int
    events: int
    lane: LaneCalls
    unit: Unit
    position: int
    cascade: int
    generation: int
    event_type: int
    begun_ns: int
    attempt: int = 1

    def again(self) -> Any:
        """Call the handler once more: what it returned or raised."""
        self.attempt += 1
        try:
            return self.subscription.call(self.given())
        except Exception as error:
            return error


class Parked(Suspended):
    """A call that its mailbox has no room for. ``await`` it until it was posted: its outcome comes later."""

    def __init__(self, mailbox: Mailbox, call: Call) -> None:
        self.mailbox = mailbox
        self.call = call
        self.posted = False
        self._posting = Signal()

    def __await__(self) -> Generator[Any, Any, Any]:
        """POSTED. Cancelling whoever awaits it changes nothing: it goes on waiting for room."""
        while not self.posted:
            yield from self._posting.wait().__await__()
        return POSTED

    def let_in(self) -> None:
        """Say that it was posted, or is wanted no more."""
        self.posted = True
        self._posting.notify()

    def left(self, error: BaseException) -> Any:
        """Nothing: its lane goes on waiting for room."""
        return POSTED if self.posted else self

    def close(self) -> None:
        """Give the call up: it was never begun."""
        if not self.posted:
            self.mailbox.turn_away(self)


class Mailbox:
    """The calls of one handler: one in progress, and up to ``bound`` events a lane that wait behind it.

    A batch takes as many places as it has events; where nothing of its lane waits, it fits whatever its size.
    ``wants_room_in``: the lane in which the call in progress waits to publish. One thread.
    """

    def __init__(self, bound: int, mailboxes: Mailboxes, coroutines: Coroutines) -> None:
        self.bound = bound
        self.wants_room_in: Priority | None = None
        self._mailboxes, self._coroutines = mailboxes, coroutines
        # The most urgent first.
        self._waiting: dict[Priority, deque[Call]] = {level: deque() for level in sorted(Priority, reverse=True)}
        self._events = dict.fromkeys(self._waiting, 0)
        self._parked: dict[Priority, Parked] = {}
        self._current: Call | None = None
        self._suspended: Suspended | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a call is in progress: the next one queues."""
        return self._current is not None

    @property
    def queued(self) -> int:
        """How many events wait, the call in progress aside."""
        return sum(self._events.values())

    @property
    def unfinished(self) -> int:
        """How many events wait or are in progress."""
        return self.queued + (self._current.events if self._current is not None else 0)

    # -- posting --------------------------------------------------------------------------------------------------

    def step(self, call: Call) -> Suspended | Any | BaseException:
        """Run a call's coroutine to its first wait."""
        reached = self._coroutines.step(call.coroutine, self)
        if isinstance(reached, Suspended):
            reached.limit(call.subscription)
        return reached

    def go_on(self, call: Call, reached: Suspended | None) -> None:
        """Await a call that was begun (None: begin it), and whatever comes meanwhile, in a task."""
        self._current, self._suspended = call, reached
        self._mailboxes.busy[self] = None
        task = self._task = asyncio.get_running_loop().create_task(self._work(call, reached))
        # What it was interrupted by was raised where the loop runs.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())

    def post(self, call: Call) -> Any:
        """Queue a call behind the one in progress: POSTED, or Parked where it has no room yet."""
        level = call.lane.level
        if self._has_room(level, call.events):
            self._queue(call)
            return POSTED
        parked = self._parked[level] = Parked(self, call)
        return parked

    def turn_away(self, parked: Parked) -> None:
        """Forget a call that waited for room."""
        self._parked.pop(parked.call.lane.level, None)
        parked.let_in()
        parked.call.coroutine.close()

    def _queue(self, call: Call) -> None:
        self._waiting[call.lane.level].append(call)
        self._events[call.lane.level] += call.events

    def _has_room(self, level: Priority, events: int) -> bool:
        waiting = self._events[level]
        return not waiting or waiting + events <= self.bound

    def _let_in(self, *, at_once: bool) -> None:
        """Post what waits for room: when half of the places are free, so that a lane that posts faster than its handler
        works is not woken for each call, or at once, where it has emissions to dispatch."""
        for level, parked in list(self._parked.items()):
            waiting = self._events[level]
            if (at_once or 2 * waiting <= self.bound) and self._has_room(level, parked.call.events):
                del self._parked[level]
                self._queue(parked.call)
                parked.let_in()

    # -- one after the other --------------------------------------------------------------------------------------

    async def _work(self, call: Call, reached: Any) -> None:
        since_ns = time.perf_counter_ns()
        try:
            if reached is None:
                reached = self.step(call)
            while True:
                if isinstance(reached, Suspended):
                    self._suspended = reached
                    reached = await reached
                    since_ns = time.perf_counter_ns()
                self._suspended = None
                if self._current is not call:
                    return  # it was given up
                if isinstance(reached, BaseException) and call.attempt < call.subscription.attempts:
                    reached = self._try_again(call)
                    continue
                following = self._end(call, reached)
                if following is None:
                    return
                call = following
                if time.perf_counter_ns() - since_ns >= SLICE_NS:
                    await asyncio.sleep(0)
                    since_ns = time.perf_counter_ns()
                    if self._current is not call:
                        return
                reached = self.step(call)
        except asyncio.CancelledError:
            # The loop is about to end: nobody would ever go on with what waits.
            if self._current is call:
                self.give_up()
            raise
        except BaseException:
            # A KeyboardInterrupt is no failure of the handler that it met: the others' turn comes.
            if self._current is call:
                call.coroutine.close()
                call.lane.left(call, "it was interrupted")
                following = self._next(at_once=False)
                if following is not None:
                    self.go_on(following, None)
                self._mailboxes.on_change()
            raise

    def _try_again(self, call: Call) -> Any:
        result = call.again()
        if type(result) is not CoroutineType:
            return result
        call.coroutine = result
        return self.step(call)

    def _end(self, call: Call, reached: Any) -> Call | None:
        """Hand on what a call came to; returns the next one, if any waits."""
        call.lane.end(call, reached)
        following = self._next(at_once=reached is not None) if self._current is call else None
        self._mailboxes.on_change()
        return following

    def _next(self, *, at_once: bool) -> Call | None:
        call = None
        for level, calls in self._waiting.items():
            if calls:
                call = calls.popleft()
                self._events[level] -= call.events
                break
        self._current = call
        if call is None:
            self._task = None
            self._mailboxes.busy.pop(self, None)
        self._let_in(at_once=at_once)
        return call

    def give_up(self) -> int:
        """Close all coroutines: that in progress runs its ``finally`` blocks now, the others were never begun.

        Returns how many events that were; they count as ``missed``.
        """
        current, suspended = self._current, self._suspended
        calls = [call for queue in self._waiting.values() for call in queue]
        calls += [parked.call for parked in self._parked.values()]
        parked, self._parked = list(self._parked.values()), {}
        for level, queue in self._waiting.items():
            queue.clear()
            self._events[level] = 0
        self._current = self._suspended = self._task = None
        self._mailboxes.busy.pop(self, None)
        if current is not None:
            calls.append(current)
            # One whose turn has come, and that was not begun yet, waits for nothing.
            error = suspended.close() if suspended is not None else current.coroutine.close()
            if error is not None:
                current.lane.fail(current, error)
        for call in calls:
            call.coroutine.close()
            call.subscription.missed += call.events
            call.subscription.delivered -= call.events
            call.lane.left(call, "its handler's queue was emptied")
            if call.subscription.breaker is not None:
                call.subscription.breaker.release(1, generation=call.generation)
        for one in parked:
            one.let_in()
        self._mailboxes.on_change()
        return sum(call.events for call in calls)

    def __repr__(self) -> str:
        return f"Mailbox({self.queued:,} of {self.bound:,} a lane{', busy' if self.busy else ''})"


class Mailboxes:
    """Those of one bus in which something is under way. ``on_change`` is called when a call has ended."""

    def __init__(self) -> None:
        self.busy: dict[Mailbox, None] = {}
        self.on_change: Callable[[], None] = lambda: None

    @property
    def unfinished(self) -> int:
        """How many events wait or are in progress."""
        return sum(mailbox.unfinished for mailbox in self.busy)

    def give_up(self) -> int:
        """Close all coroutines; returns how many events they were for."""
        return sum(mailbox.give_up() for mailbox in list(self.busy))
