"""A recorder's clock against its venue's, from the data alone: made-up skews found again, and real captures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab import feeds
from hftlab.clock import Skew, estimate_skew
from hftlab.clock.skew import Envelope, skew_of_envelope
from hftlab.clock.skew.envelope import SHOWN_WINDOWS, lowest_of_windows, resolution_of
from hftlab.clock.skew.fit import fit_line
from hftlab.errors import ValidationError
from hftlab.events import Flags

Ints = npt.NDArray[np.int64]
FindCapture = Callable[[str], Path]

BEGIN_NS = 1_723_161_255_000_000_000
SECOND_NS = 1_000_000_000


class Recording(NamedTuple):
    """Made-up stamps, and what is true of them."""

    timestamp: Ints
    received: Ints
    latency: Ints
    error: Ints

    def error_at(self, moment_ns: int) -> float:
        return float(np.interp(moment_ns - BEGIN_NS, self.received - BEGIN_NS, self.error))


def recording(
    seed: int, *, events: int = 5_000, span_s: float = 600, skew_ns: int = -1_270_000_000, drift_ppm: float = 0.0,
    floor_ns: int = 3_000_000, tail_ns: float = 2e6, resolution_ns: int = 1,
) -> Recording:  # fmt: skip
    """Latencies with a floor and a heavy tail (lognormal); the recorder off by a line in its own time."""
    chance = np.random.default_rng(seed)
    received = np.sort(chance.integers(0, round(span_s * SECOND_NS), events)) + BEGIN_NS
    latency = (floor_ns + tail_ns * chance.lognormal(0, 1.5, events)).astype(np.int64)
    error = skew_ns + np.rint((received - BEGIN_NS) * (drift_ppm * 1e-6)).astype(np.int64)
    timestamp = received - error - latency
    return Recording(timestamp // resolution_ns * resolution_ns, received, latency, error)


@given(
    seed=st.integers(0, 10**6),
    skew_ns=st.integers(-10 * SECOND_NS, 10 * SECOND_NS),
    drift_ppm=st.floats(-200, 200),
    floor_ns=st.integers(0, 50_000_000),
    resolution_ns=st.sampled_from([1, 1_000, 1_000_000]),
)
@settings(max_examples=40)
def test_a_skew_is_found_to_the_least_latency_and_its_drift_within_the_bound(
    seed: int, skew_ns: int, drift_ppm: float, floor_ns: int, resolution_ns: int
) -> None:
    made = recording(seed, skew_ns=skew_ns, drift_ppm=drift_ppm, floor_ns=floor_ns, resolution_ns=resolution_ns)
    skew = estimate_skew(made.timestamp, made.received)
    above = skew.offset_ns - made.error_at(skew.reference_ns)
    assert -2 <= above <= np.quantile(made.latency, 0.005) + resolution_ns
    assert skew.resolution_ns == resolution_ns
    assert skew.drift_ppb is not None
    assert abs(skew.drift_ppb - drift_ppm * 1e3) <= skew.drift_bound_ppb <= 100_000
    corrected = skew.correct(made.received) - made.timestamp
    assert np.quantile(corrected, 0.001) >= 0
    assert skew.below <= 0.001 * len(corrected)


@given(seed=st.integers(0, 10**6), drift_ppm=st.floats(-100, 100), depth_ns=st.integers(10**9, 10**12))
@settings(max_examples=25)
def test_a_few_impossible_stamps_neither_tilt_nor_lower_the_line(seed: int, drift_ppm: float, depth_ns: int) -> None:
    made = recording(seed, events=20_000, drift_ppm=drift_ppm)
    chance = np.random.default_rng(seed)
    stamps = made.timestamp.copy()
    stamps[chance.choice(1_000, 8, replace=False)] += chance.integers(depth_ns // 2, depth_ns, 8)
    skew, clean = estimate_skew(stamps, made.received), estimate_skew(made.timestamp, made.received)
    assert skew.below == 8
    assert (skew.offset_ns, skew.drift_ppb) == pytest.approx((clean.offset_ns, clean.drift_ppb), rel=1e-3, abs=1_000)
    assert np.quantile(skew.correct(made.received) - stamps, 0.001) >= 0


def test_fast_messages_that_are_too_many_to_be_impossible_carry_the_line() -> None:
    made = recording(1, events=20_000)
    stamps = made.timestamp.copy()
    stamps[5_000:5_200] += 500_000_000
    skew = estimate_skew(stamps, made.received)
    assert skew.below == 0
    assert np.all(skew.correct(made.received) >= stamps)


def test_without_impossible_stamps_no_event_lies_below_the_line() -> None:
    made = recording(3, drift_ppm=-30)
    skew = estimate_skew(made.timestamp, made.received)
    assert skew.below == 0
    assert (skew.correct(made.received) - made.timestamp).min() in (0, 1)


def test_the_order_of_the_events_does_not_matter() -> None:
    made = recording(4)
    order = np.random.default_rng(4).permutation(len(made.received))
    assert estimate_skew(made.timestamp[order], made.received[order]) == estimate_skew(made.timestamp, made.received)


def test_what_the_fastest_message_is_known_to_have_taken_is_taken_off() -> None:
    made = recording(5, floor_ns=3_000_000)
    plain = estimate_skew(made.timestamp, made.received)
    known = estimate_skew(made.timestamp, made.received, least_latency_ns=3_000_000)
    assert known.offset_ns == plain.offset_ns - 3_000_000
    assert abs(known.offset_ns - made.error_at(known.reference_ns)) <= known.uncertainty_ns
    assert "beyond 3 ms" in known.statement


def test_of_a_short_span_the_offset_alone_is_told() -> None:
    made = recording(6, span_s=1, drift_ppm=50, floor_ns=0)
    skew = estimate_skew(made.timestamp, made.received)
    assert (skew.drift_ppb, skew.drift_bound_ppb) == (None, 0.0)
    assert skew.offset_ns == (made.received - made.timestamp).min()
    assert np.all(skew.error_ns(made.received) == skew.offset_ns)
    assert "its drift can't be told from" in skew.statement


def test_events_of_one_moment_have_an_offset_and_no_drift() -> None:
    moment = np.full(100, BEGIN_NS)
    skew = estimate_skew(moment - np.arange(100), moment)
    assert (skew.offset_ns, skew.drift_ppb, skew.span_ns) == (0, None, 0)


def test_too_few_events_are_refused_with_what_to_do() -> None:
    few = np.arange(15) + BEGIN_NS
    with pytest.raises(ValidationError, match="from 16 events at least, with both stamps their own; got 15: give more"):
        estimate_skew(few, few)
    with pytest.raises(ValidationError, match="of the same events; got 15 and 14"):
        estimate_skew(few, few[1:])
    with pytest.raises(ValidationError, match=r"array of integers, ns .*; got dtype\('float64'\) of 1 dim"):
        estimate_skew(few.astype(float), few)
    with pytest.raises(ValidationError, match="from 4 windows and 16 events at least; got 3 and 100: wait"):
        skew_of_envelope(few[:3], few[:3], 100)
    with pytest.raises(ValidationError, match="of the same windows; got 3 and 4"):
        skew_of_envelope(few[:3], few[:4], 100)


def test_corrections_are_exact_to_the_ns_far_from_1970() -> None:
    skew = Skew(
        offset_ns=-1_272_530_001, reference_ns=BEGIN_NS, drift_ppb=1_000.0, drift_bound_ppb=1.0, uncertainty_ns=1,
        events=1, below=0, span_ns=1, resolution_ns=1,
    )  # fmt: skip
    received = np.array([BEGIN_NS, BEGIN_NS + 10 * SECOND_NS, BEGIN_NS - 1_000_000])
    np.testing.assert_array_equal(skew.error_ns(received), [-1_272_530_001, -1_272_520_001, -1_272_530_002])
    np.testing.assert_array_equal(skew.correct(received), received - skew.error_ns(received))
    assert skew.error_ns(received).dtype == np.int64


# -- an envelope that was kept while events ran by ---------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), drift_ppm=st.floats(-200, 200))
@settings(max_examples=25)
def test_a_running_envelope_says_what_all_events_would(seed: int, drift_ppm: float) -> None:
    made = recording(seed, events=50_000, drift_ppm=drift_ppm)
    parts = np.array_split(np.arange(len(made.received)), 200)
    differences = made.received - made.timestamp
    lowest = np.array([part[np.argmin(differences[part])] for part in parts])
    counts = np.array([len(part) for part in parts])
    skew = skew_of_envelope(made.received[lowest], differences[lowest], counts)
    assert skew.drift_ppb is not None
    assert abs(skew.drift_ppb - drift_ppm * 1e3) <= skew.drift_bound_ppb
    above = skew.offset_ns - made.error_at(skew.reference_ns)
    assert -2 <= above <= np.quantile(made.latency, 0.005)
    assert skew.events == 50_000
    assert skew == skew_of_envelope(made.received[lowest], differences[lowest], 50_000)


def test_windows_without_an_event_say_nothing_and_impossible_ones_are_counted() -> None:
    made = recording(8, events=40_000)
    parts = np.array_split(np.arange(len(made.received)), 100)
    differences = made.received - made.timestamp
    lowest = np.array([part[np.argmin(differences[part])] for part in parts])
    at_ns, least_ns, counts = made.received[lowest], differences[lowest], np.full(100, 400)
    clean = skew_of_envelope(at_ns, least_ns, counts)
    least_ns[7] -= 3_600 * SECOND_NS
    least_ns[50], counts[50] = np.iinfo(np.int64).max, 0
    skew = skew_of_envelope(at_ns, least_ns, counts)
    assert (skew.below, skew.events) == (1, 39_600)
    assert skew.offset_ns == pytest.approx(clean.offset_ns, abs=1_000_000)


# -- the parts ---------------------------------------------------------------------------------------------------------


@given(
    points=st.lists(st.tuples(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6)), min_size=2, max_size=40),
)
def test_the_line_is_the_lower_hulls_over_the_origin(points: list[tuple[int, int]]) -> None:
    points = [*points, (-(10**6) - 1, 0), (10**6 + 1, 0)]
    x, y = (np.array(values, dtype=float) for values in zip(*points, strict=True))
    line = fit_line(x, y, 0, 0)
    assert np.all(y >= line.level + line.slope * x - 1e-6)
    highest = min(
        (y[i] * x[j] - y[j] * x[i]) / (x[j] - x[i])
        for i in np.flatnonzero(x < 0) for j in np.flatnonzero(x >= 0)
    )  # fmt: skip
    assert line.level == pytest.approx(highest, abs=1e-3)


def test_the_lowest_two_of_each_window_are_kept_and_all_of_few() -> None:
    heights = np.random.default_rng(1).normal(size=100_000)
    lowest = lowest_of_windows(heights)
    assert int(np.argmin(heights)) in lowest
    assert np.all(np.diff(lowest) > 0)
    assert len(lowest) < 5_000
    np.testing.assert_array_equal(lowest_of_windows(heights[:100]), np.arange(100))


@pytest.mark.parametrize("resolution_ns", [1, 10, 1_000, 1_000_000, SECOND_NS])
def test_the_resolution_is_found_though_one_stamp_in_ten_thousand_is_odd(resolution_ns: int) -> None:
    stamps = np.random.default_rng(2).integers(0, 10**9, 20_000) * resolution_ns
    stamps[4] += 1
    assert resolution_of(stamps) == resolution_ns


def test_an_envelope_is_thinned_to_512_windows_with_the_least_of_each_kept() -> None:
    chance = np.random.default_rng(3)
    envelope = Envelope(np.arange(10_000), chance.integers(0, 10**6, 10_000))
    thin = envelope.thinned()
    assert len(thin.at_ns) == SHOWN_WINDOWS
    assert thin.least_ns.min() == envelope.least_ns.min()
    assert thin == Envelope(thin.at_ns.copy(), thin.least_ns.copy())
    assert thin != envelope
    assert repr(thin) == "Envelope(512 windows)"


# -- showing -----------------------------------------------------------------------------------------------------------


def test_a_skew_says_what_is_known_and_what_is_not() -> None:
    behind = estimate_skew(*recording(9)[:2])
    assert "recorder's clock is behind the venue's by 1.2" in behind.statement
    assert "as long as the fastest message took, which the data can't tell from a clock's error" in behind.statement
    ahead = estimate_skew(*recording(9, skew_ns=20_000_000)[:2])
    assert "ahead of the venue's by 2" in ahead.statement
    assert "less what the fastest message took" in ahead.statement
    assert "it may be right, or behind" in ahead.statement
    assert repr(behind).startswith("Skew(-1,26")
    assert repr(behind).endswith("ppm; 5,000 events)")
    assert behind.statement.replace("'", "&#x27;") in behind._repr_html_()
    frame = behind.to_frame()
    assert list(frame.columns) == ["least_ns", "error_ns", "corrected_ns"]
    assert frame["corrected_ns"].min() in (0, 1)


def test_the_figure_shows_the_envelope_its_line_and_what_is_left() -> None:
    skew = estimate_skew(*recording(10)[:2])
    figure = skew.figure()
    assert [trace.mode for trace in figure.data] == ["markers", "lines"] * 2
    assert len(figure.data[0].x) == len(skew.envelope.at_ns)
    assert min(figure.data[2].y) >= 0
    assert figure.layout.title.subtitle.text.replace("<br>", " ") == skew.statement
    assert [axis.title.text for axis in (figure.layout.yaxis, figure.layout.yaxis2)] == ["ms", "µs"]


def test_what_lies_far_from_the_line_does_not_flatten_the_figure_and_is_told() -> None:
    made = recording(11, events=10_000)
    made.timestamp[4_000] += 3_600 * SECOND_NS
    made.timestamp[6_000:7_000] -= 60 * SECOND_NS
    figure = estimate_skew(*made[:2]).figure()
    title = figure.layout.annotations[0].text
    assert title.startswith("received - timestamp: the least of each window (")
    assert title.endswith("higher, 1 lower than drawn)")
    low, high = figure.layout.yaxis2.range
    assert figure.layout.yaxis2.title.text in ("µs", "ms")
    assert low < 0 < high < 1_000


def test_the_figure_of_a_skew_without_an_envelope_is_empty_and_fails_not() -> None:
    bare = Skew(0, BEGIN_NS, None, 0.0, 1, 16, 0, 0, 1)
    assert not bare.figure().data
    assert bare.to_frame().empty


# -- what was really recorded ------------------------------------------------------------------------------------------


def both_stamped(path: Path, name: str) -> tuple[Ints, Ints]:
    rows = feeds.read(path, format=name).records
    rows = rows[(rows["flags"] & (Flags.ARRIVAL_TIME | Flags.SOURCE_TIME).value) == 0]
    return rows["timestamp"], rows["received"]


def test_the_binance_recorder_was_1270_ms_behind_and_its_corrected_latencies_can_be_read(
    capture_path: FindCapture,
) -> None:
    timestamp, received = both_stamped(capture_path("binance-usdm-btcusdt/btcusdt_20240808_first120s.gz"), "binance")
    assert np.all(received < timestamp)
    skew = estimate_skew(timestamp, received)
    assert abs(skew.offset_ns + 1_270_000_000) < 10_000_000
    assert skew.resolution_ns == 1_000_000
    assert skew.drift_ppb is not None
    assert abs(skew.drift_ppb) < skew.drift_bound_ppb < 50_000
    corrected = skew.correct(received) - timestamp
    assert np.quantile(corrected, 0.001) >= 0
    assert skew.below == 0
    assert np.median(corrected) < 5_000_000


def test_two_captures_of_the_same_recorder_tell_the_same_drift(capture_path: FindCapture) -> None:
    futures = estimate_skew(
        *both_stamped(capture_path("binance-usdm-btcusdt/btcusdt_20240808_first120s.gz"), "binance")
    )
    spot = estimate_skew(*both_stamped(capture_path("binance-spot-btcusdt/btcusdt_20240808.gz"), "binance"))
    assert futures.drift_ppb is not None
    assert spot.drift_ppb is not None
    assert abs(futures.drift_ppb - spot.drift_ppb) < futures.drift_bound_ppb


@pytest.mark.parametrize(
    ("file", "name", "least_ms"),
    [
        ("DYDX.ws.1.0.gz", "dydx", -28.955),
        ("HITBTC.ws.1.0.gz", "hitbtc", 9.083),
        ("COINBASE.ws.28.0.gz", "coinbase", -18.209),
        ("KRAKEN_FUTURES.ws.1.0.gz", "kraken-futures", -28.477),
    ],
)
def test_half_a_minute_tells_an_offset_and_no_drift(
    file: str, name: str, least_ms: float, capture_path: FindCapture
) -> None:
    timestamp, received = both_stamped(capture_path(f"cryptofeed-anomalies/{file}"), name)
    skew = estimate_skew(timestamp, received)
    assert skew.drift_ppb is None
    assert skew.offset_ns / 1e6 == pytest.approx(least_ms, abs=0.001)
    assert np.all(skew.correct(received) >= timestamp)
