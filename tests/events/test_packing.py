"""One event packed alone is the row that it would be among others."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given

from hftlab.errors import ValidationError
from hftlab.events import (
    Event,
    EventBatch,
    EventType,
    Flags,
    MarketDataEvent,
    OrderEvent,
    Side,
    SourceTable,
    SymbolTable,
)
from hftlab.events.packing import pack_event
from hftlab.events.records import DTYPES, Rows
from tests.events.strategies import events


def packed(event: Event, now_ns: int | None = None) -> tuple[Rows, EventBatch]:
    """The row, over bytes that held something else before, and a batch of it."""
    raw = np.full(128, 0xEE, np.uint8)
    symbols, sources = SymbolTable(), SourceTable()
    pack_event(event, memoryview(raw.data), symbols, sources, now_ns=now_ns)
    rows = raw.view(DTYPES[event.event_type])
    return rows, EventBatch(rows, symbols, sources)


@given(events())
def test_a_packed_row_is_to_the_byte_the_one_among_others(event: Event) -> None:
    rows, _ = packed(event)
    assert rows.tobytes() == EventBatch.from_events([event]).records.tobytes()


def test_times_that_are_not_there_are_those_of_the_arrival() -> None:
    rows, _ = packed(MarketDataEvent(symbol="A"), now_ns=9)
    assert rows[["timestamp", "received"]].tolist() == [(9, 9)]
    assert rows["flags"] == Flags.LAST_PART | Flags.ARRIVAL_TIME
    rows, _ = packed(MarketDataEvent(symbol="A", received=5), now_ns=9)
    assert rows[["timestamp", "received"]].tolist() == [(5, 5)]
    rows, _ = packed(MarketDataEvent(symbol="A", timestamp=5), now_ns=9)
    assert rows[["timestamp", "received"]].tolist() == [(5, 9)]
    assert rows["flags"] == Flags.LAST_PART


@pytest.mark.parametrize(("field", "value"), [("order_id", "x" * 41), ("order_id", 5), ("part", -1), ("quantity", "x")])
def test_what_does_not_fit_is_refused_and_never_cut(field: str, value: object) -> None:
    made = OrderEvent(symbol="A", order_id="1", direction=Side.BUY, quantity=1.0)
    unchecked = next(iter(EventBatch.from_events([made])))
    with pytest.raises(ValidationError, match="does not fit a row"):
        packed(msgspec.structs.replace(unchecked, **{field: value}))


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(ValidationError, match="an event is a MarketDataEvent"):
        pack_event("x", memoryview(bytearray(128)), SymbolTable(), SourceTable())  # type: ignore[arg-type]
    assert EventType.ORDER in DTYPES
