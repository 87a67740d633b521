"""One question and its answer over UDP: addresses, a socket of its own, times taken as close to the wire as can be.

Every question goes out from a fresh socket, and so from a port that nobody can foresee; it is connected, so that the
kernel keeps away what comes from any other address, and reports the ICMP errors that belong to it. The counter is read
just before sending (Linux has stamps of departures too, but they come after the fact, by the error queue, and save a
few µs that the bound covers); the answer's time is the kernel's stamp brought to the counter.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import time
from typing import Any, NamedTuple, TypeAlias

from hftlab.clock.estimate import Exchange
from hftlab.clock.ntp.wire import Question, Reason, Refusal, judge
from hftlab.clock.stamps import ANCILLARY_BYTES, ArrivalClock, Trust
from hftlab.errors import ValidationError, shown

NTP_PORT = 123

# Longer than any answer to a question without extension fields; what is longer is none.
_MOST_BYTES = 1_024
# So far from the kernel's stamp, a card's is not on the same time: here it would be taken for the server's error.
_HARDWARE_WITHIN_NS = 1_000_000
_FORGEABLE = frozenset({Reason.SIZE, Reason.MODE, Reason.VERSION, Reason.ORIGIN})

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class Server(NamedTuple):
    """A server as the user names it: ``host`` is a name or an address."""

    name: str
    host: str
    port: int


class Endpoint(NamedTuple):
    """Where a server is: what a socket needs to know."""

    family: int
    address: tuple[Any, ...]

    @property
    def is_near(self) -> bool:
        """Whether it is this machine or a private network's: somebody's own, who may be asked as often as one likes."""
        found = self._ip
        return found.is_private or found.is_link_local

    def is_same(self, other: Endpoint) -> bool:
        """Whether both are one address and port, whatever family they are written in."""
        # The scope, an IPv6 address's fourth: link-local addresses mean other machines on other links.
        mine, its = (one.address[3:] if one._ip.version == 6 else () for one in (self, other))
        return (self._ip, self.address[1], mine) == (other._ip, other.address[1], its)

    @property
    def _ip(self) -> IPAddress:
        found = ipaddress.ip_address(str(self.address[0]).partition("%")[0])
        mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
        return found if mapped is None else mapped

    def __str__(self) -> str:
        host, port = self.address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Answer(NamedTuple):
    """What came of a question. ``strays``: what else came to its port, that had nothing to do with it.

    ``transmit`` is the answer's transmit stamp, 0 without one; ``trust`` the clock by which its arrival is known;
    ``asleep_ns`` how long the machine had slept, since it was started, when the question was sent.
    """

    outcome: Exchange | Refusal
    strays: tuple[Refusal, ...] = ()
    transmit: int = 0
    trust: Trust = Trust.UNKNOWN
    asleep_ns: int = 0

    def voided(self, why: str) -> Answer:
        """The same, but a valid answer refused, for a reason that only the asker knows."""
        if isinstance(self.outcome, Refusal):
            return self
        return Answer(Refusal(self.outcome.server, Reason.DELAY, why, self.outcome.at_ns), self.strays)


def parse_server(text: str) -> Server:
    """A server from ``host``, ``host:port``, an IPv6 address, or ``[address]:port``; the port is 123 by default.

    Raises ValidationError for what is none of these.
    """
    rule = "a server is 'host', 'host:port', an address, or '[v6 address]:port'"
    if not isinstance(text, str) or not text.strip() or text.strip() != text or any(c in text for c in "/@ "):
        raise ValidationError(f"{rule}; got {shown(text)}")
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        # An empty port after the colon is as wrong as anything else there.
        if not bracket or ":" not in host or (rest and (colon != ":" or not port)):
            raise ValidationError(f"{rule}; got {shown(text)}")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not port:
            raise ValidationError(f"{rule}; got {shown(text)}")
    number = NTP_PORT if not port else int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0
    if not 0 < number < 1 << 16:
        raise ValidationError(f"a port is 1 to 65535; got {shown(port)} in {shown(text)}")
    return Server(text, _checked_host(host, text), number)


def _checked_host(host: str, text: str) -> str:
    try:
        if ":" in host:
            ipaddress.IPv6Address(host)
        # What can't be a name makes getaddrinfo raise UnicodeError, not the OSError that others do.
        host.encode("idna")
    except ValueError as error:
        raise ValidationError(f"{shown(text)} has no host that could be looked up: {error}") from None
    if not host:
        raise ValidationError(f"a server has a host; got {shown(text)}")
    return host


async def resolve(server: Server) -> list[Endpoint]:
    """Where the server is, in the order to try. Raises OSError (gaierror) where the name has no address.

    Names are looked up in the loop's executor, whose thread goes on if this is cancelled; addresses at once.
    """
    loop = asyncio.get_running_loop()
    kind, proto = socket.SOCK_DGRAM, socket.IPPROTO_UDP
    try:
        found = socket.getaddrinfo(server.host, server.port, 0, kind, proto, socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await loop.getaddrinfo(server.host, server.port, type=kind, proto=proto)
    return [Endpoint(family, address) for family, _, _, _, address in found]


async def ask(
    server: str, endpoint: Endpoint, *, timeout_s: float = 1.0, previous: int = 0, stamps: bool = True
) -> Answer:
    """Ask once, and listen until a valid answer comes, the server refuses, or ``timeout_s`` has passed.

    ``previous`` is the transmit stamp of the server's last answer. ``stamps=False`` takes the arrival's time in the
    application, for comparison. Never raises for what the network does: that is a Refusal. Safe to cancel.
    """
    question = Question.fresh(server, previous)
    try:
        sock = socket.socket(endpoint.family, socket.SOCK_DGRAM)
    except OSError as error:  # no IPv6 here, or too many open files
        return Answer(_network(server, endpoint, error))
    with sock:
        sock.setblocking(False)
        listening = _Listening(sock, question, endpoint, stamps=stamps)
        try:
            sock.connect(endpoint.address)
            listening.send()
        except OSError as error:
            return Answer(_network(server, endpoint, error))
        return await listening.answer(timeout_s)


def _network(server: str, endpoint: Endpoint, error: OSError) -> Refusal:
    told = error.strerror or type(error).__name__
    return Refusal(server, Reason.NETWORK, f"{endpoint}: {told}", time.perf_counter_ns())


class _Listening:
    """A question under way: its socket is read as soon as the loop sees something there, and judged on the spot."""

    def __init__(self, sock: socket.socket, question: Question, endpoint: Endpoint, *, stamps: bool) -> None:
        self._sock, self._question, self._endpoint = sock, question, endpoint
        self._arrivals = ArrivalClock(sock, hardware_within_ns=_HARDWARE_WITHIN_NS) if stamps else None
        self._sent_ns = 0
        self._strays: list[Refusal] = []
        self._done: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def send(self) -> None:
        """Send the question; the counter is read last, so that it is as near to the wire as the application can."""
        # Nothing but the call itself between the counter and the wire: each 100 ns there is a bias of 50.
        payload, send, now_ns = self._question.encode(), self._sock.send, time.perf_counter_ns
        if self._arrivals is not None:
            # A clock that is set between this look and the one at the arrival takes the trust from the stamp.
            self._arrivals.look()
        sent_ns = now_ns()
        send(payload)
        self._sent_ns = sent_ns

    async def answer(self, timeout_s: float) -> Answer:
        """Wait for what becomes of it."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._sock, self._read)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._done
        except TimeoutError:
            told = f"no answer from {self._endpoint} within {timeout_s:g} s"
            if self._strays:
                told += f", but {len(self._strays):,} packets that were none"
            refusal = Refusal(self._question.server, Reason.TIMEOUT, told, time.perf_counter_ns())
            return Answer(refusal, tuple(self._strays))
        finally:
            loop.remove_reader(self._sock)

    def _read(self) -> None:
        """Read one datagram; the loop calls again while there are more."""
        try:
            payload, ancillary, _, _ = self._sock.recvmsg(_MOST_BYTES, ANCILLARY_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:  # ICMP: nobody listens there, or no way leads there
            self._finish(_network(self._question.server, self._endpoint, error))
            return
        arrived_ns, trust = time.perf_counter_ns(), Trust.APPLICATION
        if self._arrivals is not None:
            self._arrivals.look()
            at_ns, placed = self._arrivals.place(ancillary)
            # Before the question, nothing can have been answered: such a stamp is wrong, whatever made it so.
            if placed > trust and at_ns > self._sent_ns:
                arrived_ns, trust = at_ns, placed
        judged = judge(
            payload,
            self._question,
            sent_ns=self._sent_ns,
            arrived_ns=arrived_ns,
            near_ns=time.time_ns(),
            kernel=trust >= Trust.KERNEL,
        )
        if isinstance(judged, Refusal):
            if judged.reason in _FORGEABLE:
                self._strays.append(judged)
            else:
                self._finish(judged, trust=trust)
        else:
            self._finish(judged[0], judged[1], trust)

    def _finish(self, outcome: Exchange | Refusal, transmit: int = 0, trust: Trust = Trust.UNKNOWN) -> None:
        # The loop may call again before the waiting task has taken the reader away.
        if not self._done.done():
            self._done.set_result(Answer(outcome, tuple(self._strays), transmit, trust))


async def ask_by_name(server: str, *, timeout_s: float = 1.0, stamps: bool = True) -> Answer:
    """Look ``server`` up and ask it once, within ``timeout_s`` in all. What the network does is a Refusal."""
    parsed = parse_server(server)
    try:
        async with asyncio.timeout(timeout_s):
            endpoint = (await resolve(parsed))[0]
    except OSError as error:  # TimeoutError is one
        told = error.strerror or "no answer in time"
        return Answer(Refusal(server, Reason.RESOLVE, f"{parsed.host}: {told}", time.perf_counter_ns()))
    return await ask(server, endpoint, timeout_s=timeout_s, stamps=stamps)
