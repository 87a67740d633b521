from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import EmptyRange, HandlerFailed
from hftlab.events import (
    EventBatch,
    FillEvent,
    Kind,
    MarketDataEvent,
    OrderEvent,
    OrderType,
    Side,
    SignalEvent,
)
from hftlab.replay import ReplayStatistics
from hftlab.widgets import shown

START_NS = 1_723_161_255_000_000_000  # 2024-08-08T23:54:15Z


def statistics(**changes: Any) -> ReplayStatistics:
    """A paused replay of one minute that has gone 15 s."""
    values: dict[str, Any] = {
        "state": "paused",
        "speed": math.inf,
        "delivered": 12_345,
        "emitted": 0,
        "filtered": 0,
        "skipped": 0,
        "position_ns": START_NS + 15_000_000_001,
        "start_ns": START_NS,
        "end_ns": START_NS + 60_000_000_000,
        "progress": 0.25,
        "log_sequence": 12_345,
        "elapsed_s": 0.5,
        "rate_hz": 0.0,
        "lag_ns": 0,
        "counts": {"market": 12_345},
        "failure": "",
    }
    return ReplayStatistics(**(values | changes))


def test_the_status_is_json_that_says_where_the_replay_stands() -> None:
    status = shown.status("btc-0808", statistics())
    assert json.loads(json.dumps(status)) == status
    assert (status["label"], status["date"], status["clock"], status["fraction"]) == (
        "Paused",
        "2024-08-08",
        "23:54:30.000",
        "000 001",
    )
    assert (status["elapsed"], status["total"]) == ("15.0 s", "1:00.0")
    assert status["place"] == pytest.approx(0.25)
    assert status["counts"] == [["delivered", "12,345", ""]]


def test_a_replay_that_has_not_begun_shows_no_time() -> None:
    status = shown.status("s", statistics(state="ready", position_ns=0, start_ns=0, end_ns=0, delivered=0))
    assert (status["label"], status["clock"], status["elapsed"], status["place"]) == ("Ready", "--:--:--", "", 0.0)


@pytest.mark.parametrize(
    ("state", "speed", "label"),
    [
        ("running", math.inf, "Playing flat out"),
        ("running", 10.0, "Playing 10×"),
        ("running", 0.1, "Playing 0.1×"),
        ("running", 0.0, "Waiting for steps"),
        ("paused", 10.0, "Paused"),
        ("done", 1.0, "Done"),
        ("closed", 1.0, "Closed"),
    ],
)
def test_the_label_says_what_the_replay_does(state: str, speed: float, label: str) -> None:
    assert shown.state_label(state, speed) == label


def test_every_speed_that_is_set_is_among_the_choices_once() -> None:
    choices = shown.speed_choices(7.5)
    values = [float(value) for value, _ in choices]
    assert values == sorted(set(values))
    assert ["7.5", "7.5×"] in choices
    assert choices[-1] == ["inf", "max"]
    assert len(shown.speed_choices(1.0)) == len(shown.SPEEDS)


@given(fraction=st.floats(0, 1), width=st.integers(1, 86_400 * 10**9))
def test_a_place_and_its_moment_are_each_others_inverse(fraction: float, width: int) -> None:
    moment = shown.moment_at(fraction, START_NS, START_NS + width)
    assert START_NS <= moment <= START_NS + width
    assert shown.place(moment, START_NS, START_NS + width) == pytest.approx(fraction, abs=2 / width + 1e-9)


def test_a_moment_is_always_within_its_range() -> None:
    assert shown.moment_at(0, START_NS, START_NS + 7) == START_NS
    assert shown.moment_at(-3, START_NS, START_NS + 7) == START_NS
    assert shown.moment_at(1, START_NS, START_NS + 7) == START_NS + 6  # the end is not included
    assert shown.moment_at(1, START_NS, START_NS) == START_NS


@pytest.mark.parametrize(
    ("span_ns", "text"),
    [
        (0, "0.00 s"),
        (250_000_000, "0.25 s"),
        (12_340_000_000, "12.3 s"),
        (60_000_000_000, "1:00.0"),
        (119_990_000_000, "1:59.9"),  # never "1:60.0"
        (3_723_000_000_000, "1:02:03"),
        (-5, "0.00 s"),
    ],
)
def test_a_duration_is_read_at_a_glance(span_ns: int, text: str) -> None:
    assert shown.span_label(span_ns) == text


@pytest.mark.parametrize(
    ("rate_hz", "text"), [(0.4, "0/s"), (850, "850/s"), (12_340, "12.3 k/s"), (3_052_000, "3.05 M/s")]
)
def test_a_rate_has_three_digits(rate_hz: float, text: str) -> None:
    assert shown.rate_label(rate_hz) == text


def test_counts_that_are_zero_are_left_out_and_trouble_stands_out() -> None:
    playing = statistics(state="running", emitted=3, filtered=4, skipped=5, rate_hz=2e6, lag_ns=2_500_000_000)
    counts = shown.counts(playing, failures=1)
    assert counts == [
        ["delivered", "12,345", ""],
        ["emitted", "3", ""],
        ["filtered", "4", ""],
        ["skipped", "5", ""],
        ["rate", "2.00 M/s", ""],
        ["behind by", "2.50 s", "bad"],
        ["handler failures", "1", "bad"],
    ]


