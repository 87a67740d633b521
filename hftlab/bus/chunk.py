"""A chunk: up to 1,024 queued rows on their way through the event and field handlers, in their total order.

A chunk can be left at any call and taken up again: when the time slice ends, when a handler emitted (its events go
first), when an async handler waits, and after a failure, which costs nobody else anything. ``plan`` says how the calls
are made fast; here is what happens between them.
"""

from __future__ import annotations

import enum
import operator
import time
from asyncio import CancelledError
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from types import CoroutineType
from typing import Any

import numpy as np
import numpy.typing as npt

from hftlab.bus.backlog import Part
from hftlab.bus.coroutines import POSTED, AsyncCalls, Suspended
from hftlab.bus.failures import FailureLog, Given
from hftlab.bus.journeys import MARKED_CALLS, Marks
from hftlab.bus.plan import Plan, event_id_at, event_or_row
from hftlab.bus.routing import Routes
from hftlab.bus.subscriptions import Subscription
from hftlab.bus.watchdog import FAST_NS, MOST_CALLS, SLOW_NS, HoldUps
from hftlab.clock import Clock
from hftlab.events.batch import EventBatch
from hftlab.events.records import RECORD, EventType, Rows
from hftlab.events.rowbytes import copy_rows, take_rows
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.events.types import Event
from hftlab.flow.breaker import CircuitBreaker

# What follows results that ended too early: a handler let a StopIteration escape, or the calls were cut off.
_STOPPED: Any = object()

_hint = operator.length_hint


class Outcome(enum.Enum):
    """Why ``advance`` came back."""

    DONE = "every row has been handled"
    PAUSED = "the budget is used up"
    EMITTED = "a row's handlers emitted events, which go before the next row"
    AWAITING = "an async handler waits for something"


