"""What a bus does a second: differences between two of its statistics, about a second apart."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from hftlab.bus import BusStatistics

SPAN_NS = 1_000_000_000
STALE_NS = 5_000_000_000


@dataclass(frozen=True)
class BusRates:
    """Events a second: by lane, by lane and reason, and by handler; ``failures`` in calls.

    Empty, and ``failures`` None, before there is anything to compare.
    """

    handled: Mapping[str, float] = field(default_factory=dict)
    gave_way: Mapping[tuple[str, str], float] = field(default_factory=dict)
    delivered: Mapping[str, float] = field(default_factory=dict)
    failed: Mapping[str, float] = field(default_factory=dict)
    failures: float | None = None

    def gave_way_of(self, lane: str) -> float | None:
        """What gives way a second in a lane, for whatever reason."""
        if lane not in self.handled:
            return None
        return sum(rate for (of, _), rate in self.gave_way.items() if of == lane)


class RecentStatistics:
    """The statistics of the last second or so, and what they say of it. A difference of 0.1 s alone would flicker."""

    def __init__(self) -> None:
        self._told: deque[tuple[int, BusStatistics]] = deque()

    def add(self, now_ns: int, told: BusStatistics) -> None:
        """Take what a bus tells now. Times never fall."""
        self._told.append((now_ns, told))
        while len(self._told) > 2 and now_ns - self._told[1][0] >= SPAN_NS:
            self._told.popleft()
        # Nobody looked for a while: a mean over that time would say nothing of now.
        while now_ns - self._told[0][0] > STALE_NS:
            self._told.popleft()

    def rates(self) -> BusRates:
        """The rates now. A handler that is new, or replaced, began to count at 0 within that time."""
        (begin_ns, before), (end_ns, after) = self._told[0], self._told[-1]
        if end_ns <= begin_ns:
            return BusRates()
        scale = 1e9 / (end_ns - begin_ns)
        lanes = {lane.lane: lane for lane in before.lanes}
        handlers = {handler.name: (handler.delivered, handler.failed) for handler in before.handlers}

        def rate(now: int, then: int) -> float:
            return (now - then if now >= then else now) * scale

        return BusRates(
            handled={one.lane: rate(one.handled, lanes[one.lane].handled) for one in after.lanes},
            gave_way={
                (one.lane, reason): rate(rows, lanes[one.lane].gave_way.get(reason, 0))
                for one in after.lanes
                for reason, rows in one.gave_way.items()
            },
            delivered={one.name: rate(one.delivered, handlers.get(one.name, (0, 0))[0]) for one in after.handlers},
            failed={one.name: rate(one.failed, handlers.get(one.name, (0, 0))[1]) for one in after.handlers},
            failures=rate(after.failures, before.failures),
        )
