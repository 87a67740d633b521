"""Which gaps an inspector lists, in which order, and which of them its timeline draws: arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hftlab.sequence import GapState, duration_text, ends_of, latest_ns, thinned
from hftlab.widgets.known_gaps import Ints, KnownGaps

ORDERS = ("opened", "source", "first", "numbers", "state", "duration")
"""What the list may be ordered by: its columns' words."""

MOST_LANES = 12
MOST_MARKS = 700
"""Some 55 kB a refresh that changed them, and about as many as a screen has room for."""

MARK = ("opened_ns", "closed_ns", "source", "epoch", "first", "last", "state", "reason", "stands_for", "earlier")
"""The rows of a timeline's marks, int64; ``stands_for`` is how many gaps one drawn gap stands for."""


@dataclass(frozen=True)
class Choice:
    """The filter and the order. ``source`` is an id, or None for all."""

    source: int | None = None
    states: frozenset[GapState] = frozenset(GapState)
    order: str = "opened"
    descending: bool = False

    def toggled(self, state: GapState) -> Choice:
        """With this state shown if it was not, and hidden if it was."""
        return replace(self, states=self.states ^ {state})

    def ordered(self, order: str) -> Choice:
        """In this order; in reverse where it is in this order already."""
        return replace(self, order=order, descending=order == self.order and not self.descending)


def choose(known: KnownGaps, choice: Choice) -> Ints:
    """The indices of the gaps that the filter leaves, in order; gaps that are equal in it, by their opening."""
    records = known.records
    mask = np.isin(records["state"], [int(state) for state in choice.states])
    if choice.source is not None:
        mask &= records["source"] == choice.source
    listed = np.flatnonzero(mask)
    kept = records[listed]
    keys = [kept["first"], kept["opened_ns"]]
    if choice.order == "numbers":
        keys.append(kept["last"] - kept["first"])
    elif choice.order == "duration":
        keys.append(ends_of(kept, latest_ns(records)) - kept["opened_ns"])
    elif choice.order in ("source", "first", "state"):
        keys.append(_ranks(known)[kept["source"]] if choice.order == "source" else kept[choice.order])
    order = np.lexsort(keys)
    return listed[order[::-1] if choice.descending else order]


def _ranks(known: KnownGaps) -> Ints:
    """Each source's place by name."""
    ranks = np.zeros(len(known.sources), np.int64)
    for rank, (number, _, _) in enumerate(known.by_source()):
        ranks[number] = rank
    return ranks


def whole_range(known: KnownGaps, run_ns: tuple[int, int]) -> tuple[int, int]:
    """The moments from which to which a timeline reaches, in ns: what is replayed (0, 0: unknown), and all gaps."""
    begin_ns, end_ns = run_ns
    if len(known):
        opened_ns = int(known.records["opened_ns"].min())
        begin_ns = min(begin_ns, opened_ns) if begin_ns else opened_ns
        end_ns = max(end_ns, latest_ns(known.records))
    room_ns = max((end_ns - begin_ns) // 50, 500_000)
    return (begin_ns - room_ns, end_ns + room_ns) if end_ns else (0, 0)


def timeline(known: KnownGaps, listed: Ints, range_ns: tuple[int, int]) -> dict[str, Any]:
    """The marks within a range, for a view: ``lanes`` ([id, name]), ``marks`` (bytes: int64, a row for each of
    ``MARK``), and what it left out: ``more_sources``, ``gaps`` within the range, ``drawn``, ``stretch``.

    The 12 sources with most of the listed gaps, at most 700 marks, see ``thinned``. What is open reaches to the end of
    the range here, and in a view to ``until_ns`` or the cursor. About 0.5 µs a gap.
    """
    records = known.records[listed]
    begin_ns, end_ns = range_ns
    numbers, counts = np.unique(records["source"], return_counts=True)
    lanes = sorted(numbers[np.argsort(-counts, kind="stable")[:MOST_LANES]].tolist(), key=lambda n: known.sources[n])
    ends_ns = ends_of(records, end_ns)
    within = (records["opened_ns"] <= end_ns) & (ends_ns >= begin_ns) & np.isin(records["source"], lanes)
    records, ends_ns = records[within], ends_ns[within]
    drawn, stands_for, stretch_ns = thinned(records, ends_ns, MOST_MARKS, begin_ns)
    columns = [records[name][drawn] for name in MARK[:-2]]
    marks = np.stack([*columns, stands_for, known.earlier[listed][within][drawn]]).astype(np.int64)
    return {
        "lanes": [[str(number), str(known.sources[number])] for number in lanes],
        "marks": marks.tobytes(),
        "more_sources": len(numbers) - len(lanes),
        "gaps": len(records),
        "drawn": len(drawn),
        "stretch": duration_text(stretch_ns),
        # As text: a browser's numbers end at 2**53.
        "begin_ns": str(begin_ns),
        "end_ns": str(end_ns),
        "until_ns": str(latest_ns(known.records)),
    }
