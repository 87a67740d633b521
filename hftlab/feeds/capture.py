"""``Capture``: what a format's function is given: the lines, the tables, and where to say what can't be used."""

from __future__ import annotations

from collections.abc import Iterator

from hftlab.events import SourceTable, SymbolTable
from hftlab.feeds.files import Piece, read_pieces
from hftlab.feeds.progress import Progress
from hftlab.feeds.report import Tally


class Capture:
    """The files of one reading, in the order given.

    Every line belongs in one of three counts, by its format: ``messages`` (it became rows), ``skip`` (known, left
    out) or ``damage``. The tables are shared by all batches of the reading.
    """

    def __init__(self, files: tuple[str, ...], progress: Progress) -> None:
        self.files = files
        self.symbols = SymbolTable()
        self.sources = SourceTable()
        self.tally = Tally(files)
        self._progress = progress

    def pieces(self) -> Iterator[Piece]:
        """All lines of all files, about 1 MiB of text at a time; a piece never spans two files. Raises FeedError."""
        for file in self.files:
            yield from read_pieces(file, self.tally, self._progress.add)

    def pieces_by_file(self) -> list[Iterator[Piece]]:
        """The same, as an iterator for every file: for a format that merges them. Each holds a piece at a time."""
        return [read_pieces(file, self.tally, self._progress.add) for file in self.files]

    def messages(self, kind: str, count: int = 1) -> None:
        """Count lines that became rows, under the format's name for them."""
        if count:
            self.tally.messages[kind] += count

    def skip(self, kind: str, count: int = 1) -> None:
        """Count lines that are fine and that this format leaves out, under a name for them."""
        if count:
            self.tally.skipped[kind] += count

    def damage(self, piece: Piece, index: int, reason: str) -> None:
        """Count the line at ``index`` of a piece as unusable, and why."""
        self.tally.damage(piece.file, piece.first_line + index, reason)
