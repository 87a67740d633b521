"""Messages are held for a fixed time and leave in the order of their key: against a model that keeps plain lists."""

from __future__ import annotations

import hashlib
import importlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hftlab.sequence.sliding as subject
from hftlab import feeds
from hftlab.errors import ValidationError
from hftlab.events import EventBatch, EventType, Flags, Source
from hftlab.events.records import RECORD, blank
from hftlab.events.rowbytes import concat_rows
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.sequence import AsideReason, SetAside, SlidingWindow, rules
from hftlab.sequence.kernels import atomics, lateness, least, sliding, slots

Key = Literal["timestamp", "sequence"]
KEYS: tuple[Key, ...] = ("timestamp", "sequence")
START_NS = 1_700_000_000_000_000_000
LAST_PART = int(Flags.LAST_PART)
SOURCES = (
    Source("nyx", "trades", "A", "plus-one"),
    Source("nyx", "quotes", "A", "shared"),
    Source("nyx", "quotes", "B", "shared"),
    Source("nyx", "news"),
)
SHARED = (2, 3)


@dataclass
class Row:
    """What the model knows of a row; ``at`` is its place in the input."""

    at: int
    source: int
    timestamp: int
    epoch: int
    sequence: int
    part: int
    last: bool
    moment: int


@dataclass
class Message:
    """Rows that belong together, with their key and when they arrived, counted and in ns."""

    source: int
    key: tuple[int, int]
    rows: list[Row] = field(default_factory=list)
    arrival: int = -1
    arrived_ns: int = -1


class Model:
    """The words, by sorting a list whenever something is asked."""

    def __init__(self, hold_ns: int, key: Key, capacity: int = 1 << 16) -> None:
        self.hold_ns, self.key, self.capacity = hold_ns, key, capacity
        self.clock = self.arrivals = self.late = self.late_by_ns_max = self.hurried = 0
        self.held: list[Message] = []
        self.open: dict[int, Message] = {}  # in the order of their beginning
        self.came: list[Message] = []  # all that were not late, since the start
        self.let_go: dict[int, tuple[int, int]] = {}
        self.latest: dict[int, int] = {}
        self.out: list[tuple[int, int]] = []
        self.aside: list[int] = []

    def take(self, row: Row) -> None:
        self.advance(row.moment)
        if self.key == "sequence" and row.source not in SHARED:
            self.out.append((row.at, self.clock))
            return
        if sum(len(message.rows) for message in [*self.held, *self.open.values()]) >= self.capacity:
            self.make_place()
        message = self.open.get(row.source)
        if message is not None:
            latest = message.rows[-1]
            if (row.epoch, row.sequence, row.part) != (latest.epoch, latest.sequence, latest.part + 1):
                self.close(row.source)
                message = None
        if message is None:
            key = (row.epoch, row.sequence)
            if self.key == "timestamp":
                self.latest[row.source] = max(row.timestamp, self.latest.get(row.source, row.timestamp))
                key = (0, self.latest[row.source])
            message = self.open[row.source] = Message(row.source, key)
        message.rows.append(row)
        if row.last:
            self.close(row.source)

    def close(self, source: int) -> None:
        message = self.open.pop(source)
        group = self.group(message)
        if self.key == "sequence" and message.key[1] < 0:
            self.leave(message, self.clock)
        elif group in self.let_go and message.key < self.let_go[group]:
            overtaken = min(m.arrived_ns for m in self.came if self.group(m) == group and m.key > message.key)
            self.late += len(message.rows)
            self.late_by_ns_max = max(self.late_by_ns_max, self.clock - overtaken)
            if self.key == "timestamp":
                self.aside += [row.at for row in message.rows]
            else:
                self.leave(message, self.clock)
        else:
            message.arrival, message.arrived_ns = self.arrivals, self.clock
            self.arrivals += 1
            self.held.append(message)
            self.came.append(message)

    def advance(self, now_ns: int) -> None:
        self.clock = max(self.clock, now_ns)
        while self.held and self.held[0].arrived_ns + self.hold_ns <= self.clock:
            self.release(self.held[0], self.held[0].arrived_ns + self.hold_ns)

    def release(self, message: Message, moment: int) -> None:
        group = self.group(message)
        leaving = [
            each
            for each in self.held
            if self.group(each) == group and (each.key, each.arrival) <= (message.key, message.arrival)
        ]
        for each in sorted(leaving, key=lambda each: (each.key, each.arrival)):
            self.held.remove(each)
            self.leave(each, moment)
        self.let_go[group] = message.key

    def make_place(self) -> None:
        before = len(self.out)
        if not self.held:
            self.close(next(iter(self.open)))
        if self.held:
            self.release(self.held[0], self.clock)
        self.hurried += len(self.out) - before

    def finish(self) -> None:
        while self.open:
            self.close(next(iter(self.open)))
        while self.held:
            self.release(self.held[0], self.clock)

    def group(self, message: Message) -> int:
        return 0 if self.key == "timestamp" else message.source

    def leave(self, message: Message, moment: int) -> None:
        self.out += [(row.at, moment) for row in message.rows]


