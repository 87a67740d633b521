"""The last minute of a bus, lane by lane, as the bytes that a canvas draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hftlab.widgets.bus_history import BusSamples

BUCKET_NS = 200_000_000
BUCKETS = 300
"""One a pixel or two; 9.6 kB for four lanes, and never more than five times a second."""
WINDOW_NS = BUCKETS * BUCKET_NS

HOLD_NS = 2_500_000_000
"""What a sample says holds until the next one, unless that comes later: a silent audience has one every 2 seconds."""

Floats = npt.NDArray[np.float64]


def strip(samples: BusSamples, now_ns: int) -> dict[str, Any]:
    """``points``: float32 of shape (2, lanes, 300), in buckets of 0.2 s that end at the last full fifth of a second.

    First the rows waiting (the most of each bucket: no peak is lost), then the rows that gave way a second; NaN where
    nobody took samples. ``quiet``: nothing waited or gave way in all that time. About 150 µs.
    """
    edges_ns = now_ns // BUCKET_NS * BUCKET_NS + (np.arange(BUCKETS + 1) - BUCKETS) * BUCKET_NS
    points = np.full((2, len(samples.lanes), BUCKETS), np.nan, np.float32)
    if len(samples):
        known = _known(samples.times_ns, edges_ns)
        points[0, :, known] = _most(samples, edges_ns)[known]
        points[1, :, known] = _rates(samples, edges_ns)[known]
    return {
        "lanes": list(samples.lanes),
        "bucket_s": BUCKET_NS / 1e9,
        "quiet": not bool(np.nan_to_num(points).any()),
        "points": points.tobytes(),
    }


def read_strip(shown: dict[str, Any]) -> Floats:
    """What a view reads from ``strip``'s bytes: (2, lanes, buckets)."""
    return np.frombuffer(shown["points"], np.float32).reshape(2, len(shown["lanes"]), -1).astype(np.float64)


def _held(times_ns: npt.NDArray[np.int64], edges_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """The sample that holds at each edge; -1 before the first."""
    return np.searchsorted(times_ns, edges_ns, side="right") - 1


def _known(times_ns: npt.NDArray[np.int64], edges_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    held = _held(times_ns, edges_ns)
    begin, end = held[:-1], held[1:]
    # What follows the latest sample is known for a while; in a longer silence nothing is.
    after_ns = np.append(times_ns, max(int(times_ns[-1]), int(edges_ns[-1])))[begin + 1]
    known: npt.NDArray[np.bool_] = (end > begin) | ((begin >= 0) & (after_ns - times_ns[begin] <= HOLD_NS))
    return known


def _most(samples: BusSamples, edges_ns: npt.NDArray[np.int64]) -> Floats:
    """The most rows waiting in each bucket, what holds at its beginning included: (buckets, lanes)."""
    held = np.maximum(_held(samples.times_ns, edges_ns), 0)
    # reduceat takes slices [begin, end) by turns with what lies between them; a row more lets the last one end.
    slices = np.stack([held[:-1], held[1:] + 1], axis=1).reshape(-1)
    padded = np.vstack([samples.waiting, samples.waiting[-1:]])
    most: Floats = np.maximum.reduceat(padded, slices, axis=0)[::2].astype(np.float64)
    return most


def _rates(samples: BusSamples, edges_ns: npt.NDArray[np.int64]) -> Floats:
    """Rows a second that gave way in each bucket, evenly spread between samples: (buckets, lanes)."""
    base_ns = samples.times_ns[0]  # ns since 1970 are more than a float holds
    at, times = (edges_ns - base_ns).astype(np.float64), (samples.times_ns - base_ns).astype(np.float64)
    counts = np.stack([np.interp(at, times, column) for column in samples.gave_way.T.astype(np.float64)], axis=1)
    rates: Floats = np.diff(counts, axis=0) * (1e9 / BUCKET_NS)
    return rates
