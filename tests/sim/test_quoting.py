"""Prices and sizes against the same market, played one event at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.sim.draws import WordStream
from hftlab.sim.quoting import Ladder, Tape, tape

LADDER = Ladder(
    start_ticks=10_000, trade_share=0.2, move_share=0.3, spread_ticks=1.5, size_lots=1000.0, trade_lots=100.0
)

ladders = st.builds(
    Ladder,
    start_ticks=st.integers(1, 30),
    trade_share=st.floats(0, 1),
    move_share=st.floats(0, 1),
    spread_ticks=st.floats(1, 20),
    size_lots=st.floats(1, 50),
    trade_lots=st.floats(1, 50),
)


def make(events: int, ladder: Ladder, seed: int = 1) -> Tape:
    return tape(WordStream(seed, (1,)), events, ladder)


@given(ladder=ladders, events=st.integers(1, 300), seed=st.integers(0, 1000))
def test_every_event_follows_from_the_one_before(ladder: Ladder, events: int, seed: int) -> None:
    made = make(events, ladder, seed)
    assert len(made.is_trade) == events
    quotes, trades = 0, 0
    for is_trade in made.is_trade.tolist():
        if is_trade:
            standing = quotes - 1
            side = (made.ask, made.ask_size) if made.trade_buys[trades] else (made.bid, made.bid_size)
            assert made.trade_price[trades] == side[0][standing]
            assert 1 <= made.trade_size[trades] <= side[1][standing]
            trades += 1
            continue
        bid, ask = int(made.bid[quotes]), int(made.ask[quotes])
        assert 1 <= bid < ask
        if quotes:
            before_bid, before_ask = int(made.bid[quotes - 1]), int(made.ask[quotes - 1])
            moves = (abs(bid - before_bid), abs(ask - before_ask))
            # A quote moves one side by a tick; at the lowest price both sides are pushed up, or one of them by two.
            assert sum(moves) <= 1 or min(before_bid, bid) == 1
            assert abs((ask - bid) - (before_ask - before_bid)) <= 1
        else:
            assert (bid, ask) == (ladder.start_ticks, ladder.start_ticks + 1)
        assert made.bid_size[quotes] >= 1
        assert made.ask_size[quotes] >= 1
        quotes += 1
    assert (quotes, trades) == (len(made.bid), len(made.trade_price))


@pytest.mark.parametrize("spread_ticks", [1.0, 1.5, 3.0])
def test_the_spread_reverts_to_its_mean_and_is_geometrically_distributed(spread_ticks: float) -> None:
    made = make(500_000, Ladder(10_000, 0.2, 0.3, spread_ticks, 1000.0, 100.0))
    spread = made.ask - made.bid
    assert spread.mean() == pytest.approx(spread_ticks, rel=0.05)
    ratio = 1 - 1 / spread_ticks
    for ticks in (1, 2, 3):
        assert np.mean(spread == ticks) == pytest.approx((1 - ratio) * ratio ** (ticks - 1), abs=0.02)


def test_prices_wander_without_a_drift() -> None:
    ends = [int(make(20_000, LADDER, seed).bid[-1]) - LADDER.start_ticks for seed in range(60)]
    assert abs(np.mean(ends)) < 4 * np.std(ends) / np.sqrt(len(ends))
    assert np.std(ends) > 5


def test_shares_sizes_and_signs_are_as_asked_for() -> None:
    made = make(500_000, LADDER)
    assert made.is_trade.mean() == pytest.approx(0.2, abs=0.005)
    assert made.bid_size.mean() == pytest.approx(1000, rel=0.03)
    assert made.ask_size.mean() == pytest.approx(1000, rel=0.03)
    assert made.trade_size.mean() == pytest.approx(100 * 1000 / 1100, rel=0.03)  # the least of the two
    assert made.trade_buys.mean() == pytest.approx(0.5, abs=0.03)
    signs = np.where(made.trade_buys, 1, -1)
    assert np.mean(signs[1:] * signs[:-1]) > 0.2


def test_a_quote_that_moves_a_price_brings_a_new_size_there_and_others_keep_one_side() -> None:
    made = make(100_000, LADDER)
    same_bid = (made.bid[1:] == made.bid[:-1]) & (made.bid_size[1:] == made.bid_size[:-1])
    moved = made.bid[1:] != made.bid[:-1]
    assert np.mean(made.bid_size[1:][moved] == made.bid_size[:-1][moved]) < 0.01
    assert np.mean(same_bid) == pytest.approx(0.5 * np.mean(~moved), abs=0.02)
