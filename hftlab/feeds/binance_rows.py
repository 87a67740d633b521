"""Binance's messages into rows, a column at a time: no Python object is made for a row.

Messages of a piece of text are gathered in lists, one value a message; ``rows`` turns those into arrays, repeats them
over the rows of each message, and scatters each kind's own columns to the places of its rows.
"""

from __future__ import annotations

from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hftlab.events import ClockSource, EventType, Flags, Kind, Side
from hftlab.events.records import Rows, blank
from hftlab.feeds.binance_messages import Depth, Level, Quote, Snapshot, Trade

Ints = npt.NDArray[np.int64]
Names = tuple[int, int]
"""The ids of a symbol and of a source."""

_FIRST_IN_MICROSECONDS = 10**14
"""A time below it is in ms (until the year 5138), one above in µs (since 1973)."""


class Book(NamedTuple):
    """The levels of one message, and its place among the messages."""

    place: int
    bids: list[Level]
    asks: list[Level]
    snapshot: bool


class Messages:
    """The messages of one piece of text, in the order of their lines."""

    def __init__(self, transaction_time: bool) -> None:
        self._transaction_time = transaction_time
        self._received: list[int] = []
        self._names: list[Names] = []
        self._times: list[int] = []
        self._sequences: list[int] = []
        self._spans: list[int] = []
        self._row_counts: list[int] = []
        self._quotes: list[Quote] = []
        self._quote_places: list[int] = []
        self._trades: list[Trade] = []
        self._trade_places: list[int] = []
        self._books: list[Book] = []

    def add_quote(self, received: int, names: Names, quote: Quote) -> None:
        """Add a bookTicker."""
        self._quote_places.append(self._add(received, names, quote.u, quote.E, quote.T))
        self._quotes.append(quote)

    def add_trade(self, received: int, names: Names, trade: Trade) -> None:
        """Add a trade."""
        self._trade_places.append(self._add(received, names, trade.t, trade.E, trade.T))
        self._trades.append(trade)

    def add_depth(self, received: int, names: Names, span: int, depth: Depth) -> None:
        """Add a book update that covers ``span`` numbers."""
        rows = len(depth.b) + len(depth.a) or 1
        place = self._add(received, names, depth.u, depth.E, depth.T, span, rows)
        self._books.append(Book(place, depth.b, depth.a, snapshot=False))

    def keep_place(self, received: int, sequence: int, event_ms: int, transaction_ms: int) -> int:
        """Keep a place for a snapshot whose symbol is not known yet; it has no rows until ``fill_place``."""
        return self._add(received, (0, 0), sequence, event_ms, transaction_ms, rows=0)

    def fill_place(self, place: int, names: Names, snapshot: Snapshot) -> None:
        """Put a snapshot where its place was kept."""
        self._names[place] = names
        self._row_counts[place] = len(snapshot.bids) + len(snapshot.asks) or 1
        self._books.append(Book(place, snapshot.bids, snapshot.asks, snapshot=True))

    def counts(self) -> dict[str, int]:
        """How many messages of each kind there are, by Binance's names."""
        snapshots = sum(book.snapshot for book in self._books)
        return {
            "bookTicker": len(self._quotes),
            "trade": len(self._trades),
            "depthUpdate": len(self._books) - snapshots,
            "snapshot": snapshots,
        }

    def _add(
        self, received: int, names: Names, sequence: int, event: int, transaction: int, span: int = 1, rows: int = 1
    ) -> int:
        self._received.append(received)
        self._names.append(names)
        self._times.append((transaction or event) if self._transaction_time else event)
        self._sequences.append(sequence)
        self._spans.append(span)
        self._row_counts.append(rows)
        return len(self._received) - 1

    def rows(self) -> Rows:
        """All messages as market data rows, in their order. One allocation for the rows; vectorised."""
        counts = np.array(self._row_counts, np.int64)
        first = np.cumsum(counts) - counts
        rows = blank(int(counts.sum()), EventType.MARKET_DATA)
        self._fill_headers(rows, counts)
        self._fill_quotes(rows, first)
        self._fill_trades(rows, first)
        self._fill_books(rows, first)
        return rows

    def _fill_headers(self, rows: Rows, counts: Ints) -> None:
        received = np.array(self._received, np.int64)
        times = np.array(self._times, np.int64)
        times *= np.where(times < _FIRST_IN_MICROSECONDS, 1_000_000, 1_000)
        arrival = times == 0
        timestamp = np.where(arrival, received, times)
        names = np.array(self._names, np.int64).reshape(-1, 2)
        flags = np.where(arrival, Flags.ARRIVAL_TIME, 0) | np.where(timestamp > received, Flags.AHEAD, 0)
        for field, values in (
            ("received", received),
            ("timestamp", timestamp),
            ("sequence", np.array(self._sequences, np.int64)),
            ("span", np.array(self._spans, np.int64)),
            ("symbol", names[:, 0]),
            ("source", names[:, 1]),
            ("flags", flags | Flags.LAST_PART),
        ):
            rows[field] = np.repeat(values, counts)
        rows["clock"] = ClockSource.APPLICATION

    def _fill_quotes(self, rows: Rows, first: Ints) -> None:
        at = first[np.array(self._quote_places, np.intp)]
        rows["kind"][at] = Kind.QUOTE
        for side, price, size in (("bid", "b", "B"), ("ask", "a", "A")):
            prices = _floats(self._quotes, price)
            sizes = _floats(self._quotes, size)
            nobody = (prices == 0) & (sizes == 0)
            rows[side][at] = np.where(nobody, np.nan, prices)
            rows[f"{side}_size"][at] = np.where(nobody, np.nan, sizes)

    def _fill_trades(self, rows: Rows, first: Ints) -> None:
        at = first[self._trade_places]
        at = first[np.array(self._trade_places, np.intp)]
        volume = _floats(self._trades, "q")
        real = volume > 0
        rows["flags"][at[~real]] |= Flags.HEARTBEAT.value
        at, volume = at[real], volume[real]
        rows["kind"][at] = Kind.TRADE
        rows["price"][at] = _floats(self._trades, "p")[real]
        rows["volume"][at] = volume
        sells = np.fromiter((trade.m for trade in self._trades), np.bool_, len(self._trades))[real]
        rows["side"][at] = np.where(sells, Side.SELL, Side.BUY)

    def _fill_books(self, rows: Rows, first: Ints) -> None:
        books = self._books
        if not books:
            return
        begins = first[np.array([book.place for book in books], np.intp)]
        bids = np.array([len(book.bids) for book in books], np.int64)
        counts = bids + np.array([len(book.asks) for book in books], np.int64)
        is_snapshot = np.array([book.snapshot for book in books], np.bool_)
        rows["flags"][begins[counts == 0]] |= Flags.HEARTBEAT.value
        total = int(counts.sum())
        part = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        at = np.repeat(begins, counts) + part
        sides = chain.from_iterable((book.bids, book.asks) for book in books)
        numbers = np.fromiter(_flat(sides), np.float64, 2 * total)
        rows["kind"][at] = Kind.LEVEL
        rows["price"][at] = numbers[::2]
        rows["volume"][at] = numbers[1::2]
        rows["side"][at] = np.where(part < np.repeat(bids, counts), Side.BID, Side.ASK)
        rows["part"][at] = part
        inner = part < np.repeat(counts, counts) - 1
        rows["flags"][at[inner]] &= 0xFFFF ^ Flags.LAST_PART.value
        rows["flags"][at[np.repeat(is_snapshot, counts)]] |= Flags.SNAPSHOT.value


def _flat(sides: Any) -> Any:
    return chain.from_iterable(chain.from_iterable(sides))


def _floats(messages: list[Any], field: str) -> npt.NDArray[np.float64]:
    return np.fromiter((getattr(message, field) for message in messages), np.float64, len(messages))
