"""Who may do what with a bus now: it may be closed, a run may have it to itself, and a handler may not wait for it."""

from __future__ import annotations

from hftlab.bus.coroutines import Coroutines
from hftlab.bus.run import Run
from hftlab.errors import BusBusy, BusClosed


class Gate:
    """What decides, as plain facts. ``working``: handlers are being called; ``settling``: those whose async handler is
    awaited;
    ``pumps``: how many tasks empty the queues by themselves."""

    def __init__(self, coroutines: Coroutines) -> None:
        self.closed = False
        self.run: Run | None = None
        self.working = False
        self.settling: set[object] = set()
        self.pumps = 0
        self._coroutines = coroutines

    def is_handler(self) -> bool:
        """Whether a handler is asking: one that was called just now, or an async one that goes on after a wait.

        A task that a handler started is not known as such.
        """
        return self.working or self._coroutines.is_asking()

    @property
    def mailbox(self) -> object | None:
        """The queue that the handler that is asking came from; None: it came from none, and the bus waits for it."""
        task = self._coroutines.asking()
        return None if task is None else task.mailbox

    def refuse_handlers(self, what: str, instead: str) -> None:
        """Raise BusBusy if a handler is asking for what it would wait for forever."""
        if self.is_handler():
            raise BusBusy(f"{what} was called from a handler, which the bus waits for; {instead}")

    def check_not_closed(self) -> None:
        """Raise BusClosed for a closed bus."""
        if self.closed:
            raise BusClosed("this bus was closed; make a new one (or a new Lab)")

    def check_open(self) -> None:
        """Raise BusClosed, or BusBusy while a run is on the bus: the two times when nobody publishes."""
        self.check_not_closed()
        if self.run is not None:
            raise BusBusy(
                f"{self.run.name} is on this bus; publish when it has ended, or use a bus of its own. Its handlers "
                "return the events that they emit"
            )
