"""This machine's counter and its clock: how finely and cheaply they are read, and what the kernel says of UTC.

The kernel's word comes by ``adjtimex(2)`` without any mode set, which only reads and needs no privilege. ``maxerror``
is what the daemon that sets the clock claims, grown since then by 500 ppm; without such a daemon the kernel says
STA_UNSYNC, and 16 s.
"""

from __future__ import annotations

import asyncio
import ctypes
import struct
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil

from hftlab.clock import SystemClock
from hftlab.doctor.fitness import Divergence
from hftlab.doctor.report import Check, Figure, Verdict
from hftlab.doctor.system_files import read
from hftlab.doctor.wording import duration

AREA = "clock"
DAEMONS = ("chronyd", "ntpd", "systemd-timesyncd", "ptp4l", "phc2sys", "openntpd", "timed")
"""Programs that keep a clock on UTC, by their processes' names."""

# struct timex of 64-bit Linux: modes, offset freq maxerror esterror, status, constant precision tolerance, time (2),
# tick ppsfreq jitter, shift, stabil jitcnt calcnt errcnt stbcnt, tai, eleven ints of room.
_TIMEX = struct.Struct("@i4li3l2l3li5li44x")
_UNSYNC, _NANO = 0x0040, 0x2000
_LEAPS = {1: "a second will be inserted at the end of the day", 2: "a second will be left out at the end of the day",
          3: "a leap second is under way", 4: "a leap second has just been"}  # fmt: skip
_ERROR = 5
_SLICE_NS = 10_000_000
_SOURCES = {
    "tsc": (Verdict.GOOD, "the processor's own counter, read without a system call"),
    "arch_sys_counter": (Verdict.GOOD, "the processor's own counter, read without a system call"),
    "kvm-clock": (Verdict.FAIR, "the hypervisor's page: no system call, twice the cost of tsc"),
    "hyperv_clocksource_tsc_page": (Verdict.FAIR, "the hypervisor's page: no system call, twice the cost of tsc"),
    "xen": (Verdict.POOR, "every reading of the time is a system call"),
    "hpet": (Verdict.POOR, "every reading of the time asks a chip, for a microsecond"),
    "acpi_pm": (Verdict.POOR, "every reading of the time asks a chip, for microseconds, in steps of 279 ns"),
    "jiffies": (Verdict.POOR, "the time moves in steps of milliseconds"),
}


class KernelClock(NamedTuple):
    """What ``adjtimex`` tells. Offsets and errors in ns, the frequency in ppm of correction that is in effect."""

    state: int
    status: int
    offset_ns: int
    frequency_ppm: float
    maxerror_ns: int
    esterror_ns: int
    tai_s: int

    @property
    def synced(self) -> bool:
        """Whether somebody claims to keep it on UTC."""
        return not self.status & _UNSYNC and self.state != _ERROR

    @property
    def divergence(self) -> Divergence | None:
        """What it claims of its distance to UTC; None where nobody keeps it."""
        return Divergence(0, self.maxerror_ns, "the kernel's own claim") if self.synced else None


def parse_timex(raw: bytes, state: int) -> KernelClock | None:
    """A ``struct timex`` of 64-bit Linux and what the call returned; None for bytes that are not one."""
    if len(raw) < _TIMEX.size or not 0 <= state <= _ERROR:
        return None
    _, offset, frequency, maxerror, esterror, status, *_, tai = _TIMEX.unpack_from(raw)
    return KernelClock(
        state=state,
        status=status,
        offset_ns=offset if status & _NANO else offset * 1_000,
        frequency_ppm=frequency / 65_536,
        maxerror_ns=maxerror * 1_000,
        esterror_ns=esterror * 1_000,
        tai_s=tai,
    )


def read_kernel_clock() -> KernelClock | None:
    """Ask the kernel; None where there is no such call, or a sandbox forbids it. Changes nothing."""
    if sys.platform != "linux" or struct.calcsize("l") != 8:
        return None
    # Room behind it, should a later kernel write more.
    room = ctypes.create_string_buffer(2 * _TIMEX.size)
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(room)
    except (OSError, AttributeError):
        return None
    return parse_timex(room.raw, state)


