"""A producer: one who publishes under a limit of its own, so that nobody floods a bus that others use too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hftlab.events.batch import EventBatch
from hftlab.events.types import Event
from hftlab.flow import Throttle, ThrottleStatistics

if TYPE_CHECKING:
    from hftlab.bus.bus import EventBus


class Producer:
    """Publishes on ``bus`` at most ``throttle`` lets through; ``EventBus.producer`` makes it.

    A token an event, and a slot a call that is under way. What waits here takes no room in the bus's queues.
    """

    def __init__(self, name: str, bus: EventBus, throttle: Throttle) -> None:
        self.name = name
        self.published = 0
        self._bus, self._throttle = bus, throttle

    async def publish(self, event: Event) -> None:
        """Publish one event when it is its turn. Raises like ``EventBus.publish``; safe to cancel, as that is."""
        async with self._throttle.slot():
            await self._throttle.acquire(1)
            await self._bus.publish(event)
            self.published += 1

    async def publish_batch(self, batch: EventBatch) -> int:
        """Publish a batch, in order, burst by burst; returns its length. Raises like ``EventBus.publish_batch``."""
        step = self._throttle.burst or max(len(batch), 1)
        async with self._throttle.slot():
            for begin in range(0, len(batch), step):
                piece = batch[begin : begin + step]
                await self._throttle.acquire(len(piece))
                self.published += await self._bus.publish_batch(piece)
        return len(batch)

    def statistics(self) -> ThrottleStatistics:
        """What was granted, and how long it waited."""
        return self._throttle.statistics()

    def __repr__(self) -> str:
        return f"Producer({self.name}: {self.published:,} published; {self._throttle!r})"
