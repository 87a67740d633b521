"""``emit``: what a compiled handler emits with, as numba's type ``Emit`` and as the Python class ``Emitter``.

Both write rows into a buffer that is emptied between two events; see ``layout``. Contract: one thread; nothing is
allocated. An event costs about 10 ns.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import models, overload, overload_method, register_jitable, register_model

from hftlab.bus.kernels.layout import (
    BUFFER_ROWS,
    EMITTED,
    FIRST,
    LAST,
    MARKS,
    MOST_EMISSIONS,
    NUMBERED,
    POSITION,
    PREFIX_BYTES,
    RECORDS,
    REFUSED,
    STOP,
    USED,
    WORD,
)
from hftlab.bus.kernels.record_views import ROW_AT
from hftlab.bus.kernels.texts import intrinsic, literal_of, write_plain, writer_for
from hftlab.errors import ValidationError
from hftlab.events.records import (
    ORDER_ID_BYTES,
    ROW_BYTES,
    SIGNAL_TYPE_BYTES,
    STRATEGY_ID_BYTES,
    EventType,
    Flags,
    Kind,
    OrderType,
    Side,
)
from hftlab.ring.atomics import load, store

_NAN = float("nan")
_FULL = BUFFER_ROWS - MOST_EMISSIONS
_ROW_WORDS = ROW_BYTES // WORD
_SEQUENCE, _SYMBOL, _SOURCE = 16, 40, 56  # offsets of the words that hold these
_LAST_PART = int(Flags.LAST_PART)
_MARKET, _ORDER, _FILL, _SIGNAL = (int(event_type) for event_type in EventType)
_market_at, _order_at, _fill_at, _signal_at = (ROW_AT[event_type] for event_type in EventType)
_ORDER_ID, _SIGNAL_TYPE, _STRATEGY_ID = 88, 72, 96  # offsets of the texts
_ONE_OF = "an order has a prefix, which gets a number, or a whole order_id; give one of them"
_BY_MARKET, _BY_LIMIT = int(OrderType.MARKET), int(OrderType.LIMIT)


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
def _put_signal(control: int, strength: float) -> int:
    row: int = begin_row(control, _SIGNAL)
    _signal_at(row)["strength"] = strength
    return row


@register_jitable
def _put_order(control: int, direction: int, quantity: float, price: float, order_type: int) -> int:
    row: int = begin_row(control, _ORDER)
    record = _order_at(row)
    record["price"] = price
    record["quantity"] = quantity
    record["direction"] = direction
    if order_type == 0:
        order_type = _BY_LIMIT if price == price else _BY_MARKET
    record["order_type"] = order_type
    return row


@register_jitable
def _put_fill(control: int, executed_qty: float, executed_price: float, commission: float) -> int:
    row: int = begin_row(control, _FILL)
    record = _fill_at(row)
    record["executed_qty"] = executed_qty
    record["executed_price"] = executed_price
    record["commission"] = commission
    return row


@register_jitable
def _put_market(
    control: int, price: float, volume: float, bid: float, ask: float, bid_size: float, ask_size: float, kind: int,
    side: int,
) -> int:  # fmt: skip
    row: int = begin_row(control, _MARKET)
    record = _market_at(row)
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


def _number_of(value: Any, field: str) -> int:
    """What a field holds for a member of its enum, for the member's name, or for its number."""
    return _named(value, field) if isinstance(value, str) else int(value)


@overload(_number_of, prefer_literal=True)
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


# -- compiled ---------------------------------------------------------------------------------------------------------


class Emit(types.Type):
    """numba's type of ``emit``: the control block's address, so that nothing is counted or allocated."""

    def __init__(self) -> None:
        super().__init__("emit")


EMIT = Emit()
_struct: Any = cgutils.create_struct_proxy


@register_model(Emit)
class _EmitModel(models.StructModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, [("control", types.int64)])  # type: ignore[no-untyped-call]


def emit_at(control: int) -> Emitter:
    """The ``emit`` of one control block."""
    return Emitter(control)


