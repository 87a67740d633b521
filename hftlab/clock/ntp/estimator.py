"""``Estimator``: exchanges with several servers in, where UTC is out. No I/O, and no clock: times are passed in.

Each server has a clock filter (its best answer) and a drift history; the servers' intervals are intersected, those
outside are falsetickers, and the rest are combined. See ``filter``, ``drift`` and ``selection``.

**The bound** of an estimate is half the delay, plus the precision of the clocks, plus the server's root distance (half
its root delay, plus its root dispersion), plus aging: how far the drift may be off, for as long as the answer is old.
Until the drift is known that is 500 ppm; then it is the drift's bound and 1 ppm, which is more than a crystal's
frequency changes by while the filter's answers last. Each honest server's interval holds UTC; of several servers, the
bound holds while most are honest.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import msgspec

from hftlab.clock.estimate import Estimate, Exchange
from hftlab.clock.ntp.drift import Drift, DriftHistory
from hftlab.clock.ntp.filter import MAX_DRIFT_PPB, ClockFilter, Placed, Rate
from hftlab.clock.ntp.selection import Candidate, Selection, majority_interval, select
from hftlab.errors import ValidationError, shown

MAX_DISTANCE_NS = 1_500_000_000
"""An answer that may be off by more is not used: RFC 5905's MAXDIST."""
STALE_AFTER_S = 8 * 1024.0
"""Eight of the longest usual intervals: as many unanswered questions as empty a reach register."""
DRIFT_CHANGE_PPB = 1_000.0
"""Room for what the drift will be against what it was, on average, over its history."""


class ServerView(msgspec.Struct, frozen=True):
    """What is known of one server, as of the latest estimate or answer.

    ``offset_ns`` (UTC minus counter), ``bound_ns``, ``delay_ns``, ``jitter_ns``, ``dispersion_ns``: of its best answer
    now, None before the first. ``verdict``: ``truechimer`` (the majority agrees with it), ``alone`` (believed, as
    nobody contradicts it), ``falseticker`` (its interval does not meet the majority's), ``candidate`` (there is no
    majority that agrees, or it was not asked for one yet), ``stale`` (its answers are too old, or too wide),
    ``unheard``. ``samples`` answers are in its filter; ``outliers`` and ``late`` ones were left out, ``resets`` times
    it was begun anew, after a step.
    """

    server: str
    verdict: str = "unheard"
    samples: int = 0
    offset_ns: int | None = None
    delay_ns: int | None = None
    jitter_ns: int | None = None
    dispersion_ns: int | None = None
    bound_ns: int | None = None
    drift_ppb: float | None = None
    drift_bound_ppb: float = 0.0
    wander_ppb: float = 0.0
    outliers: int = 0
    late: int = 0
    resets: int = 0


