"""One question over real sockets: what is taken, what is counted, and when listening ends."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.clock.estimate import Exchange
from hftlab.clock.ntp.cross_check import CrossCheck, cross_check
from hftlab.clock.ntp.sockets import Endpoint, Server, ask, ask_by_name, parse_server, resolve
from hftlab.clock.ntp.wire import Reason, Refusal
from hftlab.clock.stamps import Trust
from hftlab.errors import ValidationError
from tests.clock.ntp.simulated import Behaviour, Truth, simulated
from tests.streams.servers import until

TRUTH_NS = 5_000_000
HAS_IPV6 = socket.has_ipv6 and Path("/proc/net/if_inet6").exists()


def closed_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("time.example.org", "time.example.org", 123),
        ("time.example.org:1123", "time.example.org", 1_123),
        ("192.0.2.1", "192.0.2.1", 123),
        ("2001:db8::1", "2001:db8::1", 123),
        ("[2001:db8::1]", "2001:db8::1", 123),
        ("[2001:db8::1]:65535", "2001:db8::1", 65_535),
        ("[fe80::1%eth0]:123", "fe80::1%eth0", 123),
    ],
)
def test_a_server_is_named_by_host_port_and_address(text: str, host: str, port: int) -> None:
    assert parse_server(text) == Server(text, host, port)


@pytest.mark.parametrize(
    "text",
    ["", " ", "a b", "host:", "host:0", "host:65536", "host:x", "host:-1", "[::1", "[::1]123", "[::1]:", "[host]:1",
     ":123", "1::2::3", "x" * 70 + ".org", "ntp://host", "user@host", "a..b", "host:٣"],
)  # fmt: skip
def test_what_names_no_server_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match=r"got|host"):
        parse_server(text)


@given(st.text(max_size=30))
def test_any_text_is_a_server_or_refused(text: str) -> None:
    try:
        server = parse_server(text)
    except ValidationError:
        return
    assert server.host
    assert 0 < server.port < 65_536


@pytest.mark.parametrize(
    ("address", "near"),
    [("127.0.0.1", True), ("10.1.2.3", True), ("::1", True), ("fe80::1%lo", True), ("::ffff:192.168.0.1", True),
     ("8.8.8.8", False), ("2606:4700:f1::1", False), ("::ffff:8.8.8.8", False)],
)  # fmt: skip
def test_private_networks_are_ones_own(address: str, near: bool) -> None:
    assert Endpoint(socket.AF_INET6 if ":" in address else socket.AF_INET, (address, 123)).is_near is near


async def test_a_literal_address_is_found_without_asking_anybody() -> None:
    assert [str(one) for one in await resolve(parse_server("127.0.0.1:9"))] == ["127.0.0.1:9"]
    assert [str(one) for one in await resolve(parse_server("[::1]:9"))] == ["[::1]:9"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_an_answer_says_where_utc_is(host: str) -> None:
    if host == "::1" and not HAS_IPV6:
        pytest.skip("no IPv6 here")
    truth = Truth(TRUTH_NS)
    async with simulated(truth, [Behaviour()], random.Random(1), host) as (server,):
        before_ns = time.perf_counter_ns()
        answer = await ask_by_name(server.name)
        after_ns = time.perf_counter_ns()
    exchange = answer.outcome
    assert isinstance(exchange, Exchange), exchange
    assert before_ns < exchange.at_ns < after_ns
    error_ns = exchange.at_ns + exchange.offset_ns - truth.utc_ns(exchange.at_ns)
    assert abs(error_ns) <= exchange.delay_ns // 2 + exchange.precision_ns
    assert answer.strays == ()
    assert answer.transmit


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux stamps what arrives")
async def test_arrivals_are_stamped_by_the_kernel_unless_that_is_not_wanted() -> None:
    async with simulated(Truth(0), [Behaviour()], random.Random(1)) as (server,):
        async with asyncio.timeout(20):
            while (await ask_by_name(server.name)).trust is not Trust.KERNEL:
                pass  # the kernel switches its stamps on a little after it was asked
        plain = await ask_by_name(server.name, stamps=False)
    assert plain.trust is Trust.APPLICATION
    assert isinstance(plain.outcome, Exchange)
    assert not plain.outcome.kernel


async def test_forged_answers_are_counted_and_the_true_one_still_taken() -> None:
    behaviour = Behaviour(forged=1.0, garbage=1.0, back_s=(0.01, 0.01))
    async with simulated(Truth(TRUTH_NS), [behaviour], random.Random(2)) as (server,):
        answer = await ask_by_name(server.name)
    assert isinstance(answer.outcome, Exchange)
    reasons = [one.reason for one in answer.strays]
    assert reasons.count(Reason.ORIGIN) >= 3
    assert len(reasons) == server.did["forged"] + server.did["garbage"]
    # What the stranger sent from another address, with the right origin and an hour wrong, never reached us.
    assert server.did["elsewhere"] == 1
    assert abs(answer.outcome.at_ns + answer.outcome.offset_ns - server.truth.utc_ns(answer.outcome.at_ns)) < 10**9


async def test_forged_answers_alone_end_in_a_timeout_that_says_so() -> None:
    async with simulated(Truth(0), [Behaviour(forged=1.0, lost=1.0)], random.Random(3)) as (server,):
        answer = await ask_by_name(server.name, timeout_s=0.1)
    assert isinstance(answer.outcome, Refusal)
    assert answer.outcome.reason is Reason.TIMEOUT
    assert "but 3 packets that were none" in str(answer.outcome)


@pytest.mark.parametrize("code", ["DENY", "RATE"])
async def test_a_kiss_of_death_ends_the_wait(code: str) -> None:
    async with simulated(Truth(0), [Behaviour(kiss=code, kissed=1.0)], random.Random(4)) as (server,):
        answer = await ask_by_name(server.name, timeout_s=20)
    assert isinstance(answer.outcome, Refusal)
    assert (answer.outcome.reason, answer.outcome.kiss) == (Reason.KISS, code)


async def test_the_same_answer_again_is_refused() -> None:
    async with simulated(Truth(0), [Behaviour()], random.Random(5)) as (server,):
        (endpoint,) = await resolve(parse_server(server.name))
        first = await ask(server.name, endpoint)
        server._utc_ns = lambda: 1_800_000_000_000_000_000  # type: ignore[method-assign]
        stuck = await ask(server.name, endpoint, previous=first.transmit)
        again = await ask(server.name, endpoint, previous=stuck.transmit)
    assert isinstance(stuck.outcome, Exchange)
    assert isinstance(again.outcome, Refusal)
    assert again.outcome.reason is Reason.DUPLICATE


async def test_a_port_where_nobody_listens_is_told_at_once() -> None:
    answer = await ask_by_name(f"127.0.0.1:{closed_port()}", timeout_s=20)
    assert isinstance(answer.outcome, Refusal)
    assert answer.outcome.reason is Reason.NETWORK
    assert "refused" in answer.outcome.detail


async def test_a_name_without_an_address_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    answer = await ask_by_name("time.invalid")
    assert isinstance(answer.outcome, Refusal)
    assert (answer.outcome.reason, str(answer.outcome)) == (
        Reason.RESOLVE,
        "time.invalid: time.invalid: Name or service not known",
    )


async def test_a_question_that_is_cancelled_leaves_nothing_behind() -> None:
    async with simulated(Truth(0), [Behaviour(lost=1.0)], random.Random(6)) as (server,):
        task = asyncio.create_task(ask_by_name(server.name, timeout_s=20))
        await until(lambda: server.did["asked"])
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # Its socket was closed: a ResourceWarning would be an error.


async def test_ntplib_finds_the_same_offset_beside_us() -> None:
    async with simulated(Truth(TRUTH_NS), [Behaviour()], random.Random(7)) as (server,):
        found = await cross_check(server.name, timeout_s=5)
    assert found.agrees, found
    assert found.offset_ns is not None
    assert found.delay_ns is not None
    assert "they agree" in repr(found)
    assert "they agree" in found._repr_html_()


async def test_a_cross_check_that_gets_no_answer_says_why() -> None:
    found = await cross_check(f"127.0.0.1:{closed_port()}", timeout_s=0.05)
    assert (found.offset_ns, found.difference_ns, found.agrees) == (None, None, False)
    assert "refused" in found.trouble
    assert "ntplib" in found.trouble


def test_two_clients_that_contradict_each_other_are_said_to_disagree() -> None:
    close = CrossCheck(server="s", offset_ns=0, delay_ns=10_000, ntplib_offset_ns=12_000, ntplib_delay_ns=10_000)
    assert close.agrees
    apart = CrossCheck(server="s", offset_ns=0, delay_ns=10_000, ntplib_offset_ns=12_001, ntplib_delay_ns=10_000)
    assert not apart.agrees
    assert repr(apart) == "CrossCheck(s: ours 0.0 us, ntplib's 12.0 us, difference -12.0 us, they DISAGREE)"
