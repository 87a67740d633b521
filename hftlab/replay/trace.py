"""``PriceTrace``: the path of prices that a run delivered, for a picture: bounded, whatever its length."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hftlab.events.records import DTYPES, EventType, Flags, Kind, Rows
from hftlab.events.tables import SymbolTable

KEPT_POINTS = 4_096

Points = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]


class _Path:
    """One symbol's points: every ``stride``-th. Without room, every other one goes and the stride doubles."""

    def __init__(self) -> None:
        self.stride = 1
        self.count = 0
        self._seen = 0
        self._times = np.empty(KEPT_POINTS, np.int64)
        self._prices = np.empty(KEPT_POINTS, np.float64)
        self._last: tuple[int, float] | None = None

    def add(self, times: npt.NDArray[np.int64], prices: npt.NDArray[np.float64]) -> None:
        self._last = int(times[-1]), float(prices[-1])
        first = -self._seen % self.stride
        self._seen += len(times)
        times, prices = times[first :: self.stride], prices[first :: self.stride]
        while len(times):
            taken = min(len(times), KEPT_POINTS - self.count)
            self._times[self.count : self.count + taken] = times[:taken]
            self._prices[self.count : self.count + taken] = prices[:taken]
            self.count += taken
            times, prices = times[taken:], prices[taken:]
            if self.count == KEPT_POINTS:
                half = KEPT_POINTS // 2
                self._times[:half], self._prices[:half] = self._times[::2].copy(), self._prices[::2].copy()
                self.count = half
                self.stride *= 2
                # The next one kept is a multiple of the new stride, counted from the first point of all.
                times, prices = times[::2], prices[::2]

    def points(self) -> Points:
        times, prices = self._times[: self.count], self._prices[: self.count]
        if self._last is not None and (not self.count or self._last[0] != times[-1]):
            return np.append(times, self._last[0]), np.append(prices, self._last[1])
        return times.copy(), prices.copy()


class PriceTrace:
    """Mid of quotes and prices of trades by symbol, decimated evenly to 4,097 points at most. About 10 ns a row."""

    def __init__(self, symbols: SymbolTable) -> None:
        self._table = symbols
        self._paths: dict[int, _Path] = {}

    @property
    def symbols(self) -> list[str]:
        """The symbols that have had a price, in the order of their first."""
        return [self._table[index] for index in self._paths]

    def observe(self, rows: Rows) -> None:
        """Take dispatched rows; only recorded market data counts."""
        if rows.dtype != DTYPES[EventType.MARKET_DATA]:
            chosen = rows["type"] == EventType.MARKET_DATA
            if not chosen.any():
                return
            rows = np.ascontiguousarray(rows.view("V128")[chosen]).view(DTYPES[EventType.MARKET_DATA])
        kind = rows["kind"]
        prices = np.where(kind == Kind.QUOTE, (rows["bid"] + rows["ask"]) / 2, rows["price"])
        priced = (kind != Kind.LEVEL) & ~np.isnan(prices) & ((rows["flags"] & Flags.EMITTED.value) == 0)
        where = np.flatnonzero(priced)
        if not len(where):
            return
        symbols, times, prices = rows["symbol"][where], rows["received"][where], prices[where]
        for index in np.unique(symbols).tolist() if len(self._table) > 1 else [int(symbols[0])]:
            path = self._paths.get(index)
            if path is None:
                path = self._paths[index] = _Path()
            mine = symbols == index
            path.add(times[mine], prices[mine])

    def points(self, symbol: str, most: int = 2_000) -> Points:
        """Up to about ``most`` points of a symbol's path, the latest included: times (ns UTC) and prices."""
        index = self._table.find(symbol)
        path = self._paths.get(-1 if index is None else index)
        if path is None:
            return np.zeros(0, np.int64), np.zeros(0)
        times, prices = path.points()
        step = -(-len(times) // max(most, 2))
        return times[::-step][::-1], prices[::-step][::-1]
