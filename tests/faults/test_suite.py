"""Every scenario of the fault table, small: one seed on each server; ``HFTLAB_FAULTS=full`` runs the table as it is."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

import tests.faults.scenarios  # noqa: F401  (enters them)
from tests.faults import __main__ as program
from tests.faults.full_run import FULL, seeds
from tests.faults.suite import NO_SERVER, SCENARIOS, Counts, NotHere, Run, Scenario, attempt, chosen
from tests.faults.table import counted, table
from tests.streams.servers import BINARIES, binary_of

SCALE = 1.0 if FULL else 0.1

CASES = [
    (scenario, server)
    for scenario in chosen(())
    for server in (BINARIES if scenario.needs_server else (NO_SERVER,))
]  # fmt: skip


@pytest.mark.parametrize("seed", seeds(1))
@pytest.mark.parametrize(("scenario", "server"), CASES, ids=[f"{one.row}-{one.name}-{on}" for one, on in CASES])
def test_the_promise_holds(scenario: Scenario, server: str, seed: int, tmp_path: Path) -> None:
    binary = Path() if server == NO_SERVER else binary_of(server)
    trial = attempt(scenario, server, binary, seed, tmp_path, SCALE)
    if trial.not_here:
        pytest.skip(trial.not_here)
    assert not trial.error, f"again: {trial.again}\n{trial.error}"
    print(f"{scenario.row} {scenario.words}, {server}, seed {seed}: {dict(trial.counts)}, {trial.seconds:.2f} s")


def scenario_of(run: Run, deadline_s: float = 20.0) -> Scenario:
    return Scenario("F0", "nothing", "nothing happens", run, needs_server=False, deadline_s=deadline_s)


def error_of(run: Run, folder: Path, deadline_s: float = 20.0) -> str:
    trial = attempt(scenario_of(run, deadline_s), NO_SERVER, Path(), 7, folder)
    assert not trial.passed
    return trial.error


async def breaks(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    raise AssertionError("2 events are lost")


async def raises_nothing(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    with pytest.raises(KeyError):
        pass
    return {}


async def hangs(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    await asyncio.Event().wait()
    return {}


async def leaves_a_process(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])  # noqa: ASYNC220
    return {}


async def leaves_an_error(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    asyncio.get_running_loop().call_soon({"sent": 0}.__getitem__, "nobody sees this")
    await asyncio.sleep(0)
    return {}


async def passes(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    return {"sent": 10 + seed, "loss_ms": float(seed), "said": "yes"}


async def is_not_here(seed: int, binary: Path, folder: Path, scale: float) -> Counts:
    raise NotHere("no compiler")


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (breaks, "2 events are lost"),
        (raises_nothing, "DID NOT RAISE"),
        (leaves_a_process, "processes were left behind"),
        (leaves_an_error, "nobody sees this"),
    ],
)
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_a_trial_fails_where_it_must(run: Run, said: str, tmp_path: Path) -> None:
    assert said in error_of(run, tmp_path)


def test_a_trial_that_hangs_fails_at_its_deadline(tmp_path: Path) -> None:
    assert "TimeoutError" in error_of(hangs, tmp_path, deadline_s=0.02)


def test_the_table_adds_up_what_the_seeds_counted_and_says_what_could_not_be_run(tmp_path: Path) -> None:
    trials = [attempt(scenario_of(passes), NO_SERVER, Path(), seed, tmp_path) for seed in range(3)]
    assert counted(trials) == {"sent": "33", "loss_ms": "1.0 (most 2.0)", "said": "yes"}
    assert "sent 33, loss_ms 1.0 (most 2.0), said yes" in table(trials)
    missing = attempt(scenario_of(is_not_here), NO_SERVER, Path(), 0, tmp_path)
    assert not missing.passed
    assert not missing.error
    assert "not here: no compiler" in table([missing])


def test_a_row_or_a_scenario_is_asked_for_by_name() -> None:
    assert {one.row for one in chosen(["F2"])} == {"F2"}
    assert [one.name for one in chosen(["server_killed"])] == ["server_killed"]
    assert len(chosen([])) == len(SCENARIOS)
    with pytest.raises(LookupError, match="got 'F99'"):
        chosen(["F99"])


def test_the_program_prints_how_to_repeat_a_failure_and_writes_every_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SCENARIOS, "breaks", scenario_of(breaks))
    monkeypatch.setitem(SCENARIOS, "passes", scenario_of(passes))
    file = tmp_path / "faults.json"
    assert program.main(["breaks", "passes", "--seeds", "2", "--first-seed", "5", "--json", str(file)]) == 1
    said = capsys.readouterr().out
    assert "python -m tests.faults breaks --first-seed 6 --seeds 1" in said
    written = json.loads(file.read_text())
    assert [(one["scenario"], one["seed"], one["passed"]) for one in written] == [
        ("breaks", 5, False), ("passes", 5, True), ("breaks", 6, False), ("passes", 6, True),
    ]  # fmt: skip
    assert program.main(["passes", "--seeds", "1"]) == 0