# -- the latest events ------------------------------------------------------------------------------------------------


def row(event: Any) -> dict[str, str]:
    (cells,) = shown.latest_rows(EventBatch.from_events([event]), 10)
    return dict(zip((*shown.COLUMNS, "origin"), cells, strict=True))


def test_a_quote_shows_both_sides_with_their_sizes() -> None:
    quote = MarketDataEvent(
        symbol="BTCUSDT", received=START_NS + 42, kind=Kind.QUOTE, bid=61_708.2, ask=61_708.25, bid_size=1.5, ask_size=2
    )
    assert row(quote) == {
        "received": "23:54:15.000000042",
        "event": "quote",
        "symbol": "BTCUSDT",
        "price": "",
        "size": "",
        "side": "",
        "bid": "61,708.20",
        "ask": "61,708.25",
        "detail": "1.5 × 2.0",
        "origin": "",
    }


@pytest.mark.parametrize(
    ("event", "shows"),
    [
        (
            MarketDataEvent(symbol="A", kind=Kind.TRADE, price=5.0, volume=0.25, side=Side.SELL),
            {"event": "trade", "price": "5", "size": "0.25", "side": "sell"},
        ),
        (
            MarketDataEvent(symbol="A", kind=Kind.LEVEL, price=5.5, volume=0.0, side=Side.BID),
            {"event": "level", "price": "5.5", "size": "0", "side": "bid"},
        ),
        (
            OrderEvent(symbol="A", order_id="o-1", direction=Side.BUY, quantity=3, order_type=OrderType.LIMIT, price=5),
            {"event": "order", "side": "buy", "size": "3", "price": "5", "detail": "limit o-1"},
        ),
        (
            FillEvent(symbol="A", order_id="o-1", executed_qty=2, executed_price=5.25),
            {"event": "fill", "size": "2", "price": "5.25", "detail": "o-1"},
        ),
        (
            SignalEvent(symbol="A", signal_type="WIDE", strength=0.04000000000000625, strategy_id="s1"),
            {"event": "signal", "detail": "WIDE 0.04 s1", "price": ""},
        ),
    ],
)
def test_every_type_of_event_has_its_row(event: Any, shows: dict[str, str]) -> None:
    cells = row(event)
    assert {name: cells[name] for name in shows} == shows


def test_the_newest_event_comes_first_and_no_more_than_asked() -> None:
    events = [MarketDataEvent(symbol="A", kind=Kind.TRADE, price=1.0 + i, volume=1) for i in range(30)]
    rows = shown.latest_rows(EventBatch.from_events(events), 5)
    assert [cells[shown.COLUMNS.index("price")] for cells in rows] == ["30", "29", "28", "27", "26"]
    assert shown.latest_rows(EventBatch.empty(), 5) == []


def test_prices_share_their_decimals_so_that_they_stand_below_each_other() -> None:
    events = [MarketDataEvent(symbol="A", kind=Kind.TRADE, price=price, volume=1) for price in (5, 5.25, 5.5)]
    rows = shown.latest_rows(EventBatch.from_events(events), 5)
    assert [cells[shown.COLUMNS.index("price")] for cells in rows] == ["5.50", "5.25", "5.00"]


def test_text_out_of_a_stream_stays_text() -> None:
    cells = row(SignalEvent(symbol="<img src=x>", signal_type="<b>", strategy_id="&amp;"))
    assert (cells["symbol"], cells["detail"]) == ("<img src=x>", "<b> 1 &amp;")


@given(st.floats(allow_nan=True, allow_infinity=True), st.none() | st.integers(0, 8))
def test_any_number_has_a_text(value: float, decimals: int | None) -> None:
    text = shown.number(value, decimals)
    assert text == "" if math.isnan(value) else float(text.replace(",", "")) == pytest.approx(value, rel=1e-9, abs=1)


# -- errors -----------------------------------------------------------------------------------------------------------


def test_a_handlers_failure_comes_with_the_traceback_of_what_it_raised() -> None:
    def fragile() -> None:
        raise ZeroDivisionError("an ordinary bug")

    with pytest.raises(ZeroDivisionError) as caught:
        fragile()
    error = HandlerFailed("fragile raised", handler="fragile", event=None)
    error.__cause__ = caught.value
    told = shown.fault(error)
    assert (told["name"], told["message"]) == ("HandlerFailed", "fragile raised")
    assert "in fragile" in told["traceback"]
    assert told["traceback"].rstrip().endswith("ZeroDivisionError: an ordinary bug")


def test_an_error_that_says_what_to_do_comes_without_a_traceback() -> None:
    assert shown.fault(EmptyRange("widen it"))["traceback"] == ""


def test_any_other_error_comes_with_its_traceback() -> None:
    with pytest.raises(KeyError) as caught:
        dict[str, int]()["x"]
    assert "test_shown" in shown.fault(caught.value)["traceback"]


def test_a_traceback_without_end_is_cut() -> None:
    error = RuntimeError("x" * 100_000)
    assert len(shown.fault(error)["traceback"]) == 20_000
