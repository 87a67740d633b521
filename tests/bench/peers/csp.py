"""csp: its push adapter, its curves (in simulated time), arrays a tick, and its nodes in C++.

A graph is built inside the run, as csp.run() does it; that takes about a millisecond. The values of a curve are arrays:
over a list of Structs csp takes a slow path. Annotations are not postponed here, since csp reads them as types when a
Struct or a node is defined.
"""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import csp
import numpy as np
from csp import ts
from csp.impl.pushadapter import PushInputAdapter
from csp.impl.wiring import py_push_adapter_def
from csp.typing import Numpy1DArray

from tests.bench.contenders import Contender
from tests.bench.peers import market

EVENTS = 1_000_000
PUSHED = 200_000
ARRAY = 1_000
ARRAYS = 10_000

READY = "ready objects, price * volume"
START = datetime.fromtimestamp(market.FIRST_NS // 1_000_000_000, UTC).replace(tzinfo=None)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


class Trade(csp.Struct):
    price: float
    volume: float


def contenders(scale: float = 1.0) -> list[Contender]:
    events, pushed, arrays = (max(2, int(count * scale)) for count in (EVENTS, PUSHED, ARRAYS))
    mode = csp.PushMode
    return [
        Contender("S1", READY, "csp, push adapter", lambda: _pushed(pushed, mode.NON_COLLAPSING, notional_pushed)),
        Contender("S1", READY, "csp, push adapter, bursts", lambda: _pushed(pushed, mode.BURST, notional_bursts)),
        Contender("S1", READY, "csp, curve of Structs", lambda: _structs(events)),
        Contender("S1", "two floats, price * volume", "csp, two curves", lambda: _floats(events)),
        Contender("S2", "arrays of 1,000, price * volume", "csp, an array a tick", lambda: _arrays(arrays)),
        Contender("S3", "price * volume, summed", "csp, C++ nodes", lambda: _in_cpp(events), "multiply, accum"),
    ]  # fmt: skip


@csp.node
def notional_struct(trade: ts[Trade]):  # type: ignore[no-untyped-def]
    if csp.ticked(trade):
        trade.price * trade.volume


@csp.node
def notional_floats(price: ts[float], volume: ts[float]):  # type: ignore[no-untyped-def]
    if csp.ticked(price, volume):
        price * volume


@csp.node
def notional_arrays(price: ts[Numpy1DArray[float]], volume: ts[Numpy1DArray[float]]):  # type: ignore[no-untyped-def]
    if csp.ticked(price, volume):
        price * volume


@csp.node
def notional_pushed(trade: ts[Trade], last: int):  # type: ignore[no-untyped-def]
    with csp.state():
        s_seen = 0
    if csp.ticked(trade):
        trade.price * trade.volume
        s_seen += 1  # a live graph ends when it is told: the count costs 20 of some 1,500 ns
        if s_seen == last:
            csp.stop_engine()


def notional(trade: Trade) -> None:
    trade.price * trade.volume


@csp.node
def notional_bursts(trades: ts[list[Trade]], last: int):  # type: ignore[no-untyped-def]
    with csp.state():
        s_seen = 0
    if csp.ticked(trades):
        for trade in trades:
            notional(trade)
        s_seen += len(trades)
        if s_seen == last:
            csp.stop_engine()


class Pusher(PushInputAdapter):
    """Pushes all events from a thread, as a feed's thread would."""

    def __init__(self, events: Sequence[Trade]) -> None:
        self._events = events
        self._thread = threading.Thread(target=self._push)

    def start(self, starttime: datetime, endtime: datetime) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._thread.join()

    def _push(self) -> None:
        for event in self._events:
            self.push_tick(event)


pushed_trades = py_push_adapter_def("pushed_trades", Pusher, ts[Trade], events=list)


def _simulated(graph: Callable[[], Any], events: int) -> Callable[[], int]:
    def run() -> int:
        csp.run(graph, starttime=START, endtime=DAY)
        return events

    return run


def _trades(count: int) -> list[Trade]:
    columns = zip(market.prices(count).tolist(), market.volumes(count).tolist(), strict=True)
    return [Trade(price=price, volume=volume) for price, volume in columns]


def _times(count: int) -> Any:
    return market.times_ns(count).astype("datetime64[ns]")


def _structs(events: int) -> Callable[[], int]:
    values = np.empty(events, object)
    values[:] = _trades(events)
    times = _times(events)
    return _simulated(lambda: notional_struct(csp.curve(Trade, (times, values))), events)


def _floats(events: int) -> Callable[[], int]:
    times, prices, volumes = _times(events), market.prices(events), market.volumes(events)
    return _simulated(
        lambda: notional_floats(csp.curve(float, (times, prices)), csp.curve(float, (times, volumes))), events
    )


def _arrays(arrays: int) -> Callable[[], int]:
    times = _times(arrays)
    prices, volumes = np.empty(arrays, object), np.empty(arrays, object)
    prices[:] = [market.prices(ARRAY)] * arrays  # one array that stays in the cache, as our rows do
    volumes[:] = [market.volumes(ARRAY)] * arrays
    kind = Numpy1DArray[float]
    return _simulated(
        lambda: notional_arrays(csp.curve(kind, (times, prices)), csp.curve(kind, (times, volumes))), arrays * ARRAY
    )


def _in_cpp(events: int) -> Callable[[], int]:
    times, prices, volumes = _times(events), market.prices(events), market.volumes(events)
    total = float((prices * volumes).sum())

    def graph() -> None:
        product = csp.multiply(csp.curve(float, (times, prices)), csp.curve(float, (times, volumes)))
        csp.add_graph_output("total", csp.accum(product), tick_count=1)

    def run() -> int:
        ((_, summed),) = csp.run(graph, starttime=START, endtime=DAY)["total"]
        assert abs(summed - total) < 1e-6 * total, (summed, total)
        return events

    return run


def _pushed(events: int, mode: Any, node: Callable[[Any, int], Any]) -> Callable[[], int]:
    trades = _trades(events)

    def run() -> int:
        csp.run(lambda: node(pushed_trades(trades, push_mode=mode), events), endtime=MINUTE, realtime=True)
        return events

    return run
