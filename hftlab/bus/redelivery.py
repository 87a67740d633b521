"""Events that one handler is given once more: what it failed on before, after it was mended or after a while.

A redelivery goes to the one subscription of its name and to nobody else: neither ``symbol`` nor ``where=`` is asked
again, no window, observer or other handler sees the rows, and they count neither as published nor as handled (but as
``retried``). Everything else is as for any call: attempts, circuit breaker, emissions, an async handler's own queue,
and dead letters for what fails again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from hftlab.bus.coroutines import AsyncCalls
from hftlab.bus.delivery import Delivery
from hftlab.bus.failures import FailureLog
from hftlab.bus.plan import UNREADABLE
from hftlab.bus.queues import Due
from hftlab.bus.single import Single
from hftlab.bus.subscriptions import Subscription
from hftlab.bus.watchdog import HoldUps
from hftlab.clock import Clock
from hftlab.errors import BreakerOpen, BusError, BusFull, ValidationError, shown
from hftlab.events.batch import EventBatch
from hftlab.events.records import EventType
from hftlab.events.rowbytes import copy_rows
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.events.types import Event

MOST_WAITING = 65_536
"""How many events may wait to be redelivered, 8 MB of rows; a single batch may be of any size."""

Done = Callable[[BaseException | None], None]
"""Told once, on the bus's thread, how a redelivery ended: None, or the first error."""


class Redelivery:
    """One event, or a batch, on its way to one handler; ``done`` is told once how that ended.

    A batch handler is given it in batches of one type and of up to its ``batch_rows``, any other handler row by row.
    The units that it makes record their failures here, which is how it knows of them.
    """

    def __init__(
        self, handler: str, given: Event | EventBatch, failures: FailureLog, done: Done | None, tables: Tables
    ) -> None:
        self.handler = handler
        self.error: BaseException | None = None
        self._event = given if isinstance(given, Event) else None
        self._batch = None if isinstance(given, Event) else _owned(given, tables)
        self._count = 1 if isinstance(given, Event) else len(given)
        self._tables, self._failures, self._done = tables, failures, done
        self._begun = 0  # events whose call was made
        self._open: list[Event | EventBatch] = []  # what the calls that have not ended were given
        self._told = False

    def __len__(self) -> int:
        return self._count

    @property
    def types(self) -> Collection[EventType]:
        """The types of its events."""
        return list(self.batch.counts()) if self._event is None else (self._event.event_type,)

    @property
    def batch(self) -> EventBatch:
        """Its events as a batch of their own under the bus's tables."""
        if self._batch is None:
            assert self._event is not None
            self._batch = _owned(EventBatch.from_events([self._event]), self._tables)
        return self._batch

    @property
    def left(self) -> int:
        """How many events no call was made for yet."""
        return self._count - self._begun

    def take(self, subscription: Subscription) -> Event | EventBatch | None:
        """What the next call is given; None for a row that no event can be made of, which failed then."""
        given = self._take(subscription)
        if given is not None:
            self._open.append(given)
        elif not self._open and not self.left:
            self.tell()
        return given

    def _take(self, subscription: Subscription) -> Event | EventBatch | None:
        begun = self._begun
        if subscription.batched:
            batch = self.batch[begun : begun + subscription.batch_rows]
            following = np.flatnonzero(batch.records["type"] != batch.records["type"][0])
            batch = next(batch[: following[0] if len(following) else len(batch)].runs())
            self._begun += len(batch)
            return batch
        self._begun += 1
        if self._event is not None:
            return self._event
        try:
            return self.batch[begun]
        except UNREADABLE as error:
            self.record(subscription, self.batch.where(np.array([begun])), error)
            return None

    def record(
        self, subscription: Subscription, event: Event | EventBatch, error: BaseException, lost: int = 1
    ) -> None:
        """Keep a failure of its calls, like any other."""
        self._note(error)
        self._failures.record(subscription, event, error, lost)

    def reject(self, subscription: Subscription, events: Event | EventBatch) -> BreakerOpen:
        """Keep what the handler's circuit breaker did not let through."""
        error = self._failures.reject(subscription, events)
        self._note(error)
        return error

    def ended(self, given: Event | EventBatch, error: BaseException | None) -> None:
        """One of its calls has ended; ``error``: a failure that was not recorded here."""
        self._open = [one for one in self._open if one is not given]
        self._note(error)
        if not self._open and not self.left:
            self.tell()

    def lost(self, given: Event | EventBatch, why: str) -> None:
        """One of its calls will never come to anything: that is a dead letter."""
        if not self._told:
            error = BusError(f"a call of {self.handler} was given up: {why}")
            self._failures.dead_letters.add(self.handler, given, error, 0)
            self.ended(given, error)

    def give_up(self, error: BaseException) -> None:
        """Make no more calls: what they would have been given becomes a dead letter."""
        self._note(error)
        if self.left and not self._told:
            given = self.batch[self._begun :] if self._event is None else self._event
            self._failures.dead_letters.add(self.handler, given, error, 0)
        self._begun = self._count
        if not self._open:
            self.tell()

    def give_up_calls(self, error: BaseException) -> None:
        """Wait no longer for calls that were made."""
        self.give_up(error)
        for given in self._open:
            self._failures.dead_letters.add(self.handler, given, error, 0)
        self._open = []
        self.tell()

    def _note(self, error: BaseException | None) -> None:
        if self.error is None:
            self.error = error

    @property
    def is_over(self) -> bool:
        """Whether its end was told."""
        return self._told

    def tell(self) -> None:
        """Say how it ended, once."""
        if self._told:
            return
        self._told = True
        if self._done is not None:
            try:
                self._done(self.error)
            except Exception as error:  # the caller's own function
                self._failures.note(f"done= of a redelivery to {self.handler}", error)


