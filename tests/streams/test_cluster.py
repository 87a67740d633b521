"""A lab in a Redis Cluster: found by the slot of its keys, and followed when that moves, with every event once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from hftlab.errors import AuthenticationFailed, ServerRefused, ServerUnreachable, ValidationError
from hftlab.events import EventBatch, EventType, SourceTable, SymbolTable
from hftlab.events.group_ports import Commit, Effect
from hftlab.streams import RedisStreamManager
from hftlab.streams.cluster import ClusterAddress, Node, View, read_view
from hftlab.streams.permissions import IN_CLUSTER, NEEDED
from hftlab.streams.urls import read_address
from tests.faults.full_run import FULL
from tests.faults.history import check_history
from tests.streams.asking import everything
from tests.streams.batches import log_sequences, mixed, trades
from tests.streams.cluster import Cluster, ClusterNode, cluster_of, condition, namespaces_on, running_cluster, slot_of
from tests.streams.fakes import fake_server
from tests.streams.servers import BINARIES, binary_of, until


@pytest.fixture(scope="module", params=BINARIES)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes, shared by the module: a node needs two seconds before it joins in."""
    binary = binary_of(request.param)
    with running_cluster(binary, tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
async def emptied(cluster: Cluster) -> AsyncIterator[Cluster]:
    """The cluster without data, every slot where it was at first."""
    yield cluster
    await cluster.reset()


def manager_on(cluster: Cluster, namespace: str, **settings: object) -> RedisStreamManager:
    settings.setdefault("seed", 1)
    return RedisStreamManager(cluster.url, namespace=namespace, progress=False, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("index", range(3))
async def test_a_lab_is_found_on_whichever_node_has_its_slot(emptied: Cluster, index: int) -> None:
    namespace = namespaces_on(index)[0]
    # One node is enough of an address, whichever it is.
    url = f"redis+cluster://127.0.0.1:{emptied.nodes[(index + 1) % 3].port}"
    async with RedisStreamManager(url, namespace=namespace, progress=False) as manager:
        await everything(manager)
        assert manager.statistics().retries == 0
        assert manager.address.connection["port"] == emptied.nodes[index].port
    assert await emptied.nodes[index].call("DBSIZE") > 0


async def test_two_labs_live_on_different_nodes_side_by_side(emptied: Cluster) -> None:
    one, other = namespaces_on(0)[0], namespaces_on(2)[0]
    async with manager_on(emptied, one) as first, manager_on(emptied, other) as second:
        await asyncio.gather(first.append(trades(300), session="day"), second.append(trades(200), session="day"))
        assert [len(await manager.range("day")) for manager in (first, second)] == [300, 200]
        assert first.address.connection["port"] != second.address.connection["port"]
        await first.delete("day")
        assert await first.sessions() == []
        assert len(await second.range("day")) == 200


async def _write(
    manager: RedisStreamManager, sent: Sequence[Sequence[EventBatch]], acknowledged: list[int], p: int
) -> None:
    writer = await manager.writer("day", f"w{p}")
    for batch in sent[p]:
        await writer.append(batch)
        acknowledged[p] += 1


@pytest.mark.parametrize("seed", range(2))
async def test_a_slot_that_moves_during_appends_loses_nothing_and_doubles_nothing(emptied: Cluster, seed: int) -> None:
    chance = random.Random(seed)
    index = chance.randrange(3)
    namespace = namespaces_on(index)[0]
    nodes = emptied.nodes
    sent = [[mixed(40, seed=1_000 * seed + 100 * p + i) for i in range(25)] for p in range(2)]
    acknowledged, moves = [0, 0], 0
    async with manager_on(emptied, namespace, frame_rows=10, seed=seed) as manager:
        tailed: list[int] = []
        await manager.append(mixed(10, seed=999_999), session="day")
        tailing = asyncio.create_task(_follow(manager, tailed))
        producing = [asyncio.create_task(_write(manager, sent, acknowledged, p)) for p in range(2)]
        while not all(task.done() for task in producing):
            goal = sum(acknowledged) + chance.randint(1, 10)
            await until(lambda: sum(acknowledged) >= goal or all(task.done() for task in producing))  # noqa: B023
            source, target = nodes[index], nodes[(index := (index + chance.choice((1, 2))) % 3)]
            assert await emptied.move(namespace, source, target, batch=1) > 0
            moves += 1
        await asyncio.gather(*producing)
        back = await manager.range("day")
        await until(lambda: len(tailed) == len(back))
        tailing.cancel()
        await asyncio.gather(tailing, return_exceptions=True)
        assert tailed == log_sequences(back) == list(range(2_010))
        first = [mixed(10, seed=999_999)]
        check_history(back, [(first, 1), *((sent[p], acknowledged[p]) for p in range(2))], whole=True)
        assert moves > 0
        assert manager.address.connection["port"] == nodes[index].port


async def _follow(manager: RedisStreamManager, seen: list[int]) -> None:
    async for batch in manager.tail("day", after=0):
        seen += log_sequences(batch)


async def test_a_member_of_a_group_reads_and_commits_each_event_once_though_the_slot_moves(emptied: Cluster) -> None:
    namespace = namespaces_on(0)[0]
    symbols, sources = SymbolTable(), SourceTable()
    seen: list[int] = []
    async with manager_on(emptied, namespace) as manager:
        await manager.append(trades(20), session="day")
        member = await manager.member("day", "g", types=EventType.MARKET_DATA, symbols=symbols, sources=sources)
        checkpoint = await member.acquire()
        assert checkpoint is not None
        serial = checkpoint.serial
        for turn in range(6):
            await manager.append(trades(20, seed=turn + 1), session="day")
            source, target = emptied.nodes[turn % 3], emptied.nodes[(turn + 1) % 3]
            moving = asyncio.create_task(emptied.move(namespace, source, target, batch=1))
            while len(seen) < 20 * (turn + 2):
                page = await member.read(EventType.MARKET_DATA, 7)
                seen += [number for batch in page.batches for number in log_sequences(batch)]
                serial += 1
                effect = Effect("INCRBY", "events", (b"%d" % sum(map(len, page.batches)),))
                await member.commit(Commit(serial, len(seen), transactions=((effect,),)))
            await moving
        assert seen == list(range(140))
        assert int(await manager._connections.call("GET", f"{{{namespace}}}:u:events")) == 140


async def test_a_lab_whose_slot_is_being_moved_waits_until_it_is_there(emptied: Cluster) -> None:
    namespace = namespaces_on(1)[0]
    source, target = emptied.nodes[1], emptied.nodes[2]
    async with manager_on(emptied, namespace) as manager:
        await manager.append(trades(50), session="day")
        # Half-way: some keys are here, some there, and no node can append.
        await target.call("CLUSTER", "SETSLOT", slot_of(namespace), "IMPORTING", source.id)
        await source.call("CLUSTER", "SETSLOT", slot_of(namespace), "MIGRATING", target.id)
        keys = await source.call("CLUSTER", "GETKEYSINSLOT", slot_of(namespace), 3)
        await source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)
        async with manager_on(emptied, namespace, deadline_s=0.2) as impatient:
            with pytest.raises(ServerRefused, match=r"being moved to another node.*larger deadline_s"):
                await impatient.append(trades(50, seed=1), session="day")
        before = manager.statistics().retries
        writing = asyncio.create_task(manager.append(trades(50, seed=1), session="day"))
        await until(lambda: manager.statistics().retries > before + 1)
        await emptied.move(namespace, source, target)
        await writing
        assert log_sequences(await manager.range("day")) == list(range(100))


async def test_a_node_that_is_killed_and_started_again_is_waited_for(emptied: Cluster) -> None:
    namespace = namespaces_on(2)[0]
    node = emptied.owner_of(namespace)
    sent = [[mixed(40, seed=i) for i in range(20)]]
    acknowledged = [0]
    async with manager_on(emptied, namespace, frame_rows=10) as manager:
        producing = asyncio.create_task(_write(manager, sent, acknowledged, 0))
        await until(lambda: acknowledged[0] >= 3)
        node.kill()
        node.start()
        await producing
        check_history(await manager.range("day"), [(sent[0], acknowledged[0])], whole=True)
        assert manager.statistics().retries > 0


async def test_a_user_who_may_not_ask_where_the_lab_is_is_told_what_to_grant(emptied: Cluster) -> None:
    namespace = namespaces_on(1)[0]
    rules = [rule.replace("{hftlab}", f"{{{namespace}}}") for rule in NEEDED]
    for granted in (rules, [*rules, *IN_CLUSTER]):
        for node in emptied.nodes:
            await node.call("ACL", "SETUSER", "lab", "reset", "on", ">s3cr3t", *granted)
        url = f"redis+cluster://lab:s3cr3t@127.0.0.1:{emptied.nodes[0].port}/"
        manager = RedisStreamManager(url, namespace=namespace, progress=False)
        if granted is rules:
            with pytest.raises(ServerRefused, match=r"ACL SETUSER <user> \+cluster\|myid\. "):
                await manager.open()
        else:
            await manager.append(trades(10), session="day")
            assert len(await manager.range("day")) == 10
            assert "s3cr3t" not in f"{manager!r} {manager.address} {manager.address!r}"
        await manager.close()
    with pytest.raises(AuthenticationFailed) as caught:
        await RedisStreamManager(f"redis+cluster://lab:s3cr3t-not@127.0.0.1:{emptied.nodes[0].port}/").open()
    assert "s3cr3t" not in str(caught.value)


# The other server's in the full run: each takes three seconds.
@pytest.mark.parametrize("binary", BINARIES if FULL else BINARIES[-1:])
async def test_a_replica_that_takes_over_is_followed(binary: str, tmp_path: Path) -> None:
    namespace = namespaces_on(0)[0]
    async with cluster_of(binary_of(binary), tmp_path, replicas=1) as cluster:
        primary, replica = cluster.nodes[0], cluster.nodes[3]
        sent = [[mixed(40, seed=i) for i in range(40)]]
        acknowledged = [0]
        async with manager_on(cluster, namespace, frame_rows=10) as manager:
            producing = asyncio.create_task(_write(manager, sent, acknowledged, 0))
            await until(lambda: acknowledged[0] >= 3)
            await replica.call("CLUSTER", "FAILOVER")
            await condition(lambda: _is_primary(replica))
            # What was the primary is gone for good; the others know.
            primary.kill()
            await producing
            check_history(await manager.range("day"), [(sent[0], acknowledged[0])], whole=True)
            assert manager.address.connection["port"] == replica.port


async def _is_primary(node: ClusterNode) -> bool:
    return bool((await node.call("ROLE"))[0] == b"master")


async def test_a_cluster_that_is_not_there_is_told_with_its_nodes(tmp_path: Path) -> None:
    manager = RedisStreamManager("redis+cluster://127.0.0.1:1,127.0.0.1:2", deadline_s=0.2)
    with pytest.raises(ServerUnreachable, match=r"no server answers at redis\+cluster://127\.0\.0\.1:1,127\.0\.0\.1:2"):
        await manager.open()
    await manager.close()


async def test_a_server_that_is_no_cluster_says_so_and_a_cluster_too(cluster: Cluster) -> None:
    def alone(command: list[bytes]) -> bytes:
        return b"+OK\r\n" if command[0] == b"CLIENT" else b"-ERR This instance has cluster support disabled\r\n"

    async with fake_server(alone, tcp=True) as url:
        manager = RedisStreamManager(url.replace("redis:", "redis+cluster:"), deadline_s=0.2)
        with pytest.raises(ServerRefused, match=r"no node of a Redis Cluster: write redis://"):
            await manager.open()
        await manager.close()
    elsewhere = RedisStreamManager(f"redis://127.0.0.1:{cluster.nodes[0].port}", namespace=namespaces_on(1)[0])
    with pytest.raises(ServerRefused, match=r"is a node of a Redis Cluster, and another .*redis\+cluster://"):
        await elsewhere.sessions()
    assert elsewhere.statistics().retries == 0
    await elsewhere.close()


@pytest.mark.parametrize(
    ("url", "label", "seeds"),
    [
        ("redis+cluster://a:7000,b:7001/", "redis+cluster://a:7000,b:7001/", [("a", 7000), ("b", 7001)]),
        ("redis+cluster://a", "redis+cluster://a:6379/", [("a", 6379)]),
        ("redis+cluster://u:s3cr3t@a:1,b:2/0", "redis+cluster://***@a:1,b:2/", [("a", 1), ("b", 2)]),
        ("rediss+cluster://:s3cr3t@a,a:6379,b", "rediss+cluster://***@a:6379,b:6379/", [("a", 6379), ("b", 6379)]),
        ("redis+cluster://[::1]:7000,[::2]:1", "redis+cluster://[::1]:7000,[::2]:1/", [("::1", 7000), ("::2", 1)]),
        ("redis+cluster://a:1?password=s3cr3t", "redis+cluster://***@a:1/", [("a", 1)]),
    ],
)  # fmt: skip
def test_a_clusters_url_is_read_and_shown_without_its_secrets(url: str, label: str, seeds: list[object]) -> None:
    found = read_address(url)
    assert isinstance(found, ClusterAddress)
    assert list(found.seeds) == seeds
    placed = found.at("day")
    for one in (found, placed):
        assert (str(one), one.label, repr(one)) == (label, label, f"ClusterAddress({label})")
        assert (one.credentials is None) == ("s3cr3t" not in url)
        assert "s3cr3t" not in repr(one.connection)
        again = read_address(one.reveal())
        assert isinstance(again, ClusterAddress)
        assert (again.label, again.seeds, again.scheme) == (label, found.seeds, found.scheme)
        if one.credentials is not None and again.credentials is not None:
            assert one.credentials.get_credentials() == again.credentials.get_credentials()


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://a:7000/1", "redis+cluster://a:7000,b:7001?db=2", "unix+cluster:///run/redis.sock",
        "redis+cluster://", "redis+cluster://a,,b", "redis+cluster://a:port", "redis+cluster://u:s3cr3t@a:1,b:x",
        "redis+cluster://a?socket_timeout=5", "redis+cluster://u:s3cr3t@a/abc", "http+cluster://u:s3cr3t@a",
        "redis+cluster://u:s3cr3t#@a", "redis+cluster://u:s3cr3t@[::1",
    ],
)  # fmt: skip
def test_what_is_no_clusters_address_is_refused_without_quoting_it(url: str) -> None:
    error = read_address(url)
    assert isinstance(error, ValidationError)
    assert "redis+cluster://user:password@host:port,host2:port2/" in str(error)
    assert "s3cr3t" not in str(error)
    with pytest.raises(ValidationError):
        RedisStreamManager(url)


def test_what_a_node_says_is_read_by_its_own_words() -> None:
    asked = Node("10.0.0.1", 7000)
    ranges = [
        [0, 99, [b"10.0.0.1", 7000, b"me"], [b"10.0.0.4", 7000, b"replica"]],
        [100, 199, [b"", 7001, b"other"]],
        [200, 299, [None, 7002, b"third", [b"hostname", b"x"]]],
        [300, 399, [b"?", 7003, b"fourth"]],
    ]
    nodes = (asked, Node("10.0.0.4", 7000), *(Node("10.0.0.1", port) for port in (7001, 7002, 7003)))
    for slot, owner, own in [(99, asked, True), (100, Node("10.0.0.1", 7001), False), (399, nodes[-1], False)]:
        assert read_view(slot, asked, b"me", b"cluster_state:ok\r\n", ranges) == View(owner, own, nodes)
    # It does not know better than others while it is cut off from them.
    assert read_view(0, asked, b"me", b"cluster_state:fail\r\n", ranges) == View(asked, False, nodes)
    assert read_view(400, asked, b"me", b"cluster_state:ok\r\n", ranges).owner is None
