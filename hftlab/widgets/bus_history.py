"""``BusHistory``: what a bus did lately, lane by lane, as samples: for the monitor, for pictures, and for tables."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from hftlab.bus import BusStatistics, EventBus
from hftlab.clock import Clock, SystemClock
from hftlab.errors import NotStarted, ValidationError, shown
from hftlab.metrics import Histogram

if TYPE_CHECKING:
    import pandas as pd

    from hftlab.lab import Lab
    from hftlab.widgets.figures import Figure

Ints = npt.NDArray[np.int64]

EVERY_S = 0.1
KEEPS = 6_000
"""Ten minutes at ten a second; 1 MB."""
MOST_REASONS = 24
OTHER_REASONS = "other reasons"

_COUNTS = ("waiting", "capacity", "oldest_ns", "handled", "gave_way")


@dataclass(frozen=True)
class BusSamples:
    """Samples from the oldest to the latest, as arrays: ``times_ns`` (n,), UTC, never falling; the others (n, lanes).

    ``waiting`` and ``capacity`` in rows, ``oldest_ns`` the wait of the oldest; ``handled`` and ``gave_way`` count since
    the bus was made, the latter also by reason in ``reasons``.
    """

    lanes: tuple[str, ...]
    times_ns: Ints
    waiting: Ints
    capacity: Ints
    oldest_ns: Ints
    handled: Ints
    gave_way: Ints
    reasons: Mapping[str, Ints]

    def __len__(self) -> int:
        return len(self.times_ns)


class BusHistory:
    """Samples of a bus's lanes: depth, waits, what was handled and what gave way. Needs no widget, nor a notebook.

    ``source`` is a Lab, a bus, or what has one as ``bus``. ``record`` takes one sample now; ``start`` takes one every
    ``every_s`` seconds on the running loop until ``stop``, or until nobody holds the history any more. A bus that is
    driven within one cell, without giving way to the loop, is sampled by ``record`` alone. The latest ``keeps`` samples
    are kept (6,000: ten minutes, 1 MB). ``clock`` tells their times: by default this machine's; of a simulated burst,
    the VirtualClock that the bus was given. A sample costs what ``bus.statistics()`` does, about 0.2 ms, and 20 µs.
    Raises ValidationError.
    """

    def __init__(
        self,
        source: Lab | EventBus | Any,
        *,
        keeps: int = KEEPS,
        every_s: float = EVERY_S,
        clock: Clock | None = None,
    ) -> None:
        if isinstance(keeps, bool) or not isinstance(keeps, int) or not 2 <= keeps <= 1_000_000:
            raise ValidationError(f"keeps is how many samples are kept, 2 to 1,000,000; got {shown(keeps)}")
        if isinstance(every_s, bool) or not isinstance(every_s, (int, float)) or not 0.001 <= every_s <= 3_600:
            raise ValidationError(f"every_s is a number of seconds from 0.001 to 3,600; got {shown(every_s)}")
        self.bus = bus_of(source)
        self.every_s, self.keeps = float(every_s), keeps
        self.failure: Exception | None = None
        self._clock: Clock = clock or SystemClock()
        self._timer: asyncio.TimerHandle | None = None
        self._count = 0
        self._last_ns = 0
        # The first quantile of a process loads its kernel (0.3 s): here, where a cell waits, and not in a refresh.
        waits = Histogram()
        waits.record(1)
        waits.quantiles([0.5])
        self._lanes = tuple(lane.lane for lane in self.bus.statistics().lanes)
        self._times_ns = np.zeros(keeps, np.int64)
        self._counts = {name: self._column() for name in _COUNTS}
        self._reasons: dict[str, Ints] = {}

    def _column(self) -> Ints:
        return np.zeros((self.keeps, len(self._lanes)), np.int64)

    # -- sampling -------------------------------------------------------------------------------------------------

    def record(self) -> BusStatistics:
        """Take one sample now, and return the statistics that it is of."""
        _, told = self._read(0.0)
        return told

    def read(self) -> tuple[int, BusStatistics]:
        """The time now (ns UTC) and the statistics, which become a sample if the latest one is old enough."""
        # Three quarters: a timer that is a little early must not skip every other sample.
        return self._read(0.75 * self.every_s)

    def _read(self, age_s: float) -> tuple[int, BusStatistics]:
        told = self.bus.statistics()
        now_ns = max(self._clock.now_ns(), self._last_ns)
        if not self._count or now_ns - self._last_ns >= age_s * 1e9:
            self._keep(now_ns, told)
        return now_ns, told

    def _keep(self, now_ns: int, told: BusStatistics) -> None:
        at = self._count % self.keeps
        self._times_ns[at] = self._last_ns = now_ns
        by_lane = {lane.lane: lane for lane in told.lanes}
        for column in self._reasons.values():
            column[at] = 0
        for place, name in enumerate(self._lanes):
            lane = by_lane[name]
            gave_way = sum(lane.gave_way.values())
            values = (lane.waiting, lane.capacity, lane.oldest_ns, lane.handled, gave_way)
            for count, value in zip(self._counts.values(), values, strict=True):
                count[at, place] = value
            for reason, rows in lane.gave_way.items():
                self._reason(reason)[at, place] += rows
        self._count += 1

    def _reason(self, reason: str) -> Ints:
        # Rules may come and go for as long as a kernel runs: what is kept of them is bounded.
        if reason not in self._reasons and len(self._reasons) >= MOST_REASONS:
            reason = OTHER_REASONS
        return self._reasons.setdefault(reason, self._column())

    def start(self) -> Self:
        """Take a sample now, and one every ``every_s`` seconds on the running loop. Idempotent. Raises NotStarted."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise NotStarted(
                "start() needs a running loop, as every notebook has; without one, call record() where a sample is due"
            ) from None
        if self._timer is None:
            self.failure = None
            self.read()
            self._arm(loop)
        return self

    def stop(self) -> None:
        """Take no more samples by itself; those that were taken stay. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def sampling(self) -> bool:
        """Whether it takes samples by itself."""
        return self._timer is not None

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self.read()
        except Exception as error:  # shown in the repr: a timer has nobody to raise it to
            self._timer, self.failure = None, error
            return
        self._arm(loop)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        reference: weakref.ref[BusHistory] = weakref.ref(self)
        self._timer = loop.call_later(self.every_s, _tick, reference, loop)

    # -- looked at ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return min(self._count, self.keeps)

    def samples(self, since_ns: int = 0) -> BusSamples:
        """The samples, copied: all, or those from the last one before ``since_ns`` on. About 10 µs, 0.3 ms for all."""
        kept = np.arange(self._count - len(self), self._count) % self.keeps
        first = max(int(np.searchsorted(self._times_ns[kept], since_ns)) - 1, 0)
        chosen = kept[first:]
        counts = {name: column[chosen] for name, column in self._counts.items()}
        reasons = {reason: column[chosen] for reason, column in self._reasons.items()}
        return BusSamples(lanes=self._lanes, times_ns=self._times_ns[chosen], reasons=reasons, **counts)

    def to_frame(self) -> pd.DataFrame:
        """The samples, a row for each lane of each: time (UTC), lane, rows waiting, capacity, ``oldest_ns``, and the
        counts ``handled`` and ``gave_way`` since the bus was made, with a column for each reason to give way.
        """
        import pandas as pd

        taken = self.samples()
        times = pd.DatetimeIndex(taken.times_ns.repeat(len(taken.lanes)).astype("datetime64[ns]"), tz="UTC")
        counts = {name: getattr(taken, name).reshape(-1) for name in _COUNTS}
        reasons = {reason: rows.reshape(-1) for reason, rows in taken.reasons.items()}
        return pd.DataFrame({"time": times, "lane": list(taken.lanes) * len(taken), **counts, **reasons})

    def figure(self) -> Figure:
        """Depth, and what gave way, by lane over the time of the samples, as a static plotly figure."""
        from hftlab.widgets.figures import bus_figure

        return bus_figure(self.samples(), title=f"{title_of(self.bus)}: what waited, and what gave way")

    def __repr__(self) -> str:
        failure = self.failure
        state = f": FAILED, {type(failure).__name__}: {failure}" if failure else ": sampling" if self.sampling else ""
        return f"BusHistory({self.bus.name}{state})"


def _tick(reference: weakref.ref[BusHistory], loop: asyncio.AbstractEventLoop) -> None:
    # Weak: a timer would keep a history that its cell's next run has replaced.
    history = reference()
    if history is not None and history.sampling:
        history._next(loop)


def bus_of(source: Any) -> EventBus:
    """The bus that is meant: itself, or what a Lab (or a replay) has as ``bus``. Raises ValidationError."""
    bus = source if isinstance(source, EventBus) else getattr(source, "bus", None)
    if not isinstance(bus, EventBus):
        raise ValidationError(f"this takes a Lab, or a bus such as lab.bus; got {shown(source)}")
    return bus


def title_of(bus: EventBus) -> str:
    """What a bus is called in titles."""
    return "Bus" if bus.name == "bus" else f"Bus {bus.name}"
