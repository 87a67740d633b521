"""What is read of the counter and the kernel's clock, and what is thought of it."""

from __future__ import annotations

import struct
import sys

import pytest

from hftlab.doctor.clocks import (
    Counter,
    KernelClock,
    judge_counter,
    judge_kernel,
    judge_source,
    measure_counter,
    parse_timex,
    read_kernel_clock,
)
from hftlab.doctor.report import Verdict

GOOD, FAIR, POOR, UNKNOWN = Verdict.GOOD, Verdict.FAIR, Verdict.POOR, Verdict.UNKNOWN
UNSYNC, NANO = 0x40, 0x2000


def timex(*, offset: int = 0, frequency: int = 0, maxerror: int = 0, esterror: int = 0, status: int = 0) -> bytes:
    """A struct timex as x86-64 lays it out, by its offsets in <sys/timex.h>."""
    raw = bytearray(208)
    struct.pack_into("<qqqqi", raw, 8, offset, frequency, maxerror, esterror, status)
    struct.pack_into("<i", raw, 160, 37)
    return bytes(raw)


@pytest.mark.skipif(struct.calcsize("l") != 8 or sys.byteorder != "little", reason="the layout of x86-64 and ARM64")
def test_the_kernels_answer_is_read_by_its_layout() -> None:
    raw = timex(offset=-1_500, frequency=-65_536 * 3 // 2, maxerror=250, esterror=12, status=NANO | 1)
    assert parse_timex(raw, 0) == KernelClock(0, NANO | 1, -1_500, -1.5, 250_000, 12_000, 37)
    micro = parse_timex(timex(offset=-2, status=UNSYNC), 5)
    assert micro is not None
    assert micro.offset_ns == -2_000
    assert not micro.synced
    assert micro.divergence is None


@pytest.mark.parametrize(("raw", "state"), [(b"", 0), (bytes(100), 0), (bytes(208), -1), (bytes(208), 6)])
def test_what_is_no_answer_of_the_kernels_is_none(raw: bytes, state: int) -> None:
    assert parse_timex(raw, state) is None


def test_asking_the_kernel_never_raises() -> None:
    found = read_kernel_clock()
    if sys.platform != "linux":
        assert found is None
    elif found is not None:  # a sandbox may forbid it
        assert 0 <= found.state <= 5
        assert abs(found.frequency_ppm) <= 500


def kernel(maxerror_ns: int, state: int = 0) -> KernelClock:
    return KernelClock(state, NANO, 0, 1.0, maxerror_ns, 0, 37)


@pytest.mark.parametrize(
    ("maxerror_ns", "verdict", "good_for"),
    [
        (90_000, GOOD, "high-frequency"),
        (900_000, GOOD, "1 ms"),
        (40_000_000, FAIR, "CAT members"),
        (400_000_000, POOR, "voice"),
        (16_000_000_000, POOR, "no rule"),
    ],
)
def test_the_kernels_claim_says_what_its_clock_is_good_for(maxerror_ns: int, verdict: Verdict, good_for: str) -> None:
    check = judge_kernel(kernel(maxerror_ns), ["chronyd"])
    assert check.verdict is verdict
    assert good_for in check.good_for
    assert "chronyd running" in check.value
    assert check.figures["maxerror_ns"] == maxerror_ns


def test_a_leap_second_that_is_announced_is_told() -> None:
    assert "will be inserted" in judge_kernel(kernel(1_000, state=1), []).value
    assert "left out" in judge_kernel(kernel(1_000, state=2), []).value


def test_a_clock_that_nobody_keeps_says_what_to_start() -> None:
    check = judge_kernel(KernelClock(5, UNSYNC, 0, 0.0, 16_000_000_000, 0, 0), [])
    assert check.verdict is POOR
    assert "apt install chrony" in check.next


def test_a_daemon_that_has_not_synchronised_the_clock_is_to_be_asked_why() -> None:
    check = judge_kernel(KernelClock(5, UNSYNC, 0, 0.0, 16_000_000_000, 0, 0), ["systemd-timesyncd"])
    assert "systemd-timesyncd running" in check.value
    assert "timedatectl" in check.next


def test_a_kernel_that_does_not_tell_is_unknown() -> None:
    assert judge_kernel(None, []).verdict is UNKNOWN
    assert judge_source(None, None).verdict is UNKNOWN


@pytest.mark.parametrize(
    ("current", "available", "verdict", "advised"),
    [
        ("tsc", "tsc hpet acpi_pm", GOOD, False),
        ("hpet", "tsc hpet acpi_pm", POOR, True),
        ("acpi_pm", "acpi_pm", POOR, False),
        ("kvm-clock", "kvm-clock tsc", FAIR, True),
        ("xen", "xen", POOR, False),
        ("sundial", "sundial tsc", UNKNOWN, False),
    ],
)
def test_a_clocksource_is_judged_and_a_better_one_named(
    current: str, available: str, verdict: Verdict, advised: bool
) -> None:
    check = judge_source(current, available)
    assert (check.verdict, check.value) == (verdict, current)
    assert ("echo tsc" in check.next) is advised


@pytest.mark.parametrize(
    ("call_ns", "resolution_ns", "gap_ns", "verdicts"),
    [
        (60.0, 1, 20_000, (GOOD, GOOD)),
        (60.0, 42, 900_000, (GOOD, FAIR)),
        (900.0, 100, 6_000_000, (FAIR, POOR)),
        (60.0, 15_625_000, 20_000, (POOR, GOOD)),
    ],
)
def test_a_counter_is_judged_by_its_cost_its_steps_and_the_pauses_it_saw(
    call_ns: float, resolution_ns: int, gap_ns: int, verdicts: tuple[Verdict, Verdict]
) -> None:
    counter = Counter(resolution_ns, call_ns, 100.0, 200_000_000, gap_ns, gap_ns)
    assert tuple(check.verdict for check in judge_counter(counter, "CLOCK_MONOTONIC")) == verdicts


async def test_spinning_measures_for_as_long_as_it_says() -> None:
    found = await measure_counter(0.02)
    assert found.spun_ns >= 20_000_000
    assert 0 < found.longest_gap_ns <= found.spun_ns
    assert found.resolution_ns >= 1
    assert min(found.call_ns, found.now_ns) > 0
