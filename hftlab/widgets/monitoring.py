"""``Monitoring``: what a bus monitor knows and shows, without any widget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hftlab.errors import HftlabError
from hftlab.widgets.audience import Audience
from hftlab.widgets.bus_history import BusHistory, title_of
from hftlab.widgets.bus_rates import RecentStatistics
from hftlab.widgets.bus_readings import books, handlers, lanes, latest_errors, status
from hftlab.widgets.bus_strip import BUCKET_NS, WINDOW_NS, strip
from hftlab.widgets.monitor_requests import Look, parse_look
from hftlab.widgets.playing import STANDING_S
from hftlab.widgets.shown import fault


class Monitoring:
    """The model of a monitor: takes its view's messages, and gives the parts that a view shows.

    ``changed`` is called when there is something new to show before anybody asked. All calls on the loop's thread;
    ``now`` is in seconds of any one clock. A look costs about 1 ms, of which most is the bus's statistics.
    """

    def __init__(self, history: BusHistory, changed: Callable[[], None]) -> None:
        self.history = history
        self.audience = Audience()
        self._changed = changed
        self._recent = RecentStatistics()
        self._order = "called"
        self._misread: HftlabError | None = None
        self._errors: tuple[int, dict[str, str]] = (0, {})
        self._shown: dict[str, Any] = {}
        self._bucket = -1
        self._strip: dict[str, Any] = {}

    def abandon(self) -> None:
        """Take no more samples by itself. Idempotent."""
        self.history.stop()

    # -- what a view asks for -------------------------------------------------------------------------------------

    def receive(self, content: object, now: float) -> None:
        """Take one message of a view; what is wrong with it is shown, never raised."""
        try:
            request = parse_look(content)
        except HftlabError as error:
            self._misread = error
            self._changed()
            return
        match request.look:
            case Look.HEARD:
                # A view that comes back, or came late, has missed what was not sent meanwhile.
                if not self.audience.heard(request.value, now):
                    return
            case Look.LEFT:
                self.audience.left(request.value)
                return
            case Look.ORDER:
                # The same head again: back to the order in which they are called.
                self._order = "called" if request.value == self._order else request.value
            case Look.DISMISS:
                self._misread = None
        self._changed()

    # -- what is shown --------------------------------------------------------------------------------------------

    def look(self, now: float) -> tuple[dict[str, Any], float | None]:
        """What is new to show, part by part, and the seconds until the next look; None while nobody looks.

        A bus that stands is looked at twice a second.
        """
        looked_at = self.audience.pace_s(now)
        if looked_at is None:
            return {}, None
        parts = self._new()
        # The strip alone moves on for a minute after a burst.
        return parts, looked_at if parts.keys() - {"strip"} else max(looked_at, STANDING_S)

    def everything(self) -> dict[str, Any]:
        """All parts, whoever looks: for a view that is made now."""
        self._shown, self._bucket = {}, -1
        return self._new()

    def _new(self) -> dict[str, Any]:
        """Those of the parts that changed: ``status``, ``lanes``, ``strip``, ``books``, ``handlers``, ``fault``; plain
        data, see ``bus_readings`` and ``bus_strip``.
        """
        history, bus = self.history, self.history.bus
        now_ns, told = history.read()
        self._recent.add(now_ns, told)
        rates = self._recent.rates()
        samples = history.samples(now_ns - WINDOW_NS)
        peaks = dict(zip(samples.lanes, samples.waiting.max(axis=0).tolist(), strict=True))
        if now_ns // BUCKET_NS != self._bucket:  # it ends with a full bucket: nothing is new in it before the next
            self._bucket, self._strip = now_ns // BUCKET_NS, strip(samples, now_ns)
        flow = bus.flow
        marks = (flow.watermarks.high, flow.watermarks.low)
        parts = {
            "status": status(told, rates, title_of(bus), has_breaker=flow.breaker is not None),
            "lanes": lanes(told, rates, peaks, marks),
            "strip": self._strip,
            "books": books(told),
            "handlers": handlers(told, rates, self._order, flow.watchdog_s, self._latest_errors()),
            "fault": {} if self._misread is None else {**fault(self._misread), "about": "message"},
        }
        new = {name: part for name, part in parts.items() if not _same(self._shown.get(name), part)}
        self._shown.update(new)
        return new

    def _latest_errors(self) -> dict[str, str]:
        failures = self.history.bus.failures
        if failures.count != self._errors[0]:
            self._errors = failures.count, latest_errors(failures)
        return self._errors[1]


def _same(before: Any, part: Any) -> bool:
    # A minute in which nothing was slides by unseen, also where its beginning was not sampled.
    if isinstance(part, dict) and part.get("quiet") and before and before["quiet"]:
        return True
    return bool(before == part)
