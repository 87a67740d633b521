"""Compiled handlers in a replay: the same digest, state and emissions however it is cut, driven and sought."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hftlab.bus import EventBus
from hftlab.bus.compiled import CompiledHandler, compile_handler
from hftlab.errors import HandlerFailed
from hftlab.events import EventType, OrderEvent, SignalEvent
from hftlab.events.records import event_id
from hftlab.replay import Replay
from tests.replay.memory_log import START_NS, STEP_NS, MemoryLog, trades

NUMBER = 3  # of the session in MemoryLog
BATCH_ROWS = 64


def strategy(record: Any, state: Any, emit: Any) -> None:
    state[0] = 0.75 * state[0] + 0.25 * record.price
    state[1] += 1.0
    if record.price % 50.0 == 7.0:
        raise ValueError("wanted")
    if record.price % 9.0 == 0.0:
        emit.signal(state[0], "AVERAGE", "jit")
        if record.price % 18.0 == 0.0:
            emit.order("BUY", state[1], record.price, prefix="jit-")


class Compiled:
    """The strategy on a bus of its own, compiled once for all tests, with a fresh state each time."""

    made: CompiledHandler | None = None

    def __init__(self, log: MemoryLog, *, capacity: int = 1 << 16, **options: Any) -> None:
        self.bus = EventBus(capacity=capacity)
        self.state = np.zeros(2)
        self.seen: list[Any] = []
        if Compiled.made is None:
            Compiled.made = compile_handler(strategy, frozenset({EventType.MARKET_DATA}), self.state)
        # Subscribed as a batch handler, which compiles nothing, and turned into a compiled one.
        self.subscription = self.bus.subscribe(
            lambda batch: None, "market", mode="batch", batch_rows=BATCH_ROWS, name="strategy"
        )
        self.subscription.mode, self.subscription.compiled = "jit", Compiled.made
        Compiled.made.state = self.state
        self.bus.subscribe(self._signal, SignalEvent, name="signals")
        self.bus.subscribe(self._order, OrderEvent, name="orders")
        self.replay = Replay(log, self.bus, "btc", **options)

    def _signal(self, event: SignalEvent) -> None:
        self.seen.append((event.strength, event.cause, event.received, self.bus.clock.now_ns()))

    def _order(self, event: OrderEvent) -> None:
        self.seen.append((event.order_id, event.cause, event.event_id))

    @property
    def outcome(self) -> Any:
        failed = [failure.event.event_id for failure in self.bus.failures]  # type: ignore[union-attr]
        return self.replay.digest, self.seen, self.state.tobytes(), failed

    async def ran(self) -> Any:
        with suppress(HandlerFailed):  # raised at the end: the run goes through
            await self.replay.run()
        return self.outcome

    async def step(self, count: int) -> None:
        with suppress(HandlerFailed):
            await self.replay.step(count)


async def test_a_compiled_handler_emits_what_plain_python_would() -> None:
    ours = Compiled(MemoryLog(trades(300)))
    await ours.ran()
    average, expected = 0.0, []
    for price in range(300):
        average = 0.75 * average + 0.25 * price
        if price % 9 == 0 and price % 50 != 7:
            # Emitted at the end of its batch, when the clock is at the batch's last row.
            last = min(price // BATCH_ROWS * BATCH_ROWS + BATCH_ROWS, 300) - 1
            expected.append((average, event_id(NUMBER, price), START_NS + last * STEP_NS))
    assert [told[:3] for told in ours.seen if not isinstance(told[0], str)] == expected
    assert ours.state.tolist() == [average, 300.0]
    assert ours.subscription.failed == 6


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    cut=st.sampled_from([1, 7, 100, 999, 5_000]),
    prefetch=st.integers(1, 8),
    slice_ns=st.sampled_from([1, 20_000, 400_000, 10**9]),
    capacity=st.sampled_from([1_024, 1 << 16]),
)
def test_the_digest_and_the_state_are_the_same_whatever_the_sizes(
    cut: int, prefetch: int, slice_ns: int, capacity: int
) -> None:
    expected = asyncio.run(Compiled(MemoryLog(trades(600))).ran())
    ours = Compiled(MemoryLog(trades(600), cut=cut), prefetch=prefetch, slice_ns=slice_ns, capacity=capacity)
    assert asyncio.run(ours.ran()) == expected


async def test_stepping_gives_what_a_run_gives_and_leaves_rows_waiting_for_their_batch() -> None:
    expected = await Compiled(MemoryLog(trades(200))).ran()
    ours = Compiled(MemoryLog(trades(200)))
    await ours.step(BATCH_ROWS - 1)
    assert ours.state[1] == 0
    await ours.step(1)
    assert ours.state[1] == BATCH_ROWS
    assert await ours.ran() == expected


async def test_a_second_run_numbers_its_orders_afresh() -> None:
    ours = Compiled(MemoryLog(trades(100)))
    digest, seen, *_ = await ours.ran()
    before = list(seen)
    ours.seen.clear()
    ours.state[:] = 0
    assert (await ours.ran())[:2] == (digest, before)
    assert next(told[0] for told in before if isinstance(told[0], str)) == "jit-1"
