"""Async handlers with queues of their own: what waits, in which order it goes on, and who is held up by it."""

from __future__ import annotations

import asyncio
import gc
import itertools
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hftlab.bus import EventBus, Subscription, emission, lane_calls, mailbox
from hftlab.bus.coroutines import POSTED, Coroutines
from hftlab.bus.failures import FailureLog
from hftlab.clock import VirtualClock
from hftlab.errors import BusBusy, CascadeError, HandlerFailed, HandlerTimeout, ValidationError
from hftlab.events import Event, EventBatch, MarketDataEvent, OrderEvent, Side, SignalEvent
from hftlab.events.records import EventType, Priority
from tests.bus.samples import pumped, trades, until

CAPACITY = 1_024


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop whose time jumps to the next timer when nothing else is left to do."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__()

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


@pytest.fixture
def bus() -> EventBus:
    return EventBus(capacity=CAPACITY)


@pytest.fixture
def jumping() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        yield runner


def order(number: int = 0) -> OrderEvent:
    return OrderEvent(symbol="BTC", order_id=f"o{number}", direction=Side.BUY, quantity=1.0)


def tick(price: float = 1.0) -> MarketDataEvent:
    return MarketDataEvent(symbol="BTC", price=price, volume=1.0)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class Waiter:
    """A handler of market data that waits for its gate at each price, and tells what it began and ended."""

    def __init__(self, bus: EventBus, **options: Any) -> None:
        self.gate = asyncio.Semaphore(0)
        self.begun: list[Any] = []
        self.ended: list[Any] = []
        self.subscription = bus.subscribe(self.handle, options.pop("what", "market"), name="waiter", **options)

    async def handle(self, event: Any) -> None:
        self.begun.append(event.order_id if isinstance(event, OrderEvent) else event.price)
        await self.gate.acquire()
        self.ended.append(self.begun[-1])

    def open(self, calls: int = 1) -> None:
        for _ in range(calls):
            self.gate.release()


@asynccontextmanager
async def closed_at_the_end(bus: EventBus) -> AsyncIterator[None]:
    """Keep the pump going, and give up what is left at the end."""
    async with pumped(bus):
        yield
    bus.close()


# -- who is held up ---------------------------------------------------------------------------------------------------


async def test_a_handler_that_waits_holds_nobody_else_up(bus: EventBus) -> None:
    waiter, seen = Waiter(bus), list[float]()
    bus.subscribe(lambda price: seen.append(price), "market", name="beside")
    async with pumped(bus):
        bus.offer(trades(10, first=1))
        await until(lambda: len(seen) == 10)
        assert waiter.begun == [1]
        assert waiter.subscription.queued == 9
        assert not bus.do_work().idle
        waiter.open(10)
        await bus.drain()
    assert waiter.begun == waiter.ended == list(range(1, 11))
    assert waiter.subscription.calls == waiter.subscription.delivered == 10
    assert bus.statistics().handled == 10


async def test_a_coroutine_that_never_waits_costs_no_task_and_is_emitted_in_line(bus: EventBus) -> None:
    tasks: set[int] = set()
    seen: list[str] = []

    @bus.on("market")
    async def answers(price: float) -> SignalEvent:
        tasks.add(len(asyncio.all_tasks()))
        return SignalEvent(symbol="BTC", signal_type=f"{price:.0f}")

    bus.subscribe(lambda event: seen.append(event.signal_type), "signal", name="signals")
    bus.subscribe(lambda price: seen.append(f"price {price:.0f}"), "market", name="prices")
    bus.offer(trades(3))
    while not bus.do_work(max_ns=1_000_000_000).idle:
        pass
    assert seen == ["price 0", "0", "price 1", "1", "price 2", "2"]
    assert tasks == {len(asyncio.all_tasks())}


async def test_a_full_queue_holds_up_the_lane_that_posts_and_no_other(bus: EventBus) -> None:
    waiter, orders, prices = Waiter(bus, queue=4), list[str](), list[float]()
    bus.subscribe(lambda event: orders.append(event.order_id), "order", name="orders")
    bus.subscribe(lambda price: prices.append(price), "market", name="prices")
    async with pumped(bus):
        bus.offer(trades(20, first=1))
        await until(lambda: len(prices) == 5)
        await turns()
        # One is in progress, four wait, and the sixth has no room.
        assert (len(prices), waiter.subscription.queued) == (5, 4)
        assert bus.statistics().waiting >= 15
        await bus.publish(order(1))
        await until(lambda: orders == ["o1"])
        assert len(prices) == 5
        waiter.open(20)
        await bus.drain()
    assert waiter.ended == prices == list(range(1, 21))


