"""Messages of any venue into market data rows, a column at a time: no Python object is made for a row.

The messages of a piece of text are gathered in lists, a head and its content each; ``rows`` turns those into arrays,
repeats the heads over the rows of their messages, and scatters each kind's own columns to the places of its rows.

- The rows of a message share its number; ``part`` counts them from 0, ``Flags.LAST_PART`` marks the last.
- A message with nothing to tell becomes one HEARTBEAT row, so that no number is lost; none where it has no number.
- Where the venue sent no time the arrival stands in, with ``Flags.ARRIVAL_TIME``; a time later than the arrival is
  kept, with ``Flags.AHEAD``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hftlab.events import ClockSource, EventType, Flags, Kind, Side
from hftlab.events.records import NO_SEQUENCE, Rows, blank
from hftlab.feeds.fields import Level

Ints = npt.NDArray[np.int64]

NOT_SENT = float("nan")

Trade = tuple[float, float, int, int]
"""Price, volume, side of the aggressor (a ``Side``), and time in ns, 0 where it was not sent."""


class Head(NamedTuple):
    """What the rows of one message share: ``symbol`` and ``source`` are ids, 0 is a time that was not sent."""

    received_ns: int
    symbol: int
    source: int
    time_ns: int = 0
    sequence: int = NO_SEQUENCE
    span: int = 1
    flags: int = 0
    epoch: int = 0


class Book(NamedTuple):
    """The levels of one message, and its place among the messages."""

    place: int
    bids: Sequence[Level]
    asks: Sequence[Level]


_EMPTY_PLACE = Head(0, 0, 0)
_WIDTH = len(Head._fields)


class Messages:
    """The messages of one piece of text, in the order of their lines."""

    def __init__(self) -> None:
        # Flat: the values of one after the other. Kept tuples would cost the garbage collector a tenth of a reading.
        self._heads: list[int] = []
        self._row_counts: list[int] = []
        self._quotes: list[float] = []
        self._quote_places: list[int] = []
        self._trades: list[Trade] = []
        self._trade_places: list[tuple[int, int]] = []  # (place, how many trades)
        self._books: list[Book] = []
        self._beats: list[int] = []

    def __len__(self) -> int:
        return len(self._row_counts)

    def add_quote(self, head: Head, bid: float, bid_size: float, ask: float, ask_size: float) -> None:
        """Add a best bid and ask; NaN was not sent. A price of 0 without a size is an empty side."""
        self._quote_places.append(self._add(head, 1))
        self._quotes += (bid, bid_size, ask, ask_size)

    def add_trades(self, head: Head, trades: Sequence[Trade]) -> None:
        """Add a message of trades, which have times of their own. A "trade" of volume 0 traded nothing: no row."""
        real = [trade for trade in trades if trade[1] > 0]
        if not real:
            self.add_heartbeat(head)
            return
        self._trade_places.append((self._add(head, len(real)), len(real)))
        self._trades += real

    def add_book(self, head: Head, bids: Sequence[Level], asks: Sequence[Level], *, place: int | None = None) -> None:
        """Add levels, bids first; at a place that ``keep_place`` gave, or at the end."""
        count = len(bids) + len(asks)
        if place is None:
            if not count:
                self.add_heartbeat(head)
                return
            place = self._add(head, count)
        else:
            self._heads[_WIDTH * place : _WIDTH * (place + 1)] = head
            self._row_counts[place] = count or 1
        if count:
            self._books.append(Book(place, bids, asks))
        else:
            self._beats.append(place)

    def add_heartbeat(self, head: Head) -> None:
        """Add a message that has nothing but its number; nothing is added if it has none."""
        if head.sequence != NO_SEQUENCE:
            self._beats.append(self._add(head, 1))

    def keep_place(self) -> int:
        """Keep a place for a book whose symbol is not known yet; it has no rows until ``add_book`` fills it."""
        return self._add(_EMPTY_PLACE, 0)

    def _add(self, head: Head, rows: int) -> int:
        self._heads += head
        self._row_counts.append(rows)
        return len(self._row_counts) - 1

    def rows(self) -> Rows:
        """All messages as market data rows, in their order. One allocation for the rows; vectorised."""
        counts = np.array(self._row_counts, np.int64)
        first = np.cumsum(counts) - counts
        rows = blank(int(counts.sum()), EventType.MARKET_DATA)
        self._fill_heads(rows, counts, first)
        self._fill_quotes(rows, first)
        self._fill_trades(rows, first)
        self._fill_books(rows, first)
        rows["flags"][first[np.array(self._beats, np.intp)]] |= Flags.HEARTBEAT.value
        _complete_times(rows)
        return rows

    def _fill_heads(self, rows: Rows, counts: Ints, first: Ints) -> None:
        heads = np.array(self._heads, np.int64).reshape(-1, _WIDTH)
        for name, values in zip(Head._fields, heads.T, strict=True):
            rows[_ROW_FIELDS.get(name, name)] = np.repeat(values, counts)
        rows["part"] = np.arange(len(rows)) - np.repeat(first, counts)
        rows["flags"][(first + counts - 1)[counts > 0]] |= Flags.LAST_PART.value
        rows["clock"] = ClockSource.APPLICATION

    def _fill_quotes(self, rows: Rows, first: Ints) -> None:
        at = first[np.array(self._quote_places, np.intp)]
        quotes = np.array(self._quotes, np.float64).reshape(-1, 4)
        rows["kind"][at] = Kind.QUOTE
        for side, column in (("bid", 0), ("ask", 2)):
            prices, sizes = quotes[:, column], quotes[:, column + 1]
            nobody = (prices == 0) & ~(sizes > 0)
            rows[side][at] = np.where(nobody, np.nan, prices)
            rows[f"{side}_size"][at] = np.where(nobody, np.nan, sizes)

    def _fill_trades(self, rows: Rows, first: Ints) -> None:
        if not self._trades:
            return
        places, counts = np.array(self._trade_places, np.int64).T
        at = _each(first[places], counts)
        prices, volumes, sides, times = zip(*self._trades, strict=True)
        rows["kind"][at] = Kind.TRADE
        rows["price"][at] = prices
        rows["volume"][at] = volumes
        rows["side"][at] = sides
        rows["timestamp"][at] = times

    def _fill_books(self, rows: Rows, first: Ints) -> None:
        books = self._books
        if not books:
            return
        bids = np.array([len(book.bids) for book in books], np.int64)
        counts = bids + np.array([len(book.asks) for book in books], np.int64)
        at = _each(first[np.array([book.place for book in books], np.intp)], counts)
        sides = chain.from_iterable((book.bids, book.asks) for book in books)
        numbers = np.fromiter(_flat(sides), np.float64, 2 * len(at))
        rows["kind"][at] = Kind.LEVEL
        rows["price"][at] = numbers[::2]
        rows["volume"][at] = numbers[1::2]
        rows["side"][at] = np.where(rows["part"][at] < np.repeat(bids, counts), Side.BID, Side.ASK)


_ROW_FIELDS = {"received_ns": "received", "time_ns": "timestamp"}


def _complete_times(rows: Rows) -> None:
    received, timestamp = rows["received"], rows["timestamp"]
    arrival = timestamp == 0
    flags = np.where(arrival, Flags.ARRIVAL_TIME, 0) | np.where(timestamp > received, Flags.AHEAD, 0)
    rows["timestamp"] = np.where(arrival, received, timestamp)
    rows["flags"] |= flags.astype(np.uint16)


def _each(begins: Ints, counts: Ints) -> Ints:
    """The places ``begin, begin + 1, …`` of ``count`` rows for each of them, one after the other."""
    parts = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(begins, counts) + parts


def _flat(sides: Any) -> Any:
    return chain.from_iterable(chain.from_iterable(sides))
