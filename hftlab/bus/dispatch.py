"""The duty cycle: queued rows through the handlers, what they emit before what was published next, windows when due.

One decision a turn, in this order: finish what was begun; dispatch what was emitted; give batch handlers the windows
that are due; go on with the chunk; take the next chunk from the queues; and, with nothing left, either flush the
windows (live, or at the end of a run) or be idle. Where a slice ends changes nothing of that order.
"""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from types import CoroutineType
from typing import Any

import numpy as np

from hftlab.bus.chunk import Chunk, Outcome, Part
from hftlab.bus.coroutines import Suspended, step
from hftlab.bus.emission import EmissionBuffer
from hftlab.bus.failures import FailureLog
from hftlab.bus.queues import Backlog, TypeQueue, Window
from hftlab.bus.single import Single
from hftlab.bus.subscriptions import Subscription
from hftlab.clock import Clock
from hftlab.events.batch import EventBatch
from hftlab.events.ports import DrivenClock, Observer, Work
from hftlab.events.records import EventType, Rows
from hftlab.events.tables import SourceTable, SymbolTable

CHUNK_ROWS = 1_024


class Delivery:
    """A window that is due, on its way to its batch handler. Driven like a Chunk."""

    def __init__(
        self, event_type: EventType, subscription: Subscription, batch: EventBatch, failures: FailureLog
    ) -> None:
        self.event_type = event_type
        self.subscription = subscription
        self.batch = batch
        self.emitted: list[tuple[int, Subscription, Any]] = []
        self.suspended: Suspended | None = None
        self._failures = failures
        self._called = False

    def advance(self, symbols: SymbolTable) -> Outcome:
        """Call the handler with the rows that it wants, if there are any."""
        if self._called:
            return Outcome.DONE
        self._called = True
        subscription = self.subscription
        try:
            chosen = subscription.select(self.batch.records, symbols)
            if chosen is not None:
                if not len(chosen):
                    return Outcome.DONE
                self.batch = self.batch.where(chosen)
            subscription.calls += 1
            subscription.delivered += len(self.batch)
            result = subscription.handler(self.batch)
        except Exception as error:
            # The rows lie in a ring that goes on; what is kept of a failure is a copy.
            given = self.batch.where(np.arange(len(self.batch)))
            self._failures.record(subscription, given, error, lost=len(given))
            return Outcome.DONE
        self.settle(step(result) if type(result) is CoroutineType else result)
        return Outcome.AWAITING if self.suspended is not None else Outcome.DONE

    def event_at(self, position: int) -> EventBatch:
        """What the handler was given: the batch."""
        return self.batch

    def event_id_at(self, position: int) -> int:
        """The id of the batch's last event: what the handler returned is its doing at the earliest."""
        return int(self.batch[-1:].event_ids[0])

    def settle(self, reached: Suspended | Any | BaseException) -> None:
        """Take what the handler returned, or what an async handler's coroutine came to."""
        self.suspended = None
        if isinstance(reached, Suspended):
            self.suspended = reached
        elif isinstance(reached, BaseException):
            given = self.batch.where(np.arange(len(self.batch)))
            self._failures.record(self.subscription, given, reached, lost=len(given))
        elif reached is not None:
            self.emitted.append((0, self.subscription, reached))


