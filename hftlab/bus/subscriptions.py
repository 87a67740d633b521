"""Subscriptions: which events a handler wants, and how it wants to be given them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from hftlab.bus.compiled import CompiledHandler
from hftlab.errors import ValidationError
from hftlab.events.batch import EventBatch
from hftlab.events.records import MAX_LOG_SEQUENCE, EventType, Rows
from hftlab.events.rowbytes import take_rows
from hftlab.events.tables import SymbolTable
from hftlab.events.types import Event
from hftlab.flow.breaker import CircuitBreaker

if TYPE_CHECKING:
    from hftlab.bus.mailbox import Mailbox

Mode = Literal["event", "fields", "batch", "jit"]
Where = Callable[[Rows], npt.NDArray[np.bool_]]
Emitted = Event | EventBatch | Iterable[Event] | None
Handler = Callable[..., Any]
"""Called by its mode: ``(event)``, ``(price, volume, …)`` or ``(batch)``; returns Emitted, or a coroutine of it.
A compiled one, ``(record, state, emit)``, returns nothing."""

Refused = Callable[[int, Exception], None]
"""Told of a row, by its position, that a ``where=`` failed on."""

DEFAULT_BATCH_ROWS = 1_024
MAX_BATCH_ROWS = 65_536

DEFAULT_QUEUE = 1_024
"""How many events of a lane wait for an async handler, at most."""

QUEUED_BATCHES = 8
"""How many full batches of a lane wait for an async batch handler, at most."""

MAX_QUEUE = 1 << 20


@dataclass(eq=False)
class Subscription:
    """One handler's registration; ``EventBus.on`` makes it, ``cancel`` on the bus ends it.

    ``types`` and ``pattern`` (a symbol pattern; None: all) say what is wanted, ``where`` is a vectorised predicate over
    rows of a type. ``fields`` are the parameter names of a ``fields`` handler. ``notice``: the class of notices that it
    wants instead of events. Handlers of a greater ``priority`` are called first. ``breaker`` keeps calls from a handler
    that fails, ``attempts`` is how often one event is tried. A jit handler gets batches, too, and is called once an
    event; ``state`` is its state, ``compiled`` what it was compiled into.

    The counts are of the whole life of the subscription: ``calls``, and the events ``delivered`` in them, ``failed``
    calls, events ``emitted``, events that the breaker ``rejected``, ``dead_lettered`` events, ``timed_out`` calls, for
    how long it held the loop at most (``held_ns_max``), and the events ``missed``: of a batch handler that was
    cancelled, because its batch was not full yet; of an async one, because its queue was given up with the bus.

    An async handler (``is_async``) has a ``mailbox`` on a live bus, of ``queue`` events a lane (0: it is awaited in
    line; None: the default), and ``timeout_s`` for each call. A call counts when it is made, whenever it ends.
    """

    name: str
    handler: Handler
    mode: Mode
    types: frozenset[EventType]
    pattern: str | None = None
    where: Where | None = None
    fields: tuple[str, ...] = ()
    batch_rows: int = DEFAULT_BATCH_ROWS
    notice: type | None = None
    state: Any = None
    compiled: CompiledHandler | None = None
    calls: int = 0
    delivered: int = 0
    failed: int = 0
    emitted: int = 0
    missed: int = 0
    priority: int = 0
    attempts: int = 1
    breaker: CircuitBreaker | None = None
    rejected: int = 0
    timed_out: int = 0
    dead_lettered: int = 0
    held_ns_max: int = 0
    is_async: bool = False
    queue: int | None = None
    timeout_s: float | None = None
    mailbox: Mailbox | None = field(default=None, repr=False)
    now_ns: Callable[[], int] = field(default=time.time_ns, repr=False)
    _wanted: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool), repr=False)

    def __post_init__(self) -> None:
        self._matches = symbol_matcher(self.pattern)

    @property
    def batched(self) -> bool:
        """Whether it is given whole batches, at boundaries that the data and ``batch_rows`` set."""
        return self.mode == "batch" or self.compiled is not None

    @property
    def queued(self) -> int:
        """How many events wait in the handler's own queue, those of a call in progress aside."""
        return 0 if self.mailbox is None else self.mailbox.queued

    @property
    def bound(self) -> int:
        """How many events of a lane its own queue holds."""
        if self.queue:
            return self.queue
        return QUEUED_BATCHES * self.batch_rows if self.mode == "batch" else DEFAULT_QUEUE

    def completed(self, error: BaseException | None, generation: int) -> None:
        """Tell the circuit breaker of a call that went through the handler's own queue and has ended: what it failed
        with, if it did. ``generation`` is the breaker's when the call was permitted: an old call's outcome is late.

        Not called for what was known at once, or awaited in line.
        """
        if self.breaker is None:
            return
        if error is None:
            self.breaker.record(1, self.now_ns(), generation=generation)
        else:
            self.breaker.record_failure(self.now_ns(), generation=generation)

    @property
    def generation(self) -> int:
        """The circuit breaker's generation, for a call that is permitted now; 0 without one."""
        return 0 if self.breaker is None else self.breaker.generation

    def call(self, event: Any) -> Any:
        """Call the handler with an event object, or the values of its fields that it takes."""
        if self.mode == "fields":
            return self.handler(*_values_of(self.fields)(event))
        return self.handler(event)

    def wants(self, symbol: str) -> bool:
        """Whether the symbol is one of those that this handler asked for."""
        return self._matches(symbol)

    def select(self, rows: Rows, symbols: SymbolTable, refused: Refused) -> npt.NDArray[np.intp] | None:
        """Positions of the rows of one type that this handler wants; None means all of them. Vectorised."""
        chosen: npt.NDArray[np.intp] | None = None
        if self.pattern is not None:
            chosen = np.flatnonzero(self._wanted_symbols(symbols)[rows["symbol"]])
            if len(chosen) == len(rows):
                chosen = None
        if self.where is None or not (len(rows) if chosen is None else len(chosen)):
            return chosen
        if chosen is None:
            kept = self.judge(rows, refused)
            return None if kept.all() else np.flatnonzero(kept)
        places = chosen
        return places[
            self.judge(take_rows(rows, places), lambda position, error: refused(int(places[position]), error))
        ]

    def judge(self, rows: Rows, refused: Refused) -> npt.NDArray[np.bool_]:
        """What ``where`` says of each row; a row that it fails on is not wanted, and ``refused`` is told of it.

        Where it fails on many rows at once it is asked about each by itself, so that which rows are lost never depends
        on which rows happened to lie beside them. Slow (5 µs a row), and only then.
        """
        assert self.where is not None
        try:
            return check_mask(self.where(rows), len(rows), self.name)
        except Exception as error:  # the user's where=
            if len(rows) == 1:
                refused(0, error)
                return np.zeros(1, bool)
        kept = np.zeros(len(rows), bool)
        for position in range(len(rows)):
            try:
                kept[position] = check_mask(self.where(rows[position : position + 1]), 1, self.name)[0]
            except Exception as error:
                refused(position, error)
        return kept

    def _wanted_symbols(self, symbols: SymbolTable) -> npt.NDArray[np.bool_]:
        if len(self._wanted) < len(symbols):
            # Tables only grow, so what was matched before stays.
            fresh = [self._matches(symbol) for symbol in symbols.values[len(self._wanted) :]]
            self._wanted = np.concatenate([self._wanted, np.array(fresh, bool)])
        return self._wanted

    def __repr__(self) -> str:
        wanted = ", ".join(f"{event_type.topic}.{self.pattern or '*'}" for event_type in sorted(self.types))
        wanted = wanted if self.notice is None else self.notice.__name__
        return f"Subscription({self.name}: {wanted}; {self.mode})"


