"""What users are promised of a processor: its ends, its cuts, what is held, refused, told, tried again and undone."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest

from hftlab.errors import NotStarted, ValidationError
from hftlab.events import Event, EventBatch, EventType, MarketDataEvent
from hftlab.events.records import MAX_LOG_SEQUENCE, Rows
from hftlab.pipeline import RetryPolicy
from hftlab.pipeline.letterbox import INVALID
from hftlab.pipeline.statistics import State
from hftlab.sequence import Gap, GapState, Ordering
from tests.pipeline.fakes import FakeLog, Process, impatient, until
from tests.streams.batches import mixed, trades

pytestmark = pytest.mark.usefixtures("impatient")
__all__ = ["impatient"]

EVENTS = 60


def recorded(batch: EventBatch | None = None, entry_rows: int = 10) -> FakeLog:
    log = FakeLog()
    log.append(mixed(EVENTS) if batch is None else batch, entry_rows=entry_rows)
    return log


def some(batch: EventBatch, *places: int) -> EventBatch:
    return batch.where(np.array(places))


# -- ends -------------------------------------------------------------------------------------------------------------


async def test_a_handler_that_hangs_is_cut_off_at_the_deadline_and_its_event_comes_again() -> None:
    log = recorded()
    process = Process(log)

    @process.bus.on()
    async def hangs(event: Event) -> None:
        if event.event_id & MAX_LOG_SEQUENCE == 20:
            await asyncio.Event().wait()
        async with process.processor.transaction() as tx:
            tx.incr("count")

    await process.processor.start()
    await until(lambda: process.bus.statistics().handled >= 20)
    with pytest.warns(RuntimeWarning, match="were not finished and committed"):
        report = await process.processor.stop(deadline_s=0.01)
    assert report.cut_off > 0
    assert report.committed <= 20
    assert log.group().holder is None
    assert log.values.get("count", 0) == report.committed
    after = Process(log)
    seen: list[int] = []
    after.bus.subscribe(lambda event: seen.append(event.event_id & MAX_LOG_SEQUENCE))
    async with after.processor:
        await after.processor.drain()
    assert seen == list(range(report.committed, EVENTS))


async def test_what_a_batch_handler_waits_for_is_delivered_before_it_is_committed() -> None:
    log = recorded()
    process = Process(log)
    seen: list[int] = []

    @process.bus.on(mode="batch", batch_rows=1_000)
    def rows(batch: EventBatch) -> None:
        seen.extend(batch.records["log_sequence"].tolist())

    await process.processor.start()
    await until(lambda: process.processor.statistics().position)
    saved = await process.processor.checkpoint()
    assert saved.log_sequence > 0
    assert set(seen) >= set(range(saved.log_sequence))
    await process.crash()


async def test_a_checkpoint_asked_for_saves_what_was_handled_however_recent_the_last_one_is() -> None:
    log = recorded()
    process = Process(log, checkpoint_s=60.0)
    async with process.processor as processor:
        await until(lambda: processor.statistics().position)
        assert (await processor.checkpoint()).log_sequence == log.group().log > 0
        await processor.drain()
        serial = log.group().serial
        assert (await processor.checkpoint()).log_sequence == EVENTS
        assert log.group().serial == serial, "there was nothing to save"


async def test_whoever_does_not_run_says_so() -> None:
    processor = Process(recorded()).processor
    for call in (processor.checkpoint, processor.drain, processor.letters, processor.redrive):
        with pytest.raises(NotStarted):
            await call()
    assert (await processor.stop()).cut_off == 0
    assert processor.state in (State.NEW, State.STOPPED)


# -- held -------------------------------------------------------------------------------------------------------------


async def test_drain_does_not_wait_for_what_is_held_and_the_checkpoint_names_it() -> None:
    batch = trades(9)
    log = recorded(some(batch, 0, 2, 3))
    process = Process(log, ordering=Ordering(deadline_s=1e6))
    async with process.processor as processor:
        await processor.drain()
        saved = await processor.checkpoint()
        assert (saved.log_sequence, saved.held) == (3, (1, 2))
        assert processor.statistics().held == 2
        log.append(some(batch, 1))
        await processor.drain()
        assert processor.statistics().handled == 4
        assert (await processor.checkpoint()).held == ()


async def test_a_full_strict_window_holds_the_processor_up_until_the_gap_is_given_up() -> None:
    batch = trades(20)
    log = recorded(some(batch, 0, *range(2, 20)), entry_rows=100)
    ordering = Ordering(window=4, strict=frozenset({EventType.MARKET_DATA}))
    process = Process(log, ordering=ordering)
    process.count_in_transactions()
    await process.processor.start()
    await until(lambda: process.processor.state is State.HELD_UP)
    await until(lambda: log.group().log > 0)
    assert log.group().log < 19
    assert log.values["events"] == [0]
    await process.crash()
    # The same for whoever goes on from there.
    after = Process(log, ordering=ordering)
    after.count_in_transactions()
    async with after.processor as processor:
        await until(lambda: processor.state is State.HELD_UP)
        processor.gaps.give_up()
        await processor.drain()
    assert log.values["events"] == list(range(19))
    assert log.group().held == ()


async def test_a_window_that_is_made_smaller_while_rows_are_held_loses_none_of_them() -> None:
    batch = trades(20)
    log = recorded(some(batch, 0, *range(2, 20)), entry_rows=100)
    strict = frozenset({EventType.MARKET_DATA})
    first = Process(log, ordering=Ordering(window=12, strict=strict))
    first.count_in_transactions()
    await first.processor.start()
    await until(lambda: log.group().held)
    await first.crash()
    after = Process(log, ordering=Ordering(window=3, strict=strict))
    after.count_in_transactions()
    async with after.processor as processor:
        await until(lambda: processor.state is State.HELD_UP)
        await processor.checkpoint()
        processor.gaps.give_up()
        await processor.drain()
    assert log.values["events"] == list(range(19))


async def test_gaps_and_losses_are_told_between_the_rows_that_they_lie_between() -> None:
    batch = trades(9)
    log = recorded(some(batch, 0, 1, 4, 5, 6, 7), entry_rows=1)
    log.sessions["day"].entries[EventType.MARKET_DATA][4] = None
    process = Process(log, ordering=Ordering(deadline_s=0.0))
    told: list[object] = []

    @process.bus.on()
    def row(event: Event) -> None:
        told.append(event.event_id & MAX_LOG_SEQUENCE)

    @process.bus.on(Gap)
    def gap(gap: Gap) -> None:
        if gap.state is GapState.LOST:
            told.append((gap.first, gap.last, gap.source.venue == "hftlab"))

    async with process.processor as processor:
        await processor.drain()
        assert processor.statistics().lost == 1
        frame = processor.losses.to_frame()
        assert frame[["session", "first", "last", "events"]].values.tolist() == [["day", 4, 4, 1]]
    assert [one for one in told if isinstance(one, int)] == [0, 1, 2, 3, 5]
    assert (3, 4, False) in told
    assert (4, 4, True) in told
    assert told.index(1) < told.index((3, 4, False)) < told.index(2)
    assert told.index((4, 4, True)) < told.index(5)


# -- checks and transforms --------------------------------------------------------------------------------------------


async def test_invalid_rows_and_those_a_transform_fails_on_become_letters_and_the_others_go_on() -> None:
    def cheap(rows: Rows) -> npt.NDArray[np.bool_]:
        return np.asarray(rows["sequence"] % 10 != 3)

    def transform(batch: EventBatch) -> EventBatch | None:
        if (batch.records["sequence"] == 25).any():
            raise KeyError("25")
        return batch.where(batch.records["sequence"] % 10 != 5)

    log = recorded(trades(40))
    process = Process(log, validate=(("cheap", cheap),), transform=(("thin", transform),))
    seen: list[int] = []

    @process.bus.on(MarketDataEvent)
    def row(event: MarketDataEvent) -> None:
        seen.append(event.sequence)

    async with process.processor as processor:
        await processor.drain()
        letters = await processor.letters()
        shown = processor.statistics()
    assert seen == [number for number in range(1, 41) if number % 10 not in (3, 5)]
    assert (shown.invalid, shown.dropped) == (5, 3)
    assert {letter.handler for letter in letters} == {INVALID}
    assert sum(letter.events for letter in letters) == 5
    assert any("KeyError" in letter.error for letter in letters)
    assert log.group().log == 40


async def test_a_transform_may_leave_nothing_and_the_position_goes_on() -> None:
    log = recorded()
    async with Process(log, transform=(("nothing", lambda batch: None),)).processor as processor:
        await processor.drain()
        assert (processor.statistics().handled, processor.statistics().dropped) == (0, EVENTS)
    assert log.group().log == EVENTS


# -- letters ----------------------------------------------------------------------------------------------------------


async def test_what_failed_is_tried_again_when_it_is_due_until_it_goes_well() -> None:
    log = recorded(trades(5))
    process = Process(log, retry=RetryPolicy(attempts=5, backoff_s=0.002, factor=1.0))
    calls: list[int] = []

    @process.bus.on(MarketDataEvent, name="shaky")
    def shaky(event: MarketDataEvent) -> None:
        calls.append(event.sequence)
        if event.sequence == 3 and calls.count(3) < 4:
            raise ValueError("not yet")
        with process.processor.transaction() as tx:
            tx.rpush("done", event.sequence)

    async with process.processor as processor:
        await until(lambda: processor.statistics().mended)
        await processor.checkpoint()
        assert processor.statistics().retried == 3
    assert calls == [1, 2, 3, 4, 5, 3, 3, 3]
    assert log.values["done"] == [1, 2, 4, 5, 3]
    assert log.group().letters == {}


async def test_letters_of_a_handler_that_is_not_there_are_kept() -> None:
    log = recorded(trades(5))
    process = Process(log, retry=RetryPolicy(attempts=0))
    failing = process.bus.subscribe(lambda event: 1 / 0, name="gone later")
    async with process.processor as processor:
        await processor.drain()
        assert len(log.group().letters) == 5
        process.bus.cancel(failing)
        await processor.redrive()
        await processor.drain()
        letters = await processor.letters()
    assert sum(letter.events for letter in letters) == 5
    assert all("gone later" in letter.error for letter in letters)


# -- transactions -----------------------------------------------------------------------------------------------------


async def test_refused_effects_are_told_with_the_servers_words_and_the_others_are_done() -> None:
    log = recorded()
    log.values["text"] = "no number"
    process = Process(log)

    @process.bus.on()
    def count(event: Event) -> None:
        with process.processor.transaction() as tx:
            tx.incr("count")
        with process.processor.transaction() as tx:
            tx.incr("undone").incr("text")

    async with process.processor as processor:
        await processor.drain()
        shown = processor.statistics()
        refused = processor.refused_effects
        assert (shown.effects, shown.refused_effects) == (EVENTS, EVENTS)
    assert "undone" not in log.values
    assert log.values["count"] == EVENTS
    assert len(refused) == EVENTS
    assert refused[0].commands == "INCRBY undone, INCRBY text"
    assert "TypeError" in refused[0].error
    # They are still there when the processor is not.
    assert len(process.processor.refused_effects) == EVENTS


async def test_a_transaction_is_used_once_in_its_block_and_takes_values_only() -> None:
    process = Process(recorded())
    async with process.processor as processor:
        await processor.drain()
        tx = processor.transaction()
        with pytest.raises(ValidationError, match="within the transaction's block"):
            tx.incr("count")
        with pytest.raises(ValidationError, match="finite"), tx:
            tx.incr_float("count", float("nan"))
        with pytest.raises(ValidationError, match="used once"), tx:
            pass
        with pytest.raises(ZeroDivisionError), processor.transaction() as other:
            other.incr("never", 1 // 0)
        with processor.transaction() as outer:
            outer.incr("outer")
            with processor.transaction() as inner:
                inner.incr("inner")
        await processor.checkpoint()
    assert process.log.values == {"outer": 1, "inner": 1}
    with pytest.raises(NotStarted), processor.transaction() as late:
        late.incr("late")


# -- memory -----------------------------------------------------------------------------------------------------------


async def test_memory_stays_flat_over_many_events() -> None:
    log = FakeLog()
    piece = trades(2_000)
    count = len(piece)

    def more(rounds: int) -> None:
        for _ in range(rounds):
            log.append(piece, entry_rows=500)
            piece.records["sequence"] += count

    more(1)
    process = Process(log)

    @process.bus.on(mode="batch")
    def rows(batch: EventBatch) -> None:
        with process.processor.transaction() as tx:
            tx.incr("count", len(batch))

    async with process.processor as processor:
        for _ in range(5):
            more(4)
            await processor.drain()
        forget(log)
        tracemalloc.start()
        try:
            for _ in range(4):
                more(4)
                await processor.drain()
                forget(log)
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(16):
                more(4)
                await processor.drain()
                forget(log)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert log.values["count"] == 2_000 * (4 * 25 + 1)
    assert after - before < 1 << 17


def forget(log: FakeLog) -> None:
    """Let go of what the log itself keeps of what is handled."""
    entries = log.sessions["day"].entries[EventType.MARKET_DATA]
    entries[:] = [None] * len(entries)
    log.group().commits.clear()
