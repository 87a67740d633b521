"""What an inspector shows for which gaps: pure functions from rows and numbers to plain texts. Times are UTC.

Everything here is JSON that a view puts on the page with ``textContent``; no HTML is made.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hftlab.clock import format_time
from hftlab.events import EventBatch
from hftlab.replay import ReplayStatistics
from hftlab.sequence import Gap, GapReason, GapState, GapTable, duration_text, numbers_text
from hftlab.widgets.gap_choice import Choice
from hftlab.widgets.known_gaps import GapKey, Ints, KnownGaps
from hftlab.widgets.shown import clock_parts, latest_rows, state_label

MOST_SOURCES = 300
"""How many a list offers to choose from; a view has no use for more."""

MOST_AROUND = 40
"""Rows on either side of a gap: a message may have thousands."""

WHY = {
    GapReason.DEADLINE: "it stayed open beyond the deadline",
    GapReason.WINDOW: "as many messages were held as the window allows",
    GapReason.RESET: "the source began a new epoch",
    GapReason.END: "the session, or the run, ended",
    GapReason.DECIDED: "it was given up",
    GapReason.SKIPPED: "the replay was moved over it",
}

NO_REPLAY = "Only an inspector made of a replay can jump: hl.widgets.GapInspector(replay)"
NOTHING_BEFORE = "Nothing of this source was recorded before the gap"
NOTHING_AFTER = "The row that revealed this gap was not recorded"


def status(title: str, run: ReplayStatistics | None, known: KnownGaps) -> dict[str, Any]:
    """What stands at the top: whose gaps, the replay's state and clock (without one: none), how many there are."""
    at_ns = 0 if run is None else run.position_ns
    date, clock, fraction = clock_parts(at_ns) if at_ns else ("", "", "")
    return {
        "title": title,
        "state": "" if run is None else run.state,
        "label": "" if run is None else state_label(run.state, run.speed),
        "date": date,
        "clock": clock,
        "fraction": fraction,
        "position_ns": str(at_ns),
        "earlier": f"{int(known.earlier.sum()):,} from an earlier run" if known.earlier.any() else "",
    }


def filters(known: KnownGaps, choice: Choice, listed: int) -> dict[str, Any]:
    """What can be chosen, with counts of everything whatever is chosen: states, sources; and what is."""
    sources = known.by_source()
    kept = sorted(sources, key=lambda entry: -entry[2])[:MOST_SOURCES] if len(sources) > MOST_SOURCES else sources
    choices = [["", f"All {len(sources):,} sources" if len(sources) != 1 else "The only source"]]
    choices += [[str(number), f"{source} ({count:,})"] for number, source, count in sorted(kept, key=lambda e: e[1])]
    if len(kept) < len(sources):
        choices[0][1] += f", the {MOST_SOURCES} with most gaps below"
    return {
        "states": [
            [state.name.lower(), f"{count:,}", state in choice.states] for state, count in known.by_state().items()
        ],
        "sources": choices,
        "source": "" if choice.source is None else str(choice.source),
        "order": choice.order,
        "descending": choice.descending,
        "listed": listed,
        "known": len(known),
    }


def page(known: KnownGaps, indices: Ints, offset: int, total: int) -> dict[str, Any]:
    """A part of the list: ``rows`` of [key, opened, source, numbers, missing, state, reason, duration, earlier]."""
    columns = ["source", "epoch", "first", "last", "state", "reason", "opened_ns", "closed_ns"]
    earlier = known.earlier[indices].tolist()
    rows = [
        [
            key_text(GapKey(source, epoch, first, last)),
            format_time(opened_ns)[11:26],
            str(known.sources[source]),
            numbers_text(first, last),
            f"{last - first + 1:,}",
            GapState(state).name.lower(),
            GapReason(reason).name.lower() if reason else "",
            duration_text(closed_ns - opened_ns) if closed_ns else "",
            "earlier" if old else "",
        ]
        for (source, epoch, first, last, state, reason, opened_ns, closed_ns), old in zip(
            known.records[indices][columns].tolist(), earlier, strict=True
        )
    ]
    return {"offset": offset, "total": total, "rows": rows}


