"""One emitted event on its way: who gets it, and what can be interrupted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hftlab.bus.chunk import Outcome
from hftlab.bus.coroutines import Coroutines
from hftlab.bus.failures import FailureLog
from hftlab.bus.signatures import make_subscription
from hftlab.bus.single import Single
from hftlab.bus.subscriptions import Subscription
from hftlab.events import EventBatch, SignalEvent

EVENT = SignalEvent(symbol="BTC", signal_type="s", strength=0.5)
ROWS = EventBatch.from_events([EVENT]).records


def single(*handlers: Subscription) -> tuple[Single, FailureLog]:
    failures = FailureLog()
    return Single(EVENT, ROWS, handlers, failures, Coroutines(), EVENT.event_id), failures


def test_everybody_gets_it_in_turn_whatever_the_others_do() -> None:
    seen: list[Any] = []

    def fails(event: SignalEvent) -> None:
        raise ValueError("wanted")

    def stops(event: SignalEvent) -> None:
        raise StopIteration

    unit, failures = single(
        make_subscription(seen.append, name="a"),
        make_subscription(fails, name="b"),
        make_subscription(stops, name="c"),
        make_subscription(lambda strength: EVENT, "signal", name="d"),
        make_subscription(seen.append, name="e"),
    )
    assert unit.advance() is Outcome.DONE
    assert seen == [EVENT, EVENT]
    assert [type(failure.error) for failure in failures] == [ValueError, StopIteration]
    assert [(subscription.name, result) for _, subscription, result in unit.emitted] == [("d", EVENT)]
    assert unit.advance() is Outcome.DONE
    assert len(seen) == 2


def test_a_predicate_is_asked_and_its_failure_kept() -> None:
    seen: list[Any] = []
    unit, failures = single(
        make_subscription(seen.append, name="no", where=lambda records: records["strength"] > 1),
        make_subscription(seen.append, name="yes", where=lambda records: records["strength"] < 1),
        make_subscription(seen.append, name="fails", where=lambda records: records["nothing"]),
        make_subscription(seen.append, name="garbage", where=lambda records: np.ones(2, bool)),
    )
    unit.advance()
    assert len(seen) == 1
    assert [failure.handler for failure in failures] == ["fails", "garbage"]


def test_an_interrupted_call_was_made_and_an_interrupted_predicate_was_not_asked() -> None:
    seen: list[str] = []
    interrupts = ["where", "call"]

    def where(records: Any) -> Any:
        if "where" in interrupts:
            interrupts.remove("where")
            raise KeyboardInterrupt
        return np.ones(1, bool)

    def handler(event: SignalEvent) -> None:
        seen.append("first")
        if "call" in interrupts:
            interrupts.remove("call")
            raise KeyboardInterrupt

    unit, _ = single(
        make_subscription(handler, name="first", where=where),
        make_subscription(lambda event: seen.append("second"), name="second"),
    )
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            unit.advance()
    assert unit.advance() is Outcome.DONE
    assert seen == ["first", "second"]
