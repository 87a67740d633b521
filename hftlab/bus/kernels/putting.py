"""Rows of what is emitted: begun, filled, committed. What the compiled ``emit`` and the plain one share.

``put_…`` begins a row of its type and fills in the numbers; the caller adds the texts and commits it. Addresses are
int64, and nothing is checked but how many rows one event may emit: what the numbers are worth is judged later, row by
row (see ``emitted``).
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import overload, register_jitable

from hftlab.bus.kernels.layout import (
    BUFFER_ROWS,
    EMITTED,
    FIRST,
    LAST,
    MARKS,
    MOST_EMISSIONS,
    POSITION,
    RECORDS,
    REFUSED,
    STOP,
    USED,
    WORD,
)
from hftlab.bus.kernels.record_views import ROW_AT
from hftlab.bus.kernels.texts import literal_of
from hftlab.errors import ValidationError
from hftlab.events.records import ROW_BYTES, EventType, Flags, Kind, OrderType, Side
from hftlab.ring.atomics import load, store

_FULL = BUFFER_ROWS - MOST_EMISSIONS
_ROW_WORDS = ROW_BYTES // WORD
_SEQUENCE, _SYMBOL, _SOURCE = 16, 40, 56  # offsets of the words that hold these
_LAST_PART = int(Flags.LAST_PART)
_MARKET, _ORDER, _FILL, _SIGNAL = (int(event_type) for event_type in EventType)
_BY_MARKET, _BY_LIMIT = int(OrderType.MARKET), int(OrderType.LIMIT)

market_at, order_at, fill_at, signal_at = (ROW_AT[event_type] for event_type in EventType)


@register_jitable
def begin_row(control: int, event_type: int) -> int:
    """The address of a fresh row, with the symbol and the source of the record that is being handled.

    It is emitted when ``commit`` says so: what raises between the two leaves nothing half written behind.
    """
    row = load(control + EMITTED) + load(control + USED) * ROW_BYTES
    for word in range(_ROW_WORDS):
        store(row + word * WORD, 0)
    record = load(control + RECORDS) + load(control + POSITION) * ROW_BYTES
    store(row + _SEQUENCE, -1)
    store(row + _SYMBOL, (load(record + _SYMBOL) & 0xFFFFFFFF) | (1 << 32))  # and a span of 1
    store(row + _SOURCE, (load(record + _SOURCE) & 0xFFFF) | (_LAST_PART << 16) | (event_type << 32))
    return row


@register_jitable
def commit(control: int, mark: int) -> None:
    """Emit the row that was begun; or count it as refused, if the event that is being handled has had its share."""
    position, used = load(control + POSITION), load(control + USED)
    if load(control + LAST) != position:
        store(control + LAST, position)
        store(control + FIRST, used)
    if used - load(control + FIRST) < MOST_EMISSIONS:
        store(load(control + MARKS) + used * WORD, position | mark)
        store(control + USED, used + 1)
        if used + 1 > _FULL:
            store(control + STOP, 1)
    else:
        store(control + REFUSED, load(control + REFUSED) + 1)
        store(control + STOP, 1)


@register_jitable
def put_signal(control: int, strength: float) -> int:
    """A fresh signal without its texts."""
    row: int = begin_row(control, _SIGNAL)
    signal_at(row)["strength"] = strength
    return row


@register_jitable
def put_order(control: int, direction: int, quantity: float, price: float, order_type: int) -> int:
    """A fresh order without its id; of type 0 it is LIMIT where there is a price, else MARKET."""
    row: int = begin_row(control, _ORDER)
    record = order_at(row)
    record["price"] = price
    record["quantity"] = quantity
    record["direction"] = direction
    if order_type == 0:
        order_type = _BY_LIMIT if price == price else _BY_MARKET
    record["order_type"] = order_type
    return row


@register_jitable
def put_fill(control: int, executed_qty: float, executed_price: float, commission: float) -> int:
    """A fresh fill without its order's id."""
    row: int = begin_row(control, _FILL)
    record = fill_at(row)
    record["executed_qty"] = executed_qty
    record["executed_price"] = executed_price
    record["commission"] = commission
    return row


@register_jitable
def put_market(
    control: int, price: float, volume: float, bid: float, ask: float, bid_size: float, ask_size: float, kind: int,
    side: int,
) -> int:  # fmt: skip
    """A market data event, begun and committed: it has no text."""
    row: int = begin_row(control, _MARKET)
    record = market_at(row)
    record["price"] = price
    record["volume"] = volume
    record["bid"] = bid
    record["ask"] = ask
    record["bid_size"] = bid_size
    record["ask_size"] = ask_size
    record["kind"] = kind
    record["side"] = side
    commit(control, 0)
    return row


# -- enums ------------------------------------------------------------------------------------------------------------

_ENUMS = {"direction": Side, "side": Side, "order_type": OrderType, "kind": Kind}


def _named(text: str, field: str) -> int:
    found: Any = getattr(_ENUMS[field], text.upper(), None)
    if found is None:
        names = ", ".join(member.name for member in _ENUMS[field])
        raise ValidationError(f"{field} is one of {names}; got {text!r:.100}")
    return int(found)


def number_of(value: Any, field: str) -> int:
    """What a field holds for a member of its enum, for the member's name, or for its number."""
    return _named(value, field) if isinstance(value, str) else int(value)


@overload(number_of, prefer_literal=True)
def _compiled_number_of(value: Any, field: Any) -> Any:
    text = literal_of(value)
    if text is not None:
        number = _named(text, field.literal_value)

        def of_name(value: Any, field: Any) -> Any:
            return number

        return of_name
    if isinstance(value, types.IntEnumMember):

        def of_member(value: Any, field: Any) -> Any:
            return value.value

        return of_member
    if isinstance(value, (types.Integer, types.Boolean)):

        def of_number(value: Any, field: Any) -> Any:
            return value

        return of_number
    raise ValidationError(
        f"{field.literal_value} is a {_ENUMS[field.literal_value].__name__}, its number, or its name as a literal; "
        f"got {value}"
    )
