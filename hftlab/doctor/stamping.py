"""What stamps of arrivals this machine gives, and what stands between a packet and the code that handles it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import struct
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hftlab.clock.stamps import ANCILLARY_BYTES, ArrivalClock, StampCounts, Trust
from hftlab.doctor.report import Check, Verdict
from hftlab.doctor.system_files import names, read
from hftlab.doctor.wording import duration

AREA = "stamps"
DATAGRAMS = 200

_SIOCETHTOOL, _GET_TS_INFO = 0x8946, 0x41
# struct ethtool_ts_info: cmd, so_timestamping, phc_index, tx_types, room, rx_filters, room.
_TS_INFO = struct.Struct("=IIiI12xI12x")
_RX_HARDWARE, _RAW_HARDWARE = 1 << 2, 1 << 6


class Loopback(NamedTuple):
    """What became of datagrams that were sent to oneself. ``delays_ns``: from the kernel's stamp to the application."""

    counts: StampCounts
    delays_ns: tuple[int, ...]
    sent: int


class CardStamps(NamedTuple):
    """What a network card's driver says of its stamps. ``clock``: the number of its /dev/ptp, -1 without one."""

    receives: bool
    clock: int


async def measure_loopback(seconds: float) -> Loopback:
    """Send datagrams to oneself, one after the other, through the running loop as a feed would; 20 ms if it is idle."""
    loop = asyncio.get_running_loop()
    delays: list[int] = []
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        for one in (receiver, sender):
            one.setblocking(False)
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        arrivals = ArrivalClock(receiver)
        arrived = asyncio.Event()

        def take() -> None:
            _, ancillary, _, _ = receiver.recvmsg(64, ANCILLARY_BYTES)
            at_ns = arrivals.look().counter_ns
            arrival = arrivals.place(ancillary)
            if arrival.trust >= Trust.KERNEL:
                delays.append(at_ns - arrival.counter_ns)
            arrived.set()

        loop.add_reader(receiver, take)
        sent = 0
        try:
            async with asyncio.timeout(seconds):
                while sent < DATAGRAMS:
                    arrived.clear()
                    sender.send(b"hftlab")
                    sent += 1
                    await arrived.wait()
        except TimeoutError:
            pass  # a firewall on loopback, or a very busy machine: what came until now is what there is
        finally:
            loop.remove_reader(receiver)
    return Loopback(arrivals.counts(), tuple(delays), sent)


def parse_card(raw: bytes) -> CardStamps | None:
    """A ``struct ethtool_ts_info`` as the kernel filled it in; None for what is none."""
    if len(raw) < _TS_INFO.size:
        return None
    command, abilities, clock, _, _ = _TS_INFO.unpack_from(raw)
    if command != _GET_TS_INFO:
        return None
    return CardStamps(abilities & _RX_HARDWARE != 0 and abilities & _RAW_HARDWARE != 0, clock)


def ask_card(interface: str) -> CardStamps | None:
    """What an interface's driver offers (as ``ethtool -T``); None where it can't be asked. Changes nothing."""
    if sys.platform != "linux":
        return None
    import fcntl

    room = ctypes.create_string_buffer(_TS_INFO.pack(_GET_TS_INFO, 0, -1, 0, 0), _TS_INFO.size)
    # struct ifreq: the name, and a pointer to what is asked for.
    request = struct.pack("@16sP16x", interface.encode()[:15], ctypes.addressof(room))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, _SIOCETHTOOL, request)
    except OSError:
        return None
    return parse_card(room.raw)


# -- judged -----------------------------------------------------------------------------------------------------------


def judge_loopback(found: Loopback) -> list[Check]:
    """Which clock stamps arrivals, and how much later the application hears of them."""
    counts = found.counts
    figures = {"hardware": counts.hardware, "kernel": counts.kernel, "application": counts.application,
               "sent": found.sent, "dropped": counts.dropped}  # fmt: skip
    if not counts.arrivals:
        return [Check(
            area=AREA, name="loopback", value=f"none of {found.sent} datagrams to 127.0.0.1 arrived",
            verdict=Verdict.UNKNOWN, why="something keeps UDP from loopback", figures=figures,
            next="look at the firewall's rules",
        )]  # fmt: skip
    stamped = counts.hardware + counts.kernel
    told = ", ".join(
        f"{count} by {name}" for name, count in
        (("hardware", counts.hardware), ("the kernel", counts.kernel), ("the application", counts.application)) if count
    )  # fmt: skip
    verdict = Verdict.GOOD if stamped >= 0.9 * counts.arrivals else Verdict.FAIR if stamped else Verdict.POOR
    checks = [Check(
        area=AREA, name="loopback", value=f"{counts.arrivals} datagrams stamped: {told}", verdict=verdict,
        why="only Linux is asked for stamps of the kernel's; elsewhere the application's own time is all there is"
        if sys.platform != "linux" else "the kernel does not stamp (gVisor and other sandboxes don't)" if not stamped
        else "the kernel switches its stamps on a little after they are asked for",
        figures=figures,
    )]  # fmt: skip
    if found.delays_ns:
        p50, p99 = (int(one) for one in np.percentile(found.delays_ns, (50, 99)))
        checks.append(Check(
            area=AREA, name="kernel to us", value=f"p50 {duration(p50)}, p99 {duration(p99)}",
            verdict=Verdict.GOOD if p99 < 200_000 else Verdict.FAIR if p99 < 2_000_000 else Verdict.POOR,
            why="so much later than the kernel does a handler learn of a datagram: the loop or the machine is busy",
            figures={"delay_p50_ns": p50, "delay_p99_ns": p99, "count": len(found.delays_ns)},
        ))  # fmt: skip
    return checks


