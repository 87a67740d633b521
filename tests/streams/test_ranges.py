"""Starts and ends: times, event ids and entry ids are told apart, and mistakes are explained."""

from __future__ import annotations

import pytest

from hftlab.errors import TimeError, ValidationError
from hftlab.events import EventType, MarketDataEvent
from hftlab.events.ports import SessionInfo
from hftlab.events.records import event_id
from hftlab.streams.ranges import Bound, EntryId, read_place, wanted_types
from tests.streams.batches import START_NS

SESSION = SessionInfo("s", 3, 100, START_NS, START_NS + 10**10, {"market": 100}, ("BTCUSDT",))


def test_an_event_id_of_the_session_is_a_log_sequence() -> None:
    assert read_place(event_id(3, 42), SESSION) == Bound(log_sequence=42)


def test_an_event_id_of_another_session_is_not_taken_for_a_time_in_1970() -> None:
    with pytest.raises(TimeError, match="an event id of the session number 7"):
        read_place(event_id(7, 42), SESSION)


def test_integers_are_ns_and_text_is_a_time_or_an_entry_id() -> None:
    assert read_place(START_NS, SESSION) == Bound(time_ns=START_NS)
    assert read_place("1723161255030-17", SESSION) == Bound(entry_id=EntryId(1_723_161_255_030, 17))
    assert read_place("2024-08-08T23:54:15Z", SESSION) == Bound(time_ns=START_NS)
    assert read_place("23:54:15", SESSION) == Bound(time_ns=START_NS)
    assert read_place((1_723_161_255, "s"), SESSION) == Bound(time_ns=START_NS)
    assert read_place(None, SESSION) == Bound()
    assert read_place(0, SESSION) == Bound(time_ns=0)


@pytest.mark.parametrize("wrong", ["yesterday", "2024-08-08", "23:54:15 or so", 1.5, "99999999999999999999-1", -1])
def test_what_is_neither_is_refused(wrong: object) -> None:
    with pytest.raises(TimeError):
        read_place(wrong, SESSION)  # type: ignore[arg-type]


def test_types_are_named_by_class_enum_or_word_alone_or_together() -> None:
    market = frozenset({EventType.MARKET_DATA})
    assert wanted_types(MarketDataEvent) == wanted_types("market") == wanted_types([EventType.MARKET_DATA]) == market
    assert wanted_types(None) == frozenset(EventType)
    with pytest.raises(ValidationError, match="MarketDataEvent"):
        wanted_types("quotes")
