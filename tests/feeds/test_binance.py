"""Binance's messages become the rows that the module's table says, against a reader that does it one row at a time."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab import feeds
from hftlab.errors import FeedError
from hftlab.events import ClockSource, EventBatch, Flags, Kind, MarketDataEvent, NumberRule, Side, Source
from tests.feeds.captures import START_MS, START_NS, Message, depth, quote, snapshot, trade, wrapped, write


def read(path: Path, *messages: Message | str, **options: Any) -> feeds.FeedBatch:
    return feeds.read(write(path / "capture", messages), format="binance", **options)


def test_a_quote_has_both_sides_and_a_shared_number(tmp_path: Path) -> None:
    (event,) = read(tmp_path, wrapped("btcusdt@bookTicker", quote(5123107839020)))
    assert event == MarketDataEvent(
        symbol="BTCUSDT",
        kind=Kind.QUOTE,
        bid=61800.20,
        bid_size=2.5,
        ask=61800.30,
        ask_size=2.51,
        timestamp=START_MS * 1_000_000,
        received=START_NS,
        sequence=5123107839020,
        source=Source("binance-usdm", "quote", "BTCUSDT", "shared"),
        flags=Flags.LAST_PART | Flags.AHEAD,
        clock=ClockSource.APPLICATION,
    )


def test_a_spot_quote_has_no_time_so_its_arrival_stands_in(tmp_path: Path) -> None:
    (event,) = read(tmp_path, quote(7, spot=True))
    assert event.timestamp == event.received == START_NS
    assert event.flags == Flags.LAST_PART | Flags.ARRIVAL_TIME
    assert event.source.venue == "binance-spot"


@pytest.mark.parametrize(("buyer_is_maker", "side"), [(True, Side.SELL), (False, Side.BUY)])
@pytest.mark.parametrize(("spot", "venue"), [(True, "binance-spot"), (False, "binance-usdm")])
def test_a_trades_side_is_the_aggressors(
    tmp_path: Path, buyer_is_maker: bool, side: Side, spot: bool, venue: str
) -> None:
    (event,) = read(tmp_path, trade(11, spot=spot, m=buyer_is_maker))
    assert isinstance(event, MarketDataEvent)
    assert (event.kind, event.side, event.price, event.volume) == (Kind.TRADE, side, 61800.3, 0.006)
    assert (event.sequence, event.span) == (11, 1)
    assert event.source == Source(venue, "trade", "BTCUSDT", "plus-one")


def test_a_trade_of_nothing_keeps_its_number_as_a_heartbeat(tmp_path: Path) -> None:
    (event,) = read(tmp_path, trade(12, p="0", q="0", X="NA"))
    assert isinstance(event, MarketDataEvent)
    assert (event.kind, event.sequence, math.isnan(event.price)) == (Kind.TICK, 12, True)
    assert event.flags & Flags.HEARTBEAT


def test_a_depth_update_is_a_row_a_level_with_bids_first(tmp_path: Path) -> None:
    batch = read(tmp_path, depth(100, 120, 90))
    assert batch.column("side") == [Side.BID, Side.BID, Side.ASK]
    assert batch.column("price") == [58710.20, 61496.50, 61900.0]
    assert batch.column("volume") == [0.014, 0.0, 1.5]
    assert batch.column("part") == [0, 1, 2]
    assert [bool(flags & Flags.LAST_PART) for flags in batch.column("flags")] == [False, False, True]
    assert set(batch.column("sequence")) == {120}


@pytest.mark.parametrize(("previous", "span"), [(90, 30), (99, 21), (None, 21)])
def test_a_depth_update_covers_what_lies_after_the_message_before(
    tmp_path: Path, previous: int | None, span: int
) -> None:
    batch = read(tmp_path, depth(100, 120, previous))
    assert set(batch.column("span")) == {span}
    assert set(batch.column("source")) == {
        Source("binance-spot" if previous is None else "binance-usdm", "depth", "BTCUSDT", NumberRule.RANGE.value)
    }


def test_a_depth_update_without_levels_keeps_its_numbers_as_a_heartbeat(tmp_path: Path) -> None:
    first, second = read(tmp_path, depth(1, 5, 0, b=[], a=[]), depth(6, 9, 5, b=[]))
    assert (first.sequence, first.span, first.flags & Flags.HEARTBEAT) == (5, 5, Flags.HEARTBEAT)
    assert (second.sequence, second.span, second.flags & Flags.HEARTBEAT) == (9, 4, Flags.NONE)


def test_a_snapshot_takes_the_symbol_of_the_other_lines_wherever_it_stands(tmp_path: Path) -> None:
    batch = read(tmp_path, snapshot(40), depth(41, 42, 40))
    assert set(batch.column("symbol")) == {"BTCUSDT"}
    head = batch[:2]
    assert head.column("flags") == [
        Flags.SNAPSHOT | Flags.ARRIVAL_TIME,
        Flags.SNAPSHOT | Flags.ARRIVAL_TIME | Flags.LAST_PART,
    ]
    assert set(head.column("source")) == {Source("binance-spot", "snapshot", "BTCUSDT", "shared")}
    assert head.column("sequence") == [40, 40]


def test_a_futures_snapshot_has_its_own_time(tmp_path: Path) -> None:
    (event, _) = read(tmp_path, snapshot(40, E=START_MS, T=START_MS - 8), symbol="ETHUSDT")
    assert (event.timestamp, event.source.venue, event.symbol) == (START_MS * 1_000_000, "binance-usdm", "ETHUSDT")


def test_a_snapshot_in_a_file_of_several_symbols_needs_to_be_told_whose_it_is(tmp_path: Path) -> None:
    messages = (quote(1), quote(2, s="ETHUSDT"), snapshot(3))
    with pytest.warns(feeds.FeedWarning, match=r'BTCUSDT, ETHUSDT: pass symbol="…"'):
        batch = read(tmp_path, *messages)
    assert (len(batch), batch.report.damaged[0].line) == (2, 3)
    assert read(tmp_path, *messages, symbol="ETHUSDT").column("symbol")[2:] == ["ETHUSDT"] * 2


def test_a_snapshot_that_nothing_tells_the_symbol_of_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="pass symbol="):
        read(tmp_path, snapshot(3))


def test_a_second_symbol_after_a_snapshots_symbol_was_inferred_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hftlab.feeds.files.PIECE_BYTES", 400)
    with pytest.raises(FeedError, match=r"line 2 was taken for BTCUSDT's.*also has ETHUSDT"):
        read(tmp_path, quote(1), snapshot(2), *map(quote, range(3, 9)), quote(9, s="ETHUSDT"))


def test_a_snapshot_that_names_its_symbol_needs_no_help(tmp_path: Path) -> None:
    batch = read(tmp_path, quote(1), quote(2, s="ETHUSDT"), snapshot(3, symbol="ETHUSDT"))
    assert batch.column("symbol")[2:] == ["ETHUSDT"] * 2


def test_each_file_of_a_session_has_its_own_snapshot_symbol(tmp_path: Path) -> None:
    first = write(tmp_path / "btc", [quote(1), snapshot(2)])
    second = write(tmp_path / "eth", [snapshot(3), quote(4, s="ETHUSDT")])
    with pytest.warns(feeds.FeedWarning, match="arrived before"):
        batch = feeds.read([first, second], format="binance")
    assert batch.column("symbol") == ["BTCUSDT"] * 3 + ["ETHUSDT"] * 3


@pytest.mark.parametrize("empty", ["", None, "0.00000000"])
def test_an_empty_side_of_a_quote_is_nan(tmp_path: Path, empty: str | None) -> None:
    (event,) = read(tmp_path, quote(1, bid=empty, bid_size=empty))
    assert isinstance(event, MarketDataEvent)
    assert math.isnan(event.bid)
    assert math.isnan(event.bid_size)
    assert (event.ask, event.ask_size) == (61800.30, 2.51)


def test_times_in_microseconds_are_told_by_their_size(tmp_path: Path) -> None:
    first, second = read(tmp_path, trade(1, E=START_MS), trade(2, E=START_MS * 1000 + 7))
    assert (first.timestamp, second.timestamp) == (START_MS * 1_000_000, START_MS * 1_000_000 + 7_000)


def test_the_transaction_time_is_taken_where_it_was_sent(tmp_path: Path) -> None:
    batch = read(tmp_path, quote(1), trade(2), depth(3, 4, 2), depth(5, 6, None), exchange_time="transaction")
    behind_ms = (START_MS * 1_000_000 - batch.records["timestamp"]) // 1_000_000
    assert behind_ms.tolist() == [1, 3, 2, 2, 2, 0, 0, 0]


def test_exchange_times_ahead_of_the_arrival_are_flagged_and_kept(tmp_path: Path) -> None:
    batch = read(tmp_path, trade(1, E=START_MS), trade(2, E=START_MS - 5_000))
    assert [bool(flags & Flags.AHEAD) for flags in batch.column("flags")] == [True, False]
    assert batch.records["timestamp"].tolist() == [START_MS * 1_000_000, (START_MS - 5_000) * 1_000_000]


def test_a_venue_of_your_own_names_every_source(tmp_path: Path) -> None:
    batch = read(tmp_path, quote(1), trade(2, spot=True), venue="binance-coinm")
    assert {source.venue for source in batch.column("source")} == {"binance-coinm"}


def test_other_messages_are_counted_by_kind_and_are_not_damaged(tmp_path: Path) -> None:
    batch = read(
        tmp_path,
        wrapped("btcusdt@aggTrade", {"e": "aggTrade", "a": 1}),
        wrapped("btcusdt@depth20@100ms", {"lastUpdateId": 1, "bids": [], "asks": []}),
        wrapped("!miniTicker@arr", {}),
        wrapped("pqia91ma19a5s61cv6a81va65sdf19v8a65a1a5s61cv6a81va65sdf19v8a65a1", {"e": "ORDER_TRADE_UPDATE"}),
        {"result": None, "id": 1},
        {"e": "kline", "s": "BTCUSDT"},
        "",
        wrapped("!bookTicker", quote(1)),
    )
    assert len(batch) == 1
    assert batch.report.skipped == {
        "aggTrade": 1,
        "depth20": 1,
        "miniTicker": 1,
        "other": 2,
        "kline": 1,
        "blank": 1,
    }
    assert batch.report.damaged_count == 0


DAMAGED = {
    "no receive time": json.dumps(quote(1)),
    "receive time in ms": f"1723161255030 {json.dumps(quote(1))}",
    "receive time with a sign": f"-1723161255030314667 {json.dumps(quote(1))}",
    "receive time beyond int64": f"9999999999999999999 {json.dumps(quote(1))}",
    "cut": f"{START_NS} {json.dumps(quote(1))[:40]}",
    "no JSON": f"{START_NS} hello",
    "nothing after the time": f"{START_NS}",
    "a list": f"{START_NS} [1, 2]",
    "two messages on a line": f"{START_NS} {json.dumps(quote(1))}{json.dumps(quote(2))}",
    "binary": "\x00\x01\x02",
    "wrapper without data": f'{START_NS} {{"stream": "btcusdt@trade"}}',
    "price that is no number": f"{START_NS} {json.dumps(trade(1, p='abc'))}",
    "price nan": f"{START_NS} {json.dumps(trade(1, p='nan'))}",
    "price inf": f"{START_NS} {json.dumps(quote(1, bid='inf'))}",
    "negative size": f"{START_NS} {json.dumps(trade(1, q='-1'))}",
    "negative size beside an empty text": f"{START_NS} {json.dumps(quote(1, bid='', bid_size='-2'))}",
    "empty price of a trade": f"{START_NS} {json.dumps(trade(1, p=''))}",
    "empty price of a level": f"{START_NS} {json.dumps(depth(1, 2, 0, b=[['', '1']]))}",
    "negative number": f"{START_NS} {json.dumps(trade(-1))}",
    "number beyond int64": f"{START_NS} {json.dumps(trade(1 << 63))}",
    "time beyond int64": f"{START_NS} {json.dumps(trade(1, E=10**16))}",
    "time in ms that int64 can't hold as ns": f"{START_NS} {json.dumps(trade(1, E=10**13))}",
    "snapshot's time beyond int64": f"{START_NS} {json.dumps(snapshot(1, symbol='BTCUSDT', E=10**13))}",
    "level of three": f"{START_NS} {json.dumps(depth(1, 2, 0, a=[['1', '2', '3']]))}",
    "a range that runs backwards": f"{START_NS} {json.dumps(depth(9, 2, None))}",
    "a range that continues itself": f"{START_NS} {json.dumps(depth(9, 9, 9))}",
    "a range beyond 32 bits": f"{START_NS} {json.dumps(depth(1, 1 << 40, 0))}",
    "no symbol": f"{START_NS} {json.dumps(quote(1, s=''))}",
    "a symbol that can't be printed": f"{START_NS} {json.dumps(quote(1, s='BTC' + chr(10)))}",
    "a symbol of 65 characters": f"{START_NS} {json.dumps(quote(1, s='B' * 65))}",
    "a symbol of too many bytes": f"{START_NS} {json.dumps(quote(1, s='é' * 60))}",
    "nested without end": f"{START_NS} " + "[" * 100_000,
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_line_is_counted_with_its_number_and_skipped(tmp_path: Path, line: str) -> None:
    with pytest.warns(feeds.FeedWarning, match="1 damaged line of 3, the first .*capture:2: ") as warned:
        batch = read(tmp_path, quote(1), line, quote(2))
    assert len(warned) == 1
    assert batch.records["sequence"].tolist() == [1, 2]
    assert batch.report.damaged_count == 1
    assert batch.report.damaged[0].line == 2
    assert "1 damaged line of 3" in repr(batch)
    assert set(batch.symbols) <= {"BTCUSDT"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exchange_time": "E"}, "event, transaction"),
        ({"symbol": ""}, "a symbol is"),
        ({"simbol": "BTCUSDT"}, "symbol, venue, exchange_time"),
    ],
)
def test_a_wrong_option_is_an_error_that_says_what_would_do(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(FeedError, match=message):
        read(tmp_path, quote(1), **options)


# -- the same, against a reader that makes one row at a time ----------------------------------------------------------

price = st.integers(0, 10**9).map(lambda ticks: f"{ticks // 100}.{ticks % 100:02d}")
size = st.one_of(st.just("0.000"), st.integers(0, 10**6).map(lambda lots: f"{lots / 1000:.3f}"))
levels = st.lists(st.tuples(price, size).map(list), max_size=4)
symbol = st.sampled_from(["BTCUSDT", "ETHUSDT"])
number = st.integers(1, 1 << 50)
messages = st.one_of(
    st.builds(quote, number, bid=price, bid_size=size, spot=st.booleans(), s=symbol),
    st.builds(trade, number, spot=st.booleans(), s=symbol, p=price, q=size, m=st.booleans()),
    number.flatmap(
        lambda first: st.builds(
            depth,
            st.just(first),
            st.integers(first, first + 1000),
            st.one_of(st.none(), st.just(first - 1)),
            s=symbol,
            b=levels,
            a=levels,
        )
    ),
    st.builds(snapshot, number, bids=levels, asks=levels, symbol=symbol),
    st.just({"e": "aggTrade"}),
    st.just("damaged"),
)


def expected_rows(received: int, message: Message) -> list[tuple[Any, ...]]:
    """One message, read the plain way: (symbol, channel, received, timestamp, sequence, span, kind, side, numbers)."""
    time = message["E"] * 1_000_000 if "E" in message else received
    if message.get("e") == "aggTrade":
        return []
    if "lastUpdateId" in message or message.get("e") == "depthUpdate":
        is_snapshot = "lastUpdateId" in message
        last = message["lastUpdateId"] if is_snapshot else message["u"]
        begin = last - 1 if is_snapshot else message.get("pu", message.get("U", 0) - 1)
        head = (message["symbol"], "snapshot") if is_snapshot else (message["s"], "depth")
        bids, asks = (message["bids"], message["asks"]) if is_snapshot else (message["b"], message["a"])
        both = [(Side.BID, *level) for level in bids] + [(Side.ASK, *level) for level in asks]
        common = (*head, received, time, last, last - begin)
        if not both:
            return [(*common, Kind.TICK, Side.NONE, ())]
        return [(*common, Kind.LEVEL, side, (float(p), float(q))) for side, p, q in both]
    if message.get("e") == "trade":
        common = (message["s"], "trade", received, time, message["t"], 1)
        if float(message["q"]) == 0:
            return [(*common, Kind.TICK, Side.NONE, ())]
        side = Side.SELL if message["m"] else Side.BUY
        return [(*common, Kind.TRADE, side, (float(message["p"]), float(message["q"])))]
    nobody = float(message["b"]) == 0 and float(message["B"]) == 0
    bid = () if nobody else (float(message["b"]), float(message["B"]))
    numbers = (*bid, float(message["a"]), float(message["A"]))
    return [(message["s"], "quote", received, time, message["u"], 1, Kind.QUOTE, Side.NONE, numbers)]


def seen_rows(batch: EventBatch) -> list[tuple[Any, ...]]:
    rows = []
    for event in batch.events():
        assert isinstance(event, MarketDataEvent)
        fields = (event.price, event.volume, event.bid, event.bid_size, event.ask, event.ask_size)
        numbers = tuple(value for value in fields if not math.isnan(value))
        head = (event.symbol, event.source.channel, event.received, event.timestamp, event.sequence, event.span)
        rows.append((*head, event.kind, event.side, numbers))
    return rows


@pytest.mark.filterwarnings("ignore::hftlab.feeds.FeedWarning")
@given(listed=st.lists(messages, min_size=1, max_size=30), rows=st.integers(1, 50), wrap=st.booleans())
def test_rows_are_those_of_a_reader_that_makes_one_row_at_a_time(
    tmp_path_factory: pytest.TempPathFactory, listed: list[Message | str], rows: int, wrap: bool
) -> None:
    path = tmp_path_factory.mktemp("model") / "capture"
    names = {"trade": "trade", "depthUpdate": "depth@0ms", "aggTrade": "aggTrade", None: "bookTicker"}

    def on_the_wire(message: Message | str) -> Message | str:
        if isinstance(message, str) or not wrap or "lastUpdateId" in message:
            return message
        return wrapped(f"btcusdt@{names.get(message.get('e'), 'bookTicker')}", message)

    write(path, [quote(1), *map(on_the_wire, listed)])
    expected = expected_rows(START_NS, quote(1))
    for index, message in enumerate(listed, 1):
        if not isinstance(message, str):
            expected += expected_rows(START_NS + index * 1_000_000, message)
    batches = list(feeds.stream(path, format="binance", rows=rows))
    report = batches[-1].report
    assert seen_rows(feeds.FeedBatch.concat(batches)) == expected
    assert [len(batch) for batch in batches[:-1]] == [rows] * (len(batches) - 1)
    assert report.lines == len(listed) + 1
    assert report.lines == sum(report.messages.values()) + sum(report.skipped.values()) + report.damaged_count
    assert sum(report.events.values()) == len(expected)
    assert np.all(batches[0].records["type"] == 1)
