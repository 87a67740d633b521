"""The digest is of what was delivered: how it was cut, numbered or compressed on the way makes no difference."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.events import Event, EventBatch, EventType, Flags, MarketDataEvent, Source, SourceTable, SymbolTable
from hftlab.events.digest import RowDigest
from hftlab.events.frames import decode_frame, encode_frame
from hftlab.events.records import RECORD, event_id
from tests.events.strategies import event_lists, events, one_type_batches


def digest_of(*batches: EventBatch) -> str:
    digest = RowDigest()
    for batch in batches:
        digest.update(batch)
    assert digest.rows == sum(map(len, batches))
    return digest.hexdigest()


@given(event_lists(), st.lists(st.integers(0, 8), max_size=5))
def test_cutting_makes_no_difference(listed: list[Event], cuts: list[int]) -> None:
    batch = EventBatch.from_events(listed)
    edges = sorted([0, *(min(cut, len(listed)) for cut in cuts), len(listed)])
    pieces = [batch[begin:end] for begin, end in pairwise(edges)]
    assert digest_of(*pieces) == digest_of(batch)
    assert digest_of(*(run for piece in pieces for run in piece.runs())) == digest_of(batch)


@given(event_lists(), st.permutations(["a", "b", "c"]))
def test_tables_make_no_difference(listed: list[Event], names: list[str]) -> None:
    batch = EventBatch.from_events(listed)
    other = batch.using(SymbolTable(names), SourceTable([Source(name) for name in names]))
    assert digest_of(other) == digest_of(batch)
    half = len(batch) // 2
    assert digest_of(batch[:half], other[half:]) == digest_of(batch)
    assert digest_of(other[:half], batch[half:]) == digest_of(batch)


@given(one_type_batches())
def test_a_frame_in_between_makes_no_difference(batch: EventBatch) -> None:
    assert digest_of(decode_frame(encode_frame(batch))) == digest_of(batch)


@given(st.lists(events(), min_size=1, max_size=4), st.integers(1, 1_000), st.integers(1, 1_000))
def test_the_sessions_number_makes_no_difference(listed: list[Event], one: int, other: int) -> None:
    digests = set()
    for number in (one, other):
        batch = EventBatch.from_events(listed)
        rows = batch.records
        rows["cause"] = [event_id(number, row) for row in range(len(rows))]
        digests.add(digest_of(EventBatch(rows, batch.symbols, batch.sources, session_number=number)))
    assert len(digests) == 1


CHANGES: dict[str, Any] = {
    "symbol": "other", "timestamp": 9, "received": 9, "cause": 9, "source": Source("other"), "sequence": 9, "span": 2,
    "part": 9, "epoch": 9, "flags": Flags.SNAPSHOT, "priority": 3, "clock": 2, "price": 9.0, "volume": 9.0, "bid": 9.0,
    "ask": 9.0, "bid_size": 9.0, "ask_size": 9.0, "kind": 1, "side": -1,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_any_field_of_any_row_makes_a_difference(name: str) -> None:
    fields: dict[str, Any] = {"symbol": "A", "sequence": 5}
    listed = [MarketDataEvent(**fields)] * 3
    for row in range(3):
        changed = list(listed)
        changed[row] = msgspec.structs.replace(listed[row], **{name: CHANGES[name]})
        assert digest_of(EventBatch.from_events(changed)) != digest_of(EventBatch.from_events(listed))


def test_a_log_sequence_an_order_and_a_number_of_rows_make_a_difference() -> None:
    batch = EventBatch.from_events([MarketDataEvent(symbol=name) for name in "AB"])
    digests = {digest_of(batch), digest_of(batch[::-1]), digest_of(batch[:1]), digest_of(batch, batch), digest_of()}
    batch.records["log_sequence"] = [0, 1]
    assert len(digests | {digest_of(batch)}) == 6


def test_all_of_a_source_counts_and_names_do_not_run_into_each_other() -> None:
    sources = [Source("a"), Source("a", "", "b"), Source("a", "b"), Source("a", rule="range"), Source("a/b")]
    batches = [EventBatch.from_events([MarketDataEvent(symbol="A", source=source)]) for source in sources]
    assert len({digest_of(batch) for batch in batches}) == len(sources)
    one = EventBatch.from_events([MarketDataEvent(symbol="A B"), MarketDataEvent(symbol="C")])
    other = EventBatch.from_events([MarketDataEvent(symbol="A"), MarketDataEvent(symbol="B C")])
    assert digest_of(one) != digest_of(other)


def test_a_sign_of_a_zero_counts_and_chance_in_unused_bytes_does_not() -> None:
    plus, minus = (EventBatch.from_events([MarketDataEvent(symbol="A", price=zero)]) for zero in (0.0, -0.0))
    assert digest_of(plus) != digest_of(minus)
    dirty = np.full(128, 0xEE, np.uint8).view(plus.records.dtype)
    for name in dirty.dtype.names or ():
        dirty[name] = plus.records[name]
    assert digest_of(EventBatch(dirty, plus.symbols, plus.sources)) == digest_of(plus)


def test_looking_changes_nothing_and_32_digits_are_seen() -> None:
    batch = EventBatch.from_events([MarketDataEvent(symbol="A")])
    digest = RowDigest()
    empty = digest.hexdigest()
    digest.update(batch)
    first = digest.hexdigest()
    assert digest.hexdigest() == first
    digest.update(batch)
    assert first == digest_of(batch)
    assert digest.hexdigest() == digest_of(batch, batch)
    assert len({empty, first, digest.hexdigest()}) == 3
    assert len(first) == 32
    int(first, 16)


def test_rows_of_one_type_and_the_same_under_the_common_dtype_are_the_same() -> None:
    batch = EventBatch.from_events([MarketDataEvent(symbol="A")] * 3)
    opaque = EventBatch(batch.records.view(RECORD), batch.symbols, batch.sources)
    assert opaque.type is None
    assert digest_of(opaque) == digest_of(batch)
    assert batch.type is EventType.MARKET_DATA


def test_the_digest_of_a_session_is_the_same_for_ever() -> None:
    batch = EventBatch.from_events(
        [MarketDataEvent(symbol="BTCUSDT", price=1.5, source=Source("x", "y", "z", "range"))]
    )
    assert digest_of(batch) == "ce2fae9170055b8506dc1ce0eb97eed2"
