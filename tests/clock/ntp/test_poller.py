"""The poller over real sockets: rounds, the background task, whom it believes, and what it shows."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from hftlab.clock import SystemClock
from hftlab.clock.estimate import ClockState, Estimate
from hftlab.clock.ntp import association
from hftlab.clock.ntp import poller as module
from hftlab.clock.ntp.poller import NtpPoller
from hftlab.clock.ntp.sockets import Endpoint, Server, parse_server, resolve
from hftlab.clock.ntp.statistics import ServerState
from hftlab.errors import BackgroundFailed, ValidationError
from tests.clock.ntp.simulated import Behaviour, SimulatedServer, Truth, simulated
from tests.clock.ntp.test_sockets import closed_port
from tests.streams.servers import until

QUICK = {"min_poll_s": 1 / 16, "max_poll_s": 1 / 16, "timeout_s": 0.2}
AHEAD_NS = 3_000_000


@asynccontextmanager
async def polled(*behaviours: Behaviour, **settings: object) -> AsyncIterator[tuple[NtpPoller, list[SimulatedServer]]]:
    async with simulated(Truth(AHEAD_NS), behaviours, random.Random(1)) as servers:
        poller = NtpPoller([one.name for one in servers], SystemClock(), **(QUICK | settings))  # type: ignore[arg-type]
        yield poller, servers


@asynccontextmanager
async def running(poller: NtpPoller) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.get_running_loop().create_task(poller.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def asleep(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How long the machine has slept, in ns, as everybody who asks finds it."""
    slept = [0]
    for one in (module, association):
        monkeypatch.setattr(one, "asleep_ns", lambda: slept[0])
    return slept


def holds(estimate: Estimate | None, truth: Truth) -> bool:
    assert estimate is not None
    return abs(estimate.at_ns + estimate.offset_ns - truth.utc_ns(estimate.at_ns)) <= estimate.bound_ns


async def test_one_round_asks_all_servers_and_disciplines_the_clock() -> None:
    seen: list[Estimate] = []
    async with polled(Behaviour(), Behaviour(), Behaviour(), on_estimate=seen.append) as (poller, servers):
        estimate = await poller.poll_once()
        assert holds(estimate, servers[0].truth)
        assert seen == [estimate] == [poller.estimate]
        reading = poller.clock.reading()  # type: ignore[attr-defined]
        assert reading.state is ClockState.SYNCED
        assert {one.server for one in poller.exchanges} == set(poller.servers)
        told = poller.statistics()
    assert [one.state for one in told.servers] == [ServerState.TRUECHIMER] * 3
    assert told.truechimers == poller.servers
    assert (told.estimates, told.undecided) == (1, 0)
    one = told.servers[0]
    assert (one.sent, one.answered, one.reach, one.refused, one.last_error) == (1, 1, 1, {}, "")
    assert one.address == one.server
    assert one.offset_ns is not None
    assert one.bound_ns is not None
    assert sum(one.stamps.values()) == 1


async def test_a_single_server_is_believed_and_said_to_be_alone() -> None:
    async with polled(Behaviour()) as (poller, servers):
        assert holds(await poller.poll_once(), servers[0].truth)
        assert poller.statistics().servers[0].state is ServerState.ALONE


async def test_two_servers_that_contradict_each_other_are_no_majority() -> None:
    async with polled(Behaviour(), Behaviour(error_ns=10**9)) as (poller, _):
        assert await poller.poll_once() is None
        assert poller.estimate is None
        assert poller.statistics().undecided == 1
        assert {one.state for one in poller.statistics().servers} == {ServerState.CANDIDATE}
        assert poller.clock.reading().state is ClockState.UNSYNCED  # type: ignore[attr-defined]


async def test_a_falseticker_is_named() -> None:
    async with polled(Behaviour(), Behaviour(), Behaviour(), Behaviour(error_ns=-(10**9))) as (poller, servers):
        estimate = await poller.poll_once()
        assert holds(estimate, servers[0].truth)
        assert estimate is not None
        assert estimate.falsetickers == poller.statistics().falsetickers == (servers[3].name,)


async def test_servers_that_are_of_no_use_are_shown_with_the_reason() -> None:
    dead = f"127.0.0.1:{closed_port()}"
    bad = Behaviour(impossible=1.0)
    async with polled(Behaviour(), bad, Behaviour(kiss="DENY", kissed=1.0)) as (some, servers):
        poller = NtpPoller([*some.servers, dead], SystemClock(), **QUICK)  # type: ignore[arg-type]
        await poller.poll_once()
        await poller.poll_once()
        states = [one.state for one in poller.statistics().servers]
        assert states == [ServerState.ALONE, ServerState.REFUSED, ServerState.KISSED, ServerState.UNREACHABLE]
        assert [one.did["asked"] for one in servers] == [2, 2, 1]
    told = {one.server: one for one in poller.statistics().servers}
    assert told[dead].refused == {"network": 2}
    assert "refused" in told[dead].last_error
    assert told[servers[2].name].refused == {"kiss": 1}
    assert sum(told[servers[1].name].refused.values()) == 2


