"""The static picture of what became of published events: statistics of buses in, a plotly figure out."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hftlab.metrics.wording import value_text

if TYPE_CHECKING:
    from hftlab.bus.statistics import BusStatistics, LaneStatistics

Figure: TypeAlias = go.Figure

MOST_BUSES = 16

LANE_COLOURS = {"CRITICAL": "#b8589a", "HIGH": "#c98a00", "NORMAL": "#2b8fd6", "LOW": "#009e73"}
"""The lanes', here and in the live views; told apart by colour-blind eyes."""
_GREY = "#737b85"
"""Texts and lines: 4.3 to 1 against white, 4.4 against JupyterLab's dark. The ground is the page's own."""
_REASONS = ("#d55e00", "#8c4a1f", "#7f6fd6", "#5b6470", "#cf3f62", "#6b8e23")
_KNOWN = {"drop newest": 0, "drop oldest": 1, "conflate": 2, "shed: overload": 3}
_LEAST_NS = 1_000.0
_ROW_PX = 26
_GROUP_PX = 12


class _Row(NamedTuple):
    """One lane of one bus, and the place that it is drawn at (the y axis counts downwards)."""

    label: str
    tell: str
    at: float
    lane: LaneStatistics


def lanes_figure(shown: Mapping[str, BusStatistics]) -> Figure:
    """What became of the events in each lane of each bus: how long they waited, and the parts that gave way.

    A row a lane, for every lane that had an event, the most urgent first; the buses (16 at most) in their order, by
    name. Left: from p50 (circle) over p99 (square) to the longest wait, on a logarithmic axis. Right: the parts of the
    lane's events that went through its handlers, still wait, or gave way, by reason, with their numbers. Names are
    escaped. About 50 ms.
    """
    kept = dict(list(shown.items())[:MOST_BUSES])
    rows = _rows(kept)
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, column_widths=[0.55, 0.45], horizontal_spacing=0.03,
        subplot_titles=("how long they waited: ● p50, ■ p99, | longest", "what became of them"),
    )  # fmt: skip
    low, high = _range_ns(rows)
    for row in rows:
        if row.lane.handled:
            _add_waits(figure, row, low, high)
    _add_parts(figure, rows)
    _lay_out(figure, rows, low, high)
    _add_title(figure, kept, len(shown) - len(kept))
    return figure


def _rows(shown: Mapping[str, BusStatistics]) -> list[_Row]:
    rows: list[_Row] = []
    at = 0.0
    for name, statistics in shown.items():
        used = [lane for lane in statistics.lanes if lane.handled or lane.waiting or lane.gave_way]
        for place, lane in enumerate(used):
            bold = f"<b>{html.escape(name)}</b>  " if name and not place else ""
            tell = f"{html.escape(name)}, {lane.lane}" if name else lane.lane
            rows.append(_Row(f"{bold}{lane.lane}", tell, at, lane))
            at += 1
        at += _GROUP_PX / _ROW_PX if used else 0
    return rows


def _waits_ns(lane: LaneStatistics) -> tuple[float, float, float]:
    """p50, p99 and the longest, with room on a logarithmic axis; percentiles are a bucket's, and may lie above it."""
    longest = max(float(lane.wait_max_ns), _LEAST_NS)
    p50, p99 = (min(max(float(wait), _LEAST_NS), longest) for wait in (lane.wait_p50_ns, lane.wait_p99_ns))
    return p50, p99, longest


def _range_ns(rows: Sequence[_Row]) -> tuple[float, float]:
    waits = [_waits_ns(row.lane) for row in rows if row.lane.handled]
    low = min((p50 for p50, _, _ in waits), default=_LEAST_NS)
    high = max((longest for _, _, longest in waits), default=1e6)
    return low / 1.6, max(high * 1.6, low * 10)


def _add_waits(figure: Figure, row: _Row, low: float, high: float) -> None:
    lane, colour = row.lane, LANE_COLOURS[row.lane.lane]
    waits = _waits_ns(lane)
    words = [
        f"{row.tell}: {what} {value_text(value, 'ns')}"
        for what, value in (("p50", lane.wait_p50_ns), ("p99", lane.wait_p99_ns), ("longest", lane.wait_max_ns))
    ]
    # Said on the side where there is more room.
    on_right = np.log(high / waits[-1]) > np.log(waits[0] / low)
    said = f"p50 {value_text(lane.wait_p50_ns, 'ns')}, p99 {value_text(lane.wait_p99_ns, 'ns')}"
    figure.add_scatter(
        x=waits, y=[row.at] * 3, mode="lines+markers+text", line={"color": colour, "width": 2},
        marker={"symbol": ["circle", "square", "line-ns"], "color": colour, "opacity": 1, "size": [10, 9, 13],
                "line": {"color": colour, "width": 2}},
        text=["", "", f"  {said}"] if on_right else [f"{said}  ", "", ""],
        textposition="middle right" if on_right else "middle left", textfont={"size": 11, "color": _GREY},
        customdata=words, hovertemplate="%{customdata}<extra></extra>", showlegend=False, cliponaxis=False,
        row=1, col=1,
    )  # fmt: skip


