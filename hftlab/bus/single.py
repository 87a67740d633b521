"""One emitted event, or one notice, on its way through the handlers: the object goes to each as it is."""

from __future__ import annotations

import time
from asyncio import CancelledError
from collections.abc import Sequence
from types import CoroutineType
from typing import Any

import numpy as np

from hftlab.bus.chunk import Outcome
from hftlab.bus.coroutines import POSTED, AsyncCalls, OnEnd, Suspended
from hftlab.bus.failures import FailureSink, Given
from hftlab.bus.subscriptions import Subscription
from hftlab.bus.watchdog import HoldUps
from hftlab.clock import Clock
from hftlab.events.records import Rows
from hftlab.events.types import Event


class Single:
    """``event`` and its row, given to each of ``handlers`` in turn. Driven like a Chunk of one row.

    A notice has no row, and its handlers no ``where``; nor is that asked of a redelivered event, which has none either.
    ``cause`` is what events emitted by the handlers name as theirs. ``on_end``: who is told when the call has ended.
    """

    def __init__(
        self,
        event: Event | Any,
        rows: Rows | None,
        handlers: Sequence[Subscription],
        failures: FailureSink,
        coroutines: AsyncCalls,
        cause: int,
        clock: Clock | None = None,
        watchdog: HoldUps | None = None,
        *,
        on_end: OnEnd | None = None,
    ) -> None:
        self.event = event
        self._cause = cause
        self.rows = rows
        self.emitted: list[tuple[int, Subscription, Any]] = []
        self.timed: list[tuple[Subscription, int]] = []  # how long each call took, to its first wait
        self.suspended: Suspended | None = None
        self.on_end = on_end
        self.ended = self.posted = False  # its last call has come to something; or will, in its handler's own queue
        self._failures, self._coroutines = failures, coroutines
        self._handlers = handlers
        self._clock, self._watchdog = clock, HoldUps() if watchdog is None else watchdog
        self._begun = self._tried = 0

    def advance(self) -> Outcome:
        """Call the handlers that are left, until one waits."""
        while self._begun < len(self._handlers):
            subscription = self._handlers[self._begun]
            wanted = self.rows is None or subscription.where is None or self._judged(subscription)
            self._begun += 1
            if not wanted or not self._is_permitted(subscription):
                continue
            subscription.calls += 1
            subscription.delivered += 1
            begun_ns = time.perf_counter_ns()
            self._tried, self.ended = 0, False
            self._call(subscription)
            elapsed_ns = time.perf_counter_ns() - begun_ns
            self.timed.append((subscription, elapsed_ns))
            if elapsed_ns >= self._watchdog.limit_ns:
                self._watchdog.look(elapsed_ns, 1, lambda one=subscription: (one,))  # type: ignore[misc]
            if self.suspended is not None:
                return Outcome.AWAITING
        return Outcome.DONE

    def _call(self, subscription: Subscription) -> None:
        # Counted beside the call: a coroutine that fails later comes back here.
        while self._tried < subscription.attempts:
            self._tried += 1
            try:
                result = subscription.call(self.event)
            except (Exception, CancelledError) as error:
                if self._tried == subscription.attempts:
                    self._fail(subscription, error)
                continue
            if type(result) is CoroutineType:
                result = self._coroutines.begin(subscription, result, self, 0, 1)
            self.settle(result)
            return

    def _now_ns(self) -> int:
        if self._clock is not None:
            return self._clock.now_ns()
        return 0

    def _is_permitted(self, subscription: Subscription) -> bool:
        """Whether the handler's circuit breaker lets the event through."""
        breaker = subscription.breaker
        if breaker is None or breaker.permits_all or breaker.permit(np.array([self._now_ns()], np.int64))[1]:
            return True
        self._failures.reject(subscription, self.event)
        self.ended = True
        return False

    def _fail(self, subscription: Subscription, error: BaseException) -> None:
        self.ended = True
        if subscription.breaker is not None:
            subscription.breaker.record_failure(self._now_ns())
        self._failures.record(subscription, self.event, error)

    def _judged(self, subscription: Subscription) -> bool:
        def refuse(position: int, error: Exception) -> None:
            self._failures.record(subscription, self.event, error)

        assert self.rows is not None
        return bool(subscription.judge(self.rows, refuse)[0])

    def settle(self, reached: Suspended | Any | BaseException) -> None:
        """Take what an async handler's coroutine came to: it waits (again), failed, or returned."""
        subscription = self._handlers[self._begun - 1]
        self.suspended = None
        if isinstance(reached, Suspended):
            self.suspended = reached
        elif isinstance(reached, Exception) and self._tried < subscription.attempts:
            self._call(subscription)
        elif isinstance(reached, BaseException):
            self._fail(subscription, reached)
        elif reached is POSTED:
            self.posted = True
        else:
            self.ended = True
            if subscription.breaker is not None:
                subscription.breaker.record(1, self._now_ns())
            if reached is not None:
                self.emitted.append((0, subscription, reached))

    def event_at(self, position: int) -> Event | Any:
        """The event, or notice."""
        return self.event

    def keep_at(self, position: int) -> Given:
        """Makes the event, whenever: objects are nobody's memory but their own."""
        return lambda: self.event

    def id_at(self, position: int) -> int:
        """The id that names it as a cause."""
        return self._cause

    def type_at(self, position: int) -> int:
        """The event's type; 0 of a notice."""
        return self.event.event_type if isinstance(self.event, Event) else 0
