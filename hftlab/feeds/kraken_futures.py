"""``format="kraken-futures"``: the cryptofeed recorder's files of Kraken Futures (see ``recorder`` for their lines).

==================  ====================================  ========  ======================  ========
message             rows                                  channel   sequence, span          rule
==================  ====================================  ========  ======================  ========
``book_snapshot``   a LEVEL per level, bids, then asks,   book      ``seq``, 1              PLUS_ONE
                    ``Flags.SNAPSHOT``; a product's first
(any later one)     the same                              snapshot  ``seq``, 1              SHARED
``book``            a LEVEL                               book      ``seq``, 1              PLUS_ONE
``trade``           a TRADE, side of the aggressor        trade     ``seq``, 1              PLUS_ONE
``trade_snapshot``  (if asked) a TRADE each, the oldest   history   the last one's ``seq``  SHARED
                    first, ``Flags.SNAPSHOT``
``ticker_lite``,    a QUOTE                               ticker    none                    NONE
``ticker``
==================  ====================================  ========  ======================  ========

- Every source's scope is the product. In the capture that we have each product's deltas go on from its snapshot's
  number without a jump (10 of 10 products, 7,014 deltas), so the snapshot is the first message of the book's numbers
  and a delta lost right behind it shows. A later snapshot repeats the number of the delta before it, and one of another
  connection (``merge=True``) may be ahead of this one's deltas: those have a channel of their own.
- Trades count by themselves: the trades of a ``trade_snapshot`` are numbered without a jump, and the first live trade
  goes on from them. They are hours old and no part of what was recorded, and would count as trades of the session, so
  they are skipped, unless you ask for ``history=True``; their channel is not that of the live trades.
- ``ticker_lite`` has no time, so its arrival stands in with ``Flags.ARRIVAL_TIME``, and no sizes: NaN.
- Answers to subscriptions, heartbeats and other feeds are skipped by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec import Struct

from hftlab.events import EventBatch, Flags, NumberRule, Side
from hftlab.feeds.capture import Capture
from hftlab.feeds.fields import Level, Milliseconds, Number, Price, Size, Symbol
from hftlab.feeds.formats import register
from hftlab.feeds.messages import NOT_SENT, Head, Messages
from hftlab.feeds.recorder import Names, Take, read_messages

RULES = {
    "book": NumberRule.PLUS_ONE,
    "snapshot": NumberRule.SHARED,
    "trade": NumberRule.PLUS_ONE,
    "history": NumberRule.SHARED,
    "ticker": NumberRule.NONE,
}

_SIDES = {"buy": Side.BUY.value, "sell": Side.SELL.value}


class Envelope(Struct, gc=False):
    """Just enough of a message to tell what it is."""

    feed: str = ""
    event: str = ""


class Delta(Struct, gc=False):
    """``book``: the new quantity at one price."""

    product_id: Symbol
    side: Literal["buy", "sell"]
    seq: Number
    price: Price
    qty: Size
    timestamp: Milliseconds = 0


class Order(Struct, gc=False):
    """A level of a snapshot."""

    price: Price
    qty: Size


class Snapshot(Struct, gc=False):
    """``book_snapshot``: the whole book of a product."""

    product_id: Symbol
    seq: Number
    bids: list[Order]
    asks: list[Order]
    timestamp: Milliseconds = 0


class Trade(Struct, gc=False):
    """``trade``; ``type`` also tells liquidations, which trade as well."""

    product_id: Symbol
    side: Literal["buy", "sell"]
    seq: Number
    price: Price
    qty: Size
    time: Milliseconds = 0


class History(Struct, gc=False):
    """``trade_snapshot``: the latest trades of a product, newest first."""

    product_id: Symbol
    trades: list[Trade]


class Ticker(Struct, gc=False):
    """``ticker_lite``, and ``ticker``, which also has sizes and a time."""

    product_id: Symbol
    bid: Price | None = None
    ask: Price | None = None
    bid_size: Size | None = None
    ask_size: Size | None = None
    time: Milliseconds = 0


_decode_envelope = msgspec.json.Decoder(Envelope).decode
_decode_delta = msgspec.json.Decoder(Delta).decode
_decode_snapshot = msgspec.json.Decoder(Snapshot).decode
_decode_trade = msgspec.json.Decoder(Trade).decode
_decode_history = msgspec.json.Decoder(History).decode
_decode_ticker = msgspec.json.Decoder(Ticker).decode


@register("kraken-futures", "the cryptofeed recorder's files of Kraken Futures")
def read_kraken_futures(
    capture: Capture, *, merge: bool = False, history: bool = False, venue: str = "kraken-futures"
) -> Iterator[EventBatch]:
    """Batches of market data; see the module's docstring for the rows.

    ``merge``: take the files' lines in the order of their receive times, see ``recorder``. ``history``: give past
    trades rows, too. ``venue``: the name in the sources. Raises FeedError. About 5 µs a line.
    """
    reader = _Reader(Names(capture, venue, RULES), merged=merge)
    takers: dict[str, Take] = {
        "book": reader.delta,
        "book_snapshot": reader.snapshot,
        "trade": reader.trade,
        "ticker": reader.ticker,
        "ticker_lite": reader.ticker,
    }
    if history:
        takers["trade_snapshot"] = reader.history
    return read_messages(capture, merge=merge, kind_of=_kind, takers=takers)


def _kind(body: bytes) -> str:
    envelope = _decode_envelope(body)
    return envelope.event or envelope.feed or "other"


class _Reader:
    def __init__(self, names: Names, *, merged: bool) -> None:
        self._names = names
        self._merged = merged
        self._numbered: set[str] = set()  # products whose book has begun

    def delta(self, messages: Messages, received: int, body: bytes) -> None:
        delta = _decode_delta(body)
        names = self._names.of("book", delta.product_id)
        self._numbered.add(delta.product_id)
        level = ((delta.price, delta.qty),)
        bids, asks = (level, ()) if delta.side == "buy" else ((), level)
        messages.add_book(Head(received, *names, delta.timestamp * 1_000_000, delta.seq), bids, asks)

    def snapshot(self, messages: Messages, received: int, body: bytes) -> None:
        book = _decode_snapshot(body)
        begins = not self._merged and book.product_id not in self._numbered
        names = self._names.of("book" if begins else "snapshot", book.product_id)
        self._numbered.add(book.product_id)
        head = Head(received, *names, book.timestamp * 1_000_000, book.seq, flags=Flags.SNAPSHOT.value)
        messages.add_book(head, _levels(book.bids), _levels(book.asks))

    def trade(self, messages: Messages, received: int, body: bytes) -> None:
        trade = _decode_trade(body)
        time = trade.time * 1_000_000
        head = Head(received, *self._names.of("trade", trade.product_id), time, trade.seq)
        messages.add_trades(head, ((trade.price, trade.qty, _SIDES[trade.side], time),))

    def history(self, messages: Messages, received: int, body: bytes) -> None:
        history = _decode_history(body)
        names = self._names.of("history", history.product_id)
        trades = sorted(history.trades, key=lambda trade: trade.seq)
        last = trades[-1].seq if trades else -1
        messages.add_trades(
            Head(received, *names, sequence=last, flags=Flags.SNAPSHOT.value),
            [(trade.price, trade.qty, _SIDES[trade.side], trade.time * 1_000_000) for trade in trades],
        )

    def ticker(self, messages: Messages, received: int, body: bytes) -> None:
        quote = _decode_ticker(body)
        head = Head(received, *self._names.of("ticker", quote.product_id), quote.time * 1_000_000)
        numbers = (quote.bid, quote.bid_size, quote.ask, quote.ask_size)
        messages.add_quote(head, *(NOT_SENT if number is None else number for number in numbers))


def _levels(orders: list[Order]) -> list[Level]:
    return [(order.price, order.qty) for order in orders]
