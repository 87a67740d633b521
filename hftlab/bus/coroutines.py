"""Async handlers, stepped from synchronous code: a coroutine that never waits costs no task and no turn of the loop.

The problem: timeouts and task groups inside a handler cancel the task that they run in, and take that back later. In
the bus's own task, such a cancellation could not be told from one that is meant for the bus. So a handler's coroutine
runs in the bus's task but under a task of its own: what ``asyncio.current_task`` says while it is stepped, and what its
timeouts cancel. Cancelling the bus's task still is just that.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Protocol

from hftlab.errors import HandlerTimeout

if TYPE_CHECKING:
    from hftlab.bus.failures import Given
    from hftlab.bus.subscriptions import Subscription

_Coroutine = Coroutine[Any, Any, Any]


class OnEnd(Protocol):
    """Who wants to know how a call ended."""

    def ended(self, error: BaseException | None) -> None:
        """It has come to something; ``error``: a failure that was recorded by somebody else."""

    def lost(self, why: str) -> None:
        """It will never come to anything: it was given up, or interrupted."""


class Unit(Protocol):
    """What makes calls: a Chunk, a Single or a Delivery. Positions are those of the event that a call was given."""

    @property
    def on_end(self) -> OnEnd | None:
        """Who is told how its call ended; None: nobody asks."""

    def keep_at(self, position: int) -> Given:
        """Makes what a call was given, for later: it holds nothing of the bus's memory."""

    def id_at(self, position: int) -> int:
        """The event id that names it as a cause."""

    def type_at(self, position: int) -> int:
        """The event's type; 0 of a notice."""


class AsyncCalls(Protocol):
    """Takes the coroutines that async handlers return."""

    def defers(self, subscription: Subscription) -> bool:
        """Whether a coroutine of this handler may go on when the call that made it is long over."""

    def begin(self, subscription: Subscription, coroutine: _Coroutine, unit: Unit, position: int, events: int) -> Any:
        """Run it to its first wait, or queue it: Suspended, POSTED, its result, or the exception that it raised."""


POSTED: Any = object()
"""What becomes of a call that went to its handler's own queue: nothing yet."""


class HandlerTask(asyncio.Future[None]):
    """What ``asyncio.current_task`` returns to a handler: a task as far as cancelling goes, scheduled by nobody.

    ``owner`` is whose handler it is, ``mailbox`` the queue that it came from (None: its lane waits for it).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: object) -> None:
        super().__init__(loop=loop)
        self.owner = owner
        self.mailbox: object | None = None
        self.coroutine: _Coroutine | None = None
        self._cancels = 0
        # By the names of asyncio's own tasks, at which other libraries look.
        self._fut_waiter: Any = None
        self._must_cancel = False

    def cancel(self, msg: Any | None = None) -> bool:
        """Have CancelledError raised in the handler where it waits, now or next."""
        if self.coroutine is None:
            return False
        self._cancels += 1
        if not _cancel(self._fut_waiter):
            self._must_cancel = True
        return True

    def cancelling(self) -> int:
        """How many cancellations were not taken back."""
        return self._cancels

    def uncancel(self) -> int:
        """Take one cancellation back; returns how many are left."""
        self._cancels = max(0, self._cancels - 1)
        return self._cancels

    def get_coro(self) -> _Coroutine | None:
        """The handler's coroutine."""
        return self.coroutine

    def get_name(self) -> str:
        """The name of the handler's function."""
        return getattr(self.coroutine, "__qualname__", "a handler that has returned")

    def advance(self, thrown: BaseException | None = None) -> Suspended | Any | BaseException:
        """Run the coroutine to its next wait: Suspended, or its result, or the exception that it raised.

        ``thrown`` is raised where it waits.
        """
        assert self.coroutine is not None
        self._fut_waiter = None
        if self._must_cancel:
            self._must_cancel = False
            thrown = asyncio.CancelledError()
        loop = self.get_loop()
        outer = asyncio.current_task(loop)
        if outer is not None:
            _leave_task(loop, outer)
        _enter_task(loop, self)  # type: ignore[arg-type]
        try:
            waits_for = self.coroutine.send(None) if thrown is None else self.coroutine.throw(thrown)
        except StopIteration as stop:
            self.coroutine = None
            return stop.value
        except (Exception, asyncio.CancelledError) as error:
            # Nobody cancelled the bus: what the handler awaited was cancelled. That is its own failure.
            self.coroutine = None
            return error
        finally:
            _leave_task(loop, self)  # type: ignore[arg-type]
            if outer is not None:
                _enter_task(loop, outer)
        if self._must_cancel and _cancel(waits_for):
            self._must_cancel = False
        self._fut_waiter = waits_for
        return Suspended(self)

    def give_up(self) -> BaseException | None:
        """Close the coroutine: its ``finally`` blocks run now. Returns what they raised, if anything."""
        coroutine, self.coroutine = self.coroutine, None
        waiter, self._fut_waiter = self._fut_waiter, None
        try:
            if coroutine is not None:
                coroutine.close()
        except Exception as error:
            return error
        finally:
            # Wakes whoever awaits it in the handler's stead.
            _cancel(waiter)
        return None