@dataclass(frozen=True)
class Outcome:
    """What came of a stream: places and moments of the rows that left, places of those set aside, and counts."""

    out: list[tuple[int, int]]
    aside: list[int]
    counts: tuple[int, int, int]


def modelled(rows: list[Row], window: dict[str, Any], advances: dict[int, int]) -> Outcome:
    model = Model(**window)
    for row in rows:
        if row.at in advances:
            model.advance(advances[row.at])
        model.take(row)
    model.finish()
    assert [moment for _, moment in model.out] == sorted(moment for _, moment in model.out)
    return Outcome(model.out, model.aside, (model.late, model.late_by_ns_max, model.hurried))


def batch_of(rows: list[Row]) -> EventBatch:
    records = blank(len(rows), EventType.MARKET_DATA)
    for name in ("source", "timestamp", "epoch", "sequence", "part"):
        records[name] = [getattr(row, name) for row in rows]
    records["received"] = [row.moment for row in rows]
    records["flags"] = [LAST_PART if row.last else 0 for row in rows]
    records["log_sequence"] = [row.at for row in rows]
    records["price"] = np.arange(len(rows)) + 0.5
    return EventBatch(records, SymbolTable(["A"]), SourceTable(SOURCES), session_number=7)


def slid(
    rows: list[Row],
    window: dict[str, Any],
    advances: dict[int, int],
    cuts: list[int] | None = None,
    time: str = "received",
) -> Outcome:
    """The stream through a real window, cut into batches."""
    batch = batch_of(rows)
    original = batch.records
    real = SlidingWindow(symbols=batch.symbols, sources=batch.sources, **window)
    moments = np.array([row.moment for row in rows], np.int64)
    parts: list[subject.Slid] = []
    ends = sorted({len(rows), *advances, *(cuts or [])} - {0})
    for begin, end in zip([0, *ends], [*ends, None], strict=True):
        due = real.due_ns
        if begin in advances:
            parts.append(real.advance(advances[begin]))
            assert due is None or advances[begin] < due or len(parts[-1].batch)
        if end is None:
            break
        piece = batch[begin:end]
        if time == "moments":
            parts.append(real.process(piece, moments=np.maximum.accumulate(moments)[begin:end]))
        else:
            parts.append(real.process(piece))
        told = real.statistics()
        aside = told.late if window["key"] == "timestamp" else 0
        assert told.received == end == told.released + told.held + aside
        assert told.held <= window.get("capacity", 1 << 16)
    parts.append(real.finish())
    assert real.statistics().held == 0
    assert real.due_ns is None
    records = concat_rows([part.batch.records for part in parts], RECORD)
    places = records["log_sequence"].tolist()
    assert records.tobytes() == original.view("V128")[places].tobytes()
    assert {part.batch.session_number for part in parts if len(part.batch)} <= {7}
    told = real.statistics()
    assert real.set_aside.count == len(real.set_aside.records)
    assert set(real.set_aside.reasons.tolist()) <= {AsideReason.LATE}
    return Outcome(
        list(zip(places, [moment for part in parts for moment in part.moments.tolist()], strict=True)),
        real.set_aside.records["log_sequence"].tolist(),
        (told.late, told.late_by_ns_max, told.hurried),
    )


