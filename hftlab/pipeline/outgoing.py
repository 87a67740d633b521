"""``Outgoing``: the letters of the commit that is being made, and what the disk keeps until the server has them."""

from __future__ import annotations

from hftlab.errors import SpillFull
from hftlab.events.group_ports import Letter
from hftlab.pipeline.letterbox import Letterbox


class Outgoing:
    """Hands a commit its letters, those on the disk first, and takes them off the disk when it is saved."""

    def __init__(self, letterbox: Letterbox) -> None:
        self._letterbox = letterbox
        self._fresh: tuple[Letter, ...] = ()
        self._on_disk: tuple[Letter, ...] = ()
        letterbox.begin_anew()

    def take(self) -> tuple[Letter, ...]:
        """The letters of a commit. Reads the spill file where it holds any."""
        box = self._letterbox
        self._on_disk = box.restore() if box.spilled > box.drained else ()
        self._fresh = box.take()
        return self._on_disk + self._fresh

    def trouble(self) -> None:
        """The commit is not taken: have its letters on the disk meanwhile."""
        if not self._fresh:
            return
        try:
            self._letterbox.spill(self._fresh)
        except (OSError, SpillFull) as error:
            # They are still in memory, with the commit that is tried again.
            self._letterbox.trouble = error

    def saved(self) -> None:
        """The commit is saved: the disk need not keep its letters."""
        letters, self._fresh, self._on_disk = self._on_disk + self._fresh, (), ()
        self._letterbox.saved(letters)
