"""``Latency``: where the time went, as users hold it: a live view of one or several journeys."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from hftlab.errors import ValidationError, shown
from hftlab.metrics.histogram import Histogram
from hftlab.metrics.journeys.journey import Journey
from hftlab.metrics.journeys.stages import BY_SYMBOL, NEGATIVE_ADVICE, Stage, stage_of
from hftlab.metrics.statistics import HistogramStatistics
from hftlab.metrics.wording import percentile_text, value_text

if TYPE_CHECKING:
    import pandas as pd

    from hftlab.clock.skew import Skew
    from hftlab.metrics.figures import Figure

_Key = TypeVar("_Key")
By: TypeAlias = Literal["stage", "type", "symbol", "handler"]

BYS: tuple[By, ...] = ("stage", "type", "symbol", "handler")
PERCENTILES = (0.5, 0.9, 0.99, 0.999, 0.9999)
"""The columns of ``to_frame``, as quantiles."""
_VALUES = ("min", *(percentile_text(q) for q in PERCENTILES), "max")


@dataclass(frozen=True, slots=True)
class LatencyStatistics:
    """Figures of a Latency at one moment. ``stages``: those that have something, in the order of an event's way."""

    name: str
    paths: tuple[str, ...]
    sample: int
    stages: dict[Stage, HistogramStatistics]


@dataclass(frozen=True, slots=True)
class _Part:
    """A histogram that somebody records into, and what it is of."""

    path: str
    sample: int
    stage: Stage
    type: str
    symbol: str | None
    handler: str | None
    histogram: Histogram


