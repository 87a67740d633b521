"""``Line``: the time that a clock shows, as a line over the counter with one bend."""

from __future__ import annotations

import math
from typing import NamedTuple

LONGEST_BEND_NS = 1 << 53
"""104 days: float64 holds every integer up to here."""


class Target(NamedTuple):
    """Where a line is to go: UTC was ``utc_ns`` when the counter stood at ``at_ns``, and gains ``rate`` on it.

    What is missing is made up over ``least_ns`` of the counter, or over longer where that would take more than
    ``most_gain`` on top of the rate; at once, where ``jump`` is set (1) and UTC is ahead.
    """

    at_ns: int
    utc_ns: int
    rate: float
    least_ns: int
    most_gain: float
    jump: int = 0

    def utc_at(self, counter_ns: int) -> int:
        """UTC when the counter stands at ``counter_ns``."""
        elapsed_ns = counter_ns - self.at_ns
        return self.utc_ns + elapsed_ns + math.floor(elapsed_ns * self.rate)


class Line(NamedTuple):
    """From the counter's ``begin_ns`` on the clock shows ``shown_ns`` and gains ``slew``; from ``end_ns`` on ``rate``.

    Gains are on the counter, without a unit. Everything is whole ns but one float64 product, which is floored; compiled
    code that does the same comes to the same ns (``kernels``).

    The line never falls. Where the counter c wins 1, c + floor(c * gain) loses 1 at most, if c * gain as it is rounded
    falls by 1 at most. Rounding keeps the order, so that only the width of its steps counts. Before the bend c is below
    2**53 and exact, and a gain is within 0.11 (10 % of slew at most, and a drift): the product falls by 0.11 and two
    roundings of 2**-4. After the bend a gain is within 5e-4 and c below 2**62 (146 years), where float64 steps by 2**9:
    the product falls by 2**9 * 5e-4 = 0.26 and two roundings of 2**-3.
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

    def toward(self, counter_ns: int, target: Target) -> Line:
        """The line that goes on from here at ``counter_ns``, and bends where it has come to ``target``.

        ``kernels.bend_at`` does the same, operation by operation.
        """
        shown_ns = self.at(counter_ns)
        missing_ns = target.utc_at(counter_ns) - shown_ns
        if target.jump and missing_ns > 0:
            shown_ns, missing_ns = shown_ns + missing_ns, 0
        # By its length the gain is at most most_gain. Beyond the longest bend it would be more: it is cut there, and
        # the rest is left to the next line.
        needed_ns = float(abs(missing_ns)) / target.most_gain
        length_ns = LONGEST_BEND_NS if needed_ns >= LONGEST_BEND_NS else max(target.least_ns, math.ceil(needed_ns))
        gain = min(max(float(missing_ns) / float(length_ns), -target.most_gain), target.most_gain)
        slew = target.rate + gain
        end_shown_ns = shown_ns + length_ns + math.floor(length_ns * slew)
        return Line(counter_ns, shown_ns, slew, counter_ns + length_ns, end_shown_ns, target.rate)

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
