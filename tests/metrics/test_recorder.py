from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.errors import ValidationError
from hftlab.metrics import Histogram, IntervalRecorder, kernels
from tests.metrics.test_histogram import content, filled
from tests.metrics.test_kernels import lists


@given(st.lists(st.tuples(lists, st.integers(0, 100)), max_size=6), lists)
def test_intervals_add_up_to_the_total_and_follow_each_other(
    parts: list[tuple[list[int], int]], rest: list[int]
) -> None:
    recorder = IntervalRecorder(1_000)
    added, now_ns = Histogram(), 1_000
    everything: list[int] = []
    for part, lasted_ns in parts:
        recorder.record_many(np.array(part, np.int64))
        everything += part
        interval = recorder.interval(now_ns + lasted_ns)
        assert content(interval) == content(filled(part))
        assert (interval.begin_ns, interval.end_ns) == (now_ns, now_ns + lasted_ns)
        now_ns += lasted_ns
        added.merge(interval)
    assert content(recorder.total()) == content(added)
    for value in rest:
        recorder.record(value)
    total = recorder.total(now_ns + 5)
    assert content(total) == content(filled(everything + rest))
    assert (total.begin_ns, total.end_ns) == (1_000, now_ns + 5)
    assert content(recorder.interval(now_ns)) == content(filled(rest))


def test_an_interval_that_was_handed_out_changes_no_more() -> None:
    recorder = IntervalRecorder(0)
    recorder.record(5)
    interval = recorder.interval(10)
    recorder.record(7, 3)
    assert (interval.count, interval.maximum) == (1, 5)
    interval.record(9)
    assert recorder.total().recorded == 4


def test_kernels_record_at_one_address_through_all_intervals() -> None:
    recorder = IntervalRecorder(0, name="sojourn")
    address = recorder.address
    for moment in range(1, 4):
        kernels.record_repeated(address, moment, 10)
        assert recorder.interval(moment).count == 10
    assert recorder.address == address
    assert repr(recorder) == (
        "IntervalRecorder('sojourn': 30 values, p50 2 ns, p99 3 ns, p99.9 3 ns, max 3 ns; 0 in this interval)"
    )


def test_differences_are_recorded_too() -> None:
    recorder = IntervalRecorder(0)
    recorder.record_differences(10, [1, 2])
    assert content(recorder.total()) == content(filled([9, 8]))
    assert recorder.statistics().count == 2


@pytest.mark.parametrize("moment", [9, -1, 1.0, True, None])
def test_a_moment_before_the_interval_began_is_refused_and_nothing_lost(moment: Any) -> None:
    recorder = IntervalRecorder(10)
    recorder.record(1)
    with pytest.raises(ValidationError, match="now_ns is an integer of at least 10"):
        recorder.interval(moment)
    assert recorder.interval(10).count == 1


@pytest.mark.parametrize("begin", [-1, 0.5, False])
def test_a_beginning_is_a_time(begin: Any) -> None:
    with pytest.raises(ValidationError, match="begin_ns is an integer of at least 0"):
        IntervalRecorder(begin)
