"""Sessions: found, listed, renamed, deleted; what is not there is explained."""

from __future__ import annotations

import asyncio

import pytest

from hftlab.errors import CodecError, SessionExists, UnknownSession, ValidationError
from hftlab.events.records import event_id
from hftlab.streams import EmbeddedServer, RedisStreamManager
from tests.streams.batches import log_sequences, trades
from tests.streams.servers import managed


async def test_sessions_are_listed_oldest_first(streams: RedisStreamManager) -> None:
    for name in ("b", "a", "c"):
        await streams.append(trades(3), session=name)
    infos = await streams.sessions()
    assert [info.name for info in infos] == ["b", "a", "c"]
    assert [info.number for info in infos] == [1, 2, 3]
    assert infos[0].created_ns <= infos[1].created_ns <= infos[2].created_ns


async def test_an_unknown_session_is_answered_with_those_that_there_are(one: RedisStreamManager) -> None:
    with pytest.raises(UnknownSession, match="there are none yet"):
        await one.session("day")
    await one.append(trades(3), session="btc-0808")
    with pytest.raises(UnknownSession, match="did you mean 'btc-0808'"):
        await one.session("btc-0880")
    with pytest.raises(UnknownSession, match="there are: 'btc-0808'"):
        await one.range("xyz")


async def test_a_session_keeps_its_events_and_ids_under_another_name(streams: RedisStreamManager) -> None:
    await streams.append(trades(10), session="old")
    info = await streams.rename("old", "new")
    assert (info.name, info.number, info.events) == ("new", 1, 10)
    assert (await streams.get(event_id(1, 5))).event_id == event_id(1, 5)
    assert [one.name for one in await streams.sessions()] == ["new"]
    with pytest.raises(UnknownSession):
        await streams.session("old")
    await streams.append(trades(3, seed=1), session="old")
    assert (await streams.session("old")).number == 2


async def test_renaming_does_not_take_a_name_that_is_taken(one: RedisStreamManager) -> None:
    await one.append(trades(1), session="a")
    await one.append(trades(1), session="b")
    with pytest.raises(SessionExists, match="'b' exists"):
        await one.rename("a", "b")
    assert (await one.rename("a", "a")).name == "a"
    with pytest.raises(UnknownSession):
        await one.rename("c", "d")
    with pytest.raises(ValidationError):
        await one.rename("a", "")


async def test_a_renamed_session_goes_on_being_published_to(one: RedisStreamManager) -> None:
    first = await one.append(trades(1))
    await one.rename(first.session, "kept")
    assert (await one.append(trades(1, seed=1))).session == "kept"
    assert (await one.session("kept")).events == 2


async def test_deleting_leaves_no_key_behind_and_no_number_is_given_twice(streams: RedisStreamManager) -> None:
    await streams.append(trades(5_000), session="day")
    await streams.publish(trades(2), session="day")
    await streams.delete("day")
    prefix = f"{{{streams._keys.namespace}}}"
    assert await streams._connections.call("KEYS", prefix.replace("[", "\\[") + "*") == [f"{prefix}:numbers".encode()]
    with pytest.raises(UnknownSession):
        await streams.delete("day")
    result = await streams.append(trades(5_000), session="day")
    assert (result.number, result.duplicate) == (2, False)


async def test_one_session_is_made_though_many_make_it_at_once(server: EmbeddedServer) -> None:
    async with managed(server) as one, managed(server, namespace=one._keys.namespace) as other:
        results = await asyncio.gather(
            *(manager.append(trades(50, seed=seed), session="day") for seed in range(10) for manager in (one, other))
        )
        assert len({result.number for result in results}) == 1
        assert sum(not result.duplicate for result in results) >= 10
        assert log_sequences(await one.range("day")) == list(range(500))


async def test_a_counter_that_was_lost_starts_over_without_taking_a_session_over(one: RedisStreamManager) -> None:
    for name in ("a", "b"):
        await one.append(trades(3), session=name)
    await one._connections.call("DEL", one._keys.numbers)
    assert (await one.append(trades(3), session="c")).number == 3
    assert [info.events for info in await one.sessions()] == [3, 3, 3]


async def test_namespaces_do_not_see_each_other(embedded: EmbeddedServer) -> None:
    async with managed(embedded) as one, managed(embedded) as other:
        await one.append(trades(3), session="day")
        assert await other.sessions() == []


async def test_a_meta_hash_that_is_not_ours_is_an_error_that_says_so(one: RedisStreamManager) -> None:
    await one.append(trades(3), session="day")
    await one._connections.call("HSET", one._keys.session(1).meta, "events", "many")
    with pytest.raises(CodecError, match="meta hash is damaged"):
        await one.session("day")


@pytest.mark.parametrize("wrong", ["", " x", "a\tb", None, 3])
async def test_a_session_needs_a_proper_name(one: RedisStreamManager, wrong: object) -> None:
    with pytest.raises(ValidationError, match="a session's name"):
        await one.session(wrong)  # type: ignore[arg-type]
