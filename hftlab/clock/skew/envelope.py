"""The lower envelope of differences: the lowest few of each window, and how finely the stamps are written."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]

SHOWN_WINDOWS = 512
"""How many windows are kept to be looked at."""
_WINDOWS = 16_384
_LEAST_WINDOWS = 64
_MOST_EVENTS = 64
"""A window of no more events has one minimum in it that says something; longer ones only where there are very many."""
_PER_WINDOW = 2
_ASKED = 8_192
_GRAINS = tuple(10**power for power in range(9, 0, -1))


class Envelope(msgspec.Struct, frozen=True, eq=False):
    """The least difference of each window. ``at_ns``: int64[m] ns UTC by the recorder; ``least_ns``: int64[m] ns."""

    at_ns: Ints
    least_ns: Ints

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Envelope)
            and np.array_equal(self.at_ns, other.at_ns)
            and np.array_equal(self.least_ns, other.least_ns)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Envelope({len(self.at_ns):,} windows)"

    def thinned(self) -> Envelope:
        """Of no more than 512 windows: neighbours become one, with the least of theirs."""
        count = len(self.at_ns)
        if count <= SHOWN_WINDOWS:
            return self
        ends = np.linspace(0, count, SHOWN_WINDOWS + 1).astype(np.int64)
        places = [begin + int(np.argmin(self.least_ns[begin:end])) for begin, end in pairwise(ends.tolist())]
        return Envelope(self.at_ns[places], self.least_ns[places])


def lowest_of_windows(heights: npt.NDArray[np.float64]) -> Ints:
    """Where the two lowest of each window stand: int64[k] indices, in order. O(n).

    Windows have equally many events, 64 of them for up to a million events, so that busy and idle hours count for
    what they tell. Two of each, so that one impossible stamp does not hide what lies above it. ``heights`` are in
    the order of time.
    """
    count = len(heights)
    windows = min(max(_LEAST_WINDOWS, count // _MOST_EVENTS), _WINDOWS, count)
    size = count // windows
    if size <= _PER_WINDOW:
        return np.arange(count, dtype=np.int64)
    whole = windows * size
    lowest = np.argpartition(heights[:whole].reshape(windows, size), _PER_WINDOW - 1, axis=1)[:, :_PER_WINDOW]
    places = (lowest + size * np.arange(windows)[:, None]).ravel()
    # What the division left over are fewer than a window's events, or than windows: all of them, it costs nothing.
    return np.sort(np.concatenate([places, np.arange(whole, count)])).astype(np.int64)


def resolution_of(stamps: Ints) -> int:
    """The power of ten ns, 1 s at most, that (nearly) all stamps are multiples of. Looks at 8,192 of them.

    A few that are not (a snapshot's, made by another program) don't count: up to 0.1 %.
    """
    asked = stamps[:: max(1, len(stamps) // _ASKED)]
    for grain in _GRAINS:
        if int(np.count_nonzero(asked % grain)) <= len(asked) // 1_000:
            return int(grain)
    return 1
