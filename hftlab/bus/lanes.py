"""Lanes: CRITICAL, HIGH, NORMAL and LOW, each with queues, a chunk in progress and emissions of its own.

A lane is a whole Dispatcher, so that work of one lane can be left at any row and another lane's taken up. Within a lane
events keep the order in which they were queued; between lanes ``schedule`` decides, a turn of at most ``TURN_NS`` at a
time. An event that comes into a more urgent lane than the one at work (from a handler: nobody else runs meanwhile)
preempts it: that lane stops within 32 calls. So an urgent event waits for at most 32 calls, or the turn, and the
longest synchronous handler.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from hftlab.bus.backlog import Backlog
from hftlab.bus.control import Control
from hftlab.bus.coroutines import Coroutines
from hftlab.bus.dispatch import Dispatcher
from hftlab.bus.emission import Emission, Numbers
from hftlab.bus.failures import FailureLog
from hftlab.bus.journeys import Recorder
from hftlab.bus.lane_calls import LaneCalls, take_over
from hftlab.bus.mailbox import Mailbox, Mailboxes, Parked
from hftlab.bus.priorities import Priorities
from hftlab.bus.schedule import Schedule, Standing
from hftlab.bus.subscriptions import Subscription
from hftlab.bus.watchdog import HoldUps
from hftlab.clock import Clock
from hftlab.events.ports import DrivenClock, Observer, Work
from hftlab.events.records import EventType, Priority
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.flow import BreakerChange
from hftlab.metrics import Histogram
from hftlab.metrics.journeys import Journey

TURN_NS = 100_000
"""How long a lane works before the others are looked at, where several have something to do."""

LEVELS = (Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW)


class Lane:
    """One lane. ``waits`` has how long its events were queued, in ns; ``inversion_ns`` for how long it had an event to
    dispatch while a less urgent lane was at work; ``preempted`` how often it was left for a more urgent one."""

    def __init__(self, level: Priority, backlog: Backlog, dispatcher: Dispatcher, clock: Clock) -> None:
        self.level = level
        self.backlog = backlog
        self.dispatcher = dispatcher
        self.waits = Histogram(name=level.name)
        self.preemptions = Histogram(name=f"{level.name} preempting")
        self.inversion_ns = 0
        self.preempted = 0
        self.urgent_since_ns: int | None = None
        self.ready_since_ns: int | None = None  # since when it has not had the turn that it wants
        self._clock = clock
        self.listen()

    def listen(self) -> None:
        """Be told how long rows were queued."""
        self.dispatcher.on_dispatched = self._dispatched

    def _dispatched(self, runs: Sequence[tuple[int, int]], begun_ns: int) -> None:
        for rows, queued_ns in runs:
            self.waits.record(max(begun_ns - queued_ns, 0), rows)

    def waited_ns(self, now_ns: int) -> int:
        """How long the oldest event has waited; what is no event (emissions, batches), for a turn."""
        since_ns = self.backlog.waits.first[1] if self.backlog.waits else self.ready_since_ns
        return 0 if since_ns is None else max(now_ns - since_ns, 0)

    def __repr__(self) -> str:
        return f"Lane({self.level.name}: {self.backlog.waiting:,} waiting)"


class Lanes:
    """The lanes of one bus. A run has ``recorded`` (the NORMAL one) to itself: recorded order rules there."""

    def __init__(
        self,
        capacity: Mapping[EventType, int],
        failures: FailureLog,
        symbols: SymbolTable,
        sources: SourceTable,
        clock: Clock,
        priorities: Priorities,
        recorder: Recorder,
    ) -> None:
        self.priorities = priorities
        self.recorder = recorder
        self.schedule = Schedule(500_000_000)
        self.coroutines = Coroutines()
        self.mailboxes = Mailboxes()
        self._clock, self._symbols = clock, symbols
        numbers = Numbers()
        self.watchdog = HoldUps(clock.now_ns)
        self.by_level: dict[Priority, Lane] = {}
        for level in LEVELS:
            backlog = Backlog(capacity)
            dispatcher = Dispatcher(
                backlog,
                failures,
                symbols,
                sources,
                clock,
                coroutines=self.coroutines,
                numbers=numbers,
                watchdog=self.watchdog,
                recorder=recorder,
            )
            dispatcher.calls = LaneCalls(level, self.coroutines, self.mailboxes, failures, dispatcher, recorder)
            self.by_level[level] = Lane(level, backlog, dispatcher, clock)
            dispatcher.emissions.elsewhere = self._taker(level)
        self.recorded = self.by_level[Priority.NORMAL]
        self.in_run = False
        self._all = tuple(self.by_level.values())
        # Those that ever had anything, the most urgent first: nobody pays for lanes that nothing goes to.
        self._used: list[Lane] = [self.recorded]
        self._working: Lane | None = None
        self._leaving = False
        self._subscriptions: Sequence[Subscription] = ()
        self.control = Control(self, symbols, self.notify, failures.note)

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._all)

    def __getitem__(self, level: Priority) -> Lane:
        return self.by_level[level]

    # -- coming in ------------------------------------------------------------------------------------------------

    def preempt_for(self, lane: Lane) -> None:
        """Say that a lane has something to do: a less urgent one that is at work is left soon."""
        if lane not in self._used:
            self._used = [one for one in self._all if one is lane or one in self._used]
        working = self._working
        if working is not None and working.level < lane.level:
            if not self._leaving:
                self._leaving = True
                working.preempted += 1
            if lane.urgent_since_ns is None:
                lane.urgent_since_ns = time.perf_counter_ns()
            working.dispatcher.preempt()

    def _taker(self, own: Priority) -> Callable[[Emission], bool]:
        """What an emission of one lane is asked: whether a more urgent lane takes it."""

        def take(emission: Emission) -> bool:
            if self.in_run or own is Priority.CRITICAL:
                return False
            if emission.event is not None:
                level = self.priorities.lane_of_event(emission.event)
            else:
                lanes = self.priorities.lanes(emission.rows, self._symbols)
                # Several lanes: they stay together, in the order in which they were emitted.
                level = lanes if isinstance(lanes, Priority) else Priority(int(lanes.min()))
            if level <= own:
                return False
            lane = self.by_level[level]
            lane.dispatcher.emissions.waiting.append(emission)
            self.preempt_for(lane)
            return True

        return take

    def notify(self, notice: object) -> None:
        """The bus's own notices go to HIGH: whoever acts on an overload should hear of it during one."""
        if isinstance(notice, BreakerChange):
            # Whatever lane goes on with a plan that the breaker permitted asks it again.
            for one in self._used:
                one.dispatcher.breaker_changed()
        lane = self.recorded if self.in_run else self.by_level[Priority.HIGH]
        lane.backlog.tell(notice)
        self.preempt_for(lane)

    # -- working --------------------------------------------------------------------------------------------------

    def work(self, max_rows: int, deadline_ns: int) -> Work:
        """Let lanes work by turns: up to ``max_rows`` rows and all that they lead to, until the deadline."""
        if self.in_run:
            return self.recorded.dispatcher.work(max_rows, deadline_ns)
        handled = emitted = 0
        if len(self._used) == 1:
            work = self._turn(self.recorded, max_rows, deadline_ns)
            if len(self._used) == 1:
                return work
            handled, emitted = work.handled, work.emitted
        while True:
            ready = [lane for lane in self._used if lane.dispatcher.ready]
            if handled >= max_rows:
                # What the handled rows led to belongs to them, in whichever lane it waits.
                ready = [lane for lane in ready if lane.dispatcher.is_begun]
            if not ready:
                break
            lane, end_ns = ready[0], deadline_ns
            begun_ns = time.perf_counter_ns()
            if len(ready) > 1 or lane.level is not Priority.CRITICAL:
                lane = self._choose(ready)
                if len(ready) > 1:
                    end_ns = min(deadline_ns, begun_ns + TURN_NS)
            work = self._turn(lane, max_rows - handled, end_ns)
            handled += work.handled
            emitted += work.emitted
            ended_ns = time.perf_counter_ns()
            self._account(lane, ready, begun_ns, ended_ns)
            if ended_ns >= deadline_ns:
                # What is urgent and came just now does not wait for a turn of the loop.
                if lane.level is not Priority.CRITICAL and handled < max_rows:
                    self.work_critical(ended_ns + TURN_NS)
                break
        dispatchers = [lane.dispatcher for lane in self._used]
        awaiting = any(one.suspended is not None for one in dispatchers) and not any(one.ready for one in dispatchers)
        pending = any(one.is_begun for one in dispatchers)
        return Work(handled, emitted, self.idle, awaiting, pending)

    def work_critical(self, deadline_ns: int) -> None:
        """Let CRITICAL alone work."""
        lane = self.by_level[Priority.CRITICAL]
        # Routes that are arranged anew, or memory that is touched first, may take all of the first turn.
        for _ in range(3):
            if not lane.dispatcher.ready:
                break
            begun_ns = time.perf_counter_ns()
            handled = self._turn(lane, 1 << 62, deadline_ns).handled
            self._account(lane, (), begun_ns, begun_ns)
            if handled:
                break
            deadline_ns += TURN_NS

    def _choose(self, ready: Sequence[Lane]) -> Lane:
        if len(ready) == 1:
            return ready[0]
        now_ns = self._clock.now_ns()
        standings = []
        for lane in self._all:
            waits_for = self.waits_for(lane)
            place = None if waits_for is None else self._all.index(waits_for)
            if lane in ready and lane.ready_since_ns is None:
                lane.ready_since_ns = now_ns
            standings.append(Standing(int(lane.level), lane in ready, lane.waited_ns(now_ns), place))
        chosen = self.schedule.choose(standings)
        assert chosen is not None
        return self._all[chosen]

    def waits_for(self, lane: Lane) -> Lane | None:
        """The lane that must go on before this one can: it has the cause of the next event, or the room that the
        async handler waits for whose queue is full."""
        blocked = lane.backlog.blocked_by
        if blocked is not None:
            return next(one for one in self._all if one.backlog is blocked[0])
        parked = lane.dispatcher.suspended
        wanted = parked.mailbox.wants_room_in if isinstance(parked, Parked) else None
        return None if wanted is None or wanted is lane.level else self.by_level[wanted]

    def _turn(self, lane: Lane, max_rows: int, end_ns: int) -> Work:
        self._working, self._leaving = lane, False
        lane.ready_since_ns = None
        try:
            return lane.dispatcher.work(max_rows, end_ns)
        finally:
            self._working = None

    def _account(self, lane: Lane, ready: Sequence[Lane], begun_ns: int, ended_ns: int) -> None:
        """Count how long more urgent lanes had to look on."""
        if lane.urgent_since_ns is not None:
            lane.preemptions.record(max(begun_ns - lane.urgent_since_ns, 0))
            lane.inversion_ns += max(begun_ns - lane.urgent_since_ns, 0)
            lane.urgent_since_ns = None
        for other in self._used:
            if other.level > lane.level and (other in ready or other.backlog.waiting) and other.urgent_since_ns is None:
                other.inversion_ns += ended_ns - begun_ns

    # -- as a whole -----------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether no lane has anything left to do, nor any async handler."""
        return not self.mailboxes.busy and all(lane.dispatcher.idle for lane in self._used)

    @property
    def ready(self) -> bool:
        """Whether ``work`` would do something."""
        return any(lane.dispatcher.ready for lane in self._used)

    def open_mailbox(self, subscription: Subscription, before: Subscription | None) -> None:
        """Give a new subscription the queue that its calls wait in: that of the one that it replaces, if that has one,
        so that what was called before ends before."""
        if before is not None and before.mailbox is not None:
            take_over(subscription, before.mailbox)
        elif subscription.is_async and subscription.queue != 0:
            subscription.mailbox = Mailbox(subscription.bound, self.mailboxes, self.coroutines)

    def is_in_its_own_way(self, mailbox: Mailbox) -> bool:
        """Whether the room in a lane that an async handler's call waits for can't be made before that call has ended:
        the lane waits, by whatever detours, for room in the handler's own queue."""
        seen: set[Priority] = set()
        level = mailbox.wants_room_in
        while level is not None and level not in seen:
            seen.add(level)
            lane = self.by_level[level]
            suspended, blocked = lane.dispatcher.suspended, lane.backlog.blocked_by
            if isinstance(suspended, Parked) and not suspended.posted:
                if suspended.mailbox is mailbox:
                    return True
                level = suspended.mailbox.wants_room_in
            elif suspended is None and blocked is not None:
                level = next(one.level for one in self._all if one.backlog is blocked[0])
            else:
                return False
        return False

    @property
    def handled(self) -> int:
        """Published rows that have been through the handlers."""
        return sum(lane.dispatcher.handled for lane in self._all)

    @property
    def dead_lettered(self) -> int:
        """Published rows on which a handler failed, or which its breaker rejected."""
        return sum(lane.dispatcher.lost for lane in self._all)

    @property
    def emitted(self) -> int:
        """Emitted rows that were dispatched."""
        return sum(lane.dispatcher.emitted for lane in self._all)

    @property
    def waiting(self) -> int:
        """Published rows that wait in the lanes' queues."""
        return sum(lane.dispatcher.waiting for lane in self._used)

    @property
    def suspended(self) -> Dispatcher | None:
        """The first lane that an async handler holds up."""
        return next((lane.dispatcher for lane in self._all if lane.dispatcher.suspended is not None), None)

    @property
    def all_suspended(self) -> list[Dispatcher]:
        """The lanes that async handlers hold up."""
        return [lane.dispatcher for lane in self._all if lane.dispatcher.suspended is not None]

    def change(self, subscriptions: Sequence[Subscription]) -> None:
        """Have other subscriptions, from the next event on."""
        self._subscriptions = subscriptions
        for lane in self._all:
            lane.dispatcher.change(subscriptions)

    def begin_run(self, clock: DrivenClock, observer: Observer | None, journey: Journey | None) -> None:
        """Let a run have the recorded lane to itself. All are idle."""
        self.in_run = True
        self.recorder.begin_run(journey)
        self._restart_breakers()
        self.recorded.dispatcher.begin_run(clock, observer)
        self.recorded.dispatcher.on_dispatched = None

    def end_run(self, clock: Clock) -> None:
        """Be live again."""
        self.in_run = False
        self.recorder.end_run()
        self._restart_breakers()
        self.recorded.dispatcher.end_run(clock)
        self.recorded.listen()

    def _restart_breakers(self) -> None:
        """Each run's times are its own: a wait that began in another one would end at any time, or never."""
        for subscription in self._subscriptions:
            if subscription.breaker is not None:
                subscription.breaker.restart()

    def reset(self) -> int:
        """Give up everything in progress and queued; returns how many published rows were never handled."""
        dropped = sum(lane.dispatcher.reset() for lane in self._all)
        self.mailboxes.give_up()
        return dropped
