"""A lab that is closed while its processors work: what is in flight is finished or named, and all is released."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

import hftlab as hl
from hftlab.errors import BackgroundFailed
from hftlab.pipeline.statistics import State
from hftlab.streams import embedded
from tests.faults.worker import GROUP, HANGS_AFTER, KEPT, SEEN, SESSION, processor_of
from tests.streams.batches import mixed, trades
from tests.streams.servers import BINARIES, binary_of, until

ROWS = 3_000


@pytest.fixture(params=BINARIES)
async def folder(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Path]:
    """A lab's folder with a session in it; afterwards nothing is left on the loop."""
    binary = binary_of(request.param)
    monkeypatch.setattr(embedded, "find_binary", lambda: binary)
    async with hl.Lab(directory=tmp_path / "data") as lab:
        await lab.streams.append(mixed(ROWS), session=SESSION)
    yield tmp_path / "data"
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others, f"left on the loop: {others}"


async def finished(folder: Path, *, at_once: bool = True) -> None:
    """Another lab's processor is active at once, and finishes: each event had its effect once."""
    async with hl.Lab(directory=folder) as lab:
        processor = processor_of(lab, "event")
        await processor.start()
        assert processor.state is not State.STANDING_BY or not at_once, f"the lease was not given back: {processor!r}"
        await processor.drain()
        found = await lab.streams._connections.call("HGETALL", processor.key(SEEN))
        times = Counter(int(count) for count in found[1::2])
        assert times == {1: ROWS}


async def test_what_a_closed_lab_had_taken_in_is_finished_committed_and_nothing_of_it_handled_again(
    folder: Path,
) -> None:
    async with hl.Lab(directory=folder) as lab:
        processor = processor_of(lab, "batch")
        await processor.start()
        await until(lambda: processor.statistics().handled)
    shown = processor.statistics()
    assert shown.state is State.STOPPED
    assert shown.handled == shown.committed
    await finished(folder)


async def test_a_handler_that_never_returns_is_cut_off_and_named_when_the_lab_is_closed(folder: Path) -> None:
    lab = await hl.Lab(directory=folder).start()
    had: list[int] = []
    processor = processor_of(lab, "hangs", had.append)
    await processor.start()
    await until(lambda: len(had) > HANGS_AFTER)
    with pytest.warns(RuntimeWarning, match=r"stopped at its deadline: [\d,]+ events of day, from log sequence"):
        await lab.close(drain_s=0.2)
    assert "not started" in repr(lab)
    await finished(folder)


async def test_closing_that_is_cancelled_cuts_off_what_is_in_flight_and_closes_all_the_same(folder: Path) -> None:
    lab = await hl.Lab(directory=folder).start()
    had: list[int] = []
    processor = processor_of(lab, "hangs", had.append)
    await processor.start()
    await until(lambda: len(had) > HANGS_AFTER)
    closing = asyncio.create_task(lab.close(drain_s=60.0))
    await until(lambda: processor.state is State.STOPPING)
    assert lab.closing
    closing.cancel()
    with pytest.warns(RuntimeWarning, match="stopped at its deadline"), pytest.raises(asyncio.CancelledError):
        await closing
    assert "not started" in repr(lab)
    await finished(folder)


async def test_a_lab_whose_server_is_stopped_closes_and_takes_the_server_with_it(folder: Path) -> None:
    lab = await hl.Lab(directory=folder).start()
    assert lab._server is not None
    pid = lab._server.pid
    assert pid is not None
    processor = processor_of(lab, "event", lease_s=0.5)
    sink = lab.keep(KEPT)
    await processor.start()
    await until(lambda: processor.statistics().handled)
    os.kill(pid, signal.SIGSTOP)
    await lab.bus.publish_batch(trades(10))
    with pytest.warns(RuntimeWarning) as told:
        async with asyncio.timeout(30.0):
            await lab.close(drain_s=0.2)
    said = " ".join(str(one.message) for one in told)
    assert sink.closed
    assert re.search(r"the sink of 'kept' was closed with events that are not kept: 10 cut off", said), said
    assert not psutil.pid_exists(pid)
    # Nobody could give the lease back to it: that ran out, or does so now.
    await finished(folder, at_once=False)


async def test_several_processors_and_sinks_are_closed_by_one_deadline(folder: Path) -> None:
    async with hl.Lab(directory=folder) as lab:
        first = processor_of(lab, "event")
        other = lab.processor("others", SESSION, bus=hl.EventBus())
        sink = lab.keep(KEPT)
        await first.start()
        await other.start()
        await lab.bus.publish_batch(trades(500))
    assert {first.state, other.state} == {State.STOPPED}
    assert sink.statistics().cut_off == 0
    async with hl.Lab(directory=folder) as lab:
        assert (await lab.streams.session(KEPT)).events == 500
    await finished(folder)


async def test_a_processor_that_failed_and_that_nobody_asked_is_told_of_when_the_lab_is_closed(folder: Path) -> None:
    lab = await hl.Lab(directory=folder).start()
    processor = processor_of(lab, "event")
    await processor.start()
    await processor.drain()
    await lab.streams.delete(SESSION)
    await until(lambda: processor.state is State.FAILED)
    with pytest.raises(BackgroundFailed, match=GROUP):
        await lab.close()
    assert "not started" in repr(lab)
