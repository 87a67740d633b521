"""``LiveFeed``: a batch sent to a bus as if it came in now, at a base rate with bursts on top."""

from __future__ import annotations

import asyncio
import html
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np

from hftlab.errors import ValidationError
from hftlab.events import ClockSource, EventBatch, EventType
from hftlab.events.ports import LiveBus, ReadClock
from hftlab.sim.arguments import SECOND_NS, check_seed, check_within
from hftlab.sim.pace import Burst, Pace
from hftlab.sim.progress import Progress
from hftlab.sim.traffic import Line, Mix, traffic_of

PIECE_ROWS = 4_096
"""Rows go to the bus in pieces of this many at most, so that it can say between two of them that it is full."""
AFTER_REFUSAL_ROWS = 64
"""A bus that had no room is offered so many first, and twice as many each time: it looks at all that it is offered."""
CATCH_UP_ROWS = 1_024
"""So many that were held back go with what is newly due, so that the bus can say pause again before it is full."""
TICK_S = 0.002
"""How often what is due is sent: a turn of the loop for each event would cost more than the event."""
_LONGEST_SLEEP_S = 0.1

_EPOCHS: WeakKeyDictionary[LiveBus, int] = WeakKeyDictionary()
"""How many runs of feeds each bus has seen: a cell that is run again begins a new epoch, with numbers from 1."""


@dataclass(frozen=True)
class FeedStatistics:
    """Counts of one run, in events. sent + waiting are all that were due so far.

    ``by_type``: those sent, by topic word. ``held_back``: those that did not go when they were due, because the bus had
    told the feed to pause or had no room; most of them went later, ``waiting`` have yet to. ``refusals``: how often it
    had no room. ``pauses``: how often it said pause, and for how long (``paused_ns``).
    """

    total: int
    sent: int
    by_type: Mapping[str, int]
    waiting: int
    held_back: int
    refusals: int
    paused: bool
    pauses: int
    paused_ns: int


class HasBus(Protocol):
    """What has a bus of its own: a ``Lab``."""

    @property
    def bus(self) -> LiveBus:
        """The bus."""
        ...


class _Course:
    """How far a run has got: rows sent a line, and when it began."""

    def __init__(self, begin_ns: int, total: int, prefix: str, epoch: int, lines: int) -> None:
        self.begin_ns, self.total, self.prefix, self.epoch = begin_ns, total, prefix, epoch
        self.sent = [0] * lines
        self.due = [0] * lines  # at the last look
        self.refused = [False] * lines  # at the last look
        self.held = [0] * lines  # up to where rows are counted as held back
        self.by_type = np.zeros(len(EventType) + 1, np.int64)
        self.held_back = self.refusals = self.pauses = self.paused_ns = self.waiting = 0
        self.over = False


