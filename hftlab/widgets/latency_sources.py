"""Where a latency panel reads: what is meant by a source, and its histograms by stage, type, symbol or handler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from hftlab.errors import ValidationError, shown
from hftlab.metrics import Histogram, Latency, Stage
from hftlab.widgets.latency_readings import Chosen, Grouping

_BYS: Mapping[Grouping, Literal["type", "symbol", "handler"]] = {
    Grouping.TYPE: "type", Grouping.SYMBOL: "symbol", Grouping.HANDLER: "handler",
}  # fmt: skip


def latency_of(source: Any) -> Callable[[], Latency]:
    """What gives a source's latencies as they are now: a new run may have others. Raises ValidationError."""
    if isinstance(source, Latency):
        return lambda: source
    if not isinstance(getattr(source, "latency", None), Latency):
        raise ValidationError(
            "this takes what has latencies: a Lab, a replay, a processor, a bus, or a Latency such as replay.latency; "
            f"got {shown(source)}"
        )

    def now() -> Latency:
        latency: Latency = source.latency
        return latency

    return now


def title_of(latency: Latency) -> str:
    """What latencies are called in titles and pictures: a run's, a bus's or a group's name."""
    return latency.name or ", ".join(dict.fromkeys(latency.paths)) or "events"


def rows_of(latency: Latency, stages: Mapping[Stage, Histogram], chosen: Chosen) -> dict[str, Histogram]:
    """The histograms that are listed, by the key of their row. About 10 µs each. ``stages``: those of ``latency``."""
    if chosen.by is Grouping.STAGE:
        return {stage.name: histogram for stage, histogram in stages.items()}
    return latency.grouped(_BYS[chosen.by], chosen.stage)
