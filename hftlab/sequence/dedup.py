"""``Deduplicator``: drops the rows that were processed before, because the log delivered them twice."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from hftlab.errors import ValidationError, shown
from hftlab.events.batch import EventBatch
from hftlab.events.rowbytes import ADDRESS_OFFSET, take_rows
from hftlab.sequence.kernels import dedup as at
from hftlab.sequence.ordering import Ordering

_FIRST_ROWS = 1_024
_WORD_BYTES = 8


class Deduplicated(msgspec.Struct, frozen=True):
    """What came out.

    ``batch``: the rows to go on with, in order: the very batch that went in where all were taken and none dropped.
    ``taken``: how many input rows were looked at (fewer than there are: offer the rest later, see ``due_ns``).
    ``redelivered``: how many of these were dropped: ``len(batch) == taken - redelivered``.
    """

    batch: EventBatch
    taken: int
    redelivered: int


@dataclass(frozen=True, slots=True)
class DedupStatistics:
    """What became of all rows so far: ``processed`` ones went on, ``redelivered`` ones were dropped.

    processed = unidentified + beyond + forgotten + expired + remembered, at every moment. ``unidentified`` rows have
    no id (not recorded, or emitted in the run); ``beyond`` have one that is older than all that could still be told;
    ``forgotten`` ids had to make room before their time; ``expired`` ones are past it; ``remembered`` ones would be
    dropped if they came again now. ``capacity``: how many ids a session has room for.
    """

    processed: int
    redelivered: int
    unidentified: int
    beyond: int
    forgotten: int
    expired: int
    remembered: int
    capacity: int

    def __str__(self) -> str:
        parts = [f"{self.processed:,} rows"]
        for name in ("redelivered", "unidentified", "beyond", "forgotten"):
            if getattr(self, name):
                parts.append(f"{getattr(self, name):,} {name}")
        return ", ".join(parts)


class Deduplicator:
    """Remembers the event ids (session number and log sequence) of what was processed, and drops what comes again.

    **Exact within the window**: an id that comes again up to ``ids_s`` seconds after it was processed is dropped, and
    an id that was never processed is never dropped, unless capacity is exceeded, which is counted. An id is remembered
    longer than ``ids_s`` while any other of its block of 1,024 neighbours in the log was processed that recently. Only
    what is processed counts for time: coming again does not keep an id alive.

    **Capacity**, allocated at the start: a session has room for ``ids`` ids (a power of two of at least 1,024), eight
    sessions at once; 10 bytes for 64 ids each, 1.3 MiB for 2**20 (memory that is never used is never touched). A new id
    that needs the place of ids younger than ``ids_s`` displaces these 1,024 ("forget", counted), or is not taken until
    they are old enough ("press back"). The same holds for a ninth session, and all ids of the session whose last new
    row is longest ago. Ids more than ``ids`` behind others of their session may find their place taken: they can't be
    told any more, and pass (``beyond``).

    Rows without an id pass: those of a batch that is in no session, and those that a handler emitted in a run.

    One thread. Batches may be cut anywhere: the same rows come out. In batches of 1,024, calls included: 1.5 ns a row
    where ids follow each other, 2.3 with holes between them, up to 5 in any order, 3 where a whole batch is dropped.
    """

    def __init__(
        self,
        *,
        ids: int = 1 << 20,
        ids_s: float = 3_600.0,
        at_capacity: Literal["forget", "press back"] = "forget",
    ) -> None:
        """Raises ValidationError as ``Ordering`` does, which has the same three fields."""
        checked = Ordering(ids=ids, ids_s=ids_s, at_capacity=at_capacity)
        self.ids, self.ids_s, self.at_capacity = checked.ids, checked.ids_s, checked.at_capacity
        self._ids_ns = round(ids_s * 1e9)
        blocks = ids // at.BLOCK_IDS
        self._rings = np.zeros((at.SESSIONS, at.RING_WORDS + blocks * at.BLOCK_WORDS), np.int64)
        self._dropped = np.zeros(_FIRST_ROWS, np.int64)
        self._control = np.zeros(at.CONTROLS, np.int64)
        self._put(at.IDS_NS, self._ids_ns)
        self._put(at.BLOCKS, blocks)
        self._put(at.PRESSES_BACK, at_capacity == "press back")
        self._put(at.RINGS_AT, self._rings.ctypes.data)
        self._put(at.DROPPED_AT, self._dropped.ctypes.data)
        self._put(at.IN_THE_WAY, -1)
        self._address = int(self._control.ctypes.data)

    @classmethod
    def of(cls, ordering: Ordering) -> Deduplicator:
        """With the ``ids``, ``ids_s`` and ``at_capacity`` of an ``Ordering``."""
        return cls(ids=ordering.ids, ids_s=ordering.ids_s, at_capacity=ordering.at_capacity)

    def process(self, batch: EventBatch, now_ns: int | None = None) -> Deduplicated:
        """Take a batch's rows in the order of arrival, and drop those that were processed before.

        Time is ``now_ns`` for all of them, or else each row's ``received``; made never to fall. Raises ValidationError
        for a ``now_ns`` that is no integer of 0 to 2**63 - 1. About 0.6 µs a call, and 1 ns a row; where some but not
        all rows are dropped, those that stay are copied (about 6 ns each).
        """
        records = batch.records
        length, session = len(records), batch.session_number
        now = -1 if now_ns is None else _checked(now_ns)
        if not session:
            self._put(at.PROCESSED, self._get(at.PROCESSED) + length)
            self._put(at.UNIDENTIFIED, self._get(at.UNIDENTIFIED) + length)
            return Deduplicated(batch, length, 0)
        if length > len(self._dropped):
            self._dropped = np.zeros(1 << (length - 1).bit_length(), np.int64)
            self._put(at.DROPPED_AT, self._dropped.ctypes.data)
        rows_at = id(records) + ADDRESS_OFFSET
        taken = at.deduplicate(self._address, rows_at, records.strides[0], length, now, session)
        if taken >= 0:
            return Deduplicated(batch if taken == length else batch[:taken], taken, 0)
        return self._without_dropped(batch, ~taken)

    def take_back(self, batch: EventBatch) -> None:
        """Forget that these rows were processed, because nobody took them: the last ones that came out, in order."""
        records = batch.records
        at.take_back(
            self._address, records.ctypes.data, records.strides[0] if len(records) else 0, len(records),
            batch.session_number,
        )  # fmt: skip

    def clear(self) -> None:
        """Forget all ids: what was read ahead of a jump comes again, and is new then. Counts as their expiry."""
        self._rings[:] = 0

    def _without_dropped(self, batch: EventBatch, taken: int) -> Deduplicated:
        dropped = self._get(at.DROPPED)
        if dropped == taken:
            return Deduplicated(batch[:0], taken, dropped)
        stays = np.ones(taken, np.bool_)
        stays[self._dropped[:dropped]] = False
        rows = take_rows(batch.records[:taken], stays)
        rest = EventBatch(rows, batch.symbols, batch.sources, session_number=batch.session_number)
        return Deduplicated(rest, taken, dropped)

    @property
    def due_ns(self) -> int | None:
        """When the first row that the last call did not take will be; None if it took all."""
        in_the_way = self._get(at.IN_THE_WAY)
        return None if in_the_way < 0 else in_the_way + self._ids_ns + 1

    def statistics(self) -> DedupStatistics:
        """What became of all rows so far. About 50 µs for the default capacity, 5 ns a block of 1,024 ids."""
        counted = {
            name.lower(): self._get(getattr(at, name))
            for name in ("PROCESSED", "REDELIVERED", "UNIDENTIFIED", "BEYOND", "FORGOTTEN")
        }
        remembered = self._remembered()
        settled = counted["unidentified"] + counted["beyond"] + counted["forgotten"] + remembered
        return DedupStatistics(
            **counted, expired=counted["processed"] - settled, remembered=remembered, capacity=self.ids
        )

    def _remembered(self) -> int:
        """How many ids are in memory that are not too old."""
        used = self._rings[self._rings[:, at.RING_SESSION // _WORD_BYTES] != 0, at.RING_WORDS :]
        blocks = used.reshape(-1, at.BLOCK_WORDS)
        young = self._get(at.CLOCK) - blocks[:, at.BLOCK_LATEST // _WORD_BYTES] <= self._ids_ns
        return int(blocks[young, at.BLOCK_COUNT // _WORD_BYTES].sum())

    def _get(self, offset: int) -> int:
        return int(self._control[offset // _WORD_BYTES])

    def _put(self, offset: int, value: int) -> None:
        self._control[offset // _WORD_BYTES] = value

    def __repr__(self) -> str:
        return f"Deduplicator({self.statistics()}; {self.ids:,} ids, {self.ids_s:,g} s)"


def _checked(now_ns: int) -> int:
    try:
        moment = operator.index(now_ns)
    except TypeError:
        moment = -1
    if not 0 <= moment < 1 << 63:
        raise ValidationError(f"now_ns is an integer of 0 to 2**63 - 1, in ns since 1970; got {shown(now_ns)}")
    return moment
