"""The backlog: the queues of all types, and the total order of their rows across them.

The order is one byte a row, its type, in a ring of its own: runs and interleavings of types cost the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hftlab.bus.queues import TypeQueue
from hftlab.bus.spans import Spans
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


class Mark:
    """A place in a backlog: how many rows have to be ``passed`` (dispatched, or removed before it) to reach it."""

    __slots__ = ("at", "notice")

    def __init__(self, at: int, notice: object = None) -> None:
        self.at = at
        self.notice = notice


class Backlog:
    """What was published and not dispatched. ``waiting`` counts it, ``passed`` what was dispatched.

    ``taken``: rows at the front that a chunk shows, which can't be removed. ``now_ns`` stamps what comes in, for
    ``waits``, the rows by when they came.
    """

    def __init__(self, capacity: Mapping[EventType, int]) -> None:
        self.queues = {event_type: TypeQueue(event_type, capacity[event_type]) for event_type in EventType}
        self.waiting = self.passed = self.taken = 0
        self.now_ns = 0
        self.waits = Spans()
        size = 1 << (sum(queue.capacity for queue in self.queues.values()) - 1).bit_length()
        self._order = bytearray(size)  # the types, from ``_head`` on
        self._mask = size - 1
        self._head = 0
        self._sessions = Spans()
        self._notices: deque[Mark] = deque()
        self._barriers: deque[tuple[Mark, Backlog, Mark]] = deque()
        # How many rows of the chunk in progress are done; its Dispatcher says so.
        self.done_in_chunk: Callable[[], int] = lambda: 0
        self._watched: list[Mark] = []
        self._watched_most = 64  # how many before those that were reached are forgotten

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
        self._write_types(self._head + self.waiting, types)
        self.waiting += count
        self._sessions.append(count, session_number)
        self.waits.append(count, self.now_ns)

    # -- going out ------------------------------------------------------------------------------------------------

    @property
    def session_number(self) -> int:
        """The session that the next row belongs to; there must be one."""
        return self._sessions.first[1]

    @property
    def next_type(self) -> int:
        """The type of the next row; there must be one."""
        return self._order[self._head & self._mask]

    def next_parts(self, max_rows: int) -> tuple[list[Part], int]:
        """The next rows in total order, as parts by type, and how many: up to a window's, session's or ring's end.

        A batch that fills is due before the next row of whatever type, so no chunk goes on behind it.
        """
        session_rows, session_number = self._sessions.first
        if self._notices:
            max_rows = min(max_rows, self._notices[0].at - self.passed)
        if self._barriers and self.blocked_by is None and self._barriers:
            max_rows = min(max_rows, self._barriers[0][0].at - self.passed)
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

    # -- notices and marks ----------------------------------------------------------------------------------------

    def tell(self, notice: object) -> None:
        """Queue a notice behind all rows that wait now."""
        self._notices.append(Mark(self.passed + self.waiting, notice))

    @property
    def has_notices(self) -> bool:
        """Whether a notice waits, for its turn or for rows before it."""
        return bool(self._notices)

    @property
    def notice_is_due(self) -> bool:
        """Whether all rows before a notice were dispatched."""
        return bool(self._notices) and self._notices[0].at <= self.passed

    def next_notice(self) -> object | None:
        """Take the notice whose turn it is: all rows before it were dispatched. None: a row is next, or nothing."""
        if not self.notice_is_due:
            return None
        return self._notices.popleft().notice

    def watch(self, place: int) -> Mark:
        """A mark before the row at a place among those that wait; it keeps up with rows that are removed."""
        if len(self._watched) >= self._watched_most:
            self._watched = [mark for mark in self._watched if mark.at >= self.passed]
            self._watched_most = max(64, 2 * len(self._watched))
        mark = Mark(self.passed + place)
        self._watched.append(mark)
        return mark

    def skip(self, places: npt.NDArray[np.intp]) -> None:
        """Say that rows which were to come at these places, counted on from those that wait, will not come."""
        for mark in self._watched:
            mark.at -= int(np.searchsorted(places, mark.at - self.passed))

    def has_reached(self, mark: Mark) -> bool:
        """Whether all rows before a mark were dispatched or removed."""
        return self.passed + self.done_in_chunk() >= mark.at

    # -- waiting for rows of other lanes --------------------------------------------------------------------------

    def hold(self, place: int, other: Backlog, until: Mark) -> None:
        """Don't dispatch the row at a place before the other backlog has reached its mark. Places rise by call."""
        self._barriers.append((self.watch(place), other, until))

    @property
    def blocked_by(self) -> tuple[Backlog, Mark] | None:
        """The backlog, and how far it must come, that the row at the front waits for."""
        while self._barriers:
            own, other, until = self._barriers[0]
            if not other.has_reached(until):
                return (other, until) if own.at <= self.passed else None
            self._barriers.popleft()
        return None

    def _write_types(self, at: int, types: bytes) -> None:
        begin = at & self._mask
        first = min(len(types), len(self._order) - begin)
        self._order[begin : begin + first] = types[:first]
        self._order[: len(types) - first] = types[first:]

    def _next_types(self, count: int) -> bytes:
        begin = self._head & self._mask
        first = bytes(self._order[begin : begin + count])
        return first if len(first) == count else first + bytes(self._order[: count - len(first)])

    def dispatched(self, parts: Sequence[Part], done: int) -> list[tuple[int, int]]:
        """Say that the first ``done`` rows of these parts have been through the event handlers.

        Returns when they had come, as runs of rows and times.
        """
        for part in parts:
            count = done if part.positions is None else int(np.searchsorted(part.positions, done))
            self.queues[part.event_type].dispatched(count)
        self.taken = 0
        if not done:
            return []
        self._head += done
        self.waiting -= done
        self.passed += done
        self._sessions.take(done)
        return self.waits.take(done)

    def find(self, log_sequences: npt.NDArray[np.int64]) -> dict[tuple[int, int], int]:
        """The places, among the rows that wait, of those with some log sequences, by session number and log sequence.

        10 µs, and 5 to 20 ns a row that waits.
        """
        found: dict[tuple[int, int], int] = {}
        for event_type, queue in self.queues.items():
            nth, numbers = queue.places_of(log_sequences)
            if len(nth):
                types = np.frombuffer(self._next_types(self.waiting), np.uint8)
                places = np.flatnonzero(types == event_type)[nth]
                sessions = self._sessions.at(places).tolist()
                found |= dict(zip(zip(sessions, numbers.tolist(), strict=True), places.tolist(), strict=True))
        return found

    # -- taken out ------------------------------------------------------------------------------------------------

    def removable(self, event_type: EventType, first: int | None = None) -> tuple[Rows, npt.NDArray[np.intp]]:
        """A copy of the rows of one type that wait and that no chunk shows, and their places among all that wait.

        Of the ``first`` so many rows that wait, where told.
        """
        types = np.frombuffer(self._next_types(self.waiting if first is None else first), np.uint8)
        places = np.flatnonzero(types[self.taken :] == event_type) + self.taken
        shown = int(np.count_nonzero(types[: self.taken] == event_type))
        return self.queues[event_type].undispatched(shown, len(places)), places

    def remove(self, event_type: EventType, places: npt.NDArray[np.intp]) -> None:
        """Remove rows of one type by their places among all rows that wait, which rise. About 10 µs, and what lies
        before the last of them moves up."""
        last = int(places[-1]) + 1
        types = np.frombuffer(self._next_types(last), np.uint8)
        own = np.flatnonzero(types == event_type)
        shown = int(np.searchsorted(own, self.taken))
        self.queues[event_type].remove(shown, np.searchsorted(own[shown:], places))
        kept = np.delete(types, places).tobytes()
        self._head += len(places)
        self._write_types(self._head, kept)
        self.waiting -= len(places)
        self._sessions.remove(places)
        self.waits.remove(places)
        for mark in (*self._notices, *self._watched):
            mark.at -= int(np.searchsorted(places, mark.at - self.passed))

    def remove_first(self, event_type: EventType, count: int) -> int:
        """Remove the oldest rows of a type that no chunk shows; returns how many there were."""
        places: list[int] = []
        looked, step = self.taken, max(64, 2 * count)
        while len(places) < count and looked < self.waiting:
            types = np.frombuffer(self._next_types(min(looked + step, self.waiting)), np.uint8)
            places += (np.flatnonzero(types[looked:] == event_type) + looked).tolist()
            looked, step = len(types), 2 * step
        if places:
            self.remove(event_type, np.array(places[:count], np.intp))
        return min(len(places), count)

    def withdraw(self, kept: int) -> int:
        """Take back all rows but the first ``kept``; returns how many."""
        count = self.waiting - kept
        if count <= 0:
            return 0
        types = self._next_types(self.waiting)[kept:]
        for event_type, queue in self.queues.items():
            withdrawn = types.count(event_type)
            if withdrawn:
                queue.withdraw(withdrawn)
        self.waiting = kept
        for mark in self._notices:
            mark.at = min(mark.at, self.passed + kept)
        self._sessions.keep(kept)
        self.waits.keep(kept)
        return count

    def clear(self) -> int:
        """Forget everything; returns how many rows had not been dispatched."""
        dropped, self.waiting = self.waiting, 0
        for queue in self.queues.values():
            queue.clear()
        self.passed += dropped
        self.taken = 0
        self._sessions.clear()
        self.waits.clear()
        self._notices.clear()
        self._barriers.clear()
        self._head = 0
        return dropped
