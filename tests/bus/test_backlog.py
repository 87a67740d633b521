"""The total order over all types, against a list."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hftlab.bus.backlog import Backlog, Part
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


class Order(RuleBasedStateMachine):
    """Pushes rows of any types, takes chunks and parts of them, and takes rows back."""

    @initialize(room=st.sampled_from([None, 1, 3, 40]))
    def begin(self, room: int | None) -> None:
        self.backlog = Backlog(dict.fromkeys(EventType, CAPACITY))
        self.symbols, self.sources = SymbolTable(["X"]), SourceTable()
        self.model: deque[tuple[EventType, int, int]] = deque()
        self.number = 0
        self.room = room
        if room is not None:
            batches = Subscription("batches", print, "batch", frozenset({EventType.FILL}), batch_rows=room)
            self.backlog.queues[EventType.FILL].arrange([batches])
        self.until_due = room

    def note(self, kinds: list[EventType], session: int) -> None:
        for kind in kinds:
            self.model.append((kind, self.number, session))
            self.number += 1

    def waiting_of(self, kind: EventType) -> int:
        return sum(waiting == kind for waiting, _, _ in self.model)

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
                self.model[-1] = (kind, 0, 0)
            assert self.number == number + 1

    @precondition(lambda self: self.model)
    @rule(most=st.integers(1, 500), share=st.floats(0, 1))
    def take(self, most: int, share: float) -> None:
        assert self.backlog.session_number == self.model[0][2]
        parts, total = self.backlog.next_parts(most)
        assert 1 <= total <= most
        expected = [self.model[index] for index in range(total)]
        assert merged(parts, total) == [(kind, number) for kind, number, _ in expected]
        assert {session for _, _, session in expected} == {part.session_number for part in parts}
        done = round(total * share)
        if self.until_due is not None:
            fills = [index for index, one in enumerate(expected) if one[0] is EventType.FILL]
            # No chunk goes on behind the row that fills a batch.
            assert len(fills) < self.until_due or fills[self.until_due - 1 :] == [total - 1]
            queue = self.backlog.queues[EventType.FILL]
            shown = sum(index < done for index in fills)
            for due in queue.show_published(shown):
                assert due.rows["log_sequence"].tolist()[-1] == expected[fills[-1]][1]
                queue.delivered(due)
            self.until_due = queue.room
        self.backlog.dispatched(parts, done)
        for _ in range(done):
            self.model.popleft()

    @rule(share=st.floats(0, 1))
    def withdraw(self, share: float) -> None:
        kept = round(len(self.model) * share)
        assert self.backlog.withdraw(kept) == len(self.model) - kept
        while len(self.model) > kept:
            self.model.pop()

    @rule()
    def clear(self) -> None:
        assert self.backlog.clear() == len(self.model)
        self.model.clear()
        self.until_due = self.room

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "backlog"):
            assert self.backlog.waiting == len(self.model)
            for kind, queue in self.backlog.queues.items():
                assert queue.free <= CAPACITY - self.waiting_of(kind)


Order.TestCase.settings = settings(max_examples=40, stateful_step_count=40)
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
