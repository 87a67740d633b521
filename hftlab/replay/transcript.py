"""What a run delivered: the digest of all rows, their counts, the path of prices, and the latest rows."""

from __future__ import annotations

import numpy as np

from hftlab.events.batch import EventBatch
from hftlab.events.digest import RowDigest
from hftlab.events.records import RECORD, EventType, Rows
from hftlab.events.rowbytes import PLAIN, concat_rows, copy_rows
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.replay.trace import PriceTrace

LATEST_ROWS = 100
_STAGED_ROWS = 4_096


class Transcript:
    """Observes a run's rows in the order of their dispatch. About 40 ns a row: a copy, and its share of what follows.

    Rows are staged and looked at 4,096 at a time, or when somebody asks, so that a run whose handlers emit a lot (and
    whose rows come one by one) costs no more.
    """

    def __init__(self, symbols: SymbolTable, sources: SourceTable, session_number: int) -> None:
        self._symbols, self._sources, self._session_number = symbols, sources, session_number
        self._digest = RowDigest()
        self._trace = PriceTrace(symbols)
        self._staged = np.empty(_STAGED_ROWS, PLAIN)
        self._count = 0
        self._kept: list[Rows] | None = None
        self._latest: Rows = np.zeros(0, RECORD)
        self._counts = dict.fromkeys(EventType, 0)

    def observe(self, rows: Rows) -> None:
        """Take rows, of one type or several."""
        plain = rows.view(PLAIN)
        begin = 0
        while begin < len(plain):
            taken = min(len(plain) - begin, _STAGED_ROWS - self._count)
            self._staged[self._count : self._count + taken] = plain[begin : begin + taken]
            self._count += taken
            begin += taken
            if self._count == _STAGED_ROWS:
                self._take_in()
        if self._kept is not None:
            self._kept.append(copy_rows(rows))

    def _take_in(self) -> None:
        if not self._count:
            return
        rows = self._staged[: self._count].view(RECORD)
        self._digest.update(EventBatch(rows, self._symbols, self._sources))
        self._trace.observe(rows)
        for event_type, count in enumerate(np.bincount(rows["type"]).tolist()):
            if count:
                self._counts[EventType(event_type)] += count
        self._latest = concat_rows([self._latest, rows[-LATEST_ROWS:]], RECORD)[-LATEST_ROWS:]
        self._count = 0

    @property
    def digest(self) -> str:
        """XXH3-128 of all rows so far, as 32 hexadecimal digits."""
        self._take_in()
        return self._digest.hexdigest()

    @property
    def counts(self) -> dict[EventType, int]:
        """How many rows of each type, recorded and emitted."""
        self._take_in()
        return self._counts

    @property
    def trace(self) -> PriceTrace:
        """The path of prices."""
        self._take_in()
        return self._trace

    def latest(self, count: int) -> EventBatch:
        """The latest ``count`` rows (at most 100), recorded and emitted, the newest last."""
        self._take_in()
        return self._batch([self._latest[len(self._latest) - min(count, len(self._latest)) :]])

    def keep(self) -> None:
        """Keep copies of the rows from now on, until ``take``."""
        self._kept = []

    def take(self) -> EventBatch:
        """The rows kept since ``keep``, recorded and emitted, in the order of their dispatch."""
        kept, self._kept = self._kept or [], None
        return self._batch(kept)

    def _batch(self, pieces: list[Rows]) -> EventBatch:
        rows = concat_rows(pieces, RECORD) if pieces else np.zeros(0, RECORD)
        batch = EventBatch(rows, self._symbols, self._sources, session_number=self._session_number)
        types = np.unique(rows["type"])
        return batch.only(EventType(int(types[0]))) if len(types) == 1 else batch
