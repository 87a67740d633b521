"""Plays one stream through the model and through the sequencer, and writes down what came out in the same words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from hftlab.events import EventBatch, EventType, Flags
from hftlab.events.records import Rows
from hftlab.events.rowbytes import copy_rows, take_rows
from hftlab.sequence import GapReason, GapState, Ordering, Sequenced, Sequencer
from hftlab.sequence.stage import Ordered
from tests.sequence.messages import Stream
from tests.sequence.model import OrderModel
from tests.sequence.noted import Delivery, Message, Notice, Row

Deed = tuple[str, int]
"""What is done before a message: ("advance", ns UTC) or ("give up", a source)."""
FATES = ("received", "delivered", "duplicate", "late", "conflicting", "orphaned", "buffered", "filled", "lost")


@dataclass
class Outcome:
    """All that one run brought about."""

    deliveries: list[Delivery] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    gaps: list[Row] = field(default_factory=list)
    counts: dict[int, dict[str, int]] = field(default_factory=dict)
    set_aside: list[tuple[int, str]] = field(default_factory=list)
    cycles: int = 0
    orphans: int = 0

    @property
    def rows(self) -> list[int]:
        """The log sequences that were delivered, in order."""
        return [delivery.row for delivery in self.deliveries]

    @property
    def kinds(self) -> list[tuple[str, int, int]]:
        """The notices without where and when: what happened to which numbers."""
        return [(notice.kind, notice.first, notice.last) for notice in self.notices]


def model_of(stream: Stream, ordering: Ordering) -> OrderModel:
    """A model with the settings of an ``Ordering``."""
    return OrderModel(
        stream.rules,
        session=stream.session,
        window=ordering.window,
        deadline_ns=round(ordering.deadline_s * 1e9),
        strict=frozenset(int(event_type) for event_type in ordering.strict),
        remembered=ordering.remembered,
        lost_cause=ordering.lost_cause,
    )


def offer(model: OrderModel, message: Message) -> None:
    """Have the model take a message; where a window is full, whatever is missing anywhere is given up."""
    if not model.accept(message):
        model.give_up()
        assert model.accept(message)


def modelled(stream: Stream, ordering: Ordering, deeds: Mapping[int, Deed] | None = None) -> Outcome:
    """The stream's outcome by the words. ``deeds`` are done before the message of that position."""
    model = model_of(stream, ordering)
    messages = stream.messages()
    for at, message in enumerate(messages):
        deed, argument = (deeds or {}).get(at, ("", 0))
        if deed == "advance":
            model.advance(argument)
        elif deed == "give up" and argument in model.sources:
            model.give_up(argument)
        offer(model, message)
    model.finish()
    model.check()
    return written(model)


def written(model: OrderModel) -> Outcome:
    """The model's notes."""
    return Outcome(
        model.deliveries,
        model.notices,
        model.rows(),
        {number: model.counts(number) for number in sorted(model.sources)},
        model.set_aside[-1_024:],
        model.cycles,
        model.orphans,
    )


