"""When what a handler failed on is tried again: some times, ever later, and then no more. Pure: times are passed in."""

from __future__ import annotations

import math

import msgspec

from hftlab.errors import ValidationError, shown

MOST_ATTEMPTS = 1_000_000
_LONGEST_S = 366 * 86_400.0


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How dead letters are tried again by themselves: ``attempts`` times after the first failure (0: never).

    The first time ``backoff_s`` after it, and each time ``factor`` times as long after the last one, up to
    ``longest_s``. What a circuit breaker kept from its handler was not tried: it comes back after ``longest_s``,
    however often. Raises ValidationError.
    """

    attempts: int = 3
    backoff_s: float = 0.5
    factor: float = 2.0
    longest_s: float = 60.0

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):
            raise ValidationError(f"attempts= of a RetryPolicy is an integer; got {shown(self.attempts)}")
        if not 0 <= self.attempts <= MOST_ATTEMPTS:
            raise ValidationError(
                f"attempts= of a RetryPolicy is 0 (never again) to {MOST_ATTEMPTS:,}; got {shown(self.attempts)}"
            )
        for name in ("backoff_s", "factor", "longest_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValidationError(f"{name}= of a RetryPolicy is a finite number; got {shown(value)}")
        if not 0 < self.backoff_s <= self.longest_s <= _LONGEST_S or self.factor < 1:
            raise ValidationError(
                f"a RetryPolicy has 0 < backoff_s <= longest_s <= {_LONGEST_S:.0f} (a year) and a factor of 1 or more; "
                f"got backoff_s={self.backoff_s:g}, longest_s={self.longest_s:g}, factor={self.factor:g}"
            )

    def delay_s(self, tried: int) -> float:
        """How long after the ``tried``-th try in vain the next one comes, in seconds; whether it comes is ``due_ns``'s
        business. ``tried`` of 0: the handler was not tried at all."""
        if tried <= 0:
            return float(self.longest_s)
        # Logarithms first: a factor of 10 and a thousand tries are more than a float holds.
        steps = (tried - 1) * math.log(self.factor)
        if steps >= math.log(self.longest_s) - math.log(self.backoff_s):
            return float(self.longest_s)
        return float(min(self.longest_s, self.backoff_s * math.exp(steps)))

    def due_ns(self, letter_attempts: int, at_ns: int) -> int:
        """When something that has been tried ``letter_attempts`` times, the last time at ``at_ns``, is tried again.

        In ns UTC; 0: not any more. A call with its own immediate repetitions (``attempts=`` of the subscription)
        counts as one try.
        """
        if self.attempts == 0 or letter_attempts > self.attempts:
            return 0
        return max(1, at_ns + round(self.delay_s(letter_attempts) * 1e9))
