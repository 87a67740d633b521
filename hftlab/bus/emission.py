"""What handlers return, on its way back to the bus: stamped, given a cause and an id of the run, bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec.structs import astuple

from hftlab.bus.compiled import EmittedRows, set_causes
from hftlab.bus.failures import FailureLog, Given
from hftlab.bus.kernels.emitted import number_orders
from hftlab.bus.subscriptions import Subscription
from hftlab.clock import Clock
from hftlab.errors import CascadeError, ValidationError
from hftlab.events.batch import EventBatch
from hftlab.events.packing import pack_event
from hftlab.events.records import DTYPES, MAX_LOG_SEQUENCE, ROW_BYTES, RUN_BIT, EventType, Flags, Rows
from hftlab.events.rowbytes import concat_rows, copy_rows, data_address
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.events.types import ROW_CLASSES, Event

CASCADE_LIMIT = 65_536
"""How many events one published event may lead to, emissions of emissions included."""

_BLOCK_ROWS = 64
_MOST_GATHERED = 1_024
_TYPES = {int(event_type): event_type for event_type in EventType}

_AT = {
    event_type: {name: cls.__struct_fields__.index(name) for name in cls.__struct_fields__}
    for event_type, cls in ROW_CLASSES.items()
}


@lru_cache(maxsize=1 << 16)
def _emitted(flags: Flags) -> Flags:
    """The flags with EMITTED. An enum's own ``|`` takes 1 µs."""
    return flags | Flags.EMITTED


class Emission(NamedTuple):
    """Emitted rows of one type, ready for dispatch. ``event`` is the object where a single one was returned.

    ``cascade``: how many events the published one had led to by then, where another lane's handler emitted this.
    """

    event_type: EventType
    rows: Rows
    event: Event | None
    cascade: int | None = None


class Numbers:
    """The next number of an emission: all lanes of a bus share it, so that no two live emissions have one id."""

    def __init__(self) -> None:
        self.next = 0


def _follows(one: Emission, other: Emission) -> bool:
    return one.event is None and one.event_type is other.event_type and one.cascade == other.cascade


class _Block:
    """Fresh rows of one type to be written one by one: making an array for each costs as much as all the rest."""

    def __init__(self, event_type: EventType) -> None:
        self.rows = np.empty(_BLOCK_ROWS, DTYPES[event_type])
        self.bytes = memoryview(self.rows.view(np.uint8)).cast("B")  # type: ignore[arg-type]
        self.used = 0


