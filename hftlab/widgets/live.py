"""``LiveWidget``: what all live widgets are: a model's parts carried to the browser, and its views' messages back."""

from __future__ import annotations

import asyncio
import html
from pathlib import Path
from typing import Any, Protocol

import anywidget
import traitlets

from hftlab.widgets.audience import Audience
from hftlab.widgets.cells import MADE, current_execution
from hftlab.widgets.refresh import shared_loop
from hftlab.widgets.shown import fault

_HERE = Path(__file__).parent


class Model(Protocol):
    """What decides what a widget shows, and knows nothing of widgets."""

    @property
    def audience(self) -> Audience:
        """Who looks."""
        ...

    def receive(self, content: object, now: float) -> None:
        """Take one message of a view; raises nothing of what is wrong with it."""
        ...

    def look(self, now: float) -> tuple[dict[str, Any], float | None]:
        """The parts that are new, and the seconds until the next look (None: not before there is something new)."""
        ...

    def everything(self) -> dict[str, Any]:
        """All parts, for a view that is made now."""
        ...

    def abandon(self) -> None:
        """End what is being done. Idempotent."""
        ...


class LiveWidget(anywidget.AnyWidget):
    """The base of the live widgets: refreshed by the shared loop while somebody looks, closed by its cell's next run.

    A widget makes its model (with ``self._wake`` to call when there is news), then calls this constructor; its parts
    are the traits of their names. Raises NotStarted where no loop runs.
    """

    fault = traitlets.Dict().tag(sync=True)

    def __init__(self, model: Model, css_class: str) -> None:
        self._refreshes = shared_loop()
        self._loop = asyncio.get_running_loop()
        self._model = model
        self._closed = False
        super().__init__(_dom_classes=(css_class,), **model.everything())
        self.on_msg(self._on_message)
        MADE.add(self, current_execution())

    def close(self) -> None:
        """Leave the refresh loop and the page. Idempotent; what the widget looked at goes on as it is."""
        # ipywidgets calls it from __del__ too, also of an object whose making failed.
        if getattr(self, "_closed", True):
            return
        self._closed = True
        self._refreshes.forget(self)
        self._leave()
        self._model.abandon()
        self.on_msg(self._on_message, remove=True)
        layout = self.layout
        super().close()
        layout.close()  # a model of its own, with a comm of its own

    def _leave(self) -> None:
        """End what the widget subscribed to."""

    # -- what the refresh loop calls ------------------------------------------------------------------------------

    def refresh(self) -> float | None:
        """Send what changed, if somebody looks; for the refresh loop."""
        parts, pace_s = self._model.look(self._loop.time())
        with self.hold_sync():  # one message, whatever changed
            for name, value in parts.items():
                self.set_trait(name, value)
        return pace_s

    def refresh_failed(self, error: Exception) -> None:
        """Show that refreshing failed; for the refresh loop."""
        self.fault = {**fault(error), "about": "refresh"}

    def _wake(self, after_s: float = 0.0) -> None:
        # While the widget is being made there is nobody to wake: it shows everything then.
        if not getattr(self, "_closed", True):
            self._refreshes.wake(self, after_s)

    # -- messages -------------------------------------------------------------------------------------------------

    def _on_message(self, _: object, content: object, __: object) -> None:
        # Comes on whatever thread a sub-shell has, with a loop of its own: exactly one thing is done here.
        self._loop.call_soon_threadsafe(self._receive, content)

    def _receive(self, content: object) -> None:
        if not self._closed:
            self._model.receive(content, self._loop.time())

    # -- looked at ------------------------------------------------------------------------------------------------

    def _repr_html_(self) -> str:
        """What shows where no widget can: on a page without a kernel."""
        return f"<div>{html.escape(repr(self))}</div>"

    def _repr_mimebundle_(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        # Its view will tell that it is there; until then, also while a long cell keeps it from telling, it is awaited.
        self._model.audience.expect(self._loop.time())
        self._wake()
        data, metadata = super()._repr_mimebundle_(**options) or ({}, {})
        return {**data, "text/html": self._repr_html_()}, metadata


def joined(*names: str) -> str:
    """The files beside this one that a view is made of, as one."""
    return "\n".join((_HERE / name).read_text(encoding="utf-8") for name in names)
