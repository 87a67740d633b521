"""``Losses``: events that a processor should have had and that are not in the log any more."""

from __future__ import annotations

import html
from collections import deque
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from hftlab.events.ports import SessionInfo
from hftlab.events.tables import NumberRule, Source
from hftlab.pipeline.merging import Hole
from hftlab.sequence import Gap, GapReason, GapState

if TYPE_CHECKING:
    import pandas as pd

_KEPT = 10_000


class Loss(msgspec.Struct, frozen=True):
    """A range of a session's log that was gone when the processor came to it: trimmed, or deleted by somebody."""

    session: str
    number: int
    first: int
    last: int
    noticed_ns: int

    @property
    def events(self) -> int:
        """How many."""
        return self.last - self.first + 1


class Losses:
    """What was lost, the oldest first: ``events`` in all, and up to 10,000 ranges."""

    def __init__(self) -> None:
        self.events = 0
        self._kept: deque[Loss] = deque(maxlen=_KEPT)

    def add(self, session: SessionInfo, hole: Hole, now_ns: int) -> tuple[Gap, int]:
        """Keep one; returns what to tell handlers of ``hl.Gap``, and when it was."""
        self.events += hole.rows
        self._kept.append(Loss(session.name, session.number, hole.first, hole.last, now_ns))
        source = Source("hftlab", "log", session.name[:64], NumberRule.PLUS_ONE.value)
        gap = Gap(
            source, session.number, hole.first, hole.last, GapState.LOST, GapReason.GONE, opened_ns=now_ns,
            closed_ns=now_ns,
        )  # fmt: skip
        return gap, now_ns

    def to_frame(self) -> pd.DataFrame:
        """A row a range: noticed (UTC), session, first and last log sequence, events."""
        import pandas as pd

        kept = list(self._kept)
        return pd.DataFrame(
            {
                "noticed": pd.DatetimeIndex(np.array([one.noticed_ns for one in kept], "M8[ns]"), tz="UTC"),
                "session": [one.session for one in kept],
                "first": np.array([one.first for one in kept], np.int64),
                "last": np.array([one.last for one in kept], np.int64),
                "events": np.array([one.events for one in kept], np.int64),
            }
        )

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        return f"Losses({self.events:,} events in {len(self._kept):,} ranges)" if self.events else "Losses(none)"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<li>{html.escape(one.session)}: {one.first:,} … {one.last:,}</li>" for one in list(self._kept)[-20:]
        )
        return f"<div><b>{html.escape(repr(self))}</b><ul>{rows}</ul></div>"
