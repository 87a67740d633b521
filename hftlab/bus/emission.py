"""What handlers return, on its way back to the bus: stamped, given a cause and an id of the run, bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from msgspec.structs import astuple

from hftlab.bus.failures import FailureLog
from hftlab.bus.subscriptions import Subscription
from hftlab.clock import Clock
from hftlab.errors import CascadeError, ValidationError
from hftlab.events.batch import EventBatch
from hftlab.events.packing import pack_event
from hftlab.events.records import DTYPES, MAX_LOG_SEQUENCE, RUN_BIT, Flags, Rows
from hftlab.events.rowbytes import copy_rows
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.events.types import ROW_CLASSES, Event

CASCADE_LIMIT = 65_536
"""How many events one recorded event may lead to, emissions of emissions included."""

_AT = {
    event_type: {name: cls.__struct_fields__.index(name) for name in cls.__struct_fields__}
    for event_type, cls in ROW_CLASSES.items()
}


class Emission(NamedTuple):
    """Emitted rows of one type, ready for dispatch. ``event`` is the object where a single one was returned."""

    rows: Rows
    event: Event | None


class EmissionBuffer:
    """A bounded first-in-first-out of emissions. All that one recorded event leads to goes before the next one."""

    def __init__(self, symbols: SymbolTable, sources: SourceTable, failures: FailureLog) -> None:
        self.number = 0
        self.refused = 0
        self._symbols, self._sources, self._failures = symbols, sources, failures
        self._waiting: deque[Emission] = deque()
        self._cascade = 0

    def restart(self) -> None:
        """Number emissions from 0 again: a new run begins."""
        self.number = 0
        self._cascade = 0
        self._waiting.clear()

    def new_cause(self) -> None:
        """A new recorded event begins: its emissions are counted afresh."""
        self._cascade = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def pop(self) -> Emission:
        """The emission whose turn it is."""
        return self._waiting.popleft()

    def add(
        self,
        result: Any,
        subscription: Subscription,
        given: Callable[[], Event | EventBatch],
        cause: int,
        clock: Clock,
    ) -> None:
        """Take what a handler returned for ``given()``, whose event id is ``cause``.

        What is no event, or one too many, is that handler's failure.
        """
        try:
            if isinstance(result, Event):
                self._add_event(result, subscription, cause, clock)
            elif isinstance(result, EventBatch):
                self._add_batch(result, subscription, cause, clock)
            elif isinstance(result, Iterable) and not isinstance(result, (str, bytes)):
                for event in result:
                    if not isinstance(event, Event):
                        raise ValidationError(_WHAT.format(f"{type(result).__name__} with {event!r:.100}"))
                    self._add_event(event, subscription, cause, clock)
            else:
                raise ValidationError(_WHAT.format(f"{result!r:.100}"))
        except Exception as error:  # a generator of the user's may raise anything; what it yielded before stays emitted
            self._failures.record(subscription, given(), error)

    def _admit(self, count: int) -> None:
        if self._cascade + count > CASCADE_LIMIT:
            self.refused += count
            raise CascadeError(
                f"one event may lead to {CASCADE_LIMIT:,} others, emissions of emissions included; this handler's "
                f"{count:,} more were refused. Does a handler subscribe to what it emits?"
            )
        self._cascade += count

    def _add_event(self, event: Event, subscription: Subscription, cause: int, clock: Clock) -> None:
        self._admit(1)
        event_type = event.event_type
        at = _AT[event_type]
        values = list(astuple(event))
        now_ns = clock.now_ns()
        values[at["timestamp"]] = values[at["timestamp"]] or now_ns
        values[at["received"]] = values[at["received"]] or now_ns
        values[at["cause"]] = values[at["cause"]] or cause
        values[at["flags"]] |= Flags.EMITTED
        values[at["event_id"]] = RUN_BIT | self.number
        made: Callable[..., Event] = ROW_CLASSES[event_type]
        emitted = made(*values)
        rows = np.empty(1, DTYPES[event_type])
        pack_event(emitted, memoryview(rows.view(np.uint8).data), self._symbols, self._sources)
        self.number += 1
        subscription.emitted += 1
        self._waiting.append(Emission(rows, emitted))

    def _add_batch(self, batch: EventBatch, subscription: Subscription, cause: int, clock: Clock) -> None:
        self._admit(len(batch))
        now_ns = clock.now_ns()
        for run in batch.using(self._symbols, self._sources).runs():
            rows = copy_rows(run.records)
            for field in ("timestamp", "received"):
                rows[field][rows[field] == 0] = now_ns
            rows["cause"][rows["cause"] == 0] = cause
            rows["flags"] |= Flags.EMITTED
            rows["log_sequence"] = np.arange(self.number, self.number + len(rows)) & MAX_LOG_SEQUENCE
            self.number += len(rows)
            subscription.emitted += len(rows)
            self._waiting.append(Emission(rows, None))


_WHAT = (
    "a handler returns the events that it emits (an Event, an iterable of Events, or an EventBatch) or None; got {}. "
    "If the value is meant for you, store it and return nothing"
)
