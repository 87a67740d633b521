"""The merge of ordered streams is what sorting would give, as early as it can be known and not earlier."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.events import EventBatch, EventType, SourceTable, SymbolTable
from hftlab.events.merge import LogMerge, merge
from hftlab.events.records import DTYPES, blank

SYMBOLS, SOURCES = SymbolTable(["A"]), SourceTable()
TYPES = list(EventType)


def batch_of(stream: int, logs: list[int]) -> EventBatch:
    """Rows of the type that goes with a stream's number."""
    rows = blank(len(logs), TYPES[stream % len(TYPES)])
    rows["log_sequence"] = logs
    rows["part"] = stream
    return EventBatch(rows, SYMBOLS, SOURCES, session_number=7)


def logs_of(batch: EventBatch) -> list[int]:
    found: list[int] = batch.records["log_sequence"].tolist()
    return found


@st.composite
def streams(draw: st.DrawFn) -> list[list[list[int]]]:
    """For each stream its batches, which together number some of 0, 1, 2 … without a number twice."""
    count = draw(st.integers(1, 4))
    owners = draw(st.lists(st.integers(0, count), max_size=40))
    made = []
    for stream in range(count):
        logs = [log for log, owner in enumerate(owners) if owner == stream]
        cuts = sorted(draw(st.lists(st.integers(0, len(logs)), max_size=4)))
        edges = [0, *cuts, len(logs)]
        made.append([logs[begin:end] for begin, end in pairwise(edges)])
    return made


@given(streams(), st.data())
def test_all_rows_come_out_in_order_and_none_before_it_is_certain(
    batches: list[list[list[int]]], data: st.DataObject
) -> None:
    merging = LogMerge(len(batches))
    waiting = [list(stream) for stream in batches]
    closed = [False] * len(batches)
    put: list[list[int]] = [[] for _ in batches]
    taken: list[int] = []
    while not all(closed) or merging.hungry:
        stream = data.draw(st.integers(0, len(batches) - 1))
        if waiting[stream]:
            logs = waiting[stream].pop(0)
            merging.put(stream, batch_of(stream, logs))
            put[stream] += logs
        elif not closed[stream]:
            merging.close(stream)
            closed[stream] = True
        taken += drained(merging, put, closed, taken)
    taken += drained(merging, put, closed, taken)
    assert taken == sorted(log for stream in batches for logs in stream for log in logs)


def drained(merging: LogMerge, put: list[list[int]], closed: list[bool], before: list[int]) -> list[int]:
    """What is due now. A model says how far that may go, and must: to the least of what open streams have shown."""
    taken: list[int] = []
    while (due := merging.take()) is not None:
        assert len(due)
        assert due.session_number == 7
        assert all(part < len(put) for part in due.column("part"))
        taken += logs_of(due)
    every = sorted(log for stream in put for log in stream)
    bounds = [stream[-1] if stream else -1 for stream, is_closed in zip(put, closed, strict=True) if not is_closed]
    certain = [log for log in every if not bounds or log <= min(bounds)]
    assert before + taken == certain
    assert bool(merging.hungry) is bool(bounds)
    return taken


@given(streams())
async def test_async_streams_merge_into_the_same(batches: list[list[list[int]]]) -> None:
    ended: list[int] = []

    async def stream(index: int) -> AsyncIterator[EventBatch]:
        try:
            for logs in batches[index]:
                yield batch_of(index, logs)
        finally:
            ended.append(index)

    taken: list[int] = []
    async for due in merge([stream(index) for index in range(len(batches))]):
        taken += logs_of(due)
    assert taken == sorted(log for stream in batches for logs in stream for log in logs)
    assert sorted(ended) == list(range(len(batches)))


async def test_a_merge_that_is_left_early_closes_its_streams() -> None:
    ended: list[int] = []

    async def stream(index: int) -> AsyncIterator[EventBatch]:
        try:
            for log in range(index, 100, 2):
                yield batch_of(index, [log])
        finally:
            ended.append(index)

    merged = merge([stream(0), stream(1)])
    assert logs_of(await anext(merged)) == [0]
    await merged.aclose()  # type: ignore[attr-defined]
    assert sorted(ended) == [0, 1]


async def test_an_error_in_one_stream_ends_the_merge_and_closes_the_others() -> None:
    ended: list[int] = []

    async def sound() -> AsyncIterator[EventBatch]:
        try:
            yield batch_of(0, [0])
            yield batch_of(0, [2])
        finally:
            ended.append(0)

    async def broken() -> AsyncIterator[EventBatch]:
        yield batch_of(1, [1])
        raise ConnectionError("gone")

    merged = merge([sound(), broken()])
    assert [logs_of(await anext(merged)), logs_of(await anext(merged))] == [[0], [1]]
    with pytest.raises(ConnectionError, match="gone"):
        await anext(merged)
    assert ended == [0]


def test_one_stream_passes_through_without_a_copy() -> None:
    merging = LogMerge(2)
    merging.close(1)
    first, second = batch_of(0, [0, 1]), batch_of(0, [5])
    merging.put(0, first)
    merging.put(0, second)
    assert merging.take() is first
    assert merging.take() is second
    assert merging.take() is None
    assert merging.hungry == [0]
    merging.close(0)
    assert merging.take() is None
    assert merging.hungry == []


def test_a_stream_far_behind_another_passes_in_views() -> None:
    merging = LogMerge(2)
    merging.put(1, batch_of(1, [1_000]))
    market = batch_of(0, list(range(100)))
    merging.put(0, market)
    due = merging.take()
    assert due is not None
    assert due.type is EventType.MARKET_DATA
    assert np.shares_memory(due.records, market.records)


def test_rows_of_one_type_from_two_streams_keep_their_dtype() -> None:
    merging = LogMerge(8)
    for stream in (1, 2, 3, 5, 6, 7):
        merging.close(stream)
    merging.put(0, batch_of(0, [0, 2, 5]))
    merging.put(4, batch_of(4, [1, 3]))
    due = merging.take()
    assert due is not None
    assert logs_of(due) == [0, 1, 2, 3]
    assert due.records.dtype == DTYPES[EventType.MARKET_DATA]


def test_a_stream_that_goes_back_or_on_after_its_end_is_refused() -> None:
    merging = LogMerge(2)
    merging.put(0, batch_of(0, [3, 4]))
    for logs in ([4], [0, 9]):
        with pytest.raises(ValidationError, match=f"goes on after log sequence 4; got a batch from {logs[0]}"):
            merging.put(0, batch_of(0, logs))
    merging.close(0)
    merging.put(0, batch_of(0, []))
    with pytest.raises(ValidationError, match="its end"):
        merging.put(0, batch_of(0, [9]))
