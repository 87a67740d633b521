"""``BusMonitor``: a live view of the bus, lane by lane and handler by handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import traitlets

from hftlab.bus import BusStatistics, EventBus
from hftlab.widgets.bus_history import BusHistory
from hftlab.widgets.live import LiveWidget, joined
from hftlab.widgets.monitoring import Monitoring

if TYPE_CHECKING:
    import pandas as pd

    from hftlab.lab import Lab
    from hftlab.widgets.figures import Figure


class BusMonitor(LiveWidget):
    """What a bus does under load, live: depth, waits, throughput and what gave way, by lane, now and in the last
    minute; the overload breaker and memory pressure; where every published event went; and its handlers.

    Of a Lab, a bus, or a BusHistory. It only looks: several monitors of one bus show the same. It refreshes at most 10
    times a second while somebody sees it and the bus is busy, and sends what changed; a look costs 1 ms of the kernel.
    What is shown is sampled too (see ``BusHistory``), for ``figure()`` and ``to_frame()``: while it is displayed; after
    ``start()`` also when nobody looks; or by ``record()``. Running its cell again closes the one before; ``close()``
    leaves the bus as it is, and what was sampled can be had still. Make it in a notebook or another running loop:
    raises NotStarted elsewhere; ``BusHistory`` needs none.
    """

    _esm = joined("page.js", "canvas.js", "lane_strip.js", "monitor.js")
    _css = joined("page.css", "monitor.css")

    status = traitlets.Dict().tag(sync=True)
    lanes: traitlets.List[Any] = traitlets.List().tag(sync=True)
    strip = traitlets.Dict().tag(sync=True)
    books = traitlets.Dict().tag(sync=True)
    handlers = traitlets.Dict().tag(sync=True)

    def __init__(self, source: Lab | EventBus | BusHistory | Any) -> None:
        history = source if isinstance(source, BusHistory) else BusHistory(source)
        self._monitoring = Monitoring(history, self._wake)
        super().__init__(self._monitoring, "hftlab-bus-monitor")

    @property
    def history(self) -> BusHistory:
        """The samples taken so far."""
        return self._monitoring.history

    def start(self) -> Self:
        """Take samples ten times a second, also while nobody looks, until ``stop`` or ``close``. Idempotent."""
        self.history.start()
        return self

    def stop(self) -> None:
        """Take samples only while somebody looks. Idempotent."""
        self.history.stop()

    def record(self) -> BusStatistics:
        """Take one sample now: where a cell drives the bus without giving way to the loop."""
        return self.history.record()

    def figure(self) -> Figure:
        """What was sampled so far, and now, as a static plotly figure: for nbconvert, nbval and reports."""
        self.history.read()
        return self.history.figure()

    def to_frame(self) -> pd.DataFrame:
        """What was sampled so far, and now: a row for each lane of each sample; see ``BusHistory.to_frame``."""
        self.history.read()
        return self.history.to_frame()

    def __repr__(self) -> str:
        return f"BusMonitor({self.history.bus.name}{': closed' if self._closed else ''})"
