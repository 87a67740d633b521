"""Those who keep what a live bus accepts: asked for room before rows are taken, shown what was taken."""

from __future__ import annotations

from hftlab.errors import ValidationError, shown
from hftlab.events.batch import EventBatch
from hftlab.events.ports import Keeper


class Keepers:
    """The keepers of one bus. ``listed`` is empty where nobody keeps: then nothing is asked, and nothing shown."""

    def __init__(self) -> None:
        self.listed: tuple[Keeper, ...] = ()

    def add(self, keeper: Keeper) -> None:
        """Show this one, too, what is accepted from now on. Twice is once. Raises ValidationError."""
        if not callable(getattr(keeper, "room_for", None)) or not callable(getattr(keeper, "accept", None)):
            raise ValidationError(f"a keeper has methods room_for(batch) and accept(batch); got {shown(keeper)}")
        if keeper not in self.listed:
            self.listed += (keeper,)

    def remove(self, keeper: Keeper) -> None:
        """Show this one no more; one that is not there is left alone."""
        self.listed = tuple(one for one in self.listed if one is not keeper)

    def room_for(self, batch: EventBatch) -> int:
        """How many rows, from the first on, all of them have room for. Raises what a keeper raises that failed."""
        return min(keeper.room_for(batch) for keeper in self.listed)

    def accept(self, batch: EventBatch) -> None:
        """Show all of them rows that were accepted."""
        for keeper in self.listed:
            keeper.accept(batch)

    @property
    def full(self) -> Keeper | None:
        """One that has no room for a single row, if there is any."""
        for keeper in self.listed:
            if keeper.full:
                return keeper
        return None

    @property
    def presses(self) -> bool:
        """Whether one of them is so near its limit that sources should wait."""
        return any(keeper.presses for keeper in self.listed)
