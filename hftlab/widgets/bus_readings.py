"""What a monitor shows for which statistics: pure functions from a bus's numbers to plain texts.

Everything here is JSON that a view puts on the page with ``textContent``; no HTML is made, so that a handler's name or
an exception's words stay text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hftlab.bus import BusStatistics, HandlerStatistics, LaneStatistics
from hftlab.sequence import duration_text
from hftlab.widgets.bus_rates import BusRates
from hftlab.widgets.shown import rate_label

MOST_HANDLERS = 100
"""Rows of the table; the broken ones, then the busiest are among them."""
MOST_ERROR = 200
NOTHING = "\N{EN DASH}"
"""What is not known yet, or has not been."""

LEAST_HELD_NS = 1_000_000
"""Of handlers that are all quicker than that, none is called the slowest."""

TERMS = (
    "handled", "dead_lettered", "waiting", "held", "redelivered", "duplicate", "set_aside", "shed", "conflated",
    "dropped",
)  # fmt: skip
"""What published events are, as BusStatistics states it."""

_BROKEN = {"open", "half-open"}
_TOLD = {
    "dead_lettered": "at least one handler failed on them, or its circuit breaker rejected them",
    "waiting": "in the lanes' queues",
    "held": "wait for missing numbers before them",
    "redelivered": "came twice from the log",
    "duplicate": "came twice from the venue",
    "set_aside": "came too late, or in conflict with what came before: see bus.gaps",
    "shed": "by rules or the overload breaker",
    "conflated": "a newer one said it anew",
}

Badge = list[str]
"""Kind (``good``, ``warn``, ``bad`` or ``plain``), text, and what it means."""


def status(told: BusStatistics, rates: BusRates, title: str, *, has_breaker: bool) -> dict[str, Any]:
    """The top line: state, badges, throughput and failures. By ``rates``, so that it agrees with the lanes."""
    handled_hz, failures_hz = sum(rates.handled.values()), rates.failures or 0.0
    moves = told.waiting > 0 or handled_hz > 0 or any(rates.gave_way.values())
    run = f"Run {told.run}" if told.run else "Live"
    badges = [_overload(told, has_breaker)]
    if told.memory is not None:
        kind = "bad" if told.memory >= 0.9 else "warn" if told.memory >= 0.75 else "good"
        badges.append([kind, f"Memory {told.memory:.0%}", "Memory pressure: 100 % is the limit, or stalls for memory"])
    if told.paused:
        badges.append(["warn", "Sources paused", "The attached sources were told to wait"])
    return {
        "title": title,
        "state": "running" if moves else "ready",
        "label": f"{run}, {'busy' if moves else 'idle'}",
        "badges": badges,
        "throughput": rate_label(handled_hz) if rates.handled else NOTHING,
        "failures": NOTHING if rates.failures is None else rate_label(failures_hz),
        "failing": failures_hz > 0,
        "failed": f"{told.failures:,}",
    }


def _overload(told: BusStatistics, has_breaker: bool) -> Badge:
    if not has_breaker:
        return ["plain", "No overload breaker", "hl.Flow(breaker=hl.OverloadSettings(…)) sheds in a standing overload"]
    if told.overload == "open":
        return ["bad", "Overload: open", "A queue stands: what comes into the breaker's lanes is shed for a while"]
    if told.overload == "half-open":
        share = f"{told.overload_share:.0%}"
        return ["warn", f"Overload: half-open, {share} let in", f"{share} of its lanes' events is let in, to try"]
    return ["good", f"Overload: {told.overload}", "All is let in"]


# -- lanes ------------------------------------------------------------------------------------------------------------


def lanes(
    told: BusStatistics, rates: BusRates, peaks: Mapping[str, int], marks: tuple[float, float]
) -> list[dict[str, Any]]:
    """A dict for each lane, the most urgent first. ``peaks``: the most rows that waited lately; ``marks``: the high
    and the low watermark, as parts of the capacity.
    """
    return [_lane(lane, rates, max(peaks.get(lane.lane, 0), lane.waiting), marks) for lane in told.lanes]


def _lane(lane: LaneStatistics, rates: BusRates, peak: int, marks: tuple[float, float]) -> dict[str, Any]:
    handled_hz, gave_way_hz = rates.handled.get(lane.lane), rates.gave_way_of(lane.lane)
    share = min(lane.waiting / max(lane.capacity, 1), 1.0)
    waiting = f"{lane.waiting:,} of {lane.capacity:,}"
    return {
        "lane": lane.lane,
        "waiting": waiting,
        "share": share_text(share),
        "depth": round(share, 4),
        "peak": round(min(peak / max(lane.capacity, 1), 1.0), 4),
        "peak_text": f"peak {peak:,}",
        "marks": list(marks),
        "told": f"{waiting} waiting ({share_text(share)}); at most {peak:,} were seen in the last minute. "
        f"Sources pause at {marks[0]:.0%} and resume at {marks[1]:.0%}",
        "rate": NOTHING if handled_hz is None else rate_label(handled_hz),
        "busy": bool(handled_hz),
        "handled": f"{lane.handled:,}",
        "facts": _facts(lane),
        "gave_way": f"{sum(lane.gave_way.values()):,}",
        "giving_way": bool(gave_way_hz),
        "reasons": [
            [reason, f"{rows:,}", rate_label(rate) if (rate := rates.gave_way.get((lane.lane, reason), 0.0)) else ""]
            for reason, rows in lane.gave_way.items()
        ],
        "badges": _lane_badges(lane),
    }


def _facts(lane: LaneStatistics) -> list[list[str]]:
    waited = lane.wait_max_ns > 0
    waits = [
        ["oldest", span(lane.oldest_ns) if lane.waiting else NOTHING, "How long the oldest event has waited"],
        ["p50", span(lane.wait_p50_ns) if waited else NOTHING, "Half of all events waited for less"],
        ["p99", span(lane.wait_p99_ns) if waited else NOTHING, "99 % of all events waited for less"],
        ["max", span(lane.wait_max_ns) if waited else NOTHING, "The longest wait of an event"],
    ]
    return [
        *waits,
        ["preempted", f"{lane.preempted:,}", "How often the lane was left for a more urgent one"],
        ["inversion", span(lane.inversion_ns), "How long it had an event while a less urgent lane was at work"],
    ]


def _lane_badges(lane: LaneStatistics) -> list[Badge]:
    badges = []
    if lane.paused:
        badges.append(["warn", "paused", "Its sources are told to wait until it has drained"])
    if lane.waits_for:
        badges.append(["warn", f"waits for {lane.waits_for}", "That lane holds the cause of its next event"])
    if lane.pauses:
        text = f"{lane.pauses:,} pause{'s' if lane.pauses != 1 else ''}, {span(lane.paused_ns)}"
        badges.append(["plain", text, "Pressure episodes, and how long they took"])
    return badges


def share_text(share: float) -> str:
    """A part of a whole: ``0 %``, ``under 1 %``, ``56 %``; 100 % only where it is all."""
    if 0 < share < 0.01:
        return "under 1 %"
    return f"{min(int(share * 100), 100)} %"


def span(ns: float) -> str:
    """A duration to three digits; 0 is a dash."""
    return duration_text(int(ns)) if ns >= 1 else NOTHING


# -- the books --------------------------------------------------------------------------------------------------------


def books(told: BusStatistics) -> dict[str, Any]:
    """``published = handled + …``: each term as ``[name, figure, kind, meaning]``, and what is ``off``, if anything."""
    terms = []
    for name in TERMS:
        count = int(getattr(told, name, 0))
        kind = "zero" if not count else "bad" if name == "dead_lettered" else ""
        meaning = _dropped(told) if name == "dropped" else _TOLD.get(name, "")
        terms.append([name.replace("_", " ").replace("dead ", "dead-"), f"{count:,}", kind, meaning])
    off = told.published - sum(int(getattr(told, name, 0)) for name in TERMS)
    return {"published": f"{told.published:,}", "terms": terms, "off": f"{off:+,}" if off else ""}


def _dropped(told: BusStatistics) -> str:
    rest = told.dropped - told.dropped_newest - told.dropped_oldest
    return f"{told.dropped_newest:,} newest, {told.dropped_oldest:,} oldest, {rest:,} given up at an end"


# -- handlers ---------------------------------------------------------------------------------------------------------


Order = Callable[[HandlerStatistics, BusRates], Any]

ORDERS: dict[str, tuple[str, Order | None]] = {
    "called": ("Handler", None),
    "mode": ("Mode", lambda one, rates: one.mode),
    "priority": ("Priority", lambda one, rates: -one.priority),
    "calls": ("Calls", lambda one, rates: -one.calls),
    "rate": ("Events/s", lambda one, rates: -rates.delivered.get(one.name, 0.0)),
    "failed": ("Failed", lambda one, rates: -one.failed),
    "rejected": ("Rejected", lambda one, rates: -one.rejected),
    "dead": ("Dead-lettered", lambda one, rates: -one.dead_lettered),
    "queued": ("Queued", lambda one, rates: -one.queued),
    "timed out": ("Timed out", lambda one, rates: -one.timed_out),
    "held": ("Longest hold", lambda one, rates: -one.held_ns_max),
    "breaker": ("Breaker", lambda one, rates: (one.breaker not in _BROKEN, not one.breaker, one.breaker)),
}
"""The columns: the words by which a view orders, their heads, and how; ``called``: in the order of calls."""


def handlers(
    told: BusStatistics, rates: BusRates, order: str, slow_s: float, errors: Mapping[str, str]
) -> dict[str, Any]:
    """The table: ``rows`` of texts by ``ORDERS``, then the full name, a mark and a note. See ``mark``.

    ``slow_s``: what holds the loop for longer is slow; ``errors``: the latest by handler.
    """
    slowest = max((one.held_ns_max for one in told.handlers), default=0)
    slowest = slowest if len(told.handlers) > 1 else 0
    marked = [(one, *mark(one, rates, slow_s, slowest, errors)) for one in told.handlers]
    total = len(marked)
    if total > MOST_HANDLERS:
        busiest = sorted(marked, key=lambda row: (not row[1], -rates.delivered.get(row[0].name, 0.0), -row[0].calls))
        kept = {id(row) for row in busiest[:MOST_HANDLERS]}
        marked = [row for row in marked if id(row) in kept]
    by = ORDERS[order][1]
    if by is not None:
        marked.sort(key=lambda row: by(row[0], rates))
    more = (
        f"{total - len(marked):,} more, of the least busy: see bus.statistics().handlers" if total > len(marked) else ""
    )
    rows = [[*_cells(one, rates), one.name, kind, note] for one, kind, note in marked]
    return {"heads": [[word, head] for word, (head, _) in ORDERS.items()], "rows": rows, "order": order, "more": more}


def mark(
    one: HandlerStatistics, rates: BusRates, slow_s: float, slowest_ns: int, errors: Mapping[str, str]
) -> tuple[str, str]:
    """How a handler's row is marked, and why: ``bad`` (its circuit is open, or it fails now), ``slow``, or not at all.

    ``slowest_ns``: the longest hold of all handlers, where there are several. A note without a mark tells of the past.
    """
    error = errors.get(one.name, "")
    held = f"held the loop for {span(one.held_ns_max)}"
    if one.breaker in _BROKEN:
        does = "rejects what it would be called for" if one.breaker == "open" else "lets a few calls through, to try"
        return "bad", f"its breaker {does}" + (f"; last: {error}" if error else "")
    if rates.failed.get(one.name, 0.0) > 0:
        return "bad", f"fails {rate_label(rates.failed[one.name])}" + (f": {error}" if error else "")
    if one.held_ns_max >= slow_s * 1e9 > 0:
        return "slow", held + (", the longest of all" if one.held_ns_max == slowest_ns else "")
    if one.held_ns_max == slowest_ns >= LEAST_HELD_NS:
        return "slow", f"the slowest: {held}"
    if one.failed and error:
        return "", f"last failed with {error}"
    return "", ""


def _cells(one: HandlerStatistics, rates: BusRates) -> list[str]:
    delivered_hz = rates.delivered.get(one.name)
    counts = (one.failed, one.rejected, one.dead_lettered, one.queued, one.timed_out)
    return [
        short_name(one.name),
        one.mode,
        str(one.priority),
        f"{one.calls:,}",
        NOTHING if delivered_hz is None else rate_label(delivered_hz),
        *(f"{count:,}" if count else "" for count in counts),
        span(one.held_ns_max) if one.held_ns_max else "",
        one.breaker,
    ]


def short_name(name: str) -> str:
    """A handler's name without what a notebook's reader knows: ``__main__.`` and ``main.<locals>.``."""
    return name.removeprefix("__main__.").rsplit("<locals>.", 1)[-1]


def latest_errors(failures: Iterable[Any]) -> dict[str, str]:
    """The latest error of each handler, shortened, from what ``bus.failures`` iterates."""
    return {one.handler: f"{type(one.error).__name__}: {one.error}"[:MOST_ERROR] for one in failures}
