"""Stamps of datagrams and cards, and cores, from what the kernel would write."""

from __future__ import annotations

import struct
import sys

import pytest

from hftlab.clock.stamps import StampCounts
from hftlab.doctor.report import Verdict
from hftlab.doctor.stamping import (
    DATAGRAMS,
    CardStamps,
    Cores,
    Loopback,
    ask_card,
    cpu_flags,
    judge_cards,
    judge_cores,
    judge_loopback,
    measure_loopback,
    parse_card,
)

GOOD, FAIR, POOR, UNKNOWN = Verdict.GOOD, Verdict.FAIR, Verdict.POOR, Verdict.UNKNOWN


async def test_datagrams_to_oneself_all_arrive_and_are_counted_by_their_clock() -> None:
    found = await measure_loopback(20.0)
    assert found.sent == found.counts.arrivals == DATAGRAMS
    assert len(found.delays_ns) == found.counts.kernel + found.counts.hardware
    if sys.platform == "linux":
        assert all(delay >= 0 for delay in found.delays_ns)


@pytest.mark.parametrize(
    ("counts", "delays", "verdicts"),
    [
        (StampCounts(kernel=198, application=2), (9_000,) * 198, [GOOD, GOOD]),
        (StampCounts(kernel=50, application=150), (900_000,) * 50, [FAIR, FAIR]),
        (StampCounts(hardware=200), (5_000_000,) * 200, [GOOD, POOR]),
        (StampCounts(application=200), (), [POOR]),
        (StampCounts(), (), [UNKNOWN]),
    ],
)
def test_stamps_are_judged_by_who_made_them_and_how_late_we_hear(
    counts: StampCounts, delays: tuple[int, ...], verdicts: list[Verdict]
) -> None:
    assert [check.verdict for check in judge_loopback(Loopback(counts, delays, 200))] == verdicts


@pytest.mark.parametrize(
    ("abilities", "clock", "expected"),
    [(0x5F, 0, CardStamps(True, 0)), (0x18, -1, CardStamps(False, -1)), (0x04, 1, CardStamps(False, 1))],
)
def test_a_driver_answer_says_whether_arrivals_are_stamped(abilities: int, clock: int, expected: CardStamps) -> None:
    raw = struct.pack("=IIiI3II3I", 0x41, abilities, clock, 3, 0, 0, 0, 0x3, 0, 0, 0)
    assert parse_card(raw) == expected


@pytest.mark.parametrize("raw", [b"", bytes(12), bytes(44)])
def test_what_is_no_answer_of_a_driver_is_none(raw: bytes) -> None:
    assert parse_card(raw) is None


def test_an_interface_that_is_not_there_is_none() -> None:
    assert ask_card("hftlab-no-such-card") is None


def test_loopback_is_asked_as_any_interface_and_has_no_hardware() -> None:
    card = ask_card("lo")
    assert card is None or not card.receives


@pytest.mark.parametrize(
    ("cards", "verdict", "told"),
    [
        ({"eth0": CardStamps(True, 0)}, GOOD, "eth0 (/dev/ptp0)"),
        ({"eth0": CardStamps(False, -1)}, FAIR, "none of eth0"),
        ({"eth0": None}, UNKNOWN, "eth0 can't be asked"),
        ({}, UNKNOWN, "no interface"),
    ],
)
def test_cards_are_judged_by_what_their_drivers_say(
    cards: dict[str, CardStamps | None], verdict: Verdict, told: str
) -> None:
    check = judge_cards(cards, [], "linux")
    assert check.verdict is verdict
    assert told in check.value


def test_off_linux_nobody_is_asked_for_hardware() -> None:
    check = judge_cards({}, [], "darwin")
    assert (check.verdict, check.why) == (UNKNOWN, "only Linux is asked; this is darwin")


@pytest.mark.parametrize(
    ("cores", "verdict", "told"),
    [
        (Cores(8, 8, "2-7", "performance", "fpu tsc"), GOOD, "isolated 2-7"),
        (Cores(8, 8, "", "powersave", "fpu tsc"), FAIR, "governor powersave"),
        (Cores(4, 4, "", None, "fpu hypervisor"), FAIR, "virtual machine"),
        (Cores(4, 4, "", "performance", "fpu", "150000 100000"), FAIR, "a quota of 1.5 cores"),
        (Cores(4, 4, "", "performance", "fpu", "max 100000"), GOOD, "no hypervisor"),
        (Cores(1, 16, None, "performance", "fpu"), POOR, "1 of 16 usable"),
        (Cores(8, 8), UNKNOWN, "not told"),
        (Cores(8, 8, quota="1 0"), UNKNOWN, "not told"),
    ],
)
def test_cores_are_judged_by_what_takes_them_away(cores: Cores, verdict: Verdict, told: str) -> None:
    check = judge_cores(cores)
    assert check.verdict is verdict
    assert told in check.value


def test_the_processors_flags_are_the_first_cores() -> None:
    assert cpu_flags("processor\t: 0\nflags\t\t: fpu tsc\n\nprocessor\t: 1\nflags\t\t: other\n") == "fpu tsc"
    assert cpu_flags("processor\t: 0\nFeatures\t: fp asimd\n") is None
    assert cpu_flags(None) is None


@pytest.mark.parametrize(
    ("isolated", "said"), [(None, "isolation not told"), ("", "none isolated"), ("2-3", "isolated 2-3")]
)
def test_cores_that_nobody_tells_of_are_not_said_to_be_shared(isolated: str | None, said: str) -> None:
    assert said in judge_cores(Cores(usable=4, online=4, isolated=isolated)).value
