"""``Sequencer``: rows go in as they arrived and come out in the order of their numbers, with the gaps told in line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hftlab.events.batch import EventBatch
from hftlab.events.records import DTYPES, RECORD, EventType, Rows
from hftlab.events.rowbytes import copy_rows, data_address
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.sequence import layout as at
from hftlab.sequence.aside import SetAside
from hftlab.sequence.gaps import GAP, GapTable
from hftlab.sequence.kernels.rows import decide, forget, gather, sequence
from hftlab.sequence.memory import StageMemory, held_log_sequences, recall, remembered
from hftlab.sequence.ordering import Ordering
from hftlab.sequence.rules import find
from hftlab.sequence.statistics import OrderStatistics
from hftlab.sequence.tables import KEPT_GAPS, Tables

PIECE_ROWS = 4_096
"""How many rows a kernel takes at once: what it writes beside them stays in the cache."""

NOTICE = np.dtype([("position", "<i8"), *((name, "<i8") for name in GAP.names or ())])
"""What happened to a gap: the fields of ``GAP`` as of then, and how many rows were delivered before."""


NO_NOTICES = np.zeros(0, NOTICE)
_NO_TIMES = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Sequenced:
    """What came out. ``taken``: how many input rows were taken (fewer: a strict window is full).

    ``batch`` has the rows to deliver, in order: the input itself where nothing was out of order. ``released_ns``:
    int64, when each was released; never falling; worked out when asked for. ``notices``: of dtype ``NOTICE``.
    """

    batch: EventBatch
    taken: int
    notices: npt.NDArray[np.void]
    _started_ns: int
    _arrivals: npt.NDArray[np.int64]
    _releases: npt.NDArray[np.int64]

    @property
    def changed(self) -> bool:
        """Whether ``batch`` is more, or other, than the first rows of what was given."""
        return len(self._releases) > 0

    @property
    def released_ns(self) -> npt.NDArray[np.int64]:
        """When each row of ``batch`` was released: int64, never falling."""
        risen: npt.NDArray[np.int64] = np.maximum(np.maximum.accumulate(self._arrivals), self._started_ns)
        return np.concatenate([risen, self._releases]) if len(self._releases) else risen


class Sequencer:
    """Proves order: see ``kernels`` for the words, ``Ordering`` for what can be decided, ``rules`` for numbers.

    For rows under ``symbols`` and ``sources`` (others are translated). State for each source is made when it first
    appears: 4 KiB, most of it to remember content. Batches may be cut anywhere: the output is the same. One thread.
    """

    def __init__(
        self, ordering: Ordering | None = None, symbols: SymbolTable | None = None, sources: SourceTable | None = None
    ) -> None:
        self.ordering = ordering or Ordering()
        self.symbols = SymbolTable() if symbols is None else symbols
        self.sources = SourceTable() if sources is None else sources
        self._tables = Tables(self.ordering, self.sources)
        self._version = 0
        self._forgotten = 0
        self._wanted: list[int | None] = []
        self._session_number = 0
        self._mixed = False
        self._started_ns = 0  # the clock when the last call began
        self.gaps = GapTable(
            self.sources,
            self._read_gaps,
            lambda: self._tables.counts,
            lambda: self._version,
            self._wanted.append,
            SetAside(self.symbols, self.sources),
            lambda: self._forgotten,
        )

    # -- working ------------------------------------------------------------------------------------------------------

    def process(
        self, batch: EventBatch, *, now_ns: int | None = None, moments: npt.NDArray[np.int64] | None = None
    ) -> Sequenced:
        """Take a batch's rows in the order of arrival.

        Time is ``now_ns`` for all of them; or ``moments``, int64 that never fall, for each; or else each row's
        ``received`` (made never to fall). Raises ValidationError for a source whose rule nobody registered.
        """
        batch = batch.using(self.symbols, self.sources)
        self.check_rules(batch)
        if len(batch) <= PIECE_ROWS:
            return self.take(batch, now_ns, moments) or self._passed(batch, now_ns, moments)
        parts = []
        for begin in range(0, len(batch), PIECE_ROWS):
            piece = batch[begin : begin + PIECE_ROWS]
            times = None if moments is None else moments[begin : begin + PIECE_ROWS]
            parts.append(self.take(piece, now_ns, times) or self._passed(piece, now_ns, times))
            if parts[-1].taken < len(piece):
                break
        return _joined(batch, parts)

    def advance(self, now_ns: int) -> Sequenced:
        """Let time pass: declare lost what is past its deadline, and what ``gaps.give_up`` named."""
        return self._decide([(at.EXPIRE, -1)], now_ns)

    def finish(self) -> Sequenced:
        """End the session: what is open is lost, what is held comes out."""
        return self._decide([(at.FINISH, -1)], 0)

    def skip(self) -> Sequenced:
        """Begin anew elsewhere: what is open is lost (SKIPPED), held messages come out, any number may come next."""
        skipped = self._decide([(at.SKIP, -1)], 0)
        # Time too: it had come to the last row that was read, which may be beyond the next one.
        self._tables.facts[at.CLOCK] = 0
        return skipped

    def strict_room(self, batch: EventBatch) -> int | None:
        """How many messages are sure not to find a strict window full; None: the batch has nothing of a strict type."""
        if not self._may_be_strict(batch):
            return None
        return max(self.ordering.window - self._tables.facts[at.STRICT_HELD], 0)

    def _may_be_strict(self, batch: EventBatch) -> bool:
        types = self.ordering.strict
        if batch.type in types or (batch.type is None and bool(np.isin(batch.records["type"], list(types)).any())):
            return True
        # A source is of its first message's type, whatever else it sends.
        if not self._tables.facts[at.STRICT_SOURCES]:
            return False
        state = self._tables.state
        known = batch.records["source"][batch.records["source"] < len(state.sources)]
        return bool(state.sources[known, at.STRICT].any())

    @property
    def wants_work(self) -> bool:
        """Whether ``gaps.give_up`` was called since the last call."""
        return bool(self._wanted)

    @property
    def clock_ns(self) -> int:
        """The time that has been reached, in ns UTC."""
        return self._tables.facts[at.CLOCK]

    def check_rules(self, batch: EventBatch) -> None:
        """Raise ValidationError for a row whose source numbers by a rule that nobody registered."""
        self._tables.learn_sources()
        for number, source in list(self._tables.unruled.items()):
            if (batch.records["source"] == number).any():
                find(source)

    @property
    def due_ns(self) -> int | None:
        """The next moment at which time alone changes something; None without one."""
        facts = self._tables.facts
        due = min(facts[at.NEXT_DUE], facts[at.NEXT_CAUSE_DUE])
        return None if due == at.FOREVER else due

    def take(
        self, batch: EventBatch, now_ns: int | None, moments: npt.NDArray[np.int64] | None = None
    ) -> Sequenced | None:
        """As ``process``, for up to 4,096 rows under this sequencer's tables; None where all of them go on as they are.

        About 2 µs a call, and 3 to 8 ns a row.
        """
        if self._wanted:
            decided = self._decide([], 0)
            if len(decided.batch) or len(decided.notices):
                rest = self.take(batch, now_ns, moments) or self._passed(batch, now_ns, moments)
                return _joined(batch, [decided, rest])
        tables, facts = self._tables, self._tables.facts
        if batch.session_number != self._session_number:
            self._note_session(batch)
        if facts[at.GAPS_USED] - facts[at.FREE_GAPS] >= KEPT_GAPS:
            self._forget()
        length = len(batch)
        tables.make_room(length)
        records = batch.records if batch.records.flags.c_contiguous else copy_rows(batch.records)
        self._started_ns = started_ns = facts[at.CLOCK]
        numbers = self._own_numbers(records) if tables.own_rules else None
        moments = None if moments is None else np.ascontiguousarray(moments, np.int64)
        taken = sequence(
            tables.address,
            data_address(records),
            length,
            0 if moments is None else moments.ctypes.data,
            0 if numbers is None else numbers.ctypes.data,
            -1 if now_ns is None else now_ns,
            batch.session_number,
        )
        prefix = facts[at.PREFIX]
        if prefix == length and facts[at.OUT] == length and not facts[at.NOTICES]:
            self._version += facts[at.HELD_ROWS] > 0
            return None
        times = records["received"][:prefix] if moments is None else moments[:prefix]
        if now_ns is not None:
            times = np.broadcast_to(np.int64(now_ns), prefix)
        return self._collect(batch, _words(records), taken, started_ns, times)

    def _passed(self, batch: EventBatch, now_ns: int | None, moments: npt.NDArray[np.int64] | None) -> Sequenced:
        """What came out where all rows went on as they are."""
        times = batch.records["received"] if moments is None else moments
        if now_ns is not None:
            times = np.broadcast_to(np.int64(now_ns), len(batch))
        return Sequenced(batch, len(batch), NO_NOTICES, self._started_ns, times, _NO_TIMES)

    def _decide(self, what: list[tuple[int, int]], now_ns: int) -> Sequenced:
        empty = EventBatch(np.zeros(0, RECORD), self.symbols, self.sources, session_number=self._session_number)
        wanted, self._wanted[:] = list(self._wanted), []
        results = []
        for order, source in [(at.GIVE_UP, -1 if source is None else source) for source in wanted] + what:
            self._tables.make_room(0)
            decide(self._tables.address, order, source, now_ns, self._session_number)
            results.append(self._collect(empty, self._tables.state.store, 0, 0, np.zeros(0, np.int64)))
        return results[0] if len(results) == 1 else _joined(empty, results)

    def _collect(
        self, batch: EventBatch, words: at.Table, taken: int, started_ns: int, times: npt.NDArray[np.int64]
    ) -> Sequenced:
        state, control = self._tables.state, self._tables.state.control
        count, prefix = int(control[at.OUT]), int(control[at.PREFIX])
        if control[at.ASIDE]:
            self._keep_aside(batch, words, state.aside[: control[at.ASIDE]])
        notices = (
            state.notices[: control[at.NOTICES]].copy().view(NOTICE).reshape(-1) if control[at.NOTICES] else NO_NOTICES
        )
        if len(notices) or control[at.HELD_ROWS] or count != len(batch):
            self._version += 1
        if count == prefix:
            delivered = batch if count == len(batch) else batch[:count]
            return Sequenced(delivered, taken, notices, started_ns, times, _NO_TIMES)
        rows = np.empty((count, at.WORDS), np.int64)
        event_type = gather(self._tables.address, words.ctypes.data, rows.ctypes.data)
        records = rows.view(DTYPES[EventType(event_type)] if event_type else RECORD).reshape(-1)
        session_number = 0 if self._mixed else batch.session_number
        self._mixed &= bool(control[at.HELD_ROWS])
        return Sequenced(
            EventBatch(records, self.symbols, self.sources, session_number=session_number),
            taken,
            notices,
            started_ns,
            times,
            state.order[prefix:count, at.O_TIME].copy(),
        )

    def _keep_aside(self, batch: EventBatch, words: at.Table, aside: at.Table) -> None:
        places, reasons = aside[:, at.A_ROW], aside[:, at.A_REASON].copy()
        rows = np.empty((len(aside), at.WORDS), np.int64)
        held = places < 0
        rows[held] = self._tables.state.store[~places[held]]
        rows[~held] = words[places[~held]]
        self.gaps.set_aside.add(rows.view(RECORD).reshape(-1), reasons, 0 if self._mixed else batch.session_number)

    def _note_session(self, batch: EventBatch) -> None:
        # What is held was recorded elsewhere: better no event id than a wrong one.
        self._mixed |= self._tables.facts[at.HELD_ROWS] > 0
        self._session_number = batch.session_number

    def _own_numbers(self, records: Rows) -> at.Table:
        numbers = np.empty((len(records), 2), np.int64)
        numbers[:, 1] = records["sequence"]
        numbers[:, 0] = numbers[:, 1]
        for source in np.unique(records["source"]).tolist():
            where = np.flatnonzero(records["source"] == source)
            rule = self._tables.own_rules.get(source)
            if rule is not None:
                numbers[where, 0], numbers[where, 1] = rule.cover(records.view(RECORD)[where])
            elif self._tables.state.sources[source, at.SPANS]:
                numbers[where, 0] -= records["span"][where].astype(np.int64) - 1
            if self._tables.state.sources[source, at.RULE] == at.DENSE:
                # What covers no number says, by any rule, that there are numbers up to its own.
                telling = where[records["span"][where] == 0]
                numbers[telling, 0] = numbers[telling, 1] + 1
        return numbers

    # -- gone on with elsewhere ---------------------------------------------------------------------------------------

    def memory(self) -> StageMemory:
        """Where each source stands, for ``recall``. About 1 µs a source."""
        return remembered(self._tables)

    def recall(self, memory: StageMemory) -> None:
        """Go on where another sequencer stood; for one that has taken nothing yet."""
        recall(self._tables, memory)

    @property
    def held_log_sequences(self) -> npt.NDArray[np.int64]:
        """Of the rows that are held, in any order: int64."""
        control, state = self._tables.state.control, self._tables.state
        if not control[at.HELD_ROWS]:
            return _NO_TIMES
        lists = (int(control[at.FREE_ROW]), int(control[at.RETIRED_ROW]))
        return held_log_sequences(state.store, int(control[at.ROWS_USED]), state.links, lists)

    # -- looked at ----------------------------------------------------------------------------------------------------

    def statistics(self) -> OrderStatistics:
        """What became of all messages and rows so far."""
        return OrderStatistics.of(self._tables, self._forgotten)

    def _read_gaps(self) -> npt.NDArray[np.void]:
        gaps = self._tables.used_gaps
        known = gaps[gaps[:, at.G_SERIAL] >= 0, : at.G_AFTER + 1]
        known = known[np.lexsort((known[:, at.G_FIRST], known[:, at.G_SERIAL]))]
        return np.ascontiguousarray(known).view(GAP).reshape(-1)

    def _forget(self) -> None:
        """Keep the table of gaps within its bounds: half of the closed ones go, the oldest first."""
        gaps = self._tables.used_gaps
        closed = np.flatnonzero((gaps[:, at.G_SERIAL] >= 0) & (gaps[:, at.G_STATE] != at.IS_OPEN))
        oldest = closed[np.argsort(gaps[closed, at.G_SERIAL], kind="stable")][: len(closed) // 2]
        forget(self._tables.address, oldest.ctypes.data, len(oldest))
        self._forgotten += len(oldest)

    def __repr__(self) -> str:
        return f"Sequencer({self.statistics()}; {self.gaps!r})"


def _words(records: Rows) -> at.Table:
    """Rows as int64, 16 a row, contiguous."""
    if not records.flags.c_contiguous:
        records = copy_rows(records)
    return records.view(np.int64, np.ndarray).reshape(len(records), at.WORDS)


def _joined(batch: EventBatch, parts: list[Sequenced]) -> Sequenced:
    if not parts:
        return Sequenced(batch[:0], 0, NO_NOTICES, 0, _NO_TIMES, _NO_TIMES)
    filled = [part.batch for part in parts if len(part.batch)]
    before = 0
    notices = []
    for part in parts:
        shifted = part.notices.copy()
        shifted["position"] += before
        notices.append(shifted)
        before += len(part.batch)
    untouched = before == len(batch) and all(part.batch.records.base is batch.records.base for part in parts)
    merged = batch if untouched and before else together(filled) if len(filled) > 1 else parts[0].batch
    if len(filled) == 1:
        merged = filled[0]
    return Sequenced(
        merged,
        sum(part.taken for part in parts),
        np.concatenate(notices),
        0,
        _NO_TIMES,
        np.concatenate([part.released_ns for part in parts]),
    )


def together(batches: list[EventBatch]) -> EventBatch:
    """One batch out of several; of several sessions, it is of none: better no event id than a wrong one."""
    if len({batch.session_number for batch in batches}) > 1:
        batches = [EventBatch(batch.records, batch.symbols, batch.sources) for batch in batches]
    return EventBatch.concat(batches)
