from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.metrics import Latency, Stage
from hftlab.metrics.figures import COLOURS, MOST_HISTOGRAMS
from hftlab.metrics.journeys.stages import NEGATIVE_ADVICE
from tests.metrics.journeys.rows import MARKET, journey, steady
from tests.metrics.journeys.test_latency import lived
from tests.metrics.test_kernels import values


def distributions(figure: go.Figure) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.xaxis == "x" and len(trace.x) > 1]


def curves(figure: go.Figure) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in figure.data if trace.xaxis == "x2" and len(trace.x) > 1}


def bars(figure: go.Figure) -> dict[str, go.Bar]:
    return {trace.name: trace for trace in figure.data if trace.type == "bar"}


def texts(figure: go.Figure) -> list[str]:
    return [note.text for note in figure.layout.annotations]


def test_without_a_stage_all_stages_are_drawn_each_in_its_colour() -> None:
    latency = Latency(lived())
    figure = latency.figure()
    assert list(curves(figure)) == [stage.value for stage in latency.stages]
    assert len(distributions(figure)) == 6
    assert [trace.line.color for trace in distributions(figure)] == [
        trace.line.color for trace in curves(figure).values()
    ]
    assert curves(figure)["dispatched → handled"].line.color == bars(figure)["handled"].marker.color[0]


def test_a_bar_is_a_percentile_of_each_stage_of_this_machine() -> None:
    drawn = bars(Latency(lived()).figure())
    assert list(drawn) == ["read", "sequenced", "dispatched", "handled"]
    assert np.sum([trace.x for trace in drawn.values()], axis=0) == pytest.approx([100, 100])
    assert drawn["dispatched"].text == ("dispatched 50 µs", "dispatched 89.9 µs")
    # 20 µs of 73.8 and of 113.8; 800 ns have no room.
    assert drawn["read"].x == pytest.approx((100 * 20 / 73.8, 100 * 20 / 113.8), rel=0.01)
    assert drawn["handled"].text == ("", "")
    labels = [
        trace.text for trace in Latency(lived()).figure().data if trace.type == "scatter" and trace.mode == "text"
    ]
    assert labels == [("sequenced 3 µs, handled 800 ns", "sequenced 3 µs, handled 800 ns")]


def test_the_curve_ends_in_the_greatest_value_on_hdrhistograms_axis() -> None:
    figure = Latency(lived()).figure(stage="dispatched")
    (curve,) = curves(figure).values()
    assert (curve.x[0], curve.y[0], curve.y[-1]) == (1, 50_000, 90_000)
    assert curve.x[-1] == pytest.approx(2 * 2_000)
    assert list(figure.layout.xaxis2.ticktext) == ["0 %", "50 %", "90 %", "99 %", "99.9 %"]
    assert list(figure.layout.xaxis2.tickvals) == pytest.approx([1, 2, 10, 100, 1_000])
    assert figure.layout.title.text == "processor: sequenced → dispatched, 2,000 values"


def test_runs_are_compared_in_one_stage_a_colour_a_run_and_a_pattern_a_stage() -> None:
    one, other = Latency(lived(), name="now"), Latency(lived(), name="before")
    figure = one.figure(other)
    assert [(name, curve.line.color) for name, curve in curves(figure).items()] == [
        ("now", COLOURS[0]), ("before", COLOURS[1]),
    ]  # fmt: skip
    assert list(figure.layout.yaxis3.ticktext) == ["p50 now", "p50 before", "p99 now", "p99 before"]
    read = bars(figure)["read"]
    assert read.marker.color == (COLOURS[0], COLOURS[1], COLOURS[0], COLOURS[1])
    assert len({trace.marker.pattern.shape for trace in bars(figure).values()}) == 4
    assert figure.layout.title.text == "now against before: received → handled, 6,000 values"
    assert list(curves(one.figure(other, stage="read"))) == ["now", "before"]


def test_runs_of_one_name_are_told_apart() -> None:
    latency = Latency(lived())
    assert list(curves(latency.figure(latency.copy()))) == ["processor (1)", "processor (2)"]


def test_groups_are_drawn_by_name_up_to_eight() -> None:
    told = journey()
    told.note_rows(steady(1_000, symbols=MOST_HISTOGRAMS + 3), MARKET, None)
    figure = Latency(told).figure(by="symbol")
    assert len(curves(figure)) == len(distributions(figure)) == MOST_HISTOGRAMS
    assert "3 more not drawn" in figure.layout.title.subtitle.text
    assert list(curves(Latency(lived()).figure(by="handler"))) == ["vwap", "spread"]
    with pytest.raises(ValidationError, match="several runs are compared as wholes"):
        Latency(told).figure(Latency(told), by="symbol")
    with pytest.raises(ValidationError, match="a stage is one of"):
        Latency(told).figure(stage="sent")


def test_negatives_are_told_with_what_to_type() -> None:
    told = journey()
    told.note_rows(steady(100, apart_ns=-10_000_000), MARKET, None)
    figure = Latency(told).figure()
    note = figure.layout.title.subtitle.text.replace("<br>", " ")
    assert note == f"100 of 100 negative in exchange → received; {NEGATIVE_ADVICE}"
    assert "all values are negative, or beyond the top" in texts(figure)


def test_what_has_recorded_nothing_says_so_on_empty_axes() -> None:
    figure = Latency().figure()
    assert "nothing has been recorded yet" in texts(figure)
    assert {trace.xaxis for trace in figure.data} == {"x", "x2", "x3"}
    assert any("don't add up" in text for text in texts(figure))


def test_names_are_escaped_and_cut() -> None:
    latency = Latency(lived(), name="<b>" + "x" * 90)
    figure = latency.figure(latency.copy())
    everything = figure.to_json()
    assert "<b>" not in everything.replace("\\u003c", "<")
    assert all(len(name) < 50 for name in curves(figure))
    assert len(figure.layout.title.text) < 140


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(Stage)), values, st.integers(1, 1_000)), max_size=12))
def test_any_latency_can_be_drawn(given: list[tuple[Stage, int, int]]) -> None:
    told = journey()
    for stage, value, events in given:
        told.note(stage, MARKET, value, events)
    figure = Latency(told).figure(Latency(told)) if len(given) % 2 else Latency(told).figure()
    for trace in distributions(figure):
        assert np.isfinite(np.log10(np.array(trace.x, float))).all()
    for curve in curves(figure).values():
        assert np.isfinite(np.log10(np.array(curve.x, float))).all()
        assert np.isfinite(np.log10(np.array(curve.y, float))).all()
    assert figure.to_json()
