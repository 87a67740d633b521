"""What a bus tells about itself: its counts, and how they look in a notebook."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from hftlab.bus.failures import FailureLog
from hftlab.bus.subscriptions import Subscription

if TYPE_CHECKING:
    import pandas as pd

    from hftlab.bus.admission import Admission
    from hftlab.bus.figures import Figure
    from hftlab.bus.lanes import Lane


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """One lane. ``waiting`` rows of a ``capacity`` (of its fullest type), and how long the ``oldest`` has waited.

    ``handled``: published rows that went through; ``wait_*``: how long they were queued. ``gave_way``: rows that did
    not, or no longer, get in, by reason ("drop oldest", "conflate", "shed: RULE", …). ``preempted``: how often the lane
    was left for a more urgent one, and ``preemption_*`` how long its own events waited for another to be left;
    ``inversion_ns``: how long it had an event while a less urgent one was at work.
    ``pauses``: pressure episodes, in which sources were told to wait, and how long they took. ``waits_for``: the lane
    that holds the cause of its next event, or "".
    """

    lane: str
    waiting: int
    capacity: int
    oldest_ns: int
    handled: int
    wait_p50_ns: float
    wait_p99_ns: float
    wait_max_ns: int
    gave_way: Mapping[str, int]
    preempted: int
    inversion_ns: int
    paused: bool
    pauses: int
    paused_ns: int
    waits_for: str
    preemption_p99_ns: float = 0.0
    preemption_max_ns: int = 0

    @property
    def depth(self) -> float:
        """The part of its capacity that is taken."""
        return self.waiting / self.capacity


@dataclass(frozen=True, slots=True)
class HandlerStatistics:
    """One handler. ``calls`` and the events ``delivered`` in them; ``failed`` calls; events ``rejected`` by its circuit
    breaker; ``queued`` events of an async handler that waits; ``timed_out`` calls; ``dead_lettered`` events, whether
    failed or rejected; ``held_ns_max``: the longest that it is known to have held the loop. ``breaker``: its state, or
    "". ``missed``: events that it would have got, and never did: of a batch that was not full when it was cancelled, or
    of its own queue when that was given up.
    """

    name: str
    mode: str
    priority: int
    calls: int
    delivered: int
    failed: int
    emitted: int
    rejected: int
    timed_out: int
    dead_lettered: int
    queued: int
    held_ns_max: int
    breaker: str
    missed: int = 0


_PARTS = (
    "handled", "dead_lettered", "waiting", "held", "redelivered", "duplicate", "set_aside", "shed", "conflated",
    "dropped",
)  # fmt: skip
"""What becomes of published events: always all of them together."""


@dataclass(frozen=True)
class BusStatistics:
    """Counts since the bus was made, in events.

    published = handled + dead_lettered + waiting + held + redelivered + duplicate + set_aside + shed + conflated +
    dropped, at every moment.

    ``handled`` without a failure; ``dead_lettered``: at least one handler failed on it, or its breaker rejected it.
    ``held`` waits for missing numbers; ``redelivered`` came twice from the log, ``duplicate`` twice from the venue;
    ``set_aside`` came too late, or in conflict with what came before: see ``bus.gaps``. ``shed`` by rules or the
    overload breaker, ``conflated``: a newer one said it anew; ``dropped``: for want of room (``dropped_newest``,
    ``dropped_oldest``), or given up by ``close`` or the end of a run.

    ``emitted``: dispatched emissions; ``emissions_refused``: beyond what one event may lead to. ``failures``: failed
    calls. ``retried``: events that were redelivered to one handler each, and count as nothing else (but to that
    handler). ``waits``: publications that found no room. ``capacity``: rows a lane, of all types together. ``run``: the
    name of the run that is on the bus, or "". ``throughput_hz`` and ``failures_hz``: over the last second that it was
    looked at. ``overload``: the overload breaker's state ("closed" without one), ``overload_share`` the part it lets
    in. ``memory``: the pressure level, 0 to 1, where anything asks for it. ``lanes``: the most urgent first.
    """

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
    held: int = 0
    redelivered: int = 0
    duplicate: int = 0
    set_aside: int = 0
    dead_lettered: int = 0
    shed: int = 0
    retried: int = 0
    conflated: int = 0
    dropped_newest: int = 0
    dropped_oldest: int = 0
    throughput_hz: float = 0.0
    failures_hz: float = 0.0
    overload: str = "closed"
    overload_share: float = 1.0
    memory: float | None = None
    paused: bool = False
    lanes: tuple[LaneStatistics, ...] = ()
    handlers: tuple[HandlerStatistics, ...] = ()

    def to_frame(self) -> pd.DataFrame:
        """The lanes, a row each."""
        import pandas as pd

        columns = [field.name for field in fields(LaneStatistics) if field.name not in ("lane", "gave_way")]
        data = {name: [getattr(one, name) for one in self.lanes] for name in columns}
        data["gave_way"] = [sum(one.gave_way.values()) for one in self.lanes]
        return pd.DataFrame(data, index=pd.Index([one.lane for one in self.lanes], name="lane"))

    def figure(self) -> Figure:
        """A static plotly figure: how long the events of each lane waited, and what became of them."""
        return BusStatistics.compare({"": self})

    @staticmethod
    def compare(statistics: Mapping[str, BusStatistics]) -> Figure:
        """The same of several buses, or of one at several times, by name and one below the other; 16 at most."""
        from hftlab.bus.figures import lanes_figure

        return lanes_figure(statistics)

    def __repr__(self) -> str:
        parts = [f"{count:,} {name.replace('_', ' ')}" for name in _PARTS if (count := getattr(self, name))]
        return f"BusStatistics({self.published:,} published = {' + '.join(parts) or 0})"

    def _repr_html_(self) -> str:
        table = self.to_frame()[["waiting", "handled", "gave_way", "wait_p50_ns", "wait_p99_ns", "wait_max_ns"]]
        return f"<div><b>{html.escape(repr(self))}</b>{table.to_html()}</div>"


def statistics_of_lane(lane: Lane, admission: Admission, now_ns: int) -> LaneStatistics:
    """What a lane tells; about 15 µs."""
    _, capacity = admission.depth(lane)
    p50, p99 = lane.waits.quantiles([0.5, 0.99]) if lane.waits.count else (0.0, 0.0)
    water = admission.water_of(lane)
    waits_for = admission.waits_for(lane)
    return LaneStatistics(
        lane=lane.level.name,
        waiting=lane.dispatcher.waiting,
        capacity=capacity,
        oldest_ns=lane.waited_ns(now_ns),
        handled=lane.dispatcher.handled,
        wait_p50_ns=p50,
        wait_p99_ns=p99,
        wait_max_ns=lane.waits.maximum or 0,
        gave_way=admission.given_way.of_lane(lane.level),
        preempted=lane.preempted,
        inversion_ns=lane.inversion_ns,
        paused=water.paused,
        pauses=water.episodes,
        paused_ns=water.paused_ns,
        waits_for="" if waits_for is None else waits_for.level.name,
        preemption_p99_ns=lane.preemptions.quantile(0.99) if lane.preemptions.count else 0.0,
        preemption_max_ns=lane.preemptions.maximum or 0,
    )


def statistics_of_handler(subscription: Subscription) -> HandlerStatistics:
    """What a handler's subscription tells."""
    return HandlerStatistics(
        name=subscription.name,
        mode=subscription.mode,
        priority=subscription.priority,
        calls=subscription.calls,
        delivered=subscription.delivered,
        failed=subscription.failed,
        emitted=subscription.emitted,
        rejected=subscription.rejected,
        timed_out=subscription.timed_out,
        dead_lettered=subscription.dead_lettered,
        queued=subscription.queued,
        held_ns_max=subscription.held_ns_max,
        breaker="" if subscription.breaker is None else subscription.breaker.state.value,
        missed=subscription.missed,
    )


def html_of_bus(title: str, subscriptions: Sequence[Subscription], failures: FailureLog) -> str:
    """The handlers as a table, and the latest failure's traceback."""
    head = "".join(f"<th>{name}</th>" for name in ("handler", "mode", "calls", "events", "emitted", "failed"))
    rows = "".join(
        f"<tr><td>{html.escape(one.name)}</td><td>{one.mode}</td><td>{one.calls:,}</td><td>{one.delivered:,}</td>"
        f"<td>{one.emitted:,}</td><td>{one.failed:,}</td></tr>"
        for one in subscriptions
    )
    latest = "".join(f"<pre>{html.escape(failure.traceback)}</pre>" for failure in list(failures)[-1:])
    return f"<div><b>{html.escape(title)}</b><table><tr>{head}</tr>{rows}</table>{latest}</div>"
