"""``Line``: the time that a clock shows, as a line over the counter with one bend."""

from __future__ import annotations

import math
from typing import NamedTuple


class Line(NamedTuple):
    """From the counter's ``begin_ns`` on, ``shown_ns`` grows by 1 + ``slew`` ns a ns; from ``end_ns`` on by 1 +
    ``rate``.

    Rates are gains on the counter, without a unit. Everything is whole ns but one float64 product, which is floored. So
    the line never falls, however long: with rates between -1 and 1 the floor loses 1 ns at most where the counter wins
    1 (float64 rounds monotonically, also beyond 2**53 ns, where it steps by 2 and more); and compiled code that does
    the same comes to the same ns.
    """

    begin_ns: int
    shown_ns: int
    slew: float
    end_ns: int
    end_shown_ns: int
    rate: float

    @classmethod
    def plain(cls, counter_ns: int, shown_ns: int) -> Line:
        """A clock that runs as the counter does."""
        return cls(counter_ns, shown_ns, 0.0, counter_ns, shown_ns, 0.0)

    @classmethod
    def bent(cls, begin_ns: int, shown_ns: int, slew: float, duration_ns: int, rate: float) -> Line:
        """A line that bends after ``duration_ns`` of the counter."""
        end_shown_ns = shown_ns + duration_ns + math.floor(duration_ns * slew)
        return cls(begin_ns, shown_ns, slew, begin_ns + duration_ns, end_shown_ns, rate)

    def at(self, counter_ns: int) -> int:
        """What is shown when the counter stands at ``counter_ns``."""
        if counter_ns < self.end_ns:
            elapsed_ns = counter_ns - self.begin_ns
            return self.shown_ns + elapsed_ns + math.floor(elapsed_ns * self.slew)
        elapsed_ns = counter_ns - self.end_ns
        return self.end_shown_ns + elapsed_ns + math.floor(elapsed_ns * self.rate)

    def gain_at(self, counter_ns: int) -> float:
        """How much faster than the counter it runs then."""
        return self.slew if counter_ns < self.end_ns else self.rate
