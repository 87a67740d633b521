"""``LatencyWatching``: what a latency panel knows and shows, without any widget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hftlab.clock import SystemClock, format_time
from hftlab.errors import HftlabError, ValidationError
from hftlab.metrics import Histogram, Latency, Stage
from hftlab.widgets.audience import Audience
from hftlab.widgets.latency_pictures import picture
from hftlab.widgets.latency_readings import (
    STAGES_OF,
    Chosen,
    Grouping,
    badges,
    choice,
    notes,
    stack,
    table,
)
from hftlab.widgets.latency_requests import Want, WantRequest, parse_want
from hftlab.widgets.latency_sources import latency_of, rows_of, title_of
from hftlab.widgets.playing import STANDING_S
from hftlab.widgets.shown import fault

PACE_S = 0.2
"""Percentiles are no speedometer: five times a second, at half the cost of ten."""
TABLE_S = 1.0
"""How often the table of anything but stages is made anew: forty histograms are merged and read for it."""
MOST_NAME = 60
_LOOKED_FIRST = (Stage.TOTAL, Stage.HANDLED, Stage.RECEIVED)


@dataclass(frozen=True)
class _Reference:
    """What is compared with, and what it is called."""

    read: Callable[[], Latency]
    name: str


class LatencyWatching:
    """The model of a latency panel: takes its view's messages, and gives the parts that a view shows.

    ``source``: see ``LatencyPanel``. ``changed`` is called when there is something new to show before anybody asked.
    All calls on the loop's thread; ``now`` is in seconds of any one clock. A look costs 0.1 ms while nothing is
    recorded, and about 1 ms while something is.
    """

    def __init__(self, source: Any, changed: Callable[[], None]) -> None:
        self._read_now = latency_of(source)
        self.audience = Audience()
        self._changed = changed
        self._reference: _Reference | None = None
        self._chosen: Chosen | None = None
        self._wire = False
        self._misread: HftlabError | None = None
        self._shown: dict[str, Any] = {}
        self._asked: tuple[Any, ...] = ()
        self._counted: list[tuple[tuple[Any, ...], ...]] = []
        self._drawn: list[Histogram] = []
        self._listed: list[str] = []
        self._moved, self._stale, self._table_at = False, True, 0.0
        self._read: dict[Stage, Histogram] = {}
        self._read_of: _Reference | None = None
        self._read_at = 0.0
        self._clock = SystemClock()
        # The first quantile of a process loads its kernel (0.3 s): here, where a cell waits, and not in a refresh.
        first = Histogram()
        first.record(1)
        first.quantiles([0.5])

    @property
    def latency(self) -> Latency:
        """What is measured now: a replay's that began anew is another one."""
        return self._read_now()

    @property
    def reference(self) -> Latency | None:
        """What is compared with."""
        return None if self._reference is None else self._reference.read()

    def abandon(self) -> None:
        """Nothing is being done by itself."""

    # -- what a view, or a cell, asks for -------------------------------------------------------------------------

    def compare(self, other: Any, name: str = "") -> None:
        """Draw another run beside this one; None: none. Raises ValidationError."""
        if not isinstance(name, str):
            raise ValidationError(f"a name is a text; got {name!r:.100}")
        read = None if other is None else latency_of(other)
        self._reference = None if read is None else _Reference(read, (name or title_of(read()))[:MOST_NAME])
        self._changed()

    def keep(self, name: str = "") -> None:
        """Keep what is measured so far as what is compared with."""
        frozen = self.latency.copy()
        self.compare(frozen, name or f"kept at {format_time(self._clock.now_ns())[11:19]} UTC")

    def receive(self, content: object, now: float) -> None:
        """Take one message of a view; what is wrong with it is shown, never raised."""
        try:
            request = parse_want(content)
            if request.want is Want.HEARD:
                # A view that comes back, or came late, has missed what was not sent meanwhile.
                if not self.audience.heard(request.value, now):
                    return
            elif request.want is Want.LEFT:
                self.audience.left(request.value)
                return
            else:
                self._obey(request)
        except HftlabError as error:
            self._misread = error
        self._changed()

    def _obey(self, request: WantRequest) -> None:
        chosen, value = self._choice(self.latency.stages), request.value
        match request.want:
            case Want.BY:
                self._choose_by(chosen, Grouping(value))
            case Want.STAGE:
                self._choose(replace(chosen, stage=Stage[value]))
            case Want.ROW if not value or value in self._listed:  # else of a table that is on the page no more
                self._choose_row(chosen, value)
            case Want.MOVE if self._listed:
                self._move(chosen, request.rows)
            case Want.WIRE:
                self._wire = not self._wire
            case Want.KEEP:
                self.keep()
            case Want.DROP:
                self.compare(None)
            case Want.DISMISS:
                self._misread = None

    def _choose(self, chosen: Chosen) -> None:
        if chosen.stage not in STAGES_OF[chosen.by]:
            words = ", ".join(stage.value for stage in STAGES_OF[chosen.by])
            raise ValidationError(f"of each {chosen.by}, this is measured: {words}; got {chosen.stage.value}")
        self._chosen = chosen

    def _choose_by(self, chosen: Chosen, by: Grouping) -> None:
        stages, self._listed = STAGES_OF[by], []
        self._choose(Chosen(by, chosen.stage if chosen.stage in stages else stages[-1]))

    def _move(self, chosen: Chosen, by: int) -> None:
        # From nothing, the first step forwards is to the first, backwards to the last.
        at = self._listed.index(chosen.key) if chosen.key in self._listed else -1 if by > 0 else len(self._listed)
        row = self._listed[min(max(at + by, 0), len(self._listed) - 1)]
        if row != chosen.key:
            self._choose_row(chosen, row)

    def _choose_row(self, chosen: Chosen, row: str) -> None:
        if chosen.by is Grouping.STAGE:
            if row in Stage.__members__:
                self._choose(replace(chosen, stage=Stage[row]))
        else:
            # The same row again: back to all of them.
            self._choose(replace(chosen, row="" if row == chosen.row else row))

    # -- what is shown --------------------------------------------------------------------------------------------

    def look(self, now: float) -> tuple[dict[str, Any], float | None]:
        """What is new to show, part by part, and the seconds until the next look; None while nobody looks.

        What stands is looked at twice a second.
        """
        looked_at = self.audience.pace_s(now)
        if looked_at is None:
            return {}, None
        parts = self._new(now)
        return parts, max(looked_at, PACE_S if self._moved else STANDING_S)

    def everything(self) -> dict[str, Any]:
        """All parts, whoever looks: for a view that is made now."""
        self._shown, self._asked = {}, ()
        return self._new(0.0)

    def _new(self, now: float) -> dict[str, Any]:
        """Those of the parts that changed: ``status``, ``choice``, ``picture``, ``stack``, ``table``, ``fault``; plain
        data, see ``latency_readings`` and ``latency_pictures``.
        """
        latency = self.latency
        runs, stages = [(title_of(latency)[:MOST_NAME], latency)], [latency.stages]
        if self._reference is not None:
            runs.append((self._reference.name, self._reference.read()))
            stages.append(self._reference_stages(now))
        chosen = self._choice(stages[0])
        asked = chosen, self._wire, self._reference
        counted = [_recorded(each) for each in stages]
        self._moved = bool(self._counted) and counted[0] != self._counted[0]
        fresh, self._asked = asked != self._asked, asked
        parts: dict[str, Any] = {"fault": {} if self._misread is None else {**fault(self._misread), "about": "message"}}
        if fresh or counted != self._counted:
            self._counted, self._stale = counted, True
            self._drawn = [_histogram(latency, each, chosen) for (_, latency), each in zip(runs, stages, strict=True)]
            names = [name for name, _ in runs]
            parts["picture"] = picture(self._drawn, names)
            parts["stack"] = stack(list(zip(names, stages, strict=True)), wire=self._wire)
        parts["status"] = self._status(chosen, latency, stages[0])
        parts["choice"] = {**choice(chosen), "runs": [name for name, _ in runs]}
        if self._stale and (fresh or chosen.by is Grouping.STAGE or now - self._table_at >= TABLE_S - PACE_S / 2):
            rows = [rows_of(latency, each, chosen) for (_, latency), each in zip(runs, stages, strict=True)]
            parts["table"] = table(rows[0], rows[1] if len(rows) > 1 else None, chosen)
            self._listed = [row[0] for row in parts["table"]["rows"]]
            self._table_at, self._stale = now, False
        new = {name: part for name, part in parts.items() if self._shown.get(name) != part}
        self._shown.update(new)
        return new

    def _reference_stages(self, now: float) -> dict[Stage, Histogram]:
        # Of a frozen one they are the same for ever, and of one that goes on, once a second is enough.
        assert self._reference is not None
        if self._reference is not self._read_of or now - self._read_at >= TABLE_S:
            self._read, self._read_of, self._read_at = self._reference.read().stages, self._reference, now
        return self._read

    def _choice(self, stages: Mapping[Stage, Histogram]) -> Chosen:
        """What is looked at: until somebody chooses, the whole way where it is measured, else what there is of it."""
        if self._chosen is not None:
            return self._chosen
        measured = (stage for stage in _LOOKED_FIRST if stage in stages and stages[stage].count)
        return Chosen(stage=next(measured, Stage.TOTAL))

    def _status(self, chosen: Chosen, latency: Latency, stages: Mapping[Stage, Histogram]) -> dict[str, Any]:
        moves = self._moved and bool(stages)
        return {
            "title": f"Latency: {title_of(latency)}",
            "state": "running" if moves else "ready",
            "label": "Measuring" if moves else "Standing" if stages else "Nothing measured yet",
            "badges": badges(self._drawn[0], chosen.stage, latency.sample),
            "notes": notes(stages),
        }


def _recorded(stages: Mapping[Stage, Histogram]) -> tuple[tuple[Any, ...], ...]:
    """What another look at the same stages is told apart by: a replay that ran again has as many values as before."""
    return tuple(
        (stage, each.recorded, each.mean if each.count else 0.0, each.maximum) for stage, each in stages.items()
    )


def _histogram(latency: Latency, stages: Mapping[Stage, Histogram], chosen: Chosen) -> Histogram:
    """What is drawn; without values where there is no such thing, as in a run that is compared with."""
    if chosen.by is Grouping.STAGE or not chosen.row:
        return stages.get(chosen.stage, _EMPTY)
    try:
        return latency.histogram(chosen.stage, **{chosen.by.value: chosen.row})
    except ValidationError:
        return _EMPTY


_EMPTY = Histogram()
