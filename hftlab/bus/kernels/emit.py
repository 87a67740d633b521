"""``emit``: what a compiled handler emits with, as numba's type ``Emit`` and as the Python class ``Emitter``.

Both write rows into a buffer that is emptied between two events; see ``layout``, and ``putting`` for what they
share. Contract: one thread; nothing is allocated. An event costs 4 ns, with a text known only then 13 more.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import models, overload, overload_method, register_model

from hftlab.bus.kernels.layout import NUMBERED, PREFIX_BYTES
from hftlab.bus.kernels.putting import (
    commit,
    fill_at,
    market_at,
    number_of,
    order_at,
    put_fill,
    put_market,
    put_order,
    put_signal,
    signal_at,
)
from hftlab.bus.kernels.texts import intrinsic, literal_of, write_plain, writer_for
from hftlab.errors import ValidationError
from hftlab.events.records import ORDER_ID_BYTES, SIGNAL_TYPE_BYTES, STRATEGY_ID_BYTES, Kind, OrderType, Side

_NAN = float("nan")
_ORDER_ID, _SIGNAL_TYPE, _STRATEGY_ID = 88, 72, 96  # offsets of the texts
_ONE_OF = "an order has a prefix, which gets a number, or a whole order_id; give one of them"


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
        row = put_signal(control, strength)
        write_type(row + _SIGNAL_TYPE, SIGNAL_TYPE_BYTES, signal_type)
        write_strategy(row + _STRATEGY_ID, STRATEGY_ID_BYTES, strategy_id)
        commit(control, 0)
        return signal_at(row)

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
        side = number_of(direction, "direction")
        kind = number_of(order_type, "order_type")
        control = _control_of(emit)
        row = put_order(control, side, quantity, price, kind)
        if by_id:
            write(row + _ORDER_ID, ORDER_ID_BYTES, order_id)
        else:
            write(row + _ORDER_ID, ORDER_ID_BYTES, prefix)
        commit(control, mark)
        return order_at(row)

    return order


@overload_method(Emit, "fill", prefer_literal=True)
def _fill(emit: Any, order_id: Any, executed_qty: Any, executed_price: Any, commission: Any = 0.0) -> Any:
    _check_numbers(executed_qty=executed_qty, executed_price=executed_price, commission=commission)
    write = writer_for(order_id, "order_id", ORDER_ID_BYTES, ORDER_ID_BYTES)

    def fill(emit: Any, order_id: Any, executed_qty: Any, executed_price: Any, commission: Any = 0.0) -> Any:
        control = _control_of(emit)
        row = put_fill(control, executed_qty, executed_price, commission)
        write(row + _ORDER_ID, ORDER_ID_BYTES, order_id)
        commit(control, 0)
        return fill_at(row)

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
        what, whose = number_of(kind, "kind"), number_of(side, "side")
        row = put_market(_control_of(emit), price, volume, bid, ask, bid_size, ask_size, what, whose)
        return market_at(row)

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
        row = put_signal(self._control, strength)
        write_plain(row + _SIGNAL_TYPE, SIGNAL_TYPE_BYTES, signal_type, "signal_type", SIGNAL_TYPE_BYTES)
        write_plain(row + _STRATEGY_ID, STRATEGY_ID_BYTES, strategy_id, "strategy_id", STRATEGY_ID_BYTES)
        commit(self._control, 0)
        return signal_at(row)

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
        side, kind = number_of(direction, "direction"), number_of(order_type, "order_type")
        if order_id and prefix:
            raise ValidationError(_ONE_OF)
        row = put_order(self._control, side, quantity, price, kind)
        if order_id:
            write_plain(row + _ORDER_ID, ORDER_ID_BYTES, order_id, "order_id", ORDER_ID_BYTES)
        else:
            write_plain(row + _ORDER_ID, ORDER_ID_BYTES, prefix, "prefix", PREFIX_BYTES)
        commit(self._control, 0 if order_id else NUMBERED)
        return order_at(row)

    def fill(self, order_id: str | bytes, executed_qty: float, executed_price: float, commission: float = 0.0) -> Any:
        """A FillEvent, usually with the ``order_id`` of the record that is being handled."""
        row = put_fill(self._control, executed_qty, executed_price, commission)
        write_plain(row + _ORDER_ID, ORDER_ID_BYTES, order_id, "order_id", ORDER_ID_BYTES)
        commit(self._control, 0)
        return fill_at(row)

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
        what, whose = number_of(kind, "kind"), number_of(side, "side")
        return market_at(put_market(self._control, price, volume, bid, ask, bid_size, ask_size, what, whose))
