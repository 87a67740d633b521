"""The fault table as a suite: scenarios by row, one trial for each seed and server, and what came of them.

A scenario is an async function that does one kind of damage and judges what is left of it::

    @fault("F1", "SIGKILL the server while two writers append", promise="0 acknowledged lost, no holes")
    async def server_killed(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
        ...
        return {"sent": 4_800, "acknowledged": 4_800, "recovered": 4_800, "kills": 3}

It raises AssertionError where the promise is broken, and ``NotHere`` where this machine can't do the damage. ``folder``
is empty, its own, and removed afterwards; ``scale`` is 1.0 for the table and small in the ordinary tests. What a trial
leaves behind (a process, a task, an exception that nobody retrieved) fails it too. A new row is a new module in
``scenarios``, named in ``scenarios/__init__.py``.
"""

from __future__ import annotations

import asyncio
import shlex
import time
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

Counts = Mapping[str, int | float | str]
"""What a trial did and found. Integers are added up over the seeds, of floats the table shows median and most."""

NO_SERVER = "-"
"""What the table says in place of a server where a scenario needs none."""

# What a scenario needs to wind up: proxies notice that their clients have gone, servers write their logs.
_WIND_UP_S = 5.0


class NotHere(Exception):
    """This machine can't do what the scenario does; the message says what is missing."""


class Run(Protocol):
    """What ``fault`` decorates."""

    __name__: str

    def __call__(self, seed: int, binary: Path, folder: Path, scale: float) -> Awaitable[Counts]: ...


@dataclass(frozen=True)
class Scenario:
    """One kind of damage: the row of the table that it stands in, what is done, and what is promised."""

    row: str
    words: str
    promise: str
    run: Run
    needs_server: bool = True
    deadline_s: float = 120.0

    @property
    def name(self) -> str:
        """What it is asked for by."""
        return self.run.__name__


SCENARIOS: dict[str, Scenario] = {}


def fault(
    row: str, words: str, *, promise: str, needs_server: bool = True, deadline_s: float = 120.0
) -> Callable[[Run], Run]:
    """Enter a scenario under a row's number. ``needs_server=False``: it runs once a seed, with no server's binary."""

    def enter(run: Run) -> Run:
        scenario = Scenario(row, words, promise, run, needs_server, deadline_s)
        assert SCENARIOS.setdefault(scenario.name, scenario) is scenario, f"two scenarios are named {scenario.name}"
        return run

    return enter


def chosen(wanted: Iterable[str]) -> list[Scenario]:
    """The scenarios of the wanted rows or names (none: all), by row. Raises LookupError for one that there is not."""
    wanted = list(wanted)
    known = {scenario.row for scenario in SCENARIOS.values()} | set(SCENARIOS)
    for one in wanted:
        if one not in known:
            raise LookupError(f"a row or a scenario is one of {', '.join(sorted(known, key=_place))}; got {one!r}")
    found = [one for one in SCENARIOS.values() if not wanted or {one.row, one.name} & set(wanted)]
    return sorted(found, key=lambda one: _place(one.row))


def _place(row: str) -> tuple[int, str]:
    number = row[1:]
    return (int(number), "") if row[:1] == "F" and number.isdecimal() else (1_000, row)


@dataclass(frozen=True)
class Trial:
    """What came of one scenario with one seed on one server. ``error``: the broken promise, with where it broke."""

    scenario: Scenario
    server: str
    seed: int
    seconds: float
    counts: Counts = field(default_factory=dict)
    error: str = ""
    not_here: str = ""

    @property
    def passed(self) -> bool:
        return not self.error and not self.not_here

    @property
    def again(self) -> str:
        """The command that does the same once more."""
        words = ["python", "-m", "tests.faults", self.scenario.name, "--first-seed", str(self.seed), "--seeds", "1"]
        return shlex.join(words if self.server == NO_SERVER else [*words, "--server", self.server])


def attempt(scenario: Scenario, server: str, binary: Path, seed: int, folder: Path, scale: float = 1.0) -> Trial:
    """Run one trial in an event loop of its own. Never raises because of what the scenario does."""
    begun = time.perf_counter()
    counts: Counts = {}
    error = not_here = ""
    before = set(psutil.Process().children(recursive=True))
    try:
        with asyncio.Runner() as runner:
            counts = runner.run(_watched(scenario, seed, binary, folder, scale))
    except NotHere as reason:
        not_here = str(reason)
    # pytest.raises fails with an exception of its own, which is no Exception.
    except (Exception, pytest.fail.Exception) as failure:
        error = "".join(traceback.format_exception(failure))
    left = _ended([child for child in psutil.Process().children(recursive=True) if child not in before])
    if left and not error:
        error = f"processes were left behind: {', '.join(left)}"
    return Trial(scenario, server, seed, time.perf_counter() - begun, counts, error, not_here)


async def _watched(scenario: Scenario, seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    """The scenario within its deadline, and nothing of it left over afterwards."""
    unseen: list[str] = []

    def note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        unseen.append(f"{context.get('message')}: {context.get('exception')!r}")

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(note)
    async with asyncio.timeout(scenario.deadline_s):
        counts = await scenario.run(seed, binary, folder, scale)
    deadline = loop.time() + _WIND_UP_S
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        assert loop.time() < deadline, f"tasks were left behind: {others}"
        await asyncio.sleep(0.001)
    assert not unseen, f"exceptions that nobody saw: {'; '.join(unseen)}"
    return counts


def _ended(processes: list[psutil.Process]) -> list[str]:
    """Names of those of our processes that do not end by themselves in a moment; they are killed."""
    _, alive = psutil.wait_procs(processes, timeout=1.0)
    names = []
    for process in alive:
        try:
            names.append(f"{process.name()} ({process.pid})")
            process.kill()
        except psutil.NoSuchProcess:
            continue
    return names
