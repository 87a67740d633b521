"""Which rules a clock keeps, by what is known of it."""

from __future__ import annotations

import pytest

from hftlab.doctor.fitness import MS, NOBODY, RULES, SECOND, US, Divergence, assess
from hftlab.doctor.report import Answer

YES, NO, UNKNOWN = Answer.YES, Answer.NO, Answer.UNKNOWN


def divergence(offset_ns: int, bound_ns: int, witness: str = "3 NTP servers") -> Divergence:
    return Divergence(offset_ns, bound_ns, witness)


@pytest.mark.parametrize(
    ("measured", "claimed", "answers"),
    [
        # RTS 25: 100 us, 1 ms, 1 s; CAT: 100 us, 50 ms
        (None, None, (UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)),
        (divergence(0, 100 * US), None, (YES, YES, YES, YES, YES)),
        (divergence(1, 100 * US), None, (UNKNOWN, YES, YES, UNKNOWN, YES)),
        (divergence(-60 * US, 30 * US), None, (YES, YES, YES, YES, YES)),
        (divergence(-5 * MS, 2 * MS), None, (NO, NO, YES, NO, YES)),
        (divergence(60 * MS, 9 * MS), None, (NO, NO, YES, NO, NO)),
        (divergence(3 * SECOND, MS), None, (NO, NO, NO, NO, NO)),
        (None, divergence(0, 20 * MS), (UNKNOWN, UNKNOWN, YES, UNKNOWN, YES)),
        # What is measured goes before what is claimed, and the claim decides what was left open.
        (divergence(5 * MS, MS), divergence(0, 10 * US), (NO, NO, YES, NO, YES)),
        (divergence(0, 2 * MS), divergence(0, 500 * US), (UNKNOWN, YES, YES, UNKNOWN, YES)),
    ],
)
def test_a_rule_is_kept_where_offset_and_bound_stay_within_it(
    measured: Divergence | None, claimed: Divergence | None, answers: tuple[Answer, ...]
) -> None:
    found = assess(measured, claimed, 1)
    assert tuple(one.answer for one in found) == answers
    assert [one.limit_ns for one in found] == [rule.limit_ns for rule in RULES]


def test_without_a_witness_it_says_that_nobody_looked() -> None:
    assert {one.because for one in assess(None, None, 1)} == {NOBODY}


def test_a_kept_rule_is_kept_only_as_far_as_the_witness_can_be_traced_to_utc() -> None:
    (first, *_) = assess(divergence(-12_345, 20_000), None, 1)
    assert first.because == "-12.3 us ± 20 us by 3 NTP servers, if that can be traced to UTC"


def test_a_clock_that_is_off_by_a_known_amount_could_be_disciplined() -> None:
    (first, *_) = assess(divergence(150 * US, 90 * US), None, 1)
    assert first.answer is UNKNOWN
    assert first.because.endswith("too wide to tell; hftlab's own clock, disciplined by them, would keep it")


@pytest.mark.parametrize(("resolution_ns", "answers"), [(US, (YES, YES)), (US + 1, (NO, YES)), (16 * MS, (NO, NO))])
def test_stamps_that_are_too_coarse_break_a_rule_whatever_the_offset(
    resolution_ns: int, answers: tuple[Answer, ...]
) -> None:
    found = assess(divergence(0, US), None, resolution_ns)
    assert tuple(one.answer for one in found[:2]) == answers
    assert ("steps of" in found[0].because) == (answers[0] is NO)
