"""Made-up exchanges of servers whose truth is known."""

from __future__ import annotations

import random
from collections.abc import Callable

from hftlab.clock.estimate import Estimate, Exchange

ORIGIN_NS = 1_700_000_000_000_000_000
SECOND_NS = 1_000_000_000


def truth_ns(at_ns: int, drift_ppb: float = 0.0) -> int:
    """UTC minus counter."""
    return ORIGIN_NS + round(drift_ppb * at_ns / 1e9)


def exchange(
    at_ns: int,
    *,
    server: str = "a",
    truth: int = ORIGIN_NS,
    delay_ns: int = 20_000_000,
    asymmetry: float = 0.0,
    wrong_ns: int = 0,
    root_ns: int = 0,
    precision_ns: int = 0,
) -> Exchange:
    """What an exchange says whose request took (1 + asymmetry) / 2 of the delay: -1 to 1; ``wrong_ns`` by the server.

    Computed from its four stamps, with their rounding. ``root_ns`` is the server's root distance.
    """
    forth = round(delay_ns * (1 + asymmetry) / 2)
    t4 = at_ns
    t1 = t4 - delay_ns
    t2 = t3 = t1 + forth + truth + wrong_ns
    return Exchange(
        server, at_ns, ((t2 - t1) + (t3 - t4)) // 2, (t4 - t1) - (t3 - t2), 0, root_ns, precision_ns, stratum=2
    )


def is_held(estimate: Estimate, truth: int) -> bool:
    """Whether the truth lies within the stated bound."""
    return abs(estimate.offset_ns - truth) <= estimate.bound_ns


Delays = Callable[[random.Random], int]


def internet(random_: random.Random) -> int:
    """20 ms at least, and a tail."""
    return round(20e6 + random_.expovariate(1 / 5e6))


def lan(random_: random.Random) -> int:
    """50 µs at least, and a tail."""
    return round(50e3 + random_.expovariate(1 / 20e3))
