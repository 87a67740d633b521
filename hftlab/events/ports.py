"""The ports: what bus, streams, replay and the others know of each other. ``Lab`` introduces who implements them.

Packages that never import one another meet here. Everything is described by what its user needs, and no more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple, Protocol

import msgspec

from hftlab.events.batch import EventBatch
from hftlab.events.records import EventType, Rows
from hftlab.events.tables import SourceTable, SymbolTable

Observer = Callable[[Rows], None]
"""Told of all rows in the order of their dispatch, in pieces of either published or emitted ones.

A piece has the dtype of its type, or RECORD where it holds several. It is valid during the call.
"""


class SessionInfo(msgspec.Struct, frozen=True):
    """What a recorded session holds. Times are ns UTC of arrival; ``number`` is what its event ids begin with.

    ``events`` is how many were appended, which is also the next log sequence; ``counts`` has them by topic word
    (``market``, ``order``, ``fill``, ``signal``). An empty session has ``start_ns == end_ns == 0``. ``trimmed`` is the
    first log sequence that is still there: retention took what lies before (all else counts what was ever appended,
    but for ``stored_bytes``). ``successor``: the session that goes on after this one, which is sealed then.
    """

    name: str
    number: int
    events: int
    start_ns: int
    end_ns: int
    counts: dict[str, int]
    symbols: tuple[str, ...]
    created_ns: int = 0
    stored_bytes: int = 0
    trimmed: int = 0
    successor: str = ""


class LogRange(msgspec.Struct, frozen=True):
    """Which rows of a session are wanted. None leaves an end open; every range includes its start and not its end.

    ``start_ns`` and ``end_ns`` bound ``received``; ``start_log`` and ``end_log`` bound ``log_sequence``.
    """

    types: frozenset[EventType] = frozenset(EventType)
    start_ns: int | None = None
    end_ns: int | None = None
    start_log: int | None = None
    end_log: int | None = None


class SessionLog(Protocol):
    """What a replay reads from. ``streams.RedisStreamManager`` is one."""

    async def session(self, name: str) -> SessionInfo:
        """What the session of that name holds. Raises UnknownSession."""
        ...

    def read(
        self,
        session: SessionInfo,
        wanted: LogRange,
        *,
        symbols: SymbolTable,
        sources: SourceTable,
        prefetch: int,
    ) -> AsyncIterator[EventBatch]:
        """The wanted rows in the order of their log sequence, all types merged, under the given tables.

        Up to ``prefetch`` requests to the server are on their way while the caller works.
        """
        ...


class Work(NamedTuple):
    """What one slice of a bus did: published rows and emissions dispatched, and how it ended.

    ``idle``: nothing is left to do. ``awaiting``: an async handler waits; ``await settle()`` before going on.
    ``pending``: rows that were handled led to events, or filled batches, that have yet to be dispatched.
    """

    handled: int
    emitted: int
    idle: bool
    awaiting: bool
    pending: bool = False


class DeadLetterPort(Protocol):
    """Whoever keeps dead letters for good. Called on the bus's thread, in the middle of its work; returns at once."""

    def put(self, letter: Any) -> None:
        """Take a ``bus.DeadLetter``: handler, event or batch, error, attempts, at_ns."""
        ...


class PausableSource(Protocol):
    """Whatever sends events to a bus and can be told to wait. Called on the bus's thread; returns at once."""

    def pause(self) -> None:
        """Send nothing from now on: the queues are near full."""
        ...

    def resume(self) -> None:
        """Go on: the queues are drained."""
        ...


class Keeper(Protocol):
    """Whoever keeps what a live bus accepts. Called on the bus's thread, in the middle of its work; returns at once."""

    @property
    def full(self) -> bool:
        """Whether it has no room for a single row, and whoever publishes has to wait, or is refused."""
        ...

    @property
    def presses(self) -> bool:
        """Whether it is so near its limit that sources should be told to wait."""
        ...

    @property
    def refuses(self) -> bool:
        """Whether a publisher that finds it full gets BusFull, instead of waiting."""
        ...

    def room_for(self, batch: EventBatch) -> int:
        """How many of the batch's first rows it has room for. What it raises, the publisher gets."""
        ...

    def accept(self, batch: EventBatch) -> None:
        """Take rows that the bus has accepted, valid during the call; also more than had room, where the bus had held
        them for missing numbers."""
        ...


class KeptBus(Protocol):
    """What a keeper needs of a live bus. ``bus.EventBus`` is one."""

    @property
    def run(self) -> object | None:
        """The run that is on the bus, if one is: nothing is accepted meanwhile."""
        ...

    def keep(self, keeper: Keeper) -> None:
        """Show the keeper all rows that are accepted from now on, in order: sequenced and deduplicated, and before
        anything of them is shed, conflated or dropped. Twice is once."""
        ...

    def forget(self, keeper: Keeper) -> None:
        """Show it no more; one that is not there is left alone."""
        ...

    def refuse_handlers(self, what: str) -> None:
        """Raise BusBusy if a handler of the bus is asking for something that would wait for that handler."""
        ...

    def room_made(self) -> None:
        """Have those who wait for room look again: a keeper has made some, or has failed."""
        ...

    async def publish_batch(self, batch: EventBatch) -> int:
        """Queue all rows in order; waits while there is no room."""
        ...


