"""The path of prices: bounded, even, and ending with the latest."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hftlab.events import EventBatch, Flags, Kind, MarketDataEvent, SignalEvent
from hftlab.events.records import RECORD
from hftlab.replay.trace import KEPT_POINTS, PriceTrace
from tests.replay.memory_log import START_NS, STEP_NS, trades


@given(count=st.integers(1, 30_000), cuts=st.lists(st.integers(1, 5_000), min_size=1, max_size=5))
def test_the_path_is_an_even_sample_whatever_the_cuts(count: int, cuts: list[int]) -> None:
    batch = trades(count)
    trace = PriceTrace(batch.symbols)
    at = turn = 0
    while at < count:
        trace.observe(batch.records[at : at + cuts[turn % len(cuts)]])
        at, turn = at + cuts[turn % len(cuts)], turn + 1
    times, prices = trace.points("BTCUSDT", most=10**9)
    assert len(prices) <= KEPT_POINTS + 1
    stride = 1
    while -(-count // stride) > KEPT_POINTS - 1 and stride < count:
        stride *= 2
    expected = list(range(0, count, stride)) if count >= KEPT_POINTS else list(range(count))
    assert prices[: len(expected)].tolist() == expected[: len(prices)]
    assert prices[-1] == count - 1
    assert times.tolist() == (START_NS + prices.astype(np.int64) * STEP_NS).tolist()


def test_symbols_have_paths_of_their_own() -> None:
    batch = trades(10, ("A", "B"))
    trace = PriceTrace(batch.symbols)
    trace.observe(batch.records)
    assert trace.symbols == ["A", "B"]
    assert trace.points("B")[1].tolist() == [1, 3, 5, 7, 9]
    assert not len(trace.points("C")[0])


def test_the_mid_stands_for_a_quote_and_levels_and_emitted_rows_do_not_count() -> None:
    batch = EventBatch.from_events([
        MarketDataEvent(symbol="A", kind=Kind.QUOTE, bid=10, ask=12, received=1),
        MarketDataEvent(symbol="A", kind=Kind.LEVEL, side=1, price=5, volume=1, received=2),  # type: ignore[arg-type]
        SignalEvent(symbol="A", signal_type="X", received=3),
        MarketDataEvent(symbol="A", kind=Kind.TRADE, price=13, volume=1, received=4),
    ])  # fmt: skip
    assert batch.records.dtype == RECORD
    rows = batch.records
    trace = PriceTrace(batch.symbols)
    trace.observe(rows)
    rows["flags"] |= np.uint16(Flags.EMITTED)
    trace.observe(rows)
    assert trace.points("A")[1].tolist() == [11, 13]


def test_fewer_points_than_asked_for_end_with_the_latest() -> None:
    batch = trades(1_000)
    trace = PriceTrace(batch.symbols)
    trace.observe(batch.records)
    times, prices = trace.points("BTCUSDT", most=100)
    assert len(prices) <= 100
    assert prices[-1] == 999
    assert (np.diff(times) > 0).all()