class Player:
    """A sequencer, and everything that its results told so far."""

    def __init__(self, stream: Stream, ordering: Ordering) -> None:
        self.stream = stream
        self.symbols, self.sources = stream.tables()
        self.batch = stream.batch((self.symbols, self.sources))
        self.sequencer = Sequencer(ordering, self.symbols, self.sources)
        self.outcome = Outcome()
        self._original = copy_rows(self.batch.records)

    def play(self, cuts: Iterable[int] = (), deeds: Mapping[int, Deed] | None = None) -> Outcome:
        """All of the stream in batches that end at the rows ``cuts``, and the end."""
        begins = self.stream.begins
        at_row = {int(begins[at]): deed for at, deed in (deeds or {}).items() if at < len(begins) - 1}
        edges = sorted({0, len(self.batch), *at_row, *(cut for cut in cuts if cut < len(self.batch))})
        for begin, end in pairwise(edges):
            deed, argument = at_row.get(begin, ("", 0))
            if deed == "advance":
                self.note(self.sequencer.advance(argument))
            elif deed == "give up":
                self.give_up(argument)
            self.offer(self.batch[begin:end])
        self.note(self.sequencer.finish())
        return self.read()

    def offer(self, batch: EventBatch) -> None:
        """Process a batch to its end; where a window is full, whatever is missing anywhere is given up."""
        while len(batch):
            result = self.sequencer.process(batch)
            self.note(result)
            self.conserve()
            taken = int(result.taken)
            if taken == len(batch):
                return
            assert 0 <= taken < len(batch)
            # Of all sources: a message whose first parts came before may be the one that is pressed back.
            self.give_up(None)
            batch = batch[taken:]

    def give_up(self, source: int | None) -> None:
        """Decide that missing numbers are lost; it takes effect with the next work, which is this."""
        self.sequencer.gaps.give_up(None if source is None else self.sources[source])
        self.note(self.sequencer.advance(0))

    def note(self, result: Sequenced | Ordered) -> None:
        """Write down what a call delivered and told."""
        before = len(self.outcome.deliveries)
        records: Rows = result.batch.records
        assert len(result.released_ns) == len(records)
        marked = (records["flags"] & Flags.AFTER_GAP) != 0
        columns = (records["log_sequence"], np.asarray(result.released_ns), records["sequence"], marked)
        self.outcome.deliveries += map(Delivery, *(column.tolist() for column in columns))
        fields = ("source", "epoch", "first", "last", "opened_ns", "closed_ns", "before", "after")
        for notice in result.notices:
            self.outcome.notices.append(
                Notice(
                    before + int(notice["position"]),
                    GapState(int(notice["state"])).name.lower(),
                    GapReason(int(notice["reason"])).name.lower(),
                    *(int(notice[name]) for name in fields),
                )
            )
        self._check_bytes(records, marked)

    def _check_bytes(self, records: Rows, marked: npt.NDArray[np.bool_]) -> None:
        """A delivered row is the row that came, but for the number and the mark that order gives."""
        expected = take_rows(self._original, records["log_sequence"])
        unnumbered = np.array([rule == "none" for rule in self.stream.rules])[expected["source"]]
        expected["sequence"] = np.where(unnumbered, records["sequence"], expected["sequence"])
        expected["flags"] |= np.where(marked, int(Flags.AFTER_GAP), 0).astype(np.uint16)
        assert records.tobytes() == expected.tobytes()

    def conserve(self) -> None:
        """Assert that every message has met exactly one fate."""
        for counts in self.counts().values():
            fates = ("delivered", "duplicate", "late", "conflicting", "orphaned", "buffered")
            assert counts["received"] == sum(counts[fate] for fate in fates)

    def counts(self) -> dict[int, dict[str, int]]:
        """The counts of every source that sent something."""
        frame = self.sequencer.gaps.by_source()
        named = {str(source): number for number, source in enumerate(self.sources)}
        return {
            named[str(name)]: {fate: int(row[fate]) for fate in FATES}
            for name, row in frame.to_dict("index").items()
            if row["received"]
        }

    def read(self) -> Outcome:
        """Everything so far, with the table of gaps and the counts as they are now."""
        assert self.batch.records.tobytes() == self._original.tobytes(), "the input was changed"
        gaps = self.sequencer.gaps
        numbers = {source: number for number, source in enumerate(self.sources)}
        self.outcome.gaps = [
            Row(
                numbers[gap.source],
                gap.epoch,
                gap.first,
                gap.last,
                gap.state.name.lower(),
                gap.reason.name.lower(),
                gap.opened_ns,
                gap.closed_ns,
                gap.before,
                gap.after,
            )
            for gap in gaps
        ]
        self.outcome.counts = self.counts()
        reasons = {1: "late", 2: "conflicting", 3: "orphaned"}
        aside = gaps.set_aside
        self.outcome.set_aside = [
            (row, reasons[reason])
            for row, reason in zip(aside.records["log_sequence"].tolist(), aside.reasons.tolist(), strict=True)
        ]
        statistics = self.sequencer.statistics()
        self.outcome.cycles, self.outcome.orphans = statistics.cycles, statistics.orphans
        return self.outcome


def sequenced(
    stream: Stream, ordering: Ordering, cuts: Sequence[int] = (), deeds: Mapping[int, Deed] | None = None
) -> Outcome:
    """The stream's outcome by the sequencer, in batches that end at the rows ``cuts``."""
    return Player(stream, ordering).play(cuts, deeds)


def assert_same(ours: Outcome, expected: Outcome) -> None:
    """Compare piece by piece, the most telling first, so that a failure shows where they part."""
    assert ours.rows == expected.rows
    assert ours.deliveries == expected.deliveries
    assert ours.notices == expected.notices
    assert ours.gaps == expected.gaps
    assert ours.counts == expected.counts
    assert ours.set_aside == expected.set_aside
    assert (ours.cycles, ours.orphans) == (expected.cycles, expected.orphans)


MARKET, ORDERS = int(EventType.MARKET_DATA), int(EventType.ORDER)
