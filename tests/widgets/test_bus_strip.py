from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from hftlab.widgets.bus_history import BusSamples
from hftlab.widgets.bus_strip import BUCKET_NS, BUCKETS, HOLD_NS, WINDOW_NS, read_strip, strip
from tests.widgets.recorded import START_NS

NOW_NS = START_NS + 100 * 1_000_000_000


def samples(times_ns: list[int], waiting: list[int], gave_way: list[int]) -> BusSamples:
    """Samples of one lane."""
    nothing = column([0] * len(times_ns))
    times = np.array(times_ns, np.int64)
    return BusSamples(("NORMAL",), times, column(waiting), nothing, nothing, nothing, column(gave_way), {})


def column(values: list[int]) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64).reshape(-1, 1)


def drawn(taken: BusSamples, now_ns: int = NOW_NS) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    points = read_strip(strip(taken, now_ns))
    assert points.shape == (2, 1, BUCKETS)
    return points[0, 0], points[1, 0]


def back(buckets: float) -> int:
    return NOW_NS - int(buckets * BUCKET_NS)


def test_a_peak_between_two_quiet_samples_is_not_lost() -> None:
    waiting, _ = drawn(samples([back(3.9), back(3.5), back(3.1), back(0.5)], [0, 900, 0, 0], [0, 0, 0, 0]))
    assert waiting[-4:].tolist() == [900, 0, 0, 0]


def test_what_a_sample_says_holds_until_the_next_one() -> None:
    waiting, _ = drawn(samples([back(8), back(2)], [70, 5], [0, 0]))
    assert waiting[-8:].tolist() == [70] * 6 + [5, 5]


def test_what_gave_way_is_spread_over_the_time_between_its_samples_and_adds_up() -> None:
    _, gave_way = drawn(samples([back(6), back(2), back(1)], [0, 0, 0], [100, 500, 500]))
    assert gave_way[-6:].tolist() == [500.0] * 4 + [0.0, 0.0]
    assert np.nansum(gave_way) * BUCKET_NS / 1e9 == 400


def test_before_the_first_sample_and_in_long_silences_nothing_is_claimed() -> None:
    hold = HOLD_NS // BUCKET_NS
    times = [back(99.5), back(59.5), back(58.5)]
    waiting, gave_way = drawn(samples(times, [1, 2, 3], [0, 10, 20]))
    known = ~np.isnan(waiting)
    assert not known[: BUCKETS - 100].any()
    assert known[BUCKETS - 100]
    # 40 buckets of silence, and what follows the last sample for too long.
    assert not known[BUCKETS - 99 : BUCKETS - 60].any()
    assert known[BUCKETS - 60 : BUCKETS - 58].all()
    assert not known[BUCKETS - 58 + hold :].any()
    assert (np.isnan(waiting) == np.isnan(gave_way)).all()


def test_without_samples_there_is_nothing_and_it_is_quiet() -> None:
    shown = strip(samples([], [], []), NOW_NS)
    assert shown["quiet"]
    assert np.isnan(read_strip(shown)).all()


def test_a_minute_is_quiet_when_nothing_waited_and_nothing_gave_way_in_it() -> None:
    times = [back(BUCKETS + 20), back(BUCKETS + 10), back(1)]
    assert strip(samples(times, [5, 0, 0], [0, 9, 9]), NOW_NS)["quiet"]
    assert not strip(samples(times, [5, 0, 1], [0, 9, 9]), NOW_NS)["quiet"]
    assert not strip(samples([back(4), back(1)], [0, 0], [0, 1]), NOW_NS)["quiet"]


def test_the_buckets_stand_still_until_the_next_is_full() -> None:
    taken = samples([back(8), back(2)], [70, 5], [0, 30])
    shown = strip(taken, NOW_NS // BUCKET_NS * BUCKET_NS)
    assert strip(taken, NOW_NS // BUCKET_NS * BUCKET_NS + BUCKET_NS - 1) == shown
    assert strip(taken, NOW_NS // BUCKET_NS * BUCKET_NS + BUCKET_NS) != shown


@given(
    st.lists(st.tuples(st.integers(0, WINDOW_NS * 2), st.integers(0, 10**6), st.integers(0, 10**6)), max_size=40),
    st.integers(0, BUCKET_NS),
)
def test_the_buckets_agree_with_a_plain_reading_of_the_samples(
    taken: list[tuple[int, int, int]], beyond_ns: int
) -> None:
    ordered = sorted(taken)
    times = [NOW_NS - WINDOW_NS * 2 + at for at, _, _ in ordered]
    values = [rows for _, rows, _ in ordered]
    waiting, gave_way = drawn(samples(times, values, np.cumsum([0] * len(times)).tolist()), NOW_NS + beyond_ns)
    end_ns = (NOW_NS + beyond_ns) // BUCKET_NS * BUCKET_NS
    for bucket in range(0, BUCKETS, 7):
        begin = end_ns - (BUCKETS - bucket) * BUCKET_NS
        before = [i for i, at in enumerate(times) if at <= begin]
        inside = [i for i, at in enumerate(times) if begin < at <= begin + BUCKET_NS]
        holds = before[-1:]
        after = times[holds[0] + 1] if holds and holds[0] + 1 < len(times) else max(end_ns, times[-1] if times else 0)
        if inside or (holds and after - times[holds[0]] <= HOLD_NS):
            assert waiting[bucket] == max(values[i] for i in [*holds, *inside] or [0])
            assert gave_way[bucket] == 0
        else:
            assert np.isnan(waiting[bucket])