def judge_cards(cards: dict[str, CardStamps | None], clocks: list[str], platform: str = sys.platform) -> Check:
    """Interfaces with hardware behind them, by name, and the /dev/ptp that there are."""
    if platform != "linux":
        return Check(area=AREA, name="hardware", value="not told", verdict=Verdict.UNKNOWN,
                     why=f"only Linux is asked; this is {platform}")  # fmt: skip
    figures = {"interfaces": ", ".join(cards), "clocks": ", ".join(clocks),
               "stamping": ", ".join(name for name, card in cards.items() if card and card.receives)}  # fmt: skip
    stamping = [name if card.clock < 0 else f"{name} (/dev/ptp{card.clock})"
                for name, card in cards.items() if card and card.receives]  # fmt: skip
    silent = [name for name, card in cards.items() if card is None]
    if stamping:
        return Check(
            area=AREA, name="hardware", value=f"{', '.join(stamping)} can stamp arrivals", verdict=Verdict.GOOD,
            next="switch it on, as root: hwstamp_ctl -i INTERFACE -r 1; keep its clock on time: phc2sys",
            figures=figures,
        )  # fmt: skip
    ptp = f"; {', '.join(clocks)} is there" if clocks else "; no /dev/ptp"
    if silent or not cards:
        value = f"{', '.join(silent)} can't be asked" if silent else "no interface with a device behind it"
        return Check(area=AREA, name="hardware", value=value + ptp, verdict=Verdict.UNKNOWN, figures=figures,
                     why="the driver or a sandbox forbids it" if silent else "a container sees none")  # fmt: skip
    return Check(
        area=AREA, name="hardware", value=f"none of {', '.join(cards)} stamps arrivals{ptp}", verdict=Verdict.FAIR,
        why="virtual and cheap cards don't; the kernel's stamps are later by the interrupt, some microseconds",
        good_for="stamps by the kernel", figures=figures,
    )  # fmt: skip


class Cores(NamedTuple):
    """Of ``online`` cores ``usable`` are this process's; the rest is as the kernel writes it, None where it doesn't.

    ``flags``: the processor's; ``quota``: a control group's ``cpu.max``, such as "150000 100000".
    """

    usable: int
    online: int
    isolated: str | None = None
    governor: str | None = None
    flags: str | None = None
    quota: str | None = None

    @property
    def allowed(self) -> float | None:
        """How many cores' time the control group grants; None without a limit."""
        granted, _, period = (self.quota or "").partition(" ")
        return int(granted) / int(period) if granted.isdecimal() and period.isdecimal() and int(period) else None


def judge_cores(cores: Cores) -> Check:
    """Cores and what takes them away: too few, a quota, a hypervisor, a governor that saves power."""
    usable, online, isolated, governor, flags, _ = cores
    virtual = None if flags is None else "hypervisor" in flags.split()
    # Empty where there are none; None where nobody told, which is no answer.
    apart = "isolation not told" if isolated is None else f"isolated {isolated}" if isolated else "none isolated"
    said = [f"{usable} of {online} usable", apart]
    said.append("frequency governor not told" if governor is None else f"governor {governor}")
    said += {True: ["virtual machine"], False: ["no hypervisor"], None: []}[virtual]
    why, to_do = [], []
    if cores.allowed is not None:
        said.append(f"a quota of {cores.allowed:g} cores")
        why.append("who uses up the quota stands still for the rest of each period, mostly 100 ms")
    if usable < 2:
        why.append("one core: the server, the kernel's work and this process take turns")
    if virtual:
        why.append("a hypervisor may take the core away at any time, which no process sees coming")
    if governor not in (None, "performance"):
        why.append(f"the governor {governor} lowers the frequency when idle: the first events of a burst are slow")
        to_do.append("as root: cpupower frequency-set -g performance")
    if usable < 2:
        verdict = Verdict.POOR
    elif virtual is None and governor is None:
        verdict = Verdict.UNKNOWN
        why.append(
            f"only Linux tells; this is {sys.platform}" if sys.platform != "linux" else "/proc and /sys don't tell"
        )
    else:
        verdict = Verdict.FAIR if why else Verdict.GOOD
    return Check(
        area=AREA, name="cores", value=", ".join(said), verdict=verdict, why="; ".join(why), next="; ".join(to_do),
        figures={"usable": usable, "online": online, "isolated": isolated, "governor": governor,
                 "virtual": virtual, "quota_cores": cores.allowed},
    )  # fmt: skip


# -- measured ---------------------------------------------------------------------------------------------------------


def cpu_flags(cpuinfo: str | None) -> str | None:
    """The flags of the first core in /proc/cpuinfo; None where there are none (ARM writes "Features", without ours)."""
    for line in (cpuinfo or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return value.strip()
    return None


async def examine_stamps(root: Path, seconds: float) -> list[Check]:
    """The checks of this area. About 50 ms."""
    net, cpu = root / "sys/class/net", root / "sys/devices/system/cpu"
    cards = {name: ask_card(name) for name in names(net) if (net / name / "device").exists()}
    online = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else online
    return [
        *judge_loopback(await measure_loopback(seconds)),
        judge_cards(cards, [name for name in names(root / "dev") if name.startswith("ptp")]),
        judge_cores(
            Cores(
                usable=usable,
                online=online,
                isolated=read(cpu / "isolated"),
                governor=read(cpu / "cpu0/cpufreq/scaling_governor"),
                flags=cpu_flags(read(root / "proc/cpuinfo")),
                # A container's own group is the top of what it sees.
                quota=read(root / "sys/fs/cgroup/cpu.max"),
            )
        ),
    ]