async def test_a_lane_is_let_on_when_half_of_the_places_are_free(bus: EventBus) -> None:
    waiter, prices = Waiter(bus, queue=4), list[float]()
    bus.subscribe(lambda price: prices.append(price), "market", name="prices")
    async with closed_at_the_end(bus):
        bus.offer(trades(20, first=1))
        await until(lambda: len(prices) == 5)
        waiter.open()
        await turns()
        assert (len(prices), waiter.subscription.queued) == (5, 3)
        waiter.open()
        await until(lambda: waiter.subscription.queued == 4)
        assert len(prices) == 7


async def test_an_order_does_not_wait_behind_quotes_in_the_queue_of_a_handler_of_both(bus: EventBus) -> None:
    waiter = Waiter(bus, what="*")
    async with pumped(bus):
        bus.offer(trades(5, first=1))
        await until(lambda: waiter.subscription.queued == 4)
        for number in range(2):
            await bus.publish(order(number))
        waiter.open(7)
        await bus.drain()
    assert waiter.ended == [1, "o0", "o1", 2, 3, 4, 5]


async def test_with_queue_0_it_is_awaited_in_line(bus: EventBus) -> None:
    waiter, seen = Waiter(bus, queue=0), list[float]()
    bus.subscribe(lambda price: seen.append(price), "market", name="beside")
    async with pumped(bus):
        bus.offer(trades(3, first=1))
        await until(lambda: bool(waiter.begun))
        await turns()
        assert seen == []
        waiter.open(3)
        await bus.drain()
    assert seen == [1, 2, 3]


async def test_calls_that_never_wait_behind_one_that_did_leave_the_loop_its_turns(
    bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox, "SLICE_NS", 0)
    gate, seen, between = asyncio.Event(), list[float](), list[int]()

    @bus.on("market")
    async def first_waits(price: float) -> None:
        if not price:
            await gate.wait()
        seen.append(price)

    async with pumped(bus):
        bus.offer(trades(50))
        await until(lambda: bus.subscriptions[0].queued == 49)
        gate.set()
        while len(seen) < 50:
            between.append(len(seen))
            await asyncio.sleep(0)
    assert len(set(between)) > 25
    assert seen == list(range(50))


# -- what comes of it -------------------------------------------------------------------------------------------------


async def test_what_it_returns_is_emitted_when_it_ends_with_its_own_event_as_the_cause(bus: EventBus) -> None:
    gate, seen = asyncio.Event(), list[Event]()

    @bus.on("market")
    async def answers(event: MarketDataEvent) -> list[SignalEvent]:
        await gate.wait()
        return [SignalEvent(symbol="BTC", signal_type=f"{event.price:.0f}") for _ in range(2)]

    bus.subscribe(seen.append, "signal", name="signals")
    async with pumped(bus):
        bus.offer(trades(3, session_number=1))
        await until(lambda: bus.subscriptions[0].queued == 2)
        gate.set()
        await bus.drain()
    assert [event.signal_type for event in seen if isinstance(event, SignalEvent)] == ["0", "0", "1", "1", "2", "2"]
    assert [event.cause - (1 << 40) for event in seen] == [0, 0, 1, 1, 2, 2]
    assert len({event.event_id for event in seen}) == 6
    assert bus.subscriptions[0].emitted == bus.statistics().emitted == 6


async def test_it_fails_with_the_event_that_it_was_given_however_far_the_ring_has_gone_on(bus: EventBus) -> None:
    gate = asyncio.Event()

    @bus.on("market", where=lambda records: records["price"] == 7)
    async def fails(price: float) -> None:
        await gate.wait()
        raise ValueError("wanted")

    async with pumped(bus):
        bus.offer(trades(CAPACITY))
        for first in range(1, 4):
            await bus.publish_batch(trades(CAPACITY, first=first * CAPACITY))
        await until(lambda: bus.statistics().waiting == 0)
        gate.set()
        with pytest.raises(HandlerFailed, match="wanted") as caught:
            await bus.drain()
    assert caught.value.event.price == 7  # type: ignore[attr-defined]
    counts = bus.statistics()
    assert (counts.handled, counts.dead_lettered, bus.subscriptions[0].failed) == (4 * CAPACITY - 1, 1, 1)


