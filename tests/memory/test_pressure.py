"""The limit that binds is found among control groups and the machine, on made-up trees and on the real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from hftlab.memory import MemoryPressure, read_pressure

MIB = 1 << 20
UNLIMITED_V1 = 9_223_372_036_854_771_712
V2 = {"proc/self/cgroup": "0::/app/worker\n"}
V1 = {"proc/self/cgroup": "12:cpu,cpuacct:/other\n4:memory:/docker/abc\n1:name=systemd:/init\n"}
WORKER, APP, TOP = (f"sys/fs/cgroup/{name}" for name in ("app/worker/", "app/", ""))
DOCKER, TOP_V1 = "sys/fs/cgroup/memory/docker/abc/", "sys/fs/cgroup/memory/"
PSI = "some avg10={} avg60=0.00 avg300=0.00 total=12\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=3\n"

Read = Callable[[dict[str, str]], MemoryPressure]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Return a function from files and their text to the reading; the machine has 1,000 MiB, of which 100 are used."""
    machine = SimpleNamespace(total=1_000 * MIB, available=900 * MIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)

    def write(files: dict[str, str]) -> MemoryPressure:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return read_pressure(tmp_path)

    return write


def group_v2(folder: str, used: object, most: object, inactive: object = 0, high: object = "max") -> dict[str, str]:
    return {
        f"{folder}memory.current": f"{used}\n",
        f"{folder}memory.max": f"{most}\n",
        f"{folder}memory.high": f"{high}\n",
        f"{folder}memory.stat": f"anon 1\nfile 2\ninactive_file {inactive}\nactive_file 5\n",
    }


def group_v1(folder: str, used: object, most: object, inactive: object = 0) -> dict[str, str]:
    return {
        f"{folder}memory.usage_in_bytes": f"{used}\n",
        f"{folder}memory.limit_in_bytes": f"{most}\n",
        f"{folder}memory.stat": f"cache 7\ninactive_file 999\ntotal_inactive_file {inactive}\n",
    }


def told(pressure: MemoryPressure) -> tuple[str, int, int]:
    return pressure.source, pressure.used_bytes // MIB, pressure.limit_bytes // MIB


def test_version_2_counts_what_is_used_without_the_cache_that_can_go_at_once(read: Read) -> None:
    pressure = read(V2 | group_v2(WORKER, 300 * MIB, 400 * MIB, inactive=100 * MIB))
    assert told(pressure) == ("cgroup v2", 200, 400)
    assert pressure.used_fraction == pressure.level == 0.5


def test_version_1_counts_what_is_used_without_the_cache_that_can_go_at_once(read: Read) -> None:
    pressure = read(V1 | group_v1(DOCKER, 300 * MIB, 400 * MIB, inactive=200 * MIB))
    assert told(pressure) == ("cgroup v1", 100, 400)
    assert pressure.used_fraction == 0.25


def test_without_control_groups_the_machine_counts(read: Read) -> None:
    assert told(read({})) == ("psutil", 100, 1_000)


@pytest.mark.parametrize(
    "files",
    [
        V2 | group_v2(WORKER, 300 * MIB, "max"),
        V1 | group_v1(DOCKER, 300 * MIB, UNLIMITED_V1),
        V1 | group_v1(DOCKER, 300 * MIB, 0x7FFF_FFFF_FFFF_0000),  # of a machine with pages of 64 KiB
    ],
    ids=["v2", "v1", "v1 with large pages"],
)
def test_a_group_without_a_limit_leaves_it_to_the_machine(files: dict[str, str], read: Read) -> None:
    assert told(read(files)) == ("psutil", 100, 1_000)


def test_the_limit_of_a_group_above_binds_where_it_is_fuller(read: Read) -> None:
    own, above = group_v2(WORKER, 10 * MIB, 400 * MIB), group_v2(APP, 450 * MIB, 500 * MIB)
    assert told(read(V2 | own | above)) == ("cgroup v2", 450, 500)


