"""The total order over all types, against a list."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hftlab.bus.backlog import Backlog, Mark, Part
from hftlab.bus.subscriptions import Subscription
from hftlab.events import EventType, SourceTable, SymbolTable
from hftlab.events.records import DTYPES, RECORD, Rows, blank
from tests.bus.handlers import make_event

CAPACITY = 1_024
types = st.sampled_from(list(EventType))


def rows_of(kinds: list[EventType], first: int) -> Rows:
    rows = np.zeros(len(kinds), RECORD)
    for index, kind in enumerate(kinds):
        row = blank(1, kind)
        row["log_sequence"] = first + index
        rows[index : index + 1] = row.view(RECORD)
    return rows


def merged(parts: list[Part], total: int) -> list[tuple[EventType, int]]:
    """The rows of a chunk in their order: type and number."""
    found: list[Any] = [None] * total
    for part in parts:
        positions = range(len(part.rows)) if part.positions is None else part.positions.tolist()
        for position, number in zip(positions, part.rows["log_sequence"].tolist(), strict=True):
            assert found[position] is None
            found[position] = (part.event_type, number)
    return found


class Row(NamedTuple):
    """A row that waits. ``uid``: in the order of their coming, whatever number they bring."""

    kind: EventType
    number: int
    session: int
    came_ns: int
    uid: int


class Order(RuleBasedStateMachine):
    """Pushes rows of any types, takes chunks and parts of them, takes rows back and removes some, also behind a chunk
    in progress; notices and marks keep their places among them."""

    @initialize(room=st.sampled_from([None, 1, 3, 40]))
    def begin(self, room: int | None) -> None:
        self.backlog = Backlog(dict.fromkeys(EventType, CAPACITY))
        self.symbols, self.sources = SymbolTable(["X"]), SourceTable()
        self.model: deque[Row] = deque()
        self.number = 0
        self.chunk: tuple[list[Part], list[Row]] | None = None
        self.notices: deque[tuple[object, set[int]]] = deque()  # each with the rows before it
        self.marks: list[tuple[Mark, set[int]]] = []
        self.room = room
        if room is not None:
            batches = Subscription("batches", print, "batch", frozenset({EventType.FILL}), batch_rows=room)
            self.backlog.queues[EventType.FILL].arrange([batches])
        self.until_due = room

    def note(self, kinds: list[EventType], session: int) -> None:
        for kind in kinds:
            self.model.append(Row(kind, self.number, session, self.backlog.now_ns, self.number))
            self.number += 1

    def waiting_of(self, kind: EventType) -> int:
        return sum(row.kind == kind for row in self.model)

    @property
    def taken(self) -> int:
        return 0 if self.chunk is None else len(self.chunk[1])

    @rule(runs=st.lists(st.tuples(types, st.integers(1, 150)), max_size=6), session=st.integers(0, 1))
    def push_mixed(self, runs: list[tuple[EventType, int]], session: int) -> None:
        kinds = [kind for kind, count in runs for _ in range(count)]
        taken = self.backlog.push(rows_of(kinds, self.number), session)
        assert taken == len(kinds) or self.backlog.queues[kinds[taken]].free == 0
        self.note(kinds[:taken], session)

    @rule(kind=types, count=st.integers(1, 400), session=st.integers(0, 1))
    def push_typed(self, kind: EventType, count: int, session: int) -> None:
        free = self.backlog.queues[kind].free
        taken = self.backlog.push(rows_of([kind] * count, self.number).view(DTYPES[kind]), session)
        assert taken == min(count, free)
        self.note([kind] * taken, session)

    @rule(kind=types, session=st.integers(0, 1))
    def push_event(self, kind: EventType, session: int) -> None:
        event = make_event(kind, "X", event_id=session << 40 | self.number if session else 0)
        free = self.backlog.queues[kind].free
        assert self.backlog.push_event(event, 5, session, self.symbols, self.sources) == (free > 0)
        if free:
            number = self.number
            self.note([kind], session)
            if not session:  # an unrecorded event has no number to be known by
                self.model[-1] = self.model[-1]._replace(number=0)
            assert self.number == number + 1

    @rule(passed_ns=st.integers(0, 3))
    def let_time_pass(self, passed_ns: int) -> None:
        self.backlog.now_ns += passed_ns

    def take_notices(self) -> None:
        """A notice is taken before anything is dispatched behind it."""
        while self.notices and not self.notices[0][1]:
            assert self.backlog.notice_is_due
            assert self.backlog.next_notice() is self.notices.popleft()[0]
        assert not self.backlog.notice_is_due
        assert self.backlog.next_notice() is None

    @precondition(lambda self: self.model and self.chunk is None)
    @rule(most=st.integers(1, 500))
    def begin_chunk(self, most: int) -> None:
        self.take_notices()
        assert self.backlog.session_number == self.model[0].session
        parts, total = self.backlog.next_parts(most)
        assert 1 <= total <= most
        expected = [self.model[index] for index in range(total)]
        assert merged(parts, total) == [(row.kind, row.number) for row in expected]
        assert {row.session for row in expected} == {part.session_number for part in parts}
        if self.notices:
            assert {row.uid for row in expected} <= self.notices[0][1]
        if self.until_due is not None:
            fills = [index for index, one in enumerate(expected) if one.kind is EventType.FILL]
            # No chunk goes on behind the row that fills a batch.
            assert len(fills) < self.until_due or fills[self.until_due - 1 :] == [total - 1]
        self.backlog.taken = total
        self.chunk = parts, expected

    @precondition(lambda self: self.chunk is not None)
    @rule(share=st.floats(0, 1))
    def end_chunk(self, share: float) -> None:
        assert self.chunk is not None
        (parts, expected), self.chunk = self.chunk, None
        # Whatever was removed or pushed meanwhile: what the chunk shows is what it was.
        assert merged(parts, len(expected)) == [(row.kind, row.number) for row in expected]
        done = round(len(expected) * share)
        if self.until_due is not None:
            fills = [row for row in expected[:done] if row.kind is EventType.FILL]
            queue = self.backlog.queues[EventType.FILL]
            for due in queue.show_published(len(fills)):
                assert due.rows["log_sequence"].tolist()[-1] == fills[-1].number
                queue.delivered(due)
            self.until_due = queue.room
        runs = self.backlog.dispatched(parts, done)
        assert [came_ns for rows, came_ns in runs for _ in range(rows)] == [row.came_ns for row in expected[:done]]
        self.forget(row for row in expected[:done])
        for _ in range(done):
            self.model.popleft()

    def forget(self, rows: Iterable[Row]) -> None:
        gone = {row.uid for row in rows}
        for _, before in (*self.notices, *self.marks):
            before -= gone

    @rule(share=st.floats(0, 1))
    def withdraw(self, share: float) -> None:
        kept = max(round(len(self.model) * share), self.taken)
        assert self.backlog.withdraw(kept) == len(self.model) - kept
        self.marks.clear()  # rows are withdrawn in runs alone, where nothing waits for rows of other lanes
        while len(self.model) > kept:
            self.forget([self.model.pop()])

    # -- taken out --------------------------------------------------------------------------------------------------

    def removable(self, kind: EventType) -> list[int]:
        return [place for place, row in enumerate(self.model) if row.kind is kind and place >= self.taken]

    @rule(kind=types, data=st.data())
    def remove(self, kind: EventType, data: st.DataObject) -> None:
        rows, places = self.backlog.removable(kind)
        assert places.tolist() == self.removable(kind)
        assert rows["log_sequence"].tolist() == [self.model[place].number for place in places.tolist()]
        if not len(places):
            return
        # Runs, single rows and the ends: a drawn pattern that goes round.
        pattern = data.draw(st.lists(st.booleans(), min_size=1, max_size=7))
        begin, end = sorted(data.draw(st.tuples(st.integers(0, len(places)), st.integers(0, len(places)))))
        chosen = [place for at, place in enumerate(places[begin:end].tolist()) if pattern[at % len(pattern)]]
        if chosen:
            self.backlog.remove(kind, np.array(chosen, np.intp))
            self.drop(chosen)

    @rule(kind=types, count=st.integers(1, 300))
    def remove_first(self, kind: EventType, count: int) -> None:
        oldest = self.removable(kind)[:count]
        assert self.backlog.remove_first(kind, count) == len(oldest)
        self.drop(oldest)

    def drop(self, places: list[int]) -> None:
        gone = set(places)
        self.forget(self.model[place] for place in places)
        self.model = deque(row for place, row in enumerate(self.model) if place not in gone)

    # -- notices and marks ------------------------------------------------------------------------------------------

    @rule()
    def tell(self) -> None:
        notice = object()
        self.backlog.tell(notice)
        self.notices.append((notice, {row.uid for row in self.model}))

    @rule(share=st.floats(0, 1))
    def watch(self, share: float) -> None:
        place = round(len(self.model) * share)
        before = {row.uid for index, row in enumerate(self.model) if index < place}
        self.marks.append((self.backlog.watch(place), before))

    @rule()
    def clear(self) -> None:
        self.chunk = None
        assert self.backlog.clear() == len(self.model)
        self.forget(self.model)
        self.notices.clear()
        self.model.clear()
        self.until_due = self.room

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "backlog"):
            return
        assert self.backlog.waiting == len(self.model)
        for kind, queue in self.backlog.queues.items():
            waiting = self.waiting_of(kind)
            assert queue.waiting == waiting
            assert queue.free <= CAPACITY - waiting
        if self.model:
            assert self.backlog.waits.first[1] == self.model[0].came_ns
        for mark, before in self.marks:
            assert self.backlog.has_reached(mark) == (not before)


Order.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestOrder = Order.TestCase


@pytest.mark.parametrize("interleaved", [True, False])
def test_a_chunk_may_go_across_the_end_of_the_order_but_not_of_a_ring(interleaved: bool) -> None:
    backlog = Backlog(dict.fromkeys(EventType, CAPACITY))
    kinds = [EventType.ORDER, EventType.FILL] * 300 if interleaved else [EventType.ORDER] * 300 + [EventType.FILL] * 300
    number = 0
    for _ in range(12):
        assert backlog.push(rows_of(kinds, number), 0) == 600
        expected = list(zip(kinds, range(number, number + 600), strict=True))
        number += 600
        while backlog.waiting:
            parts, total = backlog.next_parts(1_024)
            assert merged(parts, total) == expected[:total]
            expected = expected[total:]
            backlog.dispatched(parts, total)


# -- taken out --------------------------------------------------------------------------------------------------------


@pytest.fixture
def backlog() -> Backlog:
    return Backlog(dict.fromkeys(EventType, CAPACITY))


def test_what_a_chunk_shows_can_not_be_removed(backlog: Backlog) -> None:
    backlog.push(rows_of([EventType.FILL, EventType.ORDER] * 5, 0), 0)
    parts, total = backlog.next_parts(4)
    backlog.taken = total
    rows, places = backlog.removable(EventType.FILL)
    assert rows["log_sequence"].tolist() == places.tolist() == [4, 6, 8]
    assert backlog.remove_first(EventType.FILL, 100) == 3
    assert merged(parts, total)[-1] == (EventType.ORDER, 3)
    backlog.dispatched(parts, total)
    parts, total = backlog.next_parts(100)
    assert merged(parts, total) == [(EventType.ORDER, number) for number in (5, 7, 9)]


def test_the_oldest_of_a_type_are_found_far_behind_rows_of_others(backlog: Backlog) -> None:
    backlog.push(rows_of([EventType.ORDER] * 900 + [EventType.FILL] * 3 + [EventType.ORDER, EventType.FILL], 0), 0)
    assert backlog.remove_first(EventType.FILL, 2) == 2
    assert backlog.removable(EventType.FILL)[0]["log_sequence"].tolist() == [902, 904]
    assert backlog.remove_first(EventType.SIGNAL, 1) == 0


def test_a_queue_that_rows_are_removed_from_again_and_again_never_runs_out_of_places(backlog: Backlog) -> None:
    """Places that were passed over come back as soon as nothing before them waits."""
    queue = backlog.queues[EventType.FILL]
    for turn in range(50):
        assert backlog.push(rows_of([EventType.FILL] * CAPACITY, turn * CAPACITY), 0) == CAPACITY
        assert backlog.remove_first(EventType.FILL, CAPACITY // 2) == CAPACITY // 2
        assert queue.free == CAPACITY // 2
        assert backlog.remove_first(EventType.FILL, CAPACITY) == CAPACITY // 2
        assert (queue.free, queue.drained) == (CAPACITY, 0)


# -- waiting for rows of other lanes ----------------------------------------------------------------------------------


def dispatch(backlog: Backlog, most: int) -> list[int]:
    """Up to so many rows through a chunk; their numbers."""
    parts, total = backlog.next_parts(most)
    numbers = [number for _, number in merged(parts, total)]
    backlog.dispatched(parts, total)
    return numbers


def is_blocked(backlog: Backlog) -> bool:
    return backlog.blocked_by is not None


def test_a_row_waits_until_another_lane_has_come_so_far(backlog: Backlog) -> None:
    other = Backlog(dict.fromkeys(EventType, CAPACITY))
    other.push(rows_of([EventType.FILL] * 5, 100), 0)
    backlog.push(rows_of([EventType.ORDER] * 4, 0), 0)
    until = other.watch(3)
    backlog.hold(2, other, until)
    assert not is_blocked(backlog)
    assert dispatch(backlog, 100) == [0, 1]
    assert backlog.blocked_by == (other, until)
    assert dispatch(other, 2) == [100, 101]
    assert backlog.blocked_by == (other, until)
    assert dispatch(other, 1) == [102]
    assert not is_blocked(backlog)
    assert dispatch(backlog, 100) == [2, 3]


@pytest.mark.parametrize("removed_from", ["its own lane", "the other lane"])
def test_rows_that_are_removed_take_nobodys_place_in_waiting(backlog: Backlog, removed_from: str) -> None:
    other = Backlog(dict.fromkeys(EventType, CAPACITY))
    other.push(rows_of([EventType.FILL] * 5, 100), 0)
    backlog.push(rows_of([EventType.FILL] * 4, 0), 0)
    backlog.hold(2, other, other.watch(3))
    if removed_from == "its own lane":
        backlog.remove_first(EventType.FILL, 1)
        assert dispatch(backlog, 100) == [1]
        assert is_blocked(backlog)
    else:
        other.remove(EventType.FILL, np.array([1, 2, 4]))
        assert dispatch(backlog, 100) == [0, 1]
        assert is_blocked(backlog)
        assert dispatch(other, 1) == [100]
        assert not is_blocked(backlog)


def test_what_is_done_of_a_chunk_in_progress_counts_as_reached(backlog: Backlog) -> None:
    other = Backlog(dict.fromkeys(EventType, CAPACITY))
    other.push(rows_of([EventType.FILL] * 5, 100), 0)
    backlog.push(rows_of([EventType.ORDER], 0), 0)
    backlog.hold(0, other, other.watch(3))
    for done, blocked in ((0, True), (2, True), (3, False)):
        other.done_in_chunk = partial(int, done)
        assert is_blocked(backlog) is blocked


def test_several_rows_wait_each_for_its_own(backlog: Backlog) -> None:
    other = Backlog(dict.fromkeys(EventType, CAPACITY))
    other.push(rows_of([EventType.FILL] * 5, 100), 0)
    backlog.push(rows_of([EventType.ORDER] * 3, 0), 0)
    backlog.hold(0, other, other.watch(2))
    backlog.hold(1, other, other.watch(1))
    backlog.hold(2, other, other.watch(5))
    seen = []
    for _ in range(5):
        while backlog.waiting and not is_blocked(backlog):
            seen += dispatch(backlog, 100)
        seen += dispatch(other, 1)
    assert seen == [100, 101, 0, 1, 102, 103, 104]
    assert not is_blocked(backlog)
