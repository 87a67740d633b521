"""What handlers did wrong: kept, counted, and raised once at the next call into the API."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from hftlab.bus.dead_letters import DeadLetters
from hftlab.bus.subscriptions import Subscription
from hftlab.errors import BreakerOpen, HandlerFailed
from hftlab.events.batch import EventBatch
from hftlab.events.types import Event

KEPT = 100

Given = Callable[[], Event | EventBatch]
"""Makes what a handler was given, for a failure's record: only then is it worth an object."""


@dataclass(frozen=True)
class Failure:
    """One failed call: the handler's name, what it was given, and the exception.

    ``event`` holds nothing of the bus's memory: it stays what it was; None where a source, a rule or a port failed.
    ``lost`` events were not handled.
    """

    handler: str
    event: Event | EventBatch | None
    error: BaseException
    lost: int = 1

    @property
    def traceback(self) -> str:
        """The traceback as text, for people; it begins in the handler."""
        return "".join(traceback.format_exception(self.error))

    def __repr__(self) -> str:
        return f"Failure({self.handler}: {type(self.error).__name__}: {self.error})"


class FailureSink(Protocol):
    """Who is told what became of a handler's calls."""

    def record(
        self, subscription: Subscription, event: Event | EventBatch, error: BaseException, lost: int = 1
    ) -> None:
        """Keep one failure."""

    def reject(self, subscription: Subscription, events: Event | EventBatch) -> BreakerOpen:
        """Keep what a handler's circuit breaker does not let through."""


class FailureLog:
    """The latest 100 failures, and the count of all. Iterates from the oldest that is kept."""

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.count = 0
        self.dead_letters = DeadLetters(now_ns, self.note)
        self._kept: deque[Failure] = deque(maxlen=KEPT)
        self._unraised: Failure | None = None
        self._unraised_count = 0

    def record(
        self, subscription: Subscription, event: Event | EventBatch, error: BaseException, lost: int = 1
    ) -> None:
        """Keep one failure; it is raised by the next call, unless somebody keeps its letter for good."""
        # The bus's own frames say nothing to the user, and would keep whole chunks of rows alive.
        error.__traceback__ = _behind_the_bus(error.__traceback__)
        subscription.failed += 1
        kept = False
        if isinstance(event, (Event, EventBatch)):  # a notice is nobody's event
            subscription.dead_lettered += lost
            kept = self.dead_letters.add(subscription.name, event, error, subscription.attempts)
        self._keep(Failure(subscription.name, event, error, lost), settled=kept)

    def reject(self, subscription: Subscription, events: Event | EventBatch) -> BreakerOpen:
        """Keep what a handler's circuit breaker does not let through: no failure, but dead letters. Returns why."""
        count = len(events) if isinstance(events, EventBatch) else 1
        subscription.rejected += count
        subscription.dead_lettered += count
        assert subscription.breaker is not None
        error = BreakerOpen(f"the circuit breaker of {subscription.name} is {subscription.breaker.state.value}")
        self.dead_letters.add(subscription.name, events, error, 0)
        return error

    @property
    def unraised(self) -> bool:
        """Whether there was a failure that no call has raised."""
        return self._unraised is not None

    def note(self, name: str, error: Exception) -> None:
        """Keep the failure of somebody who is no handler: a source that was to pause, a rule, a port."""
        error.__traceback__ = _behind_the_bus(error.__traceback__)
        self._keep(Failure(name, None, error, 0), settled=False)

    def _keep(self, failure: Failure, *, settled: bool) -> None:
        self.count += 1
        self._kept.append(failure)
        if settled:
            return
        self._unraised_count += 1
        if self._unraised is None:
            self._unraised = failure

    def raise_first(self) -> None:
        """Raise HandlerFailed for the first failure since the last call, if any; the others are counted in it."""
        failure, count = self._unraised, self._unraised_count
        if failure is None:
            return
        self._unraised, self._unraised_count = None, 0
        others = count - 1
        more = f" ({others:,} more failure{'s' if others > 1 else ''} since: see bus.failures)" if others else ""
        given = "" if failure.event is None else f"while it handled {failure.event!r:.300}"
        raise HandlerFailed(
            f"{failure.handler} raised {type(failure.error).__name__}: {failure.error}\n"
            f"{given}{more}. Nobody else was held up; mend the handler and run its "
            "cell again",
            handler=failure.handler,
            event=failure.event,
        ) from failure.error

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Failure]:
        return iter(self._kept)

    def __repr__(self) -> str:
        return f"FailureLog({self.count:,} failures)" if self.count else "FailureLog(no failures)"


def _behind_the_bus(trace: TracebackType | None) -> TracebackType | None:
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("hftlab.bus."):
        trace = trace.tb_next
    return trace
