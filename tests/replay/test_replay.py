"""A replay is always the same, whatever is cut, interrupted, cancelled or in its way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hftlab.bus import EventBus
from hftlab.errors import BusBusy, BusError, EmptyRange, HandlerFailed, ReplayError, ValidationError
from hftlab.events import Event, EventBatch, EventType, OrderEvent, Side, SignalEvent, SourceTable, SymbolTable
from hftlab.events.ports import LogRange, SessionInfo
from hftlab.events.records import Rows
from hftlab.replay import Replay, Selection, State, course
from tests.replay.memory_log import START_NS, STEP_NS, MemoryLog, trades

COUNT = 3_000


class SlowLog(MemoryLog):
    """Lets the loop turn before every batch, as a server does, and fails where it is told to.

    ``fails_before`` are log sequences: the read that comes to one raises, once.
    """

    def __init__(
        self, batch: EventBatch, *, turns: int = 2, fails_before: tuple[int, ...] = (), **options: Any
    ) -> None:
        super().__init__(batch, **options)
        self.turns = turns
        self.fails_before = set(fails_before)
        self.waiting = 0

    async def read(
        self, session: SessionInfo, wanted: LogRange, *, symbols: SymbolTable, sources: SourceTable, prefetch: int
    ) -> AsyncIterator[EventBatch]:
        async for batch in super().read(session, wanted, symbols=symbols, sources=sources, prefetch=prefetch):
            self.waiting += 1
            try:
                for _ in range(self.turns):
                    await asyncio.sleep(0)
            finally:
                self.waiting -= 1
            first, last = batch.records["log_sequence"][[0, -1]].tolist()
            due = {number for number in self.fails_before if first <= number <= last}
            if due:
                self.fails_before -= due
                raise ConnectionError("the server went away")
            yield batch


def mixed(count: int) -> EventBatch:
    """Trades of two symbols, with an order after every tenth."""
    events: list[Event] = list(trades(count, ("BTCUSDT", "ETHUSDT")))
    for index in range(count - 1, 0, -10):
        at = events[index]
        events.insert(
            index,
            OrderEvent(
                symbol=at.symbol, order_id=f"o{index}", direction=Side.BUY, quantity=1.0,
                timestamp=at.timestamp, received=at.received,
            ),
        )  # fmt: skip
    return EventBatch.from_events(events)


def strategy(bus: EventBus, seen: list[Any]) -> None:
    """Handlers of every kind, some of which emit."""

    @bus.on("market", symbol="BTC*", name="fields")
    def fields(price: float) -> SignalEvent | None:
        seen.append(("fields", price, bus.clock.now_ns()))
        return SignalEvent(symbol="BTCUSDT", signal_type="X", strength=price) if price % 7 == 0 else None

    @bus.on("market", mode="batch", batch_rows=64, name="batch")
    def batch(batch: EventBatch) -> list[SignalEvent]:
        seen.append(("batch", batch.records["price"].tolist(), bus.clock.now_ns()))
        return [SignalEvent(symbol="ETHUSDT", signal_type="B", strength=float(len(batch)))]

    @bus.on("order", name="waits")
    async def waits(event: OrderEvent) -> None:
        await asyncio.sleep(0)
        seen.append(("waits", event.order_id, bus.clock.now_ns()))

    @bus.on("signal", name="signals")
    def signals(event: SignalEvent) -> None:
        seen.append(("signal", event.strength, event.cause, event.received))


def made(log: MemoryLog, *, capacity: int = 1 << 16, **options: Any) -> tuple[Replay, list[Any], EventBus]:
    bus = EventBus(capacity=capacity)
    seen: list[Any] = []
    strategy(bus, seen)
    return Replay(log, bus, "btc", **options), seen, bus


async def once(log: MemoryLog, **options: Any) -> tuple[str, list[Any]]:
    replay, seen, _ = made(log, **options)
    await replay.run()
    return replay.digest, seen


# -- always the same --------------------------------------------------------------------------------------------------


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(
    cut=st.sampled_from([1, 7, 100, 999, 5_000]),
    prefetch=st.integers(1, 8),
    slice_ns=st.sampled_from([1, 20_000, 400_000, 10**9]),
    capacity=st.sampled_from([1_024, 1 << 16]),
    slow=st.booleans(),
)
def test_the_digest_and_every_call_are_the_same_whatever_the_sizes(
    cut: int, prefetch: int, slice_ns: int, capacity: int, slow: bool
) -> None:
    batch = mixed(600)
    expected = asyncio.run(once(MemoryLog(batch)))
    log = SlowLog(batch, cut=cut) if slow else MemoryLog(batch, cut=cut)
    assert asyncio.run(once(log, prefetch=prefetch, slice_ns=slice_ns, capacity=capacity)) == expected


async def test_the_digest_tells_what_was_delivered_and_emitted() -> None:
    batch = mixed(100)
    base = (await once(MemoryLog(batch)))[0]
    fewer = await once(MemoryLog(batch), selection=Selection(end=START_NS + 50 * STEP_NS))
    assert fewer[0] != base
    replay = Replay(MemoryLog(batch), EventBus(), "btc")
    await replay.run()
    assert replay.digest != base  # nobody emits
    renamed, _, _ = made(MemoryLog(batch, name="other", number=9))
    renamed.session_name = "other"
    assert (await renamed.run()).digest == base


async def test_after_the_end_a_run_begins_afresh() -> None:
    replay, seen, _ = made(MemoryLog(mixed(300)))
    first = (await replay.run()).digest
    calls = list(seen)
    seen.clear()
    assert replay.state is State.DONE
    assert (await replay.run()).digest == first
    assert seen == calls


async def test_steps_return_what_they_delivered_and_led_to() -> None:
    replay, _, _ = made(MemoryLog(trades(20)), slice_ns=1)
    first = await replay.step()
    assert [event.event_type for event in first] == [EventType.MARKET_DATA, EventType.SIGNAL]
    rest = [await replay.step(6) for _ in range(4)]
    prices = [event.price for batch in rest for event in batch if event.event_type is EventType.MARKET_DATA]  # type: ignore[attr-defined]
    assert prices == list(range(1, 20))
    assert replay.state is State.DONE
    assert len(await replay.step()) == 0


async def test_a_step_awaits_the_handlers_of_what_its_event_led_to() -> None:
    bus = EventBus()
    seen: list[str] = []

    @bus.on("signal")
    async def slow(event: SignalEvent) -> None:
        await asyncio.sleep(0)
        seen.append("handled")

    bus.subscribe(lambda price: SignalEvent(symbol="BTCUSDT", signal_type="s"), "market", name="emits")
    replay = Replay(MemoryLog(trades(5)), bus, "btc", slice_ns=1)
    await replay.step()
    assert seen == ["handled"]


@pytest.mark.parametrize("count", [0, -1, True, 1.5, "3", None])
async def test_a_step_is_a_number_of_events(count: Any) -> None:
    with pytest.raises(ValidationError, match="step\\(n\\) takes a number of events of at least 1; got"):
        await Replay(MemoryLog(trades(5)), EventBus(), "btc").step(count)


# -- cancelled, interrupted, cut off ----------------------------------------------------------------------------------


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.sampled_from([50, 333]))
def test_cancelling_it_anywhere_loses_and_doubles_nothing(turns: list[int], cut: int) -> None:
    """Cancelled while it reads, while it works, and between the two. A handler that waits just then has failed."""
    batch = trades(600)

    async def main() -> None:
        expected = await once(MemoryLog(batch))
        replay, seen, _ = made(SlowLog(batch, cut=cut), slice_ns=1)
        for count in turns:
            task = asyncio.create_task(replay.run())
            for _ in range(count):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if replay.state is State.DONE:
                return
            assert replay.state in (State.PAUSED, State.READY)
        await replay.run()
        assert (replay.digest, seen) == expected

    asyncio.run(main())


async def test_cancelled_while_it_waits_for_the_server_it_reads_on_from_there() -> None:
    log = SlowLog(trades(COUNT), turns=50, cut=500)
    replay, seen, _ = made(log)
    task = asyncio.create_task(replay.run())
    while not (log.waiting and seen):  # noqa: ASYNC110
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert replay.state is State.PAUSED
    await replay.run()
    assert (replay.digest, seen) == await once(MemoryLog(trades(COUNT)))
    assert log.reads == log.closed == 2


async def test_an_error_of_the_server_is_raised_and_the_next_run_goes_on_behind_it() -> None:
    replay, seen, _ = made(SlowLog(trades(COUNT), cut=100, fails_before=(0, 1_234, 2_950)))
    for _ in range(3):
        with pytest.raises(ConnectionError, match="the server went away"):
            await replay.run()
        assert replay.state is State.PAUSED
    await replay.run()
    assert (replay.digest, seen) == await once(MemoryLog(trades(COUNT)))


async def test_an_error_of_the_users_predicate_loses_nothing_either() -> None:
    broken = True

    def where(records: Rows) -> Any:
        if broken and records["price"][-1] > 1_500:
            raise TypeError("not yet")
        return records["price"] >= 0

    replay, seen, _ = made(MemoryLog(trades(COUNT), cut=100), selection=Selection(where=where))
    with pytest.raises(TypeError, match="not yet"):
        await replay.run()
    broken = False
    await replay.run()
    assert (replay.digest, seen) == await once(MemoryLog(trades(COUNT)))
    assert replay.statistics().filtered == 0


async def test_an_interrupt_in_a_handler_pauses_it() -> None:
    replay, seen, bus = made(MemoryLog(trades(COUNT)))

    @bus.on("market", where=lambda records: records["price"] % 1_000 == 500, name="interrupts")
    def interrupts(price: float) -> None:
        raise KeyboardInterrupt

    for delivered in (501, 1_501, 2_501):
        with pytest.raises(KeyboardInterrupt):
            await replay.run()
        assert replay.state is State.PAUSED
        assert replay.delivered == delivered
    await replay.run()
    assert seen == (await once(MemoryLog(trades(COUNT))))[1]
    assert replay.digest == (await once(MemoryLog(trades(COUNT))))[0]


async def test_a_session_that_grows_is_replayed_as_it_was_at_the_beginning() -> None:
    log = MemoryLog(trades(500), cut=100)
    replay = Replay(log, EventBus(), "btc")
    await replay.step(150)
    log.append(trades(300, first=500))
    await replay.run()
    assert replay.delivered == 500
    assert (await replay.run()).delivered == 800


# -- failures ---------------------------------------------------------------------------------------------------------


async def test_what_handlers_raise_is_raised_at_the_end_and_the_replay_is_complete() -> None:
    bus = EventBus()

    @bus.on("market")
    def fails(price: float) -> None:
        if price in (3, 5):
            raise ValueError(f"at {price:.0f}")

    replay = Replay(MemoryLog(trades(100)), bus, "btc")
    with pytest.raises(HandlerFailed, match=r"ValueError: at 3\n.*1 more failure"):
        await replay.run()
    assert (replay.state, replay.delivered) == (State.DONE, 100)
    with pytest.raises(HandlerFailed, match="at 3"):
        await replay.run()


async def test_what_a_step_leads_to_is_raised_by_the_step() -> None:
    bus = EventBus()

    @bus.on("market")
    def fails(price: float) -> None:
        if price == 3:
            raise ValueError("at 3")

    replay = Replay(MemoryLog(trades(10)), bus, "btc")
    await replay.step(3)
    with pytest.raises(HandlerFailed, match="at 3"):
        await replay.step()
    assert len(await replay.step()) == 1


async def test_filters_that_leave_nothing_say_so() -> None:
    replay = Replay(
        MemoryLog(trades(100)), EventBus(), "btc", Selection(where=lambda records: records["price"] < 0)
    )  # fmt: skip
    with pytest.raises(EmptyRange, match="where= left none of the 100 events that session 'btc' has in this range"):
        await replay.run()


async def test_a_range_between_two_events_says_what_there_is() -> None:
    selection = Selection(start=START_NS + STEP_NS + 1, end=START_NS + STEP_NS + 2)
    with pytest.raises(EmptyRange, match=r"no event .*'btc'.*2024-08-08T23:54:30"):
        await Replay(MemoryLog(trades(100)), EventBus(), "btc", selection).run()


# -- whose bus it is --------------------------------------------------------------------------------------------------


async def test_a_paused_replay_gives_its_bus_to_the_next_and_its_queued_events_to_nobody() -> None:
    bus = EventBus()
    seen: list[float] = []
    bus.subscribe(lambda price: seen.append(price), "market")
    first, second = (Replay(MemoryLog(trades(100)), bus, "btc") for _ in range(2))
    await first.step(5)
    await second.step(2)
    assert seen == [0, 1, 2, 3, 4, 0, 1]
    assert first.state is State.CLOSED
    assert first.delivered == 5
    with pytest.raises(ReplayError, match="gave its bus to a later one"):
        await first.step()
    await first.run()
    assert seen[7:] == list(range(100))


async def test_two_tasks_can_not_run_one_replay() -> None:
    replay, seen, _ = made(SlowLog(trades(300)))
    tasks = [asyncio.create_task(replay.run()) for _ in range(3)]
    await asyncio.wait(tasks)
    errors = [task.exception() for task in tasks]
    assert sorted(type(error).__name__ for error in errors) == ["NoneType", "ReplayError", "ReplayError"]
    assert (replay.digest, seen) == await once(MemoryLog(trades(300)))


async def test_closing_it_while_it_runs_elsewhere_pauses_it_first() -> None:
    log = SlowLog(trades(COUNT), turns=5)
    replay, seen, bus = made(log, slice_ns=1)
    task = asyncio.create_task(replay.run())
    while not seen:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await replay.close()
    await asyncio.wait([task])
    assert replay.state is State.CLOSED
    assert bus.run is None
    assert log.closed == log.reads
    await replay.run()
    assert replay.digest == (await once(MemoryLog(trades(COUNT))))[0]


async def test_closing_the_bus_under_a_running_replay_ends_it_with_an_error() -> None:
    replay, seen, bus = made(SlowLog(trades(COUNT), turns=5), slice_ns=1)
    task = asyncio.create_task(replay.run())
    while not seen:  # noqa: ASYNC110
        await asyncio.sleep(0)
    bus.close()
    with pytest.raises(BusError, match="has left the bus"):
        await task
    assert replay.state is State.CLOSED


@pytest.mark.parametrize("call", ["close", "step", "run", "seek", "wait", "paused", "run_until"])
@pytest.mark.parametrize("background", [False, True])
async def test_a_handler_can_not_wait_for_the_replay_that_waits_for_it(call: str, background: bool) -> None:
    bus = EventBus()
    replay = Replay(MemoryLog(trades(5)), bus, "btc")

    @bus.on("market")
    async def asks(event: Event) -> None:
        await asyncio.sleep(0)
        await getattr(replay, call)(*([START_NS] if call in ("seek", "run_until") else []))

    async with asyncio.timeout(10):
        if background:
            replay.play()
        with pytest.raises(HandlerFailed, match=r"BusBusy|ReplayError"):
            await (replay.wait() if background else replay.run())
    assert replay.delivered == 5


async def test_a_handler_may_pause_its_replay() -> None:
    bus = EventBus()
    replay = Replay(MemoryLog(trades(100)), bus, "btc", slice_ns=1)
    bus.subscribe(lambda price: replay.pause() if price == 40 else None, "market")
    await replay.run()
    assert replay.state is State.PAUSED
    assert 41 <= replay.delivered < 100
    await replay.run()
    assert replay.delivered == 100


async def test_live_events_go_first() -> None:
    bus = EventBus()
    seen: list[str] = []
    bus.subscribe(lambda event: seen.append(event.symbol), "market")
    bus.offer(trades(3, ("LIVE",)))
    await Replay(MemoryLog(trades(2)), bus, "btc").run()
    assert seen == ["LIVE"] * 3 + ["BTCUSDT"] * 2


# -- shown ------------------------------------------------------------------------------------------------------------


async def test_a_bar_is_shown_after_a_second_or_when_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await Replay(MemoryLog(trades(100)), EventBus(), "btc").run()
    assert capsys.readouterr().err == ""
    await Replay(MemoryLog(trades(100)), EventBus(), "btc").run(progress=True)
    assert "btc" in capsys.readouterr().err
    monkeypatch.setattr(course, "_PROGRESS_AFTER_S", 0.0)
    await Replay(MemoryLog(trades(100)), EventBus(), "btc").run()
    assert "btc" in capsys.readouterr().err
    await Replay(MemoryLog(trades(100)), EventBus(), "btc").run(progress=False)
    assert capsys.readouterr().err == ""


async def test_a_bar_starts_no_thread() -> None:
    before = threading.active_count()
    await Replay(MemoryLog(trades(100)), EventBus(), "btc").run(progress=True)
    assert threading.active_count() == before


async def test_reprs_are_the_same_for_the_same_position_and_escaped() -> None:
    replay = Replay(MemoryLog(trades(10), name="<b>"), EventBus(), "<b>")
    assert repr(replay) == "Replay(<b>: ready, 0 events)"
    await replay.step(3)
    assert repr(replay) == "Replay(<b>: paused, 3 events, at 2024-08-08T23:54:30.002000000Z)"
    shown = replay._repr_html_()
    assert "<b>Replay</b> of &lt;b&gt;" in shown
    assert replay.digest in shown
    assert shown == replay._repr_html_()
    with pytest.raises(ReplayError, match="nothing has been delivered yet"):
        _ = Replay(MemoryLog(trades(10)), EventBus(), "btc").digest


@pytest.mark.parametrize(
    "options", [{"prefetch": 0}, {"prefetch": 65}, {"slice_ns": 0}, {"speed": -1}, {"max_gap_s": -1}]
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Replay(MemoryLog(trades(10)), EventBus(), "btc", **options)


async def test_a_busy_bus_says_who_is_on_it() -> None:
    bus = EventBus()
    first = Replay(SlowLog(trades(COUNT)), bus, "btc")
    task = asyncio.create_task(first.run())
    while first.state is not State.RUNNING:  # noqa: ASYNC110
        await asyncio.sleep(0)
    with pytest.raises(BusBusy, match="replay of btc is on this bus"):
        await Replay(MemoryLog(trades(10)), bus, "btc").run()
    await task
