"""A run: one replay's, or one processor's, life on a bus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from hftlab.bus.dispatch import Dispatcher
from hftlab.events.batch import EventBatch
from hftlab.events.ports import DrivenClock, Work


class Run:
    """What ``EventBus.begin_run`` gives: only its holder feeds and drives the bus until ``end``.

    Rows keep their recorded order and stamps, handlers see ``clock``, windows of batch handlers are cut by the data
    alone and flushed by ``finish``.
    """

    def __init__(
        self,
        name: str,
        clock: DrivenClock,
        dispatcher: Dispatcher,
        offer: Callable[[EventBatch], int],
        settle: Callable[[], Awaitable[None]],
        end: Callable[[Run], int],
        give_way: Callable[[], bool],
    ) -> None:
        self.name = name
        self.clock = clock
        self._dispatcher = dispatcher
        self._offer, self._settle, self._end = offer, settle, end
        self._ended = False
        self.give_way = give_way

    def offer(self, batch: EventBatch) -> int:
        """Queue as many of the batch's first rows as have room; returns how many."""
        return self._offer(batch)

    def work(self, max_rows: int, deadline_ns: int) -> Work:
        """Handle up to ``max_rows`` queued rows until ``perf_counter_ns`` passes ``deadline_ns``."""
        return self._dispatcher.work(max_rows, deadline_ns)

    async def settle(self) -> None:
        """Await the async handler that holds the run up, if one does."""
        await self._settle()

    def finish(self) -> None:
        """Say that no row will be offered any more: what windows hold is delivered by the next ``work``."""
        self._dispatcher.flush_when_idle = True

    def end(self) -> int:
        """Leave the bus; returns how many rows were offered and not handled. Harmless when repeated."""
        if self._ended:
            return 0
        self._ended = True
        return self._end(self)

    def __repr__(self) -> str:
        return f"Run({self.name}{', ended' if self._ended else ''})"
