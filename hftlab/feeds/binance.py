"""``format="binance"``: lines of ``<local receive time in ns> <raw JSON>``, of spot and of USD-M futures.

What becomes of a message (the JSON may be the message itself or a combined stream's ``{"stream": …, "data": …}``):

==================  =====================================  ========  ==========================  =========
message             rows                                   channel   sequence, span              rule
==================  =====================================  ========  ==========================  =========
``bookTicker``      a QUOTE                                quote     ``u``, 1                    SHARED
``trade``           a TRADE, side of the aggressor         trade     ``t``, 1                    PLUS_ONE
``depthUpdate``     a LEVEL per level, bids, then asks     depth     ``u``, futures ``u - pu``,  RANGE
                                                                     spot ``u - U + 1``
REST depth answer   a LEVEL per level, ``Flags.SNAPSHOT``  snapshot  ``lastUpdateId``, 1         SHARED
==================  =====================================  ========  ==========================  =========

- The rows of a message share its number; ``part`` counts them, ``Flags.LAST_PART`` marks the last. A message that has
  a number and nothing to tell becomes one HEARTBEAT row, so that no number is lost: a depth update without levels, and
  the "trade" of price and quantity 0 that futures send (``X`` is "NA").
- On futures the ids between ``pu`` and ``U`` are skipped by the venue, so a message covers everything after ``pu``.
- ``timestamp`` is the event time ``E``, when the venue sent the message: every kind has it, so latencies compare across
  kinds. ``exchange_time="transaction"`` takes ``T``, when the matching engine acted, where it is sent (spot's trades,
  all of futures); ``E`` is up to 214 ms later than ``T`` in spot trades that we have. Spot's bookTicker and snapshot
  have neither: there the arrival stands in, with ``Flags.ARRIVAL_TIME``.
- A side of a quote with price and size 0, or with empty text, is an empty side of the book: NaN.
- The venue is told from what only one market sends (``pu``, ``M``, ``e`` of a bookTicker, times of a snapshot).
- Lines of other kinds (aggTrade, markPrice, partial books ``depth20`` …) are counted as skipped by kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from hftlab.errors import FeedError, ValidationError
from hftlab.events import EventBatch, Flags, NumberRule, Side, Source
from hftlab.events.tables import check_symbol
from hftlab.feeds.binance_messages import (
    Snapshot,
    decode_depth,
    decode_envelope,
    decode_quote,
    decode_snapshot,
    decode_trade,
)
from hftlab.feeds.capture import Capture
from hftlab.feeds.files import Piece
from hftlab.feeds.formats import register
from hftlab.feeds.instants import EARLIEST_RECEIVED_NS, MAX_TIME_NS
from hftlab.feeds.messages import Head, Messages

_RULES = {
    "quote": NumberRule.SHARED,
    "trade": NumberRule.PLUS_ONE,
    "depth": NumberRule.RANGE,
    "snapshot": NumberRule.SHARED,
}
_FUTURES, _SPOT = "binance-usdm", "binance-spot"
_MAX_SPAN = (1 << 32) - 1
_EXCHANGE_TIMES = ("event", "transaction")
_FIRST_IN_MICROSECONDS = 10**14
"""A time below it is in ms (until the year 5138), one above in µs (since 1973)."""


@register("binance", "a recorder's lines of <receive time in ns> <raw JSON>, spot or futures")
def read_binance(
    capture: Capture, *, symbol: str | None = None, venue: str | None = None, exchange_time: str = "event"
) -> Iterator[EventBatch]:
    """Batches of market data, one a piece of text; see the module's docstring for the rows.

    ``symbol``: whose REST snapshots these are, needed where a file has several symbols, else that of the file's other
    lines. ``venue``: a name, instead of "binance-usdm" or "binance-spot" as told from each message.
    ``exchange_time``: "event" (``E``) or "transaction" (``T``). Raises FeedError. About 2 µs a line and 0.6 µs a level.
    """
    if exchange_time not in _EXCHANGE_TIMES:
        raise FeedError(f"exchange_time is one of {', '.join(_EXCHANGE_TIMES)}; got {exchange_time!r:.100}")
    if symbol is not None:
        check_symbol(symbol)
    reader = _Reader(capture, symbol, venue, transaction_time=exchange_time == "transaction")
    for piece in capture.pieces():
        messages = reader.read(piece)
        yield EventBatch(messages.rows(), capture.symbols, capture.sources)


class _Reader:
    """Turns lines into messages. What it remembers from piece to piece: names' ids, and whose file this is."""

    def __init__(self, capture: Capture, symbol: str | None, venue: str | None, *, transaction_time: bool) -> None:
        self._capture = capture
        self._symbol = symbol
        self._venue = venue
        self._transaction_time = transaction_time
        self._ids: dict[tuple[str, bool, str], tuple[int, int]] = {}
        self._kinds: dict[str, str] = {}
        self._file = ""
        self._file_symbols: set[str] = set()
        self._guessed: tuple[int, str] | None = None  # the line of a snapshot whose symbol was inferred, and that
        self._snapshots: list[tuple[int, int, int, Snapshot]] = []  # (line's index, place kept, received, snapshot)
        self._takers: dict[str, Callable[[Messages, int, Any], None]] = {
            "bookTicker": self._quote,
            "trade": self._trade,
            "depth": self._depth,
            "depthUpdate": self._depth,
        }

    def read(self, piece: Piece) -> Messages:
        if piece.file != self._file or piece.first_line == 1:
            self._file, self._file_symbols, self._guessed = piece.file, set(), None
        messages = Messages()
        for index, line in enumerate(piece.lines):
            text = line.strip()
            if not text:
                self._capture.skip("blank")
                continue
            received, _, body = text.partition(b" ")
            try:
                self._line(messages, index, _receive_time(received), body)
            except (msgspec.MsgspecError, UnicodeDecodeError, ValidationError, RecursionError) as error:
                self._capture.damage(piece, index, str(error))
        self._take_snapshots(messages, piece)
        self._check_guess(piece)
        return messages

    def _line(self, messages: Messages, index: int, received: int, body: bytes) -> None:
        envelope = decode_envelope(body)
        if envelope.stream:
            kind = self._kinds.get(envelope.stream)
            if kind is None:
                kind = self._kinds[envelope.stream] = _kind_of_stream(envelope.stream)
            message: bytes | msgspec.Raw = envelope.data
        else:
            kind = envelope.e or ("bookTicker" if bytes(envelope.B) else "other")
            message = body
            if envelope.lastUpdateId >= 0:
                # Whose it is may only be known when the lines after it have been read; until then its place is kept.
                snapshot = decode_snapshot(body)
                self._snapshots.append((index, messages.keep_place(), received, snapshot))
                return
        take = self._takers.get(kind)
        if take is None:
            self._capture.skip(kind)
        else:
            take(messages, received, message)
            self._capture.messages("depthUpdate" if kind == "depth" else kind)

    def _quote(self, messages: Messages, received: int, raw: bytes) -> None:
        quote = decode_quote(raw)
        time = self._time_ns(quote.E, quote.T)
        head = Head(received, *self._names("quote", bool(quote.e or quote.T), quote.s), time, quote.u)
        messages.add_quote(head, quote.b, quote.B, quote.a, quote.A)

    def _trade(self, messages: Messages, received: int, raw: bytes) -> None:
        trade = decode_trade(raw)
        time = self._time_ns(trade.E, trade.T)
        head = Head(received, *self._names("trade", trade.M is None, trade.s), time, trade.t)
        messages.add_trades(head, ((trade.p, trade.q, Side.SELL if trade.m else Side.BUY, time),))

    def _depth(self, messages: Messages, received: int, raw: bytes) -> None:
        depth = decode_depth(raw)
        span = depth.u - depth.U + 1 if depth.pu is None else depth.u - depth.pu
        if not 0 < span <= _MAX_SPAN:
            raise ValidationError(
                f"a depth update covers 1 to {_MAX_SPAN} numbers; got U {depth.U}, u {depth.u}, pu {depth.pu}"
            )
        time = self._time_ns(depth.E, depth.T)
        head = Head(received, *self._names("depth", depth.pu is not None, depth.s), time, depth.u, span)
        messages.add_book(head, depth.b, depth.a)

    def _time_ns(self, event: int, transaction: int) -> int:
        time = (transaction or event) if self._transaction_time else event
        time *= 1_000_000 if time < _FIRST_IN_MICROSECONDS else 1_000
        if time > MAX_TIME_NS:
            raise ValidationError(f"a time is ms or µs since 1970, up to the year 2262; got E {event}, T {transaction}")
        return time

    def _names(self, channel: str, futures: bool, symbol: str) -> tuple[int, int]:
        """The ids of the symbol and of its source. A lookup, but for the first message of each."""
        known = self._ids.get((channel, futures, symbol))
        if known is None:
            venue = self._venue or (_FUTURES if futures else _SPOT)
            source = Source(venue, channel, symbol, _RULES[channel].value)
            known = self._capture.symbols.intern(symbol), self._capture.sources.intern(source)
            self._ids[channel, futures, symbol] = known
        if symbol not in self._file_symbols:
            self._file_symbols.add(symbol)
        return known

    def _take_snapshots(self, messages: Messages, piece: Piece) -> None:
        for index, place, received, snapshot in self._snapshots:
            symbol = snapshot.symbol or self._symbol
            if symbol is None and len(self._file_symbols) == 1:
                (symbol,) = self._file_symbols
                self._guessed = piece.first_line + index, symbol
            if symbol is None:
                several = f"the file has {', '.join(sorted(self._file_symbols)[:5]) or 'no other lines so far'}"
                self._capture.damage(piece, index, f'a snapshot says not whose it is, and {several}: pass symbol="…"')
                continue
            try:
                time = self._time_ns(snapshot.E, snapshot.T)
                names = self._names("snapshot", bool(snapshot.E or snapshot.T), symbol)
            except ValidationError as error:
                self._capture.damage(piece, index, str(error))
                continue
            head = Head(received, *names, time, snapshot.lastUpdateId, flags=Flags.SNAPSHOT.value)
            messages.add_book(head, snapshot.bids, snapshot.asks, place=place)
            self._capture.messages("snapshot")
        self._snapshots.clear()

    def _check_guess(self, piece: Piece) -> None:
        if self._guessed is not None and len(self._file_symbols) > 1:
            line, symbol = self._guessed
            others = ", ".join(sorted(self._file_symbols - {symbol})[:5])
            raise FeedError(
                f"{piece.file}: the snapshot on line {line} was taken for {symbol}'s, the only symbol until then, but "
                f'the file also has {others}: pass symbol="…" to say whose it is'
            )


def _receive_time(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19 or not EARLIEST_RECEIVED_NS <= (received := int(text)) < 1 << 63:
        raise ValidationError(
            f"a line begins with its receive time, integer ns since 1970 (19 digits), and a space; got {text!r:.60}"
        )
    return received


def _kind_of_stream(stream: str) -> str:
    """``btcusdt@depth@100ms`` → depth, ``!bookTicker`` → bookTicker; other names (a listen key is one) are kept out."""
    if "@" in stream:
        head, kind = stream.split("@")[:2]
        return head[1:] if head.startswith("!") else kind
    return stream[1:] if stream.startswith("!") else "other"
