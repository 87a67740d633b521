"""What Binance really sent, held against what was measured of it by other means (the captures' PROVENANCE.md)."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hftlab import feeds
from hftlab.events import ClockSource, EventBatch, Flags, Kind, Side, Source
from hftlab.events.digest import RowDigest
from hftlab.events.records import Rows

FUTURES = "binance-usdm-btcusdt/btcusdt_20240808_first120s.gz"
SPOT = ("binance-spot-btcusdt/btcusdt_20240808.gz", "binance-spot-btcusdt/btcusdt_20240809_first60s.gz")

FindCapture = Callable[[str], Path]


@pytest.fixture(scope="module")
def futures(capture_path: FindCapture) -> feeds.FeedBatch:
    return feeds.read(capture_path(FUTURES), format="binance")


@pytest.fixture(scope="module")
def spot(capture_path: FindCapture) -> feeds.FeedBatch:
    return feeds.read([capture_path(name) for name in SPOT], format="binance")


def channel(batch: EventBatch, name: str) -> Rows:
    """The first row of every message of one channel."""
    ids = [index for index, source in enumerate(batch.sources) if source.channel == name]
    rows = batch.records
    return batch.where(np.isin(rows["source"], ids) & (rows["part"] == 0)).records


def latencies_ms(rows: Rows) -> dict[str, float]:
    """Receive time less exchange time."""
    latency = (rows["received"] - rows["timestamp"]) / 1e6
    p50, p99 = np.percentile(latency, (50, 99))
    return {"p50": round(float(p50), 2), "p99": round(float(p99), 2), "max": round(float(latency.max()), 2)}


def test_of_the_futures_every_line_becomes_rows(futures: feeds.FeedBatch) -> None:
    assert futures.report.lines == 29_042
    assert futures.report.messages == {"bookTicker": 22_435, "trade": 4_315, "depthUpdate": 2_291, "snapshot": 1}
    assert futures.report.events == {"quote": 22_435, "trade": 4_315, "level": 146_231, "snapshot level": 2_000}
    assert not futures.report.troubles
    assert repr(futures) == "FeedBatch(174,981 market; BTCUSDT)"


def test_the_futures_latencies_are_negative_and_kept_as_they_are(futures: feeds.FeedBatch) -> None:
    assert latencies_ms(channel(futures, "depth")) == {"p50": -1269.56, "p99": -1259.62, "max": -1241.58}
    for name, p50, p99 in (("quote", -1269.13, -1248.51), ("trade", -1268.78, -1248.54)):
        measured = latencies_ms(channel(futures, name))
        assert (measured["p50"], measured["p99"]) == (p50, p99)
    assert np.all(futures.records["flags"] & Flags.AHEAD.value)
    assert np.all(futures.records["clock"] == ClockSource.APPLICATION)


def test_the_futures_order_within_each_stream_is_whole(futures: feeds.FeedBatch) -> None:
    depth, trades, quotes = (channel(futures, name) for name in ("depth", "trade", "quote"))
    np.testing.assert_array_equal((depth["sequence"] - depth["span"])[1:], depth["sequence"][:-1])
    np.testing.assert_array_equal(np.diff(trades["sequence"]), 1)
    assert np.all(np.diff(quotes["sequence"]) > 0)
    assert np.all(np.diff(futures.records["received"]) >= 0)
    times = futures.records["timestamp"][futures.records["part"] == 0]
    snapshot = channel(futures, "snapshot")["timestamp"][0]
    assert np.count_nonzero(np.diff(times[times != snapshot]) < 0) == 217


def test_the_futures_snapshot_comes_after_six_diffs_and_is_straddled_by_one(futures: feeds.FeedBatch) -> None:
    rows = futures.records
    at = int(np.argmax((rows["flags"] & Flags.SNAPSHOT.value) != 0))
    number = int(rows["sequence"][at])
    assert number == 5123107852948
    depth = channel(futures, "depth")
    assert np.count_nonzero(depth["received"] < rows["received"][at]) == 6
    assert np.count_nonzero((depth["sequence"] >= number) & (depth["sequence"] - depth["span"] < number)) == 1
    book = rows[at : at + 2000]
    np.testing.assert_array_equal(book["part"], np.arange(2000))
    assert np.flatnonzero(book["flags"] & Flags.LAST_PART.value).tolist() == [1999]
    assert np.all(book["side"][:1000] == Side.BID)
    assert np.all(book["side"][1000:] == Side.ASK)


def test_the_spot_files_are_one_session(spot: feeds.FeedBatch) -> None:
    assert spot.report.lines == 41_249 + 10_733
    assert spot.report.messages == {
        "bookTicker": 28_040 + 8_197,
        "depthUpdate": 3_451 + 600,
        "trade": 9_757 + 1_936,
        "snapshot": 1,
    }
    assert not spot.report.troubles
    depth, trades = channel(spot, "depth"), channel(spot, "trade")
    np.testing.assert_array_equal((depth["sequence"] - depth["span"])[1:], depth["sequence"][:-1])
    np.testing.assert_array_equal(np.diff(trades["sequence"]), 1)
    assert np.all(np.diff(channel(spot, "quote")["sequence"]) > 0)
    assert {50093421584, 50093421612} <= set(depth["sequence"].tolist())
    assert {3735693015, 3735693016} <= set(trades["sequence"].tolist())


def test_the_spot_latencies_are_what_was_measured_and_quotes_have_none(spot: feeds.FeedBatch) -> None:
    midnight = 1_723_161_600_000_000_000
    depth, trades = channel(spot, "depth"), channel(spot, "trade")
    day = {"depth": depth[depth["received"] < midnight], "trade": trades[trades["received"] < midnight]}
    assert latencies_ms(day["depth"])["p50"] == -1271.98
    assert latencies_ms(day["depth"])["p99"] == -1269.67
    assert latencies_ms(day["trade"]) == {"p50": -1272.47, "p99": -1256.79, "max": -1249.98}
    assert latencies_ms(depth[depth["received"] >= midnight])["p50"] == -1272.81
    assert latencies_ms(trades[trades["received"] >= midnight])["p50"] == -1273.59
    untimed = np.concatenate([channel(spot, "quote")["flags"], channel(spot, "snapshot")["flags"]])
    assert np.all(untimed & Flags.ARRIVAL_TIME.value)
    assert not np.any(untimed & Flags.AHEAD.value)
    assert not np.any(depth["flags"] & Flags.ARRIVAL_TIME.value)


def test_spot_trades_were_told_up_to_214_ms_after_they_happened(
    spot: feeds.FeedBatch, capture_path: FindCapture
) -> None:
    other = feeds.read([capture_path(name) for name in SPOT], format="binance", exchange_time="transaction")
    behind_ms = (channel(spot, "trade")["timestamp"] - channel(other, "trade")["timestamp"]) // 1_000_000
    assert (behind_ms.min() >= 0, behind_ms.max()) == (True, 214)
    np.testing.assert_array_equal(channel(spot, "depth")["timestamp"], channel(other, "depth")["timestamp"])


def test_the_book_that_the_futures_rows_build_is_never_crossed(futures: feeds.FeedBatch) -> None:
    rows = futures.records
    number = int(channel(futures, "snapshot")["sequence"][0])
    is_snapshot = (rows["flags"] & Flags.SNAPSHOT.value) != 0
    later = rows[(rows["kind"] == Kind.LEVEL) & ~is_snapshot & (rows["sequence"] > number)]
    book: dict[int, dict[float, float]] = {Side.BID: {}, Side.ASK: {}}
    for part in (rows[is_snapshot], later):
        columns = (part[name].tolist() for name in ("side", "price", "volume", "flags"))
        for side, price, volume, flags in zip(*columns, strict=True):
            if volume:
                book[side][price] = volume
            else:
                book[side].pop(price, None)
            if flags & Flags.LAST_PART:
                assert max(book[Side.BID]) < min(book[Side.ASK])


def test_the_futures_rows_hold_what_the_json_says(futures: feeds.FeedBatch, capture_path: FindCapture) -> None:
    """Every tenth line, decoded by Python's own json and float."""
    starts = np.flatnonzero(futures.records["part"] == 0).tolist()
    with gzip.open(capture_path(FUTURES)) as lines:
        listed = list(lines)
    assert len(starts) == len(listed)
    for index in range(0, len(listed), 10):
        received, _, text = listed[index].partition(b" ")
        message: dict[str, Any] = json.loads(text)
        message = message.get("data", message)
        row = futures.records[starts[index]]
        assert row["received"] == int(received)
        assert row["timestamp"] == message["E"] * 1_000_000
        if message.get("e") == "bookTicker":
            found = [row[name] for name in ("bid", "bid_size", "ask", "ask_size", "sequence")]
            assert found == [float(message[name]) for name in "bBaA"] + [message["u"]]
        elif message.get("e") == "trade":
            assert [row["price"], row["volume"], row["sequence"]] == [
                float(message["p"]),
                float(message["q"]),
                message["t"],
            ]
            assert row["side"] == (Side.SELL if message["m"] else Side.BUY)
        else:
            bids, asks = (message[name] for name in (("b", "a") if "b" in message else ("bids", "asks")))
            rows = futures.records[starts[index] : starts[index] + len(bids) + len(asks)]
            both = [[float(value) for value in level] for level in bids + asks]
            np.testing.assert_array_equal(np.column_stack([rows["price"], rows["volume"]]), both)


