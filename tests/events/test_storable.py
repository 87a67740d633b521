"""What a frame can't give back is refused before it is stored, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.events import EventBatch, EventType, SymbolTable
from hftlab.events.frames import check_rows, decode_frame, encode_frame
from hftlab.events.records import DTYPES, RECORD, blank
from hftlab.events.rowbytes import concat_rows, copy_rows
from hftlab.events.storable import bits_of, column_of, from_words, to_words

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


@given(
    st.sampled_from(EventType),
    st.lists(st.tuples(st.integers(0, 127), st.integers(0, 2), st.integers(0, 255)), max_size=4),
)
def test_what_passes_the_check_is_stored_and_read_and_what_does_not_is_not(
    event_type: EventType, changes: list[tuple[int, int, int]]
) -> None:
    rows = blank(3, event_type)
    for name, value in {"order_id": b"a", "signal_type": b"a", "direction": 1, "order_type": 1}.items():
        if name in (rows.dtype.names or ()):
            rows[name] = value
    for byte, row, value in changes:
        rows.view(np.uint8).reshape(3, 128)[row, byte] = value
    rows["log_sequence"] = [0, 1, 2]
    batch = EventBatch(rows, SymbolTable(["BTCUSDT"]))
    try:
        check_rows(batch)
    except ValidationError:
        with pytest.raises(ValidationError):
            encode_frame(batch)
    else:
        assert decode_frame(encode_frame(batch)) == batch


@pytest.mark.parametrize("event_type", list(EventType))
def test_words_hold_every_column_and_turn_back(event_type: EventType) -> None:
    rows = np.random.default_rng(1).integers(0, 255, 5 * 128, np.uint8).view(DTYPES[event_type])
    for part in (rows, rows[:1], rows[::2], rows[:0]):
        words = to_words(part)
        assert words.shape == (16, len(part))
        assert words.flags.c_contiguous
        assert not np.shares_memory(words, rows)
        assert from_words(words, event_type).tobytes() == copy_rows(part).tobytes()
        for name in DTYPES[event_type].names or ():
            if part.dtype[name].itemsize <= 8:
                assert column_of(words, event_type, name).tobytes() == np.ascontiguousarray(part[name]).tobytes()
        if len(part):
            assert bits_of(words).tolist() == np.bitwise_or.reduce(words.T, axis=0).tolist()


def test_an_error_in_a_long_batch_names_the_row_of_the_batch() -> None:
    rows = blank(10_000, EventType.FILL)
    rows["order_id"] = b"1"
    rows["order_id"][9_000] = b"\xff"
    with pytest.raises(ValidationError, match="row 9000: order_id"):
        check_rows(EventBatch(rows, SymbolTable(["BTCUSDT"])))
