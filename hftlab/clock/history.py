"""``ClockHistory``: what a clock was told, and what it was like then."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hftlab.clock.estimate import ClockReading, Estimate

if TYPE_CHECKING:
    import pandas as pd

    from hftlab.clock.figures import Figure

KEPT = 4_096
"""Three days of estimates a minute; 2 MB."""


class Noted(NamedTuple):
    """A reading, and the estimate that had just been taken into account.

    None where there was none: the state was found to be another, the clock was told to step, or a holdover was about to
    end.
    """

    reading: ClockReading
    estimate: Estimate | None


class ClockHistory:
    """The clock's latest 4,096 readings, at estimates and changes of its state, the oldest first: a table, a picture.

    A change of the state shows when somebody next looks at the clock. Any thread may read it meanwhile.
    """

    def __init__(self) -> None:
        self._noted: deque[Noted] = deque(maxlen=KEPT)

    def add(self, reading: ClockReading, estimate: Estimate | None) -> None:
        """Keep one."""
        self._noted.append(Noted(reading, estimate))

    @property
    def readings(self) -> tuple[ClockReading, ...]:
        """The readings alone."""
        return tuple(one.reading for one in tuple(self._noted))

    def __iter__(self) -> Iterator[Noted]:
        return iter(tuple(self._noted))

    def __len__(self) -> int:
        return len(self._noted)

    def to_frame(self) -> pd.DataFrame:
        """A row a reading: ``at`` (UTC), ``offset_ns`` that was missing, ``bound_ns``, ``state``, ``drift_ppb``,
        ``slew_ppb``; and of its estimate ``jitter_ns``, ``wander_ppb``, ``servers`` that agreed, ``falsetickers``."""
        import pandas as pd

        kept = list(self)
        estimates = [one.estimate for one in kept]
        return pd.DataFrame(
            {
                "at": pd.DatetimeIndex(np.array([one.reading.now_ns for one in kept], "M8[ns]"), tz="UTC"),
                "offset_ns": np.array([one.reading.offset_ns for one in kept], np.int64),
                "bound_ns": pd.array([one.reading.bound_ns for one in kept], "Int64"),
                "state": [one.reading.state.value for one in kept],
                "drift_ppb": np.array([one.reading.drift_ppb for one in kept], np.float64),
                "slew_ppb": np.array([one.reading.slew_ppb for one in kept], np.float64),
                "jitter_ns": pd.array([None if one is None else one.jitter_ns for one in estimates], "Int64"),
                "wander_ppb": np.array([np.nan if one is None else one.wander_ppb for one in estimates], np.float64),
                "servers": ["" if one is None else ", ".join(one.servers) for one in estimates],
                "falsetickers": ["" if one is None else ", ".join(one.falsetickers) for one in estimates],
            }
        )

    def figure(self) -> Figure:
        """A static plotly figure: the offset within its bound, the state, and the drift, over time."""
        from hftlab.clock.figures import clock_figure

        return clock_figure(self.readings)

    def __repr__(self) -> str:
        if not self._noted:
            return "ClockHistory(nothing yet)"
        latest = self._noted[-1].reading
        offset = f"{latest.offset_ns / 1e3:+,.1f} µs"
        return f"ClockHistory({len(self):,} readings, the latest {latest.state.value}, {offset})"
