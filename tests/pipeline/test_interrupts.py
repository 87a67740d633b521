"""KeyboardInterrupts that are raised in a processor's own work: the loop's runner gets them, and the work goes on."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

import hftlab as hl
from hftlab.events.group_ports import Commit, Committed
from hftlab.streams.consuming import GroupConsumer
from tests.faults.worker import SEEN, SESSION, processor_of
from tests.streams.batches import mixed

T = TypeVar("T")

ROWS = 600


class Interrupts:
    """Raises KeyboardInterrupt once, at the n-th time that it is asked."""

    def __init__(self, at: int) -> None:
        self._left = at

    def __call__(self, *_: object) -> None:
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt


def work_off(folder: Path, start: Callable[[hl.Lab], hl.EventProcessor]) -> None:
    """Drain a session on a loop that is run again after each interrupt, as an interactive shell does it."""
    loop = asyncio.new_event_loop()
    lab = hl.Lab(directory=folder)
    interrupted = 0

    async def begin() -> hl.EventProcessor:
        await lab.start()
        await lab.streams.append(mixed(ROWS), session=SESSION)
        processor = start(lab)
        await processor.start()
        return processor

    async def end() -> dict[int, int]:
        found = await lab.streams._connections.call("HGETALL", processor.key(SEEN))
        await lab.close()
        return Counter(int(count) for count in found[1::2])

    def run(work: Coroutine[Any, Any, T]) -> T:
        nonlocal interrupted
        task = loop.create_task(work)
        while not task.done():
            try:
                loop.run_until_complete(asyncio.wait([task]))
            except KeyboardInterrupt:
                interrupted += 1
        return task.result()

    try:
        processor = run(begin())
        run(processor.drain())
        assert processor.running, processor
        assert run(end()) == {1: ROWS}
        assert interrupted == 1
        assert not asyncio.all_tasks(loop)
    finally:
        loop.run_until_complete(lab.close())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    # What a task raised and nobody looked at is told of when it is collected.
    gc.collect()


@pytest.mark.parametrize("handler", ["event", "batch", "async"])
def test_an_interrupt_in_a_handler_reaches_the_runner_and_each_effect_happens_once(
    handler: str, tmp_path: Path
) -> None:
    at = 2 if handler == "batch" else 250
    work_off(tmp_path / "data", lambda lab: processor_of(lab, handler, Interrupts(at)))


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_in_a_commit_before_or_after_the_server_has_it_changes_no_effect(
    after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, interrupts = GroupConsumer.commit, Interrupts(1)

    async def interrupted(self: GroupConsumer, one: Commit) -> Committed:
        if not after:
            interrupts()
        done = await commit(self, one)
        if after:
            interrupts()
        return done

    monkeypatch.setattr(GroupConsumer, "commit", interrupted)
    work_off(tmp_path / "data", lambda lab: processor_of(lab, "event"))


def test_an_interrupt_in_a_reader_loses_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, interrupts = GroupConsumer.read, Interrupts(3)

    async def interrupted(self: GroupConsumer, event_type: hl.EventType, rows: int) -> object:
        page = await read(self, event_type, rows)
        interrupts()
        return page

    monkeypatch.setattr(GroupConsumer, "read", interrupted)
    work_off(tmp_path / "data", lambda lab: processor_of(lab, "event"))
