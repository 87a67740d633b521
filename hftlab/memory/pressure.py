"""``read_pressure``: how much of the memory that this process may use is taken, and whether anybody waits for memory.

The naive figure, used through total of the machine, is wrong in a container: its limit may be a hundredth of the
machine, and is nowhere in ``/proc/meminfo``. So every layer that exists is read, and the one that leaves the least
counts: the process's own control group and those above it (version 2, or version 1), and the machine. How much is used
says nothing yet about who suffers (a cache fills whatever there is); the kernel's stall information does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

Source = Literal["cgroup v2", "cgroup v1", "psutil"]

STALLS_AT_THE_LIMIT = 0.1
"""The share of time with stalls that counts as much as a full limit.

A tenth, for who waits for memory a tenth of the time (``some``) is close to being killed: Android's low-memory killer
begins at 7 % of a second.
"""
_NO_LIMIT_BYTES = 1 << 60
"""Version 1 writes the largest multiple of a page in 63 bits for "no limit", and pages have several sizes."""
_FILES = {
    # usage, limits (the lowest counts), and the key of memory.stat that holds the cache that can go at once
    "cgroup v2": ("memory.current", ("memory.max", "memory.high"), b"inactive_file "),
    "cgroup v1": ("memory.usage_in_bytes", ("memory.limit_in_bytes",), b"total_inactive_file "),
}


@dataclass(frozen=True, slots=True)
class MemoryPressure:
    """One reading. ``used_fraction`` is ``used_bytes`` of ``limit_bytes``, 0 to 1; ``source`` is whose limit that is.

    ``stalled_fraction``: the share of the last 10 s in which somebody waited for memory (PSI, ``some avg10``); None
    where the kernel does not tell. ``stalls_of``: whether that is of the process's own "cgroup" or of the "machine".
    """

    used_fraction: float
    stalled_fraction: float | None
    used_bytes: int
    limit_bytes: int
    source: Source
    stalls_of: Literal["cgroup", "machine"] | None = None

    @property
    def has_psi(self) -> bool:
        """Whether the kernel told of stalls."""
        return self.stalled_fraction is not None

    @property
    def level(self) -> float:
        """One figure, 0 to 1: the greater of ``used_fraction`` and ten times ``stalled_fraction``, at most 1.

        So 0.9 is reached at 90 % of the limit, or with stalls in 9 % of the time, whichever is first. Not a sum:
        stalls come from a full limit, so they would count twice.
        """
        stalled = self.stalled_fraction or 0.0
        return min(1.0, max(self.used_fraction, stalled / STALLS_AT_THE_LIMIT))

    def __repr__(self) -> str:
        stalls = "no PSI" if self.stalled_fraction is None else f"stalled {self.stalled_fraction:.1%} of the time"
        used = f"{self.used_bytes / 2**20:,.0f} of {self.limit_bytes / 2**20:,.0f} MiB"
        return f"MemoryPressure({self.used_fraction:.1%} used: {used} by {self.source}, {stalls})"


def read_pressure(root: Path = Path("/")) -> MemoryPressure:
    """Read all layers now; the one with the greatest share used is the limit that binds.

    ``root`` is where ``proc`` and ``sys`` lie (tests give a made-up tree; the machine itself is always asked of
    psutil). In a control group the cache of files that nobody used lately (``inactive_file``) is not counted as used:
    it goes as soon as something else needs the room, and container tools show it like that. Files that are missing or
    make no sense are passed over, and the next layer counts. Raises only what psutil raises.

    About 200 µs, of which psutil takes 40 (a dozen small files: four times a second is nothing, once an event far too
    often). The kernel adds up ``memory.stat`` when it is read, which takes longer where there are very many groups.
    """
    paths = _own_groups(root)
    readings: list[_Reading | None] = [_read_machine()]
    stalls: tuple[float, Literal["cgroup", "machine"]] | None = None
    for group in _chain(root / "sys/fs/cgroup", paths.get("")):
        readings.append(_read_group(group, "cgroup v2"))
        stalls = stalls or _read_stalls(group / "memory.pressure", "cgroup")
    for group in _chain(root / "sys/fs/cgroup/memory", paths.get("memory")):
        readings.append(_read_group(group, "cgroup v1"))
    stalls = stalls or _read_stalls(root / "proc/pressure/memory", "machine")
    binding = max((one for one in readings if one), key=lambda one: one[0])
    return MemoryPressure(binding[0], stalls and stalls[0], *binding[1:], stalls_of=stalls and stalls[1])


_Reading = tuple[float, int, int, Source]


def _read_machine() -> _Reading:
    """Used is what can't be had: the kernel counts what it could free at once as available."""
    memory = psutil.virtual_memory()
    return _reading(memory.total - memory.available, memory.total, "psutil")


