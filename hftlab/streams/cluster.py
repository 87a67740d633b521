"""Where in a Redis Cluster a lab is: the node that owns the slot of its keys, found, and found again when it moves.

All keys of a lab have one hash tag, so one node has them all, and everything else goes on as with a single server:
ordinary connections to that node. A cluster's address is one that may move (see ``MovingAddress``): after MOVED, a
failover or a dead node, the nodes that are known are asked again who owns the slot.

Nodes differ about it while something moves, so a node is believed about itself alone: the search goes from node to
node as each names the owner, and ends at one that says that it is the owner itself, of a cluster that works. A slot
that is being moved key by key is waited for (ASK and TRYAGAIN mean "later"): half of a lab's keys are of no use, for
an append needs them all at once, and the nodes refuse that until the last one has moved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot

from hftlab.streams.address import Credentials, signed
from hftlab.streams.refusals import FAILURES, Verdict, judge
from hftlab.streams.shared import MovingAddress

# A node that does not answer within that is passed over: another one may know.
_NODE_S = 1.0
# So many nodes are asked in one search: the answer is one or two steps away unless most of a cluster is down.
_MOST_NODES = 16


class Node(NamedTuple):
    """Where one node of a cluster listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class View(NamedTuple):
    """What one node says: who owns the slot (None: nobody), whether it does itself and works, and all nodes."""

    owner: Node | None
    is_owner: bool
    nodes: tuple[Node, ...]


class ClusterAddress(MovingAddress):
    """A cluster's address: ``seeds`` are the nodes that the URL names. ``at`` gives the one of a lab's slot.

    ``connection`` is the node that owns the slot, as far as it is known; the first seed until it was asked for.
    """

    __slots__ = ("_known", "_lock", "_loop", "_plain", "_tls", "seeds", "slot")

    def __init__(
        self, seeds: Sequence[Node], plain: dict[str, Any], credentials: Credentials | None, *, tls: bool, slot: int = 0
    ) -> None:
        self._plain = {name: value for name, value in plain.items() if name not in ("host", "port", "db")}
        self._tls = tls
        self.seeds = tuple(seeds)
        self.slot = slot
        self._known: tuple[Node, ...] = ()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()
        places = ",".join(map(str, self.seeds))
        label = f"{'rediss' if tls else 'redis'}+cluster://{'***@' if credentials else ''}{places}/"
        super().__init__(self._options_of(self.seeds[0]), credentials, label)

    def at(self, namespace: str) -> ClusterAddress:
        """The address of the lab with that namespace: an object of its own, which moves by itself."""
        slot = key_slot(f"{{{namespace}}}".encode())
        return ClusterAddress(self.seeds, self._plain, self.credentials, tls=self._tls, slot=slot)

    @property
    def scheme(self) -> str:
        """``redis`` or ``rediss``: how its nodes are spoken to."""
        return "rediss" if self._tls else "redis"

    @property
    def in_cluster(self) -> bool:
        """True."""
        return True

    @property
    def node(self) -> Node:
        """The node that is used at present."""
        return Node(self._options["host"], self._options["port"])

    def reveal(self) -> str:
        """The whole URL with its secrets, for another manager or lab. Don't print it."""
        options = f"?{urlencode(self._plain)}" if self._plain else ""
        places = ",".join(map(str, self.seeds))
        return f"{self.scheme}+cluster://{signed(self.credentials)}{places}/{options}"

    async def follow(self, patience_s: float) -> bool:
        """Ask the nodes that are known who owns the slot, for up to ``patience_s``; True when it is another one.

        Raises what will not change by itself: AuthenticationFailed, ServerRefused (it is no cluster, or the user may
        not ask). Where nobody can say, nothing changes.
        """
        before = self.moves
        async with self._turn():
            if self.moves != before:
                # Somebody else has just found it.
                return True
            verdict = None
            try:
                async with asyncio.timeout(patience_s):
                    verdict = await self._search()
            except TimeoutError:
                pass
        if verdict is not None:
            raise verdict.error
        return self.moves != before

    async def _search(self) -> Verdict | None:
        """Go from node to node until one owns the slot by its own words; a Verdict where that can't succeed."""
        asked: set[Node] = set()
        waiting = [self.node, *self._known, *self.seeds]
        named: Node | None = None
        hopeless: Verdict | None = None
        while waiting and len(asked) < _MOST_NODES:
            node = waiting.pop(0)
            if node in asked:
                continue
            asked.add(node)
            view = await self._ask(node)
            if isinstance(view, Verdict):
                hopeless = hopeless if view.retry else view
                continue
            self._known = view.nodes
            if view.is_owner and view.owner is not None:
                # By the name under which it answered: that is where clients reach it.
                self._settle(node)
                return None
            waiting += view.nodes
            if view.owner is not None and view.owner not in asked:
                named = view.owner
                waiting.insert(0, view.owner)
        if named is not None and not self.moves:
            # Nobody confirmed it, but to ask there is better than to begin with a node that surely is the wrong one.
            self._settle(named)
        return hopeless if named is None else None

    def _settle(self, node: Node) -> None:
        if self.moves and node == self.node:
            return
        self._options = self._options_of(node)
        self.shown = f"{node} of {self.label}"
        self.moves += 1

    async def _ask(self, node: Node) -> View | Verdict:
        try:
            async with asyncio.timeout(_NODE_S):
                replies = await self._replies(node)
        except FAILURES as error:
            return judge(error, self)
        except BaseException as error:
            # As in ``connections``: the frames below hold the arguments of AUTH.
            raise error.with_traceback(None) from None
        return read_view(self.slot, node, *replies)

    async def _replies(self, node: Node) -> list[Any]:
        kind = SSLConnection if self._tls else Connection
        connection = kind(
            credential_provider=self.credentials,
            socket_timeout=None,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            **self._options_of(node),
        )
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            replies = []
            for word in ("MYID", "INFO", "SLOTS"):
                await connection.send_command("CLUSTER", word, check_health=False)
                replies.append(await connection.read_response())
            return replies
        finally:
            await connection.disconnect(nowait=True)

    def _options_of(self, node: Node) -> dict[str, Any]:
        return {**self._plain, "host": node.host, "port": node.port}

    def _turn(self) -> asyncio.Lock:
        """One search at a time; a lock belongs to one event loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock

    def __repr__(self) -> str:
        return f"ClusterAddress({self.label})"


def read_view(slot: int, node: Node, my_id: bytes, info: bytes, ranges: list[list[Any]]) -> View:
    """What ``node`` said to CLUSTER MYID, INFO and SLOTS, about one slot."""
    works = b"cluster_state:ok" in info
    nodes: list[Node] = []
    owner, is_owner = None, False
    for low, high, primary, *replicas in ranges:
        nodes += [_place(one, node) for one in (primary, *replicas)]
        if low <= slot <= high:
            owner, is_owner = _place(primary, node), works and primary[2] == my_id
    return View(owner, is_owner, tuple(dict.fromkeys(nodes)))


def _place(said: list[Any], asked: Node) -> Node:
    # No host, or one that it does not know, means: where you asked me.
    host = (said[0] or b"").decode()
    return Node(asked.host if host in ("", "?") else host, int(said[1]))
