"""What the cryptofeed recorder really recorded, held against counts by plain json and the captures' PROVENANCE.md."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from hftlab import feeds
from hftlab.events import EventBatch, Flags, Kind, MarketDataEvent, Side
from hftlab.events.records import Rows
from tests.feeds.recordings import check_report

FindCapture = Callable[[str], Path]
FOLDER = "cryptofeed-anomalies"
COINBASE, DYDX, KRAKEN = (
    f"{FOLDER}/{name}.gz" for name in ("COINBASE.ws.28.0", "DYDX.ws.1.0", "KRAKEN_FUTURES.ws.1.0")
)
HITBTC = tuple(f"{FOLDER}/HITBTC.ws.{line}.0.gz" for line in (1, 2, 3, 4))


class Received(NamedTuple):
    """A line of a capture, read the plain way."""

    received: int
    message: dict[str, Any]


def received(path: Path) -> Iterator[Received]:
    """The messages of a capture, by Python's own gzip, Decimal and json."""
    with gzip.open(path, "rt") as text:
        for line in text:
            stamp, _, body = line.partition(": ")
            if stamp[0].isdigit():
                yield Received(int(Decimal(stamp) * 10**9), json.loads(body))


@pytest.fixture(scope="module")
def coinbase(capture_path: FindCapture) -> feeds.FeedBatch:
    return feeds.read(capture_path(COINBASE), format="coinbase")


@pytest.fixture(scope="module")
def dydx(capture_path: FindCapture) -> feeds.FeedBatch:
    return feeds.read(capture_path(DYDX), format="dydx")


@pytest.fixture(scope="module")
def kraken(capture_path: FindCapture) -> feeds.FeedBatch:
    return feeds.read(capture_path(KRAKEN), format="kraken-futures")


@pytest.fixture(scope="module")
def hitbtc(capture_path: FindCapture) -> feeds.FeedBatch:
    return feeds.read([capture_path(name) for name in HITBTC], format="hitbtc", merge=True)


def channel(batch: EventBatch, name: str) -> Rows:
    """The first row of every message of one channel."""
    ids = [index for index, source in enumerate(batch.sources) if source.channel == name]
    rows = batch.records
    return batch.where(np.isin(rows["source"], ids) & (rows["part"] == 0)).records


def steps(rows: Rows) -> Counter[int]:
    """How each number differs from the one before it from the same source."""
    latest: dict[int, int] = {}
    found: Counter[int] = Counter()
    for source, sequence in zip(rows["source"].tolist(), rows["sequence"].tolist(), strict=True):
        if source in latest:
            found[sequence - latest[source]] += 1
        latest[source] = sequence
    return found


def latencies_ms(rows: Rows) -> tuple[float, float, float]:
    """Receive time less exchange time: p50, p99 and greatest."""
    latency = (rows["received"] - rows["timestamp"]) / 1e6
    p50, p99 = np.percentile(latency, (50, 99))
    return round(float(p50), 1), round(float(p99), 1), round(float(latency.max()), 1)


def check_lines(batch: feeds.FeedBatch, lines: int) -> None:
    """No line is damaged, and each is counted once."""
    check_report(batch.report, lines)
    assert not batch.report.troubles
    assert np.all(batch.records["received"][1:] >= batch.records["received"][:-1])


# -- Kraken Futures ---------------------------------------------------------------------------------------------------


def test_of_kraken_every_line_is_counted(kraken: feeds.FeedBatch) -> None:
    check_lines(kraken, 7_179)
    assert kraken.report.messages == {
        "book": 7_014,
        "book_snapshot": 10,
        "trade": 3,
        "ticker_lite": 107,
    }
    assert kraken.report.skipped == {"handshake": 1, "sent": 3, "info": 1, "subscribed": 30, "trade_snapshot": 10}


def test_krakens_books_count_on_from_their_snapshots_without_a_gap(kraken: feeds.FeedBatch) -> None:
    book = channel(kraken, "book")
    assert len(book) == 7_014 + 10
    assert steps(book) == {1: 7_014}
    begins = (book["flags"] & Flags.SNAPSHOT.value) != 0
    assert np.count_nonzero(begins) == len(set(book["source"].tolist())) == 10
    assert len(channel(kraken, "snapshot")) == 0


def test_krakens_trades_count_on_from_the_past_ones(capture_path: FindCapture) -> None:
    batch = feeds.read(capture_path(KRAKEN), format="kraken-futures", history=True)
    history, live = channel(batch, "history"), channel(batch, "trade")
    assert batch.report.events["snapshot trade"] == 1_000
    latest = dict(zip(history["symbol"].tolist(), history["sequence"].tolist(), strict=True))
    assert [row["sequence"] - latest[int(row["symbol"])] for row in live] == [1, 1, 1]


