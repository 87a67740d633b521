"""NTP packets: exact stamps over the era's end, every check, and agreement with ntplib about the same bytes."""

from __future__ import annotations

import struct
from fractions import Fraction

import ntplib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.clock.estimate import Exchange
from hftlab.clock.ntp.wire import Question, Reason, Refusal, decode, judge, ntp_stamp, unix_ns
from tests.clock.ntp.packets import NOW_NS, SECOND_NS, answer

SENT_NS, ARRIVED_NS = 1_000_000_000, 1_000_080_000
# UTC minus counter such that the question takes 30 us, is held for 10 us, and the answer takes 40 us.
OFFSET_NS = NOW_NS - SENT_NS - 30_000
YEARS_68_NS = (1 << 31) * SECOND_NS


def judged(payload: bytes, question: Question | None = None) -> tuple[Exchange, int] | Refusal:
    return judge(payload, question or Question("s", 7), sent_ns=SENT_NS, arrived_ns=ARRIVED_NS, near_ns=NOW_NS)


def refusal(payload: bytes, question: Question | None = None) -> Refusal:
    found = judged(payload, question)
    assert isinstance(found, Refusal)
    return found


def good(**changes: object) -> bytes:
    return answer(**({"origin": 7, "receive_ns": NOW_NS, "transmit_ns": NOW_NS + 10_000} | changes))  # type: ignore[arg-type]


@given(st.integers(1_767_225_600 * SECOND_NS, 6_000_000_000 * SECOND_NS), st.integers(1 - YEARS_68_NS, YEARS_68_NS - 1))
def test_a_stamp_means_the_moment_nearest_to_now_whatever_its_era(near_ns: int, away_ns: int) -> None:
    moment_ns = near_ns + away_ns
    # A moment before 1900 by way of a far-off guess is nobody's.
    assert unix_ns(ntp_stamp(moment_ns), near_ns) == moment_ns


def test_the_era_ends_in_2036_without_a_jump() -> None:
    end_ns = ((1 << 32) - 2_208_988_800) * SECOND_NS
    assert ntp_stamp(end_ns) == 0
    assert ntp_stamp(end_ns - 1) >> 32 == (1 << 32) - 1
    assert unix_ns(0, end_ns - 1) == end_ns
    assert unix_ns(ntp_stamp(end_ns - 1), end_ns + 1) == end_ns - 1


def test_a_machine_that_believes_in_1970_still_finds_the_right_era() -> None:
    for moment_ns in (NOW_NS, 2_500_000_000 * SECOND_NS):
        assert unix_ns(ntp_stamp(moment_ns), 5 * SECOND_NS) == moment_ns


@given(st.integers(0, (1 << 64) - 1))
def test_stamps_are_rounded_to_the_nearest_nanosecond(stamp: int) -> None:
    found = unix_ns(stamp, NOW_NS)
    exact = Fraction(stamp * SECOND_NS, 1 << 32) - 2_208_988_800 * SECOND_NS
    eras = Fraction(found) - exact
    assert abs(eras - round(eras / ((1 << 32) * SECOND_NS)) * (1 << 32) * SECOND_NS) <= Fraction(1, 2)


def test_a_question_tells_nothing_but_its_random_bits() -> None:
    one, other = Question.fresh("s"), Question.fresh("s")
    assert one.origin != other.origin
    assert one.encode() == b"\x23" + bytes(39) + one.origin.to_bytes(8, "big")


def test_a_valid_answer_is_an_exchange_of_whole_nanoseconds() -> None:
    found = judged(good(root_delay=65_536 // 8, root_dispersion=1, precision=-20, stratum=2))
    assert isinstance(found, tuple)
    exchange, transmit = found
    assert transmit == ntp_stamp(NOW_NS + 10_000)
    assert exchange == Exchange(
        server="s",
        at_ns=ARRIVED_NS,
        offset_ns=OFFSET_NS - 5_000,  # half of what the ways differ by
        delay_ns=70_000,
        root_delay_ns=125_000_000,
        root_dispersion_ns=15_259,  # 15,258.8 rounded up: it is a bound
        precision_ns=954 + 50,
        stratum=2,
        reference_id=0x7F7F0101,
    )


@pytest.mark.parametrize("extra", [4, 20, 500])
def test_extension_fields_and_macs_behind_the_header_are_tolerated(extra: int) -> None:
    assert isinstance(judged(good() + bytes(extra)), tuple)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mode": 3}, Reason.MODE),
        ({"mode": 6}, Reason.MODE),
        ({"version": 2}, Reason.VERSION),
        ({"version": 5}, Reason.VERSION),
        ({"origin": 8}, Reason.ORIGIN),
        ({"origin": 0}, Reason.ORIGIN),
        ({"leap": 3}, Reason.UNSYNCHRONISED),
        ({"stratum": 16}, Reason.UNSYNCHRONISED),
        ({"stratum": 255}, Reason.UNSYNCHRONISED),
        ({"stratum": 0, "reference_id": bytes(4)}, Reason.UNSYNCHRONISED),
        ({"transmit": 0}, Reason.ZERO),
        ({"receive": 0}, Reason.ZERO),
        ({"transmit_ns": NOW_NS - 1_000}, Reason.ORDER),
        ({"reference_ns": NOW_NS + 60 * SECOND_NS}, Reason.ORDER),
        ({"root_delay": 3 * 65_536}, Reason.DISTANCE),
        ({"root_dispersion": 65_536 + 32_768}, Reason.DISTANCE),
        ({"precision": 0}, Reason.DISTANCE),
        ({"precision": 127}, Reason.DISTANCE),
        ({"transmit_ns": NOW_NS + 90_000}, Reason.DELAY),
    ],
)
def test_what_fails_a_check_is_refused_by_its_reason(changes: dict[str, object], reason: Reason) -> None:
    found = refusal(good(**changes))
    assert found.reason is reason, found
    assert found.server == "s"
    assert found.at_ns == ARRIVED_NS