async def test_an_event_on_which_two_handlers_fail_is_lost_once(bus: EventBus) -> None:
    async def fails(event: Event) -> None:
        await asyncio.sleep(0)
        raise ValueError("wanted")

    bus.subscribe(fails, "market", name="one")
    bus.subscribe(fails, "market", name="two")
    bus.subscribe(lambda price: 1 / (price - 1) and None, "market", name="three")
    bus.offer(trades(3))
    async with pumped(bus):
        with pytest.raises(HandlerFailed):
            await bus.drain()
    counts = bus.statistics()
    assert (counts.published, counts.handled, counts.dead_lettered, counts.failures) == (3, 0, 3, 7)


async def test_a_batch_that_waits_is_a_copy(bus: EventBus) -> None:
    gate, sums = asyncio.Event(), list[tuple[float, float]]()

    @bus.on("market", mode="batch", batch_rows=256)
    async def look(batch: EventBatch) -> None:
        before = float(batch.records["price"].sum())
        await gate.wait()
        sums.append((before, float(batch.records["price"].sum())))

    subscription = bus.subscriptions[0]
    async with pumped(bus):
        for first in range(3):
            await bus.publish_batch(trades(CAPACITY, first=first * CAPACITY))
        await until(lambda: bool(subscription.calls) and subscription.queued == 8 * 256)
        gate.set()
        await bus.drain()
    assert len(sums) == 12
    assert all(before == after for before, after in sums)
    assert subscription.delivered == 3 * CAPACITY


async def test_a_failing_call_is_tried_as_often_as_was_asked_for(bus: EventBus) -> None:
    tried: list[float] = []

    @bus.on("market", attempts=3)
    async def fails(price: float) -> None:
        tried.append(price)
        if price != 1:
            await asyncio.sleep(0)
        if price or len(tried) < 3:
            raise ValueError("wanted")

    bus.offer(trades(3))
    async with pumped(bus):
        with pytest.raises(HandlerFailed):
            await bus.drain()
    assert tried == [0] * 3 + [1] * 3 + [2] * 3
    assert bus.failures.count == 2


async def test_handlers_that_feed_themselves_are_cut_off_though_they_wait(
    bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emission, "CASCADE_LIMIT", 50)
    calls = 0

    @bus.on("signal")
    async def again(event: SignalEvent) -> SignalEvent:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        return SignalEvent(symbol="BTC", signal_type="again")

    bus.publish_nowait(SignalEvent(symbol="BTC", signal_type="first"))
    async with pumped(bus):
        with pytest.raises(HandlerFailed) as caught:
            await bus.drain()
    assert isinstance(caught.value.__cause__, CascadeError)
    assert calls == 51


async def test_a_keyboard_interrupt_in_a_call_is_nobodys_failure_and_the_next_goes_on(bus: EventBus) -> None:
    steps: list[float] = []

    class Mailbox(mailbox.Mailbox):
        def step(self, call: mailbox.Call) -> Any:
            steps.append(call.given().price)  # type: ignore[union-attr]
            if steps == [1]:
                # With a KeyboardInterrupt asyncio ends the loop; this goes the same way through the mailbox.
                raise GeneratorExit
            return super().step(call)

    seen: list[float] = []

    @bus.on("market")
    async def waits(price: float) -> None:
        await asyncio.sleep(0)
        seen.append(price)

    subscription = bus.subscriptions[0]
    subscription.mailbox = Mailbox(100, bus._lanes.mailboxes, bus._lanes.coroutines)
    bus.offer(trades(4))
    async with pumped(bus):
        await bus.drain()
    assert steps == [1, 2, 3]
    assert seen == [0, 2, 3]
    assert bus.failures.count == 0


