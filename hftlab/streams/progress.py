"""A progress bar for appends, once they take more than a second. tqdm is not even imported before."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

_PATIENCE_S = 1.0


class AppendProgress:
    """A context in which ``at(rows)`` says how far an append is."""

    def __init__(self, total: int, session: str, *, shown: bool) -> None:
        self._total = total
        self._session = session
        self._begin_s = time.monotonic() if shown else float("inf")
        self._bar: Any = None

    def at(self, rows: int) -> None:
        """Note that ``rows`` of the total are there."""
        if self._bar is None:
            if time.monotonic() - self._begin_s < _PATIENCE_S or rows >= self._total:
                return
            from tqdm.auto import tqdm

            self._bar = tqdm(total=self._total, desc=f"append to {self._session}", unit="event", unit_scale=True)
        self._bar.update(rows - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
