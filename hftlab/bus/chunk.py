"""A chunk: up to 1,024 queued rows on their way through the event and field handlers, in their total order.

The problem: a Python handler call costs 50 ns at best, and every Python statement around it as much again. So nothing
is done per event that can be done per chunk: each handler's arguments are columns, converted once, and ``map`` calls it
from C. Where several handlers (or types) are due, one list says whose turn it is, call by call, and ``map`` over
``operator.call`` works through it. The position is never counted: it is the length hint of the list's iterator.

A chunk can be left at any call and taken up again: when the time slice ends, when a handler emitted (its events go
first), when an async handler waits, and after a failure, which costs nobody else anything.
"""

from __future__ import annotations

import enum
import operator
import time
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from types import CoroutineType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hftlab.bus.coroutines import Suspended, step
from hftlab.bus.failures import FailureLog
from hftlab.bus.subscriptions import Subscription
from hftlab.events import columns
from hftlab.events.batch import EventBatch
from hftlab.events.records import RUN_BIT, EventType, Flags, Rows, event_id
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.events.types import ROW_CLASSES, Event

# Calls between two looks at the clock.
_STRIDE = 32

# What follows a ``map`` that ended too early, because a handler let a StopIteration escape.
_STOPPED: Any = object()

_hint = operator.length_hint


class Outcome(enum.Enum):
    """Why ``Chunk.advance`` came back."""

    DONE = "every row has been handled"
    PAUSED = "the budget is used up"
    EMITTED = "a row's handlers emitted events, which go before the next row"
    AWAITING = "an async handler waits for something"


class Part(NamedTuple):
    """The rows of one type in a chunk. ``positions`` are their places in it (None: the chunk has just this part)."""

    event_type: EventType
    rows: Rows
    positions: npt.NDArray[np.intp] | None
    session_number: int