class Dispatcher:
    """Owns what is in progress between the backlog and the handlers. Synchronous; knows no loop.

    ``handlers`` are the event and field handlers by type, in order. ``driven`` is the clock to be moved on with the
    rows (None: time passes by itself). ``flush_when_idle``: windows are delivered when nothing is left, full or not.
    """

    def __init__(
        self, backlog: Backlog, failures: FailureLog, symbols: SymbolTable, sources: SourceTable, clock: Clock
    ) -> None:
        self.handlers: dict[EventType, list[Subscription]] = {}
        self.clock = clock
        self.driven: DrivenClock | None = None
        self.observer: Observer | None = None
        self.flush_when_idle = True
        self.handled = 0
        self.emitted = 0
        self.emissions = EmissionBuffer(symbols, sources, failures)
        self._backlog, self._failures, self._symbols, self._sources = backlog, failures, symbols, sources
        self._chunk: Chunk | None = None
        self._shown = 0  # rows of the chunk that windows and the observer have been shown
        self._current: Chunk | Single | Delivery | None = None
        self._due: deque[tuple[EventType, Subscription, Rows, int]] = deque()

    # -- the cycle ------------------------------------------------------------------------------------------------

    def work(self, max_rows: int, deadline_ns: int) -> Work:
        """One bounded slice: up to ``max_rows`` published rows, until ``perf_counter_ns`` passes the deadline."""
        handled, emitted = self.handled, self.emitted
        last = handled + max_rows
        while self.suspended is None:
            if not self._finish_current(deadline_ns):
                break
            if self.handled >= last and not self._has_begun:
                break
            if self._has_begun:
                self._begin_emitted_or_due()
            elif self._chunk is not None:
                self._advance_chunk(last - self.handled, deadline_ns)
            elif self._backlog.waiting:
                self._begin_chunk()
            elif not (self.flush_when_idle and self._flush()):
                break
            if time.perf_counter_ns() >= deadline_ns:
                break
        if self.observer is not None and self._chunk is not None:
            # Whoever looks at a run between slices sees all that was dispatched so far.
            self._show_up_to(self._chunk, self._chunk.done)
        return Work(self.handled - handled, self.emitted - emitted, self.idle, self.suspended is not None)

    @property
    def suspended(self) -> Suspended | None:
        """The async handler that holds everything up, if one does."""
        unit = self._current or self._chunk
        return unit.suspended if unit is not None else None

    @property
    def idle(self) -> bool:
        """Whether nothing is left to do (windows that are not due aside)."""
        return not (
            self._current
            or self._chunk
            or self._due
            or len(self.emissions)
            or self._backlog.waiting
            or (self.flush_when_idle and any(queue.windowed for queue in self._backlog.queues.values()))
        )

    @property
    def _has_begun(self) -> bool:
        """Whether emissions or a due window stand before the next published row."""
        return bool(len(self.emissions) or self._due)

    def settle(self, reached: Any) -> None:
        """Hand on what the suspended handler's coroutine came to."""
        unit = self._current or self._chunk
        assert unit is not None
        unit.settle(reached)

    def plan_again(self) -> None:
        """Subscriptions changed: rows that have not been reached are planned for the handlers that there are now."""
        if self._chunk is not None:
            self._chunk.plan_again()

    def reset(self) -> int:
        """Give up everything in progress and queued; returns how many published rows were never handled."""
        if self.suspended is not None:
            self.suspended.close()
        if self._chunk is not None:
            self._close_chunk(self._chunk)
        self._current = None
        self._due.clear()
        self.emissions.restart()
        return self._backlog.clear()

    # -- emitted events and windows -------------------------------------------------------------------------------

    def _finish_current(self, deadline_ns: int) -> bool:
        """Drive what was emitted, or a due window, to its end; False where that has to wait."""
        unit = self._current
        if unit is None:
            return True
        if isinstance(unit, Delivery):
            outcome = unit.advance(self._symbols)
        elif isinstance(unit, Single):
            outcome = unit.advance()
        else:
            outcome = unit.advance(unit.count, deadline_ns)
        if outcome in (Outcome.AWAITING, Outcome.PAUSED):
            return False
        self._collect(unit)
        if outcome is Outcome.DONE:
            self._current = None
            if isinstance(unit, Chunk):
                unit.count_calls()
            elif isinstance(unit, Delivery):
                self._backlog.queues[unit.event_type].delivered()
        return True

    def _collect(self, unit: Chunk | Single | Delivery) -> None:
        """Take what handlers returned as emissions, each with the event that its handler was given as its cause."""
        collected, unit.emitted = unit.emitted, []
        for position, subscription, result in collected:
            given = partial(unit.event_at, position)
            self.emissions.add(result, subscription, given, unit.event_id_at(position), self.clock)

    def _begin_emitted_or_due(self) -> None:
        if len(self.emissions):
            rows, event = self.emissions.pop()
            self.emitted += len(rows)
            event_type = EventType(int(rows["type"][0]))
            self._show(event_type, rows, None)
            handlers = self.handlers.get(event_type, [])
            if event is not None:
                self._current = Single(event, rows, handlers, self._symbols, self._failures)
                return
            part = Part(event_type, rows, None, 0)
            self._current = Chunk(
                [part], len(rows), {event_type: handlers}, self._symbols, self._sources, self._failures
            )
            return
        event_type, subscription, rows, session_number = self._due.popleft()
        batch = EventBatch(rows, self._symbols, self._sources, session_number=session_number)
        self.emissions.new_cause()
        self._current = Delivery(event_type, subscription, batch, self._failures)

    def _show(self, event_type: EventType, rows: Rows, session_number: int | None) -> None:
        """Show rows of one type, in order, to the observer and to batch handlers' windows (None: emitted rows)."""
        if self.observer is not None:
            self.observer(rows)
        queue = self._backlog.queues[event_type]
        for window in queue.windows:
            if window.count and session_number is not None and session_number != window.session_number:
                self._make_due(queue, window)
            begin = 0
            while begin < len(rows):
                taken = min(window.room, len(rows) - begin)
                queue.keep(window, rows[begin : begin + taken], session_number)
                begin += taken
                if not window.room:
                    self._make_due(queue, window)

    def _make_due(self, queue: TypeQueue, window: Window) -> None:
        session_number = window.session_number
        self._due.append((queue.event_type, window.subscription, queue.take(window), session_number))

    def _flush(self) -> bool:
        """Make all windows that hold anything due; False if none does."""
        for queue in self._backlog.queues.values():
            for window in queue.windows:
                if window.count:
                    self._make_due(queue, window)
        return bool(self._due)

    # -- published rows -------------------------------------------------------------------------------------------

    def _begin_chunk(self) -> None:
        parts, count = self._backlog.next_parts(CHUNK_ROWS)
        self._chunk = Chunk(parts, count, self.handlers, self._symbols, self._sources, self._failures)
        self._shown = 0
        if self.driven is not None:
            self.driven.follow(self._chunk.now_ns)

    def _advance_chunk(self, max_rows: int, deadline_ns: int) -> None:
        chunk = self._chunk
        assert chunk is not None
        before = chunk.done
        outcome = chunk.advance(max_rows, deadline_ns)
        self.handled += chunk.done - before
        if outcome is Outcome.AWAITING:
            return
        if outcome is Outcome.EMITTED:
            self._show_up_to(chunk, chunk.done)
            self.emissions.new_cause()
            self._collect(chunk)
            self._stop_where_windows_fill(chunk)
        if chunk.done >= chunk.limit:
            self._close_chunk(chunk)

    def _close_chunk(self, chunk: Chunk) -> None:
        if chunk.done:
            self._show_up_to(chunk, chunk.done)
        if self.driven is not None:
            self.driven.follow(None)
            if chunk.done:
                self.driven.advance_to(chunk.reached_ns(chunk.done))
        chunk.count_calls()
        self._backlog.dispatched(chunk.parts, chunk.done)
        self._chunk = None

    def _show_up_to(self, chunk: Chunk, position: int) -> None:
        if position > self._shown:
            session_number = chunk.parts[0].session_number
            for event_type, rows in chunk.rows_between(self._shown, position):
                self._show(event_type, rows, session_number)
            self._shown = position

    def _stop_where_windows_fill(self, chunk: Chunk) -> None:
        """Emitted rows take room in windows: end the chunk at the row that will now fill one."""
        for part in chunk.parts:
            queue = self._backlog.queues[part.event_type]
            if queue.windows:
                chunk.limit = min(chunk.limit, chunk.position_of_next(part, queue.room))
