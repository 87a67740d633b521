"""A progress bar for feeds that run for more than a second, and nothing at all for others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm.auto import tqdm

SILENT_SECONDS = 1.0


class Progress:
    """Events sent, of ``total``. tqdm is imported when the bar first shows."""

    def __init__(self, total: int, name: str, *, shown: bool) -> None:
        self._total, self._name, self._shown = total, name, shown
        self._begin_s, self._done = time.monotonic(), 0
        self._bar: tqdm[Any] | None = None

    def add(self, sent: int) -> None:
        """Count what was sent; shows or moves the bar."""
        self._done += sent
        if self._bar is not None:
            self._bar.update(sent)
        elif self._shown and time.monotonic() - self._begin_s > SILENT_SECONDS:
            self._bar = self._made()

    def _made(self) -> tqdm[Any]:
        from tqdm.auto import tqdm

        class Bar(tqdm):  # type: ignore[type-arg]
            """tqdm's bar without the thread that watches over all bars of a process."""

            monitor_interval = 0

        return Bar(total=self._total, initial=self._done, unit="event", unit_scale=True, desc=self._name)

    def close(self) -> None:
        """Take the bar down; harmless when repeated."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
