"""Against a real server, whose UTC is this machine's own: what is estimated is true, within what is promised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from hftlab.clock import SystemClock
from hftlab.clock.estimate import ClockState, Exchange
from hftlab.clock.ntp.cross_check import cross_check
from hftlab.clock.ntp.poller import NtpPoller
from hftlab.clock.ntp.sockets import ask_by_name
from hftlab.clock.ntp.statistics import ServerState
from hftlab.clock.stamps import read_clocks
from tests.clock.ntp.accuracy import measured
from tests.clock.ntp.chronyd import chronyd, find_chronyd, truth_ns
from tests.streams.servers import until

pytestmark = pytest.mark.skipif(find_chronyd() is None, reason="no chronyd here: install the package chrony")

# How far the truth itself is known here: two clocks read one after the other, on a machine that others use too.
_READ_NS = 1_000


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[str]:
    async with chronyd(tmp_path) as name:
        yield name


@pytest.mark.parametrize("stamps", [True, False])
async def test_the_truth_lies_within_half_the_delay_of_every_exchange(server: str, stamps: bool) -> None:
    for _ in range(50):
        exchange = (await ask_by_name(server, stamps=stamps)).outcome
        assert isinstance(exchange, Exchange), exchange
        error_ns = exchange.offset_ns - truth_ns()
        assert abs(error_ns) <= exchange.delay_ns // 2 + exchange.precision_ns + _READ_NS


async def test_the_truth_lies_within_the_bound_of_every_estimate_and_of_the_clock(server: str) -> None:
    clock = SystemClock()
    poller = NtpPoller(server, clock, min_poll_s=1 / 16, max_poll_s=1 / 16)
    for _ in range(60):
        estimate = await poller.poll_once()
        assert estimate is not None
        assert abs(estimate.offset_ns - truth_ns()) <= estimate.bound_ns + _READ_NS
        reading = clock.reading()
        error_ns = reading.utc_ns - read_clocks().realtime_ns
        assert reading.state is ClockState.SYNCED
        assert reading.bound_ns is not None
        # From below, no more than the time between the two readings, which nothing bounds on a busy machine.
        assert error_ns <= reading.bound_ns + _READ_NS
    assert poller.statistics().servers[0].state is ServerState.ALONE
    assert poller.statistics().servers[0].answered == 60


async def test_in_the_background_the_clock_is_held_to_the_servers(server: str) -> None:
    clock = SystemClock()
    poller = NtpPoller(server, clock, min_poll_s=1 / 16, max_poll_s=1 / 16)
    task = asyncio.get_running_loop().create_task(poller.run())
    await until(lambda: poller.statistics().servers[0].answered >= 5)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert poller.estimate is not None
    assert abs(poller.estimate.offset_ns - truth_ns()) <= poller.estimate.bound_ns + _READ_NS


async def test_ntplib_agrees(server: str) -> None:
    found = await cross_check(server, timeout_s=5)
    assert found.agrees, found


async def test_the_estimators_error_is_within_its_bound_and_its_figures_are_printed(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for stamps in (True, False):
        found = await measured(server, exchanges=64, stamps=stamps)
        assert len(found.errors_ns) == 64 // 8
        assert found.beyond == 0
        print(found)
    assert "p99" in capsys.readouterr().out
