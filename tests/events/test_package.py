"""Importing the events is cheap: nothing heavy comes with them before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("pandas", "numba", "redis", "plotly", "ipywidgets", "zstandard")


@pytest.mark.parametrize(
    ("module", "light"),
    [
        ("hftlab.events", HEAVY),
        ("hftlab.clock", HEAVY),
        ("hftlab.events.ports", HEAVY),
        ("hftlab.events.frames", HEAVY[:-1]),
        ("hftlab.events.entries", HEAVY),
        ("hftlab.events.digest", HEAVY),
    ],
)
def test_importing_brings_nothing_that_is_not_needed_yet(module: str, light: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print(*(name for name in {light!r} if name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == ""


def test_the_package_says_what_is_public() -> None:
    import hftlab.events

    assert all(hasattr(hftlab.events, name) for name in hftlab.events.__all__)
