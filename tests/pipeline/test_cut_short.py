"""Tasks cancelled by somebody, stops that were cut off, letters tried twice: a processor begins anew, or says so."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

import hftlab as hl
from hftlab.bus import EventBus
from hftlab.errors import BackgroundFailed, ServerRefused
from hftlab.events import Event, EventBatch, EventType, MarketDataEvent, SignalEvent
from hftlab.events.group_ports import GroupPage
from hftlab.events.records import MAX_LOG_SEQUENCE, Rows, blank
from hftlab.pipeline import EventProcessor
from hftlab.pipeline.committing import Committing
from hftlab.pipeline.letterbox import Letterbox
from hftlab.pipeline.life import Life
from hftlab.pipeline.outgoing import Outgoing
from hftlab.pipeline.retries import Retries
from hftlab.pipeline.retrying import RetryPolicy
from hftlab.pipeline.settings import ProcessorSettings
from hftlab.pipeline.spill import SpillFile
from hftlab.pipeline.statistics import State
from hftlab.sequence import Ordering
from tests.pipeline.fakes import Call, FakeConsumer, FakeLog, Process, impatient, until
from tests.pipeline.samples import Failed, letter
from tests.pipeline.samples import trades as logged
from tests.streams.batches import mixed, trades

pytestmark = pytest.mark.usefixtures("impatient")
__all__ = ["impatient"]

EVENTS = 10
NEVER_AGAIN = RetryPolicy(attempts=0)


def recorded() -> FakeLog:
    log = FakeLog()
    log.append(trades(EVENTS), entry_rows=4)
    return log


def number_of(event: Event) -> int:
    return event.event_id & MAX_LOG_SEQUENCE


async def drained(processor: EventProcessor) -> None:
    """Drain; fails where that would take for ever."""
    async with asyncio.timeout(5):
        await processor.drain()


def counting(process: Process, failing: set[int]) -> list[int]:
    """A handler that counts, and fails on the events of these numbers; returns those that it was called with."""
    calls: list[int] = []

    @process.bus.on(name="counts")
    def counts(event: Event) -> None:
        calls.append(number_of(event))
        if number_of(event) in failing:
            raise RuntimeError("not yet")
        with process.processor.transaction() as tx:
            tx.incr("count")

    return calls


# -- tasks that somebody cancels --------------------------------------------------------------------------------------


async def assert_fails_and_begins_anew(process: Process) -> None:
    """It says that it was cut short, holds nothing for saved that is not, and is exact when it is started again."""
    log, processor = process.log, process.processor
    await until(lambda: not processor.running, "the end of the processor")
    with pytest.raises(BackgroundFailed, match="the processor g") as raised:
        await drained(processor)
    assert "somebody cancelled" in str(raised.value.__cause__)
    assert processor._serving.checkpoint.log_sequence <= log.group().log
    assert log.group().holder is None, "another member may go on at once"
    await processor.start()
    log.append(trades(EVENTS, seed=1))
    await drained(processor)
    await processor.stop()
    assert log.values["events"] == log.values["awaited"] == list(range(log.sessions["day"].events))
    assert log.group().log == log.sessions["day"].events


async def test_a_commit_that_is_cancelled_before_its_first_step_ends_the_processor_and_nothing_is_taken_for_saved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process, begin = Process(recorded()), Committing.begin
    process.count_in_transactions()

    def begin_and_cancel(self: Committing, *asked: Any) -> None:
        begin(self, *asked)
        monkeypatch.setattr(Committing, "begin", begin)
        assert self._task is not None
        self._task.cancel()

    monkeypatch.setattr(Committing, "begin", begin_and_cancel)
    await process.processor.start()
    await until(lambda: not process.processor.running, "the end of the processor")
    assert process.processor._serving.checkpoint.log_sequence == 0
    assert not process.log.values
    await assert_fails_and_begins_anew(process)


@pytest.mark.parametrize("done", [False, True])
async def test_a_commit_that_is_cancelled_while_it_waits_for_the_server_ends_the_processor(done: bool) -> None:
    log = recorded()
    process = Process(log)
    process.count_in_transactions()
    left = 1

    async def on_call(call: Call) -> None:
        nonlocal left
        if call.method == "commit" and call.done == done and left:
            left = 0
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

    log.on_call = on_call
    await process.processor.start()
    await until(lambda: not process.processor.running, "the end of the processor")
    assert bool(log.group().commits) == done
    assert process.processor._serving.checkpoint.log_sequence == 0, "nobody has said that it is saved"
    await assert_fails_and_begins_anew(process)


@pytest.mark.parametrize("name", [f"processor: read {EventType.MARKET_DATA.topic}", "processor: lease"])
async def test_a_reader_or_the_lease_that_is_cancelled_ends_the_processor(name: str) -> None:
    process = Process(recorded())
    process.count_in_transactions()
    await process.processor.start()
    await drained(process.processor)
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == name)
    task.cancel()
    await assert_fails_and_begins_anew(process)


# -- letters that are tried again -------------------------------------------------------------------------------------


async def test_letters_that_are_done_are_passed_over_when_the_cell_is_run_again() -> None:
    process, failing = Process(recorded(), retry=NEVER_AGAIN), {0, 3}
    counting(process, failing)
    processor = process.processor
    async with processor:
        await drained(processor)
        letters = list(await processor.letters())
        assert [one.log_sequence for one in letters] == [0, 3]
        failing.clear()
        assert await processor.redrive(letters) == 2
        await drained(processor)
        assert await processor.redrive(letters) == 0
        await drained(processor)
    # Nor does a life that knows nothing of it.
    async with processor:
        assert await processor.redrive(letters) == 0
        assert await processor.redrive(letters[0]) == 0
        await drained(processor)
    assert process.log.values["count"] == EVENTS


async def test_a_letter_that_is_redriven_twice_before_the_commit_is_tried_once() -> None:
    process, failing = Process(recorded(), retry=NEVER_AGAIN, checkpoint_s=60.0), {0}
    calls = counting(process, failing)
    processor = process.processor
    async with processor:
        await drained(processor)
        failing.clear()
        assert await processor.redrive() == 1
        await until(lambda: len(calls) == EVENTS + 1)
        assert await processor.letters(), "no commit has taken it away"
        assert await processor.redrive() == 0
        await drained(processor)
        assert not await processor.letters()
    assert process.log.values["count"] == EVENTS
    assert len(calls) == EVENTS + 1


async def test_a_letter_that_is_being_tried_is_not_tried_again_by_a_redrive() -> None:
    process, go_on, calls = Process(recorded(), retry=NEVER_AGAIN), asyncio.Event(), 0
    processor = process.processor

    @process.bus.on()
    async def waits(event: Event) -> None:
        nonlocal calls
        if number_of(event) == 0:
            calls += 1
            if calls == 1:
                raise RuntimeError("not yet")
            await go_on.wait()
        async with processor.transaction() as tx:
            tx.incr("count")

    async with processor:
        await drained(processor)
        assert await processor.redrive() == 1
        await until(lambda: calls == 2)
        assert await processor.redrive() == 0
        go_on.set()
        await drained(processor)
    assert (calls, process.log.values["count"]) == (2, EVENTS)


async def test_rows_that_no_handler_was_given_are_not_counted_by_redrive() -> None:
    def first_ones(rows: Rows) -> Any:
        return rows["log_sequence"] != 4

    process = Process(recorded(), retry=NEVER_AGAIN, validate=(("first_ones", first_ones),))
    failing = {0}
    calls = counting(process, failing)
    processor = process.processor
    async with processor:
        await drained(processor)
        letters = await processor.letters()
        assert letters.handlers == {"(invalid)": 1, "counts": 1}
        failing.clear()
        assert await processor.redrive() == 1
        await drained(processor)
        assert (await processor.letters()).handlers == {"(invalid)": 1}
        assert await processor.redrive() == 0
        await drained(processor)
    assert 4 not in calls
    assert process.log.values["count"] == EVENTS - 1


def test_what_is_being_tried_when_letters_begin_anew_is_a_first_failure_when_it_comes_again() -> None:
    box = Letterbox(lambda: 1)
    box.put(Failed("h", logged([4]), RuntimeError("first")))
    (kept,) = box.take()
    retries = Retries(box)
    run: Any = SimpleNamespace(redeliver=lambda handler, event, done: None)
    retries.redrive([msgspec.structs.replace(kept, letter_id="1-1", attempts=3)])
    assert retries.begin(run, 10, lambda letter_id: None) == 1
    retries.reset([])
    box.put(Failed("h", logged([4]), RuntimeError("handled again, and failed")))
    assert [one.attempts for one in box.take()] == [1]


async def test_letters_that_are_due_soon_are_tried_before_a_session_is_left_for_its_successor() -> None:
    log = recorded()
    log.append(trades(5, seed=1), "next")
    log.seal("day", "next")
    process = Process(log, retry=RetryPolicy(backoff_s=0.05))
    failing, failed = {3}, 0

    @process.bus.on()
    def counts(event: Event) -> None:
        nonlocal failed
        if event.event_id >> 40 == 1 and number_of(event) in failing:
            failed += 1
            failing.clear()
            raise RuntimeError("not yet")
        with process.processor.transaction() as tx:
            tx.rpush("events", number_of(event))

    async with process.processor:
        await drained(process.processor)
    assert failed == 1
    assert not log.group().letters
    assert log.values["events"] == [0, 1, 2, *range(4, EVENTS), 3, *range(5)]


async def test_letters_that_are_due_much_later_hold_no_session_up() -> None:
    log = recorded()
    log.append(trades(5, seed=1), "next")
    log.seal("day", "next")
    process = Process(log, retry=RetryPolicy(backoff_s=60.0))
    calls = counting(process, {7})
    async with process.processor:
        await drained(process.processor)
    assert len(calls) == EVENTS + 5
    assert [one.log_sequence for one in log.group().letters.values()] == [7]


# -- stops that are cut off -------------------------------------------------------------------------------------------


async def test_after_a_stop_that_was_cut_off_each_letter_is_there_once_and_the_effects_are_exact() -> None:
    log = recorded()
    process = Process(log, retry=NEVER_AGAIN, checkpoint_s=60.0)
    processor, hanging, failing = process.processor, asyncio.Event(), {0}
    hangs = True

    @process.bus.on()
    async def handles(event: Event) -> None:
        number = number_of(event)
        if number in failing:
            raise RuntimeError("not yet")
        if number == 5 and hangs:
            hanging.set()
            await asyncio.Event().wait()
        async with processor.transaction() as tx:
            tx.incr("count")

    await processor.start()
    await hanging.wait()
    with pytest.warns(RuntimeWarning, match="stopped at its deadline"):
        await processor.stop(deadline_s=0.01)
    assert processor._serving.letterbox.waiting == 0, "the letter's event comes again"
    hangs = False
    await processor.start()
    await drained(processor)
    assert [(one.log_sequence, one.attempts) for one in await processor.letters()] == [(0, 1)]
    failing.clear()
    assert await processor.redrive() == 1
    await drained(processor)
    await processor.stop()
    assert log.values["count"] == EVENTS


@pytest.mark.parametrize("same", [True, False], ids=["the same processor", "another process"])
async def test_letters_that_an_earlier_life_left_on_the_disk_are_set_aside_and_their_events_fail_again(
    same: bool, tmp_path: Path
) -> None:
    log, path = recorded(), tmp_path / "letters" / "day-g.spill"

    def made() -> EventProcessor:
        bus, settings = EventBus(), ProcessorSettings(group="g", session="day", checkpoint_s=0.001, retry=NEVER_AGAIN)

        # What is emitted has no number by which it could be known again.
        @bus.on(MarketDataEvent)
        def emits(event: Event) -> Event | None:
            return SignalEvent(symbol="BTCUSDT", signal_type="s") if number_of(event) == 2 else None

        @bus.on(SignalEvent, name="fails")
        def fails(event: Event) -> None:
            raise RuntimeError("always")

        return EventProcessor(log, bus, settings, spill=path)

    def refuse(call: Call) -> None:
        if call.method == "commit" and not call.done:
            raise ServerRefused("OOM")

    log.on_call = refuse
    first = made()
    await first.start()
    await until(lambda: first.statistics().spilled == 1)
    with pytest.warns(RuntimeWarning, match="stopped at its deadline"):
        await first.stop(deadline_s=0.0)
    log.on_call = lambda call: None
    assert not log.group().letters
    (left,) = SpillFile(path).read()

    again = first if same else made()
    async with again:
        await drained(again)
        letters = await again.letters()
    assert [(one.handler, one.attempts) for one in letters] == [("fails", 1)]
    assert SpillFile(path).read() == []
    assert SpillFile(path.with_name(path.name + ".left")).read() == [left]
    assert again._serving.letterbox.set_aside == 1


def test_a_life_that_begins_takes_no_letter_of_an_earlier_one_and_later_ones_from_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "x.spill"
    SpillFile(path).write([letter(1), letter(2)])
    box = Letterbox(lambda: 1, spill=SpillFile(path))
    box.add(letter(3))
    outgoing = Outgoing(box)
    assert (outgoing.take(), box.set_aside) == ((), 2)
    box.spill([letter(4)])
    assert outgoing.take() == (letter(4),)
    outgoing.saved()
    assert not path.exists()


def test_letters_set_aside_are_kept_beside_and_the_file_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.spill"
    left = SpillFile(path.with_name("x.spill.left"))
    spill = SpillFile(path)
    assert spill.set_aside() == 0
    assert not left.path.exists()
    spill.write([letter(1), letter(2)])
    assert spill.set_aside() == 2
    assert (spill.read(), left.read()) == ([], [letter(1), letter(2)])
    assert spill.set_aside() == 0
    assert left.read() == [letter(1), letter(2)], "nothing replaces something"
    spill.write([letter(3)])
    assert SpillFile(path).set_aside() == 1
    assert (spill.read(), left.read()) == ([], [letter(3)])
    spill.write([letter(4)])
    assert spill.read() == [letter(4)]


def test_no_two_groups_share_a_spill_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = SimpleNamespace(key=str, session_name="day")
    monkeypatch.setattr(hl.Lab, "streams", property(lambda lab: streams))
    lab = hl.Lab(directory=tmp_path)
    names = [("a-b", "c"), ("a", "b-c"), ("a/b", "c"), ("a b", "c"), ("s" * 90, "c"), ("s" * 90, "d")]
    processors = [lab.processor(group, session=session) for session, group in names]
    spills = [processor._serving.letterbox._spill for processor in processors]
    paths = {spill.path for spill in spills if spill is not None}
    assert len(paths) == len(names)
    assert {path.parent for path in paths} == {tmp_path / "letters"}


# -- rows that can't be taken in, and entries without any -------------------------------------------------------------


def gapped() -> FakeLog:
    """Another source's best-effort number 2 is missing; of orders, 2 and 3 are, with 27 more behind them."""
    log = FakeLog()
    log.append(trades(3).where(np.array([0, 2])))
    like = trades(30, seed=5)
    orders = blank(28, EventType.ORDER)
    for name in ("received", "timestamp", "sequence", "symbol", "source"):
        orders[name] = like.records[name][[0, *range(3, 30)]]
    log.append(EventBatch(orders, like.symbols, like.sources))
    log.append(trades(5, seed=8))
    return log


