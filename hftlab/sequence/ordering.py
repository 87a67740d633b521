"""``Ordering``: what the user decides about order."""

from __future__ import annotations

from typing import Literal

import msgspec

from hftlab.errors import ValidationError, shown
from hftlab.events.records import EventType


class Ordering(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait for what is missing, and what to do then.

    A source holds at most ``window`` messages while numbers before them are missing. For *best-effort* types the
    missing numbers are declared lost after ``deadline_s`` seconds, or when the window is full, and everything goes on.
    For the ``strict`` types nothing is ever skipped: a full window presses back on whoever publishes, until the gap is
    filled or ``gaps.give_up()``. A source is of the type of its first message. A message in parts counts when its last
    part has come, or when its source goes on without it.

    ``reorder_s``: sources whose counter is shared with others (rule "shared") can't tell a missing number; their
    messages are held this long and sorted by number. 0: what lies behind is late. ``merge_s``: everything is held this
    long and sorted by ``timestamp`` across sources, for merged views; what comes later is set aside as late. At least
    ``deadline_s``, or what a gap holds back would always be late (a strict gap may hold longer than any). Both delay
    all that they hold. An event waits for a cause that is yet to come for ``deadline_s`` too, and for one that is held
    as long as that is.

    ``remembered``: of how many of a source's latest messages the content is kept, to tell a duplicate from a conflict.
    ``lost_cause``: what becomes of an event whose cause was set aside: "deliver" it, or "set aside" it too.
    ``ids``: how many event ids the deduplicator remembers (a power of two of at least 1,024), and ``ids_s`` for how
    long; ``at_capacity``: "forget" the oldest (counted), or "press back" until they are old enough.
    """

    window: int = 1_024
    deadline_s: float = 0.1
    strict: frozenset[EventType] = frozenset({EventType.ORDER, EventType.FILL})
    remembered: int = 256
    lost_cause: Literal["deliver", "set aside"] = "deliver"
    reorder_s: float = 0.0
    merge_s: float = 0.0
    ids: int = 1 << 20
    ids_s: float = 3_600.0
    at_capacity: Literal["forget", "press back"] = "forget"

    def __post_init__(self) -> None:
        for name, low, high in (("window", 1, 1 << 20), ("remembered", 1, 1 << 16), ("ids", 1_024, 1 << 30)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValidationError(f"{name} is an integer of {low:,} to {high:,}; got {shown(value)}")
        for name in ("remembered", "ids"):
            value = getattr(self, name)
            if value & (value - 1):
                raise ValidationError(f"{name} is a power of two; got {value:,}")
        for name in ("deadline_s", "reorder_s", "merge_s", "ids_s"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
                raise ValidationError(f"{name} is a number of seconds of at least 0; got {shown(value)}")
        if 0 < self.merge_s < self.deadline_s:
            raise ValidationError(
                f"merge_s is 0, or at least deadline_s: what a gap holds back for {self.deadline_s:g} s would come too "
                f"late for a view that waits less; got merge_s={self.merge_s:g}. Make it longer, or deadline_s shorter"
            )
        for name, choices in (("lost_cause", ("deliver", "set aside")), ("at_capacity", ("forget", "press back"))):
            if getattr(self, name) not in choices:
                raise ValidationError(f"{name} is one of {choices}; got {shown(getattr(self, name))}")
        try:
            strict = frozenset(EventType(event_type) for event_type in self.strict)
        except (TypeError, ValueError):
            raise ValidationError(f"strict is a set of EventTypes; got {shown(self.strict)}") from None
        msgspec.structs.force_setattr(self, "strict", strict)

    @property
    def deadline_ns(self) -> int:
        """``deadline_s`` in ns."""
        return round(self.deadline_s * 1e9)
