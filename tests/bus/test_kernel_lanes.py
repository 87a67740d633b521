"""The look for events that name their lane themselves: compiled and as plain Python, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hftlab.bus.kernels import lanes
from hftlab.events.records import RECORD, ROW_BYTES
from hftlab.events.rowbytes import data_address

ANY = [lanes.any_priority, lanes.any_priority.py_func]


@pytest.mark.parametrize("function", ANY, ids=["compiled", "python"])
@given(arrays(np.uint8, (9, ROW_BYTES)), st.sets(st.integers(0, 8)), st.sampled_from([1, 2, 3, -1, -2]))
def test_a_priority_is_found_wherever_it_stands_and_whatever_stands_beside_it(
    function: Any, raw: Any, those: set[int], step: int
) -> None:
    rows = raw.view(RECORD).reshape(-1)
    rows["priority"] = [4 if index in those else 0 for index in range(len(rows))]
    for some in (rows[::step], rows[2::step], rows[:0]):
        wanted = bool((some["priority"] != 0).any())
        assert function(data_address(some), some.strides[0], len(some)) == wanted


def test_the_kernel_is_compiled_ahead() -> None:
    assert lanes.warm() == 1
    before = len(lanes.any_priority.signatures)
    rows = np.zeros(3, RECORD)
    assert lanes.any_priority(data_address(rows), rows.strides[0], len(rows)) is False
    assert len(lanes.any_priority.signatures) == before