class _Call(NamedTuple):
    """One of its calls: an OnEnd."""

    redelivery: Redelivery
    given: Event | EventBatch
    forget: Callable[[Redelivery], None]

    def ended(self, error: BaseException | None) -> None:
        self.redelivery.ended(self.given, error)
        self.forget(self.redelivery)

    def lost(self, why: str) -> None:
        self.redelivery.lost(self.given, why)
        self.forget(self.redelivery)


class Tables:
    """The tables of a bus."""

    def __init__(self, symbols: SymbolTable, sources: SourceTable) -> None:
        self.symbols, self.sources = symbols, sources


class Redeliveries:
    """Those that wait, the oldest first, and those whose calls have not ended. ``retried`` counts events given."""

    def __init__(self, failures: FailureLog, symbols: SymbolTable, sources: SourceTable) -> None:
        self.retried = 0
        self._failures, self._tables = failures, Tables(symbols, sources)
        self._waiting: deque[Redelivery] = deque()
        self._left = 0  # events of those that wait
        self._unfinished: dict[Redelivery, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(
        self,
        handler: str,
        given: Event | EventBatch,
        done: Done | None,
        subscriptions: Sequence[Subscription],
    ) -> None:
        """Queue one. Raises ValidationError for a handler that is not there, or does not take events of that type, and
        BusFull where too many wait. A batch's rows are copied."""
        if not isinstance(given, (Event, EventBatch)):
            raise ValidationError(f"redeliver takes an event, or an EventBatch; got {shown(given)}")
        subscription = _named(handler, subscriptions)
        if subscription is None:
            names = ", ".join(sorted(one.name for one in subscriptions)) or "none"
            raise ValidationError(
                f"redeliver takes the name of a subscription; got {shown(handler)}, and there are: {names}. "
                "Run the handler's cell, or give it that name= again"
            )
        waiting = self._left
        redelivery = Redelivery(handler, given, self._failures, done, self._tables)
        if waiting and waiting + len(redelivery) > MOST_WAITING:
            raise BusFull(
                f"at most {MOST_WAITING:,} events wait to be redelivered; {waiting:,} do, and {len(redelivery):,} more "
                "came: let the bus work before the next ones"
            )
        refusal = _refusal(subscription, redelivery.types)
        if refusal is not None:
            raise refusal
        self._waiting.append(redelivery)
        self._left += len(redelivery)

    def next_unit(
        self, subscriptions: Sequence[Subscription], calls: AsyncCalls, clock: Clock, watchdog: HoldUps
    ) -> Single | Delivery | None:
        """The next call of the oldest; None where that one came to its end without one."""
        redelivery = self._waiting[0]
        subscription = _named(redelivery.handler, subscriptions)
        error: BusError | ValidationError | None = None
        if not redelivery.left:
            redelivery.tell()
        elif subscription is None:
            error = BusError(
                f"{redelivery.handler} was cancelled with {redelivery.left:,} of {len(redelivery):,} events not "
                "redelivered; run its cell and redeliver them again"
            )
        else:
            error = _refusal(subscription, redelivery.types)
        if error is not None:
            self._left -= redelivery.left
            redelivery.give_up(error)
            self.forget(redelivery)
        if not redelivery.left:
            self._waiting.popleft()
            return None
        assert subscription is not None
        return self._make(redelivery, subscription, calls, clock, watchdog)

    def _make(
        self, redelivery: Redelivery, subscription: Subscription, calls: AsyncCalls, clock: Clock, watchdog: HoldUps
    ) -> Single | Delivery | None:
        before = redelivery.left
        given = redelivery.take(subscription)
        self.retried += before - redelivery.left
        self._left -= before - redelivery.left
        self._unfinished[redelivery] = None
        if not redelivery.left:
            self._waiting.popleft()

        if given is None:
            self.forget(redelivery)
            return None
        on_end = _Call(redelivery, given, self.forget)
        if isinstance(given, Event):
            return Single(
                given, None, [subscription], redelivery, calls, given.event_id, clock, watchdog, on_end=on_end
            )
        assert given.type is not None
        due = Due(subscription, given.type, given.records, None, 0, (len(given),), begun=True)
        tables = self._tables
        return Delivery(
            due, tables.symbols, tables.sources, given.session_number, redelivery, calls, clock, watchdog, on_end=on_end
        )

    def forget(self, redelivery: Redelivery) -> None:
        """Keep it no longer, if it is over."""
        if redelivery.is_over:
            self._unfinished.pop(redelivery, None)

    def give_up(self, why: str) -> None:
        """Make no more calls, and say so to whoever waits for one to end."""
        # What they are told may have them redeliver again: that is not given up.
        given_up = [*self._unfinished, *(one for one in self._waiting if one not in self._unfinished)]
        self._waiting.clear()
        self._left = 0
        self._unfinished.clear()
        for redelivery in given_up:
            redelivery.give_up_calls(BusError(f"the redelivery to {redelivery.handler} was given up: {why}"))


def _named(handler: str, subscriptions: Sequence[Subscription]) -> Subscription | None:
    return next((one for one in subscriptions if one.name == handler), None)


def _refusal(subscription: Subscription, types: Collection[EventType]) -> ValidationError | None:
    """Why a handler can't be given events of these types; None: it can."""
    if subscription.notice is not None:
        return ValidationError(f"{subscription.name} takes {subscription.notice.__name__}, not events")
    others = ", ".join(one.topic for one in types if one not in subscription.types)
    if not others:
        return None
    wanted = ", ".join(one.topic for one in sorted(subscription.types))
    return ValidationError(f"{subscription.name} takes events of the types {wanted}; got {others}")


def _owned(batch: EventBatch, tables: Tables) -> EventBatch:
    """A copy under the bus's tables: the caller's rows may be anybody's memory."""
    mine = batch.using(tables.symbols, tables.sources)
    records = copy_rows(mine.records)
    records.flags.writeable = False
    return EventBatch(records, tables.symbols, tables.sources, session_number=batch.session_number)