def test_what_is_streamed_in_any_size_is_what_is_read_at_once(
    futures: feeds.FeedBatch, capture_path: FindCapture
) -> None:
    for rows in (1_000, 65_536, 1_000_000):
        digest = RowDigest()
        count = 0
        last = None
        for last in feeds.stream(capture_path(FUTURES), format="binance", rows=rows):
            assert len(last) <= rows
            count += 1
            digest.update(last)
        whole = RowDigest()
        whole.update(futures)
        assert digest.hexdigest() == whole.hexdigest()
        assert count == -(-len(futures) // rows)
        assert last is not None
        assert last.report == futures.report


def test_a_truncated_capture_gives_what_is_there_and_tells_of_the_cut(
    futures: feeds.FeedBatch, capture_path: FindCapture, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.gz"
    cut.write_bytes(capture_path(FUTURES).read_bytes()[:600_000])
    with pytest.warns(feeds.FeedWarning, match="1 damaged line"):
        batch = feeds.read(cut, format="binance")
    assert 50_000 < len(batch) < len(futures)
    assert batch.records.tobytes() == futures.records[: len(batch)].tobytes()
    assert batch.report.damaged[0].line == batch.report.lines
    assert "the gzip data ends before its end mark" in batch.report.damaged[0].reason


def test_the_same_capture_gives_the_same_bytes_packed_or_not_and_named_anyhow(
    futures: feeds.FeedBatch, capture_path: FindCapture, tmp_path: Path
) -> None:
    plain = tmp_path / "plain.gz"
    plain.write_bytes(gzip.decompress(capture_path(FUTURES).read_bytes()))
    again = feeds.read(str(plain), format="binance")
    assert hashlib.sha256(again.records.tobytes()).digest() == hashlib.sha256(futures.records.tobytes()).digest()
    assert list(again.sources)[1:] == [
        Source("binance-usdm", name, "BTCUSDT", rule)
        for name, rule in (("depth", "range"), ("quote", "shared"), ("trade", "plus-one"), ("snapshot", "shared"))
    ]
