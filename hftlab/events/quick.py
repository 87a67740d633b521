"""The rules for one event of plain values as flat comparisons: what nearly every event passes in 1 µs.

``rules`` says what is valid, and to whom it may concern why; looking a rule up costs 0.3 µs, and an event has twenty. A
quick check knows less than the rules do, never more: False means "look closer" (a number to convert, text beyond ASCII,
a rule broken), and what it lets pass, the rules let pass too. Tests compare the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hftlab.events.records import (
    MAX_LOG_SEQUENCE,
    ORDER_ID_BYTES,
    RUN_BIT,
    SIGNAL_TYPE_BYTES,
    STRATEGY_ID_BYTES,
    ClockSource,
    EventType,
    Flags,
    Kind,
    OrderType,
    Priority,
    Side,
)
from hftlab.events.tables import MAX_SYMBOL_BYTES, Source

_INF = float("inf")
_I64 = (1 << 63) - 1
_U32 = (1 << 32) - 1
_FLAGS = (1 << 16) - 1
_HEARTBEAT = Flags.HEARTBEAT.value
_EMITTED = int(Flags.EMITTED)
_TICK, _QUOTE, _LEVEL = Kind.TICK, Kind.QUOTE, Kind.LEVEL
_NO_SIDE = Side.NONE

# The exact types of the fields, in the order that the classes in ``types`` declare them.
_HEADER = (str, int, int, int, int, Source, int, int, int, int, Flags, Priority, ClockSource)
_MARKET = (*_HEADER, float, float, float, float, float, float, Kind, Side)
_ORDER = (*_HEADER, str, Side, float, OrderType, float)
_FILL = (*_HEADER, str, float, float, float)
_SIGNAL = (*_HEADER, str, float, str)


def _header(
    symbol: str, timestamp: int, received: int, event_id: int, cause: int, sequence: int, span: int, part: int,
    epoch: int, flags: int,
) -> bool:  # fmt: skip
    return (
        symbol.isascii()
        and symbol.isprintable()
        and 0 < len(symbol) <= MAX_SYMBOL_BYTES
        and 0 <= timestamp <= _I64
        and 0 <= received <= _I64
        and 0 <= cause <= _I64
        and -1 <= sequence <= _I64
        and (1 <= span <= _U32 or (span == 0 and flags & _HEARTBEAT != 0))
        and (sequence < 0 or span <= sequence + 1)
        and 0 <= part <= _U32
        and 0 <= epoch <= _U32
        and 0 <= flags <= _FLAGS
        and (
            (event_id == 0 or MAX_LOG_SEQUENCE < event_id < RUN_BIT)
            if not flags & _EMITTED
            else RUN_BIT <= event_id <= RUN_BIT | MAX_LOG_SEQUENCE
        )
    )


def _text(text: str, size: int) -> bool:
    return text.isascii() and 0 < len(text) <= size and "\0" not in text


def _market(values: tuple[Any, ...]) -> bool:
    if tuple(map(type, values)) != _MARKET:
        return False
    (
        symbol, timestamp, received, event_id, cause, _, sequence, span, part, epoch, flags, _, _,
        price, volume, bid, ask, bid_size, ask_size, kind, side,
    ) = values  # fmt: skip
    # x != x is how a NaN, a field that was not sent, tells itself.
    return (
        _header(symbol, timestamp, received, event_id, cause, sequence, span, part, epoch, flags.value)
        and (-_INF < price < _INF or (price != price and (kind is _TICK or kind is _QUOTE)))
        and (0.0 <= volume < _INF or (volume != volume and (kind is _TICK or kind is _QUOTE)))
        and (bid != bid or -_INF < bid < _INF)
        and (ask != ask or -_INF < ask < _INF)
        and (bid_size != bid_size or 0.0 <= bid_size < _INF)
        and (ask_size != ask_size or 0.0 <= ask_size < _INF)
        and (side is not _NO_SIDE or kind is not _LEVEL)
    )


def _order(values: tuple[Any, ...]) -> bool:
    if tuple(map(type, values)) != _ORDER:
        return False
    (
        symbol, timestamp, received, event_id, cause, _, sequence, span, part, epoch, flags, _, _,
        order_id, direction, quantity, _, price,
    ) = values  # fmt: skip
    return (
        _header(symbol, timestamp, received, event_id, cause, sequence, span, part, epoch, flags.value)
        and _text(order_id, ORDER_ID_BYTES)
        and direction is not _NO_SIDE
        and 0.0 < quantity < _INF
        and (price != price or -_INF < price < _INF)
    )


def _fill(values: tuple[Any, ...]) -> bool:
    if tuple(map(type, values)) != _FILL:
        return False
    (
        symbol, timestamp, received, event_id, cause, _, sequence, span, part, epoch, flags, _, _,
        order_id, executed_qty, executed_price, commission,
    ) = values  # fmt: skip
    return (
        _header(symbol, timestamp, received, event_id, cause, sequence, span, part, epoch, flags.value)
        and _text(order_id, ORDER_ID_BYTES)
        and 0.0 < executed_qty < _INF
        and -_INF < executed_price < _INF
        and -_INF < commission < _INF
    )


def _signal(values: tuple[Any, ...]) -> bool:
    if tuple(map(type, values)) != _SIGNAL:
        return False
    (
        symbol, timestamp, received, event_id, cause, _, sequence, span, part, epoch, flags, _, _,
        signal_type, strength, strategy_id,
    ) = values  # fmt: skip
    return (
        _header(symbol, timestamp, received, event_id, cause, sequence, span, part, epoch, flags.value)
        and _text(signal_type, SIGNAL_TYPE_BYTES)
        and -_INF < strength < _INF
        and (not strategy_id or _text(strategy_id, STRATEGY_ID_BYTES))
    )


QUICK_CHECKS: dict[EventType, Callable[[tuple[Any, ...]], bool]] = {
    EventType.MARKET_DATA: _market,
    EventType.ORDER: _order,
    EventType.FILL: _fill,
    EventType.SIGNAL: _signal,
}
"""By type: whether an event with these field values (``msgspec.structs.astuple``) is valid beyond doubt."""
