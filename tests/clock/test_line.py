"""Lines from the counter to the time that is shown: they never fall, and compiled code comes to the same ns."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.clock import kernels
from hftlab.clock.line import LONGEST_BEND_NS, Line, Target

SECOND_NS = 1_000_000_000
YEARS_NS = 100 * 365 * 86_400 * SECOND_NS
GAINS = st.floats(1e-6, 0.1)
DRIFTS = st.floats(-5e-4, 5e-4)
# From nothing over a day to 40 years: what is missing decides how long the line takes to its bend.
MISSING = st.one_of(*(st.integers(-(10**exponent), 10**exponent) for exponent in (1, 6, 10, 14, 18)))
COUNTERS = st.integers(0, 1 << 58)


@st.composite
def lines(draw: st.DrawFn) -> tuple[Line, Target]:
    """A line that was going somewhere, and where it is to go now."""
    counter_ns, shown_ns = draw(COUNTERS), draw(st.integers(1 << 60, 1 << 61))
    line = Line.plain(counter_ns, shown_ns)
    targets = [
        Target(
            at_ns=counter_ns - draw(st.integers(0, 10_000 * SECOND_NS)),
            utc_ns=shown_ns + draw(MISSING),
            rate=draw(DRIFTS),
            least_ns=draw(st.integers(1, 64 * SECOND_NS)),
            most_gain=draw(GAINS),
            jump=draw(st.integers(0, 1)),
        )
        for _ in range(2)
    ]
    return line.toward(counter_ns, targets[0]), targets[1]


def block_of(line: Line) -> npt.NDArray[np.int64]:
    block = np.zeros(kernels.BLOCK_WORDS, np.int64)
    kernels.place(block.ctypes.data, *line)
    return block


# Where the counter has come to: within the bend, around it, and years after.
PLACES = st.one_of(st.integers(0, 1 << 40), st.integers(0, LONGEST_BEND_NS), st.integers(0, YEARS_NS))


@given(lines(), PLACES, st.integers(0, 1 << 20), st.booleans())
def test_a_line_never_falls_within_years(
    told: tuple[Line, Target], first_ns: int, further_ns: int, around: bool
) -> None:
    line, _ = told
    one = max(line.begin_ns, line.end_ns - (first_ns >> 20)) if around else line.begin_ns + first_ns
    assert line.at(one) <= line.at(one + 1) <= line.at(one + 1 + further_ns)


def test_the_widest_gain_on_the_longest_bend_never_falls() -> None:
    line = Line.plain(0, 0).toward(0, Target(0, 10**18, -5e-4, 1, 0.1))
    back = Line.plain(0, 2 * 10**18).toward(0, Target(0, 10**18, 5e-4, 1, 0.1))
    for one in (line, back):
        assert one.end_ns == LONGEST_BEND_NS
        for begin_ns in (0, 1 << 40, LONGEST_BEND_NS - 5_000, LONGEST_BEND_NS + 5_000, 1 << 61):
            shown = [one.at(begin_ns + step) for step in range(10_000)]
            assert shown == sorted(shown)


@given(lines(), st.integers(0, 1 << 20))
def test_a_line_does_not_jump_where_it_bends(told: tuple[Line, Target], further_ns: int) -> None:
    line, _ = told
    at_bend = line.at(line.end_ns)
    assert 0 <= at_bend - line.at(line.end_ns - 1) <= 2
    gain = line.at(line.end_ns + further_ns) - at_bend - further_ns
    assert gain == pytest.approx(further_ns * line.rate, abs=1)


@given(lines(), PLACES)
def test_a_new_line_goes_on_where_the_old_one_is_and_comes_to_its_target(
    told: tuple[Line, Target], elapsed_ns: int
) -> None:
    line, target = told
    counter_ns = line.begin_ns + elapsed_ns
    after, utc_ns = line.toward(counter_ns, target), target.utc_at(counter_ns)
    jumps = target.jump and utc_ns > line.at(counter_ns)
    assert after.at(counter_ns) == (utc_ns if jumps else line.at(counter_ns))
    assert abs(after.slew - target.rate) <= target.most_gain * (1 + 1e-12)
    if after.end_ns - after.begin_ns < LONGEST_BEND_NS:
        # Rounded in float64: the product at the bend, and UTC's own years after the estimate.
        rounded = 3 + abs(target.utc_at(after.end_ns) - utc_ns) * 1e-15 + abs(after.shown_ns - utc_ns) * 1e-15
        assert abs(after.end_shown_ns - target.utc_at(after.end_ns)) <= rounded


@given(lines(), PLACES)
def test_compiled_code_comes_to_the_same_ns(told: tuple[Line, Target], elapsed_ns: int) -> None:
    line, target = told
    counter_ns = line.begin_ns + elapsed_ns
    (at_ns, utc_ns, rate, least_ns, most_gain, jump) = target
    after = line.toward(counter_ns, target)
    for compiled in (True, False):
        show, bend = (
            cast(Any, kernel) if compiled else cast(Any, kernel).py_func
            for kernel in (kernels.shown_at, kernels.bend_at)
        )
        block = block_of(line)
        assert show(block.ctypes.data, counter_ns) == line.at(counter_ns)
        bend(block.ctypes.data, counter_ns, at_ns, utc_ns, rate, least_ns, most_gain, jump)
        assert block.tolist() == [0, *block_of(after).tolist()[1:]]
