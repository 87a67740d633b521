"""When to try again: exponential backoff with full jitter, up to a deadline. Pure: the time is passed in.

The delay before try ``n`` is drawn evenly from 0 to ``min(cap, first · 2**n)`` ("full jitter": of many clients that
lost the same server, no two come back together), and never reaches past the deadline, so that the last try is made
just before giving up. Progress starts everything anew: a deadline is about silence, not about how long work takes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from hftlab.errors import ValidationError


@dataclass(frozen=True)
class BackoffPolicy:
    """``first_s`` bounds the first delay, ``cap_s`` every one, ``deadline_s`` all tries without progress together."""

    first_s: float = 0.02
    cap_s: float = 1.0
    deadline_s: float = 10.0

    def __post_init__(self) -> None:
        if not (0 < self.first_s <= self.cap_s and 0 < self.deadline_s < float("inf")):
            raise ValidationError(f"a backoff needs 0 < first_s <= cap_s and a finite deadline_s above 0; got {self}")


class Backoff:
    """One operation's tries. ``failed`` says how long to wait, or that the deadline has passed."""

    __slots__ = ("__weakref__", "_attempts", "_policy", "_random", "_since_s")

    def __init__(self, policy: BackoffPolicy, rng: random.Random, now_s: float) -> None:
        self._policy = policy
        self._random = rng
        self._since_s = now_s
        self._attempts = 0

    @property
    def attempts(self) -> int:
        """How many tries have failed since the last progress."""
        return self._attempts

    @property
    def since_s(self) -> float:
        """When the operation began, or last achieved something."""
        return self._since_s

    def remaining_s(self, now_s: float) -> float:
        """Seconds until the deadline, 0 at least."""
        return max(0.0, self._since_s + self._policy.deadline_s - now_s)

    def failed(self, now_s: float) -> float | None:
        """Note a failed try: seconds to wait before the next one, or None once the deadline has passed."""
        remaining = self.remaining_s(now_s)
        # 2**60 first delays are an age: the bound keeps the float finite however many tries there were.
        bound = min(self._policy.cap_s, self._policy.first_s * 2.0 ** min(self._attempts, 60))
        self._attempts += 1
        if remaining <= 0:
            return None
        return min(self._random.uniform(0, bound), remaining)

    def excuse(self, seconds: float) -> None:
        """Don't count that time towards the deadline: it was spent well."""
        self._since_s += seconds

    def progressed(self, now_s: float) -> None:
        """Note that something was achieved: the deadline and the delays begin anew."""
        self._since_s = now_s
        self._attempts = 0
