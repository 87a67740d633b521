"""A batch that is due, on its way to its batch handler."""

from __future__ import annotations

import time
from asyncio import CancelledError
from types import CoroutineType
from typing import Any

import numpy as np
import numpy.typing as npt

from hftlab.bus.chunk import Outcome
from hftlab.bus.coroutines import POSTED, AsyncCalls, OnEnd, Suspended
from hftlab.bus.failures import FailureSink, Given
from hftlab.bus.plan import event_id_at, event_or_row
from hftlab.bus.queues import Due
from hftlab.bus.subscriptions import Subscription
from hftlab.bus.watchdog import HoldUps
from hftlab.clock import Clock
from hftlab.events.batch import EventBatch
from hftlab.events.rowbytes import copy_rows
from hftlab.events.tables import SourceTable, SymbolTable


class Delivery:
    """One call of a batch handler. Driven like a Chunk.

    ``on_end`` is told when the call of a redelivered batch has ended; its handler was asked which rows it wants before.
    """

    def __init__(
        self,
        due: Due,
        symbols: SymbolTable,
        sources: SourceTable,
        session_number: int,
        failures: FailureSink,
        coroutines: AsyncCalls,
        clock: Clock | None = None,
        watchdog: HoldUps | None = None,
        *,
        on_end: OnEnd | None = None,
    ) -> None:
        self.due = due
        self.subscription = due.subscription
        self.batch = EventBatch(due.rows, symbols, sources, session_number=session_number)
        self.emitted: list[tuple[int, Subscription, Any]] = []
        self.suspended: Suspended | None = None
        self.on_end = on_end
        self.called = False  # or nobody wanted a row of it, or a breaker kept it away
        self.elapsed_ns = 0  # in the handler, awaited in line or not
        self.ended = self.posted = False  # its last call has come to something; or will, in its handler's own queue
        self._failures, self._coroutines = failures, coroutines
        self._clock, self._watchdog = clock, HoldUps() if watchdog is None else watchdog
        self._called = self._running = False
        self._begun_ns = 0  # of a call that waits
        self._tried = 0
        self._chosen: npt.NDArray[np.intp] | None = None
        self._lost: set[int] = set()  # places in the batch that was due
        self._failed_rows = 0

    @property
    def places(self) -> npt.NDArray[np.intp]:
        """The places, in the batch that was due, of the rows that the handler was given."""
        return np.arange(len(self.due.rows)) if self._chosen is None else self._chosen

    @property
    def lost_places(self) -> npt.NDArray[np.intp]:
        """The places, in the batch that was due, of the rows that were not got done."""
        return np.array(sorted(self._lost), np.intp)

    def advance(self) -> Outcome:
        """Call the handler with the rows that it wants, if there are any."""
        if self._called:
            # An interrupted run over the batch goes on where it was; an interrupted call is not repeated.
            return self._run_compiled() if self._running else Outcome.DONE
        subscription, batch = self.subscription, self.batch
        chosen = None
        if self.on_end is None:
            chosen = subscription.select(batch.records, batch.symbols, self._refuse_at)
        self._called = True
        if chosen is not None:
            if not len(chosen):
                return Outcome.DONE
            self.batch, self._chosen = batch.where(chosen), chosen
        if not self._is_permitted():
            return Outcome.DONE
        subscription.delivered += len(self.batch)
        self.called = True
        begun_ns = time.perf_counter_ns()
        if subscription.compiled is not None:
            subscription.calls += len(self.batch)
            self._running = True
            self._run_compiled()
        else:
            if self._coroutines.defers(subscription):
                # The rows lie in a ring that goes on while the handler waits.
                self.batch = self.event_at(0)
            subscription.calls += 1
            self._call()
        elapsed_ns = self.elapsed_ns = time.perf_counter_ns() - begun_ns
        if elapsed_ns >= self._watchdog.limit_ns:
            self._watchdog.look(elapsed_ns, 1, lambda: (subscription,))
        if self.suspended is not None:
            self._begun_ns = begun_ns
        return Outcome.AWAITING if self.suspended is not None else Outcome.DONE

    def _call(self) -> None:
        subscription = self.subscription
        # Counted beside the call: a coroutine that fails later comes back here.
        while self._tried < subscription.attempts:
            self._tried += 1
            try:
                result = subscription.handler(self.batch)
            except (Exception, CancelledError) as error:
                if self._tried == subscription.attempts:
                    self._fail(error)
                continue
            if type(result) is CoroutineType:
                result = self._coroutines.begin(subscription, result, self, 0, len(self.batch))
            self.settle(result)
            return

    def _run_compiled(self) -> Outcome:
        assert self.subscription.compiled is not None
        emitted = self.subscription.compiled.handle(self.batch, self._fail_at)
        self._running, self.ended = False, True
        breaker = self.subscription.breaker
        if breaker is not None and 100 * self._failed_rows >= breaker.settings.failure_rate_threshold * len(self.batch):
            # One call, as for every batch: it failed if so many of its events did.
            breaker.record_failure(self._now_ns())
            if emitted is not None:
                self.emitted.append((0, self.subscription, emitted))
        else:
            self.settle(emitted)
        return Outcome.DONE

    def _now_ns(self) -> int:
        return 0 if self._clock is None else self._clock.now_ns()

    def _is_permitted(self) -> bool:
        """Whether the handler's circuit breaker lets the batch, as one call, through."""
        breaker = self.subscription.breaker
        if breaker is None or breaker.permits_all or breaker.permit(np.array([self._now_ns()], np.int64))[1]:
            return True
        self._lost.update(self.places.tolist())
        self._failures.reject(self.subscription, self.event_at(0))
        self.ended = True
        return False

    def settle(self, reached: Suspended | Any | BaseException) -> None:
        """Take what the handler returned, or what an async handler's coroutine came to."""
        if self.suspended is not None and self._begun_ns:
            self.elapsed_ns = time.perf_counter_ns() - self._begun_ns
        self.suspended = None
        if isinstance(reached, Suspended):
            self.suspended = reached
        elif isinstance(reached, Exception) and self._tried < self.subscription.attempts:
            self._call()
        elif isinstance(reached, BaseException):
            self._fail(reached)
        elif reached is POSTED:
            self.posted = True
        else:
            self.ended = True
            if self.subscription.breaker is not None:
                self.subscription.breaker.record(1, self._now_ns())
            if reached is not None:
                self.emitted.append((0, self.subscription, reached))

    def _fail(self, error: BaseException) -> None:
        self.ended = True
        self._lost.update(self.places.tolist())
        if self.subscription.breaker is not None:
            self.subscription.breaker.record_failure(self._now_ns())
        self._failures.record(self.subscription, self.event_at(0), error, lost=len(self.batch))

    def _fail_at(self, position: int, error: Exception) -> None:
        """A compiled handler failed on one row."""
        self._failed_rows += 1
        self._lost.add(int(self.places[position]))
        self._record_at(position, error)

    def _refuse_at(self, position: int, error: Exception) -> None:
        """``where=`` failed on one row: the handler was never called with it."""
        self._lost.add(position)
        self._record_at(position, error)

    def _record_at(self, position: int, error: Exception) -> None:
        batch = self.batch
        row = batch.records[position : position + 1]
        event = event_or_row(row, batch.symbols, batch.sources, batch.session_number)
        self._failures.record(self.subscription, event, error)

    def event_at(self, position: int) -> EventBatch:
        """What the handler was given: a copy, for the rows of the batch lie in a ring that goes on."""
        batch = self.batch
        records = copy_rows(batch.records)
        return EventBatch(records, batch.symbols, batch.sources, session_number=batch.session_number)

    def keep_at(self, position: int) -> Given:
        """Makes the batch, whenever: it is a copy where its handler's calls may end later."""
        return lambda: self.batch

    def type_at(self, position: int) -> int:
        """The batch's type."""
        return self.due.event_type

    def id_at(self, position: int) -> int:
        """The id of the batch's last event."""
        return event_id_at(self.batch.records, -1, self.batch.session_number)
