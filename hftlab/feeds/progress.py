"""A progress bar for readings that take longer than a second, and nothing at all for those that don't."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

SILENT_SECONDS = 1.0


class Progress:
    """Bytes read of all files. tqdm is imported when the bar first shows: it starts a thread of its own then."""

    def __init__(self, files: Iterable[str], *, shown: bool) -> None:
        self._total = sum(os.path.getsize(file) for file in files)
        self._done = 0
        self._start = time.monotonic()
        self._shown = shown
        self._bar: Any = None

    def add(self, count_bytes: int) -> None:
        """Count bytes that were read; shows or moves the bar."""
        self._done += count_bytes
        if self._bar is not None:
            self._bar.update(count_bytes)
        elif self._shown and time.monotonic() - self._start > SILENT_SECONDS:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=self._total, initial=self._done, unit="B", unit_scale=True, desc="reading")

    def close(self) -> None:
        """Take the bar down; harmless to repeat."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
