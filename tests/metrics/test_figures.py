from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import pytest
from hypothesis import given, settings

from hftlab.metrics import Histogram
from hftlab.metrics.figures import MOST_HISTOGRAMS
from hftlab.metrics.wording import percentile_text, value_text
from tests.metrics.test_histogram import filled
from tests.metrics.test_kernels import lists


def distributions(figure: go.Figure) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.fill == "tozeroy"]


def lanes(figure: go.Figure) -> list[list[str]]:
    return [list(trace.customdata) for trace in figure.data if trace.mode == "markers+text"]


def latencies(seed: int = 1) -> Histogram:
    histogram = Histogram(name=f"lane {seed}")
    histogram.record_many(np.random.default_rng(seed).lognormal(10, 1, 5_000).astype(np.int64))
    return histogram


def test_the_bars_add_up_to_all_of_the_values() -> None:
    (drawn,) = distributions(latencies().figure())
    assert sum(height for height in drawn.y if height > 1e-9) == pytest.approx(100)


def test_the_percentiles_stand_on_the_lane_and_as_lines() -> None:
    histogram = filled([1_000] * 9_900 + [2_000_000] * 100)
    figure = histogram.figure()
    assert lanes(figure) == [["p50 1 µs", "p90 1 µs", "p99 1 µs", "p99.9 2 ms"]]
    assert [shape.x0 for shape in figure.layout.shapes] == histogram.quantiles([0.5, 0.9, 0.99, 0.999])
    (marks,) = (trace for trace in figure.data if trace.mode == "markers+text")
    assert list(marks.x) == histogram.quantiles([0.5, 0.9, 0.99, 0.999])
    assert [bool(text) for text in marks.text] == [True, False, True, True]  # four labels have no room at one place


def test_several_are_drawn_beside_each_other_each_by_its_own_parts() -> None:
    one, other = latencies(1), latencies(2)
    other.record_many(np.full(50_000, 77, np.int64))
    figure = one.figure(other)
    assert [sum(height for height in drawn.y if height > 1e-9) for drawn in distributions(figure)] == [
        pytest.approx(100), pytest.approx(100),
    ]  # fmt: skip
    assert len(lanes(figure)) == 2
    assert list(figure.layout.yaxis2.ticktext) == ["lane 1", "lane 2"]
    assert not figure.layout.shapes


def test_what_is_not_drawn_is_told() -> None:
    histogram = filled([5, -1, -2, (1 << 62) + 1])
    assert "not drawn: 2 negative, 1 beyond the top" in histogram.figure().layout.title.subtitle.text
    many = [latencies(seed) for seed in range(MOST_HISTOGRAMS + 2)]
    figure = many[0].figure(*many[1:])
    assert len(distributions(figure)) == MOST_HISTOGRAMS
    assert "2 more not drawn" in figure.layout.title.subtitle.text


def test_an_empty_one_says_so() -> None:
    figure = Histogram().figure()
    assert figure.layout.annotations[0].text == "nothing has been recorded yet"
    assert latencies().figure(Histogram()).layout.annotations == ()
    assert filled([-1]).figure().layout.annotations[0].text == "all values are negative, or beyond the top"


def test_names_are_escaped() -> None:
    histogram = filled([1, 2])
    histogram.name = "<b>x"
    figure = histogram.figure()
    assert figure.layout.title.text == "&lt;b&gt;x: 2 values"
    assert list(figure.layout.yaxis2.ticktext) == ["&lt;b&gt;x"]


@settings(max_examples=25, deadline=None)
@given(lists)
def test_any_histogram_can_be_drawn(given: list[int]) -> None:
    histogram = filled(given)
    figure = histogram.figure()
    for drawn in distributions(figure):
        assert np.isfinite(np.log10(np.array(drawn.x, float))).all()
        assert sum(height for height in drawn.y if height > 1e-9) == pytest.approx(100)
    assert len(distributions(figure)) == bool(histogram.count)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 ns"),
        (999.6, "999 ns"),
        (1_000, "1 µs"),
        (12_345, "12.3 µs"),
        (-1_250_000, "-1.25 ms"),
        (3_200_000_000, "3.2 s"),
        (125 * 10**9, "2 min 05 s"),
        (11_400 * 10**9, "3 h 10 min"),
        (100 * 86_400 * 10**9, "100 days"),
        (float("nan"), "none"),
    ],
)
def test_durations_are_told_to_three_digits(value: float, text: str) -> None:
    assert value_text(value, "ns") == text


def test_other_units_are_told_as_they_are() -> None:
    assert value_text(1_234.4, "events") == "1,234 events"
    assert value_text(1.2345, "") == "1.23"


@pytest.mark.parametrize(
    ("q", "text"), [(0.5, "p50"), (0.999, "p99.9"), (0.99999, "p99.999"), (1, "p100"), (0.07, "p7")]
)
def test_percentiles_are_told_without_the_rounding_of_binary(q: float, text: str) -> None:
    assert percentile_text(q) == text
