"""``emit`` and the loop round a handler: compiled and as plain Python on the same rows, to the bit."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hftlab.bus.compiled import EmittedRows, compile_handler, interpret
from hftlab.bus.kernels.layout import BUFFER_ROWS, MOST_EMISSIONS, NUMBERED, PREFIX_BYTES
from hftlab.errors import CascadeError, ValidationError
from hftlab.events import EventBatch, EventType, Kind, OrderType, Side, Source, SourceTable, SymbolTable
from hftlab.events.records import ORDER_ID_BYTES, SIGNAL_TYPE_BYTES, STRATEGY_ID_BYTES, blank

SYMBOLS, SOURCES = SymbolTable(["A", "B"]), SourceTable([Source("x")])
FULL_TYPE, FULL_STRATEGY, FULL_ORDER_ID = "é" * 12, "s" * 32, "o" * 38 + "ß"


def trades(prices: list[float]) -> EventBatch:
    rows = blank(len(prices), EventType.MARKET_DATA)
    index = np.arange(len(prices))
    rows["price"], rows["volume"], rows["kind"], rows["side"] = prices, 1.0 + index, Kind.TRADE, index % 2
    rows["symbol"], rows["source"] = index % 2, (index // 2) % 2
    rows["timestamp"] = rows["received"] = rows["log_sequence"] = 10 + index
    return EventBatch(rows, SYMBOLS, SOURCES, session_number=3)


def orders(order_ids: list[str]) -> EventBatch:
    rows = blank(len(order_ids), EventType.ORDER)
    rows["order_id"] = [order_id.encode() for order_id in order_ids]
    rows["quantity"], rows["direction"], rows["order_type"] = 2.0, Side.SELL, OrderType.LIMIT
    rows["price"] = np.arange(len(order_ids))
    return EventBatch(rows, SYMBOLS, SOURCES, session_number=3)


# -- handlers ---------------------------------------------------------------------------------------------------------


def everything(record: Any, state: Any, emit: Any) -> None:
    """Every method, with and without what may be left out; what it does depends on the row and on the state."""
    state[0] += record.price * record.volume
    state[1] += 1.0
    turn = int(state[1]) % 9
    if turn == 0:
        emit.signal(record.price, "WIDE")
    elif turn == 1:
        emitted = emit.signal(state[0], FULL_TYPE, strategy_id=FULL_STRATEGY)
        emitted.priority = 3
        emitted.timestamp = record.timestamp + 5
        emitted["symbol"] = 1 - record.symbol
    elif turn == 2:
        emit.order(Side.BUY, record.volume, prefix="päckchen-")
        emit.order("sell", 2, 3, "STOP_LIMIT")
        emit.order(1, 1.5, record.bid, order_type=OrderType.MARKET, order_id=FULL_ORDER_ID)
    elif turn == 3:
        emit.fill("mine", record.volume, record.price, commission=-0.25)
        emit.fill(order_id="yours", executed_qty=1, executed_price=2)
    elif turn == 4:
        emit.market()
        emit.market(record.price, 2.0, kind="trade", side=record.side)
        emit.market(bid=1.0, ask=2.0, bid_size=3.0, ask_size=4.0, kind=Kind.QUOTE)
    elif turn == 5:
        state[0] = float(state[0]) / record.price
    elif turn == 6 and record["price"] > 50:
        emit.signal(1.0, "ONE" if record.price > 80 else "EINS…" if record.price > 60 else "一😀")
        raise ValueError("wanted")


def floods(record: Any, state: Any, emit: Any) -> None:
    for number in range(int(record.price)):
        emit.signal(number, "FLOOD")
    if record.volume == 2.0:
        raise KeyError("wanted")


def breaks_rules(record: Any, state: Any, emit: Any) -> None:
    emit.order(Side.BUY, record.price)
    emitted = emit.signal(1.0, "GOOD")
    if record.price > 100:
        emitted.source = 9


def answers(record: Any, state: Any, emit: Any) -> None:
    emit.fill(record.order_id, record.quantity, record.price)
    emit.order("BUY", 1.0, order_id=record.order_id)


def structured(record: Any, state: Any, emit: Any) -> None:
    totals, last = state
    totals[record.symbol].volume += record.volume
    totals[record.symbol]["count"] += 1
    last[0] = record.price


def only_record(record: Any) -> None:
    if record.price == 2:
        raise ZeroDivisionError("wanted")


@cache
def compiled(handler: Callable[..., Any], event_type: EventType, state_length: int = 2) -> Any:
    return compile_handler(handler, frozenset({event_type}), np.zeros(state_length) if state_length else None)


Outcome = tuple[bytes, list[int], list[tuple[int, type, str]], bytes]


def outcome(emitted: EventBatch, failures: list[tuple[int, Exception]], state: Any) -> Any:
    # numba says "division by zero", Python "float division by zero".
    told = [(position, type(error), str(error).removeprefix("float ")) for position, error in failures]
    return emitted.records.tobytes(), told, state


def run_both(handler: Callable[..., Any], batch: EventBatch, start: float = 0.0) -> tuple[EventBatch, list[Any]]:
    """The compiled handler's outcome, after a look whether plain Python came to the same."""
    assert batch.type is not None
    plain_state = np.array([start, start])
    plain, plain_failures = interpret(handler, batch, plain_state)
    runner = compiled(handler, batch.type)
    runner.state[:] = start
    failures: list[tuple[int, Exception]] = []
    emitted: EmittedRows | None = runner.handle(batch, lambda position, error: failures.append((position, error)))
    rows = plain.records[:0] if emitted is None else emitted.rows
    if emitted is not None:
        rows["cause"] = emitted.causes
    assert outcome(EventBatch(rows, SYMBOLS, SOURCES), failures, runner.state.tobytes()) == outcome(
        plain, plain_failures, plain_state.tobytes()
    )
    return plain, failures