@pytest.mark.parametrize("size", [0, 1, 47])
def test_a_packet_that_is_too_short_is_refused(size: int) -> None:
    assert refusal(good()[:size]).reason is Reason.SIZE


def test_a_distance_just_below_the_limit_is_taken() -> None:
    assert isinstance(judged(good(root_delay=65_536, root_dispersion=65_536 - 1)), tuple)


def test_an_answer_that_was_given_before_is_refused() -> None:
    assert refusal(good(), Question("s", 7, previous=ntp_stamp(NOW_NS + 10_000))).reason is Reason.DUPLICATE


def test_a_kiss_of_death_is_believed_only_with_our_origin() -> None:
    found = refusal(good(stratum=0, leap=3, reference_id=b"RATE", poll=10))
    assert (found.reason, found.kiss, found.poll_s) == (Reason.KISS, "RATE", 1_024)
    assert refusal(good(stratum=0, leap=3, reference_id=b"DENY")).kiss == "DENY"
    assert refusal(good(stratum=0, leap=3, reference_id=b"RATE", poll=100)).poll_s == 0
    assert refusal(good(origin=9, stratum=0, leap=3, reference_id=b"DENY")).reason is Reason.ORIGIN


def test_a_delay_that_is_negative_by_less_than_the_clocks_precision_is_zero() -> None:
    found = judged(good(transmit_ns=NOW_NS + 80_040))
    assert isinstance(found, tuple)
    assert found[0].delay_ns == 0


@given(st.binary(min_size=0, max_size=100))
def test_whatever_comes_is_judged_without_an_error(payload: bytes) -> None:
    assert isinstance(judged(payload), Refusal)


@given(st.binary(min_size=40, max_size=52))
def test_no_content_that_carries_our_origin_raises(tail: bytes) -> None:
    payload = bytearray(b"\x24\x02" + tail)
    payload[24:32] = (7).to_bytes(8, "big")
    assert isinstance(judged(bytes(payload)), (Refusal, tuple))


@given(st.binary(min_size=48, max_size=48))
def test_the_fields_are_those_that_ntplib_reads(payload: bytes) -> None:
    ours, theirs = decode(payload), ntplib.NTPPacket()
    theirs.from_data(payload)
    assert (ours.leap, ours.version, ours.mode) == (theirs.leap, theirs.version, theirs.mode)
    assert (ours.stratum, ours.poll, ours.precision) == (theirs.stratum, theirs.poll, theirs.precision)
    assert ours.reference_id == struct.pack("!I", theirs.ref_id)
    assert abs(ours.root_delay_ns - theirs.root_delay * 1e9) < 1.1
    assert abs(ours.root_dispersion_ns - theirs.root_dispersion * 1e9) < 1.1
    for stamp, seconds in (
        (ours.reference, theirs.ref_timestamp),
        (ours.origin, theirs.orig_timestamp),
        (ours.receive, theirs.recv_timestamp),
        (ours.transmit, theirs.tx_timestamp),
    ):
        assert abs(stamp / 2**32 - seconds) <= 2**-20  # its floats have 20 bits for the fraction


def test_ntplib_takes_our_question_and_finds_our_offset_in_the_answer() -> None:
    payload = good()
    stats = ntplib.NTPStats()
    stats.from_data(payload)
    # The same four stamps, on one clock: ntplib's t1 and t4 are system time since 1900.
    stats.orig_timestamp = ntplib.system_to_ntp_time((OFFSET_NS + SENT_NS) / SECOND_NS)
    stats.dest_timestamp = ntplib.system_to_ntp_time((OFFSET_NS + ARRIVED_NS) / SECOND_NS)
    found = judged(payload)
    assert isinstance(found, tuple)
    assert abs(stats.offset * SECOND_NS - (found[0].offset_ns - OFFSET_NS)) < 2_000
    assert abs(stats.delay * SECOND_NS - found[0].delay_ns) < 2_000
    asked = ntplib.NTPPacket()
    asked.from_data(Question("s", 7).encode())
    assert (asked.version, asked.mode) == (4, 3)
