"""``SystemClock``: this machine's time, which never steps, and is slewed to UTC where somebody knows better."""

from __future__ import annotations

import html
import threading
import time
from math import floor
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

from hftlab.clock.discipline import Discipline
from hftlab.clock.estimate import ClockReading, ClockState, Estimate
from hftlab.clock.history import ClockHistory
from hftlab.clock.line import Line, Target
from hftlab.errors import HftlabError, ValidationError, shown

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_perf_counter_ns = time.perf_counter_ns

# What ``now_ns`` goes by: an offset while nobody has disciplined the clock, else what the line has behind its bend, in
# an exact tuple, as a NamedTuple takes twice as long to take apart. Its ``end_ns``, ``end_shown_ns``, ``rate``; itself.
_Shown: TypeAlias = int | tuple[int, int, float, Line]


class SystemClock:
    """Nanoseconds UTC from ``perf_counter_ns`` and an anchor that is taken once; never a step.

    Nobody disciplines it at first: it is as right as this machine's clock was when it was made, and UNSYNCED. What
    ``discipline`` is told (an ``NtpPoller`` does it) is slewed in, by ``max_slew_ppm`` at most, 500 unless told: an
    offset of 1 ms takes 2 s, one of 1 s half an hour. Until then ``reading().offset_ns`` is what is missing, and
    ``utc_ns()`` the best estimate. SYNCED while estimates come in; HOLDOVER when none has come for
    ``holdover_after_s`` (None: 300 s, or four times what lay between the latest two), from when on the bound grows
    unattended; UNSYNCED when it passes ``unsynced_bound_ns``, and after the machine has slept.

    ``now_ns`` costs 100 ns where reading the counter and adding an offset costs 70, and 190 once it is disciplined.

    Any thread may ask and discipline, and no thread ever sees time fall, nor sees it fall behind what another thread
    was told before. Compiled code asks ``clock.kernels.now_ns(clock.address)``. Raises ValidationError for settings out
    of bounds.
    """

    def __init__(
        self,
        *,
        max_slew_ppm: float = 500.0,
        holdover_after_s: float | None = None,
        unsynced_bound_ns: int = 1_000_000_000,
    ) -> None:
        counter_ns, utc_ns = _anchor()
        self._discipline = Discipline(
            Line.plain(counter_ns, utc_ns),
            max_slew_ppm=max_slew_ppm,
            holdover_after_s=holdover_after_s,
            unsynced_bound_ns=unsynced_bound_ns,
        )
        self._shown: _Shown | None = utc_ns - counter_ns  # None while it changes
        self._lock = threading.RLock()
        self._writer = 0
        self._held_ns: int | None = None
        self._block: npt.NDArray[np.int64] | None = None
        self._asleep_ns = asleep_ns()
        self._state = ClockState.UNSYNCED
        self.history = ClockHistory()
        """What it was told and what it was like then: ``.to_frame()``, ``.figure()``."""

    # -- asked --------------------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """The time now, in ns UTC; never less than any thread was told before."""
        # Whoever changes the line takes it away before he reads the counter at which the new one begins. So who still
        # finds the same line after reading the counter has read it before that.
        while True:
            shown = self._shown
            counter_ns = _perf_counter_ns()
            if shown is self._shown and shown is not None:
                if type(shown) is int:
                    return counter_ns + shown
                end_ns, end_shown_ns, rate, line = shown  # type: ignore[misc]  # an exact type, mypy thinks of bool
                elapsed_ns = counter_ns - end_ns
                if elapsed_ns >= 0:
                    return end_shown_ns + elapsed_ns + floor(elapsed_ns * rate)
                return line.at(counter_ns)
            if self._writer == threading.get_ident():
                return self._hold()
            with self._lock:
                if self._shown is None:
                    self._settle(self._discipline.line)  # two interrupts in a row cut the writer's own end short

    def _hold(self) -> int:
        """A signal's handler asks, in the very thread that is changing the line: it would wait for itself.

        Time stands still for it. Where the counter at which the new line begins may have been read, ``_held_ns`` is
        from before that; where it may not, the old line is still right, and what it shows is held from here on.
        """
        held_ns = self._discipline.line.at(_perf_counter_ns())
        # A handler may have come during that call; none comes between this look and what follows it.
        if self._held_ns is None:
            self._held_ns = held_ns
        return self._held_ns

    def utc_ns(self) -> int:
        """The best estimate of UTC, in ns: what is shown, and what is missing. It may step with each news, back too."""
        return self.reading().utc_ns

    def reading(self) -> ClockReading:
        """What it shows, what is missing to UTC, within what bound, and its state; all of one moment. About 10 µs."""
        with self._lock:
            self._look_for_sleep()
            reading = self._discipline.reading(_perf_counter_ns())
            if reading.state is not self._state:
                self._note(reading, None)
            return reading

    def _note(self, reading: ClockReading, estimate: Estimate | None) -> None:
        self._state = reading.state
        self.history.add(reading, estimate)

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
        if not isinstance(estimate, Estimate):
            raise ValidationError(f"a clock is disciplined by an hl.clock.Estimate; got {shown(estimate)}")
        with self._lock:
            self._look_for_sleep()
            if self._shown is None:  # in a signal's handler, in the very thread that is changing the line
                self._discipline.refused += 1
                return self.reading()
            before = self._discipline.reading(_perf_counter_ns())
            target = self._discipline.accept(_perf_counter_ns(), estimate)
            if target is not None:
                if before.bound_ns is not None and before.state is not ClockState.SYNCED:
                    # How far the bound had grown: a picture would let it shrink all the way to this estimate.
                    self._note(before, None)
                self._change(target)
            reading = self._discipline.reading(_perf_counter_ns())
            if target is not None or reading.state is not self._state:
                self._note(reading, estimate if target is not None else None)
            return reading

    def step_forward(self) -> int:
        """Jump to UTC at once where that is ahead, and return by how many ns; 0 where it is not ahead, or unknown.

        Never done by itself. Whoever measures durations by this clock sees the jump.
        """
        with self._lock:
            missing_ns = self.reading().offset_ns
            target = self._discipline.target(jump=True)
            if target is None or missing_ns <= 0 or self._shown is None:
                return 0
            self._change(target)
            self._note(self._discipline.reading(_perf_counter_ns()), None)
            return missing_ns

    def _change(self, target: Target) -> None:
        """Another line, from the counter's next reading on. The lock is held, and nothing is being changed."""
        line = self._discipline.line
        self._held_ns, self._writer = None, threading.get_ident()
        try:
            self._shown = None
            self._hold()
            if self._block is None:
                line = line.toward(_perf_counter_ns(), target)
            else:
                _kernels().bend(self._block.ctypes.data, *target)
        finally:
            # Also where an interrupt came meanwhile: then Python and compiled code go on by the same line, old or new.
            self._settle(line)

    def _settle(self, line: Line) -> None:
        """Let readers go on, by ``line``; by the one that compiled code has, where that is so. The lock is held."""
        if self._block is not None:
            line = _line_in(self._block)
        self._discipline.line = line
        self._writer = 0
        self._shown = line.end_ns, line.end_shown_ns, line.rate, line

    def _look_for_sleep(self) -> None:
        asleep = asleep_ns()
        slept_ns = asleep - self._asleep_ns
        if slept_ns > SLEPT_NS:
            self._discipline.suspended(slept_ns)
        self._asleep_ns = asleep

    @property
    def address(self) -> int:
        """Where compiled code finds it: for ``hftlab.clock.kernels.now_ns``. The clock must be kept alive meanwhile.

        The first call loads numba (0.3 s). Raises HftlabError where Python's counter is another clock than the one that
        compiled code reads (it is not on Linux).
        """
        with self._lock:
            if self._block is None:
                _check_counter()
                import numpy as np

                words = _kernels().BLOCK_WORDS
                memory = np.zeros(2 * words, np.int64)
                first = -memory.ctypes.data // 8 % words
                block = memory[first : first + words]
                _kernels().place(block.ctypes.data, *self._discipline.line)
                self._block = block
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
            "estimates refused": f"{self.refused:,}",
        }
        cells = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in rows.items())
        return f"<div><b>SystemClock</b><table>{cells}</table></div>"


SLEPT_NS = 100_000_000
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


def _check_counter() -> None:
    read = time.get_clock_info("perf_counter").implementation
    if read != "clock_gettime(CLOCK_MONOTONIC)" or time.CLOCK_MONOTONIC != 1:
        raise HftlabError(
            f"compiled code reads Linux's CLOCK_MONOTONIC, and perf_counter is {read} here; "
            "ask clock.now_ns() from Python instead, and hand the time to the kernel"
        )


def _line_in(block: npt.NDArray[np.int64]) -> Line:
    words = _kernels()
    gains = block.view("f8")
    return Line(
        int(block[words.BEGIN]), int(block[words.SHOWN]), float(gains[words.SLEW]),
        int(block[words.END]), int(block[words.END_SHOWN]), float(gains[words.RATE]),
    )  # fmt: skip


def _kernels() -> ModuleType:
    """numba is loaded when compiled code is to ask, not before."""
    from hftlab.clock import kernels

    return kernels
