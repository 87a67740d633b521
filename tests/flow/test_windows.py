from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.flow.windows import CountWindow, TimeWindow

SECOND = 1_000_000_000
RUNS = st.lists(
    st.tuples(
        st.integers(1, 12),
        st.sampled_from([0, 0, 1, SECOND // 2, SECOND, 4 * SECOND, -2 * SECOND]),
        st.booleans(),
        st.booleans(),
    ),
    max_size=30,
)


@given(size=st.integers(1, 70), runs=RUNS)
def test_a_count_window_holds_the_last_calls(size: int, runs: list[tuple[int, int, bool, bool]]) -> None:
    window = CountWindow(size)
    outcomes: list[tuple[bool, bool]] = []
    for calls, _, failed, slow in runs:
        window.add(calls, 0, failed=failed, slow=slow)
        outcomes = (outcomes + [(failed, slow)] * calls)[-size:]
        assert (window.calls, window.failed, window.slow) == (
            len(outcomes),
            sum(failed for failed, _ in outcomes),
            sum(slow for _, slow in outcomes),
        )


@given(size_s=st.integers(1, 5), runs=RUNS, start_s=st.integers(-3, 3))
def test_a_time_window_holds_the_calls_of_the_last_seconds_and_never_goes_back(
    size_s: int, runs: list[tuple[int, int, bool, bool]], start_s: int
) -> None:
    window = TimeWindow(size_s)
    outcomes: list[tuple[int, bool, bool]] = []
    now_ns, second = start_s * SECOND, -100
    for calls, gap_ns, failed, slow in runs:
        now_ns += gap_ns
        second = max(second, now_ns // SECOND)
        window.add(calls, now_ns, failed=failed, slow=slow)
        outcomes += [(second, failed, slow)] * calls
        held = [outcome for outcome in outcomes if outcome[0] > second - size_s]
        assert (window.calls, window.failed, window.slow) == (
            len(held),
            sum(failed for _, failed, _ in held),
            sum(slow for _, _, slow in held),
        )


def test_moving_a_time_window_lets_go_of_what_is_too_old_and_of_nothing_else() -> None:
    window = TimeWindow(3)
    window.add(5, SECOND // 2, failed=True)
    window.add(2, SECOND, slow=True)
    window.move_to(3 * SECOND - 1)
    assert (window.calls, window.failed, window.slow) == (7, 5, 2)
    window.move_to(3 * SECOND)
    assert (window.calls, window.failed, window.slow) == (2, 0, 2)
    window.move_to(0)
    assert window.calls == 2
    window.move_to(4 * SECOND)
    assert (window.calls, window.slow) == (0, 0)


@pytest.mark.parametrize(
    ("times_s", "moved_to_s", "length"),
    [
        ([0.0, 0.5, 0.9], None, 3),
        ([0.0, 0.5, 1.0, 1.1, 7.0], None, 2),
        ([1.0, 1.0, 2.0], 0.0, 2),
        ([1.2, 1.9, 2.0], 1.0, 2),
        ([0.5, 0.6, 5.0, 6.0], 5.9, 3),
    ],
)
def test_calls_of_one_second_are_a_run_in_a_time_window_and_any_in_a_count_window(
    times_s: list[float], moved_to_s: float | None, length: int
) -> None:
    times: Any = (np.array(times_s) * SECOND).astype(np.int64)
    window = TimeWindow(5)
    if moved_to_s is not None:
        window.move_to(round(moved_to_s * SECOND))
    assert window.run_length(times) == length
    assert CountWindow(5).run_length(times) == len(times)
