"""Static pictures of what the live widgets show: arrays in, a plotly figure out."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hftlab.clock import format_time
from hftlab.widgets.bus_history import BusSamples

Figure: TypeAlias = go.Figure

Path = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Times in ns since 1970 UTC, rising, and a price for each."""

_COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#bf3989")
_GREY = "#6e7781"
_LANES = {"CRITICAL": "#b8589a", "HIGH": "#c98a00", "NORMAL": "#2b8fd6", "LOW": "#009e73"}
"""Okabe and Ito's, for colour-blind eyes, as the monitor draws the lanes; readable on white and on dark."""
_PATTERNS = ("", "/", ".", "x", "-")


def replay_figure(
    paths: Mapping[str, Path], position_ns: int, range_ns: tuple[int, int] | None = None, title: str = ""
) -> Figure:
    """Price over time by symbol (several: in % of the first), with a cursor at ``position_ns`` (0: none).

    ``range_ns`` is the first and last moment of what is replayed: the picture is as wide as that. Names are escaped,
    because plotly takes text for markup.
    """
    figure = go.Figure()
    several = len(paths) > 1
    for index, (symbol, (times_ns, prices)) in enumerate(paths.items()):
        known = prices[~np.isnan(prices)]
        shown = 100 * prices / known[0] if several and len(known) else prices
        figure.add_scatter(
            x=_dates(times_ns), y=shown, name=html.escape(symbol), mode="lines",
            line={"color": _COLOURS[index % len(_COLOURS)], "width": 1.5},
        )  # fmt: skip
    if position_ns:
        # Not add_vline, whose annotations can't place themselves on an axis of dates.
        at = _dates(np.array([position_ns]))[0]
        figure.add_shape(type="line", x0=at, x1=at, y0=0, y1=1, yref="paper", line={"color": _GREY, "dash": "dot"})
    if range_ns is not None and range_ns[0] < range_ns[1]:
        figure.update_xaxes(range=_dates(np.array(range_ns)).tolist())
    if not paths:
        figure.add_annotation(
            text="nothing with a price has been delivered yet",
            showarrow=False, font={"color": _GREY}, xref="paper", yref="paper", x=0.5, y=0.5,
        )  # fmt: skip
    figure.update_layout(
        template="plotly_white",
        height=320,
        margin={"l": 60, "r": 20, "t": 40 if title else 20, "b": 40},
        title={"text": html.escape(title), "font": {"size": 14}} if title else None,
        yaxis_title="price, % of the first" if several else "price",
        xaxis_title="UTC",
        showlegend=several,
        legend={"orientation": "h", "y": 1.1},
    )
    return figure


def _dates(times_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.datetime64]:
    # plotly's dates end at microseconds, and so does its precision.
    return times_ns.astype("datetime64[ns]").astype("datetime64[us]")


def bus_figure(samples: BusSamples, title: str = "") -> Figure:
    """Rows waiting by lane over the time of the samples, and below them what gave way a second, stacked.

    Of lanes that had any event. Seconds count from the first sample, whose time is under the picture; what gave way
    between two samples is spread evenly over the time between them. Reasons and counts are in the legend.
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.62, 0.38], vertical_spacing=0.08)
    since_s = (samples.times_ns - samples.times_ns[:1]) / 1e9
    had = samples.handled[-1:].any(axis=0) | samples.waiting.any(axis=0) | samples.gave_way[-1:].any(axis=0)
    used = np.flatnonzero(had).tolist()
    for place in used:
        name = samples.lanes[place]
        colour = _LANES.get(name, _GREY)
        look = {"color": colour, "width": 1.5, "shape": "hv"}
        figure.add_scatter(
            x=since_s, y=samples.waiting[:, place], name=html.escape(name), mode="lines", line=look, row=1, col=1,
            hovertemplate="%{y:,} waiting",
        )  # fmt: skip
    gave = False
    for place in used:
        gave = _add_gave_way(figure, samples, since_s, place) or gave
    _lay_out_bus(figure, samples, title, nothing=not used)
    if used and not gave:
        # plotly draws no axes where nothing is drawn, and puts the note into the picture above.
        figure.add_scatter(x=since_s[[0, -1]], y=[0, 0], mode="lines", line={"width": 0}, hoverinfo="skip",
                           showlegend=False, row=2, col=1)  # fmt: skip
        figure.add_annotation(
            text="nothing gave way", showarrow=False, font={"color": _GREY}, xref="x2 domain", yref="y2 domain",
            x=0.5, y=0.5,
        )  # fmt: skip
    return figure


def _add_gave_way(figure: Figure, samples: BusSamples, since_s: npt.NDArray[np.float64], place: int) -> bool:
    """The rates of one lane, by reason; whether there are any."""
    name = samples.lanes[place]
    added = False
    for index, (reason, counts) in enumerate(samples.reasons.items()):
        column = counts[:, place]
        if len(column) < 2 or column[-1] == column[0]:
            continue
        took_s = np.diff(since_s)
        rates = np.divide(np.diff(column), took_s, out=np.zeros(len(took_s)), where=took_s > 0)
        figure.add_bar(
            x=since_s[:-1] + took_s / 2, y=rates, width=took_s, row=2, col=1,
            name=html.escape(f"{name} {reason}: {column[-1] - column[0]:,}"), hovertemplate="%{y:,.0f}/s",
            marker={
                "color": _LANES.get(name, _GREY), "line": {"width": 0},
                "pattern": {"shape": _PATTERNS[index % 5], "size": 5, "fgcolor": "white", "solidity": 0.3},
            },
        )  # fmt: skip
        added = True
    return added


def _lay_out_bus(figure: Figure, samples: BusSamples, title: str, *, nothing: bool) -> None:
    figure.update_layout(
        template="plotly_white",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": _GREY},
        height=460,
        margin={"l": 70, "r": 20, "t": 50 if title else 20, "b": 110},
        title={"text": html.escape(title), "font": {"size": 14}, "x": 0, "xref": "paper"} if title else None,
        barmode="stack",
        bargap=0,
        showlegend=not nothing,
        # Below: the reasons may take several lines.
        legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0, "xanchor": "left", "traceorder": "normal"},
        hovermode="x unified",
    )
    lines = {"gridcolor": "rgba(115,123,133,0.3)", "zeroline": False, "linecolor": _GREY}
    figure.update_xaxes(**lines)
    figure.update_yaxes(rangemode="tozero", **lines)
    figure.update_yaxes(title_text="rows waiting", row=1, col=1)
    figure.update_yaxes(title_text="gave way, events/s", row=2, col=1)
    if len(samples):
        # The picture of a burst is read in seconds, not in times of day.
        begin = format_time(int(samples.times_ns[0]))[:23].replace("T", " ")
        figure.update_xaxes(title_text=f"seconds since {begin} UTC", row=2, col=1)
    if nothing:
        figure.update_xaxes(visible=False)
        figure.update_yaxes(visible=False)
        figure.add_annotation(
            text="no event was on the bus while it was sampled",
            showarrow=False, font={"color": _GREY, "size": 16}, xref="paper", yref="paper", x=0.5, y=0.5,
        )  # fmt: skip
