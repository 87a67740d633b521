"""Best bid and ask, trades at them, and sizes, in whole ticks and lots: one symbol's market as arrays.

The spread in ticks is 1 + W, where W is a random walk that reflects at 0 and drifts towards it: a step widens the
spread with a smaller probability than one narrows it. So it reverts, and is geometrically distributed in the long run.
A reflected walk needs no loop: W = S - min(0, running minimum of S), with S the walk without the wall (Lindley's
recursion, D. V. Lindley, Proc. Camb. Phil. Soc. 48, 1952). The bid is kept at one tick or more by the same device.

Buyers and sellers take turns in long runs (a two-state Markov chain: trades' signs are known to persist, see Lillo and
Farmer, "The long memory of the efficient market", 2004). A trade mostly has the side that is at work, and the prices
move a little more often to its favour.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from hftlab.sim.draws import Bools, Ints, WordStream, chance, exponential

_TURN = 0.02
"""The chance at each event that the side at work changes: runs of 50 events."""
_WITH_THE_FLOW = 0.8
"""The chance that a trade has the side at work."""
_MOVE_WITH_THE_FLOW = 0.55
"""The chance that a change of the prices goes to the favour of the side at work."""


class Ladder(msgspec.Struct, frozen=True):
    """How one symbol is quoted; prices in ticks, sizes in lots.

    ``trade_share``: of all events, ``move_share``: of all quotes those that change a price (or would, were the spread
    not at its least), ``spread_ticks``: the spread's mean, ``size_lots`` and ``trade_lots``: mean sizes.
    """

    start_ticks: int
    trade_share: float
    move_share: float
    spread_ticks: float
    size_lots: float
    trade_lots: float


class Tape(NamedTuple):
    """A symbol's events in order: which are trades; per quote its prices and sizes; per trade its own."""

    is_trade: Bools
    bid: Ints
    ask: Ints
    bid_size: Ints
    ask_size: Ints
    trade_price: Ints
    trade_size: Ints
    trade_buys: Bools


def tape(words: WordStream, events: int, ladder: Ladder) -> Tape:
    """``events`` events, the first a quote. About 250 ns an event."""
    is_trade = chance(words.take(events), ladder.trade_share)
    is_trade[0] = False
    turns = chance(words.take(events), _TURN)
    buyers_at_work = (np.cumsum(turns) + int(words.take(1)[0] >> np.uint64(63))) % 2 == 0

    buying = buyers_at_work[~is_trade]
    bid, ask = _prices(words, buying, ladder)
    bid_size = _sizes(words, bid, ladder.size_lots)
    ask_size = _sizes(words, ask, ladder.size_lots)

    standing = (np.cumsum(~is_trade) - 1)[is_trade]
    with_the_flow = chance(words.take(len(standing)), _WITH_THE_FLOW)
    buys = with_the_flow == buyers_at_work[is_trade]
    there = np.where(buys, ask_size[standing], bid_size[standing])
    size = np.minimum(_lots(words, len(standing), ladder.trade_lots), there)
    return Tape(is_trade, bid, ask, bid_size, ask_size, np.where(buys, ask[standing], bid[standing]), size, buys)


def _prices(words: WordStream, buying: Bools, ladder: Ladder) -> tuple[Ints, Ints]:
    """Bid and ask in ticks after each quote."""
    count = len(buying)
    # In the long run P(W = k) falls by the ratio r of widening to narrowing: the mean spread is 1 + r / (1 - r).
    ratio = 1.0 - 1.0 / ladder.spread_ticks
    widening = ladder.move_share * ratio / (1.0 + ratio)
    drawn = words.take(count)
    widens = chance(drawn, widening)
    step = widens.astype(np.int64) - (chance(drawn, ladder.move_share) & ~widens)
    step[0] = 0
    walk = np.cumsum(step)
    beyond = walk - np.minimum(np.minimum.accumulate(walk), 0)
    change = np.diff(beyond, prepend=np.int64(0))

    up = chance(words.take(count), _MOVE_WITH_THE_FLOW) == buying
    # A wider spread is a bid gone down or an ask gone up, a narrower one a bid gone up or an ask gone down.
    bid_steps = ((change < 0) & up).astype(np.int64) - ((change > 0) & ~up)
    bid = ladder.start_ticks + np.cumsum(bid_steps)
    bid -= np.minimum(np.minimum.accumulate(bid - 1), 0)
    return bid, bid + 1 + beyond


def _sizes(words: WordStream, price: Ints, mean_lots: float) -> Ints:
    """One side's size after each quote: new where the price is new, and at every other quote besides."""
    count = len(price)
    fresh = chance(words.take(count), 0.5)
    fresh[1:] |= price[1:] != price[:-1]
    fresh[0] = True
    latest = np.maximum.accumulate(np.where(fresh, np.arange(count), 0))
    return _lots(words, count, mean_lots)[latest]


def _lots(words: WordStream, count: int, mean_lots: float) -> Ints:
    """Sizes of at least one lot, falling off exponentially."""
    # The whole part of an exponential number of mean m has a mean near m - 1/2.
    return 1 + (exponential(words.take(count)) * max(mean_lots - 0.5, 0.0)).astype(np.int64)
