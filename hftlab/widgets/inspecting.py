"""``Inspecting``: what an inspector of gaps knows and shows, without any widget."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import numpy as np

from hftlab.errors import HftlabError, ValidationError
from hftlab.replay import Replay, ReplayStatistics
from hftlab.sequence import GapTable
from hftlab.widgets.around import Around
from hftlab.widgets.audience import Audience
from hftlab.widgets.commands import Command, Do
from hftlab.widgets.gap_choice import Choice, choose, timeline, whole_range
from hftlab.widgets.gap_requests import Ask, Request, parse_request
from hftlab.widgets.gap_texts import counts, details, filters, page, status
from hftlab.widgets.known_gaps import GapKey, Ints, KnownGaps
from hftlab.widgets.playing import STANDING_S
from hftlab.widgets.remote import Remote
from hftlab.widgets.shown import fault

PAGE_ROWS = 120
"""How many rows of the list are sent at a time; a view asks for others as it is scrolled."""


class Inspecting:
    """The model of a gap inspector: takes its view's messages, and gives the parts that a view shows.

    ``source`` is a Replay, a GapTable, or what has one as ``gaps`` (a Lab, a bus). ``changed`` is called when there is
    something new to show before anybody asked. All calls on the loop's thread; ``now`` is in seconds of any one clock.
    """

    def __init__(self, source: Any, changed: Callable[[], None]) -> None:
        self.replay = source if isinstance(source, Replay) else None
        self.read = table_of(source)
        self.title = source.session_name if isinstance(source, Replay) else f"gaps of a {type(source).__name__}"
        self.audience = Audience()
        self.known = KnownGaps(keeps=self.replay is not None)
        self.remote = None if self.replay is None else Remote(self.replay, changed)
        self.around = None if self.replay is None else Around(self.replay, changed)
        self._changed = changed
        self._choice = Choice()
        self._selected: GapKey | None = None
        self._offset = 0
        self._zoom: tuple[int, int] | None = None
        self._misread: HftlabError | None = None
        self._listed = np.zeros(0, np.int64)
        self._listed_for: Hashable = None
        self._shown: dict[str, Hashable] = {}

    @property
    def tasks(self) -> int:
        """How many tasks it has at the moment."""
        return sum(part.tasks for part in (self.remote, self.around) if part is not None)

    def abandon(self) -> None:
        """End what is being done; the replay stays as it is. Idempotent."""
        for part in (self.remote, self.around):
            if part is not None:
                part.abandon()

    # -- what a view asks for -------------------------------------------------------------------------------------

    def receive(self, content: object, now: float) -> None:
        """Take one message of a view; what is wrong with it is shown, never raised."""
        try:
            self._obey(parse_request(content), now)
        except HftlabError as error:
            self._misread = error
            self._changed()

    def _obey(self, request: Request, now: float) -> None:
        value = request.value
        match request.ask:
            case Ask.HEARD:
                # A view that comes back, or came late, has missed what was not sent meanwhile.
                if not self.audience.heard(value, now):
                    return
            case Ask.LEFT:
                self.audience.left(value)
                return
            case Ask.SELECT:
                self._select(value)
            case Ask.MOVE:
                self._move(value)
            case Ask.PAGE:
                self._offset = max(value, 0)
            case Ask.SOURCE:
                if value is not None and not 0 <= value < len(self.known.sources):
                    raise ValidationError(f"no source has the id {value}")
                self._choose(replace(self._choice, source=value))
            case Ask.STATE:
                self._choose(self._choice.toggled(value))
            case Ask.ORDER:
                self._choose(self._choice.ordered(value))
            case Ask.EVERYTHING:
                self._choose(Choice(order=self._choice.order, descending=self._choice.descending))
            case Ask.ZOOM:
                self._zoom = value
            case Ask.JUMP:
                self._jump(value)
            case Ask.DISMISS:
                self._misread = None
                if self.remote is not None:
                    self.remote.dismiss()
        self._changed()

    def _choose(self, choice: Choice) -> None:
        self._choice, self._offset = choice, 0
        self._reveal()

    def _select(self, key: GapKey | None) -> None:
        self._selected = key
        self._reveal()
        at = None if key is None else self.known.find(key)
        if at is None or self._zoom is None:
            return
        gap, (begin_ns, end_ns) = self.known.gap(at), self._zoom
        if gap.opened_ns > end_ns or 0 < gap.closed_ns < begin_ns:
            half_ns = (end_ns - begin_ns) // 2
            self._zoom = gap.opened_ns - half_ns, gap.opened_ns + half_ns

    def _move(self, by: int) -> None:
        listed = self._list()
        if not len(listed):
            return
        place = self._place()
        # From nothing, the first step forwards is to the first, backwards to the last.
        target = place + by if place >= 0 else by - 1 if by > 0 else len(listed) + by
        self._select(self.known.key(int(listed[min(max(target, 0), len(listed) - 1)])))

    def _reveal(self) -> None:
        """Send the part of the list in which the selected gap is."""
        place = self._place()
        if place >= 0 and not self._offset <= place < self._offset + PAGE_ROWS:
            self._offset = max(place - PAGE_ROWS // 2, 0)

    def _jump(self, side: str) -> None:
        at = None if self._selected is None else self.known.find(self._selected)
        if at is None:
            raise ValidationError("select a gap first: a jump goes to either side of the selected one")
        gap = self.known.gap(at)
        told = details(gap, self.known.key(at), 0, earlier=False, jumps=self.replay is not None)
        if told[side]:
            raise ValidationError(told[side])
        assert self.remote is not None
        self._misread = None
        self.remote.submit(Command(Do.SEEK, str(gap.before if side == "before" else gap.after)))

    # -- what is shown --------------------------------------------------------------------------------------------

    def look(self, now: float) -> tuple[dict[str, Any], float | None]:
        """What is new to show, part by part, and the seconds until the next look.

        The pace is None when nothing can be new before ``changed`` is called: nobody looks, or the replay is through.
        A look that finds nothing new costs 30 µs.
        """
        looked_at = self.audience.pace_s(now)
        if looked_at is None:
            return {}, None
        moved = self.known.take(self.read())
        run = None if self.replay is None else self.replay.statistics()
        parts = self._new(run)
        if run is not None and run.state in ("done", "closed"):
            return parts, None
        moves = moved if run is None else run.state == "running"
        return parts, looked_at if moves else max(looked_at, STANDING_S)

    def everything(self) -> dict[str, Any]:
        """All parts, whoever looks: for a view that is made now."""
        self._shown = {}
        self.known.take(self.read())
        return self._new(None if self.replay is None else self.replay.statistics())

    def _new(self, run: ReplayStatistics | None) -> dict[str, Any]:
        """Those of the parts that changed: ``status``, ``filters``, ``page``, ``timeline``, ``selected``, ``around``,
        ``counts``, ``fault``; see ``gap_texts`` and ``gap_choice``.
        """
        known, choice, generation = self.known, self._choice, self.known.generation
        listed = self._list()
        selected = None if self._selected is None else known.find(self._selected)
        if selected is not None:
            self._selected = known.key(selected)
        around = self.around
        if around is not None:
            around.want(None if selected is None else known.gap(selected))
        span_ns = (0, 0) if run is None else (run.start_ns, run.end_ns)
        offset = self._offset = max(min(self._offset, len(listed) - PAGE_ROWS), 0)
        table = self.read()
        moment = None if run is None else (run.state, run.speed, run.position_ns)
        error = self._error()
        makes: dict[str, tuple[Hashable, Callable[[], Any]]] = {
            "status": ((moment, generation), lambda: status(self.title, run, known)),
            "filters": ((generation, choice), lambda: filters(known, choice, len(listed))),
            "page": (
                (generation, choice, offset),
                lambda: page(known, listed[offset : offset + PAGE_ROWS], offset, len(listed)),
            ),
            "timeline": (
                (generation, choice.source, choice.states, self._zoom, span_ns),
                lambda: self._timeline(listed, span_ns),
            ),
            "selected": ((generation, choice, self._selected, selected), lambda: self._details(selected)),
            "around": (around.generation if around else 0, lambda: around.shown if around else {}),
            "counts": ((table.version, choice.source), lambda: self._counts(table)),
            "fault": ((id(error), str(error)), lambda: {} if error is None else {**fault(error), "about": "jump"}),
        }
        new = {name: make() for name, (key, make) in makes.items() if self._shown.get(name, self) != key}
        self._shown = {name: key for name, (key, _) in makes.items()}
        return new

    def _timeline(self, listed: Ints, span_ns: tuple[int, int]) -> dict[str, Any]:
        shown = timeline(self.known, listed, self._zoom or whole_range(self.known, span_ns))
        return {**shown, "zoomed": self._zoom is not None}

    def _list(self) -> Ints:
        wanted = self.known.generation, self._choice
        if wanted != self._listed_for:
            self._listed, self._listed_for = choose(self.known, self._choice), wanted
        return self._listed

    def _place(self) -> int:
        """Where in the list the selected gap is; -1 where it is not."""
        at = None if self._selected is None else self.known.find(self._selected)
        if at is None:
            return -1
        found = np.flatnonzero(self._list() == at)
        return int(found[0]) if len(found) else -1

    def _details(self, selected: int | None) -> dict[str, Any]:
        if selected is None:
            return {}
        known, jumps = self.known, self.replay is not None
        earlier = bool(known.earlier[selected])
        return details(known.gap(selected), known.key(selected), self._place(), earlier=earlier, jumps=jumps)

    def _counts(self, table: GapTable) -> list[list[str]]:
        source = self._choice.source
        return counts(table, "" if source is None else str(self.known.sources[source]))

    def _error(self) -> BaseException | None:
        """What a user should read first: what their own jump raised, or what was wrong with a message."""
        jump = None if self.remote is None else self.remote.error
        return jump if jump is not None else self._misread


def table_of(source: Any) -> Callable[[], GapTable]:
    """What gives a source's table of gaps as it is now: a new run may have another. Raises ValidationError."""
    if isinstance(source, GapTable):
        return lambda: source
    if not isinstance(getattr(source, "gaps", None), GapTable):
        raise ValidationError(
            f"an inspector takes a Replay, a Lab, or a GapTable such as lab.gaps; got {source!r:.100}"
        )

    def read() -> GapTable:
        table: GapTable = source.gaps
        return table

    return read
