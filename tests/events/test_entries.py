"""An event as named text comes back as it was, and what strangers write is an event or a clear error."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hftlab.errors import CodecError
from hftlab.events import (
    Event,
    EventType,
    FillEvent,
    Kind,
    MarketDataEvent,
    OrderEvent,
    OrderType,
    Side,
    SignalEvent,
    Source,
)
from hftlab.events.entries import MAX_FIELD_BYTES, decode_entry, encode_entry
from hftlab.events.types import EVENT_CLASSES
from tests.events.strategies import events, identical


@given(events())
def test_every_event_comes_back_to_the_bit(event: Event) -> None:
    entry = encode_entry(event)
    assert identical(decode_entry(entry), event)
    assert identical(decode_entry({name.encode(): value.encode() for name, value in entry.items()}), event)
    assert all(len(value.encode()) <= MAX_FIELD_BYTES for value in entry.values())


def test_an_entry_reads_like_a_sentence_and_leaves_out_defaults() -> None:
    event = MarketDataEvent(
        symbol="BTCUSDT", price=61800.2, volume=0.006, kind=Kind.TRADE, side=Side.BUY, received=1723161255088176367,
        source=Source("binance", "trade", "BTCUSDT", "plus-one"),
    )  # fmt: skip
    assert encode_entry(event) == {
        "type": "market",
        "symbol": "BTCUSDT",
        "received": "1723161255088176367",
        "source": "binance/trade/BTCUSDT/plus-one",
        "price": "61800.2",
        "volume": "0.006",
        "kind": "TRADE",
        "side": "BUY",
    }
    assert encode_entry(SignalEvent(symbol="A", signal_type="W")) == {
        "type": "signal",
        "symbol": "A",
        "signal_type": "W",
    }


def test_a_negative_zero_is_not_a_default() -> None:
    event = FillEvent(symbol="A", order_id="1", executed_qty=1.0, executed_price=-0.0, commission=-0.0)
    assert encode_entry(event)["commission"] == "-0.0"
    assert identical(decode_entry(encode_entry(event)), event)


def test_names_of_enums_may_be_written_small() -> None:
    entry = {
        "type": "order",
        "symbol": "A",
        "order_id": "1",
        "direction": "sell",
        "order_type": "limit",
        "quantity": "1e2",
    }
    assert decode_entry(entry) == OrderEvent(
        symbol="A", order_id="1", direction=Side.SELL, order_type=OrderType.LIMIT, quantity=100.0
    )


@pytest.mark.parametrize("text", ["1", "+1", "1.", ".5", "1.5e3", "1E+3", "-0.0", "4.9e-324"])
def test_numbers_are_written_in_any_plain_decimal_form(text: str) -> None:
    event = decode_entry({"type": "market", "symbol": "A", "price": text})
    assert isinstance(event, MarketDataEvent)
    assert repr(event.price) == repr(float(text))


MARKET = {"type": "market", "symbol": "A"}
ORDER = {"type": "order", "symbol": "A", "order_id": "1", "direction": "BUY", "quantity": "1"}
BROKEN: list[dict[Any, Any]] = [
    {},
    {"type": "market"},
    {"symbol": "A"},
    {"type": "markets", "symbol": "A"},
    {"type": "MARKET_DATA", "symbol": "A"},
    {"type": "1", "symbol": "A"},
    {"type": "order", "symbol": "A"},
    MARKET | {"prize": "1"},
    MARKET | {"event_type": "1"},
    MARKET | {"topic": "x"},
    MARKET | {"_quick": "x"},
    MARKET | {"": ""},
    MARKET | {"symbol": ""},
    MARKET | {"symbol": "x" * 65},
    MARKET | {"symbol": "\ud800"},
    MARKET | {"symbol": 5},
    MARKET | {"symbol": None},
    {5: "x"} | MARKET,
    {b"type": b"market", b"symbol": b"\xff"},
    {b"type": b"market", b"\xff": b"A"},
    *(
        MARKET | {"price": text}
        for text in (
            "", " 1", "1 ", "1_0", "inf", "-inf", "Infinity", "1e400", "-1e400", "0x10", "\u0661",
            "one", "1,5", "1e", "--1",
            "9" * 400, "9" * 5_000, "nan(5)", "1\n",
        )
    ),
    *(
        MARKET | {"timestamp": text}
        for text in (
            "", "-1", "1.0", "1e3", "9223372036854775808", "9" * 20, "9" * 21, "9" * 5_000, "\u0663", "1_0", " 1",
            "nan", "0x1", "1\n",
        )
    ),
    MARKET | {"sequence": "-2"},
    MARKET | {"span": "0"},
    MARKET | {"flags": "65536"},
    MARKET | {"flags": "LAST_PART"},
    MARKET | {"flags": "32"},
    MARKET | {"kind": "TRADES"},
    MARKET | {"kind": ""},
    MARKET | {"kind": "TRADE"},
    MARKET | {"side": "UP"},
    MARKET | {"side": "__class__"},
    MARKET | {"priority": "4"},
    MARKET | {"event_id": "7"},
    MARKET | {"event_id": str(1 << 62)},
    *(MARKET | {"source": text} for text in ("", "/", "a/b/c/d/e", "a\n", "x" * 65, "/".join(["x" * 500] * 4))),
    ORDER | {"quantity": "nan"},
    ORDER | {"quantity": "0"},
    ORDER | {"quantity": "-1"},
    ORDER | {"direction": "NONE"},
    ORDER | {"order_id": ""},
    ORDER | {"order_id": "x" * 41},
    ORDER | {"order_id": "a\0"},
    ORDER | {"order_type": "ICEBERG"},
    {f"field{index}": "" for index in range(65)},
    {f"field{index}": "" for index in range(100_000)},
    MARKET | {"symbol": "x" * (1 << 20)},
    MARKET | {"x" * (1 << 20): "1"},
]  # fmt: skip


@pytest.mark.parametrize("fields", BROKEN, ids=lambda fields: repr(fields)[-50:])
def test_an_entry_that_is_no_event_is_a_codec_error(fields: Any) -> None:
    with pytest.raises(CodecError) as caught:
        decode_entry(fields)
    assert len(str(caught.value)) < 1_000


def test_a_hostile_number_costs_neither_time_nor_memory() -> None:
    fields = MARKET | {"price": "9" * 5_000_000, "timestamp": "9" * 5_000_000}
    tracemalloc.start()
    try:
        with pytest.raises(CodecError, match="up to"):
            decode_entry(fields)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


NAMES = sorted({name for cls in EVENT_CLASSES.values() for name in cls.__struct_fields__})
WORDS = st.sampled_from(
    ["BUY", "sell", "TRADE", "LIMIT", "1", "-1", "0", "1.5", "nan", "1e400", "a/b", "32", "KERNEL", ""]
)


@given(
    st.sampled_from([event_type.topic for event_type in EventType]),
    st.dictionaries(
        st.one_of(st.sampled_from(NAMES), st.text(max_size=5)), st.one_of(WORDS, st.text(max_size=30)), max_size=8
    ),
)
@example("market", {"symbol": "\ud800"})
def test_any_fields_are_an_event_or_a_codec_error(topic: str, fields: dict[str, str]) -> None:
    try:
        event = decode_entry({"symbol": "A", "type": topic} | fields)
    except CodecError:
        return
    assert identical(decode_entry(encode_entry(event)), event)


@given(st.dictionaries(st.binary(max_size=20), st.binary(max_size=20), max_size=6))
def test_any_bytes_are_an_event_or_a_codec_error(fields: dict[bytes, bytes]) -> None:
    try:
        decode_entry(fields)
        decode_entry({b"type": b"market", b"symbol": b"A"} | fields)
    except CodecError:
        return
