from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.events import Source, SourceTable
from hftlab.sequence import GAP, GapState
from hftlab.widgets.known_gaps import GapKey, KnownGaps, found_again, goes_on
from tests.widgets.gapped import DEPTH, TRADE, Gaps, gap


def keys(known: KnownGaps) -> list[tuple[int, int, bool]]:
    return [
        (first, last, earlier)
        for (first, last), earlier in zip(
            known.records[["first", "last"]].tolist(), known.earlier.tolist(), strict=True
        )
    ]


def test_a_table_is_read_when_its_version_changed_and_says_whether_its_gaps_did() -> None:
    gaps = Gaps(gap(0, 1, 2))
    table, known = gaps.fresh(), KnownGaps(keeps=True)
    assert known.take(table)
    assert known.generation == 1
    assert not known.take(table)
    gaps.version += 1  # something was received, no gap changed
    assert known.take(table)
    assert known.generation == 1
    gaps.put(gap(0, 1, 2), gap(1, 5, 5))
    assert known.take(table)
    assert known.generation == 2
    assert len(known) == 2


def test_after_a_seek_backwards_the_gaps_stay_marked_until_they_are_found_again() -> None:
    gaps, known = Gaps(gap(0, 1, 2), gap(1, 8, 9)), KnownGaps(keeps=True)
    known.take(gaps.fresh())
    gaps.put()
    known.take(gaps.fresh())
    assert keys(known) == [(1, 2, True), (8, 9, True)]
    gaps.put(gap(0, 1, 2, GapState.OPEN))
    known.take(gaps.fresh())
    assert keys(known) == [(1, 2, False), (8, 9, True)]
    gaps.put(gap(0, 1, 2), gap(1, 8, 9))
    known.take(gaps.fresh())
    assert keys(known) == [(1, 2, False), (8, 9, False)]


def test_a_gap_that_was_in_pieces_is_found_again_by_the_whole_that_they_came_from() -> None:
    gaps, known = Gaps(gap(0, 1, 3), gap(0, 4, 4, GapState.FILLED), gap(0, 5, 9)), KnownGaps(keeps=True)
    known.take(gaps.fresh())
    gaps.put(gap(0, 1, 9, GapState.OPEN))
    known.take(gaps.fresh())
    assert keys(known) == [(1, 9, False)]


def test_a_gap_that_splits_within_its_run_is_no_earlier_runs() -> None:
    gaps, known = Gaps(gap(0, 1, 9, GapState.OPEN)), KnownGaps(keeps=True)
    table = gaps.fresh()
    known.take(table)
    key = known.key(0)
    gaps.put(gap(0, 1, 3, GapState.OPEN), gap(0, 4, 4, GapState.FILLED, lasted_s=0.1), gap(0, 5, 9, GapState.OPEN))
    known.take(table)
    assert not known.earlier.any()
    found = known.find(key)
    assert found is not None
    assert known.key(found) == GapKey(1, 0, 1, 3)


def test_what_a_full_table_forgets_is_no_earlier_runs_either() -> None:
    gaps, known = Gaps(gap(0, 1, 2), gap(1, 8, 9)), KnownGaps(keeps=True)
    table = gaps.fresh()
    known.take(table)
    gaps.put(gap(1, 8, 9), gap(2, 20, 20))
    known.take(table)
    assert keys(known) == [(8, 9, False), (20, 20, False)]


def test_without_keeping_another_runs_gaps_go() -> None:
    gaps, known = Gaps(gap(0, 1, 2)), KnownGaps(keeps=False)
    known.take(gaps.fresh())
    gaps.put()
    known.take(gaps.fresh())
    assert len(known) == 0


def test_sources_keep_their_ids_whatever_ids_another_runs_table_gives_them() -> None:
    gaps, known = Gaps(gap(0, 1, 2, source=1), gap(1, 1, 2, source=2)), KnownGaps(keeps=True)
    known.take(gaps.fresh())
    assert [str(source) for _, source, _ in known.by_source()] == [str(DEPTH), str(TRADE)]
    gaps.sources = SourceTable([Source("other"), TRADE, DEPTH])
    gaps.put(gap(0, 1, 2, source=3))
    known.take(gaps.fresh())
    assert [(known.gap(i).source, bool(known.earlier[i])) for i in range(2)] == [(DEPTH, False), (TRADE, True)]


def test_counts_are_by_state_and_by_source() -> None:
    known = KnownGaps(keeps=True)
    known.take(Gaps(gap(0, 1, 2), gap(1, 5, 5, GapState.OPEN), gap(2, 1, 1, source=2)).fresh())
    assert known.by_state() == {GapState.OPEN: 1, GapState.FILLED: 0, GapState.LOST: 2}
    assert [count for _, _, count in known.by_source()] == [2, 1]


def test_an_empty_table_goes_on_as_anything_and_nothing_goes_on_as_an_empty_one() -> None:
    nothing = np.zeros(0, GAP)
    assert goes_on(nothing, nothing)
    assert goes_on(nothing, gap(0, 1, 2))
    assert not goes_on(gap(0, 1, 2), nothing)
    assert not goes_on(gap(0, 1, 2), gap(0, 1, 2, opened_s=1))


ranges = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 4)), max_size=12)


def disjoint(drawn: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    kept: list[tuple[int, int, int]] = []
    for source, first, length in drawn:
        last = first + length
        if all(source != s or last < f or first > e for s, f, e in kept):
            kept.append((source, first, last))
    return kept


@given(ranges, ranges)
def test_found_again_is_sharing_a_number_with_a_gap_of_the_same_source(
    old: list[tuple[int, int, int]], now: list[tuple[int, int, int]]
) -> None:
    before, after = disjoint(old), disjoint(now)
    rows = [
        np.concatenate([np.zeros(0, GAP), *(gap(0, f, e, source=s) for s, f, e in part)]) for part in (before, after)
    ]
    expected = [any(s == s2 and f <= e2 and e >= f2 for s2, f2, e2 in after) for s, f, e in before]
    assert found_again(*rows).tolist() == expected


@pytest.mark.parametrize("key", [GapKey(1, 0, 50, 60), GapKey(2, 0, 1, 2), GapKey(1, 1, 1, 2)])
def test_what_is_nowhere_is_not_found(key: GapKey) -> None:
    known = KnownGaps(keeps=True)
    known.take(Gaps(gap(0, 1, 2)).fresh())
    assert known.find(key) is None
