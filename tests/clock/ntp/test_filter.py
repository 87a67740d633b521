"""The clock filter: which of a server's answers is the best, and which contradict it."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from hftlab.clock.ntp.filter import MAX_DRIFT_PPB, STAGES, ClockFilter, Rate, distance_ns, place
from tests.clock.ntp.synthetic import ORIGIN_NS, SECOND_NS, exchange, truth_ns

KNOWN = Rate(0.0, 1_000.0)
"""A drift of nothing, known to 1 ppm."""


def test_a_filter_without_answers_knows_nothing() -> None:
    empty = ClockFilter()
    assert empty.best(0, KNOWN, 0) is None
    assert (empty.jitter_ns(0, KNOWN), empty.dispersion_ns(0, KNOWN), len(empty)) == (0.0, 0.0, 0)


def test_the_answer_with_the_least_delay_is_the_best_while_it_is_young() -> None:
    answers = ClockFilter()
    for second, delay_ms in enumerate((30, 10, 20), start=1):
        answers.add(exchange(second * SECOND_NS, delay_ns=delay_ms * 1_000_000), KNOWN)
    best = answers.best(4 * SECOND_NS, KNOWN, ORIGIN_NS)
    assert best is not None
    assert best.exchange.delay_ns == 10_000_000
    assert best.bound_ns == 5_000_000 + 1 + 2 * 1_000


def test_age_costs_an_answer_as_much_as_the_drift_may_be_off() -> None:
    answers = ClockFilter()
    answers.add(exchange(SECOND_NS, delay_ns=10_000_000), Rate())
    answers.add(exchange(21 * SECOND_NS, delay_ns=20_000_000), Rate())
    best = answers.best(21 * SECOND_NS, Rate(), ORIGIN_NS)
    assert best is not None
    assert best.exchange.delay_ns == 20_000_000  # 20 s at 500 ppm are 10 ms, and 5 ms of delay less
    best = answers.best(21 * SECOND_NS, KNOWN, ORIGIN_NS)
    assert best is not None
    assert best.exchange.delay_ns == 10_000_000


def test_answers_are_brought_to_now_by_the_drift() -> None:
    answers = ClockFilter()
    answers.add(exchange(0), Rate(50_000.0, 1_000.0))
    best = answers.best(10 * SECOND_NS, Rate(50_000.0, 1_000.0), ORIGIN_NS)
    assert best is not None
    assert best.offset_ns == 500_000.0


def test_only_the_last_eight_are_kept() -> None:
    answers = ClockFilter()
    answers.add(exchange(0, delay_ns=1_000), KNOWN)
    for second in range(1, STAGES + 1):
        answers.add(exchange(second * SECOND_NS), KNOWN)
    assert len(answers) == STAGES
    best = answers.best(STAGES * SECOND_NS, KNOWN, ORIGIN_NS)
    assert best is not None
    assert best.exchange.delay_ns == 20_000_000


def test_no_answer_older_than_the_one_that_was_used_is_used_after_it() -> None:
    answers = ClockFilter()
    answers.add(exchange(SECOND_NS, delay_ns=10_000_000), KNOWN)
    answers.add(exchange(100 * SECOND_NS, delay_ns=12_000_000), KNOWN)
    used = answers.best(100 * SECOND_NS, Rate(), ORIGIN_NS, use=True)
    again = answers.best(100 * SECOND_NS, KNOWN, ORIGIN_NS)
    assert used is not None
    assert again is not None
    assert used.exchange.at_ns == again.exchange.at_ns == 100 * SECOND_NS


def test_an_answer_that_arrived_before_the_latest_is_left_out_and_counted() -> None:
    answers = ClockFilter()
    answers.add(exchange(2 * SECOND_NS), KNOWN)
    assert answers.add(exchange(2 * SECOND_NS), KNOWN) == []
    assert answers.add(exchange(SECOND_NS), KNOWN) == []
    assert (answers.late, len(answers)) == (2, 1)


def test_a_single_answer_that_contradicts_the_others_is_left_out_and_counted() -> None:
    answers = ClockFilter()
    answers.add(exchange(SECOND_NS), KNOWN)
    assert answers.add(exchange(2 * SECOND_NS, wrong_ns=SECOND_NS), KNOWN) == []
    assert answers.suspects == 1
    assert answers.outliers == 0
    assert len(answers.add(exchange(3 * SECOND_NS), KNOWN)) == 1
    assert (answers.suspects, answers.outliers, answers.resets, len(answers)) == (0, 1, 0, 2)


def test_four_that_contradict_the_past_and_agree_with_each_other_are_a_step() -> None:
    answers = ClockFilter()
    for second in range(8):
        answers.add(exchange(second * SECOND_NS), KNOWN)
    believed = [answers.add(exchange(second * SECOND_NS, wrong_ns=-SECOND_NS), KNOWN) for second in range(8, 12)]
    assert [len(some) for some in believed] == [0, 0, 0, 4]
    assert (answers.resets, answers.outliers, len(answers)) == (1, 0, 4)
    best = answers.best(12 * SECOND_NS, KNOWN, ORIGIN_NS)
    assert best is not None
    assert best.offset_ns == -SECOND_NS


def test_outliers_that_contradict_each_other_too_never_are_a_step() -> None:
    answers = ClockFilter()
    answers.add(exchange(0), KNOWN)
    for second in range(1, 41):
        answers.add(exchange(second * SECOND_NS, wrong_ns=(-1) ** second * second * SECOND_NS), KNOWN)
    assert (answers.resets, len(answers)) == (0, 1)


def test_jitter_is_the_root_mean_square_of_the_differences_to_the_best_and_the_precision_at_least() -> None:
    answers = ClockFilter()
    answers.add(exchange(SECOND_NS, precision_ns=100), KNOWN)
    assert answers.jitter_ns(SECOND_NS, KNOWN) == 100
    answers.add(exchange(2 * SECOND_NS, delay_ns=30_000_000, asymmetry=0.2), KNOWN)
    answers.add(exchange(3 * SECOND_NS, delay_ns=40_000_000, asymmetry=-0.2), KNOWN)
    assert answers.jitter_ns(3 * SECOND_NS, KNOWN) == ((3e6**2 + 4e6**2) / 2) ** 0.5


def test_dispersion_weighs_the_answers_by_halves_and_all_weights_together_are_one() -> None:
    answers = ClockFilter()
    for second in (1, 2, 3):
        answers.add(exchange(second * SECOND_NS, delay_ns=second * 1_000_000, precision_ns=10), KNOWN)
    blurs = (10 + 3_000, 10 + 2_000, 10 + 1_000)
    assert answers.dispersion_ns(4 * SECOND_NS, KNOWN) == blurs[0] / 2 + blurs[1] / 4 + blurs[2] / 4


def test_a_server_is_steady_once_its_latest_answer_is_where_the_others_led_one_to_expect_it() -> None:
    answers, chance = ClockFilter(), random.Random(7)
    for second in range(8):
        assert not answers.steady(KNOWN) or second >= 4
        answers.add(exchange(second * SECOND_NS, asymmetry=chance.uniform(-0.1, 0.1)), KNOWN)
    assert answers.steady(KNOWN)
    answers.add(exchange(9 * SECOND_NS, asymmetry=1.0), KNOWN)
    assert not answers.steady(KNOWN)
    answers.add(exchange(10 * SECOND_NS, wrong_ns=SECOND_NS), KNOWN)
    assert not answers.steady(KNOWN)


@given(
    drift_ppb=st.floats(-MAX_DRIFT_PPB, MAX_DRIFT_PPB),
    answers=st.lists(
        st.tuples(st.integers(1, 10**12), st.integers(0, 10**9), st.floats(-1, 1), st.floats(-1, 1)), min_size=1
    ),
    root_ns=st.integers(0, 10**8),
)
def test_every_answer_of_an_honest_server_holds_the_truth_and_contradicts_no_other(
    drift_ppb: float, answers: list[tuple[int, int, float, float]], root_ns: int
) -> None:
    kept, at_ns = ClockFilter(), 0
    for gap_ns, delay_ns, asymmetry, error in answers:
        at_ns += gap_ns
        honest = exchange(
            at_ns, truth=truth_ns(at_ns, drift_ppb), delay_ns=delay_ns, asymmetry=asymmetry,
            wrong_ns=round(error * root_ns), root_ns=root_ns + 1,
        )  # fmt: skip
        assert abs(honest.offset_ns - truth_ns(at_ns, drift_ppb)) <= distance_ns(honest)
        assert kept.add(honest, Rate()) == [honest]
    later_ns = at_ns + 10**11
    placed = place(honest, later_ns, Rate(), ORIGIN_NS)
    assert abs(placed.offset_ns - (truth_ns(later_ns, drift_ppb) - ORIGIN_NS)) <= placed.bound_ns
