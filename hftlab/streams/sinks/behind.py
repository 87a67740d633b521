"""Write-behind: what was accepted goes to the server in the background, in order, each row once.

One append at a time through one named writer, whose rows the server counts. Whatever fails, the way on is the same: ask
the server how many of the writer's rows it has (which also ends calls that are still under way), and go on behind them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from hftlab.errors import (
    AppendConflict,
    BackgroundFailed,
    SessionSealed,
    StreamError,
    UnknownSession,
    ValidationError,
    WriterFenced,
)
from hftlab.events import EventBatch
from hftlab.streams.sinks.buffer import Buffer
from hftlab.streams.writers import AppendResult

# Nothing that is tried again can help: the session or the writer is not ours any more, or has lost what it had.
FINAL = (WriterFenced, UnknownSession, SessionSealed, AppendConflict)
# The writer has tried for its own deadline when it gives up; this is only against a loop without a pause.
_AGAIN_S = 0.1
# Frames of one append: more would make what is acknowledged known later, fewer would leave the connection idle.
_BURST_FRAMES = 16


class SinkWriter(Protocol):
    """What a sink needs of a named writer. ``streams.Writer`` is one."""

    async def append(self, batch: EventBatch) -> AppendResult:
        """Append all rows of a batch; returns once all are acknowledged."""
        ...

    async def settle(self) -> int:
        """How many rows were written under the name in all, once none is under way."""
        ...


Claim = Callable[[], Awaitable[SinkWriter]]


class WriteBehind:
    """Takes rows out of ``buffer``. ``work`` runs in the background, for as long as the sink is open.

    ``kept`` counts acknowledged rows, ``unstorable`` those that no reader could take. ``trouble`` is the latest failure
    in words while it lasts; ``failure`` is final. ``on_progress`` is called whenever rows left the buffer, and when the
    work has failed.
    """

    def __init__(
        self,
        claim: Claim,
        buffer: Buffer,
        *,
        flush_s: float,
        frame_rows: int,
        now_ns: Callable[[], int],
        on_progress: Callable[[], None],
    ) -> None:
        self.kept = self.unstorable = 0
        self.trouble = ""
        self.failure: Exception | None = None
        self.started = False
        self._claim, self._buffer, self._now_ns, self._on_progress = claim, buffer, now_ns, on_progress
        self._flush_ns, self._frame_rows = round(flush_s * 1e9), frame_rows
        self._wake = asyncio.Event()
        self._moved = asyncio.Event()  # set, and replaced, at every progress
        self._flush_to = 0  # up to this row, nothing waits for more
        self._ending = self._ended = False
        self._task: asyncio.Task[None] | None = None

    # -- rows in --------------------------------------------------------------------------------------------------

    def put(self, batch: EventBatch) -> None:
        """Take rows that were accepted. About 10 ns a row."""
        buffer = self._buffer
        waited = buffer.rows
        buffer.put(batch, self._now_ns())
        if not waited or buffer.rows >= self._frame_rows:
            self._wake.set()

    async def flush(self) -> None:
        """Return once every row that was put in before is acknowledged. Raises BackgroundFailed. Safe to cancel."""
        target = self._buffer.put_rows
        self._flush_to = max(self._flush_to, target)
        self._wake.set()
        while self._buffer.done_rows < target and self.failure is None and not self._ended:
            await self._moved.wait()
        if self.failure is not None and self._buffer.done_rows < target:
            raise BackgroundFailed(f"not all that was accepted is kept: {self.failure}") from self.failure

    async def close(self, deadline_s: float) -> int:
        """Flush for at most so long, and end the work; returns how many rows were given up."""
        self._ending = True
        self._wake.set()
        try:
            async with asyncio.timeout(deadline_s):
                await self.flush()
        except (TimeoutError, BackgroundFailed):
            pass  # what is left in the buffer says so
        self._ended = True
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        return self.give_up()

    def give_up(self) -> int:
        """Forget the rows that wait; returns how many. For work that has ended."""
        self._ended = True
        given_up = self._buffer.rows
        self._buffer.done(given_up)
        self._tell()
        return given_up

    # -- rows out -------------------------------------------------------------------------------------------------

    async def work(self) -> None:
        """Append what is put in until ``close``. Ends, with ``failure``, where nothing could be appended any more."""
        if self._ended:
            return
        self._task = asyncio.current_task()
        try:
            writer = await self._claimed()
            self.started = True
            while count := await self._due():
                await self._append(writer, self._buffer.front(count))
        except asyncio.CancelledError as error:
            if not self._ended:
                self.failure = BackgroundFailed(f"the sink's background task was cancelled: {error}")
                raise
        except Exception as error:
            self.failure = error
            # What a server or another writer did is the sink's state; anything else is a defect, and the lab's.
            if not isinstance(error, FINAL):
                raise
        finally:
            self._task = None
            self._tell()

    async def _claimed(self) -> SinkWriter:
        while True:
            try:
                return await self._claim()
            except FINAL:
                raise
            except StreamError as error:
                await self._pause(error)

    async def _due(self) -> int:
        """Wait until rows are to be appended, and return how many; 0: no more will come."""
        buffer = self._buffer
        while True:
            rows, age_ns = buffer.rows, buffer.age_ns(self._now_ns())
            most = _BURST_FRAMES * self._frame_rows
            if rows and (age_ns >= self._flush_ns or buffer.done_rows < self._flush_to):
                return min(rows, most)
            if rows >= self._frame_rows:
                return min(rows - rows % self._frame_rows, most)
            if not rows and self._ending:
                return 0
            self._wake.clear()
            timer = None
            if rows:
                timer = asyncio.get_running_loop().call_later((self._flush_ns - age_ns) / 1e9, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    async def _append(self, writer: SinkWriter, batch: EventBatch) -> None:
        """Append rows, but those that can't be stored: they are found by halves, since one of them stops all."""
        try:
            await self._append_storable(writer, batch)
        except ValidationError as error:
            if len(batch) > 1:
                half = len(batch) // 2
                await self._append(writer, batch[:half])
                await self._append(writer, batch[half:])
                return
            self.unstorable += 1
            self.trouble = f"an event can't be stored: {error}"
            self._buffer.done(1)
            self._tell()

    async def _append_storable(self, writer: SinkWriter, batch: EventBatch) -> None:
        start = await self._settled(writer)
        done = 0
        while done < len(batch):
            try:
                await writer.append(batch[done:])
                self.trouble = ""
            except FINAL:
                raise
            except StreamError as error:
                await self._pause(error)
            reached = await self._settled(writer) - start
            self.kept += reached - done
            self._buffer.done(reached - done)
            done = reached
            self._tell()

    async def _settled(self, writer: SinkWriter) -> int:
        while True:
            try:
                return await writer.settle()
            except FINAL:
                raise
            except StreamError as error:
                await self._pause(error)

    async def _pause(self, error: StreamError) -> None:
        self.trouble = f"{type(error).__name__}: {error}"
        await asyncio.sleep(_AGAIN_S)

    def _tell(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        self._on_progress()
