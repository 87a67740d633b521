"""The static picture of histograms: their buckets in, a plotly figure out."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hftlab.metrics.wording import percentile_text, value_text

if TYPE_CHECKING:
    from hftlab.metrics.histogram import Histogram

Figure: TypeAlias = go.Figure
Floats: TypeAlias = npt.NDArray[np.float64]

MOST_HISTOGRAMS = 8
BARS = 160

COLOURS = ("#2b8fd6", "#d55e00", "#009e73", "#cc79a7", "#c99700", "#56b4e9", "#7f6fd6", "#737b85")
"""Told apart by colour-blind eyes, most of them Okabe and Ito's."""
GREY = "#737b85"
"""Texts and lines: 4.3 to 1 against white, 4.4 against JupyterLab's dark. The ground is the page's own."""
_MARKS = ((0.5, "circle"), (0.9, "diamond"), (0.99, "square"), (0.999, "triangle-up"))
_QUANTILES = tuple(q for q, _ in _MARKS)
_LANE_PX = 46
_NOTHING = 1e-12


def histogram_figure(histograms: Sequence[Histogram]) -> Figure:
    """The distribution of up to 8 histograms on one logarithmic axis, and under it a lane each with its percentiles.

    Heights are the part of a histogram's values that a bar holds, on a logarithmic axis too, so that tails are seen and
    histograms of any size compare. A lane runs from the least to the greatest value, with p50, p90, p99 and p99.9
    marked and told. Values without a bucket (negative, beyond the top) are told under the title. The unit is the first
    one's. Names are escaped. About 50 ms.
    """
    shown = list(histograms[:MOST_HISTOGRAMS])
    lanes_px = _LANE_PX * max(len(shown), 1) + 16
    height_px = 260 + lanes_px
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.02, row_heights=[260 / height_px, lanes_px / height_px]
    )
    filled = [(lane, histogram) for lane, histogram in enumerate(shown) if histogram.count]
    edges = bar_edges([histogram for _, histogram in filled])
    percents = [100 * bar_parts(histogram, edges) for _, histogram in filled]
    for (lane, histogram), percent in zip(filled, percents, strict=True):
        add_distribution(figure, histogram, percent, edges, COLOURS[lane])
        _add_lane(figure, histogram, lane, COLOURS[lane], edges)
    if len(filled) == 1:
        _add_lines(figure, filled[0][1])
    _lay_out(figure, shown, edges, percents, height_px + 130)
    left_out = len(histograms) - len(shown)
    _add_title(figure, shown, f"{left_out:,} more not drawn" if left_out else "")
    return figure


def _ends(histogram: Histogram) -> tuple[Floats, Floats, Floats]:
    """The edges of filled buckets, for a logarithmic axis (which has no 0), and what part of the values each holds."""
    low, high, counts = histogram.buckets()
    parts: Floats = counts / counts.sum()
    return np.maximum(low, 0.5).astype(np.float64), (high + 1.0).astype(np.float64), parts


