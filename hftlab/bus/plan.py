"""The plan of a chunk: which handler is called with what, in which order, as one iterator that makes the calls.

The problem: a Python handler call costs 35 ns at best, and every Python statement around it as much again. So nothing
is done per event that can be done per chunk: arguments are columns, converted once, and ``map`` makes the calls from C.

- One handler: ``map(handler, column, column)``.
- Several that take the same fields: ``map(operator.call, handlers, column, column)``, a handler and its values a call.
- Several kinds of arguments: an iterator a kind, as above, and ``map(next, turns)`` works through a list that says,
  call by call, which kind's turn it is.

In each the first thing that is iterated over is a list (``queue``). Its iterator's length hint says how many calls are
left, so nobody counts; and cutting the list off ends the calls early, even from within one of them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hftlab.bus.backlog import Part
from hftlab.bus.routing import Places, Routes
from hftlab.bus.subscriptions import Subscription
from hftlab.errors import CodecError
from hftlab.events import columns
from hftlab.events.batch import EventBatch
from hftlab.events.records import RUN_BIT, EventType, Flags, Rows, event_id
from hftlab.events.rowbytes import take_rows
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.events.types import ROW_CLASSES
from hftlab.flow.breaker import CircuitBreaker

# What a row that holds no valid text or enum raises when it is converted.
UNREADABLE = (CodecError, KeyError, ValueError, IndexError)


Breakers = Mapping[Subscription, CircuitBreaker]

Times = Callable[[Places], npt.NDArray[np.int64]]
"""When the rows at some places of a chunk are handled, in ns UTC."""


class Refusal(NamedTuple):
    """A call that was never made: a ``where=`` failed, or the row can't be read. ``position`` is the row's."""

    position: int
    subscription: Subscription
    error: Exception


class _Answer(NamedTuple):
    """What a breaker said of calls: the first ``rejected`` are not made, and what stands from the row ``limit`` on
    (None: nothing) it can't tell yet."""

    rejected: int
    limit: int | None


class _Calls(NamedTuple):
    """All calls in order: whose (among the owners), of which row of its part (``local``), and where that stands."""

    whose: Places
    local: Places
    places: Places