def key_text(key: GapKey) -> str:
    """A gap's key as a view names it, and ``parse_request`` reads it."""
    return ":".join(map(str, key))


def details(gap: Gap, key: GapKey, place: int, *, earlier: bool, jumps: bool) -> dict[str, Any]:
    """All about one gap: ``facts`` of [name, text], and for either side why it can't be jumped to ("": it can).

    ``mark`` has its values on the timeline, as texts.
    ``place`` is its place in the list, -1 where the filter hides it.
    """
    state = gap.state.name.lower()
    facts = [
        ["missing", f"{gap.numbers:,} number{'s' if gap.numbers > 1 else ''}"],
        ["opened", _moment(gap.opened_ns)],
        ["closed", _moment(gap.closed_ns) if gap.closed_ns else "not yet"],
    ]
    if gap.closed_ns:
        facts.append(["open for", duration_text(gap.duration_ns)])
    if gap.epoch:
        facts.append(["epoch", f"{gap.epoch:,}"])
    return {
        "key": key_text(key),
        "place": place,
        "state": state,
        "source": str(gap.source),
        "numbers": numbers_text(gap.first, gap.last),
        "mark": [str(int(value)) for value in _mark(gap, key, earlier=earlier)],
        "why": WHY.get(gap.reason, ""),
        "facts": facts,
        "earlier": earlier,
        "before": "" if jumps and gap.before else NOTHING_BEFORE if jumps else NO_REPLAY,
        "after": "" if jumps and gap.after else NOTHING_AFTER if jumps else NO_REPLAY,
    }


def _mark(gap: Gap, key: GapKey, *, earlier: bool) -> list[int]:
    """The values of ``gap_choice.MARK``, so that the timeline has the selected gap even where another stands for it."""
    return [gap.opened_ns, gap.closed_ns, *key, gap.state, gap.reason, 1, earlier]


def _moment(moment_ns: int) -> str:
    date, clock, fraction = clock_parts(moment_ns)
    return f"{date} {clock} {fraction}"


def around_rows(before: EventBatch, after: EventBatch) -> dict[str, Any]:
    """The rows on either side of a gap, oldest first: [number, *``shown.COLUMNS``, "emitted" or ""].

    ``split`` is how many of them come before it, ``cut`` tells on either side what was left out ("": nothing).
    """
    near, far = before[max(len(before) - MOST_AROUND, 0) :], after[:MOST_AROUND]
    batch = EventBatch.concat([near, far])
    numbers = ["" if number < 0 else str(number) for number in batch.records["sequence"].tolist()]
    texts = reversed(latest_rows(batch, len(batch)))
    return {
        "rows": [[number, *row] for number, row in zip(numbers, texts, strict=True)],
        "split": len(near),
        "cut": [_cut(len(before) - len(near), "earlier"), _cut(len(after) - len(far), "later")],
    }


def _cut(count: int, word: str) -> str:
    return f"{count:,} {word} row{'s' if count > 1 else ''} of these messages not shown" if count else ""


def counts(table: GapTable, source: str) -> list[list[str]]:
    """[name, figure, kind] of what was counted, of one source (its name) or of all ("")."""
    frame = table.by_source()
    chosen = frame[frame.index == source] if source else frame
    sums = {name: int(np.sum(chosen[name].to_numpy())) for name in chosen.columns}
    numbers = {"filled": "numbers filled", "lost": "numbers lost"}
    bad = ("late", "conflicting", "orphaned", "lost")
    return [
        [numbers.get(name, name), f"{count:,}", "bad" if count and name in bad else ""]
        for name, count in sums.items()
        if count or name in ("received", "delivered", "lost")
    ]
