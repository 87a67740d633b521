"""What a processor shows of itself: its states, and a frozen picture of its numbers."""

from __future__ import annotations

import enum
import html
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from hftlab.pipeline.serving import Serving
    from hftlab.pipeline.settings import ProcessorSettings

STALLED_S = 1.0
"""For how long the server may owe an answer before that is called a stall."""


class State(enum.Enum):
    """Where a processor is in its life."""

    NEW = "new"
    STANDING_BY = "standing by"
    """Another member of the group is active."""
    WAITING = "waiting for the bus"
    """A replay is on the bus."""
    CATCHING_UP = "catching up"
    """Reading what was recorded before."""
    FOLLOWING = "following"
    """All that is recorded is handled; what comes is handled as it comes."""
    HELD_UP = "held up"
    """A strict source waits for numbers that are missing: ``processor.gaps``."""
    STALLED = "stalled"
    """The server owes an answer."""
    AWAY = "away"
    """The server can't be reached, or refuses; it is tried again."""
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True)
class ProcessorStatistics:
    """Counts since the processor was made; times in seconds.

    ``read`` rows came from the log, of which ``redelivered`` had been delivered before (to this processor or another)
    without being acknowledged, most of them read ahead by one that died; ``damaged`` entries could not be read.
    ``handled`` rows went through the handlers, which ``emitted`` others; ``invalid`` ones were refused by checks or
    transforms, transforms left out ``dropped`` ones; ``duplicate``, ``late``, ``conflicting`` and ``orphaned`` ones
    were not delivered (see ``gaps``); ``held`` ones wait for missing numbers; ``lost`` ones were gone from the log (see
    ``losses``). ``dead_letters`` counts the times that an event failed in a handler, for good or for now (``letters()``
    are those that are kept); ``retried`` events were tried again, of which ``mended`` ones went well; ``spilled``
    letters went to this machine's disk, since the server did not take them.

    ``commits`` were saved and ``acknowledged`` entries with them, ``effects`` commands of transactions were done with
    them, ``refused_effects`` transactions were refused. ``position`` is the log sequence before which all is handled
    (but for what is held), ``committed`` the one that is saved; ``uncommitted`` rows lie between them. ``lag`` is how
    many rows of the session lie beyond ``position``, ``lag_s`` for how long there have been any. ``groups_lost``: how
    often the group was destroyed at run time and made again. ``takeovers`` is how often this processor became the
    active one. ``silent_s``: for how long the server has owed an answer.
    """

    state: State
    group: str
    session: str
    holder: str
    read: int
    redelivered: int
    damaged: int
    handled: int
    emitted: int
    invalid: int
    dropped: int
    duplicate: int
    late: int
    conflicting: int
    orphaned: int
    held: int
    lost: int
    dead_letters: int
    retried: int
    mended: int
    spilled: int
    commits: int
    acknowledged: int
    effects: int
    refused_effects: int
    groups_lost: int
    position: int
    committed: int
    uncommitted: int
    lag: int
    lag_s: float
    takeovers: int
    silent_s: float
    trouble: str
    failure: str

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        import pandas as pd

        return pd.DataFrame([{field.name: getattr(self, field.name) for field in fields(self)}])

    def __repr__(self) -> str:
        shown = [f"{name}={getattr(self, name):,}" for name in ("handled", "position", "committed", "lag")]
        shown += [f"{name}={value:,}" for name in _TOLD if (value := getattr(self, name))]
        return f"ProcessorStatistics({self.state.value}; {', '.join(shown)})"

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{field.name.replace('_', ' ')}</th><td>{html.escape(text)}</td></tr>"
            for field in fields(self)
            if (text := _written(getattr(self, field.name)))
        )
        return f"<table>{cells}</table>"


_TOLD = (
    "redelivered",
    "damaged",
    "invalid",
    "late",
    "conflicting",
    "held",
    "lost",
    "dead_letters",
    "refused_effects",
    "groups_lost",
)


