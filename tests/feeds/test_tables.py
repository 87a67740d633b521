"""Tables: columns mapped to fields, times in their units and zones, and damage that costs its own row only."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab import feeds
from hftlab.errors import FeedError
from hftlab.events import EventBatch, FillEvent, Flags, Kind, MarketDataEvent, OrderEvent, OrderType, Side, Source

START_NS = 1_723_161_255_030_314_667
COINBASE = "questdb-coinbase-trades/btc_trades.csv.gz"
HEADER = "symbol,side,price,amount,timestamp"
GOOD = '"BTC-USD","sell",25741.02,0.02188038,"2023-09-05T16:00:01.281719Z"'
AMOUNT = {"volume": "amount"}


def read(path: Path, *lines: str, **options: Any) -> feeds.FeedBatch:
    file = path / "table.csv"
    file.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    # Made-up times are of 1970, which are easy to read.
    return feeds.read(file, format="csv", times="keep", **options)


def test_the_coinbase_trades_are_read_as_they_stand(capture_path: Callable[[str], Path]) -> None:
    batch = feeds.read(capture_path(COINBASE), format="csv", columns=AMOUNT)
    assert repr(batch) == "FeedBatch(5,882 market; BTC-USD)"
    assert batch.report.events == {"trade": 5_882}
    assert batch.report.skipped == {"header": 1}
    assert np.all(np.diff(batch.records["timestamp"]) > 0)
    assert np.all(batch.records["flags"] == Flags.LAST_PART | Flags.SOURCE_TIME)
    assert batch[0] == MarketDataEvent(
        symbol="BTC-USD",
        kind=Kind.TRADE,
        side=Side.SELL,
        price=25741.02,
        volume=0.02188038,
        timestamp=1_693_929_601_281_719_000,
        received=1_693_929_601_281_719_000,
        flags=Flags.LAST_PART | Flags.SOURCE_TIME,
    )
    assert batch[2].volume == 3.844e-5  # type: ignore[attr-defined]


def test_a_tables_pieces_do_not_show(capture_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = feeds.read(capture_path(COINBASE), format="csv", columns=AMOUNT)
    monkeypatch.setattr("hftlab.feeds.files.PIECE_BYTES", 5_000)
    parts = list(feeds.stream(capture_path(COINBASE), format="csv", columns=AMOUNT, rows=1_000))
    assert [len(part) for part in parts] == [1_000] * 5 + [882]
    assert feeds.FeedBatch.concat(parts).records.tobytes() == whole.records.tobytes()


def test_constants_stand_for_columns_that_are_not_there_and_override_those_that_are(tmp_path: Path) -> None:
    source = Source("coinbase", "matches", "BTC-USD")
    batch = read(tmp_path, HEADER, GOOD, columns=AMOUNT, symbol="XBT", kind="tick", source=source)
    (event,) = batch
    assert isinstance(event, MarketDataEvent)
    assert (event.symbol, event.kind, event.source) == ("XBT", Kind.TICK, source)


def test_orders_and_fills_are_read_with_their_texts(tmp_path: Path) -> None:
    order = "A,2024-01-02T00:00:00+01:00,o-1,BUY,5,LIMIT,99.5"
    (event,) = read(
        tmp_path, "symbol,timestamp,order_id,direction,quantity,order_type,price", order, event_type=OrderEvent
    )
    assert event == OrderEvent(
        symbol="A",
        timestamp=1_704_150_000_000_000_000,
        received=1_704_150_000_000_000_000,
        order_id="o-1",
        direction=Side.BUY,
        quantity=5.0,
        order_type=OrderType.LIMIT,
        price=99.5,
        flags=Flags.LAST_PART | Flags.SOURCE_TIME,
    )
    fills = ("when,order_id,executed_qty,executed_price", "5,o-1,1,2", "6,,1,2")
    with pytest.warns(feeds.FeedWarning, match="order_id is text of up to 40 bytes"):
        batch = read(tmp_path, *fills, event_type="fill", symbol="A", columns={"timestamp": "when"}, unit="s")
    (fill,) = batch
    assert isinstance(fill, FillEvent)
    assert (fill.timestamp, fill.order_id, fill.commission) == (5_000_000_000, "o-1", 0.0)


@pytest.mark.parametrize(
    ("text", "options", "expected_ns"),
    [
        ("1723161255030314667", {}, 1_723_161_255_030_314_667),
        ("1723161255030", {"unit": "ms"}, 1_723_161_255_030_000_000),
        ("1723161255.030314667", {"unit": "s"}, 1_723_161_255_030_314_667),
        ("1723161255030314.667", {"unit": "us"}, 1_723_161_255_030_314_667),
        ("2024-08-08T23:54:15.030314667Z", {}, 1_723_161_255_030_314_667),
        ("2024-08-08 23:54:15.030314+00:00", {}, 1_723_161_255_030_314_000),
        ("2024-08-09T01:54:15+02:00", {"zone": "UTC"}, 1_723_161_255_000_000_000),
        ("2024-08-08T19:54:15", {"zone": "America/New_York"}, 1_723_161_255_000_000_000),
    ],
)
def test_times_are_read_to_the_nanosecond(tmp_path: Path, text: str, options: dict[str, str], expected_ns: int) -> None:
    (event,) = read(tmp_path, "timestamp,price,volume", f"{text},1,2", symbol="A", **options)
    assert event.timestamp == expected_ns


def test_summer_times_two_zones_may_stand_in_one_column(tmp_path: Path) -> None:
    texts = ("2024-10-27T02:30:00+02:00", "2024-10-27T02:30:00+01:00")
    first, second = read(tmp_path, "timestamp,price,volume", *(f"{text},1,2" for text in texts), symbol="A")
    assert second.timestamp - first.timestamp == 3_600_000_000_000


def test_a_time_without_a_zone_beside_others_that_have_one_is_damaged_unless_a_zone_is_given(tmp_path: Path) -> None:
    lines = ("timestamp,price,volume", "2024-01-02T00:00:00Z,1,2", "2024-01-02T00:00:00,1,2")
    with pytest.warns(feeds.FeedWarning, match=r"table.csv:3: timestamp is ISO 8601 text with a zone"):
        assert len(read(tmp_path, *lines, symbol="A")) == 1
    assert len(read(tmp_path, *lines, symbol="A", zone="UTC")) == 2


def test_both_times_give_latencies_and_those_ahead_are_flagged(tmp_path: Path) -> None:
    lines = ("timestamp,received,price,volume", "10,12,1,2", "13,12,1,2")
    batch = read(tmp_path, *lines, symbol="A", unit="s")
    assert [bool(flags & Flags.AHEAD) for flags in batch.column("flags")] == [False, True]


def test_a_table_that_a_batch_wrote_is_read_back_as_it_was(tmp_path: Path) -> None:
    written = EventBatch.from_events(
        [
            MarketDataEvent(
                symbol="BTC/USD",
                kind=Kind.TRADE,
                side=side,
                price=0.1 + 0.2,
                volume=2.0,
                timestamp=START_NS + 1,
                received=START_NS + 7,
                sequence=3,
                source=Source("coinbase", "matches", "BTC/USD", "plus-one"),
            )
            for side in Side
        ]
    )
    path = tmp_path / "written.csv"
    written.to_frame().to_csv(path, index=False)
    assert feeds.read(path, format="csv") == written


def test_an_empty_cell_is_a_value_that_was_not_sent(tmp_path: Path) -> None:
    lines = ("timestamp,price,volume,bid,ask,sequence,side", "1,,,5.5,,7,", "2,3.5,1,,,,buy", "3,,,5.5,6.5,8.0,")
    batch = read(tmp_path, *lines, symbol="A", unit="s")
    first, second, third = batch
    assert isinstance(first, MarketDataEvent)
    assert (first.kind, first.bid, first.sequence, first.side) == (Kind.QUOTE, 5.5, 7, Side.NONE)
    assert math.isnan(first.ask)
    assert isinstance(second, MarketDataEvent)
    assert (second.kind, second.sequence, second.side) == (Kind.TRADE, -1, Side.BUY)
    assert third.sequence == 8


def test_a_quote_inside_a_bare_cell_does_not_swallow_the_next_line(tmp_path: Path) -> None:
    lines = ("timestamp,price,symbol", '1,2,A""B', '2,3,"C"', '3,x"4,"D', "4,5,E")
    with pytest.warns(feeds.FeedWarning, match=r"1 damaged line of 5, the first .*table.csv:4: price is a number"):
        batch = read(tmp_path, *lines, unit="s", volume=1)
    assert batch.column("symbol") == ['A""B', "C", "E"]


def test_a_cell_beyond_all_bounds_is_damage_of_its_own_line(tmp_path: Path) -> None:
    lines = ("timestamp,price,volume", "1,2,3", f"2,{'9' * 200_000},3", "3,4,5")
    with pytest.warns(feeds.FeedWarning, match=r"table.csv:3: 0 cells, and the header has 3"):
        assert len(read(tmp_path, *lines, unit="s", symbol="A")) == 2


def test_the_same_file_twice_is_two_tables(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("timestamp,price,volume\n1,2,3\n")
    batch = feeds.read([path, path], format="csv", unit="s", symbol="A", times="keep")
    assert (len(batch), batch.report.skipped) == (2, {"header": 2})


DAMAGED = {
    "too few cells": '"BTC-USD","sell",25741.02',
    "too many cells": GOOD + ",1",
    "a comma too many in quotes' place": GOOD.replace("25741.02", "25,741.02"),
    "an open quote": GOOD[:-1],
    "a price that is no number": GOOD.replace("25741.02", "25741.O2"),
    "an infinite price": GOOD.replace("25741.02", "inf"),
    "a negative amount": GOOD.replace("0.02188038", "-1"),
    "a side that is none": GOOD.replace("sell", "hold"),
    "a time that is none": GOOD.replace("2023-09-05T16", "2023-09-05T25"),
    "a time before 1970": GOOD.replace("2023", "1923"),
    "no time": GOOD.replace('"2023-09-05T16:00:01.281719Z"', ""),
    "no symbol": GOOD.replace("BTC-USD", ""),
    "bytes that are not UTF-8": GOOD.replace("BTC", "B\udcffC"),
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_row_is_counted_with_its_line_and_skipped(tmp_path: Path, line: str) -> None:
    with pytest.warns(feeds.FeedWarning, match=r"1 damaged line of 6, the first .*table.csv:4: "):
        batch = read(tmp_path, HEADER, GOOD, "", line, GOOD, GOOD, columns=AMOUNT)
    assert len(batch) == 3
    assert batch.report.damaged[0].line == 4
    assert batch.report.skipped == {"header": 1, "blank": 1}
    assert batch.report.messages == {"row": 3}


def test_a_damaged_rows_reason_shows_the_rule_and_the_cell(tmp_path: Path) -> None:
    with pytest.warns(feeds.FeedWarning, match=r"price is a number; got '25741.O2'"):
        read(tmp_path, HEADER, GOOD, GOOD.replace("25741.02", "25741.O2"), columns=AMOUNT)


def test_a_damaged_first_cell_does_not_decide_what_its_columns_times_are(tmp_path: Path) -> None:
    lines = ("timestamp,price,volume", "x,1,2", *(f"{second},1,2" for second in range(1, 9)))
    with pytest.warns(feeds.FeedWarning, match="1 damaged line"):
        assert len(read(tmp_path, *lines, symbol="A", unit="s")) == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"volume": "size"}}, "no column 'size' for volume; .* symbol, side, price, amount, timestamp"),
        ({"columns": {"vol": "amount"}}, "no field or option 'vol'; MARKET_DATA events have: .*volume"),
        ({"colums": {}}, "no field or option 'colums'"),
        ({"unit": "min"}, "unit is one of s, ms, us, ns"),
        ({"zone": "Mars"}, "zone is a time zone"),
        ({"side": "hold"}, "side is one of SELL, NONE, BUY, ASK, BID; got 'hold'"),
        ({"price": "high"}, "price is a number; got 'high'"),
        ({"span": 1.5}, "span is an integer"),
        ({"timestamp": 5}, "timestamp differs from row to row"),
        ({"symbol": ""}, "symbol is printable text"),
        ({"delimiter": "::"}, "delimiter is one character"),
        ({"event_type": "trade"}, "an event type is one of"),
        ({"event_type": "order"}, r"ORDER events need .*order_id.*, direction, quantity"),
        ({"delimiter": ";"}, "MARKET_DATA events need symbol, timestamp"),
    ],
)
def test_a_mapping_that_can_not_work_is_an_error_that_lists_what_there_is(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(FeedError, match=message):
        read(tmp_path, HEADER, GOOD, **options)


def test_times_without_a_zone_are_an_error_that_says_how_to_give_one(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=r'pass zone="UTC".*2023-09-05T16:00:01\.281719'):
        read(tmp_path, HEADER, GOOD.replace("Z", ""), columns=AMOUNT)


def test_integer_times_that_can_not_be_ns_are_an_error_that_says_unit(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="unit="):
        read(tmp_path, "timestamp,price,volume", "1723161255030,1,2", symbol="A")


def test_a_column_that_is_there_twice_is_an_error_if_it_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="'price' is there 2 times"):
        read(tmp_path, "timestamp,price,price", "1,1,2", symbol="A", unit="s")


def test_a_table_of_rubbish_is_an_error_and_a_table_of_a_header_alone_a_warning(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="not one of 3 lines"):
        read(tmp_path, HEADER, "1", "2", columns=AMOUNT)
    with pytest.warns(feeds.FeedWarning, match="no event in 1 lines; skipped: 1 header"):
        assert len(read(tmp_path, HEADER, columns=AMOUNT)) == 0


def test_files_without_a_header_and_with_other_delimiters_and_line_ends_are_read(tmp_path: Path) -> None:
    names = ("timestamp", "symbol", "price", "volume")
    batch = read(tmp_path, "1;A;2.5;3\r", "2;A;2.75;3\r", names=names, delimiter=";", unit="s")
    assert batch.column("price") == [2.5, 2.75]
    assert batch.report.skipped == {}


def test_every_file_has_its_own_order_of_columns(tmp_path: Path) -> None:
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    first.write_text("symbol,timestamp,price,volume\nA,1,2,3\n")
    second.write_text("volume,price,timestamp,symbol\n6,5,4,B\n")
    batch = feeds.read([first, second], format="csv", unit="s", times="keep")
    assert batch.column("price") == [2.0, 5.0]
    assert batch.column("symbol") == ["A", "B"]


@given(
    prices=st.lists(st.decimals(0, 10**8, places=6), min_size=1, max_size=30),
    bad=st.sets(st.integers(0, 29)),
    piece_bytes=st.integers(8, 200),
)
@pytest.mark.filterwarnings("ignore::hftlab.feeds.FeedWarning")
def test_prices_are_the_nearest_floats_whatever_stands_beside_them(
    tmp_path_factory: pytest.TempPathFactory, prices: list[Any], bad: set[int], piece_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("prices") / "table.csv"
    cells = ["?" if index in bad else str(price) for index, price in enumerate(prices)]
    path.write_text("\n".join(["timestamp,price,volume", "1,7,1", *(f"2,{cell},1" for cell in cells)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hftlab.feeds.files.PIECE_BYTES", piece_bytes)
        batch = feeds.read(path, format="csv", symbol="A", unit="s", times="keep")
    assert batch.column("price") == [7.0, *(float(cell) for cell in cells if cell != "?")]
    assert [damage.line for damage in batch.report.damaged] == [i + 3 for i, cell in enumerate(cells) if cell == "?"]


def test_a_first_line_that_no_table_begins_with_is_explained(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match=r"the first line of .*table\.csv is no header"):
        read(tmp_path, "symbol,pr\rice", "X,1")
