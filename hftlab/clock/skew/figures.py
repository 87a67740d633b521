"""The static picture of a skew: the lower envelope with its line, and what is left of it when corrected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

if TYPE_CHECKING:
    from hftlab.clock.skew.skew import Skew

Figure: TypeAlias = go.Figure
Ints: TypeAlias = npt.NDArray[np.int64]

_POINTS, _LINE = "#2b8fd6", "#d55e00"
"""Told apart by colour-blind eyes."""
_GREY = "#737b85"
"""Texts and lines: 4.3 to 1 against white, 4.4 against JupyterLab's dark. The ground is the page's own."""
_UNITS = ((2_000.0, 1.0, "ns"), (2e6, 1e3, "µs"), (2e9, 1e6, "ms"), (np.inf, 1e9, "s"))
_WRAP = 120
_ROOM = 3.0
"""How many times as high as 9 in 10 windows lie the axes reach: one stalled second would flatten all the others."""


def skew_figure(skew: Skew) -> Figure:
    """Two panels over UTC: above the least difference of each window with the line under them, below what it leaves.

    Above, the skew is in the numbers of the axis; below, zero is the fastest message, and a point under it is one of
    those that were found impossible. The axes are for what lies near the line; how many windows lie farther up or down
    is told. 512 points at most. About 50 ms.
    """
    at_ns, least_ns = skew.envelope.at_ns, skew.envelope.least_ns
    error_ns = skew.error_ns(at_ns)
    corrected_ns = least_ns - error_ns
    room_ns = _ROOM * float(np.quantile(np.abs(corrected_ns), 0.9)) + skew.resolution_ns if len(at_ns) else 0.0
    near = np.abs(corrected_ns) <= room_ns
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.12,
        subplot_titles=("received - timestamp: the least of each window" + _aside(corrected_ns, room_ns), "corrected"),
    )  # fmt: skip
    if len(at_ns):
        # datetime64 without a zone is shown as it is: UTC.
        times = at_ns.astype("datetime64[ns]")
        _add_panel(figure, 1, times, least_ns, error_ns, near)
        _add_panel(figure, 2, times, corrected_ns, np.zeros_like(error_ns), near)
    lines: dict[str, Any] = {"gridcolor": "rgba(115,123,133,0.25)", "zeroline": False, "linecolor": _GREY}
    figure.update_xaxes(**lines)
    figure.update_yaxes(automargin=True, **lines)
    figure.update_annotations(font={"size": 12, "color": _GREY})
    figure.update_layout(
        template="plotly_white", paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        font={"color": _GREY}, height=460, margin={"l": 20, "r": 30, "t": 110, "b": 40}, showlegend=False,
        title={
            "text": f"{skew.events:,} events", "font": {"size": 14}, "x": 0, "xref": "paper",
            "yref": "container", "y": 0.97, "yanchor": "top",
            "subtitle": {"text": _wrapped(skew.statement), "font": {"size": 12, "color": _GREY}},
        },
    )  # fmt: skip
    return figure


def _aside(corrected_ns: Ints, room_ns: float) -> str:
    far = ((corrected_ns > room_ns, "higher"), (corrected_ns < -room_ns, "lower"))
    told = [f"{count:,} {where}" for beyond, where in far if (count := int(np.count_nonzero(beyond)))]
    return f" ({', '.join(told)} than drawn)" if told else ""


def _add_panel(
    figure: Figure, row: int, times: npt.NDArray[np.datetime64], values_ns: Ints, line_ns: Ints,
    near: npt.NDArray[np.bool_],
) -> None:  # fmt: skip
    drawn = np.concatenate([values_ns[near], line_ns])
    low, high = float(drawn.min()), float(drawn.max())
    divisor, unit = next((divisor, unit) for most, divisor, unit in _UNITS if max(-low, high) < most)
    margin = 0.06 * (high - low) + 1
    shown: dict[str, Any] = {"hovertemplate": f"%{{y:.6~g}} {unit} at %{{x}}<extra></extra>", "row": row, "col": 1}
    points = {"color": _POINTS, "size": 4, "opacity": 0.7}
    figure.add_scatter(x=times, y=values_ns / divisor, mode="markers", marker=points, **shown)
    ends = [0, -1]  # it is straight
    line: dict[str, Any] = {"color": _LINE, "width": 2}
    figure.add_scatter(x=times[ends], y=line_ns[ends] / divisor, mode="lines", line=line, **shown)
    figure.update_yaxes(
        title_text=unit, tickformat=",.6~g", range=[(low - margin) / divisor, (high + margin) / divisor], row=row, col=1
    )


def _wrapped(text: str) -> str:
    """``text`` in lines that fit a notebook's width: plotly's titles don't break by themselves."""
    lines = [""]
    for word in text.split(" "):
        if len(lines[-1]) + len(word) > _WRAP:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(lines)
