"""Memory and disk, by table and from made-up files."""

from __future__ import annotations

from pathlib import Path

import pytest

from hftlab.bus import EventBus
from hftlab.doctor.capacity import (
    examine_memory,
    fitting_capacity,
    judge_folder,
    judge_huge_pages,
    judge_locking,
    judge_memory,
    judge_pressure,
)
from hftlab.doctor.report import Verdict
from hftlab.errors import ValidationError
from hftlab.memory import MemoryPressure

GOOD, FAIR, POOR, UNKNOWN = Verdict.GOOD, Verdict.FAIR, Verdict.POOR, Verdict.UNKNOWN
GIB, MIB = 1 << 30, 1 << 20


def test_queues_of_the_capacity_that_is_told_fit_into_a_quarter_of_what_is_free() -> None:
    for free_bytes in (2 * MIB, 3 * MIB, GIB - 1, GIB):
        rows = fitting_capacity(free_bytes)
        assert rows * 4 * 128 * 4 <= free_bytes < 2 * rows * 4 * 128 * 4
        assert rows & (rows - 1) == 0


def test_no_capacity_is_told_that_a_bus_would_refuse() -> None:
    assert fitting_capacity(2 * MIB - 1) == fitting_capacity(0) == 0
    assert fitting_capacity(2 * MIB) == 1 << 10
    largest = fitting_capacity(1 << 50)
    with pytest.raises(ValidationError):
        EventBus(capacity=2 * largest)
    with pytest.raises(ValidationError):
        EventBus(capacity=fitting_capacity(2 * MIB) // 2)


@pytest.mark.parametrize(
    ("available", "limit", "used", "verdict", "free"),
    [
        (16 * GIB, 32 * GIB, 16 * GIB, GOOD, 16 * GIB),
        (16 * GIB, 600 * MIB, 200 * MIB, FAIR, 400 * MIB),
        (16 * GIB, 100 * MIB, 99 * MIB, POOR, MIB),
        (16 * GIB, 100 * MIB, 200 * MIB, POOR, 0),
    ],
)
def test_the_layer_that_leaves_least_says_how_much_is_free(
    available: int, limit: int, used: int, verdict: Verdict, free: int
) -> None:
    pressure = MemoryPressure(used / limit, 0.0, used, limit, "cgroup v2")
    check = judge_memory(32 * GIB, available, pressure)
    assert check.verdict is verdict
    assert check.figures["free_bytes"] == free
    assert "by cgroup v2" in check.value


@pytest.mark.parametrize(
    ("stalled", "swapped", "verdicts"),
    [(0.0, 0, [GOOD, GOOD]), (0.01, GIB, [FAIR, FAIR]), (0.2, 0, [GOOD, POOR]), (None, 0, [GOOD, UNKNOWN])],
)
def test_waiting_for_memory_and_swap_are_judged(stalled: float | None, swapped: int, verdicts: list[Verdict]) -> None:
    pressure = MemoryPressure(0.5, stalled, GIB, 2 * GIB, "psutil", None if stalled is None else "machine")
    assert [check.verdict for check in judge_pressure(pressure, 4 * GIB, swapped)] == verdicts


@pytest.mark.parametrize(
    ("text", "platform", "verdict"),
    [
        ("[always] madvise never", "linux", FAIR),
        ("always [madvise] never", "linux", GOOD),
        ("always madvise [never]", "linux", GOOD),
        ("gibberish", "linux", UNKNOWN),
        (None, "linux", UNKNOWN),
        (None, "darwin", UNKNOWN),
    ],
)
def test_huge_pages_are_judged_by_what_stands_in_brackets(text: str | None, platform: str, verdict: Verdict) -> None:
    check = judge_huge_pages(text, platform)
    assert check.verdict is verdict
    assert ("darwin" in check.why) == (platform == "darwin")


@pytest.mark.parametrize(("soft_bytes", "verdict"), [(None, GOOD), (64 * MIB, GOOD), (64 * 1024, FAIR)])
def test_locked_memory_is_judged_by_its_limit(soft_bytes: int | None, verdict: Verdict) -> None:
    assert judge_locking(soft_bytes).verdict is verdict


def test_a_folder_that_is_not_there_yet_has_the_room_of_the_one_above(tmp_path: Path) -> None:
    check = judge_folder("disk", tmp_path / "not" / "yet", 1, "why")
    assert check.verdict is GOOD
    assert check.figures["total_bytes"]


def test_a_machine_whose_files_tell_nothing_still_gets_every_check(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/mm/transparent_hugepage/enabled").mkdir(parents=True)  # a folder in place of a file
    checks = {check.name: check for check in examine_memory(tmp_path, tmp_path)}
    assert {"memory", "swap", "stalls", "huge pages", "locked memory", "disk"} <= set(checks)
    assert checks["stalls"].verdict is checks["huge pages"].verdict is UNKNOWN


def test_pressure_and_limits_come_from_the_files_of_the_root_that_is_given(tmp_path: Path) -> None:
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (group / "memory.max").write_text("104857600\n")
    (group / "memory.current").write_text("104000000\n")
    (group / "memory.pressure").write_text("some avg10=12.50 avg60=0.00 avg300=0.00 total=1\n")
    checks = {check.name: check for check in examine_memory(tmp_path, tmp_path)}
    assert checks["memory"].verdict is POOR
    assert "limited to 100 MiB by cgroup v2" in checks["memory"].value
    assert checks["stalls"].value == "12.5% of the last 10 s, by the cgroup"
