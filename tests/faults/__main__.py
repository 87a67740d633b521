"""``python -m tests.faults [F1 F3 …]``: the fault table against real servers; prints failures, then the table."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

import tests.faults.scenarios  # noqa: F401  (enters them)
from hftlab.errors import ServerUnreachable
from hftlab.streams.launch import find_binary
from tests.faults.suite import NO_SERVER, Scenario, Trial, attempt, chosen
from tests.faults.table import as_json, table

SERVERS = ("embedded", "redis-server")
Planned = tuple[Scenario, str, int]


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for. Returns 0, 1 where a promise was broken, 2 where not all could be run."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="rows (F1) or scenarios by name (all)")
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds of each (20)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--server", choices=(*SERVERS, "both"), default="both", help="which server (both)")
    parser.add_argument("--scale", type=float, default=1.0, help="how much of a fault one trial goes through (1)")
    parser.add_argument("--json", type=Path, help="where every trial goes, for a machine to read")
    parsed = parser.parse_args(arguments)
    try:
        scenarios = chosen(parsed.rows)
    except LookupError as error:
        parser.error(str(error))
    binaries = _binaries(SERVERS if parsed.server == "both" else (parsed.server,))
    seeds = range(parsed.first_seed, parsed.first_seed + parsed.seeds)
    trials: list[Trial] = []
    stopped = False
    try:
        _run(list(_plan(scenarios, binaries, seeds)), binaries, parsed.scale, trials)
    except KeyboardInterrupt:
        stopped = True
    print(table(trials))
    if parsed.json is not None:
        parsed.json.parent.mkdir(parents=True, exist_ok=True)
        parsed.json.write_text(json.dumps(as_json(trials), indent=1) + "\n")
    failed = [trial for trial in trials if trial.error]
    for trial in failed:
        print(f"FAILED {trial.scenario.row} {trial.scenario.name}, {trial.server}, seed {trial.seed}: {trial.again}")
    if stopped:
        print(f"stopped after {len(trials)} trials")
    if failed:
        return 1
    return 2 if stopped or not any(trial.passed for trial in trials) else 0


def _run(plan: list[Planned], binaries: dict[str, Path], scale: float, trials: list[Trial]) -> None:
    """Run all trials, one after the other, and add them to ``trials``; a failure is told at once."""
    with tqdm(plan, unit="trial", mininterval=0.5) as bar:
        for scenario, server, seed in bar:
            bar.set_description(f"{scenario.row} {scenario.name} {server}")
            trial = _tried(scenario, server, binaries.get(server, Path()), seed, scale)
            trials.append(trial)
            if trial.error:
                bar.write(f"FAILED {scenario.row} {scenario.name}, {server}, seed {seed}; again: {trial.again}")
                bar.write(trial.error)


def _plan(scenarios: list[Scenario], binaries: dict[str, Path], seeds: range) -> Iterator[Planned]:
    # Seed by seed: what is stopped halfway has tried everything about as often.
    for seed in seeds:
        for scenario in scenarios:
            for server in binaries if scenario.needs_server else (NO_SERVER,):
                yield scenario, server, seed


def _tried(scenario: Scenario, server: str, binary: Path, seed: int, scale: float) -> Trial:
    with tempfile.TemporaryDirectory(prefix="hftlab-fault-", ignore_cleanup_errors=True) as folder:
        return attempt(scenario, server, binary, seed, Path(folder), scale)


def _binaries(servers: tuple[str, ...]) -> dict[str, Path]:
    """The servers that this machine has; says which it has not."""
    found = {}
    for server in servers:
        path = shutil.which(server)
        if server == "embedded":
            try:
                path = str(find_binary())
            except ServerUnreachable as error:
                print(f"no embedded server: {error}", file=sys.stderr)
        elif path is None:
            print(f"no {server} on the PATH", file=sys.stderr)
        if path is not None:
            found[server] = Path(path)
    return found


if __name__ == "__main__":
    # What was run until then is told, also where a deadline of the caller's ends it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
