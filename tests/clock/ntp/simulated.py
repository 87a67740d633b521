"""NTP servers on loopback whose UTC is made up and known, and who do everything that servers and strangers do."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from tests.clock.ntp.packets import SECOND_NS, answer

_Address = tuple[Any, ...]


@dataclass(frozen=True)
class Truth:
    """UTC, as the simulation has it: a line over the counter."""

    ahead_ns: int
    drift_ppb: int = 0
    began_ns: int = field(default_factory=time.perf_counter_ns)
    real_ns: int = field(default_factory=time.time_ns)

    def utc_ns(self, counter_ns: int) -> int:
        passed_ns = counter_ns - self.began_ns
        return self.real_ns + self.ahead_ns + passed_ns + passed_ns * self.drift_ppb // SECOND_NS


@dataclass
class Behaviour:
    """What a server does: the chances of each (0 to 1), how long the ways take (seconds), how wrong its clock is."""

    forth_s: tuple[float, float] = (0.0, 0.0)
    back_s: tuple[float, float] = (0.0, 0.0)
    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    garbage: float = 0.0
    forged: float = 0.0
    impossible: float = 0.0
    kiss: str = ""
    kissed: float = 0.0
    error_ns: int = 0


# With the right origin, and wrong all the same; the reason by which each is refused.
IMPOSSIBLE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("unsynchronised", {"stratum": 16}),
    ("unsynchronised", {"leap": 3}),
    ("zero", {"transmit": 0}),
    ("distance", {"root_dispersion": 2 << 16}),
    ("distance", {"precision": 5}),
)


class SimulatedServer(asyncio.DatagramProtocol):
    """One server. ``did`` counts what it did."""

    def __init__(self, truth: Truth, behaviour: Behaviour, chance: random.Random) -> None:
        self.truth, self.behaviour, self.chance = truth, behaviour, chance
        self.did: Counter[str] = Counter()
        self.stranger: asyncio.DatagramTransport | None = None
        self._transport: asyncio.DatagramTransport | None = None

    def itself(self) -> SimulatedServer:
        return self

    @property
    def name(self) -> str:
        assert self._transport is not None
        host, port = self._transport.get_extra_info("sockname")[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: Python 3.11's datagram transports are none by their class.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: _Address) -> None:
        how, chance = self.behaviour, self.chance
        self.did["asked"] += 1
        origin = int.from_bytes(data[40:48], "big")
        if chance.random() < how.garbage:
            self._send("garbage", chance.randbytes(chance.choice((0, 1, 47, 48, 60, 500, 1_500))), address)
        if chance.random() < how.forged:
            self._forge(origin, address)
        if chance.random() < how.lost:
            self.did["lost"] += 1
            return
        asyncio.get_running_loop().call_later(chance.uniform(*how.forth_s), self._arrived, origin, address)

    def _arrived(self, origin: int, address: _Address) -> None:
        """The question is there: by this server's own clock."""
        how, chance = self.behaviour, self.chance
        what, changes = "answered", dict[str, Any]()
        if how.kiss and chance.random() < how.kissed:
            what, changes = how.kiss, {"stratum": 0, "leap": 3, "reference_id": how.kiss.encode(), "poll": 0}
        elif chance.random() < how.impossible:
            what, changes = chance.choice(IMPOSSIBLE)
        received_ns = self._utc_ns()
        packet = answer(origin=origin, receive_ns=received_ns, transmit_ns=self._utc_ns(), **changes)
        back_s = chance.uniform(*how.back_s)
        if chance.random() < how.late:
            what, back_s = "late", back_s + 0.5
        loop = asyncio.get_running_loop()
        loop.call_later(back_s, self._send, what, packet, address)
        if chance.random() < how.doubled:
            loop.call_later(back_s, self._send, "doubled", packet, address)

    def _utc_ns(self) -> int:
        return self.truth.utc_ns(time.perf_counter_ns()) + self.behaviour.error_ns

    def _forge(self, origin: int, address: _Address) -> None:
        """A stranger who can't see the question answers first: from this server's address, and from another one."""
        now_ns = self._utc_ns() + 3_600 * SECOND_NS
        for guess, changes in (
            (0, {}),
            (origin ^ 1 << self.chance.randrange(64), {}),
            (self.chance.getrandbits(63), {"stratum": 0, "leap": 3, "reference_id": b"DENY"}),
        ):
            packet = answer(origin=guess, receive_ns=now_ns, transmit_ns=now_ns, **changes)  # type: ignore[arg-type]
            self._send("forged", packet, address)
        if self.stranger is not None:  # who even knows the origin, but not how to send from the server's address
            self.stranger.sendto(answer(origin=origin, receive_ns=now_ns, transmit_ns=now_ns), address)
            self.did["elsewhere"] += 1

    def _send(self, what: str, packet: bytes, address: _Address) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self.did[what] += 1
            self._transport.sendto(packet, address)


@asynccontextmanager
async def simulated(
    truth: Truth, behaviours: Sequence[Behaviour], chance: random.Random, host: str = "127.0.0.1"
) -> AsyncIterator[list[SimulatedServer]]:
    """Servers with these behaviours, and a stranger who sends from another address."""
    loop = asyncio.get_running_loop()
    servers = [SimulatedServer(truth, how, random.Random(chance.getrandbits(64))) for how in behaviours]
    transports: list[asyncio.DatagramTransport] = []
    try:
        for server in servers:
            transports.append((await loop.create_datagram_endpoint(server.itself, (host, 0)))[0])
        stranger = (await loop.create_datagram_endpoint(asyncio.DatagramProtocol, (host, 0)))[0]
        transports.append(stranger)
        for server in servers:
            server.stranger = stranger
        yield servers
    finally:
        for transport in transports:
            transport.close()
