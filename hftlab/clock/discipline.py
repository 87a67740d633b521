"""``Discipline``: how a clock gets from what it shows to what the estimates say, and how far it is to be trusted.

Pure: the counter's time is passed in. The whole offset is slewed away over the time between two estimates, or longer
where that would be faster than ``max_slew_ppm``; after that the clock runs at the estimated frequency. Nothing is ever
stepped: who needs UTC while a large offset is slewed away takes ``ClockReading.utc_ns``.
"""

from __future__ import annotations

import math

from hftlab.clock.estimate import ClockReading, ClockState, Estimate
from hftlab.clock.line import Line, Target
from hftlab.errors import ValidationError, shown

MOST_DRIFT_PPB = 500_000.0
"""500 ppm: what kernels correct at most (RFC 5905's MAXFREQ; quartz is within 100). More is no oscillator, but an error
in the estimate: it would carry the clock off by 43 s a day."""
PHI_PPB = 15_000.0
"""How far a frequency that nobody has measured may be off: RFC 5905's PHI, 15 ppm. A counter that no kernel has ever
corrected may be off by more, for the minute or two until its drift is known."""
LEAST_AGEING_PPB = 1_000.0
"""A measured frequency is believed to 1 ppm at best: warming up by 10 °C moves an ordinary crystal by about that."""

_SECOND_NS = 1_000_000_000
_LEAST_SLEW_NS = _SECOND_NS
_LONGEST_SLEW_NS = 64 * _SECOND_NS
_HOLDOVER_NS = 300 * _SECOND_NS
_LONGEST_POLL_NS = 1_024 * _SECOND_NS
_LATEST_NS = 1 << 62