# -- timeouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", [None, 0])
def test_a_call_that_takes_longer_is_cancelled_and_fails(jumping: asyncio.Runner, queue: int | None) -> None:
    cleaned: list[float] = []

    async def main() -> EventBus:
        bus = EventBus(capacity=CAPACITY)

        @bus.on("market", timeout_s=2.0, queue=queue)
        async def slow(price: float) -> None:
            try:
                await asyncio.sleep(1.9 + 0.2 * price)
            except asyncio.CancelledError:
                cleaned.append(asyncio.get_running_loop().time())
                raise

        bus.offer(trades(3))
        async with pumped(bus):
            with pytest.raises(
                HandlerFailed, match=r"slow:market.* took longer than its timeout_s=2 and was cancelled"
            ):
                await bus.drain()
        return bus

    bus = jumping.run(main())
    # Each has its time from when it begins, not from when it was queued.
    assert cleaned == pytest.approx([1.9 + 2, 1.9 + 4])
    assert [type(failure.error) for failure in bus.failures] == [HandlerTimeout] * 2
    assert (bus.subscriptions[0].timed_out, bus.subscriptions[0].failed) == (2, 2)


@pytest.mark.parametrize("queue", [None, 0])
@pytest.mark.parametrize("stubborn", ["returns", "raises", "waits on"])
def test_no_handler_outlives_its_timeout_whatever_it_makes_of_it(
    jumping: asyncio.Runner, stubborn: str, queue: int | None
) -> None:
    async def main() -> tuple[EventBus, float]:
        bus = EventBus(capacity=CAPACITY)

        @bus.on("market", timeout_s=1.0, queue=queue)
        async def slow(price: float) -> SignalEvent:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if stubborn == "raises":
                    raise ValueError("on the way out") from None
                if stubborn == "waits on":
                    await asyncio.Event().wait()
            return SignalEvent(symbol="BTC", signal_type="too late")

        bus.offer(trades(1))
        async with pumped(bus):
            with pytest.raises(HandlerFailed) as caught:
                await bus.drain()
        assert isinstance(caught.value.__cause__, HandlerTimeout)
        assert isinstance(caught.value.__cause__.__cause__, ValueError) == (stubborn == "raises")
        return bus, asyncio.get_running_loop().time()

    bus, ended_at = jumping.run(main())
    assert ended_at == pytest.approx(2.0 if stubborn == "waits on" else 1.0)
    assert bus.statistics().emitted == 0
    assert bus.subscriptions[0].timed_out == 1


def test_in_a_run_there_are_neither_queues_nor_timeouts(jumping: asyncio.Runner) -> None:
    async def main() -> list[str]:
        bus, seen = EventBus(capacity=CAPACITY), list[str]()

        @bus.on("market", timeout_s=0.5)
        async def slow(price: float) -> None:
            await asyncio.sleep(1.0)
            seen.append(f"slow {price:.0f}")

        bus.subscribe(lambda price: seen.append(f"beside {price:.0f}"), "market", name="beside")
        run = bus.begin_run("a run", VirtualClock())
        run.offer(trades(2))
        while not run.work(100, 1 << 62).idle:
            await run.settle()
        run.end()
        assert bus.failures.count == bus.subscriptions[0].timed_out == 0
        return seen

    assert jumping.run(main()) == ["slow 0", "beside 0", "slow 1", "beside 1"]


def test_options_that_make_no_sense_are_refused() -> None:
    async def handler(event: Event) -> None: ...

    bus = EventBus()
    with pytest.raises(ValidationError, match=r"can't be interrupted.*timeout_s=2.*bus.held_up"):
        bus.subscribe(lambda event: None, timeout_s=2.0)
    with pytest.raises(ValidationError, match="a synchronous handler has no queue"):
        bus.subscribe(lambda event: None, queue=5)
    for queue in (-1, 1.5, True, 1 << 30, "x"):
        with pytest.raises(ValidationError, match="queue= is how many events wait"):
            bus.subscribe(handler, queue=queue)
    for timeout_s in (0, -1.0, float("nan"), float("inf"), True, "x"):
        with pytest.raises(ValidationError, match="timeout_s= is a number of seconds above 0"):
            bus.subscribe(handler, timeout_s=timeout_s)


# -- the end ----------------------------------------------------------------------------------------------------------


