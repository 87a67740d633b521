"""``ClockWatching``: what a clock panel knows and shows, without any widget."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from hftlab.clock import ClockReading
from hftlab.errors import HftlabError
from hftlab.widgets.audience import Audience
from hftlab.widgets.clock_readings import status, table
from hftlab.widgets.clock_requests import ClockAsk, parse_clock_ask
from hftlab.widgets.clock_series import WINDOWS, series
from hftlab.widgets.clock_sources import Poller, clock_of, poller_of
from hftlab.widgets.shown import fault

PACE_S = 1.0
"""A clock moves slowly: its offset by 500 µs a second at most."""
KEEPS = 3_600
"""An hour of readings, one a second, between those that the clock's history keeps; 0.5 MB."""


class ClockWatching:
    """The model of a clock panel: takes its view's messages, and gives the parts that a view shows.

    ``source``: see ``ClockPanel``. ``changed`` is called when there is something new to show before anybody asked. All
    calls on the loop's thread; ``now`` is in seconds of any one clock. A look costs about 1 ms, once a second.
    """

    def __init__(self, source: Any, changed: Callable[[], None]) -> None:
        self._source = source
        self.clock = clock_of(source)
        self.audience = Audience()
        self._changed = changed
        self._window = next(iter(WINDOWS))
        self._seen: deque[ClockReading] = deque(maxlen=KEEPS)
        self._misread: HftlabError | None = None
        self._shown: dict[str, Any] = {}

    @property
    def poller(self) -> Poller | None:
        """Who asks the servers, as it is now: a lab may be started after its panel was made."""
        return poller_of(self._source)

    def abandon(self) -> None:
        """Nothing is being done by itself."""

    # -- what a view asks for -------------------------------------------------------------------------------------

    def receive(self, content: object, now: float) -> None:
        """Take one message of a view; what is wrong with it is shown, never raised."""
        try:
            request = parse_clock_ask(content)
        except HftlabError as error:
            self._misread = error
            self._changed()
            return
        match request.ask:
            case ClockAsk.HEARD:
                # A view that comes back, or came late, has missed what was not sent meanwhile.
                if not self.audience.heard(request.value, now):
                    return
            case ClockAsk.LEFT:
                self.audience.left(request.value)
                return
            case ClockAsk.WINDOW:
                self._window = request.value
            case ClockAsk.DISMISS:
                self._misread = None
        self._changed()

    # -- what is shown --------------------------------------------------------------------------------------------

    def look(self, now: float) -> tuple[dict[str, Any], float | None]:
        """What is new to show, part by part, and the seconds until the next look; None while nobody looks."""
        looked_at = self.audience.pace_s(now)
        return ({}, None) if looked_at is None else (self._new(), max(looked_at, PACE_S))

    def everything(self) -> dict[str, Any]:
        """All parts, whoever looks: for a view that is made now."""
        self._shown = {}
        return self._new()

    def _new(self) -> dict[str, Any]:
        """Those of the parts that changed: ``status``, ``chart``, ``servers``, ``fault``; plain data, see
        ``clock_readings`` and ``clock_series``.
        """
        reading = self.clock.reading()
        self._see(reading)
        poller = self.poller
        servers = () if poller is None else poller.statistics().servers
        parts = {
            "status": status(reading, servers, asked=poller is not None),
            "chart": series(self._readings(), self._window),
            "servers": table(servers, asked=poller is not None),
            "fault": {} if self._misread is None else {**fault(self._misread), "about": "message"},
        }
        new = {name: part for name, part in parts.items() if self._shown.get(name) != part}
        self._shown.update(new)
        return new

    def _see(self, reading: ClockReading) -> None:
        # Nobody compared the clock with anything: a thousand such readings would say no more than one.
        if self._seen and self._seen[-1].bound_ns is None and reading.bound_ns is None:
            self._seen.pop()
        self._seen.append(reading)

    def _readings(self) -> list[ClockReading]:
        """What the clock kept and what was seen, in order; nothing while nobody ever compared it with UTC."""
        every = sorted([*self.clock.history.readings, *self._seen], key=lambda reading: reading.now_ns)
        return every if any(reading.bound_ns is not None for reading in every) else []
