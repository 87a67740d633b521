"""``SetAside``: the rows that were never delivered because of their numbers, with the reason, the latest ones kept."""

from __future__ import annotations

import enum
import html
from collections import deque
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hftlab.events.batch import EventBatch
from hftlab.events.records import RECORD, Rows
from hftlab.events.rowbytes import concat_rows
from hftlab.events.tables import SourceTable, SymbolTable

if TYPE_CHECKING:
    import pandas as pd

KEPT_ROWS = 1_024


class AsideReason(enum.IntEnum):
    """Why a row was set aside."""

    LATE = 1
    """Its number had been declared lost, belongs to an earlier epoch, or (a shared counter) lies behind."""
    CONFLICT = 2
    """Its number came before with another content, or lies behind the declared end."""
    ORPHANED = 3
    """Its cause was set aside."""


class SetAside:
    """The latest 1,024 rows that were set aside, the oldest first; ``count`` counts all there ever were."""

    def __init__(self, symbols: SymbolTable, sources: SourceTable) -> None:
        self.count = 0
        self._symbols, self._sources = symbols, sources
        self._kept: deque[tuple[Rows, npt.NDArray[np.int64], int]] = deque()
        self._rows = 0

    def add(self, rows: Rows, reasons: npt.NDArray[np.int64], session_number: int) -> None:
        """Take rows under RECORD, and the AsideReason of each. They are kept, not copied."""
        if not len(rows):
            return
        self.count += len(rows)
        self._kept.append((rows, reasons, session_number))
        self._rows += len(rows)
        while self._rows - len(self._kept[0][0]) >= KEPT_ROWS:
            self._rows -= len(self._kept.popleft()[0])

    @property
    def records(self) -> Rows:
        """The rows kept, under RECORD: a copy."""
        return concat_rows([rows for rows, _, _ in self._kept], RECORD)[-KEPT_ROWS:] if self._kept else _NONE

    @property
    def reasons(self) -> npt.NDArray[np.int64]:
        """The AsideReason of each row of ``records``."""
        kept = [reasons for _, reasons, _ in self._kept]
        return np.concatenate(kept)[-KEPT_ROWS:] if kept else np.zeros(0, np.int64)

    @property
    def batch(self) -> EventBatch:
        """The rows kept, as a batch."""
        numbers = {number for _, _, number in self._kept}
        session_number = numbers.pop() if len(numbers) == 1 else 0
        return EventBatch(self.records, self._symbols, self._sources, session_number=session_number)

    def to_frame(self) -> pd.DataFrame:
        """The rows kept, a row each, with their ``reason`` first."""
        frame = self.batch.to_frame()
        frame.insert(0, "reason", [AsideReason(reason).name.lower() for reason in self.reasons.tolist()])
        return frame

    def __len__(self) -> int:
        return min(self._rows, KEPT_ROWS)

    def _counted(self) -> str:
        found = np.bincount(self.reasons, minlength=len(AsideReason) + 1)
        return ", ".join(f"{found[reason]:,} {reason.name.lower()}" for reason in AsideReason if found[reason])

    def __repr__(self) -> str:
        kept = f"; the latest {len(self):,}: {self._counted()}" if len(self) else ""
        return f"SetAside({self.count:,} rows{kept})"

    def _repr_html_(self) -> str:
        frame = self.to_frame().to_html(max_rows=10) if len(self) else ""
        return f"<div><b>{html.escape(repr(self))}</b>{frame}</div>"


_NONE: Rows = np.zeros(0, RECORD)
