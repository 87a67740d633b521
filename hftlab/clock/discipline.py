"""``Discipline``: how a clock gets from what it shows to what the estimates say, and how far it is to be trusted.

Pure: the counter's time is passed in. The whole offset is slewed away over the time between two estimates, or longer
where that would be faster than ``max_slew_ppm``; after that the clock runs at the estimated frequency. Nothing is ever
stepped: who needs UTC while a large offset is slewed away takes ``ClockReading.utc_ns``.
"""

from __future__ import annotations

import math

from hftlab.clock.estimate import ClockReading, ClockState, Estimate
from hftlab.clock.line import Line
from hftlab.errors import ValidationError, shown

MOST_DRIFT_PPB = 500_000.0
"""500 ppm: what kernels correct at most (RFC 5905's tolerance is 15, quartz is within 100). More is no oscillator."""
PHI_PPB = 15_000.0
"""How far a frequency that nobody has measured may be off: RFC 5905's PHI, 15 ppm."""
LEAST_AGEING_PPB = 1_000.0
"""A measured frequency is believed to 1 ppm at best: warming up by 10 °C moves an ordinary crystal by about that."""

_SECOND_NS = 1_000_000_000
_LEAST_SLEW_NS = _SECOND_NS
_LONGEST_SLEW_NS = 64 * _SECOND_NS


class Discipline:
    """Takes estimates, gives lines. ``line`` is the present one; ``refused`` counts estimates that were not taken."""

    def __init__(
        self,
        line: Line,
        *,
        max_slew_ppm: float = 500.0,
        holdover_after_s: float = 300.0,
        unsynced_bound_ns: int = _SECOND_NS,
    ) -> None:
        """Raises ValidationError: ``max_slew_ppm`` is 1 to 100,000, the others are above 0."""
        _check("max_slew_ppm", max_slew_ppm, 1.0, 100_000.0)
        _check("holdover_after_s", holdover_after_s, 0.001, 1e9)
        _check("unsynced_bound_ns", unsynced_bound_ns, 1, 1 << 62)
        self.line = line
        self.max_slew_ppm = float(max_slew_ppm)
        self.refused = 0
        self.suspensions = 0
        self._holdover_after_ns = round(holdover_after_s * _SECOND_NS)
        self._unsynced_bound_ns = unsynced_bound_ns
        self._estimate: Estimate | None = None
        self._newest_ns: int | None = None
        self._drift_ppb = 0.0

    @property
    def estimate(self) -> Estimate | None:
        """The latest estimate that was believed, and still is."""
        return self._estimate

    # -- what comes ---------------------------------------------------------------------------------------------------

    def update(self, now_ns: int, estimate: Estimate) -> Line:
        """The line from the counter's ``now_ns`` on; the present one where the estimate is refused.

        Refused are estimates that are not newer than the latest, or from the future, and those that no clock can be
        told by: a bound below 0, a drift beyond 500 ppm, or no number.
        """
        drift_ppb = self._drift_ppb if estimate.drift_ppb is None else estimate.drift_ppb
        newest_ns = self._newest_ns
        fits = math.isfinite(drift_ppb) and abs(drift_ppb) <= MOST_DRIFT_PPB and math.isfinite(estimate.drift_bound_ppb)
        if not fits or estimate.bound_ns < 0 or estimate.at_ns > now_ns:
            self.refused += 1
            return self.line
        if newest_ns is not None and estimate.at_ns <= newest_ns:
            self.refused += 1
            return self.line
        spacing_ns = _LEAST_SLEW_NS if newest_ns is None else estimate.at_ns - newest_ns
        self._estimate, self._newest_ns, self._drift_ppb = estimate, estimate.at_ns, drift_ppb
        return self._slew_to(now_ns, min(max(spacing_ns, _LEAST_SLEW_NS), _LONGEST_SLEW_NS))

    def _slew_to(self, now_ns: int, least_ns: int) -> Line:
        shown_ns = self.line.at(now_ns)
        missing_ns = self._utc_ns(now_ns) - shown_ns
        duration_ns = max(least_ns, math.ceil(abs(missing_ns) * 1e6 / self.max_slew_ppm))
        rate = self._drift_ppb * 1e-9
        self.line = Line.bent(now_ns, shown_ns, rate + missing_ns / duration_ns, duration_ns, rate)
        return self.line

    def suspended(self) -> None:
        """The counter stood still while the machine slept: what was known of UTC is void, until the next estimate."""
        self._estimate = None
        self.suspensions += 1

    def step_forward(self, now_ns: int) -> Line:
        """Go to where UTC is at once, if that is ahead; the present line where it is not, or nobody knows."""
        missing_ns = 0 if self._estimate is None else self._utc_ns(now_ns) - self.line.at(now_ns)
        if missing_ns > 0:
            rate = self._drift_ppb * 1e-9
            self.line = Line.bent(now_ns, self.line.at(now_ns) + missing_ns, rate, 0, rate)
        return self.line

    # -- what is known ------------------------------------------------------------------------------------------------

    def state(self, now_ns: int) -> ClockState:
        """How far the clock is to be trusted at the counter's ``now_ns``."""
        bound_ns = self.bound_ns(now_ns)
        if self._estimate is None or bound_ns is None or bound_ns > self._unsynced_bound_ns:
            return ClockState.UNSYNCED
        fresh = now_ns - self._estimate.at_ns <= self._holdover_after_ns
        return ClockState.SYNCED if fresh else ClockState.HOLDOVER

    def bound_ns(self, now_ns: int) -> int | None:
        """How far UTC may be from the best estimate of it: the estimate's bound, and what the frequency may have been
        off since; None without an estimate."""
        known = self._estimate
        if known is None:
            return None
        return known.bound_ns + math.ceil(max(now_ns - known.at_ns, 0) * self._ageing_ppb(known) * 1e-9)

    def reading(self, now_ns: int) -> ClockReading:
        """The clock at the counter's ``now_ns``."""
        shown_ns = self.line.at(now_ns)
        return ClockReading(
            now_ns=shown_ns,
            offset_ns=0 if self._estimate is None else self._utc_ns(now_ns) - shown_ns,
            bound_ns=self.bound_ns(now_ns),
            state=self.state(now_ns),
            drift_ppb=self._drift_ppb,
            slew_ppb=self.line.gain_at(now_ns) * 1e9,
        )

    def _utc_ns(self, now_ns: int) -> int:
        known = self._estimate
        assert known is not None
        elapsed_ns = now_ns - known.at_ns
        return now_ns + known.offset_ns + math.floor(elapsed_ns * self._drift_ppb * 1e-9)

    def _ageing_ppb(self, known: Estimate) -> float:
        """How far the frequency may be off: by what was measured, and by how much that moves from poll to poll."""
        if known.drift_ppb is None or known.drift_bound_ppb <= 0:
            return PHI_PPB
        return min(max(known.drift_bound_ppb + 3 * known.wander_ppb, LEAST_AGEING_PPB), MOST_DRIFT_PPB)


def _check(what: str, value: float, least: float, most: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not least <= value <= most:
        raise ValidationError(f"{what} is a number from {least:,g} to {most:,g}; got {shown(value)}")
