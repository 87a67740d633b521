"""``TimeChecks``: does what a ``TimePolicy`` says with impossible timestamps, batch after batch, and counts them."""

from __future__ import annotations

import html
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from hftlab.errors import ValidationError
from hftlab.events.batch import EventBatch
from hftlab.events.records import NO_SEQUENCE, RECORD, EventType, Flags, Rows, blank
from hftlab.events.rowbytes import copy_rows
from hftlab.events.time_levels import TimeLevels, TimeReason
from hftlab.events.timestamps import BEYOND_NS, TimePolicy, TimeVerdict, check_times, described

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES_LISTED = 10
"""How many impossible times are told of in words; the others are only counted."""

_SILENT = np.uint16(Flags.HEARTBEAT | Flags.ARRIVAL_TIME)


class TimeFindings(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks have found. ``impossible`` counts rows by reason (``unit``, ``ahead`` …), ``sources`` by source.

    Every one of them is in ``rejected``, ``flagged``, or kept as it was. ``silenced``: rejected messages whose number
    went on as a heartbeat. ``examples`` tells of the first ten. ``timed``: rows with a time of their source and one of
    their arrival; ``ahead`` of them are from after their arrival, on average by ``ahead_ns``.
    """

    impossible: dict[str, int] = {}
    sources: dict[str, int] = {}
    examples: tuple[str, ...] = ()
    rejected: int = 0
    flagged: int = 0
    silenced: int = 0
    timed: int = 0
    ahead: int = 0
    ahead_ns: int = 0

    @property
    def recorder(self) -> str:
        """A line about the recorder's clock, empty where no row is from after its arrival."""
        if not self.ahead:
            return ""
        if 2 * self.ahead > self.timed:
            by = f"the recorder's clock is about {_duration(self.ahead_ns)} behind"
            return f"{by}: {self.ahead:,} of {self.timed:,} rows are from after their arrival"
        noun = "row is" if self.ahead == 1 else "rows are"
        return f"{self.ahead:,} {noun} from after their arrival, on average by {_duration(self.ahead_ns)}"

    @property
    def troubles(self) -> str:
        """A line about impossible times, empty where there are none."""
        count = sum(self.impossible.values())
        if not count:
            return ""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.impossible.items())
        noun = "row has" if count == 1 else "rows have"
        done = [f"{self.rejected:,} rejected"] if self.rejected else []
        done += [f"{self.flagged:,} flagged"] if self.flagged else []
        return f"{count:,} {noun} impossible times ({reasons}; {', '.join(done) or 'kept'}), as in {self.examples[0]}"

    def table(self) -> list[tuple[str, str, int]]:
        """(what, kind, count) of all that is there to tell."""
        rows = [("impossible time", reason, count) for reason, count in self.impossible.items()]
        rows += [("impossible time of", source, count) for source, count in self.sources.items()]
        for kind in ("rejected", "flagged", "silenced"):
            if getattr(self, kind):
                rows.append(("times", kind, getattr(self, kind)))
        if self.ahead:
            rows.append(("times", "ahead of arrival", self.ahead))
        return rows

    def to_frame(self) -> pd.DataFrame:
        """All counts as a DataFrame: ``what``, ``kind``, ``count``."""
        import pandas as pd

        return pd.DataFrame(self.table(), columns=["what", "kind", "count"])

    def __repr__(self) -> str:
        return f"TimeFindings({'; '.join(filter(None, (self.troubles, self.recorder))) or 'all times are possible'})"

    def _repr_html_(self) -> str:
        listed = "".join(f"<li>{html.escape(text)}</li>" for text in self.examples)
        told = "; ".join(filter(None, (self.troubles, self.recorder))) or "all times are possible"
        return f"<div><b>Times</b>: {html.escape(told)}{f'<ul>{listed}</ul>' if listed else ''}</div>"


