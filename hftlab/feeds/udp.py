"""``UdpReceiver``: datagrams, unicast or multicast, into batches stamped by the best clock that the machine offers."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from hftlab.clock import Clock
from hftlab.clock.stamps import ANCILLARY_BYTES, Ancillary, Arrival, ArrivalClock, StampCounts, Trust
from hftlab.errors import FeedError, NotStarted
from hftlab.events import EventBatch, Source, SourceTable, SymbolTable
from hftlab.events.timestamps import TimeAction, TimePolicy
from hftlab.feeds.addresses import Address, checked_address, positive, resolved
from hftlab.feeds.intake import Intake, Message, ReceiverStatistics
from hftlab.feeds.parsing import Parse, ParseMany
from hftlab.feeds.readiness import Readiness

if TYPE_CHECKING:
    from hftlab.metrics import Histogram

Publish = Callable[[EventBatch], Awaitable[object]]

MOST_BYTES = 65_535
"""A datagram's size at most, by its own header."""
OLDEST_NS = 3_600 * 1_000_000_000
"""How long a datagram may have lain in the socket, while the receiver was paused, for its stamp to be believed."""
SLICE_NS = 500_000
"""How long one batch is read and not yet parsed, so that the notebook stays responsive; looked at every 32."""
_LOOK_EVERY = 32
_SO_MEMINFO, _MEMINFO_WORDS, _DROPS = 55, 9, 8  # linux/sock_diag.h; asm-generic's number
_IP_MULTICAST_ALL = 49  # Linux; Python's socket has no name for it
_IPV6_MULTICAST_ALL = 29


