"""One call of a batch handler."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hftlab.bus.chunk import Outcome
from hftlab.bus.compiled import CompiledHandler
from hftlab.bus.coroutines import Coroutines
from hftlab.bus.delivery import Delivery
from hftlab.bus.failures import FailureLog
from hftlab.bus.kernels.jit import make_loop
from hftlab.bus.queues import Due
from hftlab.bus.signatures import make_subscription
from hftlab.events import EventBatch, EventType, MarketDataEvent, SourceTable, SymbolTable
from hftlab.events.records import DTYPES, Rows
from tests.bus.samples import trades

SYMBOLS = SymbolTable(["A", "B"])


def delivery(handler: Any, **options: Any) -> tuple[Delivery, FailureLog]:
    failures = FailureLog()
    subscription = make_subscription(handler, "market", mode="batch", name="it", **options)
    rows = trades(6, symbols=("A", "B")).records
    due = Due(subscription, EventType.MARKET_DATA, rows, 0, 6)
    return Delivery(due, SYMBOLS, SourceTable(), 3, failures, Coroutines()), failures


def test_the_handler_gets_the_rows_that_it_wants() -> None:
    seen: list[list[float]] = []
    unit, _ = delivery(lambda batch: seen.append(batch.records["price"].tolist()), symbol="B")
    assert unit.advance() is Outcome.DONE
    assert seen == [[1, 3, 5]]
    assert (unit.subscription.calls, unit.subscription.delivered) == (1, 3)
    assert unit.id_at(0) == 3 << 40 | 5


def test_it_is_not_called_when_it_wants_none() -> None:
    seen: list[EventBatch] = []
    unit, _ = delivery(seen.append, where=lambda records: records["price"] > 10)
    assert unit.advance() is Outcome.DONE
    assert seen == []
    assert unit.subscription.calls == 0


def test_rows_that_its_predicate_fails_on_are_failures_by_themselves() -> None:
    def where(records: Rows) -> Any:
        if (records["price"] == 2).any():
            raise ValueError("wanted")
        return np.ones(len(records), bool)

    seen: list[list[float]] = []
    unit, failures = delivery(lambda batch: seen.append(batch.records["price"].tolist()), where=where)
    unit.advance()
    assert seen == [[0, 1, 3, 4, 5]]
    (failure,) = failures
    assert isinstance(failure.event, MarketDataEvent)
    assert failure.event.event_id == 3 << 40 | 2


def test_a_failure_keeps_a_copy_of_what_was_given() -> None:
    def fails(batch: EventBatch) -> None:
        raise ValueError("wanted")

    unit, failures = delivery(fails)
    unit.advance()
    unit.due.rows["price"] = 0
    (failure,) = failures
    assert isinstance(failure.event, EventBatch)
    assert failure.event.records["price"].tolist() == list(range(6))
    assert failure.lost == 6
    assert unit.advance() is Outcome.DONE
    assert failures.count == 1


def test_an_interrupted_call_is_not_repeated_and_an_interrupted_predicate_is() -> None:
    interrupts = ["where", "call"]
    seen: list[int] = []

    def where(records: Rows) -> Any:
        if "where" in interrupts:
            interrupts.remove("where")
            raise KeyboardInterrupt
        return np.ones(len(records), bool)

    def handler(batch: EventBatch) -> None:
        seen.append(len(batch))
        raise KeyboardInterrupt

    unit, _ = delivery(handler, where=where)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            unit.advance()
    assert unit.advance() is Outcome.DONE
    assert seen == [6]


def test_an_interrupted_run_of_a_compiled_handler_goes_on_where_it_was() -> None:
    def handler(record: Any, state: Any, emit: Any) -> None:
        state[0] += record.price
        for _ in range(200):
            emit.signal(record.price, "T")

    state, interrupts = np.zeros(1), [True]
    loop = make_loop(handler, EventType.MARKET_DATA, ("record", "state", "emit"))

    def interrupted(control: int, state: Any) -> None:
        loop(control, state)
        # As a signal that came meanwhile: it is noticed where the loop, ended by its full buffer, is back in Python.
        if interrupts:
            interrupts.pop()
            raise KeyboardInterrupt

    unit, failures = delivery(lambda batch: None)
    unit.subscription.compiled = CompiledHandler({EventType.MARKET_DATA: interrupted}, state, emits=True)
    with pytest.raises(KeyboardInterrupt):
        unit.advance()
    assert state[0] == 0 + 1 + 2 + 3
    for _ in range(2):
        assert unit.advance() is Outcome.DONE
    assert state[0] == 15
    ((_, _, emitted),) = unit.emitted
    assert emitted.rows.view(DTYPES[EventType.SIGNAL])["strength"].tolist() == np.repeat(range(6), 200).tolist()
    assert failures.count == 0
    assert (unit.subscription.calls, unit.subscription.delivered) == (6, 6)
