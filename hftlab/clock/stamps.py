"""When something arrived at a socket, by the best clock that the machine offers: hardware, kernel, application.

The application learns of a datagram late: after an interrupt, a wake-up and whatever the loop was doing. The kernel
notes the time when the network card hands it over, some cards when it comes off the wire; both travel beside the data
as control messages of ``recvmsg``. Over loopback, an idle asyncio loop sees a datagram 20 µs (p50) to 40 µs (p99) after
the kernel did; a busy one, whenever its slice ends.

Those stamps are of ``CLOCK_REALTIME``, which somebody may set at any moment, so they are brought to the counter at
once: counter now, minus the stamp's age. Linux slews the two clocks together (both count ``CLOCK_MONOTONIC``'s
frequency), so that their difference changes only when CLOCK_REALTIME is set or stepped, which is noticed: see
``ArrivalClock``. A card's clock is one more clock, which somebody has to keep on time (phc2sys); one that is not, or
counts TAI, gives itself away by its distance from the kernel's stamp.

Numbers in place of names: Python's ``socket`` has none of these options. They are Linux's on x86 and ARM (asm-generic
``socket.h``); elsewhere nothing is asked for, and the application's own time is all there is.
"""

from __future__ import annotations

import enum
import socket
import struct
import sys
import time
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

import msgspec

from hftlab.errors import ValidationError, shown

Ancillary: TypeAlias = Iterable[tuple[int, int, bytes]]
"""What ``recvmsg`` returns beside the data: level, type and bytes of each control message."""

SO_TIMESTAMPNS = 35
"""The kernel's time of arrival, as one timespec. On 64-bit machines; 64 is its twin for 32-bit ones, never met here."""
SO_TIMESTAMPING = 37
"""Three timespecs: the kernel's, one that is always zero (it was the card's, converted), the card's."""
SO_RXQ_OVFL = 40
"""How many datagrams the socket has dropped because its buffer was full, as 32 bits that wrap; absent while 0."""
# linux/net_tstamp.h: make stamps of arrivals in hardware and in software, and report the raw ones of both.
_RX_HARDWARE, _RX_SOFTWARE, _SOFTWARE, _RAW_HARDWARE = 1 << 2, 1 << 3, 1 << 4, 1 << 6

ANCILLARY_BYTES = 256
"""Room for all control messages that ``enable_stamps`` asks for, with their headers: ``recvmsg(size, this)``."""

_TIMESPEC = struct.Struct("@qq")
_TIMESPECS = struct.Struct("@6q")
_SECOND_NS = 1_000_000_000
# Two readings back to back disagree by what lies between them, some 100 ns; a stamp can't be from the future by more.
_AHEAD_NS = 5_000
_OLDEST_NS = 10 * _SECOND_NS
_HARDWARE_WITHIN_NS = _SECOND_NS // 2


class Trust(enum.IntEnum):
    """Which clock a time of arrival came from, in rising order of trust. The numbers of ``events.ClockSource``."""

    UNKNOWN = 0
    APPLICATION = 1
    KERNEL = 2
    HARDWARE = 3


class Doubt(enum.Enum):
    """Why a better stamp than the one that was taken was not."""

    NONE = ""
    NO_STAMP = "the kernel sent no stamp"
    LAYOUT = "the kernel sent a stamp of another layout (32-bit times)"
    HARDWARE_FAR_OFF = "the card's clock is far from the system's"
    CLOCK_SET = "the system's clock was set meanwhile, or the stamp is older than can be"


class Stamp(NamedTuple):
    """A time of arrival in ns of CLOCK_REALTIME, 0 where there is none; which clock it is from; why no better one.

    ``dropped``: how many datagrams the socket has lost so far for want of buffer, modulo 2**32.
    """

    realtime_ns: int
    trust: Trust
    dropped: int = 0
    doubt: Doubt = Doubt.NONE


class Clocks(NamedTuple):
    """The counter and CLOCK_REALTIME at one moment, read within ``width_ns`` of each other."""

    counter_ns: int
    realtime_ns: int
    width_ns: int


class Arrival(NamedTuple):
    """When something arrived, on the counter, and by which clock that is known."""

    counter_ns: int
    trust: Trust


