"""Routes: which handlers of one type want which rows, looked up by symbol for many rows at once.

A mask a subscription and chunk costs 8 µs, so a hundred handlers on a symbol each would cost more than their calls. A
table by symbol id turns rows into calls in one pass, however many handlers there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hftlab.bus.subscriptions import Subscription, is_pattern
from hftlab.events.records import Rows
from hftlab.events.rowbytes import take_rows
from hftlab.events.tables import SymbolTable

Places = npt.NDArray[np.intp]
RowRefused = Callable[[Subscription, int, Exception], None]
"""Told of a handler whose ``where=`` failed on a row, by the row's position."""


class Calls(NamedTuple):
    """The calls that some rows of one type lead to, in order.

    ``whose`` and ``local`` are, for each call, the handler (its place among the routes) and the row's position. None
    for ``whose``: all are of handler 0; None for ``local``: call ``i`` is of row ``i``.
    """

    total: int
    whose: Places | None
    local: Places | None


class Routes:
    """The event and field handlers of one type, in the order of their registration."""

    def __init__(self, subscriptions: Sequence[Subscription]) -> None:
        self.subscriptions = tuple(subscriptions)
        self._for_all = all(subscription.pattern is None for subscription in subscriptions)
        self._judging = [(index, one) for index, one in enumerate(subscriptions) if one.where is not None]
        self._exact: dict[str, list[int]] = {}
        self._loose: list[int] = []
        for index, one in enumerate(subscriptions):
            if one.pattern is None or is_pattern(one.pattern):
                self._loose.append(index)
            else:
                self._exact.setdefault(one.pattern, []).append(index)
        # By symbol id: the handlers that want it, and the same as one flat array with where each list starts.
        self._wanting: list[tuple[int, ...]] = []
        self._flat = self._starts = self._counts = np.zeros(0, np.intp)
        self._most = 0

    def of_symbol(self, symbol: int, symbols: SymbolTable) -> tuple[Subscription, ...]:
        """The handlers that want a symbol, by its id; what ``where=`` says is not asked."""
        if self._for_all:
            return self.subscriptions
        self._learn(symbols)
        return tuple(self.subscriptions[index] for index in self._wanting[symbol])

    def calls(self, rows: Rows, symbols: SymbolTable, refused: RowRefused) -> Calls:
        """The calls that rows lead to. About 10 ns a call, and 8 µs more for each handler with a ``where=``."""
        calls = self._by_symbol(rows, symbols)
        return self._judged(calls, rows, refused) if self._judging and calls.total else calls

    def _by_symbol(self, rows: Rows, symbols: SymbolTable) -> Calls:
        handlers = len(self.subscriptions)
        if self._for_all:
            count = len(rows) * handlers
            if handlers == 1:
                return Calls(count, None, None)
            return Calls(count, np.tile(np.arange(handlers), len(rows)), np.repeat(np.arange(len(rows)), handlers))
        self._learn(symbols)
        ids = rows["symbol"]
        counts = self._counts[ids]
        if self._most <= 1:
            local = np.flatnonzero(counts)
            first = self._starts[ids[local]]
        else:
            local = np.repeat(np.arange(len(rows)), counts)
            # The n-th call of a row goes to the n-th handler of its symbol.
            nth = np.arange(len(local)) - np.repeat(np.cumsum(counts) - counts, counts)
            first = self._starts[ids[local]] + nth
        return Calls(len(local), None if handlers == 1 else self._flat[first], local)

    def _judged(self, calls: Calls, rows: Rows, refused: RowRefused) -> Calls:
        """The calls without those whose handler's ``where=`` does not want the row."""
        local = np.arange(len(rows)) if calls.local is None else calls.local
        kept = np.ones(calls.total, bool)
        for index, subscription in self._judging:
            own = np.arange(calls.total) if calls.whose is None else np.flatnonzero(calls.whose == index)
            if not len(own):
                continue
            places = local[own]
            given = rows if len(own) == len(rows) else take_rows(rows, places)

            def refuse(position: int, error: Exception, one: Subscription = subscription, at: Places = places) -> None:
                refused(one, int(at[position]), error)

            kept[own] = subscription.judge(given, refuse)
        if kept.all():
            return calls
        return Calls(int(np.count_nonzero(kept)), None if calls.whose is None else calls.whose[kept], local[kept])

    def _learn(self, symbols: SymbolTable) -> None:
        """Match the symbols that are new since the last time; tables only grow."""
        if len(self._wanting) == len(symbols):
            return
        for symbol in symbols.values[len(self._wanting) :]:
            wanting = self._exact.get(symbol, []) + [i for i in self._loose if self.subscriptions[i].wants(symbol)]
            self._wanting.append(tuple(sorted(wanting)))
        self._counts = np.array([len(wanting) for wanting in self._wanting], np.intp)
        self._starts = np.cumsum(self._counts) - self._counts
        self._flat = np.array([index for wanting in self._wanting for index in wanting], np.intp)
        self._most = int(self._counts.max(initial=0))
