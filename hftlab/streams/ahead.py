"""Encoding ahead of the socket, in a thread beside it: compression is most of an append's work."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from itertools import islice
from types import TracebackType
from typing import Self

from hftlab.streams.cutting import Chunk

# Rows that are encoded where they are: a thread's round trip costs as much as some hundred rows.
INLINE_ROWS = 256
# Rows that one visit to the thread encodes: about 1 ms of work, against 0.1 ms for the visit.
_VISIT_ROWS = 8_192
# Rows that may wait, encoded: enough that the thread never waits for the socket, and 1 MB at most.
_AHEAD_ROWS = 65_536
# Visits that are under way or queued: when one ends, the thread goes on at once, whatever the loop is busy with.
_VISITS = 2


class Ahead:
    """Chunks in order, made before they are asked for. Close it when the rest is not wanted.

    ``thread`` gives an executor of one thread, so that visits take from the source one after the other.
    """

    def __init__(self, source: Iterator[Chunk], rows: int, frame_rows: int, thread: Callable[[], Executor]) -> None:
        self._source = source
        self._thread = thread
        self._ready: deque[Chunk] = deque()
        self._visits: set[asyncio.Future[list[Chunk]]] = set()
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._error: BaseException | None = None
        self._visit_chunks = max(1, _VISIT_ROWS // frame_rows)
        self._most_chunks = max(2, _AHEAD_ROWS // frame_rows)
        self._inline = rows <= INLINE_ROWS
        if not self._inline:
            self._start()

    async def next(self) -> Chunk | None:
        """The next chunk, None at the end. Raises what making it raised."""
        if self._inline:
            return next(self._source, None)
        while not self._ready:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        chunk = self._ready.popleft()
        self._start()
        return chunk

    def take_ready(self, most: int) -> list[Chunk]:
        """Up to ``most`` more chunks that are there already."""
        if self._inline:
            return list(islice(self._source, most))
        taken = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
        self._start()
        return taken

    def close(self) -> None:
        """Forget what is under way. The thread ends its visit by itself; nobody else touches the source any more."""
        self._ended = True
        for visit in list(self._visits):
            visit.cancel()

    def _start(self) -> None:
        while not self._ended and len(self._visits) < _VISITS and len(self._ready) < self._most_chunks:
            loop = asyncio.get_running_loop()
            visit = loop.run_in_executor(self._thread(), _take, self._source, self._visit_chunks)
            self._visits.add(visit)
            visit.add_done_callback(self._done)

    def _done(self, visit: asyncio.Future[list[Chunk]]) -> None:
        self._visits.discard(visit)
        if visit.cancelled() or self._error is not None:
            return
        self._error = visit.exception()
        if self._error is None:
            made = visit.result()
            self._ready.extend(made)
            self._ended = self._ended or not made
            self._start()
        else:
            self._ended = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _take(source: Iterator[Chunk], count: int) -> list[Chunk]:
    return list(islice(source, count))
