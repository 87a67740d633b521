from __future__ import annotations

import asyncio
import heapq
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hftlab.clock import VirtualClock
from hftlab.errors import ValidationError
from hftlab.flow.throttle import Throttle

SECOND = 1_000_000_000


class FakeTime:
    """A clock, and a sleep that ends when the test has moved the clock there."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._slept = 0

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        due_ns = self.clock.now_ns() + max(1, round(seconds * SECOND))
        heapq.heappush(self._sleepers, (due_ns, self._slept, woken))
        self._slept += 1
        await woken

    async def move_to(self, seconds: float) -> None:
        """Let everything happen up to that time, in its order."""
        end_ns = round(seconds * SECOND)
        await settled()
        while self._sleepers and self._sleepers[0][0] <= end_ns:
            due_ns, _, woken = heapq.heappop(self._sleepers)
            self.clock.advance_to(due_ns)
            if not woken.done():
                woken.set_result(None)
            await settled()
        self.clock.advance_to(end_ns)

    def throttle(
        self, rate_hz: float | None = None, burst: int | None = None, concurrent: int | None = None
    ) -> Throttle:
        return Throttle(rate_hz, burst, concurrent, self.clock, self.sleep)


async def settled() -> None:
    """Let all tasks run until each waits for something: a chain of wake-ups takes a turn or two a link."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_rows_that_are_there_are_granted_at_once_without_a_turn_of_the_loop() -> None:
    throttle = FakeTime().throttle(10, 5)
    for _ in range(5):
        granted = throttle.acquire()
        with pytest.raises(StopIteration):
            granted.send(None)
    told = throttle.statistics()
    assert (told.granted, told.waits, told.waiting) == (5, 0, 0)


async def test_rows_that_are_not_there_are_waited_for_and_counted() -> None:
    fake = FakeTime()
    throttle = fake.throttle(10, 5)
    await throttle.acquire(5)
    task = asyncio.create_task(throttle.acquire(3))
    await fake.move_to(0.299)
    assert not task.done()
    assert throttle.statistics().waiting == 1
    await fake.move_to(0.3)
    assert task.done()
    told = throttle.statistics()
    assert (told.granted, told.waits, told.waiting, told.waited_ns) == (8, 1, 0, 300_000_000)


async def test_more_than_the_burst_is_gathered_in_pieces() -> None:
    fake = FakeTime()
    throttle = fake.throttle(10, 4)
    task = asyncio.create_task(throttle.acquire(24))
    await fake.move_to(1.99)
    assert not task.done()
    await fake.move_to(2.0)
    assert task.done()
    assert throttle.statistics().granted == 24


async def test_a_loop_that_wakes_late_loses_nothing_while_it_is_less_than_half_a_burst_late() -> None:
    fake = FakeTime()

    async def late(seconds: float) -> None:
        await fake.sleep(seconds + 0.2)

    throttle = Throttle(10, 6, clock=fake.clock, sleep=late)
    task = asyncio.create_task(throttle.acquire(1_006))
    await fake.move_to(100.2)
    assert task.done()


async def test_producers_are_served_in_the_order_in_which_they_came() -> None:
    fake = FakeTime()
    throttle = fake.throttle(10, 10)
    await throttle.acquire(10)
    served: list[str] = []

    async def producer(name: str, rows: int) -> None:
        await throttle.acquire(rows)
        served.append(f"{name} {fake.clock.now_ns() / SECOND:g}")

    tasks = [asyncio.create_task(producer(name, rows)) for name, rows in (("large", 15), ("small", 1), ("next", 4))]
    await fake.move_to(1.2)
    assert served == []
    await fake.move_to(10)
    assert served == ["large 1.5", "small 1.6", "next 2"]
    await asyncio.gather(*tasks)


