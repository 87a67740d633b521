"""NTP packets: the question, the answer, and every reason to refuse one (RFC 5905, sections 7.3, 7.4, 8 and 9).

An answer becomes an ``Exchange`` only after it has passed all checks; what fails one becomes a ``Refusal`` that says
which. The first check is of the origin: an answer repeats the 64 random bits of its question's transmit stamp, so that
nobody who does not see the question can forge one. Those bits are all that a question has in it: the time that
belongs there would tell strangers how wrong this machine's clock is, and servers have no use for it
(draft-ietf-ntp-data-minimization; the port is fresh for the same reason, RFC 9109).

NTP counts seconds since 1900 in 32 bits, which run out in February 2036. A stamp means the moment nearest to ours
among all that it could mean; that is right as long as this machine's idea of the year is less than 68 years off. All
of it is integers: floats have no room for nanoseconds of this century (ntplib's steps are 238 ns).

Pure: the times are passed in.
"""

from __future__ import annotations

import enum
import secrets
import struct

import msgspec

from hftlab.clock.estimate import Exchange

PACKET_BYTES = 48
"""The header. What may follow (extension fields, a MAC) is neither asked for nor looked at."""
MOST_DISTANCE_NS = 1_500_000_000
"""RFC 5905's MAXDIST: a server that may be further from its reference than 1.5 s has no opinion worth hearing."""
UNSYNCHRONISED_STRATUM = 16

_HEADER = struct.Struct("!BBBbII4sQQQQ")
_SECOND_NS = 1_000_000_000
_FROM_1900_TO_1970_S = 2_208_988_800
# A machine without a battery starts in 1970; what it hears is not from before this was written.
_NOT_BEFORE_NS = 1_767_225_600 * _SECOND_NS  # 2026-01-01
_VERSION, _CLIENT, _SERVER = 4, 3, 4
# Reading the counter takes so long; a clock can't be known better than it is read.
_OUR_PRECISION_NS = 50
# How far a counter's rate may be off (RFC 5905's MAXFREQ is 500 ppm): by so much may a server seem to need longer for
# an answer than the whole way took.
_RATE_DIVISOR = 2_000


class Reason(enum.Enum):
    """Why an answer was refused, or none came."""

    SIZE = "size"
    """Not a packet: shorter than 48 bytes, or longer than any."""
    MODE = "mode"
    """Not a server's answer."""
    VERSION = "version"
    ORIGIN = "origin"
    """It does not repeat our question: forged, or the answer to another one."""
    DUPLICATE = "duplicate"
    """It has the stamps of the answer before: replayed, or a server that is stuck."""
    KISS = "kiss"
    """Kiss-o'-death: the server asks us to stop, or to ask less often."""
    UNSYNCHRONISED = "unsynchronised"
    ZERO = "zero"
    """Its receive or transmit stamp is empty."""
    ORDER = "order"
    """It was sent before the question came in, or its reference is from the future."""
    DISTANCE = "distance"
    """Its root delay and dispersion, or its precision, make it useless."""
    DELAY = "delay"
    """It claims to have taken longer than the whole way took."""
    TIMEOUT = "timeout"
    NETWORK = "network"
    """The network refused: no route, no such port, a firewall."""
    RESOLVE = "resolve"
    """The name has no address."""


class Refusal(msgspec.Struct, frozen=True):
    """An answer that was not used, or that none came: by whom, why, the counter then. ``kiss``: the four letters."""

    server: str
    reason: Reason
    detail: str
    at_ns: int
    kiss: str = ""
    poll_s: int = 0

    def __str__(self) -> str:
        return f"{self.server}: {self.detail}"


