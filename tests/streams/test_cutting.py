"""Cutting: whatever the frame size and wherever it starts again, the chunks are the rows, once each, in order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.events import EventBatch, EventType, Flags, OrderEvent, Side, SymbolTable
from hftlab.events.frames import decode_frame
from hftlab.events.merge import LogMerge
from hftlab.events.records import ClockSource, blank
from hftlab.streams.cutting import BatchRows, Chunk, Format, check_frame_rows, chunks, inspect
from tests.streams.batches import content, mixed, trades

MIXED = mixed(300, seed=3)


def cut(batch: EventBatch, frame_rows: int, start: int = 0, form: Format = "frames", now_ns: int = 1) -> list[Chunk]:
    return list(chunks(BatchRows(batch), start, 0, frame_rows=frame_rows, form=form, now_ns=lambda: now_ns))


def frames_of(chunk: Chunk) -> Iterator[tuple[int, int, bytes]]:
    """(stream, rows, frame) of each part."""
    parts = chunk.parts
    while parts:
        stream, rows, offset, strings, name, frame, *parts = parts
        assert (offset, strings, name) == (0, 2, b"frame")
        yield stream, rows, frame


def put_together(chunk: Chunk, base: int) -> EventBatch:
    symbols = SymbolTable()
    found = [decode_frame(frame, base=base, symbols=symbols) for _, _, frame in frames_of(chunk)]
    sources = found[0].sources
    merge = LogMerge(len(found))
    for index, batch in enumerate(found):
        merge.put(index, batch.using(symbols, sources))
        merge.close(index)
    merged = merge.take()
    assert merged is not None
    return merged


@given(frame_rows=st.integers(1, 400), start=st.integers(0, 300))
def test_chunks_put_together_are_the_rows_from_where_it_started(frame_rows: int, start: int) -> None:
    found = cut(MIXED, frame_rows, start)
    assert [chunk.start for chunk in found] == list(range(start, 300, frame_rows))
    assert sum(chunk.rows for chunk in found) == 300 - start
    assert all(0 < chunk.rows <= frame_rows for chunk in found)
    if found:
        whole = EventBatch.concat(put_together(chunk, chunk.start) for chunk in found)
        assert whole.records["log_sequence"].tolist() == list(range(start, 300))
        assert content(whole) == content(MIXED[start:])


def test_a_chunk_has_a_frame_for_each_type_in_it_and_its_log_sequences_count_from_0() -> None:
    (chunk,) = cut(MIXED, 1_024)
    frames = list(frames_of(chunk))
    assert [stream for stream, _, _ in frames] == [1, 2, 3, 4]
    assert sum(rows for _, rows, _ in frames) == chunk.rows == 300
    logs = sorted(log for _, _, frame in frames for log in decode_frame(frame).records["log_sequence"].tolist())
    assert logs == list(range(300))
    assert chunk.symbols == {"BTCUSDT", "ETHUSDT", "SOL-Ünï"}
    assert (chunk.earliest_ns, chunk.latest_ns) == (
        int(MIXED.records["received"].min()),
        int(MIXED.records["received"].max()),
    )


def test_entries_are_one_part_an_event_each_at_its_own_offset() -> None:
    found = cut(MIXED, 1_024, form="entries")
    assert [chunk.rows for chunk in found] == [256, 44]
    parts, offsets = list(found[0].parts), []
    while parts:
        _, rows, offset, strings, *parts = parts
        assert rows == 1
        offsets.append(offset)
        fields = dict(zip(parts[:strings:2], parts[1:strings:2], strict=True))
        assert fields["type"] in ("market", "order", "fill", "signal")
        assert "event_id" not in fields
        parts = parts[strings:]
    assert offsets == list(range(256))


def test_rows_that_nobody_stamped_get_the_time_of_their_chunk() -> None:
    rows = blank(3, EventType.MARKET_DATA)
    rows["timestamp"] = (0, 50, 2_000)
    (chunk,) = cut(EventBatch(rows, SymbolTable(["X"])), 10, now_ns=1_000)
    stamped = put_together(chunk, 0).records
    assert stamped["received"].tolist() == [1_000] * 3
    assert stamped["timestamp"].tolist() == [1_000, 50, 2_000]
    assert stamped["clock"].tolist() == [ClockSource.APPLICATION] * 3
    last = Flags.LAST_PART
    assert stamped["flags"].tolist() == [last | Flags.ARRIVAL_TIME, last, last | Flags.AHEAD]
    assert rows["received"].tolist() == [0] * 3, "the caller's rows stay as they were"


def test_what_was_stamped_keeps_its_clock() -> None:
    (chunk,) = cut(trades(2), 10, now_ns=99)
    assert put_together(chunk, 0).records["clock"].tolist() == [ClockSource.UNKNOWN] * 2


def test_rows_that_a_handler_emitted_become_recorded_ones() -> None:
    rows = blank(2, EventType.SIGNAL)
    rows["signal_type"] = b"A"
    rows["flags"] |= np.uint16(Flags.EMITTED)
    rows["log_sequence"] = (7, 8)
    (chunk,) = cut(EventBatch(rows, SymbolTable(["X"])), 10)
    recorded = put_together(chunk, 5).records
    assert recorded["flags"].tolist() == [Flags.LAST_PART | Flags.ARRIVAL_TIME] * 2
    assert recorded["log_sequence"].tolist() == [5, 6]


def test_the_digest_of_a_batch_depends_on_names_and_content_and_not_on_ids_or_slices() -> None:
    batch = trades(100, symbols=("A", "B"))
    other = batch.using(SymbolTable(["Z", "B", "A"]), batch.sources)
    assert inspect(batch) == inspect(other) == inspect(EventBatch.concat([batch[:40], batch[40:]]))
    changed = EventBatch.concat([batch])
    changed.records["price"][50] += 0.01
    renamed = EventBatch(batch.records, SymbolTable(["A", "C"]), batch.sources)
    assert len({inspect(one) for one in (batch, changed, renamed, batch[:99])}) == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [("symbol", 7), ("source", 9), ("kind", 200), ("priority", 9), ("received", -1), ("timestamp", -1)],
)
def test_rows_that_no_reader_could_take_are_refused_before_anything_is_stored(field: str, value: int) -> None:
    batch = trades(3_000)
    batch.records[field][2_500] = value
    with pytest.raises(ValidationError):
        inspect(batch)


def test_texts_that_no_reader_could_take_are_refused() -> None:
    batch = EventBatch.from_events([OrderEvent(symbol="X", order_id="o", direction=Side.BUY, quantity=1.0)])
    batch.records["order_id"] = b"\xff\xfe"
    with pytest.raises(ValidationError, match="order_id"):
        inspect(batch)


@pytest.mark.parametrize("wrong", [0, -1, 65_537, 1.5, True, "8"])
def test_a_frame_size_out_of_bounds_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError, match="1 to 65,536"):
        check_frame_rows(wrong)  # type: ignore[arg-type]
