"""Figures of what flowed past: arrays in, a static plotly figure out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

Figure: TypeAlias = go.Figure

Series = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""Seconds since 1970 UTC, rising, and a value for each."""

_COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#bf3989")
_GREY = "#6e7781"


def session_figure(
    prices: Mapping[str, Series], per_second: Series, latencies: tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]
) -> Figure:
    """Price by symbol (one: as it is; several: in % of the first), events a second, and latencies (ns, counts)."""
    several = len(prices) > 1
    figure = make_subplots(
        rows=3,
        cols=1,
        row_heights=[0.45, 0.25, 0.3],
        vertical_spacing=0.11,
        subplot_titles=("price, % of the first" if several else "price", "events a second", "latency"),
    )
    for index, (symbol, (seconds, values)) in enumerate(prices.items()):
        shown = 100 * values / values[0] if several else values
        line = {"color": _COLOURS[index % len(_COLOURS)], "width": 1.5}
        figure.add_scatter(x=_dates(seconds), y=shown, name=symbol, mode="lines", line=line, row=1, col=1)
    seconds, counts = per_second
    bars = {"color": _COLOURS[0], "line": {"width": 0}}
    figure.add_bar(x=_dates(seconds), y=counts, name="events", marker=bars, showlegend=False, row=2, col=1)
    figure.update_xaxes(matches="x", row=2, col=1)
    _add_latencies(figure, *latencies)
    figure.update_layout(
        template="plotly_white",
        height=640,
        margin={"l": 60, "r": 20, "t": 40, "b": 40},
        bargap=0.05,
        showlegend=several,
        legend={"orientation": "h", "y": 1.08},
    )
    return figure


def _add_latencies(figure: Figure, values_ns: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> None:
    if not len(values_ns):
        figure.add_annotation(
            text="no event has both a source's time and an arrival",
            showarrow=False, font={"color": _GREY}, xref="x3 domain", yref="y3 domain", x=0.5, y=0.5,
        )  # fmt: skip
        return
    # What lies beyond the 0.1% at either end would squeeze the rest into one bar.
    share = np.cumsum(counts) / counts.sum()
    low, high = values_ns[np.searchsorted(share, [0.001, 0.999]).clip(max=len(share) - 1)]
    edges = np.linspace(low, high if high > low else low + 1, 81)
    heights, _ = np.histogram(np.clip(values_ns, edges[0], edges[-1]), edges, weights=counts)
    width = (edges[1] - edges[0]) / 1e6
    bars = {"color": _COLOURS[0], "line": {"width": 0}}
    figure.add_bar(
        x=(edges[:-1] + edges[1:]) / 2e6, y=heights, width=width, marker=bars, showlegend=False, name="latency",
        row=3, col=1,
    )  # fmt: skip
    figure.update_xaxes(title_text="arrival - source time, ms (outermost bars: all beyond)", row=3, col=1)
    figure.update_yaxes(title_text="events", type="log", row=3, col=1)


def _dates(seconds: npt.NDArray[np.int64]) -> npt.NDArray[np.datetime64]:
    return seconds.astype("datetime64[s]")
