"""Who is looking at a widget: its views in browsers, each of which tells that it is there every few seconds.

A kernel is not told when a page is closed, crashes, or loses its network; and while a cell runs, a kernel without
sub-shells reads no message at all. So a view that is visible renews a lease: a silent audience is refreshed slowly at
first, and not at all after a minute, until it is heard again.
"""

from __future__ import annotations

FRESH_S = 6.0
"""Views renew every 2 seconds: three in a row are missing."""
SILENT_S = 60.0
TRICKLE_S = 2.0
MOST_VIEWS = 64

_EXPECTED = "(about to be displayed)"


class Audience:
    """The views of one widget. Times are seconds of any one clock, passed in."""

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}

    def expect(self, now: float) -> None:
        """The widget was displayed: a view is on its way."""
        self._heard.setdefault(_EXPECTED, now)

    def heard(self, view: str, now: float) -> bool:
        """A visible view told that it is there. Returns whether it is a new one."""
        self._heard.pop(_EXPECTED, None)
        new = self._heard.pop(view, None) is None
        self._heard[view] = now  # at the end: the first is the one that has been silent longest
        if len(self._heard) > MOST_VIEWS:
            del self._heard[next(iter(self._heard))]
        return new

    def left(self, view: str) -> None:
        """A view was removed, hidden or scrolled out of sight."""
        self._heard.pop(view, None)

    def pace_s(self, now: float) -> float | None:
        """Seconds to wait between refreshes at least: 0 while somebody looks, None when nobody does any more."""
        for view in [view for view, at in self._heard.items() if now - at > SILENT_S]:
            del self._heard[view]
        if not self._heard:
            return None
        return 0.0 if now - max(self._heard.values()) <= FRESH_S else TRICKLE_S

    def __len__(self) -> int:
        return len(self._heard)

    def __repr__(self) -> str:
        return f"Audience({len(self)} views)"
