"""An entry of a stream, read back: a frame or a single event, or damaged, or somebody else's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from hftlab.errors import CodecError
from hftlab.events import Event, EventBatch, EventType, SourceTable, SymbolTable
from hftlab.events.entries import decode_entry
from hftlab.events.frames import decode_frame, peek_frame, verify_frame
from hftlab.events.records import MAX_LOG_SEQUENCE
from hftlab.events.rowbytes import take_rows
from hftlab.streams.keys import APPENDED_FIELD, FRAME_FIELD, LOG_FIELD

OnDamaged = Literal["raise", "skip"]
Entry = tuple[bytes, list[bytes] | None]
"""An entry as XRANGE gives it: its id, and its fields and values in turn (None: deleted while it was read)."""


class Bounds(NamedTuple):
    """Which rows are wanted: arrival in ns and log sequence, each from the first to before the second."""

    start_ns: int
    end_ns: int
    start_log: int
    end_log: int


class Page(NamedTuple):
    """What a page of a stream's entries held: batches in order, what could not be read, and whether rows at or past
    the end were seen."""

    batches: list[EventBatch]
    damaged: list[CodecError]
    stored_bytes: int
    finished: bool


def declared_rows(fields: list[bytes] | None) -> int:
    """How many rows an entry says that it holds: its frame's count, else 1."""
    frame = _frame_of(fields) if fields else None
    try:
        return 1 if frame is None else peek_frame(frame).rows
    except CodecError:
        return 1


_MOST_DIGITS = 16
"""Of microseconds up to the year 2286: a longer number is nobody's time."""


def appended_ns(fields: list[bytes] | None) -> int:
    """When the server wrote an entry, in ns UTC by its clock; 0 where the entry does not say."""
    return int(fields[3]) * 1_000 if fields and _rest(fields) == 4 and len(fields[3]) <= _MOST_DIGITS else 0


def _rest(fields: list[bytes]) -> int:
    """Where what was appended begins: behind the log sequence, and the time of the append where there is one."""
    return 4 if len(fields) > 4 and fields[2] == APPENDED_FIELD and fields[3].isdigit() else 2


def _frame_of(fields: list[bytes]) -> bytes | None:
    """The frame that an entry holds; None where it is a single event's."""
    rest = _rest(fields)
    return fields[rest + 1] if len(fields) == rest + 2 and fields[rest] == FRAME_FIELD else None


class StreamReader:
    """Turns the pages of one stream into batches, in order; used by one thread at a time."""

    def __init__(
        self,
        stream: str,
        event_type: EventType,
        session_number: int,
        symbols: SymbolTable,
        sources: SourceTable,
        bounds: Bounds,
        on_damaged: OnDamaged,
    ) -> None:
        self._stream = stream
        self._type = event_type
        self._number = session_number
        self._symbols = symbols
        self._sources = sources
        self._bounds = bounds
        self._on_damaged = on_damaged
        self._last_log = -1

    def read(self, entries: Sequence[Entry]) -> Page:
        """The wanted rows of a page. Raises CodecError, SchemaError for what can't be read, unless told to skip it."""
        batches: list[EventBatch] = []
        damaged: list[CodecError] = []
        events: list[tuple[int, Event]] = []
        stored_bytes = 0
        finished = False
        for entry_id, fields in entries:
            if fields is None:
                continue
            stored_bytes += sum(map(len, fields))
            try:
                log = self._log_sequence(entry_id, fields)
                if log >= self._bounds.end_log:
                    finished = True
                    break
                frame = _frame_of(fields)
                if frame is not None:
                    batch = self._frame(frame, log)
                    if batch is not None:
                        self._flush(events, batches)
                        batches.append(batch)
                else:
                    events.append((log, self._event(fields)))
                    self._last_log = log
            except CodecError as error:
                located = type(error)(f"stream {self._stream}, entry {entry_id.decode(errors='replace')}: {error}")
                if self._on_damaged == "raise":
                    raise located from None
                damaged.append(located)
        self._flush(events, batches)
        return Page([batch for batch in batches if len(batch)], damaged, stored_bytes, finished)

    def _log_sequence(self, entry_id: bytes, fields: list[bytes]) -> int:
        """The log sequence that the entry says it begins at, which must be its id's and above all before it."""
        said = fields[1] if len(fields) >= 4 and fields[0] == LOG_FIELD else b""
        if not said.isdigit() or entry_id.partition(b"-")[2] != said:
            raise CodecError(
                "this entry was not written by hftlab's append (it has no log_sequence that is its id's); write into "
                "the stream of a session with append or publish only"
            )
        log = int(said)
        if not self._last_log < log <= MAX_LOG_SEQUENCE:
            raise CodecError(f"its log sequence {log} does not follow {self._last_log}")
        return log

    def _frame(self, data: bytes, base: int) -> EventBatch | None:
        info = peek_frame(data)
        self._check_type(info.event_type)
        bounds = self._bounds
        if info.latest_ns < bounds.start_ns or info.earliest_ns >= bounds.end_ns:
            # A frame is passed over only by a header that is sound: a damaged one would lose its rows without a word.
            verify_frame(data)
            self._last_log = base
            return None
        batch = decode_frame(data, base=base, session_number=self._number, symbols=self._symbols, sources=self._sources)
        log = batch.records["log_sequence"]
        if len(log) > 1 and not bool((log[1:] > log[:-1]).all()):
            raise CodecError("the log sequences of a frame's rows rise; these don't")
        self._last_log = int(log[-1])
        return self._within(batch, info.earliest_ns, info.latest_ns)

    def _event(self, fields: list[bytes]) -> Event:
        rest = _rest(fields)
        named = dict(zip(fields[rest::2], fields[rest + 1 :: 2], strict=False))
        # The id of a recorded event is derived, whatever the entry says.
        named.pop(b"event_id", None)
        event = decode_entry(named)
        self._check_type(event.event_type)
        return event

    def _check_type(self, event_type: EventType) -> None:
        if event_type is not self._type:
            raise CodecError(f"the stream holds {self._type.name} events; this is one of {event_type.name}")

    def _flush(self, events: list[tuple[int, Event]], batches: list[EventBatch]) -> None:
        """Make one batch of the single events that came one after the other."""
        if not events:
            return
        batch = EventBatch.from_events(event for _, event in events).using(self._symbols, self._sources)
        batch.session_number = self._number
        batch.records["log_sequence"] = [log for log, _ in events]
        events.clear()
        received = batch.records["received"]
        batches.append(self._within(batch, int(received.min()), int(received.max())))

    def _within(self, batch: EventBatch, earliest_ns: int, latest_ns: int) -> EventBatch:
        bounds, rows = self._bounds, batch.records
        log = rows["log_sequence"]
        if int(log[0]) < bounds.start_log or int(log[-1]) >= bounds.end_log:
            low, high = np.searchsorted(log, (bounds.start_log, bounds.end_log))
            batch = batch[int(low) : int(high)]
            rows = batch.records
        if earliest_ns < bounds.start_ns or latest_ns >= bounds.end_ns:
            received = rows["received"]
            wanted = (received >= bounds.start_ns) & (received < bounds.end_ns)
            batch = EventBatch(take_rows(rows, wanted), batch.symbols, batch.sources, session_number=self._number)
        return batch