def _written(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if value else ""
    if isinstance(value, State):
        return value.value
    return f"{value:,}" if isinstance(value, int) else str(value)


@dataclass(frozen=True)
class StopReport:
    """How a processor ended: ``handled`` rows in its life, ``committed`` up to that log sequence of ``session``; the
    ``cut_off`` rows behind it were begun, and will be delivered again."""

    session: str
    handled: int
    committed: int
    cut_off: int

    @classmethod
    def of(cls, serving: Serving) -> StopReport:
        """The report of one that has ended."""
        session = "" if serving.consumer is None else serving.consumer.session.name
        return cls(session, serving.tally.handled, serving.checkpoint.log_sequence, serving.cut_off)

    def __str__(self) -> str:
        if not self.cut_off:
            return f"stopped: all that was taken in of {self.session} is committed, up to {self.committed:,}"
        return (
            f"stopped at its deadline: {self.cut_off:,} events of {self.session}, from log sequence {self.committed:,} "
            "on, were not finished and committed; they will be delivered again"
        )

    def __repr__(self) -> str:
        return f"StopReport({self})"


def picture(settings: ProcessorSettings, serving: Serving, failure: BaseException | None) -> ProcessorStatistics:
    """The numbers of a processor now."""
    life, consumer, tally, passage = serving.life, serving.consumer, serving.tally, serving.passage
    stage = serving.stage.statistics()
    silent_s = 0.0 if consumer is None else consumer.silent_s
    trouble = serving.trouble if life is None else life.trouble
    committing = None if life is None else life.committing
    committed = serving.checkpoint.log_sequence if committing is None else committing.checkpoint.log_sequence
    position = committed if life is None else life.position
    holder = None if consumer is None else consumer.holder
    return ProcessorStatistics(
        state=_state(serving, silent_s, trouble, failure),
        group=settings.group,
        session=settings.session if consumer is None else consumer.session.name,
        holder="" if holder is None else holder.name,
        read=tally.read,
        redelivered=tally.redelivered,
        damaged=tally.damaged,
        handled=tally.handled,
        emitted=tally.emitted,
        invalid=tally.invalid + (0 if passage is None else passage.invalid),
        dropped=tally.dropped + (0 if passage is None else passage.dropped),
        duplicate=stage.order.duplicate_rows + stage.dedup.redelivered,
        late=stage.order.late_rows,
        conflicting=stage.order.conflicting_rows,
        orphaned=stage.order.orphaned_rows,
        held=stage.held_rows,
        lost=serving.losses.events,
        dead_letters=serving.letterbox.events,
        retried=serving.retries.tried,
        mended=serving.retries.mended,
        spilled=serving.letterbox.spilled,
        commits=tally.commits + (0 if committing is None else committing.saved),
        acknowledged=tally.acknowledged + (0 if committing is None else committing.acknowledged),
        effects=tally.effects + (0 if committing is None else committing.effects),
        refused_effects=tally.refused_effects + (0 if committing is None else committing.refusals),
        groups_lost=tally.groups_lost,
        position=position,
        committed=committed,
        uncommitted=0 if life is None else life.uncommitted,
        lag=0 if life is None else max(life.events - position, 0),
        lag_s=0.0 if life is None else life.behind_s,
        takeovers=serving.takeovers,
        silent_s=silent_s,
        trouble="" if trouble is None else str(trouble),
        failure="" if failure is None else f"{type(failure).__name__}: {failure}",
    )


def describe(shown: ProcessorStatistics) -> str:
    """One short line."""
    what = shown.state.value
    if shown.state is State.STANDING_BY:
        what += f", {shown.holder or 'nobody'} is active"
    elif shown.state is State.STALLED:
        what += f": the server has been silent for {shown.silent_s:.1f} s"
    what += f", {shown.handled:,} handled, committed up to {shown.committed:,}"
    told = (
        ("dead_letters", "failures"),
        ("invalid", "invalid"),
        ("lost", "LOST"),
        ("refused_effects", "transactions REFUSED"),
        ("lag", "to go"),
    )
    what += "".join(f", {getattr(shown, name):,} {word}" for name, word in told if getattr(shown, name))
    wrong = shown.failure or shown.trouble
    return f"EventProcessor({shown.group} of {shown.session}: {what}" + (
        f"; {wrong.splitlines()[0]})" if wrong else ")"
    )


def _state(serving: Serving, silent_s: float, trouble: object, failure: BaseException | None) -> State:
    if failure is not None:
        return State.FAILED
    if serving.state in (State.NEW, State.STOPPED, State.STOPPING):
        return serving.state
    if silent_s > STALLED_S:
        return State.STALLED
    if trouble is not None:
        return State.AWAY
    life = serving.life
    if life is None:
        return serving.state
    if serving.passage is not None and serving.passage.pressed is not None:
        return State.HELD_UP
    return State.FOLLOWING if life.caught_up else State.CATCHING_UP
