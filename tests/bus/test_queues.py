"""One type's queue: room, windows, and what keeps its rows from being written over."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hftlab.bus.queues import MAX_CAPACITY, TypeQueue
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
