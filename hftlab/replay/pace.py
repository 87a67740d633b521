"""``Pace``: when a replayed row is due, by the wall, at a speed that may change at any moment. No I/O, no clock.

The way of a row's arrival to the wall: silences longer than ``max_gap_ns`` are shortened (that gives *paced* time),
paced time is divided by the speed, counted from an anchor. Every due time comes from the anchor and none from the one
before it, so nothing adds up: a replay drifts no more in an hour than in a second.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from hftlab.errors import ValidationError

Arrivals = npt.NDArray[np.int64]


class Pace:
    """Times are ns: of the wall (``perf_counter_ns``) where the name says so, else of arrivals.

    ``speed`` is 1 for real time, ``math.inf`` for no waiting at all, 0 for standing still.
    """

    def __init__(self, speed: float = math.inf, max_gap_ns: int | None = None) -> None:
        self._speed = check_speed(speed)
        self.max_gap_ns = max_gap_ns
        self._last_ns: int | None = None
        self._cut_ns = 0
        self._anchor: tuple[int, float] | None = None  # a moment of the wall, and the paced time that it stands for
        self._position: float | None = None  # the paced time that was reached when the wall was left

    @property
    def speed(self) -> float:
        """How much faster than real time."""
        return self._speed

    def change(self, speed: float, wall_ns: int) -> None:
        """Go on at another speed from the paced time that has been reached now. Raises ValidationError."""
        speed = check_speed(speed)
        self.hold(wall_ns)
        self._speed = speed

    def hold(self, wall_ns: int) -> None:
        """Stand still from now on: the time until ``due`` or ``ready`` is asked again does not count."""
        if self._anchor is not None:
            self._position = self._reached(wall_ns)
            self._anchor = None
        if math.isinf(self._speed):
            # Flat out, no paced time is reached: the next row is due at once, whenever that is.
            self._position = None

    def skip_to(self, paced_ns: int) -> None:
        """Say that the row of that paced time was delivered without waiting for it: time goes on from there."""
        self._anchor = None
        self._position = max(float(paced_ns), self._position or 0.0) if math.isfinite(self._speed) else None

    def jump(self) -> None:
        """Say that what comes next follows nothing: its first row is due at once, whatever lies between."""
        self._anchor = self._position = None

    def paced(self, arrivals: Arrivals) -> Arrivals:
        """Paced times of the next rows: their arrivals (made to never fall), with long silences shortened."""
        if not len(arrivals):
            return arrivals
        first = arrivals[0] if self._last_ns is None else max(self._last_ns, arrivals[0])
        rising = np.maximum.accumulate(np.concatenate([[first], arrivals[1:]]))
        if self.max_gap_ns is None:
            self._last_ns = int(rising[-1])
            shifted: Arrivals = rising - self._cut_ns
            return shifted
        before = rising[0] if self._last_ns is None else self._last_ns
        gaps = np.diff(rising, prepend=before)
        cut = self._cut_ns + np.cumsum(np.maximum(gaps - self.max_gap_ns, 0))
        self._last_ns, self._cut_ns = int(rising[-1]), int(cut[-1])
        shortened: Arrivals = rising - cut
        return shortened

    def ready(self, paced: Arrivals, wall_ns: int) -> int:
        """How many of these rows, from the first on, are due by now."""
        if math.isinf(self._speed):
            return len(paced)
        if not self._speed or not len(paced):
            return 0
        self._begin(int(paced[0]), wall_ns)
        return int(np.searchsorted(paced, math.floor(self._reached(wall_ns)), side="right"))

    def due_ns(self, paced_ns: int, wall_ns: int) -> float:
        """The moment of the wall at which a row is due; infinite while standing still."""
        if math.isinf(self._speed):
            return wall_ns
        if not self._speed:
            return math.inf
        self._begin(paced_ns, wall_ns)
        assert self._anchor is not None
        return self._anchor[0] + (paced_ns - self._anchor[1]) / self._speed

    def _begin(self, paced_ns: int, wall_ns: int) -> None:
        if self._anchor is None:
            # What is reached never lies behind the row that is next by more than there was to wait.
            self._anchor = wall_ns, float(paced_ns if self._position is None else self._position)

    def _reached(self, wall_ns: int) -> float:
        assert self._anchor is not None
        return self._anchor[1] + (wall_ns - self._anchor[0]) * (0.0 if math.isinf(self._speed) else self._speed)


def check_speed(speed: object) -> float:
    """Return a speed as a float, or raise ValidationError: a number of at least 0, ``math.inf`` included."""
    if isinstance(speed, bool) or not isinstance(speed, (int, float)) or not speed >= 0:
        raise ValidationError(
            f"speed is a number of at least 0 (1: real time, 10: ten times faster, math.inf: flat out, 0: standing "
            f"still); got {speed!r:.100}"
        )
    return float(speed)


def check_gap(max_gap_s: object) -> int | None:
    """Return ``max_gap_s`` in ns, or raise ValidationError: a number of seconds of at least 0, or None."""
    if max_gap_s is None:
        return None
    if isinstance(max_gap_s, bool) or not isinstance(max_gap_s, (int, float)) or not 0 <= max_gap_s < 1e9:
        raise ValidationError(f"max_gap_s is a number of seconds of at least 0, or None; got {max_gap_s!r:.100}")
    return round(max_gap_s * 1e9)
