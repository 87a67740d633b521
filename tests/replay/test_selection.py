"""What a replay may be asked for, and what is said about what it may not."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hftlab.errors import EmptyRange, TimeError, ValidationError
from hftlab.events import EventBatch, EventType, MarketDataEvent, OrderEvent, SignalEvent, SymbolTable
from hftlab.events.ports import LogRange, SessionInfo
from hftlab.events.records import Rows, event_id
from hftlab.replay import Selection
from hftlab.replay.selection import Span, rows_where
from tests.replay.memory_log import START_NS, STEP_NS, trades

DAY_NS = 86_400_000_000_000
COUNT = 1_000
SESSION = SessionInfo(
    name="btc",
    number=3,
    events=COUNT,
    start_ns=START_NS,
    end_ns=START_NS + 90_000_000_000,  # 23:54:30 to 23:56:00
    counts={"market": 900, "signal": 100},
    symbols=("BTCUSDT", "ETHUSDT"),
)
ALL = frozenset(EventType)


def asked(**options: Any) -> LogRange:
    return Selection(**options).log_range(SESSION)


# -- ranges -----------------------------------------------------------------------------------------------------------


def test_everything_is_everything_that_the_session_holds_now() -> None:
    assert asked() == LogRange(ALL, None, None, None, COUNT)


@pytest.mark.parametrize(
    "moment",
    [
        START_NS + 5_000_000_000,
        "2024-08-08T23:54:35Z",
        "2024-08-09T01:54:35+02:00",
        "23:54:35",
        "23:54:35.000000000",
        dt.datetime(2024, 8, 8, 23, 54, 35, tzinfo=dt.UTC),
        pd.Timestamp("2024-08-08T23:54:35Z"),
        (1_723_161_275, "s"),
        np.int64(START_NS + 5_000_000_000),
    ],
)
def test_a_start_is_a_time_in_any_writing(moment: Any) -> None:
    assert asked(start=moment).start_ns == START_NS + 5_000_000_000
    assert asked(end=moment).end_ns == START_NS + 5_000_000_000


def test_a_bound_may_be_an_event_id() -> None:
    first, last = event_id(3, 10), event_id(3, 20)
    assert asked(start=first, end=np.int64(last)) == LogRange(ALL, None, None, 10, 20)
    assert asked(start="23:54:35", end=last) == LogRange(ALL, START_NS + 5_000_000_000, None, None, 20)
    assert asked(end=event_id(3, COUNT)).end_log == COUNT


@pytest.mark.parametrize(
    ("bounds", "says"),
    [
        (
            {"start": "23:55:00", "end": "23:54:40"},
            "start is before end; got .*55:00.* and .*54:40.*swap them.*runs from",
        ),
        ({"start": "23:55:00", "end": "23:55:00"}, "start is before end.*the end is not included"),
        ({"start": event_id(3, 20), "end": event_id(3, 20)}, "got the event numbers 20 and 20"),
        ({"start": event_id(3, 20), "end": event_id(3, 10)}, "got the event numbers 20 and 10"),
        ({"end": event_id(3, 0)}, "got the event numbers None and 0"),
        ({"start": "2024-08-09T00:00:00Z"}, "nothing starts at or after 2024-08-09T00:00:00.*with 1,000 events"),
        ({"end": "23:54:30"}, "nothing comes before 2024-08-08T23:54:30"),
        ({"end": "2020-01-01T00:00:00Z"}, "nothing comes before 2020"),
        ({"start": event_id(3, COUNT)}, "got the event numbers 1000 and 1000"),
        ({"start": event_id(3, COUNT + 1)}, "has 1,000 events; .* is the id of its number 1,001"),
    ],
)
def test_an_empty_range_says_what_the_session_has(bounds: dict[str, Any], says: str) -> None:
    with pytest.raises(EmptyRange, match=says):
        asked(**bounds)


@pytest.mark.parametrize(
    ("moment", "says"),
    [
        ("tomorrow", "can't be read|write"),
        ("2024-08-08T23:54:35", "no zone"),
        (dt.datetime(2024, 8, 8), "zone"),  # noqa: DTZ001
        ("25:00:00", "time of day"),
        (True, "bool"),
        (1.5, "float"),
        ((5, "years"), "unit"),
    ],
)
def test_a_time_that_can_not_be_says_what_to_write(moment: Any, says: str) -> None:
    with pytest.raises(TimeError, match=says):
        asked(start=moment)


def test_a_time_of_day_that_the_session_has_twice_is_ambiguous() -> None:
    long = SessionInfo(
        name="long", number=4, events=10, start_ns=START_NS, end_ns=START_NS + DAY_NS + 60_000_000_000,
        counts={"market": 10}, symbols=("BTCUSDT",),
    )  # fmt: skip
    with pytest.raises(TimeError, match="could mean 2 moments"):
        Selection(start="23:55:00").log_range(long)
    assert Selection(start="12:00:00").log_range(long).start_ns == 1_723_204_800_000_000_000


@pytest.mark.parametrize("value", [event_id(4, 5), 123, 1 << 41])
def test_an_integer_that_is_neither_is_refused(value: int) -> None:
    with pytest.raises(
        ValidationError, match=r"an integer is a time in ns since 1970, or an event id of the session 'btc'"
    ):
        asked(start=value)


# -- types and symbols ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "types",
    [MarketDataEvent, [MarketDataEvent], (EventType.MARKET_DATA,), "market", ["market"], EventType.MARKET_DATA],
)
def test_types_are_written_in_any_way_and_one_needs_no_list(types: Any) -> None:
    assert asked(types=types).types == {EventType.MARKET_DATA}


def test_several_types() -> None:
    assert asked(types=["market", SignalEvent]).types == {EventType.MARKET_DATA, EventType.SIGNAL}
    assert asked(types=[OrderEvent, SignalEvent]).types == {EventType.ORDER, EventType.SIGNAL}


@pytest.mark.parametrize(
    ("types", "says"), [([OrderEvent], "holds 900 market, 100 signal; types= asks for order"), ([], "no type at all")]
)
def test_types_that_the_session_has_none_of(types: Any, says: str) -> None:
    with pytest.raises(EmptyRange, match=says):
        asked(types=types)


@pytest.mark.parametrize("types", ["trades", [int], 5, [None]])
def test_types_that_are_none(types: Any) -> None:
    with pytest.raises((ValidationError, TypeError)):
        asked(types=types)


def test_symbols_are_those_of_the_session() -> None:
    asked(symbols="BTCUSDT")
    asked(symbols=["BTCUSDT", "ETHUSDT"])
    with pytest.raises(ValidationError, match="has no symbol 'XRP'; it has: BTCUSDT, ETHUSDT"):
        asked(symbols=["BTCUSDT", "XRP"])
    with pytest.raises(EmptyRange, match=r"symbols= asks for no symbol at all; .* has: BTCUSDT, ETHUSDT"):
        asked(symbols=[])


def test_many_symbols_are_not_all_listed() -> None:
    many = SessionInfo(
        name="many", number=1, events=5, start_ns=1, end_ns=2, counts={"market": 5},
        symbols=tuple(f"S{number}" for number in range(500)),
    )  # fmt: skip
    with pytest.raises(ValidationError, match=r"S0, S1, .*, S19 and 480 more$"):
        Selection(symbols="X").log_range(many)


def test_an_empty_session_says_so() -> None:
    empty = SessionInfo(name="empty", number=1, events=0, start_ns=0, end_ns=0, counts={}, symbols=())
    with pytest.raises(EmptyRange, match="the session 'empty' holds no event yet"):
        Selection(symbols="X", types=OrderEvent).log_range(empty)


# -- filters ----------------------------------------------------------------------------------------------------------


def test_where_is_a_function() -> None:
    with pytest.raises(ValidationError, match="where= is a function from records to a boolean array"):
        asked(where="price > 0")


def mixed() -> EventBatch:
    signals = [SignalEvent(symbol="BTCUSDT", signal_type="s", strength=float(number)) for number in range(4)]
    return EventBatch.concat([trades(10, ("BTCUSDT", "ETHUSDT")), EventBatch.from_events(signals)])


def test_filters_that_keep_everything_copy_nothing() -> None:
    batch = mixed()
    assert Selection().apply(batch) is batch
    assert Selection(symbols=["BTCUSDT", "ETHUSDT"]).apply(batch) is batch
    assert Selection(where=lambda records: np.ones(len(records), bool)).apply(batch) is batch


def test_symbols_and_where_are_both_obeyed_type_by_type() -> None:
    def where(records: Rows) -> Any:
        return records["price"] > 3 if "price" in (records.dtype.names or ()) else records["strength"] > 1

    chosen = Selection(symbols="BTCUSDT", where=where).apply(mixed())
    assert [getattr(event, "price", None) or getattr(event, "strength", None) for event in chosen] == [4, 6, 8, 2, 3]


def test_symbols_may_join_the_table_later() -> None:
    symbols = SymbolTable(["BTCUSDT"])
    selection = Selection(symbols="ETHUSDT")
    batch = trades(4, ("BTCUSDT", "ETHUSDT"))
    assert len(selection.apply(EventBatch(batch.records[::2], symbols))) == 0
    assert len(selection.apply(batch)) == 2


def test_a_field_that_a_type_lacks_lists_those_that_it_has() -> None:
    with pytest.raises(
        ValidationError, match=r"where= failed on SIGNAL records: .*price.* They have: .*strength.*types=\["
    ):
        Selection(where=lambda records: records["price"] > 0).apply(mixed())


@pytest.mark.parametrize("result", [True, [True] * 10, np.ones(10), np.ones(9, bool)])
def test_a_where_returns_a_mask(result: Any) -> None:
    with pytest.raises(
        ValidationError, match=r"where= takes records and returns a boolean array, one value a row \(10,\); got"
    ):
        rows_where(lambda records: result, trades(10), "where=")


# -- spans ------------------------------------------------------------------------------------------------------------


def test_progress_goes_from_0_to_1() -> None:
    span = Span(SESSION, asked())
    assert [span.progress(START_NS + second * 1_000_000_000) for second in (-5, 0, 45, 90, 100)] == [0, 0, 0.5, 1, 1]
    one_moment = Span(SESSION, LogRange(start_ns=START_NS, end_ns=START_NS))
    assert one_moment.progress(START_NS) == 0


def test_a_target_lies_in_the_range() -> None:
    span = Span(SESSION, asked(start="23:54:40", end="23:55:40"))
    part, begin_ns, begin_log = span.target("23:55:00")
    assert (part.start_ns, begin_ns, begin_log) == (START_NS + 30_000_000_000, START_NS + 30_000_000_000, None)
    for outside in ("23:54:35", "23:55:45"):
        with pytest.raises(EmptyRange, match="seek goes to a moment from"):
            span.target(outside)
    numbers = Span(SESSION, asked(start=event_id(3, 10), end=event_id(3, 20)))
    assert numbers.target(event_id(3, 15))[0].start_log == 15
    with pytest.raises(EmptyRange, match="seek goes to an event of the range, number 10 to 19; got number 20"):
        numbers.target(event_id(3, 20))


def test_steps_of_the_log_are_as_the_tests_say() -> None:
    assert SESSION.end_ns > START_NS + 5 * STEP_NS
