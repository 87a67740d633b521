"""What handlers return: stamped, numbered, caused, bounded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hftlab.bus import EventBus, emission
from hftlab.bus.failures import FailureLog
from hftlab.bus.signatures import make_subscription
from hftlab.clock import VirtualClock
from hftlab.errors import HandlerFailed
from hftlab.events import (
    Event,
    EventBatch,
    EventType,
    MarketDataEvent,
    OrderEvent,
    Side,
    SignalEvent,
    Source,
    SourceTable,
    SymbolTable,
)
from hftlab.events.records import RUN_BIT, Flags, Priority
from tests.bus.samples import START_NS, one_lane, trades, work_off


@pytest.fixture
def bus() -> EventBus:
    return EventBus(capacity=1_024, clock=VirtualClock(START_NS))


def signal(**fields: Any) -> SignalEvent:
    return SignalEvent(symbol="BTC", signal_type="s", **fields)


def collect(bus: EventBus, *what: str) -> list[Event]:
    seen: list[Event] = []
    bus.subscribe(seen.append, *what, name=f"collects {what}")
    return seen


@pytest.mark.parametrize(
    ("returned", "count"),
    [
        (signal(), 1),
        ([signal(), signal()], 2),
        ((signal(),), 1),
        ({signal()}, 1),
        ((signal() for _ in range(3)), 3),
        (iter([signal()]), 1),
        (EventBatch.from_events([signal(), signal()]), 2),
        ([], 0),
        (EventBatch.empty(), 0),
        (None, 0),
    ],
)
def test_what_a_handler_may_return(bus: EventBus, returned: Any, count: int) -> None:
    seen = collect(bus, "signal")
    bus.subscribe(lambda event: returned, "market", name="emits")
    bus.offer(trades(1))
    work_off(bus)
    assert len(seen) == count
    assert bus.statistics().emitted == count
    assert bus.failures.count == 0


@pytest.mark.parametrize(
    "returned", [0, False, 42, "text", b"bytes", {}, {"a": 1}, object(), [signal(), None], ["text"]]
)
def test_what_a_handler_may_not_return(bus: EventBus, returned: Any) -> None:
    bus.subscribe(lambda event: returned, "market")
    bus.offer(trades(1))
    work_off(bus)
    with pytest.raises(HandlerFailed, match="a handler returns the events that it emits"):
        bus.raise_failures()


def test_an_emission_gets_the_time_the_cause_and_an_id_of_the_run(bus: EventBus) -> None:
    seen = collect(bus, "signal")
    bus.subscribe(lambda event: [signal(strength=1.0), signal(strength=2.0)], "market", name="emits")
    bus.offer(trades(1, first=5, session_number=3))
    work_off(bus)
    assert [event.event_id for event in seen] == [RUN_BIT, RUN_BIT | 1]
    for event in seen:
        assert event.cause == 3 << 40 | 5
        assert (event.timestamp, event.received) == (START_NS, START_NS)
        assert event.flags == Flags.LAST_PART | Flags.EMITTED


def test_what_an_emission_brings_itself_is_kept(bus: EventBus) -> None:
    seen = collect(bus, "signal")
    source = Source("mine", "signals")
    bus.subscribe(lambda event: signal(timestamp=5, received=6, cause=7, source=source), "market", name="emits")
    bus.offer(trades(1, session_number=3))
    work_off(bus)
    assert (seen[0].timestamp, seen[0].received, seen[0].cause, seen[0].source) == (5, 6, 7, source)


def test_the_cause_of_a_batchs_emission_is_its_last_event(bus: EventBus) -> None:
    seen = collect(bus, "signal")
    bus.subscribe(lambda batch: signal(), "market", mode="batch", batch_rows=10, name="emits")
    bus.offer(trades(4, first=5, session_number=3))
    work_off(bus)
    assert [event.cause for event in seen] == [3 << 40 | 8]


def test_an_emissions_cause_may_be_an_emission(bus: EventBus) -> None:
    seen = collect(bus, "order", "fill")
    bus.subscribe(lambda event: [signal(), signal()], "market", name="first")
    bus.subscribe(lambda event: MarketDataEvent(symbol="X") if event.cause < RUN_BIT else None, "signal", name="second")
    caught = collect(bus, "market")
    bus.offer(trades(1, session_number=1))
    bus.cancel("first")
    bus.subscribe(lambda event: [signal(), signal()] if event.symbol == "BTC" else None, "market", name="first")
    work_off(bus)
    assert [event.cause for event in caught] == [0, RUN_BIT, RUN_BIT | 1]
    assert seen == []


class Fields:
    """Notes every field that a signal has."""

    def __init__(self, noted: list[Any]) -> None:
        self.noted = noted

    def __call__(
        self, symbol: str, timestamp: int, received: int, cause: int, flags: Flags, priority: Priority, clock: Any,
        source: Source, strength: float, signal_type: str, strategy_id: str, event_id: int, log_sequence: int,
        topic: str, epoch: int, span: int, part: int, sequence: int,
    ) -> None:  # fmt: skip
        given = locals()
        self.noted.append([given[name] for name in sorted(given) if name != "self"])


def test_single_events_and_batches_look_the_same_to_handlers() -> None:
    """One takes the short way, as an object; the other the way of published rows."""
    seen: dict[bool, list[Any]] = {}
    for as_batch in (False, True):
        bus = EventBus(capacity=1_024, clock=VirtualClock(START_NS))
        noted: list[Any] = []
        seen[as_batch] = noted
        made = signal(strength=2.5, strategy_id="ä", epoch=3)
        returned = EventBatch.from_events([made]) if as_batch else made
        bus.subscribe(lambda event, returned=returned: returned, "market", name="emits")
        bus.subscribe(noted.append, "signal", name="event")
        bus.subscribe(Fields(noted), "signal", name="fields")
        bus.subscribe(lambda topic, noted=noted: noted.append(topic), "signal", name="one field")
        bus.subscribe(lambda log_sequence, noted=noted: noted.append(log_sequence), "signal", name="number")
        bus.subscribe(
            lambda batch, noted=noted: noted.append(list(batch)), "signal", mode="batch", batch_rows=9, name="b"
        )
        bus.offer(trades(2, session_number=1))
        work_off(bus)
        assert bus.failures.count == 0
    assert seen[False] == seen[True]
    assert [type(value) for value in seen[False][1]] == [type(value) for value in seen[True][1]]


def test_a_returned_batch_may_be_the_one_that_the_handler_was_given(bus: EventBus) -> None:
    seen: list[list[float]] = []

    @bus.on("market", mode="batch", batch_rows=4, name="echo")
    def echo(batch: EventBatch) -> EventBatch | None:
        return None if batch.records["flags"][0] & Flags.EMITTED else batch[1:]

    @bus.on("market", mode="batch", batch_rows=1, name="sees")
    def sees(batch: EventBatch) -> None:
        if batch.records["flags"][0] & Flags.EMITTED:
            seen.append(batch.records["price"].tolist())

    bus.offer(trades(4))
    work_off(bus)
    assert seen == [[1], [2], [3]]
    assert bus.failures.count == 0


def test_what_a_generator_yields_before_it_raises_is_emitted(bus: EventBus) -> None:
    seen = collect(bus, "signal")

    @bus.on("market")
    def emits(event: Event) -> Iterator[Event]:
        yield signal()
        raise ValueError("half way")

    bus.offer(trades(1))
    work_off(bus)
    assert len(seen) == 1
    with pytest.raises(HandlerFailed, match="half way"):
        bus.raise_failures()


def test_a_generator_may_ask_for_the_time_of_its_event(bus: EventBus) -> None:
    times: list[int] = []

    @bus.on("market")
    def emits(event: Event) -> Iterator[Event]:
        times.append(bus.clock.now_ns())
        yield signal()

    run = bus.begin_run("a run", VirtualClock())
    run.offer(trades(3))
    run.work(100, 1 << 62)
    assert times == [START_NS, START_NS + 1, START_NS + 2]


def test_a_handler_that_answers_itself_is_stopped(bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emission, "CASCADE_LIMIT", 100)
    seen = collect(bus, "signal")
    bus.subscribe(lambda event: signal(), "signal", name="answers itself")
    bus.subscribe(lambda event: signal(), "market", name="begins")
    bus.offer(trades(3))
    work_off(bus)
    # Each published event may lead to a hundred.
    assert len(seen) == 300
    assert bus.failures.count == 3
    assert bus.statistics().emissions_refused == 3
    with pytest.raises(HandlerFailed, match=r"CascadeError: one event may lead to .* Does a handler subscribe to what"):
        bus.raise_failures()


def test_a_batch_handler_that_fills_its_own_batches_is_stopped(bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emission, "CASCADE_LIMIT", 100)
    answers = bus.subscribe(lambda batch: list(batch), "market", mode="batch", batch_rows=2, name="answers itself")
    run = bus.begin_run("a run", VirtualClock())
    run.offer(trades(2))
    run.finish()
    while not run.work(100, 0).idle:
        pass
    assert answers.emitted == 100
    assert bus.failures.count == 1


def test_batch_handlers_of_published_rows_each_have_the_whole_limit(
    bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emission, "CASCADE_LIMIT", 10)
    for name in ("a", "b"):
        bus.subscribe(
            lambda batch: [signal() for _ in batch], "market", mode="batch", batch_rows=10, name=name
        )  # fmt: skip
    bus.offer(trades(30))
    work_off(bus)
    assert bus.statistics().emitted == 60
    assert bus.failures.count == 0


def test_a_batch_that_is_too_much_is_refused_as_a_whole(bus: EventBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emission, "CASCADE_LIMIT", 10)
    many = EventBatch.from_events([signal()] * 11)
    subscription = bus.subscribe(lambda event: many, "market")
    bus.offer(trades(2))
    work_off(bus)
    assert (subscription.emitted, bus.statistics().emissions_refused) == (0, 22)


def test_large_emitted_batches_go_through_whole_and_in_order(bus: EventBus) -> None:
    seen: list[float] = []
    batches: list[int] = []
    many = trades(5_000, first=10)
    bus.subscribe(lambda event: many, "signal", name="emits")
    bus.subscribe(lambda price: seen.append(price), "market", name="notes")
    bus.subscribe(lambda batch: batches.append(len(batch)), "market", mode="batch", batch_rows=500, name="batches")
    bus.publish_nowait(signal())
    work_off(bus)
    assert seen == list(range(10, 5_010))
    assert batches == [500] * 10


def test_an_event_made_without_checks_fails_its_handler_and_nothing_else(bus: EventBus) -> None:
    seen = collect(bus, "signal")

    class Unreadable:
        pass

    bus.subscribe(lambda event: event_with_bad_flags(), "market", name="emits")

    def event_with_bad_flags() -> Event:
        from msgspec.structs import force_setattr

        event = signal()
        force_setattr(event, "strength", Unreadable())
        return event

    bus.offer(trades(1))
    work_off(bus)
    assert seen == []
    assert bus.statistics().emitted == 0
    with pytest.raises(HandlerFailed, match="does not fit a row"):
        bus.raise_failures()


def test_emissions_of_every_type_are_found_by_their_subscribers() -> None:
    from tests.bus.handlers import make_event

    bus = EventBus(capacity=1_024, priorities=one_lane())
    seen = collect(bus)
    bus.subscribe(lambda event: [make_event(event_type, "X") for event_type in EventType], "market.BTC", name="emits")
    bus.offer(trades(1))
    work_off(bus)
    assert [event.event_type for event in seen] == [EventType.MARKET_DATA, *EventType]


def test_runs_of_one_type_that_became_neighbours_are_taken_together() -> None:
    symbols, sources = SymbolTable(["A"]), SourceTable()
    buffer = emission.EmissionBuffer(symbols, sources, FailureLog())
    buffer.elsewhere = lambda one: one.event_type is EventType.ORDER
    subscription = make_subscription(lambda batch: None, "market", mode="batch")
    events = [
        made
        for number in range(1_500)
        for made in (
            signal(strength=float(number)),
            OrderEvent(symbol="A", order_id="o", direction=Side.BUY, quantity=1),
        )
    ]
    buffer.add(EventBatch.from_events(events), subscription, lambda: events[0], 5, VirtualClock(START_NS))
    buffer.add(signal(strength=-1.0), subscription, lambda: events[0], 5, VirtualClock(START_NS))
    taken = [buffer.take() for _ in range(3)]
    assert [len(one.rows) for one in taken] == [1_024, 476, 1]
    assert [strength for one in taken for strength in one.rows["strength"]] == [*range(1_500), -1]
    assert taken[2].event is not None
    assert not buffer.waiting
