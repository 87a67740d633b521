"""The cryptofeed recorder's files: what their lines are, several of them merged, and the way from lines to rows.

A file holds what one connection received, said and was told::

    1618677817.061845: {"type":"subscriptions", …}                     a message, and when it was received
    wss://ws-feed.pro.coinbase.com <-> 1618677816.8434298              skipped as "handshake": the connection was made
    wss://ws-feed.pro.coinbase.com <- 1618677817.020616: {"type": …}   skipped as "sent": what the recorder asked for
    https://api.exchange.coinbase.com/… -> 1618677817.5: {"bids": …}   skipped as "fetched": an answer over HTTP

Receive times are unix seconds with up to 7 decimals, read to the ns without a float in between. They are those of the
recorder's own clock, which may be wrong: times of the venue that are later get ``Flags.AHEAD``.

**Merging.** Recorders run redundant connections, because one may stall. Read one after another, their files are the
same session several times over. ``merge=True`` reads them side by side instead and takes the lines in the order of
their receive times (for equal times in the order of the files; within a file always in its order), so the copies of a
message lie as close together as they arrived. That needs the memory of one piece of text for every file, no more.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import NamedTuple

import msgspec

from hftlab.errors import ValidationError
from hftlab.events import EventBatch, NumberRule, Source
from hftlab.feeds import files
from hftlab.feeds.capture import Capture
from hftlab.feeds.files import Piece
from hftlab.feeds.instants import seconds_ns
from hftlab.feeds.messages import Messages

Take = Callable[[Messages, int, bytes], None]
"""Adds one message: the messages so far, when it was received in ns, and its JSON. Raises before it adds anything."""

_DAMAGE = (msgspec.MsgspecError, UnicodeDecodeError, ValidationError, RecursionError)
_ARROWS = {b"<->": "handshake", b"<-": "sent", b"->": "fetched"}


class Line(NamedTuple):
    """A received message, and where it stands."""

    received_ns: int
    body: bytes
    piece: Piece
    place: int


class Names:
    """The ids of a venue's symbols and sources. ``rules``: how each of its channels numbers its messages."""

    def __init__(self, capture: Capture, venue: str, rules: Mapping[str, NumberRule]) -> None:
        self._capture = capture
        self._venue = venue
        self._rules = rules
        self._ids: dict[tuple[str, str], tuple[int, int]] = {}

    def of(self, channel: str, symbol: str, scope: str | None = None) -> tuple[int, int]:
        """The ids of a symbol and of its source, whose scope is the symbol unless said. Raises ValidationError."""
        known = self._ids.get((channel, symbol))
        if known is None:
            scope = symbol if scope is None else scope
            source = Source(self._venue, channel, scope, self._rules[channel].value)
            known = self._capture.symbols.intern(symbol), self._capture.sources.intern(source)
            self._ids[channel, symbol] = known
        return known


def read_messages(
    capture: Capture,
    *,
    merge: bool,
    kind_of: Callable[[bytes], str],
    takers: Mapping[str, Take],
    other: Take | None = None,
) -> Iterator[EventBatch]:
    """Batches of market data, one for about ``PIECE_BYTES`` of text.

    ``kind_of`` names a message by its JSON, ``takers`` has what adds those of a kind, ``other`` what adds the others,
    which are else skipped under their name; so are messages that have neither content nor number. A message that either
    can't make sense of is damage of its line. Raises FeedError. About 1 µs a line beside theirs.
    """
    messages = Messages()
    size_bytes = 0
    for line in lines(capture, merge=merge):
        try:
            kind = kind_of(line.body)
            take = takers.get(kind, other)
            before = len(messages)
            if take is not None:
                take(messages, line.received_ns, line.body)
            if len(messages) > before:
                capture.messages(kind)
            else:
                capture.skip(kind if take is None else f"empty {kind}")
        except _DAMAGE as error:
            capture.damage(line.piece, line.place, str(error))
        size_bytes += len(line.body)
        if size_bytes >= files.PIECE_BYTES:
            yield EventBatch(messages.rows(), capture.symbols, capture.sources)
            messages, size_bytes = Messages(), 0
    yield EventBatch(messages.rows(), capture.symbols, capture.sources)


def lines(capture: Capture, *, merge: bool) -> Iterator[Line]:
    """All received messages of all files; other lines are counted. In bounded memory. Raises FeedError."""
    if not merge:
        return _received(capture, capture.pieces())
    # heapq.merge is stable, and holds one line of every file.
    each = (_received(capture, pieces) for pieces in capture.pieces_by_file())
    return heapq.merge(*each, key=attrgetter("received_ns"))


def _received(capture: Capture, pieces: Iterable[Piece]) -> Iterator[Line]:
    for piece in pieces:
        for index, text in enumerate(piece.lines):
            stamp, _, body = text.partition(b": ")
            try:
                received = seconds_ns(stamp)
            except ValidationError as error:
                _count_other(capture, piece, index, text, error)
            else:
                yield Line(received, body, piece, index)


def _count_other(capture: Capture, piece: Piece, index: int, text: bytes, error: ValidationError) -> None:
    if not text.strip():
        capture.skip("blank")
        return
    if text.startswith((b"wss://", b"ws://", b"https://", b"http://")):
        # An address has no space in it, so the second word is the recorder's arrow, whatever a message holds.
        kind = _ARROWS.get(text.partition(b" ")[2].partition(b" ")[0])
        if kind is not None:
            capture.skip(kind)
            return
    capture.damage(piece, index, str(error))
