"""``GapInspector``: where a session's data is broken, and what was recorded around each gap."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import traitlets

from hftlab.widgets.inspecting import Inspecting
from hftlab.widgets.live import LiveWidget, joined
from hftlab.widgets.player import STEP_S

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from hftlab.bus import EventBus
    from hftlab.lab import Lab
    from hftlab.replay import Replay
    from hftlab.sequence import GapTable


class GapInspector(LiveWidget):
    """Gaps in a table and on a timeline by source, linked: filtered by source and state, one selected, looked into.

    Of a Replay, it jumps to either side of the selected gap and shows the recorded events around it. A seek backwards
    begins a fresh run with an empty table: the gaps that were shown stay, marked, until they are found again. Of a
    Lab, a bus, or a GapTable (``lab.gaps``), the same without these two. Counts are always of everything, however
    many gaps there are; the table is sent as it is scrolled, and the timeline says what it leaves out.

    It only looks, refreshes like every live widget (10 times a second at most, while somebody sees it), and shows what
    a jump raised. Running its cell again closes the one before; ``close()`` leaves the replay as it is. Make it in a
    notebook or another running loop: raises NotStarted elsewhere; ``figure()`` is the static picture.
    """

    _esm = joined("page.js", "canvas.js", "marks.js", "timeline.js", "inspector.js")
    _css = joined("page.css", "inspector.css")

    status = traitlets.Dict().tag(sync=True)
    filters = traitlets.Dict().tag(sync=True)
    page = traitlets.Dict().tag(sync=True)
    timeline = traitlets.Dict().tag(sync=True)
    selected = traitlets.Dict().tag(sync=True)
    around = traitlets.Dict().tag(sync=True)
    counts: traitlets.List[Any] = traitlets.List().tag(sync=True)

    def __init__(self, source: Replay | Lab | EventBus | GapTable) -> None:
        self._inspecting = Inspecting(source, self._wake)
        super().__init__(self._inspecting, "hftlab-gap-inspector")
        replay = self._inspecting.replay
        # A jump runs for a moment: to show that would be to flicker.
        self._unsubscribe = None if replay is None else replay.on_change(lambda: self._wake(STEP_S))

    @property
    def gaps(self) -> GapTable:
        """The table that it shows."""
        return self._inspecting.read()

    def figure(self) -> Figure:
        """The timeline as it is now, as a static plotly figure: for nbconvert, nbval and reports."""
        return self.gaps.figure()

    def _leave(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()

    def __repr__(self) -> str:
        return f"GapInspector({self._inspecting.title}{': closed' if self._closed else ''})"

    def _repr_html_(self) -> str:
        """What shows where no widget can: on a page without a kernel."""
        counts = ", ".join(f"{count:,} {state}" for state, count in self.gaps.counts.items() if count)
        return f"<div><b>Gaps</b> of {html.escape(self._inspecting.title)}: {counts or 'none'}</div>"
