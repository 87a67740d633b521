"""``format="coinbase"``: the cryptofeed recorder's files of Coinbase (see ``recorder`` for their lines).

==============  ======================================  =======  =================  ========
message         rows                                    channel  sequence, span     rule
==============  ======================================  =======  =================  ========
``l2update``    a LEVEL per change, bids, then asks     level2   none               NONE
``snapshot``    a LEVEL per level, ``Flags.SNAPSHOT``   level2   none               NONE
``match``       a TRADE, side of the aggressor          matches  ``trade_id``, 1    PLUS_ONE
``last_match``  the same                                matches  ``trade_id``, 1    PLUS_ONE
``ticker``      a QUOTE                                 ticker   ``sequence``, 1    SHARED
==============  ======================================  =======  =================  ========

- Every source's scope is the product.
- ``sequence`` counts all that happens to a product, orders too, of which these channels tell a part: it rises and
  jumps, so a jump is no loss. ``trade_id`` counts the trades alone, without a jump, so matches go by it: each one lost
  shows.
- ``last_match`` is the trade before the subscription. The first match goes on from its number (in the capture that we
  have, all 97 matches of 10 products do), so it is the first of the matches. After a reconnection it either tells a
  trade again, under the same number and with the same content, or shows what was missed.
- ``side`` of a match is the maker's on the wire (the ticker of the same trade has the other one); the row has the
  taker's, the aggressor.
- A ``ticker`` tells a match a second time, with the book's top: its row is the QUOTE alone, so that no trade counts
  twice. Its sizes are NaN where the venue sent none (it does since 2022).
- A ``snapshot`` has no time, so the arrival stands in, with ``Flags.ARRIVAL_TIME``.
- Other messages ("subscriptions", "heartbeat", "error") are skipped by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec import Struct

from hftlab.events import EventBatch, Flags, NumberRule, Side
from hftlab.feeds.capture import Capture
from hftlab.feeds.fields import Level, Number, Price, Size, Symbol
from hftlab.feeds.formats import register
from hftlab.feeds.instants import iso_ns
from hftlab.feeds.messages import NOT_SENT, Head, Messages
from hftlab.feeds.recorder import Names, read_messages

RULES = {"level2": NumberRule.NONE, "matches": NumberRule.PLUS_ONE, "ticker": NumberRule.SHARED}

_AGGRESSORS = {"buy": Side.SELL.value, "sell": Side.BUY.value}


class Envelope(Struct, gc=False):
    """Just enough of a message to tell what it is."""

    type: str = ""


class Update(Struct, gc=False):
    """``l2update``: new sizes at some prices."""

    product_id: Symbol
    changes: list[tuple[Literal["buy", "sell"], Price, Size]]
    time: str


class Snapshot(Struct, gc=False):
    """``snapshot``: the whole book of a product."""

    product_id: Symbol
    bids: list[Level]
    asks: list[Level]


class Match(Struct, gc=False):
    """``match`` and ``last_match``: a trade, by the side of the order that was in the book."""

    product_id: Symbol
    trade_id: Number
    side: Literal["buy", "sell"]
    price: Price
    size: Size
    time: str


class Ticker(Struct, gc=False):
    """``ticker``, as far as a QUOTE holds it."""

    product_id: Symbol
    sequence: Number
    time: str
    best_bid: Price | None = None
    best_bid_size: Size | None = None
    best_ask: Price | None = None
    best_ask_size: Size | None = None


_decode_envelope = msgspec.json.Decoder(Envelope).decode
_decode_update = msgspec.json.Decoder(Update, strict=False).decode
_decode_snapshot = msgspec.json.Decoder(Snapshot, strict=False).decode
_decode_match = msgspec.json.Decoder(Match, strict=False).decode
_decode_ticker = msgspec.json.Decoder(Ticker, strict=False).decode


@register("coinbase", "the cryptofeed recorder's files of Coinbase")
def read_coinbase(capture: Capture, *, merge: bool = False, venue: str = "coinbase") -> Iterator[EventBatch]:
    """Batches of market data; see the module's docstring for the rows.

    ``merge``: take the files' lines in the order of their receive times, see ``recorder``. ``venue``: the name in the
    sources. Raises FeedError. About 5 µs a line.
    """
    reader = _Reader(Names(capture, venue, RULES))
    takers = {
        "l2update": reader.update,
        "snapshot": reader.snapshot,
        "match": reader.match,
        "last_match": reader.match,
        "ticker": reader.ticker,
    }
    return read_messages(capture, merge=merge, kind_of=_kind, takers=takers)


def _kind(body: bytes) -> str:
    return _decode_envelope(body).type or "other"


class _Reader:
    def __init__(self, names: Names) -> None:
        self._names = names

    def update(self, messages: Messages, received: int, body: bytes) -> None:
        update = _decode_update(body)
        time = iso_ns(update.time)
        bids = [(price, size) for side, price, size in update.changes if side == "buy"]
        asks = [(price, size) for side, price, size in update.changes if side == "sell"]
        messages.add_book(Head(received, *self._names.of("level2", update.product_id), time), bids, asks)

    def snapshot(self, messages: Messages, received: int, body: bytes) -> None:
        book = _decode_snapshot(body)
        head = Head(received, *self._names.of("level2", book.product_id), flags=Flags.SNAPSHOT.value)
        messages.add_book(head, book.bids, book.asks)

    def match(self, messages: Messages, received: int, body: bytes) -> None:
        match = _decode_match(body)
        time = iso_ns(match.time)
        head = Head(received, *self._names.of("matches", match.product_id), time, match.trade_id)
        messages.add_trades(head, ((match.price, match.size, _AGGRESSORS[match.side], time),))

    def ticker(self, messages: Messages, received: int, body: bytes) -> None:
        quote = _decode_ticker(body)
        time = iso_ns(quote.time)
        head = Head(received, *self._names.of("ticker", quote.product_id), time, quote.sequence)
        numbers = (quote.best_bid, quote.best_bid_size, quote.best_ask, quote.best_ask_size)
        messages.add_quote(head, *(NOT_SENT if number is None else number for number in numbers))
