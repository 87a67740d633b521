"""Stamps of arrivals: the best clock is taken, what can't be trusted is refused, and all of it is counted."""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hftlab.clock import stamps
from hftlab.clock.stamps import (
    ANCILLARY_BYTES,
    SO_RXQ_OVFL,
    SO_TIMESTAMPING,
    SO_TIMESTAMPNS,
    ArrivalClock,
    Clocks,
    Doubt,
    Stamp,
    Trust,
    read_clocks,
    read_stamp,
    to_counter,
)
from hftlab.errors import ValidationError
from hftlab.events import ClockSource

NOW_NS = 1_790_000_000_123_456_789
SECOND_NS = 1_000_000_000
Message = tuple[int, int, bytes]

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux stamps what arrives")


def timespec(moment_ns: int) -> tuple[int, int]:
    return divmod(moment_ns, SECOND_NS)


def plain(moment_ns: int) -> Message:
    return socket.SOL_SOCKET, SO_TIMESTAMPNS, struct.pack("@qq", *timespec(moment_ns))


def triple(kernel_ns: int, hardware_ns: int = 0) -> Message:
    return socket.SOL_SOCKET, SO_TIMESTAMPING, struct.pack("@6q", *timespec(kernel_ns), 0, 0, *timespec(hardware_ns))


def drops(count: int) -> Message:
    return socket.SOL_SOCKET, SO_RXQ_OVFL, struct.pack("=I", count)


def test_trust_has_the_numbers_of_the_events_clock_source() -> None:
    assert {one.name: one.value for one in Trust} == {one.name: one.value for one in ClockSource}


@given(st.integers(1, 1 << 62), st.integers(0, (1 << 32) - 1))
def test_the_kernels_stamp_is_read_to_the_nanosecond_from_either_message(moment_ns: int, count: int) -> None:
    assert read_stamp([plain(moment_ns)]) == Stamp(moment_ns, Trust.KERNEL)
    assert read_stamp([drops(count), triple(moment_ns)]) == Stamp(moment_ns, Trust.KERNEL, count)
    assert read_stamp([triple(moment_ns), plain(moment_ns + 1)]).realtime_ns == moment_ns
    assert read_stamp([plain(moment_ns + 1), triple(moment_ns)]).realtime_ns == moment_ns
    assert read_stamp([plain(moment_ns), triple(0)]).realtime_ns == moment_ns


