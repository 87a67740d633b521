"""``Around``: the recorded events on either side of the gap that is selected, read when it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hftlab.replay import Replay
from hftlab.sequence import Gap
from hftlab.widgets.gap_texts import around_rows
from hftlab.widgets.shown import fault

MESSAGES = 10


class Around:
    """Reads what lies around one gap at a time; of several wanted meanwhile, the latest. All on the loop's thread.

    ``shown`` is what a view shows of it: ``{}``, or ``state`` (loading, ready, failed), and the gap's ``first`` and
    ``last`` number with ``around_rows``, or the ``fault``. ``generation`` changes whenever it does, and ``changed`` is
    called.
    """

    def __init__(self, replay: Replay, changed: Callable[[], None]) -> None:
        self.shown: dict[str, Any] = {}
        self.generation = 0
        self._replay, self._changed = replay, changed
        self._wanted: Gap | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def tasks(self) -> int:
        """How many tasks it has at the moment."""
        return int(self._task is not None)

    def want(self, gap: Gap | None) -> None:
        """Show what lies around this gap (None: nothing). Harmless when repeated; read again when its state changed."""
        if gap == self._wanted:
            return
        same = gap is not None and self._wanted is not None and _side(gap) == _side(self._wanted)
        self._wanted = gap
        if gap is None or not (gap.before or gap.after):
            self._show({})
            return
        if not same:  # else what is shown stays until the new is there: no flicker
            self._show({"state": "loading"})
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._read(), name="hftlab: events around a gap")

    def abandon(self) -> None:
        """End what is being read. Idempotent."""
        if self._task is not None:
            self._task.cancel()

    async def _read(self) -> None:
        try:
            read: Gap | None = None
            while (gap := self._wanted) is not None and gap != read and (gap.before or gap.after):
                read = gap
                try:
                    before, after = await self._replay.around(gap, messages=MESSAGES)
                    numbers = {"first": str(gap.first), "last": str(gap.last)}  # text: a page's numbers end at 2**53
                    found = {"state": "ready", **numbers, **around_rows(before, after)}
                except Exception as error:
                    found = {"state": "failed", "fault": fault(error)}
                if gap == self._wanted:
                    self._show(found)
        finally:
            self._task = None

    def _show(self, shown: dict[str, Any]) -> None:
        if shown != self.shown:
            self.shown = shown
            self.generation += 1
            self._changed()


def _side(gap: Gap) -> tuple[Any, ...]:
    return gap.source, gap.epoch, gap.first, gap.last
