from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.sim import Burst
from hftlab.sim.pace import Pace

MS = 1_000_000
TWENTY = Pace(1_000, [Burst(0.1, 0.05, times=20)])


def test_the_first_event_is_due_at_once_and_the_others_evenly_after_it() -> None:
    assert Pace(1_000).due_ns(np.arange(4)).tolist() == [0, MS, 2 * MS, 3 * MS]
    assert [Pace(1_000).due_by(elapsed_ns) for elapsed_ns in (-1, 0, MS - 1, MS, 10 * MS)] == [0, 1, 1, 2, 11]


def test_a_burst_is_as_many_times_the_rate_for_as_long_as_it_says() -> None:
    spaces = np.diff(TWENTY.due_ns(np.arange(1_200)))
    assert (spaces[:100] == MS).all()
    assert (spaces[100:1_100] == MS // 20).all()
    assert (spaces[1_100:] == MS).all()
    assert TWENTY.due_before(150 * MS) - TWENTY.due_before(100 * MS) == 1_000


def test_nothing_is_due_in_a_lull_of_rate_0() -> None:
    pace = Pace(1_000, [Burst(0.01, 0.05, times=0)])
    due_ns = pace.due_ns(np.arange(20))
    assert due_ns[9:12].tolist() == [9 * MS, 10 * MS, 61 * MS]
    assert pace.due_before(61 * MS) == pace.due_by(10 * MS) == 11


@given(
    st.floats(0.1, 1e6),
    st.lists(st.tuples(st.floats(0, 2), st.floats(1e-3, 2), st.floats(0, 100)), max_size=4),
    st.integers(0, 3_000),
)
def test_an_event_is_due_when_it_is_among_those_that_are(
    rate_hz: float, spans: list[tuple[float, float, float]], place: int
) -> None:
    bursts, end_s = [], 0.0
    for gap_s, for_s, times in spans:
        bursts.append(Burst(end_s + gap_s, for_s, times))
        end_s += gap_s + for_s + 1e-6
    pace = Pace(rate_hz, bursts)
    due_ns = int(pace.due_ns(np.array([place]))[0])
    # Real numbers: an event is due at the ns that they round up to, give or take what is lost in rounding.
    assert pace.due_by(due_ns + 2) >= place + 1
    assert pace.due_by(due_ns - 2) <= place + 1 + rate_hz * 1e-6


def test_due_times_never_fall() -> None:
    assert (np.diff(TWENTY.due_ns(np.arange(5_000))) >= 0).all()


def test_bursts_that_overlap_are_refused() -> None:
    with pytest.raises(ValidationError, match="overlap"):
        Pace(10, [Burst(1, 2), Burst(2.5, 1)])
    assert Pace(10, [Burst(3, 1), Burst(1, 2)]).bursts == (Burst(1, 2), Burst(3, 1))


@pytest.mark.parametrize("wrong", [Burst(0, 1), [3], 5])
def test_what_is_no_sequence_of_bursts_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError, match="Burst"):
        Pace(10, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("arguments", [(-1, 1), (0, 0), (0, 1, -1), (0, float("nan")), ("x", 1)])
def test_a_burst_has_a_beginning_a_length_and_a_height(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        Burst(*arguments)