class Plan:
    """``count`` calls in order. ``results`` makes them; ``queue`` and ``cursor`` are the list it works off.

    ``owners`` are the handlers, ``whose`` says by call which of them it is (None: there is one), ``places`` which row
    of the chunk it is of (None: call ``i`` is of row ``i``). ``refusals`` are in no particular order.

    Circuit breakers are asked here, with ``times``: when the rows at some places are handled. ``rejections``
    are the rows that they keep from their handlers, ``permits`` the calls that they allowed, and ``limit`` the row from
    which on they can't tell before the calls made till then have come to something (None: there is none).
    """

    def __init__(
        self,
        parts: Sequence[Part],
        routes: Mapping[EventType, Routes],
        symbols: SymbolTable,
        sources: SourceTable,
        times: Times | None = None,
    ) -> None:
        self.count = 0
        self.owners: list[Subscription] = []
        self.whose: Places | None = None
        self.places: Places | None = None
        self.refusals: list[Refusal] = []
        self.rejections: list[tuple[Subscription, Places]] = []
        self.permits: dict[Subscription, int] = {}
        self.limit: int | None = None
        self.queue: list[Any] = []
        self.cursor: Iterator[Any] = iter(self.queue)
        self.results: Iterator[Any] = self.cursor
        self._parts = [part for part in parts if part.event_type in routes]
        self._symbols, self._sources = symbols, sources
        self._bases: list[int] = []  # where each part's handlers begin among the owners
        for part in self._parts:
            self._bases.append(len(self.owners))
            self.owners += routes[part.event_type].subscriptions
        asked = {one: one.breaker for one in self.owners if one.breaker and not one.breaker.permits_all}
        if len(self.owners) == 1 and not asked:
            self._plan_one(self._parts[0], routes[self._parts[0].event_type])
        elif self.owners:
            self._plan_several(routes, asked, times)

    # -- which calls ----------------------------------------------------------------------------------------------

    def _plan_one(self, part: Part, routes: Routes) -> None:
        calls = routes.calls(part.rows, self._symbols, self._refuser(part))
        local = calls.local
        if calls.total:
            try:
                self._iterate_one(part, local)
            except UNREADABLE:
                local = np.arange(calls.total) if local is None else local
                local = local[self._readable(part, self.owners[0], local)]
                self._iterate_one(part, local)
        self.count = len(self.queue)
        if part.positions is None:
            self.places = local
        else:
            self.places = part.positions if local is None else part.positions[local]

    def _iterate_one(self, part: Part, local: Places | None) -> None:
        rows = part.rows if local is None else take_rows(part.rows, local)
        self._start(*self._calls_of_one(part, self.owners[0], rows))

    def _plan_several(self, routes: Mapping[EventType, Routes], asked: Breakers, times: Times | None) -> None:
        whose, local, places = [], [], []
        for part, base in zip(self._parts, self._bases, strict=True):
            calls = routes[part.event_type].calls(part.rows, self._symbols, self._refuser(part))
            rows = np.arange(calls.total) if calls.local is None else calls.local
            local.append(rows)
            whose.append(np.full(calls.total, base) if calls.whose is None else calls.whose + base)
            places.append(rows if part.positions is None else part.positions[rows])
        if len(self._parts) == 1:
            merged = _Calls(whose[0], local[0], places[0])
        else:
            joined = np.concatenate(places)
            order = np.argsort(joined, kind="stable")
            merged = _Calls(np.concatenate(whose)[order], np.concatenate(local)[order], joined[order])
        if asked and times is not None:
            merged = self._permitted(merged, asked, times)
        if not len(merged.whose):
            return
        try:
            self._iterate_several(merged)
        except UNREADABLE:
            merged = self._without_unreadable(merged)
            if len(merged.whose):
                self._iterate_several(merged)
        self.count = len(self.queue)
        self.whose, self.places = merged.whose, merged.places

    def calls_of(self, subscription: Subscription, begin: int, end: int) -> int:
        """How many of the calls ``begin … end - 1`` are of one handler: it may own several types."""
        if self.whose is None:
            return end - begin if subscription in self.owners else 0
        return int(np.count_nonzero(self._owned(self.whose[begin:end], subscription)))

    def _owned(self, whose: Places, subscription: Subscription) -> npt.NDArray[np.bool_]:
        """Which calls are of one handler. Owners are few: comparing is ten times faster than ``np.isin``."""
        masks = [whose == place for place, one in enumerate(self.owners) if one is subscription]
        owned: npt.NDArray[np.bool_] = masks[0] if len(masks) == 1 else np.logical_or.reduce(masks)
        return owned

    def _permitted(self, calls: _Calls, asked: Breakers, times: Times) -> _Calls:
        """The calls that the breakers of some owners permit, up to the first of which one can't tell."""
        kept = np.ones(len(calls.whose), bool)
        for subscription, breaker in asked.items():
            own = np.flatnonzero(self._owned(calls.whose, subscription))
            if not len(own):
                continue
            places = calls.places[own]
            answered = self._ask(subscription, breaker, times(places), places)
            kept[own[: answered.rejected]] = False
            if answered.limit is not None:
                self.limit = answered.limit if self.limit is None else min(self.limit, answered.limit)
        if self.limit is not None:
            kept &= calls.places < self.limit
        return _Calls(calls.whose[kept], calls.local[kept], calls.places[kept])

    def _ask(
        self, subscription: Subscription, breaker: CircuitBreaker, times_ns: npt.NDArray[np.int64], places: Places
    ) -> _Answer:
        """Ask about the calls at some places, as far as that does not depend on where the chunk began and ends.

        Calls before these may end the chunk early, and then all is asked again from there: so time may change the state
        at the chunk's first row alone, where nothing lies before.
        """
        lasts = breaker.lasts_for(times_ns)
        if not lasts and places[0]:
            return _Answer(0, int(places[0]))
        rejected, permitted = breaker.permit(times_ns[: max(lasts, 1)])
        if rejected:
            self.rejections.append((subscription, places[:rejected]))
        self.permits[subscription] = permitted
        known = rejected + permitted
        return _Answer(rejected, int(places[known]) if known < len(places) else None)

    # -- the iterators --------------------------------------------------------------------------------------------

    def _start(self, queue: list[Any], cursor: Iterator[Any], results: Iterator[Any]) -> None:
        self.queue, self.cursor, self.results = queue, cursor, results

    def _calls_of_one(
        self, part: Part, subscription: Subscription, rows: Rows
    ) -> tuple[list[Any], Iterator[Any], Iterator[Any]]:
        first, *others = self._columns(part, subscription, rows)
        queue = first if isinstance(first, list) else list(first)
        cursor = iter(queue)
        if subscription.mode == "fields":
            return queue, cursor, map(subscription.handler, cursor, *others)
        return queue, cursor, map(subscription.handler, map(ROW_CLASSES[part.event_type], cursor, *others))

    def _iterate_several(self, calls: _Calls) -> None:
        kinds: dict[tuple[int, tuple[str, ...]], int] = {}
        kind_of_owner = [
            kinds.setdefault((number, self.owners[owner].fields), len(kinds))
            for number, base in enumerate(self._bases)
            for owner in range(base, self._bases[number + 1] if number + 1 < len(self._bases) else len(self.owners))
        ]
        if len(kinds) == 1:
            self._start(*self._calls_of_kind(self._parts[0], calls.whose, calls.local))
            return
        kind_of_call = np.array(kind_of_owner, np.intp)[calls.whose]
        turns: list[Iterator[Any]] = []
        for (number, _), kind in kinds.items():
            own = np.flatnonzero(kind_of_call == kind)
            turns.append(
                self._calls_of_kind(self._parts[number], calls.whose[own], calls.local[own])[2]
                if len(own)
                else iter(())
            )
        queue = list(map(turns.__getitem__, kind_of_call.tolist()))
        cursor = iter(queue)
        self._start(queue, cursor, map(next, cursor))

    def _calls_of_kind(
        self, part: Part, whose: Places, local: Places
    ) -> tuple[list[Any], Iterator[Any], Iterator[Any]]:
        """The calls of handlers of one type that take the same arguments."""
        one = self.owners[whose[0]]
        if (whose == whose[0]).all():
            rows = part.rows if len(local) == len(part.rows) else take_rows(part.rows, local)
            return self._calls_of_one(part, one, rows)
        handlers = [subscription.handler for subscription in self.owners]
        queue = list(map(handlers.__getitem__, whose.tolist()))
        cursor = iter(queue)
        if one.mode == "fields":
            values = self._columns(part, one, take_rows(part.rows, local))
            return queue, cursor, map(operator.call, cursor, *values)
        # Each row becomes one object, whoever is given it. ``local`` never falls: equal values lie side by side.
        fresh = np.concatenate([[True], local[1:] != local[:-1]])
        rows = take_rows(part.rows, local[fresh])
        objects = list(map(ROW_CLASSES[part.event_type], *self._columns(part, one, rows)))
        given = map(objects.__getitem__, (np.cumsum(fresh) - 1).tolist())
        return queue, cursor, map(operator.call, cursor, given)

    def _columns(self, part: Part, subscription: Subscription, rows: Rows) -> list[Iterable[Any]]:
        fields = subscription.fields or ROW_CLASSES[part.event_type].__struct_fields__
        return [columns.column(rows, field, self._symbols, self._sources, part.session_number) for field in fields]

    # -- what can't be called -------------------------------------------------------------------------------------

    def _refuser(self, part: Part) -> Any:
        def refuse(subscription: Subscription, local: int, error: Exception) -> None:
            position = local if part.positions is None else int(part.positions[local])
            self.refusals.append(Refusal(position, subscription, error))

        return refuse

    def _readable(self, part: Part, subscription: Subscription, local: Places) -> np.ndarray[Any, Any]:
        """Which of these rows this handler's arguments can be read from; the others are refused, one by one."""
        sound = np.ones(len(local), bool)
        refuse = self._refuser(part)
        for index, row in enumerate(local.tolist()):
            try:
                for values in self._columns(part, subscription, part.rows[row : row + 1]):
                    list(values)
            except UNREADABLE as error:
                sound[index] = False
                refuse(subscription, row, error)
        return sound

    def _without_unreadable(self, calls: _Calls) -> _Calls:
        sound = np.ones(len(calls.whose), bool)
        for part, base in zip(self._parts, self._bases, strict=True):
            after = [other for other in self._bases if other > base]
            for owner in range(base, after[0] if after else len(self.owners)):
                own = np.flatnonzero(calls.whose == owner)
                sound[own] = self._readable(part, self.owners[owner], calls.local[own])
        return _Calls(calls.whose[sound], calls.local[sound], calls.places[sound])


def event_or_row(rows: Rows, symbols: SymbolTable, sources: SourceTable, session_number: int) -> Any:
    """One row as an event object; as a batch of its own copy where it holds what no event can."""
    batch = EventBatch(rows, symbols, sources, session_number=session_number)
    try:
        return batch[0]
    except UNREADABLE:
        return batch.where(np.zeros(1, np.intp))


def event_id_at(rows: Rows, index: int, session_number: int) -> int:
    """The event id of one row: ``records.event_ids`` of a single one, in 0.4 µs."""
    log_sequence = int(rows["log_sequence"][index])
    if int(rows["flags"][index]) & Flags.EMITTED.value:
        return RUN_BIT | log_sequence
    return event_id(session_number, log_sequence) if session_number else 0
