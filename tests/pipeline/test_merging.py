"""Streams that are read page by page, in any order, come out as the log has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.events import EventBatch, EventType, Kind
from hftlab.events.records import blank
from hftlab.pipeline.merging import Hole, StreamMerge
from tests.pipeline.samples import trades

M, O, F, S = EventType  # noqa: E741  # one letter a stream makes a log readable: "MMOSF"
ALL = frozenset(EventType)


def rows_of(event_type: EventType, logs: Sequence[int]) -> EventBatch:
    rows = blank(len(logs), event_type)
    rows["log_sequence"] = logs
    rows["received"] = np.array(logs, np.int64) + 1
    if event_type is M:
        rows["kind"] = Kind.TRADE
    return EventBatch(rows, session_number=3)


@dataclass
class Reader:
    """One stream: what of it was not put yet."""

    event_type: EventType
    logs: list[int]

    def put(self, merge: StreamMerge, rows: int, events: int) -> None:
        """Read a page, as a group's member reads it: the end of the stream is the end of the session."""
        given, self.logs = self.logs[:rows], self.logs[rows:]
        reached = events if not self.logs and len(given) < rows else given[-1] + 1 if given else 0
        merge.put(self.event_type, [rows_of(self.event_type, given)] if given else [], reached)


@dataclass
class Log:
    """A session: ``types[n]`` is that of log sequence n; ``gone`` rows are not there any more."""

    types: list[EventType]
    gone: frozenset[int]
    begin: int = 0
    held: tuple[int, ...] = ()
    read: frozenset[EventType] = ALL

    @property
    def due(self) -> list[int]:
        wanted = [*self.held, *range(self.begin, len(self.types))]
        return [log for log in wanted if log not in self.gone and self.types[log] in self.read]

    @property
    def missing(self) -> list[int]:
        if self.read != ALL:
            return []
        return [log for log in [*self.held, *range(self.begin, len(self.types))] if log in self.gone]

    def readers(self) -> dict[EventType, Reader]:
        return {one: Reader(one, [log for log in self.due if self.types[log] is one]) for one in sorted(self.read)}


@st.composite
def logs(draw: st.DrawFn) -> Log:
    types = draw(st.lists(st.sampled_from(sorted(EventType)), max_size=40))
    numbers = list(range(len(types)))
    some = st.frozensets(st.sampled_from(numbers)) if numbers else st.just(frozenset())
    begin = draw(st.integers(0, len(types)))
    read = draw(st.just(ALL) | st.frozensets(st.sampled_from(sorted(EventType)), min_size=1))
    before = sorted(log for log in draw(some) if log < begin and types[log] in read)
    gone = draw(some | st.just(frozenset()))
    # Runs of what is gone, at the head and at the end too, as retention leaves it.
    low, high = draw(st.integers(0, len(types))), draw(st.integers(0, len(types)))
    return Log(types, gone | frozenset(range(low, high)), begin, tuple(before), read)


@dataclass
class Found:
    """What came out of a merge; each piece is checked as it comes."""

    rows: list[int] = field(default_factory=list)
    holes: list[int] = field(default_factory=list)

    def take(self, merge: StreamMerge, most: int) -> bool:
        before = merge.position
        batch, holes = merge.take(most)
        if batch is not None:
            logs = batch.records["log_sequence"].tolist()
            assert logs == sorted(logs)
            assert len(logs) <= max(most, 1)
            self.rows += logs
        for hole in holes:
            assert hole.rows > 0
            self.holes += range(hole.first, hole.last + 1)
        assert merge.position >= before
        return batch is not None or bool(holes) or merge.position > before


@settings(max_examples=200)
@given(logs(), st.data())
def test_rows_come_once_and_in_order_with_all_holes_told_however_pages_arrive(log: Log, data: st.DataObject) -> None:
    merge, found, readers = StreamMerge(log.read, log.begin, log.held), Found(), log.readers()
    events = len(log.types)
    steps = data.draw(st.lists(st.tuples(st.sampled_from(sorted(log.read)), st.integers(0, 6), st.integers(1, 9))))
    for event_type, rows, most in steps:
        if rows:
            readers[event_type].put(merge, rows, events)
        found.take(merge, most)
        # Nothing comes before what can still come.
        unread = [row for reader in readers.values() for row in reader.logs]
        assert not found.rows or not unread or found.rows[-1] < min(unread, default=events)
        # Whatever lies before the position was taken or told, and nothing beyond it was.
        assert [row for row in log.due if log.begin <= row < merge.position] == [
            row for row in found.rows if row >= log.begin
        ]
        assert sum(map(merge.waiting, sorted(log.read))) == len(log.due) - len(unread) - len(found.rows)
    # From here on streams are read only where the merge asks for it, while it has rows, and it never gets stuck.
    rows = data.draw(st.integers(1, 5))
    for _ in range(4 * events + 20):
        if found.take(merge, rows + 2):
            continue
        if merge.empty and merge.mark >= events:
            break
        behind = merge.behind if not merge.empty else list(readers)
        assert behind, "nothing can be taken, and no stream is asked for"
        for one in behind:
            readers[one].put(merge, rows, events)
    assert found.rows == log.due
    assert sorted(found.holes) == log.missing
    assert merge.position == max(events, log.begin)
    assert merge.empty