def rests_of(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One for each time that a life rests."""
    rests: list[None] = []
    rest = Life._rest

    async def counted(self: Life) -> None:
        rests.append(None)
        await rest(self)

    monkeypatch.setattr(Life, "_rest", counted)
    return rests


async def test_while_a_strict_window_is_full_other_gaps_are_lost_at_their_deadline_and_nothing_spins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, seen = gapped(), list[tuple[int, int]]()
    process = Process(log, ordering=Ordering(window=4, deadline_s=0.2))

    @process.bus.on(mode="batch", batch_rows=1)
    def note(batch: EventBatch) -> None:
        seen.extend(zip(batch.records["type"].tolist(), batch.records["sequence"].tolist(), strict=True))

    processor, rests = process.processor, rests_of(monkeypatch)
    async with processor:
        await until(lambda: (life := processor._serving.life) is not None and life._passage.pressed is not None)
        log.append(trades(5, seed=11))  # more than there is room for, behind what presses
        await until(lambda: list(processor.gaps.to_frame()["state"]) == ["lost", "open"])
        await until(lambda: len(seen) == 3)
        # A rest ends by what comes, by a commit, or by a deadline: some dozens. One that ends at once is thousands.
        assert len(rests) < 200
        assert seen == [(1, 1), (2, 1), (1, 3)]


async def test_a_gap_past_its_deadline_does_not_spin_while_rows_wait_for_another_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, go_on, read = FakeLog(), asyncio.Event(), FakeConsumer.read
    log.append(trades(4).where(np.array([0, 2])))
    go_on.set()

    async def waits(self: FakeConsumer, event_type: EventType, rows: int) -> GroupPage:
        if event_type is EventType.FILL:
            await go_on.wait()
        return await read(self, event_type, rows)

    monkeypatch.setattr(FakeConsumer, "read", waits)
    types = frozenset({EventType.MARKET_DATA, EventType.FILL})
    process = Process(log, ordering=Ordering(deadline_s=0.05), types=types)
    processor = process.processor
    async with processor:
        await until(lambda: processor.statistics().handled == 1)
        go_on.clear()
        log.append(trades(3, seed=8))
        life = processor._serving.life
        assert life is not None
        await until(lambda: not life.merge.empty)
        rests = rests_of(monkeypatch)
        await until(lambda: time.monotonic() > life._moved_at + 0.15, "thrice the deadline")
        assert len(rests) < 50
        go_on.set()
        await until(lambda: processor.statistics().handled == 5)
        assert list(processor.gaps.to_frame()["state"]) == ["lost"]


async def test_entries_that_need_nothing_but_their_acknowledgement_are_acknowledged_by_a_further_commit() -> None:
    log = FakeLog()
    log.append(mixed(60), entry_rows=10)
    process = Process(log)
    process.count_in_transactions()
    async with process.processor:
        await drained(process.processor)
    group = log.group()
    commits, entries = len(group.commits), log.sessions["day"].entries
    assert not any(group.pending.values())
    # A member read them once more, and was gone before it had a commit to say so with.
    for event_type in entries:
        group.pending[event_type].update(range(len(entries[event_type])))
    async with process.processor:
        await until(lambda: not any(group.pending.values()), "the acknowledgement")
        await drained(process.processor)
    assert len(group.commits) > commits
    assert log.values["events"] == list(range(60)), "nothing is handled again"
    assert process.processor.state is State.STOPPED


# -- handlers that raise what looks like a cancellation ----------------------------------------------------------------


@pytest.mark.parametrize("mode", ["event", "fields", "batch"])
async def test_a_handler_that_raises_cancelled_error_has_a_dead_letter_and_the_processor_goes_on(mode: str) -> None:
    process, done = Process(recorded(), retry=NEVER_AGAIN), list[float]()
    price = float(trades(EVENTS).records["price"][3])

    def handle(*prices: float) -> None:
        if price in prices:
            raise asyncio.CancelledError
        done.extend(prices)

    if mode == "event":

        @process.bus.on(MarketDataEvent, name="it")
        def by_event(event: MarketDataEvent) -> None:
            handle(event.price)

    elif mode == "fields":

        @process.bus.on(MarketDataEvent, name="it")
        def by_fields(price: float) -> None:
            handle(price)

    else:

        @process.bus.on(MarketDataEvent, mode="batch", batch_rows=1, name="it")
        def by_batch(batch: EventBatch) -> None:
            handle(*batch.records["price"].tolist())

    async with process.processor as processor:
        await drained(processor)
        letters = await processor.letters()
        assert [(one.handler, one.log_sequence, one.error) for one in letters] == [("it", 3, "CancelledError: ")]
        assert len(done) == EVENTS - 1
        log = process.log
        log.append(trades(2, seed=1))
        await drained(processor)
        assert await processor.redrive() == 1
        await drained(processor)
        assert [one.attempts for one in await processor.letters()] == [2], "redelivered, it raised again"
    assert len(done) == EVENTS + 1
