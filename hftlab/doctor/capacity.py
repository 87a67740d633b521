"""How much memory and disk there is for queues, recordings and the server, and what makes memory slow."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import psutil

from hftlab.doctor.report import Check, Verdict
from hftlab.doctor.system_files import read
from hftlab.doctor.wording import size
from hftlab.memory import MemoryPressure, read_pressure

AREA = "memory"

ROW_BYTES = 128
_LANES = 4
"""A lane of the bus for each type of event, each with a queue of ``capacity`` rows of ``ROW_BYTES``."""
_DEFAULT_CAPACITY, _LEAST, _MOST = 1 << 16, 1 << 10, 1 << 24
"""Of rows in a queue: what a bus takes unless told, and the bounds of what it may be told."""
_SHARE = 4
"""Queues may take a quarter of what is free: batches, histories and the server want the rest."""


def fitting_capacity(free_bytes: int) -> int:
    """The greatest capacity, a power of two of rows, that ``free_bytes`` leave room for; 0 where not even the least."""
    rows = free_bytes // _SHARE // (_LANES * ROW_BYTES)
    return min(1 << rows.bit_length() - 1, _MOST) if rows >= _LEAST else 0


def judge_memory(total_bytes: int, available_bytes: int, pressure: MemoryPressure) -> Check:
    """What may be used: the machine's, or less where a control group has a limit."""
    free_bytes = max(min(available_bytes, pressure.limit_bytes - pressure.used_bytes), 0)
    rows = fitting_capacity(free_bytes)
    limit = "" if pressure.source == "psutil" else f"; limited to {size(pressure.limit_bytes)} by {pressure.source}"
    verdict = Verdict.GOOD if free_bytes >= 1 << 30 else Verdict.FAIR if rows >= _DEFAULT_CAPACITY else Verdict.POOR
    return Check(
        area=AREA, name="memory", value=f"{size(free_bytes)} free of {size(total_bytes)}{limit}", verdict=verdict,
        why="what is recorded into the embedded server lies in memory as well: some 14 bytes an event",
        good_for=f"queues of {rows:,} events a type (Lab(capacity=…); {_DEFAULT_CAPACITY:,} unless told)",
        next="" if verdict is Verdict.GOOD else "close other notebooks' kernels, or raise the limit",
        figures={"total_bytes": total_bytes, "available_bytes": available_bytes, "free_bytes": free_bytes,
                 "limit_bytes": pressure.limit_bytes, "limited_by": pressure.source, "capacity_rows": rows},
    )  # fmt: skip


def judge_pressure(pressure: MemoryPressure, swap_total_bytes: int, swap_used_bytes: int) -> list[Check]:
    """Whether anybody waits for memory, and what lies in swap."""
    stalled = pressure.stalled_fraction
    swapped = swap_used_bytes > max(1 << 26, swap_total_bytes // 20)
    swap = Check(
        area=AREA, name="swap", value=f"{size(swap_used_bytes)} of {size(swap_total_bytes)} used" if swap_total_bytes
        else "none", verdict=Verdict.FAIR if swapped else Verdict.GOOD,
        why="what lies in swap comes back page by page, milliseconds each",
        next="as root: swapoff -a, where memory suffices" if swapped else "",
        figures={"swap_total_bytes": swap_total_bytes, "swap_used_bytes": swap_used_bytes},
    )  # fmt: skip
    if stalled is None:
        return [swap, Check(
            area=AREA, name="stalls", value="not told", verdict=Verdict.UNKNOWN,
            why="the kernel has no pressure stall information (Linux 4.20 and later; psi=1 where it is switched off)",
        )]  # fmt: skip
    verdict = Verdict.GOOD if stalled < 0.001 else Verdict.FAIR if stalled < 0.02 else Verdict.POOR
    return [swap, Check(
        area=AREA, name="stalls", value=f"{stalled:.1%} of the last 10 s, by the {pressure.stalls_of}", verdict=verdict,
        why="so much of the time somebody waited for memory", figures={"stalled_fraction": stalled},
        next="" if verdict is Verdict.GOOD else "give what runs beside less, or this more",
    )]  # fmt: skip


def judge_huge_pages(text: str | None, platform: str = sys.platform) -> Check:
    """Transparent huge pages, from ``always [madvise] never``."""
    chosen = (text or "").partition("[")[2].partition("]")[0]
    if not chosen:
        why = "the kernel does not tell here" if platform == "linux" else f"Linux only; this is {platform}"
        return Check(area=AREA, name="huge pages", value="not told", verdict=Verdict.UNKNOWN, why=why)
    always = chosen == "always"
    return Check(
        area=AREA, name="huge pages", value=f"transparent: {chosen}", verdict=Verdict.FAIR if always else Verdict.GOOD,
        why="while the server writes a snapshot, each page that it touches is copied: 2 MiB, not 4 KiB",
        next="as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled" if always else "",
        figures={"transparent_hugepage": chosen},
    )  # fmt: skip


def judge_locking(soft_bytes: int | None) -> Check:
    """RLIMIT_MEMLOCK; None for no limit."""
    value = "no limit" if soft_bytes is None else size(soft_bytes)
    return Check(
        area=AREA, name="locked memory", value=f"up to {value}",
        verdict=Verdict.GOOD if soft_bytes is None or soft_bytes >= 1 << 26 else Verdict.FAIR,
        why="hftlab locks none; what is to be kept out of swap (mlock, huge pages, kernel bypass) needs more",
        figures={"memlock_bytes": soft_bytes},
    )  # fmt: skip


def judge_folder(name: str, path: Path, enough_bytes: int, why: str) -> Check:
    """The room in a folder, or in the nearest one above it that is there."""
    there = next((one for one in (path, *path.parents) if one.exists()), None)
    try:
        usage = None if there is None else shutil.disk_usage(there)
    except OSError:
        usage = None
    if usage is None:
        return Check(area=AREA, name=name, value=f"{path} can't be read", verdict=Verdict.UNKNOWN, why=why)
    return Check(
        area=AREA, name=name, value=f"{size(usage.free)} free of {size(usage.total)} at {path}",
        verdict=Verdict.GOOD if usage.free >= enough_bytes else Verdict.FAIR, why=why,
        figures={"free_bytes": usage.free, "total_bytes": usage.total},
    )  # fmt: skip


def examine_memory(root: Path, directory: Path) -> list[Check]:
    """The checks of this area; ``directory`` is where an embedded server would keep its data. About 1 ms."""
    import resource  # not on Windows, where the rest of this package can be imported

    memory, swap, pressure = psutil.virtual_memory(), psutil.swap_memory(), read_pressure(root)
    soft_bytes, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK) if hasattr(resource, "RLIMIT_MEMLOCK") else (0, 0)
    checks = [
        judge_memory(memory.total, memory.available, pressure),
        *judge_pressure(pressure, swap.total, swap.used),
        judge_huge_pages(read(root / "sys/kernel/mm/transparent_hugepage/enabled")),
        judge_locking(None if soft_bytes == resource.RLIM_INFINITY else soft_bytes),
    ]
    shared = root / "dev/shm"
    if sys.platform == "linux":
        checks.append(judge_folder("shared memory", shared, 1 << 26, "rings between processes lie there"))
    checks.append(judge_folder("disk", directory, 1 << 30, "an embedded server writes its log and snapshots there"))
    return checks
