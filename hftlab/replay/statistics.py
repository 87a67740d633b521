"""What a replay shows of itself: its states, and a frozen picture of its numbers."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass

from hftlab.sequence.stage import StageStatistics


class State(enum.Enum):
    """Where a replay is in its life."""

    READY = "ready"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    CLOSED = "closed"


@dataclass(frozen=True)
class ReplayStatistics:
    """The current run. Times are ns UTC; 0 where there is none yet.

    ``delivered`` counts recorded events, ``emitted`` what handlers added, ``filtered`` what the filters kept back,
    ``skipped`` what a seek went past; ``held`` rows wait for missing numbers; ``redelivered``, ``duplicate``,
    ``late``, ``conflicting`` and ``orphaned`` rows were not delivered: see ``replay.gaps``. ``gaps`` are those found,
    ``lost`` the numbers that were given up. ``progress`` is 0 to 1 of the range by time of arrival. ``rate_hz`` is
    events a second lately, ``lag_ns`` how far behind its speed the replay is. ``counts`` has delivered and emitted rows
    by type.
    """

    state: str
    speed: float
    delivered: int
    emitted: int
    filtered: int
    skipped: int
    position_ns: int
    start_ns: int
    end_ns: int
    progress: float
    log_sequence: int
    elapsed_s: float
    rate_hz: float
    lag_ns: int
    counts: dict[str, int]
    failure: str
    held: int = 0
    redelivered: int = 0
    duplicate: int = 0
    late: int = 0
    conflicting: int = 0
    orphaned: int = 0
    gaps: int = 0
    lost: int = 0


def order_counts(stage: StageStatistics) -> dict[str, int]:
    """What a stage's statistics add to a replay's."""
    order = stage.order
    merged_late = 0 if stage.merge is None else stage.merge.late
    return {
        "held": stage.held_rows,
        "redelivered": stage.dedup.redelivered,
        "duplicate": order.duplicate_rows,
        "late": order.late_rows + merged_late,
        "conflicting": order.conflicting_rows,
        "orphaned": order.orphaned_rows,
        "gaps": order.gaps,
        "lost": order.lost,
    }


class RateMeter:
    """Events a second over the last second or so, from counts noted at any moments. Times are ns of the wall."""

    _WINDOW_NS = 1_000_000_000
    _STEP_NS = 50_000_000

    def __init__(self) -> None:
        self._notes: deque[tuple[int, int]] = deque()

    def note(self, wall_ns: int, count: int) -> None:
        """Note how many events have been delivered by now. Cheap when called far too often."""
        if self._notes and wall_ns - self._notes[-1][0] < self._STEP_NS:
            return
        self._notes.append((wall_ns, count))
        while len(self._notes) > 2 and wall_ns - self._notes[1][0] > self._WINDOW_NS:
            self._notes.popleft()

    def rate_hz(self) -> float:
        """Events a second between the oldest and the newest note."""
        if len(self._notes) < 2:
            return 0.0
        (begin_ns, before), (end_ns, after) = self._notes[0], self._notes[-1]
        return (after - before) * 1e9 / max(end_ns - begin_ns, 1)

    def restart(self) -> None:
        """Forget what was noted: time stood still."""
        self._notes.clear()
