"""The judge itself: each way to break a promise is noticed."""

from __future__ import annotations

import numpy as np
import pytest

from hftlab.events import EventBatch
from tests.faults.history import check_effects, check_history, rows_of
from tests.streams.batches import mixed

SENT = [mixed(10, seed=1), mixed(10, seed=2)]
OTHER = [mixed(10, seed=3)]


def logged(*parts: EventBatch) -> EventBatch:
    """A log that holds these, one after the other."""
    batch = EventBatch.concat(parts)
    batch.records["log_sequence"] = np.arange(len(batch))
    return batch


def test_what_was_promised_passes_and_is_counted() -> None:
    counts = check_history(logged(SENT[0], OTHER[0], SENT[1][:3]), [(SENT, 1), (OTHER, 1)])
    assert counts == {"sent": 30, "acknowledged": 20, "recovered": 23, "lost": 0}
    assert rows_of(logged(SENT[0], OTHER[0]), OTHER) == 10


def test_a_loss_is_noticed_unless_it_is_to_be_counted() -> None:
    with pytest.raises(AssertionError, match="3 acknowledged events are lost"):
        check_history(logged(SENT[0][:7]), [(SENT, 1)])
    assert check_history(logged(SENT[0][:7]), [(SENT, 1)], may_lose=True)["lost"] == 3
    with pytest.raises(AssertionError, match="10 acknowledged events are lost"):
        check_history(logged(SENT[0]), [(SENT, 1)], whole=True)


@pytest.mark.parametrize(
    "parts",
    [(SENT[1], SENT[0]), (SENT[0], SENT[0]), (SENT[0][:4], SENT[0][5:]), (SENT[0], SENT[1][1:])],
    ids=["out of order", "twice", "a hole", "a hole between batches"],
)
def test_disorder_repetition_and_holes_are_noticed(parts: tuple[EventBatch, ...]) -> None:
    with pytest.raises(AssertionError, match="out of order, twice, or with a hole"):
        check_history(logged(*parts), [(SENT, 0)], may_lose=True)


def test_an_event_that_nobody_sent_is_noticed() -> None:
    with pytest.raises(AssertionError, match="that nobody sent"):
        check_history(logged(SENT[0], OTHER[0]), [(SENT, 1)])


def test_log_sequences_with_a_hole_are_noticed() -> None:
    batch = logged(SENT[0])
    batch.records["log_sequence"][5:] += 1
    with pytest.raises(AssertionError):
        check_history(batch, [(SENT, 1)])


def test_effects_are_done_once_each() -> None:
    assert check_effects("abc", "cab") == {"effects": 3}
    for done, said in (("abca", "more than once"), ("ab", "never done"), ("abcd", "nobody asked for")):
        with pytest.raises(AssertionError, match=said):
            check_effects(done, "abc")
