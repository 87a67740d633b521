"""``Playing``: what a player knows and shows, without any widget: it could as well feed a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hftlab.errors import HftlabError
from hftlab.replay import Replay, ReplayStatistics
from hftlab.widgets.audience import Audience
from hftlab.widgets.commands import Command, Do, parse_command
from hftlab.widgets.path import MOST_POINTS, chosen_symbol, encode_path
from hftlab.widgets.remote import Remote
from hftlab.widgets.shown import fault, handler_fault, latest_rows, status

ROWS = 11
STANDING_S = 0.5
"""How often a replay that stands is looked at: a cell may step it, or set its speed."""


class Playing:
    """The model of a player: takes its view's messages, and gives the parts that a view shows.

    ``changed`` is called when there is something new to show before anybody asked. All calls on the loop's thread;
    ``now`` is in seconds of any one clock.
    """

    def __init__(self, replay: Replay, changed: Callable[[], None], *, rows: int = ROWS) -> None:
        self.replay = replay
        self.audience = Audience()
        self.remote = Remote(replay, changed)
        self._changed, self._rows = changed, rows
        self._symbol = ""
        self._key: tuple[Any, ...] = ()
        self._failures_read = replay.failures.count
        self._failure_read = ""

    def receive(self, content: object, now: float) -> None:
        """Take one message of a view; what is wrong with it is shown, never raised."""
        try:
            command = parse_command(content)
        except HftlabError as error:
            self.remote.report(error, _asked(content))
            return
        self._obey(command, now)

    def _obey(self, command: Command, now: float) -> None:
        match command.do:
            case Do.HEARD:
                # A view that comes back, or came late, has missed what was not sent meanwhile.
                if self.audience.heard(str(command.value), now):
                    self._changed()
            case Do.LEFT:
                self.audience.left(str(command.value))
            case Do.SYMBOL:
                self._symbol = str(command.value)
                self._changed()
            case Do.DISMISS:
                self._failures_read = self.replay.failures.count
                self._failure_read = self.replay.statistics().failure
                self.remote.dismiss()
            case _:
                self.remote.submit(command)

    def abandon(self) -> None:
        """End what is being done; the replay stays as it is. Idempotent."""
        self.remote.abandon()

    def look(self, now: float) -> tuple[dict[str, Any], float | None]:
        """What is new to show, and the seconds until the next look.

        The parts are all there are (see ``_parts``) if anything changed since the last look, else none: 20 µs then.
        The pace is 0 (as often as may be) while it plays and somebody looks, and None when nothing can be new before
        ``changed`` is called: nobody looks, or the run is through.
        """
        looked_at = self.audience.pace_s(now)
        if looked_at is None:
            return {}, None
        shown = self.replay.statistics()
        if shown.state in ("done", "closed"):
            return self._new(shown), None
        return self._new(shown), looked_at if shown.state == "running" else max(looked_at, STANDING_S)

    def everything(self) -> dict[str, Any]:
        """All parts, whoever looks: for a view that is made now."""
        self._key = ()
        return self._new(self.replay.statistics())

    def _new(self, shown: ReplayStatistics) -> dict[str, Any]:
        read = self._failures_read, self._failure_read
        key = shown, self._symbol, self.remote.error, self.replay.failures.count, read
        if key == self._key:
            return {}
        self._key = key
        return self._parts(shown)

    def _parts(self, shown: ReplayStatistics) -> dict[str, Any]:
        """All parts: ``status``, ``events``, ``path``, ``fault``; plain data, see ``shown`` and ``path``."""
        trace = self.replay.trace
        symbols = trace.symbols
        symbol = chosen_symbol(symbols, self._symbol)
        return {
            "status": status(self.replay.session_name, shown, self.replay.failures.count - self._failures_read),
            "events": latest_rows(self.replay.latest(self._rows), self._rows),
            "path": {"symbol": symbol, "symbols": symbols, **encode_path(*trace.points(symbol, MOST_POINTS))},
            "fault": self._fault(shown.failure),
        }

    def _fault(self, failure: str) -> dict[str, str]:
        """What a user should read first: what their own command raised, a handler's failure, the replay's own."""
        if self.remote.error is not None:
            return {**fault(self.remote.error), "about": self.remote.failed or ""}
        failures = self.replay.failures
        unread = failures.count - self._failures_read
        if unread > 0:
            *_, latest = failures
            return {**handler_fault(latest.handler, latest.error, unread), "about": "handler"}
        if failure and failure != self._failure_read:
            name, _, message = failure.partition(": ")
            return {"name": name, "message": message, "traceback": "", "about": "replay"}
        return {}


def _asked(content: object) -> Do | None:
    word = content.get("do") if isinstance(content, dict) else None
    return Do(word) if isinstance(word, str) and word in set(Do) else None
