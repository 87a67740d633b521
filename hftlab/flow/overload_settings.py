"""What the overload breaker is told, and what it tells: its settings, states, changes and statistics."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from hftlab.clock import format_time
from hftlab.errors import ValidationError
from hftlab.flow.checking import check_count, check_seconds
from hftlab.flow.lanes import check_sheddable


class OverloadState(enum.Enum):
    """In a circuit breaker's words: a closed circuit lets everything through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class OverloadSettings(msgspec.Struct, frozen=True, kw_only=True):
    """When a queue counts as standing, and how its lanes are let in again. All in seconds, all above 0.

    OPEN when the shortest wait during ``interval_s`` stayed above ``target_s``. Then ``lanes`` are shed for ``open_s``,
    and let in by ``steps`` equal shares (25, 50, 75, 100 %), each for ``step_s`` and until the wait is at most the
    target. A standing queue meanwhile opens it again, for twice as long each time, ``open_s_max`` at most; so does one
    less than ``healthy_s`` after all was well; later it begins with ``open_s`` again. Raises ValidationError.
    """

    target_s: float = 0.1
    interval_s: float = 0.5
    open_s: float = 1.0
    steps: int = 4
    step_s: float = 0.25
    lanes: tuple[str, ...] = ("LOW", "NORMAL")
    open_s_max: float = 30.0
    healthy_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("target_s", "interval_s", "open_s", "step_s", "open_s_max", "healthy_s"):
            msgspec.structs.force_setattr(self, name, check_seconds(name, getattr(self, name)))
        check_count("steps", self.steps, 1, 1_000)
        msgspec.structs.force_setattr(self, "lanes", check_sheddable(self.lanes, "lanes"))
        if self.open_s_max < self.open_s:
            raise ValidationError(f"open_s_max is at least open_s; got {self.open_s_max:g} and {self.open_s:g}")


@dataclass(frozen=True, slots=True)
class OverloadChange:
    """A change of state. ``wait_ns``: the shortest wait that opened it, else 0; ``reason`` says it in words."""

    before: OverloadState
    after: OverloadState
    at_ns: int
    wait_ns: int
    reason: str

    def __str__(self) -> str:
        return f"{self.before.value} → {self.after.value} at {format_time(self.at_ns)}: {self.reason}"


@dataclass(frozen=True, slots=True)
class OverloadStatistics:
    """``share``: the part let in now. ``episodes`` began when closed; ``openings`` also count those that tried in vain.

    ``overloaded_ns``: time spent open or half-open. ``shed_rows`` in all, and ``by_lane``.
    """

    state: OverloadState
    share: float
    episodes: int
    openings: int
    changes: int
    overloaded_ns: int
    shed_rows: int
    by_lane: Mapping[str, int]