class Chunk:
    """``parts`` hold ``count`` rows; ``done`` of them, in total order, have been through ``handlers``.

    ``emitted`` collects (position, subscription, what it returned) for the bus to take after EMITTED. ``limit`` may be
    lowered to end the chunk early: the rows from there on were never handled.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        count: int,
        handlers: dict[EventType, list[Subscription]],
        symbols: SymbolTable,
        sources: SourceTable,
        failures: FailureLog,
    ) -> None:
        self.parts = parts
        self.count = count
        self.done = 0
        self.limit = count
        self.emitted: list[tuple[int, Subscription, Any]] = []
        self.suspended: Suspended | None = None
        self._symbols, self._sources, self._failures = symbols, sources, failures
        self._owners: Sequence[Subscription] = ()
        self._whose: list[int] | None = None
        self._where: npt.NDArray[np.intp] | None = None
        self._arrivals: npt.NDArray[np.int64] | None = None
        self._plan_is_stale = False
        self._calls = 0
        self._cursor: Iterator[Any] = iter(())
        self._mapped: Iterator[Any] = iter(())
        self._plan(handlers)
        self._results: Iterator[Any] = chain(self._mapped, (_STOPPED,))

    # -- planned once ---------------------------------------------------------------------------------------------

    def _plan(self, handlers: dict[EventType, list[Subscription]]) -> None:
        wanted: list[tuple[Subscription, Part, npt.NDArray[np.intp] | None]] = []
        for part in self.parts:
            for subscription in handlers.get(part.event_type, ()):
                chosen = self._select(subscription, part)
                count = len(part.rows) if chosen is None else len(chosen)
                if count:
                    self._calls += count
                    wanted.append((subscription, part, chosen))
        if not wanted:
            return
        self._owners = [subscription for subscription, _, _ in wanted]
        if len(wanted) == 1:
            subscription, part, chosen = wanted[0]
            self._where = _places(part, chosen) if chosen is not None or part.positions is not None else None
            self._mapped, self._cursor = self._calls_of(subscription, part, chosen)
            return
        places = np.concatenate([
            np.arange(self.count) if chosen is None and part.positions is None else _places(part, chosen)
            for _, part, chosen in wanted
        ])  # fmt: skip
        whose = np.repeat(np.arange(len(wanted)), [_count(part, chosen) for _, part, chosen in wanted])
        order = np.argsort(places, kind="stable")
        self._where, self._whose = places[order], whose[order].tolist()
        turns = [self._calls_of(*item)[0].__next__ for item in wanted]
        self._cursor = iter(list(map(turns.__getitem__, self._whose)))
        self._mapped = map(operator.call, self._cursor)

    def _select(self, subscription: Subscription, part: Part) -> npt.NDArray[np.intp] | None:
        try:
            return subscription.select(part.rows, self._symbols)
        except Exception as error:  # the user's where=; the rows that it would have judged are not delivered
            batch = EventBatch(part.rows, self._symbols, self._sources, session_number=part.session_number)
            self._failures.record(subscription, batch[0], error, lost=len(part.rows))
            return np.zeros(0, np.intp)

    def _calls_of(
        self, subscription: Subscription, part: Part, chosen: npt.NDArray[np.intp] | None
    ) -> tuple[Iterator[Any], Iterator[Any]]:
        """The handler's calls as an iterator of results, and the iterator whose length hint counts those to come."""
        rows = part.rows if chosen is None else part.rows[chosen]
        fields = subscription.fields or ROW_CLASSES[part.event_type].__struct_fields__
        values = [columns.column(rows, field, self._symbols, self._sources, part.session_number) for field in fields]
        cursor = iter(values[0])
        if subscription.mode == "fields":
            return map(subscription.handler, cursor, *values[1:]), cursor
        return map(subscription.handler, map(ROW_CLASSES[part.event_type], cursor, *values[1:])), cursor

    # -- worked through -------------------------------------------------------------------------------------------

    def advance(self, max_rows: int, deadline_ns: int) -> Outcome:
        """Handle up to ``max_rows`` more rows until ``perf_counter_ns`` passes the deadline (a look every 32 calls)."""
        last_row = min(self.done + max_rows, self.limit)
        last_call = self._calls if last_row == self.count else self._call_of_row(last_row)
        cursor, total = self._cursor, self._calls
        at = total - _hint(cursor)
        while at < last_call or self.emitted:
            # What a row's handlers emitted waits until all handlers of that row were called.
            stop = self._end_of_row(at - 1) if self.emitted else min(at + _STRIDE, last_call)
            if at < stop:
                self._call_until(stop - at)
                at = total - _hint(cursor)
            if self.suspended is not None:
                return Outcome.AWAITING
            if self.emitted and at >= self._end_of_row(at - 1):
                self.done = self._row(at - 1) + 1
                return Outcome.EMITTED
            if self._plan_is_stale and not self.emitted and self._between_rows(at):
                self.limit = self.done = min(self.limit, self._row(at) if at < total else self.count)
                return Outcome.DONE
            if at < last_call and not self.emitted and time.perf_counter_ns() >= deadline_ns:
                self.done = self._row(at) if self._between_rows(at) else self.done
                return Outcome.PAUSED
        self.done = last_row
        return Outcome.DONE if last_row == self.limit else Outcome.PAUSED

    def _call_until(self, calls: int) -> None:
        """Up to ``calls`` calls; comes back early after one that returned something or failed."""
        try:
            for result in islice(self._results, calls):
                if result is not None:
                    self._take(result)
                    return
        except Exception as error:
            self._fail(error)

    def _take(self, result: Any) -> None:
        if result is _STOPPED:
            self._results = chain(self._mapped, (_STOPPED,))
            self._fail(RuntimeError("the handler let a StopIteration escape"))
        elif type(result) is CoroutineType:
            self.settle(step(result))
        else:
            at = self._calls - _hint(self._cursor) - 1
            self.emitted.append((self._row(at), self._owner(at), result))

    def settle(self, reached: Suspended | Any | BaseException) -> None:
        """Take what an async handler's coroutine came to: it waits (again), failed, or returned."""
        self.suspended = None
        if isinstance(reached, Suspended):
            self.suspended = reached
        elif isinstance(reached, BaseException):
            self._fail(reached)
        elif reached is not None:
            self._take(reached)

    def _fail(self, error: BaseException) -> None:
        at = self._calls - _hint(self._cursor) - 1
        self._failures.record(self._owner(at), self.event_at(self._row(at)), error)

    def count_calls(self) -> None:
        """Add the calls that were made to the subscriptions' counts; once, when the chunk is given up or done."""
        made = self._calls - _hint(self._cursor)
        if self._whose is None:
            counts = [made]
        else:
            counts = np.bincount(self._whose[:made], minlength=len(self._owners)).tolist()
        for subscription, count in zip(self._owners, counts, strict=False):
            subscription.calls += count
            subscription.delivered += count

    def plan_again(self) -> None:
        """End the chunk at the next look at the clock: the subscriptions changed, and the rest needs another plan."""
        self._plan_is_stale = True

    # -- looked up ------------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """The virtual time at the row that is being handled: the latest arrival so far in this chunk, in ns UTC."""
        at = self._calls - _hint(self._cursor) - 1
        return self.reached_ns(self._row(at) + 1 if at >= 0 else 1)

    def reached_ns(self, rows: int) -> int:
        """The latest arrival among the first ``rows`` rows, in ns UTC."""
        if self._arrivals is None:
            arrivals = np.empty(self.count, np.int64)
            for part in self.parts:
                arrivals[slice(None) if part.positions is None else part.positions] = part.rows["received"]
            self._arrivals = np.maximum.accumulate(arrivals)
        return int(self._arrivals[rows - 1])

    def event_at(self, position: int) -> Event:
        """The row at one position as an event object."""
        part, local = self._locate(position)
        rows = part.rows[local : local + 1]
        return EventBatch(rows, self._symbols, self._sources, session_number=part.session_number)[0]

    def event_id_at(self, position: int) -> int:
        """The id of the event at one position, at a fiftieth of the cost of the object (0: not recorded)."""
        part, local = self._locate(position)
        row = part.rows[local]
        log_sequence = int(row["log_sequence"])
        if row["flags"] & Flags.EMITTED:
            return RUN_BIT | log_sequence
        return event_id(part.session_number, log_sequence) if part.session_number else 0

    def rows_between(self, begin: int, end: int) -> list[tuple[EventType, Rows]]:
        """The rows at the positions ``begin … end - 1``, in total order, as views of runs of one type."""
        if len(self.parts) == 1:
            return [(self.parts[0].event_type, self.parts[0].rows[begin:end])]
        runs = []
        position = begin
        while position < end:
            part, local = self._locate(position)
            assert part.positions is not None
            # A run goes on while places in the part and in the chunk rise together.
            offsets = part.positions[local:] - np.arange(local, len(part.rows)) - (position - local)
            length = min(int(np.argmax(offsets != 0)) or len(offsets), end - position)
            runs.append((part.event_type, part.rows[local : local + length]))
            position += length
        return runs

    def position_of_next(self, part: Part, rows: int) -> int:
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

    def _row(self, call: int) -> int:
        return call if self._where is None else int(self._where[call])

    def _owner(self, call: int) -> Subscription:
        return self._owners[0] if self._whose is None else self._owners[self._whose[call]]

    def _between_rows(self, call: int) -> bool:
        return call in (0, self._calls) or self._row(call - 1) != self._row(call)

    def _end_of_row(self, call: int) -> int:
        """The first call after those of the same row."""
        if self._whose is None or self._where is None:
            return call + 1
        return int(np.searchsorted(self._where, self._where[call], side="right"))

    def _call_of_row(self, row: int) -> int:
        return min(row, self._calls) if self._where is None else int(np.searchsorted(self._where, row))


def _count(part: Part, chosen: npt.NDArray[np.intp] | None) -> int:
    return len(part.rows) if chosen is None else len(chosen)


def _places(part: Part, chosen: npt.NDArray[np.intp] | None) -> npt.NDArray[np.intp]:
    """Where in the chunk the chosen rows of a part stand."""
    if part.positions is None:
        assert chosen is not None
        return chosen
    return part.positions if chosen is None else part.positions[chosen]
