"""Streams of messages for the tests of order: drawn by Hypothesis, or a million at once out of a seed; and as batches.

A ``Stream`` is a table with a row a message. It becomes the model's ``Message``s and the sequencer's ``EventBatch``
out of the same columns, so that neither is made from the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from hftlab.events import EventBatch, EventType, Flags, Source
from hftlab.events.records import DTYPES, RECORD, Rows, blank, event_id
from hftlab.events.tables import SourceTable, SymbolTable
from tests.sequence.noted import Message

SESSION = 7
START_NS = 1_700_000_000_000_000_000
MS = 1_000_000
FOREIGN = event_id(SESSION + 1, 0)

SOURCES = (
    Source("nyx", "ticks"),
    Source("nyx", "trades", "A", "plus-one"),
    Source("nyx", "book", "A", "range"),
    Source("nyx", "quotes", "A", "shared"),
    Source("nyx", "orders", "A", "plus-one"),
    Source("nyx", "executions", "A", "range"),
)
"""One of each rule, and two that carry orders, whose order is strict. Id 0 of every table is the unknown source."""
STRICT_FROM = 5

MESSAGE = np.dtype(
    [
        ("source", "i8"),
        ("epoch", "i8"),
        ("sequence", "i8"),
        ("span", "i8"),
        ("parts", "i8"),
        ("content", "i8"),
        ("flags", "i8"),
        ("type", "i8"),
        ("received", "i8"),
        ("cause", "i8"),
    ]
)
"""A message. ``cause`` is an event id (0: none); ``flags`` are HEARTBEAT and END_OF_SESSION."""


@dataclass(frozen=True, eq=False)
class Stream:
    """Messages in order of arrival, one a row of ``table``; log sequences count their rows from 0."""

    table: npt.NDArray[np.void]
    sources: tuple[Source, ...] = SOURCES
    session: int = SESSION

    @property
    def rules(self) -> list[str]:
        """The rule of each source, by id."""
        return ["none", *(source.rule for source in self.sources)]

    @property
    def begins(self) -> npt.NDArray[np.int64]:
        """The first row of every message, and the number of rows at the end."""
        return np.concatenate(([0], np.cumsum(self.table["parts"])))

    def messages(self) -> list[Message]:
        """What the model is given."""
        rows = self.begins.tolist()
        made = []
        for at, values in enumerate(self.table.tolist()):
            source, epoch, sequence, span, parts, content, flags, kind, received, cause = values
            made.append(
                Message(
                    tuple(range(rows[at], rows[at + 1])),
                    source,
                    received,
                    sequence,
                    span,
                    epoch,
                    kind,
                    (content, span, parts, kind),
                    cause,
                    bool(flags & Flags.HEARTBEAT),
                    bool(flags & Flags.END_OF_SESSION),
                )
            )
        return made

    def tables(self) -> tuple[SymbolTable, SourceTable]:
        """The tables that the rows' ids mean."""
        return SymbolTable(["A", "B"]), SourceTable(self.sources)

    def batch(self, tables: tuple[SymbolTable, SourceTable] | None = None) -> EventBatch:
        """What the sequencer is given: all rows, under RECORD unless all are of one type."""
        types = np.unique(self.table["type"])
        if len(types) == 1:
            records = self._rows(EventType(int(types[0])))
        else:
            records = np.zeros(int(self.table["parts"].sum()), RECORD)
            kinds = np.repeat(self.table["type"], self.table["parts"])
            opaque = records.view("V128")
            for kind in types.tolist():
                rows = self._rows(EventType(kind)).view("V128")
                opaque[kinds == kind] = rows[kinds == kind]
        symbols, sources = tables or self.tables()
        return EventBatch(records, symbols, sources, session_number=self.session)

    def _rows(self, event_type: EventType) -> Rows:
        of = np.repeat(np.arange(len(self.table)), self.table["parts"])
        columns = self.table[of]
        rows = blank(len(of), event_type)
        rows["part"] = np.arange(len(of)) - self.begins[of]
        last = rows["part"] == columns["parts"] - 1
        for name in ("source", "epoch", "sequence", "span", "received", "cause"):
            rows[name] = columns[name]
        rows["log_sequence"] = np.arange(len(of))
        rows["symbol"] = columns["source"] % 2
        rows["flags"] = columns["flags"] | np.where(last, int(Flags.LAST_PART), 0)
        # Every other source sends no time: the arrival stands in, and must not tell a message from its copy.
        silent = columns["source"] % 2 == 1
        rows["timestamp"] = np.where(silent, columns["received"], START_NS)
        rows["flags"] |= np.where(silent, int(Flags.ARRIVAL_TIME), 0).astype(np.uint16)
        rows["price"] = 100.0 + columns["content"]
        if event_type is EventType.ORDER:
            rows["quantity"], rows["direction"], rows["order_type"], rows["order_id"] = 1.0, 1, 1, b"o"
        return rows


