"""``Stage``: the stretches of an event's way, each with a histogram of its own."""

from __future__ import annotations

import enum

from hftlab.errors import ValidationError, shown


class Stage(enum.Enum):
    """A stretch of an event's way; the value is what users read. Each begins where the one before it ends."""

    __hash__ = object.__hash__  # Enum's own is a Python call, and each note looks its histogram up by the stage

    RECEIVED = "exchange → received"
    """``received - timestamp``: by two clocks, the venue's and the recorder's, and negative where they disagree."""
    APPENDED = "received → appended"
    """Until the server has acknowledged that it is in the log."""
    READ = "appended → read"
    """How long it lay in the log."""
    SEQUENCED = "read → sequenced"
    """Decoding, duplicates, order. Live, without a log: received → sequenced."""
    DISPATCHED = "sequenced → dispatched"
    """Waiting in its lane."""
    HANDLED = "dispatched → handled"
    """In its event and field handlers; and once more for each batch or compiled handler that it is given to."""
    TOTAL = "received → handled"
    """The whole way on this machine, as often as HANDLED: live, and in processors. What arrived more than a day ago
    is of a capture, and has none."""


BY_SYMBOL = (Stage.RECEIVED, Stage.TOTAL)
"""Kept per type and symbol; the others are waits of whole batches and are kept per type."""
NEGATIVE_ADVICE = "the two clocks disagree: skew = replay.latency.skew; lab.replay(session, skew=skew)"
"""What to do about negative latencies of RECEIVED."""


def stage_of(stage: Stage | str) -> Stage:
    """The stage of a name in any case (``"received"``), or of a value. Raises ValidationError with all names."""
    if isinstance(stage, Stage):
        return stage
    if isinstance(stage, str):
        for known in Stage:
            if stage.lower() in (known.name.lower(), known.value):
                return known
    names = ", ".join(known.name.lower() for known in Stage)
    raise ValidationError(f"a stage is one of {names}; got {shown(stage)}")
