from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.metrics import Histogram, Journey, Latency, Stage, percentile_curve
from hftlab.metrics.journeys.stages import NEGATIVE_ADVICE
from tests.metrics.journeys.rows import BEGIN_NS, MARKET, ORDER, Row, journey, rows_of, steady
from tests.metrics.test_histogram import content, filled, within
from tests.metrics.test_kernels import lists

spans = st.integers(0, 40).flatmap(lambda bits: st.integers(0, 1 << bits))


def lived() -> Journey:
    """A journey that has something of everything."""
    told = journey("processor")
    rows = steady(3_000, symbols=3)
    told.note_rows(rows[:2_000], MARKET, BEGIN_NS + 4 * 10**9)
    told.note_rows(rows[2_000:], ORDER, BEGIN_NS + 5 * 10**9)
    told.note(Stage.READ, MARKET, 20_000, 2_000)
    told.note(Stage.SEQUENCED, MARKET, 3_000, 2_000)
    told.note(Stage.DISPATCHED, MARKET, 50_000, 1_000)
    told.note(Stage.DISPATCHED, MARKET, 90_000, 1_000)
    told.note(Stage.HANDLED, MARKET, 800, 2_000)
    told.note_handler("spread", MARKET, 500, 2_000)
    told.note_handler("vwap", MARKET, 300, 2_000)
    told.note_handler("vwap", ORDER, 900, 1_000)
    return told


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(spans, st.integers(0, 5), st.booleans()), min_size=1, max_size=60),
    st.lists(st.integers(0, 64), min_size=1, max_size=4), st.integers(0, 3),
)  # fmt: skip
def test_merged_quantiles_are_numpys_within_the_stated_precision(
    given: list[tuple[int, int, bool]], parts: list[int], most_symbols: int
) -> None:
    told = [journey("a", most_symbols=most_symbols), journey("b", most_symbols=most_symbols)]
    for span, symbol, second in given:
        told[second].note_rows(rows_of([Row(BEGIN_NS, BEGIN_NS + span, symbol)]), MARKET if symbol % 2 else ORDER, None)
    latency = Latency(*told)
    merged = latency.histogram("received")
    qs = [part / 64 for part in parts]
    exact = np.quantile(np.array([span for span, _, _ in given]), qs, method="inverted_cdf").tolist()
    for value, true in zip(merged.quantiles(qs), exact, strict=True):
        assert within(value, true, merged)
    assert content(merged) == content(latency.stages[Stage.RECEIVED])
    for by in ("type", "symbol"):
        together = Histogram()
        for histogram in latency.grouped(by, "received").values():
            together.merge(histogram)
        assert content(together) == content(merged)


def test_stages_are_told_in_the_order_of_an_events_way_and_only_those_that_were() -> None:
    stages = list(Latency(lived()).stages)
    assert stages == [stage for stage in Stage if stage is not Stage.APPENDED]
    assert Latency().stages == {}
    assert [histogram.name for histogram in Latency(lived()).stages.values()] == [stage.value for stage in stages]


