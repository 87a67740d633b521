"""A queue per event type, and the windows in which batch handlers get its rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from hftlab.bus.chunk import Part
from hftlab.bus.subscriptions import Subscription
from hftlab.errors import ValidationError
from hftlab.events.records import DTYPES, RECORD, EventType, Rows, of_type
from hftlab.events.rowbytes import concat_rows
from hftlab.ring import Ring

# A turn of this many rows is a chunk of its own; shorter ones are gathered, because a chunk costs 20 µs.
_LONG_TURN = 128
MIN_CAPACITY = 1_024
MAX_CAPACITY = 1 << 24


class Window:
    """The rows that one batch handler will get next: they become due when ``batch_rows`` of its type have passed.

    Boundaries count every row of the type, wanted or not, so that they depend on the data alone.
    """

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.session_number = 0
        self.count = 0
        self.kept_from = 0
        self._pieces: list[Rows] = []

    @property
    def room(self) -> int:
        """How many rows are missing until the window is due."""
        return self.subscription.batch_rows - self.count

    def add(self, rows: Rows) -> None:
        """Add rows (views are kept, not copied): at most ``room``."""
        self._pieces.append(rows)
        self.count += len(rows)

    def take(self) -> Rows:
        """All rows since the last time, read-only: a view of the ring where they lie in one piece, else a copy."""
        rows = self._pieces[0] if len(self._pieces) == 1 else concat_rows(self._pieces, self._pieces[0].dtype)
        self.clear()
        rows.flags.writeable = False
        return rows

    def clear(self) -> None:
        """Forget the rows."""
        self._pieces, self.count, self.session_number = [], 0, 0


class TypeQueue:
    """The ring of one event type. Two readers gate it: one for dispatch, one for what windows still hold."""

    def __init__(self, event_type: EventType, capacity: int) -> None:
        # Positions in the ring from where on rows are still read by batch handlers that are due.
        self._delivering: deque[int] = deque()
        if not MIN_CAPACITY <= capacity <= MAX_CAPACITY or capacity & (capacity - 1):
            raise ValidationError(
                f"a queue's capacity is a power of two of {MIN_CAPACITY:,} to {MAX_CAPACITY:,} rows; got {capacity!r}"
            )
        self.event_type = event_type
        self.capacity = capacity
        self.windows: list[Window] = []
        self._ring = Ring(capacity, DTYPES[event_type], readers=2)
        self._producer = self._ring.producer()
        self._dispatch = self._ring.consumer(0)
        self._kept = self._ring.consumer(1)

    @property
    def free(self) -> int:
        """How many rows have room."""
        return self._producer.free

    @property
    def windowed(self) -> int:
        """How many dispatched rows wait in windows, counted once a window."""
        return sum(window.count for window in self.windows)

    @property
    def waiting(self) -> int:
        """How many rows have yet to be dispatched."""
        return self._dispatch.available

    @property
    def room(self) -> int:
        """How many rows may be dispatched before a window is due."""
        return min((window.room for window in self.windows), default=self.capacity)

    def push(self, rows: Rows) -> int:
        """Copy in as many rows as have room; returns how many."""
        return self._producer.push(rows)

    def peek(self, count: int) -> Rows:
        """Up to ``count`` undispatched rows that lie in one piece, as a read-only view."""
        return self._dispatch.peek(count)

    def dispatched(self, count: int) -> None:
        """Say that the first ``count`` undispatched rows have been through the event handlers."""
        self._dispatch.release(count)
        self._let_go()

    def subscribe(self, subscription: Subscription) -> None:
        """Open a window for a batch handler: it gets the rows dispatched from now on. Raises ValidationError."""
        if subscription.batch_rows > self.capacity // 2:
            raise ValidationError(
                f"batch_rows is at most half of the queue's capacity ({self.capacity // 2:,} of {self.capacity:,} "
                f"rows), or the queue could never fill a batch; got {subscription.batch_rows:,}"
            )
        self.windows.append(Window(subscription))

    def unsubscribe(self, subscription: Subscription) -> int:
        """Close a batch handler's window; returns how many rows it held that are now never delivered."""
        held = sum(window.count for window in self.windows if window.subscription is subscription)
        self.windows = [window for window in self.windows if window.subscription is not subscription]
        self._let_go()
        return held

    def keep(self, window: Window, rows: Rows, session_number: int | None) -> None:
        """Add rows to a window: just dispatched ones of this ring, or (None) emitted ones."""
        if not window.count:
            # At or before the first of the rows: the dispatch reader moves on when the whole chunk is done.
            window.kept_from = self._dispatch.sequence
        if session_number is not None:
            window.session_number = session_number
        window.add(rows)

    def take(self, window: Window) -> Rows:
        """A window's rows, for delivery; call ``delivered`` when that is done."""
        self._delivering.append(window.kept_from)
        return window.take()

    def delivered(self) -> None:
        """Say that the batch that was taken first has been handled."""
        self._delivering.popleft()
        self._let_go()

    def _let_go(self) -> None:
        """Free the ring up to the first row that a window or a delivery still holds."""
        first = min((window.kept_from for window in self.windows if window.count), default=self._dispatch.sequence)
        first = min(first, min(self._delivering, default=first))
        self._kept.release(first - self._kept.sequence)

    def clear(self) -> None:
        """Forget all rows, dispatched or not."""
        self._dispatch.release(self.waiting)
        for window in self.windows:
            window.clear()
        self._delivering.clear()
        self._let_go()


