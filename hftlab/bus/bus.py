"""``EventBus``: bounded queues in memory, one a type, and the duty cycle that takes their rows through the handlers."""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from hftlab.bus.dispatch import Dispatcher
from hftlab.bus.failures import FailureLog
from hftlab.bus.queues import Backlog
from hftlab.bus.run import Run
from hftlab.bus.subscriptions import DEFAULT_BATCH_ROWS, Mode, Subscription, Where, make_subscription
from hftlab.clock import Clock, SystemClock
from hftlab.errors import BusBusy, BusClosed, BusFull
from hftlab.events.batch import EventBatch
from hftlab.events.ports import DrivenClock, Observer, Work
from hftlab.events.records import EventType, Flags, Rows
from hftlab.events.rowbytes import copy_rows
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.events.types import Event

DEFAULT_CAPACITY = 1 << 16
SLICE_NS = 400_000
"""How long a slice of the pump lasts: long enough to cost nothing, short enough that the kernel never feels it."""

H = TypeVar("H", bound=Callable[..., Any])


@dataclass(frozen=True)
class BusStatistics:
    """Counts since the bus was made. published = handled + waiting + dropped."""

    published: int
    handled: int
    waiting: int
    dropped: int
    emitted: int
    emissions_refused: int
    failures: int
    waits: int
    capacity: int
    subscriptions: int
    run: str


