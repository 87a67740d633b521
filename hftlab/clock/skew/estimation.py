"""Estimating a skew: from every event's two stamps, or from the windows that a running journey keeps."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from hftlab.clock.skew.envelope import Envelope, lowest_of_windows, resolution_of
from hftlab.clock.skew.fit import Line, fit_line, slopes_within
from hftlab.clock.skew.skew import Skew
from hftlab.errors import ValidationError, shown

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

LEAST_EVENTS = 16
"""Fewer say nothing about the fastest one."""
LEAST_WINDOWS = 4
"""Of an envelope: each window's minimum stands for many events."""
MOST_BELOW = 1 / 2_000
"""The part of the events that may be called impossible: half of 0.1 %, so that the 0.1 % quantile stays above 0."""
_MOST_NS = (1 << 63) - 1
MOST_BOUND = 100e-6
"""A drift that is not known to 100 ppm is not known: hardly any computer's clock is that wrong."""


def estimate_skew(timestamp: npt.ArrayLike, received: npt.ArrayLike, *, least_latency_ns: int = 0) -> Skew:
    """How far the clock that wrote ``received`` was off the one that wrote ``timestamp``, with its drift.

    Both are int64[n] ns UTC, an event each, in any order; leave out events with only one of the two (the flags
    ARRIVAL_TIME and SOURCE_TIME). The line under all differences ``received - timestamp`` that lies closest to them
    (see ``fit.py``), but for impossible ones, 0.1 % of the events at most. ``least_latency_ns``: what the fastest
    message is known to have taken at least, such as the light's way. Where the drift can't be told to 100 ppm (a short
    span), the offset alone. What can't be known at all: see ``Skew``.

    Raises ValidationError for fewer than 16 events, arrays of different lengths, and what are no integers. About 0.2 µs
    an event, and 60 bytes of memory while it runs.
    """
    least_latency_ns = _least_latency(least_latency_ns)
    sent, arrived = _whole_numbers(timestamp, "timestamp"), _whole_numbers(received, "received")
    if len(sent) != len(arrived):
        raise ValidationError(f"timestamp and received are of the same events; got {len(sent):,} and {len(arrived):,}")
    if len(sent) < LEAST_EVENTS:
        raise ValidationError(
            f"a skew is estimated from {LEAST_EVENTS} events at least, with both stamps their own; got {len(sent)}: "
            "give more of the session, or check that its events have a time of the venue (flag ARRIVAL_TIME: none)"
        )
    if np.any(np.diff(arrived) < 0):
        order = np.argsort(arrived, kind="stable")
        sent, arrived = sent[order], arrived[order]
    differences = arrived - sent
    scale = _Scale.of(arrived, differences)
    x, y = scale.points(arrived, differences)
    grain = max(resolution_of(sent), resolution_of(arrived))
    below = int(MOST_BELOW * len(x))
    # Twice: a window's lowest are those above a line that has the clocks' drift, which the first round finds.
    lowest = lowest_of_windows(y)
    tilt = fit_line(x[lowest], y[lowest], below, grain).slope
    lowest = lowest_of_windows(y - tilt * x)
    fitted = _fit(x[lowest], y[lowest], below, grain)
    if np.count_nonzero(~fitted.line.possible(x, y)) > 2 * below:
        # A burst of fast ones: too many to be impossible, so the line runs under them too.
        fitted = _fit(x[lowest], y[lowest], 0, grain)
    possible = fitted.line.possible(x, y)
    # The windows' lowest two are nearly all that matter; the line may still be a little above another one.
    level = float(np.min((y - fitted.line.slope * x)[possible]))
    fitted = fitted._replace(line=fitted.line._replace(level=level))
    envelope = Envelope(arrived[lowest], differences[lowest]).thinned()
    under = int(np.count_nonzero(~possible))
    return _skew(fitted, scale, envelope, len(x), under, grain, int(arrived[-1] - arrived[0]), least_latency_ns)