class Suspended:
    """A handler's coroutine that waits for something. ``await`` it to its end in the task that runs the bus."""

    def __init__(self, task: HandlerTask) -> None:
        self._task = task
        self._given_up: BaseException | None = None
        self._limited: Subscription | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._expired = False

    def limit(self, subscription: Subscription) -> None:
        """Cancel it when its handler's ``timeout_s``, if it has one, has passed from now.

        It may clean up, for as long again, and fails with HandlerTimeout whatever it makes of that.
        """
        if subscription.timeout_s is not None:
            self._limited = subscription
            self._timer = self._task.get_loop().call_later(subscription.timeout_s, self._expire, subscription.timeout_s)

    def _expire(self, timeout_s: float) -> None:
        if self._expired:
            self.close()
            return
        self._expired = True
        self._timer = self._task.get_loop().call_later(timeout_s, self._expire, timeout_s)
        self._task.cancel()

    def _outcome(self, reached: Any) -> Any:
        """What it came to, or that it took too long."""
        self._stop_timer()
        subscription = self._limited
        if not self._expired or subscription is None:
            return reached
        subscription.timed_out += 1
        error = HandlerTimeout(
            f"{subscription.name} took longer than its timeout_s={subscription.timeout_s:g} and was cancelled; what it "
            "would have emitted is lost"
        )
        if isinstance(reached, Exception):
            error.__cause__ = reached
        return error

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def left(self, error: BaseException) -> Any:
        """What it comes to when the task that awaited it was cancelled: that is its failure."""
        return error

    def __await__(self) -> Generator[Any, Any, Any]:
        """The coroutine's result, or the exception that it raised, as a value: its failure is not the bus's.

        Cancelling the awaiting task cancels the coroutine, and raises CancelledError whatever it makes of that: it may
        clean up, and is closed where it waits again.
        """
        awaiting = asyncio.current_task()
        cancelled_before = awaiting.cancelling() if awaiting is not None else 0
        while True:
            thrown: BaseException | None = None
            try:
                yield self._task._fut_waiter
            except GeneratorExit:
                self.close()
                raise
            except BaseException as error:  # what the awaited future raised, or a cancellation
                thrown = error
            reached = self._task.advance(thrown) if self._given_up is None else self._given_up
            cancelled = awaiting is not None and awaiting.cancelling() > cancelled_before
            if cancelled and isinstance(thrown, asyncio.CancelledError):
                self.close()
                raise thrown
            if not isinstance(reached, Suspended):
                return self._outcome(reached)

    def close(self) -> BaseException | None:
        """Give the coroutine up: its ``finally`` blocks run now. Returns what they raised, if anything.

        Whoever awaits it is woken, and gets a CancelledError as its result.
        """
        if self._given_up is not None:
            return None
        self._given_up = asyncio.CancelledError("the handler was given up while it waited")
        self._stop_timer()
        return self._task.give_up()


class Coroutines:
    """Steps the coroutines of one bus's async handlers, and knows which of its callers is one."""

    def __init__(self) -> None:
        self._spare: HandlerTask | None = None

    def step(self, coroutine: _Coroutine, mailbox: object | None = None) -> Suspended | Any | BaseException:
        """Run a coroutine to its first wait: Suspended, or its result, or the exception that it raised. About 1 µs.

        ``mailbox``: the queue that it came from.
        """
        loop = asyncio._get_running_loop()
        if loop is None:
            return _step_without_loop(coroutine)
        task = self._spare
        if task is None or task.get_loop() is not loop or task.coroutine is not None or task.cancelling():
            task = self._spare = HandlerTask(loop, self)
        task.coroutine = coroutine
        task.mailbox = mailbox
        return task.advance()

    def defers(self, subscription: Subscription) -> bool:
        """Never: whoever uses this waits for the coroutine in line."""
        return False

    def begin(
        self, subscription: Subscription, coroutine: _Coroutine, unit: Unit, position: int, events: int = 1
    ) -> Suspended | Any | BaseException:
        """Step it in line, whatever its handler's queue and timeout: in a run, time is virtual."""
        return self.step(coroutine)

    def is_asking(self) -> bool:
        """Whether the caller is one of these handlers, which goes on after a wait."""
        return self.asking() is not None

    def asking(self) -> HandlerTask | None:
        """The handler that is asking, if the caller is one of these."""
        try:
            task: Any = asyncio.current_task()
        except RuntimeError:  # no loop: nobody waits
            return None
        return task if isinstance(task, HandlerTask) and task.owner is self else None


def _cancel(waiter: Any) -> bool:
    """Cancel what a coroutine waits for: a future, or None where it only lets the loop turn once."""
    cancel = getattr(waiter, "cancel", None)
    return cancel is not None and bool(cancel())


def _step_without_loop(coroutine: _Coroutine) -> Any | BaseException:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    except Exception as error:
        return error
    coroutine.close()
    return RuntimeError("an async handler can wait only where a loop runs: call do_work within one")
