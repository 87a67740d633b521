"""``ReplayPlayer``: steps through a replay in the notebook."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import traitlets

from hftlab.errors import ValidationError
from hftlab.replay import Replay
from hftlab.widgets.live import LiveWidget, joined
from hftlab.widgets.playing import ROWS, Playing

if TYPE_CHECKING:
    from hftlab.widgets.figures import Figure

STEP_S = 0.03
"""What takes less is shown by its result alone."""

_MOST_SYMBOLS = 6
_MOST_ROWS = 100  # as many as a replay keeps


class ReplayPlayer(LiveWidget):
    """A replay's controls, clock, latest events, and price over time; works on what the replay is at the moment.

    Play, pause, step (by one or by n), seek (slider, text, or a click into the picture) and speed, with the mouse or
    with keys. It only looks: several players on one replay show the same, cells may drive the replay meanwhile, and
    ``close()`` leaves the replay as it is. What a command or a handler raises is shown in the player.

    It refreshes at most 10 times a second while somebody sees it, together with all other live widgets at no more than
    5% of the kernel's time. Running its cell again closes the one before. ``rows`` is how many events the table shows.
    Make it in a notebook or another running loop: raises NotStarted elsewhere; ``figure()`` is the static picture.
    """

    _esm = joined("page.js", "canvas.js", "chart.js", "player.js")
    _css = joined("page.css", "player.css")

    status = traitlets.Dict().tag(sync=True)
    events: traitlets.List[Any] = traitlets.List().tag(sync=True)
    path = traitlets.Dict().tag(sync=True)

    def __init__(self, replay: Replay, *, rows: int = ROWS) -> None:
        if not isinstance(replay, Replay):
            raise ValidationError(f"a player takes a Replay, as lab.replay(…) makes it; got {replay!r:.100}")
        if isinstance(rows, bool) or not isinstance(rows, int) or not 1 <= rows <= _MOST_ROWS:
            raise ValidationError(f"rows is 1 to {_MOST_ROWS}; got {rows!r:.100}")
        self._playing = Playing(replay, self._wake, rows=rows)
        super().__init__(self._playing, "hftlab-replay-player")
        # A step runs for a moment: to show that would be to flicker.
        self._unsubscribe = replay.on_change(lambda: self._wake(STEP_S))

    @property
    def replay(self) -> Replay:
        """What it plays."""
        return self._playing.replay

    def figure(self) -> Figure:
        """The price over time so far, with a cursor, as a static plotly figure: for nbconvert, nbval and reports."""
        from hftlab.widgets.figures import replay_figure

        shown, trace = self.replay.statistics(), self.replay.trace
        paths = {symbol: trace.points(symbol) for symbol in list(trace.symbols)[:_MOST_SYMBOLS]}
        return replay_figure(
            paths, shown.position_ns, (shown.start_ns, shown.end_ns), title=f"replay of {self.replay.session_name}"
        )

    def _leave(self) -> None:
        self._unsubscribe()

    def __repr__(self) -> str:
        return f"ReplayPlayer({self._playing.replay.session_name}{': closed' if self._closed else ''})"

    def _repr_html_(self) -> str:
        """What shows where no widget can: on a page without a kernel."""
        shown = self.replay.statistics()
        name = html.escape(self.replay.session_name)
        return f"<div><b>Replay</b> of {name}: {html.escape(shown.state)}, {shown.delivered:,} events delivered</div>"
