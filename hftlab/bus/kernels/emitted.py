"""What compiled handlers emitted, looked at as rows: are they valid, and the numbers of orders' ids.

A handler writes numbers straight into rows, so nothing was checked when it emitted. ``rules`` says what is valid, for
people; here is the same as comparisons, 3 ns a row. Texts are valid as they were written, so they are only missed.
"""

from __future__ import annotations

from math import inf

from numba import njit, types
from numba.extending import register_jitable

from hftlab.bus.kernels.layout import BROKEN, NUMBERED, WORD
from hftlab.bus.kernels.record_views import ROW_AT
from hftlab.events.records import ROW_BYTES, ClockSource, EventType, Flags, Kind, OrderType, Priority
from hftlab.ring.atomics import load, store

_market_at, _order_at, _fill_at, _signal_at = (ROW_AT[event_type] for event_type in EventType)
_MARKET, _ORDER, _FILL, _SIGNAL = (int(event_type) for event_type in EventType)
_PRIORITIES, _CLOCKS, _KINDS, _ORDER_TYPES = len(Priority), len(ClockSource), len(Kind), len(OrderType)
_TRADE, _LEVEL = int(Kind.TRADE), int(Kind.LEVEL)
_HEARTBEAT = int(Flags.HEARTBEAT)
_ORDER_ID_AT, _SIGNAL_TYPE_AT = 88, 72
_ORDER_ID_WORDS = 5


@register_jitable
def _is_number(value: float) -> bool:
    return -inf < value < inf


@register_jitable
def _is_price(value: float) -> bool:
    return -inf < value < inf or value != value


@register_jitable
def _is_size(value: float) -> bool:
    return 0.0 <= value < inf or value != value


@register_jitable
def _header_fits(row: int, symbols: int, sources: int) -> bool:
    record = _signal_at(row)
    sequence, span = record["sequence"], int(record["span"])
    fits: bool = (
        record["timestamp"] >= 0
        and record["received"] >= 0
        and record["cause"] >= 0
        and record["symbol"] < symbols
        and record["source"] < sources
        and record["priority"] < _PRIORITIES
        and record["clock"] < _CLOCKS
        and sequence >= -1
        and (span != 0 or record["flags"] & _HEARTBEAT != 0)
        and (sequence < 0 or sequence - span >= -1)
    )
    return fits


@register_jitable
def _market_fits(row: int) -> bool:
    record = _market_at(row)
    kind, side = record["kind"], record["side"]
    price, volume = record["price"], record["volume"]
    given = kind in (_TRADE, _LEVEL)
    return (
        kind < _KINDS
        and -1 <= side <= 1
        and (kind != _LEVEL or side != 0)
        and (_is_number(price) if given else _is_price(price))
        and (_is_size(volume) and (volume == volume or not given))
        and _is_price(record["bid"])
        and _is_price(record["ask"])
        and _is_size(record["bid_size"])
        and _is_size(record["ask_size"])
    )


@register_jitable
def _fits(row: int, mark: int) -> bool:
    event_type = _signal_at(row)["type"]
    if event_type == _MARKET:
        return _market_fits(row)
    if event_type == _ORDER:
        order = _order_at(row)
        named = mark & NUMBERED != 0 or load(row + _ORDER_ID_AT) & 0xFF != 0
        side, kind = order["direction"], order["order_type"]
        sound = 0.0 < order["quantity"] < inf and _is_price(order["price"])
        return named and sound and (side == 1 or side == -1) and 1 <= kind <= _ORDER_TYPES
    if event_type == _FILL:
        fill = _fill_at(row)
        sound = 0.0 < fill["executed_qty"] < inf and _is_number(fill["executed_price"])
        return sound and _is_number(fill["commission"]) and load(row + _ORDER_ID_AT) & 0xFF != 0
    if event_type == _SIGNAL:
        return _is_number(_signal_at(row)["strength"]) and load(row + _SIGNAL_TYPE_AT) & 0xFF != 0
    return False


@njit(cache=True, nogil=True)
def judge(rows: int, marks: int, count: int, symbols: int, sources: int) -> int:
    """How many of ``count`` emitted rows break a rule of their type; each of those gets BROKEN in its mark.

    ``rows`` and ``marks`` are addresses. A symbol or source breaks a rule that is not below ``symbols``, ``sources``.
    """
    broken = 0
    for index in range(count):
        row, mark = rows + index * ROW_BYTES, load(marks + index * WORD)
        if not (_header_fits(row, symbols, sources) and _fits(row, mark)):
            store(marks + index * WORD, mark | BROKEN)
            broken += 1
    return broken


@njit(cache=True, nogil=True)
def number_orders(rows: int, marks: int, count: int) -> None:
    """Write the emission number (``log_sequence``) in digits behind the id of each order that is marked NUMBERED.

    There is room for 13 digits (see ``PREFIX_BYTES``), and a log sequence has no more. About 10 ns an order.
    """
    for index in range(count):
        if load(marks + index * WORD) & NUMBERED == 0:
            continue
        row = rows + index * ROW_BYTES
        at = 0
        while (load(row + _ORDER_ID_AT + (at & ~7)) >> (8 * (at & 7))) & 0xFF:
            at += 1
        number = _signal_at(row)["log_sequence"]
        digits = 1
        while number // 10**digits:
            digits += 1
        for digit in range(digits):
            byte = 48 + number // 10 ** (digits - 1 - digit) % 10
            word = row + _ORDER_ID_AT + ((at + digit) & ~7)
            store(word, load(word) | (byte << (8 * ((at + digit) & 7))))


def warm() -> int:
    """Compile both kernels into numba's cache on disk, or load what is there already; return how many there are."""
    judge.compile((types.int64,) * 5)
    number_orders.compile((types.int64,) * 3)
    return 2
