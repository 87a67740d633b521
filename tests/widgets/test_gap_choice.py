from __future__ import annotations

import numpy as np
import pytest

from hftlab.sequence import GapState
from hftlab.widgets.gap_choice import MARK, MOST_LANES, MOST_MARKS, ORDERS, Choice, choose, timeline, whole_range
from hftlab.widgets.known_gaps import KnownGaps
from tests.widgets.gapped import SECOND, Gaps, gap
from tests.widgets.recorded import START_NS


def known_of(*records: np.ndarray) -> KnownGaps:
    known = KnownGaps(keeps=True)
    known.take(Gaps(*records).fresh())
    return known


def four() -> KnownGaps:
    return known_of(
        gap(0, 50, 59, opened_s=0, lasted_s=1),
        gap(1, 7, 7, GapState.OPEN, source=2, opened_s=1),
        gap(2, 90, 90, GapState.FILLED, opened_s=2, lasted_s=0.5),
        gap(3, 10, 12, source=2, opened_s=3, lasted_s=2),
    )


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(), [0, 1, 2, 3]),
        (Choice(descending=True), [3, 2, 1, 0]),
        (Choice(source=2), [1, 3]),
        (Choice(states=frozenset({GapState.LOST})), [0, 3]),
        (Choice(source=1, states=frozenset({GapState.OPEN})), []),
        (Choice(order="numbers", descending=True), [0, 3, 2, 1]),
        (Choice(order="duration"), [2, 0, 3, 1]),
        (Choice(order="first"), [1, 3, 0, 2]),
        (Choice(order="source"), [0, 2, 1, 3]),
        (Choice(order="state"), [1, 2, 0, 3]),
    ],
)
def test_gaps_are_filtered_and_ordered(choice: Choice, expected: list[int]) -> None:
    assert choose(four(), choice).tolist() == expected


def test_the_same_order_again_is_the_reverse() -> None:
    assert Choice().ordered("numbers") == Choice(order="numbers")
    assert Choice().ordered("opened") == Choice(descending=True)
    assert all(len(choose(four(), Choice(order=order))) == 4 for order in ORDERS)


def test_a_state_is_shown_or_hidden() -> None:
    hidden = Choice().toggled(GapState.OPEN)
    assert hidden.states == {GapState.FILLED, GapState.LOST}
    assert hidden.toggled(GapState.OPEN) == Choice()


def test_the_whole_is_what_is_replayed_and_all_gaps() -> None:
    begin_ns, end_ns = whole_range(four(), (START_NS + SECOND, START_NS + 60 * SECOND))
    assert begin_ns < START_NS
    assert end_ns > START_NS + 60 * SECOND
    assert whole_range(four(), (0, 0))[1] > START_NS + 5 * SECOND
    assert whole_range(KnownGaps(keeps=True), (0, 0)) == (0, 0)


def marks_of(shown: dict[str, object]) -> dict[str, list[int]]:
    data = shown["marks"]
    assert isinstance(data, bytes)
    rows = np.frombuffer(data, np.int64).reshape(len(MARK), -1)
    return dict(zip(MARK, rows.tolist(), strict=True))


def test_the_timeline_has_a_mark_for_each_of_a_few_gaps() -> None:
    known = four()
    shown = timeline(known, choose(known, Choice()), whole_range(known, (0, 0)))
    marks = marks_of(shown)
    assert marks["first"] == [50, 7, 90, 10]
    assert marks["state"] == [3, 1, 2, 3]
    assert marks["closed_ns"][1] == 0
    assert set(marks["stands_for"]) == {1}
    assert shown["lanes"] == [["1", "binance/depth/BTCUSDT"], ["2", "binance/trade/BTCUSDT"]]
    assert (shown["gaps"], shown["drawn"], shown["more_sources"]) == (4, 4, 0)


def test_a_part_of_the_time_has_the_gaps_that_reach_into_it() -> None:
    known = four()
    shown = timeline(known, choose(known, Choice()), (START_NS + int(2.1 * SECOND), START_NS + int(2.9 * SECOND)))
    # The open one has been open since, the filled one still was at its beginning.
    assert marks_of(shown)["first"] == [7, 90]


def test_very_many_gaps_and_sources_are_thinned_out_and_it_says_so() -> None:
    gaps = Gaps()
    records = np.zeros(20_000, gaps.records.dtype)
    index = np.arange(20_000)
    records["serial"] = records["first"] = records["last"] = index
    records["source"] = 1 + index % 50
    records["state"] = GapState.LOST
    records["opened_ns"] = START_NS + index * 1_000_000
    records["closed_ns"] = records["opened_ns"] + index % 997
    for number in range(60):
        gaps.sources.intern(type(gaps.sources[1])("venue", str(number)))
    gaps.put(records)
    known = KnownGaps(keeps=True)
    known.take(gaps.fresh())
    shown = timeline(known, choose(known, Choice()), whole_range(known, (0, 0)))
    assert len(shown["lanes"]) == MOST_LANES
    assert shown["more_sources"] == 50 - MOST_LANES
    assert MOST_MARKS / 2 < shown["drawn"] <= MOST_MARKS
    assert shown["gaps"] == sum(marks_of(shown)["stands_for"]) == 400 * MOST_LANES
    assert shown["stretch"].endswith("ms")
