"""ACL users by URL: the least that they need, and what they are told where it is missing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import NoPermissionError

from hftlab.errors import AuthenticationFailed, ServerRefused
from hftlab.streams import Address, EmbeddedServer, RedisStreamManager
from hftlab.streams.permissions import DURABILITY, IN_CLUSTER, NEEDED
from hftlab.streams.refusals import judge
from hftlab.streams.urls import read_address
from tests.streams.asking import everything
from tests.streams.servers import fresh_namespace, managed

PASSWORD = "s3cr3t-password"


async def user_with(server: EmbeddedServer, rules: tuple[str, ...], namespace: str) -> RedisStreamManager:
    """A manager of a user with just these rules."""
    name = f"user-{namespace}"
    placed = [rule.replace("{hftlab}", f"{{{namespace}}}") for rule in rules]
    async with managed(server) as root:
        await root._connections.call("ACL", "SETUSER", name, "reset", "on", f">{PASSWORD}", *placed)
    url = f"unix://{server.address.connection['path']}?username={name}&password={PASSWORD}"
    return RedisStreamManager(url, namespace=namespace, progress=False, deadline_s=1.0)


async def test_the_rules_are_enough_for_everything(server: EmbeddedServer) -> None:
    namespace = fresh_namespace()
    manager = await user_with(server, NEEDED, namespace)
    async with manager:
        await everything(manager)
        assert "unknown" in repr(manager)
    known = await user_with(server, (*NEEDED, *DURABILITY), namespace)
    async with known:
        await everything(known)
        assert "kill -9 yes" in repr(known)


@pytest.mark.parametrize("left_out", [rule for rule in NEEDED if rule[0] in "~+"])
async def test_no_rule_can_be_left_out_and_the_error_says_what_to_grant(server: EmbeddedServer, left_out: str) -> None:
    rules = tuple(rule for rule in NEEDED if rule != left_out)
    manager = await user_with(server, rules, fresh_namespace())
    with pytest.raises(ServerRefused, match="does not let this user do it") as caught:
        await everything(manager)
    assert " ".join(NEEDED) in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert manager.statistics().retries == 0, "another try would not help"
    if not left_out.startswith(("~", "+@")) and left_out != "+time":
        assert f"ACL SETUSER <user> {left_out}. " in str(caught.value)
    await manager.close()


@pytest.mark.parametrize("command", ["hget", "smembers", "incr"])
async def test_one_command_that_is_missing_is_named(server: EmbeddedServer, command: str) -> None:
    manager = await user_with(server, (*NEEDED, f"-{command}"), fresh_namespace())
    with pytest.raises(ServerRefused, match=rf"ACL SETUSER <user> \+{command}\. "):
        await everything(manager)
    await manager.close()


async def test_what_the_rules_leave_out_stays_forbidden(server: EmbeddedServer) -> None:
    manager = await user_with(server, NEEDED, fresh_namespace())
    forbidden: list[tuple[Any, ...]] = [
        ("FLUSHALL",), ("FLUSHDB",), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("SHUTDOWN",), ("ACL", "LIST"),
        ("GET", "{somebody-else}:key"), ("SET", "somebody-else", "1"), ("MONITOR",),
    ]  # fmt: skip
    for command in forbidden:
        with pytest.raises(ServerRefused, match="does not let this user do it"):
            await manager._connections.call(*command)
    await manager.close()


async def test_a_wrong_password_and_a_user_that_is_off_are_told_from_a_missing_right(server: EmbeddedServer) -> None:
    namespace = fresh_namespace()
    await user_with(server, NEEDED, namespace)
    path = server.address.connection["path"]
    manager = RedisStreamManager(f"unix://{path}?username=user-{namespace}&password=wrong-{PASSWORD}")
    with pytest.raises(AuthenticationFailed, match="another user or password") as caught:
        await manager.open()
    assert PASSWORD not in str(caught.value)
    await manager.close()
    off = await user_with(server, ("off",), namespace)
    with pytest.raises(AuthenticationFailed):
        await off.open()
    await off.close()


def test_the_readme_has_the_same_rules() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    line = re.search(r"ACL SETUSER lab on >password (.*)", text)
    assert line is not None
    assert line[1] == " ".join(NEEDED)
    for rules in (IN_CLUSTER, DURABILITY):
        assert f"`{' '.join(rules)}`" in text


def test_a_clusters_user_is_told_the_clusters_rules_too() -> None:
    verdict = judge(NoPermissionError("User x has no permissions to run the 'cluster|myid' command"), _cluster())
    assert isinstance(verdict.error, ServerRefused)
    assert " ".join((*NEEDED, *IN_CLUSTER)) in str(verdict.error)
    assert "ACL SETUSER <user> +cluster|myid. " in str(verdict.error)


def _cluster() -> Address:
    address = read_address("redis+cluster://localhost")
    assert isinstance(address, Address)
    return address
