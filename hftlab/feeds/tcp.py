"""``TcpReceiver``: a connection's messages into batches, stamped, and connected again when it breaks."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
import time
from typing import TYPE_CHECKING

from hftlab.clock import Clock
from hftlab.clock.stamps import ANCILLARY_BYTES, Ancillary, Arrival, ArrivalClock, StampCounts, Trust
from hftlab.errors import FeedError, NotStarted, ValidationError, shown
from hftlab.events import EventBatch, Source, SourceTable, SymbolTable
from hftlab.events.timestamps import TimeAction, TimePolicy
from hftlab.feeds.addresses import Address, checked_address, positive
from hftlab.feeds.dialling import dial
from hftlab.feeds.framing import Frame, as_frame
from hftlab.feeds.intake import Intake, Message, ReceiverStatistics
from hftlab.feeds.parsing import Parse, ParseMany
from hftlab.feeds.readiness import Readiness
from hftlab.feeds.udp import OLDEST_NS, SLICE_NS, Publish

if TYPE_CHECKING:
    from hftlab.metrics import Histogram

CHUNK_BYTES = 1 << 16
MOST_MESSAGE_BYTES = 1 << 20
FIRST_RETRY_S = 0.1
MOST_RETRY_S = 10.0
"""Waits between attempts double from the first to the most, each shortened by up to half, at random."""
_MOST_DOUBLINGS = 30


class TcpReceiver:
    """The messages that a server sends, with when they arrived. All as in ``UdpReceiver``, which see, but for these.

    ``framing`` tells where messages end: ``"lines"``, ``"length-prefix"`` (4 bytes in network order),
    ``hl.feeds.LengthPrefix(width, order)``, or a function from bytes to ``(messages, bytes taken)``. ``hello`` is sent
    after each connect: a login, a subscription.

    A stamp is of the last byte of what one read brought, so all messages that this read completed get it: the first
    of them arrived no later. What is read at once was sent at once, mostly, or lay waiting.

    When the connection breaks, or its bytes can't be right (the framing raises, or a message is longer than
    ``most_message_bytes``), what had come of an unfinished message is discarded and counted, and the receiver connects
    again, at once and then with waits that double up to 10 s, for as long as it takes: a feed that is down is nobody's
    mistake here. It shows in ``statistics()`` and ``last_error``. The first connect raises instead.
    """

    def __init__(
        self,
        address: Address,
        parse: Parse | ParseMany,
        *,
        framing: str | Frame,
        clock: Clock,
        many: bool = False,
        hello: bytes = b"",
        times: TimePolicy | TimeAction | None = None,
        source: Source | None = None,
        symbols: SymbolTable | None = None,
        sources: SourceTable | None = None,
        buffer_bytes: int | None = None,
        most_message_bytes: int = MOST_MESSAGE_BYTES,
        most_messages: int = 1_024,
        stamps: bool = True,
    ) -> None:
        self._asked = checked_address(address)
        self._frame = as_frame(framing)
        if not isinstance(hello, bytes):
            raise ValidationError(f"hello is the bytes to send after each connect; got {shown(hello)}")
        self._hello = hello
        self._buffer_bytes = None if buffer_bytes is None else positive("buffer_bytes", buffer_bytes)
        self._most_message_bytes = positive("most_message_bytes", most_message_bytes)
        self._most_messages = positive("most_messages", most_messages)
        self._stamps = stamps
        self._intake = Intake(
            parse, many=many, clock=clock, times=times, source=source, symbols=symbols, sources=sources
        )
        self._ready = Readiness()
        self._jitter = random.Random()
        self._socket: socket.socket | None = None
        self._arrivals: ArrivalClock | None = None
        self._past = StampCounts()
        self._taken: list[tuple[list[bytes], Ancillary]] = []
        self._rest = b""
        self._opened = False
        self._emptied = False  # by the last reading
        self._trouble: Exception | None = None
        self._connected_at_s = 0.0
        self._connections = self._lost = self._failed = self._attempts = 0
        self._discarded_bytes = self._granted_bytes = self._reads = 0

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
        """How long reads lay in the socket: see ``UdpReceiver.waits``."""
        return self._intake.waits

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._socket is not None

    @property
    def last_error(self) -> Exception | None:
        """What the last message was refused for, or why there is no connection."""
        return self._trouble or self._intake.last_error

    # -- open and closed ----------------------------------------------------------------------------------------------

    async def open(self) -> TcpReceiver:
        """Connect; harmless when done. Raises FeedError where nobody answers: only later breaks are mended."""
        if self._ready.closed:
            raise FeedError(f"{self!r} was closed: make another one")
        if not self._opened:
            try:
                await self._connect()
            except OSError as error:
                raise FeedError(f"can't connect to {self._asked[0]}:{self._asked[1]}: {error}") from error
            self._opened = True
        return self

    async def close(self) -> None:
        """Close the connection. Iterations end. Harmless when repeated."""
        self._ready.close()
        self._hang_up()

    async def __aenter__(self) -> TcpReceiver:
        return await self.open()

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    # -- reading ------------------------------------------------------------------------------------------------------

    def __aiter__(self) -> TcpReceiver:
        return self

    async def __anext__(self) -> EventBatch:
        batch = await self.next()
        if batch is None:
            raise StopAsyncIteration
        return batch

    async def next(self) -> EventBatch | None:
        """The next batch, at least one row; None once closed. Raises NotStarted before ``open``."""
        if not self._opened and not self._ready.closed:
            raise NotStarted(f"{self!r} is not open: async with receiver, or await receiver.open()")
        await asyncio.sleep(0)
        while True:
            await self._ready.until_resumed()
            if self._ready.closed:
                return None
            if self._socket is None and not self._taken:
                await self._connect_again()
                continue
            if self._socket is not None:
                self._read(self._socket)
            batch = self._batch()
            if batch is not None:
                return batch
            if self._socket is not None and not self._ready.closed:
                await self._ready.until_readable(self._socket)

    async def run(self, publish: Publish) -> None:
        """Open, and hand every batch to ``publish`` until closed. What ``publish`` raises ends it."""
        await self.open()
        while (batch := await self.next()) is not None:
            await publish(batch)

    def pause(self) -> None:
        """Read nothing from now on, so that the server has to wait once the buffers are full; returns at once."""
        self._ready.pause()

    def resume(self) -> None:
        """Go on; returns at once."""
        self._ready.resume()

    def _read(self, sock: socket.socket) -> None:
        """What is there, within the bounds of a batch, cut into messages. Hangs up where the connection has ended."""
        count = sum(len(messages) for messages, _ in self._taken)
        until_ns = time.perf_counter_ns() + SLICE_NS
        self._emptied = False
        while count < self._most_messages and time.perf_counter_ns() <= until_ns:
            try:
                data, ancillary, _, _ = sock.recvmsg(CHUNK_BYTES, ANCILLARY_BYTES)
                if not data:
                    raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection")
                messages = self._cut(self._rest + data)
            except BlockingIOError:
                self._emptied = True
                return
            except InterruptedError:
                return
            except Exception as error:  # of the connection, or of a framing function
                self._lost += 1
                self._trouble = error
                self._hang_up()
                return
            if messages:
                self._taken.append((messages, ancillary))
                count += len(messages)
                self._trouble = None
                # Who says something and hangs up would be asked again at once, for ever, and ban us.
                if time.monotonic() - self._connected_at_s >= MOST_RETRY_S:
                    self._attempts = 0

    def _cut(self, data: bytes) -> list[bytes]:
        self._rest = data  # counted as discarded, where framing raises
        messages, taken_bytes = self._frame(data)
        if not 0 <= taken_bytes <= len(data) or (messages and not taken_bytes):
            raise FeedError(f"framing returns (messages, bytes taken of {len(data)}); got {shown(taken_bytes)} bytes")
        self._rest = data[taken_bytes:]
        if len(self._rest) > self._most_message_bytes and not messages:
            raise FeedError(
                f"{len(self._rest):,} bytes and no message's end, where messages have {self._most_message_bytes:,} at "
                "most: is it the right framing? Else raise most_message_bytes"
            )
        return messages

    def _batch(self) -> EventBatch | None:
        if not self._taken:
            return None
        messages: list[Message] = []
        arrivals = self._arrivals
        now = time.perf_counter_ns() if arrivals is None else arrivals.look(more=not self._emptied).counter_ns
        for payloads, ancillary in self._taken:
            arrival = Arrival(now, Trust.APPLICATION) if arrivals is None else arrivals.place(ancillary)
            messages += [Message(payload, arrival) for payload in payloads]
        try:
            batch = self._intake.take(messages, now)
        except Exception:
            self._taken = []  # what is refused by the user's own policy is not to be refused for ever
            raise
        self._reads += len(self._taken)
        self._taken = []
        return batch

    # -- connections --------------------------------------------------------------------------------------------------

    async def _connect_again(self) -> None:
        if self._attempts:
            # Bounded before it is a float: after 1,024 attempts, some two hours, there is none of that size.
            most = min(FIRST_RETRY_S * 2 ** min(self._attempts - 1, _MOST_DOUBLINGS), MOST_RETRY_S)
            await self._ready.for_a_while(most * self._jitter.uniform(0.5, 1.0))
        if self._ready.closed:
            return
        self._attempts += 1
        try:
            await self._connect()
        except (OSError, FeedError) as error:
            self._failed += 1
            self._trouble = error

    async def _connect(self) -> None:
        """One attempt. Raises OSError, and FeedError for a name without an address."""
        sock, arrivals = await dial(self._asked, self._ready, self._prepare, self._hello)
        if self._ready.closed:
            sock.close()
            return
        self._granted_bytes = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self._past, self._socket, self._arrivals = self._stamp_counts(), sock, arrivals
        self._connected_at_s = time.monotonic()
        self._connections += 1

    def _prepare(self, sock: socket.socket) -> ArrivalClock | None:
        """What is set before the connect, which settles how far the window may grow."""
        if self._buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._buffer_bytes)
        return ArrivalClock(sock, oldest_ns=OLDEST_NS) if self._stamps else None

    def _hang_up(self) -> None:
        self._discarded_bytes += len(self._rest)
        self._rest = b""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _stamp_counts(self) -> StampCounts:
        """Of all connections: each has a clock of arrivals of its own."""
        if self._arrivals is None:
            return self._past
        last = self._arrivals.counts()
        return StampCounts(*(getattr(self._past, name) + getattr(last, name) for name in StampCounts.__struct_fields__))

    # -- seen ---------------------------------------------------------------------------------------------------------

    def statistics(self) -> ReceiverStatistics:
        """What came so far, frozen; ``stamps`` count reads, not messages."""
        stamps = self._stamp_counts() if self._stamps else StampCounts(application=self._reads)
        return self._intake.statistics(
            stamps,
            error=self.last_error,
            paused=self._ready.paused,
            buffer_bytes=self._granted_bytes,
            connections=self._connections,
            lost=self._lost,
            failed=self._failed,
            discarded_bytes=self._discarded_bytes,
        )

    def __repr__(self) -> str:
        host, port = self._asked
        waits = "not open" if not self._opened else "not connected"
        state = "closed" if self._ready.closed else waits if self._socket is None else "connected"
        return f"TcpReceiver({host}:{port}, {state}: {self.statistics().in_words()})"

    def _repr_html_(self) -> str:
        return f"<div><b>TcpReceiver</b>{self.statistics()._repr_html_()}</div>"
