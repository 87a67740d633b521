"""How fast UTC gains on the counter, by one server's answers: robustly, with a bound that holds.

The estimate is Theil and Sen's: the median of the slopes through all pairs of answers, each weighing as much as its
delays and distance in time let it say. It shrugs off what is far away, up to some 29 % of the answers.

The bound is none of chance: each answer is an interval that UTC - counter goes through, so the true slope is one of
those of the lines through all intervals. It narrows as delay over time: 40 ms of distance say 10 ppm after two hours,
50 µs (a LAN) 0.1 ppm after a quarter of one. Once no line goes through all of them the frequency has changed meanwhile,
by the temperature as a rule, and the oldest answers are forgotten until one does.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from hftlab.clock.estimate import Exchange
from hftlab.clock.ntp.filter import MAX_DRIFT_PPB, distance_ns, path_ns

Floats: TypeAlias = npt.NDArray[np.float64]

MOST_SAMPLES = 128
LEAST_SAMPLES = 8
_PARTS = (4, 8)
_KEPT = 3 / 4


class Drift(NamedTuple):
    """UTC gains ``ppb`` ns a second on the counter; for certain between ``low_ppb`` and ``high_ppb``."""

    ppb: float
    low_ppb: float
    high_ppb: float

    @property
    def bound_ppb(self) -> float:
        """How far ``ppb`` may be off."""
        return max(self.high_ppb - self.ppb, self.ppb - self.low_ppb)


class DriftHistory:
    """The last 128 answers of one server, and the drift by them. 1 ms for 128 of them, when asked after a new one."""

    def __init__(self) -> None:
        self._samples: deque[Exchange] = deque(maxlen=MOST_SAMPLES)
        self._known: tuple[Drift | None, float] | None = None
        self.shortened = 0
        """How many times no line went through all answers, and the oldest were forgotten."""

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, exchange: Exchange) -> None:
        """Take in an answer that is believed; in the order of their arrival."""
        self._samples.append(exchange)
        self._known = None

    def clear(self) -> None:
        """Forget all answers, as after a step."""
        self._samples.clear()
        self._known = None

    @property
    def drift(self) -> Drift | None:
        """The drift; None before 8 answers, or while their span leaves it open by more than 500 ppm."""
        return self._estimated()[0]

    @property
    def wander_ppb(self) -> float:
        """How much the drift changes: the Allan deviation of the drifts of 4 or of 8 parts of the history.

        0 before 32 answers. The answers' jitter blurs the parts' drifts, short ones' more, so the lesser of the two
        counts; what is left of that blur is in it.
        """
        return self._estimated()[1]

    def _estimated(self) -> tuple[Drift | None, float]:
        if self._known is None:
            self._known = self._drift(), self._wander()
        return self._known

    def _drift(self) -> Drift | None:
        while len(self._samples) >= LEAST_SAMPLES:
            at_s, offsets, paths, distances = self._points()
            low, high = feasible_slopes(at_s, offsets, distances)
            if low <= high:
                slope = min(max(weighted_slope(at_s, offsets, paths), low), high)
                drift = Drift(slope, low, high)
                return drift if drift.bound_ppb <= MAX_DRIFT_PPB else None
            self.shortened += 1
            for _ in range(max(1, round((1 - _KEPT) * len(self._samples)))):
                self._samples.popleft()
        return None

    def _wander(self) -> float:
        known = [parts for parts in _PARTS if parts * LEAST_SAMPLES <= len(self._samples)]
        if not known:
            return 0.0
        at_s, offsets, paths, _ = self._points()

        def deviation(parts: int) -> float:
            ends = np.linspace(0, len(at_s), parts + 1).astype(int).tolist()
            spans = [slice(begin, end) for begin, end in pairwise(ends)]
            slopes = [weighted_slope(at_s[span], offsets[span], paths[span]) for span in spans]
            return float(np.sqrt(np.mean(np.diff(slopes) ** 2) / 2))

        return min(deviation(parts) for parts in known)

    def _points(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Times in seconds, offsets, half the delays, and distances in ns: from the first answer on.

        ns since 1970 have more digits than a float64.
        """
        first = self._samples[0]
        at_s = np.array([(one.at_ns - first.at_ns) / 1e9 for one in self._samples])
        offsets = np.array([float(one.offset_ns - first.offset_ns) for one in self._samples])
        paths = np.array([path_ns(one) for one in self._samples])
        return at_s, offsets, paths, np.array([distance_ns(one) for one in self._samples])


def feasible_slopes(at_s: Floats, offsets: Floats, distances: Floats) -> tuple[float, float]:
    """The least and greatest slope, in ns a second, by pairs of intervals; the least is greater where none fits."""
    one, other = np.triu_indices(len(at_s), 1)
    apart = at_s[other] - at_s[one]
    rise, room = offsets[other] - offsets[one], distances[other] + distances[one]
    return float(np.max((rise - room) / apart)), float(np.min((rise + room) / apart))


def weighted_slope(at_s: Floats, offsets: Floats, paths: Floats) -> float:
    """Theil and Sen's slope, in ns a second: the weighted median of the pairs', each by (time between / delays)².

    What a server is off itself hardly changes from answer to answer, and weighs nothing here.
    """
    one, other = np.triu_indices(len(at_s), 1)
    apart = at_s[other] - at_s[one]
    slopes = (offsets[other] - offsets[one]) / apart
    weights = (apart / (paths[other] + paths[one])) ** 2
    order = np.argsort(slopes)
    reached = np.cumsum(weights[order])
    return float(slopes[order[np.searchsorted(reached, reached[-1] / 2)]])
