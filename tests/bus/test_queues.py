"""One type's queue: room, windows, and what keeps its rows from being written over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hftlab.bus.queues import MAX_CAPACITY, Due, TypeQueue
from hftlab.bus.subscriptions import Subscription
from hftlab.errors import ValidationError
from hftlab.events import EventType, SourceTable, SymbolTable
from tests.bus.handlers import make_event
from tests.bus.samples import trades

CAPACITY = 1_024


def batches(name: str = "batches", batch_rows: int = 10) -> Subscription:
    return Subscription(name, print, "batch", frozenset({EventType.MARKET_DATA}), batch_rows=batch_rows)


@pytest.fixture
def queue() -> TypeQueue:
    return TypeQueue(EventType.MARKET_DATA, CAPACITY)


def pass_on(queue: TypeQueue, count: int) -> list[Any]:
    """Dispatch rows as the bus does: shown first, then given up."""
    due = queue.show_published(count)
    queue.dispatched(count)
    return due


@pytest.mark.parametrize("capacity", [0, 1, 512, 1_000, 1_025, MAX_CAPACITY * 2, -1_024, 1_024.0, True, "1024", None])
def test_a_capacity_is_a_power_of_two_in_bounds(capacity: Any) -> None:
    with pytest.raises(ValidationError, match="power of two of 1,024 to 16,777,216 rows; got"):
        TypeQueue(EventType.MARKET_DATA, capacity)


def test_rows_go_in_and_out_in_order(queue: TypeQueue) -> None:
    assert queue.push(trades(5).records) == 5
    assert queue.peek(3)["price"].tolist() == [0, 1, 2]
    pass_on(queue, 2)
    assert queue.peek(100)["price"].tolist() == [2, 3, 4]
    assert queue.free == CAPACITY - 3


def test_what_is_looked_at_can_not_be_written(queue: TypeQueue) -> None:
    queue.push(trades(5).records)
    with pytest.raises(ValueError, match="read-only"):
        queue.peek(3)["price"] = 1


def test_a_look_ends_where_the_ring_ends(queue: TypeQueue) -> None:
    for _ in range(3):
        queue.push(trades(300).records)
        pass_on(queue, 300)
    queue.push(trades(300).records)
    assert len(queue.peek(300)) == CAPACITY - 900
    pass_on(queue, CAPACITY - 900)
    assert len(queue.peek(300)) == 300 - (CAPACITY - 900)


def test_an_event_goes_in_where_there_is_room(queue: TypeQueue) -> None:
    symbols, sources = SymbolTable(), SourceTable()
    event = make_event(EventType.MARKET_DATA, "BTC")
    assert queue.push_event(event, 7, symbols, sources)
    assert queue.peek(1)["received"].tolist() == [7]
    assert list(symbols) == ["BTC"]
    queue.push(trades(CAPACITY).records)
    assert not queue.push_event(event, 7, symbols, sources)


def test_a_window_is_due_when_its_rows_have_passed(queue: TypeQueue) -> None:
    queue.arrange([batches("tens", 10), batches("fours", 4)])
    queue.push(trades(30).records)
    assert queue.room == 4
    assert pass_on(queue, 3) == []
    assert queue.room == 1
    (due,) = pass_on(queue, 1)
    assert due.rows["price"].tolist() == [0, 1, 2, 3]
    assert (due.published, due.begin) == (4, 0)
    assert queue.room == 4
    assert [d.subscription.name for d in queue.flush()] == ["tens"]
    assert not queue.holds_rows


def test_emitted_rows_count_and_lie_where_they_were_dispatched(queue: TypeQueue) -> None:
    queue.arrange([batches(batch_rows=6)])
    queue.push(trades(30).records)
    pass_on(queue, 2)
    assert queue.show_emitted(trades(1, first=100).records) == []
    pass_on(queue, 1)
    (due,) = queue.show_emitted(trades(2, first=200).records)
    assert due.rows["price"].tolist() == [0, 1, 100, 2, 200, 201]
    assert due.published == 3


@pytest.mark.parametrize("held_by", ["window", "due batch"])
def test_rows_that_are_still_shown_are_not_written_over(queue: TypeQueue, held_by: str) -> None:
    queue.arrange([batches(batch_rows=8 if held_by == "due batch" else 9)])
    queue.push(trades(8).records)
    due = pass_on(queue, 8)
    assert queue.free == CAPACITY - 8
    assert queue.push(trades(CAPACITY, first=50).records) == CAPACITY - 8
    if held_by == "window":
        due = pass_on(queue, 1)
    assert due[0].rows["price"].tolist()[:8] == list(range(8))
    queue.delivered(due[0])
    assert queue.free == (8 if held_by == "due batch" else 9)


def test_several_batches_may_be_due_and_free_the_ring_in_any_order(queue: TypeQueue) -> None:
    queue.arrange([batches("a", 4), batches("b", 4)])
    queue.push(trades(8).records)
    first, second = pass_on(queue, 4)
    third, fourth = pass_on(queue, 4)
    for due, free in ((second, 8), (fourth, 8), (first, 4), (third, 0)):
        queue.delivered(due)
        assert queue.free == CAPACITY - free
    queue.delivered(third)
    assert queue.free == CAPACITY


def test_windows_keep_their_order_and_their_rows_when_others_come_and_go(queue: TypeQueue) -> None:
    a, b, c = batches("a", 10), batches("b", 10), batches("c", 10)
    queue.arrange([a, b])
    queue.push(trades(30).records)
    pass_on(queue, 4)
    queue.arrange([c, b])
    assert a.missed == 4
    (due,) = pass_on(queue, 6)
    assert due.subscription is b
    assert [window.subscription.name for window in queue.windows] == ["c", "b"]
    assert [window.count for window in queue.windows] == [6, 0]


def test_a_replaced_handlers_window_goes_to_its_heir_if_it_fits(queue: TypeQueue) -> None:
    before = batches("it", 10)
    queue.arrange([before])
    queue.push(trades(30).records)
    pass_on(queue, 5)
    heir = batches("it", 6)
    queue.arrange([heir])
    assert (before.missed, queue.room) == (0, 1)
    too_small = batches("it", 5)
    queue.arrange([too_small])
    assert (heir.missed, queue.room) == (5, 5)


def test_a_due_batch_goes_to_its_handlers_heir_unless_it_was_begun(queue: TypeQueue) -> None:
    queue.arrange([batches("a", 4), batches("b", 4), batches("c", 4)])
    queue.push(trades(8).records)
    begun, waiting, lost = pass_on(queue, 4)
    begun.begun = True
    lost_handler = lost.subscription
    first = begun.subscription
    heir = batches("b", 4)
    queue.arrange([heir])
    assert begun.subscription is first
    assert queue.is_due(begun)
    assert waiting.subscription is heir
    assert not queue.is_due(lost)
    assert lost_handler.missed == 4
    assert first.missed == 0


def test_rows_that_were_taken_back_are_passed_over(queue: TypeQueue) -> None:
    queue.push(trades(10).records)
    queue.withdraw(4)
    assert queue.push(trades(2, first=100).records) == 2
    assert queue.peek(100)["price"].tolist() == [0, 1, 2, 3, 4, 5]
    pass_on(queue, 6)
    assert queue.peek(100)["price"].tolist() == [100, 101]


def test_a_window_does_not_hold_the_places_of_rows_that_were_taken_back(queue: TypeQueue) -> None:
    queue.arrange([batches(batch_rows=512)])
    queue.push(trades(5).records)
    pass_on(queue, 5)
    for _ in range(20):
        assert queue.push(trades(500, first=1_000).records) == 500
        queue.withdraw(500)
    queue.push(trades(507, first=5).records)
    (due,) = pass_on(queue, 507)
    assert due.rows["price"].tolist() == list(range(512))


def test_clearing_forgets_everything(queue: TypeQueue) -> None:
    queue.arrange([batches(batch_rows=4)])
    queue.push(trades(10).records)
    pass_on(queue, 4)
    pass_on(queue, 1)
    queue.clear()
    assert queue.free == CAPACITY
    assert len(queue.peek(10)) == 0
    assert not queue.holds_rows
    queue.push(trades(4, first=50).records)
    (due,) = pass_on(queue, 4)
    assert due.rows["price"].tolist() == [50, 51, 52, 53]


def test_a_batch_is_a_view_where_it_lies_in_one_piece(queue: TypeQueue) -> None:
    queue.arrange([batches(batch_rows=512)])
    for first in range(0, 2_048, 64):
        queue.push(trades(64, first=first).records)
        for due in pass_on(queue, 64):
            assert np.shares_memory(due.rows, queue._rows)
            queue.delivered(due)


# -- taken out --------------------------------------------------------------------------------------------------------


class Removal(RuleBasedStateMachine):
    """Rows come in, are dispatched through windows, and are removed from anywhere behind those that a chunk shows:
    against lists. What windows and due batches show is never written over."""

    @initialize(sizes=st.lists(st.sampled_from([1, 3, 40, 300, 512]), max_size=2))
    def begin(self, sizes: list[int]) -> None:
        self.queue = TypeQueue(EventType.MARKET_DATA, CAPACITY)
        self.queue.arrange([batches(f"batches {at}", size) for at, size in enumerate(sizes)])
        self.sizes = sizes
        self.waiting: list[int] = []
        self.windows: list[list[int]] = [[] for _ in sizes]
        self.due: list[tuple[Due, list[int]]] = []
        self.number = self.gone = 0

    @rule(count=st.sampled_from([1, 7, 150, 400, 1_024]))
    def push(self, count: int) -> None:
        taken = self.queue.push(trades(count, first=self.number).records)
        assert taken == min(count, CAPACITY) or self.queue.free == 0
        self.waiting += range(self.number, self.number + taken)
        self.number += taken

    @rule(count=st.sampled_from([1, 2, 33, 300, 1_024]))
    def dispatch(self, count: int) -> None:
        rows = self.queue.peek(min(count, self.queue.room))["price"].tolist()
        assert rows == self.waiting[: len(rows)]
        assert rows or not self.waiting
        for due in pass_on(self.queue, len(rows)):
            at = [window.subscription for window in self.queue.windows].index(due.subscription)
            self.due.append((due, [*self.windows[at], *rows][: self.sizes[at]]))
        for at, size in enumerate(self.sizes):
            window = [*self.windows[at], *rows]
            self.windows[at] = [] if len(window) == size else window
        del self.waiting[: len(rows)]

    @precondition(lambda self: self.due)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        due, _ = self.due.pop(data.draw(st.integers(0, len(self.due) - 1)))
        self.queue.delivered(due)

    @rule(taken=st.sampled_from([0, 0, 1, 30, 200]), begin=st.floats(0, 1), step=st.integers(1, 5), data=st.data())
    def remove(self, taken: int, begin: float, step: int, data: st.DataObject) -> None:
        taken = min(taken, len(self.waiting))
        left = self.waiting[taken:]
        assert self.queue.undispatched(taken)["price"].tolist() == left
        count = data.draw(st.integers(0, len(left)))
        places = list(range(round(begin * len(left)), len(left), step))[:count]
        if not places:
            return
        self.queue.remove(taken, np.array(places, np.intp))
        for place in reversed(places):
            del self.waiting[taken + place]
        self.gone += len(places)

    @invariant()
    def nothing_is_lost_or_written_over(self) -> None:
        if not hasattr(self, "queue"):
            return
        assert self.queue.undispatched(0)["price"].tolist() == self.waiting
        assert self.queue.waiting == len(self.waiting)
        assert self.queue.drained == self.number - self.gone - len(self.waiting)
        assert [window.count for window in self.queue.windows] == [len(window) for window in self.windows]
        for due, rows in self.due:
            assert due.rows["price"].tolist() == rows
        if not self.due and not self.waiting:
            assert self.queue.free >= (CAPACITY // 2 if any(self.windows) else CAPACITY)


Removal.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestRemoval = Removal.TestCase


def test_a_queue_that_never_held_a_row_has_none_to_remove(queue: TypeQueue) -> None:
    assert len(queue.undispatched(0)) == 0
    assert (queue.waiting, queue.drained, queue.free) == (0, 0, CAPACITY)


def test_removing_the_oldest_moves_nothing(queue: TypeQueue) -> None:
    queue.push(trades(10).records)
    queue.remove(0, np.arange(4))
    assert queue.peek(100)["price"].tolist() == [4, 5, 6, 7, 8, 9]
    assert queue.free == CAPACITY - 6


def test_what_stays_before_a_removed_row_moves_up_beside_the_rest(queue: TypeQueue) -> None:
    queue.push(trades(10).records)
    queue.remove(0, np.array([2, 5, 9]))
    assert queue.peek(100)["price"].tolist() == [0, 1, 3, 4, 6, 7, 8]
    assert queue.free == CAPACITY - 7


def test_places_behind_a_chunk_in_progress_come_back_with_its_end(queue: TypeQueue) -> None:
    queue.push(trades(10).records)
    shown = queue.peek(4)
    queue.remove(4, np.arange(3))
    assert shown["price"].tolist() == [0, 1, 2, 3]
    assert queue.free == CAPACITY - 10
    pass_on(queue, 4)
    assert queue.peek(100)["price"].tolist() == [7, 8, 9]
    assert queue.free == CAPACITY - 3


def test_rows_may_be_removed_across_the_end_of_the_ring_and_around_those_taken_back(queue: TypeQueue) -> None:
    queue.push(trades(1_000).records)
    pass_on(queue, 1_000)
    queue.push(trades(20).records)
    queue.withdraw(5)
    queue.push(trades(20, first=100).records)
    assert queue.undispatched(0)["price"].tolist() == [*range(15), *range(100, 120)]
    queue.remove(3, np.array([0, 13, 30]))
    left: list[float] = []
    while queue.waiting:
        rows = queue.peek(100)["price"].tolist()
        left += rows
        pass_on(queue, len(rows))
    assert left == [0, 1, 2, *range(4, 15), 100, *range(102, 118), 119]
    assert queue.free == CAPACITY


def test_a_window_does_not_hold_the_places_of_rows_that_were_removed(queue: TypeQueue) -> None:
    queue.arrange([batches(batch_rows=512)])
    queue.push(trades(5).records)
    pass_on(queue, 5)
    for _ in range(20):
        assert queue.push(trades(500, first=1_000).records) == 500
        queue.remove(0, np.arange(500))
    queue.push(trades(507, first=5).records)
    (due,) = pass_on(queue, 507)
    assert due.rows["price"].tolist() == list(range(512))


@pytest.mark.parametrize("gone", ["taken back", "removed"])
def test_a_window_does_not_hold_the_places_of_rows_that_were_gone_before_it_began(queue: TypeQueue, gone: str) -> None:
    queue.arrange([batches(batch_rows=512)])
    queue.push(trades(CAPACITY).records)
    if gone == "taken back":
        queue.withdraw(CAPACITY - 5)
    else:
        queue.remove(5, np.arange(CAPACITY - 5))
    pass_on(queue, 5)
    assert queue.waiting == 0
    assert queue.push(trades(507, first=5).records) == 507
    (due,) = pass_on(queue, 507)
    assert due.rows["price"].tolist() == list(range(512))
