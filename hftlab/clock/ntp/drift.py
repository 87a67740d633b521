"""How fast UTC gains on the counter, by one server's answers: robustly, with a bound that holds.

The estimate is Theil and Sen's: the median of the slopes through all pairs of answers, each weighing as much as its
delays and distance in time let it say. It shrugs off what is far away, up to some 29 % of the answers.

The bound is none of chance: each answer is an interval that UTC - counter goes through, so the true slope is one of
those of the lines through all intervals. It narrows as delay over time: 40 ms of distance say 10 ppm after two hours,
50 µs (a LAN) 0.1 ppm after a quarter of one. Once no line goes through all of them the frequency has changed meanwhile,
by the temperature as a rule, and the oldest answers are forgotten until one does.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from hftlab.clock.estimate import Exchange
from hftlab.clock.ntp.filter import MAX_DRIFT_PPB, distance_ns, path_ns

Floats: TypeAlias = npt.NDArray[np.float64]

MOST_SAMPLES = 128
LEAST_SAMPLES = 8
MOST_SPAN_NS = 6 * 3_600 * 1_000_000_000
"""A quarter of a day: what the frequency was on average before says little about now."""
_PARTS = (4, 8)
_LEAST_OF_PART = 4
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
    """Up to 128 answers of one server, of the last six hours, and the drift by them. 0.7 ms when asked after an answer.

    Once there are 128, the better one of each two neighbours stays, so that a burst does not push out what is old, from
    which the drift is known.
    """

    def __init__(self) -> None:
        self._samples: list[Exchange] = []
        self._known: tuple[Drift | None, float] | None = None
        self.shortened = 0
        """How many times no line went through all answers, and the oldest were forgotten."""

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, exchange: Exchange) -> None:
        """Take in an answer that is believed; in the order of their arrival."""
        if len(self._samples) == MOST_SAMPLES:
            pairs = zip(self._samples[::2], self._samples[1::2], strict=True)
            self._samples = [min(pair, key=distance_ns) for pair in pairs]
        self._samples.append(exchange)
        while exchange.at_ns - self._samples[0].at_ns > MOST_SPAN_NS:
            del self._samples[0]
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
        """How much the drift changes: the Allan deviation of the drifts of 4 or of 8 equal parts of the history's time.

        0 before there are 4 answers in each of 4 parts. The answers' jitter blurs the parts' drifts, short ones' more,
        so the lesser of the two counts; what is left of that blur is in it.
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
            del self._samples[: -int(_KEPT * len(self._samples))]
        return None

    def _wander(self) -> float:
        if len(self._samples) < _PARTS[0] * _LEAST_OF_PART:
            return 0.0
        at_s, offsets, paths, _ = self._points()
        deviations = []
        for parts in _PARTS:
            ends = np.searchsorted(at_s, np.linspace(0, at_s[-1], parts + 1)[1:-1]).tolist()
            spans = [slice(begin, end) for begin, end in pairwise([0, *ends, len(at_s)])]
            if all(span.stop - span.start >= _LEAST_OF_PART for span in spans):
                slopes = [weighted_slope(at_s[span], offsets[span], paths[span]) for span in spans]
                deviations.append(float(np.sqrt(np.mean(np.diff(slopes) ** 2) / 2)))
        return min(deviations, default=0.0)

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
