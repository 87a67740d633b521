from __future__ import annotations

import datetime as dt

import numpy as np
import plotly.graph_objects as go

from hftlab.events import Source, SourceTable
from hftlab.sequence.figures import MOST_GAPS, MOST_SOURCES, gap_timeline
from hftlab.sequence.gaps import GAP, GapReason, GapState

START_NS = 1_723_161_255_000_000_000  # 2024-08-08T23:54:15Z
SECOND = 1_000_000_000
DEPTH, TRADE = 1, 2


def sources(*more: Source) -> SourceTable:
    return SourceTable(
        [Source("binance", "depth", "BTCUSDT", "range"), Source("binance", "trade", "BTCUSDT", "plus-one"), *more]
    )


def gap(source: int, first: int, last: int, state: GapState, opened_s: float, lasted_s: float = 0.0) -> np.ndarray:
    record = np.zeros(1, GAP)
    record["source"], record["first"], record["last"], record["state"] = source, first, last, state
    record["opened_ns"] = START_NS + int(opened_s * SECOND)
    if state is not GapState.OPEN:
        record["closed_ns"] = record["opened_ns"] + int(lasted_s * SECOND)
    if state is GapState.LOST:
        record["reason"] = GapReason.DEADLINE
    return record


def three() -> np.ndarray:
    return np.concatenate(
        [
            gap(DEPTH, 105, 110, GapState.LOST, 0, 0.1),
            gap(TRADE, 7, 7, GapState.OPEN, 1),
            gap(DEPTH, 200, 201, GapState.FILLED, 2, 3),
        ]
    )


def bars(figure: go.Figure) -> dict[str, go.Bar]:
    return {trace.name.split()[0]: trace for trace in figure.data if isinstance(trace, go.Bar)}


def signs(figure: go.Figure) -> dict[str, go.Scatter]:
    return {trace.name.split()[0]: trace for trace in figure.data if isinstance(trace, go.Scatter)}


def moment(seconds: float) -> dt.datetime:
    return dt.datetime(2024, 8, 8, 23, 54, 15) + dt.timedelta(seconds=seconds)  # noqa: DTZ001 - plotly's have no zone


def test_every_gap_is_a_bar_from_its_opening_to_its_closing_on_its_sources_lane() -> None:
    figure = gap_timeline(three(), sources())
    lost, filled = bars(figure)["lost"], bars(figure)["filled"]
    assert list(lost.base) == [moment(0)]
    assert list(lost.x) == [100.0]
    assert list(filled.base) == [moment(2)]
    assert list(filled.x) == [3_000.0]
    assert list(figure.layout.yaxis.ticktext) == ["binance/depth/BTCUSDT", "binance/trade/BTCUSDT"]
    assert [round(bars(figure)[name].y[0]) for name in ("lost", "filled", "open")] == [0, 0, 1]
    assert figure.layout.xaxis.title.text == "UTC"
    assert figure.layout.title.text == "3 gaps, 6 numbers lost"


def test_what_is_open_goes_on_to_the_latest_known_moment_and_has_its_sign_there() -> None:
    figure = gap_timeline(three(), sources())
    assert list(bars(figure)["open"].x) == [4_000.0]
    assert list(signs(figure)["open"].x) == [moment(5)]


def test_states_differ_in_sign_pattern_place_and_legend_and_not_in_colour_alone() -> None:
    figure = gap_timeline(three(), sources())
    assert len({trace.marker.symbol for trace in signs(figure).values()}) == 3
    assert bars(figure)["open"].marker.pattern.shape == "/"
    assert bars(figure)["lost"].marker.color != bars(figure)["filled"].marker.color == "rgba(0,0,0,0)"
    assert len({round(trace.y[0] % 1, 2) for trace in signs(figure).values()}) == 3
    assert [trace.name for trace in figure.data if trace.showlegend is not False] == [
        "lost (1)",
        "open (1)",
        "filled (1)",
    ]


def test_what_lasted_no_time_has_a_sign_all_the_same_and_the_axis_has_a_width() -> None:
    figure = gap_timeline(gap(DEPTH, 1, 1, GapState.LOST, 0), sources())
    assert list(bars(figure)["lost"].x) == [0.0]
    assert list(signs(figure)["lost"].x) == [moment(0)]
    assert signs(figure)["lost"].marker.size >= 8
    low, high = figure.layout.xaxis.range
    assert low < moment(0) < high


def test_pointing_at_a_gap_tells_all_about_it() -> None:
    figure = gap_timeline(three(), sources())
    (lost,), (is_open,) = bars(figure)["lost"].customdata, signs(figure)["open"].customdata
    assert lost == (
        "<b>binance/depth/BTCUSDT</b><br>105…110: 6 numbers lost (deadline)<br>2024-08-08T23:54:15.000000000Z, 100 ms"
    )
    assert "7: 1 number open" in is_open
    assert "still open" in is_open


def test_an_empty_table_says_no_gaps() -> None:
    figure = gap_timeline(np.zeros(0, GAP), sources())
    assert figure.data == ()
    assert [annotation.text for annotation in figure.layout.annotations] == ["no gaps"]
    assert not figure.layout.title.text


def many(count: int, of: int) -> np.ndarray:
    records = np.zeros(count, GAP)
    records["source"] = 1 + np.arange(count) % of
    records["first"] = records["last"] = np.arange(count)
    records["state"] = 1 + np.arange(count) // of % 3
    records["opened_ns"] = START_NS + np.arange(count) * 1_000_000
    records["closed_ns"] = np.where(records["state"] == GapState.OPEN, 0, records["opened_ns"] + np.arange(count) % 977)
    return records


def test_many_thousand_gaps_are_thinned_out_and_the_picture_says_so() -> None:
    figure = gap_timeline(many(20_000, 2), sources())
    drawn = sum(len(trace.x) for trace in signs(figure).values())
    assert MOST_GAPS / 2 < drawn <= MOST_GAPS
    assert f"{drawn:,} of 20,000 are drawn: the longest of each source, state and" in figure.layout.title.subtitle.text
    # Counts are of all, not of what is drawn.
    assert [trace.name for trace in figure.data if trace.showlegend is not False] == [
        "lost (6,666)",
        "open (6,668)",
        "filled (6,666)",
    ]
    assert any("the longest of" in text for text in signs(figure)["lost"].customdata)


def test_beyond_forty_sources_those_with_most_gaps_are_drawn_and_the_picture_says_so() -> None:
    table = sources(*(Source("venue", "trade", f"S{number:02d}") for number in range(60)))
    busy = many(300, 60)
    rare = np.concatenate([gap(61, 1, 1, GapState.LOST, 0), gap(62, 1, 1, GapState.LOST, 0)])
    figure = gap_timeline(np.concatenate([rare, busy]), table)
    assert len(figure.layout.yaxis.ticktext) == MOST_SOURCES
    assert str(table[61]) not in figure.layout.yaxis.ticktext
    assert figure.layout.title.subtitle.text == "22 more sources with 102 gaps are not drawn"


def test_names_out_of_a_stream_are_no_markup() -> None:
    table = sources(Source("<img src=x>", "<b>"))
    figure = gap_timeline(gap(3, 1, 1, GapState.LOST, 0), table)
    assert "<img" not in figure.to_json()
    assert "<b>/" not in figure.layout.yaxis.ticktext[0]
