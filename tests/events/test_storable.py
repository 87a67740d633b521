"""What a frame can't give back is refused before it is stored."""

from __future__ import annotations

import pytest

from hftlab.errors import ValidationError
from hftlab.events import EventBatch, EventType, SymbolTable
from hftlab.events.frames import check_rows, decode_frame, encode_frame
from hftlab.events.records import RECORD, blank
from hftlab.events.rowbytes import concat_rows

BROKEN = {
    "type": 9,
    "symbol": 1,
    "source": 1,
    "priority": 5,
    "clock": 4,
    "kind": 4,
    "side": 2,
}


def market(count: int = 4) -> EventBatch:
    return EventBatch(blank(count, EventType.MARKET_DATA), SymbolTable(["BTCUSDT"]))


def test_sound_rows_pass_and_come_back() -> None:
    batch = market()
    check_rows(batch)
    assert decode_frame(encode_frame(batch)) == batch


@pytest.mark.parametrize("field", list(BROKEN))
def test_what_a_reader_would_refuse_is_refused_beforehand(field: str) -> None:
    batch = market()
    batch.records[field][2] = BROKEN[field]
    with pytest.raises(ValidationError):
        check_rows(batch)
    with pytest.raises(ValidationError):
        encode_frame(batch)


def test_rows_of_several_types_are_checked_each_by_its_own() -> None:
    orders = blank(1, EventType.ORDER)
    rows = concat_rows([blank(1, EventType.MARKET_DATA), orders], RECORD)
    with pytest.raises(ValidationError, match="order_type"):
        check_rows(EventBatch(rows, SymbolTable(["BTCUSDT"])))


def test_a_type_that_does_not_exist_is_refused() -> None:
    rows = blank(1, EventType.MARKET_DATA).view(RECORD)
    rows["type"] = 0
    with pytest.raises(ValidationError, match="type is one of"):
        check_rows(EventBatch(rows, SymbolTable(["BTCUSDT"])))
