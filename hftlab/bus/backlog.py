"""The backlog: the queues of all types, and the total order of their rows across them.

The order is one byte a row, its type, in a ring of its own: runs and interleavings of types cost the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hftlab.bus.queues import TypeQueue
from hftlab.events.records import RECORD, EventType, Rows, of_type
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.events.types import Event

# A run of this many rows of one type is a chunk of its own; shorter ones are gathered, because a chunk costs 15 µs.
_LONG_RUN = 128


class Part(NamedTuple):
    """The rows of one type in a chunk. ``positions`` are their places in it (None: the chunk has just this part)."""

    event_type: EventType
    rows: Rows
    positions: npt.NDArray[np.intp] | None
    session_number: int


class Backlog:
    """What was published and not dispatched. ``waiting`` counts it."""

    def __init__(self, capacity: Mapping[EventType, int]) -> None:
        self.queues = {event_type: TypeQueue(event_type, capacity[event_type]) for event_type in EventType}
        self.waiting = 0
        size = 1 << (sum(queue.capacity for queue in self.queues.values()) - 1).bit_length()
        self._order = bytearray(size)  # the types, from ``_head`` on
        self._mask = size - 1
        self._head = 0
        self._sessions: deque[list[int]] = deque()  # [rows, session number]
        self._pushed = 0
        self._notices: deque[tuple[int, object]] = deque()  # each with the rows that were pushed before it

    @property
    def free(self) -> int:
        """How many rows have room, at most, in all queues together."""
        return sum(queue.free for queue in self.queues.values())

    # -- coming in ------------------------------------------------------------------------------------------------

    def push(self, records: Rows, session_number: int) -> int:
        """Copy in contiguous rows, of one type or several, up to the first that has no room; returns how many."""
        if records.dtype != RECORD:
            event_type = EventType(int(records["type"][0]))
            taken = self.queues[event_type].push(records)
            self._append(bytes((event_type,)) * taken, session_number)
            return taken
        types: npt.NDArray[np.uint8] = np.ascontiguousarray(records["type"])
        fits = self._fitting(types)
        records, types = records[:fits], types[:fits]
        for event_type in EventType:
            if (types == event_type).any():
                self.queues[event_type].push(np.ascontiguousarray(of_type(records, event_type)))
        self._append(types.tobytes(), session_number)
        return fits

    def push_event(
        self, event: Event, now_ns: int, session_number: int, symbols: SymbolTable, sources: SourceTable
    ) -> bool:
        """Write one event; False without room."""
        event_type = event.event_type
        if not self.queues[event_type].push_event(event, now_ns, symbols, sources):
            return False
        self._append(bytes((event_type,)), session_number)
        return True

    def room_for(self, records: Rows) -> int:
        """How many of these rows, from the first on, have room."""
        if records.dtype == RECORD:
            return self._fitting(np.ascontiguousarray(records["type"]))
        return min(len(records), self.queues[EventType(int(records["type"][0]))].free) if len(records) else 0

    def _fitting(self, types: npt.NDArray[np.uint8]) -> int:
        fits = len(types)
        for event_type, queue in self.queues.items():
            places = np.flatnonzero(types == event_type)
            if queue.free < len(places):
                fits = min(fits, int(places[queue.free]))
        return fits

    def _append(self, types: bytes, session_number: int) -> None:
        count = len(types)
        if not count:
            return
        self._pushed += count
        begin = (self._head + self.waiting) & self._mask
        first = min(count, len(self._order) - begin)
        self._order[begin : begin + first] = types[:first]
        self._order[: count - first] = types[first:]
        self.waiting += count
        last = self._sessions[-1] if self._sessions else None
        if last is not None and last[1] == session_number:
            last[0] += count
        else:
            self._sessions.append([count, session_number])

    # -- going out ------------------------------------------------------------------------------------------------

    @property
    def session_number(self) -> int:
        """The session that the next row belongs to; there must be one."""
        return self._sessions[0][1]

    def next_parts(self, max_rows: int) -> tuple[list[Part], int]:
        """The next rows in total order, as parts by type, and how many: up to a window's, session's or ring's end.

        A batch that fills is due before the next row of whatever type, so no chunk goes on behind it.
        """
        session_rows, session_number = self._sessions[0]
        if self._notices:
            max_rows = min(max_rows, self._notices[0][0] - (self._pushed - self.waiting))
        order = self._next_types(min(max_rows, session_rows))
        # Bytes compare in 0.1 µs, while lstrip looks at each in turn.
        run = len(order) if order == order[:1] * len(order) else len(order) - len(order.lstrip(order[:1]))
        if run == len(order) or run >= _LONG_RUN:
            event_type = EventType(order[0])
            queue = self.queues[event_type]
            rows = queue.peek(min(run, queue.room))
            return [Part(event_type, rows, None, session_number)], len(rows)
        types = np.frombuffer(order, np.uint8)
        places = {event_type: np.flatnonzero(types == event_type) for event_type in map(EventType, sorted(set(order)))}
        total = len(order)
        views = {}
        for event_type, positions in places.items():
            queue = self.queues[event_type]
            views[event_type] = rows = queue.peek(len(positions))
            if len(rows) < len(positions):  # the ring's end
                total = min(total, int(positions[len(rows)]))
            if queue.room <= len(positions):
                total = min(total, int(positions[queue.room - 1]) + 1)
        parts = []
        for event_type, positions in places.items():
            count = int(np.searchsorted(positions, total))
            if count:
                parts.append(Part(event_type, views[event_type][:count], positions[:count], session_number))
        if len(parts) == 1:
            parts = [parts[0]._replace(positions=None)]
        return parts, total

    # -- notices --------------------------------------------------------------------------------------------------

    def tell(self, notice: object) -> None:
        """Queue a notice behind all rows that wait now."""
        self._notices.append((self._pushed, notice))

    @property
    def has_notices(self) -> bool:
        """Whether a notice waits, for its turn or for rows before it."""
        return bool(self._notices)

    def next_notice(self) -> object | None:
        """Take the notice whose turn it is: all rows before it were dispatched. None: a row is next, or nothing."""
        if not self._notices or self._notices[0][0] > self._pushed - self.waiting:
            return None
        return self._notices.popleft()[1]

    def _next_types(self, count: int) -> bytes:
        begin = self._head & self._mask
        first = bytes(self._order[begin : begin + count])
        return first if len(first) == count else first + bytes(self._order[: count - len(first)])

    def dispatched(self, parts: Sequence[Part], done: int) -> None:
        """Say that the first ``done`` rows of these parts have been through the event handlers."""
        for part in parts:
            count = done if part.positions is None else int(np.searchsorted(part.positions, done))
            self.queues[part.event_type].dispatched(count)
        self._head += done
        self.waiting -= done
        if done:
            session = self._sessions[0]
            session[0] -= done
            if not session[0]:
                self._sessions.popleft()

    def withdraw(self, kept: int) -> int:
        """Take back all rows but the first ``kept``; returns how many."""
        count = self.waiting - kept
        if count <= 0:
            return 0
        self._head += kept
        types = self._next_types(count)
        self._head -= kept
        for event_type, queue in self.queues.items():
            withdrawn = types.count(event_type)
            if withdrawn:
                queue.withdraw(withdrawn)
        self.waiting = left = kept
        self._pushed -= count
        self._notices = deque((min(pushed, self._pushed), notice) for pushed, notice in self._notices)
        sessions, self._sessions = self._sessions, deque()
        for rows, number in sessions:
            if left:
                self._sessions.append([min(rows, left), number])
                left -= min(rows, left)
        return count

    def clear(self) -> int:
        """Forget everything; returns how many rows had not been dispatched."""
        dropped, self.waiting = self.waiting, 0
        for queue in self.queues.values():
            queue.clear()
        self._sessions.clear()
        self._notices.clear()
        self._head = 0
        return dropped
