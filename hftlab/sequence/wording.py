"""A gap in words, the same in tables, pictures and widgets."""

from __future__ import annotations


def numbers_text(first: int, last: int) -> str:
    """``105…110``, or the number alone where it is one."""
    return str(first) if first == last else f"{first}…{last}"


def duration_text(span_ns: int) -> str:
    """A duration to three digits: ``850 ns``, ``12.5 µs``, ``1.25 ms``, ``3.2 s``, ``2 min 05 s``, ``3 h 10 min``."""
    for most, divisor, unit in ((1_000, 1, "ns"), (10**6, 10**3, "µs"), (10**9, 10**6, "ms"), (60 * 10**9, 10**9, "s")):
        if span_ns < most:
            # %g would write 1e+03 for what rounds up to the next unit.
            return f"{min(span_ns / divisor, 999):.3g} {unit}"
    minutes, seconds = divmod(span_ns // 10**9, 60)
    return f"{minutes} min {seconds:02d} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02d} min"