class UdpReceiver:
    """Datagrams into batches, each row with when its datagram arrived and which clock says so.

    ::

        async with hl.feeds.UdpReceiver(("127.0.0.1", 5000), parse, clock=lab.system_clock) as receiver:
            lab.bus.attach(receiver)                        # told to pause when the bus is full
            await receiver.run(lab.bus.publish_batch)       # or: async for batch in receiver: …

    ``parse(payload)`` gets one datagram's bytes and returns an event, several, an EventBatch, rows (under the ids of
    ``receiver.symbols`` and ``receiver.sources``) or None. With ``many=True`` it gets the list of all datagrams of a
    wake-up, and returns a row for each, or ``(rows, how many rows each datagram has)``: Python is paid per batch then.
    Where it raises, or a row breaks a rule, that datagram is refused and counted, and the last error kept; a ``parse``
    of many is called for each datagram alone then.

    ``received`` and ``clock`` of the rows are the receiver's to set: ``clock``'s time when the datagram arrived, by the
    network card, the kernel or the application (``events.ClockSource``). It never runs back. Rows with no ``timestamp``
    get it too, with ARRIVAL_TIME; rows with no source get ``source``. ``times``: see ``hl.TimePolicy``.

    Nothing is read while nobody asks, or while paused: the kernel holds what comes, with its stamps, as far as
    ``buffer_bytes`` go (None: the system's default), and counts what it drops. At most ``most_datagrams``, and half a
    millisecond of reading, make one batch. Cancelling is safe: what was read is handed out by the next call.

    About 6 µs a datagram (of which ``recvmsg`` 2) beside ``parse`` and 60 µs a batch. One task reads, on the loop that
    opened it. Raises ValidationError for arguments, FeedError for an address that can't be had.
    """

    def __init__(
        self,
        address: Address,
        parse: Parse | ParseMany,
        *,
        clock: Clock,
        many: bool = False,
        multicast: str | None = None,
        interface: str | None = None,
        times: TimePolicy | TimeAction | None = None,
        source: Source | None = None,
        symbols: SymbolTable | None = None,
        sources: SourceTable | None = None,
        buffer_bytes: int | None = None,
        most_bytes: int = MOST_BYTES,
        most_datagrams: int = 1_024,
        stamps: bool = True,
    ) -> None:
        """``multicast``: the group to join, on ``interface`` (a name such as "lo", or its IPv4 address).

        ``stamps=False``: ask the kernel for none.
        """
        self._asked = checked_address(address)
        self._group, self._interface = multicast, interface
        self._buffer_bytes = None if buffer_bytes is None else positive("buffer_bytes", buffer_bytes)
        self._most_bytes = positive("most_bytes", most_bytes)
        self._most_datagrams = positive("most_datagrams", most_datagrams)
        self._stamps = stamps
        self._intake = Intake(
            parse, many=many, clock=clock, times=times, source=source, symbols=symbols, sources=sources
        )
        self._ready = Readiness()
        self._socket: socket.socket | None = None
        self._arrivals: ArrivalClock | None = None
        self._taken: list[tuple[bytes, Ancillary]] = []
        self._emptied = False  # by the last reading
        self._truncated = self._granted_bytes = self._dropped = 0
        self._address: Address | None = None

    @property
    def symbols(self) -> SymbolTable:
        """The table of the batches' symbols; ``parse`` may intern in it."""
        return self._intake.symbols

    @property
    def sources(self) -> SourceTable:
        """The table of the batches' sources; ``parse`` may intern in it."""
        return self._intake.sources

    @property
    def waits(self) -> Histogram:
        """How long datagrams lay in the socket before they were read: ns from their stamp to the end of their wake-up.

        0 where the application is the only clock.
        """
        return self._intake.waits

    @property
    def address(self) -> Address:
        """Where it listens: with the port that the system chose for 0. Raises NotStarted before ``open``."""
        if self._address is None:
            raise NotStarted(f"{self!r} is not open: async with receiver, or await receiver.open()")
        return self._address

    @property
    def last_error(self) -> Exception | None:
        """What the last refused datagram was refused for."""
        return self._intake.last_error

    # -- open and closed ----------------------------------------------------------------------------------------------

    async def open(self) -> UdpReceiver:
        """Bind the socket and join the group; harmless when open. Raises FeedError where that can't be done."""
        if self._ready.closed:
            raise FeedError(f"{self!r} was closed: make another one")
        if self._socket is not None:
            return self
        family, place = (await resolved(self._asked, socket.SOCK_DGRAM))[0]
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if self._buffer_bytes is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)
            self._arrivals = ArrivalClock(sock, oldest_ns=OLDEST_NS) if self._stamps else None
            if self._group is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(place)
            if self._group is not None:
                _join(sock, family, self._group, self._interface)
        except (OSError, ValueError) as error:
            sock.close()
            group = "" if self._group is None else f", group {self._group} on {self._interface or 'any interface'}"
            raise FeedError(f"can't listen at {self._asked}{group}: {error}") from error
        self._socket = sock
        self._granted_bytes = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self._address = sock.getsockname()[:2]
        return self

    async def close(self) -> None:
        """Close the socket; what it held is gone. Iterations end. Harmless when repeated."""
        self._ready.close()
        if self._socket is not None:
            self._dropped = max(self._dropped, _dropped(self._socket))
            self._socket.close()
            self._socket = None

    async def __aenter__(self) -> UdpReceiver:
        return await self.open()

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    # -- reading ------------------------------------------------------------------------------------------------------

    def __aiter__(self) -> UdpReceiver:
        return self

    async def __anext__(self) -> EventBatch:
        batch = await self.next()
        if batch is None:
            raise StopAsyncIteration
        return batch

    async def next(self) -> EventBatch | None:
        """The next batch, at least one row; None once closed. Raises NotStarted before ``open``."""
        if self._socket is None and not self._ready.closed:
            raise NotStarted(f"{self!r} is not open: async with receiver, or await receiver.open()")
        # Whoever reads without end lets others have a turn, also where there always is something to read.
        await asyncio.sleep(0)
        while True:
            await self._ready.until_resumed()
            if self._socket is None or self._ready.closed:
                return None
            self._read(self._socket)
            if not self._taken:
                await self._ready.until_readable(self._socket)
                continue
            try:
                batch = self._batch()
            except Exception:
                self._taken = []  # what is refused by the user's own policy is not to be refused for ever
                raise
            self._taken = []
            if batch is not None:
                return batch
            await asyncio.sleep(0)

    async def run(self, publish: Publish) -> None:
        """Open, and hand every batch to ``publish`` until closed. What ``publish`` raises ends it."""
        await self.open()
        while (batch := await self.next()) is not None:
            await publish(batch)

    def pause(self) -> None:
        """Read nothing from now on; returns at once."""
        self._ready.pause()

    def resume(self) -> None:
        """Go on; returns at once."""
        self._ready.resume()

    def _read(self, sock: socket.socket) -> None:
        """All datagrams that are there, within the bounds of a batch. An interrupt leaves them in ``_taken``."""
        taken, most_bytes = self._taken, self._most_bytes
        self._emptied = False
        until_ns = time.perf_counter_ns() + SLICE_NS
        while len(taken) < self._most_datagrams:
            try:
                payload, ancillary, flags, _ = sock.recvmsg(most_bytes, ANCILLARY_BYTES)
            except BlockingIOError:
                self._emptied = True
                return
            except InterruptedError:
                return
            if flags & socket.MSG_TRUNC:
                self._truncated += 1
                continue
            taken.append((payload, ancillary))
            if not len(taken) % _LOOK_EVERY and time.perf_counter_ns() > until_ns:
                return

    def _batch(self) -> EventBatch | None:
        taken = self._taken
        if self._arrivals is None:
            now = time.perf_counter_ns()
            return self._intake.take([Message(payload, Arrival(now, Trust.APPLICATION)) for payload, _ in taken], now)
        now = self._arrivals.look(more=not self._emptied).counter_ns
        place = self._arrivals.place
        return self._intake.take([Message(payload, place(ancillary)) for payload, ancillary in taken], now)

    # -- seen ---------------------------------------------------------------------------------------------------------

    def statistics(self) -> ReceiverStatistics:
        """What came so far, frozen."""
        messages = self._intake.messages
        stamps = StampCounts(application=messages) if self._arrivals is None else self._arrivals.counts()
        if self._socket is not None:
            self._dropped = max(self._dropped, stamps.dropped, _dropped(self._socket))
        stamps = msgspec.structs.replace(stamps, dropped=max(self._dropped, stamps.dropped))
        return self._intake.statistics(
            stamps, truncated=self._truncated, paused=self._ready.paused, buffer_bytes=self._granted_bytes
        )

    def __repr__(self) -> str:
        host, port = self._address or self._asked
        group = "" if self._group is None else f" {self._group}"
        state = "closed" if self._ready.closed else "not open" if self._socket is None else "open"
        return f"UdpReceiver({host}:{port}{group}, {state}: {self.statistics().in_words()})"

    def _repr_html_(self) -> str:
        return f"<div><b>UdpReceiver</b>{self.statistics()._repr_html_()}</div>"


def _dropped(sock: socket.socket) -> int:
    """What the kernel says by itself: the control messages tell of drops only beside a datagram that came later."""
    if sys.platform != "linux":
        return 0
    try:
        words = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * _MEMINFO_WORDS)
    except OSError:
        return 0
    return struct.unpack(f"@{_MEMINFO_WORDS}I", words)[_DROPS] if len(words) == 4 * _MEMINFO_WORDS else 0


def _join(sock: socket.socket, family: int, group: str, interface: str | None) -> None:
    """Join a group, and hear no other that somebody else on this machine has joined. Raises OSError."""
    packed = socket.inet_pton(family, group)
    if family == socket.AF_INET6:
        index = socket.if_nametoindex(interface) if interface else 0
        if sys.platform == "linux":
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, packed + struct.pack("@I", index))
        return
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
    if interface is None:
        local, index = socket.INADDR_ANY.to_bytes(4, "big"), 0
    elif _is_ipv4(interface):
        local, index = socket.inet_aton(interface), 0
    else:
        local, index = bytes(4), socket.if_nametoindex(interface)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, packed + local + struct.pack("@i", index))


def _is_ipv4(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, text)
    except OSError:
        return False
    return True
