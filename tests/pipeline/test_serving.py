"""Members of a group take turns, and share the bus with others, without an effect lost or doubled."""

from __future__ import annotations

import asyncio

import pytest

from hftlab.bus import EventBus
from hftlab.clock import VirtualClock
from hftlab.errors import BackgroundFailed, BusBusy, GroupLost
from hftlab.events import Event
from hftlab.pipeline.statistics import State
from tests.pipeline.fakes import Call, FakeLog, Process, impatient, until
from tests.streams.batches import mixed

pytestmark = pytest.mark.usefixtures("impatient")
__all__ = ["impatient"]

EVENTS = 60
ALL = list(range(EVENTS))


def recorded(entry_rows: int = 10) -> FakeLog:
    log = FakeLog()
    log.append(mixed(EVENTS), entry_rows=entry_rows)
    return log


async def test_who_stands_by_takes_over_from_a_member_that_died() -> None:
    log = recorded()
    first, second = Process(log, name="first"), Process(log, name="second")
    for one in (first, second):
        one.count_in_transactions()
    await first.processor.start()
    await second.processor.start()
    assert second.processor.state is State.STANDING_BY
    assert second.processor.holder is not None
    assert second.processor.holder.name == "first"
    await second.processor.drain()  # by the other one's doing
    assert log.values["events"] == ALL
    await first.crash()
    await until(lambda: second.processor.state is State.FOLLOWING)
    log.append(mixed(5, seed=2))
    await second.processor.drain()
    await second.processor.stop()
    assert log.values["events"] == list(range(EVENTS + 5))
    assert second.processor.statistics().handled == 5


async def test_a_member_that_stops_hands_over_at_once() -> None:
    log = recorded()
    async with Process(log).processor as first, Process(log).processor as second:
        await first.drain()
        report = await first.stop()
        assert (report.committed, report.cut_off) == (EVENTS, 0)
        await until(lambda: second.state is State.FOLLOWING)


async def test_a_member_that_is_taken_over_from_in_the_middle_of_a_handler_has_no_effect() -> None:
    log = recorded(entry_rows=EVENTS)
    go_on, hanging = asyncio.Event(), asyncio.Event()
    first, second = Process(log, name="first"), Process(log, name="second")

    @first.bus.on()
    async def slow(event: Event) -> None:
        if event.received == mixed(EVENTS)[30].received:
            hanging.set()
            await go_on.wait()
        async with first.processor.transaction() as tx:
            tx.incr("count")

    second.count_in_transactions()
    await first.processor.start()
    await hanging.wait()
    log.expire()
    await second.processor.start()
    await second.processor.drain()
    go_on.set()
    await until(lambda: first.processor.state is State.STANDING_BY)
    assert log.values["count"] == EVENTS
    # And the other way round again.
    await second.processor.stop()
    await until(lambda: first.processor.state is State.FOLLOWING)
    log.append(mixed(3, seed=1))
    await first.processor.drain()
    await first.processor.stop()
    assert log.values["count"] == EVENTS + 3


async def test_a_processor_does_not_start_on_a_bus_that_is_in_use_and_leaves_the_group_to_others() -> None:
    log = recorded()
    process = Process(log)
    run = process.bus.begin_run("the replay of day", VirtualClock())
    with pytest.raises(BusBusy, match="the replay of day"):
        await process.processor.start()
    assert not process.processor.running
    assert log.group().holder is None
    run.end()
    async with process.processor:
        await process.processor.drain()
    assert process.processor.statistics().handled == EVENTS


async def test_nobody_else_uses_the_bus_while_a_processor_runs_on_it() -> None:
    process = Process(recorded())
    async with process.processor:
        with pytest.raises(BusBusy, match="the processor g of day"):
            process.bus.begin_run("a replay", VirtualClock())
        event = mixed(1)[0]
        with pytest.raises(BusBusy, match="the processor g of day"):
            process.bus.publish_nowait(event)
        with pytest.raises(BusBusy, match="the processor g of day"):
            await process.bus.publish(event)
        await process.processor.drain()
    process.bus.begin_run("a replay", VirtualClock()).end()


async def test_a_member_whose_bus_is_in_use_waits_and_lets_another_one_go_on() -> None:
    log = recorded()
    first, busy, third = Process(log, name="first"), Process(log, name="busy"), Process(log, name="third")
    third.count_in_transactions()
    await first.processor.start()
    await busy.processor.start()
    run = busy.bus.begin_run("a replay", VirtualClock())
    await first.processor.stop()
    await until(lambda: busy.processor.state is State.WAITING)
    await third.processor.start()
    await until(lambda: third.processor.state is State.FOLLOWING)
    log.append(mixed(4, seed=1))
    await third.processor.drain()
    await third.processor.stop()
    run.end()
    await until(lambda: busy.processor.state is State.FOLLOWING)
    await busy.processor.stop()
    assert log.group().log == EVENTS + 4


async def test_who_stands_by_leaves_a_destroyed_group_to_the_member_that_knows_where_it_stood() -> None:
    log = recorded()
    first, second = Process(log, name="first"), Process(log, name="second")
    for one in (first, second):
        one.count_in_transactions()
    async with first.processor, second.processor:
        await first.processor.drain()
        del log.sessions["day"].groups["g"]
        acquired: list[str] = []

        def on_call(call: Call) -> None:
            if call.method == "acquire" and not call.done:
                acquired.append(call.member.name)

        log.on_call = on_call
        await until(lambda: "second" in acquired)
        log.append(mixed(5, seed=1))
        await until(lambda: "g" in log.sessions["day"].groups)
        await until(lambda: log.group().log == EVENTS + 5)
        assert second.processor.running
    assert log.values["events"] == list(range(EVENTS + 5))


async def test_a_destroyed_group_that_nobody_makes_again_ends_who_stands_by() -> None:
    log = recorded()
    first, second = Process(log), Process(log, lease_s=0.01)
    await first.processor.start()
    await second.processor.start()
    await first.processor.drain()
    first.cut_off()
    del log.sessions["day"].groups["g"]
    await until(lambda: second.processor.state is State.FAILED)
    with pytest.raises(BackgroundFailed) as raised:
        await second.processor.stop()
    assert isinstance(raised.value.__cause__, GroupLost)
    await first.crash()


async def test_a_session_goes_on_in_its_successor_and_drain_with_it() -> None:
    log = recorded()
    log.append(mixed(7, seed=1), "next")
    log.seal("day", "next")
    process = Process(log, bus=EventBus())
    process.count_in_transactions()
    async with process.processor:
        await process.processor.drain()
        assert log.values["count"] == EVENTS + 7
        assert process.processor.statistics().session == "next"
        log.append(mixed(2, seed=2), "next")
        await process.processor.drain()
        assert log.values["count"] == EVENTS + 9
        assert (await process.processor.checkpoint()).log_sequence == 9
    # Another one begins where it stood: at the end of the first, and on in the next.
    log.append(mixed(1, seed=3), "next")
    async with Process(log).processor as another:
        await another.drain()
        assert another.statistics().handled == 1
