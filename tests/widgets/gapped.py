"""Gaps made by hand, and a replay that has them: for the tests of what looks at gaps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from hftlab.bus import EventBus
from hftlab.events import EventBatch, Source, SourceTable, SymbolTable
from hftlab.replay import Replay
from hftlab.sequence import GAP, Gap, GapReason, GapState, GapTable, SetAside
from tests.widgets.recorded import START_NS, STEP_NS, MemoryLog, trades

DEPTH = Source("binance", "depth", "BTCUSDT", "range")
TRADE = Source("binance", "trade", "BTCUSDT", "plus-one")
SECOND = 1_000_000_000
COUNTED = 9
ID = 1 << 40  # event ids of session number 1


def gap(
    serial: int,
    first: int,
    last: int,
    state: GapState = GapState.LOST,
    *,
    source: int = 1,
    opened_s: float = 0.0,
    lasted_s: float = 0.1,
    before: int = 0,
    after: int = 0,
) -> npt.NDArray[np.void]:
    """A row of a GapTable's records."""
    record = np.zeros(1, GAP)
    values = {"serial": serial, "source": source, "first": first, "last": last, "state": state}
    values |= {"opened_ns": START_NS + int(opened_s * SECOND), "before": before, "after": after}
    if state is not GapState.OPEN:
        values["closed_ns"] = values["opened_ns"] + int(lasted_s * SECOND)
    if state is GapState.LOST:
        values["reason"] = GapReason.DEADLINE
    for name, value in values.items():
        record[name] = value
    return record


class Gaps:
    """A real GapTable whose records are what a test puts there."""

    def __init__(self, *records: npt.NDArray[np.void]) -> None:
        self.version = 0
        self.sources = SourceTable([DEPTH, TRADE])
        self.given_up: list[int | None] = []
        self.put(*records)

    def put(self, *records: npt.NDArray[np.void]) -> None:
        """The table has these rows now."""
        self.records = np.concatenate(records) if records else np.zeros(0, GAP)
        self.version += 1

    def fresh(self) -> GapTable:
        """A table of it, as a new run has one."""
        counts: Callable[[], npt.NDArray[np.int64]] = self.counts
        return GapTable(
            self.sources,
            lambda: self.records.copy(),
            counts,
            lambda: self.version,
            self.given_up.append,
            SetAside(SymbolTable(), self.sources),
        )

    def counts(self) -> npt.NDArray[np.int64]:
        """received and delivered, and the numbers filled and lost, by source."""
        counts = np.zeros((len(self.sources), COUNTED), np.int64)
        counts[1:, :2] = 100
        for state, column in ((GapState.FILLED, 7), (GapState.LOST, 8)):
            chosen = self.records[self.records["state"] == state]
            np.add.at(counts[:, column], chosen["source"], chosen["last"] - chosen["first"] + 1)
        return counts


class GapReplay(Replay):
    """A replay of a batch in memory whose gaps a test decides; ``asked`` is what was read around."""

    made: Gaps
    table: GapTable
    asked: list[Gap]
    failure: Exception | None

    @property
    def gaps(self) -> GapTable:
        """The gaps of its run."""
        return self.table

    async def around(self, gap: Gap, messages: int = 10) -> tuple[EventBatch, EventBatch]:
        """Rows on either side of the gap's place in the batch."""
        self.asked.append(gap)
        if self.failure is not None:
            raise self.failure
        assert isinstance(self._log, MemoryLog)
        at = (gap.after & (ID - 1)) if gap.after else len(self._log.batch)
        return self._log.batch[max(at - messages, 0) : at], self._log.batch[at : at + messages]


def gap_replay(*records: npt.NDArray[np.void], events: int = 100) -> GapReplay:
    """A replay of as many trades, with these gaps."""
    batch = trades(events)
    replay = GapReplay(MemoryLog(batch), EventBus(), "s")
    replay.made = Gaps(*records)
    replay.table = replay.made.fresh()
    replay.asked, replay.failure = [], None
    return replay


def at_event(number: int) -> dict[str, Any]:
    """The sides of a gap that the event with this number revealed, and its time of opening."""
    return {"before": ID + number - 1, "after": ID + number, "opened_s": number * STEP_NS / SECOND}
