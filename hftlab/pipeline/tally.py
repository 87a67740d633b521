"""``Tally``: what a processor has done, over all the times that it was the active member of its group."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hftlab.events.records import EventType
from hftlab.pipeline.committing import Committing
from hftlab.pipeline.passage import Passage
from hftlab.pipeline.refusals import MOST_KEPT, RefusedEffects


@dataclass
class Tally:
    """What a processor has done, over all its lives."""

    read: int = 0
    entries: int = 0
    redelivered: int = 0
    damaged: int = 0
    handled: int = 0
    emitted: int = 0
    cuts: int = 0
    acknowledged: int = 0
    effects: int = 0
    refused_effects: int = 0
    retries: int = 0
    invalid: int = 0
    dropped: int = 0
    commits: int = 0
    groups_lost: int = 0
    by_type: dict[EventType, int] = field(default_factory=dict)
    refused: deque[RefusedEffects] = field(default_factory=lambda: deque(maxlen=MOST_KEPT))

    def keep(self, passage: Passage) -> None:
        """Take over the counts of a passage that ends."""
        self.invalid += passage.invalid
        self.dropped += passage.dropped

    def add(self, committing: Committing) -> None:
        """Take over the counts of a life that ends."""
        self.commits += committing.saved
        self.acknowledged += committing.acknowledged
        self.effects += committing.effects
        self.refused_effects += committing.refusals
        self.refused.extend(committing.refused)
