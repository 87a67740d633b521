"""dYdX's messages become the rows that the module's table says, against a reader that goes message by message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab import feeds
from hftlab.errors import FeedError
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

Listed = list[list[str]]


def envelope(kind: str, message_id: int, **fields: Any) -> Message:
    """What all messages have."""
    return {"type": kind, "connection_id": "60a4fc71", "message_id": message_id} | fields


def delta(offset: int | str, bids: Listed, asks: Listed, *, message_id: int = 1, **fields: Any) -> Message:
    """Changes of a book."""
    contents = {"offset": str(offset), "bids": bids, "asks": asks}
    standard = {"id": "ETH-USD", "channel": "v3_orderbook", "contents": contents}
    return envelope("channel_data", message_id, **standard | fields)


def order(price: str, offset: int, size: str) -> Message:
    """A level of a snapshot."""
    return {"price": price, "offset": str(offset), "size": size}


def snapshot(bids: list[Message], asks: list[Message], *, message_id: int = 1, **fields: Any) -> Message:
    """The answer to a book's subscription."""
    standard = {"channel": "v3_orderbook", "id": "ETH-USD", "contents": {"bids": bids, "asks": asks}}
    return envelope("subscribed", message_id, **standard | fields)


def trade(**fields: Any) -> Message:
    """One trade of a message."""
    return {"side": "BUY", "size": "0.1", "price": "4215.6", "createdAt": ISO} | fields


def trades(*listed: Message, kind: str = "channel_data", message_id: int = 1, **fields: Any) -> Message:
    """A message of trades."""
    standard = {"channel": "v3_trades", "id": "ETH-USD", "contents": {"trades": list(listed)}}
    return envelope(kind, message_id, **standard | fields)


def read(path: Path, *messages: Message | str, **options: Any) -> feeds.FeedBatch:
    return feeds.read(write(path / "capture", messages), format="dydx", **options)


def test_a_delta_has_the_shared_offset_and_no_time_but_its_arrival(tmp_path: Path) -> None:
    (event,) = read(tmp_path, delta(2_693_988_240, [], [["4217.8", "13.34"]]))
    assert event == MarketDataEvent(
        symbol="ETH-USD",
        kind=Kind.LEVEL,
        side=Side.ASK,
        price=4217.8,
        volume=13.34,
        timestamp=START_NS,
        received=START_NS,
        sequence=2_693_988_240,
        source=Source("dydx", "orderbook", "ETH-USD", "shared"),
        flags=Flags.LAST_PART | Flags.ARRIVAL_TIME,
        clock=ClockSource.APPLICATION,
    )


def test_an_offset_may_be_a_number_too_and_a_delta_without_levels_keeps_it(tmp_path: Path) -> None:
    message = delta(7, [], [])
    message["contents"]["offset"] = 7
    (event,) = read(tmp_path, message)
    assert (event.sequence, bool(event.flags & Flags.HEARTBEAT)) == (7, True)


def test_a_snapshot_has_the_greatest_of_its_levels_offsets(tmp_path: Path) -> None:
    batch = read(tmp_path, snapshot([order("1", 5, "6.2"), order("2", 9, "0")], [order("3", 7, "1")]))
    assert batch.column("sequence") == [9, 9, 9]
    assert batch.column("volume") == [6.2, 0.0, 1.0]
    assert set(batch.column("source")) == {Source("dydx", "snapshot", "ETH-USD", "shared")}
    assert all(flags & Flags.SNAPSHOT for flags in batch.column("flags"))


