"""Where a clock panel reads: which clock is meant by a source, and who asks the servers for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from hftlab.clock import NtpStatistics, SystemClock
from hftlab.errors import ValidationError, shown


@runtime_checkable
class Poller(Protocol):
    """An ``NtpPoller``, as a panel sees it: who asks which servers for what clock."""

    @property
    def clock(self) -> Any:
        """The clock that it disciplines."""
        ...

    @property
    def servers(self) -> Sequence[str]:
        """The servers, as they were given."""
        ...

    def statistics(self) -> NtpStatistics:
        """The servers' figures now."""
        ...


def clock_of(source: Any) -> SystemClock:
    """The clock that is meant: itself, a lab's ``system_clock``, or a poller's. Raises ValidationError."""
    candidates = (source, getattr(source, "system_clock", None), getattr(source, "clock", None))
    clock = next((clock for clock in candidates if isinstance(clock, SystemClock)), None)
    if clock is None:
        raise ValidationError(
            f"this takes a Lab, a SystemClock such as lab.system_clock, or an NtpPoller that disciplines one; "
            f"got {shown(source)}"
        )
    return clock


def poller_of(source: Any) -> Poller | None:
    """Who asks the servers: a lab's ``ntp``, or the poller itself; None where nobody does, or nobody can tell."""
    for candidate in (getattr(source, "ntp", None), source):
        if isinstance(candidate, Poller):
            return candidate
    return None
