"""The static picture of gaps: an array of them in, a plotly figure out."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from hftlab.clock import format_time
from hftlab.events.tables import Source, SourceTable
from hftlab.sequence.gaps import GapReason, GapState
from hftlab.sequence.thinning import Ints, ends_of, latest_ns, thinned
from hftlab.sequence.wording import duration_text, numbers_text

Figure: TypeAlias = go.Figure

MOST_SOURCES = 40
MOST_GAPS = 2_000

_GREY = "#737b85"
"""Texts and lines: 4.3 to 1 against white, 4.4 against JupyterLab's dark. The ground is the page's own."""


@dataclass(frozen=True)
class _Look:
    """How a state looks: told apart by colour (Okabe and Ito's, for colour-blind eyes), sign, pattern and place."""

    colour: str
    sign: str
    pattern: str
    filled: bool
    offset: float


_LOOKS = {
    GapState.LOST: _Look("#d55e00", "x", "", True, 0.0),
    GapState.OPEN: _Look("#2b8fd6", "triangle-right", "/", False, -0.27),
    GapState.FILLED: _Look("#009e73", "circle-open", "", False, 0.27),
}


def gap_timeline(records: npt.NDArray[np.void], sources: SourceTable) -> Figure:
    """Gaps (dtype ``GAP``) by source over time, each a bar from its opening to its closing, marked by its state.

    Lost gaps are solid with a cross, filled ones outlines with a ring, open ones hatched up to the latest known moment
    with an arrow; each state has its third of a source's lane. Signs have a size of their own, so that what lasted no
    time is seen too. Times are UTC. Draws the 40 sources with most gaps and at most 2,000 gaps, and says under the
    title what it left out. Names are escaped. About 20 µs a gap drawn.
    """
    figure = go.Figure()
    shown, kept = _busiest(records)
    ends_ns = ends_of(shown, latest_ns(records))
    chosen, stands_for, stretch_ns = thinned(shown, ends_ns, MOST_GAPS)
    for state, look in _LOOKS.items():
        of_state = np.flatnonzero(shown["state"][chosen] == state)
        picked = chosen[of_state]
        if len(picked):
            total = int((records["state"] == state).sum())
            _add_state(
                figure, shown[picked], ends_ns[picked], stands_for[of_state], sources, kept, (state, look, total)
            )
    _lay_out(figure, records, [_label(sources[number]) for number in kept])
    left_out = _left_out(records, shown, len(kept), len(chosen), stretch_ns)
    if left_out:
        figure.update_layout(title={"subtitle": {"text": left_out, "font": {"size": 12, "color": _GREY}}})
        figure.update_layout(margin={"t": 84})
    return figure


def _busiest(records: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.void], list[int]]:
    """The gaps of the sources that are drawn, and these sources' ids, in the order of their first gaps."""
    numbers, first, counts = np.unique(records["source"], return_index=True, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:MOST_SOURCES]
    kept = numbers[most][np.argsort(first[most], kind="stable")]
    return records[np.isin(records["source"], kept)], [int(number) for number in kept]


def _add_state(
    figure: Figure,
    gaps: npt.NDArray[np.void],
    ends_ns: Ints,
    stands_for: Ints,
    sources: SourceTable,
    kept: list[int],
    kind: tuple[GapState, _Look, int],
) -> None:
    state, look, total = kind
    lane_of = {number: lane for lane, number in enumerate(kept)}
    lanes = [lane_of[number] + look.offset for number in gaps["source"].tolist()]
    tells = _tells(gaps, ends_ns, stands_for, sources)
    name = f"{state.name.lower()} ({total:,})"
    told: dict[str, Any] = {"customdata": tells, "hovertemplate": "%{customdata}<extra></extra>", "legendgroup": name}
    bar = {
        "color": look.colour if look.filled else "rgba(0,0,0,0)",
        "line": {"color": look.colour, "width": 1.5},
        "pattern": {"shape": look.pattern, "fgcolor": look.colour, "size": 5, "solidity": 0.5},
    }
    figure.add_bar(
        base=_dates(gaps["opened_ns"]), x=(ends_ns - gaps["opened_ns"]) / 1e6, y=lanes, orientation="h", width=0.2,
        marker=bar, name=name, showlegend=False, **told,
    )  # fmt: skip
    # What is open goes on beyond the right end; of the others the beginning is what a sign should be at.
    at_ns = ends_ns if state is GapState.OPEN else gaps["opened_ns"]
    sign = {"symbol": look.sign, "color": look.colour, "size": 9, "line": {"color": look.colour, "width": 1.5}}
    figure.add_scatter(x=_dates(at_ns), y=lanes, mode="markers", marker=sign, name=name, **told)


