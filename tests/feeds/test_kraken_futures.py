"""Kraken Futures' messages become the rows that the module's table says, against a reader that goes one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab import feeds
from hftlab.events import ClockSource, Flags, Kind, MarketDataEvent, Side, Source
from tests.feeds import recordings
from tests.feeds.recordings import (
    START_NS,
    Content,
    Message,
    Row,
    check_report,
    expect,
    levels,
    received_ns,
    told,
    write,
)

MS = START_NS // 1_000_000 - 7


def delta(seq: int, **fields: Any) -> Message:
    """A ``book`` message."""
    message = {"feed": "book", "product_id": "PI_ETHUSD", "side": "buy", "seq": seq, "price": 2000.75, "qty": 5.0}
    return message | {"timestamp": MS} | fields


def snapshot(seq: int, **fields: Any) -> Message:
    """A ``book_snapshot``."""
    message = {"feed": "book_snapshot", "product_id": "PI_ETHUSD", "timestamp": MS, "seq": seq, "tickSize": None}
    return message | {"bids": [{"price": 2000.5, "qty": 1.0}], "asks": [{"price": 2001.0, "qty": 2.0}]} | fields


def trade(seq: int, **fields: Any) -> Message:
    """A ``trade``."""
    message = {"feed": "trade", "product_id": "PI_ETHUSD", "uid": "0-0", "side": "sell", "type": "fill", "seq": seq}
    return message | {"time": MS, "qty": 3.0, "price": 2000.5} | fields


def history(*trades: Message, **fields: Any) -> Message:
    """A ``trade_snapshot``."""
    return {"feed": "trade_snapshot", "product_id": "PI_ETHUSD", "trades": list(trades)} | fields


def ticker(**fields: Any) -> Message:
    """A ``ticker_lite``."""
    message = {"feed": "ticker_lite", "product_id": "PI_ETHUSD", "bid": 2000.5, "ask": 2001.0, "change": 2.6}
    return message | {"premium": 0.3, "volume": 5.0, "tag": "month"} | fields


def read(path: Path, *messages: Message | str, **options: Any) -> feeds.FeedBatch:
    return feeds.read(write(path / "capture", messages), format="kraken-futures", **options)


def test_a_delta_is_one_level_under_its_number(tmp_path: Path) -> None:
    (event,) = read(tmp_path, delta(7, side="sell"))
    assert event == MarketDataEvent(
        symbol="PI_ETHUSD",
        kind=Kind.LEVEL,
        side=Side.ASK,
        price=2000.75,
        volume=5.0,
        timestamp=MS * 1_000_000,
        received=START_NS,
        sequence=7,
        source=Source("kraken-futures", "book", "PI_ETHUSD", "plus-one"),
        flags=Flags.LAST_PART,
        clock=ClockSource.APPLICATION,
    )


def test_a_products_first_snapshot_begins_its_numbers_and_later_ones_stand_apart(tmp_path: Path) -> None:
    batch = read(tmp_path, snapshot(6), delta(7), snapshot(7), snapshot(3, product_id="PI_XBTUSD"))
    book, apart = (
        Source("kraken-futures", *names)
        for names in (("book", "PI_ETHUSD", "plus-one"), ("snapshot", "PI_ETHUSD", "shared"))
    )
    xbt = Source("kraken-futures", "book", "PI_XBTUSD", "plus-one")
    assert batch.column("source") == [book, book, book, apart, apart, xbt, xbt]
    assert batch.column("sequence") == [6, 6, 7, 7, 7, 3, 3]
    assert [bool(flags & Flags.SNAPSHOT) for flags in batch.column("flags")] == [True, True, False, *[True] * 4]


def test_a_snapshot_behind_deltas_stands_apart(tmp_path: Path) -> None:
    batch = read(tmp_path, delta(7), snapshot(7))
    assert [source.channel for source in batch.column("source")] == ["book", "snapshot", "snapshot"]


def test_no_snapshot_begins_numbers_where_connections_are_merged(tmp_path: Path) -> None:
    batch = read(tmp_path, snapshot(6), delta(7), merge=True)
    assert [source.channel for source in batch.column("source")] == ["snapshot", "snapshot", "book"]


def test_past_trades_are_one_message_oldest_first_and_have_their_own_times(tmp_path: Path) -> None:
    batch = read(tmp_path, history(trade(9, side="buy"), trade(8, time=MS - 5)), trade(10), history=True)
    assert batch.column("sequence") == [9, 9, 10]
    assert batch.column("part") == [0, 1, 0]
    assert batch.column("side") == [Side.SELL, Side.BUY, Side.SELL]
    assert batch.column("timestamp") == [(MS - 5) * 1_000_000, MS * 1_000_000, MS * 1_000_000]
    assert [source.channel for source in batch.column("source")] == ["history", "history", "trade"]
    assert batch.column("flags") == [Flags.SNAPSHOT, Flags.SNAPSHOT | Flags.LAST_PART, Flags.LAST_PART]


def test_a_lite_ticker_has_neither_time_nor_sizes_and_a_full_one_has_both(tmp_path: Path) -> None:
    full = ticker(feed="ticker", bid_size=4.0, ask_size=0.0, time=MS)
    batch = read(tmp_path, ticker(), full, ticker(bid=None, ask=0))
    assert [numbers for *_, numbers, _, _ in told(batch)] == [(2000.5, 2001.0), (2000.5, 4.0, 2001.0, 0.0), ()]
    assert batch.column("timestamp") == [START_NS, MS * 1_000_000, START_NS + 2_000_000]
    assert [bool(flags & Flags.ARRIVAL_TIME) for flags in batch.column("flags")] == [True, False, True]
    assert set(batch.column("sequence")) == {-1}
    assert {source.rule for source in batch.column("source")} == {"none"}


def test_what_is_no_market_data_is_skipped_by_name(tmp_path: Path) -> None:
    batch = read(
        tmp_path,
        {"event": "info", "version": 1},
        {"event": "subscribed", "feed": "book", "product_ids": ["PI_ETHUSD"]},
        {"feed": "heartbeat", "time": MS},
        {},
        history(trade(1)),
        delta(1),
    )
    assert batch.report.skipped == {"info": 1, "subscribed": 1, "heartbeat": 1, "other": 1, "trade_snapshot": 1}
    assert batch.report.messages == {"book": 1}


@pytest.mark.parametrize(
    "message",
    [
        delta(-1),
        delta(1 << 63),
        delta(1, side="hold"),
        delta(1, qty=-1.0),
        delta(1, price="high"),
        delta(1, price=None),
        delta(1, product_id=""),
        delta(1, product_id="é" * 60),
        delta(1, timestamp=10**13),
        delta(1, timestamp="2021-07-15T03:06:43Z"),
        snapshot(1, bids=[{"price": 1.0}]),
        trade(1, time=-1),
        history(trade(1), {}),
        ticker(bid_size=-1.0),
        {"feed": 7},
    ],
    ids=str,
)
def test_a_message_that_breaks_a_rule_is_damage_of_its_line(tmp_path: Path, message: Message) -> None:
    with pytest.warns(feeds.FeedWarning, match="1 damaged line of 3, the first .*capture:2: "):
        batch = read(tmp_path, delta(1), message, delta(2), history=True)
    assert batch.records["sequence"].tolist() == [1, 2]
    assert set(batch.symbols) == {"PI_ETHUSD"}


value = st.one_of(st.just(0.0), st.floats(0.01, 1e6))
side = st.sampled_from(["buy", "sell"])
time_ms = st.integers(1, 9_223_372_036_854)
seq = recordings.number
orders = st.lists(st.fixed_dictionaries({"price": value, "qty": value}), max_size=4)
trades = st.builds(trade, seq, side=side, qty=value, price=value, time=time_ms)
messages = st.one_of(
    st.builds(delta, seq, product_id=recordings.symbol, side=side, price=value, qty=value, timestamp=time_ms),
    st.builds(snapshot, seq, product_id=recordings.symbol, bids=orders, asks=orders, timestamp=time_ms),
    trades,
    st.lists(trades, max_size=3, unique_by=lambda trade: trade["seq"]).map(lambda listed: history(*listed)),
    st.builds(ticker, product_id=recordings.symbol, bid=st.one_of(st.none(), value), ask=value),
    st.just({"event": "info"}),
)


def model(message: Message, received: int, begun: set[str]) -> list[Row]:
    """One message, read the plain way."""
    feed, product = message.get("feed"), message.get("product_id", "")
    flags = 0
    if feed in ("book", "book_snapshot"):
        flags = Flags.SNAPSHOT if feed == "book_snapshot" else 0
        source = f"snapshot/{product}/shared" if flags and product in begun else f"book/{product}/plus-one"
        begun.add(product)
        if flags:
            pairs = [[(order["price"], order["qty"]) for order in message[name]] for name in ("bids", "asks")]
        else:
            level = [(message["price"], message["qty"])]
            pairs = [level, []] if message["side"] == "buy" else [[], level]
        time = message["timestamp"] * 1_000_000
        rows = expect(product, f"kraken-futures/{source}", message["seq"], time, received, levels(*pairs), flags)
    elif feed in ("trade", "trade_snapshot"):
        flags = Flags.SNAPSHOT if feed == "trade_snapshot" else 0
        listed = sorted(message["trades"], key=lambda each: each["seq"]) if flags else [message]
        real = [each for each in listed if each["qty"] > 0]
        source = f"history/{product}/shared" if flags else f"trade/{product}/plus-one"
        last = listed[-1]["seq"] if listed else -1
        contents: list[Content] = [
            (Kind.TRADE, Side.BUY if each["side"] == "buy" else Side.SELL, (each["price"], each["qty"]))
            for each in real
        ]
        time = received if flags else message["time"] * 1_000_000
        rows = expect(product, f"kraken-futures/{source}", last, time, received, contents, flags)
        if real:
            rows = [(*row[:3], each["time"] * 1_000_000, *row[4:]) for row, each in zip(rows, real, strict=True)]
    elif feed == "ticker_lite":
        numbers = tuple(message[name] for name in ("bid", "ask") if message[name])
        content: list[Content] = [(Kind.QUOTE, Side.NONE, numbers)]
        rows = expect(product, f"kraken-futures/ticker/{product}", -1, received, received, content)
    else:
        rows = []
    return rows


@pytest.mark.filterwarnings("ignore::hftlab.feeds.FeedWarning")
@given(listed=st.lists(messages, max_size=30), rows=st.integers(1, 50))
def test_rows_are_those_of_a_reader_that_goes_message_by_message(
    tmp_path_factory: pytest.TempPathFactory, listed: list[Message], rows: int
) -> None:
    path = write(tmp_path_factory.mktemp("model") / "capture", [delta(1), *listed])
    begun: set[str] = set()
    expected: list[Row] = []
    for index, message in enumerate([delta(1), *listed]):
        expected += model(message, received_ns(index), begun)
    batches = list(feeds.stream(path, format="kraken-futures", rows=rows, times="keep", history=True))
    assert told(feeds.FeedBatch.concat(batches)) == expected
    check_report(batches[-1].report, len(listed) + 1)
