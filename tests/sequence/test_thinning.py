from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.sequence.gaps import GAP, GapState
from hftlab.sequence.thinning import ends_of, latest_ns, thinned


def gaps(count: int, seed: int = 0, sources: int = 3) -> np.ndarray:
    random = np.random.default_rng(seed)
    records = np.zeros(count, GAP)
    records["source"] = random.integers(0, sources, count)
    records["state"] = random.integers(1, 4, count)
    records["first"] = np.arange(count) * 10
    records["last"] = records["first"] + random.integers(0, 9, count)
    records["opened_ns"] = 10**18 + np.sort(random.integers(0, 10**10, count))
    closed = records["opened_ns"] + random.integers(0, 10**9, count)
    records["closed_ns"] = np.where(records["state"] == GapState.OPEN, 0, closed)
    return records


def test_few_gaps_are_all_drawn_each_for_itself() -> None:
    records = gaps(50)
    chosen, stands_for, stretch_ns = thinned(records, ends_of(records), 50)
    assert chosen.tolist() == list(range(50))
    assert set(stands_for.tolist()) == {1}
    assert stretch_ns == 0


@pytest.mark.parametrize("seed", range(3))
def test_many_gaps_are_thinned_to_the_longest_of_their_kind_and_stretch_and_counted(seed: int) -> None:
    records = gaps(5_000, seed)
    ends_ns = ends_of(records)
    chosen, stands_for, stretch_ns = thinned(records, ends_ns, 500)
    assert 250 < len(chosen) <= 500
    assert stands_for.sum() == 5_000
    assert (np.diff(chosen) > 0).all()
    begin = records["opened_ns"].min()
    stretches = (records["opened_ns"] - begin) // stretch_ns
    for index, stood in zip(chosen.tolist(), stands_for.tolist(), strict=True):
        alike = (records["source"] == records["source"][index]) & (records["state"] == records["state"][index])
        alike &= stretches == stretches[index]
        assert alike.sum() == stood
        lengths = (ends_ns - records["opened_ns"])[alike]
        assert ends_ns[index] - records["opened_ns"][index] == lengths.max()


@given(st.integers(0, 300), st.integers(1, 60), st.integers(1, 100))
def test_no_more_are_drawn_than_allowed_whatever_there_is(count: int, most: int, sources: int) -> None:
    records = gaps(count, seed=count, sources=sources)
    chosen, stands_for, _ = thinned(records, ends_of(records), most)
    assert len(chosen) == len(stands_for) == len(set(chosen.tolist())) <= most
    assert stands_for.sum() <= count
    assert (count == 0) == (len(chosen) == 0)


def test_what_opened_before_the_part_that_is_looked_at_counts_as_its_beginning() -> None:
    records = gaps(100, sources=1)
    records["state"] = GapState.LOST
    begin_ns = int(records["opened_ns"][60])
    chosen, stands_for, _ = thinned(records, ends_of(records), 40, begin_ns)
    assert stands_for.sum() == 100
    assert (chosen <= 60).sum() <= 2


def test_open_gaps_end_at_the_latest_known_moment_or_later() -> None:
    records = gaps(3)
    records["state"] = GapState.OPEN
    records["closed_ns"] = 0
    latest = int(records["opened_ns"].max())
    assert ends_of(records).tolist() == [latest] * 3
    assert ends_of(records, latest + 5).tolist() == [latest + 5] * 3
    assert latest_ns(records[:0]) == 0
