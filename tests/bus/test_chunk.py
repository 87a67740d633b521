"""A chunk left and taken up again: what is done, what time it is, and where it ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hftlab.bus.backlog import Part
from hftlab.bus.chunk import Chunk, Outcome
from hftlab.bus.coroutines import Coroutines
from hftlab.bus.failures import FailureLog
from hftlab.bus.routing import Routes
from hftlab.bus.signatures import make_subscription
from hftlab.bus.subscriptions import Subscription
from hftlab.events import EventType, SignalEvent, SourceTable, SymbolTable
from hftlab.events.records import RECORD, blank
from tests.bus.samples import START_NS, trades

MARKET, FILL = EventType.MARKET_DATA, EventType.FILL
SOON, LATE = 0, 1 << 62


class Bench:
    """A chunk of trades, and of fills between them where ``mixed``."""

    def __init__(self, *handlers: Subscription, rows: int = 100, mixed: bool = False) -> None:
        self.failures = FailureLog()
        parts = [Part(MARKET, trades(rows).records, None, 1)]
        count = rows
        if mixed:
            fills = blank(rows, FILL)
            fills["received"] = START_NS + np.arange(rows)
            parts = [
                Part(MARKET, trades(rows).records, np.arange(0, 2 * rows, 2), 1),
                Part(FILL, fills, np.arange(1, 2 * rows, 2), 1),
            ]
            count = 2 * rows
        routes = {
            event_type: Routes([one for one in handlers if event_type in one.types])
            for event_type in (MARKET, FILL)
            if any(event_type in one.types for one in handlers)
        }
        self.chunk = Chunk(parts, count, routes, SymbolTable(["BTC"]), SourceTable(), self.failures, Coroutines())


def on_market(handler: Any, name: str = "h") -> Subscription:
    return make_subscription(handler, "market", name=name)


def test_a_slice_that_is_over_at_once_still_makes_some_calls() -> None:
    seen: list[float] = []
    bench = Bench(on_market(lambda price: seen.append(price)))
    outcomes: list[Outcome] = []
    while not outcomes or outcomes[-1] is not Outcome.DONE:
        outcomes.append(bench.chunk.advance(1_000, SOON))
        assert bench.chunk.done == len(seen)
    # 32 calls first; how many then depends on how fast they were.
    assert outcomes[0] is Outcome.PAUSED
    assert set(outcomes[1:-1]) <= {Outcome.PAUSED}
    assert seen == list(range(100))


def test_a_budget_of_rows_is_kept_exactly() -> None:
    seen: list[float] = []
    bench = Bench(on_market(lambda price: seen.append(price)), mixed=True)
    for done in range(7, 200, 7):
        assert bench.chunk.advance(7, LATE) is Outcome.PAUSED
        assert bench.chunk.done == done
        assert len(seen) == (done + 1) // 2
    assert bench.chunk.advance(7, LATE) is Outcome.DONE


def test_rows_without_a_handler_are_done_with_no_call() -> None:
    bench = Bench(mixed=True)
    assert bench.chunk.advance(1_000, SOON) is Outcome.DONE
    assert bench.chunk.done == 200


def test_an_emission_stops_the_chunk_right_behind_its_row() -> None:
    def emits(price: float) -> SignalEvent | None:
        return SignalEvent(symbol="BTC", signal_type="s") if price == 3 else None

    seen: list[float] = []
    bench = Bench(on_market(emits), on_market(lambda price: seen.append(price), "beside"), mixed=True)
    assert bench.chunk.advance(1_000, LATE) is Outcome.EMITTED
    assert bench.chunk.done == 7  # not the fill behind it, though nobody wants that
    assert seen == [0, 1, 2, 3]
    assert bench.chunk.now_ns() == START_NS + 3
    ((position, _, result),) = bench.chunk.emitted
    assert (position, type(result)) == (6, SignalEvent)
    bench.chunk.emitted.clear()
    assert bench.chunk.advance(1_000, LATE) is Outcome.DONE
    assert seen == list(range(100))


def test_the_time_is_that_of_the_row_that_is_handled_and_never_falls() -> None:
    times: list[int] = []

    def note(price: float) -> None:
        times.append(bench.chunk.now_ns())

    bench = Bench(on_market(note), rows=40)
    arrivals = bench.chunk.parts[0].rows["received"]
    arrivals[10] = START_NS + 500
    assert bench.chunk.now_ns() == 0
    bench.chunk.advance(5, LATE)
    assert bench.chunk.now_ns() == START_NS + 4
    bench.chunk.advance(1_000, LATE)
    expected = [START_NS + row if row < 10 else START_NS + 500 for row in range(40)]
    assert times == expected


def test_rows_without_a_handler_move_the_time_on_too() -> None:
    bench = Bench(mixed=True)
    bench.chunk.advance(8, LATE)
    assert bench.chunk.now_ns() == START_NS + 3


@pytest.mark.parametrize("several", [False, True])
def test_it_can_be_ended_after_the_row_that_is_handled(several: bool) -> None:
    seen: list[Any] = []

    def handler(price: float) -> None:
        seen.append(price)
        if price == 5:
            bench.chunk.end_after_row()

    handlers = [on_market(handler)]
    if several:
        handlers.append(on_market(lambda event: seen.append(f"beside {event.price:.0f}"), "beside"))
    bench = Bench(*handlers, mixed=True)
    assert bench.chunk.advance(1_000, LATE) is Outcome.DONE
    assert seen[-1] == ("beside 5" if several else 5)
    assert (bench.chunk.done, bench.chunk.limit) == (11, 11)
    assert bench.failures.count == 0


def test_it_can_be_ended_between_two_slices() -> None:
    seen: list[float] = []
    bench = Bench(on_market(lambda price: seen.append(price)), mixed=True)
    bench.chunk.advance(6, LATE)
    bench.chunk.end_after_row()
    assert bench.chunk.limit == 6
    assert bench.chunk.advance(1_000, LATE) is Outcome.DONE
    assert seen == [0, 1, 2]


def test_an_interrupt_loses_nothing_and_repeats_nothing() -> None:
    seen: list[float] = []

    def interrupted(price: float) -> None:
        seen.append(price)
        if price in (3, 50):
            raise KeyboardInterrupt

    bench = Bench(on_market(interrupted), on_market(lambda event: None, "beside"))
    for done in (3, 50):
        with pytest.raises(KeyboardInterrupt):
            bench.chunk.advance(1_000, LATE)
        assert bench.chunk.done == done  # its row has another handler to see
    assert bench.chunk.advance(1_000, LATE) is Outcome.DONE
    assert seen == list(range(100))


def test_calls_are_counted_whenever_asked_and_once() -> None:
    one, two = on_market(lambda price: None, "one"), on_market(lambda event: None, "two")
    bench = Bench(one, two)
    for made in (10, 25, 25):
        bench.chunk.advance(made - bench.chunk.done, LATE) if made > bench.chunk.done else None
        bench.chunk.count_calls()
        assert (one.calls, one.delivered, two.calls) == (made, made, made)


def test_rows_are_shown_in_total_order_as_one_piece() -> None:
    bench = Bench(mixed=True, rows=5)
    rows = bench.chunk.rows_between(3, 7)
    assert rows.dtype == RECORD
    assert rows["type"].tolist() == [FILL, MARKET, FILL, MARKET]
    assert rows["received"].tolist() == [START_NS + 1, START_NS + 2, START_NS + 2, START_NS + 3]
    assert dict(bench.chunk.counts_between(3, 7)) == {MARKET: 2, FILL: 2}
    plain = Bench(rows=5)
    assert np.shares_memory(plain.chunk.rows_between(1, 3), plain.chunk.parts[0].rows)
    assert plain.chunk.counts_between(1, 3) == [(MARKET, 2)]


def test_where_a_type_has_had_so_many_rows_more() -> None:
    bench = Bench(mixed=True, rows=10)
    market, fills = bench.chunk.parts
    assert bench.chunk.position_after(market, 1) == 1
    assert bench.chunk.position_after(fills, 1) == 2
    bench.chunk.advance(5, LATE)
    assert bench.chunk.position_after(market, 1) == 7
    assert bench.chunk.position_after(fills, 8) == 20
    assert bench.chunk.position_after(fills, 9) == 20
    assert Bench(rows=10).chunk.position_after(Bench(rows=10).chunk.parts[0], 4) == 4