@intrinsic
def _make_emit(typing_context: Any, control: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = _struct(EMIT)(context, builder)
        made.control = arguments[0]
        return made._getvalue()

    return EMIT(types.int64), build


@intrinsic
def _control_of(typing_context: Any, emit: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _struct(EMIT)(context, builder, value=arguments[0]).control

    return types.int64(EMIT), build


@overload(emit_at)
def _compiled_emit_at(control: Any) -> Any:
    def emit_at(control: Any) -> Any:
        return _make_emit(control)

    return emit_at


def _check_numbers(**given: Any) -> None:
    for field, numba_type in given.items():
        value = numba_type.value if isinstance(numba_type, types.Omitted) else numba_type
        if not isinstance(value, (types.Integer, types.Float, types.Boolean, int, float)):
            raise ValidationError(f"{field} is a number; got {value}")


@overload_method(Emit, "signal", prefer_literal=True)
def _signal(emit: Any, strength: Any, signal_type: Any, strategy_id: Any = "") -> Any:
    _check_numbers(strength=strength)
    write_type = writer_for(signal_type, "signal_type", SIGNAL_TYPE_BYTES, SIGNAL_TYPE_BYTES)
    write_strategy = writer_for(strategy_id, "strategy_id", STRATEGY_ID_BYTES, STRATEGY_ID_BYTES)

    def signal(emit: Any, strength: Any, signal_type: Any, strategy_id: Any = "") -> Any:
        control = _control_of(emit)
        row = _put_signal(control, strength)
        write_type(row + _SIGNAL_TYPE, SIGNAL_TYPE_BYTES, signal_type)
        write_strategy(row + _STRATEGY_ID, STRATEGY_ID_BYTES, strategy_id)
        commit(control, 0)
        return _signal_at(row)

    return signal


@overload_method(Emit, "order", prefer_literal=True)
def _order(
    emit: Any, direction: Any, quantity: Any, price: Any = _NAN, order_type: Any = 0, prefix: Any = "",
    order_id: Any = "",
) -> Any:  # fmt: skip
    _check_numbers(quantity=quantity, price=price)
    mark = NUMBERED
    write = writer_for(prefix, "prefix", ORDER_ID_BYTES, PREFIX_BYTES)
    by_id = literal_of(order_id) != ""
    if by_id:
        if literal_of(prefix) != "":
            raise ValidationError(_ONE_OF)
        mark, write = 0, writer_for(order_id, "order_id", ORDER_ID_BYTES, ORDER_ID_BYTES)

    def order(
        emit: Any, direction: Any, quantity: Any, price: Any = _NAN, order_type: Any = 0, prefix: Any = "",
        order_id: Any = "",
    ) -> Any:  # fmt: skip
        side = _number_of(direction, "direction")
        kind = _number_of(order_type, "order_type")
        control = _control_of(emit)
        row = _put_order(control, side, quantity, price, kind)
        if by_id:
            write(row + _ORDER_ID, ORDER_ID_BYTES, order_id)
        else:
            write(row + _ORDER_ID, ORDER_ID_BYTES, prefix)
        commit(control, mark)
        return _order_at(row)

    return order


@overload_method(Emit, "fill", prefer_literal=True)
def _fill(emit: Any, order_id: Any, executed_qty: Any, executed_price: Any, commission: Any = 0.0) -> Any:
    _check_numbers(executed_qty=executed_qty, executed_price=executed_price, commission=commission)
    write = writer_for(order_id, "order_id", ORDER_ID_BYTES, ORDER_ID_BYTES)

    def fill(emit: Any, order_id: Any, executed_qty: Any, executed_price: Any, commission: Any = 0.0) -> Any:
        control = _control_of(emit)
        row = _put_fill(control, executed_qty, executed_price, commission)
        write(row + _ORDER_ID, ORDER_ID_BYTES, order_id)
        commit(control, 0)
        return _fill_at(row)

    return fill


@overload_method(Emit, "market", prefer_literal=True)
def _market(
    emit: Any, price: Any = _NAN, volume: Any = _NAN, bid: Any = _NAN, ask: Any = _NAN, bid_size: Any = _NAN,
    ask_size: Any = _NAN, kind: Any = 0, side: Any = 0,
) -> Any:  # fmt: skip
    _check_numbers(price=price, volume=volume, bid=bid, ask=ask, bid_size=bid_size, ask_size=ask_size)

    def market(
        emit: Any, price: Any = _NAN, volume: Any = _NAN, bid: Any = _NAN, ask: Any = _NAN, bid_size: Any = _NAN,
        ask_size: Any = _NAN, kind: Any = 0, side: Any = 0,
    ) -> Any:  # fmt: skip
        what, whose = _number_of(kind, "kind"), _number_of(side, "side")
        row = _put_market(_control_of(emit), price, volume, bid, ask, bid_size, ask_size, what, whose)
        return _market_at(row)

    return market


# -- plain Python -----------------------------------------------------------------------------------------------------


class Emitter:
    """``emit`` for a handler that runs as plain Python; to the bit what the compiled one writes.

    Each method writes one event into the buffer and returns its record, whose fields may be set: the header's
    (``priority``, ``timestamp``, ``cause``, ``symbol`` and ``source`` as ids of the bus's tables) as well as the
    payload's numbers. Symbol and source are those of the event that is being handled, until set.
    """

    def __init__(self, control: int) -> None:
        self._control = control

    def signal(self, strength: float, signal_type: str | bytes, strategy_id: str | bytes = "") -> Any:
        """A SignalEvent: ``signal_type`` of up to 24 bytes of UTF-8, ``strategy_id`` of up to 32."""
        row = _put_signal(self._control, strength)
        write_plain(row + _SIGNAL_TYPE, SIGNAL_TYPE_BYTES, signal_type, "signal_type", SIGNAL_TYPE_BYTES)
        write_plain(row + _STRATEGY_ID, STRATEGY_ID_BYTES, strategy_id, "strategy_id", STRATEGY_ID_BYTES)
        commit(self._control, 0)
        return _signal_at(row)

    def order(
        self,
        direction: Side | int | str,
        quantity: float,
        price: float = _NAN,
        order_type: OrderType | int | str = 0,
        prefix: str | bytes = "",
        order_id: str | bytes = "",
    ) -> Any:
        """An OrderEvent. Without an ``order_type`` it is LIMIT where there is a price, else MARKET.

        Its id is ``prefix`` (up to 27 bytes) and the order's emission number in digits, so it is unique on the bus, and
        within a run; or the ``order_id`` that is given (up to 40 bytes), which is the caller's to keep unique.
        """
        side, kind = _number_of(direction, "direction"), _number_of(order_type, "order_type")
        if order_id and prefix:
            raise ValidationError(_ONE_OF)
        row = _put_order(self._control, side, quantity, price, kind)
        if order_id:
            write_plain(row + _ORDER_ID, ORDER_ID_BYTES, order_id, "order_id", ORDER_ID_BYTES)
        else:
            write_plain(row + _ORDER_ID, ORDER_ID_BYTES, prefix, "prefix", PREFIX_BYTES)
        commit(self._control, 0 if order_id else NUMBERED)
        return _order_at(row)

    def fill(self, order_id: str | bytes, executed_qty: float, executed_price: float, commission: float = 0.0) -> Any:
        """A FillEvent, usually with the ``order_id`` of the record that is being handled."""
        row = _put_fill(self._control, executed_qty, executed_price, commission)
        write_plain(row + _ORDER_ID, ORDER_ID_BYTES, order_id, "order_id", ORDER_ID_BYTES)
        commit(self._control, 0)
        return _fill_at(row)

    def market(
        self,
        price: float = _NAN,
        volume: float = _NAN,
        bid: float = _NAN,
        ask: float = _NAN,
        bid_size: float = _NAN,
        ask_size: float = _NAN,
        kind: Kind | int | str = 0,
        side: Side | int | str = 0,
    ) -> Any:
        """A MarketDataEvent, such as a bar or a consolidated quote; what is not given is NaN."""
        what, whose = _number_of(kind, "kind"), _number_of(side, "side")
        return _market_at(_put_market(self._control, price, volume, bid, ask, bid_size, ask_size, what, whose))