class EventBus:
    """Events in, handlers called, in total order; memory only, bounded, for one thread (the loop's).

    ``capacity`` is the rows each type's queue holds (a power of two; or a dict by EventType). ``clock`` stamps events
    that bring no time. Nothing runs by itself: ``do_work`` does a bounded slice, ``pump`` calls it in a loop, and a
    ``Lab`` keeps a pump going. A handler that raises stops neither the bus nor other handlers: see ``failures``.
    """

    def __init__(
        self, *, capacity: int | dict[EventType, int] = DEFAULT_CAPACITY, clock: Clock | None = None, name: str = "bus"
    ) -> None:
        sizes = capacity if isinstance(capacity, dict) else dict.fromkeys(EventType, capacity)
        self.name = name
        self.symbols = SymbolTable()
        self.sources = SourceTable()
        self.clock: Clock = clock or SystemClock()
        self.failures = FailureLog()
        self._backlog = Backlog({t: sizes.get(t, DEFAULT_CAPACITY) for t in EventType})
        self._dispatcher = Dispatcher(self._backlog, self.failures, self.symbols, self.sources, self.clock)
        self._subscriptions: dict[str, Subscription] = {}
        self._run: Run | None = None
        self._closed = False
        self._working = False
        self._published = self._dropped = self._waits = 0
        self._live_clock: Clock = self.clock
        self._pumps = 0
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()

    # -- subscribing ----------------------------------------------------------------------------------------------

    def on(
        self,
        *what: type[Event] | EventType | str,
        symbol: str | None = None,
        where: Where | None = None,
        mode: Mode | None = None,
        name: str | None = None,
        batch_rows: int = DEFAULT_BATCH_ROWS,
    ) -> Callable[[H], H]:
        """Decorate a handler. ``what``: event classes (none: all), or one topic such as ``"market.BTC*"``.

        The handler's parameters decide how it is called: names of fields (``price, volume``) get just those values;
        one parameter of another name gets the event object; ``mode="batch"`` gets an EventBatch of up to
        ``batch_rows`` rows, zero-copy, valid during the call. ``symbol`` is a symbol or a pattern with ``*`` and ``?``,
        ``where`` a function from records (a structured array) to a boolean array. What the handler returns (an Event,
        an iterable of Events, an EventBatch) is emitted: dispatched before the next published event. Async handlers
        are awaited in order.

        Running a cell again replaces the handler of the same module, qualified name, types and symbol (or ``name``).
        Raises ValidationError.
        """

        def register(handler: H) -> H:
            self.subscribe(handler, *what, symbol=symbol, where=where, mode=mode, name=name, batch_rows=batch_rows)
            return handler

        return register

    def subscribe(
        self, handler: Callable[..., Any], *what: type[Event] | EventType | str, **options: Any
    ) -> Subscription:
        """Register a handler as ``on`` does, and return its Subscription (for ``cancel``, and for its counts)."""
        subscription = make_subscription(handler, *what, **options)
        if subscription.mode == "batch":
            for event_type in sorted(subscription.types):
                self._backlog.queues[event_type].subscribe(subscription)
        replaced = self._subscriptions.get(subscription.name)
        if replaced is not None:
            self._detach(replaced)
        # A handler that replaces another takes its place in the order: a dict keeps the place of a key.
        self._subscriptions[subscription.name] = subscription
        self._rearrange()
        return subscription

    def cancel(self, subscription: Subscription | str) -> None:
        """End a subscription (or the one of that name); one that has ended is left alone."""
        name = subscription if isinstance(subscription, str) else subscription.name
        found = self._subscriptions.pop(name, None)
        if found is not None:
            self._detach(found)
            self._rearrange()

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """All subscriptions, in the order in which handlers are called."""
        return tuple(self._subscriptions.values())

    def _detach(self, subscription: Subscription) -> None:
        for queue in self._backlog.queues.values():
            queue.unsubscribe(subscription)

    def _rearrange(self) -> None:
        handlers: dict[EventType, list[Subscription]] = {}
        for subscription in self._subscriptions.values():
            if subscription.mode != "batch":
                for event_type in subscription.types:
                    handlers.setdefault(event_type, []).append(subscription)
        self._dispatcher.handlers = handlers
        self._dispatcher.plan_again()

    # -- publishing -----------------------------------------------------------------------------------------------

    async def publish(self, event: Event) -> None:
        """Queue one event; waits while its queue is full. About 3 µs. Safe to cancel: the event is queued or not.

        Raises HandlerFailed for a handler's failure since the last call, BusClosed, BusBusy, ValidationError.
        """
        await self.publish_batch(EventBatch.from_events([event]))

    def publish_nowait(self, event: Event) -> None:
        """Queue one event, or raise BusFull."""
        self.failures.raise_first()
        if not self.offer(EventBatch.from_events([event])):
            raise BusFull(
                f"the {event.event_type.topic} queue has no room for one more row "
                f"({self._backlog.queues[event.event_type].capacity:,}); await bus.publish(event) waits for it"
            )

    async def publish_batch(self, batch: EventBatch) -> int:
        """Queue a batch in order; waits while a queue is full. Returns its length. About 10 ns a row.

        Cancelling it leaves the rows queued that had room. Raises like ``publish``.
        """
        self.failures.raise_first()
        done = self.offer(batch)
        while done < len(batch):
            if not self._pumps:
                raise BusFull(
                    f"{len(batch) - done:,} of {len(batch):,} rows have no room, and nothing empties the queues: start "
                    "the lab (await lab.start()), or call bus.do_work() between smaller batches"
                )
            self._waits += 1
            await self._next_progress()
            done += self.offer(batch[done:])
        return len(batch)

    def offer(self, batch: EventBatch) -> int:
        """Queue as many of the batch's first rows as have room, and return how many. Never waits.

        Raises BusClosed, and BusBusy while a run that is not the caller's is on the bus.
        """
        if self._run is not None:
            raise BusBusy(f"{self._run.name} is on this bus; publish when it has ended, or use a bus of its own")
        return self._offer(batch)

    def _offer(self, batch: EventBatch) -> int:
        if self._closed:
            raise BusClosed("this bus was closed; make a new one (or a new Lab)")
        if not len(batch):
            return 0
        records = batch.using(self.symbols, self.sources).records
        if self._run is None:
            records = self._stamped(records)
        taken = self._backlog.push(np.ascontiguousarray(records), batch.session_number)
        self._published += taken
        if taken:
            self._wake.set()
        return taken

    def _stamped(self, records: Rows) -> Rows:
        unstamped = records["received"] == 0
        if not unstamped.any():
            return records
        records = copy_rows(np.ascontiguousarray(records))
        records["received"][unstamped] = self.clock.now_ns()
        untimed = records["timestamp"] == 0
        records["timestamp"][untimed] = records["received"][untimed]
        records["flags"][untimed] |= np.uint16(Flags.ARRIVAL_TIME)
        return records

    # -- working --------------------------------------------------------------------------------------------------

    def do_work(self, max_events: int = 1 << 62, *, max_ns: int = SLICE_NS) -> Work:
        """Handle up to ``max_events`` published events, with all that they lead to, for about ``max_ns``.

        Synchronous: call it from anywhere on the bus's thread, but from no handler. An async handler that waits ends
        the slice (``awaiting``); ``await bus.settle()`` then. Where slices end changes nothing of what is delivered.
        """
        if self._working:
            raise BusBusy("do_work was called from a handler; return the events that it should emit instead")
        self._working = True
        try:
            work = self._dispatcher.work(max_events, time.perf_counter_ns() + max_ns)
        finally:
            self._working = False
        if work.handled or work.idle:
            self._progress.set()
        return work

    async def settle(self) -> None:
        """Await the async handler that holds the bus up, if one does. Cancelling it cancels and fails that handler."""
        suspended = self._dispatcher.suspended
        if suspended is None:
            return
        try:
            reached = await suspended
        except BaseException as error:
            self._dispatcher.settle(error)
            raise
        self._dispatcher.settle(reached)

    def raise_failures(self) -> None:
        """Raise HandlerFailed for the first failure that no call has raised yet."""
        self.failures.raise_first()

    async def drain(self) -> None:
        """Wait until everything published so far, and what it led to, has been handled. Raises HandlerFailed."""
        while not self._dispatcher.idle:
            if self._pumps and self._run is None:
                await self._next_progress()
            else:
                self.do_work()
                await self.settle()
                await asyncio.sleep(0)
        self.failures.raise_first()

    async def pump(self) -> None:
        """Handle whatever is published, in slices of 0.4 ms with a turn of the loop between; ends when cancelled.

        A lab's supervisor runs it. While a run is on the bus its holder drives the bus, and the pump stands by.
        """
        self._pumps += 1
        try:
            while True:
                if self._run is not None or self._dispatcher.idle:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                self.do_work()
                await self.settle()
                await asyncio.sleep(0)
        finally:
            self._pumps -= 1
            self._progress.set()

    async def _next_progress(self) -> None:
        self._progress.clear()
        await self._progress.wait()

    # -- runs -----------------------------------------------------------------------------------------------------

    @property
    def run(self) -> Run | None:
        """The run that is on the bus, if one is."""
        return self._run

    def begin_run(
        self,
        name: str,
        clock: DrivenClock,
        observer: Observer | None = None,
        give_way: Callable[[], bool] = lambda: False,
    ) -> Run:
        """Put a run on the bus: until it ends, only its holder publishes and drives, and handlers see its clock.

        ``observer`` is told of all rows in the order of their dispatch, emitted ones included. A later run asks
        ``give_way``, which may end this one and say so. Raises BusBusy while another run is on that does not give
        way, or while published events wait (``await bus.drain()`` first).
        """
        if self._closed:
            raise BusClosed("this bus was closed; make a new one (or a new Lab)")
        if self._run is not None and not self._run.give_way():
            raise BusBusy(f"{self._run.name} is on this bus; wait for its end, stop it, or use a bus of its own")
        if not self._dispatcher.idle:
            raise BusBusy("published events wait to be handled; await bus.drain() before a run begins")
        self._live_clock = self.clock
        self.clock = self._dispatcher.clock = self._dispatcher.driven = clock
        self._dispatcher.observer = observer
        self._dispatcher.flush_when_idle = False
        self._dispatcher.emissions.restart()
        self._run = Run(name, clock, self._dispatcher, self._offer, self.settle, self._end_run, give_way)
        return self._run

    def _end_run(self, run: Run) -> int:
        dropped = self._dispatcher.reset()
        self._dropped += dropped
        self.clock = self._dispatcher.clock = self._live_clock
        self._dispatcher.driven = None
        self._dispatcher.observer = None
        self._dispatcher.flush_when_idle = True
        self._run = None
        self._wake.set()
        self._progress.set()
        return dropped

    def close(self) -> int:
        """Refuse further events; returns how many were never handled (they are counted as dropped). Idempotent."""
        if self._run is not None:
            self._run.end()
        self._closed = True
        dropped = self._dispatcher.reset()
        self._dropped += dropped
        self._progress.set()
        return dropped

    # -- looked at ------------------------------------------------------------------------------------------------

    def statistics(self) -> BusStatistics:
        """Counts since the bus was made; about 5 µs."""
        return BusStatistics(
            published=self._published,
            handled=self._dispatcher.handled,
            waiting=self._published - self._dispatcher.handled - self._dropped,
            dropped=self._dropped,
            emitted=self._dispatcher.emitted,
            emissions_refused=self._dispatcher.emissions.refused,
            failures=self.failures.count,
            waits=self._waits,
            capacity=sum(queue.capacity for queue in self._backlog.queues.values()),
            subscriptions=len(self._subscriptions),
            run=self._run.name if self._run is not None else "",
        )

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"run {self._run.name}" if self._run else "live"
        failures = f", {self.failures.count:,} failures" if self.failures.count else ""
        return f"EventBus({self.name}: {state}, {len(self._subscriptions)} handlers{failures})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(s.name)}</td><td>{s.mode}</td><td>{s.calls:,}</td><td>{s.delivered:,}</td>"
            f"<td>{s.emitted:,}</td><td>{s.failed:,}</td></tr>"
            for s in self._subscriptions.values()
        )
        latest = "".join(f"<pre>{html.escape(failure.traceback)}</pre>" for failure in list(self.failures)[-1:])
        head = "<tr><th>handler</th><th>mode</th><th>calls</th><th>events</th><th>emitted</th><th>failed</th></tr>"
        return f"<div><b>{html.escape(repr(self))}</b><table>{head}{rows}</table>{latest}</div>"
