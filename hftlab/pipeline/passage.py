"""``Passage``: rows on their way from the log to the bus: put into order, checked, transformed, offered.

::

    rows in total order ──► OrderStage ──► checks ──► transforms ──► run on the bus
                              │ gaps told    │ invalid rows, and rows that a transform fails on: dead letters
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hftlab.errors import ValidationError, shown
from hftlab.events.batch import EventBatch
from hftlab.events.ports import BusRun, DrivenClock
from hftlab.events.records import Rows, of_type
from hftlab.sequence import GapState
from hftlab.sequence.gaps import gap_of
from hftlab.sequence.stage import Ordered, OrderStage

OFFERED_ROWS = 8_192
"""How many rows the bus is given at once."""

Check = Callable[[Rows], npt.NDArray[np.bool_]]
"""Takes the records of one type, a structured array, and returns a boolean array: False is an invalid row."""
Transform = Callable[[EventBatch], EventBatch | None]
"""Takes an EventBatch and returns what goes on: the same, changed, fewer rows, or None."""
Refuse = Callable[[EventBatch, str], None]
"""Told of rows that can't go on, and why."""


class Told(NamedTuple):
    """What handlers are told between rows, and the moment of it."""

    notice: object
    moment_ns: int


class Passage:
    """Takes rows in (``take``), and has a run take them on as it has room (``offer``). Synchronous.

    ``taken`` rows went in; of these ``offered`` went on, ``invalid`` ones were refused, and transforms left out
    ``dropped`` ones (fewer than none where they added some).
    """

    def __init__(
        self,
        run: BusRun,
        clock: DrivenClock,
        stage: OrderStage,
        checks: Sequence[tuple[str, Check]],
        transforms: Sequence[tuple[str, Transform]],
        refuse: Refuse,
    ) -> None:
        self.stage = stage
        self.taken = self.offered = self.invalid = self.dropped = 0
        self._run, self._clock = run, clock
        self._checks, self._transforms, self._refuse = tuple(checks), tuple(transforms), refuse
        self._ready: deque[EventBatch | Told] = deque()
        self._pressed: EventBatch | None = None

    # -- in -----------------------------------------------------------------------------------------------------------

    def take(self, batch: EventBatch, told: Sequence[tuple[int, Told]] = ()) -> None:
        """Put rows in, in total order; only when ``pressed`` is None. ``told``: what handlers are told of between them,
        before the row of which log sequence."""
        self.taken += len(batch)
        logs, done = batch.records["log_sequence"], 0
        for before, one in told:
            place = int(np.searchsorted(logs, before))
            if self._pressed is None and place > done:
                self._go_on(batch[done:place])
                done = place
            self._ready.append(one)
        if self._pressed is not None:
            self._pressed = batch[done - len(self._pressed) :]
        elif done < len(batch):
            self._go_on(batch[done:] if done else batch)

    def advance(self, now_ns: int) -> None:
        """Let time pass: gaps past their deadline are lost, what they held back goes on."""
        self._choose(self.stage.advance(now_ns))

    def press(self) -> bool:
        """Try again what a full strict window did not take; whether all of it went in."""
        pressed, self._pressed = self._pressed, None
        if pressed is not None:
            self._go_on(pressed)
        return self._pressed is None

    def finish(self) -> None:
        """No more will come: what is missing is lost, what is held goes on."""
        self._choose(self.stage.finish())

    @property
    def pressed(self) -> EventBatch | None:
        """Rows that a full strict window did not take."""
        return self._pressed

    def tell(self, notice: object, moment_ns: int) -> None:
        """Have handlers told of something, behind all rows so far."""
        self._ready.append(Told(notice, moment_ns))

    def _go_on(self, batch: EventBatch) -> None:
        ordered = self.stage.process(batch)
        self._pressed = batch[ordered.taken :] if ordered.taken < len(batch) else None
        self._choose(ordered)

    def _choose(self, ordered: Ordered) -> None:
        """Cut what came out where handlers are told of a gap, and have each part checked and transformed."""
        done = 0
        for notice in ordered.notices:
            position = int(notice["position"])
            if position > done:
                self._part(ordered.batch[done:position])
                done = position
            gap = gap_of(notice.tolist()[1:], self.stage.gaps.sources)
            self.tell(gap, gap.opened_ns if gap.state is GapState.OPEN else gap.closed_ns)
        if done < len(ordered.batch):
            self._part(ordered.batch[done:] if done else ordered.batch)

    def _part(self, batch: EventBatch) -> None:
        for name, check in self._checks:
            batch = self._checked(batch, name, check)
        for name, transform in self._transforms:
            if len(batch):
                batch = self._transformed(batch, name, transform)
        if len(batch):
            self._ready.append(batch)

    # -- checks and transforms ----------------------------------------------------------------------------------------

    def _checked(self, batch: EventBatch, name: str, check: Check) -> EventBatch:
        if not len(batch):
            return batch
        valid, why = _judged(batch, name, check)
        if valid.all():
            return batch
        for reason in dict.fromkeys(why.values()):
            failed = np.zeros(len(batch), bool)
            failed[[row for row, said in why.items() if said == reason]] = True
            self._refuse(batch.where(failed), reason)
        self.invalid += int(len(batch) - valid.sum())
        return batch.where(valid)

    def _transformed(self, batch: EventBatch, name: str, transform: Transform) -> EventBatch:
        try:
            return self._counted(batch, _result(transform(batch), batch, name))
        except Exception as error:  # the user's transform
            if len(batch) == 1:
                self._refuse(batch, f"the transform {name} raised {type(error).__name__}: {error}")
                self.invalid += 1
                return batch[:0]
        # One bad row must not take the others with it. Slow, and only then.
        parts = [self._transformed(batch[row : row + 1], name, transform) for row in range(len(batch))]
        return EventBatch.concat([part for part in parts if len(part)] or parts[:1])

    def _counted(self, before: EventBatch, after: EventBatch) -> EventBatch:
        self.dropped += len(before) - len(after)
        return after

    # -- out ----------------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether something is ready for the run."""
        return bool(self._ready)

    def offer(self) -> bool:
        """Hand on what is ready, as far as the run has room; whether anything went."""
        offered = 0
        while self._ready and offered < OFFERED_ROWS:
            first = self._ready[0]
            if isinstance(first, Told):
                if offered:
                    # Handlers hear of it when the rows before it are through.
                    break
                self._clock.advance_to(first.moment_ns)
                self._run.tell(first.notice)
                self._ready.popleft()
                return True
            # The next cut can only be made when all that was offered is handled.
            taken = self._run.offer(first[: OFFERED_ROWS - offered])
            self.offered += taken
            offered += taken
            if taken < len(first):
                self._ready[0] = first[taken:]
                break
            self._ready.popleft()
        return offered > 0


