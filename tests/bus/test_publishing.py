"""Publishing: order, stamps, waiting for room, and whom the bus refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from hftlab.bus import EventBus
from hftlab.clock import VirtualClock
from hftlab.errors import BusBusy, BusClosed, BusFull, HandlerFailed, ValidationError
from hftlab.events import Event, EventBatch, EventType, MarketDataEvent, SignalEvent, SymbolTable
from hftlab.events.records import RECORD, Flags
from hftlab.events.types import ROW_CLASSES
from tests.bus.samples import START_NS, pumped, trades, until, work_off

CAPACITY = 1_024


@pytest.fixture
def bus() -> EventBus:
    return EventBus(capacity=CAPACITY, clock=VirtualClock(START_NS))


@pytest.fixture
def prices(bus: EventBus) -> list[float]:
    seen: list[float] = []

    @bus.on("market")
    def note(price: float) -> None:
        seen.append(price)

    return seen


def tick(price: float = 1.0) -> MarketDataEvent:
    return MarketDataEvent(symbol="BTC", price=price, volume=1.0)


# -- what arrives -----------------------------------------------------------------------------------------------------


async def test_single_events_and_batches_are_handled_in_the_order_of_their_publication(
    bus: EventBus, prices: list[float]
) -> None:
    await bus.publish(tick(0))
    bus.publish_nowait(tick(1))
    assert await bus.publish_batch(trades(3, first=2)) == 3
    assert bus.offer(trades(2, first=5)) == 2
    work_off(bus)
    assert prices == [0, 1, 2, 3, 4, 5, 6]


async def test_a_published_event_arrives_as_it_was_made(bus: EventBus) -> None:
    seen: list[Event] = []
    bus.subscribe(seen.append)
    sent = SignalEvent(symbol="BTC", signal_type="ÄÖ", strength=0.5, timestamp=5, received=6, strategy_id="s")
    bus.publish_nowait(sent)
    bus.offer(EventBatch.from_events([sent]))
    work_off(bus)
    assert seen == [sent, sent]


async def test_events_without_times_are_stamped_with_their_arrival(bus: EventBus) -> None:
    seen: list[Event] = []
    bus.subscribe(seen.append)
    bus.publish_nowait(tick())
    bus.offer(EventBatch.from_events([tick()]))
    work_off(bus)
    for event in seen:
        assert (event.timestamp, event.received) == (START_NS, START_NS)
        assert event.flags == Flags.LAST_PART | Flags.ARRIVAL_TIME


@pytest.mark.parametrize("single", [True, False])
async def test_the_times_that_an_event_brings_are_kept(bus: EventBus, single: bool) -> None:
    seen: list[Event] = []
    bus.subscribe(seen.append)
    timed = [
        MarketDataEvent(symbol="BTC", price=1.0, timestamp=5),
        MarketDataEvent(symbol="BTC", price=1.0, received=6),
        MarketDataEvent(symbol="BTC", price=1.0, timestamp=7, received=8),
    ]
    for event in timed:
        bus.publish_nowait(event) if single else bus.offer(EventBatch.from_events([event]))
    work_off(bus)
    assert [(event.timestamp, event.received) for event in seen] == [(5, START_NS), (6, 6), (7, 8)]
    assert [bool(event.flags & Flags.ARRIVAL_TIME) for event in seen] == [False, True, False]


async def test_a_batch_keeps_its_own_rows(bus: EventBus) -> None:
    batch = EventBatch.from_events([tick()])
    before = batch.records.tobytes()
    bus.offer(batch)
    assert batch.records.tobytes() == before


async def test_symbols_of_foreign_tables_keep_their_names(bus: EventBus) -> None:
    seen: list[str] = []

    @bus.on()
    def note(symbol: str) -> None:
        seen.append(symbol)

    bus.offer(trades(2, symbols=("A", "B")))
    bus.offer(trades(2, symbols=("B", "A")))
    bus.publish_nowait(tick())
    work_off(bus)
    assert seen == ["A", "B", "B", "A", "BTC"]


async def test_a_batch_with_gaps_between_its_rows_is_as_good(bus: EventBus, prices: list[float]) -> None:
    bus.offer(trades(10)[::3])
    bus.offer(EventBatch(trades(10).records.view(RECORD)[1::4], SymbolTable(["BTC"])))
    work_off(bus)
    assert prices == [0, 3, 6, 9, 1, 5, 9]


async def test_an_empty_batch_is_nothing(bus: EventBus) -> None:
    assert await bus.publish_batch(EventBatch.empty()) == 0
    assert bus.offer(EventBatch.empty()) == 0
    assert bus.statistics().published == 0


async def test_recorded_events_keep_their_ids(bus: EventBus) -> None:
    seen: list[int] = []

    @bus.on()
    def note(event_id: int) -> None:
        seen.append(event_id)

    batch = trades(2, first=5, session_number=3)
    bus.offer(batch)
    bus.publish_nowait(trades(1, first=9, session_number=3)[0])
    bus.publish_nowait(batch[0])  # once more
    bus.publish_nowait(tick())
    work_off(bus)
    assert seen == [3 << 40 | 5, 3 << 40 | 6, 3 << 40 | 9, 0]
    assert bus.statistics().redelivered == 1


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("junk", [None, 5, "BTC", {"symbol": "BTC"}, trades(1)])
async def test_publish_takes_events(bus: EventBus, junk: object) -> None:
    with pytest.raises(ValidationError, match="publish takes a MarketDataEvent"):
        await bus.publish(junk)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="publish takes a MarketDataEvent"):
        bus.publish_nowait(junk)  # type: ignore[arg-type]


@pytest.mark.parametrize("junk", [None, 5, [tick()], tick()])
async def test_publish_batch_takes_batches(bus: EventBus, junk: object) -> None:
    with pytest.raises(ValidationError, match="publish_batch takes an EventBatch"):
        await bus.publish_batch(junk)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="publish_batch takes an EventBatch"):
        bus.offer(junk)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [("symbol", 7), ("source", 9), ("type", 0), ("type", 4), ("priority", 9), ("clock", 9), ("kind", 9), ("side", 2)],
)
async def test_one_bad_row_keeps_its_whole_batch_out(bus: EventBus, field: str, value: int) -> None:
    batch = trades(6_000)
    batch.records[field][5_999] = value
    async with pumped(bus):
        with pytest.raises(ValidationError, match=f"row 5999 of the batch can't be published.*{'type'} "):
            await bus.publish_batch(batch)
    assert bus.statistics().published == 0


async def test_text_that_no_row_holds_is_refused_and_leaves_nothing_behind(bus: EventBus) -> None:
    seen: list[Event] = []
    bus.subscribe(seen.append)
    template = SignalEvent(symbol="BTC", signal_type="s")
    values = {name: getattr(template, name) for name in template.__struct_fields__}
    unchecked: Callable[..., Event] = ROW_CLASSES[EventType.SIGNAL]
    bad = unchecked(*({**values, "signal_type": "x" * 25}.values()))
    with pytest.raises(ValidationError, match="more than 24 bytes"):
        bus.publish_nowait(bad)
    bus.publish_nowait(template)
    work_off(bus)
    assert [event.signal_type for event in seen if isinstance(event, SignalEvent)] == ["s"]


# -- waiting for room -------------------------------------------------------------------------------------------------


async def test_a_full_queue_takes_what_has_room(bus: EventBus) -> None:
    assert bus.offer(trades(CAPACITY + 10)) == CAPACITY
    assert bus.offer(trades(1)) == 0


async def test_publish_nowait_says_that_the_queue_is_full(bus: EventBus) -> None:
    bus.offer(trades(CAPACITY))
    with pytest.raises(BusFull, match=r"the market queue of [A-Z]+ has no room for one more row \(1,024\)"):
        bus.publish_nowait(tick())
    bus.publish_nowait(SignalEvent(symbol="BTC", signal_type="s"))


async def test_without_a_pump_nobody_waits_for_room(bus: EventBus) -> None:
    bus.offer(trades(CAPACITY - 5))
    with pytest.raises(BusFull, match=r"5 of 10 rows have no room, and nothing empties the queues: start the lab"):
        await bus.publish_batch(trades(10))
    with pytest.raises(BusFull, match=r"its queue is full, and nothing empties the queues"):
        await bus.publish(tick())
    assert bus.statistics().published == CAPACITY


async def test_publishing_more_than_fits_goes_on_as_the_pump_makes_room(bus: EventBus, prices: list[float]) -> None:
    async with pumped(bus):
        assert await bus.publish_batch(trades(5 * CAPACITY + 7)) == 5 * CAPACITY + 7
        await bus.publish(tick(9.5))
        await bus.drain()
    assert prices == [*range(5 * CAPACITY + 7), 9.5]
    assert bus.statistics().waits == 1


async def test_publishers_get_room_in_the_order_in_which_they_asked(bus: EventBus, prices: list[float]) -> None:
    bus.offer(trades(CAPACITY))
    async with pumped(bus):
        first = asyncio.create_task(bus.publish_batch(trades(2 * CAPACITY, first=10_000)))
        await asyncio.sleep(0)
        others = [asyncio.create_task(bus.publish(tick(20_000 + n))) for n in range(3)]
        await asyncio.gather(first, *others)
        await bus.drain()
    assert prices == [*range(CAPACITY), *range(10_000, 10_000 + 2 * CAPACITY), 20_000, 20_001, 20_002]


@pytest.mark.parametrize("leaving", [[0], [1], [0, 1], [2], [0, 2]])
async def test_a_cancelled_publisher_leaves_the_line_and_no_event(
    bus: EventBus, prices: list[float], leaving: list[int]
) -> None:
    gate = asyncio.Event()

    @bus.on("market", queue=0)
    async def wait(event: Event) -> None:
        await gate.wait()

    bus.offer(trades(CAPACITY))
    async with pumped(bus):
        waiting = [asyncio.create_task(bus.publish(tick(9_000 + n))) for n in range(3)]
        await until(lambda: bus.statistics().waits == 3)
        for n in leaving:
            waiting[n].cancel()
        await asyncio.wait([waiting[n] for n in leaving])
        gate.set()
        await asyncio.wait(waiting)
        await bus.drain()
    assert [n for n in range(3) if waiting[n].cancelled()] == leaving
    assert prices == [*range(CAPACITY), *(9_000 + n for n in range(3) if n not in leaving)]


async def test_a_publisher_that_waits_when_the_pump_ends_is_told(bus: EventBus) -> None:
    gate = asyncio.Event()

    @bus.on("market", queue=0)
    async def wait(event: Event) -> None:
        await gate.wait()

    bus.offer(trades(CAPACITY))
    async with pumped(bus):
        publisher = asyncio.create_task(bus.publish(tick()))
        await until(lambda: bus.statistics().waits == 1)
    with pytest.raises(BusFull, match="nothing empties the queues"):
        await publisher


async def test_closing_the_bus_tells_who_waits_for_room(bus: EventBus) -> None:
    bus.offer(trades(CAPACITY))
    gate = asyncio.Event()

    @bus.on("market", queue=0)
    async def wait(event: Event) -> None:
        await gate.wait()

    async with pumped(bus):
        publisher = asyncio.create_task(bus.publish_batch(trades(5)))
        await until(lambda: bus.statistics().waits == 1)
        assert bus.close() == CAPACITY
        with pytest.raises(BusClosed):
            await publisher


async def test_whoever_publishes_junk_is_told_at_once_whoever_waits(bus: EventBus) -> None:
    gate = asyncio.Event()

    @bus.on("market", queue=0)
    async def wait(event: Event) -> None:
        await gate.wait()

    bus.offer(trades(CAPACITY))
    async with pumped(bus):
        publisher = asyncio.create_task(bus.publish(tick()))
        await until(lambda: bus.statistics().waits == 1)
        with pytest.raises(ValidationError):
            await bus.publish("junk")  # type: ignore[arg-type]
        gate.set()
        await publisher


# -- whose turn it is not ---------------------------------------------------------------------------------------------


async def test_nobody_publishes_while_a_run_is_on(bus: EventBus) -> None:
    run = bus.begin_run("the replay", VirtualClock())
    for attempt in (bus.publish(tick()), bus.publish_batch(trades(1))):
        with pytest.raises(BusBusy, match="the replay is on this bus; publish when it has ended"):
            await attempt
    with pytest.raises(BusBusy):
        bus.publish_nowait(tick())
    with pytest.raises(BusBusy):
        bus.offer(trades(1))
    run.end()
    bus.publish_nowait(tick())


async def test_a_closed_bus_refuses_everything(bus: EventBus) -> None:
    bus.close()
    for attempt in (bus.publish(tick()), bus.publish_batch(trades(1))):
        with pytest.raises(BusClosed, match="this bus was closed; make a new one"):
            await attempt
    with pytest.raises(BusClosed):
        bus.publish_nowait(tick())
    with pytest.raises(BusClosed):
        bus.offer(trades(1))


async def test_a_handler_may_publish_where_there_is_room(bus: EventBus, prices: list[float]) -> None:
    @bus.on("signal")
    async def answer(event: Event) -> None:
        await asyncio.sleep(0)
        await bus.publish(tick(5))
        bus.publish_nowait(tick(6))
        await bus.publish_batch(trades(2, first=7))

    bus.publish_nowait(SignalEvent(symbol="BTC", signal_type="s"))
    await bus.drain()
    assert prices == [5, 6, 7, 8]


@pytest.mark.parametrize("turns", [0, 1])
async def test_a_handler_never_waits_for_room_that_only_its_return_can_make(bus: EventBus, turns: int) -> None:
    @bus.on("market", where=lambda records: records["price"] == 0, queue=0)
    async def answer(event: Event) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await bus.publish(tick())

    bus.offer(trades(CAPACITY))
    async with pumped(bus):
        with pytest.raises(HandlerFailed, match="the bus waits for this handler: return what it should emit"):
            await bus.drain()
    assert (bus.statistics().handled, bus.statistics().dead_lettered) == (CAPACITY - 1, 1)


async def test_a_handler_of_one_bus_may_wait_for_another(bus: EventBus) -> None:
    other = EventBus(capacity=CAPACITY)
    other.offer(trades(CAPACITY))

    @bus.on("signal")
    async def forward(event: Event) -> None:
        await other.publish(tick())

    bus.publish_nowait(SignalEvent(symbol="BTC", signal_type="s"))
    async with pumped(other):
        await bus.drain()
        await other.drain()
    assert other.statistics().handled == CAPACITY + 1


async def test_a_big_offer_looks_only_at_what_has_room(bus: EventBus) -> None:
    """What is left for later is checked later, so that offering again and again costs no more than once."""
    batch = trades(20_000)
    batch.records["symbol"][19_999] = 9
    taken = bus.offer(batch)
    assert taken == CAPACITY
    with pytest.raises(ValidationError):
        bus.offer(batch[taken:][-5_000:][-5:])


async def test_mixed_batches_stop_at_the_first_row_without_room(bus: EventBus) -> None:
    events = [tick(), SignalEvent(symbol="BTC", signal_type="s")]
    bus.offer(trades(CAPACITY - 2))
    batch = EventBatch.from_events(events * 4)
    assert bus.offer(batch) == 4  # two ticks with their signals; the fifth is a third tick
    assert bus.statistics().published == CAPACITY + 2
    order: list[EventType] = []

    @bus.on()
    def note(event: Event) -> None:
        order.append(event.event_type)

    work_off(bus)
    assert order[-4:] == [EventType.MARKET_DATA, EventType.SIGNAL] * 2
    assert bus.statistics().waiting == 0
