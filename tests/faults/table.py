"""The table that the suite prints, and the same for a machine to read."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from tests.faults.suite import Trial


def rows(trials: Iterable[Trial]) -> list[list[Trial]]:
    """The trials of each scenario on each server, in the order in which they were run."""
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        groups.setdefault((trial.scenario.name, trial.server), []).append(trial)
    return list(groups.values())


def counted(trials: Sequence[Trial]) -> dict[str, str]:
    """What the trials of one row counted: integers added up, of floats median and most, texts once each."""
    values: dict[str, list[Any]] = {}
    for trial in trials:
        for name, value in trial.counts.items():
            values.setdefault(name, []).append(value)
    return {name: _summed(some) for name, some in values.items()}


def _summed(values: list[Any]) -> str:
    if all(isinstance(value, int) for value in values):
        return f"{sum(values):,}"
    if all(isinstance(value, (int, float)) for value in values):
        return f"{statistics.median(values):,.1f} (most {max(values):,.1f})"
    return "/".join(dict.fromkeys(map(str, values)))


def table(trials: Iterable[Trial]) -> str:
    """One line a scenario and server: row, what is done, server, seeds, passed, seconds, counts; then the promises."""
    lines = [f"{'row':4} {'what is done':66} {'server':13} {'seeds':>5} {'passed':>6} {'s':>7}  counts"]
    groups = rows(trials)
    for group in groups:
        one = group[0]
        seconds = sum(trial.seconds for trial in group)
        if all(trial.not_here for trial in group):
            said, passed = f"not here: {one.not_here}", "-"
        else:
            said = ", ".join(f"{name} {value}" for name, value in counted(group).items())
            passed = str(sum(trial.passed for trial in group))
        lines.append(
            f"{one.scenario.row:4} {one.scenario.words:66} {one.server:13} {len(group):>5} {passed:>6} "
            f"{seconds:>7.1f}  {said}"
        )
    lines += ["", "promises:"]
    for scenario in dict.fromkeys(group[0].scenario for group in groups):
        lines.append(f"{scenario.row:4} {scenario.words}: {scenario.promise}")
    return "\n".join(lines)


def as_json(trials: Iterable[Trial]) -> list[dict[str, Any]]:
    """Every trial as plain values."""
    return [
        {
            "row": trial.scenario.row,
            "scenario": trial.scenario.name,
            "words": trial.scenario.words,
            "promise": trial.scenario.promise,
            "server": trial.server,
            "seed": trial.seed,
            "passed": trial.passed,
            "not_here": trial.not_here,
            "seconds": round(trial.seconds, 3),
            "counts": dict(trial.counts),
            "error": trial.error,
        }
        for trial in trials
    ]