# -- compiled and plain -----------------------------------------------------------------------------------------------

PRICES = st.lists(st.floats(-100, 1_000) | st.sampled_from([0.0, 55.0, 70.0, 90.0]), max_size=60)


@settings(max_examples=60, deadline=None)
@given(PRICES, st.integers(0, 9))
@example([90.0] * 18, 0)
@example([55.0] * 18, 0)
@example([70.0] * 18, 0)
@example([0.0] * 18, 0)
def test_a_handler_does_the_same_compiled_and_as_plain_python(prices: list[float], start: int) -> None:
    run_both(everything, trades(prices), float(start))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 300) | st.sampled_from([255, 256, 257]), max_size=12))
@example([256] * 6)
@example([257, 0, 257])
def test_more_emissions_than_one_event_may_have_are_refused_and_told(counts: list[int]) -> None:
    emitted, failures = run_both(floods, trades([float(count) for count in counts]))
    assert len(emitted) == sum(min(count, MOST_EMISSIONS) for count in counts)
    cascades = [(position, str(error)) for position, error in failures if isinstance(error, CascadeError)]
    assert cascades == [
        (position, f"a jit handler may emit 256 events for one event; {count - MOST_EMISSIONS:,} more were refused")
        for position, count in enumerate(counts)
        if count > MOST_EMISSIONS
    ]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([1.0, 0.0, -1.0, float("nan"), float("inf"), 101.0]), max_size=12))
def test_what_breaks_a_rule_is_a_failure_of_its_event_and_the_rest_is_emitted(prices: list[float]) -> None:
    emitted, failures = run_both(breaks_rules, trades(prices))
    sound = [price for price in prices if 0 < price < float("inf")]
    assert emitted.counts().get(EventType.ORDER, 0) == len(sound)
    assert emitted.counts().get(EventType.SIGNAL, 0) == sum(not price > 100 for price in prices)
    expected = []
    for position, price in enumerate(prices):
        if not 0 < price < float("inf"):
            expected.append(
                (position, f"an emitted order event breaks a rule: quantity is a finite number above 0; got {price}")
            )
        if price > 100:
            expected.append((position, "symbol and source of an emitted record are ids"))
    assert len(failures) == len(expected)
    for (position, error), (wanted, text) in zip(failures, expected, strict=True):
        assert position == wanted
        assert isinstance(error, ValidationError)
        assert text in str(error)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("aä一😀", min_size=1, max_size=10), max_size=8))