def test_a_full_machine_binds_before_a_roomy_group(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = SimpleNamespace(total=1_000 * MIB, available=50 * MIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    assert told(read(V2 | group_v2(WORKER, 10 * MIB, 400 * MIB))) == ("psutil", 950, 1_000)


def test_the_limit_from_which_version_2_slows_a_group_down_counts_as_a_limit(read: Read) -> None:
    assert told(read(V2 | group_v2(WORKER, 80 * MIB, 400 * MIB, high=100 * MIB))) == ("cgroup v2", 80, 100)


@pytest.mark.parametrize("path", ["/docker/abc", "/../outside", "/"])
def test_a_container_that_sees_only_its_own_group_finds_it_at_the_top(path: str, read: Read) -> None:
    files = {"proc/self/cgroup": f"0::{path}\n"} | group_v2(TOP, 300 * MIB, 400 * MIB)
    assert told(read(files)) == ("cgroup v2", 300, 400)
    files = {"proc/self/cgroup": f"3:memory:{path}\n0::/\n"} | group_v1(TOP_V1, 390 * MIB, 400 * MIB)
    assert told(read(files)) == ("cgroup v1", 390, 400)


def test_a_path_with_dots_is_never_followed_out_of_the_mounted_groups(read: Read) -> None:
    files = {"proc/self/cgroup": "0::/../../proc\n"} | group_v2("sys/proc/", 399 * MIB, 400 * MIB)
    assert told(read(files)) == ("psutil", 100, 1_000)


@pytest.mark.parametrize("broken", ["", "many", "-5", "1.5", "9" * 5_000, "\x00"])
@pytest.mark.parametrize("name", ["memory.current", "memory.max"])
def test_a_broken_file_of_version_2_leaves_it_to_the_next_layer(name: str, broken: str, read: Read) -> None:
    own = group_v2(WORKER, 399 * MIB, 400 * MIB) | {f"{WORKER}{name}": broken}
    assert told(read(V2 | own)) == ("psutil", 100, 1_000)
    both = {"proc/self/cgroup": V1["proc/self/cgroup"] + V2["proc/self/cgroup"]}
    assert told(read(both | own | group_v1(DOCKER, 300 * MIB, 400 * MIB))) == ("cgroup v1", 300, 400)


@pytest.mark.parametrize("stat", ["", "inactive_file", "inactive_file lots", "\n\n"])
def test_without_the_cache_s_size_all_that_is_used_counts(stat: str, read: Read) -> None:
    files = group_v2(WORKER, 300 * MIB, 400 * MIB) | {f"{WORKER}memory.stat": stat}
    assert told(read(V2 | files)) == ("cgroup v2", 300, 400)


def test_what_is_used_is_never_less_than_nothing_nor_more_than_all(read: Read) -> None:
    pressure = read(V2 | group_v2(WORKER, 10 * MIB, 400 * MIB, inactive=50 * MIB) | group_v2(APP, 9 * MIB, 4 * MIB))
    assert told(pressure) == ("cgroup v2", 9, 4)
    assert pressure.used_fraction == 1.0
    assert read(V2 | group_v2(APP, 5, 0)).used_fraction == 1.0


@pytest.mark.parametrize("text", ["", "garbage", "0", "::", "4:memory", "0::/a\0b"])
def test_a_list_of_groups_that_makes_no_sense_is_passed_over(text: str, read: Read) -> None:
    assert read({"proc/self/cgroup": text} | group_v2(WORKER, 3, 4)).source == "psutil"


def test_stalls_of_the_own_group_count_before_those_of_the_machine(read: Read) -> None:
    machine = {"proc/pressure/memory": PSI.format("50.00")}
    pressure = read(machine)
    assert (pressure.stalled_fraction, pressure.stalls_of, pressure.has_psi) == (0.5, "machine", True)
    pressure = read(V2 | machine | {f"{WORKER}memory.pressure": PSI.format("2.50")})
    assert (pressure.stalled_fraction, pressure.stalls_of) == (0.025, "cgroup")
    assert pressure.level == pytest.approx(0.25)


def test_an_own_group_without_stalls_hides_those_that_only_others_have(read: Read) -> None:
    files = {f"{WORKER}memory.pressure": PSI.format("0.00"), "proc/pressure/memory": PSI.format("50.00")}
    assert read(V2 | files).stalled_fraction == 0.0


@pytest.mark.parametrize("text", ["", "some", "some avg10=", "some avg10=nan", "some avg10=-1", "full avg10=3.00"])
def test_stalls_that_cannot_be_read_are_none(text: str, read: Read) -> None:
    pressure = read({"proc/pressure/memory": text})
    assert (pressure.stalled_fraction, pressure.stalls_of, pressure.has_psi) == (None, None, False)
    assert pressure.level == pressure.used_fraction == 0.1


@pytest.mark.parametrize(
    ("used", "stalled", "level"),
    [(0.3, None, 0.3), (0.3, 0.0, 0.3), (0.95, 0.05, 0.95), (0.3, 0.05, 0.5), (0.3, 0.09, 0.9), (0.3, 1.0, 1.0)],
)
def test_the_level_is_the_fuller_of_the_limit_and_ten_times_the_stalls(
    used: float, stalled: float | None, level: float
) -> None:
    assert MemoryPressure(used, stalled, 1, 2, "psutil").level == pytest.approx(level)


def test_a_reading_is_told_in_one_line() -> None:
    told = repr(MemoryPressure(0.5, 0.025, 512 * MIB, 1_024 * MIB, "cgroup v2", "cgroup"))
    assert told == "MemoryPressure(50.0% used: 512 of 1,024 MiB by cgroup v2, stalled 2.5% of the time)"
    assert "no PSI" in repr(MemoryPressure(0.5, None, 1, 2, "psutil"))


def test_this_machine_is_read_as_it_is() -> None:
    pressure = read_pressure()
    print(pressure)
    assert 0 < pressure.used_fraction <= 1
    assert 0 < pressure.level <= 1
    assert pressure.used_bytes > 0
    assert pressure.limit_bytes > 0
    assert pressure.has_psi == (pressure.stalls_of is not None)
