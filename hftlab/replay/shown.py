"""A replay as text and as HTML."""

from __future__ import annotations

import html

from hftlab.clock import format_time
from hftlab.replay.selection import Selection, Span
from hftlab.replay.statistics import ReplayStatistics


def describe(name: str, shown: ReplayStatistics) -> str:
    """One short line, the same for the same position."""
    at = f", at {format_time(shown.position_ns)}" if shown.delivered else ""
    failure = f", FAILED: {shown.failure.splitlines()[0]}" if shown.failure else ""
    return f"Replay({name}: {shown.state}, {shown.delivered:,} events{at}{failure})"


def html_of(name: str, shown: ReplayStatistics, digest: str) -> str:
    """A small table. Names and failures are escaped. No rates: it is the same for the same position."""
    cells = {
        "state": shown.state,
        "events": f"{shown.delivered:,}" + (f", {shown.skipped:,} skipped" if shown.skipped else ""),
        "emitted": f"{shown.emitted:,}",
        "at": format_time(shown.position_ns) if shown.delivered else "",
        "digest": digest,
        "failure": shown.failure,
    }
    rows = "".join(f"<tr><th>{label}</th><td>{html.escape(text)}</td></tr>" for label, text in cells.items() if text)
    return f"<div><b>Replay</b> of {html.escape(name)}<table>{rows}</table></div>"


def nothing_left(span: Span, selection: Selection, filtered: int) -> str:
    """Why a replay delivered nothing, and what would do."""
    session = span.session
    if not filtered:
        counts = ", ".join(f"{count:,} {word}" for word, count in session.counts.items() if count)
        return (
            f"no event of session {session.name!r} lies in this range; it holds {counts} from "
            f"{format_time(session.start_ns)} to {format_time(session.end_ns)}: widen start, end or types"
        )
    filters = [f"{option}=" for option in ("symbols", "where") if getattr(selection, option) is not None]
    return (
        f"{' and '.join(filters)} left none of the {filtered:,} events that session {session.name!r} has in this "
        "range: ask for less, or widen the range"
    )