STEPS = st.tuples(
    st.sampled_from([1, 2, 3, 4, 0, 2, 3]),  # the source
    st.integers(-12, 12),  # its timestamp, in ns from its moment
    st.sampled_from([1, 1, 2, 0, -1, -3]),  # its number, from the one before of its source
    st.sampled_from([True, True, True, False]),  # whether it is its message's last part
    st.sampled_from([True, True, True, False]),  # whether it goes on with a message
    st.sampled_from([0, 0, 1, 1, 2, 5, 30, -4]),  # ns since the row before
    st.sampled_from([""] * 12 + ["epoch", "unnumbered"]),
)


def walked(steps: list[tuple[Any, ...]]) -> list[Row]:
    rows: list[Row] = []
    latest: dict[int, Row] = {}
    epochs: Counter[int] = Counter()
    now = START_NS
    for at, (source, ahead, step, last, goes_on, passed, special) in enumerate(steps):
        now += passed
        before = latest.get(source)
        if before is not None and not before.last and goes_on:
            row = Row(at, source, now + ahead, before.epoch, before.sequence, before.part + 1, last, now)
        else:
            epochs[source] += special == "epoch"
            number = max(0, (before.sequence if before else 5) + step)
            if source in (0, 4) or special == "unnumbered":
                number = -1
            row = Row(at, source, now + ahead, epochs[source], number, 0, last, now)
        latest[source] = row
        rows.append(row)
    return rows


def streams(longest: int = 120) -> st.SearchStrategy[list[Row]]:
    return st.lists(STEPS, max_size=longest).map(walked)


windows = st.fixed_dictionaries(
    {"hold_ns": st.sampled_from([1, 3, 10, 25, 1_000]), "key": st.sampled_from(KEYS)},
    optional={"capacity": st.sampled_from([1, 2, 3, 7, 20])},
)
deeds = st.dictionaries(st.integers(0, 119), st.integers(0, 400), max_size=3)


def within(rows: list[Row], advances: dict[int, int]) -> dict[int, int]:
    """Advances of ns from the start, at places that there are."""
    return {at: START_NS + ns for at, ns in advances.items() if at < len(rows)}


@contextmanager
def uncompiled() -> Iterator[int]:
    """The kernels, and what they call, are the Python functions that they were made from."""
    replaced = 0
    with pytest.MonkeyPatch.context() as patch:
        for module in (sliding, slots, least, lateness, atomics, subject):
            for name, value in list(vars(module).items()):
                if hasattr(value, "py_func"):
                    patch.setattr(module, name, value.py_func)
                    replaced += 1
        yield replaced


@settings(max_examples=400)
@given(streams(), windows, deeds, st.lists(st.integers(1, 119), max_size=6), st.sampled_from(["received", "moments"]))
def test_what_leaves_and_when_is_as_the_words_say_wherever_batches_are_cut(
    rows: list[Row], window: dict[str, Any], advances: dict[int, int], cuts: list[int], time: str
) -> None:
    advances = within(rows, advances)
    cuts = [cut for cut in cuts if cut < len(rows)]
    assert slid(rows, window, advances, cuts, time) == modelled(rows, window, advances)


@settings(max_examples=60)
@given(streams(), windows)
def test_a_row_at_a_time_and_all_at_once_give_the_same(rows: list[Row], window: dict[str, Any]) -> None:
    assert slid(rows, window, {}, list(range(len(rows)))) == slid(rows, window, {})


@settings(max_examples=80)
@given(streams(), windows, deeds)
def test_kernels_do_the_same_compiled_and_as_plain_python(
    rows: list[Row], window: dict[str, Any], advances: dict[int, int]
) -> None:
    advances = within(rows, advances)
    compiled = slid(rows, window, advances)
    with uncompiled() as replaced:
        assert replaced > 20
        assert slid(rows, window, advances) == compiled


@settings(max_examples=100)
@given(streams(), st.sampled_from([1, 3, 10]), st.sampled_from(KEYS))
def test_a_hold_of_more_than_the_largest_lateness_lets_nothing_be_late(rows: list[Row], hold_ns: int, key: Key) -> None:
    late, late_by_ns, _ = slid(rows, {"hold_ns": hold_ns, "key": key}, {}).counts
    if late:
        assert late_by_ns >= hold_ns
        assert slid(rows, {"hold_ns": late_by_ns + 1, "key": key}, {}).counts == (0, 0, 0)
        assert slid(rows, {"hold_ns": late_by_ns, "key": key}, {}).counts[1] == late_by_ns
