"""What is cut short, or asked for twice: nothing is taken for saved that was not, and nothing is done twice."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path
from typing import Any

import pytest

import hftlab as hl
from hftlab.errors import BackgroundFailed, ValidationError
from hftlab.pipeline.spill import SpillFile
from tests.pipeline.fakes import Call, FakeLog, Process, impatient, until
from tests.pipeline.samples import trades

ROWS = 40

__all__ = ["impatient"]

pytestmark = pytest.mark.usefixtures("impatient")


def recorded() -> FakeLog:
    """A log of a few trades, in entries of ten rows."""
    log = FakeLog()
    log.append(trades(list(range(ROWS))), entry_rows=10)
    return log


def tasks_named(words: str) -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if words in task.get_name()]


async def cancelled_and_started_again(process: Process, words: str) -> None:
    """Cancel the first such task; the processor says so, and goes on when it is started again."""
    await process.processor.start()
    await until(lambda: tasks_named(words), f"a task {words!r}")
    tasks_named(words)[0].cancel()
    await until(lambda: not process.processor.running, "the end")
    with pytest.raises(BackgroundFailed, match="start the processor again"):
        await process.processor.drain()
    assert process.processor.state.value == "failed"
    await process.processor.start()
    await process.processor.drain()
    await process.processor.stop()


@pytest.mark.parametrize("words", ["processor: commit", "processor: read market", "processor: lease"])
async def test_a_task_that_somebody_cancels_ends_it_visibly_and_a_new_start_is_exact(words: str) -> None:
    log = recorded()
    process = Process(log)
    process.count_in_transactions()
    slow = asyncio.Event()

    async def hold_commits(call: Call) -> None:
        if call.method == "commit" and not slow.is_set() and not call.done:
            slow.set()
            await asyncio.sleep(60 if words.endswith("commit") else 0)

    log.on_call = hold_commits
    await cancelled_and_started_again(process, words)
    assert [int(one) for one in log.values["events"]] == list(range(ROWS))
    assert int(log.values["count"]) == ROWS


async def test_a_commit_that_is_cancelled_before_its_first_step_is_no_commit() -> None:
    log = recorded()
    process = Process(log)
    process.count_in_transactions()
    begin = process.processor._serving
    await process.processor.start()
    await until(lambda: begin.life is not None, "a life")
    life = begin.life
    assert life is not None
    begun = life.committing.begin

    def begin_and_cancel(*arguments: Any) -> None:
        begun(*arguments)
        assert life.committing._task is not None
        life.committing._task.cancel()

    life.committing.begin = begin_and_cancel  # type: ignore[assignment, method-assign]
    life.want_commit()
    await until(lambda: not process.processor.running, "the end")
    with pytest.raises(BackgroundFailed):
        await process.processor.start()
    await process.processor.start()
    await process.processor.drain()
    await process.processor.stop()
    assert [int(one) for one in log.values["events"]] == list(range(ROWS))


async def test_a_letter_is_tried_again_once_however_often_that_is_asked_for() -> None:
    log = recorded()
    process = Process(log, retry=hl.RetryPolicy(attempts=0))
    broken, tried = True, list[int]()

    @process.bus.on("market", name="picky")
    def picky(price: float) -> None:
        if price == 3:
            tried.append(3)
        if price == 3 and broken:
            raise ValueError("not yet")

    processor = process.processor
    await processor.start()
    await processor.drain()
    letters = list(await processor.letters())
    assert len(letters) == 1
    broken = False
    assert await processor.redrive(letters[0].letter_id) == 1
    await processor.drain()
    # The cell is run again, with the letters of then; by itself; and with what is none.
    assert await processor.redrive(letters) == 0
    assert await processor.redrive() == 0
    with pytest.raises(ValidationError, match="letters that are kept"):
        await processor.redrive([3])  # type: ignore[list-item]
    await processor.drain()
    assert tried == [3, 3]
    await processor.stop()


async def test_rows_that_a_check_refused_are_not_redriven() -> None:
    process = Process(recorded(), validate=(("not 5", lambda records: records["price"] != 5),))
    await process.processor.start()
    await process.processor.drain()
    assert len(await process.processor.letters()) == 1
    assert await process.processor.redrive() == 0
    assert len(await process.processor.letters()) == 1
    await process.processor.stop()


async def test_what_a_deadline_cut_off_leaves_no_letters_behind() -> None:
    log = recorded()
    process = Process(log, retry=hl.RetryPolicy(attempts=0), checkpoint_s=30.0)
    hangs = True

    @process.bus.on("market", name="picky")
    async def picky(price: float) -> None:
        if price == 2:
            raise ValueError("never")
        if price == 7 and hangs:
            await asyncio.sleep(60)

    processor = process.processor
    await processor.start()
    await until(lambda: process.bus.failures.count == 1, "the failure")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        report = await processor.stop(deadline_s=0.05)
    assert report.cut_off == ROWS
    hangs = False
    await processor.start()
    await processor.drain()
    assert [letter.log_sequence for letter in await processor.letters()] == [2]
    await processor.stop()


@pytest.mark.parametrize("mode", ["event", "batch"])
async def test_a_sync_handler_that_raises_a_cancellation_has_failed_like_any_other(mode: Any) -> None:
    process = Process(recorded(), retry=hl.RetryPolicy(attempts=0))
    seen: list[object] = []

    def gives_up(given: object) -> None:
        if len(seen) == 1:
            seen.append("cancelled")
            raise asyncio.CancelledError
        seen.append(given)

    process.bus.subscribe(
        gives_up, "market", name="gives up", mode=mode, **({"batch_rows": 8} if mode == "batch" else {})
    )
    await process.processor.start()
    await process.processor.drain()
    assert process.processor.running
    assert [letter.error for letter in await process.processor.letters()] == ["CancelledError: "]
    await process.processor.stop()


async def test_letters_that_are_due_soon_are_tried_before_a_session_is_left() -> None:
    log = recorded()
    log.append(trades(list(range(5)), session_number=4), session="next")
    log.seal("day", "next")
    process = Process(log, retry=hl.RetryPolicy(attempts=2, backoff_s=0.02))
    tries: list[int] = []

    @process.bus.on("market", name="picky")
    def picky(price: float) -> None:
        if price == 3 and not tries:
            tries.append(1)
            raise ValueError("once")

    await process.processor.start()
    await until(lambda: process.processor.statistics().session == "next", "the successor")
    assert process.processor.statistics().mended == 1
    assert not log.group("g", "day").letters
    await process.processor.stop()


async def test_no_two_groups_share_a_spill_file(tmp_path: Path) -> None:
    async with hl.Lab(directory=tmp_path) as lab:
        pairs = [("a-b", "c"), ("a", "b-c"), ("a/b", "c"), ("a_b", "c")]
        boxes = [lab.processor(group, session=session)._serving.letterbox for session, group in pairs]
        assert len({box._spill.path for box in boxes if box._spill is not None}) == len(pairs)


def test_a_spill_file_that_is_set_aside_is_kept_beside(tmp_path: Path) -> None:
    from hftlab.events.group_ports import Letter

    spill = SpillFile(tmp_path / "g.spill")
    assert spill.set_aside() == 0
    spill.write([Letter(handler="h", error="e", attempts=1, first_ns=1, at_ns=1)])
    assert spill.set_aside() == 1
    assert spill.read() == []
    assert len(SpillFile(tmp_path / "g.spill.left").read()) == 1