def test_krakens_latencies_are_what_was_measured(kraken: feeds.FeedBatch) -> None:
    book = channel(kraken, "book")
    deltas = book[(book["flags"] & Flags.SNAPSHOT.value) == 0]
    assert latencies_ms(deltas) == (-20.1, 1.5, 293.7)
    ahead = (deltas["flags"] & Flags.AHEAD.value) != 0
    assert np.count_nonzero(ahead) == np.count_nonzero(deltas["timestamp"] > deltas["received"]) == 6_938


def test_krakens_rows_hold_what_the_json_says(kraken: feeds.FeedBatch, capture_path: FindCapture) -> None:
    expected = []
    for at, message in received(capture_path(KRAKEN)):
        if message.get("feed") == "book" and "event" not in message:
            side = Side.BID if message["side"] == "buy" else Side.ASK
            numbers = (message["seq"], message["timestamp"] * 1_000_000, message["price"], message["qty"])
            expected.append((message["product_id"], at, *numbers, int(side)))
    book = channel(kraken, "book")
    rows = book[(book["flags"] & Flags.SNAPSHOT.value) == 0]
    names = [kraken.symbols[index] for index in rows["symbol"].tolist()]
    fields = ("received", "sequence", "timestamp", "price", "volume", "side")
    assert list(zip(names, *(rows[name].tolist() for name in fields), strict=True)) == expected


def test_the_books_that_krakens_rows_build_are_never_crossed(kraken: feeds.FeedBatch) -> None:
    books: dict[int, dict[int, dict[float, float]]] = defaultdict(lambda: {Side.BID: {}, Side.ASK: {}})
    rows = kraken.records[kraken.records["kind"] == Kind.LEVEL]
    columns = (rows[name].tolist() for name in ("symbol", "side", "price", "volume", "flags"))
    for symbol, side, price, volume, flags in zip(*columns, strict=True):
        book = books[symbol]
        if volume:
            book[side][price] = volume
        else:
            book[side].pop(price, None)
        if flags & Flags.LAST_PART:
            assert max(book[Side.BID]) < min(book[Side.ASK])


# -- HitBTC -----------------------------------------------------------------------------------------------------------


def first_arrivals(rows: Rows) -> tuple[Counter[str], Rows]:
    """Unique (source, number)s, duplicates and steps back against the row before, and the rows that came first."""
    seen: set[tuple[int, int]] = set()
    latest: dict[int, int] = {}
    found: Counter[str] = Counter()
    keep = np.zeros(len(rows), np.bool_)
    for index, key in enumerate(zip(rows["source"].tolist(), rows["sequence"].tolist(), strict=True)):
        found["duplicate" if key in seen else "unique"] += 1
        found["backward"] += key[1] < latest.get(key[0], 0)
        keep[index] = key not in seen
        seen.add(key)
        latest[key[0]] = key[1]
    return found, rows[keep]


def test_of_hitbtcs_four_lines_every_line_is_counted(hitbtc: feeds.FeedBatch) -> None:
    check_lines(hitbtc, 4 * 841)
    assert hitbtc.report.messages == {
        "updateOrderbook": 2_068,
        "snapshotOrderbook": 80,
        "ticker": 812,
    }
    assert hitbtc.report.skipped == {
        "handshake": 4,
        "sent": 160,
        "result": 160,
        "snapshotCandles": 40,
        "snapshotTrades": 40,
    }


def test_hitbtcs_four_lines_merged_are_517_updates_and_1551_duplicates(hitbtc: feeds.FeedBatch) -> None:
    updates = channel(hitbtc, "orderbook")
    assert len(updates) == 2_068
    found, first = first_arrivals(updates)
    assert found == {"unique": 517, "duplicate": 1_551, "backward": 85}
    assert set(steps(first)) == {1}


def test_duplicates_of_hitbtcs_updates_have_the_same_content(hitbtc: feeds.FeedBatch) -> None:
    ids = [index for index, source in enumerate(hitbtc.sources) if source.channel == "orderbook"]
    contents: dict[tuple[int, int, int], set[tuple[Any, ...]]] = defaultdict(set)
    rows = hitbtc.records[np.isin(hitbtc.records["source"], ids)]
    fields = ("source", "sequence", "part", "timestamp", "price", "volume", "side", "span")
    for source, sequence, part, *content in zip(*(rows[name].tolist() for name in fields), strict=True):
        contents[source, sequence, part].add(tuple(content))
    assert {len(each) for each in contents.values()} == {1}


