"""S5: the sequencer alone, on a feed with 1% disorder, 0.1% loss and 0.1% duplicates, beside a dict and a heap."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator

import numpy as np

from hftlab.events import EventBatch, EventType, NumberRule, Source, SourceTable, SymbolTable
from hftlab.events.records import blank
from hftlab.sequence import Ordering, Sequencer
from hftlab.sim import faults
from tests.bench.measurement import Goal, Measurement

BLOCK_ROWS = 8_192
BATCH_ROWS = 4_096
SOURCES = 16
DEADLINE_S = 0.001
WORK = f"1% disorder, 0.1% loss, 0.1% duplicates, {SOURCES} sources"

GOALS = [Goal("S5", WORK, at_least=50e6)]


class Feed:
    """A block of faulty rows that stays in the cache: each turn it goes on where the last one ended."""

    def __init__(self, *, loss: float = 0.0, duplicates: float = 0.0, disorder: float = 0.0) -> None:
        rows = blank(BLOCK_ROWS, EventType.MARKET_DATA)
        index = np.arange(BLOCK_ROWS)
        rows["source"] = 1 + index % SOURCES
        rows["sequence"] = index // SOURCES
        rows["timestamp"] = rows["received"] = 1_723_161_255_000_000_000 + index * 1_000
        rows["price"], rows["volume"] = 60_000 + index % 1_000, 1.0
        names = [Source("bench", "trades", str(number), NumberRule.PLUS_ONE.value) for number in range(SOURCES)]
        clean = EventBatch(rows, SymbolTable(["BTCUSDT"]), SourceTable(names))
        self.batch = clean
        if loss or duplicates or disorder:
            self.batch = faults(clean, seed=7, loss=loss, duplicates=duplicates, disorder=disorder)

    def turns(self, count: int) -> Iterator[EventBatch]:
        """The block ``count`` times over, numbers and times going on."""
        records = self.batch.records
        for _ in range(count):
            yield self.batch
            records["sequence"] += BLOCK_ROWS // SOURCES
            records["received"] += BLOCK_ROWS * 1_000
            records["timestamp"] += BLOCK_ROWS * 1_000


def measure(runs: int, turns: int = 60) -> list[Measurement]:
    """The sequencer on the faulty feed and on a clean one, and what one would write in Python."""
    return [
        Measurement("S5", WORK, "hftlab", figures=tuple(_ours(_faulty(), turns) for _ in range(runs))),
        Measurement("S5", "all in order", "hftlab", figures=tuple(_ours(Feed(), turns) for _ in range(runs))),
        Measurement(
            "S5", WORK, "a dict and a heap", figures=tuple(_in_python(_faulty(), 3) for _ in range(runs))
        ),
    ]  # fmt: skip


def _faulty() -> Feed:
    return Feed(loss=0.001, duplicates=0.001, disorder=0.01)


def _rate(feed: Feed, turns: int, process: Callable[[EventBatch], object]) -> float:
    """Rows a second; making the next turn is not timed."""
    spent_s, rows = 0.0, 0
    for turn, block in enumerate(feed.turns(turns)):
        pieces = [block[begin : begin + BATCH_ROWS] for begin in range(0, len(block), BATCH_ROWS)]
        begin_s = time.perf_counter()
        for piece in pieces:
            process(piece)
        if turn >= turns // 10:  # the tables have grown by then
            spent_s += time.perf_counter() - begin_s
            rows += len(block)
    return rows / spent_s


def _ours(feed: Feed, turns: int) -> float:
    sequencer = Sequencer(Ordering(deadline_s=DEADLINE_S), feed.batch.symbols, feed.batch.sources)
    return _rate(feed, turns, sequencer.process)


def _in_python(feed: Feed, turns: int) -> float:
    expected: dict[int, int] = {}
    held: dict[int, list[tuple[int, int]]] = {}

    def process(batch: EventBatch) -> list[int]:
        records = batch.records
        delivered = []
        for row, (source, number) in enumerate(
            zip(records["source"].tolist(), records["sequence"].tolist(), strict=True)
        ):
            following = expected.setdefault(source, number)
            if number < following:
                continue
            heap = held.setdefault(source, [])
            heapq.heappush(heap, (number, row))
            while heap and (heap[0][0] <= following or len(heap) > 64):
                number, row = heapq.heappop(heap)
                if number >= following:
                    delivered.append(row)
                    following = number + 1
            expected[source] = following
        return delivered

    return _rate(feed, turns, process)
