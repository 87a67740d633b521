"""``FaultTruth``: what was done to a batch, fault by fault, to hold against what a sequencer says of it."""

from __future__ import annotations

import enum
import html
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from hftlab.events import EventBatch, NumberRule, SourceTable, SymbolTable
from hftlab.events.records import Rows
from hftlab.sim.rates import Faults

if TYPE_CHECKING:
    import pandas as pd

Ranges = dict[tuple[str, int], list[tuple[int, int]]]
"""Ranges of numbers, first and last included, by (``Source.text``, epoch); rising, and no two of them touch."""


class Fault(enum.IntEnum):
    """What can happen to messages. ``label`` is its name in tables and counts."""

    LOSS = 0
    LOSS_BURST = 1
    TAIL_LOSS = 2
    DUPLICATE = 3
    CONFLICT = 4
    DISORDER = 5
    LATE_BURST = 6
    RESET = 7
    CLOCK_STEP = 8

    @property
    def label(self) -> str:
        """The name with spaces: ``loss burst``."""
        return self.name.lower().replace("_", " ")


LOSSES = (Fault.LOSS, Fault.LOSS_BURST, Fault.TAIL_LOSS)
REPEATS = (Fault.DUPLICATE, Fault.CONFLICT)
_UNPROVABLE = (NumberRule.NONE.value, NumberRule.SHARED.value)

TRUTH: np.dtype[Any] = np.dtype(
    [
        ("kind", "u1"),
        ("source", "<i8"),
        ("symbol", "<i8"),
        ("epoch", "<i8"),
        ("first", "<i8"),
        ("last", "<i8"),
        ("messages", "<i8"),
        ("rows", "<i8"),
        ("position", "<i8"),
        ("received", "<i8"),
        ("amount", "<i8"),
    ]
)
"""One fault; the columns are those of ``FaultTruth.to_frame``, with ids for names and ``amount`` for ``detail``."""


