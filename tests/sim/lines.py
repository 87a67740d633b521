"""Batches to break: one plain line, and whatever Hypothesis makes of several sources, parts, spans and epochs.

Every message's rows carry its number in the batch, from 1, as their ``cause``: it tells, in a faulty batch, which
message a row came from, whatever became of its sequence and epoch.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import strategies as st

from hftlab.events import EventBatch, EventType, Flags, Source, SourceTable, SymbolTable
from hftlab.events.records import DTYPES, RECORD, blank

START_NS = 1_700_000_000_000_000_000
MS = 1_000_000
SOURCES = (
    Source("nyx", "trades", "A", "plus-one"),
    Source("nyx", "book", "A", "range"),
    Source("nyx", "quotes", "A", "shared"),
    Source("nyx", "ticks"),
)
PLUS_ONE, RANGE, SHARED, BARE = 1, 2, 3, 4
LINE = SOURCES[0].text


@dataclass(frozen=True)
class Sent:
    """One message. ``sequence`` -1: without a number."""

    source: int
    epoch: int
    sequence: int
    span: int = 1
    parts: int = 1
    event_type: EventType = EventType.MARKET_DATA
    flags: int = 0
    received: int = START_NS


def batch_of(sent: list[Sent]) -> EventBatch:
    """The messages in this order as one batch."""
    types = {each.event_type for each in sent}
    rows = blank(sum(each.parts for each in sent), EventType.MARKET_DATA).view(RECORD)
    row = 0
    for number, each in enumerate(sent, 1):
        for part in range(each.parts):
            fresh = blank(1, each.event_type)
            if each.event_type is EventType.MARKET_DATA:
                fresh["price"] = 100.0 + number
            elif each.event_type is EventType.ORDER:
                fresh["quantity"], fresh["direction"], fresh["order_type"], fresh["order_id"] = number, 1, 1, b"o"
            elif each.event_type is EventType.FILL:
                fresh["executed_qty"], fresh["executed_price"], fresh["commission"] = 1.0, number, 0.0
                fresh["order_id"] = b"o"
            else:
                fresh["strength"], fresh["signal_type"] = number, b"WIDE"
            fresh["source"], fresh["epoch"], fresh["sequence"] = each.source, each.epoch, each.sequence
            fresh["span"], fresh["part"], fresh["received"], fresh["cause"] = each.span, part, each.received, number
            fresh["timestamp"] = each.received - MS
            last = Flags.LAST_PART if part == each.parts - 1 else Flags.NONE
            fresh["flags"] = each.flags | last
            rows.view("V128")[row] = fresh.view("V128")[0]
            row += 1
    records = rows.view(DTYPES[types.pop()]) if len(types) == 1 else rows
    return EventBatch(records, SymbolTable(["A"]), SourceTable(SOURCES))


def line(count: int, *, source: int = PLUS_ONE, parts: int = 1) -> EventBatch:
    """One source's messages 1 to ``count``, a millisecond apart."""
    sent = [Sent(source, 0, number, parts=parts, received=START_NS + number * MS) for number in range(1, count + 1)]
    return batch_of(sent)


def numbers(batch: EventBatch) -> list[int]:
    """The sequence of each row."""
    return [int(number) for number in batch.records["sequence"]]


@st.composite
def batches(draw: st.DrawFn, most: int = 60) -> EventBatch:
    """Several sources' messages in order of arrival: parts, ranges, jumps, epochs, heartbeats; some twice or late."""
    reached: dict[int, tuple[int, int]] = {}
    sent: list[Sent] = []
    at = START_NS
    mixed = draw(st.booleans())
    # Lists that Hypothesis draws have 5 elements on average, too few for most faults; a seed gives as many as wanted.
    chosen = random.Random(draw(st.integers(0, 1 << 32)))
    choices = [chosen.getrandbits(20) for _ in range(draw(st.sampled_from([0, 1, 5, 20, most, most])))]
    for choice in choices:
        source = 1 + choice % 4
        epoch, number = reached.get(source, (0, 0))
        step, chance = choice // 4 % 4, choice // 16 % 32
        at += choice // 512 % 3 * MS
        span = step + 1 if source == RANGE else 1
        flags = 0
        if chance == 0:
            epoch, number = epoch + 1 + step % 2, 0
        if chance == 1 and number:
            flags, span = int(Flags.HEARTBEAT), 1
        elif chance == 2 and source == PLUS_ONE and number > 3:
            again = Sent(source, epoch, number - step % 3, received=at)
            sent.append(again)
            continue
        elif chance == 3:
            number += 2  # the batch's own loss
            number += span
        else:
            number += span + (step if source == SHARED else 0)
        reached[source] = (epoch, number)
        event_type = EventType(1 + choice // 2048 % 4) if mixed else EventType.MARKET_DATA
        parts = 1 + choice // 8192 % 3
        sequence = -1 if source == BARE or chance == 4 else number
        sent.append(Sent(source, epoch, sequence, span, parts, event_type, flags, at))
    return batch_of(sent)


def rates() -> st.SearchStrategy[dict[str, float]]:
    """Arguments of ``faults``, often several at once and frequent."""
    rate = st.sampled_from([0.0, 0.05, 0.2, 0.2, 1.0])
    length = st.integers(1, 5)
    return st.fixed_dictionaries(
        {
            **dict.fromkeys(("loss", "loss_bursts", "duplicates", "conflicts", "disorder", "late_bursts"), rate),
            "resets": st.sampled_from([0.0, 0.0, 0.1, 1.0]),
            "clock_steps": st.sampled_from([0.0, 0.0, 0.1]),
            "tail": st.sampled_from([0, 0, 1, 3]),
            **dict.fromkeys(("loss_burst_length", "duplicate_delay", "displacement", "late_burst_length"), length),
            "late_by_s": st.sampled_from([0.0005, 0.003, 10.0]),
            "step_s": st.sampled_from([-0.01, 0.5]),
        }
    )  # fmt: skip


def same_bytes(one: EventBatch, other: EventBatch) -> bool:
    """Whether all rows are equal to the last byte, unused ones included."""
    return bool(one.records.dtype == other.records.dtype) and one.records.tobytes() == other.records.tobytes()
