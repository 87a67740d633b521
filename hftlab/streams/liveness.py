"""Which process somebody is, so that others on the same machine can tell that it is dead.

A mark is worth something only on the machine that it was made on, since that was started, and where processes have
the same numbers: boot id, namespace of process numbers, number, and when the process began (numbers are used again).
Where one of these is unknown or differs, nothing is proven, and a lease has to run out.
"""

from __future__ import annotations

import os
from pathlib import Path

_ENDED = ("Z", "X", "x")


def process_mark() -> str:
    """This process, as four words without spaces; empty where the system does not tell (other than Linux)."""
    try:
        state = _state_of(os.getpid())
        return " ".join((_boot(), _namespace(), str(os.getpid()), state[1])) if state else ""
    except OSError:
        return ""


def is_dead(mark: str) -> bool:
    """Whether the process of that mark has provably ended. False where nothing is known of it."""
    words = mark.split(" ")
    if len(words) != 4 or not words[2].isdigit():
        return False
    boot, namespace, pid, began = words
    try:
        if (boot, namespace) != (_boot(), _namespace()) or not Path("/proc/self/stat").exists():
            return False
        state = _state_of(int(pid))
    except OSError:
        return False
    # A process that was killed and not yet waited for is still listed, as a zombie.
    return state is None or state[0] in _ENDED or state[1] != began


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _namespace() -> str:
    return os.readlink("/proc/self/ns/pid")


def _state_of(pid: int) -> tuple[str, str] | None:
    """The state's letter and when it began; None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the name in brackets, which may hold anything, also brackets.
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]
