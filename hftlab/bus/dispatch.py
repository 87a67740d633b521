"""The duty cycle: queued rows through the handlers, what they emit before what was published next, batches when due.

One decision a turn, in this order: finish what was begun; take note of changed subscriptions; dispatch what was
emitted; give batch handlers what is due; redeliver what was asked for; go on with the chunk; take the next chunk from
the queues; and, with nothing left, either flush the windows (live, at the end of a run, or where it asks for it) or be
idle. Where a slice ends, and how many rows happened to be queued, change nothing of that order.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from hftlab.bus.backlog import Backlog, Part
from hftlab.bus.chunk import Chunk, Outcome
from hftlab.bus.coroutines import AsyncCalls, Coroutines, Suspended, Unit
from hftlab.bus.delivery import Delivery
from hftlab.bus.emission import EmissionBuffer, Numbers
from hftlab.bus.failures import FailureLog, Given
from hftlab.bus.journeys import Recorder, Runs
from hftlab.bus.queues import Due, TypeQueue
from hftlab.bus.redelivery import Done, Redeliveries
from hftlab.bus.routing import Routes
from hftlab.bus.single import Single
from hftlab.bus.subscriptions import Subscription
from hftlab.bus.watchdog import HoldUps
from hftlab.clock import Clock
from hftlab.events.batch import EventBatch
from hftlab.events.ports import DrivenClock, Observer, Work
from hftlab.events.records import EventType
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.events.types import Event
from hftlab.flow.breaker import CircuitBreaker

CHUNK_ROWS = 1_024
CHUNK_NS = 1_000_000
"""How long a live chunk lasts, about: until its end nothing in it can give way, and its place is not free."""
LEAST_CHUNK_ROWS = 16
PASSED_ROWS = 8_192
"""How many rows that no event or field handler wants are passed on at once."""


class Dispatcher:
    """Owns what is in progress between the backlog and the handlers. Synchronous; knows no loop."""

    def __init__(
        self,
        backlog: Backlog,
        failures: FailureLog,
        symbols: SymbolTable,
        sources: SourceTable,
        clock: Clock,
        *,
        coroutines: Coroutines | None = None,
        numbers: Numbers | None = None,
        watchdog: HoldUps | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.clock = clock
        self._recorder = Recorder(clock, None) if recorder is None else recorder
        # The clock to be moved on with the rows; None: time passes by itself.
        self._driven: DrivenClock | None = None
        self._observer: Observer | None = None
        # Live, or at the end of a run: batches are delivered when nothing is left, full or not.
        self._flush_when_idle = True
        self._flush_once = False  # asked for by a run that goes on
        self.handled = 0
        self.emitted = 0
        self.dead_lettered = 0
        self.coroutines = coroutines or Coroutines()
        # What takes async handlers' coroutines when no run is on; a run has them awaited in line.
        self.calls: AsyncCalls = self.coroutines
        self.watchdog = HoldUps() if watchdog is None else watchdog
        self.emissions = EmissionBuffer(symbols, sources, failures, numbers)
        self.redeliveries = Redeliveries(failures, symbols, sources)
        # Told when rows have been through the handlers: by when they had been queued, as runs, and when that ended.
        self.on_dispatched: Callable[[list[tuple[int, int]], int], None] | None = None
        self._begun_ns = 0  # when the chunk was begun
        self._preempted = False
        backlog.done_in_chunk = self._done_in_chunk
        self._backlog, self._failures, self._symbols, self._sources = backlog, failures, symbols, sources
        self._subscriptions: Sequence[Subscription] = ()
        self._subscriptions_changed = False
        self._breakers: list[CircuitBreaker] = []
        self._routes: dict[EventType, Routes] = {}
        self._windowed: list[TypeQueue] = []
        self._chunk: Chunk | None = None
        self._shown = 0  # rows of the chunk that windows and the observer have been shown
        self._room_is_stale = False
        self._current: Chunk | Single | Delivery | None = None
        self._due: deque[Due] = deque()
        self._session_number = 0
        self._chunk_rows = CHUNK_ROWS

    # -- the cycle ------------------------------------------------------------------------------------------------

    def work(self, max_rows: int, deadline_ns: int) -> Work:
        """One bounded slice: up to ``max_rows`` published rows, until ``perf_counter_ns`` passes the deadline."""
        handled, emitted = self.handled, self.emitted
        last = handled + max_rows
        self._preempted = False
        while not self._preempted:
            unit = self._current or self._chunk
            if unit is not None and unit.suspended is not None:
                break
            if self._current is not None:
                if not self._go_on_with(self._current, deadline_ns):
                    break
            elif self._chunk is not None and self._chunk.emitted:
                # A KeyboardInterrupt came between a row's emissions and their collection.
                self._advance_chunk(self._chunk, max(1, last - self.handled), deadline_ns)
            elif self._subscriptions_changed and (self._chunk is None or self._chunk.done >= self._chunk.limit):
                self._arrange()
            elif self.emissions.pending:
                self._tell_breakers()
                self._begin_emitted()
            elif self._due:
                self._tell_breakers()
                self._begin_due(self._due.popleft())
            elif self.redeliveries and (self._chunk is None or self._chunk.done >= self._chunk.limit):
                self._begin_redelivery()
            elif self.handled >= last:
                break
            elif self._chunk is not None:
                self._advance_chunk(self._chunk, last - self.handled, deadline_ns)
            elif self._backlog.has_notices and (notice := self._backlog.next_notice()) is not None:
                self._begin_notice(notice)
            elif self._backlog.waiting and self._backlog.blocked_by is None:
                self._begin_chunk(last - self.handled)
            elif self._backlog.waiting or not (self._flushes and self._flush()):
                break
            if time.perf_counter_ns() >= deadline_ns:
                break
        if self._chunk is not None:
            self._chunk.count_calls()
        idle = self.idle
        if idle:
            self._flush_once = False
        return Work(self.handled - handled, self.emitted - emitted, idle, self.suspended is not None, self.is_begun)

    def _tell_breakers(self) -> None:
        """Have circuit breakers know of the chunk's calls so far, before others are made."""
        if self._chunk is not None and self._chunk.is_guarded:
            self._chunk.count_calls()

    @property
    def _async_calls(self) -> AsyncCalls:
        return self.calls if self._driven is None else self.coroutines

    @property
    def _live_clock(self) -> Clock | None:
        """The clock that tells when handlers are called; None where rows drive it: then their arrival does."""
        return self.clock if self._driven is None else None

    @property
    def suspended(self) -> Suspended | None:
        """The async handler that holds everything up, if one does."""
        unit = self._current or self._chunk
        return unit.suspended if unit is not None else None

    @property
    def _flushes(self) -> bool:
        """Whether batches are delivered when nothing else is left, full or not."""
        return self._flush_when_idle or self._flush_once

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do (windows that are not due aside)."""
        if self._current or self._chunk or self._due or self.emissions.pending or self.redeliveries:
            return False
        if self._backlog.waiting or self._backlog.has_notices:
            return False
        if self._flushes:
            for queue in self._windowed:
                if queue.holds_rows:
                    return False
        return True

    @property
    def ready(self) -> bool:
        """Whether ``work`` would do something: not if an async handler, or a cause in another lane, holds it up."""
        if self.suspended is not None:
            return False
        if self._current or self._chunk or self._due or self.emissions.pending or self.redeliveries:
            return True
        if self._backlog.waiting and self._backlog.blocked_by is not None:
            return self._backlog.notice_is_due
        return not self.idle

    @property
    def is_begun(self) -> bool:
        """Whether something was begun that has to end before the next chunk."""
        return bool(self._current or self._due or self.emissions.pending)

    def breaker_changed(self) -> None:
        """Plan again what a circuit breaker of some handler was asked about before it changed."""
        for unit in (self._current, self._chunk):
            if isinstance(unit, Chunk) and unit.is_guarded:
                unit.end_after_row()

    def preempt(self) -> None:
        """Have ``work`` come back soon, within 32 calls: a more urgent lane has something to do."""
        self._preempted = True
        for unit in (self._current, self._chunk):
            if isinstance(unit, Chunk):
                unit.pause()

    def _done_in_chunk(self) -> int:
        return self._chunk.done if self._chunk is not None else 0

    @property
    def lost(self) -> int:
        """How many published rows some handler did not get done."""
        return self.dead_lettered + (self._chunk.lost_of_done if self._chunk is not None else 0)

    @property
    def waiting(self) -> int:
        """How many published rows have not been through the event and field handlers."""
        return self._backlog.waiting - (self._chunk.done if self._chunk is not None else 0)

    def settle(self, suspended: Suspended, reached: Any) -> None:
        """Hand on what the suspended handler's coroutine came to; if it was given up meanwhile, nobody wants it."""
        unit = self._current or self._chunk
        if unit is not None and unit.suspended is suspended:
            unit.settle(reached)

    def change(self, subscriptions: Sequence[Subscription]) -> None:
        """Have other subscriptions, from the next event on: the one that is being handled goes where it was going."""
        self._subscriptions = subscriptions
        self._subscriptions_changed = True
        for unit in (self._current, self._chunk):
            if isinstance(unit, Chunk):
                unit.end_after_row()

    def redeliver(self, handler: str, given: Event | EventBatch, done: Done | None) -> None:
        """Give one handler an event, or a batch, once more: before the next published row. Raises ValidationError."""
        self.redeliveries.add(handler, given, done, self._subscriptions)
        if self._chunk is not None:
            # A chunk may be worked off row by row, over many slices: nobody waits for its end.
            self._chunk.end_after_row()

    def begin_run(self, clock: DrivenClock, observer: Observer | None) -> None:
        """Drive ``clock`` and tell ``observer`` from now on; batches are cut by the data alone."""
        self.clock, self._driven, self._observer = clock, clock, observer
        self._flush_when_idle = False
        self.emissions.begin_run()

    def flush(self) -> None:
        """Deliver what windows hold when nothing else is left, once: behind that they fill as before."""
        self._flush_once = True

    def finish_run(self) -> None:
        """Deliver what windows hold as soon as nothing else is left: no more rows will come."""
        self._flush_when_idle = True

    def end_run(self, clock: Clock) -> None:
        """Be live again, by ``clock``."""
        self.clock, self._driven, self._observer = clock, None, None
        self._flush_when_idle, self._flush_once = True, False
        self.emissions.end_run()

    def withdraw(self) -> int:
        """Take back all queued rows that no handler was given yet; returns how many."""
        if self._chunk is None:
            return self._backlog.withdraw(0)
        self._chunk.end_after_row()
        withdrawn = self._backlog.withdraw(self._chunk.limit)
        if self._chunk.done >= self._chunk.limit and not self._chunk.emitted:
            self._close_chunk(self._chunk)
        return withdrawn

    def reset(self) -> int:
        """Give up everything in progress and queued; returns how many published rows were never handled."""
        unit, suspended = self._current or self._chunk, self.suspended
        self.redeliveries.give_up("the bus was closed, or its run ended")
        if unit is not None and suspended is not None:
            unit.settle(suspended.close())
        if self._chunk is not None:
            self._close_chunk(self._chunk)
        self._current = None
        self._due.clear()
        self.emissions.clear()
        return self._backlog.clear()

    def _arrange(self) -> None:
        if self._chunk is not None:
            self._close_chunk(self._chunk)
        self._subscriptions_changed = False
        self._breakers = [one.breaker for one in self._subscriptions if one.breaker is not None]
        batched: dict[EventType, list[Subscription]] = {event_type: [] for event_type in EventType}
        routed: dict[EventType, list[Subscription]] = {}
        for subscription in self._subscriptions:
            for event_type in subscription.types:
                if subscription.batched:
                    batched[event_type].append(subscription)
                else:
                    routed.setdefault(event_type, []).append(subscription)
        self._routes = {event_type: Routes(wanting) for event_type, wanting in routed.items()}
        for event_type, queue in self._backlog.queues.items():
            queue.arrange(batched[event_type])
        self._windowed = [queue for queue in self._backlog.queues.values() if queue.windows]
        self._due = deque(due for due in self._due if self._backlog.queues[due.event_type].is_due(due))

    # -- emitted events and batches -------------------------------------------------------------------------------

    def _go_on_with(self, unit: Chunk | Single | Delivery, deadline_ns: int) -> bool:
        """Drive emitted events, or a due batch, towards the end; False where that has to wait."""
        outcome = unit.advance(unit.count, deadline_ns) if isinstance(unit, Chunk) else unit.advance()
        if outcome is Outcome.AWAITING or outcome is Outcome.PAUSED:
            return False
        refused = self._collect(unit)
        if isinstance(unit, Chunk):
            if unit.done < unit.limit:
                return True
            unit.close()
            self._current = None
            if unit.done < unit.count:  # subscriptions changed on the way
                if self._subscriptions_changed:
                    self._arrange()
                part = unit.parts[0]
                self._current = self._chunk_of([part._replace(rows=part.rows[unit.done :])], unit.count - unit.done)
            return True
        self._current = None
        if isinstance(unit, Single) and unit.type_at(0):
            self._recorder.note_calls([(one, unit.type_at(0), elapsed_ns) for one, elapsed_ns in unit.timed])
        if unit.on_end is not None:
            if unit.ended:
                unit.on_end.ended(refused)
            elif not unit.posted:
                unit.on_end.lost("it was interrupted")
        elif isinstance(unit, Delivery):
            queue = self._backlog.queues[unit.due.event_type]
            self.dead_lettered += queue.lose(unit.due, unit.lost_places)
            if unit.ended and unit.called:
                self._recorder.note_delivery(
                    unit.subscription.name, unit.due.event_type, unit.batch.records, unit.elapsed_ns
                )
            queue.delivered(unit.due)
        return True

    def _collect(self, unit: Chunk | Single | Delivery) -> Exception | None:
        """Take what handlers returned as emissions, each with the event that its handler was given as its cause.

        Returns why the last one that was refused was.
        """
        refused = None
        while unit.emitted:
            position, subscription, result = unit.emitted.pop(0)
            given = partial(unit.event_at, position)
            refused = self.emissions.add(result, subscription, given, unit.id_at(position), self.clock)
        return refused

    @property
    def cascade(self) -> int:
        """How many events the published event that is at work has led to."""
        return self.emissions.cascade

    def emit_later(
        self, result: Any, subscription: Subscription, given: Given, cause: int, cascade: int
    ) -> Exception | None:
        """Take what an async handler returned long after it was called. ``cascade`` is what that was then. Returns why
        it was refused, if it was."""
        return self.emissions.add_later(result, subscription, given, cause, self.clock, cascade)

    def lose(self, unit: Unit, position: int, events: int) -> None:
        """Count the published events of an async handler's call that failed long after it was made, each once."""
        if isinstance(unit, Delivery):
            self.dead_lettered += self._backlog.queues[unit.due.event_type].lose(unit.due, unit.places)
        elif isinstance(unit, Chunk) and unit.is_published:
            self.dead_lettered += unit.lose(position)

    def _begin_emitted(self) -> None:
        event_type, rows, event, _ = self.emissions.take()
        queue = self._backlog.queues[event_type]
        if event is None:
            fitting = min(CHUNK_ROWS, queue.room)
            if len(rows) > fitting:
                self.emissions.put_back(event_type, rows[fitting:])
                rows = rows[:fitting]
        self.emitted += len(rows)
        if self._observer is not None:
            self._observer(rows)
        if queue.windows:
            self._due += queue.show_emitted(rows)
            self._room_is_stale = True
        routes = self._routes.get(event_type)
        if routes is None:
            return
        if event is not None:
            handlers = routes.of_symbol(int(rows["symbol"][0]), self._symbols)
            self._current = Single(
                event,
                rows,
                handlers,
                self._failures,
                self._async_calls,
                event.event_id,
                self.clock,
                self.watchdog,
            )
            return
        self._current = self._chunk_of([Part(event_type, rows, None, 0)], len(rows))

    def _chunk_of(self, parts: Sequence[Part], count: int) -> Chunk:
        return Chunk(
            parts,
            count,
            self._routes,
            self._symbols,
            self._sources,
            self._failures,
            self._async_calls,
            self._live_clock,
            self.watchdog,
            self._driven.now_ns() if self._driven is not None else 0,
        )  # fmt: skip

    def _begin_notice(self, notice: object) -> None:
        self.emissions.new_cause()
        handlers = [subscription for subscription in self._subscriptions if subscription.notice is type(notice)]
        if handlers:
            self._current = Single(
                notice, None, handlers, self._failures, self._async_calls, 0, self.clock, self.watchdog
            )

    def _begin_due(self, due: Due) -> None:
        # A batch that emitted events alone filled belongs to what they were emitted for, or handlers that feed their
        # own batches would never come to an end.
        if due.published:
            self.emissions.new_cause()
        due.begun = True
        self._current = Delivery(
            due,
            self._symbols,
            self._sources,
            self._session_number,
            self._failures,
            self._async_calls,
            self.clock,
            self.watchdog,
        )

    def _begin_redelivery(self) -> None:
        if self._chunk is not None:
            self._close_chunk(self._chunk)
        self.emissions.new_cause()
        self._current = self.redeliveries.next_unit(
            self._subscriptions, self._async_calls, self.clock, self.watchdog
        )  # fmt: skip

    def _flush(self) -> bool:
        """Make all windows that hold anything due; False if none does."""
        for queue in self._windowed:
            self._due += queue.flush()
        return bool(self._due)

    # -- published rows -------------------------------------------------------------------------------------------

    def _begin_chunk(self, max_rows: int) -> None:
        if self._backlog.session_number != self._session_number:
            # A batch holds events of one session.
            if self._flush():
                return
            self._session_number = self._backlog.session_number
        if self._backlog.next_type not in self._routes and self._pass_on(max_rows):
            return
        self._begun_ns = self.clock.now_ns()
        rows = self._chunk_rows
        if self._driven is not None:
            # What a run's breakers let through must not depend on where chunks begin and end. While one might change
            # its mind, rows go one by one: 15 µs each, and only then.
            rows = 1 if any(not breaker.permits_all for breaker in self._breakers) else CHUNK_ROWS
        parts, count = self._backlog.next_parts(min(rows, CHUNK_ROWS))
        self._backlog.taken = count
        self._chunk = self._chunk_of(parts, count)
        self._chunk.is_published = True
        self._chunk.marks = self._recorder.marks()
        self._shown = 0
        self._room_is_stale = False
        if self._driven is not None:
            self._driven.follow(self._chunk.now_ns)

    def _pass_on(self, max_rows: int) -> bool:
        """Rows that only batch handlers want are shown to those, and that is all; False where other types are between.

        A chunk would plan no call for them, which takes 15 µs.
        """
        parts, count = self._backlog.next_parts(min(PASSED_ROWS, max_rows))
        if len(parts) > 1:
            return False
        rows = parts[0].rows
        self.handled += count
        if self._driven is not None:
            self._driven.advance_to(int(rows["received"].max()))
        if self._observer is not None:
            self._observer(rows)
        queue = self._backlog.queues[parts[0].event_type]
        if queue.windows:
            self._due += queue.show_published(count)
        waits = self._backlog.dispatched(parts, count)
        self._recorder.note_passed(parts[0], waits)
        if self.on_dispatched is not None:
            self.on_dispatched(waits, self.clock.now_ns())
        return True

    def _advance_chunk(self, chunk: Chunk, max_rows: int, deadline_ns: int) -> None:
        if self._room_is_stale:
            self._end_where_windows_fill(chunk)
        before = chunk.done
        begun_ns = self.clock.now_ns()
        try:
            outcome = chunk.advance(max_rows, deadline_ns)
        finally:
            self.handled += chunk.done - before
            self._show(chunk)
            self._pace(chunk.done - before, self.clock.now_ns() - begun_ns)
        if outcome is Outcome.AWAITING:
            return
        if outcome is Outcome.EMITTED:
            self.emissions.new_cause()
            self._collect(chunk)
        if chunk.done >= chunk.limit:
            self._close_chunk(chunk)

    def _pace(self, rows: int, spent_ns: int) -> None:
        """Choose how long the next chunk is, by how long these rows took; by a power of two at a time."""
        if rows and self._driven is None:
            if spent_ns * self._chunk_rows > 2 * CHUNK_NS * rows and self._chunk_rows > LEAST_CHUNK_ROWS:
                self._chunk_rows //= 2
            elif spent_ns * self._chunk_rows < CHUNK_NS // 2 * rows and self._chunk_rows < CHUNK_ROWS:
                self._chunk_rows *= 2

    def _close_chunk(self, chunk: Chunk) -> None:
        if self._driven is not None:
            self._driven.follow(None)
            self._driven.advance_to(chunk.reached_ns(chunk.done))
        chunk.close()
        for event_type, local in chunk.lost_places():
            self.dead_lettered += self._backlog.queues[event_type].lose_next(local)
        self._chunk = None
        waits = self._backlog.dispatched(chunk.parts, chunk.done)
        try:
            if self.on_dispatched is not None and waits:
                self.on_dispatched(waits, self._begun_ns)
            if waits and chunk.marks is not None:
                self._note(chunk, waits)
        finally:
            chunk.forget()

    def _note(self, chunk: Chunk, waits: Runs) -> None:
        """Have the journey know of a chunk that has ended."""
        owner = chunk.only_owner
        # An async handler's call is noted when it has ended (see lane_calls); a run's is awaited in line.
        handler = None if owner is None or (owner.is_async and not self._recorder.in_run) else owner.name
        assert chunk.marks is not None
        if chunk.done == 1 and len(chunk.parts) == 1:
            self._recorder.note_one(chunk.parts[0], chunk.marks, waits[0][1], handler)
        elif self._recorder.takes_chunk(chunk.done, chunk.marks) and (marks := chunk.marked()) is not None:
            self._recorder.note_chunk(chunk.parts, chunk.done, marks, waits, handler)
        if chunk.marks.timed:
            self._recorder.note_calls(chunk.timed())

    def _show(self, chunk: Chunk) -> None:
        """Show the rows that are done, and were not shown, to the observer and to the windows of batch handlers."""
        begin, self._shown = self._shown, chunk.done
        if begin == chunk.done:
            return
        if self._observer is not None:
            self._observer(chunk.rows_between(begin, chunk.done))
        for event_type, count in chunk.counts_between(begin, chunk.done):
            queue = self._backlog.queues[event_type]
            if count and queue.windows:
                self._due += queue.show_published(count)

    def _end_where_windows_fill(self, chunk: Chunk) -> None:
        """Emitted rows took room in windows: end the chunk at the row that will now fill one."""
        self._room_is_stale = False
        for part in chunk.parts:
            queue = self._backlog.queues[part.event_type]
            if queue.windows:
                chunk.limit = min(chunk.limit, chunk.position_after(part, queue.room))
