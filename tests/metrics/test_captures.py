"""Latencies of a real capture, whose recorder's clock was 1.27 s slow: every one of them is negative."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hftlab import feeds
from hftlab.metrics import Histogram, Latency
from tests.metrics.journeys.rows import MARKET, journey

FUTURES = "binance-usdm-btcusdt/btcusdt_20240808_first120s.gz"


def test_negative_latencies_are_counted_with_their_extremes_and_measured_the_other_way_round(
    capture_path: Callable[[str], Path],
) -> None:
    rows = feeds.read(capture_path(FUTURES), format="binance").records
    rows = rows[rows["timestamp"] > 0]
    latency_ns = rows["received"] - rows["timestamp"]
    late, early = Histogram(name="arrival - source time"), Histogram(name="source time - arrival")
    late.record_differences(rows["received"], rows["timestamp"])
    early.record_differences(rows["timestamp"], rows["received"])
    assert late.recorded == early.recorded == len(rows) > 100_000
    assert late.negative == np.count_nonzero(latency_ns < 0) > 0.99 * len(rows)
    assert (late.minimum, late.maximum) == (latency_ns.min(), latency_ns.max())
    assert early.negative == np.count_nonzero(latency_ns > 0)
    ahead_ns = -latency_ns[latency_ns <= 0]
    qs = [0.125, 0.5, 0.875]
    exact = np.quantile(ahead_ns, qs, method="inverted_cdf").tolist()
    assert early.quantiles(qs) == pytest.approx(exact, rel=early.precision)
    assert early.mean == pytest.approx(ahead_ns.mean())


def test_a_journey_finds_the_recorders_skew_and_with_it_the_latencies_are_readable(
    capture_path: Callable[[str], Path],
) -> None:
    rows = feeds.read(capture_path(FUTURES), format="binance").records
    raw = journey()
    for begin in range(0, len(rows), 1_024):
        raw.note_rows(rows[begin : begin + 1_024], MARKET, None)
    skew = Latency(raw).skew
    assert skew is not None
    assert skew.offset_ns == pytest.approx(-1_270_000_000, abs=10_000_000)
    assert skew.drift_ppb is not None
    corrected = journey(skew=skew)
    corrected.note_rows(rows, MARKET, None)
    told = Latency(corrected).histogram("received")
    assert told.recorded == Latency(raw).histogram("received").recorded == len(rows)
    assert told.negative < 0.001 * len(rows)
    assert told.minimum is not None
    assert told.minimum > -1_000_000