class Latency:
    """What the journeys have recorded, merged when asked: each call looks at them anew, and changes nothing.

    RECEIVED and TOTAL can be asked by type and symbol, HANDLED by type and handler, the others by type. With
    ``sample`` above 1 the counts are of the rows that were recorded, each sample-th. Asking costs 5 µs a histogram
    that holds something: 0.1 ms with a few symbols, 2 ms with all slots taken. One thread, the journeys' own.
    """

    def __init__(self, *journeys: Journey, name: str = "") -> None:
        """Raises ValidationError for what is no Journey, and for journeys of different sub_buckets."""
        for journey in journeys:
            if not isinstance(journey, Journey):
                raise ValidationError(f"a Latency shows journeys; got {shown(journey)}")
        kinds = {journey.sub_buckets for journey in journeys}
        if len(kinds) > 1:
            raise ValidationError(f"journeys that are shown together have the same sub_buckets; got {sorted(kinds)}")
        self.name = name
        self._journeys = journeys
        self._sub_buckets = kinds.pop() if kinds else 128

    # -- asking -------------------------------------------------------------------------------------------------------

    @property
    def journeys(self) -> tuple[Journey, ...]:
        """What it is a view of: to show journeys of several latencies together."""
        return self._journeys

    @property
    def paths(self) -> tuple[str, ...]:
        """The journeys' paths, in the order given."""
        return tuple(journey.path for journey in self._journeys)

    @property
    def sample(self) -> int:
        """Each how many-th row was to be recorded: the greatest of the journeys'. See ``untimed``, too."""
        return max((journey.sample for journey in self._journeys), default=1)

    @property
    def untimed(self) -> int:
        """Rows that came too fast for each to be timed by itself (live, above some 250,000 a second).

        The counts of stages are without them, but for those that are noted for whole batches.
        """
        return sum(journey.untimed for journey in self._journeys)

    @property
    def stages(self) -> dict[Stage, Histogram]:
        """A histogram for each stage that has something, in the order of an event's way."""
        merged = self._merged(lambda part: part.stage, self._of_stages())
        return {stage: merged[stage] for stage in Stage if stage in merged}

    def histogram(
        self, stage: Stage | str | None = None, *, type: str | None = None, symbol: str | None = None,
        handler: str | None = None,
    ) -> Histogram:  # fmt: skip
        """One histogram, of the part that is named: ``latency.histogram("received", symbol="BTCUSDT")``.

        ``stage``: None is HANDLED where a handler is named, else TOTAL. Empty where a stage has recorded nothing.
        Raises ValidationError for what there is not, with what there is.
        """
        wanted = stage_of(stage) if stage is not None else Stage.TOTAL if handler is None else Stage.HANDLED
        if symbol is not None and wanted not in BY_SYMBOL:
            raise ValidationError(f"symbols are told apart in received and total; got {wanted.name.lower()}")
        if handler is not None and (wanted is not Stage.HANDLED or symbol is not None):
            raise ValidationError("handlers are told apart in handled, per type; name no other stage, and no symbol")
        parts = [
            part for part in (self._of_stages() if handler is None else self._of_handlers()) if part.stage is wanted
        ]
        for what, name in (("type", type), ("symbol", symbol), ("handler", handler)):
            if name is not None:
                there = sorted({str(getattr(part, what)) for part in parts})
                if name not in there:
                    known = ", ".join(there[:40]) or "none yet"
                    raise ValidationError(f"{wanted.value} has no {what} {shown(name)}; it has {known}")
                parts = [part for part in parts if getattr(part, what) == name]
        words = [wanted.value, *(name for name in (type, symbol, handler) if name is not None)]
        merged = Histogram(self._sub_buckets, name=", ".join(words))
        for part in parts:
            merged.merge(part.histogram)
        return merged

    def grouped(self, by: By, stage: Stage | str | None = None) -> dict[str, Histogram]:
        """The histograms of a stage by type, symbol or handler, or of all stages: by name, most values first.

        ``stage``: None is the one that is shown first (see ``figure``); by handler it is HANDLED.
        """
        if by not in BYS:
            raise ValidationError(f"latencies are grouped by one of {', '.join(BYS)}; got {shown(by)}")
        if by == "stage":
            return {known.value: histogram for known, histogram in self.stages.items()}
        wanted = stage_of(stage) if stage is not None else self.main_stage(by)
        if (by == "handler" and wanted is not Stage.HANDLED) or (by == "symbol" and wanted not in BY_SYMBOL):
            raise ValidationError(
                f"by {by} there is {'handled' if by == 'handler' else 'received and total'}; got {wanted.name.lower()}"
            )
        parts = self._of_handlers() if by == "handler" else self._of_stages()
        merged = self._merged(lambda part: str(getattr(part, by)), (part for part in parts if part.stage is wanted))
        return dict(sorted(merged.items(), key=lambda item: -item[1].recorded))

    def main_stage(self, by: By = "stage") -> Stage:
        """The stage that is shown where none is named: TOTAL, or the first of HANDLED, DISPATCHED, … with values."""
        if by == "handler":
            return Stage.HANDLED
        recorded = self.stages
        order = (Stage.TOTAL, Stage.RECEIVED) if by == "symbol" else (Stage.TOTAL, *list(Stage)[-2::-1])
        return next((stage for stage in order if stage in recorded), Stage.TOTAL)

    def statistics(self) -> LatencyStatistics:
        """The figures of all stages, frozen. About 0.1 ms a stage."""
        told = {stage: histogram.statistics() for stage, histogram in self.stages.items()}
        return LatencyStatistics(self.name, self.paths, self.sample, told)

    @property
    def skews(self) -> dict[str, Skew]:
        """By source, how far the recorder's clock is from the venue's, as far as the data tell. About 1 ms a source.

        Of a source that several journeys have seen, by the one that saw most of it.
        """
        found: dict[str, Skew] = {}
        for journey in self._journeys:
            for source, skew in journey.skews.items():
                if source not in found or skew.events > found[source].events:
                    found[source] = skew
        return found

    @property
    def skew(self) -> Skew | None:
        """The skew of the source with most events; None while no source has enough of them."""
        return max(self.skews.values(), key=lambda skew: skew.events, default=None)

    def copy(self, name: str | None = None) -> Latency:
        """All of it as it is now, to compare with what comes: ``latency.figure(before)``. About 10 µs a histogram.

        ``name``: what pictures call it (None: as this one).
        """
        return Latency(*(journey.copy() for journey in self._journeys), name=self.name if name is None else name)

    # -- showing ------------------------------------------------------------------------------------------------------

    def to_frame(self, by: By = "stage") -> pd.DataFrame:
        """A row for each path and stage, and each type, symbol or handler of it where asked for.

        Columns: ``path``, ``stage``, the group's, ``count``, ``negative``, ``overflow`` (without a bucket), ``min_ns``,
        ``p50_ns`` … ``p99.99_ns``, ``max_ns``, ``sample``. Raises ValidationError for another ``by``.
        """
        import pandas as pd

        if by not in BYS:
            raise ValidationError(f"latencies are grouped by one of {', '.join(BYS)}; got {shown(by)}")
        groups = ["path", "stage"] + ([] if by == "stage" else [by])
        parts = self._of_handlers() if by == "handler" else self._of_stages()
        wanted = (part for part in parts if by != "symbol" or part.stage in BY_SYMBOL)
        order = {stage: place for place, stage in enumerate(Stage)}
        merged = self._merged(
            lambda part: (part.path, part.sample, part.stage, "" if by == "stage" else str(getattr(part, by))), wanted
        )
        rows = []
        for (path, sample, stage, name), histogram in sorted(
            merged.items(), key=lambda item: (self.paths.index(item[0][0]), order[item[0][2]], -item[1].recorded)
        ):
            row = {"path": path, "stage": stage.value} | ({} if by == "stage" else {by: name})
            rows.append(row | _figures(histogram) | {"sample": sample})
        return pd.DataFrame(rows, columns=[*groups, *_figures(Histogram()), "sample"])

    def figure(self, *others: Latency, stage: Stage | str | None = None, by: By | None = None) -> Figure:
        """A static plotly figure: the distribution, the percentile curve, and the stages stacked.

        Without a ``stage`` all stages are drawn; with one, or with ``by``, that one (else TOTAL, or what is there), by
        type, symbol or handler where asked. With ``others`` that one stage of each run is drawn, a colour a run.
        Raises ValidationError for other stages and groups, and for ``by`` with others. About 100 ms.
        """
        from hftlab.metrics.journeys.figures import latency_figure

        for other in others:
            if not isinstance(other, Latency):
                raise ValidationError(
                    f"runs are compared by their latencies, such as replay.latency; got {shown(other)}"
                )
        return latency_figure((self, *others), None if stage is None else stage_of(stage), by)

    def __repr__(self) -> str:
        told = []
        for stage, histogram in self.stages.items():
            p50, p99 = histogram.quantiles((0.5, 0.99))
            told.append(f"{stage.name.lower()} p50 {value_text(p50, 'ns')} p99 {value_text(p99, 'ns')}")
        name = f"{self.name!r}: " if self.name else ""
        return f"Latency({name}{', '.join(told) or 'nothing recorded'})"

    def _repr_html_(self) -> str:
        heads = "".join(f"<th>{head}</th>" for head in ("", "recorded", "negative", *_VALUES))
        rows = []
        for stage, histogram in self.stages.items():
            texts = [f"{histogram.recorded:,}", f"{histogram.negative:,}" if histogram.negative else ""]
            texts += [value_text(value, "ns") for value in _values(histogram)]
            cells = "".join(f"<td>{html.escape(text)}</td>" for text in texts)
            rows.append(f"<tr><th style='text-align:left'>{html.escape(stage.value)}</th>{cells}</tr>")
        title = f"<b>{html.escape(self.name) or 'Latency'}</b>" + ("" if rows else ": nothing recorded")
        notes = "; ".join(html.escape(note) for note in self.notes())
        return f"<div>{title}<table><tr>{heads}</tr>{''.join(rows)}</table><small>{notes}</small></div>"

    def notes(self) -> list[str]:
        """What is to be known beside the figures: samples, and negative latencies with what to do about them."""
        told = [f"1 row in {self.sample:,} was recorded"] if self.sample > 1 else []
        stages = self.stages
        if self.untimed:
            told.append(f"{self.untimed:,} further rows came too fast for each to be timed by itself")
        left_out = {
            "stamps more than a day apart": sum(journey.far_apart for journey in self._journeys),
            "a source beyond the first 16": sum(journey.without_envelope for journey in self._journeys),
        }
        for what, count in left_out.items():
            if count:
                told.append(f"{count:,} rows with {what} are in no skew")
        told += [
            f"{histogram.negative:,} of {histogram.recorded:,} negative in {stage.value}"
            for stage, histogram in stages.items()
            if histogram.negative
        ]
        uncorrected = any(journey.skew is None for journey in self._journeys)
        if uncorrected and Stage.RECEIVED in stages and stages[Stage.RECEIVED].negative:
            told.append(NEGATIVE_ADVICE)
        return told

    # -- inside -------------------------------------------------------------------------------------------------------

    def _of_stages(self) -> Iterator[_Part]:
        for journey in self._journeys:
            for stage, kind, symbol, histogram in journey.stage_histograms():
                if histogram.recorded:
                    yield _Part(journey.path, journey.sample, stage, kind, symbol, None, histogram)

    def _of_handlers(self) -> Iterator[_Part]:
        for journey in self._journeys:
            for handler, kind, histogram in journey.handler_histograms():
                if histogram.recorded:
                    yield _Part(journey.path, journey.sample, Stage.HANDLED, kind, None, handler, histogram)

    def _merged(self, key: Callable[[_Part], _Key], parts: Iterator[_Part]) -> dict[_Key, Histogram]:
        merged: dict[_Key, Histogram] = {}
        for part in parts:
            group = key(part)
            if group not in merged:
                merged[group] = Histogram(self._sub_buckets, name=str(getattr(group, "value", group)))
            merged[group].merge(part.histogram)
        return merged


def _values(histogram: Histogram) -> list[float]:
    """What ``_VALUES`` names; NaN where there is none."""
    ends = [math.nan if value is None else float(value) for value in (histogram.minimum, histogram.maximum)]
    return [ends[0], *histogram.quantiles(PERCENTILES), ends[1]]


def _figures(histogram: Histogram) -> dict[str, Any]:
    values = {f"{what}_ns": value for what, value in zip(_VALUES, _values(histogram), strict=True)}
    return {"count": histogram.count, "negative": histogram.negative, "overflow": histogram.overflow, **values}