def is_pattern(text: str) -> bool:
    """Whether ``*`` or ``?`` stands in a text; no other character is special (a symbol may hold brackets)."""
    return "*" in text or "?" in text


def symbol_matcher(pattern: str | None) -> Callable[[str], bool]:
    """Whether a whole text matches a pattern, in which ``*`` is any text and ``?`` any one character (None: all)."""
    if pattern is None:
        return lambda text: True
    if not is_pattern(pattern):
        return pattern.__eq__
    expression = re.compile("".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in pattern), re.DOTALL)
    return lambda text: expression.fullmatch(text) is not None


def check_mask(mask: object, count: int, name: str) -> npt.NDArray[np.bool_]:
    """What a ``where`` returned, or ValidationError: it must be a boolean array, one value a row."""
    if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != (count,):
        got = f"{mask.dtype} of shape {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise ValidationError(
            f"where= of {name} takes records and returns a boolean array, one value a row ({count},); got {got}"
        )
    return mask


@lru_cache(maxsize=1_024)
def _values_of(fields: tuple[str, ...]) -> Callable[[Event], tuple[Any, ...]]:
    """From an event to the values of its fields, as a field handler gets them out of a row."""
    if len(fields) > 1 and "log_sequence" not in fields:
        return attrgetter(*fields)
    return lambda event: tuple(
        event.event_id & MAX_LOG_SEQUENCE if field == "log_sequence" else getattr(event, field) for field in fields
    )
