"""A run: one replay's, or one processor's, life on a bus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hftlab.bus.redelivery import Done
from hftlab.errors import BusError
from hftlab.events.batch import EventBatch
from hftlab.events.ports import DrivenClock, Work
from hftlab.events.types import Event
from hftlab.metrics.journeys import Journey
from hftlab.sequence import GapTable


@dataclass(frozen=True)
class Controls:
    """What a bus lets its run do."""

    offer: Callable[[EventBatch], int]
    work: Callable[[int, int], Work]
    settle: Callable[[], Awaitable[None]]
    withdraw: Callable[[], int]
    tell: Callable[[object], None]
    redeliver: Callable[[str, Event | EventBatch, Done | None], None]
    flush: Callable[[], None]
    finish: Callable[[], None]
    end: Callable[[], int]
    counts: Callable[[], tuple[int, int]]


class Run:
    """What ``EventBus.begin_run`` gives: only its holder feeds and drives the bus until ``end``.

    Rows keep their recorded order and stamps, handlers see ``clock``, batches are cut by the data alone and flushed by
    ``finish``. Everything but ``end`` raises BusError once the run has ended (its own holder, the bus's ``close``, or
    a later run may have ended it).
    """

    def __init__(
        self,
        name: str,
        clock: DrivenClock,
        controls: Controls,
        give_way: Callable[[], bool],
        gaps: GapTable | None = None,
        journey: Journey | None = None,
    ) -> None:
        self.journey = journey
        self.name = name
        self.clock = clock
        self.give_way = give_way
        self.gaps = gaps
        self._controls = controls
        self._begun_at = controls.counts()
        self._ended_at: tuple[int, int] | None = None

    @property
    def ended(self) -> bool:
        """Whether the run has left the bus."""
        return self._ended_at is not None

    @property
    def handled(self) -> int:
        """How many offered rows have been handled so far."""
        return (self._ended_at or self._controls.counts())[0] - self._begun_at[0]

    @property
    def emitted(self) -> int:
        """How many emitted rows have been dispatched so far."""
        return (self._ended_at or self._controls.counts())[1] - self._begun_at[1]

    def offer(self, batch: EventBatch) -> int:
        """Queue as many of the batch's first rows as have room; returns how many. Their ids must be the bus's tables'
        or translate into them; their stamps and values are taken as they are."""
        self._check()
        return self._controls.offer(batch)

    def work(self, max_rows: int, deadline_ns: int) -> Work:
        """Handle up to ``max_rows`` queued rows until ``perf_counter_ns`` passes ``deadline_ns``."""
        self._check()
        return self._controls.work(max_rows, deadline_ns)

    async def settle(self) -> None:
        """Await the async handler that holds the run up, if one does. Cancelling it cancels and fails that handler."""
        self._check()
        await self._controls.settle()

    def withdraw(self) -> int:
        """Take back all offered rows that no handler was given yet, and return how many: the last ones offered."""
        self._check()
        return self._controls.withdraw()

    def tell(self, notice: object) -> None:
        """Tell the handlers that subscribed to the notice's class, when all rows queued so far are handled."""
        self._check()
        self._controls.tell(notice)

    def redeliver(self, handler: str, event: Event | EventBatch, done: Done | None = None) -> None:
        """Give one handler an event, or a batch, once more: see ``EventBus.redeliver``.

        An async one is awaited in line. A run that ends before the call has ended tells ``done`` of that.
        """
        self._check()
        self._controls.redeliver(handler, event, done)

    def flush(self) -> None:
        """Have what batch handlers wait for delivered by the next ``work`` calls, full or not; the run goes on.

        Done when a ``work`` says that it is idle: then every row that was offered by then, and what it led to, has been
        through all handlers. Batches fill from their beginning after that, so where it is asked for decides where they
        are cut. Costs nothing where no batch handler waits.
        """
        self._check()
        self._controls.flush()

    def finish(self) -> None:
        """Say that no row will be offered any more: what batch handlers wait for is delivered by the next ``work``."""
        self._check()
        self._controls.finish()

    def end(self) -> int:
        """Leave the bus; returns how many rows were offered and not handled. Harmless when repeated.

        Raises BusBusy when a handler of the run calls it.
        """
        return 0 if self.ended else self._controls.end()

    def left(self) -> None:
        """Take note of the end; the bus calls it."""
        self._ended_at = self._controls.counts()

    def _check(self) -> None:
        if self.ended:
            raise BusError(f"{self.name} has left the bus: it was ended, or the bus was closed")

    def __repr__(self) -> str:
        return f"Run({self.name}{', ended' if self.ended else ''})"