class Discipline:
    """Takes estimates, gives lines. ``line`` is the present one; ``refused`` counts estimates that were not taken."""

    def __init__(
        self,
        line: Line,
        *,
        max_slew_ppm: float = 500.0,
        holdover_after_s: float | None = None,
        unsynced_bound_ns: int = _SECOND_NS,
    ) -> None:
        """``holdover_after_s=None``: 300 s, or four times what lay between the latest two estimates where that is more.

        Raises ValidationError: ``max_slew_ppm`` is 1 to 100,000, the others are above 0.
        """
        _check("max_slew_ppm", max_slew_ppm, 1.0, 100_000.0)
        if holdover_after_s is not None:
            _check("holdover_after_s", holdover_after_s, 0.001, 1e9)
        _check("unsynced_bound_ns", unsynced_bound_ns, 1, 1 << 62)
        self.line = line
        self.max_slew_ppm = float(max_slew_ppm)
        self.refused = 0
        self.suspensions = 0
        self.suspended_ns = 0
        self._holdover_after_ns = None if holdover_after_s is None else round(holdover_after_s * _SECOND_NS)
        self._unsynced_bound_ns = unsynced_bound_ns
        self._estimate: Estimate | None = None
        self._newest_ns: int | None = None
        self._spacing_ns = 0
        self._drift_ppb = 0.0

    @property
    def estimate(self) -> Estimate | None:
        """The latest estimate that was believed, and still is."""
        return self._estimate

    # -- what comes ---------------------------------------------------------------------------------------------------

    def update(self, now_ns: int, estimate: Estimate) -> Line:
        """The line from the counter's ``now_ns`` on; the present one where the estimate is refused."""
        target = self.accept(now_ns, estimate)
        if target is not None:
            self.line = self.line.toward(now_ns, target)
        return self.line

    def accept(self, now_ns: int, estimate: Estimate) -> Target | None:
        """Believe an estimate and tell where the line is to go; None where it is refused.

        Refused are estimates that are not newer than the latest, or from the future, and those that no clock can be
        told by: a bound below 0, a drift beyond 500 ppm or no number, a time that int64 does not hold.
        """
        drift_ppb = self._drift_ppb if estimate.drift_ppb is None else estimate.drift_ppb
        newest_ns = self._newest_ns
        fits = math.isfinite(drift_ppb) and abs(drift_ppb) <= MOST_DRIFT_PPB
        fits = fits and math.isfinite(estimate.drift_bound_ppb) and math.isfinite(estimate.wander_ppb)
        fits = fits and estimate.bound_ns >= 0 and 0 <= estimate.at_ns + estimate.offset_ns < _LATEST_NS
        if not fits or estimate.at_ns > now_ns or (newest_ns is not None and estimate.at_ns <= newest_ns):
            self.refused += 1
            return None
        self._spacing_ns = 0 if newest_ns is None else estimate.at_ns - newest_ns
        self._estimate, self._newest_ns, self._drift_ppb = estimate, estimate.at_ns, drift_ppb
        return self.target()

    def target(self, *, jump: bool = False) -> Target | None:
        """Where the line is to go by the latest estimate; None without one. ``jump``: at once, if that is ahead.

        An offset is made up over the time to the next estimate, as far as the latest two tell it: faster would chase
        the estimates' jitter. Between 1 and 64 s, as a poll an hour is no reason to be wrong for an hour.
        """
        known = self._estimate
        if known is None:
            return None
        return Target(
            at_ns=known.at_ns,
            utc_ns=known.at_ns + known.offset_ns,
            rate=self._drift_ppb * 1e-9,
            least_ns=min(max(self._spacing_ns, _LEAST_SLEW_NS), _LONGEST_SLEW_NS),
            most_gain=self.max_slew_ppm * 1e-6,
            jump=int(jump),
        )

    def suspended(self, for_ns: int) -> None:
        """The counter stood still for so long while the machine slept: nothing is known until the next estimate.

        The line goes on from where it stood, so that the clock is behind by ``for_ns``.
        """
        self._estimate = None
        self.suspensions += 1
        self.suspended_ns += for_ns

    def step_forward(self, now_ns: int) -> Line:
        """Go to where UTC is at once, if that is ahead; the present line where it is not, or nobody knows."""
        target = self.target(jump=True)
        if target is not None and target.utc_at(now_ns) > self.line.at(now_ns):
            self.line = self.line.toward(now_ns, target)
        return self.line

    # -- what is known ------------------------------------------------------------------------------------------------

    def state(self, now_ns: int) -> ClockState:
        """How far the clock is to be trusted at the counter's ``now_ns``."""
        bound_ns = self.bound_ns(now_ns)
        if self._estimate is None or bound_ns is None or bound_ns > self._unsynced_bound_ns:
            return ClockState.UNSYNCED
        after_ns = self._holdover_after_ns
        if after_ns is None:
            # Servers that are asked every 1,024 s are no reason to call the clock unattended; an outage before is none
            # to believe in it for as long again.
            after_ns = max(_HOLDOVER_NS, 4 * min(self._spacing_ns, _LONGEST_POLL_NS))
        fresh = now_ns - self._estimate.at_ns <= after_ns
        return ClockState.SYNCED if fresh else ClockState.HOLDOVER

    def bound_ns(self, now_ns: int) -> int | None:
        """How far UTC may be from the best estimate of it: the estimate's bound, and what the frequency may have been
        off since; None without an estimate."""
        known = self._estimate
        if known is None:
            return None
        elapsed_ns = max(now_ns - known.at_ns, 0)
        # 1 ns on top: what the estimate was brought forward by has been floored.
        return known.bound_ns + math.ceil(elapsed_ns * self._ageing_ppb(known) * 1e-9) + (elapsed_ns > 0)

    def reading(self, now_ns: int) -> ClockReading:
        """The clock at the counter's ``now_ns``."""
        shown_ns, target = self.line.at(now_ns), self.target()
        return ClockReading(
            now_ns=shown_ns,
            offset_ns=0 if target is None else target.utc_at(now_ns) - shown_ns,
            bound_ns=self.bound_ns(now_ns),
            state=self.state(now_ns),
            drift_ppb=self._drift_ppb,
            slew_ppb=self.line.gain_at(now_ns) * 1e9,
        )

    def _ageing_ppb(self, known: Estimate) -> float:
        """How far the frequency may be off: by what was measured, and by how much that moves from poll to poll."""
        if known.drift_ppb is None or known.drift_bound_ppb <= 0:
            return PHI_PPB
        # Three standard deviations of the wander; not cut at 500 ppm, as truth and estimate may lie 1,000 apart.
        return max(known.drift_bound_ppb + 3 * known.wander_ppb, LEAST_AGEING_PPB)


def _check(what: str, value: float, least: float, most: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not least <= value <= most:
        raise ValidationError(f"{what} is a number from {least:,g} to {most:,g}; got {shown(value)}")
