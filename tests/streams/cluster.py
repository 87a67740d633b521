"""A real Redis Cluster on loopback: a process a node, in folders of their own, ended with the test."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from tests.streams.certificates import Certificates
from tests.streams.servers import in_a_loop

SLOTS = 16_384
# A node takes its port plus 10,000 for its bus, unless told another one.
_BUS = 10_000


class ClusterNode:
    """One node: a process that can be killed and started again, and commands to just this one."""

    def __init__(self, binary: Path, folder: Path, port: int, tls: Certificates | None) -> None:
        self.port = port
        self.folder = folder
        self._binary = binary
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self.id = ""

    def start(self) -> None:
        """Start the process on the folder that it has."""
        self.folder.mkdir(exist_ok=True)
        lines = (
            *((f"port {self.port}",) if self._tls is None else (f"port 0\ntls-port {self.port}",)),
            *(() if self._tls is None else (*self._tls.settings, "tls-cluster yes", "tls-replication yes")),
            "bind 127.0.0.1",
            f"dir {self.folder}",
            "cluster-enabled yes",
            "cluster-config-file nodes.conf",
            "cluster-node-timeout 800",
            "appendonly yes",
            "appendfsync always",
            'save ""',
            "repl-diskless-sync-delay 0",
            f"logfile {self.folder / 'server.log'}",
        )
        self._process = subprocess.Popen(
            [str(self._binary), "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write("\n".join((*lines, "")).encode())
        self._process.stdin.close()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()

    async def call(self, *command: Any) -> Any:
        """One command to this node, on a connection of its own: clusters outlive the loops of tests."""
        secure: dict[str, Any] = {} if self._tls is None else {"ssl": True, "ssl_ca_certs": str(self._tls.authority)}
        async with Redis(host="127.0.0.1", port=self.port, socket_timeout=5, **secure) as client:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def info(self) -> dict[str, str]:
        """CLUSTER INFO."""
        said = await self.call("CLUSTER", "INFO")
        if isinstance(said, dict):
            return {str(name): str(value) for name, value in said.items()}
        text = said.decode() if isinstance(said, bytes) else str(said)
        return dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)


class Cluster:
    """Three primaries with a third of the slots each, and replicas of the first where asked for."""

    def __init__(self, nodes: list[ClusterNode]) -> None:
        self.nodes = nodes
        self._moved: dict[str, ClusterNode] = {}

    @property
    def url(self) -> str:
        """Its address, by all of its nodes."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes) + "/"

    def owner_of(self, namespace: str) -> ClusterNode:
        """The node that had the slot of a namespace at first."""
        return self.nodes[slot_of(namespace) * 3 // SLOTS]

    async def move(self, namespace: str, source: ClusterNode, target: ClusterNode, batch: int = 4) -> int:
        """Move a namespace's slot key by key, as redis-cli does; how many keys were moved."""
        slot = slot_of(namespace)
        await target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        await source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        moved = 0
        while keys := await source.call("CLUSTER", "GETKEYSINSLOT", slot, batch):
            await source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)
            moved += len(keys)
            # The writers under way shall meet every state in between.
            await asyncio.sleep(0)
        await self.assign(namespace, source, target)
        return moved

    async def assign(self, namespace: str, source: ClusterNode, target: ClusterNode) -> None:
        """Say whose the slot is from now on."""
        self._moved[namespace] = target
        for node in (target, source, *(one for one in self.nodes if one not in (source, target))):
            await node.call("CLUSTER", "SETSLOT", slot_of(namespace), "NODE", target.id)

    async def reset(self) -> None:
        """Delete everything, and give every slot back to the node that had it at first."""
        for node in self.nodes:
            await answers(node)
            await node.call("FLUSHALL")
        for namespace, holder in list(self._moved.items()):
            first = self.owner_of(namespace)
            if holder is not first:
                await first.call("CLUSTER", "SETSLOT", slot_of(namespace), "IMPORTING", holder.id)
                await self.assign(namespace, holder, first)
        self._moved.clear()
        await agree(self.nodes, len(self.nodes))


