"""What NTP servers say of this machine's clock, where the user names some. Otherwise nothing leaves the machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence

import psutil

from hftlab.clock import ClockReading, ClockState, Estimate, NtpStatistics, ServerState, SystemClock
from hftlab.clock.ntp import CrossCheck, NtpPoller
from hftlab.clock.ntp.cross_check import cross_check
from hftlab.clock.stamps import Clocks, read_clocks
from hftlab.doctor.fitness import Divergence
from hftlab.doctor.report import Check, Figure, Verdict
from hftlab.doctor.wording import duration

AREA = "ntp"
_TRACE = (
    "servers are believed, not checked: whether their time is traceable to UTC(NIST) or another laboratory's only "
    "their operator can say"
)


def unasked() -> Check:
    """Nobody was named."""
    return Check(
        area=AREA, name="servers", value="none named, none asked: nothing left this machine", verdict=Verdict.UNKNOWN,
        why="without them only the kernel's word is there",
        next="hftlab doctor --ntp SERVER (three are best), or HFTLAB_NTP",
    )  # fmt: skip


def divergence(statistics: NtpStatistics, clocks: Clocks) -> Divergence | None:
    """How far CLOCK_REALTIME is from what the servers agree on; None where they don't, or don't answer.

    ``clocks``: the counter and CLOCK_REALTIME, read just now. The estimate is as of some ms ago, which adds 15 ppm of
    that to its bound (RFC 5905's PHI): nothing.
    """
    estimate = statistics.estimate
    if estimate is None:
        return None
    utc_minus_realtime_ns = estimate.offset_ns - (clocks.realtime_ns - clocks.counter_ns)
    count = len(estimate.servers)
    witness = f"{count} NTP servers" if count > 1 else "1 NTP server alone"
    return Divergence(-utc_minus_realtime_ns, estimate.bound_ns + clocks.width_ns, witness)


def own_addresses() -> frozenset[str]:
    """The addresses by which this machine can be reached, loopback among them."""
    try:
        listed = psutil.net_if_addrs()
    except OSError:
        listed = {}
    found = {address.address.partition("%")[0] for addresses in listed.values() for address in addresses}
    return frozenset(found | {"127.0.0.1", "::1"})


def asked_itself(statistics: NtpStatistics, own: Collection[str]) -> tuple[str, ...]:
    """The believed servers that are this machine, by ``own``, its addresses.

    Such a one hands out the very clock that it is to judge: they agree, whatever UTC may be.
    """
    hosts = {
        one.server: one.address.rpartition(":")[0].strip("[]").partition("%")[0].removeprefix("::ffff:")
        for one in statistics.servers
    }
    return tuple(name for name in statistics.truechimers if hosts[name] in own or hosts[name].startswith("127."))


def judge_servers(statistics: NtpStatistics, found: Divergence | None, itself: tuple[str, ...] = ()) -> list[Check]:
    """All servers together, then each; offsets are this clock's minus theirs. ``itself``: see ``asked_itself``."""
    checks = [_judge_all(statistics, found, itself)]
    for one in statistics.servers:
        believed = one.state in (ServerState.TRUECHIMER, ServerState.ALONE)
        value = one.state.value
        if one.offset_ns is not None and one.bound_ns is not None:
            # The other way round: how far this clock is ahead of the server, as in all that is shown here.
            value += f": {_signed(-one.offset_ns)} ± {duration(one.bound_ns)}, stratum {one.stratum}"
            value += f", round trip {duration(one.delay_ns)}" if one.delay_ns is not None else ""
        checks.append(
            Check(
                area=AREA, name=one.server, value=value,
                verdict=Verdict.GOOD if believed else
                Verdict.UNKNOWN if one.state in (ServerState.UNHEARD, ServerState.CANDIDATE) else Verdict.POOR,
                # It begins with the server's name, which is the row's own already.
                why=one.last_error.removeprefix(f"{one.server}: "),
                next="" if believed else "look at its name, its port (UDP 123), and a firewall in between",
                figures={"server": one.server, "state": one.state.value, "offset_ns": one.offset_ns,
                         "bound_ns": one.bound_ns, "delay_ns": one.delay_ns, "stratum": one.stratum},
            )
        )  # fmt: skip
    return checks


def _judge_all(statistics: NtpStatistics, found: Divergence | None, itself: tuple[str, ...]) -> Check:
    if found is None:
        answered = sum(one.answered > 0 for one in statistics.servers)
        value = f"{answered} of {len(statistics.servers)} answered, and too few agree" if answered else "none answered"
        return Check(
            area=AREA, name="servers", value=value, verdict=Verdict.UNKNOWN, why="UTC is what more than half agree on",
            next="name other servers, three or more; or is UDP port 123 closed on the way?",
        )  # fmt: skip
    figures: dict[str, Figure] = {
        "offset_ns": found.offset_ns, "bound_ns": found.bound_ns, "itself": ", ".join(itself),
        "falsetickers": ", ".join(statistics.falsetickers),
    }  # fmt: skip
    if itself:
        return Check(
            area=AREA, name="servers", value=f"CLOCK_REALTIME is off by {found}", verdict=Verdict.UNKNOWN,
            why=f"{', '.join(itself)} is this machine: a clock agrees with itself, which says nothing of UTC",
            next="name servers on other machines only", figures=figures,
        )  # fmt: skip
    alone = len(statistics.truechimers) < 3
    verdict = (
        Verdict.GOOD if found.most_ns <= 1_000_000 else Verdict.FAIR if found.most_ns <= 50_000_000 else Verdict.POOR
    )
    return Check(
        area=AREA, name="servers", value=f"CLOCK_REALTIME is off by {found}",
        verdict=Verdict.FAIR if alone and verdict is Verdict.GOOD else verdict,
        why=f"{_TRACE}; an asymmetric way shifts all of it within the bound, unseen",
        good_for=f"hftlab's own clock, disciplined by them: UTC within {duration(found.bound_ns)}",
        next="name three or more servers: of fewer, one that is wrong can't be outvoted" if alone else "",
        figures=figures,
    )  # fmt: skip


def judge_cross_check(found: CrossCheck) -> Check:
    """The same server asked by ntplib."""
    difference_ns = found.difference_ns
    if difference_ns is None:
        return Check(
            area=AREA, name="cross-check", value=f"{found.server}: no two answers to compare", verdict=Verdict.UNKNOWN,
            why=found.trouble,
        )  # fmt: skip
    said = "agree" if found.agrees else "DISAGREE"
    return Check(
        area=AREA, name="cross-check",
        value=f"{found.server}: ours and ntplib's {said}, difference {_signed(difference_ns)}",
        verdict=Verdict.GOOD if found.agrees else Verdict.POOR,
        why="two clients, made independently, asked the same server within a second",
        next="" if found.agrees else "ask again; the way to it may have been congested",
        figures={"offset_ns": found.offset_ns, "ntplib_offset_ns": found.ntplib_offset_ns,
                 "difference_ns": difference_ns},
    )  # fmt: skip


def judge_discipline(reading: ClockReading) -> Check:
    """A lab's own clock, which a poller disciplines while it runs."""
    bound_ns = reading.bound_ns
    known = (
        "nothing known" if bound_ns is None else f"{_signed(reading.offset_ns)} ± {duration(bound_ns)} still missing"
    )
    verdicts = {"SYNCED": Verdict.GOOD, "HOLDOVER": Verdict.FAIR}
    return Check(
        area=AREA, name="lab's clock", value=f"{reading.state.value}: {known}, {reading.drift_ppb / 1e3:+.2f} ppm",
        verdict=verdicts.get(reading.state.value, Verdict.POOR),
        why="what hftlab stamps events with, by the servers that the lab asks",
        figures={"state": reading.state.value, "offset_ns": reading.offset_ns, "bound_ns": bound_ns},
    )  # fmt: skip


def _signed(ns: int) -> str:
    return ("-" if ns < 0 else "+") + duration(abs(ns))


class Realtime:
    """CLOCK_REALTIME as a poller's clock: nobody disciplines it here, so that its own error is what is seen."""

    def now_ns(self) -> int:
        """The time now, in ns UTC, as right as the machine's clock is."""
        return time.time_ns()

    def discipline(self, estimate: Estimate, /) -> None:
        """Nothing: looking is all that is done here."""


def examine_lab(poller: NtpPoller, clock: SystemClock) -> tuple[list[Check], Divergence | None]:
    """What a lab's own poller knows already; nobody is asked. Offsets in its table are those of the lab's clock.

    The second value is for the rules: None also where the servers are no witnesses, see ``asked_itself``.
    """
    reading, statistics = clock.reading(), poller.statistics()
    found = None
    if reading.bound_ns is not None and reading.state is not ClockState.UNSYNCED:
        count = len(statistics.truechimers)
        witness = f"the lab's clock ({count} NTP server{'s' * (count != 1)})"
        found = Divergence(time.time_ns() - clock.utc_ns(), reading.bound_ns, witness)
    itself = asked_itself(statistics, own_addresses())
    return [*judge_servers(statistics, found, itself), judge_discipline(reading)], None if itself else found


async def examine_servers(servers: Sequence[str], seconds: float) -> tuple[list[Check], Divergence | None]:
    """Ask each server once, more often those nearby while time is left, and one by ntplib too.

    At most ``seconds``, and what a name's lookup takes. Raises ValidationError for what is no server's name. The second
    value is for the rules: None also where the servers are no witnesses, see ``asked_itself``.
    """
    deadline_s = time.monotonic() + seconds
    timeout_s = min(1.0, seconds / 2)
    poller = NtpPoller(list(servers), Realtime(), timeout_s=timeout_s)
    await poller.poll_once()
    # Servers nearby may be asked again at once: of several answers, the one that was fastest has the smallest bound.
    for _ in range(7):
        if time.monotonic() > deadline_s - 2 * timeout_s or await poller.poll_once() is None:
            break
        await asyncio.sleep(0.02)
    statistics, clocks = poller.statistics(), read_clocks()
    found = divergence(statistics, clocks)
    itself = asked_itself(statistics, own_addresses())
    checks = judge_servers(statistics, found, itself)
    believed = statistics.truechimers
    if believed:
        checks.append(judge_cross_check(await cross_check(believed[0], timeout_s=timeout_s)))
    return checks, None if itself else found
