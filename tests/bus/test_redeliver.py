"""What one handler is given once more: by itself, with all that a call is, and outside of the books."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hftlab.bus import EventBus
from hftlab.bus.redelivery import MOST_WAITING
from hftlab.bus.run import Run
from hftlab.clock import VirtualClock
from hftlab.errors import BreakerOpen, BusBusy, BusClosed, BusError, BusFull, CascadeError, ValidationError
from hftlab.events import Event, EventBatch, EventType, MarketDataEvent, SignalEvent
from hftlab.events.records import event_id
from hftlab.flow import BreakerSettings
from hftlab.sequence import Gap
from tests.bus.samples import START_NS, pumped, trades, until, work_off


class Ends:
    """A ``done=`` that keeps what it was told."""

    def __init__(self) -> None:
        self.all: list[BaseException | None] = []

    def __call__(self, error: BaseException | None) -> None:
        self.all.append(error)

    @property
    def one(self) -> BaseException | None:
        """What it was told, once."""
        assert len(self.all) == 1
        return self.all[0]


@pytest.fixture
def bus() -> EventBus:
    return EventBus(capacity=2_048)


@pytest.fixture
def ends() -> Ends:
    return Ends()


def tick(price: float = 7.0) -> MarketDataEvent:
    return MarketDataEvent(symbol="BTC", price=price, timestamp=START_NS, received=START_NS)


def books(bus: EventBus) -> tuple[int, int, int, int]:
    """Published, handled, dead-lettered, retried; the first is always the sum of its parts."""
    counts = bus.statistics()
    assert counts.published == counts.handled + counts.dead_lettered + counts.waiting + counts.dropped
    return counts.published, counts.handled, counts.dead_lettered, counts.retried


def work_run(run: Run) -> None:
    while not run.work(1 << 62, 1 << 62).idle:
        pass


# -- each kind of handler ---------------------------------------------------------------------------------------------


def test_an_event_goes_to_the_one_handler_that_is_named(bus: EventBus, ends: Ends) -> None:
    seen: list[tuple[str, Event]] = []
    bus.subscribe(lambda event: seen.append(("one", event)), "market", name="one")
    bus.subscribe(lambda event: seen.append(("other", event)), "market", name="other")
    event = tick()
    bus.redeliver("one", event, ends)
    assert seen == []
    work_off(bus)
    assert seen == [("one", event)]
    assert ends.one is None
    assert books(bus) == (0, 0, 0, 1)


def test_a_field_handler_is_given_a_batch_row_by_row(bus: EventBus, ends: Ends) -> None:
    seen: list[tuple[float, int]] = []
    bus.subscribe(lambda price, log_sequence: seen.append((price, log_sequence)), "market", name="fields")
    bus.redeliver("fields", trades(3, first=5, session_number=2), ends)
    work_off(bus)
    assert seen == [(5.0, 5), (6.0, 6), (7.0, 7)]
    assert ends.one is None
    assert books(bus) == (0, 0, 0, 3)


def test_an_event_handler_is_given_a_batch_of_several_types_row_by_row_with_its_ids(bus: EventBus) -> None:
    seen: list[Event] = []
    bus.subscribe(seen.append, name="all")
    signal = SignalEvent(symbol="ETH", signal_type="s", event_id=event_id(9, 3), timestamp=START_NS, received=START_NS)
    events = [*trades(3, session_number=9), signal]
    bus.redeliver("all", EventBatch.from_events(events))
    work_off(bus)
    assert seen == events
    assert [event.event_id for event in seen] == [event_id(9, number) for number in range(4)]


def test_a_batch_handler_is_given_one_batch_at_once_whatever_its_window_holds(bus: EventBus, ends: Ends) -> None:
    seen: list[list[float]] = []
    bus.subscribe(lambda batch: seen.append(batch.column("price")), "market", mode="batch", batch_rows=4, name="batch")
    run = bus.begin_run("a run", VirtualClock(START_NS))
    run.offer(trades(2))
    work_run(run)
    run.redeliver("batch", trades(3, first=10), ends)
    work_run(run)
    assert seen == [[10.0, 11.0, 12.0]]
    run.offer(trades(2, first=2))
    work_run(run)
    assert seen[1:] == [[0.0, 1.0, 2.0, 3.0]]
    assert ends.one is None
    assert books(bus) == (4, 4, 0, 3)


def test_a_batch_handler_never_gets_more_than_its_batch_rows_nor_two_types(bus: EventBus, ends: Ends) -> None:
    seen: list[tuple[EventType | None, int]] = []
    bus.subscribe(lambda batch: seen.append((batch.type, len(batch))), mode="batch", batch_rows=3, name="batch")
    events = [tick()] * 5 + [SignalEvent(symbol="BTC", signal_type="s", timestamp=START_NS, received=START_NS)] * 2
    bus.redeliver("batch", EventBatch.from_events(events), ends)
    work_off(bus)
    assert seen == [(EventType.MARKET_DATA, 3), (EventType.MARKET_DATA, 2), (EventType.SIGNAL, 2)]
    assert ends.one is None


def test_a_batch_handler_is_given_an_event_as_a_batch_of_one(bus: EventBus) -> None:
    seen: list[Event] = []
    bus.subscribe(lambda batch: seen.extend(batch), "market", mode="batch", name="batch")
    event = trades(1, first=3, symbols=("ETH", "BTC"), session_number=4)[0]
    bus.redeliver("batch", event)
    work_off(bus)
    assert seen == [event]
    assert seen[0].event_id == event.event_id


@pytest.mark.parametrize("given", [trades(3), tick(3.0)], ids=["batch", "event"])
def test_a_jit_handler_is_given_what_it_is_given(bus: EventBus, ends: Ends, given: Event | EventBatch) -> None:
    total = np.zeros(1)

    def adds(record: Any, state: Any) -> None:
        state[0] += record.price

    bus.subscribe(adds, "market", mode="jit", state=total, name="adds")
    bus.redeliver("adds", given, ends)
    work_off(bus)
    assert total[0] == 3.0
    assert ends.one is None


async def test_an_async_handler_of_a_run_is_awaited_in_line(bus: EventBus, ends: Ends) -> None:
    seen: list[float] = []

    async def waits(event: MarketDataEvent) -> None:
        await asyncio.sleep(0)
        seen.append(event.price)

    bus.subscribe(waits, "market", name="waits")
    run = bus.begin_run("a run", VirtualClock(START_NS))
    run.redeliver("waits", trades(2), ends)
    for number in range(2):
        work = run.work(1 << 62, 1 << 62)
        assert (work.awaiting, work.idle, len(seen), ends.all) == (True, False, number, [])
        await run.settle()
    work_run(run)
    assert seen == [0.0, 1.0]
    assert ends.one is None


async def test_a_live_async_handlers_end_is_told_when_its_queue_came_to_it(bus: EventBus, ends: Ends) -> None:
    gate = asyncio.Event()
    seen: list[float] = []

    async def waits(event: MarketDataEvent) -> SignalEvent:
        await gate.wait()
        seen.append(event.price)
        return SignalEvent(symbol="BTC", signal_type="late")

    signals: list[str] = []
    bus.subscribe(waits, "market", name="waits")
    bus.subscribe(lambda event: signals.append(event.signal_type), "signal", name="signals")

    def done(error: BaseException | None) -> None:
        assert len(seen) == 3
        ends(error)

    async with pumped(bus):
        bus.redeliver("waits", trades(3), done)
        await until(lambda: bus.statistics().retried == 3)
        assert (seen, ends.all) == ([], [])
        gate.set()
        await bus.drain()
    assert seen == [0.0, 1.0, 2.0]
    assert signals == ["late"] * 3
    assert ends.one is None


async def test_a_live_async_handler_that_fails_late_is_told_of_and_dead_lettered(bus: EventBus, ends: Ends) -> None:
    async def fails(batch: EventBatch) -> None:
        await asyncio.sleep(0)
        raise KeyError("late")

    bus.subscribe(fails, "market", mode="batch", name="fails")
    async with pumped(bus):
        bus.redeliver("fails", trades(3), ends)
        await until(lambda: bool(ends.all))
    assert isinstance(ends.one, KeyError)
    assert [(letter.handler, letter.events) for letter in bus.dead_letters] == [("fails", 3)]
    assert books(bus) == (0, 0, 0, 3)


# -- as every call ----------------------------------------------------------------------------------------------------


def test_neither_symbol_nor_where_is_asked_again(bus: EventBus, ends: Ends) -> None:
    seen: list[Any] = []
    wants: dict[str, Any] = {"symbol": "ETH", "where": lambda records: records["price"] > 1e9}
    bus.subscribe(seen.append, MarketDataEvent, name="event", **wants)
    bus.subscribe(lambda batch: seen.append(len(batch)), MarketDataEvent, mode="batch", name="batch", **wants)
    bus.redeliver("event", tick(), ends)
    bus.redeliver("batch", trades(2), ends)
    work_off(bus)
    assert seen == [tick(), 2]
    assert ends.all == [None, None]


def test_what_it_emits_goes_before_the_next_redelivery_and_the_next_published_event(bus: EventBus) -> None:
    order: list[str] = []

    def emits(event: MarketDataEvent) -> SignalEvent:
        order.append(f"emits {event.price:.0f}")
        return SignalEvent(symbol="BTC", signal_type=f"of {event.price:.0f}")

    bus.subscribe(emits, "market", name="emits")
    bus.subscribe(lambda event: order.append(event.signal_type), "signal", name="signals")
    run = bus.begin_run("a run", VirtualClock(START_NS))
    run.offer(trades(2))
    run.redeliver("emits", trades(2, first=10))
    work_run(run)
    assert order == ["emits 10", "of 10", "emits 11", "of 11", "emits 0", "of 0", "emits 1", "of 1"]
    assert (run.handled, run.emitted) == (2, 4)


def test_it_goes_behind_the_event_that_is_at_work_however_long_its_chunk_is(bus: EventBus) -> None:
    order: list[float] = []
    bus.subscribe(lambda price: order.append(price), "market", name="prices")
    run = bus.begin_run("a run", VirtualClock(START_NS))
    run.offer(trades(5))
    run.work(2, 1 << 62)
    run.redeliver("prices", tick(50.0))
    run.work(1, 1 << 62)
    work_run(run)
    assert order == [0.0, 1.0, 50.0, 2.0, 3.0, 4.0]


def test_no_observer_and_no_other_handler_sees_it(bus: EventBus) -> None:
    rows: list[int] = []
    batches: list[int] = []
    bus.subscribe(lambda event: None, "market", name="one")
    bus.subscribe(lambda batch: batches.append(len(batch)), "market", mode="batch", name="batches")
    run = bus.begin_run("a run", VirtualClock(START_NS), observer=lambda seen: rows.append(len(seen)))
    run.redeliver("one", trades(3))
    run.finish()
    work_run(run)
    assert (rows, batches, run.handled) == ([], [], 0)


def test_attempts_count_and_a_failure_becomes_a_dead_letter_again(bus: EventBus, ends: Ends) -> None:
    calls: list[float] = []

    def fails(event: MarketDataEvent) -> None:
        calls.append(event.price)
        raise KeyError(event.price)

    subscription = bus.subscribe(fails, "market", name="fails", attempts=3)
    ported: list[Any] = []
    bus.dead_letters.port = Port(ported.append)
    bus.redeliver("fails", trades(2), ends)
    work_off(bus)
    assert calls == [0.0] * 3 + [1.0] * 3
    assert isinstance(ends.one, KeyError)
    assert ends.one.args == (0.0,), "the first error is told"
    assert [(one.handler, one.attempts, one.event.price) for one in ported] == [("fails", 3, 0.0), ("fails", 3, 1.0)]
    assert (subscription.failed, subscription.dead_lettered, bus.dead_letters.count) == (2, 2, 2)
    assert books(bus) == (0, 0, 0, 2)


class Port:
    """A dead-letter port of one function."""

    def __init__(self, put: Callable[[Any], None]) -> None:
        self.put = put


def test_an_attempt_that_goes_well_is_a_success(bus: EventBus, ends: Ends) -> None:
    calls: list[int] = []

    def fails_once(event: MarketDataEvent) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise KeyError

    bus.subscribe(fails_once, "market", name="once", attempts=2)
    bus.redeliver("once", tick(), ends)
    work_off(bus)
    assert (len(calls), ends.one) == (2, None)


def test_a_jit_handler_that_fails_on_some_rows_loses_those(bus: EventBus, ends: Ends) -> None:
    total = np.zeros(1)

    def fails(record: Any, state: Any) -> None:
        if record.price == 1.0:
            raise ValueError("no")
        state[0] += 1.0

    bus.subscribe(fails, "market", mode="jit", state=total, name="fails")
    bus.redeliver("fails", trades(3), ends)
    work_off(bus)
    assert total[0] == 2.0
    assert isinstance(ends.one, ValueError)
    assert [EventBatch.from_events(letter).column("price") for letter in bus.dead_letters] == [[1.0]]


def test_what_a_circuit_breaker_keeps_back_failed(bus: EventBus, ends: Ends) -> None:
    def fails(event: MarketDataEvent) -> None:
        raise KeyError

    settings = BreakerSettings(minimum_number_of_calls=1, sliding_window_size=1)
    bus.subscribe(fails, "market", name="fails", breaker=settings)
    bus.redeliver("fails", tick(), ends)
    bus.redeliver("fails", tick(), ends)
    work_off(bus)
    assert [type(error) for error in ends.all] == [KeyError, BreakerOpen]
    assert [letter.attempts for letter in bus.dead_letters] == [1, 0]


def test_emissions_that_are_none_are_a_failure(bus: EventBus, ends: Ends) -> None:
    bus.subscribe(lambda event: 17, "market", name="numbers")
    bus.redeliver("numbers", tick(), ends)
    work_off(bus)
    assert isinstance(ends.one, ValidationError)
    assert bus.dead_letters.count == 1


def test_each_redelivery_may_lead_to_as_much_as_a_published_event(bus: EventBus, ends: Ends) -> None:
    signal = SignalEvent(symbol="BTC", signal_type="s")
    bus.subscribe(lambda event: [signal] * 900, "market", name="many")
    for _ in range(3):
        bus.redeliver("many", tick(), ends)
    work_off(bus)
    assert not any(isinstance(error, CascadeError) for error in ends.all)
    assert bus.statistics().emitted == 2_700


# -- whoever it is for ------------------------------------------------------------------------------------------------


def test_a_name_that_nobody_has_is_refused_with_those_that_there_are(bus: EventBus) -> None:
    bus.subscribe(print, "market", name="totals")
    with pytest.raises(ValidationError, match=r"got 'total', and there are: totals\. Run the handler's cell"):
        bus.redeliver("total", tick())


def test_what_a_handler_does_not_take_is_refused(bus: EventBus) -> None:
    bus.subscribe(print, "signal", name="signals")
    bus.subscribe(lambda gap: None, Gap, name="gaps")
    with pytest.raises(ValidationError, match="signals takes events of the types signal; got market"):
        bus.redeliver("signals", tick())
    with pytest.raises(ValidationError, match="gaps takes Gap, not events"):
        bus.redeliver("gaps", tick())
    with pytest.raises(ValidationError, match="redeliver takes an event, or an EventBatch; got 5"):
        bus.redeliver("signals", 5)  # type: ignore[arg-type]


def test_a_handler_that_is_cancelled_meanwhile_fails_it(bus: EventBus, ends: Ends) -> None:
    bus.subscribe(lambda event: bus.cancel("once"), "market", name="once")
    bus.redeliver("once", trades(3), ends)
    work_off(bus)
    assert isinstance(ends.one, BusError)
    assert "once was cancelled with 2 of 3 events not redelivered" in str(ends.one)
    assert [(letter.handler, letter.events, letter.attempts) for letter in bus.dead_letters] == [("once", 2, 0)]
    assert books(bus) == (0, 0, 0, 1)


def test_what_is_left_when_its_handler_is_gone_becomes_a_dead_letter(bus: EventBus) -> None:
    bus.subscribe(print, "market", name="one")
    bus.redeliver("one", trades(3))
    bus.redeliver("one", tick())
    bus.cancel("one")
    work_off(bus)
    assert [(letter.handler, letter.events, letter.attempts) for letter in bus.dead_letters] == [
        ("one", 3, 0),
        ("one", 1, 0),
    ]


def test_a_handler_that_took_the_place_of_the_other_gets_it(bus: EventBus, ends: Ends) -> None:
    seen: list[Any] = []
    bus.subscribe(lambda event: seen.append("old"), "market", name="one")
    bus.redeliver("one", trades(3), ends)
    bus.subscribe(lambda batch: seen.append(len(batch)), "market", mode="batch", name="one")
    work_off(bus)
    assert (seen, ends.one) == ([3], None)


def test_a_handler_that_takes_other_types_now_fails_it(bus: EventBus, ends: Ends) -> None:
    bus.subscribe(print, "market", name="one")
    bus.redeliver("one", tick(), ends)
    bus.subscribe(print, "signal", name="one")
    work_off(bus)
    assert isinstance(ends.one, ValidationError)


def test_a_handler_may_ask_for_it_itself(bus: EventBus, ends: Ends) -> None:
    seen: list[float] = []

    def again(event: MarketDataEvent) -> None:
        seen.append(event.price)
        if event.price == 0.0:
            bus.redeliver("again", tick(99.0), ends)

    bus.subscribe(again, "market", name="again")
    bus.offer(trades(3))
    work_off(bus)
    assert seen == [0.0, 99.0, 1.0, 2.0]
    assert books(bus) == (3, 3, 0, 1)


def test_what_it_is_told_may_ask_for_the_next(bus: EventBus) -> None:
    left = [3]

    def done(error: BaseException | None) -> None:
        left[0] -= 1
        if left[0]:
            bus.redeliver("one", tick(), done)

    bus.subscribe(lambda event: None, "market", name="one")
    bus.redeliver("one", tick(), done)
    work_off(bus)
    assert (left, bus.statistics().retried) == ([0], 3)


def test_a_done_that_raises_harms_nobody_else(bus: EventBus, ends: Ends) -> None:
    def done(error: BaseException | None) -> None:
        raise KeyError("mine")

    bus.subscribe(lambda event: None, "market", name="one")
    bus.redeliver("one", tick(), done)
    bus.redeliver("one", tick(), ends)
    work_off(bus)
    assert ends.one is None
    assert [failure.handler for failure in bus.failures] == ["done= of a redelivery to one"]


def test_the_rows_are_a_copy(bus: EventBus) -> None:
    seen: list[float] = []
    bus.subscribe(lambda price: seen.append(price), "market", name="prices")
    batch = trades(2)
    rows = batch.records
    bus.redeliver("prices", batch)
    rows.flags.writeable = True
    rows["price"] = -1.0
    work_off(bus)
    assert seen == [0.0, 1.0]


def test_nothing_of_an_empty_batch_goes_well(bus: EventBus, ends: Ends) -> None:
    bus.subscribe(print, "market", name="one")
    bus.redeliver("one", trades(0), ends)
    work_off(bus)
    assert ends.one is None


def test_too_much_at_once_is_refused(bus: EventBus) -> None:
    bus.subscribe(lambda batch: None, "market", mode="batch", name="one")
    bus.redeliver("one", trades(MOST_WAITING))
    with pytest.raises(BusFull, match="at most 65,536 events wait to be redelivered; 65,536 do, and 1 more"):
        bus.redeliver("one", tick())
    work_off(bus)
    bus.redeliver("one", tick())


# -- when nothing goes on ---------------------------------------------------------------------------------------------


def test_a_bus_that_closes_tells_what_it_did_not_do(bus: EventBus, ends: Ends) -> None:
    bus.subscribe(print, "market", name="one")
    bus.redeliver("one", tick(), ends)
    assert bus.close() == 0
    assert "given up: the bus was closed" in str(ends.one)
    with pytest.raises(BusClosed):
        bus.redeliver("one", tick())


def test_a_run_that_ends_tells_what_it_did_not_do(bus: EventBus, ends: Ends) -> None:
    bus.subscribe(print, "market", name="one")
    run = bus.begin_run("a run", VirtualClock(START_NS))
    run.redeliver("one", tick(), ends)
    with pytest.raises(BusBusy, match=r"a run is on this bus; use its run's redeliver"):
        bus.redeliver("one", tick())
    run.end()
    assert isinstance(ends.one, BusError)
    work_off(bus)
    assert books(bus) == (0, 0, 0, 0)
    with pytest.raises(BusError, match="has left the bus"):
        run.redeliver("one", tick())


async def test_a_run_that_ends_while_the_handler_waits_tells_that(bus: EventBus, ends: Ends) -> None:
    async def waits(event: MarketDataEvent) -> None:
        await asyncio.Event().wait()

    bus.subscribe(waits, "market", name="waits")
    run = bus.begin_run("a run", VirtualClock(START_NS))
    run.redeliver("waits", tick(), ends)
    assert run.work(1 << 62, 1 << 62).awaiting
    run.end()
    assert isinstance(ends.one, BusError)
    assert bus.dead_letters.count == 1


async def test_a_queue_that_is_given_up_tells_of_each_redelivery_in_it(bus: EventBus) -> None:
    async def waits(event: MarketDataEvent) -> None:
        await asyncio.Event().wait()

    bus.subscribe(waits, "market", name="waits")
    all_ends = [Ends() for _ in range(3)]
    for ends in all_ends:
        bus.redeliver("waits", tick(), ends)
    bus.do_work(max_ns=1 << 62)
    assert [ends.all for ends in all_ends] == [[], [], []]
    assert bus.give_up_calls() == 3
    assert all(isinstance(ends.one, BusError) for ends in all_ends)
    assert bus.dead_letters.count == 3


def test_an_interrupted_call_did_not_go_well(bus: EventBus, ends: Ends) -> None:
    def interrupted(event: MarketDataEvent) -> None:
        raise KeyboardInterrupt

    bus.subscribe(interrupted, "market", name="interrupted")
    bus.redeliver("interrupted", tick(), ends)
    with pytest.raises(KeyboardInterrupt):
        bus.do_work(max_ns=1 << 62)
    work_off(bus)
    assert isinstance(ends.one, BusError)
    assert [letter.event for letter in bus.dead_letters] == [tick()]


def test_a_bus_with_something_to_redeliver_is_not_idle(bus: EventBus) -> None:
    bus.subscribe(lambda event: None, "market", name="one")
    bus.redeliver("one", tick())
    with pytest.raises(BusBusy, match="published events wait"):
        bus.begin_run("a run", VirtualClock(START_NS))
    work_off(bus)
    bus.begin_run("a run", VirtualClock(START_NS)).end()


async def test_a_pump_redelivers_without_being_asked(bus: EventBus, ends: Ends) -> None:
    bus.subscribe(lambda event: None, "market", name="one")
    async with pumped(bus):
        bus.redeliver("one", tick(), ends)
        await until(lambda: bool(ends.all))
    assert ends.one is None