class Chunk:
    """``parts`` hold ``count`` rows; ``done`` of them, in total order, have been through all their handlers.

    ``emitted`` collects (position, subscription, what it returned) for the bus to take after EMITTED. ``limit`` may be
    lowered to end the chunk early: the rows from there on were never handled.
    """

    on_end: None = None
    """Nobody is told of single calls' ends."""

    def __init__(
        self,
        parts: Sequence[Part],
        count: int,
        routes: Mapping[EventType, Routes],
        symbols: SymbolTable,
        sources: SourceTable,
        failures: FailureLog,
        coroutines: AsyncCalls,
        clock: Clock | None = None,
        watchdog: HoldUps | None = None,
        floor_ns: int = 0,
    ) -> None:
        self.parts = parts
        self.count = count
        self.done = 0
        self.limit = count
        self.emitted: list[tuple[int, Subscription, Any]] = []
        self.suspended: Suspended | None = None
        self._symbols, self._sources, self._failures = symbols, sources, failures
        self._coroutines = coroutines
        self._arrivals: npt.NDArray[np.int64] | None = None
        self._clock = clock
        self._floor_ns = floor_ns  # the time when the chunk began, where rows drive it
        self._lost: set[int] = set()
        self._is_closed = False
        self._tried = -1, 0  # the call that failed last, and how often it was made
        # Whether its rows were published; else they were emitted.
        self.is_published = False
        self.marks: Marks | None = None  # when it looked at the clock, where somebody wants to know
        plan = Plan(parts, routes, symbols, sources, self._times_at)
        self._plan = plan
        self._calls = plan.count
        self._counted = 0
        self._cut = False
        self._pausing = False
        if plan.limit is not None:
            self.limit, self._cut = plan.limit, True
        self._guarded = {one: one.breaker for one in plan.owners if one.breaker is not None}
        self._slow_ns = _slow_ns(self._guarded) if clock is not None and self._guarded else 0
        self._watchdog = HoldUps() if watchdog is None else watchdog
        self._recorded = 0  # calls whose outcome the breakers know
        self._posted: dict[Subscription, int] = {}  # calls since then whose outcome comes later
        self._cursor, self._where = plan.cursor, plan.places
        self._results: Iterator[Any] = chain(plan.results, (_STOPPED,))

    # -- worked through -------------------------------------------------------------------------------------------

    def advance(self, max_rows: int, deadline_ns: int) -> Outcome:
        """Handle up to ``max_rows`` more rows until ``perf_counter_ns`` passes the deadline, at which it
        looks between calls, every 10 to 200 µs."""
        last = self.done + max_rows
        self._pausing = False
        try:
            return self._advance(last, deadline_ns)
        finally:
            if self.marks is not None and self.suspended is None:
                self.marks.end(self._made)
            self.done = max(self.done, min(self._completed(), self.limit, last))

    def _advance(self, last: int, deadline_ns: int) -> Outcome:
        cursor = self._cursor
        last_call = self._call_of_row(min(last, self.limit))
        at = self._calls - _hint(cursor)
        watchdog = self._watchdog
        looked_ns = time.perf_counter_ns()
        marks, is_mixed = self.marks, self.only_owner is None
        if marks is not None:
            marks.add(at, looked_ns)
        while at < last_call or self.emitted:
            # What a row's handlers emitted waits until all handlers of that row were called.
            stride = 1 if self._slow_ns else watchdog.stride
            stop = self._end_of_row(at - 1) if self.emitted else min(at + stride, last_call)
            if at < stop:
                begun = at
                if is_mixed and stride > 1 and marks is not None and marks.is_due():
                    self._call_timed(stop - at, marks)
                else:
                    self._call(stop - at)
                at = self._calls - _hint(cursor)
                now_ns = time.perf_counter_ns()
                elapsed_ns, looked_ns = now_ns - looked_ns, now_ns
                if marks is not None and self.suspended is None:
                    if at >= marks.due:
                        marks.add(at, now_ns)
                        marks.due = at + MARKED_CALLS if stride == MOST_CALLS else at
                    if is_mixed and stride == 1 and at == begun + 1:
                        marks.timed.append((begun, elapsed_ns))
                if elapsed_ns > SLOW_NS or (elapsed_ns < FAST_NS and stride < MOST_CALLS) or self._slow_ns:
                    self._look(elapsed_ns, begun, at)
            if self.suspended is not None:
                return Outcome.AWAITING
            if self.emitted:
                if at >= self._end_of_row(at - 1):
                    return Outcome.EMITTED
            elif at < last_call:
                if self._cut:
                    last_call = min(last_call, self._calls)
                if at < last_call and (self._pausing or looked_ns >= deadline_ns):
                    return Outcome.PAUSED
        return Outcome.DONE if last >= self.limit else Outcome.PAUSED

    def _look(self, elapsed_ns: int, begun: int, end: int) -> None:
        """Calls may have been slow: have the watchdog, and circuit breakers that count slow calls, know of it."""
        self._watchdog.look(elapsed_ns, end - begun, lambda: {self._owner(call) for call in range(begun, end)})
        if self._slow_ns and end > begun and self.suspended is None and self._recorded < end:
            subscription = self._owner(end - 1)
            breaker = self._guarded.get(subscription)
            limit_s = None if breaker is None else breaker.settings.slow_call_duration_s
            if breaker is not None and limit_s is not None and elapsed_ns >= limit_s * 1e9:
                self._record_successes(end - 1)
                self._recorded = end
                if not breaker.record(1, self._time_of(end - 1), slow=1):
                    self.end_after_row()

    def _call(self, calls: int) -> bool:
        """Make up to ``calls`` calls; comes back early, and says so, after one that returned something or failed."""
        try:
            for result in islice(self._results, calls):
                if result is not None:
                    self._take(result)
                    return False
        except (Exception, CancelledError) as error:  # the latter is nobody's cancellation where nothing is awaited
            self._fail(error)
            return False
        return True

    def _call_timed(self, calls: int, marks: Marks) -> None:
        """As ``_call``, and note how long one of the calls took: any one, for handlers take turns. Where slices end
        must not depend on it."""
        before = marks.place(calls)
        if before and not self._call(before):
            return
        call, begun_ns = self._made, time.perf_counter_ns()
        goes_on = self._call(1)
        if self.suspended is None:
            marks.timed.append((call, time.perf_counter_ns() - begun_ns))
        if goes_on and before + 1 < calls:
            self._call(calls - before - 1)

    def _take(self, result: Any) -> None:
        if result is _STOPPED:
            self._results = chain(self._plan.results, (_STOPPED,))
            if not (self._cut and self._is_exhausted()):
                self._fail(RuntimeError("the handler let a StopIteration escape"))
        elif type(result) is CoroutineType:
            at = self._made - 1
            self.settle(self._coroutines.begin(self._owner(at), result, self, self._row(at), 1))
        else:
            self._emit(result)

    def _is_exhausted(self) -> bool:
        """Whether the list of calls has been worked off, rather than a call having raised StopIteration.

        A list's iterator that has once found nothing never looks again, even at a list that has grown since.
        """
        self._plan.queue.append(None)
        exhausted = _hint(self._cursor) == 0
        self._plan.queue.pop()
        return exhausted

    def settle(self, reached: Suspended | Any | BaseException) -> None:
        """Take what an async handler's coroutine came to: it waits (again), was posted, failed, or returned."""
        self.suspended = None
        if reached is POSTED:
            subscription = self._owner(self._made - 1)
            self._posted[subscription] = self._posted.get(subscription, 0) + 1
        elif isinstance(reached, Suspended):
            self.suspended = reached
        elif isinstance(reached, BaseException):
            self._fail(reached)
        elif reached is not None:
            self._emit(reached)

    def _emit(self, result: Any) -> None:
        at = self._made - 1
        self.emitted.append((self._row(at), self._owner(at), result))

    def _fail(self, error: BaseException) -> None:
        at = self._made - 1
        subscription, event = self._owner(at), self.event_at(self._row(at))
        if self._tried[0] != at:
            self._tried = at, 1
        # Counted beside the call: a coroutine comes back here when it fails, however often it waited before.
        while self._tried[1] < subscription.attempts:
            self._tried = at, self._tried[1] + 1
            try:
                result = subscription.call(event)
            except (Exception, CancelledError) as again:
                error = again
                continue
            if result is not None:
                self._take(result)
            return
        self._lost.add(self._row(at))
        if subscription.breaker is not None:
            self._record_successes(at)
            self._recorded = at + 1
            if not subscription.breaker.record_failure(self._time_of(at)):
                self.end_after_row()
        self._failures.record(subscription, event, error)

    # -- circuit breakers -----------------------------------------------------------------------------------------

    def _record_successes(self, end: int) -> None:
        """Tell breakers of the calls before ``end`` that they have not heard of: those that failed they have."""
        begin, self._recorded = self._recorded, max(end, self._recorded)
        if begin >= end:
            return
        for subscription, breaker in self._guarded.items():
            successes = self._plan.calls_of(subscription, begin, end) - self._posted.pop(subscription, 0)
            if successes > 0 and not breaker.record(successes, self._time_of(end - 1)):
                self.end_after_row()

    def _time_of(self, call: int) -> int:
        return int(self._times_at(np.array([self._row(call)], np.intp))[0])

    def _times_at(self, places: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
        """When the rows at some positions are handled: by the clock, or, where rows drive it, at their arrival."""
        if self._clock is not None:
            return np.full(len(places), self._clock.now_ns(), np.int64)
        self.reached_ns(1)
        assert self._arrivals is not None
        return self._arrivals[places]

    def pause(self) -> None:
        """Have ``advance`` come back within 32 calls: something more urgent has come. From within a call, too."""
        self._pausing = True

    def end_after_row(self) -> None:
        """End the chunk after the row that is being handled: the rest is to be planned again. From anywhere, even from
        within a handler's call."""
        at = self._made
        limit = max(self.done, self._row(at - 1) + 1 if at else 0)
        if limit < self.limit:
            self.limit = limit
            end = self._call_of_row(limit)
            del self._plan.queue[end:]
            self._calls = end
            self._cut = True

    def close(self) -> None:
        """Note the failures of the rows that are done, and the calls that were made; once, at the end."""
        self._is_closed = True
        for position, subscription, error in sorted(self._plan.refusals, key=lambda refusal: refusal.position):
            # Of rows behind that, the next plan finds them again.
            if position < self.done:
                self._failures.record(subscription, self.event_at(position), error)
            if position < self.done:
                self._lost.add(position)
        for subscription, places in self._plan.rejections:
            self._reject(subscription, places[places < self.done])
        self.count_calls()
        for subscription, permits in self._plan.permits.items():
            unused = permits - self._plan.calls_of(subscription, 0, self._made)
            if unused > 0:
                self._guarded[subscription].release(unused)

    def _reject(self, subscription: Subscription, places: npt.NDArray[np.intp]) -> None:
        for part in self.parts:
            own = places if part.positions is None else np.flatnonzero(np.isin(part.positions, places))
            if len(own):
                rows = take_rows(part.rows, own)
                events = EventBatch(rows, self._symbols, self._sources, session_number=part.session_number)
                self._failures.reject(subscription, events)
        self._lost.update(places.tolist())

    def forget(self) -> None:
        """Let go of rows and calls, for good: calls in handlers' own queues keep their chunks, half a megabyte each."""
        self.parts, self._arrivals = (), None
        self._results, self._cursor, self._where = iter(()), iter(()), None
        del self._plan

    def marked(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
        """How many rows were done by when (``perf_counter_ns``), where somebody wanted to know."""
        if self.marks is None:
            return None
        return self.marks.rows(self._where, self._calls, self.done), np.frombuffer(self.marks.at_ns, np.int64).copy()

    def timed(self) -> list[tuple[Subscription, int, int]]:
        """The calls that were timed by themselves: whose they were, of which type, and how long they took."""
        if self.marks is None:
            return []
        return [(self._owner(call), self.type_at(self._row(call)), elapsed_ns) for call, elapsed_ns in self.marks.timed]

    @property
    def only_owner(self) -> Subscription | None:
        """The one handler that each of its rows, all of one type, goes to."""
        plan = self._plan
        alone = plan.whose is None and plan.owners and len(self.parts) == 1 and plan.count == self.count
        return plan.owners[0] if alone else None

    def lost_places(self) -> list[tuple[EventType, npt.NDArray[np.intp]]]:
        """The rows that are done and that some handler did not get done: their places among those of each type."""
        lost = np.array(sorted(position for position in self._lost if position < self.done), np.intp)
        if not len(lost):
            return []
        return [
            (part.event_type, lost if part.positions is None else np.flatnonzero(np.isin(part.positions, lost)))
            for part in self.parts
        ]

    @property
    def is_guarded(self) -> bool:
        """Whether some of its handlers have a circuit breaker."""
        return bool(self._guarded)

    def lose(self, position: int) -> int:
        """Note that a call of the row at one position failed after the row was done: 1 if ``lost`` was asked for
        before, and had not counted it."""
        if position in self._lost:
            return 0
        self._lost.add(position)
        return int(self._is_closed)

    @property
    def lost_of_done(self) -> int:
        """How many of the rows that are done so far have failed; what was never called is known at the end."""
        return sum(position < self.done for position in self._lost) if self._lost else 0

    def count_calls(self) -> None:
        """Add the calls that were made since the last time to the subscriptions' counts."""
        before, self._counted = self._counted, self._made
        if self._guarded:
            self._record_successes(self._made - (self.suspended is not None))
        if self._plan.whose is None:
            if self._counted > before:
                _count(self._plan.owners[0], self._counted - before)
            return
        for owner, calls in enumerate(np.bincount(self._plan.whose[before : self._counted]).tolist()):
            if calls:
                _count(self._plan.owners[owner], calls)

    # -- looked up ------------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """The virtual time at the row that is being handled: the latest arrival so far in this chunk, in ns UTC."""
        at = self._made
        return self.reached_ns(max(self.done, self._row(at - 1) + 1 if at else 0))

    def reached_ns(self, rows: int) -> int:
        """The latest arrival among the first ``rows`` rows, in ns UTC; 0 for none."""
        if not rows:
            return 0
        if self._arrivals is None:
            arrivals = np.empty(self.count, np.int64)
            for part in self.parts:
                arrivals[slice(None) if part.positions is None else part.positions] = part.rows["received"]
            # Time does not fall: not behind what came before this chunk, wherever that began.
            self._arrivals = np.maximum(np.maximum.accumulate(arrivals), self._floor_ns)
        return int(self._arrivals[rows - 1])

    def event_at(self, position: int) -> Event | EventBatch:
        """The row at one position as an event object; as a batch of one row where it holds what no event can."""
        part, local = self._locate(position)
        event: Event | EventBatch = event_or_row(
            part.rows[local : local + 1], self._symbols, self._sources, part.session_number
        )
        return event

    def keep_at(self, position: int) -> Given:
        """Makes the event at one position, whenever: what it is made of is copied out of the ring now."""
        part, local = self._locate(position)
        row = copy_rows(part.rows[local : local + 1])
        return partial(event_or_row, row, self._symbols, self._sources, part.session_number)

    def type_at(self, position: int) -> int:
        """The type of the row at one position."""
        return self._locate(position)[0].event_type

    def id_at(self, position: int) -> int:
        """The event id of the row at one position."""
        part, local = self._locate(position)
        return event_id_at(part.rows, local, part.session_number)

    def counts_between(self, begin: int, end: int) -> list[tuple[EventType, int]]:
        """How many rows of each type stand at the positions ``begin … end - 1``."""
        counts = []
        for part in self.parts:
            count = end - begin
            if part.positions is not None:
                first, last = np.searchsorted(part.positions, (begin, end)).tolist()
                count = last - first
            counts.append((part.event_type, count))
        return counts

    def rows_between(self, begin: int, end: int) -> Rows:
        """The rows at the positions ``begin … end - 1`` in total order: a view where the chunk has one type, else a
        copy under RECORD."""
        if self.parts[0].positions is None:
            return self.parts[0].rows[begin:end]
        merged = np.empty(end - begin, RECORD)
        opaque = merged.view(f"V{RECORD.itemsize}")
        for part in self.parts:
            assert part.positions is not None
            first, last = np.searchsorted(part.positions, (begin, end)).tolist()
            opaque[part.positions[first:last] - begin] = part.rows[first:last].view(opaque.dtype)
        return merged

    def position_after(self, part: Part, rows: int) -> int:
        """Where the chunk has to end for ``rows`` more rows of a part to have been handled (at most its end)."""
        if part.positions is None:
            return min(self.done + rows, self.count)
        last = int(np.searchsorted(part.positions, self.done)) + rows - 1
        return int(part.positions[last]) + 1 if last < len(part.positions) else self.count

    def _locate(self, position: int) -> tuple[Part, int]:
        for part in self.parts:
            if part.positions is None:
                return part, position
            local = int(np.searchsorted(part.positions, position))
            if local < len(part.positions) and part.positions[local] == position:
                return part, local
        raise AssertionError(f"no part of the chunk has position {position}")

    @property
    def _made(self) -> int:
        """How many calls were begun."""
        return self._calls - _hint(self._cursor)

    def _completed(self) -> int:
        """How many rows, from the first, need nothing any more (what they emitted aside)."""
        at = self._made
        if self.suspended is not None:
            return self._row(at - 1)
        if self.emitted:
            # Not a row further, even where the next ones have no handler: what was emitted stands before them.
            return self._row(at - 1) + (at >= self._end_of_row(at - 1))
        if at < self._calls:
            # Between two calls of one row, that row is not complete; rows without any call are.
            return self._row(at)
        return self.limit if self._cut else self.count

    def _row(self, call: int) -> int:
        return call if self._where is None else int(self._where[call])

    def _owner(self, call: int) -> Subscription:
        whose = self._plan.whose
        return self._plan.owners[0 if whose is None else whose[call]]

    def _end_of_row(self, call: int) -> int:
        """The first call after those of the same row."""
        if self._plan.whose is None or self._where is None:
            return call + 1
        return min(int(np.searchsorted(self._where, self._where[call], side="right")), self._calls)

    def _call_of_row(self, row: int) -> int:
        if row >= self.count:
            return self._calls
        return min(self._calls, row if self._where is None else int(np.searchsorted(self._where, row)))


def _count(subscription: Subscription, calls: int) -> None:
    subscription.calls += calls
    subscription.delivered += calls


def _slow_ns(guarded: Mapping[Subscription, CircuitBreaker]) -> int:
    """The least duration that a breaker calls slow; 0: none looks at durations."""
    limits = [one.settings.slow_call_duration_s for one in guarded.values() if one.settings.slow_call_duration_s]
    return round(min(limits) * 1e9) if limits else 0