def faint(colour: str) -> str:
    """The colour of a ground under a line of this colour, ``#rrggbb``."""
    red, green, blue = (int(colour[begin : begin + 2], 16) for begin in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def bar_edges(histograms: Sequence[Histogram]) -> Floats:
    """The bars' edges, evenly spaced on a logarithmic axis."""
    ends = [_ends(histogram) for histogram in histograms]
    least = min((low[0] for low, _, _ in ends), default=1.0)
    most = max((high[-1] for _, high, _ in ends), default=1_000_000.0)
    if most < 2 * least:  # a single value, or nearly: room on both sides of it
        least, most = least / 2, most * 2
    return np.geomspace(least, most, BARS + 1)


def bar_parts(histogram: Histogram, edges: Floats) -> Floats:
    """What part of the values each bar holds; a bucket's values count as spread over it evenly on the axis."""
    low, high, parts = _ends(histogram)
    points = np.stack([low, high], axis=1).ravel()
    reached = np.cumsum(parts)
    heights = np.stack([reached - parts, reached], axis=1).ravel()
    return np.diff(np.interp(np.log(edges), np.log(points), heights, left=0.0, right=1.0))


def add_distribution(figure: Figure, histogram: Histogram, percent: Floats, edges: Floats, colour: str) -> None:
    """A step line with a faint ground: bars of several histograms would hide, or muddy, each other."""
    tells = [
        f"{value_text(low, histogram.unit)} to {value_text(high, histogram.unit)}: {part:.3g} %"
        for low, high, part in zip(edges[:-1].tolist(), edges[1:].tolist(), percent.tolist(), strict=True)
    ]
    # A logarithmic axis has no 0: an empty bar, and the line's two ends, stand far below the axis' lowest value.
    heights = np.concatenate([[_NOTHING], np.maximum(percent, _NOTHING), [_NOTHING]])
    figure.add_scatter(
        x=np.concatenate([edges[:1], edges]), y=heights, mode="lines",
        line={"color": colour, "width": 1.5, "shape": "hv"}, fill="tozeroy", fillcolor=faint(colour),
        customdata=["", *tells, ""], hovertemplate=told_of(histogram.name), showlegend=False, row=1, col=1,
    )  # fmt: skip


def told_of(name: str) -> str:
    """The hover text of a line with that name, before each point's ``customdata``: once, or a notebook's figures of a
    few lines would be larger by a quarter. A % in the name is no placeholder."""
    return f"{html.escape(name).replace('%', '&#37;')} %{{customdata}}<extra></extra>"


def _add_lines(figure: Figure, histogram: Histogram) -> None:
    for value in histogram.quantiles(_QUANTILES):
        figure.add_vline(x=max(value, 0.5), line={"color": GREY, "width": 1, "dash": "dot"}, row=1, col=1)


def _add_lane(figure: Figure, histogram: Histogram, lane: int, colour: str, edges: Floats) -> None:
    values = histogram.quantiles([0.0, *_QUANTILES, 1.0])
    words = [
        f"{percentile_text(q)} {value_text(value, histogram.unit)}"
        for q, value in zip(_QUANTILES, values[1:-1], strict=True)
    ]
    places = np.maximum(values, 0.5)
    hidden: dict[str, Any] = {"showlegend": False, "hovertemplate": "%{customdata}<extra></extra>", "row": 2, "col": 1}
    figure.add_scatter(
        x=places[[0, -1]], y=[lane, lane], mode="lines+markers", line={"color": colour, "width": 2},
        marker={"symbol": "line-ns", "size": 12, "line": {"color": colour, "width": 2}},
        customdata=[f"{what} {value_text(value, histogram.unit)}" for what, value in
                    (("from", values[0]), ("to", values[-1]))], **hidden,
    )  # fmt: skip
    fractions = np.log(places[1:-1] / edges[0]) / np.log(edges[-1] / edges[0])
    sides = _sides(fractions.tolist(), words)
    figure.add_scatter(
        x=places[1:-1], y=[lane] * len(words), mode="markers+text",
        text=[word if side else "" for word, side in zip(words, sides, strict=True)],
        textposition=[f"{side or 'top'} center" for side in sides], textfont={"size": 11, "color": GREY},
        marker={"symbol": [symbol for _, symbol in _MARKS], "color": colour, "size": 10},
        customdata=words, cliponaxis=False, **hidden,
    )  # fmt: skip


def _sides(fractions: list[float], words: list[str]) -> list[str]:
    """Whether each label stands above or below its mark; empty where both are taken (it shows when pointed at)."""
    sides = [""] * len(words)
    taken: dict[str, list[tuple[float, float]]] = {"top": [], "bottom": []}
    for place in (0, 3, 2, 1):  # the middle and the tail matter most
        half = 0.0042 * len(words[place])  # of an axis some 850 pixels wide
        low, high = fractions[place] - half, fractions[place] + half
        for side, spans in taken.items():
            if all(high < begin or low > end for begin, end in spans):
                spans.append((low, high))
                sides[place] = side
                break
    return sides


def _lay_out(
    figure: Figure, shown: Sequence[Histogram], edges: Floats, percents: Sequence[Floats], height_px: int
) -> None:
    figure.update_layout(
        template="plotly_white",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY},
        height=height_px,
        margin={"l": 20, "r": 30, "t": 74, "b": 50},
    )
    lines: dict[str, Any] = {"gridcolor": "rgba(115,123,133,0.25)", "zeroline": False, "linecolor": GREY}
    unit = shown[0].unit if shown else "ns"
    ticks = axis_ticks(float(edges[0]), float(edges[-1]))
    figure.update_xaxes(
        type="log", range=[np.log10(edges[0]) - 0.05, np.log10(edges[-1]) + 0.05],
        tickvals=ticks, ticktext=[value_text(tick, unit) for tick in ticks], **lines,
    )  # fmt: skip
    tallest = max((float(percent.max()) for percent in percents), default=100.0)
    # A decade at least, so that the axis has a number on it.
    lowest = min([tallest / 12, *(float(percent[percent > 0].min()) / 2 for percent in percents)])
    figure.update_yaxes(
        title_text="% of the values", type="log", dtick=1, exponentformat="none", row=1, col=1,
        range=[np.log10(max(lowest, tallest / 1e9)), np.log10(tallest * 1.4)], **lines,
    )  # fmt: skip
    names = [html.escape(histogram.name) or f"{histogram.count:,} values" for histogram in shown]
    figure.update_yaxes(
        tickvals=list(range(len(names))), ticktext=names, range=[max(len(names), 1) - 0.35, -0.65], showgrid=False,
        zeroline=False, automargin=True, row=2, col=1,
    )  # fmt: skip
    if not any(histogram.count for histogram in shown):
        recorded = any(histogram.recorded for histogram in shown)
        figure.add_annotation(
            text="all values are negative, or beyond the top" if recorded else "nothing has been recorded yet",
            showarrow=False, font={"color": GREY},
            xref="x domain", yref="y domain", x=0.5, y=0.5,
        )  # fmt: skip


