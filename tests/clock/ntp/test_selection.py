"""Whom to believe: truechimers, falsetickers, and what most of them agree on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.clock.ntp.selection import Candidate, cluster, combine, majority_interval, select


def test_nobody_says_nothing() -> None:
    assert select([]) is None
    assert majority_interval([]) is None


def test_a_single_server_is_believed() -> None:
    chosen = select([Candidate("a", 100.0, 10.0)])
    assert chosen is not None
    assert (chosen.offset_ns, chosen.bound_ns, chosen.truechimers) == (100.0, 10.0, ("a",))


def test_two_that_contradict_each_other_have_no_majority() -> None:
    assert select([Candidate("a", 0.0, 10.0), Candidate("b", 100.0, 10.0)]) is None


def test_two_that_agree_bound_the_truth_by_where_they_meet() -> None:
    chosen = select([Candidate("a", 0.0, 10.0), Candidate("b", 15.0, 10.0)])
    assert chosen is not None
    assert chosen.truechimers == ("a", "b")
    assert (chosen.offset_ns, chosen.bound_ns) == (7.5, 2.5)


def test_the_one_that_stays_away_from_the_others_is_named() -> None:
    chosen = select([Candidate("a", 0.0, 10.0), Candidate("b", 500.0, 10.0), Candidate("c", 5.0, 10.0)])
    assert chosen is not None
    assert (chosen.truechimers, chosen.falsetickers) == (("a", "c"), ("b",))


def test_half_against_half_has_no_majority() -> None:
    assert (
        select([Candidate(name, at, 10.0) for name, at in zip("abcd", (0.0, 1.0, 500.0, 501.0), strict=True)]) is None
    )


def test_intervals_that_only_touch_do_meet() -> None:
    chosen = select([Candidate("a", 0.0, 10.0), Candidate("b", 20.0, 10.0)])
    assert chosen is not None
    assert (chosen.offset_ns, chosen.bound_ns) == (10.0, 0.0)


def test_a_majority_that_lies_together_is_believed_and_the_honest_one_named() -> None:
    """Nobody can tell: the documented limit."""
    chosen = select([Candidate("honest", 0.0, 10.0), Candidate("x", 900.0, 10.0), Candidate("y", 905.0, 10.0)])
    assert chosen is not None
    assert chosen.falsetickers == ("honest",)


def test_the_bound_is_of_all_that_most_hold_and_not_of_where_all_meet() -> None:
    """A liar can make the intersection of all as narrow as it likes, anywhere between the honest ones' ends."""
    honest = [Candidate("a", 0.0, 10.0), Candidate("b", 2.0, 10.0)]
    chosen = select([*honest, Candidate("liar", 9.9, 0.1)])
    assert chosen is not None
    assert chosen.offset_ns - chosen.bound_ns <= -8.0
    assert chosen.offset_ns + chosen.bound_ns >= 10.0


def test_clustering_leaves_out_the_one_that_scatters_the_others_most_and_stops_at_three() -> None:
    near = [Candidate(name, offset, 1e6, jitter_ns=10.0) for name, offset in zip("abcd", (0, 5, 10, 15), strict=True)]
    survivors = cluster([*near, Candidate("far", 5_000.0, 1e6, jitter_ns=10.0)])
    assert {one.server for one in survivors} <= set("abcd")
    assert len(survivors) >= 3
    spread = [Candidate(name, place * 1_000.0, 1e6) for place, name in enumerate("abcdef")]
    assert len(cluster(spread)) == 3


def test_clustering_keeps_all_that_scatter_no_more_than_each_does_by_itself() -> None:
    some = [Candidate(name, float(place), 1e6, jitter_ns=1_000.0) for place, name in enumerate("abcdef")]
    assert len(cluster(some)) == 6


def test_combining_weighs_by_one_over_the_root_distance() -> None:
    offset, _ = combine([Candidate("a", 0.0, 10.0), Candidate("b", 30.0, 20.0)])
    assert offset == pytest.approx(10.0)


interval = st.tuples(st.integers(-1_000, 1_000), st.integers(0, 500)).map(lambda one: (one[0], one[0] + one[1]))


@given(st.lists(interval, min_size=1, max_size=9))
def test_the_majoritys_interval_is_from_the_first_to_the_last_point_that_most_hold(
    intervals: list[tuple[int, int]],
) -> None:
    most = len(intervals) // 2 + 1
    held = [
        at for at in sorted({end for one in intervals for end in one})
        if sum(low <= at <= high for low, high in intervals) >= most
    ]  # fmt: skip
    assert majority_interval(intervals) == ((held[0], held[-1]) if held else None)


@given(
    honest=st.lists(st.tuples(st.floats(-1, 1), st.integers(1, 10**8)), min_size=1, max_size=5),
    liars=st.lists(st.tuples(st.integers(-(10**10), 10**10), st.integers(0, 10**9)), max_size=4),
    data=st.data(),
)
def test_a_minority_of_liars_never_moves_the_truth_out_of_the_bound_and_is_named_where_it_stays_away(
    honest: list[tuple[float, int]], liars: list[tuple[int, int]], data: st.DataObject
) -> None:
    liars = liars[: len(honest) - 1]
    candidates = [Candidate(f"honest{n}", part * bound, bound) for n, (part, bound) in enumerate(honest)]
    candidates += [Candidate(f"liar{n}", offset, bound) for n, (offset, bound) in enumerate(liars)]
    chosen = select(data.draw(st.permutations(candidates)))
    assert chosen is not None
    assert abs(chosen.offset_ns) <= chosen.bound_ns + 1e-6
    low = max(one.low for one in candidates if one.server.startswith("honest"))
    high = min(one.high for one in candidates if one.server.startswith("honest"))
    for one in candidates:
        if one.server.startswith("liar") and (one.high < low or one.low > high):
            apart = all(
                one.high < other.low or one.low > other.high for other in candidates if other.server != one.server
            )
            assert one.server in chosen.falsetickers or not apart
