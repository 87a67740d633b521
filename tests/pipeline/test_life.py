"""Whatever a processor's process or its server do to it: each event's effects happen once, and in order."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hftlab.errors import GroupLost, ServerUnreachable
from hftlab.events import EventBatch
from hftlab.sequence import Ordering
from tests.pipeline.fakes import Call, FakeLog, Process, impatient, until
from tests.streams.batches import mixed, trades

__all__ = ["impatient"]

EVENTS = 60
MIXED = mixed(EVENTS)
MANY = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Strike(NamedTuple):
    """What happens to the ``call``-th call of a process, before its effect or behind it."""

    call: int
    done: bool


strikes = st.lists(st.builds(Strike, st.integers(1, 40), st.booleans()), max_size=4)


async def crash_at(process: Process, strike: Strike) -> None:
    """Run a process, and end it at one of its calls; or when it has done all, where it makes fewer."""
    log, struck = process.log, asyncio.Event()
    first = log.calls

    def on_call(call: Call) -> None:
        if call.number - first >= strike.call and call.done == strike.done:
            process.cut_off()
            struck.set()

    log.on_call = on_call
    try:
        await process.processor.start()
    except ServerUnreachable:
        struck.set()
    await until(lambda: struck.is_set() or _committed(log) == log.sessions["day"].events)
    await process.crash()
    log.on_call = lambda call: None


def _committed(log: FakeLog) -> int:
    group = log.sessions["day"].groups.get("g")
    return 0 if group is None else group.log


async def finish(log: FakeLog, **asked: Any) -> Process:
    """One more process, which does the rest."""
    process = Process(log, **asked)
    process.count_in_transactions()
    async with process.processor:
        await process.processor.drain()
    return process


def assert_each_once(log: FakeLog, expected: list[int]) -> None:
    assert log.values["events"] == expected
    assert log.values["awaited"] == expected
    # A batch is of one type: they keep the order of each.
    assert sorted(log.values["batches"]) == sorted(expected)
    assert log.values["count"] == len(expected)


@MANY
@given(strikes, st.integers(1, 70))
def test_effects_happen_once_and_in_order_wherever_it_crashes(
    impatient: None, crashes: list[Strike], entry_rows: int
) -> None:
    async def scenario() -> None:
        log = FakeLog()
        log.append(MIXED, entry_rows=entry_rows)
        for strike in crashes:
            process = Process(log)
            process.count_in_transactions()
            await crash_at(process, strike)
        await finish(log)
        assert_each_once(log, list(range(EVENTS)))
        assert not any(log.group().pending.values())

    asyncio.run(scenario())


def shuffled(seed: int, count: int = EVENTS) -> EventBatch:
    """A numbered source whose messages come up to eight places late."""
    late = np.random.default_rng(seed).uniform(0, 8, count)
    late[0] = -1  # a source begins with the number that is seen first
    order = np.argsort(np.arange(count) + late)
    return trades(count).where(order)


@MANY
@given(strikes, st.integers(0, 1 << 16), st.integers(1, 70))
def test_what_is_held_for_missing_numbers_is_not_lost_in_a_crash(
    impatient: None, crashes: list[Strike], seed: int, entry_rows: int
) -> None:
    async def scenario() -> None:
        log, batch = FakeLog(), shuffled(seed)
        log.append(batch, entry_rows=entry_rows)
        ordering = Ordering(deadline_s=1e6)
        for strike in crashes:
            process = Process(log, ordering=ordering)
            process.count_in_transactions()
            await crash_at(process, strike)
        await finish(log, ordering=ordering)
        assert_each_once(log, np.argsort(batch.records["sequence"]).tolist())

    asyncio.run(scenario())


@MANY
@given(st.lists(st.builds(Strike, st.integers(1, 60), st.booleans()), max_size=12), st.integers(1, 70))
def test_calls_that_fail_and_replies_that_are_lost_change_nothing(
    impatient: None, faults: list[Strike], entry_rows: int
) -> None:
    async def scenario() -> None:
        log = FakeLog()
        log.append(MIXED, entry_rows=entry_rows)

        def on_call(call: Call) -> None:
            if Strike(call.number, call.done) in faults and call.member.name == "one" and begun:
                raise ServerUnreachable("injected")

        begun: list[bool] = []
        log.on_call = on_call
        process = Process(log, name="one")
        process.count_in_transactions()
        await process.processor.start()
        begun.append(True)
        await process.processor.drain()
        await process.processor.stop()
        assert_each_once(log, list(range(EVENTS)))

    asyncio.run(scenario())


@MANY
@given(strikes, st.integers(1, 70))
def test_a_group_that_is_destroyed_again_and_again_is_made_anew_where_it_stood(
    impatient: None, destroyed: list[Strike], entry_rows: int
) -> None:
    # Its letters and what was not committed went with it; its effects are elsewhere, and happen once.
    async def scenario() -> None:
        log = FakeLog()
        kept = log.append(MIXED, entry_rows=entry_rows)

        def on_call(call: Call) -> None:
            if not call.done and Strike(call.number, True) in destroyed and process.processor.running:
                kept.groups.pop("g", None)

        log.on_call = on_call
        process = Process(log)
        process.count_in_transactions()
        async with process.processor:
            await process.processor.drain()
        assert_each_once(log, list(range(EVENTS)))

    asyncio.run(scenario())


async def test_a_checkpoint_before_anything_was_read_again_keeps_what_is_held(impatient: None) -> None:
    log = FakeLog()
    batch = trades(9)
    log.append(batch.where(np.array([0, 2, 3])))  # number 2 is missing
    ordering = Ordering(deadline_s=1e6)
    first = Process(log, ordering=ordering)
    first.count_in_transactions()
    await first.processor.start()
    await until(lambda: log.sessions["day"].groups["g"].held == (1, 2))
    await first.crash()

    def hang_reads(call: Call) -> object:
        return asyncio.Event().wait() if call.method == "read" else None

    log.on_call = hang_reads  # type: ignore[assignment]
    second = Process(log, ordering=ordering)
    second.count_in_transactions()
    await second.processor.start()
    saved = await second.processor.checkpoint()
    assert (saved.log_sequence, saved.held) == (3, (1, 2))
    await second.crash()
    log.on_call = lambda call: None
    log.append(batch.where(np.array([1])))
    await finish(log, ordering=ordering)
    assert_each_once(log, [0, 3, 1, 2])


async def test_a_session_that_is_gone_is_said_to_be_lost(impatient: None) -> None:
    log = FakeLog()
    log.append(MIXED)
    process = Process(log)
    await process.processor.start()
    await process.processor.drain()
    del log.sessions["day"]
    log.append(MIXED, "another")
    failure = process.processor._supervisor
    process.members[0]._kept.grown.set()
    await until(lambda: failure.failure is not None)
    assert isinstance(failure.failure, GroupLost)


@pytest.mark.parametrize("rows", [1, 7, 60])
async def test_a_stopped_processor_has_committed_all_that_it_took_in(impatient: None, rows: int) -> None:
    log = FakeLog()
    log.append(MIXED, entry_rows=rows)
    process = Process(log, checkpoint_s=60.0)
    process.count_in_transactions()
    await process.processor.start()
    await until(lambda: process.processor.statistics().handled)
    report = await process.processor.stop()
    assert report.cut_off == 0
    assert report.committed == log.group().log == log.values["count"] > 0
    assert log.group().holder is None
    assert sorted(log.values["batches"]) == log.values["events"] == list(range(report.committed))
