"""A queue per event type: a ring of rows, and the windows in which batch handlers get them.

The ring's one reader holds the producer back for all: rows stay until they were dispatched, and longer while a window,
or a batch that is being handled, still shows them. Positions are ring sequences: rows ever pushed before that one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hftlab.bus.subscriptions import Subscription
from hftlab.errors import ValidationError
from hftlab.events.packing import pack_event
from hftlab.events.records import DTYPES, ROW_BYTES, EventType, Rows
from hftlab.events.rowbytes import PLAIN, concat_rows, copy_rows
from hftlab.events.tables import SourceTable, SymbolTable
from hftlab.events.types import Event
from hftlab.ring import Ring

MIN_CAPACITY = 1_024
MAX_CAPACITY = 1 << 24


class Window:
    """The rows that one batch handler will get next: they are due when ``batch_rows`` of its type have passed.

    Every row of the type counts, wanted or not, so that boundaries depend on the data alone. Published rows are kept as
    spans of the ring, emitted ones as arrays; ``count`` counts both, ``published`` those.
    """

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.count = 0
        self.published = 0
        self.begin: int | None = None  # the first row of the ring that the window shows
        self._pieces: list[list[int] | Rows] = []

    @property
    def room(self) -> int:
        """How many rows are missing until the window is due."""
        return self.subscription.batch_rows - self.count

    def add_span(self, begin: int, end: int) -> None:
        """Add published rows by their positions in the ring."""
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, list) and last[1] == begin:
            last[1] = end
        else:
            self._pieces.append([begin, end])
            self.begin = begin if self.begin is None else self.begin
        self.count += end - begin
        self.published += end - begin

    def add_rows(self, rows: Rows) -> None:
        """Add emitted rows; they are kept, not copied."""
        self._pieces.append(rows)
        self.count += len(rows)

    def detach(self, rows_at: Callable[[int, int], Rows]) -> None:
        """Keep copies instead of spans: the ring may write over the rows."""
        self._pieces = [copy_rows(rows_at(*piece)) if isinstance(piece, list) else piece for piece in self._pieces]
        self.begin = None

    def take(self) -> Sequence[list[int] | Rows]:
        """All pieces since the last time."""
        pieces, self._pieces = self._pieces, []
        self.count, self.published, self.begin = 0, 0, None
        return pieces


@dataclass(eq=False)
class Due:
    """A batch that is to be delivered. ``begin`` is the first row of the ring that it shows (None: none), ``published``
    how many of its rows were not emitted. ``pieces``: the rows' positions in the ring, or how many have none.

    Once ``begun``, it is the handler's that got it: neither its rows nor the handler change any more.
    """

    subscription: Subscription
    event_type: EventType
    rows: Rows
    begin: int | None
    published: int
    pieces: Sequence[tuple[int, int] | int] = ()
    begun: bool = False

    def positions(self) -> npt.NDArray[np.intp]:
        """By row, its position in the ring; -1 for emitted ones."""
        parts = [np.arange(*one) if isinstance(one, tuple) else np.full(one, -1) for one in self.pieces]
        return np.concatenate(parts) if parts else np.zeros(0, np.intp)


class TypeQueue:
    """The ring of one event type, its windows, and the batches that are due out of it."""

    def __init__(self, event_type: EventType, capacity: int) -> None:
        if (
            isinstance(capacity, bool)
            or not isinstance(capacity, int)
            or not MIN_CAPACITY <= capacity <= MAX_CAPACITY
            or capacity & (capacity - 1)
        ):
            raise ValidationError(
                f"a queue's capacity is a power of two of {MIN_CAPACITY:,} to {MAX_CAPACITY:,} rows; got {capacity!r}"
            )
        self.event_type = event_type
        self.capacity = capacity
        self.windows: list[Window] = []
        self._ring: Ring | None = None
        self._rows = np.empty(0, DTYPES[event_type])
        self._plain = self._rows.view(PLAIN)
        self._pushed = self._dispatched = self._shown = self._released = self._removed = 0
        self._lost: npt.NDArray[np.intp] | None = None
        self._due: list[Due] = []
        # Spans of rows that were taken back, passed over when their turn comes. In order, and never side by side.
        self._withdrawn: deque[tuple[int, int]] = deque()

    def _open(self) -> None:
        """Make the ring with the first row: most lanes never see most types, and a ring writes all its memory."""
        self._ring = ring = Ring(self.capacity, DTYPES[self.event_type])
        self._producer, self._reader = ring.producer(), ring.consumer()
        rows = self._producer.claim(self.capacity)
        self._producer.publish(0)
        self._bytes = memoryview(rows.view(np.uint8)).cast("B")  # type: ignore[arg-type]
        self._plain = rows.view(PLAIN)
        self._rows = rows.view()
        self._rows.flags.writeable = False

    # -- published rows -------------------------------------------------------------------------------------------

    @property
    def free(self) -> int:
        """How many rows have room."""
        return self.capacity - (self._pushed - self._released)

    @property
    def waiting(self) -> int:
        """How many rows are undispatched."""
        waiting = self._pushed - self._dispatched
        return waiting - sum(end - begin for begin, end in self._withdrawn) if self._withdrawn else waiting

    @property
    def drained(self) -> int:
        """How many rows ever left through the handlers."""
        return self._pushed - self._removed - self.waiting

    def push(self, rows: Rows) -> int:
        """Copy in as many rows as have room; returns how many."""
        if self._ring is None:
            self._open()
        taken = self._producer.push(rows)
        self._pushed += taken
        return taken

    def push_event(self, event: Event, now_ns: int, symbols: SymbolTable, sources: SourceTable) -> bool:
        """Write one event, stamped with ``now_ns`` where it has no times; False without room. About 3 µs."""
        if not self.free:
            return False
        if self._ring is None:
            self._open()
        at = (self._pushed & (self.capacity - 1)) * ROW_BYTES
        self._producer.claim(1)
        try:
            pack_event(event, self._bytes[at : at + ROW_BYTES], symbols, sources, now_ns=now_ns)
        except BaseException:
            self._producer.publish(0)
            raise
        self._producer.publish(1)
        self._pushed += 1
        return True

    def peek(self, count: int) -> Rows:
        """Up to ``count`` undispatched rows that lie in one piece, as a read-only view."""
        first = self._dispatched & (self.capacity - 1)
        end = self._withdrawn[0][0] if self._withdrawn else self._pushed
        return self._rows[first : first + min(count, end - self._dispatched)]

    def dispatched(self, count: int) -> None:
        """Say that the next ``count`` rows have been through the event handlers; they have been shown before."""
        self._dispatched += count
        self._skip_withdrawn()
        self._release()

    def withdraw(self, count: int) -> None:
        """Take back the rows that were pushed last: their places are passed over when their turn comes."""
        for window in self.windows:
            # A window that is long in filling would hold the passed over places too, until the ring is full of them.
            window.detach(self._span)
        begin = self._pushed
        while count:
            if self._withdrawn and self._withdrawn[-1][1] == begin:
                begin = self._withdrawn.pop()[0]
            else:
                taken = min(count, begin - (self._withdrawn[-1][1] if self._withdrawn else self._dispatched))
                begin -= taken
                count -= taken
        if self._withdrawn and self._withdrawn[-1][1] == begin:
            begin = self._withdrawn.pop()[0]
        self._withdrawn.append((begin, self._pushed))
        self._skip_withdrawn()
        self._release()

    def undispatched(self, taken: int, most: int = 1 << 62) -> Rows:
        """A copy of the undispatched rows behind the first ``taken``, ``most`` of them, in order. About 6 ns a row."""
        rows: Rows = self._plain[self._live(taken, most) & (self.capacity - 1)].view(self._rows.dtype)
        return rows

    def places_of(self, log_sequences: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
        """The places, among the undispatched rows, of those with some log sequences; and which of these they have."""
        if not self.waiting:
            return np.zeros(0, np.intp), np.zeros(0, np.int64)
        found: npt.NDArray[np.int64] = self._rows["log_sequence"][self._live(0) & (self.capacity - 1)]
        places = np.flatnonzero(np.isin(found, log_sequences))
        return places, found[places]

    def remove(self, taken: int, places: npt.NDArray[np.intp]) -> None:
        """Remove rows out of ``undispatched(taken)``, by their places in it, which rise.

        What stands before the last of them moves up, so that one span is left to pass over: removing the first rows
        moves nothing.
        """
        for window in self.windows:
            window.detach(self._span)  # as in withdraw
        self._removed += len(places)
        live = self._live(taken, int(places[-1]) + 1)
        end = int(live[-1]) + 1
        kept = np.delete(live, places)
        begin = end - len(kept)
        mask = self.capacity - 1
        if len(kept):
            self._plain[np.arange(begin, end) & mask] = self._plain[kept & mask]
        first = int(live[0])
        spans = [span for span in self._withdrawn if span[0] < first]
        later = [span for span in self._withdrawn if span[0] >= end]
        # Side by side, spans would be passed over one a call.
        if spans and spans[-1][1] == first:
            first = spans.pop()[0]
        if later and later[0][0] == begin:
            begin = later.pop(0)[1]
        if first < begin:
            spans.append((first, begin))
        self._withdrawn = deque(spans + later)
        self._skip_withdrawn()
        self._release()

    def _live(self, taken: int, most: int = 1 << 62) -> npt.NDArray[np.intp]:
        """The positions of the undispatched rows behind the first ``taken``, ``most`` of them."""
        if not self._withdrawn:
            begin = self._dispatched + taken
            return np.arange(begin, min(begin + most, self._pushed))
        begins = [self._dispatched, *(end for _, end in self._withdrawn)]
        ends = [*(begin for begin, _ in self._withdrawn), self._pushed]
        return np.concatenate([np.arange(*bounds) for bounds in zip(begins, ends, strict=True)])[taken:][:most]

    def _skip_withdrawn(self) -> None:
        if self._withdrawn and self._withdrawn[0][0] == self._dispatched:
            self._dispatched = self._shown = self._withdrawn.popleft()[1]

    # -- windows --------------------------------------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many rows may be dispatched before a window is due."""
        room = self.capacity
        for window in self.windows:
            room = min(room, window.subscription.batch_rows - window.count)
        return room

    def check_batch_rows(self, batch_rows: int) -> None:
        """Raise ValidationError for batches that this queue can't hold beside the rows that still come in."""
        if batch_rows > self.capacity // 2:
            raise ValidationError(
                f"batch_rows is at most half of the queue's capacity ({self.capacity // 2:,} of {self.capacity:,} "
                f"rows), or the queue could never fill a batch; got {batch_rows:,}"
            )

    def arrange(self, subscriptions: Sequence[Subscription]) -> None:
        """Have a window for each of these batch handlers, in this order; one that replaces another goes on with its."""
        left = {window.subscription.name: window for window in self.windows}
        self.windows = [self._window_for(subscription, left) for subscription in subscriptions]
        for window in left.values():
            window.subscription.missed += window.count
        current = {subscription.name: subscription for subscription in subscriptions}
        kept = []
        for due in self._due:
            if due.begun or due.subscription.name in current:
                kept.append(due)
                due.subscription = due.subscription if due.begun else current[due.subscription.name]
            else:
                due.subscription.missed += len(due.rows)
        self._due = kept
        self._shown = self._dispatched
        self._release()

    def _window_for(self, subscription: Subscription, left: dict[str, Window]) -> Window:
        before = left.get(subscription.name)
        if before is not None and before.count < subscription.batch_rows:
            del left[subscription.name]
            before.subscription = subscription
            return before
        return Window(subscription)

    def show_published(self, count: int) -> list[Due]:
        """Show the next ``count`` published rows, at most ``room``, to the windows; returns what is due now."""
        begin, self._shown = self._shown, self._shown + count
        for window in self.windows:
            window.add_span(begin, self._shown)
        return self._filled()

    def show_emitted(self, rows: Rows) -> list[Due]:
        """Show emitted rows, at most ``room``, to the windows; returns what is due now."""
        for window in self.windows:
            window.add_rows(rows)
        return self._filled()

    def _filled(self) -> list[Due]:
        return [self._take(window) for window in self.windows if window.count >= window.subscription.batch_rows]

    def flush(self) -> list[Due]:
        """All windows that hold anything, due as they are."""
        return [self._take(window) for window in self.windows if window.count]

    @property
    def holds_rows(self) -> bool:
        """Whether a window holds rows that are not due yet."""
        return any(window.count for window in self.windows) if self.windows else False

    def _take(self, window: Window) -> Due:
        begin, published = window.begin, window.published
        taken = window.take()
        pieces = [piece if isinstance(piece, np.ndarray) else self._span(*piece) for piece in taken]
        rows = pieces[0] if len(pieces) == 1 else concat_rows(pieces, DTYPES[self.event_type])
        rows.flags.writeable = False
        bounds = [len(piece) if isinstance(piece, np.ndarray) else (piece[0], piece[1]) for piece in taken]
        due = Due(window.subscription, self.event_type, rows, begin, published, bounds)
        self._due.append(due)
        return due

    def _span(self, begin: int, end: int) -> Rows:
        """The rows at some positions: a view, or a copy where they lie across the ring's end."""
        first, count = begin & (self.capacity - 1), end - begin
        rows = self._rows[first : first + count]
        if len(rows) == count:
            return rows
        return concat_rows([rows, self._rows[: count - len(rows)]], DTYPES[self.event_type])

    def is_due(self, due: Due) -> bool:
        """Whether a batch is still to be delivered: its handler was not cancelled meanwhile."""
        return due in self._due

    def delivered(self, due: Due) -> None:
        """Say that a batch has been handled: the rows that it shows may be written over."""
        if due in self._due:
            self._due.remove(due)
            self._release()

    def lose(self, due: Due, places: npt.NDArray[np.intp]) -> int:
        """Note that a handler did not get some rows of a batch done; returns how many published ones nobody had noted.

        Handlers of several kinds are given the same rows: each row is counted once.
        """
        if not len(places):
            return 0
        positions = due.positions()[places]
        return self._note_lost(positions[positions >= 0])

    def lose_next(self, places: npt.NDArray[np.intp]) -> int:
        """The same of rows that are about to be ``dispatched``, by their places among those."""
        return self._note_lost(self._dispatched + places)

    def _note_lost(self, positions: npt.NDArray[np.intp]) -> int:
        # By slot, the position of the row there that was lost: another lap's row has another position.
        if self._lost is None:
            self._lost = np.full(self.capacity, -1, np.intp)
        slots = positions & (self.capacity - 1)
        fresh = int(np.count_nonzero(self._lost[slots] != positions))
        self._lost[slots] = positions
        return fresh

    def _release(self) -> None:
        """Free the ring up to the first row that is undispatched, or that a window or a due batch shows."""
        first = self._dispatched
        for window in self.windows:
            if window.begin is None or window.begin >= first:
                continue
            if self._dispatched - window.begin > self.capacity // 2:
                # No batch is that long: most of these places were passed over between the window's rows. Held until the
                # window is full, they could leave no room for the rows that would fill it.
                window.detach(self._span)
            else:
                first = window.begin
        for due in self._due:
            if due.begin is not None and due.begin < first:
                first = due.begin
        if first > self._released:
            self._reader.release(first - self._released)
            self._released = first

    def clear(self) -> None:
        """Forget all rows, dispatched or not."""
        self._dispatched = self._shown = self._pushed
        for window in self.windows:
            window.take()
        self._due.clear()
        self._withdrawn.clear()
        self._release()