def find_daemons() -> list[str]:
    """The programs that could be keeping this clock, as far as their processes can be seen from here."""
    found: set[str] = set()
    for process in psutil.process_iter(["name"]):
        name = process.info["name"] or ""
        # The kernel cuts names at 15 characters: systemd-timesyncd shows as systemd-timesyn.
        found.update(daemon for daemon in DAEMONS if name == daemon or (len(name) == 15 and daemon.startswith(name)))
    return sorted(found)


# -- judged -----------------------------------------------------------------------------------------------------------


def judge_source(current: str | None, available: str | None) -> Check:
    """The clocksource that the kernel counts by."""
    if current is None:
        why = (
            "the kernel does not tell here" if sys.platform == "linux" else f"only Linux tells; this is {sys.platform}"
        )
        return Check(area=AREA, name="clocksource", value="not told", verdict=Verdict.UNKNOWN, why=why)
    verdict, why = _SOURCES.get(current, (Verdict.UNKNOWN, "not one that is known here"))
    to_do = ""
    if verdict in (Verdict.FAIR, Verdict.POOR) and "tsc" in (available or "").split():
        to_do = "as root: echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource"
    return Check(
        area=AREA, name="clocksource", value=current, verdict=verdict, why=why, next=to_do,
        figures={"clocksource": current, "available": available},
    )  # fmt: skip


def judge_kernel(clock: KernelClock | None, daemons: list[str]) -> Check:
    """Whether somebody keeps the kernel's clock on UTC, and within what."""
    seen = f"; {', '.join(daemons)} running" if daemons else ""
    if clock is None:
        why = (
            "adjtimex is refused here (a sandbox?)"
            if sys.platform == "linux"
            else f"Linux only; this is {sys.platform}"
        )
        return Check(
            area=AREA, name="kernel sync", value=f"not told{seen}", verdict=Verdict.UNKNOWN, why=why,
            next="hftlab doctor --ntp SERVER asks a server",
        )  # fmt: skip
    figures: dict[str, Figure] = {
        "synced": clock.synced, "maxerror_ns": clock.maxerror_ns, "esterror_ns": clock.esterror_ns,
        "offset_ns": clock.offset_ns, "frequency_ppm": clock.frequency_ppm, "leap_state": clock.state,
        "tai_s": clock.tai_s, "daemons": ", ".join(daemons),
    }  # fmt: skip
    leap = f"; {_LEAPS[clock.state]}" if clock.state in _LEAPS else ""
    steered = f", frequency {clock.frequency_ppm:+.1f} ppm" if clock.frequency_ppm else ""
    if not clock.synced:
        return Check(
            area=AREA, name="kernel sync", value=f"unsynchronised{steered}{seen}{leap}", verdict=Verdict.POOR,
            why="nobody tells the kernel how far its clock is from UTC (a container's or a virtual "
            "machine's may be kept by the host, unseen)",
            good_for="order and durations on this machine; not for times that others are to believe",
            next="ask the daemon why (chronyc tracking, ntpq -p, timedatectl timesync-status)" if daemons
            else "start a daemon: apt install chrony; or compare: hftlab doctor --ntp SERVER",
            figures=figures,
        )  # fmt: skip
    most_ns = clock.maxerror_ns
    verdict = Verdict.GOOD if most_ns <= 1_000_000 else Verdict.FAIR if most_ns <= 50_000_000 else Verdict.POOR
    value = f"synchronised, within {duration(most_ns)} of UTC by its own claim{steered}{seen}{leap}"
    to_do = "" if verdict is Verdict.GOOD else "nearer or better servers in the daemon's settings, or PTP (linuxptp)"
    return Check(
        area=AREA, name="kernel sync", value=value, verdict=verdict, figures=figures, next=to_do,
        why="maxerror is the daemon's claim: half the way to its servers and what they say of themselves",
        good_for=_classes(most_ns),
    )  # fmt: skip


def _classes(most_ns: int) -> str:
    for limit_ns, words in (
        (100_000, "RTS 25 high-frequency (100 us), CAT exchanges"),
        (1_000_000, "RTS 25 automated trading (1 ms), CAT members"),
        (50_000_000, "CAT members (50 ms)"),
        (1_000_000_000, "voice and manual orders (1 s)"),
    ):
        if most_ns <= limit_ns:
            return words
    return "no rule's limit"