def enable_stamps(sock: socket.socket, *, hardware: bool = True) -> Trust:
    """Ask for stamps of what arrives at ``sock``, and for the count of what it drops. Returns what is offered.

    KERNEL where the kernel agreed, else APPLICATION. Never HARDWARE: whether there is a card that stamps, and whether
    somebody has switched that on, shows in the stamps alone. The first datagrams may still come without any, since the
    kernel switches its stamps on a little later.
    """
    if sys.platform != "linux":  # the numbers mean other things elsewhere
        return Trust.APPLICATION
    offered = Trust.APPLICATION
    # SO_TIMESTAMPING first: it tells of the card, and unlike SO_TIMESTAMPNS never makes up a stamp at recvmsg for a
    # datagram that has none. Asking for both brings the same time twice.
    flags = _RX_SOFTWARE | _SOFTWARE | (_RX_HARDWARE | _RAW_HARDWARE if hardware else 0)
    for option, value in ((SO_TIMESTAMPING, flags), (SO_TIMESTAMPNS, 1)):
        if _accepted(sock, option, value):
            offered = Trust.KERNEL
            break
    _accepted(sock, SO_RXQ_OVFL, 1)
    return offered


def _accepted(sock: socket.socket, option: int, value: int) -> bool:
    try:
        sock.setsockopt(socket.SOL_SOCKET, option, value)
    except OSError:
        return False
    return True


def read_stamp(
    ancillary: Ancillary, *, realtime_ns: int | None = None, hardware_within_ns: int = _HARDWARE_WITHIN_NS
) -> Stamp:
    """The best stamp among the control messages of one ``recvmsg``. Pure but for the time, where that is not given.

    A card's stamp is taken while it lies within ``hardware_within_ns`` of the kernel's (of ``realtime_ns``, by default
    the time now, where the kernel has none); a card that was never set, or counts TAI, is far off. Times in the layout
    of 32-bit systems are refused rather than guessed. 0.7 µs.
    """
    kernel_ns = hardware_ns = dropped = 0
    doubt = Doubt.NONE
    for level, kind, data in ancillary:
        if level != socket.SOL_SOCKET:
            continue
        if kind == SO_TIMESTAMPING and len(data) == _TIMESPECS.size:
            seconds, nanoseconds, _, _, card_seconds, card_nanoseconds = _TIMESPECS.unpack(data)
            kernel_ns = seconds * _SECOND_NS + nanoseconds or kernel_ns
            hardware_ns = card_seconds * _SECOND_NS + card_nanoseconds
        elif kind == SO_TIMESTAMPNS and len(data) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            kernel_ns = kernel_ns or seconds * _SECOND_NS + nanoseconds
        elif kind == SO_RXQ_OVFL and len(data) == 4:
            dropped = int.from_bytes(data, sys.byteorder)
        elif kind in (SO_TIMESTAMPING, SO_TIMESTAMPNS):
            doubt = Doubt.LAYOUT
    if hardware_ns:
        near_ns = kernel_ns or (time.time_ns() if realtime_ns is None else realtime_ns)
        if abs(hardware_ns - near_ns) <= hardware_within_ns:
            return Stamp(hardware_ns, Trust.HARDWARE, dropped, doubt)
        doubt = Doubt.HARDWARE_FAR_OFF
    if kernel_ns:
        return Stamp(kernel_ns, Trust.KERNEL, dropped, doubt)
    return Stamp(0, Trust.UNKNOWN, dropped, Doubt.NO_STAMP if doubt is Doubt.NONE else doubt)


