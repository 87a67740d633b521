"""Two threads' tables: what one decodes under its own, the other hands on under its caller's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hftlab.events import EventBatch, SourceTable, SymbolTable


class TableBridge:
    """From the tables that decoding fills, in its thread, to the caller's, in the caller's thread."""

    def __init__(self, symbols: SymbolTable, sources: SourceTable) -> None:
        self.symbols = SymbolTable()
        self.sources = SourceTable()
        self._outer = symbols, sources
        self._seen = (0, 0)
        self._ids: tuple[npt.NDArray[np.uint32] | None, npt.NDArray[np.uint32] | None] = (None, None)

    def across(self, batch: EventBatch) -> EventBatch:
        """The batch under the caller's tables; its rows are changed in place where the ids differ."""
        symbols, sources = self._outer
        known = len(self.symbols), len(self.sources)
        if known != self._seen:
            self._ids = self.symbols.translation(symbols), self.sources.translation(sources)
            self._seen = known
        for field, ids in zip(("symbol", "source"), self._ids, strict=True):
            if ids is not None:
                batch.records[field] = ids[batch.records[field]]
        return EventBatch(batch.records, symbols, sources, session_number=batch.session_number)