def axis_ticks(least: float, most: float) -> list[float]:
    """Powers of ten, and 2 and 5 times them where there is room."""
    decades = range(int(np.floor(np.log10(least))), int(np.ceil(np.log10(most))) + 1)
    steps = (1, 2, 5) if len(decades) <= 4 else (1,)
    while len(decades) > 10:
        decades = decades[::2]
    return [step * 10.0**decade for decade in decades for step in steps if least <= step * 10.0**decade <= most]


def _add_title(figure: Figure, shown: Sequence[Histogram], more: str) -> None:
    total = sum(histogram.count for histogram in shown)
    text = (
        f"{html.escape(shown[0].name)}: {total:,} values" if len(shown) == 1 and shown[0].name else f"{total:,} values"
    )
    aside = []
    for histogram in shown:
        of = f" of {html.escape(histogram.name)}" if len(shown) > 1 and histogram.name else ""
        if histogram.negative:
            aside.append(f"{histogram.negative:,} negative{of}")
        if histogram.overflow:
            aside.append(f"{histogram.overflow:,} beyond the top{of}")
    notes = [f"not drawn: {', '.join(aside)}"] if aside else []
    notes += [more] if more else []
    precision = max((histogram.precision for histogram in shown), default=0.0)
    notes.append(f"percentiles within {precision:.2%}")
    figure.update_layout(
        title={
            "text": text, "font": {"size": 14}, "x": 0, "xref": "paper", "yref": "container", "y": 0.97,
            "yanchor": "top",
            "subtitle": {"text": "; ".join(notes), "font": {"size": 12, "color": GREY}},
        }
    )  # fmt: skip
