"""A rule means the same for one event and for a column of rows, and an error names the rule, the row and the value."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.events import Event, EventBatch, EventType
from hftlab.events.records import PAYLOAD_FIELDS, TEXT_FIELDS, blank
from hftlab.events.rules import RULES, check_record_texts, check_records, check_text
from tests.events.strategies import event_lists

FLOATS = [0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan]
INTEGERS = [0, 1, 2, 3, 4, 5, 255]


@given(event_lists(least=1))
def test_rows_of_events_that_validate_keep_every_rule(listed: list[Event]) -> None:
    for run in EventBatch.from_events(listed).runs():
        assert run.type is not None
        check_records(run.type, run.records)


@pytest.mark.parametrize("event_type", list(EventType))
@given(data=st.data())
def test_a_rule_holds_for_a_row_exactly_where_it_holds_for_its_values(
    event_type: EventType, data: st.DataObject
) -> None:
    rows = blank(3, event_type)
    for name in PAYLOAD_FIELDS[event_type]:
        kind = rows.dtype[name].kind
        if kind == "f":
            rows[name] = data.draw(st.lists(st.sampled_from(FLOATS), min_size=3, max_size=3))
        elif kind in "iu":
            values = [value for value in (*INTEGERS, -1, -128) if np.iinfo(rows.dtype[name]).min <= value]
            chosen = st.sampled_from([value for value in values if value <= np.iinfo(rows.dtype[name]).max])
            rows[name] = data.draw(st.lists(chosen, min_size=3, max_size=3))
    for name in ("sequence", "span", "timestamp", "priority", "clock"):
        least = max(-2, int(np.iinfo(rows.dtype[name]).min))
        rows[name] = data.draw(st.lists(st.integers(least, 7), min_size=3, max_size=3))
    for rule in RULES[event_type]:
        together = np.broadcast_to(np.asarray(rule.holds(rows.__getitem__)), 3).tolist()
        apart = [bool(rule.holds(partial(value_of, rows[index]))) for index in range(3)]
        assert together == apart, rule.text


def value_of(row: np.void, name: str) -> Any:
    return row[name].item()


def test_an_error_names_the_first_row_that_breaks_the_first_rule() -> None:
    rows = blank(4, EventType.MARKET_DATA)
    rows["volume"][2:] = -1.5
    with pytest.raises(ValidationError, match=r"row 2: volume is a finite number of at least 0, or NaN.*; got -1\.5"):
        check_records(EventType.MARKET_DATA, rows)


TEXTS = [
    b"", b"a", b"a" * 40, "é".encode() * 20, "日".encode() * 13, b"\xff", b"a\xff", b"a\0b", b"\0a",
    b"x" * 39 + b"\xc3",
    b"\xed\xa0\x80", b" ", b"\x7f", b"\x01", "🚀".encode() * 10,
]  # fmt: skip


@given(st.lists(st.one_of(st.sampled_from(TEXTS), st.binary(max_size=40)), min_size=1, max_size=6))
def test_texts_of_rows_pass_exactly_where_each_by_itself_would(texts: list[bytes]) -> None:
    rows = blank(len(texts), EventType.ORDER)
    rows["order_id"] = texts
    stored = rows["order_id"].tolist()
    first = next((row for row, raw in enumerate(stored) if not sound("order_id", raw)), None)
    if first is None:
        check_record_texts(EventType.ORDER, rows)
    else:
        with pytest.raises(ValidationError, match=f"row {first}: order_id"):
            check_record_texts(EventType.ORDER, rows)


def sound(field: str, raw: bytes) -> bool:
    try:
        check_text(field, raw.decode(), TEXT_FIELDS[EventType.ORDER][field])
    except ValueError:
        return False
    return True


def test_text_that_may_be_empty_may_be() -> None:
    rows = blank(2, EventType.SIGNAL)
    rows["signal_type"] = b"WIDE"
    check_record_texts(EventType.SIGNAL, rows)
    rows["strategy_id"][1] = "é".encode()
    check_record_texts(EventType.SIGNAL, rows)
    rows["signal_type"][1] = b""
    with pytest.raises(ValidationError, match="row 1: signal_type"):
        check_record_texts(EventType.SIGNAL, rows)


def test_rows_that_lie_apart_in_memory_are_checked_like_any_others() -> None:
    rows = blank(4, EventType.ORDER)
    rows["order_id"] = [b"a", b"\xff", b"a", b"\xff"]
    check_record_texts(EventType.ORDER, rows[::2])
    with pytest.raises(ValidationError, match="row 0"):
        check_record_texts(EventType.ORDER, rows[1::2])