def _tells(gaps: npt.NDArray[np.void], ends_ns: Ints, stands_for: Ints, sources: SourceTable) -> list[str]:
    texts = []
    columns = ("source", "epoch", "first", "last", "state", "reason", "opened_ns", "closed_ns")
    for values, end_ns, others in zip(gaps[list(columns)].tolist(), ends_ns.tolist(), stands_for.tolist(), strict=True):
        source, epoch, first, last, state, reason, opened_ns, closed_ns = values
        why = f" ({GapReason(reason).name.lower()})" if reason else ""
        word = GapState(state).name.lower()
        lines = [
            f"<b>{html.escape(str(sources[source]))}</b>" + (f", epoch {epoch}" if epoch else ""),
            f"{numbers_text(first, last)}: {last - first + 1:,} number{'s' if last > first else ''} {word}{why}",
            f"{format_time(opened_ns)}, " + (duration_text(end_ns - opened_ns) if closed_ns else "still open"),
        ]
        if others > 1:
            lines.append(f"the longest of {others:,} {word} here")
        texts.append("<br>".join(lines))
    return texts


def _lay_out(figure: Figure, records: npt.NDArray[np.void], labels: list[str]) -> None:
    figure.update_layout(
        template="plotly_white",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": _GREY},
        height=150 + 36 * max(len(labels), 2),
        margin={"l": 20, "r": 20, "t": 64, "b": 40},
        barmode="overlay",
        title={"text": _title(records), "font": {"size": 14}, "x": 0, "xref": "paper", "yref": "container", "y": 0.96,
               "yanchor": "top"},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 1, "xanchor": "right"},
        showlegend=bool(len(records)),
        hoverlabel={"align": "left"},
    )  # fmt: skip
    lines = {"gridcolor": "rgba(115,123,133,0.3)", "zeroline": False, "linecolor": _GREY}
    figure.update_xaxes(type="date", title_text="UTC", **lines)
    figure.update_yaxes(
        tickvals=list(range(len(labels))),
        ticktext=labels,
        range=[max(len(labels), 1) - 0.5, -0.5],
        automargin=True,
        **lines,
    )
    if len(records):
        begin_ns, end_ns = int(records["opened_ns"].min()), latest_ns(records)
        room_ns = max((end_ns - begin_ns) // 40, 1_000_000)
        figure.update_xaxes(range=_dates(np.array([begin_ns - room_ns, end_ns + room_ns])))
    else:
        figure.update_xaxes(visible=False)
        figure.update_yaxes(visible=False)
        figure.add_annotation(
            text="no gaps", showarrow=False, font={"color": _GREY, "size": 16}, xref="paper", yref="paper", x=0.5, y=0.5
        )


def _title(records: npt.NDArray[np.void]) -> str:
    if not len(records):
        return ""
    missing = int((records["last"] - records["first"] + 1)[records["state"] == GapState.LOST].sum())
    return (
        f"{len(records):,} gap{'s' if len(records) != 1 else ''}, {missing:,} number{'s' if missing != 1 else ''} lost"
    )


def _left_out(
    records: npt.NDArray[np.void], shown: npt.NDArray[np.void], lanes: int, drawn: int, stretch_ns: int
) -> str:
    """What the picture does not show, said on it; "" where it shows all."""
    told = []
    if stretch_ns:
        told.append(
            f"{drawn:,} of {len(shown):,} are drawn: the longest of each source, state and {duration_text(stretch_ns)}"
        )
    if len(shown) < len(records):
        sources = len(np.unique(records["source"])) - lanes
        told.append(f"{sources:,} more sources with {len(records) - len(shown):,} gaps are not drawn")
    return "; ".join(told)


def _label(source: Source) -> str:
    text = str(source)
    return html.escape(text if len(text) <= 40 else f"{text[:24]}…{text[-15:]}")


def _dates(times_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.datetime64]:
    # plotly's dates end at microseconds, and so does its precision.
    return times_ns.astype("datetime64[ns]").astype("datetime64[us]")
