"""``FeedBatch``: the rows of a capture, with the report of how they were read."""

from __future__ import annotations

from hftlab.events import EventBatch, SourceTable, SymbolTable
from hftlab.events.records import Rows
from hftlab.feeds.report import FeedReport


class FeedBatch(EventBatch):
    """An ``EventBatch`` with a ``.report``; damaged lines show in its repr.

    Slices, filters and concatenations of it are plain EventBatches or carry an empty report: the report is of the
    reading, not of the rows.
    """

    __slots__ = ("report",)

    def __init__(
        self,
        records: Rows,
        symbols: SymbolTable | None = None,
        sources: SourceTable | None = None,
        *,
        session_number: int = 0,
        report: FeedReport | None = None,
    ) -> None:
        super().__init__(records, symbols, sources, session_number=session_number)
        self.report = FeedReport() if report is None else report

    def __repr__(self) -> str:
        rows = super().__repr__().removeprefix("EventBatch(").removesuffix(")")
        troubles = self.report.troubles
        return f"FeedBatch({rows}{'; ' if troubles else ''}{troubles})"

    def _repr_html_(self) -> str:
        rows = EventBatch(self.records, self.symbols, self.sources, session_number=self.session_number)
        return f"<div>{rows._repr_html_()}{self.report._repr_html_()}</div>"
