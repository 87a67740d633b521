"""Two threads and a compiled one read a clock that is slewed forth and back: does time ever fall for any of them?

``python -m tests.clock.ten_minutes --seconds 600`` prints what they saw. A thread's reading is compared with the
latest that any thread has published before it was taken, so a fall across threads shows as well.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from hftlab.clock import Estimate, SystemClock
from hftlab.clock import kernels as clock_kernels


@dataclass
class Watch:
    """What was seen: readings by reader (two of Python, one compiled), falls, changes of the line, the least step."""

    readings: tuple[int, ...]
    falls: int
    changes: int
    least_step_ns: int
    seconds: float
    slewed_ns: tuple[int, int]

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,}" for count in self.readings)
        return (
            f"{self.seconds:,.1f} s: readings {counts} (the last compiled), {self.changes:,} changes of the line "
            f"between offsets of {self.slewed_ns[0]:,} and {self.slewed_ns[1]:,} ns, "
            f"least step {self.least_step_ns} ns, {self.falls} falls"
        )


@njit(nogil=True)
def _read(block: int, told: npt.NDArray[np.int64], count: int) -> tuple[int, int]:
    """Read so many times; publish each, and count those that fall behind what Python's readers published."""
    falls, least = 0, 1 << 62
    for _ in range(count):
        before = max(told[0], told[8], told[16])
        now = clock_kernels.now_ns(block)
        falls += now < before
        least = min(least, now - told[16])
        told[16] = now
    return falls, least


def watch(seconds: float, seed: int) -> Watch:
    """Read for so long, while estimates of both signs come every millisecond or two."""
    clock, rng = SystemClock(max_slew_ppm=500.0), random.Random(seed)
    told = np.zeros(24, np.int64)  # each reader's latest, a cache line apart
    told[:] = clock.now_ns()
    block = clock.address
    _read(block, told, 1)
    stop = threading.Event()
    counts, falls, leasts = [0, 0, 0], [0, 0, 0], [1 << 62] * 3

    def read(place: int) -> None:
        own = 8 * place
        while not stop.is_set():
            for _ in range(1_000):
                before = max(int(told[0]), int(told[8]), int(told[16]))
                now = clock.now_ns()
                falls[place] += now < before
                leasts[place] = min(leasts[place], now - int(told[own]))
                told[own] = now
            counts[place] += 1_000

    def read_compiled() -> None:
        while not stop.is_set():
            fell, least = _read(block, told, 10_000)
            falls[2] += fell
            leasts[2] = min(leasts[2], least)
            counts[2] += 10_000
            stop.wait(0.0005)  # the others need the cores, too

    threads = [threading.Thread(target=read, args=(place,)) for place in (0, 1)]
    threads.append(threading.Thread(target=read_compiled))
    for thread in threads:
        thread.start()
    begun, changes, offsets = time.monotonic(), 0, [0, 0]
    try:
        while (elapsed := time.monotonic() - begun) < seconds:
            counter_ns = time.perf_counter_ns()
            ahead_ns = rng.randrange(-5_000_000, 5_000_000)
            drift = rng.choice((None, rng.uniform(-400_000, 400_000)))
            reading = clock.discipline(
                Estimate(
                    counter_ns, clock.now_ns() - counter_ns + ahead_ns, 1_000, drift_ppb=drift, drift_bound_ppb=1.0
                )
            )
            offsets = [min(offsets[0], reading.offset_ns), max(offsets[1], reading.offset_ns)]
            changes += 1
            stop.wait(rng.uniform(0.0001, 0.002))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return Watch(tuple(counts), sum(falls), changes, min(leasts), elapsed, (offsets[0], offsets[1]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    parsed = parser.parse_args()
    print(f"seed {parsed.seed}: {watch(parsed.seconds, parsed.seed)}")
