"""What the dispatchers of a bus note of their rows' journeys: how long rows were queued, and how long handlers took.

Nobody looks at a clock for an event. A chunk keeps what it saw (``Marks``) every 128 calls, or fewer while they are
slow; rows between two looks count as evenly spaced. When the chunk ends, one compiled pass over its rows does the rest.
Where rows go to several handlers, single calls are timed, one in 256, and more while they are slow: a look more, 0.2
µs, which is in what it tells.
"""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hftlab.bus.backlog import Part
from hftlab.clock import Clock
from hftlab.events.records import EventType, Rows
from hftlab.events.rowbytes import PLAIN
from hftlab.metrics.journeys import Journey, Stage

if TYPE_CHECKING:
    from hftlab.bus.subscriptions import Subscription

MARKED_CALLS = 128
"""How far apart marks are while calls are fast: within 10 to 50 µs. Four times as many cost 4 µs more a chunk."""
SAMPLED_STRIDES = 8
"""Of so many looks at the clock, one is for a single call."""

GATHERED = 64
"""Rows that came through one by one are noted together: a pass costs 10 µs, and 0.1 µs more for each further row."""
THINNED_ROWS = 256
THINNED = 8
CHUNKS_TAKEN = 2
FAST_ROW_NS = 4_000
"""Live, where so many rows come through at once, and take less than 4 µs each (250,000 a second), one in 8 is timed by
itself and counts for 8: 10 ns for each would be more than a tenth of what they cost. Of chunks every other one is
taken, by chance, and each fourth row of it (20 µs a chunk); of batches for batch and compiled handlers one in 8, with
all its rows. What is slower is timed row by row. How long batches waited, and how long their handlers took, is noted
for all.
"""

PAST_NS = 86_400_000_000_000
"""A day: what arrived longer ago is of a capture, and no stage that begins with its arrival is noted."""

_ONE_BY_ONE: npt.NDArray[np.int64] = (np.arange(2 * GATHERED) + 1) // 2
"""0, 1, 1, 2, 2, 3 …: rows with a mark before and one behind each."""

Runs = Sequence[tuple[int, int]]
"""How many rows, and since when they were queued, in ns UTC."""


class Marks:
    """When a chunk looked at the clock: ``calls`` were made by ``at_ns`` (``perf_counter_ns``); and ``timed`` calls.

    It begins with the chunk, and with each time that it is taken up again: in between, nobody was called. ``timed``
    has single calls, by their places, and what they took; ``is_due`` says whether the next one is to be timed.
    """

    __slots__ = ("_random", "at_ns", "calls", "due", "is_due", "timed")

    def __init__(self, is_due: Callable[[], bool], random: Callable[[], float]) -> None:
        self.is_due, self._random = is_due, random
        self.due = 0
        self.calls = array("q")
        self.at_ns = array("q")
        self.timed: list[tuple[int, int]] = []

    def add(self, calls: int, at_ns: int) -> None:
        """So many calls were made by then. ``due``: after how many to look again."""
        self.calls.append(calls)
        self.at_ns.append(at_ns)

    def place(self, calls: int) -> int:
        """Which of so many calls to time by itself."""
        return int(self._random() * calls)

    def end(self, calls: int) -> None:
        """The chunk is left, for now or for good, after so many calls."""
        if not self.calls or self.calls[-1] < calls:
            self.add(calls, time.perf_counter_ns())
        self.due = 0

    def rows(self, places: npt.NDArray[np.intp] | None, made: int, done: int) -> npt.NDArray[np.int64]:
        """By mark, how many of the ``done`` rows had been through their handlers; ``places`` has the calls' rows."""
        calls = np.frombuffer(self.calls, np.int64).copy()
        if places is None:
            return np.minimum(calls, done) if calls[-1] > done else calls
        rows = np.full(len(calls), done, np.int64)
        begun = calls < made
        # A call that is about to be made belongs to a row that is not through, whatever was called for it before.
        rows[begun] = places[calls[begun]]
        rows[0] = 0  # rows before the first call have none: they are through with it, not before
        return np.minimum(rows, done)


