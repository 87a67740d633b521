"""nautilus_trader: its MessageBus publishing to a handler, and its BacktestEngine with a strategy of one handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.common.component import MessageBus, TestClock
from nautilus_trader.config import LoggingConfig
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.data import QuoteTick, TradeTick
from nautilus_trader.model.enums import AccountType, AggressorSide, OmsType
from nautilus_trader.model.identifiers import TradeId, TraderId, Venue
from nautilus_trader.model.objects import Money, Price, Quantity
from nautilus_trader.test_kit.providers import TestInstrumentProvider
from nautilus_trader.trading.strategy import Strategy

from tests.bench.contenders import Contender
from tests.bench.peers import market

PUBLISHED = 200_000
TICKS = 100_000
TOPIC = "data.trades.BINANCE.BTCUSDT"
READY = "ready objects, price * volume"
QUOTES = "ready objects, bid * size"


def contenders(scale: float = 1.0) -> list[Contender]:
    published, ticks = (max(2, int(count * scale)) for count in (PUBLISHED, TICKS))
    return [
        Contender("S1", READY, "nautilus MessageBus", lambda: _message_bus(published)),
        Contender("S1", READY, "nautilus BacktestEngine", lambda: _engine(_trades(ticks)), "trade ticks"),
        Contender("S1", QUOTES, "nautilus BacktestEngine", lambda: _engine(_quotes(ticks)), "quote ticks"),
    ]  # fmt: skip


def _message_bus(events: int) -> Callable[[], int]:
    ready = market.trades()
    rounds = -(-events // len(ready))
    bus = MessageBus(trader_id=TraderId("BENCH-001"), clock=TestClock())

    def notional(trade: market.Trade) -> None:
        trade.price * trade.volume

    bus.subscribe(TOPIC, notional)

    def run() -> int:
        for _ in range(rounds):
            for trade in ready:
                bus.publish(TOPIC, trade)
        return rounds * len(ready)

    return run


INSTRUMENT = TestInstrumentProvider.btcusdt_binance()


class Notional(Strategy):
    """One call a tick. As floats: its decimals are ten times slower to multiply."""

    def on_start(self) -> None:
        self.subscribe_trade_ticks(INSTRUMENT.id)
        self.subscribe_quote_ticks(INSTRUMENT.id)

    def on_trade_tick(self, tick: Any) -> None:
        tick.price.as_double() * tick.size.as_double()

    def on_quote_tick(self, tick: Any) -> None:
        tick.bid_price.as_double() * tick.bid_size.as_double()


def _rows(count: int) -> list[tuple[Any, Any, int]]:
    columns = (market.prices(count), market.volumes(count), market.times_ns(count))
    return [
        (Price(price, INSTRUMENT.price_precision), Quantity(volume, INSTRUMENT.size_precision), stamp)
        for price, volume, stamp in zip(*(column.tolist() for column in columns), strict=True)
    ]


def _trades(count: int) -> list[Any]:
    number, side = TradeId("1"), AggressorSide.BUYER
    return [TradeTick(INSTRUMENT.id, price, size, side, number, stamp, stamp) for price, size, stamp in _rows(count)]


def _quotes(count: int) -> list[Any]:
    return [QuoteTick(INSTRUMENT.id, price, price, size, size, stamp, stamp) for price, size, stamp in _rows(count)]


def _engine(ticks: list[Any]) -> Callable[[], int]:
    quiet = LoggingConfig(bypass_logging=True)
    engine = BacktestEngine(BacktestEngineConfig(logging=quiet, run_analysis=False))
    engine.add_venue(
        Venue("BINANCE"),
        oms_type=OmsType.NETTING,
        account_type=AccountType.MARGIN,
        base_currency=None,
        starting_balances=[Money(1_000_000, USDT)],
    )
    engine.add_instrument(INSTRUMENT)
    engine.add_strategy(Notional())
    engine.add_data(ticks)

    def run() -> int:
        engine.run()
        handled = int(engine.iteration)
        assert handled == len(ticks), (handled, len(ticks))
        engine.dispose()
        return handled

    return run