def _reading(used_bytes: int, limit_bytes: int, source: Source) -> _Reading:
    used_bytes = max(0, used_bytes)
    fraction = min(1.0, used_bytes / limit_bytes) if limit_bytes > 0 else 1.0
    return fraction, used_bytes, limit_bytes, source


def _own_groups(root: Path) -> dict[str, str]:
    """The process's path in each hierarchy by the name of its controller; "" is version 2's, which has all of them."""
    paths: dict[str, str] = {}
    for line in (_read(root / "proc/self/cgroup") or b"").decode(errors="surrogateescape").splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon:
            paths.update(dict.fromkeys(controllers.split(","), path))
    return paths


def _chain(mounted: Path, path: str | None) -> Iterator[Path]:
    """The process's own group, and those above it up to where the hierarchy is mounted.

    In a container the path may be the host's, of which nothing is mounted here but the container's own group: at the
    top. Groups that aren't there are passed over when they are read, which leaves just that one. A path that leads out
    of the mounted part ("/../other") has only the top too.
    """
    if path is None:
        return
    parts = [part for part in path.split("/") if part]
    if ".." in parts:
        parts = []
    for depth in range(len(parts), -1, -1):
        yield mounted.joinpath(*parts[:depth])


def _read_group(group: Path, source: Source) -> _Reading | None:
    """What a group uses of the lowest of its limits; None where it has none, or doesn't tell."""
    usage, limits, inactive_key = _FILES[source]
    limit_bytes = min((limit for name in limits if (limit := _read_bytes(group / name)) is not None), default=None)
    if limit_bytes is None or limit_bytes >= _NO_LIMIT_BYTES:
        return None
    used_bytes = _read_bytes(group / usage)
    if used_bytes is None:
        return None
    inactive_bytes = 0
    for line in (_read(group / "memory.stat") or b"").splitlines():
        if line.startswith(inactive_key):
            inactive_bytes = _as_bytes(line[len(inactive_key) :]) or 0
            break
    return _reading(used_bytes - inactive_bytes, limit_bytes, source)


def _read_stalls(path: Path, of: Literal["cgroup", "machine"]) -> tuple[float, Literal["cgroup", "machine"]] | None:
    """``some avg10`` in a file such as ``some avg10=1.25 avg60=… avg300=… total=…``, as a fraction."""
    words = (_read(path) or b"").split()
    if len(words) < 2 or words[0] != b"some" or not words[1].startswith(b"avg10="):
        return None
    try:
        percent = float(words[1][len(b"avg10=") :])
    except ValueError:
        return None
    return (percent / 100, of) if 0 <= percent <= 100 else None  # which a NaN is not


def _read_bytes(path: Path) -> int | None:
    return _as_bytes(_read(path) or b"")


def _as_bytes(text: bytes) -> int | None:
    """A whole number of bytes; None for "max", which means no limit, and for anything else."""
    text = text.strip()
    return int(text) if text.isdigit() and len(text) < 20 else None


def _read(path: Path) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except (OSError, ValueError):
        # Not there, not allowed, not a path, or (PSI switched off) not supported: the answer is always the next layer.
        return None
