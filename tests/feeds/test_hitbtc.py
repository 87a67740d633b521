"""HitBTC's messages become the rows that the module's table says, against a reader that goes message by message."""

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


def message(method: str, **params: Any) -> Message:
    """A message as HitBTC wraps it."""
    return {"jsonrpc": "2.0", "method": method, "params": params | {"symbol": params.get("symbol", "ETHBTC")}}


def book(sequence: int, method: str = "updateOrderbook", **params: Any) -> Message:
    """An update or a snapshot; the asks come first on the wire."""
    asks = [{"price": "0.032", "size": "0"}, {"price": "0.033", "size": "1.42"}]
    standard = {"ask": asks, "bid": [{"price": "0.031", "size": "2"}], "sequence": sequence, "timestamp": ISO}
    return message(method, **standard | params)


def snapshot(sequence: int, **params: Any) -> Message:
    """A ``snapshotOrderbook``."""
    return book(sequence, "snapshotOrderbook", **params)


def trade(number: int, **fields: Any) -> Message:
    """One trade of a message."""
    return {"id": number, "price": "0.0315", "quantity": "2.95", "side": "buy", "timestamp": ISO} | fields


def ticker(**params: Any) -> Message:
    """A ``ticker``."""
    standard = {"ask": "0.033", "bid": "0.031", "last": "0.032", "open": "0", "low": "0", "high": "0", "volume": "9"}
    return message("ticker", **standard | {"timestamp": ISO} | params)


def read(path: Path, *messages: Message | str, **options: Any) -> feeds.FeedBatch:
    return feeds.read(write(path / "capture", messages), format="hitbtc", **options)


def test_an_update_is_a_level_each_with_bids_first_under_its_number(tmp_path: Path) -> None:
    batch = read(tmp_path, book(20_309_560))
    assert batch[0] == MarketDataEvent(
        symbol="ETHBTC",
        kind=Kind.LEVEL,
        side=Side.BID,
        price=0.031,
        volume=2.0,
        timestamp=ISO_NS,
        received=START_NS,
        sequence=20_309_560,
        source=Source("hitbtc", "orderbook", "ETHBTC", "plus-one"),
        flags=Flags.NONE,
        clock=ClockSource.APPLICATION,
    )
    assert batch.column("side") == [Side.BID, Side.ASK, Side.ASK]
    assert batch.column("volume") == [2.0, 0.0, 1.42]
    assert batch.column("part") == [0, 1, 2]
    assert batch.column("flags") == [Flags.NONE, Flags.NONE, Flags.LAST_PART]


def test_an_update_without_levels_keeps_its_number_as_a_heartbeat(tmp_path: Path) -> None:
    (event,) = read(tmp_path, book(5, ask=[], bid=[]))
    assert (event.sequence, event.flags) == (5, Flags.HEARTBEAT | Flags.LAST_PART)


def test_a_snapshot_under_an_updates_number_stands_apart_from_it(tmp_path: Path) -> None:
    batch = read(tmp_path, book(5), snapshot(5))
    assert set(batch.column("sequence")) == {5}
    assert batch.column("source")[3:] == [Source("hitbtc", "snapshot", "ETHBTC", "shared")] * 3
    assert all(flags & Flags.SNAPSHOT for flags in batch.column("flags")[3:])
    assert not any(flags & Flags.SNAPSHOT for flags in batch.column("flags")[:3])


def test_trades_have_their_own_times_and_the_last_ones_number(tmp_path: Path) -> None:
    later = trade(9, side="sell", timestamp="2021-07-15T03:06:43.600Z")
    past = message("snapshotTrades", data=[trade(7)])
    batch = read(tmp_path, message("updateTrades", data=[trade(7), later]), past, history=True)
    assert batch.column("sequence") == [9, 9, 7]
    assert batch.column("timestamp") == [ISO_NS, ISO_NS + 100_000_000, ISO_NS]
    assert batch.column("side") == [Side.BUY, Side.SELL, Side.BUY]
    live, history = (Source("hitbtc", name, "ETHBTC", "shared") for name in ("trades", "history"))
    assert batch.column("source") == [live, live, history]
    assert batch.column("flags") == [Flags.NONE, Flags.LAST_PART, Flags.LAST_PART | Flags.SNAPSHOT]


def test_a_ticker_is_a_quote_without_sizes_or_a_number(tmp_path: Path) -> None:
    batch = read(tmp_path, ticker(), ticker(bid=None))
    assert [row[-3] for row in told(batch)] == [(0.031, 0.033), (0.033,)]
    assert set(batch.column("source")) == {Source("hitbtc", "ticker", "ETHBTC", "none")}
    assert set(batch.column("sequence")) == {-1}


def test_candles_and_answers_are_skipped_by_name(tmp_path: Path) -> None:
    batch = read(
        tmp_path,
        {"jsonrpc": "2.0", "result": True, "id": "HITBTC.ws.1"},
        {"jsonrpc": "2.0", "error": {"code": 2001}, "id": None},
        message("snapshotCandles", data=[], period="M1"),
        message("updateCandles", data=[], period="M1"),
        {"jsonrpc": "2.0"},
        message("snapshotTrades", data=[trade(1)]),
        message("updateTrades", data=[]),
        book(1),
    )
    names = ("result", "error", "snapshotCandles", "updateCandles", "other", "snapshotTrades", "empty updateTrades")
    assert batch.report.skipped == dict.fromkeys(names, 1)
    assert batch.report.messages == {"updateOrderbook": 1}


