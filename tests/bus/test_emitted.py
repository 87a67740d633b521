"""The look at emitted rows, and the numbers of orders' ids: compiled and as plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.bus.kernels import emitted
from hftlab.bus.kernels.layout import BROKEN, NUMBERED, PREFIX_BYTES
from hftlab.errors import ValidationError
from hftlab.events import EventType, Kind, Side
from hftlab.events.records import MAX_LOG_SEQUENCE, Flags, Rows, blank
from hftlab.events.rules import check_records

SYMBOLS, SOURCES = 3, 2
NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), -float("inf"), 5e-324])
FIELDS: dict[str, Any] = {
    "symbol": st.integers(0, 4),
    "source": st.integers(0, 3),
    "priority": st.integers(0, 6),
    "clock": st.integers(0, 5),
    "timestamp": st.sampled_from([0, 1, -1, (1 << 63) - 1]),
    "received": st.sampled_from([0, -1]),
    "cause": st.sampled_from([0, -1, 1 << 62]),
    "sequence": st.sampled_from([-2, -1, 0, 4, (1 << 63) - 1, -(1 << 63)]),
    "span": st.sampled_from([0, 1, 2, 5, 6, (1 << 32) - 1]),
    "flags": st.sampled_from([0, int(Flags.HEARTBEAT), 0xFFFF]),
}
PAYLOADS: dict[EventType, dict[str, Any]] = {
    EventType.MARKET_DATA: {
        "kind": st.integers(0, 5),
        "side": st.sampled_from([-128, -2, -1, 0, 1, 2, 127]),
        **dict.fromkeys(("price", "volume", "bid", "ask", "bid_size", "ask_size"), NUMBERS),
    },
    EventType.ORDER: {
        "direction": st.sampled_from([-128, -2, -1, 0, 1, 2, 127]),
        "order_type": st.integers(0, 6),
        "order_id": st.sampled_from([b"", b"a"]),
        **dict.fromkeys(("price", "quantity"), NUMBERS),
    },
    EventType.FILL: {
        "order_id": st.sampled_from([b"", b"a"]),
        **dict.fromkeys(("executed_qty", "executed_price", "commission"), NUMBERS),
    },
    EventType.SIGNAL: {"strength": NUMBERS, "signal_type": st.sampled_from([b"", b"a"])},
}
BOTH = pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "python"])


def kernel(function: Any, compiled: bool) -> Any:
    return function if compiled else function.py_func


def sound(event_type: EventType) -> Rows:
    rows = blank(1, event_type)
    if event_type is EventType.ORDER:
        rows["direction"], rows["order_type"], rows["quantity"], rows["order_id"] = Side.BUY, 1, 1.0, b"o"
    elif event_type is EventType.FILL:
        rows["executed_qty"], rows["executed_price"], rows["commission"], rows["order_id"] = 1.0, 1.0, 0.0, b"o"
    elif event_type is EventType.SIGNAL:
        rows["strength"], rows["signal_type"] = 1.0, b"T"
    else:
        rows["price"], rows["volume"], rows["kind"] = 1.0, 1.0, Kind.TRADE
    return rows


@st.composite
def some_row(draw: st.DrawFn) -> tuple[EventType, Rows]:
    event_type = draw(st.sampled_from(EventType))
    rows = sound(event_type)
    fields = FIELDS | PAYLOADS[event_type]
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=3)):
        rows[name] = draw(fields[name])
    return event_type, rows


def fits(event_type: EventType, rows: Rows) -> bool:
    try:
        check_records(event_type, rows)
    except ValidationError:
        return False
    return bool(rows["symbol"][0] < SYMBOLS and rows["source"][0] < SOURCES)


@BOTH
@settings(max_examples=300, deadline=None)
@given(some_row())
def test_emitted_rows_are_judged_by_the_rules_of_events(compiled: bool, drawn: tuple[EventType, Rows]) -> None:
    event_type, rows = drawn
    marks = np.array([5], np.int64)
    judge = kernel(emitted.judge, compiled)
    broken = judge(int(rows.ctypes.data), int(marks.ctypes.data), 1, SYMBOLS, SOURCES)
    assert broken == (not fits(event_type, rows))
    assert marks.tolist() == [5 | BROKEN if broken else 5]


@BOTH
def test_a_row_of_no_type_is_broken_and_an_order_that_gets_a_number_needs_no_text(compiled: bool) -> None:
    judge = kernel(emitted.judge, compiled)
    for event_type, field, value, mark, broken in (
        (EventType.SIGNAL, "type", 9, 0, 1),
        (EventType.ORDER, "order_id", b"", 0, 1),
        (EventType.ORDER, "order_id", b"", NUMBERED, 0),
    ):
        rows, marks = sound(event_type), np.array([mark], np.int64)
        rows[field] = value
        assert judge(int(rows.ctypes.data), int(marks.ctypes.data), 1, SYMBOLS, SOURCES) == broken


@BOTH
@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text("aä一😀", max_size=13).filter(lambda text: len(text.encode()) <= PREFIX_BYTES),
            st.integers(0, MAX_LOG_SEQUENCE) | st.sampled_from([0, 9, 10, 99, 100, 10**12, MAX_LOG_SEQUENCE]),
            st.booleans(),
        ),
        max_size=5,
    )
)
def test_orders_get_their_emission_number_behind_the_prefix(compiled: bool, drawn: list[tuple[str, int, bool]]) -> None:
    rows = blank(len(drawn), EventType.ORDER)
    rows["order_id"] = [prefix.encode() for prefix, _, _ in drawn]
    rows["log_sequence"] = [number for _, number, _ in drawn]
    marks = np.array([NUMBERED | 3 if numbered else 3 for _, _, numbered in drawn], np.int64)
    kernel(emitted.number_orders, compiled)(int(rows.ctypes.data), int(marks.ctypes.data), len(rows))
    assert [order_id.decode() for order_id in rows["order_id"].tolist()] == [
        f"{prefix}{number}" if numbered else prefix for prefix, number, numbered in drawn
    ]


def test_all_kernels_are_compiled_ahead() -> None:
    assert emitted.warm() == 2
    before = len(emitted.judge.signatures), len(emitted.number_orders.signatures)
    test_a_row_of_no_type_is_broken_and_an_order_that_gets_a_number_needs_no_text(compiled=True)
    assert (len(emitted.judge.signatures), len(emitted.number_orders.signatures)) == before
