"""The one throttled loop that all live widgets share.

The pattern of every live widget: an engine offers frozen ``statistics()``; pure functions turn them into texts, tables
and figures; a thin widget sends what changed. This loop decides when. It refreshes at most 10 times a second, because
a browser needs no more and the Jupyter server drops messages beyond 1,000 a second; and it measures what refreshing
costs, and stretches its period until that is 5% of the kernel's time at most.

Nothing is polled for its own sake: a view that has nothing more to show leaves the loop until somebody wakes it, and
a loop without views holds no task and no timer.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hftlab.errors import NotStarted, ValidationError

MOST_HZ = 10.0
MOST_SHARE = 0.05


class View(Protocol):
    """What the loop refreshes."""

    def refresh(self) -> float | None:
        """Show what is new, synchronously, and say when to come again.

        Returns seconds (0: as soon as the loop may), or None: not before ``wake``.
        """
        ...

    def refresh_failed(self, error: Exception) -> None:
        """``refresh`` raised: keep the error where a user sees it. The view has left the loop."""
        ...


@dataclass(frozen=True)
class RefreshStatistics:
    """What refreshing cost so far. ``share`` is of the time since the first refresh; ``period_s`` the latest one."""

    refreshes: int
    spent_s: float
    longest_s: float
    period_s: float
    share: float
    views: int


class RefreshLoop:
    """Refreshes the views that were woken, in turn, on the asyncio loop that ``wake`` is called on.

    After a turn that took ``t`` seconds the next begins ``t / most_share`` seconds after this one began: the share
    holds for any sequence of costs, not just on average. The cost is wall time, so that what other threads took from
    a refresh counts as well. ``now`` tells seconds, as ``loop.time`` does.
    """

    def __init__(
        self, *, most_hz: float = MOST_HZ, most_share: float = MOST_SHARE, now: Callable[[], float] = time.monotonic
    ) -> None:
        if not most_hz > 0 or not 0 < most_share <= 1:
            raise ValidationError(f"most_hz is above 0, and most_share above 0 up to 1; got {most_hz} and {most_share}")
        self._least_s, self._most_share, self._now = 1 / most_hz, most_share, now
        self._due: dict[View, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._earliest = 0.0
        self._began: float | None = None
        self._refreshes = 0
        self._spent_s = self._longest_s = 0.0
        self._period_s = self._least_s

    def wake(self, view: View, after_s: float = 0.0) -> None:
        """Refresh the view as soon as the loop may: at once after a pause, so that a click is answered at once.

        ``after_s`` later at the earliest: for what may be over by then. Call it on the loop's own thread. Cheap, and
        harmless while the view is due already.
        """
        at = self._now() + after_s if after_s else 0.0
        self._due[view] = min(at, self._due.get(view, at))
        self._arm()

    def forget(self, view: View) -> None:
        """Take the view out; it is not called again. Harmless when it is not in."""
        self._due.pop(view, None)
        # Needs no running loop, unlike arming: a widget may be collected anywhere. What is left finds its timer set.
        if not self._due and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def idle(self) -> bool:
        """Whether no view waits for a refresh; the loop then holds no timer."""
        return self._timer is None

    def statistics(self) -> RefreshStatistics:
        """Counts and times since the loop was made."""
        elapsed = self._now() - self._began if self._began is not None else 0.0
        return RefreshStatistics(
            refreshes=self._refreshes,
            spent_s=self._spent_s,
            longest_s=self._longest_s,
            period_s=self._period_s,
            share=self._spent_s / elapsed if elapsed > 0 else 0.0,
            views=len(self._due),
        )

    def _arm(self) -> None:
        at = max(self._earliest, min(self._due.values())) if self._due else None
        if self._timer is not None:
            if at == self._timer.when():
                return
            self._timer.cancel()
            self._timer = None
        if at is not None:
            self._timer = asyncio.get_running_loop().call_at(at, self._turn)

    def _turn(self) -> None:
        self._timer = None
        begin = self._now()
        if self._began is None:
            self._began = begin
        # Half a period early is on time: else what is due a hair later would wait for a whole turn.
        due = max(begin, self._earliest) + self._least_s / 2
        for view in [view for view, at in self._due.items() if at <= due]:
            if view in self._due:  # an earlier view of this turn may have closed it
                self._refresh(view, begin)
        spent = self._now() - begin
        self._spent_s += spent
        self._longest_s = max(self._longest_s, spent)
        self._period_s = max(self._least_s, spent / self._most_share)
        self._earliest = begin + self._period_s
        self._arm()

    def _refresh(self, view: View, begin: float) -> None:
        self._refreshes += 1
        # Out before it is called: a wake from within, or from another view, then counts.
        del self._due[view]
        try:
            again_s = view.refresh()
        except Exception as error:
            view.refresh_failed(error)
            return
        if again_s is not None:
            self._due.setdefault(view, begin + again_s)


_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, RefreshLoop] = weakref.WeakKeyDictionary()


def shared_loop() -> RefreshLoop:
    """The refresh loop of the running asyncio loop: one for all widgets, so that they share the 5%.

    Raises NotStarted where no loop runs.
    """
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        raise NotStarted(
            "a live widget needs a running loop, as every notebook has; in a script, make it inside of "
            "`async def main()`, or take the static picture: .figure()"
        ) from None
    return _loops.setdefault(running, RefreshLoop())
