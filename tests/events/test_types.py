"""Events are validated when made, immutable, and equal by value."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError, shown
from hftlab.events import (
    ClockSource,
    Event,
    EventBatch,
    EventType,
    FillEvent,
    Flags,
    Kind,
    MarketDataEvent,
    OrderEvent,
    OrderType,
    Priority,
    Side,
    SignalEvent,
)
from hftlab.events.records import RUN_BIT
from hftlab.events.types import EVENT_CLASSES, ROW_CLASSES
from tests.events.strategies import event_lists, events, identical

INF = math.inf
NAN = math.nan


def market(**fields: Any) -> MarketDataEvent:
    return MarketDataEvent(**{"symbol": "BTCUSDT"} | fields)


def order(**fields: Any) -> OrderEvent:
    needed: dict[str, Any] = {"symbol": "BTCUSDT", "order_id": "1", "direction": Side.BUY, "quantity": 1.0}
    return OrderEvent(**needed | fields)


def fill(**fields: Any) -> FillEvent:
    needed: dict[str, Any] = {"symbol": "BTCUSDT", "order_id": "1", "executed_qty": 1.0, "executed_price": 2.0}
    return FillEvent(**needed | fields)


def signal(**fields: Any) -> SignalEvent:
    return SignalEvent(**{"symbol": "BTCUSDT", "signal_type": "WIDE"} | fields)


def test_an_event_of_no_type_can_not_be_made() -> None:
    with pytest.raises(ValidationError, match="abstract"):
        Event(symbol="BTCUSDT")


@pytest.mark.parametrize("make", [market, order, fill, signal])
def test_an_event_can_not_be_changed(make: Callable[[], Event]) -> None:
    with pytest.raises(AttributeError):
        make().symbol = "ETHUSDT"  # type: ignore[misc]


@given(events())
def test_every_event_that_validates_is_equal_to_its_copies_and_hashes_like_them(event: Event) -> None:
    fields = {name: getattr(event, name) for name in event.__struct_fields__}
    for other in (type(event)(**fields), copy.copy(event), copy.deepcopy(event), msgspec.structs.replace(event)):
        assert event == other
        assert hash(event) == hash(other)
    changed = msgspec.structs.replace(event, part=event.part ^ 1)
    assert event != changed
    assert event != "an event"


def test_events_of_different_types_are_never_equal() -> None:
    made = [market(), order(), fill(), signal()]
    assert all((one == other) is (one is other) for one in made for other in made)


def test_a_topic_is_the_types_word_and_the_symbol() -> None:
    topics = [event.topic for event in (market(), order(), fill(), signal())]
    assert topics == ["market.BTCUSDT", "order.BTCUSDT", "fill.BTCUSDT", "signal.BTCUSDT"]


def test_fields_take_what_a_user_writes_and_hold_what_they_say() -> None:
    event = order(direction="sell", order_type="Stop_Limit", quantity=np.int64(3), price=Decimal("1.5"), priority=4)
    assert (event.direction, event.order_type, event.priority) == (Side.SELL, OrderType.STOP_LIMIT, Priority.CRITICAL)
    assert repr([event.quantity, event.price]) == "[3.0, 1.5]"
    assert type(order(order_id=np.str_("x"), symbol=np.str_("B")).order_id) is str
    made = market(
        kind=2, side=np.int8(1), price=1, volume=Fraction(1, 2), clock="kernel", flags=9, timestamp=np.int64(5)
    )
    assert (made.kind, made.side, made.clock) == (Kind.TRADE, Side.BUY, ClockSource.KERNEL)
    assert type(made.timestamp) is int
    assert made.flags is Flags.LAST_PART | Flags.SNAPSHOT
    assert market(side="bid").side is Side.BUY


BROKEN: list[tuple[Callable[..., Event], dict[str, Any]]] = [
    (market, {"symbol": ""}),
    (market, {"symbol": "x" * 65}),
    (market, {"symbol": "日" * 22}),
    (market, {"symbol": "a\nb"}),
    (market, {"symbol": "\ud800"}),
    (market, {"symbol": b"BTC"}),
    (market, {"symbol": None}),
    (market, {"source": "binance"}),
    (market, {"timestamp": -1}),
    (market, {"timestamp": 1 << 63}),
    (market, {"timestamp": 1.0}),
    (market, {"timestamp": True}),
    (market, {"timestamp": "1"}),
    (market, {"received": -1}),
    (market, {"cause": -1}),
    (market, {"sequence": -2}),
    (market, {"span": 0}),
    (market, {"span": 1 << 32}),
    (market, {"sequence": 3, "span": 5}),
    (market, {"part": -1}),
    (market, {"epoch": 1 << 32}),
    (market, {"flags": -1}),
    (market, {"flags": 1 << 16}),
    (market, {"priority": 5}),
    (market, {"priority": "URGENT"}),
    (market, {"clock": 4}),
    (market, {"kind": 4}),
    (market, {"kind": "TRADES"}),
    (market, {"kind": True}),
    (market, {"side": 2}),
    (market, {"price": INF}),
    (market, {"price": -INF}),
    (market, {"price": "1.5"}),
    (market, {"price": b"1"}),
    (market, {"price": True}),
    (market, {"price": None}),
    (market, {"price": 10**400}),
    (market, {"price": 10**5_000}),
    (market, {"timestamp": 10**5_000}),
    (market, {"symbol": 10**5_000}),
    (market, {"kind": 10**5_000}),
    (market, {"flags": 10**5_000}),
    (market, {"price": 1j}),
    (market, {"volume": -1.0}),
    (market, {"bid_size": -1e-300}),
    (market, {"ask_size": INF}),
    (market, {"bid": INF}),
    (market, {"ask": -INF}),
    (market, {"kind": "TRADE", "price": 1.0}),
    (market, {"kind": "TRADE", "volume": 1.0}),
    (market, {"kind": "LEVEL", "price": 1.0, "volume": 0.0}),
    (market, {"event_id": 5}),
    (market, {"event_id": -1}),
    (market, {"event_id": RUN_BIT}),
    (market, {"event_id": RUN_BIT | 1 << 41, "flags": Flags.EMITTED}),
    (market, {"event_id": 1 << 41, "flags": Flags.EMITTED}),
    (market, {"flags": Flags.EMITTED}),
    (order, {"order_id": ""}),
    (order, {"order_id": "x" * 41}),
    (order, {"order_id": "é" * 20 + "x"}),
    (order, {"order_id": "a\0b"}),
    (order, {"order_id": "\ud800"}),
    (order, {"order_id": 7}),
    (order, {"direction": 0}),
    (order, {"direction": "LONG"}),
    (order, {"quantity": 0.0}),
    (order, {"quantity": -0.0}),
    (order, {"quantity": NAN}),
    (order, {"quantity": INF}),
    (order, {"order_type": 0}),
    (order, {"price": INF}),
    (fill, {"order_id": ""}),
    (fill, {"executed_qty": 0}),
    (fill, {"executed_price": NAN}),
    (fill, {"commission": NAN}),
    (fill, {"commission": INF}),
    (signal, {"signal_type": ""}),
    (signal, {"signal_type": "x" * 25}),
    (signal, {"strategy_id": "x" * 33}),
    (signal, {"strategy_id": None}),
    (signal, {"strength": NAN}),
]


@pytest.mark.parametrize(("make", "fields"), BROKEN, ids=[shown(fields, 50) for _, fields in BROKEN])
def test_a_value_that_breaks_a_rule_is_refused_with_its_field_and_itself(
    make: Callable[..., Event], fields: dict[str, Any]
) -> None:
    make()
    with pytest.raises(ValidationError) as caught:
        make(**fields)
    message = str(caught.value)
    assert any(name in message.lower() for name in fields)
    assert len(message) < 500


def test_a_missing_field_is_an_error() -> None:
    with pytest.raises(TypeError, match="order_id"):
        OrderEvent(symbol="BTCUSDT", direction=Side.BUY, quantity=1.0)  # type: ignore[call-arg]


@pytest.mark.parametrize("event_type", list(EventType))
def test_events_out_of_rows_are_of_the_public_class_with_fields_in_the_same_order(event_type: EventType) -> None:
    public, made = EVENT_CLASSES[event_type], ROW_CLASSES[event_type]
    assert issubclass(made, public)
    assert made.__struct_fields__ == public.__struct_fields__
    assert made.__name__ == public.__name__


@given(event_lists(most=3))
def test_events_out_of_rows_equal_and_hash_like_those_that_were_made(listed: list[Event]) -> None:
    for made, back in zip(listed, EventBatch.from_events(listed), strict=True):
        assert identical(made, back)
        assert back == made
        assert hash(made) == hash(back)
        assert repr(made) == repr(back)


def test_a_users_own_class_of_an_event_works_like_the_public_one() -> None:
    class Tick(MarketDataEvent, frozen=True, kw_only=True, eq=False):
        note: str = ""

    tick = Tick(symbol="BTCUSDT", price=1, note="mine")
    assert repr(tick.price) == "1.0"
    assert list(EventBatch.from_events([tick])) == [market(price=1.0)]
    with pytest.raises(ValidationError):
        Tick(symbol="BTCUSDT", price=INF)


@given(st.text(max_size=70))
def test_any_text_makes_an_event_or_a_clear_error(text: str) -> None:
    for make, field in ((market, "symbol"), (order, "order_id"), (signal, "signal_type"), (signal, "strategy_id")):
        try:
            event = make(**{field: text})
        except ValidationError:
            continue
        assert getattr(event, field) == text


def test_a_repr_has_what_differs_from_the_defaults() -> None:
    assert repr(market(price=1.5, part=2)) == "MarketDataEvent(symbol='BTCUSDT', part=2, price=1.5)"
    assert (
        repr(next(iter(EventBatch.from_events([market(price=1.5)])))) == "MarketDataEvent(symbol='BTCUSDT', price=1.5)"
    )
