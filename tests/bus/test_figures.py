from __future__ import annotations

import dataclasses

import plotly.graph_objects as go

from hftlab.bus import EventBus, Flow
from hftlab.bus.figures import LANE_COLOURS, MOST_BUSES
from hftlab.bus.statistics import BusStatistics, LaneStatistics
from hftlab.events import Priority

LANE = LaneStatistics(
    lane="NORMAL", waiting=5, capacity=100, oldest_ns=0, handled=60, wait_p50_ns=2e6, wait_p99_ns=9e6,
    wait_max_ns=10_000_000, gave_way={"drop oldest": 30, "shed: mine": 5}, preempted=0, inversion_ns=0, paused=False,
    pauses=0, paused_ns=0, waits_for="",
)  # fmt: skip
UNUSED = dataclasses.replace(LANE, lane="HIGH", waiting=0, handled=0, gave_way={})
ORDERS = dataclasses.replace(LANE, lane="CRITICAL", handled=7, waiting=0, gave_way={}, wait_max_ns=0, wait_p99_ns=0.0)
TOLD = dataclasses.replace(
    EventBus().statistics(), published=107, dropped=32, dropped_oldest=30, lanes=(ORDERS, UNUSED, LANE)
)


def bars(figure: go.Figure) -> dict[str, list[float]]:
    return {trace.name: list(trace.x) for trace in figure.data if trace.type == "bar"}


def scatters(figure: go.Figure, mode: str) -> list[go.Scatter]:
    return [trace for trace in figure.data if trace.type == "scatter" and trace.mode == mode]


def waits(figure: go.Figure) -> list[go.Scatter]:
    return scatters(figure, "lines+markers+text")


def test_a_lane_that_had_an_event_is_a_row_the_most_urgent_first() -> None:
    assert list(TOLD.figure().layout.yaxis.ticktext) == ["CRITICAL", "NORMAL"]


def test_what_became_of_a_lanes_events_adds_up_to_all_of_them() -> None:
    parts = bars(TOLD.figure())
    assert parts == {"handled": [100, 60], "waiting": [0, 5], "drop oldest": [0, 30], "shed: mine": [0, 5]}
    (totals,) = scatters(TOLD.figure(), "text")
    assert list(totals.text) == [" of 7", " of 100"]


def test_the_percentiles_and_the_longest_wait_are_marked() -> None:
    critical, normal = waits(TOLD.figure())
    assert list(normal.x) == [2e6, 9e6, 1e7]
    assert "p50 2 ms, p99 9 ms" in "".join(normal.text)
    assert list(normal.customdata) == ["NORMAL: p50 2 ms", "NORMAL: p99 9 ms", "NORMAL: longest 10 ms"]
    assert min(critical.x) > 0  # a logarithmic axis has no 0


def test_lanes_have_the_same_colours_everywhere() -> None:
    assert set(LANE_COLOURS) == {level.name for level in Priority if level is not Priority.DEFAULT}
    assert waits(TOLD.figure())[1].line.color == LANE_COLOURS["NORMAL"]


def test_several_are_compared_by_name_and_names_are_escaped() -> None:
    figure = BusStatistics.compare({"<wait>": TOLD, "drop": TOLD})
    assert list(figure.layout.yaxis.ticktext) == [
        "<b>&lt;wait&gt;</b>  CRITICAL", "NORMAL", "<b>drop</b>  CRITICAL", "NORMAL",
    ]  # fmt: skip
    assert "&lt;wait&gt;, NORMAL: 30 drop oldest, 30 %" in str(figure)
    assert "<wait>" not in str(figure)
    places = list(figure.layout.yaxis.tickvals)
    assert places[2] - places[1] > places[1] - places[0]


def test_a_policy_has_the_same_colour_beside_whatever_others() -> None:
    other = dataclasses.replace(TOLD, lanes=(dataclasses.replace(LANE, gave_way={"conflate": 1, "drop oldest": 4}),))
    colours = [
        next(trace.marker.color for trace in one.figure().data if trace.name == "drop oldest") for one in (TOLD, other)
    ]
    assert colours[0] == colours[1]


def test_what_else_became_of_events_is_told_under_the_title() -> None:
    told = dataclasses.replace(TOLD, dead_lettered=3, set_aside=2)
    figure = BusStatistics.compare({f"bus {number}": told for number in range(MOST_BUSES + 1)})
    assert figure.layout.title.text == "1,712 events published"
    assert figure.layout.title.subtitle.text == "48 dead-lettered; 32 set aside; 32 given up; 1 more not drawn"
    assert TOLD.figure().layout.title.subtitle.text == "2 given up"


def test_an_empty_bus_says_so() -> None:
    figure = EventBus(flow=Flow()).statistics().figure()
    assert [note.text for note in figure.layout.annotations] == ["nothing was published yet"]
    assert not figure.data or not bars(figure)