class LiveFeed:
    """Sends a batch's events to a bus, evenly spaced at ``rate_hz``, and as many more as ``bursts`` say.

    ``bus`` is a bus, or a lab. ``batch``: ``hl.sim.market(…)``, or any recording; its rows keep their order, symbols
    and prices, and get the times of now: ``timestamp`` when they are due, ``received`` when they are sent. Sources are
    numbered from 1 (rule PLUS_ONE), in a new epoch each time that the feed starts, so that running a cell again is
    harmless. Two feeds at a time on one bus want different symbols.

    ``rate_hz``: None is the batch's own mean rate. ``seconds``: how long it lasts, with the batch sent again and again
    as needed; None: once through the batch. ``orders``, ``fills`` and ``signals`` are the parts of all events that are
    made up and mixed in, drawn by ``seed``: limit orders at the market's prices, fills of them, signals of strategy
    "sim". The same arguments give the same events, but for their times.

    The bus's watermarks ``pause`` and ``resume`` it. What is due meanwhile is held back, and sent later, in order, up
    to 1,024 events with each look at what is due. Orders and fills are not paused: they come over a connection of their
    own, and wait only when their own queue is full. ``pausable=False`` is a feed that can't be told to wait, as a
    multicast can't: what finds no room is for the bus's overflow policy to decide.

    ``await feed.run()`` sends everything, beside whatever else the loop does. ``clock`` (the bus's by default) tells
    the time and ``sleep`` waits, so that a test, or a simulation with ``send_due``, can bring its own. Raises
    ValidationError for arguments out of bounds.
    """

    def __init__(
        self,
        batch: EventBatch,
        bus: LiveBus | HasBus,
        *,
        rate_hz: float | None = None,
        bursts: Iterable[Burst] = (),
        seconds: float | None = None,
        orders: float = 0.0,
        fills: float = 0.0,
        signals: float = 0.0,
        seed: int = 0,
        pausable: bool = True,
        clock: ReadClock | None = None,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
        name: str = "sim",
    ) -> None:
        check_seed(seed)
        if not isinstance(name, str) or not 0 < len(name.encode()) <= 12:
            raise ValidationError(f"name is a text of 1 to 12 bytes, which orders' ids begin with; got {name!r:.100}")
        self.name = name
        self._bus, self._clock, self._sleep = _bus_of(bus), clock, sleep
        self._traffic = traffic_of(batch, Mix(orders, fills, signals), seed)
        self.pace = Pace(_own_rate_hz(batch) if rate_hz is None else rate_hz, bursts)
        if seconds is None:
            self._total = self._traffic.round_rows
        else:
            self._total = self.pace.due_before(round(check_within("seconds", seconds, 1e-6, 1e6) * SECOND_NS))
        self.pausable = pausable
        self.paused = False
        self._paused_at_ns = 0
        self._course: _Course | None = None

    # -- the bus's word -------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """Hold back what is due, orders and fills excepted. The bus calls it; harmless when repeated."""
        course = self._course
        if not self.paused and course is not None:
            course.pauses += 1
            self._paused_at_ns = self._now_ns()
        self.paused = True

    def resume(self) -> None:
        """Go on. The bus calls it; harmless when repeated."""
        course = self._course
        if self.paused and course is not None:
            course.paused_ns += max(self._now_ns() - max(self._paused_at_ns, course.begin_ns), 0)
        self.paused = False

    # -- sending --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a run: its time 0 is now, and the bus may pause it from now on. Does nothing while one is going on."""
        if self._course is not None and not self._course.over:
            return
        epoch = _EPOCHS[self._bus] = _EPOCHS.get(self._bus, 0) + 1
        prefix = f"{self.name}-{epoch}-"
        self.paused = False
        self._course = _Course(self._now_ns(), self._total, prefix, epoch, len(self._traffic.lines))
        if self.pausable:
            self._bus.attach(self)

    def send_due(self) -> int:
        """Send what is due by now, as far as the bus takes it, and return how many events; starts the feed if need be.

        Synchronous, and never waits: for a loop of your own, such as a simulation with a VirtualClock. About 60 ns an
        event beside the bus's own work. Raises BusClosed, and BusBusy while a run is on the bus.
        """
        if self._course is None:
            self.start()
        course = self._course
        assert course is not None
        if course.over:
            return 0
        now_ns = self._now_ns()
        due = min(self.pace.due_by(now_ns - course.begin_ns), course.total)
        before, course.waiting = sum(course.sent), 0
        for which, line in enumerate(self._traffic.lines):
            self._send_line(course, which, line, line.count_below(due), now_ns)
        sent = sum(course.sent)
        if sent == course.total:
            self._end(course)
        return sent - before

    def _send_line(self, course: _Course, which: int, line: Line, due: int, now_ns: int) -> None:
        end = min(course.sent[which] + due - course.due[which] + CATCH_UP_ROWS, due)
        course.due[which] = due
        most = AFTER_REFUSAL_ROWS if course.refused[which] else PIECE_ROWS
        course.refused[which] = False
        while course.sent[which] < end and (line.urgent or not self.paused):
            begin = course.sent[which]
            rows, places = line.take(begin, min(end, begin + most), course.prefix)
            # A row is due at a whole ns at the latest; what is sent was not sent before.
            rows["timestamp"] = np.minimum(course.begin_ns + self.pace.due_ns(places), now_ns)
            rows["received"] = now_ns
            rows["clock"] = ClockSource.APPLICATION
            rows["epoch"] = course.epoch
            taken = self._bus.offer(EventBatch(rows, self._traffic.symbols, self._traffic.sources))
            course.sent[which] += taken
            course.by_type += np.bincount(rows["type"][:taken], minlength=len(EventType) + 1)
            if taken < len(rows):
                course.refusals += 1
                course.refused[which] = True
                break
            most = min(2 * most, PIECE_ROWS)
        left = due - course.sent[which]
        course.waiting += left
        if left:
            course.held_back += due - max(course.sent[which], course.held[which])
            course.held[which] = due

    def _end(self, course: _Course) -> None:
        course.over = True
        self.resume()
        self._bus.detach(self)

    async def run(self, *, progress: bool = True) -> FeedStatistics:
        """Send everything, each event when it is due, and return the counts; after a second it shows a progress bar.

        Events go out every 2 ms, or as they come where that is rarer. What the bus has no room for goes when it has:
        something has to empty it (a started lab does). Cancelling it, or ``stop()``, ends the feed where it is. Running
        it again starts from the beginning. Raises like ``send_due``.
        """
        self.start()
        course = self._course
        assert course is not None
        bar = Progress(course.total, self.name, shown=progress)
        try:
            while not course.over:
                bar.add(self.send_due())
                if not course.over:
                    await self._sleep(self._until_due_s(course))
        finally:
            bar.close()
            self.stop()
        return self.statistics()

    def _until_due_s(self, course: _Course) -> float:
        if course.waiting:
            return TICK_S
        place = np.array([sum(course.sent)])
        due_ns = course.begin_ns + int(self.pace.due_ns(place)[0])
        return min(max((due_ns - self._now_ns()) / 1e9, TICK_S), _LONGEST_SLEEP_S)

    def stop(self) -> None:
        """End the feed where it is: ``run`` returns. Harmless when repeated."""
        if self._course is not None and not self._course.over:
            self._end(self._course)

    @property
    def done(self) -> bool:
        """Whether a run was started and is over."""
        return self._course is not None and self._course.over

    def _now_ns(self) -> int:
        return (self._clock or self._bus.clock).now_ns()

    # -- looked at ------------------------------------------------------------------------------------------------

    def statistics(self) -> FeedStatistics:
        """What the run that is going on, or was last, has done so far."""
        course = self._course or _Course(0, self._total, "", 0, 0)
        paused_ns = course.paused_ns
        if self.paused and not course.over:
            paused_ns += max(self._now_ns() - max(self._paused_at_ns, course.begin_ns), 0)
        by_type = {event_type.topic: int(course.by_type[event_type]) for event_type in EventType}
        return FeedStatistics(
            total=course.total,
            sent=sum(course.sent),
            by_type=MappingProxyType({topic: count for topic, count in by_type.items() if count}),
            waiting=course.waiting,
            held_back=course.held_back,
            refusals=course.refusals,
            paused=self.paused,
            pauses=course.pauses,
            paused_ns=paused_ns,
        )

    def __repr__(self) -> str:
        shown = self.statistics()
        state = "not started" if self._course is None else "done" if shown.sent == shown.total else "stopped"
        if self._course is not None and not self._course.over:
            state = "paused" if self.paused else "running"
        return f"LiveFeed({self.name}: {state}, {shown.sent:,} of {shown.total:,} sent, {self.pace!r})"

    def _repr_html_(self) -> str:
        shown = self.statistics()
        parts = [f"{count:,} {topic}" for topic, count in shown.by_type.items()]
        parts.append(f"{shown.held_back:,} held back in {shown.pauses:,} pauses and {shown.refusals:,} refusals")
        return f"<div><b>{html.escape(repr(self))}</b><br>{html.escape('; '.join(parts))}</div>"


def _bus_of(given: LiveBus | HasBus) -> LiveBus:
    """The bus that is meant: itself, or a lab's. Raises ValidationError."""
    bus: Any = getattr(given, "bus", given)
    if not callable(getattr(bus, "offer", None)) or not callable(getattr(bus, "attach", None)):
        raise ValidationError(f"a live feed sends to a bus, such as lab.bus; got {given!r:.100}")
    found: LiveBus = bus
    return found


def _own_rate_hz(batch: EventBatch) -> float:
    """A batch's mean rate, by arrivals."""
    times = batch.records["received"]
    span_ns = int(times.max() - times.min()) if len(batch) else 0
    if not span_ns:
        raise ValidationError(f"this batch's own rate is unknown, its events have one time; give rate_hz=: {batch!r}")
    return len(batch) * SECOND_NS / span_ns
