"""A stage that goes on where another one stood delivers what that one would have delivered."""

from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hftlab.events import EventBatch, EventType, Flags
from hftlab.events.rowbytes import take_rows
from hftlab.sequence import Ordering
from hftlab.sequence.memory import StageMemory
from hftlab.sequence.stage import OrderStage
from tests.sequence.messages import Stream, faulty_stream, streams

# Nothing is declared lost while it lasts: when that happens depends on when what is held was read, again or not.
PATIENT = Ordering(window=1 << 16, deadline_s=1e6, remembered=1 << 16)


def delivered(stage: OrderStage, batch: EventBatch, end: bool = False) -> list[int]:
    rows: list[int] = stage.process(batch).batch.records["log_sequence"].tolist()
    if end:
        rows += stage.finish().batch.records["log_sequence"].tolist()
    return rows


def both_ways(stream: Stream, cut: int, ordering: Ordering) -> tuple[list[int], list[int], int]:
    """What one stage delivers of all rows, and what two do, of which the second has the first one's memory; and how
    many rows were held in between."""
    batch = stream.batch()
    cut = min(cut, len(batch))
    whole = delivered(OrderStage(ordering, batch.symbols, batch.sources), batch, end=True)
    first = OrderStage(ordering, batch.symbols, batch.sources)
    before = delivered(first, batch[:cut])
    held = first.held_log_sequences
    assert sorted(set(before) & set(held.tolist())) == []
    memory = msgspec.msgpack.decode(msgspec.msgpack.encode(first.memory()), type=StageMemory)
    second = OrderStage(ordering, batch.symbols, batch.sources)
    second.recall(memory)
    again = np.concatenate([held, np.arange(cut, len(batch))])
    rest = EventBatch(
        take_rows(batch.records, again), batch.symbols, batch.sources, session_number=batch.session_number
    )
    return whole, before + delivered(second, rest, end=True), len(held)


@given(streams(), st.integers(0, 80))
def test_nothing_is_lost_or_doubled_by_going_on_elsewhere(stream: Stream, cut: int) -> None:
    stream.table["cause"] = 0
    # An end that is held back makes what lies beyond it a conflict at once; read again, it comes after that.
    stream.table["flags"] &= ~int(Flags.END_OF_SESSION) & 0xFFFF
    whole, parted, _ = both_ways(stream, cut, PATIENT)
    assert sorted(parted) == sorted(whole)
    sources = np.repeat(stream.table["source"], stream.table["parts"])
    for source in np.unique(sources).tolist():
        ours = [row for row in parted if sources[row] == source]
        assert ours == [row for row in whole if sources[row] == source]


def test_in_a_faulty_stream_with_causes_too() -> None:
    held_in_all = 0
    for seed in range(12):
        stream = faulty_stream(seed, 2_000)
        whole, parted, held = both_ways(stream, 150 * seed + 300, PATIENT)
        assert sorted(parted) == sorted(whole), f"seed {seed}"
        held_in_all += held
    assert held_in_all > 0


@given(streams(), st.integers(0, 80))
def test_what_is_held_is_what_was_taken_and_not_decided(stream: Stream, cut: int) -> None:
    for ordering in (PATIENT, Ordering(window=8, reorder_s=0.05, merge_s=0.2)):
        batch = stream.batch()[:cut]
        stage = OrderStage(ordering, batch.symbols, batch.sources)
        stage.process(batch)
        held = stage.held_log_sequences
        assert len(held) == stage.statistics().held_rows
        assert (np.diff(held) > 0).all()
        if not batch.session_number:
            continue
        out = stage.finish().batch.records["log_sequence"].tolist()
        assert set(out) <= set(held.tolist())


def test_a_strict_source_stays_strict() -> None:
    stream = faulty_stream(3, 400)
    stream.table["type"][:] = int(EventType.ORDER)
    batch = stream.batch()
    first = OrderStage(Ordering(), batch.symbols, batch.sources)
    first.process(batch[:200])
    second = OrderStage(Ordering(), batch.symbols, batch.sources)
    second.recall(first.memory())
    assert [one.strict for one in second.memory().sources] == [one.strict for one in first.memory().sources]
    assert any(one.strict for one in second.memory().sources)
