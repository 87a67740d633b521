"""Small batches of made-up events, the same for the same seed."""

from __future__ import annotations

import msgspec
import numpy as np

from hftlab.events import (
    Event,
    EventBatch,
    EventType,
    FillEvent,
    Kind,
    MarketDataEvent,
    OrderEvent,
    OrderType,
    Side,
    SignalEvent,
    Source,
    SourceTable,
    SymbolTable,
)
from hftlab.events.records import blank

START_NS = 1_723_161_255_000_000_000
STEP_NS = 250_000


def trades(
    count: int, *, seed: int = 0, start_ns: int = START_NS, symbols: tuple[str, ...] = ("BTCUSDT",)
) -> EventBatch:
    """``count`` trades, one every 250 µs, numbered from 1 on."""
    random = np.random.default_rng(seed)
    rows = blank(count, EventType.MARKET_DATA)
    rows["kind"] = Kind.TRADE
    rows["side"] = random.choice([-1, 1], count)
    rows["price"] = 60_000 + np.round(random.normal(size=count).cumsum(), 2)
    rows["volume"] = random.integers(1, 1_000, count) / 1_000
    rows["received"] = start_ns + np.arange(count) * STEP_NS
    rows["timestamp"] = rows["received"] - 1_000_000
    rows["sequence"] = np.arange(1, count + 1)
    rows["symbol"] = random.integers(0, len(symbols), count)
    rows["source"] = 1
    sources = SourceTable([Source("sim", "trade", f"seed-{seed}", "plus-one")])
    return EventBatch(rows, SymbolTable(symbols), sources)


def mixed(count: int, *, seed: int = 0, start_ns: int = START_NS) -> EventBatch:
    """``count`` events of all four types side by side."""
    random = np.random.default_rng(seed)
    events: list[MarketDataEvent | OrderEvent | FillEvent | SignalEvent] = []
    for index, choice in enumerate(random.choice(4, count, p=(0.7, 0.1, 0.1, 0.1))):
        symbol = ("BTCUSDT", "ETHUSDT", "SOL-Ünï")[int(random.integers(3))]
        received = start_ns + index * STEP_NS
        # Tells the events of one seed from those of another.
        timestamp = received - 1 - seed * 13
        number = float(np.round(random.normal(100, 5), 3))
        if choice == 0:
            events.append(
                MarketDataEvent(
                    symbol=symbol,
                    received=received,
                    timestamp=timestamp,
                    kind=Kind.QUOTE,
                    bid=number,
                    ask=number + 1,
                    source=Source("sim", "quote", symbol),
                    sequence=index,
                )
            )
        elif choice == 1:
            events.append(
                OrderEvent(
                    symbol=symbol,
                    received=received,
                    timestamp=timestamp,
                    order_id=f"o-{seed}-{index}",
                    direction=Side.BUY,
                    quantity=number,
                    order_type=OrderType.LIMIT,
                    price=number,
                )
            )
        elif choice == 2:
            events.append(
                FillEvent(
                    symbol=symbol,
                    received=received,
                    timestamp=timestamp,
                    order_id=f"o-{seed}-{index}",
                    executed_qty=1.0,
                    executed_price=number,
                )
            )
        else:
            events.append(
                SignalEvent(
                    symbol=symbol,
                    received=received,
                    timestamp=timestamp,
                    signal_type="WIDE",
                    strength=number,
                    strategy_id="s",
                )
            )
    return EventBatch.from_events(events)


def content(batch: EventBatch) -> list[Event]:
    """What a batch says, whatever session and log sequences its rows have, and whatever its tables hold besides."""
    return [msgspec.structs.replace(event, event_id=0) for event in batch]


def log_sequences(batch: EventBatch) -> list[int]:
    """The log sequences of a batch's rows."""
    found: list[int] = batch.records["log_sequence"].tolist()
    return found
