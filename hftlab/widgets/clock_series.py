"""A clock over time, as the bytes that a canvas draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hftlab.clock import ClockReading, ClockState

Floats: TypeAlias = npt.NDArray[np.float64]

MOST_POINTS = 600
"""About one for each second pixel; 14 kB, once a second at most."""
WINDOWS = {"10 minutes": 600, "1 hour": 3_600, "1 day": 86_400, "all": None}
STATE_CODES = {ClockState.UNSYNCED: 0, ClockState.HOLDOVER: 1, ClockState.SYNCED: 2}


def series(readings: Sequence[ClockReading], window: str) -> dict[str, Any]:
    """``points``: float32 (6, n) of readings from the oldest to the latest, those of the window that ends with it.

    Seconds after ``base_ms`` (ms since 1970 UTC), offset and bound in ns (NaN: unknown), drift and slew in ppb, and the
    state by ``STATE_CODES``. Of more than 600, evenly spaced ones, and each at which the state changes. About 0.5 µs a
    reading.
    """
    wide_s = WINDOWS[window]
    chosen = list(readings)
    if wide_s is not None and chosen:
        since_ns = chosen[-1].now_ns - wide_s * 1_000_000_000
        chosen = [reading for reading in chosen if reading.now_ns >= since_ns]
    codes = np.array([STATE_CODES[reading.state] for reading in chosen], np.int64)
    chosen = [chosen[place] for place in _thinned(codes)]
    base_ns = chosen[0].now_ns if chosen else 0
    points = np.empty((6, len(chosen)), np.float32)
    for place, reading in enumerate(chosen):
        bound = np.nan if reading.bound_ns is None else reading.bound_ns
        points[:, place] = (
            (reading.now_ns - base_ns) / 1e9, reading.offset_ns, bound, reading.drift_ppb, reading.slew_ppb,
            STATE_CODES[reading.state],
        )  # fmt: skip
    return {
        "base_ms": base_ns / 1e6,
        "points": points.tobytes(),
        "window": window,
        "windows": [[name, name] for name in WINDOWS],
    }


def read_series(shown: dict[str, Any]) -> Floats:
    """What a view reads from ``series``'s bytes: (6, n)."""
    return np.frombuffer(shown["points"], np.float32).reshape(6, -1).astype(np.float64)


def _thinned(codes: npt.NDArray[np.int64]) -> list[int]:
    """The places that are drawn."""
    count = len(codes)
    if count <= MOST_POINTS:
        return list(range(count))
    changes = np.flatnonzero(np.diff(codes)) + 1
    # A clock that changes its state all the time has no room for all of them.
    changes = changes[:: -(-len(changes) // (MOST_POINTS // 2))] if len(changes) else changes
    even = np.linspace(0, count - 1, MOST_POINTS - len(changes)).round().astype(np.int64)
    return [int(place) for place in np.unique(np.concatenate([even, changes]))]