def test_a_fill_takes_the_id_of_the_order_that_is_being_handled(order_ids: list[str]) -> None:
    emitted, failures = run_both(answers, orders(order_ids))
    assert not failures
    assert emitted.only(EventType.FILL).column("order_id") == order_ids


def test_fields_not_given_have_the_defaults_of_events() -> None:
    emitted, _ = run_both(everything, trades([1.0] * 10))
    order, typed, named = list(emitted.only(EventType.ORDER))
    assert (order.order_type, typed.order_type, named.order_type) == (  # type: ignore[attr-defined]
        OrderType.MARKET, OrderType.STOP_LIMIT, OrderType.MARKET,
    )  # fmt: skip
    assert (typed.direction, named.order_id) == (Side.SELL, FULL_ORDER_ID)  # type: ignore[attr-defined]
    blank_tick = next(iter(emitted.only(EventType.MARKET_DATA)))
    assert blank_tick.price != blank_tick.price  # type: ignore[attr-defined]
    fill, other = list(emitted.only(EventType.FILL))
    assert (fill.commission, other.commission) == (-0.25, 0.0)  # type: ignore[attr-defined]
    full, plain, _ = emitted.only(EventType.SIGNAL)
    assert (plain.strategy_id, full.strategy_id) == ("", FULL_STRATEGY)  # type: ignore[attr-defined]
    assert full.signal_type == FULL_TYPE  # type: ignore[attr-defined]


def test_an_order_with_a_price_and_no_type_is_a_limit_order() -> None:
    def orders_at(record: Any, state: Any, emit: Any) -> None:
        emit.order(1, 1.0, record.price)

    emitted, _ = run_both(orders_at, trades([5.0]))
    assert emitted.only(EventType.ORDER).column("order_type") == [OrderType.LIMIT]


