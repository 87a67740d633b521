"""Gaps and sources as lines of text, for terminals: bounded, and they say what they leave out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hftlab.clock import format_time
from hftlab.sequence.gaps import GapReason, GapState, GapTable, gap_of
from hftlab.sequence.survey import Survey
from hftlab.sequence.wording import duration_text, numbers_text

_GAP_HEAD = ("source", "epoch", "first…last", "numbers", "state", "reason", "opened", "lasted")
_SOURCE_HEAD = ("source", "received", "delivered", "duplicate", "late", "conflicting", "filled", "lost")
_LEFT = frozenset({"source", "state", "reason", "opened"})
_NAME_WIDTH = 40
_TROUBLES = ("lost", "conflicting", "late", "filled", "duplicate")


def survey_lines(survey: Survey, name: str, rows: int = 20, rest: str = "") -> list[str]:
    """What was found in ``name``, the gaps, the sources; ``rest`` says how to see the gaps that are left out."""
    gaps = survey.gaps
    counts = ", ".join(f"{count:,} {state}" for state, count in gaps.counts.items() if count)
    lines = [f"gaps in {name}: {counts or 'none'}"]
    listed = gap_lines(gaps, rows)
    if len(gaps) > rows and rest:
        listed[-1] += f"; {rest}"
    for table in (listed, source_lines(gaps, rows)):
        lines += ["", *[f"  {line}" for line in table]] if table else []
    if gaps.forgotten:
        lines.append(f"{gaps.forgotten:,} gaps that closed earlier are no longer known: the table was full")
    if survey.given_up:
        lines.append(
            f"the window of a source of a strict type was full {survey.given_up:,} time{'s' * (survey.given_up != 1)}: "
            "a replay waits there for you to decide; here its gaps were given up (reason: decided)"
        )
    return lines


def gap_lines(gaps: GapTable, rows: int = 20) -> list[str]:
    """A line a gap, in the order of opening, below a head; ``lasted`` is how long it was open.

    Of more than ``rows`` gaps, the lost and the open ones come first to be shown, and a last line counts the others.
    """
    records = gaps.records
    if not len(records):
        return []
    worst = np.argsort(records["state"] == GapState.FILLED, kind="stable")
    cells = []
    for record in records[np.sort(worst[:rows])].tolist():
        gap = gap_of(record, gaps.sources)
        cells.append(
            (
                _short(str(gap.source)),
                str(gap.epoch),
                numbers_text(gap.first, gap.last),
                f"{gap.numbers:,}",
                gap.state.name.lower(),
                GapReason(gap.reason).name.lower() if gap.reason else "",
                format_time(gap.opened_ns),
                duration_text(gap.duration_ns) if gap.closed_ns else "",
            )
        )
    lines = _aligned(_GAP_HEAD, cells)
    left = records["state"][worst[rows:]]
    if len(left):
        told = [f"{count:,} {state.name.lower()}" for state in GapState if (count := int((left == state).sum()))]
        lines.append(f"… {len(left):,} more: {', '.join(told)}")
    return lines


def source_lines(gaps: GapTable, rows: int = 20) -> list[str]:
    """A line a source, below a head: messages received, delivered, …, and numbers filled and lost.

    Of more than ``rows`` sources, those with most wrong come first, and a last line counts the others.
    """
    frame = gaps.by_source()
    if not len(frame):
        return []
    head = [*_SOURCE_HEAD]
    head[6:6] = [name for name in ("orphaned", "buffered") if frame[name].any()]
    frame = frame.sort_values([*_TROUBLES, "received"], ascending=False, kind="stable")
    named = zip(frame.index[:rows], frame[head[1:]][:rows].to_numpy().tolist(), strict=True)
    lines = _aligned(head, [(_short(str(name)), *[f"{count:,}" for count in counts]) for name, counts in named])
    left = frame[rows:]
    if len(left):
        wrong = int(left[list(_TROUBLES)].any(axis=1).sum())
        plural = "s" if len(left) != 1 else ""
        lines.append(f"… {len(left):,} more source{plural}, " + (f"{wrong:,} of them not clean" if wrong else "clean"))
    return lines


def _short(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH else f"{name[:24]}…{name[-15:]}"


def _aligned(head: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    lines = []
    for line in (head, *cells):
        aligned = [
            text.ljust(width) if name in _LEFT else text.rjust(width)
            for name, text, width in zip(head, line, widths, strict=True)
        ]
        lines.append("  ".join(aligned).rstrip())
    return lines
