"""``Survey``: a recording through an order stage for its gaps' sake, with nobody to deliver to."""

from __future__ import annotations

from hftlab.events.batch import EventBatch
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.sequence.gaps import GapTable, window_full
from hftlab.sequence.ordering import Ordering
from hftlab.sequence.stage import OrderStage


class Survey:
    """Shows what an ``Ordering`` finds in batches, in memory that does not grow with them; call ``finish`` at the end.

    Time is the rows' ``received``. A source of a strict type whose window is full would wait for a decision: here its
    open gaps are given up (reason DECIDED), counted in ``given_up``, and everything goes on. Costs about as much as the
    same rows in a replay without handlers.
    """

    def __init__(
        self, ordering: Ordering, symbols: SymbolTable | None = None, sources: SourceTable | None = None
    ) -> None:
        self.rows = 0
        self.given_up = 0
        self.symbols = SymbolTable() if symbols is None else symbols
        self.sources = SourceTable() if sources is None else sources
        self._stage = OrderStage(ordering, self.symbols, self.sources)

    @property
    def gaps(self) -> GapTable:
        """The gaps found so far, and the rows that were set aside."""
        return self._stage.gaps

    def observe(self, batch: EventBatch) -> None:
        """Take the next rows, in the order of their arrival. Raises ValidationError for an unregistered rule."""
        self.rows += len(batch)
        batch = batch.using(self.symbols, self.sources)
        while (taken := self._stage.process(batch).taken) < len(batch):
            batch = batch[taken:]
            full = window_full(self.gaps, self._stage.ordering, self.sources[int(batch.records["source"][0])], taken)
            if full.gap is None:
                raise full  # the deduplicator's memory: no decision about gaps makes room there
            self.given_up += 1
            self.gaps.give_up(self.sources[int(batch.records["source"][0])])
            self._stage.advance(0)  # carries the decision out; time never falls

    def finish(self) -> None:
        """The recording is over: what is open is lost."""
        self._stage.finish()

    def __repr__(self) -> str:
        return f"Survey({self.rows:,} rows; {self.gaps!r})"