class EmissionBuffer:
    """A bounded first-in-first-out of emissions. All that one published event leads to goes before the next one.

    ``waiting`` holds them; the dispatcher takes them from its left. ``later`` has those of async handlers that were not
    awaited in line: each begins when all that the event at work led to is through, and goes on with its own count.
    """

    def __init__(
        self,
        symbols: SymbolTable,
        sources: SourceTable,
        failures: FailureLog,
        numbers: Numbers | None = None,
    ) -> None:
        self.refused = 0
        # Asked about each emission: another, more urgent lane may take it.
        self.elsewhere: Callable[[Emission], bool] | None = None
        self._numbers = numbers or Numbers()
        self.waiting: deque[Emission] = deque()
        self.later: deque[Emission] = deque()
        self._is_late = False
        self._symbols, self._sources, self._failures = symbols, sources, failures
        self._blocks: dict[EventType, _Block] = {}
        self._cascade = 0
        self._live_number = 0

    def begin_run(self) -> None:
        """Number emissions from 0: a run's ids are its own."""
        self._live_number, self._numbers.next = self._numbers.next, 0
        self.clear()

    def end_run(self) -> None:
        """Go on with the numbers from before the run, so that no two live events have one id."""
        self._numbers.next = self._live_number
        self.clear()

    def clear(self) -> None:
        """Forget what waits."""
        self._cascade = 0
        self.waiting.clear()
        self.later.clear()

    @property
    def pending(self) -> bool:
        """Whether anything waits."""
        return bool(self.waiting or self.later)

    @property
    def cascade(self) -> int:
        """How many events the published event that is at work has led to."""
        return self._cascade

    def new_cause(self) -> None:
        """Another published event is at work: what it leads to is counted afresh."""
        self._cascade = 0

    def _queue(self, emission: Emission) -> None:
        counted = emission._replace(cascade=self._cascade)
        if self.elsewhere is None or not self.elsewhere(counted):
            if self._is_late:
                self.later.append(counted)
            else:
                self.waiting.append(emission)

    def take(self) -> Emission:
        """The emission whose turn it is."""
        source = self.waiting or self.later
        emission = source.popleft()
        if emission.event is None and source and _follows(source[0], emission):
            emission = emission._replace(rows=self._gather(emission, source))
        if emission.cascade is not None:
            # It goes on with its cause's count: nothing else of this lane is under way.
            self._cascade = emission.cascade
        return emission

    def _gather(self, emission: Emission, source: deque[Emission]) -> Rows:
        """The rows of an emission with those of the next ones that are like it: runs become short where what was
        between them went to another lane, and a chunk costs as much for one row as for many."""
        parts, count = [emission.rows], len(emission.rows)
        while count < _MOST_GATHERED and source and _follows(source[0], emission):
            parts.append(source.popleft().rows)
            count += len(parts[-1])
        return concat_rows(parts, DTYPES[emission.event_type])

    def put_back(self, event_type: EventType, rows: Rows) -> None:
        """Rows of the emission that was taken last whose turn has not come."""
        self.waiting.appendleft(Emission(event_type, rows, None))

    def add(self, result: Any, subscription: Subscription, given: Given, cause: int, clock: Clock) -> Exception | None:
        """Take what a handler returned. What is no event, or one too many, is that handler's failure, and returned.

        ``given`` makes what the handler was given, for the failure; ``cause`` is its event id.
        """
        try:
            if isinstance(result, Event):
                self._add_event(result, subscription, cause, clock)
            elif isinstance(result, EmittedRows):
                self._add_rows(result, subscription, clock)
            elif isinstance(result, EventBatch):
                self._add_batch(result, subscription, cause, clock)
            elif isinstance(result, Iterable) and not isinstance(result, (str, bytes, bytearray, dict)):
                for event in result:
                    if not isinstance(event, Event):
                        raise ValidationError(_WHAT.format(f"{type(result).__name__} with {event!r:.100}"))
                    self._add_event(event, subscription, cause, clock)
            else:
                raise ValidationError(_WHAT.format(f"{result!r:.100}"))
        except Exception as error:  # a generator of the user's may raise anything; what it yielded before stays emitted
            self._failures.record(subscription, given(), error)
            return error
        return None

    def add_later(
        self, result: Any, subscription: Subscription, given: Given, cause: int, clock: Clock, cascade: int
    ) -> Exception | None:
        """Take what a handler returned when the event that it was given was long through; returns its failure, if any.

        ``cascade`` is how many events that one's published event had led to when the handler was called.
        """
        kept, self._cascade, self._is_late = self._cascade, cascade, True
        try:
            return self.add(result, subscription, given, cause, clock)
        finally:
            self._cascade, self._is_late = kept, False

    def _admit(self, count: int) -> None:
        if self._cascade + count > CASCADE_LIMIT:
            self.refused += count
            raise CascadeError(
                f"one event may lead to {CASCADE_LIMIT:,} others, emissions of emissions included; this handler's "
                f"{count:,} more were refused. Does a handler subscribe to what it emits?"
            )
        self._cascade += count

    def _add_event(self, event: Event, subscription: Subscription, cause: int, clock: Clock) -> None:
        event_type = event.event_type
        at = _AT[event_type]
        values = list(astuple(event))
        now_ns = clock.now_ns()
        values[at["timestamp"]] = values[at["timestamp"]] or now_ns
        values[at["received"]] = values[at["received"]] or now_ns
        values[at["cause"]] = values[at["cause"]] or cause
        values[at["flags"]] = _emitted(values[at["flags"]])
        values[at["event_id"]] = RUN_BIT | self._numbers.next
        made: Callable[..., Event] = ROW_CLASSES[event_type]
        emitted = made(*values)
        block = self._blocks.get(event_type)
        if block is None or block.used == _BLOCK_ROWS:
            block = self._blocks[event_type] = _Block(event_type)
        at_row = block.used
        pack_event(
            emitted, block.bytes[at_row * ROW_BYTES : (at_row + 1) * ROW_BYTES], self._symbols, self._sources
        )  # fmt: skip
        self._admit(1)
        block.used += 1
        self._numbers.next += 1
        subscription.emitted += 1
        self._queue(Emission(event_type, block.rows[at_row : at_row + 1], emitted))

    def _add_batch(self, batch: EventBatch, subscription: Subscription, cause: int, clock: Clock) -> None:
        self._admit(len(batch))
        now_ns = clock.now_ns()
        for run in batch.using(self._symbols, self._sources).runs():
            rows = copy_rows(run.records)
            self._stamp(rows, cause, now_ns)
            self._append(rows, subscription)

    def _add_rows(self, emitted: EmittedRows, subscription: Subscription, clock: Clock) -> None:
        """Take what a compiled handler emitted for a batch: as many as its published event, or batch, may lead to."""
        self.refused += emitted.refused
        rows, count = emitted.rows, len(emitted.rows)
        fits = min(count, CASCADE_LIMIT - self._cascade)
        self._admit(fits)
        if fits:
            self._stamp(rows[:fits], emitted.causes[:fits], clock.now_ns())
            number_orders(data_address(rows), int(emitted.marks.ctypes.data), fits)
            self._append(rows[:fits], subscription)
        self._admit(count - fits)

    def _stamp(self, rows: Rows, causes: int | npt.NDArray[np.int64], now_ns: int) -> None:
        """Give rows, in place, the times and causes that they lack, and their numbers."""
        for field in ("timestamp", "received"):
            rows[field][rows[field] == 0] = now_ns
        set_causes(rows, causes)
        rows["flags"] |= np.uint16(Flags.EMITTED)
        rows["log_sequence"] = np.arange(self._numbers.next, self._numbers.next + len(rows)) & MAX_LOG_SEQUENCE
        self._numbers.next += len(rows)

    def _append(self, rows: Rows, subscription: Subscription) -> None:
        """Queue rows as they are, run by run of one type. 1.5 µs a run, which EventBatch.runs would make 5."""
        subscription.emitted += len(rows)
        types = rows["type"]
        cuts = [0, *(np.flatnonzero(types[1:] != types[:-1]) + 1).tolist(), len(rows)]
        for number, begin, end in zip(types[cuts[:-1]].tolist(), cuts, cuts[1:], strict=False):
            event_type = _TYPES[number]
            self._queue(Emission(event_type, rows[begin:end].view(DTYPES[event_type]), None))


_WHAT = (
    "a handler returns the events that it emits (an Event, an iterable of Events, or an EventBatch) or None; got {}. "
    "If the value is meant for you, store it and return nothing"
)
