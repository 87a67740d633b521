"""Runs of equal values, against a plain list of one value a row."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hftlab.bus.spans import Spans

shares = st.floats(0, 1)


class Runs(RuleBasedStateMachine):
    """Rows come at the back, go from the front, from the back, or from anywhere."""

    @initialize()
    def begin(self) -> None:
        self.spans = Spans()
        self.model: list[int] = []

    @rule(rows=st.integers(1, 9), value=st.integers(-2, 2))
    def append(self, rows: int, value: int) -> None:
        self.spans.append(rows, value)
        self.model += [value] * rows

    @rule(share=shares)
    def take(self, share: float) -> None:
        rows = round(len(self.model) * share)
        runs = self.spans.take(rows)
        assert [value for count, value in runs for _ in range(count)] == self.model[:rows]
        assert all(count > 0 for count, _ in runs)
        del self.model[:rows]

    @rule(share=shares)
    def keep(self, share: float) -> None:
        rows = round(len(self.model) * share)
        self.spans.keep(rows)
        del self.model[rows:]

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sets(st.integers(0, max(len(self.model) - 1, 0)), max_size=len(self.model)))
        places = sorted(chosen) if self.model else []
        self.spans.remove(np.array(places, np.intp))
        self.model = [value for place, value in enumerate(self.model) if place not in chosen]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def look(self, data: st.DataObject) -> None:
        places = data.draw(st.lists(st.integers(0, len(self.model) - 1), max_size=9))
        assert self.spans.at(np.array(places, np.intp)).tolist() == [self.model[place] for place in places]

    @rule()
    def clear(self) -> None:
        self.spans.clear()
        self.model.clear()

    @invariant()
    def the_front_is_known(self) -> None:
        if not hasattr(self, "spans"):
            return
        assert bool(self.spans) == bool(self.model)
        if self.model:
            rows, value = self.spans.first
            assert 0 < rows <= len(self.model)
            assert set(self.model[:rows]) == {value}


Runs.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestRuns = Runs.TestCase


def test_equal_values_that_follow_one_another_are_one_run() -> None:
    spans = Spans()
    for rows, value in ((2, 7), (3, 7), (1, 8)):
        spans.append(rows, value)
    assert spans.first == (5, 7)
    assert spans.take(6) == [(5, 7), (1, 8)]
    assert not spans


def test_a_run_whose_rows_are_all_removed_is_gone() -> None:
    spans = Spans()
    for value in range(3):
        spans.append(2, value)
    spans.remove(np.array([0, 1, 3]))
    assert spans.take(3) == [(1, 1), (2, 2)]
