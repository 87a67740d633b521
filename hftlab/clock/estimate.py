"""What is known about UTC, and how well: the values that NTP, the discipline and the clock hand to each other.

All of them speak of two scales. The *counter* is ``time.perf_counter_ns()``: it never steps, nobody sets it, and it
means nothing outside of this process. *UTC* is ns since 1970. ``offset_ns`` is always UTC minus counter, so that an
estimate stays true whatever the clock that is shown to users does meanwhile.
"""

from __future__ import annotations

import enum

import msgspec


class ClockState(enum.Enum):
    """How far a clock is to be trusted."""

    SYNCED = "SYNCED"
    """Estimates come in: the bound is theirs."""
    HOLDOVER = "HOLDOVER"
    """None has come for a while: the clock goes on at the rate that it had, and the bound grows."""
    UNSYNCED = "UNSYNCED"
    """There never was one, or the bound has grown too wide: the time is this machine's word, nothing more."""


class Exchange(msgspec.Struct, frozen=True):
    """One question and its answer that passed every check (RFC 5905, section 8), as the client saw it.

    ``at_ns``: the counter when the answer came in. ``offset_ns``: UTC minus counter then, by this server:
    ``((t2 - t1) + (t3 - t4)) / 2``, t1 and t4 on the counter. ``delay_ns``: the round trip without the server's own
    time, ``(t4 - t1) - (t3 - t2)``, 0 at least. ``root_delay_ns`` and ``root_dispersion_ns`` are the server's own, to
    its reference. ``precision_ns``: how finely the two clocks are read. ``kernel``: whether the kernel stamped the
    arrival. ``leap``: 0 none, 1 a second is inserted at the end of the day, 2 one is left out.
    """

    server: str
    at_ns: int
    offset_ns: int
    delay_ns: int
    root_delay_ns: int
    root_dispersion_ns: int
    precision_ns: int
    stratum: int
    reference_id: int = 0
    leap: int = 0
    kernel: bool = False


class Estimate(msgspec.Struct, frozen=True):
    """Where UTC is, by all servers that agree.

    At the counter's ``at_ns`` UTC is ``at_ns + offset_ns``, and wrong by no more than ``bound_ns`` as long as the
    servers' own bounds hold: half the delay, which an asymmetric path may turn into error and nobody can see, plus the
    dispersion of the samples, plus the server's distance to its root. ``drift_ppb``: how many ns UTC gains on the
    counter in a second, None while that is not known; ``drift_bound_ppb``: how far that may be off. ``jitter_ns``: how
    much samples scatter; ``wander_ppb``: how much the drift itself changes between polls. ``servers``: those that
    agree; ``falsetickers``: those whose interval does not meet the others'.
    """

    at_ns: int
    offset_ns: int
    bound_ns: int
    drift_ppb: float | None = None
    drift_bound_ppb: float = 0.0
    jitter_ns: int = 0
    wander_ppb: float = 0.0
    servers: tuple[str, ...] = ()
    falsetickers: tuple[str, ...] = ()


class ClockReading(msgspec.Struct, frozen=True):
    """A clock, looked at once. ``utc_ns`` is the best there is: ``now_ns + offset_ns``, within ``bound_ns``.

    ``now_ns`` is what ``now_ns()`` says, which never steps; ``offset_ns`` what is missing to UTC (it is being slewed
    away), and ``bound_ns`` how far UTC may be from that: None while nothing is known. ``drift_ppb``: how many ns UTC
    gains on the counter in a second, by the latest estimate, 0 without one. ``slew_ppb``: how much faster than the
    counter the clock runs now.
    """

    now_ns: int
    offset_ns: int
    bound_ns: int | None
    state: ClockState
    drift_ppb: float
    slew_ppb: float

    @property
    def utc_ns(self) -> int:
        """The best estimate of UTC, in ns."""
        return self.now_ns + self.offset_ns
