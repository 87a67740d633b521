"""``ReplayPlayer``: steps through a replay in the notebook."""

from __future__ import annotations

import asyncio
import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from hftlab.errors import ValidationError
from hftlab.replay import Replay
from hftlab.widgets.cells import MADE, current_execution
from hftlab.widgets.playing import ROWS, Playing
from hftlab.widgets.refresh import shared_loop
from hftlab.widgets.shown import fault

if TYPE_CHECKING:
    from hftlab.widgets.figures import Figure

STEP_S = 0.03
"""What takes less is shown by its result alone."""

_HERE = Path(__file__).parent
_MOST_SYMBOLS = 6
_MOST_ROWS = 100  # as many as a replay keeps


class ReplayPlayer(anywidget.AnyWidget):
    """A replay's controls, clock, latest events, and price over time; works on what the replay is at the moment.

    Play, pause, step (by one or by n), seek (slider, text, or a click into the picture) and speed, with the mouse or
    with keys. It only looks: several players on one replay show the same, cells may drive the replay meanwhile, and
    ``close()`` leaves the replay as it is. What a command or a handler raises is shown in the player.

    It refreshes at most 10 times a second while somebody sees it, together with all other live widgets at no more than
    5% of the kernel's time. Running its cell again closes the one before. ``rows`` is how many events the table shows.
    Make it in a notebook or another running loop: raises NotStarted elsewhere; ``figure()`` is the static picture.
    """

    _esm = "\n".join((_HERE / name).read_text(encoding="utf-8") for name in ("chart.js", "player.js"))
    _css = (_HERE / "player.css").read_text(encoding="utf-8")

    status = traitlets.Dict().tag(sync=True)
    events: traitlets.List[Any] = traitlets.List().tag(sync=True)
    path = traitlets.Dict().tag(sync=True)
    fault = traitlets.Dict().tag(sync=True)

    def __init__(self, replay: Replay, *, rows: int = ROWS) -> None:
        if not isinstance(replay, Replay):
            raise ValidationError(f"a player takes a Replay, as lab.replay(…) makes it; got {replay!r:.100}")
        if isinstance(rows, bool) or not isinstance(rows, int) or not 1 <= rows <= _MOST_ROWS:
            raise ValidationError(f"rows is 1 to {_MOST_ROWS}; got {rows!r:.100}")
        self._refreshes = shared_loop()
        self._loop = asyncio.get_running_loop()
        self._playing = Playing(replay, self._wake, rows=rows)
        self._closed = False
        super().__init__(_dom_classes=("hftlab-replay-player",), **self._playing.everything())
        self.on_msg(self._on_message)
        self._unsubscribe = replay.on_change(self._state_changed)
        MADE.add(self, current_execution())

    @property
    def replay(self) -> Replay:
        """What it plays."""
        return self._playing.replay

    def close(self) -> None:
        """Leave the replay, the refresh loop and the page. Idempotent; the replay goes on as it is."""
        # ipywidgets calls it from __del__ too, also of an object whose making failed.
        if getattr(self, "_closed", True):
            return
        self._closed = True
        self._refreshes.forget(self)
        self._unsubscribe()
        self._playing.remote.abandon()
        self.on_msg(self._on_message, remove=True)
        layout = self.layout
        super().close()
        layout.close()  # a model of its own, with a comm of its own

    def figure(self) -> Figure:
        """The price over time so far, with a cursor, as a static plotly figure: for nbconvert, nbval and reports."""
        from hftlab.widgets.figures import replay_figure

        shown, trace = self.replay.statistics(), self.replay.trace
        paths = {symbol: trace.points(symbol) for symbol in list(trace.symbols)[:_MOST_SYMBOLS]}
        return replay_figure(
            paths, shown.position_ns, (shown.start_ns, shown.end_ns), title=f"replay of {self.replay.session_name}"
        )

    # -- what the refresh loop calls ------------------------------------------------------------------------------

    def refresh(self) -> float | None:
        """Send what changed, if somebody looks; for the refresh loop."""
        parts, pace_s = self._playing.look(self._loop.time())
        with self.hold_sync():  # one message, whatever changed
            for name, value in parts.items():
                self.set_trait(name, value)
        return pace_s

    def refresh_failed(self, error: Exception) -> None:
        """Show that refreshing failed; for the refresh loop."""
        self.fault = {**fault(error), "about": "refresh"}

    def _wake(self) -> None:
        if not self._closed:
            self._refreshes.wake(self)

    def _state_changed(self) -> None:
        # A step runs for a moment: to show that would be to flicker.
        if not self._closed:
            self._refreshes.wake(self, STEP_S)

    # -- messages -------------------------------------------------------------------------------------------------

    def _on_message(self, _: object, content: object, __: object) -> None:
        # Comes on whatever thread a sub-shell has, with a loop of its own: exactly one thing is done here.
        self._loop.call_soon_threadsafe(self._receive, content)

    def _receive(self, content: object) -> None:
        if not self._closed:
            self._playing.receive(content, self._loop.time())

    # -- looked at ------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"ReplayPlayer({self._playing.replay.session_name}{': closed' if self._closed else ''})"

    def _repr_html_(self) -> str:
        """What shows where no widget can: on a page without a kernel."""
        shown = self.replay.statistics()
        name = html.escape(self.replay.session_name)
        return f"<div><b>Replay</b> of {name}: {html.escape(shown.state)}, {shown.delivered:,} events delivered</div>"

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        # Its view will tell that it is there; until then, also while a long cell keeps it from telling, it is awaited.
        self._playing.audience.expect(self._loop.time())
        self._wake()
        data, metadata = super()._repr_mimebundle_(**options) or ({}, {})
        return {**data, "text/html": self._repr_html_()}, metadata