def _add_parts(figure: Figure, rows: Sequence[_Row]) -> None:
    reasons = sorted({reason for row in rows for reason in row.lane.gave_way})
    parts = {"handled": [row.lane.handled for row in rows], "waiting": [row.lane.waiting for row in rows]}
    parts |= {reason: [row.lane.gave_way.get(reason, 0) for row in rows] for reason in reasons}
    colours: dict[str, Any] = {
        "handled": [LANE_COLOURS[row.lane.lane] for row in rows], "waiting": "rgba(115,123,133,0.45)",
        **_reason_colours(reasons),
    }  # fmt: skip
    totals = [max(sum(counts[place] for counts in parts.values()), 1) for place in range(len(rows))]
    for name, counts in parts.items():
        if not any(counts):
            continue
        percents = [100 * count / total for count, total in zip(counts, totals, strict=True)]
        figure.add_bar(
            x=percents, y=[row.at for row in rows], orientation="h", width=0.62,
            name=html.escape(name), marker={"color": colours[name], "line": {"width": 0}},
            text=[f"{count:,}" if percent > 8 else "" for count, percent in zip(counts, percents, strict=True)],
            textposition="inside", insidetextanchor="middle", textangle=0,
            textfont={"size": 11, "color": _GREY if name == "waiting" else "white"},
            customdata=[f"{row.tell}: {count:,} {html.escape(name)}, {percent:.3g} %" for row, count, percent in
                        zip(rows, counts, percents, strict=True)],
            hovertemplate="%{customdata}<extra></extra>", showlegend=name != "handled", row=1, col=2,
        )  # fmt: skip
    figure.add_scatter(
        x=[100] * len(rows), y=[row.at for row in rows], mode="text", text=[f" of {total:,}" for total in totals],
        textposition="middle right", textfont={"size": 11, "color": _GREY}, showlegend=False, hoverinfo="skip",
        cliponaxis=False, row=1, col=2,
    )  # fmt: skip


def _reason_colours(reasons: Sequence[str]) -> dict[str, str]:
    """A colour for each reason: the same for the same policy in every picture, of what is left for the users' rules."""
    known = {reason: _KNOWN[reason] for reason in reasons if reason in _KNOWN}
    left = [place for place in range(len(_REASONS)) if place not in known.values()] or [len(_REASONS) - 1]
    others = [reason for reason in reasons if reason not in _KNOWN]
    places = {**known, **{reason: left[index % len(left)] for index, reason in enumerate(others)}}
    return {reason: _REASONS[place] for reason, place in places.items()}


def _lay_out(figure: Figure, rows: Sequence[_Row], low: float, high: float) -> None:
    bottom = rows[-1].at if rows else 0.0
    figure.update_layout(
        template="plotly_white",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": _GREY},
        barmode="stack",
        height=178 + round(_ROW_PX * (max(bottom, 1) + 1)),
        margin={"l": 20, "r": 20, "t": 78, "b": 70},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 0, "yref": "container", "yanchor": "bottom"},
    )
    figure.update_annotations(font={"size": 12, "color": _GREY})
    lines: dict[str, Any] = {"gridcolor": "rgba(115,123,133,0.25)", "zeroline": False, "linecolor": _GREY}
    ticks = [10.0**power for power in range(3, 13) if low <= 10.0**power <= high]
    figure.update_xaxes(
        type="log", range=[np.log10(low), np.log10(high)], tickvals=ticks,
        ticktext=[value_text(tick, "ns") for tick in ticks], row=1, col=1, **lines,
    )  # fmt: skip
    # Room for the totals behind the bars.
    marks = [0, 25, 50, 75, 100]
    figure.update_xaxes(range=[0, 122], tickvals=marks, ticktext=[f"{mark} %" for mark in marks], row=1, col=2, **lines)
    figure.update_yaxes(
        tickvals=[row.at for row in rows], ticktext=[row.label for row in rows], range=[bottom + 0.6, -0.6],
        showgrid=False, zeroline=False, automargin=True,
    )  # fmt: skip
    if not rows:
        figure.update_xaxes(visible=False)
        figure.layout.annotations = ()
        figure.add_annotation(
            text="nothing was published yet", showarrow=False, font={"color": _GREY, "size": 16},
            xref="paper", yref="paper", x=0.5, y=0.5,
        )  # fmt: skip


def _add_title(figure: Figure, shown: Mapping[str, BusStatistics], left_out: int) -> None:
    """How many were published, and whatever else than a lane's doings became of them."""
    published = sum(statistics.published for statistics in shown.values())
    counts = {
        name: sum(getattr(statistics, name) for statistics in shown.values())
        for name in ("dead_lettered", "held", "redelivered", "duplicate", "set_aside")
    }
    given_up = sum(one.dropped - one.dropped_newest - one.dropped_oldest for one in shown.values())
    notes = [
        f"{count:,} {name.replace('_', ' ').replace('dead l', 'dead-l')}" for name, count in counts.items() if count
    ]
    notes += [f"{given_up:,} given up"] if given_up else []
    notes += [f"{left_out:,} more not drawn"] if left_out else []
    title: dict[str, Any] = {
        "text": f"{published:,} events published", "font": {"size": 14}, "x": 0, "xref": "paper",
        "yref": "container", "y": 1, "pad": {"t": 14}, "yanchor": "top",
    }  # fmt: skip
    if notes:
        title["subtitle"] = {"text": "; ".join(notes), "font": {"size": 12, "color": _GREY}}
    figure.update_layout(title=title)
