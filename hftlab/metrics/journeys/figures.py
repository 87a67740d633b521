"""The static picture of latencies: distributions, percentile curves and the stages stacked, on one figure."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from plotly.subplots import make_subplots

from hftlab.errors import ValidationError
from hftlab.metrics.figures import (
    COLOURS,
    GREY,
    MOST_HISTOGRAMS,
    Figure,
    Floats,
    add_distribution,
    axis_ticks,
    bar_edges,
    bar_parts,
    told_of,
)
from hftlab.metrics.histogram import Histogram
from hftlab.metrics.journeys.curve import percentile_curve
from hftlab.metrics.journeys.stages import NEGATIVE_ADVICE, Stage
from hftlab.metrics.wording import percentile_text, value_text

if TYPE_CHECKING:
    from hftlab.metrics.journeys.latency import By, Latency

_DISTRIBUTION_PX, _CURVE_PX, _BAR_PX, _GAP_PX = 230, 230, 46, 72
_BELOW_PX, _TITLE_PX, _LINE_PX, _LEGEND_PX = 44, 34, 16, 19
_NOTE_WIDTH = 112
"""Characters to a line of notes: what a notebook some 850 pixels wide has room for."""
_NAME_WIDTH, _LABEL_WIDTH = 26, 14
_LINES: dict[str, Any] = {"gridcolor": "rgba(115,123,133,0.25)", "zeroline": False, "linecolor": GREY}
_PERCENTILES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
_STACKED = (0.5, 0.99)
_WAY = [stage for stage in Stage if stage not in (Stage.RECEIVED, Stage.TOTAL)]
"""What is stacked: RECEIVED is by two clocks, may be negative, and hides all others where a venue is far away."""
_STAGE_COLOURS = dict(zip(Stage, COLOURS, strict=False))
_PATTERNS = dict(zip(_WAY, ("/", "\\", "", "x", "."), strict=True))
"""Where a colour is a run, a pattern is a stage."""
_WIDE, _MIDDLE = 0.17, 0.075
"""Shares of the axis, some 750 pixels, from which a stage's name and value, and its value alone, have room."""


class _Line(NamedTuple):
    name: str
    colour: str
    histogram: Histogram


class _Bar(NamedTuple):
    """One bar: a percentile of each stage of a run."""

    label: str
    run: int
    values: dict[Stage, float]


def latency_figure(runs: Sequence[Latency], stage: Stage | None, by: By | None) -> Figure:
    """What ``Latency.figure`` says. Up to 8 lines, runs, or groups; how many more there are is under the title."""
    if by not in (None, "stage") and len(runs) > 1:
        raise ValidationError(f"several runs are compared as wholes, or by a stage; got by={by!r} and {len(runs)} runs")
    lines, of, left_out = _lines(runs, stage, by)
    bars = _bars(runs[:MOST_HISTOGRAMS])
    bars_px = _BAR_PX * max(len(bars), 1) + 10
    heights = [_DISTRIBUTION_PX, _CURVE_PX, bars_px]
    plots_px = sum(heights) + 2 * _GAP_PX
    notes = _notes(runs, left_out)
    top_px = _TITLE_PX + _LINE_PX * len(notes) + _LEGEND_PX * _legend_rows(lines) + 24
    figure = make_subplots(rows=3, cols=1, vertical_spacing=_GAP_PX / plots_px, row_heights=heights)
    figure.update_layout(
        template="plotly_white", paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"color": GREY},
        height=plots_px + top_px + _BELOW_PX, margin={"l": 20, "r": 30, "t": top_px, "b": _BELOW_PX}, barmode="stack",
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1 + 18 / plots_px, "yanchor": "bottom",
                "font": {"size": 11}, "traceorder": "normal"},
    )  # fmt: skip
    filled = [line for line in lines if line.histogram.count]
    # Eight grounds over each other are one grey; stages seldom lie over each other.
    _add_distributions(figure, filled, grounds=not of or len(filled) <= 3)
    _add_curves(figure, filled)
    _add_bars(figure, bars, len(runs) > 1)
    _add_words(figure, runs, of, filled, notes)
    return figure


def _run_names(runs: Sequence[Latency]) -> list[str]:
    names = [run.name or ", ".join(dict.fromkeys(run.paths)) or "latency" for run in runs]
    return [name if names.count(name) == 1 else f"{name} ({place + 1})" for place, name in enumerate(names)]


def _short(name: str, width: int = _NAME_WIDTH) -> str:
    return html.escape(name if len(name) <= width else f"{name[: width - 1]}…")


