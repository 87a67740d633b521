"""What a histogram says of its values, frozen: for dashboards, exporters and whoever must not hold a live one."""

from __future__ import annotations

from dataclasses import dataclass

from hftlab.metrics.wording import value_text


@dataclass(frozen=True, slots=True)
class HistogramStatistics:
    """Figures of one histogram at one moment, in its ``unit``.

    ``count`` values, from 0 to the top, are what ``mean`` (exact) and the quantiles (within ``precision``, relative)
    are of; NaN where there are none. ``negative`` and ``overflow`` values are beside them: recorded is the sum of the
    three. ``minimum`` and ``maximum`` are exact and of everything recorded; None where nothing was. ``begin_ns`` and
    ``end_ns`` are when it was recorded, in ns UTC, where somebody said so.
    """

    name: str
    unit: str
    precision: float
    count: int
    negative: int
    overflow: int
    minimum: int | None
    maximum: int | None
    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    begin_ns: int | None = None
    end_ns: int | None = None

    @property
    def recorded(self) -> int:
        """All values, those without a bucket included."""
        return self.count + self.negative + self.overflow

    def __str__(self) -> str:
        parts = [f"{self.count:,} values"]
        if self.count:
            quantiles = (("p50", self.p50), ("p99", self.p99), ("p99.9", self.p999))
            parts += [f"{name} {value_text(value, self.unit)}" for name, value in quantiles]
        if self.maximum is not None:
            parts.append(f"max {value_text(self.maximum, self.unit)}")
        if self.negative:
            parts.append(f"{self.negative:,} negative")
        if self.overflow:
            parts.append(f"{self.overflow:,} beyond the top")
        return ", ".join(parts)
