"""One emitted event, or one notice, on its way through the handlers: the object goes to each as it is."""

from __future__ import annotations

from collections.abc import Sequence
from types import CoroutineType
from typing import Any

from hftlab.bus.chunk import Outcome
from hftlab.bus.coroutines import Coroutines, Suspended
from hftlab.bus.failures import FailureLog
from hftlab.bus.subscriptions import Subscription
from hftlab.events.records import Rows
from hftlab.events.types import Event


class Single:
    """``event`` and its row, given to each of ``handlers`` in turn. Driven like a Chunk of one row.

    A notice has no row, and its handlers no ``where``. ``cause`` is what events emitted by the handlers name as theirs.
    """

    def __init__(
        self,
        event: Event | Any,
        rows: Rows | None,
        handlers: Sequence[Subscription],
        failures: FailureLog,
        coroutines: Coroutines,
        cause: int,
    ) -> None:
        self.event = event
        self._cause = cause
        self.rows = rows
        self.emitted: list[tuple[int, Subscription, Any]] = []
        self.suspended: Suspended | None = None
        self._failures, self._coroutines = failures, coroutines
        self._handlers = handlers
        self._begun = 0

    def advance(self) -> Outcome:
        """Call the handlers that are left, until one waits."""
        while self._begun < len(self._handlers):
            subscription = self._handlers[self._begun]
            wanted = subscription.where is None or self._judged(subscription)
            self._begun += 1
            if not wanted:
                continue
            subscription.calls += 1
            subscription.delivered += 1
            try:
                result = subscription.call(self.event)
            except Exception as error:
                self._failures.record(subscription, self.event, error)
                continue
            if type(result) is CoroutineType:
                self.settle(self._coroutines.step(result))
                if self.suspended is not None:
                    return Outcome.AWAITING
            elif result is not None:
                self.emitted.append((0, subscription, result))
        return Outcome.DONE

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
        elif isinstance(reached, BaseException):
            self._failures.record(subscription, self.event, reached)
        elif reached is not None:
            self.emitted.append((0, subscription, reached))

    def event_at(self, position: int) -> Event | Any:
        """The event, or notice."""
        return self.event

    def id_at(self, position: int) -> int:
        """The id that names it as a cause."""
        return self._cause
