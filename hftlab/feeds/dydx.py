"""``format="dydx"``: the cryptofeed recorder's files of dYdX v3 (see ``recorder`` for their lines).

===========================  ====================================  =========  ====================  ======
message                      rows                                  channel    sequence, span        rule
===========================  ====================================  =========  ====================  ======
channel_data v3_orderbook    a LEVEL per level, bids, then asks    orderbook  ``offset``, 1         SHARED
subscribed v3_orderbook      the same, ``Flags.SNAPSHOT``          snapshot   greatest offset, 1    SHARED
channel_data v3_trades       a TRADE per trade, side of the taker  trades     none                  NONE
subscribed v3_trades         (if asked) the same, newest last,     history    none                  NONE
                             ``Flags.SNAPSHOT``
===========================  ====================================  =========  ====================  ======

- Every source's scope is the market. Offsets are one counter for all markets, so a market's own jump without a loss.
  They also run backwards: deltas really arrive out of order (541 times in 31 s in the capture that we have).
- Only trades have a time (``createdAt``); for books the arrival stands in, with ``Flags.ARRIVAL_TIME``.
- A snapshot has an offset per level, and levels of size 0; the rows have the greatest of them. A delta that arrives
  later may be older than some levels of it, so a snapshot's number is not compared with theirs: its own channel.
- The trades that answer a subscription are up to hours old and no part of what was recorded, and would count as trades
  of the session, so they are skipped, unless you ask for ``history=True``.
- ``message_id`` counts what a connection sent, whatever it was, and is not used, unless you ask for it:
  ``number="message_id"`` gives all messages one source (channel "connection", no scope, PLUS_ONE) and an epoch for
  every new connection. That proves that nothing was lost on the line; it says nothing of the order of the books. Every
  message has a row then: those that are left out otherwise are heartbeats, of the symbol "connection" where they name
  none.
- Other messages ("connected", other channels) are skipped by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
from msgspec import Struct

from hftlab.errors import FeedError
from hftlab.events import EventBatch, Flags, NumberRule, Side
from hftlab.events.records import NO_SEQUENCE
from hftlab.feeds.capture import Capture
from hftlab.feeds.fields import Level, Number, Price, Size, Symbol
from hftlab.feeds.formats import register
from hftlab.feeds.instants import iso_ns
from hftlab.feeds.messages import Head, Messages
from hftlab.feeds.messages import Trade as TradeRow
from hftlab.feeds.recorder import Names, Take, read_messages

RULES = {
    "orderbook": NumberRule.SHARED,
    "snapshot": NumberRule.SHARED,
    "trades": NumberRule.NONE,
    "history": NumberRule.NONE,
    "connection": NumberRule.PLUS_ONE,
}
NUMBERS = ("offset", "message_id")

_SIDES = {"BUY": Side.BUY.value, "SELL": Side.SELL.value}


class Envelope(Struct, gc=False):
    """What all messages have: what they are, whose, and their place on the connection."""

    type: str
    message_id: Number
    connection_id: str
    channel: str = ""
    id: Symbol = "connection"


class Delta(Struct, gc=False):
    """What a book's ``channel_data`` tells."""

    offset: Number
    bids: list[Level]
    asks: list[Level]


class Order(Struct, gc=False):
    """A level of a snapshot, and when it changed last."""

    price: Price
    size: Size
    offset: Number


class Snapshot(Struct, gc=False):
    """What the answer to a book's subscription tells."""

    bids: list[Order]
    asks: list[Order]


class Trade(Struct, gc=False):
    """One trade, by its taker's side."""

    side: Literal["BUY", "SELL"]
    price: Price
    size: Size
    createdAt: str


class Trades(Struct, gc=False):
    """What ``v3_trades`` tell; the answer to the subscription has the newest trade first."""

    trades: list[Trade]


class DeltaMessage(Struct, gc=False):
    """A message with changes of a book."""

    contents: Delta


class SnapshotMessage(Struct, gc=False):
    """A message with a book."""

    contents: Snapshot


class TradesMessage(Struct, gc=False):
    """A message with trades."""

    contents: Trades


