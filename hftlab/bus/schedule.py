"""Which lane works next: strict priority, raised by age and by inheritance. Plain arithmetic; the time is passed in.

The problem: with strict priority alone, a LOW event waits for as long as anything more urgent comes in. So a lane rises
by one level for every ``ageing_ns`` that its oldest event has waited, and lanes of one level take turns. At most three
ageing intervals after it was queued, the oldest event of any lane is on CRITICAL's level, where the lane is chosen at
the latest after every other lane has had one turn. So the n-th event of a lane whose turns handle k events waits for at
most ``3 * ageing_ns`` and ``ceil(n / k) * (lanes - 1)`` turns of others, whatever comes in meanwhile.

A lane whose next event waits for its cause in another lane can't be chosen; it lends its level to that other lane, and
that one to the next in turn. So nothing in between can overtake the cause of an urgent event (L. Sha, R. Rajkumar,
J. Lehoczky, Priority Inheritance Protocols, IEEE Transactions on Computers 39(9), 1990).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hftlab.events.records import Priority


class Standing(NamedTuple):
    """How a lane stands: its own level, whether it could work now, how long its oldest event has waited (ns), and the
    place (in the list of standings) of the lane that it waits for (None: none)."""

    level: int
    ready: bool
    waited_ns: int
    blocked_by: int | None = None


class Schedule:
    """Chooses a lane a turn. ``ageing_ns`` 0: priority never rises with age; ``inherit``: levels are lent."""

    def __init__(self, ageing_ns: int, *, inherit: bool = True) -> None:
        self.ageing_ns = ageing_ns
        self.inherit = inherit
        self._turn = 0
        self._last_turns = [0] * len(Priority)  # by level: when each lane was chosen last

    def levels(self, lanes: Sequence[Standing]) -> list[int]:
        """The level that each lane has now, age and inheritance included."""
        levels = [lane.level for lane in lanes]
        if self.ageing_ns:
            levels = [
                min(level + lane.waited_ns // self.ageing_ns, int(Priority.CRITICAL))
                for level, lane in zip(levels, lanes, strict=True)
            ]
        if self.inherit:
            for _ in lanes:  # a chain is no longer than there are lanes
                for place, lane in enumerate(lanes):
                    if lane.blocked_by is not None:
                        levels[lane.blocked_by] = max(levels[lane.blocked_by], levels[place])
        return levels

    def choose(self, lanes: Sequence[Standing]) -> int | None:
        """The place of the lane whose turn it is; None where none is ready."""
        chosen = None
        best = (0, 0)
        for place, (lane, level) in enumerate(zip(lanes, self.levels(lanes), strict=True)):
            # Of equals, the one that has waited longest for a turn.
            rank = (level, -self._last_turns[lane.level])
            if lane.ready and (chosen is None or rank > best):
                chosen, best = place, rank
        if chosen is not None:
            self._turn += 1
            self._last_turns[lanes[chosen].level] = self._turn
        return chosen