def test_one_histogram_is_asked_for_by_its_names() -> None:
    latency = Latency(lived())
    assert latency.histogram().count == 3_000
    assert latency.histogram("total", symbol="S1").count == 1_000
    assert latency.histogram("RECEIVED", symbol="S1", type="market").count == 667
    assert latency.histogram("dispatched → handled").quantile(0.5) == 800
    assert latency.histogram(handler="vwap").count == 3_000
    assert latency.histogram(handler="vwap", type="order").name == "dispatched → handled, order, vwap"
    assert Latency().histogram("read").count == 0


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"stage": "sent"}, "one of received, appended, read, sequenced, dispatched, handled, total; got 'sent'"),
        ({"stage": 3}, "a stage is one of"),
        ({"symbol": "BTC"}, "received → handled has no symbol 'BTC'; it has S0, S1, S2"),
        ({"type": "fill"}, "has no type 'fill'; it has market, order"),
        ({"handler": "x"}, "dispatched → handled has no handler 'x'; it has spread, vwap"),
        ({"stage": "read", "symbol": "S1"}, "symbols are told apart in received and total; got read"),
        ({"stage": "total", "handler": "vwap"}, "handlers are told apart in handled"),
        ({"stage": "appended", "type": "market"}, "received → appended has no type 'market'; it has none yet"),
    ],
)  # fmt: skip
def test_what_there_is_not_is_told_with_what_there_is(asked: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Latency(lived()).histogram(**asked)


def test_groups_come_with_most_values_first() -> None:
    latency = Latency(lived())
    assert list(latency.grouped("handler")) == ["vwap", "spread"]
    assert {name: h.count for name, h in latency.grouped("type").items()} == {"market": 2_000, "order": 1_000}
    assert next(iter(latency.grouped("stage"))) == "exchange → received"
    with pytest.raises(ValidationError, match="by symbol there is received and total; got read"):
        latency.grouped("symbol", "read")
    with pytest.raises(ValidationError, match="grouped by one of stage, type, symbol, handler; got 'venue'"):
        latency.grouped("venue")  # type: ignore[arg-type]


def test_a_replay_shows_what_it_has_in_place_of_the_whole_way() -> None:
    told = journey()
    told.note_rows(steady(10), MARKET, None)
    assert Latency(told).main_stage() is Stage.RECEIVED
    told.note(Stage.DISPATCHED, MARKET, 5)
    told.note(Stage.HANDLED, MARKET, 5)
    assert Latency(told).main_stage() is Stage.HANDLED
    assert Latency(told).main_stage("symbol") is Stage.RECEIVED
    assert Latency(lived()).main_stage() is Stage.TOTAL


def test_the_table_has_a_row_for_each_path_and_stage() -> None:
    other = journey("append", sample=3)
    other.note(Stage.APPENDED, MARKET, 1_000, 10)
    other.note(Stage.APPENDED, MARKET, -5, 2)
    frame = Latency(lived(), other).to_frame()
    assert list(frame.columns) == [
        "path", "stage", "count", "negative", "overflow", "min_ns", "p50_ns", "p90_ns", "p99_ns", "p99.9_ns",
        "p99.99_ns", "max_ns", "sample",
    ]  # fmt: skip
    assert list(frame["path"]) == ["processor"] * 6 + ["append"]
    last = frame.iloc[-1]
    assert (last["stage"], last["count"], last["negative"], last["min_ns"]) == ("received → appended", 10, 2, -5)
    assert (last["p50_ns"], last["max_ns"], last["sample"]) == (1_000, 1_000, 3)
    assert len(Latency().to_frame()) == 0
    assert list(Latency().to_frame().columns) == list(frame.columns)


def test_the_table_groups_by_type_symbol_and_handler() -> None:
    latency = Latency(lived())
    by_type = latency.to_frame("type")
    assert set(by_type[by_type["stage"] == "received → handled"]["type"]) == {"market", "order"}
    by_symbol = latency.to_frame("symbol")
    assert set(by_symbol["stage"]) == {"exchange → received", "received → handled"}
    assert by_symbol["count"].sum() == 6_000
    by_handler = latency.to_frame("handler").set_index("handler")
    assert by_handler.loc["vwap", "count"] == 3_000
    with pytest.raises(ValidationError, match="grouped by one of"):
        latency.to_frame("venue")  # type: ignore[arg-type]


def test_a_view_is_live_and_a_copy_is_not() -> None:
    told = lived()
    latency = Latency(told, name="run 1")
    before = latency.copy()
    told.note(Stage.READ, MARKET, 5, 10)
    assert latency.histogram("read").count == before.histogram("read").count + 10
    assert before.name == "run 1"


def test_statistics_are_frozen() -> None:
    told = Latency(lived(), name="now").statistics()
    assert (told.name, told.paths, told.sample) == ("now", ("processor",), 1)
    assert told.stages[Stage.READ].p50 == pytest.approx(20_000, rel=0.004)
    with pytest.raises(FrozenInstanceError):
        told.name = "then"  # type: ignore[misc]


def test_the_skew_is_of_the_source_with_most_events() -> None:
    rows = steady(9_000, apart_ns=-10_000_000)
    rows["source"] = np.where(np.arange(9_000) % 3, 4, 1)
    told, other = journey(), journey()
    told.note_rows(rows, MARKET, None)
    other.note_rows(rows[:3_000], MARKET, None)
    latency = Latency(other, told)
    assert latency.skews["venue 4"].events == 6_000
    assert latency.skew == latency.skews["venue 4"]
    assert Latency(journey()).skew is None


def test_negative_latencies_are_told_with_what_to_do() -> None:
    told = journey()
    told.note_rows(steady(1_000, apart_ns=-10_000_000), MARKET, None)
    assert Latency(told).notes() == ["1,000 of 1,000 negative in exchange → received", NEGATIVE_ADVICE]
    assert NEGATIVE_ADVICE in Latency(told)._repr_html_()
    corrected = journey(skew=Latency(told).skew)
    corrected.note_rows(steady(100, apart_ns=-20_000_000), MARKET, None)
    assert Latency(corrected).notes() == ["100 of 100 negative in exchange → received"]
    assert Latency(journey(sample=3)).notes() == ["1 row in 3 was recorded"]
    told = journey()
    told.note(Stage.DISPATCHED, MARKET, -1)
    assert Latency(told).notes() == ["1 of 1 negative in sequenced → dispatched"]


def test_representations_are_short_and_escaped() -> None:
    told = journey("<b>")
    told.note(Stage.READ, MARKET, 1_500, 8)
    assert repr(Latency(told)) == "Latency(read p50 1.5 µs p99 1.5 µs)"
    assert repr(Latency(name="x")) == "Latency('x': nothing recorded)"
    assert Latency(told, name="<i>")._repr_html_().startswith("<div><b>&lt;i&gt;</b><table>")
    assert "nothing recorded" in Latency()._repr_html_()


def test_only_journeys_of_one_precision_are_shown_together() -> None:
    with pytest.raises(ValidationError, match=r"the same sub_buckets; got \[128, 256\]"):
        Latency(journey(), journey(sub_buckets=256))
    with pytest.raises(ValidationError, match="a Latency shows journeys; got"):
        Latency(Histogram())  # type: ignore[arg-type]
    fine = journey(sub_buckets=256)
    fine.note(Stage.READ, MARKET, 5)
    assert Latency(fine).histogram("read").sub_buckets == 256


@given(lists)
def test_the_percentile_curve_is_the_histograms_quantiles(given: list[int]) -> None:
    histogram = filled(given)
    quantiles, values = percentile_curve(histogram)
    assert len(quantiles) == len(values)
    if not histogram.count:
        assert len(values) == 0
        return
    assert (quantiles[0], values[0]) == (0, histogram.quantile(0))
    assert quantiles[-1] == pytest.approx(1 - 0.5 / histogram.count)
    assert values[-1] == histogram.quantile(1)
    assert (np.diff(quantiles) > 0).all()
    assert (np.diff(values) >= 0).all()
    ranks = np.ceil(quantiles * histogram.count)
    # Where a rank is met but for the last bits of a float, either neighbour is right.
    clear = np.abs(quantiles * histogram.count - np.round(quantiles * histogram.count)) > 1e-9
    inside = sorted(value for value in given if 0 <= value <= 1 << 62)
    for rank, value in zip(ranks[clear].astype(int).tolist(), values[clear].tolist(), strict=True):
        assert within(value, inside[max(rank, 1) - 1], histogram)


def test_a_curve_of_very_many_values_stays_short_and_finite() -> None:
    histogram = Histogram()
    histogram.record(5, 1 << 30)
    histogram.record(500, 1 << 30)
    for _ in range(27):
        histogram.merge(histogram)
    quantiles, values = percentile_curve(histogram)
    assert 500 < len(quantiles) < 1_000
    assert np.isfinite(1 / (1 - quantiles)).all()
    assert values[-1] == 500
    assert math.isclose(values[0], 5)
