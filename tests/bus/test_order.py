"""What is published goes through the bus's stage: in order, once, gaps told in line, and every row accounted for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hftlab as hl
from hftlab.bus import EventBus
from hftlab.clock import VirtualClock
from hftlab.errors import BusBusy, BusClosed, BusFull, ValidationError, WindowFull
from hftlab.events import Event, EventBatch, MarketDataEvent, OrderEvent, Side, SignalEvent
from hftlab.events.records import event_id
from hftlab.sequence import Gap, GapReason, GapState, Ordering
from tests.bus.samples import pumped, trades, until, work_off
from tests.sequence.messages import MS, SESSION, SOURCES, START_NS, stream_of, streams

PLAIN, SHARED, ORDERS = 2, 4, 5
TRADES, ORDER_SOURCE = SOURCES[1], SOURCES[4]


def made(*, capacity: int = 1_024, **ordering: Any) -> tuple[EventBus, VirtualClock, list[Any]]:
    """A bus by a clock that stands still, and what its handlers were given: numbers of events, and gaps in words."""
    clock = VirtualClock(START_NS)
    bus = EventBus(capacity=capacity, clock=clock, ordering=Ordering(**ordering))
    seen: list[Any] = []
    bus.subscribe(lambda event: seen.append(event.sequence), name="events")
    bus.subscribe(lambda gap: seen.append(told(gap)), hl.Gap, name="gaps")
    return bus, clock, seen


def told(gap: Gap) -> str:
    return str(gap).removeprefix(str(gap.source)).strip()


def numbered(*numbers: int, source: int = PLAIN, session: int = 0, **fields: Any) -> EventBatch:
    return stream_of([{"source": source, "sequence": number, **fields} for number in numbers], session=session).batch()


def trade(number: int, **fields: Any) -> MarketDataEvent:
    return MarketDataEvent(symbol="A", source=TRADES, sequence=number, price=1.0 + number, volume=1.0, **fields)


def order(number: int) -> OrderEvent:
    return OrderEvent(
        symbol="A", source=ORDER_SOURCE, sequence=number, order_id=f"o{number}", direction=Side.BUY, quantity=1.0
    )


def check_sum(bus: EventBus) -> None:
    s = bus.statistics()
    assert s.published == s.handled + s.waiting + s.held + s.redelivered + s.duplicate + s.set_aside + s.dropped


# -- in order, once ---------------------------------------------------------------------------------------------------


async def test_what_is_published_out_of_order_is_handled_in_order() -> None:
    bus, _, seen = made()
    await bus.publish_batch(numbered(1, 4, 3, 2, 5))
    work_off(bus)
    assert seen == [1, "2…3 open", "3 filled", "2 filled", 2, 3, 4, 5]
    assert bus.gaps.counts == {"open": 0, "filled": 1, "lost": 0}
    check_sum(bus)


async def test_single_events_with_numbers_are_put_in_order_too() -> None:
    bus, _, seen = made()
    await bus.publish(trade(1))
    bus.publish_nowait(trade(3))
    await bus.publish(SignalEvent(symbol="A", signal_type="s"))  # has no number: nothing to wait for
    work_off(bus)
    assert seen == [1, "2 open", -1]
    await bus.publish(trade(2))
    await bus.publish(trade(2))
    work_off(bus)
    assert seen == [1, "2 open", -1, "2 filled", 2, 3]
    assert (bus.statistics().duplicate, bus.statistics().published) == (1, 5)
    check_sum(bus)


async def test_the_venues_duplicates_and_the_logs_are_counted_apart() -> None:
    bus, _, seen = made()
    batch = numbered(1, 2, 2, 3, session=SESSION)
    assert await bus.publish_batch(batch) == 4
    assert await bus.publish_batch(batch) == 4
    work_off(bus)
    assert seen == [1, 2, 3]
    told = bus.statistics()
    assert (told.published, told.handled, told.duplicate, told.redelivered) == (8, 3, 1, 4)
    check_sum(bus)


async def test_an_event_that_the_log_delivers_twice_is_handled_once() -> None:
    bus, _, seen = made()
    for _ in range(2):
        await bus.publish(SignalEvent(symbol="A", signal_type="s", event_id=event_id(SESSION, 5)))
    work_off(bus)
    assert (len(seen), bus.statistics().redelivered) == (1, 1)


async def test_late_and_conflicting_rows_are_set_aside_and_readable() -> None:
    bus, _, seen = made()
    await bus.publish_batch(numbered(5, 4))
    await bus.publish_batch(numbered(5, content=1))
    work_off(bus)
    assert seen == [5]
    assert bus.statistics().set_aside == 2
    assert bus.gaps.set_aside.to_frame()["reason"].tolist() == ["late", "conflict"]
    check_sum(bus)


# -- deadlines --------------------------------------------------------------------------------------------------------


async def test_a_gaps_deadline_passes_by_the_buss_clock_whatever_the_rows_say() -> None:
    bus, clock, seen = made()
    await bus.publish_batch(numbered(1, 3, received=9_000))
    work_off(bus)
    assert seen == [1, "2 open"]
    clock.advance(100 * MS - 1)
    work_off(bus)
    assert seen == [1, "2 open"]
    clock.advance(1)
    work_off(bus)
    assert seen == [1, "2 open", "2 lost, deadline", 3]
    (gap,) = bus.gaps
    assert (gap.opened_ns, gap.closed_ns, gap.reason) == (START_NS, START_NS + 100 * MS, GapReason.DEADLINE)
    check_sum(bus)


async def test_a_pump_wakes_for_a_deadline_without_another_event() -> None:
    # Real time, and more of it than loading a kernel takes: what is looked at before has to come before.
    bus = EventBus(ordering=Ordering(deadline_s=1.0))
    seen: list[int] = []
    bus.subscribe(lambda sequence: seen.append(sequence), "market", name="events")
    async with pumped(bus):
        await bus.publish_batch(numbered(1, 3))
        await until(lambda: seen == [1])
        assert bus.gaps.counts["open"] == 1
        await until(lambda: seen == [1, 3])
    assert bus.gaps.counts == {"open": 0, "filled": 0, "lost": 1}
    assert bus.gaps[0].duration_ns == 1_000 * MS


async def test_what_is_given_up_goes_on_with_the_next_work() -> None:
    bus, _, seen = made()
    await bus.publish_batch(numbered(1, 3, source=ORDERS))
    work_off(bus)
    bus.gaps.give_up()
    work_off(bus)
    assert seen == [1, "2 open", "2 lost, decided", 3]


async def test_the_end_of_the_session_gives_up_what_is_missing() -> None:
    bus, _, seen = made()
    await bus.publish_batch(numbered(1, 3))
    await bus.publish_batch(numbered(1, 3, source=ORDERS))
    bus.end_session()
    work_off(bus)
    assert sorted(word for word in seen if isinstance(word, int)) == [1, 1, 3, 3]
    assert {gap.reason for gap in bus.gaps} == {GapReason.END}
    assert bus.statistics().held == 0
    check_sum(bus)


async def test_draining_does_not_wait_for_missing_numbers() -> None:
    bus, _, seen = made()
    await bus.publish_batch(numbered(1, 3))
    await bus.drain()
    assert seen == [1, "2 open"]
    assert bus.statistics().held == 1


# -- handlers of gaps -------------------------------------------------------------------------------------------------


async def test_a_handler_of_gaps_may_emit_and_be_awaited() -> None:
    clock = VirtualClock(START_NS)
    bus = EventBus(clock=clock)
    seen: list[str] = []

    @bus.on(hl.Gap, queue=0)
    async def widened(gap: Gap) -> SignalEvent | None:
        seen.append(f"begins {told(gap)}")
        await asyncio.sleep(0)
        seen.append(f"ends {told(gap)}")
        return SignalEvent(symbol="A", signal_type=gap.state.name) if gap.state is GapState.LOST else None

    bus.subscribe(lambda event: seen.append(f"signal {event.signal_type}"), "signal", name="signals")
    bus.subscribe(lambda event: seen.append(f"trade {event.sequence}"), "market", name="trades")
    await bus.publish_batch(numbered(1, 3))
    clock.advance(100 * MS)
    async with pumped(bus):
        await until(lambda: "trade 3" in seen)
    assert seen == [
        "trade 1", "begins 2 open", "ends 2 open", "begins 2 lost, deadline", "ends 2 lost, deadline", "signal LOST",
        "trade 3",
    ]  # fmt: skip
    assert bus.statistics().emitted == 1


async def test_running_the_cell_of_a_gap_handler_again_replaces_it() -> None:
    bus = EventBus(clock=VirtualClock(START_NS))
    seen: list[str] = []

    def cell(text: str) -> None:
        @bus.on(hl.Gap)
        def noticed(gap: Gap) -> None:
            seen.append(text)

        @bus.on()
        def everything(event: Event) -> None: ...

    cell("first")
    cell("second")
    assert len(bus.subscriptions) == 2
    await bus.publish_batch(numbered(1, 3))
    work_off(bus)
    assert seen == ["second"]


async def test_a_handler_for_everything_and_one_for_gaps_of_the_same_name_are_two() -> None:
    bus = EventBus(clock=VirtualClock(START_NS))

    def noticed(event: Any) -> None: ...

    bus.on()(noticed)
    bus.on(hl.Gap)(noticed)
    assert len(bus.subscriptions) == 2


async def test_a_failing_gap_handler_stops_nothing_and_is_recorded() -> None:
    bus, _, seen = made()

    @bus.on(hl.Gap)
    def fails(gap: Gap) -> None:
        raise ValueError("wanted")

    bus.publish_nowait(trade(1))
    bus.publish_nowait(trade(3))
    bus.publish_nowait(trade(2))
    work_off(bus)
    assert seen == [1, "2 open", "2 filled", 2, 3]
    assert bus.failures.count == 2
    assert isinstance(next(iter(bus.failures)).event, Gap)


@pytest.mark.parametrize(
    ("what", "options", "match"),
    [
        ((hl.Gap, hl.MarketDataEvent), {}, "notices is for one kind"),
        ((hl.Gap,), {"symbol": "A"}, "notices is for one kind"),
        ((hl.Gap,), {"where": lambda rows: rows["price"] > 0}, "no where= and no other mode"),
        ((hl.Gap,), {"mode": "batch"}, "no where= and no other mode"),
        ((hl.Gap,), {"mode": "fields"}, "no where= and no other mode"),
    ],
)
def test_what_a_handler_of_gaps_cant_have_is_refused(what: Any, options: dict[str, Any], match: str) -> None:
    bus = EventBus()
    with pytest.raises(ValidationError, match=match):
        bus.on(*what, **options)(lambda gap: None)
    assert bus.subscriptions == ()


# -- strict windows ---------------------------------------------------------------------------------------------------


async def test_a_full_strict_window_is_raised_with_how_many_rows_were_taken() -> None:
    bus, _, seen = made(window=2)
    batch = numbered(1, 3, 4, 5, 6, source=ORDERS)
    with pytest.raises(WindowFull, match=r"nyx/orders/A waits for number 2 to 2.*give_up\(\)") as raised:
        await bus.publish_batch(batch)
    assert raised.value.taken == 3
    with pytest.raises(WindowFull) as again:
        bus.offer(batch[3:])
    assert again.value.taken == 0
    with pytest.raises(WindowFull):
        await bus.publish(order(5))
    with pytest.raises(WindowFull):
        bus.publish_nowait(order(5))
    check_sum(bus)
    assert bus.statistics().published == 3
    await bus.publish(order(2))  # what is missing always has room
    assert bus.offer(batch[3:]) == 2
    work_off(bus)
    assert seen == [1, "2 open", "2 filled", 2, 3, 4, 5, 6]
    check_sum(bus)


async def test_the_gap_of_the_error_is_given_up_and_publishing_goes_on() -> None:
    bus, _, seen = made(window=1)
    batch = numbered(1, 3, 5, source=ORDERS)
    with pytest.raises(WindowFull) as raised:
        await bus.publish_batch(batch)
    bus.gaps.give_up(raised.value.gap)
    assert await bus.publish_batch(batch[raised.value.taken :]) == 1
    work_off(bus)
    assert seen == [1, "2 open", "2 lost, decided", 3, "4 open"]


async def test_what_is_given_up_goes_on_also_before_events_of_another_session() -> None:
    bus, _, seen = made()
    await bus.publish_batch(numbered(1, 3, session=SESSION))
    bus.gaps.give_up()
    await bus.publish_batch(numbered(1, source=SHARED))
    work_off(bus)
    assert [word for word in seen if isinstance(word, int)] == [1, 3, 1]
    check_sum(bus)


# -- full queues ------------------------------------------------------------------------------------------------------


async def test_what_is_let_go_and_finds_no_room_keeps_its_order() -> None:
    """1,000 rows wait for one number, while the queue has room for 1,024 and is filled with others."""
    bus, _, seen = made(window=1 << 11)
    bus.offer(numbered(1, *range(3, 1_003)))
    work_off(bus)
    assert bus.statistics().held == 1_000
    assert bus.offer(trades(500)) == 500
    assert bus.offer(numbered(2)) == 1
    told = bus.statistics()
    assert (told.waiting, told.held) == (1_024, 477)
    check_sum(bus)
    assert bus.offer(numbered(1_003)) == 0, "it would overtake what is left over"
    with pytest.raises(BusFull):
        bus.publish_nowait(SignalEvent(symbol="A", signal_type="s"))
    work_off(bus)
    assert bus.offer(numbered(1_003)) == 1
    work_off(bus)
    assert [word for word in seen if isinstance(word, int) and word >= 0] == list(range(1, 1_004))
    assert bus.statistics().held == 0
    check_sum(bus)


# -- runs -------------------------------------------------------------------------------------------------------------


async def test_a_run_leaves_the_live_stage_alone() -> None:
    bus, clock, seen = made()
    await bus.publish_batch(numbered(1, 3))
    work_off(bus)
    live = list(bus.gaps)
    run = bus.begin_run("a run", VirtualClock(START_NS))
    clock.advance(1_000 * MS)
    with pytest.raises(BusBusy):
        bus.end_session()
    run.offer(numbered(7, 5, 3))  # in the order of the run's holder
    while not run.work(100, 0).idle:
        pass
    assert seen == [1, "2 open", 7, 5, 3]
    run.end()
    assert list(bus.gaps) == live
    assert bus.statistics().held == 1
    work_off(bus)
    assert seen[5:] == ["2 lost, deadline", 3]
    check_sum(bus)


async def test_a_closed_bus_has_no_session_to_end() -> None:
    bus, _, _ = made()
    bus.close()
    with pytest.raises(BusClosed):
        bus.end_session()


# -- every row is somewhere -------------------------------------------------------------------------------------------

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.integers(1, 12)),
        st.tuples(st.just("again"), st.integers(1, 12)),
        st.tuples(st.just("work"), st.integers(1, 8)),
        st.tuples(st.just("wait"), st.integers(0, 150)),
        st.tuples(st.just("publish"), st.integers(1, 9)),
        st.tuples(st.just("fill"), st.just(900)),
        st.tuples(st.sampled_from(["give up", "end", "run"]), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=80)
@given(streams(), OPERATIONS, st.sampled_from([(0.0, 0.0), (0.02, 0.0), (0.0, 0.1)]), st.sampled_from([1, 3, 64]))
def test_every_published_row_is_accounted_for_at_every_moment(
    stream: Any, operations: list[tuple[str, int]], holds: tuple[float, float], window: int
) -> None:
    clock = VirtualClock(START_NS)
    ordering = Ordering(window=window, ids=1_024, reorder_s=holds[0], merge_s=holds[1])
    bus = EventBus(capacity=1_024, clock=clock, ordering=ordering)
    handled: list[int] = []
    bus.subscribe(lambda received: handled.append(received), "*", name="all")
    batch = stream.batch()
    place = 0

    def offer(rows: EventBatch) -> int:
        try:
            return bus.offer(rows)
        except WindowFull as full:
            bus.gaps.give_up()
            return full.taken

    for what, count in operations:
        if what == "offer":
            place += offer(batch[place : place + count])
        elif what == "again":
            offer(batch[max(0, place - count) : place])
        elif what == "work":
            bus.do_work(count)
        elif what == "wait":
            clock.advance(count * MS)
        elif what == "fill":
            offer(trades(count))
        elif what == "give up":
            bus.gaps.give_up()
        elif what == "end":
            bus.end_session()
        elif what == "publish":
            try:
                bus.publish_nowait(trade(count))
            except (BusFull, WindowFull):
                bus.gaps.give_up()
        elif what == "run" and bus.statistics().waiting == 0:
            try:
                run = bus.begin_run("a run", VirtualClock(START_NS))
            except BusBusy:
                continue
            run.offer(trades(3))
            check_sum(bus)
            run.work(1, 0)
            run.end()
        check_sum(bus)
    bus.end_session()
    for _ in range(3):
        work_off(bus)
    check_sum(bus)
    told = bus.statistics()
    assert (told.waiting, told.held) == (0, 0)
    assert len(handled) == told.handled
    assert bus.close() == 0
