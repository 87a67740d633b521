"""What a run delivered: the digest of all rows, their counts, and the latest of them."""

from __future__ import annotations

import numpy as np

from hftlab.events.batch import EventBatch
from hftlab.events.digest import RowDigest
from hftlab.events.records import RECORD, EventType, Flags, Rows
from hftlab.events.rowbytes import PLAIN, concat_rows, copy_rows
from hftlab.events.tables import SourceTable, SymbolTable

_STAGED_ROWS = 4_096


class Transcript:
    """Observes a run's rows in the order of their dispatch. About 35 ns a row: a copy, and its share of the hash."""

    def __init__(self, symbols: SymbolTable, sources: SourceTable, session_number: int) -> None:
        self._symbols, self._sources, self._session_number = symbols, sources, session_number
        self._digest = RowDigest()
        # Rows are staged, so that a hash over few rows at a time (a replay that emits a lot) costs no more.
        self._staged = np.empty(_STAGED_ROWS, PLAIN)
        self._count = 0
        self._kept: list[Rows] | None = None
        self.counts = dict.fromkeys(EventType, 0)

    def observe(self, rows: Rows) -> None:
        """Take rows of one type."""
        self.counts[EventType(int(rows["type"][0]))] += len(rows)
        begin = 0
        while begin < len(rows):
            taken = min(len(rows) - begin, _STAGED_ROWS - self._count)
            self._staged[self._count : self._count + taken] = rows[begin : begin + taken].view(PLAIN)
            self._count += taken
            begin += taken
            if self._count == _STAGED_ROWS:
                self._hash()
        if self._kept is not None:
            self._kept.append(copy_rows(rows))

    def _hash(self) -> None:
        self._digest.update(EventBatch(self._staged[: self._count].view(RECORD), self._symbols, self._sources))
        self._count = 0

    @property
    def digest(self) -> str:
        """XXH3-128 of all rows so far, as 32 hexadecimal digits."""
        self._hash()
        return self._digest.hexdigest()

    def keep(self) -> None:
        """Keep copies of the rows from now on, until ``take``."""
        self._kept = []

    def take(self) -> EventBatch:
        """The rows kept since ``keep``, recorded and emitted, in the order of their dispatch."""
        kept, self._kept = self._kept or [], None
        rows = concat_rows(kept, RECORD) if kept else np.zeros(0, RECORD)
        types = np.unique(rows["type"])
        if len(types) == 1:
            batch = EventBatch(rows, self._symbols, self._sources, session_number=self._session_number)
            return batch.only(EventType(int(types[0])))
        return EventBatch(rows, self._symbols, self._sources, session_number=self._session_number)


def emitted(batch: EventBatch) -> int:
    """How many of a batch's rows were emitted by handlers."""
    return int(np.count_nonzero(batch.records["flags"] & Flags.EMITTED))