class Estimator:
    """Where UTC is, by the answers of some servers. One thread; ``add`` costs 10 µs, ``estimate`` 0.7 ms a new answer.

    ``servers``: their names, each once. ``stale_after_s``: a server that has not answered for so long does not count.
    Raises ValidationError for names given twice, and for a span that is not positive.
    """

    def __init__(self, servers: Sequence[str], *, stale_after_s: float = STALE_AFTER_S) -> None:
        if len(set(servers)) != len(servers):
            raise ValidationError(f"each server is named once, or its word would count twice; got {shown(servers)}")
        if not 0 < stale_after_s < math.inf:
            raise ValidationError(f"stale_after_s is a number of seconds above 0; got {shown(stale_after_s)}")
        self._stale_ns = stale_after_s * 1e9
        self._servers = {name: _Server() for name in servers}
        self._origin_ns: int | None = None
        self._now_ns = 0
        self._selection: Selection | None = None

    def add(self, exchange: Exchange) -> None:
        """Take in an exchange that passed every check. Raises ValidationError for one of a server that is not ours.

        Exchanges of one server come in the order of their arrival; one that comes late is left out, and counted.
        """
        server = self._server(exchange.server)
        if self._origin_ns is None:
            self._origin_ns = exchange.offset_ns
        self._now_ns = max(self._now_ns, exchange.at_ns)
        server.add(exchange)

    def forget(self, server: str) -> None:
        """Begin anew with a server, as when its name means another address now. Its counts are kept."""
        self._server(server).forget()

    def estimate(self, now_counter_ns: int) -> Estimate | None:
        """Where UTC is at this moment of the counter; None without an answer, or a majority that agrees."""
        self._now_ns = now_counter_ns
        candidates = []
        for name, server in self._servers.items():
            server.verdict = "unheard"
            best = server.best(now_counter_ns, self._origin_ns or 0, use=True)
            if best is None:
                continue
            server.verdict = "candidate"
            if self._is_stale(server, best):
                server.verdict = "stale"
                continue
            jitter = server.filter.jitter_ns(now_counter_ns, server.rate)
            candidates.append(Candidate(name, best.offset_ns, best.bound_ns, jitter))
        chosen = self._selection = select(candidates)
        if chosen is None:
            return None
        for name in chosen.falsetickers:
            self._servers[name].verdict = "falseticker"
        for name in chosen.truechimers:
            self._servers[name].verdict = "truechimer" if len(candidates) > 1 else "alone"
        return self._told(chosen, now_counter_ns)

    def server(self, name: str) -> ServerView:
        """What is known of a server. Raises ValidationError for one that is not ours."""
        server = self._server(name)
        seen, rate, drift = server.filter, server.rate, server.history.drift
        view = ServerView(name, outliers=seen.outliers, late=seen.late, resets=seen.resets)
        if seen.newest is None:
            return view
        origin = seen.newest.offset_ns
        best = seen.best(self._now_ns, rate, origin)
        assert best is not None
        return msgspec.structs.replace(
            view,
            verdict="candidate" if server.verdict == "unheard" else server.verdict,
            samples=len(seen),
            offset_ns=origin + round(best.offset_ns),
            delay_ns=best.exchange.delay_ns,
            jitter_ns=round(seen.jitter_ns(self._now_ns, rate)),
            dispersion_ns=round(seen.dispersion_ns(self._now_ns, rate)),
            bound_ns=math.ceil(best.bound_ns),
            drift_ppb=None if drift is None else drift.ppb,
            drift_bound_ppb=0.0 if drift is None else drift.bound_ppb,
            wander_ppb=server.history.wander_ppb,
        )

    @property
    def jitter_ns(self) -> int:
        """How much the answers, and the servers, scatter: of the latest estimate; 0 without one."""
        return round(self._selection.jitter_ns) if self._selection is not None else 0

    @property
    def stable(self) -> bool:
        """Whether servers need not be asked so often: the drift is known, and the latest answers were as expected."""
        if self._selection is None:
            return False
        believed = [self._servers[name] for name in self._selection.survivors]
        return any(one.history.drift for one in believed) and all(one.filter.steady(one.rate) for one in believed)

    @property
    def resets(self) -> int:
        """How many times a server's past was forgotten because of a step."""
        return sum(server.filter.resets for server in self._servers.values())

    def __repr__(self) -> str:
        verdicts = ", ".join(f"{name}: {self.server(name).verdict}" for name in self._servers)
        return f"Estimator({verdicts or 'no servers'})"

    def _server(self, name: str) -> _Server:
        try:
            return self._servers[name]
        except KeyError:
            known = ", ".join(self._servers) or "none"
            raise ValidationError(f"a server is one of those given at the start ({known}); got {shown(name)}") from None

    def _is_stale(self, server: _Server, best: Placed) -> bool:
        newest = server.filter.newest
        return newest is None or self._now_ns - newest.at_ns > self._stale_ns or best.bound_ns > MAX_DISTANCE_NS

    def _told(self, chosen: Selection, now_ns: int) -> Estimate:
        believed = [self._servers[name].history for name in chosen.truechimers]
        drift = common_drift([history.drift for history in believed])
        return Estimate(
            at_ns=now_ns,
            offset_ns=(self._origin_ns or 0) + round(chosen.offset_ns),
            bound_ns=math.ceil(chosen.bound_ns) + 1,  # the offset is rounded
            drift_ppb=None if drift is None else drift.ppb,
            drift_bound_ppb=0.0 if drift is None else drift.bound_ppb,
            jitter_ns=round(chosen.jitter_ns),
            wander_ppb=statistics.median(history.wander_ppb for history in believed),
            servers=chosen.truechimers,
            falsetickers=chosen.falsetickers,
        )


class _Server:
    """What one server said: its filter, its drift, and what is thought of it."""

    def __init__(self) -> None:
        self.filter, self.history = ClockFilter(), DriftHistory()
        self.verdict = "unheard"

    @property
    def rate(self) -> Rate:
        """How its answers age: by its own drift, so that nobody's lies touch another."""
        drift = self.history.drift
        if drift is None:
            return Rate()
        return Rate(drift.ppb, min(drift.bound_ppb + DRIFT_CHANGE_PPB, MAX_DRIFT_PPB))

    def best(self, now_ns: int, origin_ns: int, *, use: bool = False) -> Placed | None:
        return self.filter.best(now_ns, self.rate, origin_ns, use=use)

    def add(self, exchange: Exchange) -> None:
        resets = self.filter.resets
        believed = self.filter.add(exchange, self.rate)
        if self.filter.resets > resets:
            self.history.clear()
        for one in believed:
            self.history.add(one)

    def forget(self) -> None:
        self.filter.clear()
        self.history.clear()
        self.verdict = "unheard"


def common_drift(known: Sequence[Drift | None]) -> Drift | None:
    """The drift by all who know it: where most of their intervals meet, each weighing 1 / its bound; None if none does.

    Without a majority that agrees, the narrowest one's.
    """
    drifts = [drift for drift in known if drift is not None]
    if not drifts:
        return None
    held = majority_interval([(drift.low_ppb, drift.high_ppb) for drift in drifts])
    if held is None:
        return min(drifts, key=lambda drift: drift.bound_ppb)
    weights = [1 / max(drift.bound_ppb, 1e-3) for drift in drifts]
    mean = sum(weight * drift.ppb for weight, drift in zip(weights, drifts, strict=True)) / sum(weights)
    return Drift(min(max(mean, held[0]), held[1]), *held)