class TimeChecks:
    """The checks of one reading or receiver: its policy, the levels of its sources, and what was found. One thread."""

    def __init__(self, policy: TimePolicy | None) -> None:
        """``policy`` None: nothing is checked."""
        self.policy = policy
        self._levels = levels_for(policy or TimePolicy())
        self._impossible: Counter[TimeReason] = Counter()
        self._sources: Counter[str] = Counter()
        self._examples: list[str] = []
        self._rejected = self._flagged = self._silenced = 0
        self._timed = self._ahead = 0
        self._ahead_sum_ns = 0.0

    def apply(self, batch: EventBatch, *, now_ns: int | None = None) -> EventBatch:
        """The batch without what the policy rejects; what it flags is flagged in place. See ``check_times``.

        All batches are under the same source table (it may grow). Where a whole numbered message of market data is
        rejected, its last row goes on as a HEARTBEAT with the arrival as its time, and where some of its rows are, the
        others are counted anew, so that a sequencer misses neither a number nor a part. Rejected events of other types
        leave a gap. Raises ValidationError, with the first example, where the policy says so. ``check_times``' cost.
        """
        if self.policy is None or not len(batch):
            return batch
        verdict = check_times(batch.records, self.policy, self._levels, now_ns=now_ns)
        self._timed += verdict.timed
        self._ahead += verdict.ahead
        self._ahead_sum_ns += verdict.ahead_sum_ns
        return batch if verdict.reasons is None else self._dealt_with(batch, verdict, self.policy)

    def findings(self) -> TimeFindings:
        """What has been found so far, frozen."""
        return TimeFindings(
            impossible={reason.name.lower(): count for reason, count in sorted(self._impossible.items())},
            sources=dict(self._sources),
            examples=tuple(self._examples),
            rejected=self._rejected,
            flagged=self._flagged,
            silenced=self._silenced,
            timed=self._timed,
            ahead=self._ahead,
            ahead_ns=round(self._ahead_sum_ns / self._ahead) if self._ahead else 0,
        )

    def _dealt_with(self, batch: EventBatch, verdict: TimeVerdict, policy: TimePolicy) -> EventBatch:
        reasons = verdict.reasons
        assert reasons is not None
        counts = np.bincount(reasons, minlength=len(TimeReason) + 1).tolist()
        found = [reason for reason in TimeReason if counts[reason]]
        actions = {reason: policy.action_for(reason) for reason in found}
        first = {reason: int(np.argmax(reasons == reason)) for reason in found}
        raising = [first[reason] for reason in found if actions[reason] == "raise"]
        if raising:
            row = min(raising)
            raise ValidationError(f"row {row}: {self._words(batch, row, TimeReason(int(reasons[row])), policy)}")
        self._impossible.update({reason: counts[reason] for reason in found})
        self._count_sources(batch, reasons)
        for row in np.flatnonzero(reasons)[: EXAMPLES_LISTED - len(self._examples)].tolist():
            self._examples.append(self._words(batch, row, TimeReason(int(reasons[row])), policy))
        flagged = np.isin(reasons, [reason for reason in found if actions[reason] == "flag"])
        batch.records["flags"][flagged] |= np.uint16(Flags.IMPOSSIBLE_TIME)
        self._flagged += int(np.count_nonzero(flagged))
        rejected = np.isin(reasons, [reason for reason in found if actions[reason] == "reject"])
        if not rejected.any():
            return batch
        self._rejected += int(np.count_nonzero(rejected))
        return self._without(batch, rejected, policy)

    def _words(self, batch: EventBatch, row: int, reason: TimeReason, policy: TimePolicy) -> str:
        record = batch.records[row]
        told = described(reason, int(record["timestamp"]), int(record["received"]), policy)
        return f"{told} ({_source_text(batch, int(record['source']))}, {_symbol_text(batch, int(record['symbol']))})"

    def _count_sources(self, batch: EventBatch, reasons: npt.NDArray[np.uint8]) -> None:
        ids, counts = np.unique(batch.records["source"][reasons != 0], return_counts=True)
        for source, count in zip(ids.tolist(), counts.tolist(), strict=True):
            self._sources[_source_text(batch, source)] += count

    def _without(self, batch: EventBatch, rejected: npt.NDArray[np.bool_], policy: TimePolicy) -> EventBatch:
        rows = batch.records
        numbered = rejected & (rows["sequence"] != NO_SEQUENCE) & (rows["type"] == EventType.MARKET_DATA)
        if not numbered.any():
            return batch.where(~rejected)
        rows, keep = copy_rows(rows), ~rejected
        last = (rows["flags"] & np.uint16(Flags.LAST_PART)) != 0
        ends = np.flatnonzero(last)
        for end in np.unique(np.searchsorted(ends, np.flatnonzero(numbered))).tolist():
            # The rows of one message stand together; the last one may be in the next batch.
            begin = int(ends[end - 1]) + 1 if end else 0
            stop = int(ends[end]) + 1 if end < len(ends) else len(rows)
            self._mend(rows, keep, begin, stop, policy)
        return EventBatch(rows, batch.symbols, batch.sources, session_number=batch.session_number).where(keep)

    def _mend(self, rows: Rows, keep: npt.NDArray[np.bool_], begin: int, stop: int, policy: TimePolicy) -> None:
        """One message, some of whose rows are rejected: number its parts anew, or leave a heartbeat of it."""
        first_part = int(rows["part"][begin])
        left = np.flatnonzero(keep[begin:stop]) + begin
        if not len(left) and policy.earliest_ns <= int(rows["received"][stop - 1]) < BEYOND_NS:
            _silence(rows, stop - 1)
            keep[stop - 1] = True
            self._silenced += 1
            left = np.array([stop - 1])
        if len(left):
            rows["part"][left] = first_part + np.arange(len(left))
            ended = rows["flags"][stop - 1] & np.uint16(Flags.LAST_PART)
            rows["flags"][left[-1]] |= ended


def levels_for(policy: TimePolicy) -> TimeLevels:
    """Fresh levels with the policy's limits."""
    return TimeLevels(round(policy.ahead_s * 1e9), round(policy.backwards_s * 1e9), policy.settle_rows)


def _silence(rows: Rows, row: int) -> None:
    """Make a row of market data the heartbeat of its message: its number and its arrival, nothing else."""
    before = rows[row].copy()
    empty = blank(1, EventType.MARKET_DATA)
    for field in ("received", "sequence", "log_sequence", "symbol", "span", "part", "epoch", "source", "clock"):
        empty[field] = before[field]
    empty["timestamp"] = before["received"]
    empty["flags"] = (before["flags"] & np.uint16(Flags.LAST_PART)) | _SILENT
    # As RECORD where rows of several types stand side by side; both have the same 128 bytes.
    rows[row] = empty.view(RECORD)[0] if rows.dtype == RECORD else empty[0]


def _source_text(batch: EventBatch, source: int) -> str:
    return batch.sources[source].text if source < len(batch.sources) else f"source {source}"


def _symbol_text(batch: EventBatch, symbol: int) -> str:
    return batch.symbols[symbol] if symbol < len(batch.symbols) else f"symbol {symbol}"


def _duration(duration_ns: int) -> str:
    for factor, unit in ((86_400 * 10**9, "days"), (3_600 * 10**9, "h"), (10**9, "s"), (10**6, "ms"), (10**3, "us")):
        if duration_ns >= factor:
            value = duration_ns / factor
            return f"{value:,.0f} {unit}" if value >= 1_000 else f"{value:.3g} {unit}"
    return f"{duration_ns} ns"