def slot_of(namespace: str) -> int:
    return int(key_slot(f"{{{namespace}}}".encode()))


def namespaces_on(index: int, count: int = 1, *, of: int = 3) -> list[str]:
    """Names whose slot is in the ``index``-th part of ``of``."""
    found = [name for number in range(200) if slot_of(name := f"lab-{number}") * of // SLOTS == index]
    return found[:count]


@asynccontextmanager
async def cluster_of(
    binary: Path, folder: Path, *, replicas: int = 0, tls: Certificates | None = None
) -> AsyncIterator[Cluster]:
    """A cluster that works, for as long as the block."""
    with _processes(binary, folder, 3 + replicas, tls) as nodes:
        await _joined(nodes, replicas)
        yield Cluster(nodes)


@contextmanager
def running_cluster(binary: Path, folder: Path) -> Iterator[Cluster]:
    """The same, for a fixture that has no loop."""
    with _processes(binary, folder, 3, None) as nodes:
        in_a_loop(_joined(nodes, 0))
        yield Cluster(nodes)


@contextmanager
def _processes(binary: Path, folder: Path, count: int, tls: Certificates | None) -> Iterator[list[ClusterNode]]:
    nodes: list[ClusterNode] = []
    try:
        for index, port in enumerate(free_ports(count)):
            node = ClusterNode(binary, folder / f"node-{index}", port, tls)
            nodes.append(node)
            node.start()
        yield nodes
    finally:
        for node in nodes:
            node.kill()


async def _joined(nodes: list[ClusterNode], replicas: int) -> None:
    for node in nodes:
        await answers(node)
        node.id = (await node.call("CLUSTER", "MYID")).decode()
    primaries = nodes[: len(nodes) - replicas]
    for index, node in enumerate(primaries):
        low, high = (-(-SLOTS * part // len(primaries)) for part in (index, index + 1))
        await node.call("CLUSTER", "ADDSLOTSRANGE", low, high - 1)
        await node.call("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
    for node in nodes[1:]:
        await nodes[0].call("CLUSTER", "MEET", "127.0.0.1", node.port)
    await agree(nodes, len(nodes))
    for node in nodes[len(primaries) :]:
        await node.call("CLUSTER", "REPLICATE", nodes[0].id)
    for node in nodes[len(primaries) :]:
        await condition(lambda: _replicates(node))  # noqa: B023
    # Who has not heard that it is a replica would not vote for it.
    for node in primaries:
        await condition(lambda: _knows(node, replicas))  # noqa: B023


async def agree(nodes: list[ClusterNode], known: int) -> None:
    """Return once every node knows all of them, and says that the cluster works."""

    async def whole(node: ClusterNode) -> bool:
        info = await node.info()
        return info["cluster_state"] == "ok" and int(info["cluster_known_nodes"]) == known

    for node in nodes:
        await condition(lambda: whole(node))  # noqa: B023


async def answers(node: ClusterNode) -> None:
    """Return once a node answers and has loaded its data."""

    async def ready() -> bool:
        try:
            return bool(await node.call("PING"))
        except (RedisError, OSError):
            return False

    await condition(ready)


async def _replicates(node: ClusterNode) -> bool:
    said = await node.call("INFO", "replication")
    return bool(said.get("master_link_status") == "up")


async def _knows(node: ClusterNode, replicas: int) -> bool:
    return str(await node.call("CLUSTER", "NODES")).count("slave") == replicas


async def condition(holds: Any, deadline_s: float = 20.0) -> None:
    """Return once an asynchronous condition holds; fails the test after the deadline."""
    async with asyncio.timeout(deadline_s):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, with their buses' ports beside them."""
    found: list[int] = []
    for port in range(22_000 + os.getpid() % 8_000, 32_000):
        if _is_free(port) and _is_free(port + _BUS):
            found.append(port)
            if len(found) == count:
                return found
    raise AssertionError("no ports are free")


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
