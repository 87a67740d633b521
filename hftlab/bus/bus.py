"""``EventBus``: lanes of bounded queues in memory, and the duty cycle that takes their rows through the handlers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from hftlab.bus.admission import Admission
from hftlab.bus.dead_letters import DeadLetters
from hftlab.bus.duty import SLICE_NS, Duty
from hftlab.bus.failures import FailureLog
from hftlab.bus.flowing import Flow, Overflow
from hftlab.bus.gate import Gate
from hftlab.bus.intake import Intake
from hftlab.bus.journeys import Recorder
from hftlab.bus.lanes import Lanes
from hftlab.bus.priorities import Priorities
from hftlab.bus.producer import Producer
from hftlab.bus.publishing import Publisher
from hftlab.bus.redelivery import Done
from hftlab.bus.run import Controls, Run
from hftlab.bus.signatures import What, make_subscription, read_topics
from hftlab.bus.statistics import BusStatistics, html_of_bus, statistics_of_handler, statistics_of_lane
from hftlab.bus.subscriptions import DEFAULT_BATCH_ROWS, Mode, Subscription, Where
from hftlab.bus.waiting import Signal
from hftlab.bus.watchdog import HoldUps
from hftlab.clock import Clock, SystemClock
from hftlab.errors import BusBusy, ValidationError, shown
from hftlab.events.batch import EventBatch
from hftlab.events.ports import DrivenClock, Keeper, Observer, PausableSource, Work
from hftlab.events.records import EventType
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.events.types import Event
from hftlab.flow import BreakerSettings, Throttle, Water
from hftlab.metrics.journeys import Journey, Latency
from hftlab.sequence import GapTable, Ordering
from hftlab.sequence.stage import OrderStage

if TYPE_CHECKING:
    from hftlab.clock import Skew

DEFAULT_CAPACITY = 1 << 16
H = TypeVar("H", bound=Callable[..., Any])


class EventBus:
    """Events in, handlers called; memory only, bounded, for one thread (the loop's).

    Each lane keeps the order in which its events came, and the urgent lanes go first; a run has them all in its
    recorded order. ``capacity`` is the rows that each lane's queue of a type holds (a power of two; or a dict by
    EventType), made when the first comes. ``clock`` stamps events that bring no time. ``ordering`` is how what is
    published gets into its sources' order (see ``gaps``); a run brings its own. ``priorities`` says which lane an event
    goes to, ``flow`` what gives way under load. ``journeys``: the way of every so manieth event is timed (1: of each;
    0: of none), see ``latency``. Nothing runs by itself: ``do_work`` does a bounded slice, ``pump`` calls it in a loop,
    and a ``Lab`` keeps a pump going. A handler that raises stops neither the bus nor other handlers: see ``failures``.
    """

    def __init__(
        self,
        *,
        capacity: int | dict[EventType, int] = DEFAULT_CAPACITY,
        clock: Clock | None = None,
        name: str = "bus",
        ordering: Ordering | None = None,
        priorities: Priorities | None = None,
        flow: Flow | None = None,
        journeys: int = 1,
    ) -> None:
        sizes = capacity if isinstance(capacity, dict) else dict.fromkeys(EventType, capacity)
        self.name = name
        self.symbols = SymbolTable()
        self.sources = SourceTable()
        self.clock: Clock = clock or SystemClock()
        self.failures = FailureLog(lambda: self.clock.now_ns())
        self._sampled = _checked_sample(journeys)
        recorder = Recorder(self.clock, self.new_journey("live"))
        self._capacity = {t: sizes.get(t, DEFAULT_CAPACITY) for t in EventType}
        self._lanes = Lanes(
            self._capacity, self.failures, self.symbols, self.sources, self.clock, priorities or Priorities(), recorder
        )  # fmt: skip
        self._admission = Admission(self._lanes, self.symbols, Flow())
        self._stage = OrderStage(ordering or Ordering(), self.symbols, self.sources)
        self._intake = Intake(
            self._lanes, self._admission, self.symbols, self.sources, self.clock, self._stage
        )  # fmt: skip
        self.flow = Flow() if flow is None else flow
        self.priorities = Priorities() if priorities is None else priorities
        self._subscriptions: dict[str, Subscription] = {}
        self._live_clock: Clock = self.clock
        self._gate = Gate(self._lanes.coroutines)
        self._dropped = 0
        self._last_run: Run | None = None
        self._published_by_then = 0
        self._wake, self._progress = Signal(), Signal()
        self._stage.gaps.on_decided = self._wake.notify
        self._duty = Duty(
            self._lanes, self._intake, self._gate, self.failures, self.clock, self._wake, self._progress
        )  # fmt: skip
        self._publisher = Publisher(self._lanes, self._intake, self._gate, self._wake, self._progress)
        self._publisher.work_now = self._duty.work_now

    # -- subscribing ----------------------------------------------------------------------------------------------

    def on(
        self,
        *what: What,
        symbol: str | None = None,
        where: Where | None = None,
        mode: Mode | None = None,
        name: str | None = None,
        batch_rows: int = DEFAULT_BATCH_ROWS,
        state: Any = None,
        priority: int = 0,
        attempts: int = 1,
        breaker: BreakerSettings | bool | None = None,
        queue: int | None = None,
        timeout_s: float | None = None,
    ) -> Callable[[H], H]:
        """Decorate a handler. ``what``: event classes (none: all), or one topic such as ``"market.BTC*"``.

        The handler's parameters decide how it is called: names of fields (``price, volume``) get just those values;
        one parameter of another name gets the event object; ``mode="batch"`` gets an EventBatch of up to
        ``batch_rows`` rows, zero-copy, valid during the call. Parameters with a default are left alone. ``symbol`` is a
        symbol or a pattern with ``*`` and ``?``, ``where`` a function from records (a structured array) to a boolean
        array that judges each row by itself. What the handler returns (an Event, an iterable of Events, an EventBatch)
        is emitted: dispatched before the next published event.

        An async handler's calls are made in order, one after the other. Live, one that waits holds up nobody else: what
        comes for it meanwhile waits in a queue of its own, of up to ``queue`` events a lane (1,024; eight batches for
        a batch handler, which then gets copies), a more urgent lane's first; only where that is full, the lane waits.
        What it returns is emitted, and what it raises told, when it ends. With ``queue=0``, and in a replay, it is
        awaited in line, before the next handler is called. ``timeout_s``: live, a call that takes longer is cancelled
        and fails with HandlerTimeout (``timed_out`` counts them).

        ``mode="jit"``: numba compiles the handler, ``(record, state, emit)`` or without the last or the last two, now
        (0.2 to 1 s a type), and runs it over batches of up to ``batch_rows`` rows, 4 ns an event, without returning to
        Python. ``record`` is the row, to be read: ``record.price``. ``state=`` is a NumPy array, structured or not, or
        a tuple of arrays; the handler changes it in place, and Python may read it between batches. What the handler
        emits, up to 256 events for one, is dispatched after the batch: ``emit.signal(strength, "TYPE", "strategy")``,
        ``emit.order(direction, quantity, price, prefix="s1-")``, ``emit.fill(order_id, quantity, price)``,
        ``emit.market(price, …)``; see ``compiled.Emitter``. An exception is the failure of one event, and the handler
        goes on with the next. ``compiled.interpret`` runs it as plain Python.

        Of the handlers of one event, those of greater ``priority`` are called first. ``attempts``: how often a failing
        call is tried, at once, before the event goes to ``dead_letters``. ``breaker``: a circuit breaker keeps events
        from a handler that fails; those go to ``dead_letters``, too (True, or the settings).

        ``@bus.on(hl.Gap)``: the handler is called with a Gap whenever one opens, is filled or is lost, in line with the
        events around it. In the same way ``hl.BreakerChange``, ``hl.OverloadChange`` and ``hl.ShedChange``, which go
        through the HIGH lane.

        Running a cell again replaces the handler of the same module, qualified name, types and symbol, and takes its
        place in the order; two lambdas, or one method of two objects, need a ``name`` each. Subscribing and cancelling
        take effect with the next event, even from within a handler. Raises ValidationError.
        """
        if len(what) == 1 and callable(what[0]) and not isinstance(what[0], type):
            raise ValidationError("write @bus.on() with the parentheses, or name what the handler is for")
        read_topics(what, symbol)  # a mistake is raised here, where it was made

        def register(handler: H) -> H:
            self.subscribe(
                handler,
                *what,
                symbol=symbol,
                where=where,
                mode=mode,
                name=name,
                batch_rows=batch_rows,
                state=state,
                priority=priority,
                attempts=attempts,
                breaker=breaker,
                queue=queue,
                timeout_s=timeout_s,
            )
            return handler

        return register

    def subscribe(self, handler: Callable[..., Any], *what: What, **options: Any) -> Subscription:
        """Register a handler as ``on`` does, and return its Subscription (for ``cancel``, and for its counts)."""
        subscription = make_subscription(handler, *what, **options)
        if subscription.batched:
            for event_type in subscription.types:
                self._lanes.recorded.backlog.queues[event_type].check_batch_rows(subscription.batch_rows)
        # A dict keeps the place of a key: a handler that replaces another takes its place in the order.
        if subscription.breaker is not None:
            subscription.breaker.on_change = self._lanes.notify
            subscription.now_ns = lambda: self.clock.now_ns()
        self._lanes.open_mailbox(subscription, self._subscriptions.get(subscription.name))
        self._subscriptions[subscription.name] = subscription
        self._lanes.change(self.subscriptions)
        return subscription

    def cancel(self, subscription: Subscription | str) -> None:
        """End a subscription (or the one of that name); one that has ended, or was replaced, is left alone."""
        name = subscription if isinstance(subscription, str) else subscription.name
        found = self._subscriptions.get(name)
        if found is not None and (found is subscription or isinstance(subscription, str)):
            del self._subscriptions[name]
            self._lanes.change(self.subscriptions)

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """All subscriptions, in the order in which handlers are called."""
        return tuple(sorted(self._subscriptions.values(), key=lambda one: -one.priority))

    # -- publishing -----------------------------------------------------------------------------------------------

    async def publish(self, event: Event) -> None:
        """Queue one event; waits while its queue is full. About 4 µs. Safe to cancel: the event is queued or not.

        About 15 µs for one that brings a number, or an id. Raises HandlerFailed for a handler's failure since the last
        call (never in a handler: another one's failure does not harm it), BusClosed, BusBusy, ValidationError,
        WindowFull (a strict source waits for numbers before it), and BusFull where nobody would ever make room: without
        a pump, and within an async handler that the bus waits for (it has ``queue=0``, or its own queue is full).
        """
        await self._publisher.publish(event)
        self._raise_outside_of_handlers()

    def publish_nowait(self, event: Event) -> None:
        """Queue one event, or raise BusFull. About 4 µs. Raises like ``publish``."""
        self._publisher.publish_nowait(event)
        self._raise_outside_of_handlers()

    async def publish_batch(self, batch: EventBatch) -> int:
        """Queue a batch in order; waits while a queue is full. Returns its length. About 15 ns a row.

        Cancelling it leaves the rows queued that had room. Raises like ``publish``, a bad row before any is queued;
        WindowFull says how many rows were taken.
        """
        rows = await self._publisher.publish_batch(batch)
        self._raise_outside_of_handlers()
        return rows

    def _raise_outside_of_handlers(self) -> None:
        """Raise a failure that no call has raised yet: not in a handler, to whom another one's failure is no news."""
        if self.failures.unraised and not self._gate.is_handler():
            self.failures.raise_first()

    def offer(self, batch: EventBatch) -> int:
        """Queue as many of the batch's first rows as have room, and return how many. Never waits.

        Raises BusClosed, ValidationError, and BusBusy while a run is on the bus.
        """
        return self._publisher.offer(batch)

    def producer(
        self, name: str, *, rate_hz: float | None = None, burst: int | None = None, concurrent: int | None = None
    ) -> Producer:
        """A way in with a limit of its own: at most ``rate_hz`` events a second with bursts of ``burst`` (10 ms of the
        rate unless told), and ``concurrent`` calls at once. Raises ValidationError.
        """
        return Producer(name, self, Throttle(rate_hz, burst, concurrent, self.clock))

    # -- working --------------------------------------------------------------------------------------------------

    def do_work(self, max_events: int = 1 << 62, *, max_ns: int = SLICE_NS) -> Work:
        """Handle up to ``max_events`` published events, with all that they lead to, for about ``max_ns``.

        Synchronous: call it from anywhere on the bus's thread, but from no handler, and not while a run is on the bus
        (BusBusy). ``awaiting``: all that is left waits for async handlers; ``await bus.settle()`` then. Where slices
        end changes nothing of what is delivered.
        """
        if max_events < 1:
            raise ValidationError(f"do_work handles 1 event or more; got max_events={max_events!r}")
        if self._gate.run is not None and not self._gate.is_handler():
            raise BusBusy(f"{self._gate.run.name} is on this bus, and drives it; wait for its end, or stop it")
        return self._duty.work(max_events, time.perf_counter_ns() + max_ns)

    async def settle(self) -> None:
        """Await the async handler that holds the bus up, if one does. Cancelling it cancels and fails that handler.

        Where another task awaits it already, or nothing is left but calls in handlers' own queues, this waits for the
        bus's next progress.
        """
        self._gate.refuse_handlers("settle", "let it return")
        await self._duty.settle()

    def give_up_calls(self) -> int:
        """Close the coroutines that are in async handlers' own queues, begun or not; returns how many events those are.

        They count as ``missed`` of their subscriptions. For the end of a loop: they could never go on. Raises BusBusy
        from a handler.
        """
        self._gate.refuse_handlers("give_up_calls", "ask when it has returned")
        return self._lanes.mailboxes.give_up()

    @property
    def dead_letters(self) -> DeadLetters:
        """The events that handlers failed on, or that circuit breakers kept from them: ``.to_frame()``, ``.take()``."""
        return self.failures.dead_letters

    def redeliver(self, handler: str, event: Event | EventBatch, done: Done | None = None) -> None:
        """Queue an event, or a batch, for the one subscription of that name: what it failed on, after it was mended.

        It goes next, through the NORMAL lane: as one batch to a batch or jit handler (cut at its ``batch_rows`` and
        where the type changes), else row by row. Neither ``symbol`` nor ``where`` is asked again; attempts, breaker,
        emissions and dead letters are as for every call. Its events count as ``retried``, neither as published nor as
        handled. A batch is copied, 16 ns a row; 65,536 events may wait.

        ``done`` is called once, on the bus's thread, when all its calls have ended: with None if they went well, else
        with the first error, also where the handler was cancelled meanwhile or the bus closed. Whatever was not got
        done is a dead letter then, and so at the port. Raises ValidationError for a handler that there is not, or that
        takes no such events, BusFull, BusClosed, and BusBusy while a run is on the bus (use ``run.redeliver``).
        """
        self._gate.check_not_closed()
        if self._gate.run is not None:
            raise BusBusy(f"{self._gate.run.name} is on this bus; use its run's redeliver, or wait for its end")
        self._redeliver(handler, event, done)
        self._wake.notify()

    def _redeliver(self, handler: str, event: Event | EventBatch, done: Done | None) -> None:
        self._lanes.recorded.dispatcher.redeliver(handler, event, done)

    def raise_failures(self) -> None:
        """Raise HandlerFailed for the first failure that no call has raised yet."""
        self.failures.raise_first()

    def refuse_handlers(self, what: str) -> None:
        """Raise BusBusy if a handler of this bus is asking: for whatever would wait for that handler to return."""
        self._gate.refuse_handlers(what, "ask when it has returned")

    async def drain(self) -> None:
        """Wait until everything published so far, and what it led to, has been handled. Raises HandlerFailed.

        Not for what is held because numbers before it are missing: see ``gaps``. Returns at once while a run is on the
        bus: what is queued then is the run's.
        """
        self._gate.refuse_handlers("drain", "let it return")
        while self._gate.run is None and (self._publisher.is_waited_for or not self._duty.is_idle):
            if self._gate.pumps:
                await self._progress.wait()
            else:
                self.do_work()
                await self.settle()
                await asyncio.sleep(0)
        self.failures.raise_first()

    async def pump(self) -> None:
        """Handle whatever is published, in slices of 0.4 ms with a turn of the loop between; ends when cancelled.

        A lab's supervisor runs it. While a run is on the bus its holder drives the bus, and the pump stands by.
        """
        await self._duty.pump()

    # -- priorities and flow ---------------------------------------------------------------------------------------

    @property
    def priorities(self) -> Priorities:
        """Which lane an event goes to: map, raise_when, set_condition; may be replaced at any time."""
        return self._lanes.priorities

    @priorities.setter
    def priorities(self, priorities: Priorities) -> None:
        if not isinstance(priorities, Priorities):
            raise ValidationError(
                f"a bus's priorities are hl.Priorities(), to which you add mappings; got {shown(priorities)}"
            )
        if priorities.on_failure is None:
            priorities.on_failure = lambda failure: self.failures.note(f"the rule {failure.rule}", failure.error)
        self._lanes.priorities = priorities

    # -- flow -----------------------------------------------------------------------------------------------------

    @property
    def flow(self) -> Flow:
        """What happens when more comes in than the handlers take; may be replaced at any time."""
        return self._admission.flow

    @flow.setter
    def flow(self, flow: Flow) -> None:
        if not isinstance(flow, Flow):
            raise ValidationError(
                f"a bus's flow is hl.Flow(…), such as hl.Flow(overflow='conflate'); got {shown(flow)}"
            )
        self._lanes.control.change(flow, self._capacity)
        self._admission.change(flow)
        self._lanes.schedule.ageing_ns = round(flow.ageing_s * 1e9)
        self._lanes.schedule.inherit = flow.inherit
        self._lanes.watchdog.limit_ns = round(flow.watchdog_s * 1e9) or 1 << 62

    def attach(self, source: PausableSource) -> None:
        """Have a source told to pause when a lane is filled to the high-water mark, and to resume when it is drained.

        It is told at once if it has to wait now. Attaching twice is once.
        """
        if not callable(getattr(source, "pause", None)) or not callable(getattr(source, "resume", None)):
            raise ValidationError(
                f"a source has methods pause() and resume(), which return at once; got {shown(source)}"
            )
        control = self._lanes.control
        if source not in control.sources:
            control.sources.append(source)
            if control.paused:
                control.tell(source, Water.PAUSE)

    def detach(self, source: PausableSource) -> None:
        """Tell a source no more, but to go on if it waits; harmless if it never was attached."""
        control = self._lanes.control
        if source in control.sources:
            control.sources.remove(source)
            if control.paused:
                control.tell(source, Water.RESUME)

    def keep(self, keeper: Keeper) -> None:
        """Show a keeper (``lab.keep`` makes one) all rows that are accepted from now on, in order: sequenced and
        deduplicated, before anything is shed, conflated or dropped; nothing of a run. Nothing is taken that it has no
        room for. Costs nothing where nobody keeps. Raises ValidationError."""
        self._intake.keepers.add(keeper)

    def forget(self, keeper: Keeper) -> None:
        """Show a keeper no more, and let go on who waited for it; harmless for one that is not there."""
        self._intake.keepers.remove(keeper)
        self.room_made()

    def room_made(self) -> None:
        """Have publishers and sources that wait look again, because a keeper has made room."""
        self._progress.notify()
        self._wake.notify()

    def credits(self, event: Event | type[Event] | EventType = EventType.MARKET_DATA) -> int:
        """How many more events of a type its lane takes before sources are told to pause; 0 while they are."""
        return self._admission.credits(event)

    @property
    def held_up(self) -> HoldUps:
        """Handlers that held the loop for longer than ``flow.watchdog_s``: ``.to_frame()``."""
        return self._lanes.watchdog

    # -- order ----------------------------------------------------------------------------------------------------

    @property
    def gaps(self) -> GapTable:
        """The gaps of the run that is on the bus, or was until something was published; else of what was published."""
        run = self._shown_run
        return self._stage.gaps if run is None or run.gaps is None else run.gaps

    @property
    def _shown_run(self) -> Run | None:
        """The run that is on the bus, or was until something was published."""
        run, last = self._gate.run, self._last_run
        return last if run is None and self._intake.published == self._published_by_then else run

    def end_session(self) -> None:
        """Say that no more will be published: what is missing is lost, and what it held back is queued.

        Raises BusBusy while a run is on the bus.
        """
        self._gate.check_open()
        self._intake.finish()
        self._wake.notify()

    # -- latency --------------------------------------------------------------------------------------------------

    @property
    def latency(self) -> Latency:
        """Where time goes, stage by stage: of the run that is on the bus, or was until something was published; else of
        what was published. ``.figure()``, ``.to_frame()``; empty where the bus was made with ``journeys=0``."""
        run = self._shown_run
        journey = self._lanes.recorder.live if run is None else run.journey
        return Latency(*(() if journey is None else (journey,)), name=self.name if run is None else run.name)

    def new_journey(self, path: str, *, skew: Skew | None = None, virtual: bool = False) -> Journey | None:
        """A journey by this bus's tables, for ``begin_run``; None where the bus was made with ``journeys=0``.

        ``skew``: how far the recorder's clock was off, which is taken off arrivals. ``virtual``: rows are from the
        past, and how long ago they arrived is no latency.
        """
        if not self._sampled:
            return None
        return Journey(
            path,
            type_names={event_type: event_type.topic for event_type in EventType},
            symbol_name=lambda symbol: self.symbols[symbol],
            source_name=lambda source: str(self.sources[source]),
            sample=self._sampled,
            skew=skew,
            virtual=virtual,
        )

    # -- runs -----------------------------------------------------------------------------------------------------

    @property
    def run(self) -> Run | None:
        """The run that is on the bus, if one is."""
        return self._gate.run

    def begin_run(
        self,
        name: str,
        clock: DrivenClock,
        observer: Observer | None = None,
        give_way: Callable[[], bool] = lambda: False,
        gaps: GapTable | None = None,
        journey: Journey | None = None,
    ) -> Run:
        """Put a run on the bus: until it ends, only its holder publishes and drives, and handlers see its clock.

        ``observer`` is told of all rows in the order of their dispatch, emitted ones included. A later run asks
        ``give_way``, which may end this one and say so. What a run offers is in order: its holder sees to that, and
        ``gaps`` is what it found. ``journey`` (``new_journey`` makes one) is where its rows' times are noted. Raises
        BusBusy while another run is on that does not give way, while published events wait (``await bus.drain()``
        first), and from a handler.
        """
        self._gate.check_not_closed()
        self._gate.refuse_handlers("begin_run", "begin it when the handler has returned")
        if self._gate.run is not None and not self._gate.run.give_way():
            raise BusBusy(f"{self._gate.run.name} is on this bus; wait for its end, stop it, or use a bus of its own")
        if self._publisher.is_waited_for or not self._duty.is_idle:
            raise BusBusy("published events wait to be handled; await bus.drain() before a run begins")
        controls = Controls(
            offer=self._intake.push_ordered,
            work=self._duty.work,
            settle=self.settle,
            withdraw=self._withdraw,
            tell=self._lanes.recorded.backlog.tell,
            redeliver=self._redeliver,
            flush=self._lanes.recorded.dispatcher.flush,
            finish=self._lanes.recorded.dispatcher.finish_run,
            end=self._end_run,
            counts=self._counts,
        )
        self._live_clock, self.clock = self.clock, clock
        self._lanes.begin_run(clock, observer, journey)
        self._gate.run = Run(name, clock, controls, give_way, gaps, journey)
        return self._gate.run

    def _counts(self) -> tuple[int, int]:
        return self._lanes.handled, self._lanes.emitted

    def _withdraw(self) -> int:
        self._gate.refuse_handlers("withdraw", "withdraw when the handler has returned")
        withdrawn = self._lanes.recorded.dispatcher.withdraw()
        self._intake.published -= withdrawn
        return withdrawn

    def _end_run(self) -> int:
        self._gate.refuse_handlers("the end of the run", "end it when the handler has returned")
        dropped = self._reset()
        self.clock = self._live_clock
        self._lanes.end_run(self.clock)
        if self._gate.run is not None:
            self._gate.run.left()
        self._last_run, self._published_by_then = self._gate.run, self._intake.published
        self._gate.run = None
        self._wake.notify()
        return dropped

    def _reset(self) -> int:
        dropped = self._lanes.reset()
        self._dropped += dropped
        self._progress.notify()
        return dropped

    def close(self) -> int:
        """Refuse further events; returns how many were never handled (they are counted as dropped). Idempotent.

        Async handlers that wait are given up, and what is in their own queues (it counts as ``missed`` of the
        subscription). Raises BusBusy from a handler.
        """
        self._gate.refuse_handlers("close", "close the bus when the handler has returned")
        dropped = self._gate.run.end() if self._gate.run is not None else 0
        if not self._gate.closed:
            held = self._intake.give_up()
            self._dropped += held
            dropped += held
        self._gate.closed = True
        for source in tuple(self._lanes.control.sources):
            self.detach(source)
        return dropped + self._reset()

    # -- looked at ------------------------------------------------------------------------------------------------

    def statistics(self) -> BusStatistics:
        """Counts since the bus was made; about 0.2 ms."""
        stage = self._stage.statistics()
        given_way, control = self._admission.given_way, self._lanes.control
        now_ns = self._live_clock.now_ns() if self._gate.run is None else self.clock.now_ns()
        handled = self._lanes.handled
        failures = self.failures.count
        throughput_hz, failures_hz = self._duty.rates()
        newest, oldest = given_way.total(Overflow.DROP_NEWEST), given_way.total(Overflow.DROP_OLDEST)
        return BusStatistics(
            held=stage.held_rows + self._intake.left_over,
            redelivered=stage.dedup.redelivered,
            duplicate=stage.order.duplicate_rows,
            set_aside=stage.set_aside_rows,
            published=self._intake.published,
            handled=handled - self._lanes.dead_lettered,
            dead_lettered=self._lanes.dead_lettered,
            waiting=self._lanes.waiting,
            dropped=self._dropped + newest + oldest,
            dropped_newest=newest,
            dropped_oldest=oldest,
            conflated=given_way.total(Overflow.CONFLATE),
            shed=given_way.shed,
            emitted=self._lanes.emitted,
            retried=self._lanes.recorded.dispatcher.redeliveries.retried,
            emissions_refused=sum(lane.dispatcher.emissions.refused for lane in self._lanes),
            failures=failures,
            waits=self._publisher.waits,
            capacity=sum(self._capacity.values()),
            subscriptions=len(self._subscriptions),
            run=self._gate.run.name if self._gate.run is not None else "",
            throughput_hz=throughput_hz,
            failures_hz=failures_hz,
            overload="closed" if control.breaker is None else control.breaker.state.value,
            overload_share=1.0 if control.breaker is None else control.breaker.share,
            memory=None if control.memory is None else control.memory.level,
            paused=control.paused,
            lanes=tuple(statistics_of_lane(lane, self._admission, now_ns) for lane in self._lanes),
            handlers=tuple(statistics_of_handler(subscription) for subscription in self.subscriptions),
        )

    def __repr__(self) -> str:
        state = "closed" if self._gate.closed else f"run {self._gate.run.name}" if self._gate.run else "live"
        failures = f", {self.failures.count:,} failures" if self.failures.count else ""
        return f"EventBus({self.name}: {state}, {len(self._subscriptions)} handlers{failures})"

    def _repr_html_(self) -> str:
        return html_of_bus(repr(self), self.subscriptions, self.failures)


def _checked_sample(journeys: int) -> int:
    if isinstance(journeys, bool) or not isinstance(journeys, int) or not 0 <= journeys <= 1 << 20:
        raise ValidationError(
            f"journeys is of how many events one is timed: 1 for each of them, 100 for one in 100, 0 for none, up to "
            f"{1 << 20:,}; got {shown(journeys)}"
        )
    return journeys