def _judged(batch: EventBatch, name: str, check: Check) -> tuple[npt.NDArray[np.bool_], dict[int, str]]:
    """Which rows are valid, and why others are not, by their place."""
    valid = np.ones(len(batch), bool)
    why: dict[int, str] = {}
    for event_type in batch.counts():
        places = np.flatnonzero(batch.records["type"] == event_type)
        rows = of_type(batch.records, event_type)
        try:
            valid[places] = _mask(check(rows), len(rows), name)
        except Exception as error:  # the user's check
            if len(rows) == 1:
                valid[places] = False
                why[int(places[0])] = f"the check {name} raised {type(error).__name__}: {error}"
                continue
            for place in places.tolist():
                one, said = _judged(batch[place : place + 1], name, check)
                valid[place] = one[0]
                why.update(dict.fromkeys([place], *said.values()) if said else {})
    for place in np.flatnonzero(~valid).tolist():
        why.setdefault(place, f"invalid by the check {name}")
    return valid, why


def _mask(mask: object, count: int, name: str) -> npt.NDArray[np.bool_]:
    if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != (count,):
        got = f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise ValidationError(
            f"the check {name} takes records and returns a boolean array, one value a row ({count},); got {got}"
        )
    return mask


def _result(result: object, given: EventBatch, name: str) -> EventBatch:
    if result is None:
        return given[:0]
    if not isinstance(result, EventBatch):
        raise ValidationError(f"the transform {name} returns an EventBatch, or None for nothing; got {shown(result)}")
    return result