async def test_no_run_begins_while_calls_have_not_ended(bus: EventBus) -> None:
    waiter = Waiter(bus)
    async with pumped(bus):
        bus.offer(trades(1, first=1))
        await until(lambda: waiter.begun == [1] and bus.statistics().waiting == 0)
        with pytest.raises(BusBusy, match=r"await bus.drain\(\) before a run begins"):
            bus.begin_run("a run", VirtualClock())
        waiter.open()
        await bus.drain()
        bus.begin_run("a run", VirtualClock()).end()


async def test_draining_without_a_pump_waits_for_the_calls_too(bus: EventBus) -> None:
    waiter = Waiter(bus)
    bus.offer(trades(3, first=1))
    drain = asyncio.create_task(bus.drain())
    await until(lambda: waiter.subscription.queued == 2)
    await turns()
    assert not drain.done()
    waiter.open(3)
    await drain
    assert waiter.ended == [1, 2, 3]


async def test_work_says_that_all_that_is_left_waits_and_settling_waits_for_some_of_it(bus: EventBus) -> None:
    waiter = Waiter(bus)
    bus.offer(trades(2, first=1))
    work = bus.do_work(max_ns=1_000_000_000)
    assert (work.awaiting, work.idle, work.handled) == (True, False, 2)
    settling = asyncio.create_task(bus.settle())
    await turns()
    assert not settling.done()
    waiter.open()
    await settling
    assert waiter.ended == [1]
    waiter.open()
    await bus.drain()


async def test_the_end_of_the_pump_ends_no_call(bus: EventBus) -> None:
    waiter = Waiter(bus, queue=2)
    async with pumped(bus):
        bus.offer(trades(6, first=1))
        await until(lambda: waiter.subscription.queued == 2)
    waiter.open(6)
    await bus.drain()
    assert waiter.ended == [1, 2, 3, 4, 5, 6]
    assert bus.failures.count == 0


