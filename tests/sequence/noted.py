"""What the model of order is given and what it writes down: messages, deliveries, notices, and gaps in pieces."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Message(NamedTuple):
    """Rows of one number, as far as order is concerned. ``rows`` are their log sequences."""

    rows: tuple[int, ...]
    source: int
    received: int
    sequence: int
    span: int = 1
    epoch: int = 0
    event_type: int = 1
    content: Hashable = 0
    cause: int = 0
    heartbeat: bool = False
    end: bool = False


class Notice(NamedTuple):
    """A change of a gap, as of then (``closed`` is 0 while it is open), and how many rows had been delivered before."""

    position: int
    kind: str
    reason: str
    source: int
    epoch: int
    first: int
    last: int
    opened: int
    closed: int
    before: int
    after: int


class Row(NamedTuple):
    """A row of the table of gaps."""

    source: int
    epoch: int
    first: int
    last: int
    state: str
    reason: str
    opened: int
    closed: int
    before: int
    after: int


class Delivery(NamedTuple):
    """A row that came out: its log sequence, when, under which number, and whether it carries AFTER_GAP."""

    row: int
    released: int
    sequence: int
    after_gap: bool


@dataclass(eq=False)
class Piece:
    """A range of missing numbers in one state."""

    gap: Gap
    first: int
    last: int
    state: str = "open"
    reason: str = "none"
    closed: int = 0


@dataclass(eq=False)
class Gap:
    """A gap as it was when it opened; its pieces are in the order of their numbers."""

    source: int
    epoch: int
    opened: int
    before: int
    after: int
    pieces: list[Piece] = field(default_factory=list)

    def rows(self) -> Iterator[Row]:
        """The pieces as rows: neighbours that were filled are one, closed when the last of them was."""
        merged: list[Piece] = []
        for piece in self.pieces:
            latest = merged[-1] if merged else None
            if latest is not None and latest.state == piece.state == "filled" and latest.last + 1 == piece.first:
                closed = max(latest.closed, piece.closed)
                merged[-1] = Piece(self, latest.first, piece.last, "filled", "none", closed)
            else:
                merged.append(piece)
        for piece in merged:
            yield Row(
                self.source,
                self.epoch,
                piece.first,
                piece.last,
                piece.state,
                piece.reason,
                self.opened,
                piece.closed,
                self.before,
                self.after,
            )
