"""streamz: a source and a sink, one emit() and one call an event."""

from __future__ import annotations

from collections.abc import Callable

from streamz import Stream

from tests.bench.contenders import Contender
from tests.bench.peers import market

EVENTS = 200_000


def contenders(scale: float = 1.0) -> list[Contender]:
    return [Contender("S1", "ready objects, price * volume", "streamz", lambda: _stream(int(EVENTS * scale)))]


def _stream(events: int) -> Callable[[], int]:
    ready = market.trades()
    rounds = -(-events // len(ready))
    source = Stream()

    def notional(trade: market.Trade) -> None:
        trade.price * trade.volume

    source.sink(notional)

    def run() -> int:
        for _ in range(rounds):
            for trade in ready:
                source.emit(trade)
        return rounds * len(ready)

    return run