async def test_in_the_background_servers_are_asked_until_it_is_cancelled() -> None:
    async with polled(Behaviour(), Behaviour(), Behaviour(lost=0.5)) as (poller, servers):
        async with running(poller):
            await until(lambda: all(one.did["answered"] >= 4 for one in servers))
            assert repr(poller).endswith("; running)")
            with pytest.raises(BackgroundFailed, match="runs already"):
                await poller.run()
        assert not poller.running
        assert holds(poller.estimate, servers[0].truth)
        for one in poller.statistics().servers:
            assert 0 <= one.sent - one.answered - one.refused.get("timeout", 0) <= 1


async def test_a_server_that_comes_back_at_the_same_address_is_used_again() -> None:
    async with polled(Behaviour(lost=1.0)) as (poller, servers), running(poller):
        await until(lambda: poller.statistics().servers[0].refused.get("timeout", 0) >= 2)
        assert poller.statistics().servers[0].state is ServerState.UNREACHABLE
        servers[0].behaviour.lost = 0.0
        await until(lambda: poller.statistics().servers[0].state is ServerState.ALONE)


async def test_a_name_that_moves_is_looked_up_again_and_what_the_old_server_said_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with simulated(Truth(0), [Behaviour(), Behaviour(error_ns=10**9)], random.Random(1)) as servers:
        ports = [int(one.name.rpartition(":")[2]) for one in servers]
        lookups: list[str] = []

        async def moving(server: Server) -> list[Endpoint]:
            lookups.append(server.name)
            return await resolve(server._replace(host="127.0.0.1", port=ports[min(len(lookups), 2) - 1]))

        monkeypatch.setattr(association, "resolve", moving)
        poller = NtpPoller("ntp.example.org", SystemClock(), **(QUICK | {"timeout_s": 0.02}))  # type: ignore[arg-type]
        assert await poller.poll_once() is not None
        await poller.poll_once()
        assert lookups == ["ntp.example.org"]
        servers[0].behaviour.lost = 1.0
        async with running(poller):
            await until(lambda: servers[1].did["answered"])
            await until(lambda: poller.statistics().servers[0].state is ServerState.ALONE)
        first = poller.statistics().servers[0]
        assert first.address == f"127.0.0.1:{ports[1]}"
        assert poller.estimate is not None
        ahead_ns = poller.estimate.at_ns + poller.estimate.offset_ns - servers[0].truth.utc_ns(poller.estimate.at_ns)
        assert abs(ahead_ns - 10**9) <= poller.estimate.bound_ns


async def test_two_names_for_one_server_are_one_vote() -> None:
    async with simulated(Truth(0), [Behaviour(error_ns=10**9), Behaviour()], random.Random(1)) as (liar, honest):
        again = f"[::ffff:127.0.0.1]:{liar.name.rpartition(':')[2]}"
        poller = NtpPoller([liar.name, again, honest.name], SystemClock(), **QUICK)  # type: ignore[arg-type]
        for _ in range(4):
            assert await poller.poll_once() is None
        assert liar.did["asked"] == 4
        told = {one.server: one for one in poller.statistics().servers}
    assert (told[again].state, set(told[again].refused)) == (ServerState.UNREACHABLE, {"resolve"})
    assert f"the same server as {liar.name}" in told[again].last_error


async def test_names_with_several_addresses_share_them_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with simulated(Truth(0), [Behaviour(), Behaviour()], random.Random(1)) as servers:
        shared = [await resolve(parse_server(one.name)) for one in servers]

        async def pool(server: Server) -> list[Endpoint]:
            return [endpoint for found in shared for endpoint in found]

        monkeypatch.setattr(association, "resolve", pool)
        names = ["0.ntp.example.org", "1.ntp.example.org"]
        poller = NtpPoller(names, SystemClock(), **QUICK)  # type: ignore[arg-type]
        assert await poller.poll_once() is not None
        assert [one.address for one in poller.statistics().servers] == [one.name for one in servers]


