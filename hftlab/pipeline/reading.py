"""``Readers``: a task a stream, each reading ahead of the merge by no more than the bus gives credit for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from hftlab.errors import GroupLost, GroupTaken, ServerRefused, ServerUnreachable, StreamError
from hftlab.events.group_ports import GroupConsumer, GroupPage
from hftlab.events.records import EventType
from hftlab.pipeline.merging import StreamMerge

AHEAD_ROWS = 65_536
"""How many rows of a stream wait for the merge, at most, before it is read on: 8 MB."""

PAGE_ROWS = 32_768

_WAIT_S = 1.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0


class Readers:
    """Keeps ``merge`` filled. ``on_page`` is told of each page that was read, ``wake`` of anything that changed.

    A server that does not answer, or refuses, is tried again for as long as it takes (``trouble`` says what is wrong).
    That the group was taken over, or is gone, ends the reading: ``failure``.
    """

    def __init__(
        self,
        consumer: GroupConsumer,
        merge: StreamMerge,
        on_page: Callable[[EventType, GroupPage], None],
        wake: Callable[[], None],
    ) -> None:
        self.failure: StreamError | None = None
        self.trouble: StreamError | None = None
        self.away = 0
        self._consumer, self._merge = consumer, merge
        self._on_page, self._wake = on_page, wake
        self._nudges = {one: asyncio.Event() for one in sorted(consumer.types)}
        self._room = {one: asyncio.Event() for one in sorted(consumer.types)}

    def begin(self) -> list[asyncio.Task[None]]:
        """Begin to read; one task a stream, which the caller cancels."""
        return [asyncio.create_task(self._read(one), name=f"processor: read {one.topic}") for one in self._nudges]

    def nudge(self, types: Iterable[EventType]) -> None:
        """Read these streams again now: somebody wants to know how far they are."""
        for one in types:
            self._nudges[one].set()

    def taken(self) -> None:
        """Say that rows were taken out of the merge."""
        for one, room in self._room.items():
            if self._merge.waiting(one) < AHEAD_ROWS:
                room.set()

    def credits(self, event_type: EventType) -> int:
        """How many more rows of a stream may be read now."""
        return max(AHEAD_ROWS - self._merge.waiting(event_type), 0)

    async def _read(self, event_type: EventType) -> None:
        waiter: asyncio.Task[None] | None = None
        pause_s = _FIRST_PAUSE_S
        try:
            while self.failure is None:
                credits = self.credits(event_type)
                if not credits:
                    self._room[event_type].clear()
                    await self._room[event_type].wait()
                    continue
                self._nudges[event_type].clear()
                try:
                    page = await self._consumer.read(event_type, min(credits, PAGE_ROWS))
                    if waiter is not None and waiter.done():
                        done, waiter = waiter, None
                        done.result()
                    elif not page.entries and waiter is None:
                        waiter = asyncio.create_task(self._consumer.wait(event_type, _WAIT_S))
                except (GroupTaken, GroupLost) as error:
                    self._fail(error)
                    return
                except (ServerUnreachable, ServerRefused) as error:
                    self.trouble = error
                    self.away += 1
                    self._wake()
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                    continue
                except StreamError as error:
                    self._fail(error)
                    return
                self.trouble, pause_s = None, _FIRST_PAUSE_S
                self._merge.put(event_type, page.batches, page.reached, page.trimmed)
                self._on_page(event_type, page)
                if not page.entries and waiter is not None:
                    await self._more(event_type, waiter)
        finally:
            if waiter is not None:
                waiter.cancel()

    async def _more(self, event_type: EventType, waiter: asyncio.Task[None]) -> None:
        """Wait until the stream may have more, or somebody wants to know. A nudge leaves the waiter as it is: to end
        its blocking read would cost a connection."""
        nudged = asyncio.create_task(self._nudges[event_type].wait())
        try:
            await asyncio.wait((waiter, nudged), return_when=asyncio.FIRST_COMPLETED)
        finally:
            nudged.cancel()

    def _fail(self, error: StreamError) -> None:
        self.failure = error
        self._wake()
