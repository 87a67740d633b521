"""How many events are due when: a base rate, and bursts on top. Plain arithmetic; the time is passed in."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise

import msgspec
import numpy as np

from hftlab.errors import ValidationError
from hftlab.sim.arguments import SECOND_NS, check_within
from hftlab.sim.draws import Floats, Ints

_MOST_SECONDS = 1e6


class Burst(msgspec.Struct, frozen=True):
    """From ``at_s`` seconds after the start, for ``for_s`` seconds, ``times`` the base rate (below 1: a lull).

    Raises ValidationError.
    """

    at_s: float
    for_s: float
    times: float = 20.0

    def __post_init__(self) -> None:
        check_within("at_s", self.at_s, 0.0, _MOST_SECONDS)
        check_within("for_s", self.for_s, 1e-6, _MOST_SECONDS)
        check_within("times", self.times, 0.0, 1e6)


class Pace:
    """Events evenly spaced at ``rate_hz``, and at ``times`` that within each burst. The first one is due at 0.

    Raises ValidationError for a rate out of bounds, and for bursts that overlap.
    """

    def __init__(self, rate_hz: float, bursts: Iterable[Burst] = ()) -> None:
        self.rate_hz = check_within("rate_hz", rate_hz, 1e-3, 1e8)
        self.bursts = _in_order(bursts)
        edges_ns, rates = [0], [self.rate_hz]
        for burst in self.bursts:
            begin_ns = round(burst.at_s * SECOND_NS)
            edges_ns += [begin_ns, begin_ns + round(burst.for_s * SECOND_NS)]
            rates += [self.rate_hz * burst.times, self.rate_hz]
        self._edges_ns: Ints = np.array(edges_ns, np.int64)
        self._per_ns: Floats = np.array(rates) / SECOND_NS
        # How many events, a real number, are due before each edge.
        spans: Floats = np.diff(self._edges_ns) * self._per_ns[:-1]
        self._before: Floats = np.concatenate([np.zeros(1), np.cumsum(spans)])

    def due_by(self, elapsed_ns: int) -> int:
        """How many events are due within the first ``elapsed_ns``, its end included. About 3 µs."""
        if elapsed_ns < 0:
            return 0
        at = int(np.searchsorted(self._edges_ns, elapsed_ns, side="right")) - 1
        return math.floor(float(self._before[at] + (elapsed_ns - self._edges_ns[at]) * self._per_ns[at])) + 1

    def due_before(self, elapsed_ns: int) -> int:
        """How many are due within the first ``elapsed_ns``, its end not included."""
        return self.due_by(elapsed_ns - 1)

    def due_ns(self, places: Ints) -> Ints:
        """When the events of these places (0 is the first) are due, ns after the start. About 20 ns each."""
        # The left side: as many events are due before a lull of rate 0 as after it, and the next one at its beginning.
        at = np.maximum(np.searchsorted(self._before, places, side="left") - 1, 0)
        more: Floats = (places - self._before[at]) / self._per_ns[at]
        return self._edges_ns[at] + np.ceil(more).astype(np.int64)

    def __repr__(self) -> str:
        bursts = "".join(f", {burst.times:g} times at {burst.at_s:g} s for {burst.for_s:g} s" for burst in self.bursts)
        return f"Pace({self.rate_hz:,.6g} a second{bursts})"


def _in_order(bursts: Iterable[Burst]) -> tuple[Burst, ...]:
    if isinstance(bursts, Burst) or not isinstance(bursts, Iterable):
        raise ValidationError(f"bursts is a sequence of Burst(at_s, for_s, times); got {bursts!r:.100}")
    given = tuple(bursts)
    for burst in given:
        if not isinstance(burst, Burst):
            raise ValidationError(f"bursts is a sequence of Burst(at_s, for_s, times); got {burst!r:.100} in it")
    ordered = tuple(sorted(given, key=lambda burst: burst.at_s))
    for one, other in pairwise(ordered):
        if other.at_s < one.at_s + one.for_s:
            raise ValidationError(f"bursts don't overlap; got {one} and {other}")
    return ordered
