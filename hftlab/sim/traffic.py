"""What a live feed sends: a batch's rows and made-up orders, fills and signals among them, as lines to be sent again.

A **line** is what goes over one connection. Orders and fills have one of their own: on a shared one, an order would
wait behind market data for which a full queue has no room.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np

from hftlab.errors import ValidationError
from hftlab.events import EventBatch, EventType, Flags, NumberRule, OrderType, Side, Source, SourceTable, SymbolTable
from hftlab.events.records import DTYPES, RECORD, Rows, blank
from hftlab.events.rowbytes import concat_rows, take_rows
from hftlab.sim.arguments import check_within
from hftlab.sim.draws import Bools, Ints, WordStream, chance
from hftlab.sim.market import VENUE
from hftlab.sim.messages import messages_of

_URGENT = (EventType.ORDER, EventType.FILL)
_KINDS, _DETAILS = range(2)


class Mix(msgspec.Struct, frozen=True):
    """Which parts of all that is sent are made-up orders, fills of them, and signals: at most half together.

    Raises ValidationError, also for more fills than orders.
    """

    orders: float = 0.0
    fills: float = 0.0
    signals: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            check_within(name, getattr(self, name), 0.0, 0.5)
        if self.total > 0.5:
            raise ValidationError(f"orders, fills and signals are at most half of all; got {self.total:g}")
        if self.fills > self.orders:
            raise ValidationError(
                f"fills are of the feed's own orders, so at most as many; got fills={self.fills:g} and "
                f"orders={self.orders:g}"
            )

    @property
    def total(self) -> float:
        """The part that all three are together."""
        return self.orders + self.fills + self.signals


class Line:
    """Rows over one connection, again and again. ``places``: where among all rows of a round each one stands.

    ``ranks`` is each row's number within its source, ``totals`` how many numbers a round has (by source id), and
    ``order_numbers`` which of the made-up orders of a round a row is about (0: none). ``urgent``: orders and fills.
    """

    def __init__(
        self,
        records: Rows,
        places: Ints,
        *,
        urgent: bool,
        ranks: Ints,
        totals: Ints,
        order_numbers: Ints,
        round_rows: int,
    ) -> None:
        self.records, self.places, self.urgent = records, places, urgent
        self._ranks, self._totals, self._order_numbers = ranks, totals, order_numbers
        self._orders = int(order_numbers.max(initial=0))
        self._round_rows = round_rows

    def count_below(self, total: int) -> int:
        """How many rows of this line are among the first ``total`` rows of all lines."""
        rounds, rest = divmod(total, self._round_rows)
        return rounds * len(self.records) + int(np.searchsorted(self.places, rest))

    def take(self, begin: int, end: int, prefix: str) -> tuple[Rows, Ints]:
        """A copy of rows from ``begin`` on, to ``end`` or the end of a round, numbered; and their places among all.

        Made-up orders are called ``prefix`` and their number. About 30 ns a row, and 1 µs an order.
        """
        rounds, first = divmod(begin, len(self.records))
        which = slice(first, min(first + end - begin, len(self.records)))
        rows = take_rows(self.records, np.arange(which.start, which.stop))
        rows["sequence"] = self._ranks[which] + rounds * self._totals[rows["source"]]
        made = np.flatnonzero(self._order_numbers[which])
        if len(made):
            numbers = self._order_numbers[which][made] + rounds * self._orders
            # Orders and fills have their id in the same place.
            ids = rows.view(DTYPES[EventType.ORDER])["order_id"]
            ids[made] = [f"{prefix}{number}".encode() for number in numbers.tolist()]
        return rows, self.places[which] + rounds * self._round_rows


class Traffic(NamedTuple):
    """The lines, the most urgent first; how many rows a round of all of them has; and what names their ids."""

    lines: list[Line]
    round_rows: int
    symbols: SymbolTable
    sources: SourceTable


def traffic_of(batch: EventBatch, mix: Mix, seed: int) -> Traffic:
    """Lines out of a batch, with orders, fills and signals drawn by ``seed`` among its rows.

    Every source is numbered from 1, PLUS_ONE; heartbeats and declared ends are left out. About 1 µs a row. Raises
    ValidationError for what is no batch, and for one without rows.
    """
    if not isinstance(batch, EventBatch):
        raise ValidationError(f"a live feed sends an EventBatch, such as hl.sim.market(…); got {batch!r:.100}")
    silent = (batch.records["flags"] & int(Flags.HEARTBEAT | Flags.END_OF_SESSION)) != 0
    records = take_rows(batch.records, np.flatnonzero(~silent))
    if not len(records):
        raise ValidationError("a live feed needs something to send; got a batch without events")
    symbols, sources = SymbolTable(batch.symbols), SourceTable()
    _rename(records, batch.sources, sources)
    extra, after, order_numbers = _made_up(records, mix, seed, symbols, sources)
    order = np.argsort(np.concatenate([2 * np.arange(len(records)), 2 * after + 1]), kind="stable")
    rows = take_rows(concat_rows([records, *extra], RECORD), order)
    order_numbers = np.concatenate([np.zeros(len(records), np.int64), order_numbers])[order]
    rows["epoch"] = rows["cause"] = rows["log_sequence"] = 0
    rows["flags"] &= int(Flags.LAST_PART | Flags.SNAPSHOT)
    ranks, totals = _ranks(rows, len(sources))
    rows["span"] = 1
    urgent = np.isin(rows["type"], _URGENT)
    lines = []
    for mask, is_urgent in ((urgent, True), (~urgent, False)):
        places = np.flatnonzero(mask)
        if len(places):
            part = take_rows(rows, places)
            types = np.unique(part["type"])
            part = part.view(DTYPES[EventType(int(types[0]))]) if len(types) == 1 else part
            lines.append(
                Line(
                    part,
                    places,
                    urgent=is_urgent,
                    ranks=ranks[places],
                    totals=totals,
                    order_numbers=order_numbers[places],
                    round_rows=len(rows),
                )
            )
    return Traffic(lines, len(rows), symbols, sources)


def _rename(records: Rows, old: SourceTable, sources: SourceTable) -> None:
    """Give all sources the rule by which they'll be numbered."""
    names = [Source(one.venue, one.channel, one.scope, NumberRule.PLUS_ONE.value) for one in old]
    used = np.bincount(records["source"], minlength=len(names)) > 0
    new_ids = [sources.intern(name) if used[index] else 0 for index, name in enumerate(names)]
    records["source"] = np.array(new_ids, np.uint16)[records["source"]]