def test_hitbtcs_snapshots_have_the_number_of_the_update_before_them(capture_path: FindCapture) -> None:
    for name in HITBTC:
        batch = feeds.read(capture_path(name), format="hitbtc")
        updates, snapshots = channel(batch, "orderbook"), channel(batch, "snapshot")
        assert (len(updates), len(snapshots)) == (517, 20)
        together = np.sort(np.concatenate([updates, snapshots]), order="received", kind="stable")
        together["source"] = 0  # as if they were one source
        difference: Counter[tuple[bool, int]] = Counter()
        latest: dict[int, int] = {}
        for symbol, number, flags in zip(*(together[f].tolist() for f in ("symbol", "sequence", "flags")), strict=True):
            if symbol in latest:
                difference[bool(flags & Flags.SNAPSHOT), number - latest[symbol]] += 1
            latest[symbol] = number
        assert difference == {(False, 1): 517, (True, 0): 10}


def test_hitbtcs_first_lines_latencies_are_what_was_measured(capture_path: FindCapture) -> None:
    updates = channel(feeds.read(capture_path(HITBTC[0]), format="hitbtc"), "orderbook")
    p50, p90, greatest = np.percentile((updates["received"] - updates["timestamp"]) / 1e6, (50, 90, 100))
    assert (round(float(p50), 1), round(float(p90)), round(float(greatest))) == (69.6, 2_289, 4_543)


def test_hitbtcs_merged_rows_are_a_sort_of_all_four_by_receive_time(
    hitbtc: feeds.FeedBatch, capture_path: FindCapture
) -> None:
    listed = [
        (at, line, index, message["params"])
        for line, name in enumerate(HITBTC)
        for index, (at, message) in enumerate(received(capture_path(name)))
        if message.get("method") == "updateOrderbook"
    ]
    expected = []
    for at, _, _, params in sorted(listed, key=lambda each: each[:3]):
        for side, levels in ((Side.BID, params["bid"]), (Side.ASK, params["ask"])):
            for level in levels:
                numbers = (params["sequence"], float(level["price"]), float(level["size"]))
                expected.append((params["symbol"], at, *numbers, int(side)))
    ids = [index for index, source in enumerate(hitbtc.sources) if source.channel == "orderbook"]
    rows = hitbtc.records[np.isin(hitbtc.records["source"], ids)]
    names = [hitbtc.symbols[index] for index in rows["symbol"].tolist()]
    fields = ("received", "sequence", "price", "volume", "side")
    assert list(zip(names, *(rows[name].tolist() for name in fields), strict=True)) == expected


# -- dYdX -------------------------------------------------------------------------------------------------------------


def test_of_dydx_every_line_is_counted(dydx: feeds.FeedBatch) -> None:
    check_lines(dydx, 4_754)
    assert dydx.report.messages == {
        "channel_data v3_orderbook": 4_687,
        "channel_data v3_trades": 25,
        "subscribed v3_orderbook": 10,
    }
    assert dydx.report.events["trade"] == 26
    assert dydx.report.skipped == {"handshake": 1, "sent": 20, "connected": 1, "subscribed v3_trades": 10}


def test_dydxs_deltas_are_out_of_order_as_measured(dydx: feeds.FeedBatch) -> None:
    deltas = channel(dydx, "orderbook")
    found = steps(deltas)
    assert sum(count for step, count in found.items() if step < 0) == 541
    assert sum(count for step, count in found.items() if step > 1) == 3_864
    assert found[0] == 0
    greatest: dict[int, int] = {}
    late: Counter[int] = Counter()
    for source, number in zip(deltas["source"].tolist(), deltas["sequence"].tolist(), strict=True):
        late[source] += number < greatest.get(source, 0)
        greatest[source] = max(number, greatest.get(source, 0))
    assert sum(late.values()) == 604
    names = {index: source.scope for index, source in enumerate(dydx.sources)}
    assert max((count, names[source]) for source, count in late.items())[1] == "ETH-USD"
    assert np.all(deltas["flags"] & Flags.ARRIVAL_TIME.value)


def test_dydxs_trades_latencies_are_what_was_measured(dydx: feeds.FeedBatch) -> None:
    live = [index for index, source in enumerate(dydx.sources) if source.channel == "trades"]
    rows = dydx.records[np.isin(dydx.records["source"], live)]
    assert len(rows) == 26
    assert latencies_ms(rows)[0] == -23.7


def test_by_its_message_ids_nothing_was_lost_on_dydxs_line(capture_path: FindCapture) -> None:
    batch = feeds.read(capture_path(DYDX), format="dydx", number="message_id")
    messages = channel(batch, "connection")
    assert sorted(messages["sequence"].tolist()) == list(range(4_733))
    assert np.count_nonzero(np.diff(messages["sequence"]) < 0) == 4
    assert len({*messages["source"].tolist()}) == 1
    assert not messages["epoch"].any()


