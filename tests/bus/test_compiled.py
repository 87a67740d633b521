"""Handlers of mode "jit" on a bus: what they are given, what becomes of what they emit, and of what they do wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.bus import EventBus, Subscription, emission
from hftlab.bus.kernels.layout import MOST_EMISSIONS
from hftlab.clock import VirtualClock
from hftlab.errors import CascadeError, HandlerFailed, ValidationError
from hftlab.events import (
    Event,
    EventBatch,
    EventType,
    FillEvent,
    MarketDataEvent,
    OrderEvent,
    Side,
)
from hftlab.events.records import RUN_BIT, Flags
from hftlab.sequence import Gap
from tests.bus.samples import START_NS, trades, work_off


@pytest.fixture
def bus() -> EventBus:
    return EventBus(capacity=8_192, clock=VirtualClock(START_NS))


def collect(bus: EventBus, *what: str) -> list[Any]:
    seen: list[Any] = []
    bus.subscribe(seen.append, *what, name=f"collects {what}")
    return seen


def sums(record: Any, state: Any) -> None:
    state[0] += record.price
    state[1] += 1.0


def signals(record: Any, emit: Any) -> None:
    emit.signal(record.price, "TRADE", "s")


def orders(record: Any, emit: Any) -> None:
    emit.order(1, 1.0, prefix="x")


# -- what it is given -------------------------------------------------------------------------------------------------


def test_the_page_of_the_design_works(bus: EventBus) -> None:
    state = np.zeros(2)

    @bus.on(MarketDataEvent, mode="jit", state=state)
    def imbalance(record: Any, state: Any, emit: Any) -> None:
        state[0] += record.volume
        state[1] = 0.5 * state[1] + 0.5 * record.price
        if record.price > 7:
            emit.signal(state[1], "HIGH", strategy_id="imbalance")
            emit.order(Side.SELL, 1.0, record.price, prefix="imb-")

    seen = collect(bus, "signal", "order")
    bus.offer(trades(10, session_number=3))
    work_off(bus)
    assert state.tolist() == [10.0, sum(price * 0.5 ** (10 - price) for price in range(10))]
    seen.sort(key=lambda event: event.event_id)  # orders go before signals
    assert [event.event_type for event in seen] == [EventType.SIGNAL, EventType.ORDER] * 2
    assert [event.cause for event in seen] == [3 << 40 | 8, 3 << 40 | 8, 3 << 40 | 9, 3 << 40 | 9]
    assert [event.event_id for event in seen] == [RUN_BIT | number for number in range(4)]
    assert [event.order_id for event in seen if isinstance(event, OrderEvent)] == ["imb-1", "imb-3"]
    assert all(event.flags == Flags.LAST_PART | Flags.EMITTED and event.symbol == "BTC" for event in seen)
    assert all((event.timestamp, event.received) == (START_NS, START_NS) for event in seen)
    assert bus.failures.count == 0


def test_the_counts_are_of_events(bus: EventBus) -> None:
    made = bus.subscribe(signals, "market", mode="jit", batch_rows=10)
    bus.offer(trades(25))
    work_off(bus)
    assert (made.calls, made.delivered, made.emitted, made.failed) == (25, 25, 25, 0)
    assert bus.statistics().emitted == 25


@pytest.mark.parametrize("slices", [1, 7, 1 << 30])
def test_it_is_called_at_boundaries_that_the_data_sets(bus: EventBus, slices: int) -> None:
    seen: list[Any] = []
    bus.subscribe(lambda price: seen.append(price), "market", name="prices")
    bus.subscribe(lambda event: seen.append("signal"), "signal", name="signals")
    bus.subscribe(signals, "market", mode="jit", batch_rows=4)
    run = bus.begin_run("a run", VirtualClock())
    for first in range(0, 12, 3):
        run.offer(trades(3, first=first))
        while not run.work(slices, 0).idle:
            pass
    run.finish()
    while not run.work(slices, 0).idle:
        pass
    expected: list[Any] = []
    for first in range(0, 12, 4):
        expected += [*range(first, first + 4), *["signal"] * 4]
    assert seen == expected


def test_symbol_topic_and_condition_choose_its_events(bus: EventBus) -> None:
    states = {name: np.zeros(2) for name in ("symbol", "topic", "where")}
    bus.subscribe(sums, "market", mode="jit", symbol="B", name="symbol", state=states["symbol"])
    bus.subscribe(sums, "market.*C", mode="jit", name="topic", state=states["topic"])
    bus.subscribe(
        sums, "market", mode="jit", where=lambda rows: rows["price"] > 6, name="where", state=states["where"]
    )  # fmt: skip
    bus.offer(trades(9, symbols=("A", "B", "BC")))
    work_off(bus)
    assert {name: state.tolist() for name, state in states.items()} == {
        "symbol": [12.0, 3.0], "topic": [15.0, 3.0], "where": [15.0, 2.0],
    }  # fmt: skip


def test_one_subscription_may_have_several_types_a_loop_each(bus: EventBus) -> None:
    def counts(record: Any, state: Any, emit: Any) -> None:
        state[record.type] += 1
        emit.market(record.received - record.timestamp, kind=0)

    state = np.zeros(5, np.int64)
    bus.subscribe(counts, OrderEvent, FillEvent, mode="jit", state=state)
    seen = collect(bus, "market")
    events: list[Event] = [
        OrderEvent(symbol="A", order_id="1", direction=Side.BUY, quantity=1, timestamp=1, received=4),
        FillEvent(symbol="B", order_id="1", executed_qty=1, executed_price=1, timestamp=1, received=6),
        OrderEvent(symbol="A", order_id="2", direction=Side.BUY, quantity=1, timestamp=1, received=8),
    ]
    bus.offer(EventBatch.from_events(events))
    work_off(bus)
    assert state.tolist() == [0, 0, 2, 1, 0]
    assert [(event.symbol, event.price) for event in seen] == [("A", 3.0), ("A", 7.0), ("B", 5.0)]


def test_a_field_that_one_of_its_types_lacks_is_refused(bus: EventBus) -> None:
    with pytest.raises(ValidationError, match="order records have no field 'volume'"):
        bus.subscribe(lambda record, state: state.fill(record.volume), MarketDataEvent, OrderEvent, mode="jit",
                      state=np.zeros(1))  # fmt: skip
    assert bus.subscriptions == ()


# -- what it emits ----------------------------------------------------------------------------------------------------


def test_emissions_may_lead_to_further_compiled_handlers(bus: EventBus) -> None:
    def fills(record: Any, emit: Any) -> None:
        emit.fill(record.order_id, record.quantity, record.price)

    def buys(record: Any, emit: Any) -> None:
        emit.order("BUY", record.volume, record.price, prefix="päckchen-")

    bus.subscribe(buys, "market", mode="jit")
    bus.subscribe(fills, "order", mode="jit")
    seen = collect(bus, "fill")
    bus.offer(trades(3, session_number=1))
    work_off(bus)
    assert [(fill.order_id, fill.executed_price) for fill in seen] == [(f"päckchen-{n}", float(n)) for n in range(3)]
    assert [fill.cause for fill in seen] == [RUN_BIT | n for n in range(3)]


def test_order_ids_go_on_over_batches_handlers_and_rerun_cells(bus: EventBus) -> None:
    seen = collect(bus, "order")
    for name in ("one", "other", "one"):
        bus.subscribe(orders, "market", mode="jit", name=name)
        bus.offer(trades(3))
        work_off(bus)
    ids = [order.order_id for order in seen]
    assert len(set(ids)) == len(ids) == 3 + 6 + 6


def test_a_run_numbers_its_orders_from_the_beginning(bus: EventBus) -> None:
    seen = collect(bus, "order")
    bus.subscribe(orders, "market", mode="jit")
    for _ in range(2):
        run = bus.begin_run("a run", VirtualClock())
        run.offer(trades(2))
        run.finish()
        while not run.work(100, 0).idle:
            pass
        run.end()
    assert [order.order_id for order in seen] == ["x0", "x1", "x0", "x1"]
    bus.offer(trades(1))
    work_off(bus)
    bus.offer(trades(1, first=1))
    work_off(bus)
    assert [order.order_id for order in seen[4:]] == ["x0", "x1"]


def test_what_an_emission_brings_itself_is_kept(bus: EventBus) -> None:
    def brings(record: Any, emit: Any) -> None:
        emitted = emit.signal(1.0, "T")
        emitted.timestamp = 5
        emitted.received = 6
        emitted.cause = 7
        emitted.symbol = 1

    seen = collect(bus, "signal")
    bus.subscribe(brings, "market", mode="jit", symbol="A")
    bus.offer(trades(2, symbols=("A", "B"), session_number=3))
    work_off(bus)
    (event,) = seen
    assert (event.timestamp, event.received, event.cause, event.symbol) == (5, 6, 7, "B")


def test_a_batch_may_lead_to_no_more_than_the_bus_allows(bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emission, "CASCADE_LIMIT", 10)
    seen = collect(bus, "signal")
    made = bus.subscribe(signals, "market", mode="jit", batch_rows=8)
    answers = bus.subscribe(lambda batch: list(batch), "signal", mode="batch", batch_rows=8, name="answers")
    bus.offer(trades(24))
    work_off(bus)
    assert made.emitted == 24
    assert len(seen) == made.emitted + answers.emitted
    assert bus.statistics().emissions_refused > 0
    with pytest.raises(HandlerFailed, match="one event may lead to 10 others"):
        bus.raise_failures()


def test_more_than_the_bus_allows_at_once_is_cut_off(bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emission, "CASCADE_LIMIT", 10)
    seen = collect(bus, "signal")
    made = bus.subscribe(signals, "market", mode="jit")
    bus.offer(trades(25))
    work_off(bus)
    assert [event.strength for event in seen] == list(range(10))
    assert (made.emitted, made.failed, bus.statistics().emissions_refused) == (10, 1, 15)


def alternates(record: Any, emit: Any) -> None:
    emit.signal(record.price, "T")
    emit.order("BUY", record.price + 1.0, prefix="x")


def test_types_that_alternate_keep_the_order_of_their_emission_in_a_run(bus: EventBus) -> None:
    bus.subscribe(alternates, "market", mode="jit")
    seen = collect(bus, "signal", "order")
    run = bus.begin_run("a run", VirtualClock())
    run.offer(trades(20))
    run.finish()
    while not run.work(100, 0).idle:
        pass
    assert [event.event_id for event in seen] == [RUN_BIT | number for number in range(40)]
    assert [event.event_type for event in seen] == [EventType.SIGNAL, EventType.ORDER] * 20


def test_live_each_type_keeps_the_order_of_its_emission(bus: EventBus) -> None:
    bus.subscribe(alternates, "market", mode="jit")
    strengths: list[float] = []
    bus.subscribe(lambda strength: strengths.append(strength), "signal", name="strengths")
    sizes: list[int] = []
    bus.subscribe(lambda batch: sizes.append(len(batch)), "signal", mode="batch", batch_rows=30, name="batches")
    orders_seen = collect(bus, "order")
    bus.offer(trades(2_000))
    work_off(bus)
    assert strengths == list(range(2_000))
    assert [order.quantity for order in orders_seen] == list(range(1, 2_001))
    assert (sum(sizes), max(sizes)) == (2_000, 30)
    assert bus.statistics().emitted == 4_000


# -- what it does wrong -----------------------------------------------------------------------------------------------


def test_an_exception_costs_the_one_event_that_it_was_raised_on(bus: EventBus) -> None:
    def fails(record: Any, state: Any, emit: Any) -> None:
        emit.signal(record.price, "BEFORE")
        if record.price % 3 == 1:
            raise ValueError("wanted")
        state[0] += 1

    state = np.zeros(1)
    made = bus.subscribe(fails, "market", mode="jit", state=state)
    seen = collect(bus, "signal")
    bus.offer(trades(10, session_number=3))
    work_off(bus)
    assert [(failure.event.event_id, failure.lost, str(failure.error)) for failure in bus.failures] == [  # type: ignore[union-attr]
        (3 << 40 | price, 1, "wanted") for price in (1, 4, 7)
    ]
    assert (state[0], made.failed, made.delivered, len(seen)) == (7, 3, 10, 10)
    with pytest.raises(HandlerFailed, match="ValueError: wanted"):
        bus.raise_failures()


def test_too_many_emissions_for_one_event_are_its_failure_and_counted(bus: EventBus) -> None:
    def floods(record: Any, emit: Any) -> None:
        for number in range(int(record.price)):
            emit.signal(float(number), "FLOOD")

    seen = collect(bus, "signal")
    made = bus.subscribe(floods, "market", mode="jit")
    bus.offer(trades(4, first=MOST_EMISSIONS - 1))
    work_off(bus)
    assert len(seen) == MOST_EMISSIONS - 1 + 3 * MOST_EMISSIONS == made.emitted
    assert [(type(failure.error), failure.event.price) for failure in bus.failures] == [  # type: ignore[union-attr]
        (CascadeError, 257.0), (CascadeError, 258.0),
    ]  # fmt: skip
    assert bus.statistics().emissions_refused == 3


def test_what_it_emits_is_held_to_the_rules_of_events(bus: EventBus) -> None:
    def buys(record: Any, emit: Any) -> None:
        emit.order("BUY", record.price)

    seen = collect(bus, "order")
    made = bus.subscribe(buys, "market", mode="jit")
    bus.offer(trades(3))
    work_off(bus)
    assert ([order.quantity for order in seen], made.emitted, made.failed) == ([1.0, 2.0], 2, 1)
    with pytest.raises(HandlerFailed, match="an emitted order event breaks a rule: quantity is a finite number above"):
        bus.raise_failures()


def test_rows_that_its_condition_fails_on_are_failures_by_themselves(bus: EventBus) -> None:
    def where(rows: Any) -> Any:
        if (rows["price"] == 2).any():
            raise ValueError("wanted")
        return np.ones(len(rows), bool)

    state = np.zeros(2)
    bus.subscribe(sums, "market", mode="jit", state=state, where=where)
    bus.offer(trades(5))
    work_off(bus)
    assert (state.tolist(), bus.failures.count) == ([8.0, 4.0], 1)


# -- subscribing ------------------------------------------------------------------------------------------------------


def test_running_the_cell_again_replaces_the_handler_and_its_state(bus: EventBus) -> None:
    def cell() -> tuple[np.ndarray[Any, Any], Subscription]:
        state = np.zeros(2)

        @bus.on(MarketDataEvent, mode="jit", state=state)
        def totals(record: Any, state: Any) -> None:
            state[0] += record.price

        return state, bus.subscriptions[-1]

    before, first = cell()
    bus.offer(trades(3))
    work_off(bus)
    after, second = cell()
    bus.offer(trades(3, first=10))
    work_off(bus)
    assert (before[0], after[0]) == (3.0, 33.0)
    assert first.name == second.name
    assert bus.subscriptions == (second,)


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ((MarketDataEvent,), {"mode": "batch", "state": np.zeros(1)}, 'state= is for handlers of mode="jit"'),
        ((MarketDataEvent,), {"state": np.zeros(1)}, 'state= is for handlers of mode="jit"'),
        ((Gap,), {"mode": "jit"}, "no other mode"),
        ((Gap,), {"state": np.zeros(1)}, "nor a state"),
        ((MarketDataEvent,), {"mode": "jit"}, "parameters are"),
        ((MarketDataEvent,), {"mode": "jit", "batch_rows": 0}, "batch_rows is 1 to"),
        ((MarketDataEvent,), {"mode": "compiled"}, "mode is 'event', 'fields', 'batch' or 'jit'"),
    ],
)
def test_what_a_jit_handler_cant_have_is_refused(
    bus: EventBus, what: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        bus.subscribe(lambda given: None, *what, **options)
    assert bus.subscriptions == ()


def test_a_batch_larger_than_half_a_queue_is_refused() -> None:
    bus = EventBus(capacity=1_024)
    with pytest.raises(ValidationError, match="batch_rows is at most half of the queue's capacity"):
        bus.subscribe(signals, "market", mode="jit", batch_rows=1_024)


def test_it_is_shown_as_what_it_is(bus: EventBus) -> None:
    made = bus.subscribe(signals, "market", mode="jit", name="mine")
    assert repr(made) == "Subscription(mine: market.*; jit)"
    assert repr(made.compiled) == "CompiledHandler(market)"
    assert "<td>jit</td>" in bus._repr_html_()


# -- whatever the slicing ---------------------------------------------------------------------------------------------


def strategy(record: Any, state: Any, emit: Any) -> None:
    state[0] = 0.9 * state[0] + record.price
    if record.volume == 1.0 and int(record.price) % 5 == 0:
        raise ValueError("wanted")
    if int(state[0]) % 3 == 0:
        emit.order("BUY", state[0] + 1.0, record.price, prefix="s-")
        emit.signal(state[0], "BUY" if state[0] > 20 else "HOLD")


_bus_with_strategy: list[tuple[Any, Callable[..., Any]]] = []


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 7), st.booleans())
def test_slices_and_the_cut_of_what_is_published_change_nothing(cuts: list[int], slices: int, stepped: bool) -> None:
    def result(pieces: list[int], max_rows: int, max_ns: int) -> Any:
        bus = EventBus(capacity=1_024, clock=VirtualClock(START_NS))
        state = np.zeros(1)
        if not _bus_with_strategy:
            made = bus.subscribe(strategy, "market", mode="jit", batch_rows=5, state=state, name="s")
            _bus_with_strategy.append((made.compiled, strategy))
        else:  # compiled once for all examples
            made = bus.subscribe(lambda batch: None, "market", mode="batch", batch_rows=5, name="s")
            made.mode, made.compiled = "jit", _bus_with_strategy[0][0]
        assert made.compiled is not None
        made.compiled.state = state
        seen = collect(bus)
        run = bus.begin_run("a run", VirtualClock())
        first = 0
        for count in pieces:
            run.offer(trades(count, first=first, session_number=2))
            first += count
            while not run.work(max_rows, max_ns).idle:
                pass
        run.finish()
        while not run.work(max_rows, max_ns).idle:
            pass
        return seen, state.tobytes(), [str(failure) for failure in bus.failures], (made.emitted, made.failed)

    assert result(cuts, slices, 0 if stepped else 1 << 62) == result([sum(cuts)], 1 << 30, 1 << 62)