async def test_one_that_comes_while_others_wait_does_not_overtake_them_though_there_is_enough_for_it() -> None:
    fake = FakeTime()
    throttle = fake.throttle(10, 10)
    first = asyncio.create_task(throttle.acquire(15))
    await fake.move_to(0.45)  # it has the ten, and waits; four more are in the bucket
    second = asyncio.create_task(throttle.acquire(1))
    await settled()
    assert not second.done()
    await fake.move_to(0.5)
    assert first.done()
    await fake.move_to(0.6)
    assert second.done()


async def test_a_cancelled_one_gives_back_what_it_had_gathered_and_the_next_goes_on() -> None:
    fake = FakeTime()
    throttle = fake.throttle(1, 10)
    first = asyncio.create_task(throttle.acquire(50))
    second = asyncio.create_task(throttle.acquire(9))
    third = asyncio.create_task(throttle.acquire(1))
    await settled()
    first.cancel()
    await settled()
    assert first.cancelled()
    assert second.done()
    assert third.done()
    assert fake.clock.now_ns() == 0
    told = throttle.statistics()
    assert (told.granted, told.waits, told.waiting, told.cancelled) == (10, 3, 0, 1)


async def test_one_cancelled_in_the_middle_of_the_line_blocks_nobody() -> None:
    fake = FakeTime()
    throttle = fake.throttle(1, 1)
    tasks = [asyncio.create_task(throttle.acquire()) for _ in range(4)]
    await settled()
    tasks[2].cancel()
    await fake.move_to(2)
    assert [task.done() for task in tasks] == [True] * 4
    assert [task.cancelled() for task in tasks] == [False, False, True, False]


async def test_one_cancelled_in_the_moment_in_which_its_turn_comes_blocks_nobody() -> None:
    fake = FakeTime()
    throttle = fake.throttle(1, 1)
    await throttle.acquire()
    first, second, third = (asyncio.create_task(throttle.acquire()) for _ in range(3))
    first.add_done_callback(lambda _: second.cancel())
    await fake.move_to(3)
    assert first.done()
    assert second.cancelled()
    assert third.done()


async def test_a_sleep_that_raises_ends_that_wait_and_loses_nothing() -> None:
    clock = VirtualClock()

    async def broken(seconds: float) -> None:
        raise OSError("no timer")

    throttle = Throttle(1, 2, clock=clock, sleep=broken)
    with pytest.raises(OSError, match="no timer"):
        await throttle.acquire(3)
    await throttle.acquire(2)
    assert (throttle.statistics().granted, throttle.statistics().cancelled) == (2, 1)


@given(
    calls=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 6), st.integers(-1, 900)), min_size=1, max_size=12),
    burst=st.integers(1, 6),
    rate_hz=st.sampled_from([3, 10, 25.5]),
)
@settings(max_examples=60)
def test_whoever_is_cancelled_when_the_others_get_their_rows_in_order_and_never_too_many(
    calls: list[tuple[int, int, int]], burst: int, rate_hz: float
) -> None:
    """Each call: after how many ms it comes, for how many rows, and after how many ms it is cancelled (-1: never)."""

    async def play() -> tuple[list[tuple[int, int, int]], Throttle]:
        fake = FakeTime()
        throttle = fake.throttle(rate_hz, burst)
        granted: list[tuple[int, int, int]] = []

        async def producer(number: int, rows: int) -> None:
            await throttle.acquire(rows)
            granted.append((number, rows, fake.clock.now_ns()))

        script = []
        for number, (after_ms, _, cancelled_ms) in enumerate(calls):
            script.append((after_ms, 0, number))
            if cancelled_ms >= 0:
                script.append((after_ms + cancelled_ms, 1, number))
        tasks: dict[int, asyncio.Task[None]] = {}
        for moment_ms, is_cancel, number in sorted(script):
            await fake.move_to(moment_ms / 1_000)
            if is_cancel:
                tasks[number].cancel()
            else:
                tasks[number] = asyncio.create_task(producer(number, calls[number][1]))
            await settled()
        await fake.move_to(60)
        assert all(task.done() for task in tasks.values())
        missing = [number for number, task in tasks.items() if not task.cancelled()]
        assert sorted(missing) == sorted(number for number, _, _ in granted)
        return granted, throttle

    granted, throttle = asyncio.run(play())
    came = sorted(range(len(calls)), key=lambda number: (calls[number][0], number))
    waited_for = [number for number, rows, _ in granted if rows]
    assert waited_for == [number for number in came if number in waited_for]
    assert throttle.statistics().granted == sum(rows for _, rows, _ in granted)
    assert throttle.statistics().waiting == 0
    in_line = [(rows, at_ns) for _, rows, at_ns in granted if rows]
    for first, (_, start_ns) in enumerate(in_line):
        total = 0  # not the first one's own rows: it may have gathered them since long before
        for rows, end_ns in in_line[first + 1 :]:
            total += rows
            assert total <= burst + Fraction(rate_hz) * (end_ns - start_ns) / SECOND


