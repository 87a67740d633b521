"""Which lane works next: the longest wait is proved over any sequence of standings, and inheritance over any chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from hftlab.bus.schedule import Schedule, Standing
from hftlab.events import Priority

AGEING_NS = 100
LEVELS = [Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW]
CRITICAL, HIGH, NORMAL, LOW = range(4)  # places in a list of standings


def standing(level: Priority, *, ready: bool = True, waited_ns: int = 0, blocked_by: int | None = None) -> Standing:
    return Standing(int(level), ready, waited_ns, blocked_by)


def lanes(
    ready: Sequence[bool] = (True,) * 4,
    waited_ns: Sequence[int] = (0,) * 4,
    blocked_by: Sequence[int | None] = (None,) * 4,
) -> list[Standing]:
    """The four lanes, the most urgent first."""
    return [
        Standing(int(level), *rest)
        for level, rest in zip(LEVELS, zip(ready, waited_ns, blocked_by, strict=True), strict=True)
    ]


# -- strict priority --------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), max_size=12), st.integers(0, 1 << 62))
def test_without_ageing_the_most_urgent_lane_that_is_ready_works(turns: list[list[bool]], waited_ns: int) -> None:
    schedule = Schedule(0)
    for ready in turns:
        chosen = schedule.choose(lanes(ready, (0, 0, 0, waited_ns)))
        assert chosen == (ready.index(True) if any(ready) else None)


def test_nobody_is_chosen_out_of_nobody() -> None:
    assert Schedule(0).choose([]) is None
    assert Schedule(AGEING_NS).levels([]) == []


@given(st.permutations(LEVELS))
def test_the_lanes_places_in_the_list_mean_nothing(order: list[Priority]) -> None:
    schedule = Schedule(AGEING_NS)
    chosen = schedule.choose([standing(level) for level in order])
    assert chosen is not None
    assert order[chosen] is Priority.CRITICAL


# -- ageing -----------------------------------------------------------------------------------------------------------


@given(st.sampled_from(LEVELS), st.integers(0, 20 * AGEING_NS))
def test_a_lane_rises_by_a_level_for_each_interval_that_its_oldest_event_has_waited(
    level: Priority, waited_ns: int
) -> None:
    (risen,) = Schedule(AGEING_NS).levels([standing(level, waited_ns=waited_ns)])
    assert risen == min(level + waited_ns // AGEING_NS, Priority.CRITICAL)


def test_a_lane_overtakes_another_at_the_very_moment_of_its_rise() -> None:
    for waited_ns, chosen in ((AGEING_NS - 1, HIGH), (AGEING_NS, NORMAL)):
        schedule = Schedule(AGEING_NS)
        schedule.choose(lanes((False, True, False, False)))  # HIGH has had the last turn
        assert schedule.choose(lanes((False, True, True, False), (0, 0, waited_ns, 0))) == chosen


def test_lanes_of_one_level_take_turns() -> None:
    schedule = Schedule(AGEING_NS)
    aged = lanes(waited_ns=(0, AGEING_NS, 2 * AGEING_NS, 3 * AGEING_NS))
    turns = [schedule.choose(aged) for _ in range(12)]
    assert set(turns[:4]) == {CRITICAL, HIGH, NORMAL, LOW}
    assert turns == turns[:4] * 3


@dataclass
class Turn:
    """What comes before one decision: time, and new heads for lanes that had none."""

    passed_ns: int
    arrives: list[bool]


turns = st.lists(
    st.builds(Turn, passed_ns=st.integers(0, 60), arrives=st.lists(st.booleans(), min_size=4, max_size=4)),
    min_size=1,
    max_size=60,
)


@settings(max_examples=300)
@given(turns, st.booleans(), st.booleans())
def test_any_head_is_chosen_within_three_intervals_and_a_turn_of_every_other_lane(
    sequence: list[Turn], inherit: bool, busy: bool
) -> None:
    """``busy``: the others never run out of events: whoever is chosen has a new head at once."""
    schedule = Schedule(AGEING_NS, inherit=inherit)
    now_ns = 0
    heads: list[int | None] = [0 if busy else None] * 4
    turns_at_the_top = [0] * 4  # decisions for others since the lane's head has waited for three intervals
    for turn in sequence:
        now_ns += turn.passed_ns
        heads = [
            now_ns if arrives and head is None else head for arrives, head in zip(turn.arrives, heads, strict=True)
        ]
        ready = [head is not None for head in heads]
        waited_ns = [0 if head is None else now_ns - head for head in heads]
        chosen = schedule.choose(lanes(ready, waited_ns))
        assert (chosen is None) == (not any(ready))
        if chosen is None:
            continue
        for place in range(4):
            if place == chosen:
                turns_at_the_top[place] = 0
            elif ready[place] and waited_ns[place] >= 3 * AGEING_NS:
                turns_at_the_top[place] += 1
                assert turns_at_the_top[place] <= len(LEVELS) - 1
        event(f"up to {max(turns_at_the_top)} turns of others after three intervals")
        heads[chosen] = now_ns if busy else None


def test_the_longest_wait_is_reached_and_not_only_allowed() -> None:
    schedule = Schedule(AGEING_NS)
    aged = lanes(waited_ns=(0, 3 * AGEING_NS, 3 * AGEING_NS, 3 * AGEING_NS))
    waits = [schedule.choose(aged) for _ in range(4)].index(LOW)
    assert waits == 3


def test_without_ageing_a_busy_lane_starves_the_others_for_good() -> None:
    schedule = Schedule(0)
    assert {schedule.choose(lanes(waited_ns=(0, 0, 0, 1 << 60))) for _ in range(100)} == {CRITICAL}


# -- inheritance ------------------------------------------------------------------------------------------------------


def test_inversion_as_in_the_textbook_and_its_end_by_inheritance() -> None:
    """CRITICAL waits for LOW, and HIGH and NORMAL, which have nothing to do with it, go on and on."""
    inverted = lanes((False, True, True, True), blocked_by=(LOW, None, None, None))
    classical, inheriting = Schedule(0, inherit=False), Schedule(0, inherit=True)
    assert [classical.choose(inverted) for _ in range(50)] == [HIGH] * 50
    assert [inheriting.choose(inverted) for _ in range(50)] == [LOW] * 50


def test_a_lane_that_waits_for_nobody_lends_nothing() -> None:
    assert Schedule(0).levels(lanes()) == [4, 3, 2, 1]


def test_what_is_lent_is_given_back_when_the_cause_is_through() -> None:
    schedule = Schedule(0)
    assert schedule.choose(lanes((False, True, True, True), blocked_by=(LOW, None, None, None))) == LOW
    assert schedule.choose(lanes()) == CRITICAL


@given(st.permutations(range(4)), st.integers(1, 3))
def test_inheritance_is_transitive_however_the_chain_runs(order: list[int], links: int) -> None:
    """Each lane of the chain waits for the next one; all of them reach the level of the most urgent before them."""
    blocked_by: list[int | None] = [None] * 4
    for waiting, cause in pairwise(order[: links + 1]):
        blocked_by[waiting] = cause
    levels = Schedule(0).levels(lanes(blocked_by=blocked_by))
    own = [int(level) for level in LEVELS]
    expected = list(own)
    for at, place in enumerate(order[: links + 1]):
        expected[place] = max(own[before] for before in order[: at + 1])
    assert levels == expected


@given(
    st.lists(st.none() | st.integers(0, 3), min_size=4, max_size=4),
    st.lists(st.integers(0, 500), min_size=4, max_size=4),
)
def test_levels_are_the_greatest_of_all_that_wait_for_a_lane(
    blocked_by: list[int | None], waited_ns: list[int]
) -> None:
    """Cycles included: they lend to one another, and end."""
    found = Schedule(AGEING_NS).levels(lanes(blocked_by=blocked_by, waited_ns=waited_ns))
    plain = Schedule(AGEING_NS, inherit=False).levels(lanes(blocked_by=blocked_by, waited_ns=waited_ns))
    for place in range(4):
        lenders = {place}
        while True:
            more = lenders | {other for other in range(4) if blocked_by[other] in lenders}
            if more == lenders:
                break
            lenders = more
        assert found[place] == max(plain[lender] for lender in lenders)


def test_an_aged_lane_lends_the_level_that_it_has_risen_to() -> None:
    schedule = Schedule(AGEING_NS)
    waiting = lanes((True, True, False, True), (0, 0, 2 * AGEING_NS, 0), (None, None, LOW, None))
    assert schedule.levels(waiting) == [4, 3, 4, 4]


@pytest.mark.parametrize("inherit", [True, False])
def test_a_lane_that_is_blocked_is_never_chosen_itself(inherit: bool) -> None:
    schedule = Schedule(AGEING_NS, inherit=inherit)
    blocked = lanes((False, True, True, True), blocked_by=(LOW, None, None, None))
    assert CRITICAL not in {schedule.choose(blocked) for _ in range(20)}