class Packet(msgspec.Struct, frozen=True):
    """An answer as it is written. ``origin``, ``receive``, ``transmit``, ``reference``: NTP stamps, 2**-32 s of 1900.

    ``precision`` and ``poll`` are powers of two of a second; root delay and dispersion are rounded up to ns.
    """

    leap: int
    version: int
    mode: int
    stratum: int
    poll: int
    precision: int
    root_delay_ns: int
    root_dispersion_ns: int
    reference_id: bytes
    reference: int
    origin: int
    receive: int
    transmit: int

    @property
    def kiss(self) -> str:
        """The code of a kiss-o'-death (DENY, RSTR, RATE, …); empty where this is none."""
        code = self.reference_id
        return code.decode("ascii") if self.stratum == 0 and code.isalpha() and code.isascii() else ""

    @property
    def precision_ns(self) -> int:
        """How finely the server's clock is read, at least 1 ns."""
        return -(-_SECOND_NS >> -self.precision) if self.precision < 0 else _SECOND_NS << self.precision

    @property
    def distance_ns(self) -> int:
        """How far the server may be from its reference: half the root delay, and the root dispersion."""
        return -(-self.root_delay_ns // 2) + self.root_dispersion_ns


class Question(msgspec.Struct, frozen=True):
    """What was asked: its random ``origin``, and ``previous``, the transmit stamp of the server's last answer."""

    server: str
    origin: int
    previous: int = 0

    @classmethod
    def fresh(cls, server: str, previous: int = 0) -> Question:
        """A question that nobody can foresee."""
        return cls(server, secrets.randbits(64) or 1, previous)

    def encode(self) -> bytes:
        """The packet to send: version 4, mode 3, and the random transmit stamp."""
        return _HEADER.pack(_VERSION << 3 | _CLIENT, 0, 0, 0, 0, 0, bytes(4), 0, 0, 0, self.origin)


def decode(payload: bytes) -> Packet:
    """The header of a packet of at least 48 bytes; nothing is judged."""
    first, stratum, poll, precision, delay, dispersion, reference_id, *stamps = _HEADER.unpack_from(payload)
    return Packet(
        first >> 6, first >> 3 & 7, first & 7, stratum, poll, precision, _short_ns(delay), _short_ns(dispersion),
        reference_id, *stamps,
    )  # fmt: skip


def unix_ns(stamp: int, near_ns: int) -> int:
    """An NTP stamp as ns since 1970, rounded to the nearest: of all eras, the moment nearest to ``near_ns``."""
    near = (max(near_ns, _NOT_BEFORE_NS) << 32) // _SECOND_NS
    since_1970 = stamp - (_FROM_1900_TO_1970_S << 32)
    nearest = near + (since_1970 - near + (1 << 63)) % (1 << 64) - (1 << 63)
    return nearest * _SECOND_NS + (1 << 31) >> 32


def ntp_stamp(moment_ns: int) -> int:
    """ns since 1970 as an NTP stamp, without its era, rounded to the nearest 2**-32 s."""
    return (((moment_ns + _FROM_1900_TO_1970_S * _SECOND_NS << 32) + _SECOND_NS // 2) // _SECOND_NS) % (1 << 64)


def judge(
    payload: bytes, question: Question, *, sent_ns: int, arrived_ns: int, near_ns: int, kernel: bool = False
) -> tuple[Exchange, int] | Refusal:
    """An answer to ``question`` as the exchange that it is, with its transmit stamp; or why it is refused.

    ``sent_ns`` and ``arrived_ns`` are the counter's, ``near_ns`` is about now in ns UTC, to tell the era. Refusals for
    SIZE, MODE, VERSION and ORIGIN may be anybody's work: a valid answer may still come. All others are the server's.
    """

    def refused(reason: Reason, detail: str, kiss: str = "", poll_s: int = 0) -> Refusal:
        return Refusal(question.server, reason, detail, arrived_ns, kiss, poll_s)

    if len(payload) < PACKET_BYTES:
        return refused(Reason.SIZE, f"a packet has at least {PACKET_BYTES} bytes; got {len(payload)}")
    packet = decode(payload)
    if packet.mode != _SERVER:
        return refused(Reason.MODE, f"a server answers in mode {_SERVER}; got {packet.mode}")
    if packet.version not in (3, _VERSION):
        return refused(Reason.VERSION, f"versions 3 and 4 are understood; got {packet.version}")
    if packet.origin != question.origin:
        return refused(Reason.ORIGIN, "the answer does not repeat our question: it is forged, or another one's")
    if packet.kiss:
        # RATE says in ``poll`` how often is welcome; a day and a half is the longest that NTP knows.
        asked_s = 1 << packet.poll if 0 < packet.poll <= 17 else 0
        return refused(Reason.KISS, f"the server sent a kiss-o'-death: {packet.kiss}", packet.kiss, asked_s)
    wrong = _wrong(packet, question)
    if wrong is not None:
        return refused(*wrong)

    received_ns, answered_ns = unix_ns(packet.receive, near_ns), unix_ns(packet.transmit, near_ns)
    held_ns, way_ns = answered_ns - received_ns, arrived_ns - sent_ns
    precision_ns = packet.precision_ns + _OUR_PRECISION_NS
    if held_ns - way_ns > 2 * precision_ns + way_ns // _RATE_DIVISOR:
        return refused(Reason.DELAY, f"the server held it for {held_ns:,} ns of the {way_ns:,} that it took in all")
    exchange = Exchange(
        server=question.server,
        at_ns=arrived_ns,
        offset_ns=((received_ns - sent_ns) + (answered_ns - arrived_ns)) // 2,
        delay_ns=max(way_ns - held_ns, 0),
        root_delay_ns=packet.root_delay_ns,
        root_dispersion_ns=packet.root_dispersion_ns,
        precision_ns=precision_ns,
        stratum=packet.stratum,
        reference_id=int.from_bytes(packet.reference_id, "big"),
        leap=packet.leap,
        kernel=kernel,
    )
    return exchange, packet.transmit


def _wrong(packet: Packet, question: Question) -> tuple[Reason, str] | None:
    """What is wrong with an answer by itself, if anything."""
    if packet.leap == 3 or not 0 < packet.stratum < UNSYNCHRONISED_STRATUM:
        return Reason.UNSYNCHRONISED, f"the server is not synchronised: leap {packet.leap}, stratum {packet.stratum}"
    if not packet.transmit or not packet.receive:
        return Reason.ZERO, "the answer's receive or transmit stamp is empty"
    if packet.transmit == question.previous:
        return Reason.DUPLICATE, "the answer has the transmit stamp of the one before"
    if _earlier(packet.transmit, packet.receive):
        return Reason.ORDER, "the answer was sent, by its own stamps, before the question came in"
    if packet.reference and _earlier(packet.transmit, packet.reference):
        return Reason.ORDER, "the server says that it was last set after it answered"
    if packet.distance_ns >= MOST_DISTANCE_NS:
        told = f"{packet.distance_ns:,} ns from its reference, {MOST_DISTANCE_NS:,} are too many"
        return Reason.DISTANCE, f"the server may be {told}"
    if packet.precision >= 0:
        return Reason.DISTANCE, f"the server reads its clock to 2**{packet.precision} s"
    return None


def _earlier(stamp: int, other: int) -> bool:
    """Whether one stamp lies before another less than half an era away."""
    return 0 < (other - stamp) % (1 << 64) < 1 << 63


def _short_ns(short: int) -> int:
    """NTP's short format, 2**-16 s, in ns; rounded up, since it is a bound."""
    return -(-short * _SECOND_NS >> 16)