def stream_of(messages: list[dict[str, Any]], sources: tuple[Source, ...] = SOURCES, session: int = SESSION) -> Stream:
    """A stream out of what differs from an ordinary message; ``received`` counts ms from START_NS."""
    table = np.zeros(len(messages), MESSAGE)
    table["span"] = table["parts"] = 1
    for row, message in zip(table, messages, strict=True):
        for name, value in message.items():
            row[name] = value
        if "type" not in message:
            row["type"] = EventType.ORDER if row["source"] >= STRICT_FROM else EventType.MARKET_DATA
        row["received"] = START_NS + int(message.get("received", 0) * MS)
    return Stream(table, sources, session)


# -- drawn --------------------------------------------------------------------------------------------------------


def _steps(sources: tuple[int, ...], causes: tuple[int | str | None, ...]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(
        st.sampled_from(sources),
        st.sampled_from([0, 1, 2, 3, 5, -1, -2, -4, -7]),  # ahead of what the source would send next
        st.sampled_from([1, 1, 2, 3, 4, 0]),  # how many numbers (0: a heartbeat that has none)
        st.sampled_from([1, 1, 1, 2, 3]),  # parts
        st.sampled_from([0, 0, 0, 0, 1]),  # content
        st.sampled_from([""] * 14 + ["heartbeat", "end", "next epoch", "stale epoch", "unnumbered"]),
        st.sampled_from([0, 0, 0, 1, 10, 30, 60, 100, -20]),  # ms since the message before
        st.sampled_from(causes),  # in rows from its own first one
    )


_PALETTES = ((2,), (3,), (5,), (6,), (2, 5), (3, 6), (2, 4, 1), (0, 1, 2, 3, 4, 5, 6))
_CAUSES = (
    (None,),
    (None, None, None, None, None, None, 0, -1, -2, -5, 1, 2, 5, 1_000, "foreign"),
    (-1, -4, 1, 3, None),
)


def _walk(steps: list[tuple[Any, ...]], session: int) -> Stream:
    table = np.zeros(len(steps), MESSAGE)
    upcoming, epochs = [3] * 7, [1] * 7
    row, now = 0, START_NS
    for message, (source, ahead, span, parts, content, special, passed, cause) in zip(table, steps, strict=True):
        if special == "next epoch":
            epochs[source] += 1
            upcoming[source] = 3
        heartbeat = special == "heartbeat" or span == 0
        spans = span if heartbeat or source in (3, 6) else 1
        sequence = max(0, spans - 1, upcoming[source] + ahead + max(spans, 1) - 1)
        if special not in ("stale epoch", "unnumbered"):
            upcoming[source] = max(upcoming[source], sequence + 1)
        now += passed * MS
        flags = (Flags.HEARTBEAT if heartbeat else 0) | (Flags.END_OF_SESSION if special == "end" else 0)
        strict = source >= STRICT_FROM
        target = 0
        if isinstance(cause, int):
            target = session << 40 | max(0, row + cause)
        elif cause == "foreign":
            target = FOREIGN
        message["source"], message["epoch"] = source, epochs[source] - (special == "stale epoch")
        message["sequence"] = -1 if special == "unnumbered" else sequence
        message["span"], message["parts"], message["content"], message["flags"] = spans, parts, content, flags
        message["type"] = EventType.ORDER if strict else EventType.MARKET_DATA
        message["received"], message["cause"] = now, target
        row += parts
    return Stream(table, session=session)


def streams(most: int = 60) -> st.SearchStrategy[Stream]:
    """Short streams in which everything happens often: few numbers, all rules, every fate, causes in all directions."""
    steps = st.builds(_steps, st.sampled_from(_PALETTES), st.sampled_from(_CAUSES))
    # Hypothesis's lists are short where nothing asks for long ones, and a full window needs a long one.
    drawn = steps.flatmap(
        lambda step: st.one_of(st.lists(step, max_size=12), st.lists(step, min_size=most // 2, max_size=most))
    )
    return st.builds(_walk, drawn, st.sampled_from([SESSION, SESSION, SESSION, 0]))


# -- a million at once ----------------------------------------------------------------------------------------------


def faulty_stream(seed: int, count: int, sources: int = 40) -> Stream:
    """About ``count`` messages of many sources, with loss, copies, conflicts, disorder, resets, heartbeats and causes.

    Vectorised: 1 µs a message. A tenth of the sources is strict; those lose nothing, since nobody would fill it.
    """
    random = np.random.default_rng(seed)
    named = tuple(
        Source("nyx", f"feed{at}", "", ("plus-one", "range", "plus-one", "shared", "none")[at % 5])
        for at in range(sources)
    )
    rules = np.array(["none", *(source.rule for source in named)])
    table = np.zeros(count, MESSAGE)
    source = table["source"] = random.integers(1, sources + 1, count)
    rule = rules[source]
    strict = source % 10 == 1
    table["type"] = np.where(strict, int(EventType.ORDER), int(EventType.MARKET_DATA))
    table["parts"] = np.where(random.random(count) < 0.03, random.integers(2, 4, count), 1)
    table["span"] = np.where(rule == "range", random.integers(1, 5, count), 1)
    table["content"] = np.arange(count) % 1_000
    resets = np.where(random.random(count) < 1e-4, 1, 0)
    jumps = np.where(rule == "shared", random.integers(1, 9, count), table["span"])
    for each in range(1, sources + 1):  # numbers count on within each source and epoch
        mine = np.flatnonzero(source == each)
        epoch = np.cumsum(resets[mine])
        table["epoch"][mine] = epoch
        given = np.cumsum(jumps[mine])
        start = np.searchsorted(epoch, epoch, side="left")
        table["sequence"][mine] = given - (given[start] - jumps[mine][start]) + 1_000
    table["received"] = np.cumsum(random.exponential(20_000, count)).astype(np.int64)

    lossy = ~strict & (rule != "none")
    kept = ~(lossy & (random.random(count) < 0.004)) & ~(lossy & _bursts(random, count))
    copied = np.flatnonzero((rule != "none") & (random.random(count) < 0.02))
    copies = table[copied]
    copies["received"] += random.integers(0, 30 * MS, len(copies))
    copies["content"] += random.random(len(copies)) < 0.05  # a conflict
    beats = table[np.flatnonzero((rule != "none") & (random.random(count) < 0.002))]
    beats["span"], beats["flags"], beats["parts"] = 0, int(Flags.HEARTBEAT), 1
    beats["received"] += random.integers(0, 3 * MS, len(beats))
    delayed = random.random(count) < 0.03
    table["received"] += np.where(delayed, random.integers(0, 12 * MS, count), 0)
    tardy = lossy & (random.random(count) < 0.001)
    table["received"] += np.where(tardy, random.integers(0, 400 * MS, count), 0)

    table = np.concatenate([table[kept], copies, beats])
    table = table[np.argsort(table["received"], kind="stable")]
    table["received"] += START_NS
    rows = np.concatenate(([0], np.cumsum(table["parts"])))[:-1]
    caused = random.random(len(table)) < 0.005
    offset = random.integers(-400, 40, len(table))
    table["cause"] = np.where(caused, SESSION << 40 | np.maximum(rows + offset, 0), 0)
    return Stream(table, named)


def _bursts(random: np.random.Generator, count: int) -> npt.NDArray[np.bool_]:
    """Where whole stretches are lost: 1 in 20,000 messages begins one of up to 400."""
    change = np.zeros(count + 1, np.int64)
    begins = np.flatnonzero(random.random(count) < 5e-5)
    np.add.at(change, begins, 1)
    np.add.at(change, np.minimum(begins + random.integers(1, 400, len(begins)), count), -1)
    return np.cumsum(change)[:-1] > 0


assert DTYPES[EventType.MARKET_DATA].itemsize == RECORD.itemsize
