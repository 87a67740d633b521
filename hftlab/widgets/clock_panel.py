"""``ClockPanel``: how far a clock is from UTC, live: offset and bound, state, drift, and the servers it is told by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import traitlets

from hftlab.clock import ClockReading, SystemClock
from hftlab.widgets.clock_readings import words
from hftlab.widgets.clock_watching import ClockWatching
from hftlab.widgets.live import LiveWidget, joined

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

    from hftlab.lab import Lab


class ClockPanel(LiveWidget):
    """A clock live: what is missing to UTC with its bound as a band, the state as a coloured strip, drift and slew over
    time; the reading in words; and each NTP server: whether it is believed, how far off it is, and what was refused.

    Of a Lab, a SystemClock, or an NtpPoller. A clock that nobody disciplines is shown as what it is, with what to type.
    It only looks, once a second while somebody sees it, and sends what changed: about 1 ms of the kernel. Running its
    cell again closes the one before; ``close()`` leaves the clock as it is. Make it in a notebook or another running
    loop: raises NotStarted elsewhere; ``figure()`` is the static picture.
    """

    _esm = joined("page.js", "canvas.js", "clock_chart.js", "clock_panel.js")
    _css = joined("page.css", "clock_panel.css")

    status = traitlets.Dict().tag(sync=True)
    chart = traitlets.Dict().tag(sync=True)
    servers = traitlets.Dict().tag(sync=True)

    def __init__(self, source: Lab | SystemClock | Any) -> None:
        self._watching = ClockWatching(source, self._wake)
        super().__init__(self._watching, "hftlab-clock-panel")

    @property
    def clock(self) -> SystemClock:
        """The clock that it shows."""
        return self._watching.clock

    def reading(self) -> ClockReading:
        """The clock, looked at once."""
        return self.clock.reading()

    def figure(self) -> Figure:
        """The clock's history as a static plotly figure: for nbconvert, nbval and reports."""
        return self.clock.history.figure()

    def to_frame(self) -> pd.DataFrame:
        """The clock's history as a table: a row for each estimate and change of state; see ``SystemClock.history``."""
        return self.clock.history.to_frame()

    def __repr__(self) -> str:
        # Stable: a reading changes from moment to moment.
        return f"ClockPanel({self.clock.state.value}{', closed' if self._closed else ''})"

    def _repr_html_(self) -> str:
        """What shows where no widget can: on a page without a kernel."""
        return f"<div><b>Clock</b> {words(self.reading())}</div>"