def skew_of_envelope(
    at_ns: npt.ArrayLike, least_ns: npt.ArrayLike, events: int | npt.ArrayLike, resolution_ns: int = 0,
    *, least_latency_ns: int = 0,
) -> Skew:  # fmt: skip
    """The skew by a lower envelope that was kept while events ran by: the least difference of each window of time.

    ``at_ns``: int64[m] ns UTC by the recorder, where each window's least difference arrived, or its middle (then the
    level is off by up to the drift over half a window). ``least_ns``: int64[m], the least ``received - timestamp``
    there. ``events``: how many there were, in all or int64[m] a window. Windows without an event are left out by the
    caller, or have 0 ``events``. ``resolution_ns``: how finely the stamps are written, where known. ``below`` and what
    may be impossible count windows here: 5 % of them at most, and no more than 0.05 % of the events are.

    Raises ValidationError for fewer than 4 windows with an event, or than 16 events. About 10 ms for 512 windows.
    """
    least_latency_ns = _least_latency(least_latency_ns)
    at, least = _whole_numbers(at_ns, "at_ns"), _whole_numbers(least_ns, "least_ns")
    counts = np.broadcast_to(np.asarray(events, dtype=np.int64), at.shape if np.ndim(events) else ())
    if len(at) != len(least):
        raise ValidationError(f"at_ns and least_ns are of the same windows; got {len(at):,} and {len(least):,}")
    if counts.ndim:
        at, least = at[counts > 0], least[counts > 0]
    total = int(counts.sum())
    if len(at) < LEAST_WINDOWS or total < LEAST_EVENTS:
        raise ValidationError(
            f"a skew is estimated from {LEAST_WINDOWS} windows and {LEAST_EVENTS} events at least; got {len(at)} "
            f"and {total}: wait for more events"
        )
    order = np.argsort(at, kind="stable")
    at, least = at[order], least[order]
    scale = _Scale.of(at, least)
    x, y = scale.points(at, least)
    grain = max(int(resolution_ns), 1)
    fitted = _fit(x, y, int(MOST_BELOW * total), grain)
    under = int(np.count_nonzero(~fitted.line.possible(x, y)))
    span_ns = int(at[-1] - at[0])
    return _skew(fitted, scale, Envelope(at, least), total, under, grain, span_ns, least_latency_ns)


class _Scale(NamedTuple):
    """Where the plane's origin lies: ns UTC since 1970 have more digits than a float64."""

    reference_ns: int
    base_ns: int

    @classmethod
    def of(cls, at_ns: Ints, differences: Ints) -> _Scale:
        # The events' mean time: there the hull's segment is the line that is closest to all of them together.
        return cls(int(at_ns[0]) + round(float(np.mean(at_ns - at_ns[0]))), int(np.median(differences)))

    def points(self, at_ns: Ints, differences: Ints) -> tuple[Floats, Floats]:
        return (at_ns - self.reference_ns).astype(np.float64), (differences - self.base_ns).astype(np.float64)


class _Fitted(NamedTuple):
    line: Line
    drift_bound: float | None


def _fit(x: Floats, y: Floats, below: int, grain: int) -> _Fitted:
    """The line, and how far its slope may be off; a level one where that is further than any clock is.

    The clocks' own line, lifted by the least latency, lies under all points as well. It comes as close to them as the
    typical window's minimum, or the data could not tell anything: so its slope is one of those that leave no more room.
    """
    if x[0] < 0 < x[-1]:
        line = fit_line(x, y, below, grain)
        low, high = slopes_within(x, y, line, line.scatter + grain)
        bound = max(line.slope - low, high - line.slope)
        if bound <= MOST_BOUND:
            return _Fitted(line, bound)
    return _Fitted(fit_line(x, y, below, grain, slope=0.0), None)


def _skew(
    fitted: _Fitted, scale: _Scale, envelope: Envelope, events: int, below: int, grain: int, span_ns: int,
    least_latency_ns: int,
) -> Skew:  # fmt: skip
    line, bound = fitted
    return Skew(
        offset_ns=scale.base_ns + math.floor(line.level) - least_latency_ns,
        reference_ns=scale.reference_ns,
        drift_ppb=None if bound is None else line.slope * 1e9,
        drift_bound_ppb=0.0 if bound is None else bound * 1e9,
        uncertainty_ns=math.ceil(line.scatter) + grain,
        events=events, below=below, span_ns=span_ns, resolution_ns=grain, least_latency_ns=least_latency_ns,
        envelope=envelope,
    )  # fmt: skip


def _whole_numbers(values: npt.ArrayLike, name: str) -> Ints:
    array = np.asarray(values)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise ValidationError(
            f"{name} is a one-dimensional array of integers, ns (of datetimes: .astype('datetime64[ns]')"
            f".astype('int64')); got {shown(array.dtype)} of {array.ndim} dimensions"
        )
    if array.dtype.kind == "u" and array.size and int(array.max()) > _MOST_NS:
        raise ValidationError(f"{name} is of int64, ns since 1970; got a value of {int(array.max())}")
    return array.astype(np.int64)


def _least_latency(least_latency_ns: int) -> int:
    whole = isinstance(least_latency_ns, (int, np.integer)) and not isinstance(least_latency_ns, bool)
    if not whole or not 0 <= least_latency_ns <= _MOST_NS:
        raise ValidationError(
            "least_latency_ns is what the fastest message takes at least, whole ns from 0; "
            f"got {shown(least_latency_ns)}"
        )
    return int(least_latency_ns)
