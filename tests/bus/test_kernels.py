"""The look at rows that come in: compiled and as plain Python, against the enums that there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.bus import kernels
from hftlab.events import EventType
from hftlab.events.records import DTYPES, RECORD, ClockSource, Kind, OrderType, Priority, Rows, blank

FIELDS: dict[str, Any] = {
    "symbol": st.integers(0, 4),
    "source": st.integers(0, 3),
    "priority": st.integers(0, 6),
    "clock": st.integers(0, 5),
    "timestamp": st.sampled_from([0, 1, -1, 1 << 62]),
    "received": st.sampled_from([0, 1, -1, 1 << 62]),
    "type": st.integers(0, 6),
}
PAYLOADS: dict[EventType, dict[str, Any]] = {
    EventType.MARKET_DATA: {"kind": st.integers(0, 5), "side": st.sampled_from([-128, -2, -1, 0, 1, 2, 127])},
    EventType.ORDER: {"direction": st.sampled_from([-128, -2, -1, 0, 1, 2, 127]), "order_type": st.integers(0, 6)},
    EventType.FILL: {},
    EventType.SIGNAL: {},
}
SYMBOLS, SOURCES = 3, 2


def sound(event_type: EventType, count: int) -> Rows:
    rows = blank(count, event_type)
    rows["timestamp"] = rows["received"] = 1
    if event_type is EventType.ORDER:
        rows["direction"], rows["order_type"] = 1, 1
    return rows


@st.composite
def some_rows(draw: st.DrawFn) -> tuple[EventType, Rows]:
    """Sound rows, some of them with values of any kind in a few fields."""
    event_type = draw(st.sampled_from(EventType))
    rows = sound(event_type, draw(st.integers(0, 6)))
    fields = FIELDS | PAYLOADS[event_type]
    if len(rows):
        for _ in range(draw(st.integers(0, 4))):
            name = draw(st.sampled_from(sorted(fields)))
            rows[name][draw(st.integers(0, len(rows) - 1))] = draw(fields[name])
    return event_type, rows


def exists(enum: Any, value: int) -> bool:
    return value in set(enum)


def fits(row: Any, only: EventType | None) -> bool:
    kind = int(row["type"])
    if not exists(EventType, kind) or (only is not None and kind != only):
        return False
    typed = np.array([row]).view(DTYPES[EventType(kind)])[0]
    fine = row["symbol"] < SYMBOLS and row["source"] < SOURCES
    fine = fine and exists(Priority, row["priority"]) and exists(ClockSource, row["clock"])
    if kind == EventType.MARKET_DATA:
        fine = fine and exists(Kind, typed["kind"]) and typed["side"] in (-1, 0, 1)
    if kind == EventType.ORDER:
        fine = fine and exists(OrderType, typed["order_type"]) and typed["direction"] in (-1, 1)
    return bool(fine)


def words(rows: Rows) -> npt.NDArray[np.int64]:
    return rows.view(np.int64)


@pytest.mark.parametrize("function", [kernels.inspect_rows, kernels.inspect_rows.py_func], ids=["compiled", "python"])
@given(some_rows(), st.booleans())
def test_the_first_row_that_fits_nowhere_is_found(function: Any, drawn: tuple[EventType, Rows], only: bool) -> None:
    event_type, rows = drawn
    records = rows.view(RECORD)
    wanted = [fits(rows[index : index + 1].view(RECORD)[0], event_type if only else None) for index in range(len(rows))]
    first = next((index for index, fine in enumerate(wanted) if not fine), len(rows))
    found, untimed = function(words(rows), int(event_type) if only else 0, SYMBOLS, SOURCES)
    assert found == first
    looked_at = records[: first + 1]
    assert untimed == bool(((looked_at["timestamp"] == 0) | (looked_at["received"] == 0)).any())


def test_read_only_rows_can_be_looked_at() -> None:
    rows = sound(EventType.SIGNAL, 3)
    rows.flags.writeable = False
    assert kernels.inspect_rows(words(rows), 0, 1, 1) == (3, False)


def test_all_signatures_are_compiled_ahead() -> None:
    assert kernels.warm() >= 4
    before = len(kernels.inspect_rows.signatures)
    test_read_only_rows_can_be_looked_at()
    kernels.inspect_rows(words(sound(EventType.SIGNAL, 3)), 0, 1, 1)
    assert len(kernels.inspect_rows.signatures) == before
