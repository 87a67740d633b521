"""Lines from the counter to the time that is shown: they never fall, and compiled code comes to the same ns."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.clock import kernels
from hftlab.clock.line import Line

GAINS = st.floats(-0.1, 0.1)
YEARS_NS = 5 * 365 * 86_400_000_000_000
LINES = st.builds(
    Line.bent,
    st.integers(0, 1 << 60),
    st.integers(0, 1 << 61),
    GAINS,
    st.integers(0, 10**13),
    GAINS,
)


@given(LINES, st.integers(0, YEARS_NS), st.integers(0, 1 << 20))
def test_a_line_never_falls(line: Line, first_ns: int, further_ns: int) -> None:
    one, other = line.begin_ns + first_ns, line.begin_ns + first_ns + further_ns
    assert line.at(one) <= line.at(other)
    assert line.at(one) <= line.at(one + 1)


@given(LINES, st.integers(0, 1 << 20))
def test_a_line_does_not_jump_where_it_bends(line: Line, further_ns: int) -> None:
    at_bend = line.at(line.end_ns)
    assert 0 <= at_bend - line.at(line.end_ns - 1) <= 2 if line.end_ns > line.begin_ns else at_bend == line.shown_ns
    gain = line.at(line.end_ns + further_ns) - at_bend - further_ns
    assert gain == pytest.approx(further_ns * line.rate, abs=1)


@given(LINES, st.integers(0, YEARS_NS))
def test_compiled_code_comes_to_the_same_ns(line: Line, elapsed_ns: int) -> None:
    block = np.zeros(kernels.BLOCK_WORDS, np.int64)
    counter_ns = line.begin_ns + elapsed_ns
    slew, rate = (struct.unpack("<q", struct.pack("<d", gain))[0] for gain in (line.slew, line.rate))
    words = (line.begin_ns, line.shown_ns, slew, line.end_ns, line.end_shown_ns, rate)
    kernels.change(block.ctypes.data)
    assert block[kernels.VERSION] == 1
    kernels.changed(block.ctypes.data, *words)
    assert block[kernels.VERSION] == 2
    for show in (kernels.shown_at, kernels.shown_at.py_func):
        assert show(block.ctypes.data, counter_ns) == line.at(counter_ns)
