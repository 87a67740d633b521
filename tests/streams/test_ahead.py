"""Encoding ahead: in order, bounded, and what fails in the thread is raised where it is asked for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hftlab.streams.ahead import Ahead
from hftlab.streams.cutting import Chunk
from tests.streams.servers import until


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def chunk(index: int) -> Chunk:
    return Chunk(index, 1, 0, 0, 0, [], frozenset())


class Source:
    """Chunks 0, 1, 2, …; notes how many were made, and in which threads."""

    def __init__(self, count: int, fail_at: int | None = None) -> None:
        self.made = 0
        self.threads: set[int] = set()
        self._count = count
        self._fail_at = fail_at

    def __iter__(self) -> Iterator[Chunk]:
        for index in range(self._count):
            if index == self._fail_at:
                raise ValueError("this one can't be made")
            self.made += 1
            self.threads.add(threading.get_ident())
            yield chunk(index)


async def collect(ahead: Ahead, burst: int = 0) -> list[int]:
    found = []
    while (one := await ahead.next()) is not None:
        found += [one.start, *(more.start for more in ahead.take_ready(burst))]
    return found


@pytest.mark.parametrize("frame_rows", [1, 100, 1_024, 65_536])
@pytest.mark.parametrize("burst", [0, 3, 1_000])
async def test_chunks_come_in_order_however_many_are_taken_at_once(
    thread: ThreadPoolExecutor, frame_rows: int, burst: int
) -> None:
    source = Source(1_000)
    with Ahead(iter(source), 1_000 * frame_rows, frame_rows, lambda: thread) as ahead:
        assert await collect(ahead, burst) == list(range(1_000))
        assert await ahead.next() is None
    if 1_000 * frame_rows > 1_000:
        assert threading.get_ident() not in source.threads


async def test_few_rows_are_encoded_where_they_are(thread: ThreadPoolExecutor) -> None:
    source = Source(5)
    with Ahead(iter(source), 5, 1, lambda: thread) as ahead:
        assert await collect(ahead, 2) == list(range(5))
    assert source.threads == {threading.get_ident()}


async def test_it_does_not_run_ahead_without_bound(thread: ThreadPoolExecutor) -> None:
    source = Source(100_000)
    with Ahead(iter(source), 100_000 * 1_024, 1_024, lambda: thread) as ahead:
        await ahead.next()
        await until(lambda: source.made >= 64)
        await asyncio.wrap_future(thread.submit(lambda: None))
        assert source.made <= 64 + 3 * 8


async def test_what_fails_in_the_thread_is_raised_after_what_came_before_it(thread: ThreadPoolExecutor) -> None:
    with Ahead(iter(Source(100, fail_at=24)), 100 * 1_024, 1_024, lambda: thread) as ahead:
        seen = [await ahead.next() for _ in range(24)]
        assert [one.start for one in seen if one is not None] == list(range(24))
        for _ in range(2):
            with pytest.raises(ValueError, match="can't be made"):
                await ahead.next()


async def test_closing_stops_it(thread: ThreadPoolExecutor) -> None:
    source = Source(100_000)
    ahead = Ahead(iter(source), 100_000 * 1_024, 1_024, lambda: thread)
    ahead.close()
    ahead.close()
    await asyncio.wrap_future(thread.submit(lambda: None))
    assert source.made <= 2 * 8