def test_trades_have_the_takers_side_and_their_own_times_and_no_number(tmp_path: Path) -> None:
    later = trade(side="SELL", createdAt="2021-07-15T03:06:43.600Z")
    batch = read(tmp_path, trades(trade(), later), trades(later, trade(), kind="subscribed"), history=True)
    assert batch.column("side") == [Side.BUY, Side.SELL, Side.BUY, Side.SELL]
    assert batch.column("timestamp") == [ISO_NS, ISO_NS + 100_000_000] * 2
    assert set(batch.column("sequence")) == {-1}
    live, history = (Source("dydx", name, "ETH-USD", "none") for name in ("trades", "history"))
    assert batch.column("source") == [live, live, history, history]
    assert batch.column("flags") == [Flags.NONE, Flags.LAST_PART, Flags.SNAPSHOT, Flags.SNAPSHOT | Flags.LAST_PART]


def test_what_is_no_market_data_is_skipped_by_name(tmp_path: Path) -> None:
    batch = read(
        tmp_path,
        envelope("connected", 0),
        envelope("channel_data", 1, channel="v3_markets", contents={}),
        trades(),
        trades(trade(), kind="subscribed"),
        snapshot([], []),
        delta(1, [], [["1", "1"]]),
    )
    assert batch.report.skipped == {
        "connected": 1,
        "channel_data v3_markets": 1,
        "empty channel_data v3_trades": 1,
        "subscribed v3_trades": 1,
        "empty subscribed v3_orderbook": 1,
    }


def test_by_message_id_all_messages_are_one_dense_source(tmp_path: Path) -> None:
    batch = read(
        tmp_path,
        envelope("connected", 0),
        snapshot([order("1", 5, "6.2")], [], message_id=1),
        envelope("channel_data", 2, channel="v3_markets", contents={}),
        trades(trade(), trade(), message_id=3),
        trades(message_id=4, id="BTC-USD"),
        delta(9, [], [], message_id=5),
        trades(trade(), kind="subscribed", message_id=6),
        number="message_id",
    )
    assert batch.column("sequence") == [0, 1, 2, 3, 3, 4, 5, 6]
    assert set(batch.column("source")) == {Source("dydx", "connection", "", "plus-one")}
    assert batch.column("symbol") == [
        "connection",
        "ETH-USD",
        "connection",
        *["ETH-USD"] * 2,
        "BTC-USD",
        *["ETH-USD"] * 2,
    ]
    beats = [bool(flags & Flags.HEARTBEAT) for flags in batch.column("flags")]
    assert beats == [True, False, True, False, False, True, True, True]
    assert batch.report.skipped == {}
    check_report(batch.report, 7)


def test_by_message_id_a_new_connection_is_a_new_epoch(tmp_path: Path) -> None:
    first = [envelope("connected", 0), delta(8, [], [], message_id=1)]
    second = [envelope("connected", 0, connection_id="b"), delta(9, [], [], message_id=1, connection_id="b")]
    batch = read(tmp_path, *first, *second, number="message_id")
    assert batch.column("sequence") == [0, 1, 0, 1]
    assert batch.column("epoch") == [0, 0, 1, 1]
    assert set(read(tmp_path, *first, *second).column("epoch")) == {0}


def test_message_ids_can_not_be_had_merged_nor_other_numbers_at_all(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="counts the messages of one connection, and merge=True mixes"):
        read(tmp_path, delta(1, [], []), number="message_id", merge=True)
    with pytest.raises(FeedError, match="number is one of offset, message_id; got 'seq'"):
        read(tmp_path, delta(1, [], []), number="seq")


@pytest.mark.parametrize(
    "message",
    [
        delta(-1, [], []),
        delta("x", [], []),
        delta(1, [["nan", "1"]], []),
        delta(1, [["1", "-1"]], []),
        delta(1, [["1", "2", "3"]], []),
        delta(1, [], [], id=""),
        delta(1, [], [], contents=None),
        snapshot([{"price": "1", "size": "1"}], []),
        trades(trade(side="HOLD")),
        trades(trade(createdAt=ISO[:-1])),
        trades(trade(), trade(size="-1")),
        {"type": "connected"},
        envelope("connected", -1),
    ],
    ids=str,
)
@pytest.mark.parametrize("number", ["offset", "message_id"])
def test_a_message_that_breaks_a_rule_is_damage_of_its_line(tmp_path: Path, message: Message, number: str) -> None:
    with pytest.warns(feeds.FeedWarning, match="1 damaged line of 3, the first .*capture:2: "):
        batch = read(tmp_path, delta(1, [], []), message, delta(2, [], []), number=number)
    assert len(batch) == 2
    assert set(batch.symbols) == {"ETH-USD"}


