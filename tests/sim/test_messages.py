"""Rows as messages, and numbers for sources that have none."""

from __future__ import annotations

import numpy as np
import pytest

import hftlab.sim as sim
from hftlab.errors import ValidationError
from hftlab.events import EventBatch, Source, SourceTable, SymbolTable
from hftlab.events.rowbytes import take_rows
from hftlab.sim.messages import messages_of
from tests.sim.lines import BARE, PLUS_ONE, Sent, batch_of, line, numbers


def test_rows_of_other_sources_may_lie_between_the_rows_of_a_message() -> None:
    batch = batch_of([Sent(PLUS_ONE, 0, 1, parts=2), Sent(BARE, 0, -1, parts=2), Sent(PLUS_ONE, 0, 2)])
    woven = take_rows(batch.records, np.array([0, 2, 1, 3, 4]))
    messages = messages_of(woven)
    assert messages.count.tolist() == [2, 1, 2]
    assert messages.rows_of(np.array([0, 2])).tolist() == [0, 2, 1, 3]
    assert (messages.first_row.tolist(), messages.last_row.tolist()) == ([0, 4, 1], [2, 4, 3])
    assert messages.opens.tolist() == [True, False, True]


def test_a_message_that_comes_twice_in_a_row_is_two() -> None:
    batch = batch_of([Sent(PLUS_ONE, 0, 1, parts=2), Sent(PLUS_ONE, 0, 1, parts=2)])
    assert messages_of(batch.records).count.tolist() == [2, 2]


def test_sources_without_numbers_get_them_by_message_and_epoch() -> None:
    sent = [Sent(BARE, 0, -1, parts=2), Sent(PLUS_ONE, 0, 7), Sent(BARE, 0, -1), Sent(BARE, 1, -1)]
    batch = batch_of(sent)
    found = sim.numbered(batch)
    assert numbers(found) == [1, 1, 7, 2, 1]
    assert found.column("source")[0] == Source("nyx", "ticks", rule="plus-one")
    assert found.column("source")[2] == batch.sources[PLUS_ONE]
    assert numbers(batch) == [-1, -1, 7, -1, -1], "the batch is not changed"


def test_a_batch_with_numbers_is_itself() -> None:
    batch = line(3)
    assert sim.numbered(batch) is batch


def test_a_source_that_would_be_numbered_like_another_is_refused() -> None:
    records = batch_of([Sent(1, 0, -1), Sent(2, 0, 5)]).records
    sources = SourceTable([Source("nyx", "ticks"), Source("nyx", "ticks", rule="plus-one")])
    with pytest.raises(ValidationError, match=r"'nyx/ticks' has no numbers and would be numbered as"):
        sim.numbered(EventBatch(records, SymbolTable(["A"]), sources))