def test_symbol_source_and_cause_are_those_of_the_event_that_is_handled() -> None:
    emitted, _ = run_both(breaks_rules, trades([1.0, 2.0, 3.0, 4.0]))
    assert emitted.records["symbol"].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert emitted.records["source"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert emitted.records["cause"].tolist() == [3 << 40 | log for log in (10, 10, 11, 11, 12, 12, 13, 13)]


# -- state ------------------------------------------------------------------------------------------------------------


def test_state_may_be_a_tuple_of_arrays_structured_or_not() -> None:
    states = [
        (np.zeros(2, [("volume", "f8"), ("count", "i4")]), np.zeros(1, np.float32)) for _ in range(2)
    ]  # fmt: skip
    batch = trades([1.0, 2.0, 3.0])
    assert interpret(structured, batch, states[0])[1] == []
    assert compile_handler(structured, frozenset({EventType.MARKET_DATA}), states[1]).handle(batch, unexpected) is None
    for totals, last in states:
        assert totals.tolist() == [(4.0, 2), (2.0, 1)]
        assert last.tolist() == [3.0]


class Book(NamedTuple):
    bids: np.ndarray[Any, Any]
    asks: np.ndarray[Any, Any]


def named(record: Any, state: Any) -> None:
    state.bids[0] += record.price
    state.asks[0] -= record.price


def test_state_may_be_a_named_tuple_of_arrays() -> None:
    books = [Book(np.zeros(1), np.zeros(1)) for _ in range(2)]
    assert interpret(named, trades([1.0, 2.0]), books[0])[1] == []
    compile_handler(named, frozenset({EventType.MARKET_DATA}), books[1]).handle(trades([1.0, 2.0]), unexpected)
    assert [(book.bids[0], book.asks[0]) for book in books] == [(3.0, -3.0)] * 2


def unexpected(position: int, error: Exception) -> None:
    raise error


def test_a_handler_may_do_without_state_and_emit() -> None:
    failures: list[tuple[int, Exception]] = []
    batch = trades([1.0, 2.0, 3.0])
    assert interpret(only_record, batch)[1][0][0] == 1
    compiled(only_record, EventType.MARKET_DATA, 0).handle(batch, lambda *failure: failures.append(failure))
    assert [(position, type(error)) for position, error in failures] == [(1, ZeroDivisionError)]


def test_a_function_that_numba_compiled_already_is_taken_as_it_is() -> None:
    @numba.njit
    def sums(record: Any, state: Any) -> None:
        state[0] += record.price

    state = np.zeros(1)
    compile_handler(sums, frozenset({EventType.MARKET_DATA}), state).handle(trades([1.0, 2.0]), unexpected)
    assert state[0] == 3
    interpret(sums, trades([1.0, 2.0]), state)
    assert state[0] == 6


# -- what is refused when a handler is compiled -----------------------------------------------------------------------


def signals(text: str, strategy: str = "") -> Callable[..., None]:
    namespace: dict[str, Any] = {}
    exec(f"def handler(record, emit):\n    emit.signal(1.0, {text!r}, {strategy!r})\n", namespace)
    made: Callable[..., None] = namespace["handler"]
    return made


def writes(record: Any) -> None:
    record.price = 1.0


def writes_an_item(record: Any) -> None:
    record["price"] = 1.0


def misspells(record: Any) -> None:
    if record.pirce > 1:
        raise ValueError


def misspells_an_item(record: Any) -> None:
    if record["pirce"] > 1:
        raise ValueError


def returns(record: Any) -> Any:
    return record.price


def long_id(record: Any, emit: Any) -> None:
    emit.order(1, 1.0, order_id="x" * 1 + "0123456789012345678901234567890123456789")


def long_prefix(record: Any, emit: Any) -> None:
    emit.order(1, 1.0, prefix="0123456789012345678901234567")


def two_ids(record: Any, emit: Any) -> None:
    emit.order(1, 1.0, prefix="a", order_id="b")


def no_side(record: Any, emit: Any) -> None:
    emit.order("UP", 1.0)


def no_text(record: Any, emit: Any) -> None:
    emit.signal(1.0, 1.0)


def no_number(record: Any, emit: Any) -> None:
    emit.signal("a", "T")


def no_method(record: Any, emit: Any) -> None:
    emit.sigal(1.0, "T")


def not_compilable(record: Any) -> None:
    import os

    os.getpid()


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (signals("x" * 25), "signal_type is text of up to 24 bytes of UTF-8 without NUL; got 25 bytes"),
        (signals("ä" * 12 + "x"), "signal_type is text of up to 24 bytes of UTF-8 without NUL; got 25 bytes"),
        (signals("x\0y"), "signal_type is text of up to 24 bytes of UTF-8 without NUL; got 3 bytes"),
        (signals("x", "y" * 33), "strategy_id is text of up to 32 bytes of UTF-8 without NUL; got 33 bytes"),
        (long_id, "order_id is text of up to 40 bytes of UTF-8 without NUL; got 41 bytes"),
        (long_prefix, f"prefix is text of up to {PREFIX_BYTES} bytes of UTF-8 without NUL; got 28 bytes"),
        (two_ids, "an order has a prefix, which gets a number, or a whole order_id; give one of them"),
        (no_side, "direction is one of SELL, NONE, BUY; got 'UP'"),
        (no_text, "signal_type is text of up to 24 bytes: a literal, or a text field of the record; got float64"),
        (no_number, "strength is a number; got "),
        (writes, "a handler's record can be read and not written"),
        (writes_an_item, "a handler's record can be read and not written"),
        (misspells, "market records have no field 'pirce'; they have timestamp, "),
        (misspells_an_item, "'pirce'"),
        (returns, "a jit handler returns nothing, it emits with emit.signal"),
        (no_method, "emit has the methods signal, order, fill and market"),
        (not_compilable, "not_compilable can't be compiled for market events"),
    ],
    ids=lambda given: None if isinstance(given, str) else given.__name__,
)
def test_what_cant_be_compiled_is_refused_with_the_rule(handler: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)) as caught:
        compile_handler(handler, frozenset({EventType.MARKET_DATA}), None)
    assert len(str(caught.value)) < 2_000


