"""Durations and sizes in the fewest characters that say them."""

from __future__ import annotations

_DURATIONS = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"))
_SIZES = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def duration(ns: float) -> str:
    """As in ``70 ns``, ``1.25 us``, ``16 s``: three digits."""
    for unit_ns, name in _DURATIONS:
        if abs(ns) >= unit_ns:
            return f"{_three(ns / unit_ns)} {name}"
    return f"{_three(ns)} ns"


def size(count_bytes: float) -> str:
    """As in ``64 MiB``, ``1.95 GiB``: three digits."""
    for unit_bytes, name in _SIZES:
        if abs(count_bytes) >= unit_bytes:
            return f"{_three(count_bytes / unit_bytes)} {name}"
    return f"{count_bytes:.0f} bytes"


def _three(value: float) -> str:
    # Not "g", which writes 1,000 as 1e+03.
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
