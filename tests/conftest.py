"""What all tests share: the real captures, Hypothesis's settings, and a header that says where this ran."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

from hftlab.compiling import compile_kernels

PROJECT = Path(__file__).resolve().parents[1]

# No timing is ever a pass or fail: not an example's deadline, nor the check that data is made quickly enough.
settings.register_profile("hftlab", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
# In CI, the same examples at every run: a failure there belongs to the change that was pushed.
settings.register_profile("hftlab-ci", settings.get_profile("hftlab"), derandomize=True)
settings.load_profile("hftlab-ci" if os.environ.get("CI") else "hftlab")


def pytest_configure() -> None:
    """Hide the user's own servers from the tests and the notebooks' kernels: nothing is ever written to, or asked."""
    os.environ.pop("HFTLAB_URL", None)
    os.environ.pop("HFTLAB_NTP", None)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the kernels, where that was not done: a notebook's cell would show the bar, and its output differ."""
    if not hasattr(session.config, "workerinput"):
        compile_kernels()


# With several processes (-n), the longest files come first: none is left alone with them at the end.
_LONGEST = ("browser", "faults", "bench", "ring", "sequence", "streams")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the long folders first where xdist hands out files."""
    if hasattr(config, "workerinput"):
        rank = {PROJECT / "tests" / name: place for place, name in enumerate(_LONGEST)}
        items.sort(key=lambda item: rank.get(item.path.parent, len(rank)))


def pytest_report_header() -> list[str]:
    """Say what a figure or a failure in this run's output depends on."""
    kernel = f"{platform.system()} {platform.release()}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    memory_gib = psutil.virtual_memory().total / 2**30
    data, missing = locate_data(os.environ)
    return [
        f"machine: {processor_name()}, {usable_cores()} of {os.cpu_count()} cores, {memory_gib:.0f} GiB, "
        f"{kernel}, {python}",
        f"captures: {data or missing}",
        f"hypothesis: {'the same' if settings().derandomize else 'new'} examples every run, no deadlines; "
        "a failure prints how to reproduce it",
    ]


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's model, or its architecture where the system doesn't tell."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return how many cores this process may run on, which a container may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def locate_data(environ: Mapping[str, str], project: Path = PROJECT) -> tuple[Path | None, str]:
    """Return the folder of the real captures, or None and the reason why there is none."""
    named = environ.get("HFTLAB_DATA")
    folder = Path(named) if named else project.parent / "shared" / "data"
    if folder.is_dir():
        return folder, ""
    origin = "named by HFTLAB_DATA" if named else "HFTLAB_DATA names another"
    return None, f"no real captures: {folder} is no folder ({origin})"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Return the folder of captures that exchanges really sent; skips where it is missing.

    They are never part of the tree. A folder that HFTLAB_DATA names and that is not there is an error, not a
    skip: whoever set it wants these tests to run.
    """
    folder, missing = locate_data(os.environ)
    if folder is not None:
        return folder
    if os.environ.get("HFTLAB_DATA"):
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def capture_path(data_folder: Path) -> Callable[[str], Path]:
    """Return a function from a capture's path below the data folder to its full one; skips where it is not.

    ``capture_path("binance-usdm-btcusdt/btcusdt_20240808_first120s.gz")``
    """

    def find(name: str) -> Path:
        path = data_folder / name
        if not path.is_file():
            pytest.skip(f"no real capture: {path} is no file")
        return path

    return find
