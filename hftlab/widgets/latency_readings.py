"""What a latency panel says of which histograms: pure functions from figures to plain texts.

Everything here is JSON that a view puts on the page with ``textContent``; no HTML is made, so that a symbol's or a
handler's name stays text. Values are ns.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from hftlab.metrics import Histogram, Stage, percentile_text, value_text
from hftlab.widgets.bus_readings import share_text, short_name

MOST_ROWS = 40
"""Rows of the table: those with the most values, and the chosen one. A row costs 30 µs."""
COLUMNS = (0.5, 0.9, 0.99, 0.999)
STACKED = (Stage.RECEIVED, Stage.APPENDED, Stage.READ, Stage.SEQUENCED, Stage.DISPATCHED, Stage.HANDLED)
"""The stretches that follow each other; TOTAL is all but the first."""
STACK_QUANTILES = (0.5, 0.99)
NOT_ADDING_UP = "Percentiles of stretches don't add up to the whole's: who is slow in one need not be slow in the next."

Badge: TypeAlias = list[str]
"""Kind (``good``, ``warn``, ``bad`` or ``plain``), text, and what it means."""
Named: TypeAlias = Mapping[str, Histogram]

_SKEW = "The venue's clock is ahead of the recorder's by more than these took. To read them: "
_CLOCKS = {
    Stage.RECEIVED: _SKEW + "skew = replay.latency.skew, then lab.replay(session, skew=skew).",
    Stage.APPENDED: "Whatever stamped the arrivals is ahead of the server's clock by more than these took.",
    Stage.READ: "The server's clock is ahead of this machine's by more than these took.",
    Stage.TOTAL: "Whatever stamped the arrivals is ahead of this machine's clock by more than these took.",
}
_ONE_CLOCK = "One clock told both ends: it was set back in between."


class Grouping(enum.StrEnum):
    """By what the table lists. The values are the messages' words, and the engine's."""

    STAGE = "stage"
    TYPE = "type"
    SYMBOL = "symbol"
    HANDLER = "handler"


GROUPING_HEADS = {
    Grouping.STAGE: "Stages",
    Grouping.TYPE: "Types",
    Grouping.SYMBOL: "Symbols",
    Grouping.HANDLER: "Handlers",
}
STAGES_OF: Mapping[Grouping, tuple[Stage, ...]] = {
    Grouping.STAGE: tuple(Stage),
    Grouping.TYPE: tuple(Stage),
    Grouping.SYMBOL: (Stage.RECEIVED, Stage.TOTAL),
    Grouping.HANDLER: (Stage.HANDLED,),
}
"""What is kept for each: a symbol's waits are those of whole batches, and a handler has a part in the last alone."""


@dataclass(frozen=True)
class Chosen:
    """What is looked at: a stage, and one row of what it is listed by ("": all of it)."""

    by: Grouping = Grouping.STAGE
    stage: Stage = Stage.TOTAL
    row: str = ""

    @property
    def words(self) -> str:
        """As a title has it: ``received → handled of BTCUSDT``."""
        return self.stage.value + (f" of {self.name}" if self.name else "")

    @property
    def name(self) -> str:
        """What the chosen row is called; "" for all of it."""
        return "" if self.by is Grouping.STAGE else short_name(self.row) if self.by is Grouping.HANDLER else self.row

    @property
    def key(self) -> str:
        """The key of the row that is chosen; "" for none."""
        return self.stage.name if self.by is Grouping.STAGE else self.row


# -- the top ----------------------------------------------------------------------------------------------------------


def badges(histogram: Histogram, stage: Stage, sample: int) -> list[Badge]:
    """What stands beside the title: how many values, how they were chosen, and what has no bucket."""
    listed = [["plain", f"{histogram.recorded:,} latencies", f"Percentiles are within {histogram.precision:.2%}"]]
    if sample > 1:
        listed.append(["plain", f"1 of {sample:,} rows", "Sampled: each so many rows; what stages wait for, all"])
    if histogram.negative:
        listed.append(["warn", f"{histogram.negative:,} negative", negative_words(stage)])
    if histogram.overflow:
        listed.append(["warn", f"{histogram.overflow:,} beyond the top", "Longer than 146 years: no latency"])
    return listed


def choice(chosen: Chosen) -> dict[str, Any]:
    """What is chosen, and what can be."""
    return {
        "by": chosen.by.value,
        "bys": [[by.value, head] for by, head in GROUPING_HEADS.items()],
        "stage": chosen.stage.name,
        "stages": [[stage.name, stage.value] for stage in STAGES_OF[chosen.by]],
        "row": "" if chosen.by is Grouping.STAGE else chosen.row,
        "name": chosen.name,
        "words": chosen.words,
    }


def negative_words(stage: Stage) -> str:
    """What it means that latencies of a stage are negative, and what to do."""
    return _CLOCKS.get(stage, _ONE_CLOCK)


def notes(stages: Mapping[Stage, Histogram]) -> list[str]:
    """A sentence for each stage that has negative values; they are counted, and in no percentile."""
    return [
        f"{histogram.negative:,} of {histogram.recorded:,} ({_percent(histogram)}) {stage.value} are negative, and in "
        f"no percentile. {negative_words(stage)}"
        for stage, histogram in stages.items()
        if histogram.negative
    ]


