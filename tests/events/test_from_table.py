"""Tables become events: what they say is taken as it is meant, and what could mean two things is refused."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given

from hftlab.errors import TimeError, ValidationError
from hftlab.events import (
    Event,
    EventBatch,
    EventType,
    FillEvent,
    Flags,
    Kind,
    MarketDataEvent,
    OrderEvent,
    Side,
    SignalEvent,
    Source,
)
from hftlab.events.records import RUN_BIT, event_id
from tests.events.strategies import event_lists, identical


def table(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"symbol": ["A", "B"], "timestamp": [5, 7]} | columns)


@given(event_lists())
def test_a_table_made_of_a_batch_is_that_batch_again(listed: list[Event]) -> None:
    batch = EventBatch.from_events(listed)
    back = batch.to_frame().pipe(EventBatch.from_frame)  # type: ignore[call-overload]  # constants puzzle the stubs
    assert all(map(identical, back, batch))
    assert len(back) == len(batch)
    assert back == batch or not len(batch) or not any(event.event_id < RUN_BIT for event in listed)


@given(event_lists(least=1))
def test_a_table_may_be_sorted_and_indexed_as_one_likes(listed: list[Event]) -> None:
    if not listed:
        return
    batch = EventBatch.from_events(listed)
    frame = batch.to_frame().iloc[::-1].set_index("timestamp", drop=False)
    assert all(map(identical, EventBatch.from_frame(frame), batch[::-1]))


def test_trades_and_quotes_are_told_apart_by_what_they_have() -> None:
    nan = float("nan")
    frame = pd.DataFrame(
        {
            "symbol": "A", "timestamp": range(5),
            "price": [1.0, nan, 3.0, nan, nan], "volume": [1.0, nan, 1.0, nan, 2.0],
            "bid": [nan, 1.0, 1.0, nan, nan], "ask": [nan, nan, 2.0, 3.0, nan],
        }
    )  # fmt: skip
    kinds = EventBatch.from_frame(frame).column("kind")
    assert kinds == [Kind.TRADE, Kind.QUOTE, Kind.TICK, Kind.QUOTE, Kind.TICK]


def test_columns_of_other_names_and_constants_are_taken() -> None:
    frame = pd.DataFrame(
        {"ts": [5, 7], "px": ["1.5", "2.5"], "qty": [1, 2], "taker": ["buy", "SELL"], "junk": [None, {}]}
    )
    batch = EventBatch.from_frame(
        frame,
        columns={"timestamp": "ts", "price": "px", "volume": "qty", "side": "taker"},
        symbol="BTCUSDT",
        source=Source("binance", "trade", "BTCUSDT"),
        kind="TRADE",
        epoch=3,
    )
    assert list(batch) == [
        MarketDataEvent(
            symbol="BTCUSDT", timestamp=time, received=time, price=price, volume=volume, side=side, kind=Kind.TRADE,
            epoch=3, source=Source("binance", "trade", "BTCUSDT"), flags=Flags.LAST_PART | Flags.SOURCE_TIME,
        )
        for time, price, volume, side in [(5, 1.5, 1.0, Side.BUY), (7, 2.5, 2.0, Side.SELL)]
    ]  # fmt: skip


def test_tables_of_every_type_have_the_defaults_that_events_have() -> None:
    orders = EventBatch.from_frame(
        table(order_id=["a", "é"], direction=[1, "sell"], quantity=[1, 2]), event_type=OrderEvent
    )
    stamp: dict[str, Any] = {"flags": Flags.LAST_PART | Flags.SOURCE_TIME}
    assert list(orders) == [
        OrderEvent(symbol="A", order_id="a", direction=Side.BUY, quantity=1, timestamp=5, received=5, **stamp),
        OrderEvent(symbol="B", order_id="é", direction=Side.SELL, quantity=2, timestamp=7, received=7, **stamp),
    ]
    fills = EventBatch.from_frame(table(order_id="x", executed_qty=1, executed_price=2), event_type="fill")  # type: ignore[arg-type]
    assert fills[0] == FillEvent(
        symbol="A", order_id="x", executed_qty=1, executed_price=2, timestamp=5, received=5, **stamp
    )
    signals = EventBatch.from_frame(table(signal_type="W"), event_type=EventType.SIGNAL)
    assert signals[1] == SignalEvent(symbol="B", signal_type="W", timestamp=7, received=7, **stamp)


@pytest.mark.parametrize(
    "times",
    [
        [1_723_161_255_000_000_001, 1_723_161_256_000_000_000],
        np.array([1_723_161_255_000_000_001, 1_723_161_256_000_000_000], "u8"),
        pd.array([1_723_161_255_000_000_001, 1_723_161_256_000_000_000], "Int64"),
        pd.Series([1_723_161_255_000_000_001, 1_723_161_256_000_000_000], dtype=object),
        pd.to_datetime(["2024-08-08T23:54:15.000000001Z", "2024-08-08T23:54:16Z"], format="ISO8601"),
        pd.to_datetime(["2024-08-09 01:54:15.000000001", "2024-08-09 01:54:16.0"]).tz_localize("Europe/Berlin"),
        ["2024-08-08T23:54:15.000000001Z", "2024-08-08 23:54:16+00:00"],
        ["2024-08-09T01:54:15.000000001+02:00", "2024-08-08T19:54:16-04:00"],
        [pd.Timestamp("2024-08-08T23:54:15.000000001Z"), dt.datetime(2024, 8, 8, 23, 54, 16, tzinfo=dt.UTC)],
    ],
)
def test_times_are_taken_in_every_form_that_says_when(times: Any) -> None:
    batch = EventBatch.from_frame(table(timestamp=times))
    assert batch.column("timestamp") == [1_723_161_255_000_000_001, 1_723_161_256_000_000_000]


def test_datetimes_of_coarser_units_are_not_taken_for_nanoseconds() -> None:
    for unit in ("s", "ms", "us", "ns"):
        times = pd.Series(pd.to_datetime(["2024-08-08T23:54:15Z"] * 2)).dt.as_unit(unit)
        assert EventBatch.from_frame(table(timestamp=times)).column("received") == [1_723_161_255_000_000_000] * 2


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (pd.to_datetime(["2024-08-08", "2024-08-09"]), r"no zone; if it is UTC, write frame\['timestamp'\]"),
        (["2024-08-08T23:54:15", "2024-08-08T23:54:16"], "no zone"),
        (["2024-08-08T23:54:15Z", "2024-08-08T23:54:16"], "timestamp"),
        (["2024-08-08T23:54:15+01:00", "2024-08-08T23:54:16"], "timestamp"),
        (["08/09/2024Z", "08/10/2024Z"], "ISO 8601"),
        (["soon", "later"], "ISO 8601"),
        ([1.5, 2.5], "float64, which can't hold ns"),
        ([True, False], "bool"),
        ([None, 5], "timestamp"),
        (pd.array([None, 5], "Int64"), "row 0: timestamp is missing"),
        (pd.to_datetime(pd.Series([None, "2024-08-08T00:00:00Z"])), "row 0: timestamp is missing"),
        (["2024-08-08T23:54:15Z", None], "row 1: timestamp is missing"),
        ([-1, 5], "row 0: timestamp is an integer of 0"),
        (np.array([5, 1 << 63], "u8"), "row 1: timestamp is an integer"),
        (pd.Series(pd.to_datetime(["1960-01-01T00:00:00Z"] * 2)), "row 0: timestamp is an integer of 0"),
        (pd.Series(pd.to_datetime(["2500-01-01T00:00:00Z"] * 2)).dt.as_unit("s"), "timestamp"),
        ([{}, {}], "timestamp"),
    ],
)
def test_times_that_do_not_say_when_are_refused(times: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EventBatch.from_frame(table(timestamp=times))


def test_a_missing_time_is_made_of_the_other_and_marked() -> None:
    sent = EventBatch.from_frame(table())
    assert sent.column("received") == [5, 7]
    assert sent.column("flags") == [Flags.LAST_PART | Flags.SOURCE_TIME] * 2
    arrived = EventBatch.from_frame(table().rename(columns={"timestamp": "received"}))
    assert arrived.column("timestamp") == [5, 7]
    assert arrived.column("flags") == [Flags.LAST_PART | Flags.ARRIVAL_TIME] * 2
    both = EventBatch.from_frame(table(received=[4, 7]))
    assert both.column("flags") == [Flags.LAST_PART | Flags.AHEAD, Flags.LAST_PART]


BROKEN: list[tuple[Callable[[], object], str]] = [
    (lambda: EventBatch.from_frame([1]), "takes a pandas DataFrame; got list"),  # type: ignore[arg-type]
    (lambda: EventBatch.from_frame(pd.DataFrame({"x": [1]})), r"needs symbol, timestamp \(or received\): .*has: x"),
    (lambda: EventBatch.from_frame(table().drop(columns="symbol")), "needs symbol"),
    (lambda: EventBatch.from_frame(table(), event_type=OrderEvent), "needs order_id, direction, quantity"),
    (lambda: EventBatch.from_frame(table(), columns={"price": "px"}), "no column 'px'; it has: symbol, timestamp"),
    (lambda: EventBatch.from_frame(table(), columns={"prize": "symbol"}), "no field 'prize'"),
    (lambda: EventBatch.from_frame(table(), prize=5), "no field 'prize'; they have: timestamp"),
    (lambda: EventBatch.from_frame(table(), topic="x"), "no field 'topic'"),
    (lambda: EventBatch.from_frame(pd.concat([table(), table()], axis=1)), "2 columns 'timestamp'"),
    (lambda: EventBatch.from_frame(table(symbol=["A", ""])), "symbol is printable"),
    (lambda: EventBatch.from_frame(table(symbol=["A", None])), "symbol is printable"),
    (lambda: EventBatch.from_frame(table(symbol=[1, 2])), "symbol is printable"),
    (lambda: EventBatch.from_frame(table(symbol=[["A"], ["B"]])), "can't be names"),
    (lambda: EventBatch.from_frame(table(source=["", "x"])), "source"),
    (lambda: EventBatch.from_frame(table(source=[5, "x"])), "a source is a Source, or text"),
    (lambda: EventBatch.from_frame(table(price=[1, "x"])), "row 1: price is a number; got 'x'"),
    (lambda: EventBatch.from_frame(table(price=[1, np.inf])), "row 1: price is a finite number"),
    (lambda: EventBatch.from_frame(table(volume=[-1, 1])), "row 0: volume is a finite number of at least 0"),
    (lambda: EventBatch.from_frame(table(sequence=[1, 1.5])), "row 1: sequence is an integer"),
    (lambda: EventBatch.from_frame(table(sequence=[1, None])), "row 1: sequence is an integer"),
    (lambda: EventBatch.from_frame(table(sequence=[1, 1e300])), "row 1: sequence is an integer"),
    (lambda: EventBatch.from_frame(table(sequence=[1.0, 2.0**53 + 2])), r"row 1: sequence .* exact up to 2\*\*53"),
    (lambda: EventBatch.from_frame(table(sequence=[-2, 5])), "row 0: sequence is an integer of -1"),
    (lambda: EventBatch.from_frame(table(part=[0, 1 << 32])), "row 1: part is an integer of 0 to 4294967295"),
    (lambda: EventBatch.from_frame(table(part=[-1, 0])), "row 0: part is an integer of 0"),
    (lambda: EventBatch.from_frame(table(flags=[0, 1 << 16])), "row 1: flags is an integer of 0 to 65535"),
    (lambda: EventBatch.from_frame(table(side=["BUY", "UP"])), "side is one of .*ASK, BID; got 'UP'"),
    (lambda: EventBatch.from_frame(table(side=[True, False])), "side is one of"),
    (lambda: EventBatch.from_frame(table(kind=[0, 4])), "kind is one of"),
    (lambda: EventBatch.from_frame(table(kind="TRADE")), "row 0: price is a finite number in a market data event"),
    (lambda: EventBatch.from_frame(table(priority="URGENT")), "priority is one of"),
    (lambda: EventBatch.from_frame(table(event_type=["market", "tick"])), "column event_type: .*pass event_type="),
    (lambda: EventBatch.from_frame(table(event_id=[5, 6])), "row 0: event_id is given by hftlab.*Drop or rename"),
    (lambda: EventBatch.from_frame(table(event_id=[event_id(1, 0), event_id(2, 0)])), r"sessions \[1, 2\]"),
    (lambda: EventBatch.from_frame(table(event_id=[RUN_BIT, 0])), "row 0: event_id"),
    (
        lambda: EventBatch.from_frame(table(signal_type=["x", "y" * 25]), event_type=SignalEvent),
        "signal_type is text of 1 to 24 bytes",
    ),
    (lambda: EventBatch.from_frame(table(signal_type=["x", None]), event_type=SignalEvent), "signal_type is text"),
]


@pytest.mark.parametrize(("read", "message"), BROKEN, ids=[message[:40] for _, message in BROKEN])
def test_a_table_that_makes_no_events_is_an_error_that_says_why(read: Callable[[], object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        read()


def test_a_time_that_can_not_be_read_is_a_time_error() -> None:
    with pytest.raises(TimeError):
        EventBatch.from_frame(table(timestamp=["soon", "later"]))


@pytest.mark.parametrize(
    "prices",
    [
        [Decimal("1.5"), Decimal("2.5")],
        ["1.5", " 2.5"],
        np.array([1.5, 2.5], "f4"),
        pd.array([1.5, 2.5], "Float64"),
        pd.Series([1.5, 2.5], dtype=object),
    ],
)
def test_numbers_are_taken_from_every_type_that_holds_them(prices: Any) -> None:
    assert EventBatch.from_frame(table(price=prices)).column("price") == [1.5, 2.5]


def test_a_number_that_was_not_sent_may_be_missing_in_any_way() -> None:
    for missing in (None, float("nan"), pd.NA):
        batch = EventBatch.from_frame(table(price=pd.Series([1.5, missing], dtype=object)))
        assert repr(batch.column("price")) == "[1.5, nan]"
    assert repr(EventBatch.from_frame(table(price=pd.array([1, None], "Int64"))).column("price")) == "[1.0, nan]"


def test_an_explicit_type_is_what_all_rows_are() -> None:
    frame = table(event_type=["login", "logout"], signal_type="W")
    assert EventBatch.from_frame(frame, event_type=SignalEvent).counts() == {EventType.SIGNAL: 2}


def test_an_empty_table_is_an_empty_batch() -> None:
    empty = table().iloc[:0]
    assert len(EventBatch.from_frame(empty)) == 0
    assert EventBatch.from_frame(empty.assign(signal_type=""), event_type=SignalEvent).type is EventType.SIGNAL
    assert EventBatch.from_frame(EventBatch.empty(EventType.ORDER).to_frame()).counts() == {}
