"""Which events of a session a replay delivers: its range and its filters, checked before anything is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hftlab.clock import format_time, parse_time
from hftlab.clock.times import Time
from hftlab.errors import EmptyRange, ValidationError
from hftlab.events.batch import EventBatch, as_event_type
from hftlab.events.ports import LogRange, SessionInfo
from hftlab.events.records import EventType, Rows, of_type, split_event_id
from hftlab.events.tables import SymbolTable
from hftlab.events.types import Event

Type = type[Event] | EventType | str
_SESSIONS_BEFORE_TIMES = 100_000

Where = Callable[[Rows], npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Selection:
    """What the user asked for. ``start`` is included, ``end`` is not; each is a time or an event id."""

    start: Time | None = None
    end: Time | None = None
    types: Sequence[Type] | Type | None = None
    symbols: Sequence[str] | str | None = None
    where: Where | None = None

    def log_range(self, session: SessionInfo) -> LogRange:
        """The rows to read. Raises EmptyRange and ValidationError with what the session has."""
        types = frozenset(EventType) if self.types is None else frozenset(map(as_event_type, _types(self.types)))
        if self.where is not None and not callable(self.where):
            raise ValidationError(
                f"where= is a function from records to a boolean array, such as lambda records: records['price'] > 0; "
                f"got {self.where!r:.100}"
            )
        if not session.events:
            raise EmptyRange(f"the session {session.name!r} holds no event yet: append a batch to it first")
        symbols = None if self.symbols is None else _symbols(self.symbols)
        if symbols is not None and not len(symbols):
            raise EmptyRange(
                f"symbols= asks for no symbol at all; the session {session.name!r} has: {_shown(session.symbols)}"
            )
        for symbol in symbols or ():
            if symbol not in session.symbols:
                raise ValidationError(
                    f"the session {session.name!r} has no symbol {symbol!r}; it has: {_shown(session.symbols)}"
                )
        if not any(session.counts.get(event_type.topic, 0) for event_type in types):
            has = ", ".join(f"{count:,} {word}" for word, count in session.counts.items() if count)
            asked = ", ".join(event_type.topic for event_type in sorted(types)) or "no type at all"
            raise EmptyRange(f"the session {session.name!r} holds {has}; types= asks for {asked}")
        start_ns, start_log = bound(self.start, session)
        end_ns, end_log = bound(self.end, session)
        # What is appended while the replay runs is not part of it: two replays of one session read the same.
        end_log = session.events if end_log is None else min(end_log, session.events)
        wanted = LogRange(types, start_ns, end_ns, start_log, end_log)
        self._check_range(wanted, session)
        return wanted

    def _check_range(self, wanted: LogRange, session: SessionInfo) -> None:
        has = (
            f"the session {session.name!r} runs from {format_time(session.start_ns)} to {format_time(session.end_ns)} "
            f"with {session.events:,} events"
        )
        begins, ends = wanted.start_ns, wanted.end_ns
        if begins is not None and ends is not None and begins >= ends:
            raise EmptyRange(
                f"start is before end; got {format_time(begins)} and {format_time(ends)} "
                f"({'swap them' if begins > ends else 'the end is not included'}); {has}"
            )
        if (wanted.start_log or 0) >= (wanted.end_log or 0):
            raise EmptyRange(
                f"start is before end; got the event numbers {wanted.start_log} and {wanted.end_log} "
                f"(the end is not included); {has}"
            )
        if begins is not None and begins > session.end_ns:
            raise EmptyRange(f"nothing starts at or after {format_time(begins)}: {has}")
        if ends is not None and ends <= session.start_ns:
            raise EmptyRange(f"nothing comes before {format_time(ends)}: {has}")

    def mask(self, batch: EventBatch) -> npt.NDArray[np.bool_] | None:
        """Which rows of a batch ``symbols`` and ``where`` leave; None: all of them. Vectorised."""
        mask: npt.NDArray[np.bool_] | None = None
        if self.symbols is not None:
            mask = self._wanted_symbols(batch.symbols)[batch.records["symbol"]]
        if self.where is not None:
            kept = rows_where(self.where, batch, "where=")
            mask = kept if mask is None else mask & kept
        return None if mask is None or bool(mask.all()) else mask

    def apply(self, batch: EventBatch) -> EventBatch:
        """The rows of a batch that ``symbols`` and ``where`` leave; zero-copy where that is all."""
        mask = self.mask(batch)
        return batch if mask is None else batch.where(mask)

    def _wanted_symbols(self, symbols: SymbolTable) -> npt.NDArray[np.bool_]:
        wanted = set(_symbols(self.symbols or ()))
        return np.fromiter((symbol in wanted for symbol in symbols), bool, len(symbols))


@dataclass(frozen=True)
class Span:
    """A range of a session, in time. Times are ns UTC of arrival."""

    session: SessionInfo
    wanted: LogRange

    @property
    def start_ns(self) -> int:
        """The range's first moment."""
        return max(self.wanted.start_ns or 0, self.session.start_ns)

    @property
    def end_ns(self) -> int:
        """The range's last moment."""
        end_ns = self.session.end_ns
        return end_ns if self.wanted.end_ns is None else min(self.wanted.end_ns, end_ns)

    def progress(self, position_ns: int) -> float:
        """How far through, 0 to 1."""
        span_ns = self.end_ns - self.start_ns
        return min(max((position_ns - self.start_ns) / span_ns, 0.0), 1.0) if span_ns > 0 else 0.0

    def target(self, target: Time) -> tuple[LogRange, int | None, int | None]:
        """The part of the range from ``target`` on, and ``target`` as a moment or a log sequence. Raises EmptyRange."""
        begin_ns, begin_log = bound(target, self.session)
        if begin_ns is not None and not self.start_ns <= begin_ns <= self.end_ns:
            raise EmptyRange(
                f"seek goes to a moment from {format_time(self.start_ns)} to {format_time(self.end_ns)}; "
                f"got {format_time(begin_ns)}"
            )
        if begin_log is not None and not (self.wanted.start_log or 0) <= begin_log < (self.wanted.end_log or 0):
            raise EmptyRange(
                f"seek goes to an event of the range, number {self.wanted.start_log or 0:,} to "
                f"{(self.wanted.end_log or 0) - 1:,}; got number {begin_log:,}"
            )
        return self.starting(begin_ns, begin_log), begin_ns, begin_log

    def starting(self, start_ns: int | None, start_log: int | None) -> LogRange:
        """The range with another start, at or after its own."""
        wanted = self.wanted
        start_ns = wanted.start_ns if start_ns is None else start_ns
        start_log = max(start_log or 0, wanted.start_log or 0) or None
        return LogRange(wanted.types, start_ns, wanted.end_ns, start_log, wanted.end_log)


