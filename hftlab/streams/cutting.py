"""A batch cut into what one script call appends: pure, deterministic, restartable at any row.

A chunk is up to ``frame_rows`` consecutive rows of all types together; their log sequences count from 0, and the
server adds the chunk's base. Each type's rows become one frame (or each row one entry), so a call appends to up to
four streams, and all of it has one base.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from hftlab.errors import ValidationError
from hftlab.events import EventBatch, EventType, Flags
from hftlab.events.digest import RowDigest
from hftlab.events.entries import encode_entry
from hftlab.events.frames import MAX_ROWS, check_rows, encode_frame
from hftlab.events.records import ROW_BYTES, ClockSource
from hftlab.streams.keys import FRAME_FIELD, TYPE_ORDER

Format = Literal["frames", "entries"]
FORMATS: tuple[Format, ...] = ("frames", "entries")
# An entry is some 30 strings; more than this many at once would hold up the server's other clients.
ENTRY_ROWS = 256
LIVE_NS = 60_000_000_000
"""Rows that arrived longer ago are of a capture: how long they took to be appended says nothing."""
_NS_PER_MS = 1_000_000
_OPAQUE = np.dtype(f"V{ROW_BYTES}")
_STREAM = {event_type: index + 1 for index, event_type in enumerate(TYPE_ORDER)}


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one call of the append script writes: rows ``start … start + rows - 1`` of a writer.

    ``parts`` has ``part_count`` parts one after the other: stream, rows, offset, how many strings follow, the strings.
    ``arrivals``: when its rows were received, by type, where they were received just now.
    """

    start: int
    rows: int
    earliest_ns: int
    latest_ns: int
    part_count: int
    parts: list[Any]
    symbols: frozenset[str]
    arrivals: tuple[tuple[EventType, npt.NDArray[np.int64]], ...] = ()

    def arguments(self, named: Collection[str]) -> tuple[Any, ...]:
        """The script's arguments from ``count`` on, ``named`` being the symbols that the session may not have yet."""
        return (
            self.rows, self.latest_ns // _NS_PER_MS, self.earliest_ns // _NS_PER_MS,
            f"{self.earliest_ns:019d}", f"{self.latest_ns:019d}", len(named), self.part_count, *named, *self.parts,
        )  # fmt: skip


class RowSource(Protocol):
    """Rows in order that can be read again from any of them."""

    @property
    def rows(self) -> int:
        """How many rows there are."""
        ...

    def slices(self, start: int, frame_rows: int) -> Iterator[tuple[int, EventBatch]]:
        """(first row, up to ``frame_rows`` rows) from row ``start`` to the end."""
        ...


class BatchRows:
    """A batch as a source of rows."""

    def __init__(self, batch: EventBatch) -> None:
        self._batch = batch

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self._batch)

    def slices(self, start: int, frame_rows: int) -> Iterator[tuple[int, EventBatch]]:
        """(first row, up to ``frame_rows`` rows) from row ``start`` to the end; zero-copy."""
        for first in range(start, len(self._batch), frame_rows):
            yield first, self._batch[first : first + frame_rows]


def check_frame_rows(frame_rows: int) -> int:
    """Return ``frame_rows``, or raise ValidationError: 1 to 65,536."""
    if isinstance(frame_rows, bool) or not isinstance(frame_rows, int) or not 0 < frame_rows <= MAX_ROWS:
        raise ValidationError(f"frame_rows is an integer of 1 to {MAX_ROWS:,}; got {frame_rows!r:.100}")
    return frame_rows


def inspect(batch: EventBatch, step_rows: int = 4_096) -> str:
    """The digest that names a batch's content; raises ValidationError for rows that no reader could take.

    In one pass, slice by slice, so that each slice is still in the processor's cache: about 50 ns a row.
    """
    digest = RowDigest()
    for first in range(0, len(batch), step_rows):
        part = batch[first : first + step_rows]
        check_rows(part)
        for field in ("timestamp", "received"):
            if int(part.records[field].min()) < 0:
                raise ValidationError(f"{field} is 0 (yet to be stamped) or above, in ns since 1970 UTC; got less")
        digest.update(part)
    return digest.hexdigest()


