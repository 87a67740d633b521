"""``SystemClock``: this machine's time, which never steps, and is slewed to UTC where somebody knows better."""

from __future__ import annotations

import html
import struct
import sys
import threading
import time
from types import ModuleType
from typing import TYPE_CHECKING

from hftlab.clock.discipline import Discipline
from hftlab.clock.estimate import ClockReading, ClockState, Estimate
from hftlab.clock.history import ClockHistory
from hftlab.clock.line import Line
from hftlab.errors import NotStarted

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_perf_counter_ns = time.perf_counter_ns


class SystemClock:
    """Nanoseconds UTC from ``perf_counter_ns`` and an anchor that is taken once: 70 ns a call, and never a step.

    Nobody disciplines it at first: it is as right as this machine's clock was when it was made, and UNSYNCED. What
    ``discipline`` is told (an ``NtpPoller`` does it) is slewed in, by ``max_slew_ppm`` at most, 500 unless told: an
    offset of 1 ms takes 2 s, one of 1 s half an hour. Until then ``reading().offset_ns`` is what is missing, and
    ``utc_ns()`` the best estimate. SYNCED while estimates come in; HOLDOVER when none has come for
    ``holdover_after_s``, from when on the bound grows unattended; UNSYNCED when it passes ``unsynced_bound_ns``.

    Any thread may ask and discipline, and no thread ever sees time fall, nor sees it fall behind what another thread
    was told before. Compiled code asks ``clock.kernels.now_ns(clock.address)``. Raises ValidationError for settings out
    of bounds.
    """

    def __init__(
        self,
        *,
        max_slew_ppm: float = 500.0,
        holdover_after_s: float = 300.0,
        unsynced_bound_ns: int = 1_000_000_000,
    ) -> None:
        counter_ns, utc_ns = _anchor()
        self._discipline = Discipline(
            Line.plain(counter_ns, utc_ns),
            max_slew_ppm=max_slew_ppm,
            holdover_after_s=holdover_after_s,
            unsynced_bound_ns=unsynced_bound_ns,
        )
        # What readers go by: the offset alone while nobody has disciplined it, else a line, None while it changes.
        self._shown: int | Line | None = utc_ns - counter_ns
        self._before: int | Line = self._shown
        self._lock = threading.RLock()
        self._writer = 0
        self._block: npt.NDArray[np.int64] | None = None
        self._asleep_ns = asleep_ns()
        self.history = ClockHistory()
        """What it was told and what it was like then: ``.to_frame()``, ``.figure()``."""

    # -- asked --------------------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """The time now, in ns UTC; never less than any thread was told before."""
        # Whoever changes the line takes it away before he reads the counter at which the new one begins. So who still
        # finds the same line after reading the counter has read it before that.
        while True:
            line = self._shown
            counter_ns = _perf_counter_ns()
            if line is self._shown and line is not None:
                return counter_ns + line if type(line) is int else _at(line, counter_ns)
            if self._writer == threading.get_ident():
                # A signal's handler, in the very thread that is changing the line: it would wait for itself.
                return _at(self._before, counter_ns)
            with self._lock:
                pass

    def utc_ns(self) -> int:
        """The best estimate of UTC, in ns: what is shown, and what is missing. It may step with each news, back too."""
        return self.reading().utc_ns

    def reading(self) -> ClockReading:
        """What it shows, what is missing to UTC, within what bound, and its state; all of one moment. About 10 µs."""
        with self._lock:
            self._look_for_sleep()
            return self._discipline.reading(_perf_counter_ns())

    @property
    def state(self) -> ClockState:
        """SYNCED, HOLDOVER or UNSYNCED."""
        return self.reading().state

    @property
    def bound_ns(self) -> int | None:
        """How far UTC may be from ``utc_ns()``; None while nothing is known."""
        return self.reading().bound_ns

    @property
    def refused(self) -> int:
        """Estimates that were not believed: not newer than the latest, or such as no clock can be told by."""
        return self._discipline.refused

    @property
    def suspensions(self) -> int:
        """How often the machine was found to have slept, while the counter stood still."""
        return self._discipline.suspensions

    @property
    def max_slew_ppm(self) -> float:
        """How fast an offset is slewed away, at most."""
        return self._discipline.max_slew_ppm

    # -- disciplined --------------------------------------------------------------------------------------------------

    def discipline(self, estimate: Estimate, /) -> ClockReading:
        """Take an estimate of UTC into account, from now on; returns the reading then. About 30 µs. Any thread."""
        with self._lock:
            self._look_for_sleep()
            self._change(estimate)
            reading = self._discipline.reading(_perf_counter_ns())
            self.history.add(reading, estimate)
            return reading

    def step_forward(self) -> int:
        """Jump to UTC at once where that is ahead, and return by how many ns; 0 where it is not ahead, or unknown.

        Never done by itself. Whoever measures durations by this clock sees the jump.
        """
        with self._lock:
            before_ns = self.reading().offset_ns
            self._change(None)
            return max(before_ns, 0)

    def _change(self, estimate: Estimate | None) -> None:
        """Another line, from the counter's next reading on. The lock is held."""
        before = self._shown
        assert before is not None
        self._before, self._writer = before, threading.get_ident()
        try:
            self._shown = None
            if self._block is not None:
                _kernels().change(self._block.ctypes.data)
            counter_ns = _perf_counter_ns()
            known = self._discipline
            line = known.step_forward(counter_ns) if estimate is None else known.update(counter_ns, estimate)
            before = line if known.estimate is not None else before
        finally:
            if self._block is not None:
                _publish(self._block, self._discipline.line)
            self._shown = before
            self._writer = 0

    def _look_for_sleep(self) -> None:
        asleep = asleep_ns()
        if asleep - self._asleep_ns > _SLEPT_NS:
            self._discipline.suspended()
        self._asleep_ns = asleep

    @property
    def address(self) -> int:
        """Where compiled code finds it: for ``hftlab.clock.kernels.now_ns``. The clock must be kept alive meanwhile.

        The first call loads numba (0.3 s). Raises NotStarted where the counter is another clock than compiled code
        reads (not on Linux).
        """
        with self._lock:
            if self._block is None:
                if not sys.platform.startswith("linux"):
                    raise NotStarted(
                        "compiled code reads Linux's CLOCK_MONOTONIC, and this machine's perf_counter is "
                        f"{time.get_clock_info('perf_counter').implementation}; ask clock.now_ns() from Python instead"
                    )
                import numpy as np

                words = _kernels().BLOCK_WORDS
                memory = np.zeros(2 * words, np.int64)
                first = -memory.ctypes.data // 8 % words
                self._block = memory[first : first + words]
                self._block[_kernels().VERSION] = 1  # as if it were being changed
                _publish(self._block, self._discipline.line)
            return int(self._block.ctypes.data)

    def __repr__(self) -> str:
        reading = self.reading()
        if reading.bound_ns is None:
            return "SystemClock()"
        return f"SystemClock({reading.state.value}: {reading.offset_ns / 1e3:+,.1f} ± {reading.bound_ns / 1e3:,.1f} µs)"

    def _repr_html_(self) -> str:
        reading = self.reading()
        known = reading.bound_ns is not None
        rows = {
            "state": reading.state.value,
            "offset to UTC": f"{reading.offset_ns / 1e3:+,.1f} µs" if known else "nobody has compared it with UTC",
            "bound": f"± {reading.bound_ns / 1e3:,.1f} µs" if reading.bound_ns is not None else "none is known",
            "drift of the counter": f"{reading.drift_ppb / 1e3:+,.3f} ppm",
            "estimates": f"{len(self.history):,}, {self.refused:,} refused",
        }
        cells = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in rows.items())
        return f"<div><b>SystemClock</b><table>{cells}</table></div>"


