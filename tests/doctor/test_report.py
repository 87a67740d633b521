"""The report's text, table, HTML and JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.doctor.report import Answer, Check, Fitness, Report, Verdict
from hftlab.doctor.wording import duration, size

WORDS = "what is not good says why at length, and goes on until it needs a second line to be said and a third one too"


def check(**changes: Any) -> Check:
    told: dict[str, Any] = {"area": "clock", "name": "counter", "value": "fine", "verdict": Verdict.GOOD}
    return Check(**(told | changes))


def report(*checks: Check) -> Report:
    rules = tuple(
        Fitness(rule=f"rule {number}", limit_ns=100_000, answer=Answer.YES, because="3 NTP servers")
        for number in (1, 2)
    )
    return Report(checks=checks or (check(),), fitness=rules, elapsed_s=1.25)


def test_what_is_good_takes_a_line_and_what_is_not_says_why_and_what_to_do() -> None:
    told = report(
        check(why="never shown"),
        check(area="memory", name="swap", verdict=Verdict.POOR, value="full", why="it is slow", next="swapoff -a"),
    ).text(80)
    assert told.splitlines() == [
        "clock",
        "  good     counter            fine",
        "",
        "memory",
        "  poor     swap               full",
        "                              it is slow",
        "                              -> swapoff -a",
        "",
        "good for (this machine's clock, CLOCK_REALTIME)",
        "  yes            rule 1                                  3 NTP servers",
        "  yes            rule 2                                  as above",
        "",
        "2 checks: 1 good, 1 poor; 1.2 s",
    ]


@pytest.mark.parametrize(("asked", "width"), [(1, 80), (80, 80), (97, 97), (120, 120), (400, 120)])
def test_no_line_is_wider_than_the_terminal_and_none_than_120(asked: int, width: int) -> None:
    told = report(check(verdict=Verdict.FAIR, value=WORDS, why=WORDS, next=WORDS, good_for=WORDS)).text(asked)
    assert width - 20 < max(map(len, told.splitlines())) <= width


def test_json_has_all_of_it() -> None:
    found = json.loads(report(check(figures={"resolution_ns": 1, "name": None})).to_json())
    assert found["checks"][0]["verdict"] == "good"
    assert found["checks"][0]["figures"] == {"resolution_ns": 1, "name": None}
    assert found["fitness"][0] == {
        "rule": "rule 1", "limit_ns": 100_000, "answer": "yes", "because": "3 NTP servers",
    }  # fmt: skip


def test_the_table_has_a_row_a_check() -> None:
    frame = report(check(), check(area="memory", verdict=Verdict.POOR)).to_frame()
    assert list(frame.index) == [("clock", "counter"), ("memory", "counter")]
    assert list(frame["verdict"]) == ["good", "poor"]


def test_the_repr_counts_and_tells_of_checks_that_broke() -> None:
    shown = report(check(), check(verdict=Verdict.UNKNOWN, failed=True))
    assert repr(shown) == "Report(2 checks: 1 good, 1 unknown, 1 of them because the check itself failed)"
    assert len(shown.failed) == 1


def test_html_escapes_what_others_wrote() -> None:
    shown = report(check(value="<script>alert(1)</script>"))._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0 ns"), (71.44, "71.4 ns"), (999, "999 ns"), (1_000, "1 us"), (1_250, "1.25 us"), (16e9, "16 s"),
     (2e12, "2,000 s"), (4_096_000, "4.1 ms")],
)  # fmt: skip
def test_durations_have_three_digits(ns: float, text: str) -> None:
    assert duration(ns) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (1_023, "1023 bytes"), (1 << 16, "64 KiB"), (3 << 29, "1.5 GiB")]
)
def test_sizes_have_three_digits(count: int, text: str) -> None:
    assert size(count) == text


@given(st.floats(-1e18, 1e18))
def test_any_duration_can_be_told(ns: float) -> None:
    assert "e" not in duration(ns)