class Gathered:
    """Rows of one type and one handler (None: of several) that came through one by one, and when, to be noted yet."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.rows = np.zeros(GATHERED, dtype)
        self.plain = self.rows.view(PLAIN)
        self.times_ns: list[tuple[int, int, int]] = []
        """By row, when it was dispatched, handled and queued, in ns UTC."""


class Recorder:
    """Notes what the lanes of a bus do in ``journey``: the live one, or that of the run which is on. None: in none.

    ``clock`` is the live one, also during a run, whose own is virtual.
    """

    def __init__(self, clock: Clock, live: Journey | None) -> None:
        self.journey = self.live = live
        self.in_run = False
        self._is_real = True
        self._phase = random.Random(0)  # not each 8th one: what comes in may go by eights
        self._clock = clock
        self._until_timed = SAMPLED_STRIDES
        self._gathered: dict[tuple[EventType, str | None], Gathered] = {}
        if live is not None:
            live.before_asked = self.flush

    def begin_run(self, journey: Journey | None) -> None:
        """Note a run's rows from now on."""
        self.flush()
        self.journey, self.in_run = journey, True
        if journey is not None:
            journey.before_asked = self.flush
        self._is_real = journey is not None and not journey.virtual

    def end_run(self) -> None:
        """Be live again."""
        self.flush()
        if self.journey is not None and self.journey is not self.live:
            self.journey.before_asked = None
        self.journey, self.in_run, self._is_real = self.live, False, True

    def marks(self) -> Marks | None:
        """What a chunk keeps; None where nobody wants to know."""
        return None if self.journey is None else Marks(self._is_due, self._phase.random)

    def _is_due(self) -> bool:
        """Whether the next call is to be timed by itself: counted on from chunk to chunk, or those of short chunks
        never would be."""
        self._until_timed -= 1
        if self._until_timed:
            return False
        self._until_timed = SAMPLED_STRIDES
        return True

    def now_ns(self) -> int:
        """When rows are queued, in ns UTC by the live clock."""
        return self._clock.now_ns()

    # -- event and field handlers -------------------------------------------------------------------------------------

    def note_chunk(
        self,
        parts: Sequence[Part],
        done: int,
        marks: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
        queued: Runs,
        handler: str | None,
    ) -> None:
        """The first ``done`` rows of a chunk are through: ``marks`` says how many by when (``perf_counter_ns``).

        ``handler``: the one that all of them went to.
        """
        journey = self.journey
        if journey is None or not done:
            return
        ends, since = _arrays(queued)
        ahead_ns = self._clock.now_ns() - time.perf_counter_ns()
        rows, at_ns = marks
        thinned = self._thinned(done, int(at_ns[-1] - at_ns[0])) // CHUNKS_TAKEN or 1
        for part in parts:
            positions = part.positions
            count = done if positions is None else int(np.searchsorted(positions, done))
            if count:
                fresh = self._is_fresh(part.rows[:count])
                journey.note_chunk(
                    part.rows[:count], part.event_type, None if positions is None else positions[:count],
                    rows, at_ns, ends, since, ahead_ns, fresh and self._is_real,
                    sequenced=fresh and not self.in_run, thinned=thinned, handler=handler,
                    weight=1 if thinned == 1 else THINNED,
                )  # fmt: skip
                journey.untimed += count - count // thinned

    def note_one(self, part: Part, marks: Marks, queued_ns: int, handler: str | None) -> None:
        """A row that made a chunk of its own is through. 3 µs."""
        key = part.event_type, handler
        gathered = self._gathered.get(key)
        if gathered is None:
            gathered = self._gathered[key] = Gathered(part.rows.dtype)
        if len(gathered.times_ns) >= GATHERED:
            self._note_gathered(part.event_type, handler, gathered)
        gathered.plain[len(gathered.times_ns)] = part.rows.view(PLAIN)[0]
        # Now: by the time that these are noted, the clock may have been slewed away.
        ahead_ns = self._clock.now_ns() - time.perf_counter_ns()
        gathered.times_ns.append((marks.at_ns[0] + ahead_ns, marks.at_ns[-1] + ahead_ns, queued_ns))

    def flush(self) -> None:
        """Note what was gathered: before somebody looks, or another run begins."""
        everything, self._gathered = self._gathered, {}
        for (event_type, handler), gathered in everything.items():
            if gathered.times_ns:
                self._note_gathered(event_type, handler, gathered)

    def _note_gathered(self, event_type: EventType, handler: str | None, gathered: Gathered) -> None:
        times_ns = np.array(gathered.times_ns, np.int64)
        count = len(times_ns)
        gathered.times_ns = []
        if self.journey is not None:
            fresh = self._is_fresh(gathered.rows[:count])
            self.journey.note_chunk(
                # Each row between two marks of its own; between rows nobody was called.
                gathered.rows[:count], event_type, None, _ONE_BY_ONE[: 2 * count], times_ns[:, :2].ravel(),
                np.arange(1, count + 1), times_ns[:, 2], 0,
                fresh and self._is_real, sequenced=fresh and not self.in_run, handler=handler,
            )  # fmt: skip

    def note_calls(self, timed: Sequence[tuple[Subscription, int, int]]) -> None:
        """Single calls of event and field handlers, and how long they took."""
        if self.journey is not None:
            for subscription, event_type, elapsed_ns in timed:
                if self.in_run or not subscription.is_async:  # see lane_calls
                    self.journey.note_handler(subscription.name, event_type, elapsed_ns)

    # -- batch handlers -----------------------------------------------------------------------------------------------

    def note_passed(self, part: Part, queued: Runs) -> None:
        """All rows of a part are passed on to batch handlers, or to none, without a chunk."""
        journey = self.journey
        if journey is None:
            return
        journey.note_runs(Stage.DISPATCHED, part.event_type, self._clock.now_ns(), queued)
        if self._is_taken(len(part.rows), 0):
            runs = _arrays(queued) if not self.in_run and self._is_fresh(part.rows) else None
            weight = self._thinned(len(part.rows), 0)
            journey.note_rows(part.rows, part.event_type, None, queued=runs, weight=weight)
        else:
            journey.untimed += len(part.rows)

    def note_delivery(self, handler: str, event_type: EventType, rows: Rows, elapsed_ns: int) -> None:
        """A batch handler has returned from its call with these rows."""
        journey = self.journey
        if journey is None or not len(rows):
            return
        journey.note_delivery(handler, event_type, elapsed_ns, len(rows))
        if self._is_real and self._is_taken(len(rows), elapsed_ns) and self._is_fresh(rows):
            weight = self._thinned(len(rows), elapsed_ns)
            journey.note_rows(rows, event_type, self._clock.now_ns(), arrivals=False, weight=weight)

    def takes_chunk(self, rows: int, marks: Marks) -> bool:
        """Whether a chunk of so many rows is timed."""
        if self._thinned(rows, marks.at_ns[-1] - marks.at_ns[0]) == 1 or self._phase.random() * CHUNKS_TAKEN < 1:
            return True
        if self.journey is not None:
            self.journey.untimed += rows
        return False

    def _is_taken(self, rows: int, elapsed_ns: int) -> bool:
        """Whether the rows of this batch are timed one by one."""
        if self._thinned(rows, elapsed_ns) == 1:
            return True
        return self._phase.random() * THINNED < 1

    def _is_fresh(self, rows: Rows) -> bool:
        """Whether rows arrived lately: how long ago a capture was recorded is no latency. By the first of them."""
        return self._clock.now_ns() - int(rows["received"][0]) < PAST_NS

    def _thinned(self, rows: int, elapsed_ns: int) -> int:
        """Of how many rows one is timed, which then counts for all of them."""
        return 1 if self.in_run or rows < THINNED_ROWS or elapsed_ns >= FAST_ROW_NS * rows else THINNED

    def note_call(self, handler: str, event_type: int, elapsed_ns: int, events: int) -> None:
        """An async handler's call has ended, long after it was made."""
        if self.journey is not None and event_type:
            self.journey.note_handler(handler, event_type, elapsed_ns, events)


def _arrays(queued: Runs) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the runs end, and since when they were queued."""
    ends = list(accumulate(count for count, _ in queued))
    return np.array(ends, np.int64), np.array([since_ns for _, since_ns in queued], np.int64)
