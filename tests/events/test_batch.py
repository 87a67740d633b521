"""Batches carry events without changing them, whatever is cut, picked, joined or renamed."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.events import (
    Event,
    EventBatch,
    EventType,
    FillEvent,
    Kind,
    MarketDataEvent,
    OrderEvent,
    SignalEvent,
    Source,
    SourceTable,
    SymbolTable,
    as_event_type,
)
from hftlab.events.records import DTYPES, HEADER_FIELDS, MAX_SESSION_NUMBER, RECORD, blank, event_id
from tests.events.strategies import event_lists, identical


def tick(symbol: str = "BTCUSDT", **fields: Any) -> MarketDataEvent:
    return MarketDataEvent(symbol=symbol, **fields)


@given(event_lists())
def test_events_come_back_as_they_were(listed: list[Event]) -> None:
    batch = EventBatch.from_events(listed)
    assert len(batch) == len(listed)
    assert all(map(identical, listed, batch))
    assert all(type(event).__name__ == type(back).__name__ for event, back in zip(listed, batch, strict=True))
    assert batch.event_ids.tolist() == [event.event_id for event in listed]
    assert batch.nbytes == 128 * len(listed)


@given(event_lists(), st.integers(-10, 10), st.integers(-10, 10), st.sampled_from([None, 1, 2, 3, -1, -2]))
def test_slices_and_positions_are_those_of_a_list(listed: list[Event], begin: int, end: int, step: int | None) -> None:
    batch = EventBatch.from_events(listed)
    part = batch[begin:end:step]
    assert list(part) == listed[begin:end:step]
    assert not len(part) or np.shares_memory(part.records, batch.records)
    for index in (begin, end):
        if -len(listed) <= index < len(listed):
            assert identical(batch[index], listed[index])
        else:
            with pytest.raises(IndexError, match=f"{len(listed)} rows"):
                batch[index]


@given(event_lists(), st.data())
def test_counts_runs_only_and_where_agree_with_the_events(listed: list[Event], data: st.DataObject) -> None:
    batch = EventBatch.from_events(listed)
    types = [event.event_type for event in listed]
    assert batch.counts() == {t: types.count(t) for t in EventType if t in types}
    runs = list(batch.runs())
    assert [event for run in runs for event in run] == listed
    assert all(run.type is not None and len(run) for run in runs)
    assert len(runs) == sum(1 for index, t in enumerate(types) if index == 0 or types[index - 1] is not t)
    for event_type in EventType:
        chosen = batch.only(event_type)
        assert chosen.type is event_type
        assert list(chosen) == [event for event in listed if event.event_type is event_type]
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(listed), max_size=len(listed))), bool)
    assert list(batch.where(mask)) == [event for event, kept in zip(listed, mask, strict=True) if kept]
    picked = data.draw(st.permutations(range(len(listed))))
    assert list(batch.where(np.array(picked, int))) == [listed[index] for index in picked]


@given(event_lists(), st.lists(st.integers(0, 8), max_size=4))
def test_joining_the_pieces_gives_the_whole(listed: list[Event], cuts: list[int]) -> None:
    batch = EventBatch.from_events(listed)
    edges = sorted([0, *(min(cut, len(listed)) for cut in cuts), len(listed)])
    pieces = [batch[begin:end] for begin, end in pairwise(edges)]
    assert EventBatch.concat(pieces) == batch or not listed
    # Each with tables of its own, as if they had come from different places.
    apart = [EventBatch.from_events(list(piece)) for piece in pieces]
    apart = [piece for piece in apart if piece.session_number == batch.session_number]
    joined = EventBatch.concat(apart)
    assert list(joined) == [event for piece in apart for event in piece]


@given(event_lists(), st.permutations(["x", "y", "z"]))
def test_other_tables_change_no_event(listed: list[Event], names: list[str]) -> None:
    batch = EventBatch.from_events(listed)
    symbols, sources = SymbolTable(names), SourceTable([Source(name) for name in names])
    before = batch.records.tobytes()
    other = batch.using(symbols, sources)
    assert other.symbols is symbols
    assert other.sources is sources
    assert all(map(identical, listed, other))
    assert other == batch
    assert other.using(batch.symbols, batch.sources).records.tobytes() == batch.records.tobytes() == before
    same = batch.using(batch.symbols, batch.sources)
    assert same.records is batch.records


@given(event_lists(least=1))
def test_batches_that_differ_are_not_equal(listed: list[Event]) -> None:
    batch = EventBatch.from_events(listed)
    assert batch == EventBatch.from_events(listed)
    if listed:
        other = EventBatch.from_events(listed)
        other.records["part"][0] ^= 1
        assert batch != other
        renamed = EventBatch(
            batch.records, SymbolTable(f"_{index}" for index in range(len(batch.symbols))), batch.sources
        )
        assert batch != renamed
        assert batch != batch[1:]
    assert batch != listed
    with pytest.raises(TypeError):
        hash(batch)


def test_chance_in_unused_bytes_makes_no_difference() -> None:
    rows = blank(2, EventType.ORDER)
    other = np.full(2 * 128, 0xEE, np.uint8).view(rows.dtype)
    for name in rows.dtype.names or ():
        other[name] = rows[name]
    assert EventBatch(rows) == EventBatch(other)


@given(event_lists(EventType.MARKET_DATA, least=1))
def test_a_column_has_what_the_events_have(listed: list[Event]) -> None:
    batch = EventBatch.from_events(listed)
    for name in (*MarketDataEvent.__struct_fields__, "topic"):
        found = batch.column(name)
        assert list(map(repr, found)) == [repr(getattr(event, name)) for event in listed]
    with pytest.raises(ValidationError, match=r"no field 'order_id'; they have: .*price"):
        batch.column("order_id")


def test_columns_of_several_types_are_those_they_share() -> None:
    batch = EventBatch.from_events([tick(), SignalEvent(symbol="ETHUSDT", signal_type="WIDE")])
    assert batch.type is None
    assert batch.column("symbol") == ["BTCUSDT", "ETHUSDT"]
    assert batch.column("type") == [EventType.MARKET_DATA, EventType.SIGNAL]
    assert batch.column("event_id") == [0, 0]
    assert batch.column("source") == [Source("unknown")] * 2
    assert all(len(batch.column(name)) == 2 for name in HEADER_FIELDS)
    with pytest.raises(ValidationError, match="share only timestamp"):
        batch.column("price")


def test_an_empty_batch_is_one_too() -> None:
    batch = EventBatch.from_events([])
    assert list(batch) == list(batch.runs()) == []
    assert batch.counts() == {}
    assert repr(batch) == "EventBatch(empty; no symbol)"
    assert batch == EventBatch.empty() == EventBatch.concat([])
    assert EventBatch.concat([batch, EventBatch.from_events([tick()]), batch]) == EventBatch.from_events([tick()])
    assert EventBatch.empty(EventType.FILL).type is EventType.FILL


@pytest.mark.parametrize(
    "records",
    [
        [1, 2],
        np.zeros(3),
        np.zeros((2, 2), RECORD),
        np.zeros(3, "V128"),
        np.zeros(3, [("timestamp", "i8"), ("rest", "V120")]),
        np.zeros(3, [("timestamp", "i8")]),
    ],
)
def test_an_array_of_other_things_is_no_batch(records: Any) -> None:
    with pytest.raises(ValidationError, match="records"):
        EventBatch(records)


@pytest.mark.parametrize("number", [-1, MAX_SESSION_NUMBER + 1])
def test_a_session_number_that_ids_have_no_room_for_is_refused(number: int) -> None:
    with pytest.raises(ValidationError, match="session"):
        EventBatch(blank(1, EventType.FILL), session_number=number)


def test_events_of_two_sessions_make_no_batch() -> None:
    first, second = tick(event_id=event_id(1, 0)), tick(event_id=event_id(2, 0))
    with pytest.raises(ValidationError, match=r"sessions number \[1, 2\]"):
        EventBatch.from_events([first, second])
    with pytest.raises(ValidationError, match=r"number \[0, 1\]"):
        EventBatch.from_events([first, tick()])
    with pytest.raises(ValidationError, match=r"number \[1, 2\]"):
        EventBatch.concat([EventBatch.from_events([first]), EventBatch.from_events([second])])


def test_what_is_no_event_makes_no_batch() -> None:
    with pytest.raises(ValidationError, match="Event objects; got 'x'"):
        EventBatch.from_events([tick(), "x"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("field", "value"), [("order_id", "x" * 41), ("order_id", 5), ("symbol", ""), ("timestamp", 1 << 63), ("part", -1)]
)
def test_an_event_that_was_changed_unchecked_is_checked_before_it_becomes_a_row(field: str, value: object) -> None:
    import msgspec

    made = OrderEvent(symbol="BTCUSDT", order_id="1", direction="BUY", quantity=1.0)  # type: ignore[arg-type]
    unchecked = next(iter(EventBatch.from_events([made])))
    changed = msgspec.structs.replace(unchecked, **{field: value})
    with pytest.raises(ValidationError, match=field):
        EventBatch.from_events([changed])


BROKEN_FIELDS = {"symbol": 7, "source": 7, "priority": 9, "clock": 9, "kind": 9, "side": 7}


@pytest.mark.parametrize(("field", "value"), BROKEN_FIELDS.items())
@pytest.mark.parametrize("count", [1, 3])
def test_a_number_that_stands_for_nothing_is_an_error_when_events_are_made(field: str, value: int, count: int) -> None:
    batch = EventBatch.from_events([tick()] * count)
    batch.records[field][-1] = value
    with pytest.raises(ValidationError, match=f"{field} of some row"):
        list(batch)


def test_a_row_of_no_type_is_an_error_when_events_are_made() -> None:
    with pytest.raises(ValidationError, match="row 0: type is one of"):
        list(EventBatch(np.zeros(2, RECORD), SymbolTable(["BTCUSDT"])))


def test_a_repr_names_the_symbols_that_are_there() -> None:
    table = SymbolTable(["unused", "A", "B", "C", "D"])
    batch = EventBatch.from_events(
        [tick("A"), tick("C"), FillEvent(symbol="D", order_id="1", executed_qty=1, executed_price=1)]
    )
    assert repr(batch) == "EventBatch(2 market, 1 fill; A, C, D)"
    assert repr(batch.using(table, SourceTable())) == repr(batch)
    assert repr(EventBatch.from_events([tick(s) for s in "ABCDE"])) == "EventBatch(5 market; A, B, C and 2 more)"


@pytest.mark.parametrize("value", [MarketDataEvent, EventType.MARKET_DATA, "market"])
def test_a_type_is_told_by_class_number_or_word(value: Any) -> None:
    assert as_event_type(value) is EventType.MARKET_DATA


@pytest.mark.parametrize("value", [Event, int, "markets", "", 1, None, 1.5])
def test_what_tells_no_type_is_refused_with_those_that_exist(value: Any) -> None:
    with pytest.raises(ValidationError, match="MarketDataEvent, OrderEvent"):
        as_event_type(value)


def test_unsent_numbers_are_nan_and_events_that_lack_the_same_are_equal() -> None:
    batch = EventBatch.from_events([tick(bid=1.0, kind=Kind.QUOTE), tick(ask=2.0)])
    first, second = batch
    assert isinstance(first, MarketDataEvent)
    assert math.isnan(first.ask)
    assert first == tick(bid=1.0, kind=Kind.QUOTE)
    assert second == tick(ask=2.0)


def test_rows_of_one_type_have_their_own_dtype_and_several_the_common_one() -> None:
    assert EventBatch.from_events([tick()]).records.dtype == DTYPES[EventType.MARKET_DATA]
    mixed = EventBatch.from_events([tick(), SignalEvent(symbol="A", signal_type="W")])
    assert mixed.records.dtype == RECORD
    assert mixed[:1].type is None
    assert mixed[0] == tick()