def _percent(histogram: Histogram) -> str:
    percent = 100 * histogram.negative / histogram.recorded
    return "under 0.1 %" if percent < 0.1 else f"{percent:.1f} %"


# -- the table --------------------------------------------------------------------------------------------------------


def table(rows: Named, others: Named | None, chosen: Chosen) -> dict[str, Any]:
    """The figures of each row: ``rows`` of a key, a name and texts by ``heads``; ``others``: those of what is compared.

    Stages come in their order, all else by the number of values. ``more`` tells how many rows there is no room for.
    """
    listed = [(key, histogram) for key, histogram in rows.items() if histogram.recorded or key == chosen.key]
    if chosen.by is not Grouping.STAGE:
        listed.sort(key=lambda row: -row[1].recorded)
    shown = [row for at, row in enumerate(listed) if at < MOST_ROWS or row[0] == chosen.key]
    heads = [chosen.by.value.capitalize(), "Values", *(percentile_text(q) for q in COLUMNS), "Longest", "Negative"]
    if others is not None:
        heads += ["p50 vs", "p99 vs"]
    left_out = len(listed) - len(shown)
    return {
        "by": chosen.by.value,
        "heads": heads,
        "rows": [_row(key, histogram, others, chosen.by) for key, histogram in shown],
        "chosen": chosen.key,
        "more": f"{left_out:,} more, of fewer values: see .to_frame(by={chosen.by.value!r})" if left_out else "",
        "nothing": "" if shown else _nothing(chosen),
    }


def _row(key: str, histogram: Histogram, others: Named | None, by: Grouping) -> list[str]:
    name = Stage[key].value if by is Grouping.STAGE else short_name(key) if by is Grouping.HANDLER else key
    values = histogram.quantiles(COLUMNS)
    longest = "" if histogram.maximum is None else value_text(histogram.maximum, "ns")
    negative = f"{histogram.negative:,}" if histogram.negative else ""
    texts = [f"{histogram.count:,}", *(_value(value) for value in values), longest, negative]
    if others is not None:
        other = others.get(key)
        before = [float("nan")] * 2 if other is None else other.quantiles(STACK_QUANTILES)
        texts += [change(before[0], values[0]), change(before[1], values[2])]
    return [key, name, *texts]


def change(before: float, now: float) -> str:
    """What became of a value: ``+40 %``, ``3.2 ×`` from twice on, ``=`` within 0.5 %; nothing without one."""
    if not before > 0 or not now >= 0:
        return ""
    ratio = now / before
    if ratio >= 2:
        return f"{ratio:,.3g} ×" if ratio < 1_000 else f"{ratio:,.0f} ×"
    percent = round(100 * (ratio - 1))
    return f"{percent:+d} %".replace("-", "\N{MINUS SIGN}") if abs(ratio - 1) > 0.005 and percent else "="


def _value(value: float) -> str:
    return "" if value != value else value_text(value, "ns")


def _nothing(chosen: Chosen) -> str:
    if chosen.by is Grouping.STAGE:
        return "Nothing has been recorded yet: it is as events come, unless journeys=0"
    if chosen.by is Grouping.HANDLER:
        return "No handler has been measured yet"
    return f"No {chosen.by.value} has {chosen.stage.value} yet"


# -- stages, stacked --------------------------------------------------------------------------------------------------


def stack(runs: Sequence[tuple[str, Mapping[Stage, Histogram]]], *, wire: bool) -> dict[str, Any]:
    """Bars of p50 and of p99, one for each run: ``bars`` of a label, the sum in words, and a segment a stage.

    A segment is a stage's name, its part of the longest bar of the same percentile (0 to 1), its value, and all of that
    in words. ``wire``: with exchange → received, which is mostly so long that nothing else is to be seen beside it.
    """
    shown = [stage for stage in STACKED if wire or stage is not Stage.RECEIVED]
    bars: list[list[Any]] = []
    for place, q in enumerate(STACK_QUANTILES):
        values = [
            (name, {stage: stages[stage].quantile(q) for stage in shown if stage in stages and stages[stage].count})
            for name, stages in runs
        ]
        longest = max((sum(parts.values()) for _, parts in values), default=0.0)
        for name, parts in values:
            label = percentile_text(q) + (f", {name}" if len(runs) > 1 else "")
            total = sum(parts.values())
            segments = [_segment(stage, value, total, longest) for stage, value in parts.items()]
            bars.append([label, value_text(total, "ns") if parts else "", segments, place])
    present = {Stage[segment[0]] for bar in bars for segment in bar[2]}
    has_wire = any(stages[Stage.RECEIVED].count for _, stages in runs if Stage.RECEIVED in stages)
    return {
        "bars": bars if present else [],
        "legend": [[stage.name, stage.value] for stage in STACKED if stage in present],
        "wire": wire,
        "has_wire": has_wire,
        "note": NOT_ADDING_UP if len(present) > 1 else "",
        "nothing": "" if present else _no_stack(has_wire=has_wire),
    }


def _segment(stage: Stage, value: float, total: float, longest: float) -> list[Any]:
    text = value_text(value, "ns")
    share = f", {share_text(value / total)}" if total else ""
    return [stage.name, round(value / longest, 5) if longest else 0.0, text, f"{stage.value}: {text}{share}"]


def _no_stack(*, has_wire: bool) -> str:
    return "Nothing after the arrival has been measured" if has_wire else "No stage has been measured yet"
