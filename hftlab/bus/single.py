"""One emitted event on its way through the handlers: the object goes to each as it is, no column is converted."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from types import CoroutineType
from typing import Any

from hftlab.bus.chunk import Outcome
from hftlab.bus.coroutines import Suspended, step
from hftlab.bus.failures import FailureLog
from hftlab.bus.subscriptions import Subscription
from hftlab.events.records import Rows
from hftlab.events.tables import SymbolTable
from hftlab.events.types import Event


class Single:
    """``event`` and its row, given to each of ``handlers`` in turn. Driven like a Chunk of one row."""

    def __init__(
        self, event: Event, rows: Rows, handlers: Sequence[Subscription], symbols: SymbolTable, failures: FailureLog
    ) -> None:
        self.event = event
        self.rows = rows
        self.emitted: list[tuple[int, Subscription, Any]] = []
        self.suspended: Suspended | None = None
        self._failures = failures
        self._left = [subscription for subscription in handlers if self._wanted(subscription, symbols)]
        self._left.reverse()
        self._current: Subscription | None = None

    def _wanted(self, subscription: Subscription, symbols: SymbolTable) -> bool:
        if subscription.pattern is None and subscription.where is None:
            return True
        try:
            chosen = subscription.select(self.rows, symbols)
        except Exception as error:  # the user's where=
            self._failures.record(subscription, self.event, error)
            return False
        return chosen is None or len(chosen) > 0

    def advance(self) -> Outcome:
        """Call the handlers that are left, until one waits."""
        while self._left:
            subscription = self._current = self._left.pop()
            subscription.calls += 1
            subscription.delivered += 1
            try:
                if subscription.mode == "fields":
                    result = subscription.handler(*self._values(subscription.fields))
                else:
                    result = subscription.handler(self.event)
            except Exception as error:
                self._failures.record(subscription, self.event, error)
                continue
            if type(result) is CoroutineType:
                self.settle(step(result))
                if self.suspended is not None:
                    return Outcome.AWAITING
            elif result is not None:
                self.emitted.append((0, subscription, result))
        return Outcome.DONE

    def event_at(self, position: int) -> Event:
        """The event."""
        return self.event

    def event_id_at(self, position: int) -> int:
        """The event's id."""
        return self.event.event_id

    def settle(self, reached: Suspended | Any | BaseException) -> None:
        """Take what an async handler's coroutine came to: it waits (again), failed, or returned."""
        assert self._current is not None
        self.suspended = None
        if isinstance(reached, Suspended):
            self.suspended = reached
        elif isinstance(reached, BaseException):
            self._failures.record(self._current, self.event, reached)
        elif reached is not None:
            self.emitted.append((0, self._current, reached))

    def _values(self, fields: Sequence[str]) -> Sequence[Any]:
        values = attrgetter(*("event_id" if field == "log_sequence" else field for field in fields))(self.event)
        return values if len(fields) > 1 else (values,)
