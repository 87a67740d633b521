"""``LatencyPanel``: where time goes, live: how long each stretch of events' ways takes, and for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import traitlets

from hftlab.metrics import Latency
from hftlab.widgets.latency_sources import title_of
from hftlab.widgets.latency_watching import LatencyWatching
from hftlab.widgets.live import LiveWidget, joined

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

    from hftlab.bus import EventBus
    from hftlab.lab import Lab
    from hftlab.pipeline import EventProcessor
    from hftlab.replay import Replay


class LatencyPanel(LiveWidget):
    """Latencies live: their distribution and percentiles on logarithmic axes, where they come from stage by stage, and
    a table by stage, type, symbol or handler, from which the pictures' stage and row are chosen.

    Of a Lab, a replay, a processor, a bus, or a Latency. ``compare(other)`` draws another run beside it, and ``keep()``
    (a button, too) what has been measured so far. Latencies below 0 are counted and explained, never hidden.

    It only looks, at most 10 times a second while somebody sees it and something is measured, and sends what changed; a
    look costs about 1 ms of the kernel. Running its cell again closes the one before; ``close()`` leaves what is
    measured as it is. Make it in a notebook or another running loop: raises NotStarted elsewhere; ``figure()`` is the
    static picture.
    """

    _esm = joined("page.js", "canvas.js", "latency_charts.js", "latency_panel.js")
    _css = joined("page.css", "latency_panel.css")

    status = traitlets.Dict().tag(sync=True)
    choice = traitlets.Dict().tag(sync=True)
    picture = traitlets.Dict().tag(sync=True)
    stack = traitlets.Dict().tag(sync=True)
    table = traitlets.Dict().tag(sync=True)

    def __init__(self, source: Lab | Replay | EventProcessor | EventBus | Latency | Any) -> None:
        self._watching = LatencyWatching(source, self._wake)
        super().__init__(self._watching, "hftlab-latency-panel")

    @property
    def latency(self) -> Latency:
        """What is measured, as it is now."""
        return self._watching.latency

    @property
    def reference(self) -> Latency | None:
        """What is compared with; None without."""
        return self._watching.reference

    def compare(self, other: Any, name: str = "") -> None:
        """Draw another run beside this one: whatever a panel can be made of; None takes it away.

        ``name`` is what it is called in the pictures. Raises ValidationError.
        """
        self._watching.compare(other, name)

    def keep(self, name: str = "") -> None:
        """Freeze what has been measured so far, and compare with that from now on: before a change is tried."""
        self._watching.keep(name)

    def figure(self, *others: Latency) -> Figure:
        """The pictures as they are now, as a static plotly figure: for nbconvert, nbval and reports.

        With ``others``, or else with what is compared with.
        """
        if not others and self.reference is not None:
            others = (self.reference,)
        return self.latency.figure(*others)

    def to_frame(self, by: Literal["stage", "type", "symbol", "handler"] = "stage") -> pd.DataFrame:
        """The figures by ``"stage"``, ``"type"``, ``"symbol"`` or ``"handler"``; see ``Latency.to_frame``."""
        return self.latency.to_frame(by=by)

    def __repr__(self) -> str:
        return f"LatencyPanel({title_of(self.latency)}{': closed' if self._closed else ''})"
