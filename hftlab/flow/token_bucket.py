"""``TokenBucket``: a rate limit that allows bursts. Pure: the time is passed in; integers, so that nothing drifts.

A bucket holds up to ``burst`` tokens and gains ``rate_hz`` a second; what finds it empty waits. Kept in floating point,
a rate of 3 a second with a look at the clock every 100 ns gains and loses tokens by rounding. Here the rate is a
fraction p/q of whole numbers and the level counts in units of 1/(q · 10⁹) token, of which every ns brings p.
"""

from __future__ import annotations

from fractions import Fraction

from hftlab.errors import ValidationError, shown
from hftlab.flow.checking import check_count

SLOWEST_HZ, FASTEST_HZ = 1e-9, 1e12


class TokenBucket:
    """Tokens at ``rate_hz`` a second, up to ``burst`` of them; it begins full. About 0.5 µs a call.

    Whatever is asked when: of any two moments T seconds apart, at most ``burst`` + ``rate_hz`` · T tokens are granted
    from the one to the other, both included. Time that runs backwards stands still. Raises ValidationError for a rate
    or burst that breaks a rule.
    """

    __slots__ = ("_full", "_latest_ns", "_level", "_per_ns", "_token", "burst", "rate_hz")

    def __init__(self, rate_hz: float, burst: int) -> None:
        in_range = isinstance(rate_hz, int | float) and not isinstance(rate_hz, bool) and rate_hz >= SLOWEST_HZ
        if not in_range or not rate_hz <= FASTEST_HZ:
            raise ValidationError(
                f"rate_hz is how many a second, {SLOWEST_HZ:g} to {FASTEST_HZ:g} (None: no limit); got {shown(rate_hz)}"
            )
        self.burst = check_count("burst", burst, 1, 1 << 40)
        self.rate_hz = float(rate_hz)
        # The decimal that was written, not its binary neighbour: 0.1 is one every ten seconds.
        rate = Fraction(repr(self.rate_hz))
        self._per_ns = rate.numerator
        self._token = rate.denominator * 1_000_000_000
        self._full = self._level = burst * self._token
        self._latest_ns: int | None = None

    def take(self, n: int, now_ns: int) -> int:
        """Take up to ``n`` tokens; returns how many were there (for more than ``burst``, come again)."""
        self._refill(now_ns)
        granted = max(0, min(n, self._level // self._token))
        self._level -= granted * self._token
        return granted

    def give_back(self, n: int) -> None:
        """Put back ``n`` tokens that were taken and not used. The bucket holds no more than ``burst``, as ever."""
        self._level = min(self._full, self._level + n * self._token)

    def due_ns(self, n: int, now_ns: int) -> int:
        """When ``n`` tokens will be there, if nobody takes any: the first ns, ``now_ns`` at the earliest.

        For more than ``burst``: the earliest at which the last of them can be there, if all are taken as they come. (A
        bucket that is full for a part of a ns loses what that would have brought.)
        """
        self._refill(now_ns)
        assert self._latest_ns is not None
        missing = n * self._token - self._level
        if missing <= 0:
            return now_ns
        return self._latest_ns - (-missing // self._per_ns)

    def _refill(self, now_ns: int) -> None:
        if self._latest_ns is None:
            self._latest_ns = now_ns
        elif now_ns > self._latest_ns:
            self._level = min(self._full, self._level + (now_ns - self._latest_ns) * self._per_ns)
            self._latest_ns = now_ns

    def __repr__(self) -> str:
        return f"TokenBucket({self.rate_hz:,g} a second, burst {self.burst:,})"