def _legend_rows(lines: Sequence[_Line]) -> int:
    """How many rows the legend takes: its entries are all as wide as the widest."""
    widest = max((min(len(line.name), _NAME_WIDTH) for line in lines), default=0)
    a_row = max(int(740 / (45 + 6.2 * widest)), 1)
    return -(-len(lines) // a_row)


def _notes(runs: Sequence[Latency], left_out: int) -> list[str]:
    """What stands under the title, in lines that a notebook has room for."""
    several = len(runs) > 1
    notes = [f"{left_out:,} more not drawn"] if left_out else []
    for name, run in zip(_run_names(runs), runs, strict=True):
        notes += [f"{name}: {note}" if several and note != NEGATIVE_ADVICE else note for note in run.notes()]
    return textwrap.wrap("; ".join(dict.fromkeys(notes)), _NOTE_WIDTH, max_lines=5)


def _lines(runs: Sequence[Latency], stage: Stage | None, by: By | None) -> tuple[list[_Line], str, int]:
    """The lines of the first two pictures, of what they are (empty: of all stages), and how many more there are."""
    if len(runs) > 1:
        of = stage or runs[0].main_stage()
        named = list(zip(_run_names(runs), (run.histogram(of) for run in runs), strict=True))
    elif by in (None, "stage") and stage is None:
        stages = runs[0].stages
        return [_Line(known.value, _STAGE_COLOURS[known], histogram) for known, histogram in stages.items()], "", 0
    elif by in (None, "stage"):
        of = stage or Stage.TOTAL
        named = [(of.value, runs[0].histogram(of))]
    else:
        of = stage or runs[0].main_stage(by)
        named = list(runs[0].grouped(by, of).items())
    lines = [_Line(name, colour, histogram) for (name, histogram), colour in zip(named, COLOURS, strict=False)]
    return lines, of.value, len(named) - len(lines)


def _add_distributions(figure: Figure, lines: Sequence[_Line], grounds: bool) -> None:
    histograms = [line.histogram for line in lines]
    edges = bar_edges(histograms)
    percents: list[Floats] = [100 * bar_parts(histogram, edges) for histogram in histograms]
    for line, percent in zip(lines, percents, strict=True):
        # Under the name that the legend and the bars say.
        named = line.histogram.copy()
        named.name = line.name
        add_distribution(figure, named, percent, edges, line.colour)
    if not grounds:
        figure.update_traces(fill="none", row=1, col=1)
    ticks = axis_ticks(float(edges[0]), float(edges[-1]))
    figure.update_xaxes(
        type="log", range=[np.log10(edges[0]) - 0.05, np.log10(edges[-1]) + 0.05], tickvals=ticks,
        ticktext=[value_text(tick, "ns") for tick in ticks], row=1, col=1, **_LINES,
    )  # fmt: skip
    tallest = max((float(percent.max()) for percent in percents), default=100.0)
    # Below a part of an event there is nothing to see: a bar may hold as little of a wide bucket's.
    lowest = min([tallest / 12, *(20 / histogram.count for histogram in histograms)])
    figure.update_yaxes(
        title_text="% of the events", type="log", dtick=1, exponentformat="none", row=1, col=1,
        range=[np.log10(max(lowest, tallest / 1e9)), np.log10(tallest * 1.4)], **_LINES,
    )  # fmt: skip


def _add_curves(figure: Figure, lines: Sequence[_Line]) -> None:
    """Percentiles on HdrHistogram's axis: 0, 90, 99, 99.9 % are as far apart, so that tails have room."""
    farthest, least, most = 100.0, 1e3, 1e6
    curves = [percentile_curve(line.histogram) for line in lines]
    if curves:
        farthest = max(10.0, *(1 / (1 - quantiles[-1]) for quantiles, _ in curves))
        least = max(min(float(values[0]) for _, values in curves), 0.5)
        most = max(least, *(float(values[-1]) for _, values in curves))
    for line, (quantiles, values) in zip(lines, curves, strict=True):
        figure.add_scatter(
            x=1 / (1 - quantiles), y=np.maximum(values, 0.5), mode="lines", name=_short(line.name),
            line={"color": line.colour, "width": 2, "shape": "hv"}, row=2, col=1,
            customdata=[
                f"{quantile:.6%} ≤ {value_text(value, 'ns')}"
                for quantile, value in zip(quantiles.tolist(), values.tolist(), strict=True)
            ],
            hovertemplate=told_of(line.name), showlegend=True,
        )  # fmt: skip
    shown = [quantile for quantile in _PERCENTILES if 1 / (1 - quantile) <= farthest * 1.001]
    figure.update_xaxes(
        type="log", range=[-0.02, np.log10(farthest) + 0.05], tickvals=[1 / (1 - quantile) for quantile in shown],
        ticktext=[f"{float(percentile_text(quantile)[1:]):g} %" for quantile in shown], row=2, col=1, **_LINES,
    )  # fmt: skip
    ticks = axis_ticks(least / 1.5, most * 1.5)
    figure.update_yaxes(
        type="log", range=[np.log10(least / 1.5), np.log10(most * 1.5)], tickvals=ticks,
        ticktext=[value_text(tick, "ns") for tick in ticks], automargin=True, row=2, col=1, **_LINES,
    )  # fmt: skip


def _bars(runs: Sequence[Latency]) -> list[_Bar]:
    names = _run_names(runs)
    taken: list[dict[Stage, Histogram]] = [
        {stage: histogram for stage, histogram in run.stages.items() if stage in _WAY} for run in runs
    ]
    bars = []
    for quantile in _STACKED:
        for place, stages in enumerate(taken):
            values = {stage: histogram.quantile(quantile) for stage, histogram in stages.items() if histogram.count}
            label = percentile_text(quantile) + (f" {_short(names[place], _LABEL_WIDTH)}" if len(runs) > 1 else "")
            if any(values.values()):
                bars.append(_Bar(label, place, values))
    return bars


def _add_bars(figure: Figure, bars: Sequence[_Bar], compared: bool) -> None:
    """A trace a stage; a bar is the whole of its run's percentiles, so that bars of µs and of ms can both be read."""
    totals = [sum(bar.values.values()) for bar in bars]
    for stage in _WAY:
        values = [bar.values.get(stage, 0.0) for bar in bars]
        if not any(values):
            continue
        shares = [value / total for value, total in zip(values, totals, strict=True)]
        short = stage.name.lower()
        tells = [
            f"{html.escape(stage.value)} {bar.label}: {value_text(value, 'ns')}, {share:.2%}"
            for bar, value, share in zip(bars, values, shares, strict=True)
        ]
        texts = [
            f"{short} {value_text(value, 'ns')}"
            if share >= _WIDE
            else value_text(value, "ns")
            if share >= _MIDDLE
            else ""
            for value, share in zip(values, shares, strict=True)
        ]
        colours = [COLOURS[bar.run] if compared else _STAGE_COLOURS[stage] for bar in bars]
        figure.add_bar(
            y=list(range(len(bars))), x=[100 * share for share in shares], orientation="h", name=short, width=0.5,
            marker={"color": colours, "line": {"width": 0},
                    "pattern": {"shape": _PATTERNS[stage] if compared else "", "size": 5, "solidity": 0.25}},
            text=texts, textposition="inside", insidetextanchor="middle", textangle=0,
            textfont={"size": 11, "color": "#111"}, customdata=tells, showlegend=False,
            hovertemplate="%{customdata}<extra></extra>", row=3, col=1,
        )  # fmt: skip
    figure.add_scatter(
        x=[0] * len(bars), y=[place + 0.38 for place in range(len(bars))], mode="text", textposition="middle right",
        text=[_unlabelled(bar) for bar in bars], textfont={"size": 10, "color": GREY}, hoverinfo="skip",
        showlegend=False, row=3, col=1,
    )  # fmt: skip
    figure.update_xaxes(range=[0, 100], ticksuffix=" %", row=3, col=1, **_LINES)
    figure.update_yaxes(
        tickvals=list(range(len(bars))), ticktext=[bar.label for bar in bars], range=[max(len(bars), 1) - 0.45, -0.45],
        showgrid=False, zeroline=False, automargin=True, row=3, col=1,
    )  # fmt: skip


def _label(short: str, value: float, share: float) -> str:
    text = value_text(value, "ns")
    return f"{short} {text}" if share >= _WIDE else text if share >= _MIDDLE else ""


def _unlabelled(bar: _Bar) -> str:
    """The stages whose parts are too narrow for a name, in words: a static picture is not pointed at."""
    total = sum(bar.values.values())
    narrow = [(stage, value) for stage, value in bar.values.items() if value / total < _WIDE]
    return ", ".join(f"{stage.name.lower()} {value_text(value, 'ns')}" for stage, value in narrow)


def _add_words(figure: Figure, runs: Sequence[Latency], of: str, lines: Sequence[_Line], notes: Sequence[str]) -> None:
    names = _run_names(runs)
    title = " against ".join(_short(name, 60 if len(names) == 1 else _NAME_WIDTH) for name in names[:3]) + (
        " …" if len(names) > 3 else ""
    )
    values = sum(line.histogram.count for line in lines)
    figure.update_layout(
        title={
            "text": title + (f": {html.escape(of)}, {values:,} values" if of else ""), "font": {"size": 14},
            "x": 0, "xref": "paper", "yref": "container", "y": 1 - 10 / figure.layout.height, "yanchor": "top",
            "subtitle": {"text": "<br>".join(map(html.escape, notes)), "font": {"size": 12, "color": GREY}},
        }
    )  # fmt: skip
    captions = (
        ("", "latency, and how many events had it"),
        ("2", "percentiles: what so many % of the events did not exceed"),
        ("3", "stages as shares of their sum: their percentiles don't add up to the whole way's"),
    )
    for axis, text in captions:
        figure.add_annotation(
            text=text, showarrow=False, font={"size": 11, "color": GREY}, x=1, y=1, xanchor="right", yanchor="bottom",
            xref=f"x{axis} domain", yref=f"y{axis} domain",
        )  # fmt: skip
    if not lines:
        for row in (1, 2):  # plotly leaves out axes that nothing is drawn on
            figure.add_scatter(x=[None], y=[None], showlegend=False, row=row, col=1)
        recorded = any(run.stages for run in runs)
        figure.add_annotation(
            text="all values are negative, or beyond the top" if recorded else "nothing has been recorded yet",
            showarrow=False, font={"color": GREY}, xref="x domain", yref="y domain", x=0.5, y=0.5,
        )  # fmt: skip
