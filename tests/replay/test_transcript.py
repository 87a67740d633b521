"""What a run delivered, however it came in."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hftlab.events import (
    EventBatch,
    EventType,
    MarketDataEvent,
    OrderEvent,
    Side,
    SignalEvent,
    SourceTable,
    SymbolTable,
)
from hftlab.events.records import RECORD
from hftlab.replay.transcript import LATEST_ROWS, Transcript
from tests.replay.memory_log import trades


def events(count: int) -> EventBatch:
    made = []
    for number in range(count):
        made.append(MarketDataEvent(symbol="BTC", price=float(number), timestamp=1, received=1))
        if number % 3 == 0:
            made.append(SignalEvent(symbol="ETH", signal_type="s", timestamp=1, received=1))  # type: ignore[arg-type]
        if number % 5 == 0:
            made.append(
                OrderEvent(symbol="X", order_id="o", direction=Side.BUY, quantity=1.0, timestamp=1, received=1)  # type: ignore[arg-type]
            )
    return EventBatch.from_events(made)


def transcript_of(batch: EventBatch, cuts: list[int], *, typed: bool = False) -> Transcript:
    """The batch shown in pieces: under RECORD, or, where a piece has one type, under that type's."""
    transcript = Transcript(batch.symbols, batch.sources, 3)
    bounds = sorted({min(cut, len(batch)) for cut in cuts} | {0, len(batch)})
    for begin, end in pairwise(bounds):
        piece = batch[begin:end]
        counts = piece.counts()
        transcript.observe(piece.only(next(iter(counts))).records if typed and len(counts) == 1 else piece.records)
    return transcript


@given(st.integers(1, 200), st.lists(st.integers(0, 400), max_size=20), st.booleans())
def test_pieces_make_no_difference(count: int, cuts: list[int], typed: bool) -> None:
    batch = events(count)
    whole, cut = transcript_of(batch, []), transcript_of(batch, cuts, typed=typed)
    assert cut.digest == whole.digest
    assert cut.counts == whole.counts
    assert cut.latest(50) == whole.latest(50)


def test_asking_for_the_digest_changes_nothing() -> None:
    batch = events(100)
    asked, silent = Transcript(batch.symbols, batch.sources, 3), Transcript(batch.symbols, batch.sources, 3)
    digests = set()
    for begin in range(0, len(batch), 10):
        for transcript in (asked, silent):
            transcript.observe(batch[begin : begin + 10].records)
        digests.add(asked.digest)
        assert asked.digest == asked.digest
    assert asked.digest == silent.digest
    assert len(digests) == -(-len(batch) // 10)


def test_the_digest_is_of_order_and_content() -> None:
    batch = events(20)
    base = transcript_of(batch, []).digest
    assert transcript_of(batch[::-1], []).digest != base
    assert transcript_of(batch[:-1], []).digest != base
    renamed = EventBatch(batch.records, SymbolTable(["XBT", *list(batch.symbols)[1:]]), batch.sources)
    assert transcript_of(renamed, []).digest != base


def test_what_is_kept_is_a_copy_of_what_was_shown_meanwhile() -> None:
    batch = trades(30)
    transcript = Transcript(batch.symbols, SourceTable(), 3)
    transcript.observe(batch[:10].records)
    transcript.keep()
    shown = batch[10:20].records.copy()
    transcript.observe(shown)
    shown["price"] = 0
    taken = transcript.take()
    transcript.observe(batch[20:].records)
    assert taken.type is EventType.MARKET_DATA
    assert taken.records["price"].tolist() == list(range(10, 20))
    assert len(transcript.take()) == 0


def test_the_latest_rows_are_kept_and_no_more() -> None:
    batch = trades(10_000)
    transcript = Transcript(batch.symbols, SourceTable(), 3)
    for begin in range(0, 10_000, 777):
        transcript.observe(batch[begin : begin + 777].records)
    assert transcript.latest(3).records["price"].tolist() == [9_997, 9_998, 9_999]
    assert len(transcript.latest(1_000)) == LATEST_ROWS
    assert transcript.counts[EventType.MARKET_DATA] == 10_000


def test_rows_of_several_types_stay_in_their_order() -> None:
    batch = events(3)
    transcript = Transcript(batch.symbols, batch.sources, 3)
    transcript.keep()
    transcript.observe(batch.records)
    taken = transcript.take()
    assert taken.records.dtype == RECORD
    assert np.array_equal(taken.records["type"], batch.records["type"])
