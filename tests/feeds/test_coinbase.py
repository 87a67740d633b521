"""Coinbase's messages become the rows that the module's table says, against a reader that goes message by message."""

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
    ISO,
    ISO_NS,
    START_NS,
    Content,
    Message,
    Row,
    check_report,
    expect,
    iso_to_ns,
    levels,
    received_ns,
    told,
    write,
)


def update(*changes: list[str], **fields: Any) -> Message:
    """An ``l2update``."""
    return {"type": "l2update", "product_id": "ETH-USD", "changes": list(changes), "time": ISO} | fields


def snapshot(**fields: Any) -> Message:
    """A ``snapshot``; the asks come first on the wire."""
    message = {"type": "snapshot", "product_id": "ETH-USD", "asks": [["2001.0", "2"]], "bids": [["2000.5", "1.5"]]}
    return message | fields


def match(trade_id: int, **fields: Any) -> Message:
    """A ``match``."""
    message = {"type": "match", "trade_id": trade_id, "maker_order_id": "m", "taker_order_id": "t", "side": "sell"}
    message |= {"size": "0.04", "price": "2000.5", "product_id": "ETH-USD", "sequence": 10 * trade_id, "time": ISO}
    return message | fields


def ticker(sequence: int, **fields: Any) -> Message:
    """A ``ticker``."""
    message = {"type": "ticker", "sequence": sequence, "product_id": "ETH-USD", "price": "2000.7", "side": "buy"}
    message |= {"best_bid": "2000.5", "best_ask": "2001.0", "time": ISO, "trade_id": 5, "last_size": "0.04"}
    return message | fields


def read(path: Path, *messages: Message | str, **options: Any) -> feeds.FeedBatch:
    return feeds.read(write(path / "capture", messages), format="coinbase", **options)


def test_a_match_has_the_takers_side_and_the_trades_number(tmp_path: Path) -> None:
    (event,) = read(tmp_path, match(881_613))
    assert event == MarketDataEvent(
        symbol="ETH-USD",
        kind=Kind.TRADE,
        side=Side.BUY,
        price=2000.5,
        volume=0.04,
        timestamp=ISO_NS,
        received=START_NS,
        sequence=881_613,
        source=Source("coinbase", "matches", "ETH-USD", "plus-one"),
        flags=Flags.LAST_PART,
        clock=ClockSource.APPLICATION,
    )


def test_the_match_before_the_subscription_is_the_first_of_the_matches(tmp_path: Path) -> None:
    last, first = read(tmp_path, match(4, type="last_match"), match(5))
    assert (last.source, last.sequence, last.flags) == (first.source, first.sequence - 1, first.flags)


def test_an_update_is_a_level_per_change_without_a_number(tmp_path: Path) -> None:
    batch = read(tmp_path, update(["sell", "2001.0", "3"], ["buy", "2000.5", "0"], ["buy", "1999", "7"]))
    assert told(batch) == expect(
        "ETH-USD", "coinbase/level2/ETH-USD", -1, ISO_NS, START_NS, levels([(2000.5, 0), (1999, 7)], [(2001, 3)])
    )


def test_a_snapshot_shares_the_updates_source_and_has_no_time(tmp_path: Path) -> None:
    batch = read(tmp_path, snapshot(), update(["sell", "2001.0", "3"]))
    assert set(batch.column("source")) == {Source("coinbase", "level2", "ETH-USD", "none")}
    assert batch.column("price") == [2000.5, 2001.0, 2001.0]
    snapshot_flags = Flags.SNAPSHOT | Flags.ARRIVAL_TIME
    assert batch.column("flags") == [snapshot_flags, snapshot_flags | Flags.LAST_PART, Flags.LAST_PART]
    assert batch.column("timestamp") == [START_NS, START_NS, ISO_NS]


def test_a_ticker_is_a_quote_under_a_shared_number_and_tells_no_trade(tmp_path: Path) -> None:
    batch = read(tmp_path, ticker(7), ticker(9, best_bid_size="4", best_ask_size="5"), ticker(11, best_bid=None))
    assert [row[-3] for row in told(batch)] == [(2000.5, 2001.0), (2000.5, 4.0, 2001.0, 5.0), (2001.0,)]
    assert set(batch.column("kind")) == {Kind.QUOTE}
    assert batch.column("sequence") == [7, 9, 11]
    assert set(batch.column("source")) == {Source("coinbase", "ticker", "ETH-USD", "shared")}


