"""Values and quantiles in words, the same in reprs, tables and pictures."""

from __future__ import annotations

import math

_DURATIONS = ((1_000, 1, "ns"), (10**6, 10**3, "µs"), (10**9, 10**6, "ms"), (60 * 10**9, 10**9, "s"))


def value_text(value: float, unit: str) -> str:
    """A value to three digits. Of ``ns``: ``850 ns``, ``12.5 µs``, ``-1.25 ms``, ``2 min 05 s``; NaN is ``none``."""
    if math.isnan(value):
        return "none"
    if unit != "ns":
        return f"{_three_digits(value)} {unit}".rstrip()
    sign, span_ns = "-" if value < 0 else "", abs(value)
    for most, divisor, of in _DURATIONS:
        if span_ns < most:
            # %g would write 1e+03 for what rounds up to the next unit.
            return f"{sign}{min(span_ns / divisor, 999):.3g} {of}"
    minutes, seconds = divmod(int(span_ns) // 10**9, 60)
    if minutes < 60:
        return f"{sign}{minutes} min {seconds:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours} h {minutes:02d} min" if hours < 48 else f"{sign}{hours // 24:,} days"


def percentile_text(quantile: float) -> str:
    """``p50`` for 0.5, ``p99.9`` for 0.999."""
    return f"p{float(f'{quantile * 100:.10g}'):g}"


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
