"""How a script ends that is told to, in this very process; others are ended in ``tests/faults`` (F17)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import hftlab as hl
from hftlab.ending import close_with_process
from hftlab.errors import BackgroundFailed, ValidationError
from hftlab.supervise import end_within, within


@pytest.fixture(autouse=True)
def usual_handlers() -> Iterator[None]:
    """The handlers that a script finds, and which it has to leave as they were."""
    usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}  # type: ignore[arg-type]
    try:
        yield
        assert {number: signal.getsignal(number) for number in usual} == usual
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tell(number: int) -> None:
    os.kill(os.getpid(), number)


class Closing:
    """What is closed with its process: it says for how long it would have waited."""

    def __init__(self, first: Callable[[], Awaitable[object]] | None = None) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.closing = False
        self.waits_s: list[float] = []
        self._first = first

    def start(self) -> None:
        self.loop = asyncio.get_running_loop()
        close_with_process(self)

    async def close(self, *, drain_s: float | None = None) -> None:
        if self.loop is None:
            return
        self.closing = True
        if self._first is not None:
            await self._first()
        self.waits_s.append(within(drain_s, 5.0))
        self.closing, self.loop = False, None


@pytest.mark.parametrize(
    ("number", "end", "code"), [(signal.SIGTERM, SystemExit, 143), (signal.SIGINT, KeyboardInterrupt, None)]
)
def test_a_signal_cancels_main_closes_its_lab_by_the_deadline_and_is_raised_after_that(
    number: int, end: type[BaseException], code: int | None
) -> None:
    lab = Closing()

    async def main() -> None:
        lab.start()
        tell(number)
        await asyncio.Event().wait()

    with pytest.raises(end) as ended:
        hl.run(main(), stop_s=600.0)
    assert getattr(ended.value, "code", None) == code
    (waited_s,) = lab.waits_s
    # What is left of the deadline, whatever is usual.
    assert 5.0 < waited_s <= 600.0
    assert within(None, 5.0) == 5.0, "the deadline goes with the run"


def test_a_lab_that_main_leaves_open_is_closed_and_what_that_raises_is_raised(tmp_path: Path) -> None:
    async def main() -> int | None:
        lab = await hl.Lab(directory=tmp_path / "data").start()
        assert lab._server is not None
        return lab._server.pid

    server = hl.run(main())
    assert server is not None
    assert not psutil.pid_exists(server)

    async def fails() -> None:
        raise BackgroundFailed("nobody saw this")

    async def opens() -> None:
        Closing(fails).start()

    with pytest.raises(BackgroundFailed, match="nobody saw this"):
        hl.run(opens())


def test_a_main_that_takes_the_cancellation_and_returns_has_its_result_returned() -> None:
    async def main() -> str:
        tell(signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done by itself"
        return "unreachable"

    assert hl.run(main()) == "done by itself"


def test_a_signal_that_comes_while_a_lab_is_closed_gives_it_its_deadline_and_does_not_cut_it_off() -> None:
    finish: list[str] = []

    async def told_meanwhile() -> None:
        tell(signal.SIGTERM)
        # As long as the main task is cancelled a turn or two after the signal, this would not be reached.
        for _ in range(20):
            await asyncio.sleep(0)
        finish.append("closed in order")

    lab = Closing(told_meanwhile)

    async def main() -> None:
        lab.start()
        await lab.close()
        await asyncio.Event().wait()

    with pytest.raises(SystemExit):
        hl.run(main(), stop_s=600.0)
    assert finish == ["closed in order"]
    assert lab.waits_s[0] > 5.0


def test_handlers_that_a_process_has_already_stay_and_get_the_signals() -> None:
    got: list[int] = []

    async def main() -> str:
        tell(signal.SIGTERM)
        await asyncio.sleep(0)
        return "goes on"

    signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    try:
        assert hl.run(main()) == "goes on"
        assert got == [signal.SIGTERM]
        tell(signal.SIGTERM)
        assert len(got) == 2, "it is still there"
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_script_on_another_thread_has_no_handlers() -> None:
    seen: list[object] = []

    async def main() -> None:
        seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=lambda: hl.run(main()))
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


@pytest.mark.parametrize("said", ["soon", "-1", "nan", "inf"])
def test_a_deadline_that_is_no_time_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        raise AssertionError("it must not run")

    monkeypatch.setenv("HFTLAB_STOP_S", said)
    with pytest.raises(ValidationError, match=rf"HFTLAB_STOP_S.*got '{said}'"):
        hl.run(main())


def test_work_is_waited_for_no_longer_than_was_asked_or_than_the_process_may_go_on() -> None:
    try:
        end_within(3.0)
        assert 2.0 < within(None, 0.5) <= 3.0
        assert within(0.1, 10.0) == 0.1
        end_within(0.0)
        assert within(60.0, 10.0) == 0.0
    finally:
        end_within(None)
    assert (within(None, 0.5), within(60.0, 0.5)) == (0.5, 60.0)


class FakeKernel:
    """A kernel that is asked to shut down on a thread of its own, as ipykernel is."""

    def __init__(self) -> None:
        self.asked: list[bool] = []

    async def do_shutdown(self, restart: bool) -> dict[str, Any]:
        self.asked.append(restart)
        return {"status": "ok", "restart": restart}


async def test_a_kernel_that_shuts_down_waits_for_its_labs_and_is_joined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel: Any = FakeKernel()
    ipython: Any = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=kernel))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    first, second = Closing(), Closing()
    first.start()
    joined = kernel.do_shutdown
    second.start()
    assert kernel.do_shutdown is joined
    reply = await asyncio.to_thread(lambda: asyncio.run(kernel.do_shutdown(True)))
    assert reply == {"status": "ok", "restart": True}
    assert kernel.asked == [True]
    assert first.waits_s == second.waits_s
    assert len(first.waits_s) == 1
    second.start()
    assert await kernel.do_shutdown(False) == {"status": "ok", "restart": False}
    assert len(second.waits_s) == 2