class FaultTruth(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """One row a fault in ``records`` (dtype ``TRUTH``), in the order in which they lie along the faulty batch.

    ``messages_out`` is ``messages_in - messages_lost + messages_repeated``: no fault is made that is not listed.
    ``asked`` and ``seed`` make the same faults again.
    """

    records: Rows
    symbols: SymbolTable
    sources: SourceTable
    asked: Faults
    seed: int
    messages_in: int
    messages_out: int
    rows_in: int
    rows_out: int

    @property
    def counts(self) -> dict[str, int]:
        """Messages by kind of fault, all kinds; resets and clock steps count once each."""
        totals = np.zeros(len(Fault), np.int64)
        np.add.at(totals, self.records["kind"], self.records["messages"])
        return {kind.label: int(totals[kind]) for kind in Fault}

    @property
    def messages_lost(self) -> int:
        """Messages that never arrive: single ones, bursts, and tails."""
        return sum(self.counts[kind.label] for kind in LOSSES)

    @property
    def messages_repeated(self) -> int:
        """Messages that arrive once more: duplicates and conflicts."""
        return sum(self.counts[kind.label] for kind in REPEATS)

    @property
    def lost(self) -> Ranges:
        """The numbers that a perfect sequencer reports as lost, no more and no less, by (``Source.text``, epoch).

        Beside them it finds the gaps that the batch had before. A late burst is not in here: whether its numbers are
        given up before it comes is the sequencer's deadline's to say.
        """
        return self._ranges(self._provable & np.isin(self.records["kind"], (Fault.LOSS, Fault.LOSS_BURST)))

    @property
    def lost_unseen(self) -> Ranges:
        """The lost numbers that nothing in the batch gives away: tails, and sources whose numbers jump or mean nothing.

        A sequencer can report tails when it is told where the source ended (a heartbeat, a declared end), and never
        what is missing under the rules SHARED and NONE.
        """
        unseen = (self.records["kind"] == Fault.TAIL_LOSS) | ~self._provable
        return self._ranges(unseen & np.isin(self.records["kind"], LOSSES))

    @property
    def _provable(self) -> npt.NDArray[np.bool_]:
        named = np.array([source.rule not in _UNPROVABLE for source in self.sources], np.bool_)
        provable: npt.NDArray[np.bool_] = named[self.records["source"]]
        return provable

    def _ranges(self, which: npt.NDArray[np.bool_]) -> Ranges:
        """The numbers of these faults, touching ranges as one."""
        found: Ranges = {}
        columns = [self.records[name][which].tolist() for name in ("source", "epoch", "first", "last")]
        for source, epoch, first, last in sorted(zip(*columns, strict=True)):
            ranges = found.setdefault((self.sources[source].text, epoch), [])
            if ranges and first <= ranges[-1][1] + 1:
                first, last = ranges[-1][0], max(last, ranges.pop()[1])
            ranges.append((first, last))
        return found

    def __len__(self) -> int:
        return len(self.records)

    def to_frame(self) -> pd.DataFrame:
        """A DataFrame, a row a fault, about 5 µs each.

        ``kind``; ``source`` (its text), ``symbol`` (of the first row), ``epoch``; the numbers from ``first`` to
        ``last``; how many ``messages`` and ``rows``; ``position``, the row of the faulty batch where it begins (-1 for
        what never arrives); ``received``, the arrival there, UTC (for what is lost: when it would have come); and, in
        words, the ``detail``. A clock step has no source, symbol, epoch or numbers: these are ``""`` and -1.
        """
        import pandas as pd

        columns: dict[str, Any] = {"kind": [Fault(kind).label for kind in self.records["kind"].tolist()]}
        is_step = self.records["kind"] == Fault.CLOCK_STEP
        for name, table in (("source", [s.text for s in self.sources]), ("symbol", list(self.symbols))):
            ids = zip(self.records[name].tolist(), is_step.tolist(), strict=True)
            columns[name] = ["" if step else table[index] for index, step in ids]
        for name in ("epoch", "first", "last", "messages", "rows", "position"):
            columns[name] = self.records[name].copy()
        columns["received"] = pd.to_datetime(self.records["received"].copy(), unit="ns", utc=True)
        listed = zip(self.records["kind"].tolist(), self.records["amount"].tolist(), strict=True)
        columns["detail"] = [_detail(Fault(kind), amount) for kind, amount in listed]
        return pd.DataFrame(columns)

    def __repr__(self) -> str:
        return f"FaultTruth({self.summary}; {self.messages_in:,} messages in, {self.messages_out:,} out)"

    @property
    def summary(self) -> str:
        """The kinds of faults that there are, and how many messages each took: ``3 loss, 1 reset``."""
        return ", ".join(f"{count:,} {kind}" for kind, count in self.counts.items() if count) or "no faults"

    def _repr_html_(self) -> str:
        faults = np.bincount(self.records["kind"], minlength=len(Fault)).tolist()
        lines = "".join(
            f"<tr><td>{html.escape(kind)}</td><td>{number:,}</td><td>{count:,}</td></tr>"
            for number, (kind, count) in zip(faults, self.counts.items(), strict=True)
            if number
        )
        head = f"<b>FaultTruth</b> {self.messages_in:,} messages in, {self.messages_out:,} out, seed {self.seed}"
        table = f"<table><tr><th>fault</th><th>faults</th><th>messages</th></tr>{lines}</table>" if lines else ""
        return f"<div>{head}{table or ': no faults'}</div>"


class FaultyBatch(EventBatch):
    """An ``EventBatch`` with the ``.truth`` of what is wrong with it.

    Slices, filters and concatenations of it are plain EventBatches, or say that nothing was done: the truth is of the
    whole, and its positions count the rows of the whole.
    """

    __slots__ = ("truth",)

    def __init__(
        self,
        records: Rows,
        symbols: SymbolTable | None = None,
        sources: SourceTable | None = None,
        *,
        session_number: int = 0,
        truth: FaultTruth | None = None,
    ) -> None:
        super().__init__(records, symbols, sources, session_number=session_number)
        if truth is None:
            truth = FaultTruth(
                records=np.zeros(0, TRUTH),
                symbols=self.symbols,
                sources=self.sources,
                asked=Faults(),
                seed=0,
                messages_in=0,
                messages_out=0,
                rows_in=len(records),
                rows_out=len(records),
            )
        self.truth = truth

    def __repr__(self) -> str:
        rows = super().__repr__().removeprefix("EventBatch(").removesuffix(")")
        return f"FaultyBatch({rows}; {self.truth.summary})"

    def _repr_html_(self) -> str:
        rows = EventBatch(self.records, self.symbols, self.sources, session_number=self.session_number)
        return f"<div>{rows._repr_html_()}{self.truth._repr_html_()}</div>"


def _detail(kind: Fault, amount: int) -> str:
    if kind in (Fault.DISORDER, *REPEATS):
        again = " again" if kind in REPEATS else ""
        return f"arrives{again} after {amount:,} later message{'' if amount == 1 else 's'} of its source"
    if kind is Fault.LATE_BURST:
        return f"held back and sent at once {amount / 1e9:g} s after its last message was due"
    if kind is Fault.CLOCK_STEP:
        return f"the recorder's clock is set by {amount / 1e9:+g} s"
    return "a new epoch, numbered from 1" if kind is Fault.RESET else "never arrives"
