"""``Outgoing``: the letters of the commit that is being made, and what the disk keeps until the server has them."""

from __future__ import annotations

from hftlab.errors import SpillFull
from hftlab.events.group_ports import Checkpoint, Letter
from hftlab.pipeline.letterbox import Letterbox


class Outgoing:
    """Hands a commit its letters, those on the disk first, and takes them off the disk when it is saved.

    What an earlier process left on the disk goes with the first commit, but for letters of events that lie beyond its
    last checkpoint: these are handled again, and what fails again becomes a letter again.
    """

    def __init__(self, letterbox: Letterbox, checkpoint: Checkpoint, session_number: int) -> None:
        self._letterbox = letterbox
        self._from, self._session_number = checkpoint.log_sequence, session_number
        self._fresh: tuple[Letter, ...] = ()
        self._on_disk: tuple[Letter, ...] = ()
        self._first = True

    def take(self) -> tuple[Letter, ...]:
        """The letters of a commit. Reads the spill file where it may hold any."""
        box = self._letterbox
        self._on_disk = box.restore() if self._first or box.spilled > box.drained else ()
        restored = self._on_disk
        if self._first:
            restored = tuple(letter for letter in restored if not self._comes_again(letter))
            self._first = False
        self._fresh = box.take()
        return restored + self._fresh

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

    def _comes_again(self, letter: Letter) -> bool:
        return letter.session_number == self._session_number and letter.log_sequence >= self._from