class Counter(NamedTuple):
    """What reading the counter and the clock costs, and what came between in ``spun_ns`` of nothing else."""

    resolution_ns: int
    call_ns: float
    now_ns: float
    spun_ns: int
    longest_gap_ns: int
    lost_ns: int
    """All that gaps of more than 10 µs took."""


def judge_counter(counter: Counter, implementation: str) -> tuple[Check, Check]:
    """The counter's cost, and the scheduling that it saw."""
    dear = counter.call_ns > 500
    cost = Check(
        area=AREA, name="counter",
        value=f"{implementation}, steps of {duration(counter.resolution_ns)}, {duration(counter.call_ns)} a reading; "
        f"now_ns() {duration(counter.now_ns)}",
        verdict=Verdict.GOOD if not dear and counter.resolution_ns <= 100 else
        Verdict.FAIR if counter.resolution_ns <= 1_000 else Verdict.POOR,
        why="each stamp costs a reading, and is no finer than a step",
        figures={"resolution_ns": counter.resolution_ns, "call_ns": counter.call_ns, "now_ns": counter.now_ns},
    )  # fmt: skip
    gap_ns, share = counter.longest_gap_ns, counter.lost_ns / max(counter.spun_ns, 1)
    verdict = Verdict.GOOD if gap_ns < 100_000 else Verdict.FAIR if gap_ns < 5_000_000 else Verdict.POOR
    return cost, Check(
        area=AREA, name="scheduling",
        value=f"longest pause {duration(gap_ns)}, {share:.1%} of {duration(counter.spun_ns)} taken away",
        verdict=verdict,
        why="others ran on this core in between: latencies have a tail of that length that no code of yours made",
        next="" if verdict is Verdict.GOOD else "quieten the machine; keep cores for yourself: isolcpus=, taskset -c",
        figures={"longest_gap_ns": gap_ns, "lost_fraction": share, "spun_ns": counter.spun_ns},
    )  # fmt: skip


# -- measured ---------------------------------------------------------------------------------------------------------


async def measure_counter(spin_s: float = 0.2) -> Counter:
    """Read the counter for ``spin_s``, in slices of 10 ms: a notebook's loop goes on in between."""
    now = time.perf_counter_ns
    longest = lost = spun = 0
    while spun < spin_s * 1e9:
        await asyncio.sleep(0)
        began = before = now()
        while before - began < _SLICE_NS:
            after = now()
            gap = after - before
            if gap > longest:
                longest = gap
            if gap > 10_000:
                lost += gap
            before = after
        spun += before - began
    return Counter(_resolution_ns(), _cost_ns(now), _cost_ns(SystemClock().now_ns), spun, longest, lost)


def _resolution_ns() -> int:
    """The smallest step that was seen, not the one that is promised: macOS promises 1 ns and counts in 42."""
    now = time.perf_counter_ns
    promised_ns = round(time.get_clock_info("perf_counter").resolution * 1e9)
    readings = [now() for _ in range(2_000)]
    steps = [step for one, other in pairwise(readings) if (step := other - one) > 0]
    # Two readings lie some 50 ns apart, so that finer steps than that show only in what is promised.
    return max(promised_ns, 1) if steps and min(steps) < 100 else max(promised_ns, *steps[:1], 1)


def _cost_ns(call: Callable[[], int]) -> float:
    now, costs = time.perf_counter_ns, []
    for _ in range(9):
        began = now()
        for _ in range(500):
            call()
        costs.append((now() - began) / 500)
    return median(costs)


async def examine_clocks(root: Path) -> tuple[list[Check], KernelClock | None]:
    """The checks of this area, and what the kernel says. About 0.25 s."""
    counter = await measure_counter()
    folder = root / "sys/devices/system/clocksource/clocksource0"
    kernel = read_kernel_clock()
    checks = [
        *judge_counter(
            counter, time.get_clock_info("perf_counter").implementation.removeprefix("clock_gettime").strip("()")
        ),
        judge_source(read(folder / "current_clocksource"), read(folder / "available_clocksource")),
        judge_kernel(kernel, find_daemons()),
    ]
    return checks, kernel
