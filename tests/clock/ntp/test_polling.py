"""How often a server is asked, in virtual time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.clock.ntp.polling import LEAST_PUBLIC_POLL_S, Polling, check_polling
from hftlab.errors import ValidationError

SECOND_NS = 1_000_000_000


def go_on(polling: Polling, what: str, times: int, *, steady: bool = True) -> list[float]:
    """Ask ``times`` times as soon as it is due, each with that outcome; the waits before the next ones, in seconds."""
    waits = []
    for _ in range(times):
        now_ns = polling.next_ns
        polling.ask(now_ns)
        if what == "answered":
            polling.answered(now_ns + 1_000_000, steady=steady)
        elif what == "missed":
            polling.missed(now_ns + SECOND_NS)
        else:
            polling.kissed(now_ns + 1_000_000, what)
        waits.append((polling.next_ns - now_ns) / SECOND_NS)
    return waits


def test_it_begins_with_a_burst_and_goes_on_every_64_seconds() -> None:
    polling = Polling(5)
    assert polling.next_ns == 5
    assert go_on(polling, "answered", 10, steady=False) == [2.0] * 7 + [64.0] * 3
    assert polling.reach == 0b11111111
    assert not polling.in_burst


def test_the_interval_doubles_while_the_estimates_are_steady_and_halves_when_they_are_not() -> None:
    polling = Polling(0, burst=0)
    assert go_on(polling, "answered", 9) == [64, 64, 64, 128, 128, 128, 128, 256, 256]
    assert set(go_on(polling, "answered", 30)[-5:]) == {1_024}
    assert go_on(polling, "answered", 5, steady=False) == [1_024, 512, 512, 256, 256]
    assert set(go_on(polling, "answered", 30, steady=False)[-5:]) == {64}


def test_a_public_server_is_never_asked_more_often_than_every_16_seconds_but_for_the_burst() -> None:
    polling = Polling(0, min_poll_s=1 / 16, max_poll_s=64)
    assert polling.poll_s == LEAST_PUBLIC_POLL_S
    waits = go_on(polling, "answered", 20, steady=False)
    assert waits[:7] == [2.0] * 7
    assert min(waits[7:]) == 16.0
    assert polling.may_ask(polling.next_ns)
    assert not polling.may_ask(polling.next_ns - 15 * SECOND_NS)


@pytest.mark.parametrize(("burst", "quick"), [(8, 8), (3, 3), (0, 0)])
def test_who_asks_a_public_server_out_of_turn_for_ever_does_so_every_16_seconds(burst: int, quick: int) -> None:
    polling = Polling(0, burst=burst)
    asked_s = []
    for now_s in range(600):
        if polling.may_ask(now_s * SECOND_NS):
            polling.ask(now_s * SECOND_NS)
            polling.answered(now_s * SECOND_NS, steady=True)
            asked_s.append(now_s)
    waits = [later - before for before, later in pairwise(asked_s)]
    first = max(quick - 1, 0)
    assert waits[:first] == [2] * first
    assert set(waits[first:]) == {16}


def test_a_server_of_ones_own_may_be_asked_out_of_turn_at_once() -> None:
    polling = Polling(0, near=True, burst=0)
    polling.ask(5)
    assert polling.may_ask(5)


def test_a_server_of_ones_own_may_be_asked_sixteen_times_a_second() -> None:
    polling = Polling(0, min_poll_s=1 / 16, max_poll_s=1 / 4, near=True)
    assert set(go_on(polling, "answered", 20, steady=False)) == {1 / 16}
    assert polling.may_ask(polling.next_ns - SECOND_NS // 16)
    found_out = Polling(0, min_poll_s=1 / 16)
    found_out.ask(0)
    found_out.locate(near=True)
    assert found_out.poll_s == 1 / 16


def test_a_server_that_does_not_answer_is_asked_less_and_less() -> None:
    polling = Polling(0)
    waits = go_on(polling, "missed", 20)
    assert waits[:6] == [4, 8, 16, 32, 64, 64]
    assert waits[-1] == 1_024
    assert sorted(waits) == waits
    assert polling.reach == 0


def test_a_server_that_is_back_is_asked_quickly_again() -> None:
    polling = Polling(0)
    go_on(polling, "answered", 8)
    go_on(polling, "missed", 20)
    assert polling.poll_s == 1_024
    assert go_on(polling, "answered", 9, steady=False) == [2.0] * 7 + [64.0, 64.0]


def test_single_losses_change_nothing() -> None:
    polling = Polling(0, burst=0)
    go_on(polling, "answered", 3, steady=False)
    assert go_on(polling, "missed", 7) == [64.0] * 7
    assert polling.reach == 0b10000000


def test_rate_doubles_the_interval_for_good() -> None:
    polling = Polling(0)
    polling.ask(0)
    polling.kissed(1_000_000, "RATE")
    assert polling.poll_s == polling.least_s == 128
    assert not polling.in_burst
    assert go_on(polling, "answered", 20, steady=False) == [128.0] * 20
    assert not polling.may_ask(polling.next_ns - SECOND_NS)
    polling.begin_anew(polling.next_ns - SECOND_NS)
    assert not polling.may_ask(polling.next_ns - SECOND_NS)
    go_on(polling, "RATE", 30)
    assert polling.poll_s == 1 << 17


def test_a_rate_that_names_its_interval_is_followed_up_to_the_users_longest() -> None:
    polling = Polling(0, max_poll_s=512)
    polling.ask(0)
    polling.kissed(0, "RATE", poll_s=300)
    assert polling.poll_s == 300
    polling.kissed(0, "RATE", poll_s=1 << 17)
    assert polling.poll_s == 600


@pytest.mark.parametrize("code", ["DENY", "RSTR"])
def test_a_server_that_says_go_away_is_never_asked_again(code: str) -> None:
    polling = Polling(0)
    go_on(polling, code, 1)
    assert polling.ended == code
    assert not polling.may_ask(1 << 62)
    polling.begin_anew(0)
    assert polling.ended == code
    assert repr(polling) == f"Polling(ended by {code}, reach 00000000)"


def test_other_kisses_are_misses() -> None:
    polling = Polling(0)
    assert go_on(polling, "INIT", 3) == [4, 8, 16]
    assert not polling.ended


def test_a_question_whose_outcome_nobody_tells_delays_the_next_like_any_other() -> None:
    polling = Polling(0, burst=0)
    polling.ask(5)
    assert polling.next_ns == 5 + 64 * SECOND_NS


OUTCOMES = st.lists(st.sampled_from(["steady", "unsteady", "missed", "RATE", "INIT", "anew"]), max_size=80)


@given(OUTCOMES, st.booleans(), st.sampled_from([1 / 16, 1.0, 16.0, 64.0]), st.floats(0, 1))
def test_whatever_happens_the_intervals_stay_within_what_is_polite(
    outcomes: list[str], near: bool, min_poll_s: float, spread: float
) -> None:
    polling = Polling(0, min_poll_s=min_poll_s, max_poll_s=256, near=near)
    rated = False
    for outcome in outcomes:
        now_ns = polling.next_ns
        if outcome == "anew":
            polling.begin_anew(now_ns)
            continue
        polling.ask(now_ns)
        if outcome in ("steady", "unsteady"):
            polling.answered(now_ns, steady=outcome == "steady", spread=spread)
        elif outcome == "missed":
            polling.missed(now_ns, spread=spread)
        else:
            polling.kissed(now_ns, outcome, spread=spread)
        rated |= outcome == "RATE"
        wait_s = (polling.next_ns - now_ns) / SECOND_NS
        least_s = max(min_poll_s, 1 / 16 if near else LEAST_PUBLIC_POLL_S)
        assert polling.least_s <= polling.poll_s <= polling.most_s
        if polling.in_burst:
            assert not rated
            assert wait_s >= min(2.0, least_s) - 1e-6
        else:
            assert polling.poll_s - 1e-6 <= wait_s <= polling.poll_s * 1.02


@pytest.mark.parametrize(
    "settings",
    [(0.01, 64, 8), (64, 1, 8), (64, 1e9, 8), (float("nan"), 64, 8), (64, 128, 9), (64, 128, -1), (64, 128, True)],
)
def test_settings_that_can_not_be_are_refused(settings: tuple[float, float, int]) -> None:
    with pytest.raises(ValidationError, match="got"):
        check_polling(*settings)
