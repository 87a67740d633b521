"""Columns are plain Python values: what a handler's parameters get is what the event's attributes are."""

from __future__ import annotations

import math
from itertools import repeat

import numpy as np
import pytest
from hypothesis import given

from hftlab.errors import CodecError, ValidationError
from hftlab.events import Event, EventBatch, EventType, Flags, Side, SourceTable, SymbolTable
from hftlab.events.columns import HANDLER_FIELDS, check_fields, column, events
from hftlab.events.records import blank
from tests.events.strategies import event_lists

PLAIN = (int, float, str)


@given(event_lists(least=1))
def test_every_field_that_a_handler_may_name_has_a_plain_value_a_row(listed: list[Event]) -> None:
    batch = EventBatch.from_events(listed)
    for run in batch.runs():
        assert run.type is not None
        made = list(run)
        for name in HANDLER_FIELDS[run.type]:
            if name == "log_sequence":
                continue
            found = list(column(run.records, name, run.symbols, run.sources, run.session_number))
            assert [repr(value) for value in found] == [repr(getattr(event, name)) for event in made]
            assert all(not isinstance(value, np.generic) for value in found)


def test_a_column_that_is_the_same_all_the_way_costs_no_list() -> None:
    rows = blank(1_000, EventType.MARKET_DATA)
    tables = SymbolTable(["A"]), SourceTable()
    for name, value in {"symbol": "A", "kind": 0, "sequence": -1, "flags": Flags.LAST_PART}.items():
        found = column(rows, name, *tables, 0)
        assert isinstance(found, repeat)
        assert list(found) == [value] * 1_000
    unsent = column(rows, "price", *tables, 0)
    assert isinstance(unsent, repeat)
    assert all(math.isnan(value) for value in unsent)
    rows["side"][7] = Side.ASK
    assert list(column(rows, "side", *tables, 0)).count(Side.SELL) == 1


def test_no_rows_have_columns_of_nothing() -> None:
    rows = blank(0, EventType.ORDER)
    for name in HANDLER_FIELDS[EventType.ORDER]:
        assert list(column(rows, name, SymbolTable(), SourceTable(), 0)) == []
    assert list(events(rows, SymbolTable(), SourceTable(), 0)) == []


def test_flags_that_are_not_known_yet_are_kept() -> None:
    rows = blank(2, EventType.FILL)
    rows["flags"] = [1 << 15 | 1, 3]
    assert [flags.value for flags in column(rows, "flags", SymbolTable(), SourceTable(), 0)] == [1 << 15 | 1, 3]


def test_text_that_does_not_decode_is_the_writers_fault() -> None:
    rows = blank(2, EventType.FILL)
    rows["order_id"] = [b"ok", b"\xff"]
    with pytest.raises(CodecError, match=r"order_id holds bytes that are not UTF-8: b'\\xff'"):
        column(rows, "order_id", SymbolTable(["A"]), SourceTable(), 0)


def test_a_field_that_a_type_does_not_have_is_refused_with_those_that_it_has() -> None:
    check_fields(EventType.ORDER, ("order_id", "event_id", "topic", "symbol"))
    with pytest.raises(ValidationError, match=r"ORDER events have no field 'volume'; they have: timestamp, .*topic"):
        check_fields(EventType.ORDER, ("order_id", "volume"))
