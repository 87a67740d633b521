"""Plans: rows that can't be read cost their own call and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hftlab.bus.backlog import Part
from hftlab.bus.plan import Plan, event_id_at, event_or_row
from hftlab.bus.routing import Routes
from hftlab.bus.signatures import make_subscription
from hftlab.bus.subscriptions import Subscription
from hftlab.events import EventBatch, EventType, MarketDataEvent, SourceTable, SymbolTable
from hftlab.events.records import RUN_BIT, Flags, Rows, blank

SYMBOLS, SOURCES = SymbolTable(["A", "B"]), SourceTable()
MARKET, SIGNAL = EventType.MARKET_DATA, EventType.SIGNAL


def rows_of(event_type: EventType, count: int, first: int = 0) -> Rows:
    rows = blank(count, event_type)
    rows["log_sequence"] = np.arange(first, first + count)
    if event_type is SIGNAL:
        rows["signal_type"] = "s"
    return rows


def plan(parts: list[Part], *handlers: Subscription) -> Plan:
    routes = {
        event_type: Routes([one for one in handlers if event_type in one.types])
        for event_type in EventType
        if any(event_type in one.types for one in handlers)
    }
    return Plan(parts, routes, SYMBOLS, SOURCES)


def noting(seen: list[Any], name: str) -> Callable[[Any], None]:
    return lambda event: seen.append((name, event.event_id & 0xFFFF))


@pytest.mark.parametrize("bad_type", [b"\xff\xfe"])
def test_a_row_that_can_not_be_read_is_refused_by_itself(bad_type: bytes) -> None:
    seen: list[Any] = []
    rows = rows_of(SIGNAL, 5)
    rows["signal_type"][2] = bad_type
    one = make_subscription(noting(seen, "one"), SIGNAL, name="one")
    made = plan([Part(SIGNAL, rows, None, 1)], one)
    list(made.results)
    assert seen == [("one", number) for number in (0, 1, 3, 4)]
    assert made.count == 4
    assert made.places is not None
    assert made.places.tolist() == [0, 1, 3, 4]
    assert [(refusal.position, refusal.subscription) for refusal in made.refusals] == [(2, one)]


def test_only_those_who_need_what_can_not_be_read_go_without() -> None:
    seen: list[Any] = []
    signals = rows_of(SIGNAL, 4)
    signals["signal_type"][1] = b"\xff"
    positions = np.array([0, 2, 4, 6])
    whole = make_subscription(noting(seen, "event"), name="event")
    part = make_subscription(lambda strength, log_sequence: seen.append(("part", log_sequence)), SIGNAL, name="part")
    text = make_subscription(lambda signal_type, log_sequence: seen.append(("text", log_sequence)), SIGNAL, name="text")
    parts = [
        Part(MARKET, rows_of(MARKET, 3, first=10), np.array([1, 3, 5]), 1),
        Part(SIGNAL, signals, positions, 1),
    ]
    made = plan(parts, whole, part, text)
    list(made.results)
    assert [call for call in seen if call[0] == "part"] == [("part", number) for number in range(4)]
    assert [call for call in seen if call[0] == "text"] == [("text", number) for number in (0, 2, 3)]
    assert [call for call in seen if call[0] == "event"] == [("event", n) for n in (0, 10, 11, 2, 12, 3)]
    assert sorted((refusal.position, refusal.subscription.name) for refusal in made.refusals) == [
        (2, "event"),
        (2, "text"),
    ]


def test_when_nothing_can_be_read_nothing_is_called() -> None:
    rows = rows_of(SIGNAL, 3)
    rows["signal_type"] = b"\xff"
    handlers = [make_subscription(lambda signal_type: None, SIGNAL, name=name) for name in ("a", "b")]
    made = plan([Part(SIGNAL, rows, None, 1)], *handlers)
    assert (made.count, list(made.results), len(made.refusals)) == (0, [], 6)


def test_an_enum_that_does_not_exist_is_a_refusal_too() -> None:
    rows = rows_of(MARKET, 3)
    rows["kind"][1] = 99
    one = make_subscription(lambda kind: None, MARKET)
    made = plan([Part(MARKET, rows, None, 1)], one)
    list(made.results)
    assert [refusal.position for refusal in made.refusals] == [1]


def test_no_handler_no_calls() -> None:
    made = plan([Part(MARKET, rows_of(MARKET, 3), None, 1)])
    assert (made.count, list(made.results)) == (0, [])


@pytest.mark.parametrize("several", [False, True])
def test_cutting_the_queue_off_ends_the_calls(several: bool) -> None:
    seen: list[Any] = []
    one = make_subscription(noting(seen, "one"), MARKET, name="one")
    two = make_subscription(lambda log_sequence: seen.append(("two", log_sequence)), MARKET, name="two")
    made = plan([Part(MARKET, rows_of(MARKET, 5), None, 1)], one, *([two] if several else []))
    next(made.results)
    del made.queue[3:]
    rest = list(made.results)
    assert len(seen) == 3
    assert len(rest) == 2


def test_what_no_event_can_hold_is_kept_as_a_row() -> None:
    rows = rows_of(SIGNAL, 2)
    rows["signal_type"][1] = b"\xff"
    assert event_or_row(rows[:1], SYMBOLS, SOURCES, 1).event_id == 1 << 40
    kept = event_or_row(rows[1:], SYMBOLS, SOURCES, 1)
    assert isinstance(kept, EventBatch)
    rows["strength"] = 5.0
    assert np.isnan(kept.records["strength"][0])


def test_ids_of_single_rows_are_those_of_batches() -> None:
    rows = rows_of(MARKET, 3, first=7)
    rows["flags"][1] |= np.uint16(Flags.EMITTED)
    for session in (0, 5):
        ids = EventBatch(rows, SYMBOLS, SOURCES, session_number=session).event_ids.tolist()
        assert [event_id_at(rows, index, session) for index in range(3)] == ids
    assert ids[1] == RUN_BIT | 8
    assert isinstance(event_or_row(rows[:1], SYMBOLS, SOURCES, 5), MarketDataEvent)
