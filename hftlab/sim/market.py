"""``market``: trades and quotes of made-up symbols, so that everything runs with no data at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from hftlab.events import ClockSource, EventBatch, EventType, Kind, NumberRule, Side, Source, SourceTable, SymbolTable
from hftlab.events.records import Rows, blank
from hftlab.sim.arguments import (
    SECOND_NS,
    Units,
    check_events,
    check_latency,
    check_names,
    check_period,
    check_seed,
    check_within,
)
from hftlab.sim.arrivals import burst_arrivals
from hftlab.sim.draws import Ints, WordStream
from hftlab.sim.latency import Latency, arrivals
from hftlab.sim.quoting import Ladder, Tape, tape

if TYPE_CHECKING:
    from hftlab.clock.times import Time

VENUE = "sim"
# What each of a symbol's streams of random words is for; a new purpose gets a new number, so that none changes.
_TIMES, _MARKET, _QUOTE_LATENCY, _TRADE_LATENCY = range(4)


def market(
    symbols: str | Iterable[str],
    seconds: float,
    seed: int,
    *,
    start: Time = "2024-01-02T14:30:00Z",
    rate_hz: float = 500.0,
    branching: float = 0.6,
    burst_ns: int = 20_000_000,
    trade_share: float = 0.2,
    price: float | Mapping[str, float] = 100.0,
    tick_size: float = 0.01,
    spread_ticks: float = 1.5,
    move_share: float = 0.3,
    lot_size: float = 0.001,
    quote_size: float = 1.0,
    trade_size: float = 0.1,
    latency: Latency | None = None,
) -> EventBatch:
    """``seconds`` of quotes and trades of every symbol, in order of arrival: about ``rate_hz`` a second and symbol.

    Arrivals come in bursts (``branching``: how many events each one triggers, 0 to 0.95; ``burst_ns``: how long after
    it on average; see ``arrivals``). The spread reverts to ``spread_ticks`` (at least 1), ``move_share`` of the quotes
    try to move a price, trades are ``trade_share`` of the events and happen at the bid or ask that stands (see
    ``quoting``). ``price`` is where a symbol starts, one for all or one for each. ``timestamp`` is the exchange's time;
    ``received`` comes a ``Latency`` later, in order within each source. Sources are ("sim", "quote" or "trade",
    symbol), numbered from 1, PLUS_ONE. The first event of a symbol is a quote at ``start``.

    The same arguments give the same bytes on every 64-bit machine and with every NumPy (see ``draws``). A symbol's rows
    depend on its name and the seed alone, not on what other symbols there are; ids and the places between other
    symbols' rows do.

    Raises ValidationError for arguments out of bounds, with the bounds. About 1 µs and 128 bytes an event.
    """
    names = check_names(symbols)
    check_seed(seed)
    tick, lot = Units.of("tick_size", tick_size), Units.of("lot_size", lot_size)
    start_ns, horizon_ns = check_period(start, seconds)
    model = Model(
        rate_hz=check_within("rate_hz", rate_hz, 1e-6, 1e9),
        branching=check_within("branching", branching, 0.0, 0.95),
        burst_ns=int(check_within("burst_ns", burst_ns, 1, 60 * SECOND_NS)),
        horizon_ns=horizon_ns,
        trade_share=check_within("trade_share", trade_share, 0.0, 1.0),
        move_share=check_within("move_share", move_share, 0.0, 1.0),
        spread_ticks=check_within("spread_ticks", spread_ticks, 1.0, 1000.0),
        size_lots=lot.steps("quote_size", quote_size),
        trade_lots=lot.steps("trade_size", trade_size),
        latency=check_latency(latency),
    )
    check_events(model.rate_hz, seconds, len(names))
    parts = [_symbol(seed, name, tick.start(price, name), model) for name in names]
    return EventBatch(*_rows(names, parts, start_ns, tick, lot))


class Model(msgspec.Struct, frozen=True):
    """All that symbols have in common, checked; as the arguments of ``market``, sizes in lots."""

    rate_hz: float
    branching: float
    burst_ns: int
    horizon_ns: int
    trade_share: float
    move_share: float
    spread_ticks: float
    size_lots: float
    trade_lots: float
    latency: Latency


class _Part(NamedTuple):
    """One symbol's events in the order of the exchange; times in ns since the start."""

    sent: Ints
    received: Ints
    sequence: Ints
    tape: Tape


def _symbol(seed: int, name: str, start_ticks: int, model: Model) -> _Part:
    key = tuple(name.encode())
    ladder = Ladder(
        start_ticks=start_ticks,
        trade_share=model.trade_share,
        move_share=model.move_share,
        spread_ticks=model.spread_ticks,
        size_lots=model.size_lots,
        trade_lots=model.trade_lots,
    )
    times = WordStream(seed, (*key, _TIMES))
    sent = burst_arrivals(times, model.rate_hz, model.branching, model.burst_ns, model.horizon_ns)
    sent = np.concatenate([np.zeros(1, np.int64), sent])
    events = tape(WordStream(seed, (*key, _MARKET)), len(sent), ladder)
    received = np.empty_like(sent)
    sequence = np.empty_like(sent)
    for which, purpose in ((~events.is_trade, _QUOTE_LATENCY), (events.is_trade, _TRADE_LATENCY)):
        received[which] = arrivals(WordStream(seed, (*key, purpose)), sent[which], model.latency)
        sequence[which] = np.arange(1, np.count_nonzero(which) + 1)
    return _Part(sent, received, sequence, events)


def _rows(
    names: list[str], parts: list[_Part], start_ns: int, tick: Units, lot: Units
) -> tuple[Rows, SymbolTable, SourceTable]:
    """All symbols' events as rows by arrival; what arrives at the same ns keeps the order of the symbols."""
    symbols, sources = SymbolTable(names), SourceTable()
    order = np.argsort(np.concatenate([part.received for part in parts]), kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    rows = blank(len(order), EventType.MARKET_DATA)
    rows["clock"] = ClockSource.APPLICATION
    end = 0
    for name, part in zip(names, parts, strict=True):
        begin, end = end, end + len(part.sent)
        at = place[begin:end]
        rows["timestamp"][at] = start_ns + part.sent
        rows["received"][at] = start_ns + part.received
        rows["sequence"][at] = part.sequence
        rows["symbol"][at] = symbols.intern(name)
        for channel in ("quote", "trade"):
            which = part.tape.is_trade if channel == "trade" else ~part.tape.is_trade
            source = Source(VENUE, channel, name, NumberRule.PLUS_ONE.value)
            rows["source"][at[which]] = sources.intern(source)
        _fill_market(rows, at, part.tape, tick, lot)
    return rows, symbols, sources


def _fill_market(rows: Rows, at: Ints, events: Tape, tick: Units, lot: Units) -> None:
    quotes, trades = at[~events.is_trade], at[events.is_trade]
    rows["kind"][quotes] = Kind.QUOTE
    rows["bid"][quotes] = tick.values(events.bid)
    rows["ask"][quotes] = tick.values(events.ask)
    rows["bid_size"][quotes] = lot.values(events.bid_size)
    rows["ask_size"][quotes] = lot.values(events.ask_size)
    rows["kind"][trades] = Kind.TRADE
    rows["price"][trades] = tick.values(events.trade_price)
    rows["volume"][trades] = lot.values(events.trade_size)
    rows["side"][trades] = np.where(events.trade_buys, Side.BUY, Side.SELL)