class Backlog:
    """The queues of all types, and whose turn it is: the total order across them, as runs of one type."""

    def __init__(self, capacity: Mapping[EventType, int]) -> None:
        self.queues = {event_type: TypeQueue(event_type, capacity[event_type]) for event_type in EventType}
        self._turns: deque[list[int]] = deque()  # [type, rows, session number]

    @property
    def waiting(self) -> int:
        """How many rows have yet to be dispatched."""
        return sum(turn[1] for turn in self._turns)

    def push(self, records: Rows, session_number: int) -> int:
        """Copy in rows, of one type or several, up to the first that has no room; returns how many."""
        if records.dtype != RECORD:
            event_type = EventType(int(records["type"][0]))
            taken = self.queues[event_type].push(records)
            self._turn(int(event_type), taken, session_number)
            return taken
        fits = self._fitting(records["type"])
        records = records[:fits]
        types = records["type"]
        for event_type in EventType:
            if (types == event_type).any():
                self.queues[event_type].push(np.ascontiguousarray(of_type(records, event_type)))
        starts = [0, *(np.flatnonzero(types[1:] != types[:-1]) + 1).tolist()] if fits else []
        for start, end in pairwise([*starts, fits]):
            self._turn(int(types[start]), end - start, session_number)
        return fits

    def _fitting(self, types: npt.NDArray[np.uint8]) -> int:
        fits = len(types)
        for event_type, queue in self.queues.items():
            places = np.flatnonzero(types == event_type)
            if queue.free < len(places):
                fits = min(fits, int(places[queue.free]))
        return fits

    def _turn(self, event_type: int, count: int, session_number: int) -> None:
        last = self._turns[-1] if self._turns else None
        if last is not None and last[0] == event_type and last[2] == session_number:
            last[1] += count
        elif count:
            self._turns.append([event_type, count, session_number])

    def next_parts(self, max_rows: int) -> tuple[list[Part], int]:
        """The next rows in total order, as parts by type, and how many: no further than a window's or a ring's end."""
        event_type, count, session_number = self._turns[0]
        if count >= _LONG_TURN or len(self._turns) == 1:
            queue = self.queues[EventType(event_type)]
            rows = queue.peek(min(max_rows, count, queue.room))
            return [Part(EventType(event_type), rows, None, session_number)], len(rows)
        return self._mixed_parts(max_rows)

    def _mixed_parts(self, max_rows: int) -> tuple[list[Part], int]:
        limits: dict[int, int] = {}
        places: dict[int, list[npt.NDArray[np.intp]]] = {}
        total, session_number = 0, self._turns[0][2]
        for event_type, count, number in self._turns:
            if event_type not in limits:
                queue = self.queues[EventType(event_type)]
                limits[event_type] = len(queue.peek(min(max_rows, queue.room)))
                places[event_type] = []
            taken = min(count, limits[event_type], max_rows - total) if number == session_number else 0
            if taken:
                limits[event_type] -= taken
                places[event_type].append(np.arange(total, total + taken))
                total += taken
            if taken < count:
                break
        parts = []
        for event_type, pieces in places.items():
            if pieces:
                positions = np.concatenate(pieces)
                rows = self.queues[EventType(event_type)].peek(len(positions))
                parts.append(Part(EventType(event_type), rows, positions, session_number))
        if len(parts) == 1:
            parts = [parts[0]._replace(positions=None)]
        return parts, total

    def dispatched(self, parts: Sequence[Part], done: int) -> None:
        """Say that the first ``done`` rows of these parts have been through the event handlers."""
        for part in parts:
            count = done if part.positions is None else int(np.searchsorted(part.positions, done))
            self.queues[part.event_type].dispatched(count)
        while done:
            turn = self._turns[0]
            taken = min(done, turn[1])
            turn[1] -= taken
            done -= taken
            if not turn[1]:
                self._turns.popleft()

    def clear(self) -> int:
        """Forget everything; returns how many rows had not been dispatched."""
        dropped = self.waiting
        for queue in self.queues.values():
            queue.clear()
        self._turns.clear()
        return dropped