@pytest.mark.parametrize("away_ns", [0, -2_000, SECOND_NS // 2, -SECOND_NS // 2])
def test_the_cards_stamp_is_taken_where_it_is_near_the_kernels(away_ns: int) -> None:
    stamp = read_stamp([triple(NOW_NS, NOW_NS + away_ns)])
    assert stamp == Stamp(NOW_NS + away_ns, Trust.HARDWARE)


@pytest.mark.parametrize("hardware_ns", [1, NOW_NS + 37 * SECOND_NS, NOW_NS - SECOND_NS // 2 - 1, -5 * SECOND_NS])
def test_a_card_that_was_never_set_or_counts_tai_is_refused_for_the_kernels_stamp(hardware_ns: int) -> None:
    assert read_stamp([triple(NOW_NS, hardware_ns)]) == Stamp(NOW_NS, Trust.KERNEL, 0, Doubt.HARDWARE_FAR_OFF)
    alone = read_stamp([triple(0, hardware_ns)], realtime_ns=NOW_NS)
    assert alone == Stamp(0, Trust.UNKNOWN, 0, Doubt.HARDWARE_FAR_OFF)


def test_how_near_the_card_must_be_can_be_set() -> None:
    message = triple(NOW_NS, NOW_NS - 2_000_000)
    assert read_stamp([message], hardware_within_ns=1_000_000).trust is Trust.KERNEL
    assert read_stamp([message], hardware_within_ns=2_000_000).trust is Trust.HARDWARE


@pytest.mark.parametrize(
    "message",
    [
        (socket.SOL_SOCKET, SO_TIMESTAMPNS, struct.pack("=ii", 1_790_000_000, 5)),
        (socket.SOL_SOCKET, SO_TIMESTAMPING, struct.pack("=6i", 1_790_000_000, 5, 0, 0, 1_790_000_000, 5)),
        (socket.SOL_SOCKET, SO_TIMESTAMPNS, b""),
    ],
)
def test_times_in_the_layout_of_32_bit_systems_are_refused(message: Message) -> None:
    assert read_stamp([message]) == Stamp(0, Trust.UNKNOWN, 0, Doubt.LAYOUT)


def test_what_says_nothing_of_time_is_no_stamp() -> None:
    assert read_stamp([]) == Stamp(0, Trust.UNKNOWN, 0, Doubt.NO_STAMP)
    assert read_stamp([(socket.IPPROTO_IP, SO_TIMESTAMPNS, plain(NOW_NS)[2])]).doubt is Doubt.NO_STAMP
    assert read_stamp([triple(0)]).doubt is Doubt.NO_STAMP


@given(st.integers(0, 10 * SECOND_NS), st.integers(0, 1 << 60))
def test_a_stamp_goes_to_the_counter_by_its_age(age_ns: int, counter_ns: int) -> None:
    stamp = Stamp(NOW_NS - age_ns, Trust.KERNEL)
    assert to_counter(stamp, counter_ns, NOW_NS) == counter_ns - age_ns


def test_a_stamp_from_the_future_or_from_long_ago_is_refused() -> None:
    assert to_counter(Stamp(NOW_NS + 5_000, Trust.KERNEL), 7_000, NOW_NS) == 7_000
    assert to_counter(Stamp(NOW_NS + 5_001, Trust.KERNEL), 7_000, NOW_NS) is None
    assert to_counter(Stamp(NOW_NS - 1_001, Trust.KERNEL), 7_000, NOW_NS, oldest_ns=1_000) is None
    assert to_counter(Stamp(0, Trust.UNKNOWN), 7_000, NOW_NS) is None


def test_two_readings_of_the_clocks_agree_about_their_difference() -> None:
    one, other = read_clocks(), read_clocks()
    assert other.counter_ns >= one.counter_ns
    apart_ns = (other.realtime_ns - other.counter_ns) - (one.realtime_ns - one.counter_ns)
    assert abs(apart_ns) <= one.width_ns + other.width_ns + 1_000_000_000  # a step is possible, an hour is not
    with pytest.raises(ValidationError, match="at least once"):
        read_clocks(0)


class Wall:
    """The clocks as a test sets them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counter_ns, self.realtime_ns = 1_000_000, NOW_NS
        monkeypatch.setattr(stamps, "read_clocks", lambda: Clocks(self.counter_ns, self.realtime_ns, 100))

    def pass_by(self, duration_ns: int, set_by_ns: int = 0) -> None:
        self.counter_ns += duration_ns
        self.realtime_ns += duration_ns + set_by_ns


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        sender.connect(receiver.getsockname())
        yield receiver, sender


@pytest.mark.parametrize("step_ns", [SECOND_NS, -SECOND_NS, 20_000, -20_000])
def test_a_clock_that_was_set_between_two_looks_takes_the_trust_from_their_stamps(
    step_ns: int, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = Wall(monkeypatch)
    arrivals = ArrivalClock(pair[0])
    stamped = triple(wall.realtime_ns)
    wall.pass_by(50_000, step_ns)
    arrivals.look()
    assert arrivals.place([stamped]) == (1_050_000, Trust.APPLICATION)
    arrivals.look()  # what was read by now may have come before it was set
    wall.pass_by(50_000)
    stamped = triple(wall.realtime_ns - 10_000)
    arrivals.look()
    assert arrivals.place([stamped]) == (1_090_000, Trust.KERNEL)
    counts = arrivals.counts()
    assert (counts.kernel, counts.application, counts.clock_set, counts.arrivals) == (1, 1, 1, 2)


@pytest.mark.parametrize("step_ns", [30 * SECOND_NS, -30 * SECOND_NS, 20_000, -20_000])
def test_what_lay_in_the_socket_when_the_clock_was_set_is_not_placed_by_its_stamp(
    step_ns: int, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = Wall(monkeypatch)
    arrivals = ArrivalClock(pair[0], oldest_ns=3_600 * SECOND_NS)
    old = triple(wall.realtime_ns + 40_000)
    wall.pass_by(50_000, step_ns)
    arrivals.look(more=True)
    for more in (True, False):  # the second of them empties the socket
        wall.pass_by(50_000)
        arrivals.look(more=more)
        assert arrivals.place([old]) == (wall.counter_ns, Trust.APPLICATION)
    wall.pass_by(50_000)
    stamped = triple(wall.realtime_ns - 10_000)
    arrivals.look()
    assert arrivals.place([stamped]) == (wall.counter_ns - 10_000, Trust.KERNEL)


def test_a_socket_that_is_never_empty_is_trusted_again_as_soon_as_its_stamps_are_later_than_any_old_one(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = Wall(monkeypatch)
    arrivals = ArrivalClock(pair[0])
    wall.pass_by(50_000, SECOND_NS)
    arrivals.look(more=True)
    wall.pass_by(50_000)
    arrivals.look(more=True)
    assert arrivals.place([triple(wall.realtime_ns - 10_000)]) == (wall.counter_ns - 10_000, Trust.KERNEL)


def test_every_arrival_is_counted_by_its_clock_and_by_what_spoke_against_a_better_one(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = Wall(monkeypatch)
    arrivals = ArrivalClock(pair[0])
    wall.pass_by(1_000)
    arrivals.look()
    now_ns = wall.realtime_ns
    short = (socket.SOL_SOCKET, SO_TIMESTAMPNS, bytes(8))
    for ancillary in ([triple(now_ns, now_ns)], [triple(now_ns, 5)], [plain(now_ns)], [short], [], [plain(5)]):
        arrivals.place(ancillary)
    counts = arrivals.counts()
    assert (counts.hardware, counts.kernel, counts.application) == (1, 2, 3)
    assert (counts.hardware_far_off, counts.layout, counts.no_stamp, counts.clock_set) == (1, 1, 1, 1)
    assert repr(arrivals) == "ArrivalClock(1 hardware, 2 kernel, 3 application)"


def test_the_count_of_drops_goes_on_where_its_32_bits_wrap(pair: tuple[socket.socket, socket.socket]) -> None:
    arrivals = ArrivalClock(pair[0])
    for word in (0, 4_000_000_000, (1 << 32) - 1, 4):
        arrivals.place([drops(word)])
    assert arrivals.dropped == arrivals.counts().dropped == (1 << 32) + 4


@linux
def test_the_kernel_stamps_what_arrives_before_the_application_reads_it(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    receiver, sender = pair
    arrivals = ArrivalClock(receiver)
    assert arrivals.offered is Trust.KERNEL
    deadline = time.monotonic() + 20
    while True:  # the kernel switches its stamps on a little after it was asked
        before_ns = time.perf_counter_ns()
        sender.send(b"x")
        _, ancillary, _, _ = receiver.recvmsg(16, ANCILLARY_BYTES)
        read_at_ns = time.perf_counter_ns()
        arrivals.look()
        arrival = arrivals.place(ancillary)
        if arrival.trust is Trust.KERNEL or time.monotonic() > deadline:
            break
    assert arrival.trust is Trust.KERNEL
    assert before_ns - 10_000 <= arrival.counter_ns <= read_at_ns


@linux
def test_datagrams_that_the_buffer_has_no_room_for_are_counted(pair: tuple[socket.socket, socket.socket]) -> None:
    receiver, sender = pair
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    arrivals = ArrivalClock(receiver)
    for _ in range(200):
        sender.send(bytes(1_000))
    received = 0
    receiver.setblocking(False)
    while True:
        try:
            _, ancillary, _, _ = receiver.recvmsg(2_000, ANCILLARY_BYTES)
        except BlockingIOError:
            break
        received += 1
        arrivals.place(ancillary)
    sender.send(bytes(1_000))
    receiver.settimeout(10)
    arrivals.place(receiver.recvmsg(2_000, ANCILLARY_BYTES)[1])
    assert received < 200
    assert arrivals.dropped == 200 - received


def test_where_the_kernel_refuses_the_applications_time_is_all_there_is(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamps, "SO_TIMESTAMPING", 9_999)
    monkeypatch.setattr(stamps, "SO_TIMESTAMPNS", 9_998)
    assert stamps.enable_stamps(pair[0]) is Trust.APPLICATION
    monkeypatch.setattr(sys, "platform", "darwin")
    assert stamps.enable_stamps(pair[0]) is Trust.APPLICATION