_decode_envelope = msgspec.json.Decoder(Envelope).decode
_decode_delta = msgspec.json.Decoder(DeltaMessage, strict=False).decode
_decode_snapshot = msgspec.json.Decoder(SnapshotMessage, strict=False).decode
_decode_trades = msgspec.json.Decoder(TradesMessage, strict=False).decode


@register("dydx", "the cryptofeed recorder's files of dYdX v3")
def read_dydx(
    capture: Capture, *, merge: bool = False, history: bool = False, number: str = "offset", venue: str = "dydx"
) -> Iterator[EventBatch]:
    """Batches of market data; see the module's docstring for the rows.

    ``merge``: take the files' lines in the order of their receive times, see ``recorder``. ``history``: give past
    trades rows, too. ``number``: "offset", or "message_id", which can't be had merged: redundant connections count
    apart. ``venue``: the name in the sources. Raises FeedError. About 5 µs a line.
    """
    if number not in NUMBERS:
        raise FeedError(f"number is one of {', '.join(NUMBERS)}; got {number!r:.100}")
    if merge and number == "message_id":
        raise FeedError(
            'number="message_id" counts the messages of one connection, and merge=True mixes those of several: '
            "read the files without merge, or by their offsets"
        )
    reader = _Reader(Names(capture, venue, RULES), by_connection=number == "message_id")
    takers: dict[str, Take] = {
        "channel_data v3_orderbook": reader.delta,
        "subscribed v3_orderbook": reader.snapshot,
        "channel_data v3_trades": reader.trades,
    }
    if history:
        takers["subscribed v3_trades"] = reader.history
    other = reader.heartbeat if number == "message_id" else None
    return read_messages(capture, merge=merge, kind_of=reader.kind, takers=takers, other=other)


class _Reader:
    def __init__(self, names: Names, *, by_connection: bool) -> None:
        self._names = names
        self._by_connection = by_connection
        self._epochs: dict[str, int] = {}  # by connection, in the order of their first messages
        self._envelope = Envelope("", 0, "")  # of the message that is being read

    def kind(self, body: bytes) -> str:
        self._envelope = _decode_envelope(body)
        return f"{self._envelope.type} {self._envelope.channel}".strip() or "other"

    def delta(self, messages: Messages, received: int, body: bytes) -> None:
        delta = _decode_delta(body).contents
        messages.add_book(self._head(received, "orderbook", delta.offset, 0), delta.bids, delta.asks)

    def snapshot(self, messages: Messages, received: int, body: bytes) -> None:
        book = _decode_snapshot(body).contents
        greatest = max((order.offset for side in (book.bids, book.asks) for order in side), default=NO_SEQUENCE)
        head = self._head(received, "snapshot", greatest, Flags.SNAPSHOT.value)
        messages.add_book(head, _levels(book.bids), _levels(book.asks))

    def trades(self, messages: Messages, received: int, body: bytes) -> None:
        trades = _trades(_decode_trades(body).contents)
        messages.add_trades(self._head(received, "trades", NO_SEQUENCE, 0), trades)

    def history(self, messages: Messages, received: int, body: bytes) -> None:
        trades = _trades(_decode_trades(body).contents)[::-1]
        messages.add_trades(self._head(received, "history", NO_SEQUENCE, Flags.SNAPSHOT.value), trades)

    def heartbeat(self, messages: Messages, received: int, body: bytes) -> None:
        messages.add_heartbeat(self._head(received, "connection", NO_SEQUENCE, 0))

    def _head(self, received: int, channel: str, sequence: int, flags: int) -> Head:
        envelope = self._envelope
        if not self._by_connection:
            return Head(received, *self._names.of(channel, envelope.id), sequence=sequence, flags=flags)
        names = self._names.of("connection", envelope.id, scope="")
        epoch = self._epochs.setdefault(envelope.connection_id, len(self._epochs))
        return Head(received, *names, sequence=envelope.message_id, flags=flags, epoch=epoch)


def _levels(orders: list[Order]) -> list[Level]:
    return [(order.price, order.size) for order in orders]


def _trades(told: Trades) -> list[TradeRow]:
    return [(trade.price, trade.size, _SIDES[trade.side], iso_ns(trade.createdAt)) for trade in told.trades]
