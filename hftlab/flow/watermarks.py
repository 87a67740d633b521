"""High and low water marks: when a queue asks its sources to pause, and when to resume.

One mark would have a source paused and resumed with every few rows. With two, a pause lasts until the queue has been
drained by the distance between them, and each signal upstream is worth its cost.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import msgspec

from hftlab.errors import ValidationError
from hftlab.flow.checking import check_fraction

_ROUNDING = 1e-6


class Water(enum.Enum):
    """What to tell the sources."""

    PAUSE = "pause"
    RESUME = "resume"


class Watermarks(msgspec.Struct, frozen=True):
    """Sources pause at ``high`` and resume at ``low``, fractions of a queue's capacity with ``low`` < ``high``."""

    high: float = 0.8
    low: float = 0.5

    def __post_init__(self) -> None:
        high = check_fraction("high", self.high, zero=False)
        low = check_fraction("low", self.low, zero=True)
        if low >= high:
            raise ValidationError(
                f"low is below high, or every row would pause and resume the sources; got high={high:g}, low={low:g}"
            )
        msgspec.structs.force_setattr(self, "high", high)
        msgspec.structs.force_setattr(self, "low", low)

    def rows(self, capacity_rows: int) -> tuple[int, int]:
        """The marks in rows, high first: 1 ≤ high ≤ capacity and 0 ≤ low < high, however small the capacity."""
        # Rounding up the high mark and down the low one keeps them apart. The margin is for products such as
        # 0.07 * 100 = 7.000000000000001, of which a user means 7.
        high_rows = max(1, math.ceil(self.high * capacity_rows - _ROUNDING))
        return high_rows, min(high_rows - 1, math.floor(self.low * capacity_rows + _ROUNDING))


@dataclass(frozen=True, slots=True)
class WaterStatistics:
    """``episodes`` pauses so far, the present one included; ``paused_ns`` in all and ``paused_ns_max`` the longest.

    Times are as of the last ``update``. ``depth_rows_max`` is the most that was seen waiting.
    """

    paused: bool
    episodes: int
    paused_ns: int
    paused_ns_max: int
    depth_rows_max: int


class WaterLevel:
    """The state of one queue: flowing or paused. The capacity may change from call to call; the marks move with it.

    Time never runs backwards: an earlier ``now_ns`` counts as the latest one seen.
    """

    __slots__ = (
        "_depth_rows_max",
        "_episode_ns",
        "_episodes",
        "_longest_ns",
        "_now_ns",
        "_paused_ns",
        "marks",
        "paused",
    )

    def __init__(self, marks: Watermarks | None = None) -> None:
        self.marks = marks or Watermarks()
        self.paused = False
        self._now_ns: int | None = None
        self._episodes = self._episode_ns = self._longest_ns = self._paused_ns = self._depth_rows_max = 0

    def update(self, depth_rows: int, capacity_rows: int, now_ns: int) -> Water | None:
        """Take the rows waiting now; return what to tell the sources, None for nothing. About 0.7 µs.

        PAUSE once when the high mark is reached, RESUME once when the low one is, by a queue that drained or by a
        capacity that changed. Raises ValidationError for a capacity below 1 or a depth below 0.
        """
        if capacity_rows < 1 or depth_rows < 0:
            raise ValidationError(
                f"a queue has a capacity of at least 1 row and holds at least 0; got {depth_rows} of {capacity_rows}"
            )
        self._pass_time(now_ns)
        if depth_rows > self._depth_rows_max:
            self._depth_rows_max = depth_rows
        high_rows, low_rows = self.marks.rows(capacity_rows)
        if self.paused:
            if depth_rows > low_rows:
                return None
            self.paused = False
            return Water.RESUME
        if depth_rows < high_rows:
            return None
        self.paused = True
        self._episodes += 1
        self._episode_ns = 0
        return Water.PAUSE

    def _pass_time(self, now_ns: int) -> None:
        if self._now_ns is None:
            self._now_ns = now_ns
        elif now_ns > self._now_ns:
            if self.paused:
                self._paused_ns += now_ns - self._now_ns
                self._episode_ns += now_ns - self._now_ns
                self._longest_ns = max(self._longest_ns, self._episode_ns)
            self._now_ns = now_ns

    def credits(self, depth_rows: int, capacity_rows: int) -> int:
        """Rows that a source may still send before the queue reaches its high mark; 0 while paused.

        Several sources share them: give each its part.
        """
        return 0 if self.paused else max(0, self.marks.rows(capacity_rows)[0] - depth_rows)

    @property
    def paused_ns(self) -> int:
        """Time spent paused, up to the last ``update``."""
        return self._paused_ns

    def statistics(self) -> WaterStatistics:
        """What happened so far, up to the last ``update``."""
        return WaterStatistics(self.paused, self._episodes, self._paused_ns, self._longest_ns, self._depth_rows_max)

    def __repr__(self) -> str:
        state = "paused" if self.paused else "flowing"
        paused = f"; {self._episodes:,} pauses, {self._paused_ns / 1e9:,.3f} s" if self._episodes else ""
        return f"WaterLevel({state}, pause at {self.marks.high:.0%}, resume at {self.marks.low:.0%}{paused})"