pairs = st.lists(st.tuples(recordings.price, recordings.size).map(list), max_size=4)
orders = st.lists(st.builds(order, recordings.price, recordings.number, recordings.size), max_size=4)
listed_trades = st.lists(
    st.builds(
        trade,
        side=st.sampled_from(["BUY", "SELL"]),
        size=recordings.size,
        price=recordings.price,
        createdAt=recordings.iso,
    ),
    max_size=4,
)
kinds = st.sampled_from(["channel_data", "subscribed"])
messages = st.one_of(
    st.builds(delta, recordings.number, pairs, pairs, id=recordings.symbol),
    st.builds(snapshot, orders, orders, id=recordings.symbol),
    st.builds(lambda listed, **fields: trades(*listed, **fields), listed_trades, kind=kinds, id=recordings.symbol),
    st.just(envelope("unsubscribed", 1, channel="v3_trades", id="ETH-USD")),
)


def model(message: Message, received: int) -> tuple[str, int, list[Content], int, list[int]]:
    """One message, read the plain way: (channel and rule, number, contents, flags, times of its own)."""
    flags = Flags.SNAPSHOT if message["type"] == "subscribed" else 0
    told_contents = message.get("contents")
    if told_contents is None:
        return "", -1, [], 0, []
    if "trades" in told_contents:
        listed = told_contents["trades"][::-1] if flags else told_contents["trades"]
        real = [each for each in listed if float(each["size"])]
        contents: list[Content] = [
            (Kind.TRADE, Side[each["side"]], (float(each["price"]), float(each["size"]))) for each in real
        ]
        times = [iso_to_ns(each["createdAt"]) for each in real]
        return ("history/{}" if flags else "trades/{}"), -1, contents, flags, times
    if flags:
        every = told_contents["bids"] + told_contents["asks"]
        last = max((int(each["offset"]) for each in every), default=-1)
        sides = [[(each["price"], each["size"]) for each in told_contents[name]] for name in ("bids", "asks")]
        return "snapshot/{}/shared", last, levels(*sides), flags, []
    offset = int(told_contents["offset"])
    return "orderbook/{}/shared", offset, levels(told_contents["bids"], told_contents["asks"]), 0, []


@pytest.mark.filterwarnings("ignore::hftlab.feeds.FeedWarning")
@given(listed=st.lists(messages, max_size=30), rows=st.integers(1, 50), by_connection=st.booleans())
def test_rows_are_those_of_a_reader_that_goes_message_by_message(
    tmp_path_factory: pytest.TempPathFactory, listed: list[Message], rows: int, by_connection: bool
) -> None:
    listed = [message | {"message_id": index} for index, message in enumerate([delta(1, [], []), *listed])]
    path = write(tmp_path_factory.mktemp("model") / "capture", listed)
    expected: list[Row] = []
    for index, message in enumerate(listed):
        received = received_ns(index)
        channel, number, contents, flags, times = model(message, received)
        source = "dydx/connection//plus-one" if by_connection else f"dydx/{channel.format(message['id'])}"
        rows_of_it = expect(
            message["id"], source, index if by_connection else number, received, received, contents, flags
        )
        times = times or [received] * len(rows_of_it)
        expected += [(*row[:3], time, *row[4:]) for row, time in zip(rows_of_it, times, strict=True)]
    number_option = "message_id" if by_connection else "offset"
    batches = list(feeds.stream(path, format="dydx", rows=rows, number=number_option, history=True))
    assert told(feeds.FeedBatch.concat(batches)) == expected
    check_report(batches[-1].report, len(listed))
