"""S4, the ring: rows of 128 bytes pushed and popped, beside a C++ ring that is built here from ``spsc_ring.cpp``.

``python -m tests.bench.rings [runs]`` prints the table. Both contenders run the same loops (``ring_loops.py``) on the
same memory outside the ring, and check the number in every row that they pop. Two threads are two Python threads that
call a compiled function each, without the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hftlab.ring import Ring, allocate
from tests.bench import ring_loops
from tests.bench.measurement import Measurement, rates

BOARD = "S4"
CAPACITY = 4_096
BATCH = 1_024
SMALL_BATCH = 64

BATCHES = "one thread, batches of 1,024"
ONE_BY_ONE = "one thread, one by one inside a kernel"
TWO_THREADS = "two threads, batches of 64"
ROWS = 20_480_000  # a run of each work: some 0.1 s

# The works, and how much of the C++ ring's rate is wanted of ours.
GOALS = {BATCHES: 0.6, ONE_BY_ONE: 0.5, TWO_THREADS: 0.6}

OURS = "hftlab"
PEER = "C++ SPSC ring"

SOURCE = Path(__file__).with_name("spsc_ring.cpp")


@dataclass(frozen=True)
class Contender:
    """One ring's four loops; each takes addresses and counts, and returns how many rows were wrong."""

    name: str
    batches: Callable[[int, int, int, int], int]
    one_by_one: Callable[[int, int, int, int], int]
    produce: Callable[[int, int, int], int]
    consume: Callable[[int, int, int], int]

    def work(self, name: str) -> Callable[[], int]:
        """Return the named work on memory of its own."""
        memory = allocate(2 * BATCH * ring_loops.ROW_BYTES)
        source = int(memory.ctypes.data)
        out = source + memory.size // 2

        def run() -> int:
            if name == BATCHES:
                wrong = self.batches(source, out, BATCH, ROWS)
            elif name == ONE_BY_ONE:
                ring_loops.stamp(source, SMALL_BATCH, 0)
                wrong = self.one_by_one(source, out, SMALL_BATCH, ROWS)
            else:
                wrong = self._between_threads(source, out)
            if wrong:
                raise AssertionError(f"{self.name}: {wrong} rows came out with another number than they went in with")
            return ROWS if memory.size else 0  # and memory lives as long as the work does

        return run

    def _between_threads(self, source: int, out: int) -> int:
        wrong: list[int] = []
        consumer = threading.Thread(target=lambda: wrong.append(self.consume(out, SMALL_BATCH, ROWS)))
        consumer.start()
        self.produce(source, SMALL_BATCH, ROWS)
        consumer.join()
        return wrong[0]


def ours() -> Contender:
    """Return the loops over our kernels."""
    ring = Ring(CAPACITY)
    return Contender(
        OURS,
        batches=lambda *arguments: ring_loops.batches(ring.address, *arguments),
        one_by_one=lambda *arguments: ring_loops.one_by_one(ring.address, *arguments),
        produce=lambda *arguments: ring_loops.produce(ring.address, *arguments),
        consume=lambda *arguments: ring_loops.consume(ring.address, 0, *arguments),
    )


@contextmanager
def peer() -> Iterator[Contender]:
    """Build the C++ ring in a temporary folder and give its loops. Raises RuntimeError where it can't be built."""
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        raise RuntimeError("no C++ compiler on the PATH (looked for c++, g++, clang++)")
    with tempfile.TemporaryDirectory() as folder:
        library_path = Path(folder, "libspsc_ring.so")
        built = subprocess.run(
            [compiler, "-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-o", library_path, SOURCE],
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode:
            raise RuntimeError(f"{compiler} does not build {SOURCE.name}: {built.stderr.strip()[:300]}")
        library = ctypes.CDLL(str(library_path))
        library.ring_new.restype = ctypes.c_void_p
        library.ring_new.argtypes = [ctypes.c_int64]
        library.ring_delete.restype = None
        library.ring_delete.argtypes = [ctypes.c_void_p]
        for name in ("batches", "one_by_one", "produce", "consume"):
            function = getattr(library, name)
            function.restype = ctypes.c_int64
            pointers = 2 if name in ("produce", "consume") else 3
            function.argtypes = [ctypes.c_void_p] * pointers + [ctypes.c_int64] * 2
        ring = library.ring_new(CAPACITY)
        try:
            yield Contender(
                PEER,
                batches=lambda *arguments: library.batches(ring, *arguments),
                one_by_one=lambda *arguments: library.one_by_one(ring, *arguments),
                produce=lambda *arguments: library.produce(ring, *arguments),
                consume=lambda *arguments: library.consume(ring, *arguments),
            )
        finally:
            library.ring_delete(ring)


def measure(runs: int) -> list[Measurement]:
    """Measure each work ``runs`` times, ours and the C++ ring by turns."""
    with ExitStack() as stack:
        contenders, skipped = [ours()], ""
        try:
            contenders.append(stack.enter_context(peer()))
        except RuntimeError as error:
            skipped = str(error)
        note = f"capacity {CAPACITY:,}"
        found = []
        for work in GOALS:
            for contender in contenders:
                figures = rates(contender.work(work), runs)
                found.append(Measurement(BOARD, work, contender.name, "rows/s", figures, note=note))
            if skipped:
                found.append(Measurement(BOARD, work, PEER, "rows/s", skipped=skipped))
        return found


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    ours_median = 0.0
    for found in measure(runs):
        if found.skipped:
            print(f"{found.work:40} {found.contender:14} skipped: {found.skipped}")
            continue
        figures = f"{found.median / 1e6:7.1f} M {found.unit} ({found.low / 1e6:.1f} to {found.high / 1e6:.1f})"
        ratio = ""
        if found.contender == OURS:
            ours_median = found.median
        else:
            goal = GOALS[found.work]
            ratio = f"  ours {ours_median / found.median:.2f} x, goal {goal} x"
        print(f"{found.work:40} {found.contender:14} {figures}{ratio}")


if __name__ == "__main__":
    main()