async def test_closing_gives_up_what_waits_and_says_so(bus: EventBus) -> None:
    cleaned: list[str] = []
    bound = 3

    @bus.on("market", queue=bound)
    async def waits(event: Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("up")

    subscription = bus.subscriptions[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with pumped(bus):
            bus.offer(trades(10))
            await until(lambda: subscription.queued == bound)
            await turns()
            assert bus.close() == 10 - bound - 1
        await turns()
        gc.collect()
    assert cleaned == ["up"]
    assert subscription.missed == bound + 1
    assert (subscription.queued, bus.failures.count) == (0, 0)
    counts = bus.statistics()
    assert counts.published == 10 == counts.handled + counts.dropped


async def test_what_a_handler_raises_when_its_call_is_given_up_is_its_failure(bus: EventBus) -> None:
    @bus.on("market")
    async def waits(event: Event) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("on the way out")

    bus.offer(trades(1))
    bus.do_work(max_ns=1_000_000_000)
    assert bus.give_up_calls() == 1
    assert bus.give_up_calls() == 0
    with pytest.raises(HandlerFailed, match="on the way out"):
        bus.raise_failures()


async def test_a_bus_whose_calls_were_given_up_goes_on(bus: EventBus) -> None:
    waiter = Waiter(bus, queue=2)
    async with pumped(bus):
        bus.offer(trades(6, first=1))
        await until(lambda: waiter.subscription.queued == 2)
        await turns()
        assert bus.give_up_calls() == 4
        waiter.open(6)
        await bus.drain()
    assert waiter.ended == [5, 6]
    assert waiter.subscription.missed == 4
    assert waiter.subscription.delivered == 2


def test_the_end_of_the_loop_leaves_nothing_behind() -> None:
    bus = EventBus(capacity=CAPACITY)

    async def waits(event: Event) -> None:
        await asyncio.Event().wait()

    subscription = bus.subscribe(waits, "market", queue=2)

    async def main() -> None:
        async with pumped(bus):
            bus.offer(trades(6))
            await until(lambda: subscription.queued == 2)
            await turns()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with asyncio.Runner() as runner:
            runner.run(main())
        gc.collect()
    assert (subscription.queued, subscription.missed) == (0, 4)
    assert bus.close() == 3


# -- subscriptions that end -------------------------------------------------------------------------------------------


async def test_what_was_posted_before_a_subscription_was_cancelled_is_done(bus: EventBus) -> None:
    waiter = Waiter(bus)
    async with pumped(bus):
        bus.offer(trades(3, first=1))
        await until(lambda: waiter.subscription.queued == 2)
        bus.cancel(waiter.subscription)
        bus.offer(trades(3, first=10))
        await until(lambda: bus.statistics().waiting == 0)
        waiter.open(3)
        await bus.drain()
    assert waiter.ended == [1, 2, 3]


@pytest.mark.parametrize("kind", ["async", "in line", "sync", "batch"])
@pytest.mark.parametrize("posted", [0, 1, 4])
async def test_a_handler_that_takes_a_place_is_called_when_the_one_before_has_done_its_part(
    bus: EventBus, kind: str, posted: int
) -> None:
    waiter = Waiter(bus)

    def then(event: Any) -> None:
        prices = event.records["price"].tolist() if isinstance(event, EventBatch) else [event.price]
        waiter.ended.extend(prices)

    async def then_async(event: Any) -> None:
        then(event)

    async with pumped(bus):
        bus.offer(trades(posted, first=1))
        await until(lambda: waiter.subscription.calls == posted)
        mode: Any = "batch" if kind == "batch" else "event"
        options: dict[str, Any] = {"queue": 0} if kind == "in line" else {}
        handler = then_async if kind in ("async", "in line") else then
        fresh = bus.subscribe(handler, "market", name="waiter", mode=mode, batch_rows=3, **options)
        bus.offer(trades(3, first=10))
        await until(lambda: bus.statistics().waiting == 0)
        await turns()
        assert waiter.ended == ([] if posted else [10, 11, 12])
        waiter.open(posted)
        await bus.drain()
        bus.offer(trades(1, first=20))
        await bus.drain()
    assert waiter.ended == [*range(1, posted + 1), 10, 11, 12, 20]
    if kind in ("sync", "batch"):
        assert fresh.handler is then


# -- handlers that ask ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [0, 1])
async def test_a_handler_may_wait_for_room_on_its_own_bus(bus: EventBus, waits: int) -> None:
    seen: list[float] = []

    @bus.on("signal")
    async def answers(event: Event) -> None:
        await turns(waits)
        await bus.publish(tick(999_999))
        await bus.publish_batch(trades(5, first=2_000_000))

    bus.subscribe(lambda price: seen.append(price), "market", name="prices")
    async with pumped(bus):
        await bus.publish(SignalEvent(symbol="BTC", signal_type="s"))
        bus.offer(trades(CAPACITY))
        await bus.drain()
    assert bus.failures.count == 0
    assert seen == [*range(CAPACITY), 999_999, *range(2_000_000, 2_000_005)]


async def test_a_handler_whose_own_full_queue_holds_up_the_lane_is_told_instead_of_waiting_forever(
    bus: EventBus,
) -> None:
    gate = asyncio.Event()

    @bus.on("market", queue=2)
    async def answers(price: float) -> None:
        if not price:
            await gate.wait()
            await bus.publish(tick(5_000))

    async with pumped(bus):
        bus.offer(trades(CAPACITY))
        await until(lambda: bus.subscriptions[0].queued == 2)
        await turns()
        gate.set()
        with pytest.raises(HandlerFailed, match="waits for room in this handler's own queue: return what it should"):
            await bus.drain()
    assert bus.failures.count == 1
    assert bus.subscriptions[0].queued == 0


async def test_two_handlers_that_wait_for_each_others_lanes_are_told(bus: EventBus) -> None:
    """One holds up market data and publishes orders, the other holds up orders and publishes market data."""
    gate = asyncio.Event()
    failed: list[str] = []

    @bus.on("market", queue=1)
    async def orders(event: Event) -> None:
        await gate.wait()
        await bus.publish(order())

    @bus.on("order", queue=1)
    async def quotes(event: Event) -> None:
        await gate.wait()
        await bus.publish(tick())

    async with pumped(bus):
        bus.offer(trades(CAPACITY))
        bus.offer(EventBatch.from_events([order(number) for number in range(CAPACITY)]))
        await until(lambda: all(one.queued == 1 for one in bus.subscriptions))
        await turns()
        gate.set()
        await until(lambda: bus.failures.count > 0)
        failed += [str(failure.error) for failure in bus.failures]
        bus.close()
    assert "own queue" in failed[0]


# -- against a model --------------------------------------------------------------------------------------------------


LEVELS = (Priority.CRITICAL, Priority.NORMAL)
BOUND = 3  # so that half of the places is another number than one place


class Lane:
    """What a lane's calls are made of, and what they come to."""

    on_end = None

    def __init__(self) -> None:
        self.cascade = 0
        self.emitted: list[int] = []
        self.lost = 0

    def keep_at(self, position: int) -> Any:
        return lambda: SignalEvent(symbol="BTC", signal_type=str(position))

    def id_at(self, position: int) -> int:
        return position

    def type_at(self, position: int) -> int:
        return EventType.SIGNAL

    def emit_later(self, result: Any, subscription: Subscription, given: Any, cause: int, cascade: int) -> None:
        assert (result, given().signal_type) == (cause, str(cause))
        self.emitted.append(result)

    def lose(self, unit: Any, position: int, events: int) -> None:
        assert unit is self
        self.lost += events


class Plain:
    """The same in a few lines: numbers in lists."""

    def __init__(self) -> None:
        self.kinds: dict[int, str] = {}
        self.current: int | None = None
        self.waiting: dict[Priority, list[int]] = {level: [] for level in LEVELS}
        self.parked: dict[Priority, int] = {}
        self.begun: list[int] = []
        self.emitted: list[int] = []
        self.failed: list[str] = []
        self.missed = 0

    def post(self, level: Priority, number: int, kind: str) -> str:
        self.kinds[number] = kind
        if self.current is not None:
            if len(self.waiting[level]) < BOUND:
                self.waiting[level].append(number)
                return "posted"
            self.parked[level] = number
            return "parked"
        self.begun.append(number)
        if kind == "waits":
            self.current = number
            return "posted"
        return kind

    def end(self, outcome: str) -> None:
        """The call in progress ends, and with it all behind it that never wait."""
        number = self.current
        assert number is not None
        while True:
            if outcome == "emits":
                self.emitted.append(number)
            elif outcome != "silent":
                self.failed.append(f"{number} {outcome}")
            level = next((level for level in LEVELS if self.waiting[level]), None)
            self.current = number = None if level is None else self.waiting[level].pop(0)
            for one in list(self.parked):
                if len(self.waiting[one]) <= (1 if outcome == "silent" else 2):
                    self.waiting[one].append(self.parked.pop(one))
            if number is None:
                return
            self.begun.append(number)
            outcome = self.kinds[number]
            if outcome == "waits":
                return

    def give_up(self) -> int:
        count = sum(map(len, self.waiting.values())) + len(self.parked) + (self.current is not None)
        self.missed += count
        self.current = None
        self.parked.clear()
        for numbers in self.waiting.values():
            numbers.clear()
        return count


class MailboxMachine(RuleBasedStateMachine):
    """A mailbox of two lanes, whose calls end, fail, take too long, or are given up in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = JumpingLoop()
        self.plain = Plain()
        self.failures = FailureLog()
        self.begun: list[int] = []
        self.gates: dict[int, asyncio.Future[str]] = {}
        self.completed: list[tuple[str, int]] = []
        self.numbers = itertools.count()
        mailboxes, coroutines = mailbox.Mailboxes(), Coroutines()
        self.lanes = {level: Lane() for level in LEVELS}
        self.calls = {
            level: lane_calls.LaneCalls(level, coroutines, mailboxes, self.failures, lane)
            for level, lane in self.lanes.items()
        }
        self.parked: dict[Priority, mailbox.Parked] = {}
        machine = self

        class Noting(Subscription):
            def completed(self, error: BaseException | None, events: int) -> None:
                machine.completed.append((type(error).__name__, events))

        self.subscription = Noting(
            name="it", handler=print, mode="event", types=frozenset(), is_async=True, queue=BOUND, timeout_s=10.0
        )
        self.box = self.subscription.mailbox = mailbox.Mailbox(BOUND, mailboxes, coroutines)
        self.mailboxes = mailboxes

    def settled(self, act: Any) -> Any:
        """What an act in the loop returns, when nothing moves any more."""

        async def run() -> Any:
            result = act()
            await turns(3 * (BOUND + 2) * len(LEVELS))
            return result

        return self.loop.run_until_complete(run())

    async def handle(self, number: int, kind: str) -> int | None:
        self.begun.append(number)
        outcome = kind
        if kind == "waits":
            gate = self.gates[number] = asyncio.get_running_loop().create_future()
            outcome = await gate
        if outcome == "fails":
            raise ValueError("wanted")
        return number if outcome == "emits" else None

    @rule(level=st.sampled_from(LEVELS), kind=st.sampled_from(["waits", "waits", "waits", "emits", "silent", "fails"]))
    def post(self, level: Priority, kind: str) -> None:
        self._post(level, kind)

    @rule(level=st.sampled_from(LEVELS), kinds=st.lists(st.sampled_from(["waits", "silent"]), max_size=6))
    def post_several(self, level: Priority, kinds: list[str]) -> None:
        for kind in kinds:
            self._post(level, kind)

    def _post(self, level: Priority, kind: str) -> None:
        if level in self.plain.parked:
            return  # the lane is held up
        number = next(self.numbers)
        coroutine = self.handle(number, kind)
        self.subscription.delivered += 1
        found = self.settled(lambda: self.calls[level].begin(self.subscription, coroutine, self.lanes[level], number))
        expected = self.plain.post(level, number, kind)
        if expected == "parked":
            self.parked[level] = found
            assert isinstance(found, mailbox.Parked)
        elif expected == "emits":
            assert found == number
        elif expected == "silent":
            assert found is None
        elif expected == "fails":
            assert isinstance(found, ValueError)
        else:
            assert found is POSTED

    @precondition(lambda self: self.plain.current is not None)
    @rule(outcome=st.sampled_from(["emits", "silent", "fails"]))
    def end(self, outcome: str) -> None:
        assert self.plain.current is not None
        gate = self.gates[self.plain.current]
        self.settled(lambda: gate.set_result(outcome))
        self.plain.end({"fails": "ValueError"}.get(outcome, outcome))

    @precondition(lambda self: self.plain.current is not None)
    @rule()
    def take_too_long(self) -> None:
        self.loop.now += 10.0
        self.settled(lambda: None)
        self.plain.end("HandlerTimeout")

    @precondition(lambda self: self.plain.current is not None)
    @rule()
    def cancel_what_it_awaits(self) -> None:
        assert self.plain.current is not None
        gate = self.gates[self.plain.current]
        self.settled(gate.cancel)
        self.plain.end("CancelledError")

    @precondition(lambda self: self.plain.parked)
    @rule(data=st.data())
    def give_up_a_lanes_call(self, data: st.DataObject) -> None:
        level = data.draw(st.sampled_from(sorted(self.plain.parked)))
        self.settled(self.parked[level].close)
        del self.plain.parked[level]

    @precondition(lambda self: len(self.begun) % 5 == 4)
    @rule()
    def give_up(self) -> None:
        assert self.settled(self.box.give_up) == self.plain.give_up()

    @invariant()
    def the_plain_one_agrees(self) -> None:
        plain = self.plain
        assert self.begun == plain.begun
        assert sorted(number for lane in self.lanes.values() for number in lane.emitted) == sorted(plain.emitted)
        found = [
            f"{failure.event.signal_type} {type(failure.error).__name__}"  # type: ignore[union-attr]
            for failure in self.failures
        ]
        assert found == [line.replace("fails", "ValueError") for line in plain.failed][-100:]
        assert self.box.queued == sum(map(len, plain.waiting.values()))
        assert self.box.busy == (plain.current is not None) == bool(self.mailboxes.busy)
        assert self.mailboxes.unfinished == self.box.queued + (plain.current is not None)
        assert {level for level, one in self.parked.items() if not one.posted} == set(plain.parked)
        assert self.subscription.missed == plain.missed
        assert self.subscription.timed_out == sum("HandlerTimeout" in line for line in plain.failed)
        assert sum(lane.lost for lane in self.lanes.values()) == len(plain.failed)
        assert sum(name != "NoneType" for name, _ in self.completed) == len(plain.failed)

    def teardown(self) -> None:
        self.settled(self.box.give_up)
        for parked in self.parked.values():
            parked.close()
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()


MailboxMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMailbox = MailboxMachine.TestCase
