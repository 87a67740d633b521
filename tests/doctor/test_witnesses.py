"""Who may say how far a clock is from UTC: not this machine itself."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from hftlab.clock import NtpStatistics, ServerState, ServerStatistics, SystemClock
from hftlab.clock.ntp import NtpPoller
from hftlab.doctor import Answer, Verdict, examine
from hftlab.doctor.fitness import NOBODY, Divergence
from hftlab.doctor.time_servers import asked_itself, examine_lab, examine_servers, judge_servers, own_addresses
from tests.clock.ntp.chronyd import chronyd, find_chronyd
from tests.clock.ntp.simulated import Behaviour, Truth, simulated

OWN = {"127.0.0.1", "::1", "192.0.2.7", "2001:db8::7"}


def server(address: str, state: ServerState = ServerState.TRUECHIMER) -> ServerStatistics:
    return ServerStatistics(
        server=f"name of {address}", address=address, state=state, stratum=2, reach=1, offset_ns=0, bound_ns=10,
        delay_ns=5, jitter_ns=0, poll_s=64.0, sent=1, answered=1, refused={}, stamps={}, last_error="",
    )  # fmt: skip


def picture(*servers: ServerStatistics) -> NtpStatistics:
    return NtpStatistics(servers=servers, estimate=None, estimates=1, undecided=0, restarts=0)


@pytest.mark.parametrize(
    ("address", "itself"),
    [
        ("127.0.0.1:123", True), ("127.8.9.10:123", True), ("[::1]:123", True), ("192.0.2.7:123", True),
        ("[2001:db8::7]:123", True), ("[::ffff:127.0.0.1]:123", True), ("192.0.2.8:123", False),
        ("[2001:db8::8]:123", False), ("[fe80::1%eth0]:123", False), ("", False),
    ],
)  # fmt: skip
def test_a_server_with_one_of_this_machines_addresses_is_itself(address: str, itself: bool) -> None:
    one = server(address)
    assert asked_itself(picture(one), OWN) == ((one.server,) if itself else ())


def test_only_servers_that_are_believed_count() -> None:
    found = picture(server("127.0.0.1:1", ServerState.FALSETICKER), server("192.0.2.8:123"))
    assert asked_itself(found, OWN) == ()


def test_this_machine_knows_its_own_addresses() -> None:
    assert {"127.0.0.1", "::1"} <= own_addresses()


def test_a_clock_that_agrees_with_itself_is_unknown_and_said_to_be() -> None:
    found = Divergence(3, 10, "2 NTP servers")
    there, other = judge_servers(picture(server("192.0.2.8:123")), found)[0], server("127.0.0.1:123")
    here = judge_servers(picture(other), found, (other.server,))[0]
    assert there.verdict is not Verdict.UNKNOWN
    assert here.verdict is Verdict.UNKNOWN
    assert "is this machine" in here.why
    assert "other machines" in here.next


def test_three_servers_of_which_one_is_believed_are_one_alone() -> None:
    silent = [server(f"192.0.2.{n}:123", ServerState.UNREACHABLE) for n in (8, 9)]
    check = judge_servers(picture(server("192.0.2.10:123", ServerState.ALONE), *silent), Divergence(3, 10, "one"))[0]
    assert check.verdict is Verdict.FAIR
    assert "three or more" in check.next


@pytest.mark.skipif(find_chronyd() is None, reason="no chronyd here: install the package chrony")
async def test_the_machines_own_daemon_answers_for_no_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hftlab.doctor.clocks.read_kernel_clock", lambda: None)
    async with chronyd(tmp_path) as name:
        report = await examine(ntp=[name], url="redis://127.0.0.1:1/0", seconds=0.5, root=tmp_path)
    assert {one.answer for one in report.fitness} == {Answer.UNKNOWN}
    assert {one.because for one in report.fitness} == {NOBODY}


async def test_neither_asking_nor_a_labs_poller_makes_a_witness_of_this_machine() -> None:
    clock = SystemClock()
    async with simulated(Truth(0), [Behaviour()] * 3, random.Random(1)) as servers:
        names = [one.name for one in servers]
        _, asked = await examine_servers(names, 0.5)
        poller = NtpPoller(names, clock)
        assert await poller.poll_once() is not None
        _, known = examine_lab(poller, clock)
    assert (asked, known) == (None, None)
