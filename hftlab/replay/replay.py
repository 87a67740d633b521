"""``Replay``: a recorded session through the handlers of a bus, whole, paced or step by step, always the same."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

import msgspec
import numpy as np
import numpy.typing as npt
from tqdm.auto import tqdm

from hftlab.clock import Skew, VirtualClock
from hftlab.clock.times import Time
from hftlab.errors import EmptyRange, ReplayError, ValidationError, shown
from hftlab.events.batch import EventBatch
from hftlab.events.ports import FailedCalls, LogRange, RunBus, SessionInfo, SessionLog
from hftlab.events.records import Rows
from hftlab.metrics.journeys import Latency
from hftlab.replay.around import around, arrival
from hftlab.replay.course import SLICE_NS, Course, Halt
from hftlab.replay.feeder import Until
from hftlab.replay.incoming import Opening
from hftlab.replay.pace import Pace, check_gap
from hftlab.replay.selection import Selection, Span, bound
from hftlab.replay.shown import describe, html_of, nothing_left
from hftlab.replay.statistics import ReplayStatistics, State, order_counts
from hftlab.replay.trace import PriceTrace
from hftlab.sequence import Gap, GapTable, Ordering
from hftlab.sequence.stage import OrderStage

DEFAULT_PREFETCH = 4

Target = Time | Callable[[Rows], npt.NDArray[np.bool_]]


class Replay:
    """One session, or a part of it, replayed on a bus that it has to itself for that time.

    ``await run()`` goes to the end; ``play()`` does so in the background, with ``pause()``, ``await step(n)``,
    ``await seek(…)`` and ``speed`` to control it. Handlers see the virtual ``clock``; ``digest`` is of all that was
    delivered and emitted so far. The same session, selection and handlers give the same digest, whatever the speed,
    pauses, frame size, ``slice_ns``, ``prefetch`` or machine. Make one with ``lab.replay``.

    All methods belong to the loop's thread. Interrupting or cancelling any of them pauses; nothing is lost or doubled.
    """

    def __init__(
        self,
        log: SessionLog,
        bus: RunBus,
        session: str,
        selection: Selection | None = None,
        *,
        speed: float = math.inf,
        max_gap_s: float | None = None,
        prefetch: int = DEFAULT_PREFETCH,
        slice_ns: int = SLICE_NS,
        ordering: Ordering | None = None,
        skew: Skew | None = None,
    ) -> None:
        if not 1 <= prefetch <= 64:
            raise ValidationError(f"prefetch is how many reads are under way at once, 1 to 64; got {prefetch}")
        if slice_ns < 1:
            raise ValidationError(f"slice_ns is above 0; got {slice_ns}")
        if skew is not None and not isinstance(skew, Skew):
            raise ValidationError(
                f"skew is how far the recorder's clock was off: hl.Skew, such as replay.latency.skew; got {shown(skew)}"
            )
        self.session_name = session
        self.skew = skew
        self.selection = selection or Selection()
        self._log, self._bus = log, bus
        self._prefetch, self._slice_ns = prefetch, slice_ns
        self.ordering = ordering or Ordering()
        self._pace = Pace(speed, check_gap(max_gap_s))
        self._state = State.READY
        self._span: Span | None = None
        self._course: Course | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop = self._beginning = False
        self._failure: BaseException | None = None
        self._no_gaps = OrderStage(self.ordering, bus.symbols, bus.sources).gaps
        self._watchers: list[Callable[[], None]] = []
        self._rested = asyncio.Event()
        self._rested.set()

    # -- playing ------------------------------------------------------------------------------------------------------

    async def run(self, *, progress: bool | None = None) -> Self:
        """Deliver everything up to the end of the range, at ``speed``; afresh if the last run is through.

        Raises EmptyRange where nothing matches, HandlerFailed at the end if a handler failed meanwhile. ``progress``
        shows a bar (None: after a second). ``pause()`` ends it early.
        """
        if not self.speed:
            raise ReplayError("speed is 0, at which nothing moves: set replay.speed first, or await replay.step()")
        await self._begin(afresh=True)
        self._stop = False
        assert self._course is not None
        with self._course.bar(self.session_name, progress) as bar:
            await self._drive(bar=bar)
        self._raise_what_failed()
        return self

    def play(self) -> None:
        """Begin, or go on, in the background; afresh if the last run is through. Harmless while it plays.

        What fails is kept: shown by the repr, raised by ``wait`` and by the next call.
        """
        if self._task is not None and not self._task.done():
            self._stop = False
            return
        self._check_rested()
        self._raise_failure()
        self._stop = False
        self._task = asyncio.get_running_loop().create_task(self._play(), name=f"replay of {self.session_name}")

    resume = play

    async def _play(self) -> None:
        try:
            await self._begin(afresh=True)
            await self._drive()
            self._raise_what_failed()
        except Exception as error:  # raised by the next call
            self._failure = error
            self._tell()

    def pause(self) -> None:
        """Stop after the current slice (0.4 ms and the handler that is being called); harmless at rest."""
        self._stop = True
        if self._course is not None:
            self._course.wake()

    async def paused(self) -> None:
        """Wait until the replay is at rest: paused, done or closed. Raises nothing of what failed.

        Raises BusBusy from a handler, which it would wait for in vain.
        """
        self._bus.refuse_handlers("waiting for the replay")
        task = self._task
        if task is not None and task is not asyncio.current_task():
            await asyncio.wait([task])
        await self._rested.wait()

    async def wait(self) -> Self:
        """Wait until the replay is at rest, and raise what made it stop, if something did."""
        await self.paused()
        self._raise_failure()
        return self

    async def step(self, events: int = 1) -> EventBatch:
        """Deliver the next ``events`` recorded events, with all that they lead to, and return these rows as a batch.

        Pauses first if it plays. A batch handler waits for the end of its batch. Returns fewer rows, or none, at the
        end. Raises HandlerFailed.
        """
        if isinstance(events, bool) or not isinstance(events, int) or events < 1:
            raise ValidationError(f"step(n) takes a number of events of at least 1; got {events!r}")
        await self._rest()
        await self._begin()
        if self._course is None or self._state is State.DONE:
            return EventBatch.empty()
        transcript = self._course.transcript
        self._stop = False
        transcript.keep()
        try:
            await self._drive(events, hurry=True)
        finally:
            stepped = transcript.take()
        self._raise_what_failed()
        return stepped

    async def run_until(self, target: Target) -> Self:
        """Go on, at ``speed``, up to a time or an event id (not included), or a predicate over records; then pause.

        A predicate takes records of one type and returns a boolean array; the first event for which it holds is the
        last one delivered. Raises like ``run``, and ValidationError or TimeError for a target that can't be.
        """
        await self._rest()
        await self._begin()
        if self._state is State.DONE:
            return self  # nothing is left to go on with
        if callable(target):
            until = Until(predicate=target)
        else:
            assert self._span is not None
            arrival_ns, log_sequence = bound(target, self._span.session)
            until = Until(arrival_ns, log_sequence)
        self._stop = False
        await self._drive(until=until)
        self._raise_what_failed()
        return self

    async def seek(self, target: Time) -> Self:
        """Go to a time (with a zone, or a bare time of day) or an event id within the range, and stand or play there.

        Forwards, the events between are skipped (and counted), and the run goes on. Backwards, a fresh run begins
        there: handlers keep what they have, digest, counts and clock begin anew. Raises EmptyRange, TimeError; the
        replay is then where it was.
        """
        playing = self._state is State.RUNNING
        await self._rest()
        await self._begin(afresh=True)
        span, course = self._span, self._course
        assert span is not None and course is not None  # noqa: PT018
        part, begin_ns, begin_log = span.target(target)
        ahead = begin_log >= course.log_sequence if begin_log is not None else (begin_ns or 0) > self.position_ns
        if ahead and course.delivered:
            await course.skip_to(self._opening(span.session, span.starting(begin_ns, begin_log or course.log_sequence)))
        else:
            await self._leave()
            course = self._start(span, part)
        if begin_log is not None:
            begin_ns = await arrival(self._log, span.session, begin_log, self._bus.symbols, self._bus.sources)
        course.clock.advance_to(begin_ns or 0)
        self._become(State.PAUSED)
        if playing:
            self.play()
        return self

    async def close(self) -> None:
        """Leave the bus and stop reading. Idempotent; what was delivered, and its digest, stay readable."""
        await self._rest()
        await self._leave()
        if self._state is not State.DONE:
            self._become(State.CLOSED)

    async def __aenter__(self) -> Self:
        await self._begin(afresh=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- pace ---------------------------------------------------------------------------------------------------------

    @property
    def speed(self) -> float:
        """1 is real time by the events' arrivals, ``math.inf`` flat out, 0 stands still. Settable while it plays."""
        return self._pace.speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self._pace.change(speed, time.perf_counter_ns())
        if self._course is not None:
            self._course.pace_changed()
        self._tell()

    @property
    def max_gap_s(self) -> float | None:
        """Longer silences are shortened to this while it plays at a finite speed (None: none is). Settable."""
        gap_ns = self._pace.max_gap_ns
        return None if gap_ns is None else gap_ns / 1e9

    @max_gap_s.setter
    def max_gap_s(self, max_gap_s: float | None) -> None:
        self._pace.max_gap_ns = check_gap(max_gap_s)

    # -- driving ------------------------------------------------------------------------------------------------------

    async def _begin(self, *, afresh: bool = False) -> None:
        """Read what the session holds and take the bus, unless a run is under way (``afresh``: or is through)."""
        self._check_rested()
        self._raise_failure()
        self._beginning = True
        try:
            await self._begin_anew(afresh)
        finally:
            self._beginning = False

    async def _begin_anew(self, afresh: bool) -> None:
        if self._state is State.CLOSED and not afresh:
            raise ReplayError(
                f"this replay of {self.session_name} was closed, or gave its bus to a later one: await replay.run() or "
                "replay.play() begin afresh, await replay.seek(…) anywhere"
            )
        through = self._state in (State.DONE, State.CLOSED)
        if (self._course is not None and not through) or (self._state is State.DONE and not afresh):
            return
        info = await self._log.session(self.session_name)
        wanted = self.selection.log_range(info)
        await self._bus.drain()
        await self._leave()
        self._start(Span(info, wanted), wanted)
        self._become(State.PAUSED)

    def _start(self, span: Span, part: LogRange) -> Course:
        """Put a fresh run on the bus that delivers ``part`` of the range."""
        self._span, info = span, span.session
        clock = VirtualClock(max(info.start_ns, part.start_ns or 0))
        self._pace = Pace(self._pace.speed, self._pace.max_gap_ns)
        self._course = Course(
            self._bus,
            f"replay of {self.session_name}",
            clock,
            info,
            self._opening(info, part),
            self.selection,
            self._pace,
            self._give_way,
            slice_ns=self._slice_ns,
            log_sequence=part.start_log or 0,
            ordering=self.ordering,
            skew=self.skew,
        )
        return self._course

    def _opening(self, info: SessionInfo, part: LogRange) -> Opening:
        def begin(log_sequence: int | None) -> AsyncIterator[EventBatch]:
            wanted = part if log_sequence is None else msgspec.structs.replace(part, start_log=log_sequence)
            bus = self._bus
            return self._log.read(info, wanted, symbols=bus.symbols, sources=bus.sources, prefetch=self._prefetch)

        return begin

    async def _drive(
        self, events: int = 1 << 62, *, hurry: bool = False, until: Until | None = None, bar: tqdm[Any] | None = None
    ) -> None:
        course = self._course
        assert course is not None
        self._rested.clear()
        self._become(State.RUNNING)
        halt = Halt.STOPPED
        try:
            halt = await course.drive(events, lambda: self._stop, hurry=hurry, until=until, bar=bar)
        finally:
            through = halt is Halt.END
            self._become(State.DONE if through else State.CLOSED if course.ended else State.PAUSED)
            self._rested.set()

    async def _rest(self) -> None:
        """Pause, if it plays, in the background or in somebody's ``run``, and wait until it stands."""
        self._bus.refuse_handlers("controlling the replay")
        if self._state is State.RUNNING or (self._task is not None and not self._task.done()):
            self.pause()
            await self.paused()

    def _check_rested(self) -> None:
        playing = self._task is not None and not self._task.done() and self._task is not asyncio.current_task()
        if playing or self._beginning or self._state is State.RUNNING:
            raise ReplayError(
                "this replay is running already: replay.pause() stops it, await replay.wait() awaits its end; for a "
                "second one side by side, make another with a bus of its own"
            )

    def _give_way(self) -> bool:
        """Another run wants the bus: a paused replay ends for it, so that re-running a cell is harmless."""
        if self._state is State.RUNNING:
            return False
        if self._course is not None:
            self._course.end()
        self._become(State.CLOSED)
        return True

    async def _leave(self) -> None:
        if self._course is not None:
            await self._course.close()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _raise_what_failed(self) -> None:
        course = self._course
        assert course is not None
        if self._state is State.DONE and not course.delivered and not course.skipped:
            assert self._span is not None
            raise EmptyRange(nothing_left(self._span, self.selection, course.filtered))
        self._bus.raise_failures()

    # -- looked at ----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """READY, RUNNING, PAUSED, DONE or CLOSED."""
        return self._state

    @property
    def clock(self) -> VirtualClock:
        """The time that handlers see."""
        return VirtualClock() if self._course is None else self._course.clock

    @property
    def session(self) -> SessionInfo | None:
        """What the session held when the run began (None before)."""
        return None if self._span is None else self._span.session

    @property
    def delivered(self) -> int:
        """How many recorded events have been delivered in this run."""
        return 0 if self._course is None else self._course.delivered

    @property
    def position_ns(self) -> int:
        """The virtual time that the run has reached, in ns UTC; 0 before the first."""
        return 0 if self._course is None else self._course.clock.now_ns()

    @property
    def digest(self) -> str:
        """XXH3-128 of all rows delivered and emitted so far, with names for ids: 32 hexadecimal digits."""
        if self._course is None:
            raise ReplayError("nothing has been delivered yet: await replay.run(), or replay.step()")
        return self._course.transcript.digest

    @property
    def trace(self) -> PriceTrace:
        """The decimated path of prices that this run delivered."""
        return PriceTrace(self._bus.symbols) if self._course is None else self._course.transcript.trace

    def latest(self, count: int = 20) -> EventBatch:
        """Copies of the latest rows delivered and emitted (at most 100), the newest last."""
        return EventBatch.empty() if self._course is None else self._course.transcript.latest(count)

    @property
    def gaps(self) -> GapTable:
        """The gaps of this run's sources, found so far; ``.set_aside`` has the rows that came too late, or twice."""
        return self._no_gaps if self._course is None else self._course.stage.gaps

    @property
    def latency(self) -> Latency:
        """Where the time of this run goes, stage by stage: ``.figure()``, ``.to_frame()``, ``.skew``.

        From the exchange to the recorder by the recorded times, less ``skew`` where the replay has one; from there on
        by this machine's clock. Empty before it runs, and where the bus was made with ``journeys=0``.
        """
        journey = None if self._course is None else self._course.journey
        return Latency(*(() if journey is None else (journey,)), name=f"replay of {self.session_name}")

    async def around(self, gap: Gap, messages: int = 10) -> tuple[EventBatch, EventBatch]:
        """The recorded events of a gap's source on either side of it: the last ``messages`` before, the first after.

        Reads the session anew, whatever the replay's filters; empty where the gap knows no such event. Moves nothing.
        """
        info = await self._log.session(self.session_name)
        return await around(self._log, info, gap, messages, self._bus.symbols, self._bus.sources)

    @property
    def failures(self) -> FailedCalls:
        """What handlers of the bus raised so far, also while it still plays: the latest 100, the oldest first."""
        return self._bus.failures

    def statistics(self) -> ReplayStatistics:
        """The numbers of the current run, frozen; some 10 µs, and what the rows since the last time cost."""
        course, span = self._course, self._span
        return ReplayStatistics(
            state=self._state.value,
            speed=self.speed,
            delivered=self.delivered,
            emitted=0 if course is None else course.emitted,
            filtered=0 if course is None else course.filtered,
            skipped=0 if course is None else course.skipped,
            position_ns=self.position_ns,
            start_ns=0 if span is None else span.start_ns,
            end_ns=0 if span is None else span.end_ns,
            progress=1.0 if self._state is State.DONE else 0.0 if span is None else span.progress(self.position_ns),
            log_sequence=0 if course is None else course.log_sequence,
            elapsed_s=0.0 if course is None else course.elapsed_s,
            rate_hz=0.0 if course is None else course.rate_hz,
            lag_ns=0 if course is None else course.lag_ns,
            counts={} if course is None else course.counts,
            **({} if course is None else order_counts(course.stage.statistics())),
            failure="" if self._failure is None else f"{type(self._failure).__name__}: {self._failure}",
        )

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback``, on the loop, whenever state or speed change; returns what ends that."""
        self._watchers.append(callback)

        def unsubscribe() -> None:
            if callback in self._watchers:
                self._watchers.remove(callback)

        return unsubscribe

    def _become(self, state: State) -> None:
        if state is not self._state:
            self._state = state
            self._tell()

    def _tell(self) -> None:
        for callback in list(self._watchers):
            callback()

    def __repr__(self) -> str:
        return describe(self.session_name, self.statistics())

    def _repr_html_(self) -> str:
        return html_of(self.session_name, self.statistics(), "" if self._course is None else self.digest)