def rows_where(where: Where, batch: EventBatch, name: str) -> npt.NDArray[np.bool_]:
    """What a user's predicate over records says of each row of a batch, asked type by type. Raises ValidationError."""
    mask = np.zeros(len(batch), bool)
    for event_type in batch.counts():
        chosen = batch.records["type"] == event_type
        rows = of_type(batch.records, event_type)
        try:
            kept = where(rows)
        except ValueError as error:
            raise ValidationError(
                f"{name} failed on {event_type.name} records: {error}. "
                f"They have: {', '.join(rows.dtype.names or ())}; restrict the replay with types=[…] if it is "
                "meant for another type"
            ) from error
        if not isinstance(kept, np.ndarray) or kept.dtype != bool or kept.shape != (len(rows),):
            raise ValidationError(
                f"{name} takes records and returns a boolean array, one value a row ({len(rows)},); "
                f"got {getattr(kept, 'dtype', type(kept).__name__)} of shape {getattr(kept, 'shape', None)}"
            )
        mask[chosen] = kept
    return mask


def bound(value: Time | None, session: SessionInfo) -> tuple[int | None, int | None]:
    """An end of the range as (ns, None) or, from one of this session's event ids, as (None, log sequence)."""
    if value is None:
        return None, None
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and 0 < int(value) < 1 << 62:
        number, log_sequence = split_event_id(int(value))
        if number == session.number:
            if log_sequence > session.events:
                raise EmptyRange(
                    f"the session {session.name!r} has {session.events:,} events; {int(value)} is the id of its number "
                    f"{log_sequence:,}"
                )
            return None, log_sequence
        # As ns, the ids of the first 100,000 sessions would be times before July 1973: no capture's.
        if number < _SESSIONS_BEFORE_TIMES:
            raise ValidationError(
                f"an integer is a time in ns since 1970, or an event id of the session {session.name!r} (its number is "
                f"{session.number}); got {int(value)}, "
                + (f"an id of session number {number}" if number else "too small for either")
                + '. For a time in another unit, write (1723161255, "s")'
            )
    return parse_time(value, within=(session.start_ns, session.end_ns)), None


# What a user writes for a list of one, a single class or symbol, is taken as that list.
def _types(values: Sequence[Type] | Type) -> Sequence[Type]:
    return [values] if isinstance(values, (str, type, EventType)) else values


def _symbols(values: Sequence[str] | str) -> Sequence[str]:
    return [values] if isinstance(values, str) else values


def _shown(values: Sequence[str]) -> str:
    return ", ".join(values[:20]) + (f" and {len(values) - 20} more" if len(values) > 20 else "")
