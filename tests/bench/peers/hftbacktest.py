"""hftbacktest: its feed events in a compiled loop, with a handler of trades or of depth, and with none.

Its usual depth keeps levels in a hash map; the one for a range of interest, in an array.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hftbacktest import BacktestAsset, HashMapMarketDepthBacktest, ROIVectorMarketDepthBacktest
from hftbacktest.types import BUY_EVENT, DEPTH_EVENT, EXCH_EVENT, LOCAL_EVENT, SELL_EVENT, TRADE_EVENT, event_dtype
from numba import njit

from tests.bench.contenders import Contender
from tests.bench.peers import market

EVENTS = 1_000_000
FEED_DELAY_NS = 100
TICK = 0.1
LEVELS = 100

DEPTH = "a depth handler, bid * size summed"
NONE = "no handler"


def contenders(scale: float = 1.0) -> list[Contender]:
    events = max(100, int(EVENTS * scale))
    return [
        Contender("S3", "price * volume, summed", "hftbacktest", lambda: _handled(_trades(events), on_trades, hashed)),
        Contender("S3", DEPTH, "hftbacktest", lambda: _handled(_depth(events), on_depth, hashed)),
        Contender("S3", DEPTH, "hftbacktest, ROI vector", lambda: _handled(_depth(events), on_depth, in_range)),
        Contender("S3", NONE, "hftbacktest", lambda: _elapsed(_depth(events), hashed), "one elapse() over all depth"),
        Contender("S3", NONE, "hftbacktest, ROI vector", lambda: _elapsed(_depth(events), in_range)),
    ]  # fmt: skip


@njit
def on_trades(backtest, total):  # type: ignore[no-untyped-def]
    events = 0
    while backtest.wait_next_feed(False, 10_000_000_000) == 2:
        for trade in backtest.last_trades(0):
            total[0] += trade.px * trade.qty
        backtest.clear_last_trades(0)
        events += 1
    return events


@njit
def on_depth(backtest, total):  # type: ignore[no-untyped-def]
    events = 0
    while backtest.wait_next_feed(False, 10_000_000_000) == 2:
        depth = backtest.depth(0)
        if depth.best_bid_qty > 0:  # no bid yet: its price is not a number
            total[0] += depth.best_bid * depth.best_bid_qty
        events += 1
    return events


@njit
def elapse(backtest):  # type: ignore[no-untyped-def]
    return backtest.elapse(1_000_000_000_000_000)


def _rows(count: int) -> Any:
    rows = np.zeros(count, event_dtype)
    rows["exch_ts"] = market.times_ns(count)
    rows["local_ts"] = rows["exch_ts"] + FEED_DELAY_NS
    rows["qty"] = market.volumes(count)
    return rows


def _trades(count: int) -> Any:
    rows = _rows(count)
    rows["ev"] = TRADE_EVENT | BUY_EVENT | EXCH_EVENT | LOCAL_EVENT
    rows["px"] = market.prices(count)
    return rows


def _depth(count: int) -> Any:
    """Sizes that change on 100 levels each side, bids and asks by turns."""
    rows = _rows(count)
    index = np.arange(count)
    bid = index % 2 == 0
    level = index // 2 % LEVELS
    rows["ev"] = np.where(bid, BUY_EVENT, SELL_EVENT) | DEPTH_EVENT | EXCH_EVENT | LOCAL_EVENT
    rows["px"] = np.where(bid, 60_000 - level * TICK, 60_000 + (level + 1) * TICK)
    return rows


def _asset(rows: Any) -> Any:
    return (
        BacktestAsset()
        .data([rows])
        .linear_asset(1.0)
        .constant_order_latency(0, 0)
        .power_prob_queue_model(2.0)
        .no_partial_fill_exchange()
        .trading_value_fee_model(0.0, 0.0)
        .tick_size(TICK)
        .lot_size(0.001)
        .last_trades_capacity(100)
    )


def hashed(rows: Any) -> Any:
    return HashMapMarketDepthBacktest([_asset(rows)])


def in_range(rows: Any) -> Any:
    return ROIVectorMarketDepthBacktest([_asset(rows).roi_lb(59_000.0).roi_ub(61_000.0)])


def _handled(rows: Any, loop: Callable[[Any, Any], int], make: Callable[[Any], Any]) -> Callable[[], int]:
    backtest = make(rows)

    def run() -> int:
        total = np.zeros(2)
        events = loop(backtest, total)
        assert events >= len(rows) - 1, (events, len(rows))  # the last one ends the data instead of being announced
        assert total[0] > 0, total
        backtest.close()
        return int(events)

    return run


def _elapsed(rows: Any, make: Callable[[Any], Any]) -> Callable[[], int]:
    backtest = make(rows)

    def run() -> int:
        elapse(backtest)
        bid = backtest.depth(0).best_bid
        assert bid == 60_000, bid
        backtest.close()
        return len(rows)

    return run
