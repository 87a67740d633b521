"""Publishing: into the queues where there is room, else waiting for it in line."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from hftlab.bus.gate import Gate
from hftlab.bus.intake import PIECE_ROWS, Intake
from hftlab.bus.lanes import Lanes
from hftlab.bus.mailbox import Mailbox
from hftlab.bus.waiting import Signal, Turnstile
from hftlab.errors import BusFull
from hftlab.events.batch import EventBatch
from hftlab.events.records import EventType, Priority
from hftlab.events.types import Event

TURN_NS = 400_000
"""How long urgent events, handled as they are published, may keep the loop."""


class Publisher:
    """The ways in of a live bus; ``EventBus`` documents them. ``wake`` is for pumps, ``progress`` for who waits."""

    def __init__(self, lanes: Lanes, intake: Intake, gate: Gate, wake: Signal, progress: Signal) -> None:
        self.waits = 0
        # Called when a critical event was queued.
        self.work_now: Callable[[], None] = lambda: None
        # A line for each lane, so that an order never waits for room among quotes.
        self._lines = {level: Turnstile(progress) for level in lanes.by_level}
        self._lanes, self._intake, self._gate, self._wake, self._progress = lanes, intake, gate, wake, progress
        self._turned_ns = 0  # when the loop had its turn

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits for room."""
        return any(self._lines.values())

    async def publish(self, event: Event) -> None:
        """Queue one event; waits in line while there is no room."""
        self._gate.check_open()
        level = self._intake.level_of(event)
        gave_way = self._intake.gave_way
        if self._lines[level] or not self._push_event(event, level):
            self._refuse_if_told(event.event_type, level)
            await self._wait_for_room(level, lambda: self._push_event(event), "its queue is full")
        elif self._intake.gave_way != gave_way or (level is Priority.CRITICAL and self._is_turn_over()):
            # Nobody who publishes in a loop ever waits for room then: let the handlers have their turn.
            await asyncio.sleep(0)
            self._turned_ns = time.perf_counter_ns()

    def _is_turn_over(self) -> bool:
        """Whether events that are handled at once have kept the loop from its turn for long enough."""
        return time.perf_counter_ns() - self._turned_ns > TURN_NS

    def publish_nowait(self, event: Event) -> None:
        """Queue one event, or raise BusFull."""
        self._gate.check_open()
        level = self._intake.level_of(event)
        if not self._push_event(event, level):
            full = self._intake.keepers.full
            if full is not None:
                raise BusFull(f"{full!r} has no room for one more row; await bus.publish(event) waits for it")
            limit = self._intake.limit(event.event_type, level)
            raise BusFull(
                f"the {event.event_type.topic} queue of {level.name} has no room for one more row ({limit:,}); await "
                "bus.publish(event) waits for it"
            )

    def _refuse_if_told(self, event_type: EventType, level: Priority, taken: str = "") -> None:
        full = self._intake.keepers.full
        if full is not None:
            if full.refuses:
                raise BusFull(
                    f"{full!r} has no room, and was made with overflow='raise'{taken}: publish less, give it a larger "
                    "buffer, or have it wait (overflow='wait')"
                )
            return  # it is the one that makes its publishers wait, whatever the lanes would do
        if self._intake.raises(event_type, level):
            raise BusFull(
                f"the {event_type.topic} queue of {level.name} has no room, and bus.flow says overflow='raise'{taken}: "
                "publish less, or have it wait (overflow='wait')"
            )

    async def publish_batch(self, batch: EventBatch) -> int:
        """Queue all rows in order; waits in line while there is no room."""
        self._gate.check_open()
        left = self._intake.checked(batch)
        waiting = self._lanes.waiting
        level = self._intake.level_of_first(left)
        if not self._lines[level]:
            left = left[self._push(left) :]
            self.work_now()
        while len(left):
            # In the line of the row that has no room, which may be of another lane than the batch's first one.
            level = self._intake.level_of_first(left)
            taken = f"; the first {len(batch) - len(left):,} of {len(batch):,} rows were queued"
            self._refuse_if_told(EventType(int(left.records["type"][0])), level, taken)

            def push_more(level: Priority = level) -> bool:
                # Until all are in, or the next one waits for room in another lane.
                nonlocal left
                left = left[self._push(left) :]
                return not len(left) or self._intake.level_of_first(left) is not level

            await self._wait_for_room(level, push_more, f"{len(left):,} of {len(batch):,} rows have no room")
        if len(batch) and self._lanes.waiting == waiting:
            # Nothing of it is new, so no queue will ever fill and make its publisher wait: let the loop have its turn.
            await asyncio.sleep(0)
        return len(batch)

    def offer(self, batch: EventBatch) -> int:
        """Queue as many of the first rows as have room; returns how many."""
        self._gate.check_open()
        if isinstance(batch, EventBatch) and len(batch) > PIECE_ROWS:
            batch = batch[: self._intake.free]  # no more than that has room: nothing else needs to be looked at
        return self._push(self._intake.checked(batch))

    def _push_event(self, event: Event, level: Priority | None = None) -> bool:
        self._gate.check_open()
        pushed = self._intake.push_event(event, level)
        self._wake.notify()
        if level is Priority.CRITICAL:
            self.work_now()
        return pushed

    def _push(self, batch: EventBatch) -> int:
        taken = self._intake.push(batch)
        self._wake.notify()
        return taken

    async def _wait_for_room(self, level: Priority, push: Callable[[], bool], what: str) -> None:
        """Wait in line until ``push`` has pushed everything."""
        if self._gate.is_handler():
            # Whoever stands in line waits for the bus, which waits for this handler: it goes first, or not at all.
            if push():
                return
            mailbox = self._gate.mailbox
            if not isinstance(mailbox, Mailbox):
                raise BusFull(f"{what}, and the bus waits for this handler: return what it should emit instead")
            await self._wait_as_handler(mailbox, level, push, what)
            return

        def push_in_turn() -> bool:
            self._gate.check_open()
            if push():
                return True
            self._refuse_if_undriven(what)
            return False

        self.waits += 1
        await self._lines[level].wait_until(push_in_turn)

    async def _wait_as_handler(self, mailbox: Mailbox, level: Priority, push: Callable[[], bool], what: str) -> None:
        """Wait for room, but only as long as the lane that has to make it does not wait for this very handler.

        In no line: whoever stands before it there might wait for the same lane, and nobody would look.
        """
        self.waits += 1
        mailbox.wants_room_in = level
        try:
            while not push():
                self._gate.check_open()
                self._refuse_if_undriven(what)
                if self._lanes.is_in_its_own_way(mailbox):
                    raise BusFull(
                        f"{what}, and the lane waits for room in this handler's own queue: return what it should emit "
                        "instead, or give it a longer queue="
                    )
                await self._progress.wait()
        finally:
            mailbox.wants_room_in = None

    def _refuse_if_undriven(self, what: str) -> None:
        if not self._gate.pumps:
            raise BusFull(
                f"{what}, and nothing empties the queues: start the lab (await lab.start()), or call bus.do_work() "
                "between smaller batches"
            )
