"""Where async handlers' calls begin and end: one lane's side of the mailboxes."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from types import CoroutineType
from typing import Any, Protocol

from hftlab.bus.coroutines import POSTED, Coroutines, Suspended, Unit
from hftlab.bus.delivery import Delivery
from hftlab.bus.failures import FailureLog, Given
from hftlab.bus.journeys import Recorder
from hftlab.bus.mailbox import Call, Mailbox, Mailboxes
from hftlab.bus.subscriptions import Subscription
from hftlab.events.records import Priority


class Outlet(Protocol):
    """Where a lane's calls end: a Dispatcher."""

    @property
    def cascade(self) -> int:
        """How many events the published event that is at work has led to."""

    def emit_later(
        self, result: Any, subscription: Subscription, given: Given, cause: int, cascade: int
    ) -> Exception | None:
        """Take what a call returned long after it was made; ``cascade`` is what that was when it was made. Returns why
        it was refused, if it was."""

    def lose(self, unit: Unit, position: int, events: int) -> None:
        """Count the events of a call that failed long after it was made."""


class LaneCalls:
    """Takes the coroutines of one lane's async handlers: AsyncCalls of a live bus."""

    def __init__(
        self,
        level: Priority,
        coroutines: Coroutines,
        mailboxes: Mailboxes,
        failures: FailureLog,
        outlet: Outlet,
        recorder: Recorder | None = None,
    ) -> None:
        self.level = level
        self._recorder = recorder
        self._coroutines, self._mailboxes = coroutines, mailboxes
        self._failures, self._outlet = failures, outlet

    def defers(self, subscription: Subscription) -> bool:
        """Whether a coroutine of this handler may go on when the call that made it is long over."""
        mailbox = subscription.mailbox
        return (subscription.is_async and subscription.queue != 0) or (mailbox is not None and mailbox.busy)

    def begin(
        self,
        subscription: Subscription,
        coroutine: Coroutine[Any, Any, Any],
        unit: Unit,
        position: int,
        events: int = 1,
    ) -> Any:
        """Run a coroutine to its first wait, or queue it behind those that its handler has not done yet.

        Returns its result or its exception where it has ended, POSTED where that comes later, Suspended where it is
        awaited in line, Parked where its mailbox is full. About 1 µs where it never waits, 20 µs where it does.
        """
        mailbox = subscription.mailbox
        if mailbox is not None and mailbox.busy:
            return mailbox.post(self._call(subscription, coroutine, unit, position, events))
        if subscription.queue == 0:
            reached = self._coroutines.step(coroutine)
            if isinstance(reached, Suspended):
                reached.limit(subscription)
            return reached
        if mailbox is None:
            mailbox = subscription.mailbox = Mailbox(subscription.bound, self._mailboxes, self._coroutines)
        begun_ns = time.perf_counter_ns()
        reached = self._coroutines.step(coroutine, mailbox)
        if isinstance(reached, Suspended):
            reached.limit(subscription)
            mailbox.go_on(self._call(subscription, coroutine, unit, position, events, begun_ns), reached)
            return POSTED
        if self._recorder is not None and not isinstance(unit, Delivery):
            elapsed_ns = time.perf_counter_ns() - begun_ns
            self._recorder.note_call(subscription.name, unit.type_at(position), elapsed_ns, events)
        return reached

    def _call(
        self,
        subscription: Subscription,
        coroutine: Coroutine[Any, Any, Any],
        unit: Unit,
        position: int,
        events: int,
        begun_ns: int = 0,
    ) -> Call:
        given, cause = unit.keep_at(position), unit.id_at(position)
        cascade, generation = self._outlet.cascade, subscription.generation
        return Call(
            subscription, coroutine, given, cause, events, self, unit, position, cascade, generation,
            unit.type_at(position), begun_ns or time.perf_counter_ns(),
        )  # fmt: skip

    def end(self, call: Call, reached: Any) -> None:
        """Take what a call came to: it failed, or returned what is to be emitted."""
        error = reached if isinstance(reached, BaseException) else None
        refused: Exception | None = None
        if error is not None:
            self.fail(call, error)
        elif reached is not None:
            refused = self._outlet.emit_later(reached, call.subscription, call.given, call.cause, call.cascade)
        call.subscription.completed(error, call.generation)
        if self._recorder is not None:
            elapsed_ns = time.perf_counter_ns() - call.begun_ns
            self._recorder.note_call(call.subscription.name, call.event_type, elapsed_ns, call.events)
        if call.unit.on_end is not None:
            call.unit.on_end.ended(refused if error is None else error)

    def fail(self, call: Call, error: BaseException) -> None:
        """Record a call's failure."""
        self._outlet.lose(call.unit, call.position, call.events)
        self._failures.record(call.subscription, call.given(), error, lost=call.events)

    def left(self, call: Call, why: str) -> None:
        """Tell whoever asks of a call that was given up, begun or not."""
        if call.unit.on_end is not None:
            call.unit.on_end.lost(why)


class Behind:
    """A handler that took the place of an async one: what that has not done yet goes first.

    It becomes the subscription's ``handler`` itself when that is done.
    """

    def __init__(self, subscription: Subscription, mailbox: Mailbox) -> None:
        self._subscription, self._mailbox = subscription, mailbox
        self._handler = subscription.handler

    def __call__(self, *given: Any) -> Any:
        """What the handler returns; a coroutine of it where it has to wait."""
        if self._mailbox.busy:
            return self._call_later(given)
        self._subscription.handler = self._handler
        return self._handler(*given)

    async def _call_later(self, given: tuple[Any, ...]) -> Any:
        result = self._handler(*given)
        return await result if type(result) is CoroutineType else result


def take_over(subscription: Subscription, mailbox: Mailbox) -> None:
    """Have a subscription go on with the mailbox of the one that it replaces: its calls come behind those in it."""
    subscription.mailbox = mailbox
    if subscription.queue != 0:
        mailbox.bound = subscription.bound
    if not subscription.is_async:
        subscription.handler = Behind(subscription, mailbox)
