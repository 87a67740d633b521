from __future__ import annotations

import json

import pytest

from hftlab.clock import ClockState, ServerState
from hftlab.widgets.clock_readings import ADVICE, HEADS, MOST_NOTE, kind_of, note, ppm, signed, status, table, words
from tests.widgets.clocked import reading, server, unknown

MINUS = "\N{MINUS SIGN}"


def test_the_reading_is_told_in_words() -> None:
    servers = [server("a"), server("b"), server("c"), server("d", state=ServerState.FALSETICKER)]
    assert words(reading(), servers) == f"SYNCED: +1.2 µs ± 340 µs, by 3 servers; drift {MINUS}12.3 ppm"
    assert words(reading(), servers[:1]) == f"SYNCED: +1.2 µs ± 340 µs, by 1 server; drift {MINUS}12.3 ppm"
    assert words(reading(offset_ns=-5_000_000)) == f"SYNCED: {MINUS}5 ms ± 340 µs; drift {MINUS}12.3 ppm"


def test_in_holdover_nobody_is_named() -> None:
    held = reading(state=ClockState.HOLDOVER, bound_ns=2_000_000)
    assert words(held, [server()]) == f"HOLDOVER: +1.2 µs ± 2 ms; drift {MINUS}12.3 ppm"
    shown = status(held, [server()], asked=True)
    assert (shown["clock"], shown["state"]) == ("HOLDOVER", "ready")
    assert "bound grows" in shown["meaning"]


def test_a_clock_that_nobody_compares_says_what_to_type() -> None:
    shown = status(unknown(), [], asked=False)
    assert shown["reading"] == "UNSYNCED: nobody has compared this clock with UTC"
    assert shown["advice"] == ADVICE == 'lab = hl.Lab(ntp=["time.example.org"])'
    assert shown["badges"] == []


def test_while_servers_have_not_agreed_nothing_is_advised() -> None:
    shown = status(unknown(), [server(state=ServerState.UNHEARD)], asked=True)
    assert shown["advice"] == ""
    assert "not agreed" in shown["meaning"]


def test_a_bound_that_grew_too_wide_is_told() -> None:
    shown = status(reading(state=ClockState.UNSYNCED, bound_ns=2_000_000_000), [], asked=True)
    assert shown["reading"].startswith("UNSYNCED: +1.2 µs ± 2 s")
    assert "too wide" in shown["meaning"]


def test_servers_that_are_not_to_be_believed_stand_at_the_top_by_name() -> None:
    servers = [server("bad", state=ServerState.FALSETICKER), server("gone", state=ServerState.UNREACHABLE, reach=0)]
    badges = status(reading(), servers, asked=True)["badges"]
    assert [badge[:2] for badge in badges] == [
        ["plain", "slews +0.5 ppm"], ["bad", "1 falseticker"], ["warn", "1 unreachable"],
    ]  # fmt: skip
    assert badges[1][2].startswith("bad: ")


def test_one_server_that_nobody_could_contradict_is_believed_and_told() -> None:
    alone = [server(state=ServerState.ALONE)]
    assert "by 1 server;" in words(reading(), alone)
    badge = status(reading(), alone, asked=True)["badges"][-1]
    assert badge[:2] == ["warn", "1 alone"]
    assert "three servers" in badge[2]


def test_the_table_has_a_text_for_each_column_and_is_plain_data() -> None:
    shown = table([server(), server("unheard", state=ServerState.UNHEARD, address="", stratum=None, reach=0,
                                    offset_ns=None, bound_ns=None, delay_ns=None, jitter_ns=None, sent=0, answered=0,
                                    refused={})], asked=True)  # fmt: skip
    assert json.loads(json.dumps(shown)) == shown
    good, unheard = shown["rows"]
    assert all(len(row) == 2 + len(HEADS) for row in shown["rows"])
    assert good == ["good", "not used: 1 timeout", "time.example.org (192.0.2.1:123)", "truechimer", "2", "8 of 8",
                    "+1.5 µs", "900 µs", "1.6 ms", "12 µs", "1 min 04 s", "39 of 40", "1"]  # fmt: skip
    assert unheard == ["plain", "", "unheard", "unheard", "", "0 of 8", "", "", "", "", "1 min 04 s", "0 of 0", ""]


@pytest.mark.parametrize(("asked", "told"), [(True, "No server has been asked yet"), (False, "No NTP server is named")])
def test_a_table_without_servers_says_why(asked: bool, told: str) -> None:
    assert table([], asked=asked)["more"] == told


@pytest.mark.parametrize("state", list(ServerState))
def test_every_state_of_a_server_has_a_mark(state: ServerState) -> None:
    expected = {"truechimer": "good", "falseticker": "bad", "refused": "bad", "kissed": "bad", "unreachable": "warn",
                "stale": "warn", "alone": "warn", "unheard": "plain", "candidate": "plain"}  # fmt: skip
    assert kind_of(server(state=state)) == expected[state.value]


def test_what_was_refused_is_told_by_reason_the_most_frequent_first() -> None:
    refused = server(refused={"timeout": 1, "origin": 12, "stratum": 0}, last_error="<b>kiss</b>")
    assert note(refused) == "not used: 12 origin, 1 timeout; last: <b>kiss</b>"
    assert len(note(server(last_error="x" * 1_000))) == MOST_NOTE


@pytest.mark.parametrize(("ns", "text"), [(0, "0 ns"), (1_200, "+1.2 µs"), (-3_000_000, f"{MINUS}3 ms")])
def test_offsets_have_a_sign(ns: int, text: str) -> None:
    assert signed(ns) == text


@pytest.mark.parametrize(
    ("ppb", "text"), [(0.0, "0 ppm"), (0.4, "0 ppm"), (-12_300.0, f"{MINUS}12.3 ppm"), (200_000.0, "+200 ppm")]
)
def test_rates_are_told_in_ppm(ppb: float, text: str) -> None:
    assert ppm(ppb) == text