def test_what_is_no_market_data_is_skipped_by_name(tmp_path: Path) -> None:
    others = [{"type": kind} for kind in ("subscriptions", "heartbeat", "error", "received")]
    batch = read(tmp_path, *others, {}, update(), snapshot(asks=[], bids=[]), match(1))
    names = ("subscriptions", "heartbeat", "error", "received", "other", "empty l2update", "empty snapshot")
    assert batch.report.skipped == dict.fromkeys(names, 1)
    assert batch.report.messages == {"match": 1}


@pytest.mark.parametrize(
    "message",
    [
        match(-1),
        match(1, side="hold"),
        match(1, price="nan"),
        match(1, size="-1"),
        match(1, time="yesterday"),
        match(1, time=ISO[:-1]),
        match(1, product_id=""),
        update(["buy", "1"]),
        update(["bid", "1", "2"]),
        update(["buy", "1", "inf"]),
        update(["buy", "1", "2"], time=None),
        snapshot(bids=[["1", "2", "3"]]),
        ticker(1, best_ask="high"),
        ticker(1, time="2021-07-15T25:06:43Z"),
        {"type": 7},
    ],
    ids=str,
)
def test_a_message_that_breaks_a_rule_is_damage_of_its_line(tmp_path: Path, message: Message) -> None:
    with pytest.warns(feeds.FeedWarning, match="1 damaged line of 3, the first .*capture:2: "):
        batch = read(tmp_path, match(1), message, match(2))
    assert batch.records["sequence"].tolist() == [1, 2]


sides = st.sampled_from(["buy", "sell"])
pairs = st.lists(st.tuples(recordings.price, recordings.size).map(list), max_size=4)
changes = st.lists(st.tuples(sides, recordings.price, recordings.size).map(list), max_size=4)
price = recordings.price.filter(lambda text: float(text) > 0)
messages = st.one_of(
    st.builds(
        lambda listed, **fields: update(*listed, **fields), changes, product_id=recordings.symbol, time=recordings.iso
    ),
    st.builds(snapshot, product_id=recordings.symbol, bids=pairs, asks=pairs),
    st.builds(
        match,
        recordings.number,
        type=st.sampled_from(["match", "last_match"]),
        side=sides,
        size=recordings.size,
        price=recordings.price,
        product_id=recordings.symbol,
        time=recordings.iso,
    ),
    st.builds(ticker, recordings.number, best_bid=st.one_of(st.none(), price), best_ask=price, time=recordings.iso),
    st.just({"type": "subscriptions"}),
)


def model(message: Message, received: int) -> list[Row]:
    """One message, read the plain way."""
    if message["type"] == "subscriptions":
        return []
    name = message["product_id"]
    time = iso_to_ns(message["time"]) if "time" in message else received
    contents: list[Content]
    if message["type"] == "l2update":
        bids, asks = ([change[1:] for change in message["changes"] if change[0] == side] for side in ("buy", "sell"))
        return expect(name, f"coinbase/level2/{name}", -1, time, received, levels(bids, asks))
    if message["type"] == "snapshot":
        contents = levels(message["bids"], message["asks"])
        return expect(name, f"coinbase/level2/{name}", -1, time, received, contents, Flags.SNAPSHOT)
    if message["type"] == "ticker":
        numbers = tuple(float(message[side]) for side in ("best_bid", "best_ask") if message[side])
        contents = [(Kind.QUOTE, Side.NONE, numbers)]
        return expect(name, f"coinbase/ticker/{name}/shared", message["sequence"], time, received, contents)
    taker = Side.SELL if message["side"] == "buy" else Side.BUY
    contents = [(Kind.TRADE, taker, (float(message["price"]), float(message["size"])))]
    contents = contents if float(message["size"]) else []
    return expect(name, f"coinbase/matches/{name}/plus-one", message["trade_id"], time, received, contents)


@pytest.mark.filterwarnings("ignore::hftlab.feeds.FeedWarning")
@given(listed=st.lists(messages, max_size=30), rows=st.integers(1, 50))
def test_rows_are_those_of_a_reader_that_goes_message_by_message(
    tmp_path_factory: pytest.TempPathFactory, listed: list[Message], rows: int
) -> None:
    listed = [match(1), *listed]
    path = write(tmp_path_factory.mktemp("model") / "capture", listed)
    expected = [row for index, message in enumerate(listed) for row in model(message, received_ns(index))]
    batches = list(feeds.stream(path, format="coinbase", rows=rows))
    assert told(feeds.FeedBatch.concat(batches)) == expected
    check_report(batches[-1].report, len(listed))
