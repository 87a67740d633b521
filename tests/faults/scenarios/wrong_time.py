"""NTP servers, and those who pretend to be some, that do all that could make a clock wrong; and the clock stays right.

Real sockets on loopback, a real poller and a real SystemClock; only the servers' UTC is made up, so that the truth is
known: off this machine's by up to 2 s, drifting by up to 100 ppm.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from hftlab.clock import SystemClock
from hftlab.clock.estimate import Estimate
from hftlab.clock.ntp.poller import NtpPoller
from tests.clock.ntp.simulated import Behaviour, SimulatedServer, Truth, simulated
from tests.faults.suite import Counts, fault
from tests.streams.servers import until

SECOND_NS = 1_000_000_000
POLL_S = 1 / 16
TIMEOUT_S = 0.1
PROMISE = "true offset within the stated bound, time never falls"


class Watch:
    """Judges every estimate and the clock itself against the truth, while a thread reads the time without end."""

    def __init__(self, truth: Truth, clock: SystemClock) -> None:
        self._truth, self._clock = truth, clock
        self.estimates = self.readings = self.reads = self.falls = 0
        self.broken: list[str] = []
        self.bounds_us: list[float] = []
        self.worst_part = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="reader")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        last = self._clock.now_ns()
        while not self._stop.wait(0.000_5):
            for _ in range(50):
                now = self._clock.now_ns()
                self.falls += now < last
                last = now
            self.reads += 50

    def on_estimate(self, estimate: Estimate) -> None:
        """Compare an estimate with the truth of its moment, and the clock's reading with that of now."""
        self.estimates += 1
        error_ns = estimate.at_ns + estimate.offset_ns - self._truth.utc_ns(estimate.at_ns)
        self._judge(f"{estimate}", error_ns, estimate.bound_ns)
        self.bounds_us.append(estimate.bound_ns / 1_000)
        self.look()

    def look(self) -> None:
        """Compare what the clock says of itself with the truth."""
        before_ns = time.perf_counter_ns()
        reading = self._clock.reading()
        after_ns = time.perf_counter_ns()
        if reading.bound_ns is None:
            return
        self.readings += 1
        low, high = self._truth.utc_ns(before_ns), self._truth.utc_ns(after_ns)
        error_ns = reading.utc_ns - min(max(reading.utc_ns, low), high)
        self._judge(f"{reading}", error_ns, reading.bound_ns)

    def _judge(self, what: str, error_ns: int, bound_ns: int) -> None:
        self.worst_part = max(self.worst_part, abs(error_ns) / bound_ns)
        if abs(error_ns) > bound_ns:
            self.broken.append(f"off by {error_ns:,} ns, bound {bound_ns:,}: {what}")

    def counts(self) -> dict[str, int | float]:
        """What was seen; raises AssertionError where a promise was broken."""
        assert not self.broken, f"{len(self.broken)} of {self.estimates + self.readings} were wrong: {self.broken[:3]}"
        assert self.falls == 0, f"time fell {self.falls} times in {self.reads:,} readings"
        assert self.estimates > 0
        assert self.reads > 0
        return {
            "estimates": self.estimates,
            "readings": self.readings,
            "reads": self.reads,
            "falls": self.falls,
            "bound_us": sorted(self.bounds_us)[len(self.bounds_us) // 2],
            "error_of_bound_pct": 100 * self.worst_part,
        }


@asynccontextmanager
async def polled(
    seed: int, behaviours: Sequence[Behaviour]
) -> AsyncIterator[tuple[random.Random, list[SimulatedServer], NtpPoller, Watch]]:
    """Servers of these behaviours, a poller that asks them 16 times a second, and the watch over its clock."""
    chance = random.Random(seed)
    truth = Truth(chance.randrange(-2 * SECOND_NS, 2 * SECOND_NS), chance.randrange(-100_000, 100_000))
    # A slew that is seen in a second: up to 100 ms of it.
    clock = SystemClock(max_slew_ppm=100_000.0)
    watch = Watch(truth, clock)
    async with simulated(truth, behaviours, chance) as servers:
        poller = NtpPoller(
            [server.name for server in servers], clock, min_poll_s=POLL_S, max_poll_s=POLL_S, timeout_s=TIMEOUT_S,
            on_estimate=watch.on_estimate,
        )  # fmt: skip
        task = asyncio.get_running_loop().create_task(poller.run())
        try:
            with watch:
                yield chance, servers, poller, watch
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def questions(servers: Sequence[SimulatedServer], count: int) -> None:
    """Wait until every server was asked ``count`` times more."""
    goals = [server.did["asked"] + count for server in servers]
    await until(lambda: all(one.did["asked"] >= goal for one, goal in zip(servers, goals, strict=True)))


def refused(poller: NtpPoller, reason: str) -> int:
    """How many packets the poller refused for that reason, all servers together."""
    return sum(one.refused.get(reason, 0) for one in poller.statistics().servers)


def did(servers: Sequence[SimulatedServer], what: str) -> int:
    """How often the servers did that."""
    return sum(server.did[what] for server in servers)


@fault(
    "F15",
    "NTP: asymmetric ways, loss, duplicates, late answers, garbage",
    promise=PROMISE,
    needs_server=False,
)
async def ntp_bad_network(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    bad = {"lost": 0.2, "doubled": 0.2, "late": 0.05, "garbage": 0.2}
    ways = [((0.0, 0.001), (0.002, 0.010)), ((0.004, 0.012), (0.0, 0.001)), ((0.0, 0.004), (0.0, 0.004))]
    behaviours = [Behaviour(forth_s=forth, back_s=back, **bad) for forth, back in ways]  # type: ignore[arg-type]
    async with polled(seed, behaviours) as (_, servers, poller, watch):
        await questions(servers, 16 if scale >= 1 else 8)
        counts = watch.counts()
        told = poller.statistics().servers
        for one in told:  # a question is answered, or counted as timed out, or still under way
            assert 0 <= one.sent - one.answered - one.refused.get("timeout", 0) <= 1, one
    names = ("asked", "lost", "late", "doubled", "garbage")
    return counts | {name: did(servers, name) for name in names} | {"valid": sum(one.answered for one in told)}


@fault(
    "F15",
    "NTP: forged answers, impossible ones, kiss-o'-death",
    promise=f"{PROMISE}; forgeries refused and counted, who is told to go away stays away",
    needs_server=False,
)
async def ntp_forged(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    ways = {"forth_s": (0.0, 0.002), "back_s": (0.0, 0.002)}
    behaviours = [Behaviour(forged=0.7, impossible=0.2, **ways) for _ in range(3)]  # type: ignore[arg-type]
    behaviours += [Behaviour(kiss="DENY", kissed=0.3, **ways)]  # type: ignore[arg-type]
    behaviours += [Behaviour(kiss="RATE", kissed=0.3, **ways)]  # type: ignore[arg-type]
    async with polled(seed, behaviours) as (_, servers, poller, watch):
        await questions(servers[:3], 14 if scale >= 1 else 7)
        denying = servers[3]
        await until(lambda: poller.statistics().servers[3].state.value == "kissed")
        asked = denying.did["asked"]
        await questions(servers[:3], 3)
        assert denying.did["asked"] == asked, "a server that said DENY was asked again"
        counts = watch.counts()
        told = {one.server: one for one in poller.statistics().servers}
        rated = told[servers[4].name].refused.get("kiss", 0)
        assert told[servers[4].name].poll_s == POLL_S * 2**rated
        # What nobody listened to any more: one question a server is under way now, others were given up.
        unheard = len(servers) + refused(poller, "timeout")
        assert 0 <= did(servers, "forged") - refused(poller, "origin") <= 3 * unheard
        for reason in ("unsynchronised", "zero", "distance"):
            assert 0 <= did(servers, reason) - refused(poller, reason) <= unheard
    return counts | {
        "asked": did(servers, "asked"),
        "forged": did(servers, "forged"),
        "refused": refused(poller, "origin"),
        "elsewhere": did(servers, "elsewhere"),
        "impossible": sum(did(servers, reason) for reason in ("unsynchronised", "zero", "distance")),
        "kissed": rated + 1,
    }


@fault(
    "F15",
    "NTP: one of four is always wrong, another steps by 1 s and back",
    promise=f"{PROMISE}; the falseticker is named",
    needs_server=False,
)
async def ntp_stepping(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    chance = random.Random(seed + 1_000)
    wrong_ns = chance.choice((-1, 1)) * chance.randrange(20_000_000, 5 * SECOND_NS)
    ways = {"forth_s": (0.0, 0.003), "back_s": (0.0, 0.003)}
    behaviours = [Behaviour(**ways) for _ in range(3)]  # type: ignore[arg-type]
    behaviours += [Behaviour(error_ns=wrong_ns, **ways)]  # type: ignore[arg-type]
    rounds = 10 if scale >= 1 else 4
    async with polled(seed, behaviours) as (_, servers, poller, watch):
        await questions(servers, rounds)
        named = poller.statistics().falsetickers
        assert named == (servers[3].name,), f"{servers[3].name} is {wrong_ns:,} ns wrong; named: {named}"
        servers[0].behaviour.error_ns = chance.choice((-1, 1)) * SECOND_NS
        await questions(servers, rounds)
        servers[0].behaviour.error_ns = 0
        await questions(servers, rounds)
        counts = watch.counts()
        undecided = poller.statistics().undecided
    return counts | {"asked": did(servers, "asked"), "undecided": undecided, "named": len(named)}
