"""What is known of a server's answers, with the time passed in."""

from __future__ import annotations

import random

from hftlab.errors import ServerRefused, ServerUnreachable
from hftlab.streams.backoff import Backoff, BackoffPolicy
from hftlab.streams.refusals import Verdict
from hftlab.streams.silence import Silence

AWAY = Verdict(ServerUnreachable("no server"), True, "connection refused")
FULL = Verdict(ServerRefused("full"), True, "its memory is full", only_writes=True)
LOADING = Verdict(ServerRefused("loading"), True, "loading")


class Owing:
    def __init__(self, since_s: float | None) -> None:
        self.owes_since_s = since_s


def operation(now_s: float) -> Backoff:
    return Backoff(BackoffPolicy(), random.Random(1), now_s)


def test_a_server_that_owes_nothing_is_not_silent() -> None:
    silence = Silence()
    assert (silence.silent_s(100.0), silence.state(100.0)) == (0.0, "ok")
    silence.debtors = {Owing(None)}
    assert silence.silent_s(100.0) == 0.0


def test_the_oldest_debt_counts_and_every_answer_begins_it_anew() -> None:
    silence = Silence()
    silence.debtors = {Owing(10.0), Owing(12.0)}
    assert silence.silent_s(13.1) == 13.1 - 10.0
    assert silence.state(13.1) == "silent for 3.1 s"
    silence.heard_s = 13.0
    assert (silence.silent_s(13.1), silence.state(13.1)) == (13.1 - 13.0, "ok")


def test_a_command_that_may_block_owes_nothing_until_it_has_to_be_back() -> None:
    silence = Silence()
    silence.debtors = {Owing(11.0)}
    assert silence.silent_s(10.5) == 0.0
    assert silence.silent_s(11.75) == 0.75


def test_an_operation_that_tries_again_is_shown_until_it_ends_or_an_answer_comes() -> None:
    silence, trying = Silence(), operation(20.0)
    silence.failed(trying, 22.0, AWAY)
    assert silence.state(24.0) == "away (trying again for 4 s: connection refused)"
    assert silence.silent_s(24.0) == 4.0
    silence.heard_s = 24.5
    assert silence.state(24.6) == "ok"
    silence.failed(trying, 25.0, LOADING)
    assert silence.state(25.0) == "away (trying again for 5 s: loading)"
    del trying
    assert (silence.state(26.0), silence.silent_s(26.0)) == ("ok", 0.0), "its caller was cancelled"


def test_a_server_that_was_given_up_stays_away_until_an_answer_comes() -> None:
    silence, trying = Silence(), operation(20.0)
    silence.failed(trying, 22.0, AWAY)
    silence.given_up(trying, 30.0, AWAY)
    assert (silence.state(60.0), silence.silent_s(60.0)) == ("away (connection refused)", 0.0)
    silence.heard_s = 61.0
    assert silence.state(61.0) == "ok"


def test_refused_writes_are_shown_until_one_is_taken() -> None:
    silence, trying = Silence(), operation(20.0)
    silence.failed(trying, 20.0, FULL)
    silence.heard_s = 21.0
    assert silence.state(21.0) == "refusing writes: its memory is full"
    silence.given_up(trying, 30.0, FULL)
    assert silence.state(31.0) == "refusing writes: its memory is full"
    silence.refusal = ""
    assert silence.state(31.0) == "ok"
