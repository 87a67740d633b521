"""``market``: valid rows in order of arrival, complete sources, and the same bytes for the same seed, everywhere."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hftlab.sim as sim
from hftlab.errors import TimeError, ValidationError
from hftlab.events import ClockSource, EventBatch, EventType, Flags, Kind, Side, Source, SourceTable, SymbolTable
from hftlab.events.records import Rows
from hftlab.events.rules import check_records

START_NS = 1_704_205_800_000_000_000
SYMBOLS = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]


@pytest.fixture(scope="module")
def batch() -> EventBatch:
    return sim.market(SYMBOLS, seconds=60, seed=1)


def of_source(batch: EventBatch, channel: str, symbol: str) -> Rows:
    source = batch.sources.find(Source("sim", channel, symbol, "plus-one"))
    assert source is not None
    return batch.where(batch.records["source"] == source).records


def digest(batch: EventBatch) -> str:
    names = "|".join([*batch.symbols, *map(str, batch.sources)])
    return hashlib.sha256(batch.records.tobytes() + names.encode()).hexdigest()


def test_the_same_seed_gives_the_same_bytes_on_every_machine() -> None:
    """If this fails, a new NumPy or a change here broke what ``market`` promises: recorded demos would all change."""
    assert digest(sim.market(SYMBOLS, seconds=10, seed=42)) == GOLDEN
    assert digest(sim.market("A", 5, 0, **UNUSUAL)) == GOLDEN_UNUSUAL


def test_another_seed_gives_another_market() -> None:
    one, two = (sim.market("A", 10, seed) for seed in (1, 2))
    assert len(one) != len(two) or one.records.tobytes() != two.records.tobytes()


def test_another_process_gives_the_same_bytes() -> None:
    code = (
        "import hashlib; from hftlab import sim; "
        "print(hashlib.sha256(sim.market(['A', 'B'], 2, 5).records.tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(sim.market(["A", "B"], 2, 5).records.tobytes()).hexdigest()


@pytest.mark.parametrize("others", [["A", "B"], ["B", "A"], ["X", "B", "Y", "A"]])
def test_a_symbols_rows_do_not_depend_on_what_other_symbols_there_are(others: list[str]) -> None:
    alone, among = sim.market("B", 10, seed=3), sim.market(others, 10, seed=3)
    rows = among.where(among.records["symbol"] == among.symbols.find("B"))
    names = SymbolTable(["B"]), SourceTable(alone.sources.values[1:])
    assert rows.using(*names).records.tobytes() == alone.using(*names).records.tobytes()


def test_all_rows_are_valid_and_of_one_type(batch: EventBatch) -> None:
    assert batch.type is EventType.MARKET_DATA
    check_records(EventType.MARKET_DATA, batch.records)
    assert list(batch.symbols) == SYMBOLS
    assert len(batch) == pytest.approx(60 * 500 * 3, rel=0.05)
    assert np.all(batch.records["flags"] == Flags.LAST_PART)
    assert np.all(batch.records["clock"] == ClockSource.APPLICATION)
    assert set(np.unique(batch.records["kind"])) == {Kind.QUOTE, Kind.TRADE}


def test_rows_are_in_the_order_of_their_arrival_and_none_arrives_before_it_was_sent(batch: EventBatch) -> None:
    rows = batch.records
    assert np.all(np.diff(rows["received"]) >= 0)
    assert np.all(rows["received"] - rows["timestamp"] > sim.Latency().floor_ns)
    assert rows["timestamp"].min() == START_NS
    assert rows["timestamp"].max() < START_NS + 60 * 10**9
    assert np.any(np.diff(rows["timestamp"]) < 0), "between sources, exchange times cross"


@pytest.mark.parametrize("symbol", SYMBOLS)
@pytest.mark.parametrize("channel", ["quote", "trade"])
def test_every_source_is_complete_and_in_order(batch: EventBatch, channel: str, symbol: str) -> None:
    rows = of_source(batch, channel, symbol)
    np.testing.assert_array_equal(rows["sequence"], np.arange(1, len(rows) + 1))
    assert np.all(np.diff(rows["timestamp"]) >= 0)
    assert np.all(rows["kind"] == (Kind.QUOTE if channel == "quote" else Kind.TRADE))
    assert np.all(rows["symbol"] == batch.symbols.find(symbol))


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_trades_happen_at_the_quote_that_stands_at_the_exchange(batch: EventBatch, symbol: str) -> None:
    quotes, trades = of_source(batch, "quote", symbol), of_source(batch, "trade", symbol)
    assert quotes["timestamp"][0] == START_NS
    buys = trades["side"] == Side.BUY
    low = np.searchsorted(quotes["timestamp"], trades["timestamp"], side="left") - 1
    high = np.searchsorted(quotes["timestamp"], trades["timestamp"], side="right") - 1
    # Where a quote has the very ns of the trade, either may stand.
    assert np.count_nonzero(low != high) < 5
    standing = quotes.view("V128")[low].view(quotes.dtype)
    plain = low == high
    np.testing.assert_array_equal(trades["price"][plain], np.where(buys, standing["ask"], standing["bid"])[plain])
    room = np.where(buys, standing["ask_size"], standing["bid_size"])
    assert np.all(trades["volume"][plain] <= room[plain])


def test_arrivals_come_in_bursts(batch: EventBatch) -> None:
    times = of_source(batch, "quote", "BTCUSDT")["timestamp"] - START_NS
    counts = np.bincount(times // 100_000_000)
    assert counts.var() > 2 * counts.mean()
    plain = sim.market("BTCUSDT", 60, 1, branching=0.0, trade_share=0.0).records["timestamp"] - START_NS
    counts = np.bincount(plain // 100_000_000)
    assert counts.var() == pytest.approx(counts.mean(), rel=0.2)


@pytest.mark.parametrize(
    ("tick_size", "lot_size", "price"),
    [(0.01, 0.001, 100.0), (0.25, 1, 4500.25), (0.1, 1e-05, 61800.2), (5, 10, 25_000), (1e-08, 1000.0, 2e-05)],
)
def test_prices_and_sizes_are_the_nearest_floats_to_whole_ticks_and_lots(
    tick_size: float, lot_size: float, price: float
) -> None:
    batch = sim.market(
        "A", 5, 1, tick_size=tick_size, lot_size=lot_size, price=price, quote_size=9 * lot_size, trade_size=lot_size
    )
    rows = batch.records
    quotes, trades = rows[rows["kind"] == Kind.QUOTE], rows[rows["kind"] == Kind.TRADE]
    assert quotes["bid"][0] == price
    for values, step in (
        (np.concatenate([quotes["bid"], quotes["ask"], trades["price"]]), tick_size),
        (np.concatenate([quotes["bid_size"], quotes["ask_size"], trades["volume"]]), lot_size),
    ):
        digits = 10 if step < 1 else 2
        np.testing.assert_array_equal(values, [float(f"{round(value / step) * step:.{digits}f}") for value in values])


def test_the_first_price_is_one_for_all_or_one_for_each() -> None:
    batch = sim.market(["A", "B"], 1, 1, price={"A": 10.0, "B": 20.004, "C": 1.0})
    assert [of_source(batch, "quote", name)["bid"][0] for name in "AB"] == [10.0, 20.0]


@given(
    seconds=st.floats(1e-9, 3),
    rate_hz=st.floats(1e-3, 2000),
    branching=st.floats(0, 0.95),
    trade_share=st.floats(0, 1),
    spread_ticks=st.floats(1, 1000),
    move_share=st.floats(0, 1),
    seed=st.integers(0, 1 << 70),
    price=st.floats(0.01, 1e6),
    jitter_ns=st.integers(0, 10**9),
    sigma=st.floats(0, 2),
)
def test_whatever_is_within_the_bounds_makes_a_valid_market(jitter_ns: int, sigma: float, **options: Any) -> None:
    batch = sim.market(["A", "B"], latency=sim.Latency(0, jitter_ns, sigma), **options)
    check_records(EventType.MARKET_DATA, batch.records)
    assert len(batch) >= 2
    assert np.all(np.diff(batch.records["received"]) >= 0)
    for symbol in "AB":
        quotes = of_source(batch, "quote", symbol)
        assert np.all((quotes["ask"] > quotes["bid"]) & (quotes["bid"] > 0))
        np.testing.assert_array_equal(quotes["sequence"], np.arange(1, len(quotes) + 1))


@pytest.mark.parametrize("start", ["2024-01-02T14:30:00Z", "2024-01-02T15:30:00+01:00", START_NS, (1_704_205_800, "s")])
def test_the_start_is_a_time_as_users_write_it(start: Any) -> None:
    assert sim.market("A", 1, 1, start=start).records["timestamp"].min() == START_NS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("A", 0, 1), "seconds is a number of 1e-09 to 1e"),
        (("A", -1, 1), "seconds is a number"),
        (("A", float("nan"), 1), "seconds is a number"),
        (("A", "60", 1), "seconds is a number; got '60'"),
        (("A", 1, -1), "seed is an integer of at least 0"),
        (("A", 1, 1.5), "seed is an integer"),
        (("A", 1, True), "seed is an integer"),
        (("A", 1, None), "seed is an integer"),
        ((7, 1, 1), "symbols is a name"),
        (([], 1, 1), "one or more names"),
        ((["A", "A"], 1, 1), "each once"),
        ((["A", ""], 1, 1), "a symbol is"),
        (([5], 1, 1), "a symbol is"),
        (("A", 1e6, 1), "up to 67,108,864 events at once"),
    ],
)
def test_arguments_out_of_bounds_are_refused_with_the_bounds(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        sim.market(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate_hz": 0}, "rate_hz is a number of"),
        ({"rate_hz": True}, "rate_hz is a number; got True"),
        ({"branching": 1.0}, "branching is a number of 0 to 0.95; got 1.0"),
        ({"burst_ns": 0}, "burst_ns"),
        ({"trade_share": 1.5}, "trade_share is a number of 0 to 1"),
        ({"move_share": -0.1}, "move_share"),
        ({"spread_ticks": 0.5}, "spread_ticks is a number of 1 to 1000"),
        ({"tick_size": 0}, "tick_size"),
        ({"tick_size": 1e-15 / 3}, "tick_size"),
        ({"tick_size": 1 / 3}, "tick_size has up to 15 decimals"),
        ({"lot_size": float("inf")}, "lot_size"),
        ({"quote_size": 0.0001}, "quote_size is 1 to 1,000,000,000 times lot_size"),
        ({"trade_size": 1e12}, "trade_size is 1 to"),
        ({"price": 0.001}, "a price is 1 to .* times tick_size"),
        ({"price": -5}, "price is a number of at least 0"),
        ({"price": 1e15}, "a price is 1 to"),
        ({"price": {"B": 1.0}}, "price names B, and has none for A"),
        ({"latency": 5}, "latency is a Latency"),
        ({"latency": sim.Latency(floor_ns=-1)}, "floor_ns"),
        ({"latency": sim.Latency(sigma=float("nan"))}, "sigma"),
        ({"start": 0}, "between 1970 and 2262"),
        ({"start": (1 << 63) - 1}, "between 1970 and 2262"),
    ],
)
def test_options_out_of_bounds_are_refused_with_the_bounds(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        sim.market("A", 1, 1, **options)


def test_a_start_without_a_zone_is_refused() -> None:
    with pytest.raises(TimeError, match="has no zone"):
        sim.market("A", 1, 1, start="2024-01-02T14:30:00")


def test_symbols_may_be_any_iterable_of_names() -> None:
    def names() -> Iterable[str]:
        yield from SYMBOLS

    assert sim.market(names(), 1, 1) == sim.market(tuple(SYMBOLS), 1, 1)


def test_importing_sim_loads_neither_pandas_nor_numba() -> None:
    code = "import sys, hftlab.sim; print(sorted({'pandas', 'numba', 'scipy', 'plotly'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


UNUSUAL: dict[str, Any] = {
    "start": 10**18,
    "rate_hz": 3_000.0,
    "branching": 0.9,
    "burst_ns": 1_000_000,
    "trade_share": 0.5,
    "price": 12.5,
    "tick_size": 0.25,
    "spread_ticks": 4.0,
    "move_share": 0.9,
    "lot_size": 5,
    "quote_size": 500,
    "trade_size": 60,
    "latency": sim.Latency(floor_ns=1_000, jitter_ns=5_000_000, sigma=1.7),
}
GOLDEN = "b1d4ea45fe78df4af3b0880c2e5b9a119942d2e2c3042b32c6f4c771353bcbe0"
GOLDEN_UNUSUAL = "ab0ad10c16f548448d0e3cc3e6e69c93b5a162f86ae443344646a70783195be5"
