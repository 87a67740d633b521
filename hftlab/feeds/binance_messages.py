"""Binance's market data messages as types: what msgspec decodes and validates a line's JSON into.

Times are ms since 1970, or µs where the recorder asked for them; 0 stands for a time that was not sent.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from hftlab.feeds.fields import Level, Number, Price, Size, Symbol

Time = Annotated[int, Meta(ge=0, le=9_223_372_036_854_775)]


class Envelope(Struct, gc=False):
    """Just enough of a line to tell what it is: a combined stream's wrapper, a bare message, or a REST answer."""

    stream: str = ""
    data: msgspec.Raw = msgspec.Raw()
    e: str = ""
    lastUpdateId: int = -1
    B: msgspec.Raw = msgspec.Raw()


class Quote(Struct, gc=False):
    """``bookTicker``; on spot without any time."""

    u: Number
    s: Symbol
    b: Price
    B: Size
    a: Price
    A: Size
    E: Time = 0
    T: Time = 0
    e: str = ""


class QuoteAsText(Struct, gc=False):
    """``bookTicker`` with an empty text or null on a side of the book that is empty; decoded when ``Quote`` fails."""

    u: Number
    s: Symbol
    b: str | None
    B: str | None
    a: str | None
    A: str | None
    E: Time = 0
    T: Time = 0
    e: str = ""


class Trade(Struct, gc=False):
    """``trade``; ``m``: the buyer's order was in the book, so the seller was the aggressor. Only spot sends ``M``."""

    s: Symbol
    t: Number
    p: Price
    q: Size
    m: bool
    E: Time = 0
    T: Time = 0
    M: bool | None = None


class Depth(Struct, gc=False):
    """``depthUpdate``: the book's changes U … u. Only futures send ``pu``, the ``u`` of the message before."""

    s: Symbol
    U: Number
    u: Number
    b: list[Level]
    a: list[Level]
    E: Time = 0
    T: Time = 0
    pu: Annotated[int, Meta(ge=-1)] | None = None


class Snapshot(Struct, gc=False):
    """The REST answer with the whole book. USD-M and spot do not say whose (COIN-M does); only futures send times."""

    lastUpdateId: Number
    bids: list[Level]
    asks: list[Level]
    symbol: str = ""
    E: Time = 0
    T: Time = 0


decode_envelope = msgspec.json.Decoder(Envelope).decode
decode_trade = msgspec.json.Decoder(Trade, strict=False).decode
decode_depth = msgspec.json.Decoder(Depth, strict=False).decode
decode_snapshot = msgspec.json.Decoder(Snapshot, strict=False).decode
_decode_quote = msgspec.json.Decoder(Quote, strict=False).decode
_decode_quote_as_text = msgspec.json.Decoder(QuoteAsText, strict=False).decode


def decode_quote(raw: bytes | msgspec.Raw) -> Quote:
    """A ``bookTicker``; an empty text becomes NaN. Raises msgspec.MsgspecError."""
    try:
        return _decode_quote(raw)
    except msgspec.ValidationError as error:
        try:
            text = _decode_quote_as_text(raw)
            b, a = _number(text.b, Price), _number(text.a, Price)
            size_b, size_a = _number(text.B, Size), _number(text.A, Size)
        except msgspec.ValidationError:
            raise error from None
        return Quote(u=text.u, s=text.s, b=b, B=size_b, a=a, A=size_a, E=text.E, T=text.T, e=text.e)


def _number(text: str | None, kind: object) -> float:
    return float(msgspec.convert(text, type=kind, strict=False)) if text else float("nan")
