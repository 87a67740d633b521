"""What the sequencer tells about itself: what became of everything that it received."""

from __future__ import annotations

from dataclasses import dataclass

from hftlab.sequence import layout as at
from hftlab.sequence.gaps import COUNTED
from hftlab.sequence.tables import Tables


@dataclass(frozen=True)
class OrderStatistics:
    """Messages: received = delivered + duplicate + late + conflicting + orphaned + buffered, at every moment.

    ``lost`` and ``filled`` count numbers. ``…_rows`` are the same in rows; ``held_rows`` is what is in the store now.
    ``cycles``: causes that went in a circle; ``orphans``: events whose cause was set aside. ``open_gaps`` is now,
    ``gaps`` all there ever were, ``forgotten_gaps`` those that the table no longer has.
    """

    received: int
    delivered: int
    duplicate: int
    late: int
    conflicting: int
    orphaned: int
    buffered: int
    filled: int
    lost: int
    delivered_rows: int
    duplicate_rows: int
    late_rows: int
    conflicting_rows: int
    orphaned_rows: int
    held_rows: int
    cycles: int
    orphans: int
    gaps: int
    open_gaps: int
    forgotten_gaps: int

    @classmethod
    def of(cls, tables: Tables, forgotten_gaps: int) -> OrderStatistics:
        """From a sequencer's tables. About 20 µs, and 1 ns a gap."""
        control, gaps = tables.facts, tables.used_gaps
        return cls(
            **dict(zip(COUNTED, tables.counts.sum(axis=0).tolist(), strict=True)),
            delivered_rows=control[at.DELIVERED_ROWS],
            duplicate_rows=control[at.DUPLICATE_ROWS],
            late_rows=control[at.LATE_ROWS],
            conflicting_rows=control[at.CONFLICT_ROWS],
            orphaned_rows=control[at.ORPHANED_ROWS],
            held_rows=control[at.HELD_ROWS],
            cycles=control[at.CYCLES],
            orphans=control[at.ORPHANS],
            gaps=control[at.SERIAL],
            open_gaps=int(((gaps[:, at.G_SERIAL] >= 0) & (gaps[:, at.G_STATE] == at.IS_OPEN)).sum()),
            forgotten_gaps=forgotten_gaps,
        )

    def __str__(self) -> str:
        parts = [f"{self.received:,} messages"]
        for name in ("duplicate", "late", "conflicting", "orphaned", "buffered"):
            if getattr(self, name):
                parts.append(f"{getattr(self, name):,} {name}")
        return ", ".join(parts)
