"""What a summary adds up, against plain loops over the same events."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hftlab as hl
from hftlab.monitor import SessionSummary

SECOND_NS = 1_000_000_000
START_NS = 1_723_161_255 * SECOND_NS


def quote(
    at_ns: int, *, symbol: str = "BTCUSDT", bid: float = 100.0, latency_ns: int = 5_000_000
) -> hl.MarketDataEvent:
    return hl.MarketDataEvent(
        symbol=symbol, kind=hl.Kind.QUOTE, bid=bid, ask=bid + 2, received=at_ns, timestamp=at_ns - latency_ns
    )


def test_counts_tell_kinds_types_and_snapshot_levels_apart() -> None:
    summary = SessionSummary()
    level: dict[str, Any] = {
        "kind": hl.Kind.LEVEL, "side": hl.Side.BID, "price": 1.0, "volume": 2.0, "received": START_NS,
    }  # fmt: skip
    summary.observe(
        hl.EventBatch.from_events([
            quote(START_NS),
            hl.MarketDataEvent(symbol="BTCUSDT", kind=hl.Kind.TRADE, price=1, volume=1, received=START_NS),
            hl.MarketDataEvent(symbol="BTCUSDT", **level),
            hl.MarketDataEvent(symbol="BTCUSDT", flags=hl.Flags.SNAPSHOT | hl.Flags.LAST_PART, **level),
            hl.SignalEvent(symbol="ETHUSDT", signal_type="X", received=START_NS),
        ])
    )  # fmt: skip
    assert summary.counts == {"quotes": 1, "trades": 1, "book levels": 1, "snapshot levels": 1, "signals": 1}
    assert summary.symbols == {"BTCUSDT": 4, "ETHUSDT": 1}
    assert summary.to_frame()["events"].sum() == summary.events == 5


def test_an_empty_summary_says_so_everywhere() -> None:
    summary = SessionSummary()
    summary.observe(hl.EventBatch.empty())
    assert summary.lines() == ["no events"]
    assert math.isnan(summary.latency_ms(0.5)[0])
    assert "no events" in summary._repr_html_()
    assert len(summary.figure().layout.annotations) == 4  # three titles, and what is missing


@given(
    latencies_ns=st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=200),
    cuts=st.integers(1, 50),
    quantile=st.floats(0, 1),
)
def test_latency_quantiles_are_those_of_the_sorted_latencies_within_the_stated_precision(
    latencies_ns: list[int], cuts: int, quantile: float
) -> None:
    at_ns = 10**13
    batch = hl.EventBatch.from_events([quote(at_ns, latency_ns=latency) for latency in latencies_ns])
    summary = SessionSummary()
    for begin in range(0, len(batch), cuts):
        summary.observe(batch[begin : begin + cuts])
    exact = sorted(latencies_ns)[math.floor(quantile * (len(latencies_ns) - 1))] / 1e6
    assert summary.latency_ms(quantile)[0] == pytest.approx(exact, rel=3e-4, abs=1e-9)


def test_events_without_both_times_have_no_latency() -> None:
    summary = SessionSummary()
    untimed = hl.MarketDataEvent(
        symbol="A", received=START_NS, timestamp=START_NS, flags=hl.Flags.ARRIVAL_TIME | hl.Flags.LAST_PART
    )
    summary.observe(hl.EventBatch.from_events([untimed]))
    assert math.isnan(summary.latency_ms(0.5)[0])


def test_prices_are_the_last_of_each_second_whatever_the_batches() -> None:
    events = [quote(START_NS + index * SECOND_NS // 4, bid=100.0 + index) for index in range(40)]
    whole, cut = SessionSummary(), SessionSummary()
    batch = hl.EventBatch.from_events(events)
    whole.observe(batch)
    for begin in range(0, 40, 7):
        cut.observe(batch[begin : begin + 7])
    prices = [np.asarray(summary.figure().data[0].y).tolist() for summary in (whole, cut)]
    assert prices[0] == prices[1] == [104.0 + 4 * index for index in range(10)]


def test_the_text_of_a_symbol_can_not_become_html() -> None:
    summary = SessionSummary()
    summary.observe(hl.EventBatch.from_events([quote(START_NS, symbol="<script>")]))
    assert "<script>" not in summary._repr_html_()


def test_the_binance_capture_counts_as_its_provenance_says(capture_path: Callable[[str], Path]) -> None:
    path = capture_path("binance-usdm-btcusdt/btcusdt_20240808_first120s.gz")
    batch = hl.feeds.read(path, format="binance", progress=False)
    summary = SessionSummary()
    summary.observe(batch)
    assert Counter(summary.counts) == {
        "quotes": 22_435, "trades": 4_315, "book levels": 146_231, "snapshot levels": 2_000,
    }  # fmt: skip
    quotes = SessionSummary()
    quotes.observe(batch.where(batch.records["kind"] == hl.Kind.QUOTE))
    # bookTicker: p50 -1269.13, p99 -1248.51 ms by the provenance.
    assert quotes.latency_ms(0.5, 0.99) == pytest.approx([-1269.13, -1248.51], abs=0.5)
