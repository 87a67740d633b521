from __future__ import annotations

import numpy as np
import pytest

from hftlab.errors import ValidationError
from hftlab.events import EventBatch, EventType, Kind, MarketDataEvent, OrderEvent, OrderType, Side, Source
from hftlab.events.records import DTYPES, Rows, of_type
from hftlab.sim import market
from hftlab.sim.traffic import Line, Mix, traffic_of

BATCH = market(["A", "B"], seconds=5, seed=1)
MIXED = Mix(orders=0.1, fills=0.05, signals=0.2)


def taken(line: Line, begin: int, end: int) -> Rows:
    return line.take(begin, end, "x-")[0]


def orders_and_fills(mix: Mix, seed: int) -> tuple[Rows, Rows]:
    line = traffic_of(BATCH, mix, seed).lines[0]
    rows = taken(line, 0, len(line.records))
    return of_type(rows, EventType.ORDER), of_type(rows, EventType.FILL)


def test_a_plain_batch_is_one_line_of_its_own_rows() -> None:
    (line,) = traffic_of(BATCH, Mix(), 0).lines
    rows = taken(line, 0, len(BATCH))
    for name in ("symbol", "kind", "side"):
        assert (rows[name] == BATCH.records[name]).all()
    for name in ("price", "volume", "bid", "ask"):
        assert np.array_equal(rows[name], BATCH.records[name], equal_nan=True)
    assert (rows["sequence"] == BATCH.records["sequence"]).all()
    assert not line.urgent


def test_the_parts_are_about_those_that_were_asked_for() -> None:
    traffic = traffic_of(BATCH, MIXED, 3)
    types = np.concatenate([line.records["type"] for line in traffic.lines])
    shares = np.bincount(types, minlength=5) / traffic.round_rows
    assert shares[EventType.ORDER] == pytest.approx(0.1, abs=0.02)
    assert shares[EventType.FILL] == pytest.approx(0.05, abs=0.02)
    assert shares[EventType.SIGNAL] == pytest.approx(0.2, abs=0.02)
    assert len(types) == traffic.round_rows == sum(len(line.places) for line in traffic.lines)


def test_orders_and_fills_have_a_line_of_their_own() -> None:
    urgent, other = traffic_of(BATCH, MIXED, 3).lines
    assert urgent.urgent
    assert not other.urgent
    assert set(urgent.records["type"].tolist()) == {EventType.ORDER, EventType.FILL}
    assert set(other.records["type"].tolist()) == {EventType.MARKET_DATA, EventType.SIGNAL}
    assert sorted([*urgent.places.tolist(), *other.places.tolist()]) == list(range(urgent._round_rows))


def test_the_same_seed_makes_the_same_events_and_another_one_others() -> None:
    one, same, other = (traffic_of(BATCH, MIXED, seed) for seed in (3, 3, 4))
    for line, twin in zip(one.lines, same.lines, strict=True):
        assert line.records.tobytes() == twin.records.tobytes()
        assert line.places.tolist() == twin.places.tolist()
    assert one.lines[0].places.tolist() != other.lines[0].places.tolist()


def test_a_fill_is_of_an_open_order_with_its_symbol_quantity_and_price() -> None:
    line = traffic_of(BATCH, Mix(orders=0.1, fills=0.1), 3).lines[0]
    rows = taken(line, 0, len(line.records))
    open_orders: dict[bytes, tuple[int, float, float]] = {}
    filled = 0
    for row in rows:
        if row["type"] == EventType.ORDER:
            order = np.array([row], rows.dtype).view(DTYPES[EventType.ORDER])[0]
            open_orders[order["order_id"]] = (int(order["symbol"]), float(order["quantity"]), float(order["price"]))
        else:
            fill = np.array([row], rows.dtype).view(DTYPES[EventType.FILL])[0]
            executed = (int(fill["symbol"]), float(fill["executed_qty"]), float(fill["executed_price"]))
            assert open_orders.pop(fill["order_id"]) == executed
            filled += 1
    assert filled > 300


def test_an_order_is_at_the_other_sides_price_or_at_the_trades() -> None:
    orders, _ = orders_and_fills(Mix(orders=0.2), 3)
    assert np.isfinite(orders["price"]).all()
    assert set(orders["direction"].tolist()) == {-1, 1}
    assert set(np.round(orders["quantity"] * 10).tolist()) == set(range(1, 11))


def test_the_next_round_goes_on_with_the_numbers_and_the_orders_names() -> None:
    for line in traffic_of(BATCH, MIXED, 3).lines:
        many = len(line.records)
        first, places = line.take(0, many, "x-")
        again, next_places = line.take(many, 2 * many, "x-")
        for source in np.unique(first["source"]).tolist():
            numbers = first["sequence"][first["source"] == source]
            assert numbers.tolist() == list(range(1, len(numbers) + 1))
            assert (again["sequence"][again["source"] == source] - numbers == len(numbers)).all()
        assert (next_places - places == line._round_rows).all()
    orders, _ = orders_and_fills(MIXED, 3)
    assert orders["order_id"].tolist() == [f"x-{number}".encode() for number in range(1, len(orders) + 1)]
    line = traffic_of(BATCH, MIXED, 3).lines[0]
    again = of_type(taken(line, len(line.records), 2 * len(line.records)), EventType.ORDER)
    assert again["order_id"][0] == f"x-{len(orders) + 1}".encode()


def test_rows_are_taken_up_to_the_end_of_a_round() -> None:
    (line,) = traffic_of(BATCH, Mix(), 0).lines
    many = len(BATCH)
    assert len(line.take(many - 3, many + 5, "")[0]) == 3
    assert line.count_below(many + 5) == many + 5


def test_a_recording_is_sent_with_its_own_orders_and_without_what_ties_it_to_its_session() -> None:
    source = Source("binance", "trade", "A", "shared")
    events = [
        MarketDataEvent(symbol="A", kind=Kind.TRADE, price=1.0, volume=1.0, timestamp=5, source=source, sequence=900),
        OrderEvent(
            order_id="mine", symbol="A", direction=Side.BUY, quantity=2.0, order_type=OrderType.MARKET, timestamp=6
        ),
        MarketDataEvent(symbol="A", kind=Kind.TRADE, price=1.0, volume=1.0, timestamp=7, source=source, sequence=990),
    ]
    urgent, other = traffic_of(EventBatch.from_events(events), Mix(), 0).lines
    (order,) = taken(urgent, 0, 1)
    assert order["order_id"] == b"mine"
    assert taken(other, 0, 2)["sequence"].tolist() == [1, 2]
    assert traffic_of(EventBatch.from_events(events), Mix(), 0).sources.find(
        Source("binance", "trade", "A", "plus-one")
    )


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"orders": 0.6}, "0 to 0.5"),
        ({"orders": 0.3, "fills": 0.3}, "at most half"),
        ({"fills": 0.1}, "at most as many"),
        ({"signals": -0.1}, "signals is a number"),
    ],
)
def test_a_mix_has_its_bounds(values: dict[str, float], match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        Mix(**values)


@pytest.mark.parametrize("nothing", [EventBatch.empty(), [1], None])
def test_there_has_to_be_something_to_send(nothing: object) -> None:
    with pytest.raises(ValidationError):
        traffic_of(nothing, Mix(), 0)  # type: ignore[arg-type]