class LiveBus(Protocol):
    """What a live source needs of a bus: somewhere to send to, and to be told when to wait. ``bus.EventBus`` is one."""

    @property
    def clock(self) -> ReadClock:
        """The time by which the bus stamps what comes in."""
        ...

    def offer(self, batch: EventBatch) -> int:
        """Queue as many of the batch's first rows as have room, and return how many. Never waits."""
        ...

    def attach(self, source: PausableSource) -> None:
        """Tell the source to pause and to resume from now on."""
        ...

    def detach(self, source: PausableSource) -> None:
        """Tell it no more; one that is not attached is left alone."""
        ...


class ReadClock(Protocol):
    """A clock that is only asked. ``clock.SystemClock`` is one."""

    def now_ns(self) -> int:
        """The time now, in ns UTC."""
        ...


class DrivenClock(Protocol):
    """A clock that a run moves on. ``clock.VirtualClock`` is one."""

    def now_ns(self) -> int:
        """The time now, in ns UTC."""
        ...

    def advance_to(self, moment_ns: int) -> None:
        """Move to ``moment_ns``; a moment in the past leaves the clock where it is."""
        ...

    def follow(self, source: Callable[[], int] | None) -> None:
        """Ask ``source`` for the time from now on (None: stand still)."""
        ...


class BusRun(Protocol):
    """A run that is on a bus: its holder alone feeds and drives it. ``bus.Run`` is one."""

    @property
    def handled(self) -> int:
        """How many offered rows have been handled so far, also by a ``work`` that was interrupted."""
        ...

    @property
    def emitted(self) -> int:
        """How many emitted rows have been dispatched so far."""
        ...

    @property
    def ended(self) -> bool:
        """Whether the run has left the bus; nothing can be offered or worked any more."""
        ...

    def offer(self, batch: EventBatch) -> int:
        """Queue as many of the batch's first rows as have room; returns how many."""
        ...

    def work(self, max_rows: int, deadline_ns: int) -> Work:
        """Handle up to ``max_rows`` queued rows until ``perf_counter_ns`` passes ``deadline_ns``."""
        ...

    async def settle(self) -> None:
        """Await the async handler that holds the run up, if one does."""
        ...

    def withdraw(self) -> int:
        """Take back all offered rows that no handler was given yet, and return how many: the last ones offered."""
        ...

    def tell(self, notice: object) -> None:
        """Tell the handlers that subscribed to the notice's class, when all rows queued so far are handled."""
        ...

    def redeliver(self, handler: str, event: Any, done: Callable[[BaseException | None], None] | None = None) -> None:
        """Give the one subscription of that name an Event, or an EventBatch, once more, by the next ``work`` calls.

        ``done`` is called once when all its calls have ended: with None if they went well, else with the first error
        (they failed again, were given up, or the handler was cancelled meanwhile); what was not got done is a dead
        letter then. Raises ValidationError.
        """
        ...

    def flush(self) -> None:
        """Have what batch handlers wait for delivered by the next ``work`` calls, although the run goes on.

        Done when a ``work`` is idle; batches fill from their beginning after that.
        """
        ...

    def finish(self) -> None:
        """Say that no row will be offered any more: what batch handlers wait for is delivered by the next ``work``."""
        ...

    def end(self) -> int:
        """Leave the bus; returns how many rows were offered and not handled. Harmless when repeated."""
        ...


class FailedCall(Protocol):
    """A handler's call that raised. ``bus.Failure`` is one."""

    @property
    def handler(self) -> str:
        """The handler's name."""
        ...

    @property
    def error(self) -> BaseException:
        """What it raised."""
        ...


class FailedCalls(Protocol):
    """The latest failed calls, the oldest first, and the count of all. ``bus.FailureLog`` is one."""

    @property
    def count(self) -> int:
        """How many calls have failed since the bus was made; not all of them are kept."""
        ...

    def __iter__(self) -> Iterator[FailedCall]: ...


class DeadLetterShelf(Protocol):
    """The latest dead letters of a bus, and who is to keep them for good. ``bus.DeadLetters`` is one."""

    port: DeadLetterPort | None


class RunBus(Protocol):
    """What a replay, or a processor, needs of a bus. ``bus.EventBus`` is one."""

    symbols: SymbolTable
    sources: SourceTable

    @property
    def dead_letters(self) -> DeadLetterShelf:
        """What handlers failed on."""
        ...

    @property
    def failures(self) -> FailedCalls:
        """What handlers raised."""
        ...

    def begin_run(
        self,
        name: str,
        clock: DrivenClock,
        observer: Observer | None = None,
        give_way: Callable[[], bool] = ...,
        gaps: Any = None,
        journey: Any = None,
    ) -> BusRun:
        """Put a run on the bus. ``give_way`` is asked by the next run: end this one and return True, or False.

        ``gaps`` is the run's table of gaps, for whoever asks the bus for it; ``journey`` is where the bus notes how
        long rows were queued and handlers took (None: nowhere).
        """
        ...

    def new_journey(self, path: str, *, skew: Any = None, virtual: bool = False) -> Any:
        """A ``metrics.journeys.Journey`` by the bus's tables; None where the bus records none. See ``begin_run``.

        ``skew``: how far the recorder's clock was off, which is taken off arrivals. ``virtual``: rows are from the
        past, and how long ago they arrived is no latency.
        """
        ...

    def refuse_handlers(self, what: str) -> None:
        """Raise BusBusy if a handler of the bus is asking for something that would wait for that handler."""
        ...

    async def drain(self) -> None:
        """Wait until everything published so far has been handled."""
        ...

    def raise_failures(self) -> None:
        """Raise HandlerFailed for the first failure that no call has raised yet."""
        ...
