"""What NTP servers whose truth is known say of this machine's clock, and what the doctor makes of it."""

from __future__ import annotations

import random

import pytest

from hftlab.clock import ClockReading, ClockState, SystemClock
from hftlab.clock.ntp import CrossCheck, NtpPoller
from hftlab.doctor.report import Verdict
from hftlab.doctor.time_servers import (
    examine_lab,
    examine_servers,
    judge_cross_check,
    judge_discipline,
    unasked,
)
from hftlab.errors import ValidationError
from tests.clock.ntp.simulated import Behaviour, Truth, simulated

GOOD, FAIR, POOR, UNKNOWN = Verdict.GOOD, Verdict.FAIR, Verdict.POOR, Verdict.UNKNOWN
MS = 1_000_000


@pytest.mark.usefixtures("elsewhere")
async def test_a_clock_that_is_behind_is_found_to_be_within_the_bound() -> None:
    # Servers ahead by 7 ms: this machine's clock is behind them, whose offset is told as this clock's minus theirs.
    async with simulated(Truth(7 * MS), [Behaviour()] * 3, random.Random(1)) as servers:
        checks, found = await examine_servers([server.name for server in servers], 2.0)
    assert found is not None
    # Linux may slew CLOCK_REALTIME meanwhile: 500 ppm of the test's few seconds.
    assert abs(found.offset_ns + 7 * MS) <= found.bound_ns + 2 * MS
    assert found.witness == "3 NTP servers"
    assert [check.name for check in checks] == ["servers", *(server.name for server in servers), "cross-check"]
    assert all("truechimer: -" in check.value for check in checks[1:4])
    assert checks[0].figures["offset_ns"] == found.offset_ns


@pytest.mark.usefixtures("elsewhere")
async def test_a_server_that_is_wrong_is_outvoted_and_named() -> None:
    wrong = [Behaviour(), Behaviour(), Behaviour(error_ns=500 * MS)]
    async with simulated(Truth(0), wrong, random.Random(2)) as servers:
        names = [server.name for server in servers]
        checks, found = await examine_servers(names, 2.0)
    assert found is not None
    by_name = {check.name: check for check in checks}
    assert by_name[names[2]].verdict is POOR
    assert "falseticker" in by_name[names[2]].value
    assert by_name["servers"].figures["falsetickers"] == names[2]


@pytest.mark.usefixtures("elsewhere")
async def test_one_server_alone_is_never_good_and_three_are_advised() -> None:
    async with simulated(Truth(0), [Behaviour()], random.Random(3)) as (server,):
        checks, found = await examine_servers([server.name], 2.0)
    assert found is not None
    assert found.witness == "1 NTP server alone"
    assert checks[0].verdict is FAIR
    assert "three" in checks[0].next


async def test_servers_that_do_not_answer_leave_it_unknown() -> None:
    async with simulated(Truth(0), [Behaviour(lost=1.0)] * 2, random.Random(4)) as servers:
        checks, found = await examine_servers([server.name for server in servers], 0.2)
    assert found is None
    assert (checks[0].verdict, checks[0].value) == (UNKNOWN, "none answered")
    assert "cross-check" not in {check.name for check in checks}


async def test_servers_that_contradict_each_other_leave_it_unknown() -> None:
    behaviours = [Behaviour(error_ns=-800 * MS), Behaviour(error_ns=800 * MS)]
    async with simulated(Truth(0), behaviours, random.Random(5)) as servers:
        checks, found = await examine_servers([server.name for server in servers], 0.5)
    assert found is None
    assert checks[0].value == "2 of 2 answered, and too few agree"


async def test_what_is_no_server_is_refused() -> None:
    with pytest.raises(ValidationError, match="a server is"):
        await examine_servers(["no server/at all"], 1.0)


@pytest.mark.usefixtures("elsewhere")
async def test_a_labs_poller_is_believed_without_asking_anybody() -> None:
    clock = SystemClock()
    async with simulated(Truth(7 * MS), [Behaviour()] * 3, random.Random(6)) as servers:
        poller = NtpPoller([server.name for server in servers], clock)
        assert await poller.poll_once() is not None
        asked = [server.did["asked"] for server in servers]
        checks, found = examine_lab(poller, clock)
        assert [server.did["asked"] for server in servers] == asked
    assert found is not None
    assert abs(found.offset_ns + 7 * MS) <= found.bound_ns + 2 * MS
    assert "the lab's clock (3 NTP servers)" in str(found)
    assert checks[-1].name == "lab's clock"
    assert checks[-1].verdict is GOOD


async def test_a_labs_poller_that_knows_nothing_is_no_witness() -> None:
    clock = SystemClock()
    checks, found = examine_lab(NtpPoller(["192.0.2.1"], clock), clock)
    assert found is None
    assert checks[-1].verdict is POOR


def test_without_servers_it_says_that_nothing_left_the_machine() -> None:
    check = unasked()
    assert check.verdict is UNKNOWN
    assert "nothing left this machine" in check.value
    assert "--ntp" in check.next


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (CrossCheck(server="s", offset_ns=10, delay_ns=50, ntplib_offset_ns=40, ntplib_delay_ns=50), GOOD),
        (CrossCheck(server="s", offset_ns=10, delay_ns=50, ntplib_offset_ns=9 * MS, ntplib_delay_ns=50), POOR),
        (CrossCheck(server="s", trouble="no answer"), UNKNOWN),
    ],
)
def test_two_clients_that_disagree_are_poor(found: CrossCheck, verdict: Verdict) -> None:
    assert judge_cross_check(found).verdict is verdict


@pytest.mark.parametrize(
    ("state", "verdict"),
    [(ClockState.SYNCED, GOOD), (ClockState.HOLDOVER, FAIR), (ClockState.UNSYNCED, POOR)],
)
def test_a_labs_clock_is_judged_by_its_state(state: ClockState, verdict: Verdict) -> None:
    bound_ns = None if state is ClockState.UNSYNCED else 1_000
    assert judge_discipline(ClockReading(0, -5_000, bound_ns, state, 1_500.0, 0.0)).verdict is verdict
