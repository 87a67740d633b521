"""How a process ends: a script that is told to (SIGTERM, Ctrl-C), and a notebook's kernel that is shut down.

Both let their labs finish first, by a deadline: processors finish what they took in, commit and give their lease back,
sinks are flushed, the embedded server ends. Nothing depends on it: what a kill leaves undone is done again by the next
start, once. But an end in order makes nobody wait, and says what was cut off.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
import threading
import weakref
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol, TypeVar

from hftlab.errors import NotStarted, ValidationError
from hftlab.supervise import end_within

T = TypeVar("T")

STOP_S = 10.0
"""How long a script that was told to end goes on, unless ``stop_s`` or HFTLAB_STOP_S says otherwise."""

KERNEL_DRAIN_S, KERNEL_STOP_S = 1.5, 2.2
"""Who asks a kernel to shut down sends it SIGTERM 2.5 s later, and SIGKILL after 5 s (jupyter_client's defaults)."""

_LOOK_S = 0.02


class Closable(Protocol):
    """What is closed when its process ends: a Lab."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop that it runs on; None while it does not run."""
        ...

    @property
    def closing(self) -> bool:
        """Whether somebody is closing it already."""
        ...

    async def close(self, *, drain_s: float | None = None) -> None:
        """Finish what is in flight within ``drain_s``, and release everything. Idempotent."""
        ...


_open: weakref.WeakSet[Closable] = weakref.WeakSet()
_of_scripts: dict[asyncio.AbstractEventLoop, set[Closable]] = {}
"""Those that a ``main`` may have forgotten by its end; what a cell forgot goes when it is collected, as ever."""


def close_with_process(lab: Closable) -> None:
    """Have a lab that was started closed when its script, or its kernel, ends before somebody closes it."""
    _open.add(lab)
    _of_scripts.get(asyncio.get_running_loop(), set()).add(lab)
    _join_kernel()


async def _close_all(drain_s: float | None = None) -> list[BaseException]:
    """Close what is open on this loop, all at once; returns what they raised."""
    loop = asyncio.get_running_loop()
    labs = [lab for lab in _open if lab.loop is loop]
    ends = await asyncio.gather(*(lab.close(drain_s=drain_s) for lab in labs), return_exceptions=True)
    return [end for end in ends if isinstance(end, BaseException)]


# -- scripts ----------------------------------------------------------------------------------------------------------


def run(main: Coroutine[Any, Any, T], *, stop_s: float | None = None) -> T:
    """Run a script's ``async def main()`` to its end and return its result: ``hl.run(main())``.

    SIGTERM and Ctrl-C cancel ``main``. Each ``async with`` on its way out then finishes what is in flight, commits it
    and releases what it has, within ``stop_s`` in all (HFTLAB_STOP_S, else 10 s); what is cut off is named in a
    RuntimeWarning and delivered again by the next start. Then SystemExit(143) is raised (128 + SIGTERM), or
    KeyboardInterrupt. A second signal ends the process at once. A lab that ``main`` leaves open is closed, however it
    ends. Handlers that the process has for these signals already stay, and those that are set here go again with the
    end; on other threads than the main one there are none.

    In a notebook, whose loop runs already, write ``await main()`` instead: NotStarted there. Raises ValidationError for
    a ``stop_s`` that is no time.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        main.close()
        raise NotStarted("a loop is running here, as in every notebook: write `await main()`, not `hl.run(main())`")
    try:
        script = _Script(_seconds(stop_s))
    except ValidationError:
        main.close()
        raise
    with script.told_by_signals(), asyncio.Runner() as runner:
        try:
            return runner.run(script.run(main))
        except asyncio.CancelledError:
            if script.signal == signal.SIGTERM:
                raise SystemExit(128 + signal.SIGTERM) from None
            if script.signal == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise


class _Script:
    """A ``main`` that runs, and what it is told by signals."""

    def __init__(self, stop_s: float) -> None:
        self.signal: int | None = None
        self._stop_s = stop_s
        self._task: asyncio.Task[Any] | None = None

    async def run(self, main: Coroutine[Any, Any, T]) -> T:
        """``main``'s result; the labs that it left open are closed."""
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        _of_scripts[loop] = set()
        try:
            result = await main
        except BaseException:
            # What went wrong first is what the user has to see.
            await _close_all()
            raise
        else:
            for failure in await _close_all():
                raise failure
            return result
        finally:
            del _of_scripts[loop]

    @contextmanager
    def told_by_signals(self) -> Iterator[None]:
        """Listen to SIGTERM and SIGINT meanwhile, where nobody else does."""
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            usual: dict[int, object] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
            for number in usual:
                if signal.getsignal(number) == usual[number]:
                    before[number] = signal.signal(number, self._told)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            end_within(None)

    def _told(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None or self._task is None:
            # The second one, or none of our code runs yet. Not an exception: it could be caught, or held up.
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            return
        self.signal = number
        end_within(self._stop_s)
        # This interrupted some code of the loop's own thread, and the loop may sleep.
        self._task.get_loop().call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        """Cancel ``main``; but not where it is closing a lab already, which would cut that off at once."""
        assert self._task is not None
        loop = self._task.get_loop()
        if any(lab.closing and lab.loop is loop for lab in _open):
            loop.call_later(_LOOK_S, self._cancel)
        else:
            self._task.cancel()


def _seconds(stop_s: float | None) -> float:
    said: object = stop_s
    if stop_s is None:
        said = os.environ.get("HFTLAB_STOP_S") or STOP_S
    try:
        seconds = float(said)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0.0 <= seconds < float("inf"):
        raise ValidationError(
            f"stop_s, or HFTLAB_STOP_S, is how many seconds a script that was told to end may go on: a number from 0 "
            f"on; got {said!r:.100}"
        )
    return seconds


# -- notebooks --------------------------------------------------------------------------------------------------------


def _join_kernel() -> None:
    """In a notebook, have the kernel close the labs before it shuts down or restarts. Once a kernel."""
    ipython = sys.modules.get("IPython")
    kernel = getattr(ipython.get_ipython(), "kernel", None) if ipython is not None else None
    before = getattr(kernel, "do_shutdown", None)
    if before is None or isinstance(before, _Shutdown):
        return
    # By then it is too late for ``atexit``: the loop has stopped, and threads that unpack entries can't be had.
    kernel.do_shutdown = _Shutdown(before, asyncio.get_running_loop())  # type: ignore[union-attr]


class _Shutdown:
    """A kernel's ``do_shutdown``, which it awaits on its control thread, after the labs on its main thread's loop."""

    def __init__(self, before: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._before, self._loop = before, loop

    async def __call__(self, restart: bool) -> Any:
        try:
            async with asyncio.timeout(KERNEL_STOP_S):
                if asyncio.get_running_loop() is self._loop:
                    await _close_all(KERNEL_DRAIN_S)
                else:
                    closed = asyncio.run_coroutine_threadsafe(_close_all(KERNEL_DRAIN_S), self._loop)
                    await asyncio.wrap_future(closed)
        except TimeoutError:
            # A cell that does not let the loop turn, or a server that does not end: both end with the kernel.
            pass
        done = self._before(restart)
        return await done if inspect.isawaitable(done) else done