@pytest.mark.parametrize(
    "broken",
    [
        book(-1),
        book(1, ask=[["1", "2"]]),
        book(1, ask=[{"price": "nan", "size": "1"}]),
        book(1, bid=[{"price": "1", "size": "-1"}]),
        book(1, timestamp=ISO[:-1]),
        book(1, timestamp=None),
        book(1, symbol=""),
        snapshot(1, bid=None),
        message("updateTrades", data=[trade(1), trade(2, side="hold")]),
        message("updateTrades", data=[trade(1, timestamp="yesterday")]),
        ticker(ask="high"),
        {"method": "ticker"},
        {"method": 7},
    ],
    ids=str,
)
def test_a_message_that_breaks_a_rule_is_damage_of_its_line(tmp_path: Path, broken: Message) -> None:
    with pytest.warns(feeds.FeedWarning, match="1 damaged line of 3, the first .*capture:2: "):
        batch = read(tmp_path, book(1), broken, book(2))
    assert batch.records["sequence"].tolist() == [1] * 3 + [2] * 3


def test_copies_of_an_update_on_redundant_connections_are_side_by_side(tmp_path: Path) -> None:
    names = ("first", "second", "third")
    paths = [write(tmp_path / name, [book(number) for number in range(5)]) for name in names]
    batch = feeds.read(paths, format="hitbtc", merge=True)
    assert batch.records["sequence"][batch.records["part"] == 0].tolist() == [n for n in range(5) for _ in names]


side = st.sampled_from(["buy", "sell"])
orders = st.lists(st.fixed_dictionaries({"price": recordings.price, "size": recordings.size}), max_size=4)
listed_trades = st.lists(
    st.builds(
        trade, recordings.number, price=recordings.price, quantity=recordings.size, side=side, timestamp=recordings.iso
    ),
    max_size=4,
)
price = recordings.price.filter(lambda text: float(text) > 0)
messages = st.one_of(
    st.builds(
        book,
        recordings.number,
        st.sampled_from(["updateOrderbook", "snapshotOrderbook"]),
        ask=orders,
        bid=orders,
        timestamp=recordings.iso,
        symbol=recordings.symbol,
    ),
    st.builds(
        message, st.sampled_from(["updateTrades", "snapshotTrades"]), data=listed_trades, symbol=recordings.symbol
    ),
    st.builds(ticker, ask=price, bid=st.one_of(st.none(), price), timestamp=recordings.iso, symbol=recordings.symbol),
    st.just({"result": True}),
)


def model(message: Message, received: int) -> list[Row]:
    """One message, read the plain way."""
    if "result" in message:
        return []
    method, params = message["method"], message["params"]
    name = params["symbol"]
    flags = Flags.SNAPSHOT if method.startswith("snapshot") else 0
    if method == "ticker":
        numbers = tuple(float(params[side]) for side in ("bid", "ask") if params[side])
        contents: list[Content] = [(Kind.QUOTE, Side.NONE, numbers)]
        return expect(name, f"hitbtc/ticker/{name}", -1, iso_to_ns(params["timestamp"]), received, contents)
    if method.endswith("Orderbook"):
        source = f"hitbtc/snapshot/{name}/shared" if flags else f"hitbtc/orderbook/{name}/plus-one"
        bids, asks = ([(order["price"], order["size"]) for order in params[side]] for side in ("bid", "ask"))
        time = iso_to_ns(params["timestamp"])
        return expect(name, source, params["sequence"], time, received, levels(bids, asks), flags)
    last = max((each["id"] for each in params["data"]), default=-1)
    real = [each for each in params["data"] if float(each["quantity"])]
    contents = [
        (Kind.TRADE, Side[each["side"].upper()], (float(each["price"]), float(each["quantity"]))) for each in real
    ]
    source = f"hitbtc/{'history' if flags else 'trades'}/{name}/shared"
    rows = expect(name, source, last, received, received, contents, flags)
    times = [iso_to_ns(each["timestamp"]) for each in real] or [received] * len(rows)
    return [(*row[:3], time, *row[4:]) for row, time in zip(rows, times, strict=True)]


@pytest.mark.filterwarnings("ignore::hftlab.feeds.FeedWarning")
@given(listed=st.lists(messages, max_size=30), rows=st.integers(1, 50))
def test_rows_are_those_of_a_reader_that_goes_message_by_message(
    tmp_path_factory: pytest.TempPathFactory, listed: list[Message], rows: int
) -> None:
    listed = [book(1), *listed]
    path = write(tmp_path_factory.mktemp("model") / "capture", listed)
    expected = [row for index, message in enumerate(listed) for row in model(message, received_ns(index))]
    batches = list(feeds.stream(path, format="hitbtc", rows=rows, history=True))
    assert told(feeds.FeedBatch.concat(batches)) == expected
    check_report(batches[-1].report, len(listed))
