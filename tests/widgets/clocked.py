"""Clocks that are told of UTC by hand, and servers made up: for the tests of what looks at clocks."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from hftlab.clock import ClockReading, ClockState, NtpStatistics, ServerState, ServerStatistics, SystemClock
from hftlab.clock.estimate import Estimate

SECOND_NS = 1_000_000_000
START_NS = 1_723_161_255 * SECOND_NS


def reading(at_s: float = 0.0, **values: Any) -> ClockReading:
    """A reading so many seconds after a beginning; all that is not given is that of a good clock."""
    good = ClockReading(
        now_ns=START_NS + round(at_s * SECOND_NS), offset_ns=1_200, bound_ns=340_000, state=ClockState.SYNCED,
        drift_ppb=-12_300.0, slew_ppb=500.0,
    )  # fmt: skip
    return msgspec.structs.replace(good, **values)


def unknown(at_s: float = 0.0) -> ClockReading:
    """A reading of a clock that nobody has compared with UTC."""
    return reading(at_s, offset_ns=0, bound_ns=None, state=ClockState.UNSYNCED, drift_ppb=0.0, slew_ppb=0.0)


def server(name: str = "time.example.org", **values: Any) -> ServerStatistics:
    """One server's figures; all that is not given is that of a good one."""
    good = ServerStatistics(
        server=name, address="192.0.2.1:123", state=ServerState.TRUECHIMER, stratum=2, reach=0b11111111,
        offset_ns=1_500, bound_ns=900_000, delay_ns=1_600_000, jitter_ns=12_000, poll_s=64.0, sent=40, answered=39,
        refused={"timeout": 1}, stamps={"kernel": 39}, last_error="",
    )  # fmt: skip
    return msgspec.structs.replace(good, **values)


def told(*servers: ServerStatistics) -> NtpStatistics:
    """A poller's figures."""
    return NtpStatistics(servers=servers, estimate=None, estimates=0, undecided=0, restarts=0)


class PretendedPoller:
    """A poller that asks nobody: its figures are set by hand."""

    def __init__(self, clock: SystemClock, *servers: ServerStatistics) -> None:
        self.clock, self.shown = clock, told(*servers)

    @property
    def servers(self) -> tuple[str, ...]:
        return tuple(one.server for one in self.shown.servers)

    def statistics(self) -> NtpStatistics:
        return self.shown


def disciplined(offset_ns: int = 50_000, bound_ns: int = 340_000, drift_ppb: float | None = -12_300.0) -> SystemClock:
    """A clock that has been told once that so much is missing."""
    clock = SystemClock()
    tell(clock, offset_ns, bound_ns, drift_ppb)
    return clock


def tell(clock: SystemClock, offset_ns: int, bound_ns: int = 340_000, drift_ppb: float | None = None) -> None:
    """Tell a clock that so much is missing from what it shows now."""
    counter_ns = time.perf_counter_ns()
    missing_ns = clock.now_ns() - counter_ns + offset_ns
    agreeing = ("a", "b", "c")
    clock.discipline(Estimate(counter_ns, missing_ns, bound_ns, drift_ppb=drift_ppb, servers=agreeing))
