"""The static picture of a clock: its offset within the bound, its state, and its drift, over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from hftlab.clock.estimate import ClockReading, ClockState

Figure: TypeAlias = go.Figure

_COLOURS = {ClockState.SYNCED: "#009e73", ClockState.HOLDOVER: "#c99700", ClockState.UNSYNCED: "#d55e00"}
"""Told apart by colour-blind eyes: Okabe and Ito's."""
_LINE = "#2b8fd6"
_GREY = "#737b85"
_SCALES = (("s", 1e9), ("ms", 1e6), ("µs", 1e3), ("ns", 1.0))


def clock_figure(readings: Sequence[ClockReading]) -> Figure:
    """Three lanes over time (UTC): the offset that is missing, with its bound as a band; the state, coloured and named;
    the estimated drift in ppm. ``readings`` from the oldest to the latest; without any, the picture says so. 40 ms.
    """
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.04, row_heights=[0.6, 0.08, 0.32])
    moments = np.array([reading.now_ns for reading in readings], "M8[ns]")
    offset_ns = np.array([reading.offset_ns for reading in readings], np.float64)
    bound_ns = np.array([np.nan if one.bound_ns is None else one.bound_ns for one in readings], np.float64)
    unit, ns = _scale(offset_ns, bound_ns)
    _add_offset(figure, moments, offset_ns / ns, bound_ns / ns, unit)
    _add_states(figure, moments, readings)
    drift = np.array([reading.drift_ppb for reading in readings], np.float64) / 1e3
    figure.add_scatter(
        x=moments, y=drift, mode="lines", line={"color": _LINE, "width": 1.5}, showlegend=False,
        hovertemplate="%{y:+.4f} ppm<extra></extra>", row=3, col=1,
    )  # fmt: skip
    _lay_out(figure, unit, bool(len(readings)))
    return figure


def _scale(offset_ns: Any, bound_ns: Any) -> tuple[str, float]:
    """The unit in which most of the picture has few digits."""
    widths = np.abs(offset_ns) + np.nan_to_num(bound_ns)
    typical = float(np.median(widths)) if len(widths) else 1e3
    return next(((unit, ns) for unit, ns in _SCALES if typical >= ns), _SCALES[-1])


def _add_offset(figure: Figure, moments: Any, offset: Any, bound: Any, unit: str) -> None:
    hidden: dict[str, Any] = {"mode": "lines", "showlegend": False, "row": 1, "col": 1}
    edge = {"color": "rgba(43,143,214,0.35)", "width": 0.5}
    figure.add_scatter(x=moments, y=offset + bound, line=edge, hoverinfo="skip", **hidden)
    figure.add_scatter(
        x=moments, y=offset - bound, line=edge, fill="tonexty", fillcolor="rgba(43,143,214,0.18)", hoverinfo="skip",
        **hidden,
    )  # fmt: skip
    figure.add_scatter(
        x=moments, y=offset, line={"color": _LINE, "width": 2}, customdata=bound,
        hovertemplate=f"%{{y:+,.3f}} ± %{{customdata:,.3f}} {unit}<extra></extra>", **hidden,
    )  # fmt: skip
    figure.add_hline(y=0, line={"color": _GREY, "width": 1, "dash": "dot"}, row=1, col=1)


def _add_states(figure: Figure, moments: Any, readings: Sequence[ClockReading]) -> None:
    """A coloured line for each stretch of one state, up to where the next begins."""
    begin = 0
    named: set[ClockState] = set()
    for place in range(1, len(readings) + 1):
        state = readings[begin].state
        if place < len(readings) and readings[place].state is state:
            continue
        last = min(place, len(readings) - 1)
        figure.add_scatter(
            x=[moments[begin], moments[last]], y=[0, 0], mode="lines+markers", name=state.value,
            line={"color": _COLOURS[state], "width": 12}, marker={"color": _COLOURS[state], "size": 3},
            showlegend=state not in named, legendgroup=state.value, hovertemplate=f"{state.value}<extra></extra>",
            row=2, col=1,
        )  # fmt: skip
        named.add(state)
        begin = place


def _lay_out(figure: Figure, unit: str, known: bool) -> None:
    lines: dict[str, Any] = {"gridcolor": "rgba(115,123,133,0.25)", "zeroline": False, "linecolor": _GREY}
    figure.update_layout(
        template="plotly_white", paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"color": _GREY},
        height=420, margin={"l": 20, "r": 30, "t": 40, "b": 40},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
    )  # fmt: skip
    figure.update_xaxes(**lines)
    figure.update_yaxes(title_text=f"UTC - clock, {unit}", automargin=True, row=1, col=1, **lines)
    figure.update_yaxes(visible=False, range=[-1, 1], row=2, col=1)
    figure.update_yaxes(title_text="drift, ppm", automargin=True, row=3, col=1, **lines)
    if not known:
        figure.add_annotation(
            text="nobody has compared this clock with UTC yet", showarrow=False, font={"color": _GREY},
            xref="x domain", yref="y domain", x=0.5, y=0.62,
        )  # fmt: skip
