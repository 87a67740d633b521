"""What one member has received of one stream, and what of that its group has handled: no I/O.

An entry holds up to 65,536 rows, and acknowledging takes whole entries. So a member remembers the log sequences of the
rows of every entry that it was given, until a commit covers all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from hftlab.events import EventBatch, EventType, SourceTable, SymbolTable
from hftlab.events.group_ports import Checkpoint, GroupPage, Letter
from hftlab.events.rowbytes import concat_rows
from hftlab.events.rules import MAX_TIME_NS
from hftlab.streams.bridge import TableBridge
from hftlab.streams.keys import LOG_FIELD
from hftlab.streams.stored import Bounds, Entry, Page, StreamReader, appended_ns, declared_rows

Logs = npt.NDArray[np.int64]

_EVERYTHING = Bounds(0, MAX_TIME_NS + 1, 0, 1 << 62)
_NO_LOGS: Logs = np.zeros(0, np.int64)
# A page of entries that hold fewer rows than this each is made into one batch.
_SMALL_ROWS = 64
_MOST_ENTRIES = 4_096
_PAGE_BYTES = 4 << 20


class _Given(NamedTuple):
    """An entry that was given: its id, where it stands, and its rows (none: it is damaged, or gone)."""

    entry_id: bytes
    log: int
    logs: Logs


class Received(NamedTuple):
    """One reply of the server: entries, whether they had been pending, and how the session stood."""

    entries: list[Entry]
    pending: bool
    delivered: bytes
    events: int
    successor: str
    trimmed: int


class GroupStream:
    """One stream as its group's active member sees it, from taking the group on."""

    def __init__(
        self,
        stream: str,
        event_type: EventType,
        session_number: int,
        checkpoint: Checkpoint,
        delivered: bytes,
        tables: tuple[SymbolTable, SourceTable],
        now_ns: Callable[[], int],
    ) -> None:
        self.key = stream
        self.event_type = event_type
        # Tables of its own: streams are decoded side by side, some of them in the loop's thread.
        self._bridge = TableBridge(*tables)
        self._reader = StreamReader(
            stream, event_type, session_number, self._bridge.symbols, self._bridge.sources, _EVERYTHING, "skip"
        )
        self._number = session_number
        self._now_ns = now_ns
        self._from = checkpoint.log_sequence
        self._held = np.array(checkpoint.held, np.int64)
        self._before = order_of(delivered)
        self._waiting: deque[Entry] = deque()
        self._given: list[_Given] = []
        self._complete = False
        self._entry_rows, self._entry_bytes, self._count = 1, 1, 0
        self.lock = asyncio.Lock()
        self.decoding: tuple[list[Entry], asyncio.Future[list[Page]]] | None = None
        self.after = b"0-0"
        """The id of the last entry that was received."""
        self.reached = 0
        self.events = 0
        self.successor = ""
        self.trimmed = 0
        self.touched = ""

    # -- receiving ----------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether entries were received that have not been given."""
        return bool(self._waiting) or self.decoding is not None

    def count(self, rows: int) -> int:
        """How many entries to ask for to get about so many rows, by what came before; begins with one."""
        fitting = min(rows // self._entry_rows, _PAGE_BYTES // self._entry_bytes)
        return max(1, min(fitting, _MOST_ENTRIES, self._count * 8))

    def receive(self, reply: Received, count: int) -> None:
        """Take a reply in. Where fewer entries came than were asked for, the stream is known to its end."""
        entries = reply.entries
        self.events, self.successor, self.trimmed = reply.events, reply.successor, reply.trimmed
        self._count = count
        self._complete = not reply.pending and len(entries) < count
        self._waiting.extend(entries)
        self.after = entries[-1][0] if entries else reply.delivered
        if entries:
            rows = sum(declared_rows(fields) for _, fields in entries)
            size = sum(len(fields[-1]) for _, fields in entries if fields)
            self._entry_rows = max(1, rows // len(entries))
            self._entry_bytes = max(1, size // len(entries))

    def take(self, rows: int) -> list[Entry]:
        """The next entries to be decoded: at most so many rows, or one entry."""
        taken: list[Entry] = []
        total = 0
        while self._waiting:
            total += declared_rows(self._waiting[0][1])
            if taken and total > rows:
                break
            taken.append(self._waiting.popleft())
        return taken

    def decode(self, entries: Sequence[Entry]) -> list[Page]:
        """What the entries hold, one by one; may be called in another thread, once at a time."""
        return [self._reader.read((entry,)) for entry in entries]

    def page(self, entries: Sequence[Entry], pages: Sequence[Page]) -> GroupPage:
        """What the processor is given: the rows that the group has not handled."""
        batches: list[EventBatch] = []
        damaged: list[Letter] = []
        appended: list[tuple[int, int]] = []
        redelivered = 0
        for (entry_id, fields), page in zip(entries, pages, strict=True):
            log = self._log_of(entry_id, fields)
            logs = _NO_LOGS
            if page.batches:
                batch = self._bridge.across(page.batches[0])
                logs = batch.records["log_sequence"].copy()
                batch = self._unhandled(batch, logs)
                if len(batch):
                    batches.append(batch)
                    appended.append((len(batch), appended_ns(fields)))
                    redelivered += len(batch) if order_of(entry_id) <= self._before else 0
            elif page.damaged and fields is not None:
                damaged.append(self._letter(entry_id, fields, str(page.damaged[0])))
            last = int(logs[-1]) if len(logs) else log
            self.reached = max(self.reached, last + 1)
            self._given.append(_Given(entry_id, max(log, 0), logs))
        if self._complete and not self._waiting:
            self.reached = max(self.reached, self.events)
        return GroupPage(
            tuple(_merged(batches)),
            self.reached,
            self.events,
            len(entries),
            tuple(damaged),
            self.successor,
            redelivered,
            self.trimmed,
            tuple(appended),
        )

    def _log_of(self, entry_id: bytes, fields: list[bytes] | None) -> int:
        """Where an entry stands by its id; -1 for somebody else's, whose ids say nothing."""
        log = entry_id.partition(b"-")[2]
        if fields is None or (len(fields) >= 2 and fields[0] == LOG_FIELD and fields[1] == log):
            return int(log)
        return -1

    def _unhandled(self, batch: EventBatch, logs: Logs) -> EventBatch:
        if int(logs[0]) >= self._from:
            return batch
        wanted = logs >= self._from
        if len(self._held):
            wanted |= np.isin(logs, self._held)
        return batch.where(wanted)

    def _letter(self, entry_id: bytes, fields: list[bytes], error: str) -> Letter:
        now_ns = self._now_ns()
        return Letter(
            handler="",
            error=error,
            attempts=1,
            first_ns=now_ns,
            at_ns=now_ns,
            log_sequence=self._log_of(entry_id, fields),
            session_number=self._number,
            events=declared_rows(fields),
            event_type=self.event_type.topic,
            frame=msgspec.msgpack.encode([entry_id, *fields]),
        )

    # -- handled ------------------------------------------------------------------------------------------------------

    def covered(self, log_sequence: int, held: Logs) -> list[bytes]:
        """The ids of the entries that a commit covers wholly: every row is below its position, and none is held."""
        found: list[bytes] = []
        for entry in self._given:
            if entry.log >= log_sequence:
                break
            logs = entry.logs
            if len(logs) and int(logs[-1]) >= log_sequence:
                self.touched = f"{entry.entry_id.decode()}/{_handled(logs, log_sequence, held)}"
                break
            handled = _handled(logs, log_sequence, held)
            if len(logs):
                self.touched = f"{entry.entry_id.decode()}/{handled}"
            if handled == len(logs):
                found.append(entry.entry_id)
        return found

    def acknowledged(self, entry_ids: Sequence[bytes]) -> None:
        """Forget entries that the server knows to be handled."""
        done = set(entry_ids)
        self._given = [entry for entry in self._given if entry.entry_id not in done]


def order_of(entry_id: bytes) -> tuple[int, int]:
    """An entry's id as two numbers, which compare as ids do."""
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence or 0)


def _handled(logs: Logs, log_sequence: int, held: Logs) -> int:
    """How many rows of an entry lie below a position and are not held."""
    below = int(np.searchsorted(logs, log_sequence))
    if not below or not len(held):
        return below
    low, high = np.searchsorted(held, (logs[0], logs[below - 1] + 1))
    # Rows of other types lie between: only those held that are this entry's count.
    return below - int(np.isin(held[low:high], logs[:below]).sum())


def _merged(batches: list[EventBatch]) -> list[EventBatch]:
    if len(batches) < 2 or sum(map(len, batches)) >= _SMALL_ROWS * len(batches):
        return batches
    first = batches[0]
    rows = concat_rows([batch.records for batch in batches], first.records.dtype)
    return [EventBatch(rows, first.symbols, first.sources, session_number=first.session_number)]