def read_clocks(tries: int = 3) -> Clocks:
    """The counter and CLOCK_REALTIME as they stand now. About 1 µs at 3 tries.

    Of several readings the one that took least: whatever came between (an interrupt, another thread) makes it wider.
    """
    best = None
    for _ in range(tries):
        before = time.perf_counter_ns()
        realtime_ns = time.time_ns()
        width_ns = time.perf_counter_ns() - before
        if best is None or width_ns < best.width_ns:
            best = Clocks(before + width_ns // 2, realtime_ns, width_ns)
    if best is None:
        raise ValidationError(f"clocks are read at least once; got tries={shown(tries)}")
    return best


def to_counter(stamp: Stamp, counter_ns: int, realtime_ns: int, *, oldest_ns: int = _OLDEST_NS) -> int | None:
    """The counter when the stamp was made, by the two clocks read back to back *after* it; None where that can't be.

    None for a stamp without a time, for one from the future (beyond what the two readings may disagree, 5 µs), and for
    one more than ``oldest_ns`` ago: CLOCK_REALTIME was set between the stamp and the reading.
    """
    age_ns = realtime_ns - stamp.realtime_ns
    if not stamp.realtime_ns or not -_AHEAD_NS <= age_ns <= oldest_ns:
        return None
    return counter_ns - max(age_ns, 0)


class StampCounts(msgspec.Struct, frozen=True):
    """Where the times of a socket's arrivals came from, why not from better clocks, and what the kernel dropped."""

    hardware: int = 0
    kernel: int = 0
    application: int = 0
    no_stamp: int = 0
    layout: int = 0
    hardware_far_off: int = 0
    clock_set: int = 0
    dropped: int = 0

    @property
    def arrivals(self) -> int:
        """All that arrived."""
        return self.hardware + self.kernel + self.application


class ArrivalClock:
    """Puts a socket's arrivals on the counter, by the best stamps that there are, and counts what came of each.

    ::

        arrivals = ArrivalClock(sock)
        data, ancillary, flags, _ = sock.recvmsg(65_536, ANCILLARY_BYTES)
        arrivals.look()                                # once for all datagrams of one wake-up, after the last of them;
                                                       # look(more=True) where that has not emptied the socket
        arrival = arrivals.place(ancillary)            # Arrival(counter_ns, trust)

    Where a stamp can't be used the arrival is the look's time, APPLICATION. CLOCK_REALTIME's being set between two
    looks shows in their difference to the counter, whatever the stamps' age says: all stamps up to that look are in
    doubt, and are not used, nor those of what may have lain in the socket then. One thread. 1.5 µs a look, 1.5 µs to
    place one.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        hardware: bool = True,
        hardware_within_ns: int = _HARDWARE_WITHIN_NS,
        oldest_ns: int = _OLDEST_NS,
    ) -> None:
        self.offered = enable_stamps(sock, hardware=hardware)
        self._hardware_within_ns, self._oldest_ns = hardware_within_ns, oldest_ns
        self._clocks = read_clocks()
        self._was_set = False
        self._old_until_ns = 0  # of CLOCK_REALTIME; no stamp from before it was set is later
        self._emptied = False  # since it was set, and before the last look
        self._by_trust = dict.fromkeys(Trust, 0)
        self._doubts = dict.fromkeys(Doubt, 0)
        self._dropped_word = self._dropped = 0

    @property
    def dropped(self) -> int:
        """Datagrams that the kernel dropped for want of buffer, as far as those that arrived since tell."""
        return self._dropped

    def look(self, *, more: bool = False) -> Clocks:
        """Read the clocks: call it after the last ``recvmsg`` of a wake-up, and before placing what that brought.

        ``more``: the socket may hold more than was read. Once it was empty after CLOCK_REALTIME had been set, all that
        is read later was stamped by the new time.
        """
        before, self._clocks = self._clocks, read_clocks()
        now = self._clocks
        moved_ns = (now.realtime_ns - now.counter_ns) - (before.realtime_ns - before.counter_ns)
        error_ns = _AHEAD_NS + before.width_ns + now.width_ns
        self._was_set = abs(moved_ns) > error_ns
        if self._emptied:
            self._old_until_ns = 0
        if self._was_set:
            now_by_old_ns = before.realtime_ns + now.counter_ns - before.counter_ns
            self._old_until_ns = max(self._old_until_ns, now_by_old_ns + error_ns)
        # What was empty before this look may have got an old stamp's datagram until the clock was set.
        self._emptied = not more and not self._was_set
        return now

    def place(self, ancillary: Ancillary) -> Arrival:
        """When that arrived whose control messages these are, on the counter."""
        counter_ns, realtime_ns, _ = self._clocks
        stamp = read_stamp(ancillary, realtime_ns=realtime_ns, hardware_within_ns=self._hardware_within_ns)
        if stamp.dropped != self._dropped_word:
            self._dropped += (stamp.dropped - self._dropped_word) & 0xFFFFFFFF
            self._dropped_word = stamp.dropped
        doubt, at_ns = stamp.doubt, None
        if stamp.realtime_ns:
            if not self._was_set and stamp.realtime_ns > self._old_until_ns:
                at_ns = to_counter(stamp, counter_ns, realtime_ns, oldest_ns=self._oldest_ns)
            if at_ns is None:
                doubt = Doubt.CLOCK_SET
        self._doubts[doubt] += 1
        arrival = Arrival(counter_ns, Trust.APPLICATION) if at_ns is None else Arrival(at_ns, stamp.trust)
        self._by_trust[arrival.trust] += 1
        return arrival

    def counts(self) -> StampCounts:
        """What came of all arrivals so far."""
        trust, doubts = self._by_trust, self._doubts
        return StampCounts(
            hardware=trust[Trust.HARDWARE],
            kernel=trust[Trust.KERNEL],
            application=trust[Trust.APPLICATION],
            no_stamp=doubts[Doubt.NO_STAMP],
            layout=doubts[Doubt.LAYOUT],
            hardware_far_off=doubts[Doubt.HARDWARE_FAR_OFF],
            clock_set=doubts[Doubt.CLOCK_SET],
            dropped=self._dropped,
        )

    def __repr__(self) -> str:
        told = self.counts()
        return f"ArrivalClock({told.hardware:,} hardware, {told.kernel:,} kernel, {told.application:,} application)"