async def asynchronous(record: Any) -> None: ...


@pytest.mark.parametrize(
    ("handler", "state", "message"),
    [
        (lambda record, state, emit: None, None, "has a parameter called state exactly where state= is given"),
        (lambda record, emit: None, np.zeros(1), "has a parameter called state exactly where state= is given"),
        (lambda event: None, None, r"a jit handler's parameters are \(record, state, emit\).*got \(event\)"),
        (lambda emit, record: None, None, "parameters are"),
        (lambda record, *, emit: None, None, "parameters are"),
        (asynchronous, None, "a jit handler is a plain function"),
        (print, None, "a jit handler is a plain function"),
        (lambda record, state: None, [1.0], "state= is a NumPy array"),
        (lambda record, state: None, (np.zeros(1), 2.0), "state= is a NumPy array"),
        (lambda record, state: None, np.array([object()]), "state= is a NumPy array.*without Python objects"),
    ],
)
def test_parameters_and_states_that_a_jit_handler_cant_have_are_refused(handler: Any, state: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        compile_handler(handler, frozenset({EventType.MARKET_DATA}), state)


def test_plain_python_refuses_what_compiling_would() -> None:
    for handler, message in ((writes, "read and not written"), (misspells, "a record has the fields timestamp")):
        _, failures = interpret(handler, trades([1.0]))
        assert message in str(failures[0][1])
    _, failures = interpret(signals("x" * 25), trades([1.0]))
    assert "signal_type is text of up to 24 bytes" in str(failures[0][1])
    with pytest.raises(ValidationError, match="a batch of one type"):
        interpret(only_record, EventBatch.from_events([*trades([1.0]), *orders(["a"])]))


def test_a_text_too_long_is_the_failure_of_its_event_where_it_is_known_only_then() -> None:
    def chooses(record: Any, state: Any, emit: Any) -> None:
        emit.signal(1.0, "SHORT" if record.price < 2 else "MUCH TOO LONG TO BE A SIGNAL TYPE")

    failures: list[tuple[int, Exception]] = []
    runner = compile_handler(chooses, frozenset({EventType.MARKET_DATA}), np.zeros(1))
    emitted = runner.handle(trades([1.0, 3.0, 1.0]), lambda *failure: failures.append(failure))
    assert emitted is not None
    assert [position for position, _ in failures] == [1]
    assert len(emitted.rows) == 2
    assert "more bytes of UTF-8 than its field holds" in str(failures[0][1])


def test_the_buffer_is_emptied_as_often_as_it_fills() -> None:
    emitted, failures = run_both(floods, trades([200.0] * 20))
    assert len(emitted) == 4_000 > 3 * BUFFER_ROWS
    assert emitted.records["cause"].tolist() == [3 << 40 | 10 + row for row in range(20) for _ in range(200)]
    assert emitted.only(EventType.SIGNAL).column("strength") == [float(n) for _ in range(20) for n in range(200)]
    assert len(failures) == 1  # volume 2.0


def test_orders_that_get_a_number_are_marked() -> None:
    runner = compiled(everything, EventType.MARKET_DATA)
    runner.state[:] = 0
    emitted = runner.handle(trades([1.0] * 2), unexpected)
    assert emitted is not None
    assert (emitted.marks & NUMBERED != 0).tolist() == [False, True, True, False]


def test_the_widths_that_are_tested_are_the_fields() -> None:
    assert (len(FULL_TYPE.encode()), len(FULL_STRATEGY.encode()), len(FULL_ORDER_ID.encode())) == (
        SIGNAL_TYPE_BYTES, STRATEGY_ID_BYTES, ORDER_ID_BYTES,
    )  # fmt: skip