_SLEPT_NS = 100_000_000
"""Less than a suspend takes, more than two clocks read one after the other ever disagree."""


def asleep_ns() -> int:
    """How long the machine has slept since it was started: what one clock counts, and the counter does not.

    0 where there are no such two clocks.
    """
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    if boottime is None:
        return 0
    return time.clock_gettime_ns(boottime) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def _anchor() -> tuple[int, int]:
    """The counter and this machine's UTC at one moment: of five pairs, the one whose readings lie closest together."""
    best: tuple[int, int, int] | None = None
    for _ in range(5):
        before = _perf_counter_ns()
        utc = time.time_ns()
        width = _perf_counter_ns() - before
        if best is None or width < best[0]:
            best = width, before + width // 2, utc
    assert best is not None
    return best[1], best[2]


def _at(line: int | Line, counter_ns: int) -> int:
    return counter_ns + line if isinstance(line, int) else line.at(counter_ns)


def _publish(block: npt.NDArray[np.int64], line: Line) -> None:
    slew, rate = (struct.unpack("<q", struct.pack("<d", gain))[0] for gain in (line.slew, line.rate))
    _kernels().changed(
        block.ctypes.data, line.begin_ns, line.shown_ns, slew, line.end_ns, line.end_shown_ns, rate
    )  # fmt: skip


def _kernels() -> ModuleType:
    """numba is loaded when compiled code is to ask, not before."""
    from hftlab.clock import kernels

    return kernels