async def test_slots_bound_how_many_publish_at_once_and_are_taken_in_order() -> None:
    fake = FakeTime()
    throttle = fake.throttle(concurrent=2)
    order: list[int] = []
    leave = [asyncio.Event() for _ in range(4)]

    async def producer(number: int) -> None:
        async with throttle.slot():
            order.append(number)
            await leave[number].wait()

    tasks = [asyncio.create_task(producer(number)) for number in range(4)]
    await settled()
    assert order == [0, 1]
    told = throttle.statistics()
    assert (told.slots_in_use, told.slot_waits, told.slot_waiting) == (2, 2, 2)
    tasks[2].cancel()
    await fake.move_to(5)
    leave[1].set()
    await settled()
    assert order == [0, 1, 3]
    leave[0].set()
    leave[3].set()
    await settled()
    told = throttle.statistics()
    assert (told.slots_in_use, told.slot_waiting, told.slot_waited_ns) == (0, 0, 5 * SECOND)
    assert [task.cancelled() for task in tasks] == [False, False, True, False]


async def test_a_slot_is_free_again_when_what_ran_in_it_raised() -> None:
    throttle = FakeTime().throttle(concurrent=1)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="feed"):
            async with throttle.slot():
                raise RuntimeError("feed")
    assert throttle.statistics().slots_in_use == 0
    assert throttle.statistics().slot_waits == 0


async def test_without_bounds_nothing_waits_and_rows_are_counted_all_the_same() -> None:
    throttle = Throttle()
    async with throttle.slot(), throttle.slot():
        await throttle.acquire(10**9)
        assert throttle.statistics().slots_in_use == 2
    assert throttle.statistics().granted == 10**9
    assert repr(throttle) == "Throttle(no bound)"


async def test_unless_told_it_uses_this_machines_time_and_a_burst_of_10_ms() -> None:
    throttle = Throttle(100_000, concurrent=3)
    assert repr(throttle) == "Throttle(100,000 rows a second, burst 1,000; 3 at once)"
    await throttle.acquire(1_001)
    assert throttle.statistics().granted == 1_001
    assert repr(Throttle(2)) == "Throttle(2 rows a second, burst 1)"


@pytest.mark.parametrize(
    ("bounds", "told"),
    [
        ({"rate_hz": 0}, "rate_hz is how many a second"),
        ({"rate_hz": "fast"}, "got 'fast'"),
        ({"rate_hz": 1, "burst": 0}, "burst is an integer of 1"),
        ({"burst": 5}, "give rate_hz too; got burst=5 alone"),
        ({"concurrent": 0}, "concurrent is an integer of 1"),
    ],
)
def test_bounds_that_break_a_rule_are_refused_with_their_value(bounds: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Throttle(**bounds)


@pytest.mark.parametrize("rows", [-1, 1.5, True])
async def test_rows_that_are_no_number_of_rows_are_refused(rows: Any) -> None:
    with pytest.raises(ValidationError, match=f"rows is an integer of 0 to .*; got {rows}"):
        await Throttle(1).acquire(rows)