def _ranks(rows: Rows, sources: int) -> tuple[Ints, Ints]:
    """Each row's number within its source, from 1; the rows of one message share it. And how many a source has."""
    messages = messages_of(rows)
    opens = np.flatnonzero(messages.opens)
    ordinals = np.arange(1, len(messages) + 1) - np.repeat(opens, np.diff(opens, append=len(messages)))
    ranks = np.empty(len(rows), np.int64)
    ranks[messages.rows] = np.repeat(ordinals, messages.count)
    return ranks, np.bincount(messages.source, minlength=sources).astype(np.int64)


def _made_up(
    records: Rows, mix: Mix, seed: int, symbols: SymbolTable, sources: SourceTable
) -> tuple[list[Rows], Ints, Ints]:
    """Orders, fills and signals; after which row of the batch each one comes; and which order it is about."""
    words = WordStream(seed, (_KINDS,)).take(len(records))
    # Each row of the batch is followed by at most one more: a part p of all is p / (1 - p) of the others.
    others = 1.0 - mix.total
    limits = np.cumsum([mix.orders, mix.fills, mix.signals]) / others
    below = [chance(words, min(limit, 1.0)) for limit in limits.tolist()]
    is_order, is_fill, is_signal = below[0], below[1] & ~below[0], below[2] & ~below[1]
    draws = WordStream(seed, (_DETAILS,)).take(len(records))
    market = records if records.dtype == DTYPES[EventType.MARKET_DATA] else _as_market(records)
    at = np.flatnonzero(is_order)
    orders = _orders(market, at, draws[at])
    filled, fill_at = _filled(is_order, is_fill)
    fills = blank(len(filled), EventType.FILL)
    fills["symbol"] = orders["symbol"][filled - 1]
    fills["executed_qty"], fills["executed_price"] = orders["quantity"][filled - 1], orders["price"][filled - 1]
    fills["commission"] = 0.0
    signal_at = np.flatnonzero(is_signal)
    signals = blank(len(signal_at), EventType.SIGNAL)
    signals["symbol"] = records["symbol"][signal_at]
    signals["strength"] = (draws[signal_at] >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0
    signals["signal_type"], signals["strategy_id"] = b"SIM", b"sim"
    for rows, channel in ((orders, "order"), (fills, "fill"), (signals, "signal")):
        rows["sequence"] = np.arange(len(rows))  # a message each
        names = [Source(VENUE, channel, symbol, NumberRule.PLUS_ONE.value) for symbol in symbols]
        for symbol in np.unique(rows["symbol"]).tolist():
            rows["source"][rows["symbol"] == symbol] = sources.intern(names[symbol])
    about = np.concatenate([np.arange(1, len(orders) + 1), filled, np.zeros(len(signals), np.int64)])
    return [orders, fills, signals], np.concatenate([at, fill_at, signal_at]), about


def _as_market(records: Rows) -> Rows:
    """Rows of several types as market data; what is none has no prices."""
    rows = blank(len(records), EventType.MARKET_DATA)
    rows["symbol"] = records["symbol"]
    market = np.flatnonzero(records["type"] == EventType.MARKET_DATA)
    found = take_rows(records, market).view(rows.dtype)
    for name in ("price", "bid", "ask"):
        rows[name][market] = found[name]
    return rows


def _orders(market: Rows, at: Ints, draws: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> Rows:
    """Limit orders at the other side's price, or at the trade's; market orders where there is none."""
    orders = blank(len(at), EventType.ORDER)
    buys: Bools = draws & np.uint64(1) == 1
    quoted = np.where(buys, market["ask"][at], market["bid"][at])
    orders["symbol"] = market["symbol"][at]
    orders["direction"] = np.where(buys, Side.BUY, Side.SELL)
    orders["price"] = np.where(np.isnan(quoted), market["price"][at], quoted)
    orders["order_type"] = np.where(np.isnan(orders["price"]), OrderType.MARKET, OrderType.LIMIT)
    orders["quantity"] = (1 + (draws >> np.uint64(1)) % np.uint64(10)).astype(np.float64) / 10
    return orders


def _filled(is_order: Bools, is_fill: Bools) -> tuple[Ints, Ints]:
    """Which order (from 1) each fill is of, and its place: the oldest that is open; none where none is."""
    places = np.flatnonzero(is_fill)
    ordered = np.cumsum(is_order)[places]
    index = np.arange(1, len(places) + 1)
    # No more fills than orders so far: where one would be too many, the count stays.
    count = index + np.minimum(np.minimum.accumulate(ordered - index), 0)
    taken = np.diff(count, prepend=0) > 0
    return count[taken], places[taken]