def test_dydxs_rows_hold_what_the_json_says(dydx: feeds.FeedBatch, capture_path: FindCapture) -> None:
    expected = []
    for at, message in received(capture_path(DYDX)):
        if message["type"] == "channel_data" and message["channel"] == "v3_orderbook":
            contents = message["contents"]
            for side, name in ((Side.BID, "bids"), (Side.ASK, "asks")):
                for price, size in contents[name]:
                    expected.append((message["id"], at, int(contents["offset"]), float(price), float(size), int(side)))
    ids = [index for index, source in enumerate(dydx.sources) if source.channel == "orderbook"]
    rows = dydx.records[np.isin(dydx.records["source"], ids)]
    names = [dydx.symbols[index] for index in rows["symbol"].tolist()]
    fields = ("received", "sequence", "price", "volume", "side")
    assert list(zip(names, *(rows[name].tolist() for name in fields), strict=True)) == expected


# -- Coinbase ---------------------------------------------------------------------------------------------------------


def test_of_coinbase_every_line_is_counted(coinbase: feeds.FeedBatch) -> None:
    check_lines(coinbase, 9_952)
    assert coinbase.report.messages == {
        "l2update": 9_719,
        "match": 97,
        "ticker": 107,
        "snapshot": 10,
        "last_match": 10,
    }
    assert coinbase.report.skipped == {"handshake": 1, "sent": 3, "subscriptions": 3, "blank": 2}


def test_coinbases_matches_count_on_from_the_last_one_before_them(coinbase: feeds.FeedBatch) -> None:
    matches = channel(coinbase, "matches")
    assert len(matches) == 107
    assert steps(matches) == {1: 97}
    tickers = steps(channel(coinbase, "ticker"))
    assert (sum(tickers.values()), min(tickers) > 1) == (97, True)


def test_coinbases_latencies_are_what_was_measured(coinbase: feeds.FeedBatch) -> None:
    book = channel(coinbase, "level2")
    updates = book[(book["flags"] & Flags.SNAPSHOT.value) == 0]
    assert len(updates) == 9_719
    assert latencies_ms(updates) == (-13.2, 34.4, 102.6)
    assert np.count_nonzero(updates["flags"] & Flags.AHEAD.value) == 8_885
    assert set(updates["sequence"].tolist()) == {-1}


def test_coinbases_tickers_have_the_takers_side_of_the_matches_that_they_tell_again(
    coinbase: feeds.FeedBatch, capture_path: FindCapture
) -> None:
    takers = {
        (message["product_id"], message["trade_id"]): Side[message["side"].upper()]
        for _, message in received(capture_path(COINBASE))
        if message["type"] == "ticker"
    }
    matches = [event for event in coinbase.events() if event.source.channel == "matches"]
    assert len(matches) == len(takers) == 107
    for event in matches:
        assert isinstance(event, MarketDataEvent)
        assert event.side is takers[event.symbol, event.sequence]


def test_coinbases_rows_hold_what_the_json_says(coinbase: feeds.FeedBatch, capture_path: FindCapture) -> None:
    expected = []
    for at, message in received(capture_path(COINBASE)):
        if message["type"] == "l2update":
            ((side, price, size),) = message["changes"]
            time = int(np.datetime64(message["time"].removesuffix("Z"), "ns").astype(np.int64))
            signed = int(Side.BID if side == "buy" else Side.ASK)
            expected.append((message["product_id"], at, time, float(price), float(size), signed))
    book = channel(coinbase, "level2")
    rows = book[(book["flags"] & Flags.SNAPSHOT.value) == 0]
    names = [coinbase.symbols[index] for index in rows["symbol"].tolist()]
    fields = ("received", "timestamp", "price", "volume", "side")
    assert list(zip(names, *(rows[name].tolist() for name in fields), strict=True)) == expected


# -- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "files", "merge"),
    [
        ("coinbase", (COINBASE,), False),
        ("dydx", (DYDX,), False),
        ("hitbtc", HITBTC, True),
        ("kraken-futures", (KRAKEN,), False),
    ],
)
def test_what_is_streamed_is_what_is_read_at_once(
    name: str, files: Iterable[str], merge: bool, capture_path: FindCapture
) -> None:
    paths = [capture_path(file) for file in files]
    whole = feeds.read(paths, format=name, merge=merge)
    batches = list(feeds.stream(paths, format=name, merge=merge, rows=1_000))
    assert b"".join(batch.records.tobytes() for batch in batches) == whole.records.tobytes()
    assert batches[-1].report == whole.report