@given(logs())
def test_all_pages_at_once_come_out_in_one_piece(log: Log) -> None:
    merge, found = StreamMerge(log.read, log.begin, log.held), Found()
    for reader in log.readers().values():
        reader.put(merge, 1 << 20, len(log.types))
    while found.take(merge, 1 << 20):
        pass
    assert (found.rows, sorted(found.holes)) == (log.due, log.missing)
    assert merge.position == max(len(log.types), log.begin)


def test_the_next_row_goes_on_though_nothing_is_known_of_the_other_streams() -> None:
    merge = StreamMerge(ALL, 5)
    merge.put(M, [rows_of(M, [5, 6, 7])], 8)
    taken = merge.take()
    assert taken.batch is not None
    assert taken.batch.records["log_sequence"].tolist() == [5, 6, 7]
    assert (taken.holes, merge.position) == ((), 8)


def test_a_row_behind_one_that_may_still_come_waits_and_says_whom_to_ask() -> None:
    merge = StreamMerge(ALL, 0)
    merge.put(M, [rows_of(M, [0, 2])], 3)
    first = merge.take()
    assert first.batch is not None
    assert first.batch.records["log_sequence"].tolist() == [0]
    assert merge.take() == (None, ())
    assert merge.behind == [O, F, S]
    merge.put(F, [], 3)
    merge.put(S, [], 3)
    assert merge.behind == [O]
    merge.put(O, [rows_of(O, [1])], 2)
    second = merge.take()
    assert second.batch is not None
    assert second.batch.records["log_sequence"].tolist() == [1, 2]


def test_what_all_streams_are_known_to_lack_is_a_hole() -> None:
    merge = StreamMerge(ALL, 10, held=(3, 4, 8))
    for one in ALL:
        merge.put(one, [rows_of(one, [4])] if one is S else [], 4)
    assert merge.take(1).holes == ()
    for one in ALL:
        merge.put(one, [], 20)
    holes = list(merge.take().holes)
    holes += merge.take().holes
    assert sorted(holes) == [Hole(3, 3), Hole(8, 8), Hole(10, 19)]
    assert merge.position == 20


def test_holes_are_not_told_where_other_streams_are_not_read() -> None:
    merge = StreamMerge({M}, 0)
    merge.put(M, [rows_of(M, [3, 9])], 12)
    taken = merge.take()
    assert taken.batch is not None
    assert (len(taken.batch), taken.holes, merge.position) == (2, (), 12)


def test_one_stream_goes_through_without_a_copy() -> None:
    batch = trades(list(range(100)))
    merge = StreamMerge(ALL, 0)
    merge.put(M, [batch], 100)
    pieces = [merge.take(64).batch, merge.take(64).batch]
    assert [len(piece) for piece in pieces if piece is not None] == [64, 36]
    assert all(piece is not None and np.shares_memory(piece.records, batch.records) for piece in pieces)


def test_batches_without_rows_are_no_rows() -> None:
    merge = StreamMerge({M}, 0)
    merge.put(M, [trades([])], 7)
    assert merge.empty
    assert merge.take() == (None, ())
    assert merge.position == 7


@pytest.mark.parametrize("types", [frozenset(EventType), frozenset({EventType.MARKET_DATA})])
def test_of_an_entry_that_retention_reached_into_the_first_rows_are_gone(types: frozenset[EventType]) -> None:
    """So that what is handled and what is told to be lost are all there was, and nothing is both."""
    rows = trades(list(range(10, 30)))
    merge = StreamMerge(types, begin=5)
    for one in types:
        merge.put(one, (rows,) if one is EventType.MARKET_DATA else (), 30, 15)
    taken = merge.take()
    assert taken.batch is not None
    assert taken.batch.records["log_sequence"].tolist() == list(range(15, 30))
    assert [(hole.first, hole.last) for hole in taken.holes] == [(5, 14)]
    assert merge.position == 30
