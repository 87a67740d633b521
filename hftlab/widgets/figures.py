"""Static pictures of what the live widgets show: arrays in, a plotly figure out."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

Figure: TypeAlias = go.Figure

Path = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Times in ns since 1970 UTC, rising, and a price for each."""

_COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#bf3989")
_GREY = "#6e7781"


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
