"""The peers' runs, on a few events, where they are installed: whether a handler really runs, not how fast."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import bus, delivery
from tests.bench.contenders import Contender, Unavailable, by_turns
from tests.bench.measurement import Goal, Measurement, noise, ratios, table
from tests.bench.peers import environments
from tests.bench.peers.environments import PEERS, Peer, interpreter
from tests.bench.peers.processes import PeerProcess, Visitor, visitors

A_HANDLER_EACH = {"S1": 1, "S2": 1_000}
SCALE = 0.002
WIRING_CALLS = 10  # csp calls a node's function a few times while it builds the graph


@pytest.fixture(params=PEERS, ids=lambda peer: peer.module)
def guests(request: pytest.FixtureRequest) -> Iterator[list[Visitor]]:
    try:
        process = PeerProcess(request.param, SCALE, make=False)
    except Unavailable as error:
        pytest.skip(str(error))
    with process:
        yield process.visitors()


def test_every_contender_of_a_peer_calls_its_handler_for_every_event(guests: list[Visitor]) -> None:
    assert guests
    for guest in guests:
        calls, handled = guest.calls()
        assert handled > 0
        if guest.board in A_HANDLER_EACH:
            assert 0 <= calls - handled // A_HANDLER_EACH[guest.board] <= WIRING_CALLS, guest
        else:
            assert calls == 0, guest  # compiled: its run checks its sum
        assert guest.rate() > 0


def test_a_process_that_has_failed_once_answers_the_next_question(guests: list[Visitor]) -> None:
    with pytest.raises(Unavailable, match="IndexError"):
        guests[0].process.ask("rate", 1_000)
    assert guests[0].rate() > 0


def test_a_peer_that_is_not_installed_is_named_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(environments.CACHE, str(tmp_path))
    absent = Peer("streamz", "no_such_package", "no_such_package>=1", ("S1",))
    monkeypatch.setattr("tests.bench.peers.processes.PEERS", (absent,))
    with visitors("S1", make=False) as (found, missing):
        assert found == []
    assert [one.skipped for one in missing] == [
        "no_such_package is not installed; pip install -e '.[bench]', or leave --no-environments away"
    ]
    assert "no_such_package" in table(missing)
    assert not any(tmp_path.iterdir())


def test_an_environment_that_can_not_be_made_is_not_taken_for_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(environments.CACHE, str(tmp_path))

    def refuse(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "first\nno room left\n")

    monkeypatch.setattr(subprocess, "run", refuse)
    peer = Peer("streamz", "no_such_package", "no_such_package>=1", ("S1",))
    for _ in range(2):
        with pytest.raises(Unavailable, match="can't be installed: no room left"):
            interpreter(peer)


def test_a_peers_process_that_ends_is_a_reason_and_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Peer("no_such_module", "json", "json", ("S1",))
    monkeypatch.setattr("tests.bench.peers.processes.PEERS", (broken,))
    with visitors("S1") as (found, missing):
        assert found == []
    assert "process ended with 1: ModuleNotFoundError: No module named 'tests.bench.peers.no_such_module'" in (
        missing[0].skipped
    )


def test_the_extra_brings_every_peer_that_can_share_an_environment() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extra = project["optional-dependencies"]["bench"]
    assert {peer.requirement for peer in PEERS if peer.shared} == {one for one in extra if "hftlab" not in one}


def test_a_peers_modules_import_nothing_of_hftlab() -> None:
    script = "import sys, tests.bench.peers.worker, tests.bench.peers.market, tests.bench.contenders;"
    script += "print([name for name in sys.modules if name.split('.')[0] in ('hftlab', 'numba')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_runs_are_taken_by_turns_and_one_that_can_not_run_leaves_the_others_alone() -> None:
    order: list[str] = []

    def contender(name: str, error: str = "") -> Contender:
        def run() -> int:
            order.append(name)
            if error:
                raise Unavailable(error)
            return 10

        return Contender("S1", "work", name, lambda: run)

    first, second, third = by_turns([contender("a"), contender("b", "no licence"), contender("c")], runs=2)
    assert order == ["a", "b", "c", "a", "c", "a", "c"]
    assert (len(first.figures), second.figures, second.skipped, len(third.figures)) == (2, (), "no licence", 2)


def test_a_peers_row_is_ours_over_its_median_on_every_work_of_its_board() -> None:
    found = [
        Measurement("S1a", "objects", "hftlab", figures=(2.0,)),
        Measurement("S1b", "fields", "hftlab", figures=(9.0,)),
        Measurement("S1", "ready ones", "peer", figures=(1.0, 3.0)),
        Measurement("S1a", "objects", "hftlab, bare", figures=(4.0,)),
        Measurement("S1", "objects", "absent", skipped="it is"),
    ]
    assert ratios(found[0], found) == []
    assert ratios(found[2], found) == [1.0, 4.5]
    assert ratios(found[3], found) == [0.5]
    assert "1.00x / 4.50x" in table(found)
    assert noise(found) == "noise: fastest over slowest run 3.00x at the median, 3.00x at most"
    assert noise(found[:1]) == "noise: not known from one run each"


def test_a_verdict_compares_medians_and_names_what_the_fastest_runs_say() -> None:
    found = [
        Measurement("S1a", "objects", "hftlab", figures=(2.0, 4.0, 9.0)),
        Measurement("S1", "ready ones", "peer", figures=(1.0, 2.0, 3.0)),
        Measurement("S12", "few", "hftlab", figures=(10.0, 20.0), lower_is_better=True),
        Measurement("S12", "many", "hftlab", figures=(11.0, 90.0), lower_is_better=True),
    ]
    beside = Goal("S1a", "objects", at_least=2.5, peer=("S1", "ready ones", "peer"))
    assert beside.verdict(found) == "S1a objects: 2.00 x peer, fastest runs 3.00 x (goal: at least 2.5) MISSED"
    grown = Goal("S12", "many", at_most=1.2, peer=("S12", "few", "hftlab"), fastest=True)
    assert grown.verdict(found) == "S12 many: 1.10 x few (goal: at most 1.2) met"
    assert Goal("S1a", "objects", at_least=1, peer=("S1", "ready ones", "absent")).verdict(found) == (
        "S1a objects: absent could not run here"
    )


def test_ours_and_the_floors_handle_every_event() -> None:
    for one in bus.contenders(events=4 * bus.BATCH_ROWS):
        handled = one.prepare()()
        assert handled > 0, one
        assert handled % bus.BATCH_ROWS == 0, one


def test_the_compiled_handler_sums_every_event() -> None:
    totals = []
    run = bus.through_bus(lambda made: totals.append(bus._jit_handler(made)), 4 * bus.BATCH_ROWS)
    run()
    records = bus.market(bus.BATCH_ROWS).records
    assert totals[0][0] == pytest.approx(4 * float((records["price"] * records["volume"]).sum()))


def test_every_goal_of_delivery_names_a_work_of_ours() -> None:
    ours = {(one.board, one.work) for one in bus.contenders(events=bus.BATCH_ROWS) if one.name == bus.OURS}
    assert {(goal.board, goal.work) for goal in delivery.GOALS} <= ours