def chunks(
    source: RowSource, start: int, offset: int, *, frame_rows: int, form: Format, now_ns: Callable[[], int]
) -> Iterator[Chunk]:
    """The calls that append ``source`` from its row ``start`` on, made as they are asked for: about 0.15 µs a row.

    ``offset`` is what the writer had written before the source's first row. Rows that nobody stamped get the time at
    which their chunk is made.
    """
    step = min(frame_rows, ENTRY_ROWS) if form == "entries" else frame_rows
    cut = _Cut(form, now_ns)
    for first, part in source.slices(start, step):
        yield cut.chunk(part, first + offset)


class _Cut:
    """Makes chunks in one piece of memory: what leaves it are bytes and texts."""

    def __init__(self, form: Format, now_ns: Callable[[], int]) -> None:
        self._pieces = _frames if form == "frames" else _entries
        self._now_ns = now_ns
        self._memory = np.zeros(0, _OPAQUE)
        self._positions = np.zeros(0, np.int64)

    def chunk(self, part: EventBatch, start: int) -> Chunk:
        count = len(part)
        if len(self._memory) < count:
            self._memory = np.empty(count, _OPAQUE)
            self._positions = np.arange(count)
        self._memory[:count] = part.records.view(_OPAQUE)
        rows = self._memory[:count].view(part.records.dtype)
        batch = EventBatch(rows, part.symbols, part.sources)
        received = rows["received"]
        earliest = int(received.min())
        if earliest == 0 or not rows["timestamp"].all():
            stamp(batch, self._now_ns)
            earliest = int(received.min())
        # A row that a handler emitted is recorded now: its id is the session's, no longer the run's.
        if int(np.bitwise_or.reduce(rows["flags"])) & Flags.EMITTED:
            rows["flags"] &= ~np.uint16(Flags.EMITTED)
        rows["log_sequence"] = self._positions[:count]
        parts: list[Any] = []
        part_count = 0
        for piece in self._pieces(batch):
            parts += piece
            part_count += 1
        latest = int(received.max())
        now_ns = self._now_ns()
        arrivals = tuple(_arrivals(batch)) if now_ns - earliest < LIVE_NS and latest < now_ns + LIVE_NS else ()
        return Chunk(start, count, earliest, latest, part_count, parts, _symbols(batch), arrivals)


def _arrivals(batch: EventBatch) -> Iterator[tuple[EventType, npt.NDArray[np.int64]]]:
    """Copies: the rows lie in memory that the next chunk is made in."""
    for event_type in batch.counts():
        yield event_type, batch.only(event_type).records["received"].copy()


def _symbols(batch: EventBatch) -> frozenset[str]:
    if len(batch.symbols) == 1:
        return frozenset(batch.symbols)
    ids = batch.records["symbol"]
    used = ids[:1] if ids.min() == ids.max() else np.unique(ids)
    return frozenset(batch.symbols[int(index)] for index in used)


def stamp(batch: EventBatch, now_ns: Callable[[], int]) -> None:
    """Give rows that nobody stamped the time now, in place."""
    rows = batch.records
    unstamped = rows["received"] == 0
    rows["received"][unstamped] = now_ns()
    rows["clock"][unstamped] = ClockSource.APPLICATION
    ahead = unstamped & (rows["timestamp"] > rows["received"])
    rows["flags"][ahead] |= np.uint16(Flags.AHEAD)
    untimed = rows["timestamp"] == 0
    rows["timestamp"][untimed] = rows["received"][untimed]
    rows["flags"][untimed] |= np.uint16(Flags.ARRIVAL_TIME)


def _frames(batch: EventBatch) -> Iterator[tuple[Any, ...]]:
    for event_type in batch.counts():
        rows = batch.only(event_type)
        yield _STREAM[event_type], len(rows), 0, 2, FRAME_FIELD, encode_frame(rows, checked=True)


def _entries(batch: EventBatch) -> Iterator[tuple[Any, ...]]:
    for offset, event in enumerate(batch):
        fields = encode_entry(event)
        # event_id is derived from the session and the log sequence, which the server gives.
        fields.pop("event_id", None)
        flat = [text for pair in fields.items() for text in pair]
        yield _STREAM[event.event_type], 1, offset, len(flat), *flat