async def test_all_that_was_known_is_void_once_the_machine_has_slept(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = asleep(monkeypatch)
    async with polled(Behaviour()) as (poller, servers):
        await poller.poll_once()
        slept[0] = 3_600_000_000_000
        servers[0].behaviour.lost = 1.0
        assert await poller.poll_once() is None
        told = poller.statistics()
        assert (told.restarts, told.estimate) == (1, None)
        assert told.servers[0].offset_ns is None


async def test_an_answer_that_the_machine_slept_through_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = asleep(monkeypatch)
    async with polled(Behaviour(back_s=(0.05, 0.05))) as (poller, servers):
        round_ = asyncio.get_running_loop().create_task(poller.poll_once())
        await until(lambda: servers[0].did["asked"])
        slept[0] = 3_600_000_000_000
        assert await round_ is None
        told = poller.statistics()
        assert (told.restarts, told.servers[0].answered, told.servers[0].refused) == (1, 0, {"delay": 1})
        assert holds(await poller.poll_once(), servers[0].truth)


async def test_of_several_answers_under_way_during_a_sleep_none_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = asleep(monkeypatch)
    seen: list[Estimate] = []
    honest = Behaviour(back_s=(0.05, 0.05))
    async with polled(*[honest] * 4, on_estimate=seen.append, min_poll_s=10, max_poll_s=10) as (poller, servers):
        async with running(poller):
            await until(lambda: all(one.did["asked"] for one in servers))
            slept[0] = 60_000_000_000
            # Each answer comes to a task of its own, and the first of them already finds the sleep.
            await until(lambda: all(sum(one.refused.values()) + one.answered for one in poller.statistics().servers))
        told = poller.statistics()
        assert (told.restarts, seen) == (1, [])
        assert [(one.answered, one.refused) for one in told.servers] == [(0, {"delay": 1})] * 4


async def test_what_on_estimate_raises_comes_out_of_the_background_task() -> None:
    def fails(estimate: Estimate) -> None:
        raise KeyError(f"{estimate.servers}")

    async with polled(Behaviour(), Behaviour(), on_estimate=fails) as (poller, _):
        with pytest.raises(KeyError):
            async with asyncio.timeout(20):
                await poller.run()
        assert not poller.running


async def test_the_background_task_ends_when_every_server_said_go_away() -> None:
    deny = Behaviour(kiss="RSTR", kissed=1.0)
    async with polled(deny, deny) as (poller, servers):
        async with asyncio.timeout(20):
            await poller.run()
        assert [one.did["asked"] for one in servers] == [1, 1]
        assert await poller.poll_once() is None


async def test_what_is_shown_is_short_and_whole() -> None:
    async with polled(Behaviour(), Behaviour()) as (poller, servers):
        assert repr(poller) == "NtpPoller(2 unheard)"
        await poller.poll_once()
        told = poller.statistics()
        assert repr(told).startswith("NtpStatistics(2 truechimer; UTC within ")
        frame = told.to_frame()
        assert list(frame.index) == list(poller.servers)
        assert list(frame["state"]) == ["truechimer", "truechimer"]
        assert frame["stamps"].iloc[0].startswith("1 ")
        for name in poller.servers:
            assert name in poller._repr_html_()
        assert str(told.servers[0]).startswith(f"{servers[0].name}: truechimer, ")


@pytest.mark.parametrize(
    ("servers", "settings"),
    [
        ([], {}),
        (["a", "a"], {}),
        (["a"] * 33, {}),
        (["a:b:c"], {}),
        ("", {}),
        ("a", {"timeout_s": 0}),
        ("a", {"timeout_s": float("inf")}),
        ("a", {"min_poll_s": 0.01}),
        ("a", {"max_poll_s": 10}),
        ("a", {"burst": 100}),
    ],
)
def test_settings_that_can_not_be_are_refused(servers: Sequence[str], settings: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        NtpPoller(servers, SystemClock(), **settings)  # type: ignore[arg-type]


async def test_the_first_to_answer_is_not_believed_because_the_others_are_slower() -> None:
    honest = Behaviour(back_s=(0.05, 0.05))
    seen: list[Estimate] = []
    async with polled(Behaviour(error_ns=10**9), honest, honest, on_estimate=seen.append) as (poller, servers):
        async with running(poller):
            await until(lambda: seen)
        assert holds(seen[0], servers[0].truth)
        assert len(seen[0].servers) == 2
        assert poller.statistics().undecided >= 1


async def test_silence_is_an_answer_after_three_times() -> None:
    async with polled(Behaviour(), Behaviour(lost=1.0), timeout_s=0.02) as (poller, servers):
        assert await poller.poll_once() is None
        assert poller.statistics().servers[0].state is ServerState.CANDIDATE
        assert await poller.poll_once() is None
        assert holds(await poller.poll_once(), servers[0].truth)
        assert poller.statistics().servers[0].state is ServerState.ALONE
